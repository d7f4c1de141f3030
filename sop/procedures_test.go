package sop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// nothingToDo runs a procedure again, which must find its goal reached.
func (g *ground) nothingToDo(p Procedure) {
	g.t.Helper()
	before := g.fingerprint()
	res := g.must(p)
	require.True(g.t, res.Plan.Empty(), "%s", res.Plan.Text(res.View))
	require.False(g.t, res.Changed)
	require.Equal(g.t, before, g.fingerprint())
}

func (g *ground) conf(name string) config.Member {
	g.t.Helper()
	c, err := config.ParseMember(g.w.machines[name].file(config.ConfPath).Content)
	require.NoError(g.t, err)
	return c
}

func (g *ground) env(name string) []string {
	g.t.Helper()
	c, err := config.ParseClientEnv(g.w.machines[name].file(config.EnvPath).Content)
	require.NoError(g.t, err)
	return c.Endpoints
}

func clientURLs(seqs ...int) []string {
	var urls []string
	for _, s := range seqs {
		urls = append(urls, "https://"+hosts[s-1]+":2379")
	}
	return urls
}

// referencesName checks that every member's files name these hosts, no others,
// and that a wiped host could not found a second cluster.
func (g *ground) referencesName(seqs ...int) {
	g.t.Helper()
	for _, s := range seqs {
		name := hosts[s-1]
		require.ElementsMatch(g.t, clientURLs(seqs...), g.env(name), "endpoints on %s", name)
		c := g.conf(name)
		require.Equal(g.t, config.StateExisting, c.State)
		require.Len(g.t, c.Initial, len(seqs), "initial-cluster on %s", name)
		for _, o := range seqs {
			require.Contains(g.t, c.Initial, config.Peer{Name: fmt.Sprintf("etcd-%d", o), URL: "https://" + hosts[o-1] + ":2380"})
		}
	}
}

func TestCreateCluster(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			bubble(t, n, func(g *ground) {
				seqs := []int{1, 2, 3, 4, 5}[:n]
				p := g.create()
				g.must(p)
				require.Equal(g.t, votersText(seqs...), g.roles())
				g.referencesName(seqs...)
				require.Equal(g.t, p.Token, g.conf(hosts[0]).Token)
				require.Empty(g.t, g.etcd().keys, "lock and probes are gone")
				for _, h := range hosts[:n] {
					require.Empty(g.t, g.w.machines[h].claim.Token, "the lock of %s", h)
				}
				g.nothingToDo(g.create())
			})
		})
	}
}

func TestGrowOneByOne(t *testing.T) {
	bubble(t, 1, func(g *ground) {
		g.up()
		for n := 2; n <= 5; n++ {
			op := g.operator()
			_, err := op.do(AddMember{Host: hosts[n-1]})
			require.NoError(g.t, err, op.story())
			seqs := []int{1, 2, 3, 4, 5}[:n]
			require.Equal(g.t, votersText(seqs...), g.roles())
			g.referencesName(seqs...)
			require.Equal(g.t, n == 2, strings.Contains(op.story(), "nothing may fail"), "only from one to two: %s", op.story())
			g.nothingToDo(AddMember{Host: hosts[n-1]})
			_, dropIn := g.w.machines[hosts[n-1]].files[config.JoinDropInPath]
			require.False(g.t, dropIn, "the drop-in is for the time of the join")
		}
		require.Equal(g.t, inventoryText(5, "", ""), withComments(g.read(), 5))
	})
}

// withComments puts the test inventory's comments to the lines that an edit
// has added.
func withComments(text string, n int) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		for k := range n {
			if strings.TrimSpace(l) == fmt.Sprintf("%s: { etcd_seq: %d }", hosts[k], k+1) {
				lines[i] = fmt.Sprintf("        %s: { etcd_seq: %d } # host %d", hosts[k], k+1, k+1)
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestShrink(t *testing.T) {
	bubble(t, 5, func(g *ground) {
		g.up()
		remove := func(n int) RemoveMember { return RemoveMember{Host: hosts[n-1], Stamp: stampNow()} }
		for n := 5; n > 3; n-- {
			g.must(remove(n))
			g.referencesName([]int{1, 2, 3, 4}[:n-1]...)
			g.nothingToDo(remove(n))
		}
		for n := 3; n > 1; n-- {
			r := g.refusal(g.operator(), remove(n), "spare")
			require.NotEmpty(g.t, r.Risk, "it can be waived by name")
			op := g.operator()
			op.Runner.Waive = []string{"spare"}
			_, err := op.do(remove(n))
			require.NoError(g.t, err, op.story())
			require.Contains(g.t, op.story(), "waived spare")
		}
		require.Equal(g.t, votersText(1), g.roles())
		op := g.operator()
		op.Runner.Waive = []string{"spare", "votes"}
		g.refusal(op, remove(1), "votes")
	})
}

// gone checks what must be left of a member that was taken out.
func (g *ground) gone(name string) {
	g.t.Helper()
	time.Sleep(2 * time.Second)
	m := g.w.machines[name]
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.tick()
	u := m.unit()
	require.Equal(g.t, "masked", u.Load)
	require.Equal(g.t, "masked", u.Enabled)
	require.False(g.t, u.Runs())
	d := m.dirFacts("/data/etcd")
	require.Empty(g.t, d.Entries)
	require.Len(g.t, d.Aside, 1, "its data is kept")
	require.NotContains(g.t, g.read(), name)
}

func TestRemoveMember(t *testing.T) {
	for _, c := range []struct {
		name   string
		leader string
	}{{"follower", hosts[0]}, {"leader", hosts[2]}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 4, func(g *ground) {
				g.up()
				g.lead(c.leader)
				p := RemoveMember{Host: hosts[2], Stamp: stampNow()}
				g.must(p)
				require.Equal(g.t, votersText(1, 2, 4), g.roles())
				g.referencesName(1, 2, 4)
				g.gone(hosts[2])
				require.Equal(g.t, c.name == "leader", slices.ContainsFunc(g.w.sent, func(s string) bool { return strings.HasPrefix(s, "move at") }))
				g.nothingToDo(p)
			})
		})
	}
}

// The references go first, then the leadership, then the member, and its etcd
// is stopped when the others have agreed on that.
func TestRemoveMemberOrder(t *testing.T) {
	bubble(t, 4, func(g *ground) {
		g.up()
		g.lead(hosts[2])
		from := len(g.w.sent)
		g.must(RemoveMember{Host: hosts[2], Stamp: stampNow()})
		var order []string
		for _, s := range g.w.sent[from:] {
			for _, key := range []string{"write /etc/profile.d/etcdctl.sh on " + hosts[0], "move at", "remove at", "systemctl stop", "set aside", "systemctl mask"} {
				if strings.HasPrefix(s, key) {
					order = append(order, key)
				}
			}
		}
		require.Equal(g.t, []string{"write /etc/profile.d/etcdctl.sh on " + hosts[0], "move at", "remove at", "systemctl stop", "systemctl mask", "set aside"}, order)
	})
}

func TestRemoveDeadMember(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.machines[hosts[1]].powerOff()
		p := RemoveMember{Host: hosts[1], Stamp: stampNow()}
		g.must(p)
		require.Equal(g.t, votersText(1, 3), g.roles())
		g.referencesName(1, 3)
		g.nothingToDo(p)
		// Back again, it is stopped by its peers and can be retired.
		g.w.machines[hosts[1]].powerOn()
		time.Sleep(5 * time.Second)
		g.must(p)
		g.gone(hosts[1])
		g.nothingToDo(p)
	})
}

// An add is given up at each of its stages, also with the newcomer dead.
func TestGiveUpAnAdd(t *testing.T) {
	for _, at := range []string{"add to the inventory", "write etcd.conf", "start etcd", "promote to voter"} {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dead %v", at, dead), func(t *testing.T) {
				bubble(t, 3, func(g *ground) {
					g.up()
					before := g.read()
					op := g.operator()
					op.Runner.Point = func(p Point) {
						if p.Title == at && p.State == Began {
							op.dead.Store(true)
							op.Site.abandon()
							panic(killedAt{p})
						}
					}
					require.Panics(g.t, func() { _, _ = op.do(AddMember{Host: hosts[3]}) })
					time.Sleep(time.Second)
					require.Contains(g.t, g.roles(), hosts[3])
					if dead {
						g.w.machines[hosts[3]].powerOff()
					}
					p := RemoveMember{Host: hosts[3], Stamp: stampNow()}
					g.must(p)
					require.Equal(g.t, votersText(1, 2, 3), g.roles())
					g.referencesName(1, 2, 3)
					require.Equal(g.t, before, g.read())
					g.nothingToDo(p)
				})
			})
		}
	}
}

// A newcomer that raised NOSPACE itself can be given up: under that alarm the
// cluster takes no leases and no puts.
func TestGiveUpUnderTheNewcomersAlarm(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		op.Runner.Point = func(p Point) {
			if p.Title == "promote to voter" {
				op.dead.Store(true)
				op.Site.abandon()
				panic(killedAt{p})
			}
		}
		require.Panics(g.t, func() { _, _ = op.do(AddMember{Host: hosts[3]}) })
		time.Sleep(15 * time.Second)
		c := g.etcd()
		for id, e := range c.members {
			if e.learner {
				c.alarms[id] = "NOSPACE"
			}
		}
		g.refusal(g.operator(), AddMember{Host: hosts[3]}, "no-alarm")
		g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
		for _, h := range hosts[:4] {
			require.Empty(g.t, g.w.machines[h].claim.Token)
		}
	})
}

func TestRestart(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		var order []string
		most := 0
		g.w.peril = func(where, what string) fault {
			if strings.HasPrefix(what, "systemctl restart") {
				order = append(order, where)
			}
			down := 0
			for _, m := range g.w.machines {
				if m.files[wantsPath] != nil && (m.proc == nil || !m.proc.ready) {
					down++
				}
			}
			most = max(most, down)
			return fault{}
		}
		p := Restart{Since: time.Now(), Soak: 2 * time.Second}
		before := map[string]int{}
		for _, h := range hosts[:3] {
			before[h] = g.w.machines[h].proc.pid
		}
		g.must(p)
		require.Equal(g.t, []string{hosts[1], hosts[2], hosts[0]}, order, "the leader comes last")
		require.Equal(g.t, 1, most, "one at a time")
		require.Contains(g.t, strings.Join(g.w.sent, "\n"), "move at "+hosts[0])
		for _, h := range hosts[:3] {
			require.NotEqual(g.t, before[h], g.w.machines[h].proc.pid)
		}
		g.nothingToDo(p)
		time.Sleep(time.Second)
		res := g.must(Restart{Since: time.Now(), Soak: 0})
		require.False(g.t, res.Plan.Empty(), "another restart is another event")
	})
}

func TestReloadConfig(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.nothingToDo(ReloadConfig{})
		spoil := func(name string) {
			m := g.w.machines[name]
			env := strings.ReplaceAll(string(m.file(config.EnvPath).Content), "https://10.10.10.13:2379", "https://10.10.10.19:2379")
			m.files[config.EnvPath] = &node{content: []byte(env), owner: "root", group: "root", mode: 0o755}
			conf, err := config.EditMember(m.file(config.ConfPath).Content, config.MemberEdit{Initial: &[]config.Peer{{Name: "etcd-1", URL: "https://10.10.10.11:2380"}}})
			require.NoError(g.t, err)
			m.files[config.ConfPath] = &node{content: conf, owner: "etcd", group: "etcd", mode: 0o640}
		}
		spoil(hosts[0])
		spoil(hosts[1])
		pids := g.w.machines[hosts[0]].proc.pid
		g.must(ReloadConfig{Only: []string{hosts[0]}})
		require.NotEqual(g.t, clientURLs(1, 2, 3), g.env(hosts[1]), "only the one host")
		g.must(ReloadConfig{Only: []string{"etcdctl.sh"}})
		require.Len(g.t, g.conf(hosts[1]).Initial, 1, "only the one kind of file")
		g.must(ReloadConfig{})
		g.referencesName(1, 2, 3)
		require.Equal(g.t, os.FileMode(0o755), g.w.machines[hosts[0]].file(config.EnvPath).Mode, "the file keeps its mode")
		require.Equal(g.t, pids, g.w.machines[hosts[0]].proc.pid, "nothing was restarted")
		p := ReloadConfig{Restart: true, Since: time.Now()}
		g.must(p)
		require.NotEqual(g.t, pids, g.w.machines[hosts[0]].proc.pid)
		g.nothingToDo(p)
	})
}

// A file of another etcd's clients is left alone.
func TestReloadLeavesOthersAlone(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		m := g.w.machines[hosts[0]]
		foreign := config.ClientEnv{Endpoints: []string{"https://10.9.9.9:2379"}}.Render()
		m.files[config.EnvPath] = &node{content: foreign, owner: "root", group: "root", mode: 0o644}
		g.nothingToDo(ReloadConfig{})
		require.Equal(g.t, string(foreign), string(m.file(config.EnvPath).Content))
	})
}

func TestSnapshot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.lead(hosts[0])
		time.Sleep(time.Second)
		file := filepath.Join(g.dir, "my.db")
		p := Snapshot{File: file, Since: time.Now()}
		from := len(g.w.sent)
		res := g.must(p)
		require.Len(g.t, g.w.sent, from, "a snapshot changes nothing, and takes no lock")
		require.False(g.t, res.Changed)
		saved, err := VerifySnapshot(file)
		require.NoError(g.t, err)
		require.Equal(g.t, 3, saved.Keys)
		require.Equal(g.t, int64(4), saved.Revision)
		require.NotContains(g.t, res.View.Admin.Snapshot.From, hosts[0], "the leader is left to its work")
		info, err := os.Stat(file)
		require.NoError(g.t, err)
		require.Equal(g.t, os.FileMode(0o600), info.Mode().Perm())
		g.nothingToDo(p)
		g.refusal(g.operator(), Snapshot{File: file, Since: time.Now(), Exists: true}, "no-overwriting")
	})
}

// Destroy keeps the data, purge deletes it, and afterwards a cluster can be
// created again, with an ID of its own.
func TestDestroyAndPurgeAndCreateAgain(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		first := g.etcd().id
		op := g.operator()
		_, err := op.do(DestroyCluster{Stamp: stampNow()})
		require.NoError(g.t, err, op.story())
		require.Len(g.t, op.consent, 1)
		require.Equal(g.t, ID(first), op.consent[0].Code)
		for _, h := range hosts[:3] {
			d := g.w.machines[h].dirFacts("/data/etcd")
			require.Empty(g.t, d.Entries)
			require.Len(g.t, d.Aside, 1)
			require.False(g.t, g.w.machines[h].unit().Runs())
			require.Equal(g.t, "disabled", g.w.machines[h].unit().Enabled)
		}
		g.nothingToDo(DestroyCluster{Stamp: stampNow()})
		g.up()
		require.NotEqual(g.t, first, g.etcd().id)
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
		op = g.operator()
		_, err = op.do(PurgeCluster{})
		require.NoError(g.t, err, op.story())
		require.Equal(g.t, "delete", op.consent[0].Verb)
		for _, h := range hosts[:3] {
			m := g.w.machines[h]
			require.Empty(g.t, m.under("/data/etcd"), "what was set aside goes too")
			require.Empty(g.t, m.under(config.ConfDir))
			require.False(g.t, m.file(config.EnvPath).Exists)
			require.Equal(g.t, "not-found", m.unit().Load)
		}
		g.nothingToDo(PurgeCluster{})
		g.up()
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}

func TestPurgeHost(t *testing.T) {
	bubble(t, 4, func(g *ground) {
		g.up()
		g.refusal(g.operator(), PurgeHost{Host: hosts[3]}, "no-member")
		g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		op := g.operator()
		_, err := op.do(PurgeHost{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.NotEmpty(g.t, op.consent[0].Code)
		require.Empty(g.t, g.w.machines[hosts[3]].under("/data/etcd"))
		g.nothingToDo(PurgeHost{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
		// And back in, with an etcd_seq that nobody had.
		g.must(AddMember{Host: hosts[3]})
		require.Contains(g.t, g.roles(), hosts[3]+" etcd-5 voter")
	})
}

// A host that was removed can be added again as it is, masked and with its old
// data set aside.
func TestAddAgain(t *testing.T) {
	bubble(t, 4, func(g *ground) {
		g.up()
		g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		g.must(AddMember{Host: hosts[3]})
		require.Contains(g.t, g.roles(), hosts[3])
		require.Equal(g.t, "enabled", g.w.machines[hosts[3]].unit().Enabled)
	})
}

// Nobody agreed, nothing happens.
func TestConsentIsNeeded(t *testing.T) {
	for _, p := range []Procedure{DestroyCluster{Stamp: "20260101T000000Z"}, PurgeCluster{}} {
		bubble(t, 3, func(g *ground) {
			g.up()
			op := g.operator()
			op.Runner.Agree = nil
			before := g.fingerprint()
			_, err := op.do(p)
			require.ErrorIs(g.t, err, ErrRefused)
			require.Equal(g.t, before, g.fingerprint())
			op = g.operator()
			op.Runner.Agree = func(c Consent) error { return &Refusal{Safeguard: "consent", Found: "no"} }
			_, err = op.do(p)
			require.ErrorIs(g.t, err, ErrRefused)
			require.Equal(g.t, before, g.fingerprint())
		})
	}
}

// The journal says what will be done before it is done, all of it.
func TestJournalIsTruthful(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		var untold []string
		told := func() int {
			op.mu.Lock()
			defer op.mu.Unlock()
			n := 0
			for _, r := range op.records {
				if r.State == Recorded {
					n++
				}
			}
			return n
		}
		acts := 0
		g.w.peril = func(where, what string) fault {
			switch what {
			case "add", "promote", "remove", "move":
			default:
				if !strings.Contains(what, " ") || what == (host.Note{}).String() {
					return fault{} // a question, the lock, or the line that says who is here
				}
			}
			if acts++; told() < acts {
				untold = append(untold, what)
			}
			return fault{}
		}
		p := AddMember{Host: hosts[3]}
		_, err := op.do(p)
		require.NoError(g.t, err)
		require.Empty(g.t, untold)
		records := op.records
		require.Equal(g.t, Waiting, records[0].State) // between the two looks
		require.Equal(g.t, Began, records[1].State)
		require.Equal(g.t, Finished, records[len(records)-1].State)
		for i, r := range records {
			require.Equal(g.t, i+1, r.Seq)
			require.Equal(g.t, p.String(), r.Procedure)
			require.False(g.t, r.Time.IsZero())
			if r.State == Recorded {
				require.NotEmpty(g.t, r.Act)
				require.Equal(g.t, Answered, nextOf(records[i:]).State)
			}
		}
		// A journal that cannot be written stops the run before the change.
		op = g.operator()
		full := errors.New("no space left on device")
		op.Runner.Journal = JournalFunc(func(r Record) error {
			if r.State == Recorded {
				return full
			}
			return nil
		})
		from := len(g.w.sent)
		_, err = op.Runner.Do(context.Background(), RemoveMember{Host: hosts[3], Stamp: stampNow()})
		require.ErrorIs(g.t, err, full)
		for _, s := range g.w.sent[from:] {
			require.True(g.t, strings.HasPrefix(s, "grant") || strings.HasPrefix(s, "put") || strings.HasPrefix(s, "delete") || strings.HasPrefix(s, "revoke"), s)
		}
	})
}

// etcd puts a change off: it is waited for, not hammered.
func TestPostponed(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		var times []time.Time
		g.w.peril = func(_, what string) fault {
			if what != "add" {
				return fault{}
			}
			if times = append(times, time.Now()); len(times) < 3 {
				return fault{err: rpctypes.ErrUnhealthy}
			}
			return fault{}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Len(g.t, times, 3)
		for i := range times[1:] {
			require.GreaterOrEqual(g.t, times[i+1].Sub(times[i]), postponement<<i, "each time longer")
		}
		require.Contains(g.t, op.story(), "unhealthy cluster")
		// And if it never ends, it is given up with etcd's own words.
		times = nil
		g.w.peril = func(_, what string) fault {
			if what == "add" {
				times = append(times, time.Now())
				return fault{err: rpctypes.ErrUnhealthy}
			}
			return fault{}
		}
		_, err = g.operator().do(AddMember{Host: hosts[4]})
		require.ErrorIs(g.t, err, rpctypes.ErrUnhealthy)
		require.Len(g.t, times, 1+postponements)
		require.Greater(g.t, times[len(times)-1].Sub(times[0]), 2*HealthInterval, "whoever was only started now had the time that etcd wants")
	})
}

// A change that etcd rejects is not asked for again.
func TestRejected(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		n := 0
		g.w.peril = func(_, what string) fault {
			if what == "add" {
				n++
				return fault{err: rpctypes.ErrTooManyLearners}
			}
			return fault{}
		}
		_, err := g.operator().do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, rpctypes.ErrTooManyLearners)
		require.ErrorContains(g.t, err, "another learner is pending")
		require.Equal(g.t, 1, n)
	})
}

// An answer that never comes is unknown: the list says whether it was done,
// and it is never sent twice.
func TestAnswersLost(t *testing.T) {
	add := func(*ground) Procedure { return AddMember{Host: hosts[4]} }
	remove := func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }
	for what, p := range map[string]func(*ground) Procedure{"add": add, "promote": add, "remove": remove, "move": remove} {
		t.Run(what, func(t *testing.T) {
			bubble(t, 4, func(g *ground) {
				g.up()
				g.lead(hosts[1])
				time.Sleep(time.Second)
				whole := g.clone(filepath.Join(scratch(g.t), "whole"))
				whole.must(p(whole))
				whole.settle()
				n := 0
				g.w.peril = func(_, w string) fault {
					if w != what {
						return fault{}
					}
					n++
					return fault{lost: n == 1}
				}
				g.must(p(g))
				g.settle()
				require.Equal(g.t, whole.dump(), g.dump())
				require.Equal(g.t, 1, n, "it was sent once")
			})
			// Not done and not answered: the run says that it does not know,
			// and the same command decides it.
			bubble(t, 4, func(g *ground) {
				g.up()
				g.lead(hosts[1])
				time.Sleep(time.Second)
				whole := g.clone(filepath.Join(scratch(g.t), "whole"))
				whole.must(p(whole))
				whole.settle()
				n := 0
				g.w.peril = func(_, w string) fault {
					if w != what {
						return fault{}
					}
					n++
					return fault{drop: n == 1}
				}
				op := g.operator()
				_, err := op.do(p(g))
				require.ErrorIs(g.t, err, ErrUndecided, op.story())
				require.Equal(g.t, 1, n)
				g.must(p(g))
				g.settle()
				require.Equal(g.t, whole.dump(), g.dump())
			})
		})
	}
}

// The same for every change on a host.
func TestHostAnswersLost(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		whole := g.clone(filepath.Join(scratch(g.t), "whole"))
		acts := 0
		whole.w.peril = func(_, what string) fault {
			if strings.Contains(what, " ") {
				acts++
			}
			return fault{}
		}
		p := AddMember{Host: hosts[3]}
		whole.must(p)
		whole.settle()
		want := whole.dump()
		for _, k := range swept(g, acts) {
			cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(k)))
			n := 0
			var lost string
			cut.w.peril = func(_, what string) fault {
				if !strings.Contains(what, " ") {
					return fault{}
				}
				if n++; n == k {
					lost = what
					return fault{lost: true}
				}
				return fault{}
			}
			cut.must(p)
			cut.settle()
			require.Equal(g.t, want, cut.dump(), "lost: %s", lost)
			require.NoError(g.t, os.RemoveAll(cut.dir))
		}
	})
}

// A run that is interrupted lets the change in flight come to its end and
// makes no other.
func TestInterrupted(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		points := g.clone(filepath.Join(scratch(g.t), "whole")).count(AddMember{Host: hosts[3]})
		for _, n := range swept(g, points) {
			cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(n)))
			ctx, stop := context.WithCancel(context.Background())
			op := cut.operator()
			var at Point
			inFlight := 0 // or done, when it was stopped
			op.Runner.Point = func(p Point) {
				if p.N == n {
					at = p
					op.mu.Lock()
					for _, r := range op.records {
						if r.State == Recorded {
							inFlight++
						}
					}
					op.mu.Unlock()
					stop()
				}
			}
			_, err := op.doCtx(ctx, AddMember{Host: hosts[3]})
			const lanes, acts = 4, 2      // hosts that are worked on side by side in the end, and what is done on each
			if n <= points-4*lanes*acts { // within the last acts there is nothing to stop
				require.ErrorIs(g.t, err, context.Canceled, "%+v", at)
			}
			recorded := 0
			for i, r := range op.records {
				if r.State == Recorded {
					recorded++
					require.Equal(g.t, Answered, nextOf(op.records[i:]).State, "%+v", at)
				}
			}
			require.LessOrEqual(g.t, recorded, inFlight+lanes, "no change after those in flight: %+v\n%s", at, op.story())
			require.Empty(g.t, cut.etcd().leases, "the lock is given up")
			require.NoError(g.t, os.RemoveAll(cut.dir))
			stop()
		}
	})
}

// nextOf is the record that follows the first on the same step.
func nextOf(records []Record) Record {
	for _, r := range records[1:] {
		if r.Step == records[0].Step {
			return r
		}
	}
	return Record{}
}

// etcd would promote a learner that has died after it had caught up; we do not.
func TestDeadLearnerIsNotPromoted(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		answers, m := 0, g.w.machines[hosts[3]]
		g.w.peril = func(where, what string) fault {
			if what == "status" && hostPart(where) == m.name {
				if answers++; answers == 3 {
					m.proc.end(false)
					m.failed = true
				}
			}
			return fault{}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "learner-alive", r.Safeguard)
		require.True(g.t, r.Changed)
		require.Contains(g.t, g.roles(), hosts[3]+" etcd-4 learner")
		require.NotContains(g.t, strings.Join(g.w.sent, "\n"), "promote")
		// Nor when it dies right before the promotion.
		c := g.etcd()
		for id, e := range c.members {
			if e.learner {
				require.NoError(g.t, c.promote(id), "the model is as careless as etcd")
			}
		}
	})
}

// A learner that 90 % of a long log would do for etcd is not promoted.
func TestLagIsAbsolute(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		c := g.etcd()
		c.head += 1_000_000
		g.w.lag, g.w.lagTime = 90_000, time.Minute
		var behind uint64
		g.w.peril = func(_, what string) fault {
			if what == "promote" {
				for id, e := range c.members {
					if e.learner {
						behind = c.head - c.applied[id]
					}
				}
			}
			return fault{}
		}
		began := time.Now()
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err)
		require.LessOrEqual(g.t, behind, uint64(MaxLag))
		require.Greater(g.t, time.Since(began), 50*time.Second)
		require.Contains(g.t, op.story(), "entries behind the leader")
	})
}

// A learner that needs longer than the unit's start timeout is not killed.
func TestLongJoin(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.transfer = 110 * time.Second
		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
		require.Zero(g.t, g.w.machines[hosts[3]].exit)
	})
	// The same without the drop-in, to see that the model would have killed it.
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.transfer = 110 * time.Second
		m := g.w.machines[hosts[3]]
		op := g.operator()
		op.Runner.Point = func(p Point) {
			if p.Title == "start etcd" && p.State == Began {
				delete(m.files, config.JoinDropInPath)
				m.reload()
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.Error(g.t, err)
	})
}

// Uptime is waited for, knowingly and once.
func TestWaitsForHealthInterval(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.must(g.create()) // not settled
		n := 0
		g.w.peril = func(_, what string) fault {
			if what == "add" {
				n++
			}
			return fault{}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Equal(g.t, 1, n, "etcd was asked once, when it was ready\n%s", op.story())
		require.Contains(g.t, op.story(), "wants its voters to have been connected")
	})
}

// The hash of a plan that was reviewed binds the run.
func TestExpect(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		p := AddMember{Host: hosts[3]}
		plan, v, err := g.operator().Runner.Explain(context.Background(), p)
		require.NoError(g.t, err)
		before := g.fingerprint()
		op := g.operator()
		op.Runner.Expect = "000000000000"
		_, err = op.do(p)
		require.ErrorIs(g.t, err, ErrPlanChanged)
		require.Equal(g.t, before, g.fingerprint())
		op = g.operator()
		op.Runner.Expect = plan.Digest(v)
		_, err = op.do(p)
		require.NoError(g.t, err)
	})
}

// A plan is read off, nothing is written or taken.
func TestExplainChangesNothing(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		for _, p := range []Procedure{
			AddMember{Host: hosts[3]}, RemoveMember{Host: hosts[2], Stamp: "20260101T000000Z"}, Restart{Since: time.Now()}, ReloadConfig{},
			DestroyCluster{Stamp: "20260101T000000Z"}, PurgeCluster{}, g.create(), InstallClientEnv{},
		} {
			before := g.fingerprint()
			_, _, err := g.operator().Runner.Explain(context.Background(), p)
			require.NoError(g.t, err)
			require.Equal(g.t, before, g.fingerprint(), "%s", p)
		}
	})
}

var _ host.Host = (*fakeHost)(nil)

// A host that does not answer one look is not taken for a member that is not
// wanted: what is to be done on it is not skipped, and the run says whom it
// could not look at.
func TestCreateDoesNotPassOverASilentHost(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		op := g.operator()
		g.w.peril = func(where, what string) fault {
			if where == hosts[2] && strings.HasPrefix(what, "systemctl start") {
				g.w.machines[hosts[2]].reach = false // while two of three elect a leader
				return fault{drop: true}
			}
			return fault{}
		}
		_, err := op.do(g.create())
		require.ErrorContains(g.t, err, hosts[2])
		require.NotContains(g.t, op.story(), "set initial-cluster-state", "two of three are no cluster as wanted\n%s", op.story())
		require.Contains(g.t, op.story(), "done      wait until it answers "+hosts[0], "they do answer\n%s", op.story())
		g.w.peril = nil
		g.w.machines[hosts[2]].reach = true
		g.must(g.create())
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}
