package sop

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// look takes one look as an operator who does nothing else.
func (g *ground) look() View {
	g.t.Helper()
	v, err := g.operator().Site.Observe(context.Background(), Scope{})
	require.NoError(g.t, err)
	return v
}

// idOn is the ID of the member on a host.
func (g *ground) idOn(name string) uint64 {
	g.t.Helper()
	c := g.etcd()
	for id, e := range c.members {
		if hostPart(e.peerURL) == name {
			return id
		}
	}
	g.t.Fatalf("no member is on %s", name)
	return 0
}

// waste has the databases of hosts hold bytes that are not in use.
func (g *ground) waste(bytes int64, names ...string) {
	g.t.Helper()
	for _, name := range names {
		g.etcd().unused[g.idOn(name)] = bytes
	}
}

// revisions has the key space come to one, with watches open.
func (g *ground) revisions(n int64) {
	g.t.Helper()
	c := g.etcd()
	c.revision, c.watchers, c.behind = n, 7, 1
}

// did lists what was done to members, in order.
func (g *ground) did(verb string) []string {
	var hosts []string
	for _, s := range g.w.sent {
		if at, ok := strings.CutPrefix(s, verb+" at "); ok {
			hosts = append(hosts, at)
		}
	}
	return hosts
}

func TestMoveLeader(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		p := MoveLeadership{To: hosts[2]}
		g.must(p)
		require.Equal(g.t, g.idOn(hosts[2]), g.etcd().leader)
		g.nothingToDo(p)
		away := MoveLeadership{From: hosts[2]}
		g.must(away)
		require.NotEqual(g.t, g.idOn(hosts[2]), g.etcd().leader)
		g.nothingToDo(away)

		g.refusal(g.operator(), MoveLeadership{To: hosts[4]}, "known-host")
		g.refusal(g.operator(), MoveLeadership{To: "no host"}, "valid-host")
		// With one dead the leader can still be moved, but not to the dead one.
		g.lead(hosts[0])
		g.w.machines[hosts[2]].powerOff()
		time.Sleep(6 * time.Second)
		r := g.refusal(g.operator(), MoveLeadership{To: hosts[2]}, "heir")
		require.Equal(g.t, hosts[2], r.Host)
		g.must(MoveLeadership{To: hosts[1]})
		require.Equal(g.t, g.idOn(hosts[1]), g.etcd().leader)
	})
}

// A hand-over to whoever is closest is not made twice: what was cut off after
// its change is gone on with.
func TestMoveLeaderCutOff(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		op := g.operator()
		_, ok := op.Site.CutOffMove(time.Now())
		require.False(g.t, ok)
		for n := 1; ; n++ {
			op = g.operator()
			died, at, err := op.dieAt(n, MoveLeadership{From: hosts[0]})
			require.NoError(g.t, err)
			if !died {
				break
			}
			p, ok := g.operator().Site.CutOffMove(time.Now())
			require.Equal(g.t, at.State != Began, ok, "%+v", at)
			if ok {
				require.Equal(g.t, MoveLeadership{From: hosts[0]}, p)
			}
		}
		_, ok = g.operator().Site.CutOffMove(time.Now())
		require.False(g.t, ok, "it was finished")
		require.Equal(g.t, []string{hosts[0]}, g.did("move"), "once")
	})
}

func TestDefragment(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[1])
		time.Sleep(time.Second)
		p := Defragment{Least: LeastWin, Soak: 20 * time.Second}
		res := g.must(p)
		require.True(g.t, res.Plan.Empty(), "nothing is unused")
		require.Len(g.t, res.Plan.Warnings, 3, "and it is said how much there is")

		// The fake refuses to defragment a leader, and two at once.
		g.waste(500<<20, hosts[0], hosts[1])
		g.waste(50<<20, hosts[2])
		began := time.Now()
		res = g.must(p)
		require.Equal(g.t, []string{hosts[0], hosts[1]}, g.did("defrag"), "the leader last, and not where it does not pay")
		require.Equal(g.t, []string{hosts[1]}, g.did("move"))
		require.GreaterOrEqual(g.t, time.Since(began), 2*defragTime+p.Soak)
		require.Less(g.t, time.Since(began), 2*defragTime+p.Soak+10*time.Second)
		require.Contains(g.t, strings.Join(res.Plan.Warnings, "\n"), "wins about 500.0 MiB")
		require.Contains(g.t, strings.Join(res.Plan.Warnings, "\n"), "does not pay: it would win 50.0 MiB")
		require.Zero(g.t, g.etcd().unused[g.idOn(hosts[1])])
		g.nothingToDo(p)

		g.must(Defragment{Least: 1 << 20})
		require.Equal(g.t, []string{hosts[0], hosts[1], hosts[2]}, g.did("defrag"))
	})
}

// The leader ends while a follower is defragmented: the next is not begun before
// there is another and all answer.
func TestDefragmentLosesTheLeader(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		g.waste(500<<20, hosts[:3]...)
		time.Sleep(time.Second)
		op := g.operator()
		op.on = func(r Record) {
			if r.Title == "defragment" && r.Host == hosts[1] && r.State == Recorded {
				time.AfterFunc(defragTime/2, func() { g.w.machines[hosts[0]].kill() })
			}
		}
		_, err := op.do(Defragment{Least: LeastWin})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "voters-answer", r.Safeguard)
		require.True(g.t, r.Changed)
		require.Equal(g.t, []string{hosts[1]}, g.did("defrag"))
		g.w.mu.Lock()
		g.w.machines[hosts[0]].start(time.Now())
		g.w.mu.Unlock()
		time.Sleep(6 * time.Second)
		g.must(Defragment{Least: LeastWin})
		require.ElementsMatch(g.t, hosts[:3], g.did("defrag"))
		require.Equal(g.t, hosts[1], g.did("defrag")[0])
	})
}

// An answer that is lost is no reason to do it again: the member says whether it
// was done. And a rerun waits for a member that is still at it.
func TestDefragmentUnheard(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		g.waste(500<<20, hosts[1])
		op := g.operator()
		op.Runner.Point = func(p Point) {
			if p.State == Recorded && p.Title == "defragment" {
				time.AfterFunc(time.Second, func() {
					op.dead.Store(true)
					op.Site.abandon()
				})
			}
		}
		_, err := op.do(Defragment{Least: LeastWin})
		require.Error(g.t, err)
		require.Len(g.t, g.etcd().busy, 1, "it goes on without us")
		g.must(Defragment{Least: LeastWin})
		require.Equal(g.t, []string{hosts[1]}, g.did("defrag"), "once")
		require.Empty(g.t, g.etcd().busy)
	})
}

func TestDefragmentRefusals(t *testing.T) {
	p := Defragment{Least: LeastWin}
	for _, c := range []struct {
		name, safeguard string
		spoil           func(g *ground)
	}{
		{"a voter is dead", "voters-answer", func(g *ground) { g.w.machines[hosts[2]].powerOff() }},
		{"an alarm that is not about space", "no-alarm", func(g *ground) { g.etcd().alarms[g.idOn(hosts[0])] = "CORRUPT" }},
		{"no room", "disk", func(g *ground) { g.w.machines[hosts[1]].free = 10 << 10 }},
		{"a version that loses count", "defrag-version", func(g *ground) {
			for _, h := range hosts[:3] {
				g.w.machines[h].is("3.5.5")
			}
		}},
		{"hashes that differ", "same-hash", func(g *ground) {
			g.waste(110<<20, hosts[:3]...) // not too large to be hashed
			g.etcd().compacted = 1
			g.etcd().hashes[g.idOn(hosts[1])] = 1
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				g.waste(500<<20, hosts[:3]...)
				c.spoil(g)
				time.Sleep(6 * time.Second)
				g.refusal(g.operator(), p, c.safeguard)
			})
		})
	}
	t.Run("a full database is no obstacle", func(t *testing.T) {
		bubble(t, 3, func(g *ground) {
			g.up()
			g.waste(200<<20, hosts[:3]...)
			g.etcd().dbSize = 1 << 30 // the part that is unused is small
			g.etcd().alarms[g.idOn(hosts[0])] = "NOSPACE"
			g.must(p)
			require.Len(g.t, slices.Compact(slices.Sorted(slices.Values(g.did("defrag")))), 3)
		})
	})
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4096": 4096, "64MiB": 64 << 20, "1GiB": 1 << 30, "2KiB": 2 << 10} {
		n, err := ParseBytes(text)
		require.NoError(t, err, text)
		require.Equal(t, want, n)
	}
	for _, text := range []string{"", "-1", "1.5GiB", "GiB", "1 GiB", "1G", "9999999999GiB"} {
		_, err := ParseBytes(text)
		require.Error(t, err, text)
	}
}

func TestCompact(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.revisions(100)
		g.refusal(g.operator(), Compact{Revision: 5000}, "past-revision")
		res := g.must(Compact{Revision: 90, Keep: 10})
		require.Equal(g.t, int64(90), g.etcd().compacted)
		require.Contains(g.t, strings.Join(res.Plan.Warnings, "\n"), "7 open watches, 1 of them behind")
		g.nothingToDo(Compact{Revision: 90, Keep: 10})
		g.nothingToDo(Compact{Revision: 50})
		res = g.must(Compact{Revision: -5, Keep: 1000})
		require.True(g.t, res.Plan.Empty())
		require.Contains(g.t, res.Plan.Warnings[0], "nothing older")
		require.Equal(g.t, int64(90), g.etcd().compacted)
		// It works under NOSPACE, for which it is the remedy, and not under CORRUPT.
		g.etcd().alarms[g.idOn(hosts[0])] = "NOSPACE"
		g.must(Compact{Revision: 95})
		g.etcd().alarms[g.idOn(hosts[0])] = "CORRUPT"
		g.refusal(g.operator(), Compact{Revision: 99}, "no-alarm")
	})
}

// An answer that is lost leaves it to the members to tell.
func TestCompactUnheard(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.revisions(100)
		lost := false
		g.w.peril = func(_, what string) fault {
			if what == "compact" && !lost {
				lost = true
				return fault{lost: true}
			}
			return fault{}
		}
		op := g.operator()
		op.Site.Deadlines[Rewriting] = 5 * time.Second
		_, err := op.do(Compact{Revision: 90})
		require.NoError(g.t, err, op.story())
		require.True(g.t, lost)
		require.Len(g.t, g.did("compact"), 2)
	})
}

func TestDisarmAlarm(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		p := DisarmAlarm{}
		g.nothingToDo(p)
		c := g.etcd()
		full := func(size, unused int64) {
			c.dbSize = size
			g.waste(unused, hosts[:3]...)
			c.alarms[g.idOn(hosts[1])] = "NOSPACE"
		}
		full(8<<30, 0)
		r := g.refusal(g.operator(), p, "alarm-cause")
		require.Contains(g.t, r.Hint, "compact")
		require.Empty(g.t, r.Risk, "it cannot be waived")
		full(1<<30, 7<<30)
		r = g.refusal(g.operator(), p, "alarm-cause")
		require.Contains(g.t, r.Hint, "defrag")
		require.Equal(g.t, "! NOSPACE", strings.SplitN(AlarmsOf(g.look()).Text(), ",", 2)[0])
		// Whose database it is does not matter: any that is full raises it again.
		full(1<<30, 0)
		g.waste(7<<30, hosts[2])
		r = g.refusal(g.operator(), p, "alarm-cause")
		require.Equal(g.t, hosts[2], r.Host)
		full(1<<30, 0)
		g.must(p)
		require.Empty(g.t, c.alarms)
		require.Len(g.t, g.did("disarm"), 1)
		g.nothingToDo(p)
		// One that outlived the member that raised it.
		c.alarms[4711] = "NOSPACE"
		g.must(p)
		require.Empty(g.t, c.alarms)
		c.alarms[g.idOn(hosts[1])] = "NOSPACE"
		g.w.machines[hosts[2]].powerOff()
		time.Sleep(6 * time.Second)
		g.refusal(g.operator(), p, "voters-answer")
	})
}

// CORRUPT is taken back only with proof that all members left have the same data.
func TestDisarmCorrupt(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		p, c := DisarmAlarm{}, g.etcd()
		c.alarms[0] = "CORRUPT"
		r := g.refusal(g.operator(), p, "alarm-cause")
		require.Contains(g.t, r.Found, "no majority")
		delete(c.alarms, 0)
		c.alarms[g.idOn(hosts[1])] = "CORRUPT"
		r = g.refusal(g.operator(), p, "alarm-cause")
		require.Contains(g.t, r.Hint, "replaceMember "+hosts[1])
		delete(c.alarms, g.idOn(hosts[1]))
		c.alarms[4711] = "CORRUPT"
		r = g.refusal(g.operator(), p, "alarm-cause")
		require.Contains(g.t, r.Found, "not known", "nothing was ever compacted, so there is no hash")
		g.revisions(100)
		c.compacted = 50
		c.hashes[g.idOn(hosts[2])] = 1
		g.refusal(g.operator(), p, "alarm-cause")
		delete(c.hashes, g.idOn(hosts[2]))
		g.must(p)
		require.Empty(g.t, c.alarms)
	})
}

func TestRaisedAlarms(t *testing.T) {
	v := View{Looks: []Look{{Alarms: []string{"memberID:7 alarm:NOSPACE ", "alarm:CORRUPT "}}, {Alarms: []string{"memberID:7 alarm:NOSPACE "}}}}
	require.ElementsMatch(t, []Alarm{{7, "NOSPACE"}, {0, "CORRUPT"}}, v.raised())
}

func (g *ground) certOn(name string) []byte {
	g.t.Helper()
	return g.w.machines[name].file(config.ServerCertPath).Content
}

func TestRotateCerts(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Hour)
		was, pids := map[string][]byte{}, map[string]int{}
		for _, h := range hosts[:3] {
			was[h], pids[h] = g.certOn(h), g.w.machines[h].proc.pid
		}
		p := RotateCerts{Since: time.Now(), Soak: 20 * time.Second}
		began := time.Now()
		var order []string
		g.w.peril = func(where, what string) fault {
			if strings.HasPrefix(what, "write "+config.ServerCertPath) {
				order = append(order, where)
			}
			return fault{}
		}
		g.must(p)
		require.Equal(g.t, []string{hosts[1], hosts[2], hosts[0]}, order)
		require.GreaterOrEqual(g.t, time.Since(began), 2*p.Soak)
		ca, err := os.ReadFile(filepath.Join(g.dir, "files/pki/ca/ca.crt"))
		require.NoError(g.t, err)
		for _, h := range hosts[:3] {
			require.NotEqual(g.t, was[h], g.certOn(h))
			require.Equal(g.t, pids[h], g.w.machines[h].proc.pid, "nothing is restarted")
			pair := pki.Pair{CertPEM: g.certOn(h), KeyPEM: g.w.machines[h].file(config.ServerKeyPath).Content}
			require.NoError(g.t, pki.CheckLeaf(pair, ca, h, time.Now(), 0), "key and certificate fit")
		}
		g.nothingToDo(p)
		time.Sleep(time.Hour)
		res := g.must(RotateCerts{Since: time.Now()})
		require.False(g.t, res.Plan.Empty(), "another rotation is another event")
	})
}

// Certificates that are about to end stop other procedures, and not this one.
func TestRotateCertsThatEnd(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.write(inventoryText(3, "", "        cert_validity: 40d\n"))
		g.up()
		time.Sleep(20 * 24 * time.Hour)
		g.refusal(g.operator(), Restart{Since: time.Now()}, "certificates")
		g.must(RotateCerts{Since: time.Now()})
		g.must(Restart{Since: time.Now()})
	})
}

func TestRotateCertsRefusals(t *testing.T) {
	for _, c := range []struct {
		name, safeguard string
		spoil           func(g *ground)
	}{
		{"a voter is dead", "voters-answer", func(g *ground) { g.w.machines[hosts[2]].kill() }},
		{"a host cannot be reached", "reachable", func(g *ground) { g.w.machines[hosts[2]].reach = false }},
		{"another key is there", "own-key", func(g *ground) { g.w.machines[hosts[1]].files[config.ServerKeyPath].content = []byte("another") }},
		{"another CA is there", "ca", func(g *ground) {
			other, err := pki.NewCA(rand.NewChaCha8([32]byte{9}), time.Now())
			require.NoError(g.t, err)
			g.w.machines[hosts[1]].files[config.CAPath].content = other.CertPEM
		}},
		{"somebody else signs", "ca-key", func(g *ground) { require.NoError(g.t, os.Remove(filepath.Join(g.dir, "files/pki/ca/ca.key"))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				c.spoil(g)
				time.Sleep(time.Minute)
				g.refusal(g.operator(), RotateCerts{Since: time.Now()}, c.safeguard)
			})
		})
	}
}

// One that still shows its old certificate stops the rotation before the next.
func TestRotateCertsThatAreNotTaken(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		time.Sleep(time.Hour)
		g.lead(hosts[0])
		old := g.certOn(hosts[1])
		g.etcd().stuck = map[uint64][]byte{g.idOn(hosts[1]): old}
		op := g.operator()
		_, err := op.do(RotateCerts{Since: time.Now()})
		require.ErrorContains(g.t, err, "still shows another certificate")
		require.Equal(g.t, 1, strings.Count(strings.Join(g.w.sent, "\n"), "write "+config.ServerCertPath)-3, "three were written when it was created")
	})
}

// What a member says is final; what nobody heard is not.
func TestJudgeAnswer(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{nil, Applied},
		{rpctypes.ErrCompacted, Unknown},
		{rpctypes.ErrFutureRev, Rejected},
		{rpctypes.ErrPermissionDenied, Rejected},
		{status.Error(codes.Unknown, "write /data/etcd/member/snap/db.tmp: no space left on device"), Rejected},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), Unknown},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), Unknown},
		{context.DeadlineExceeded, Unknown},
		{errors.New("no voter answers"), Rejected},
	} {
		require.Equal(t, c.want, judgeAnswer(c.err), "%v", c.err)
	}
}
