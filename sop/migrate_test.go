package sop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// to is a migration to some of the test's hosts.
func to(seqs ...int) Migrate {
	p := Migrate{Stamp: stampNow(), Patient: true}
	for _, s := range seqs {
		p.Hosts = append(p.Hosts, hosts[s-1])
	}
	return p
}

// moved checks that a cluster is where it was to go, and that nobody else is
// told of, runs or keeps anything of it.
func (g *ground) moved(seqs ...int) {
	g.t.Helper()
	require.Equal(g.t, votersText(seqs...), g.roles())
	g.referencesName(seqs...)
	require.True(g.t, slices.Contains(seqs, 1+slices.Index(hosts, hostPart(g.etcd().members[g.etcd().leader].peerURL))), "the leader is one of them")
	for i, h := range hosts {
		m := g.w.machines[h]
		if slices.Contains(seqs, i+1) {
			require.Contains(g.t, g.read(), "        "+h+": { etcd_seq: ")
			continue
		}
		require.NotContains(g.t, g.read(), "        "+h+":")
		require.Nil(g.t, m.proc, "etcd on %s", h)
		require.Nil(g.t, m.files["/data/etcd/member"], "data on %s", h)
	}
}

// watchOver keeps an eye on each act: how many voters may fail, how many there
// are, how many learners, and what clients are told.
func (g *ground) watchOver(op *operator, least int) {
	op.on = func(r Record) {
		if r.State != Answered {
			return
		}
		g.w.mu.Lock()
		defer g.w.mu.Unlock()
		for _, c := range g.w.clusters {
			if len(c.procs) == 0 {
				continue
			}
			n := Votes{Voters: len(c.voters())}
			for _, id := range c.voters() {
				if !c.connected(id) {
					n.Dead++
				}
			}
			require.GreaterOrEqual(g.t, n.Spare(), least, "to spare after %s", r.Act)
			require.LessOrEqual(g.t, n.Voters, mostVoters, "voters after %s", r.Act)
			require.LessOrEqual(g.t, len(c.members)-n.Voters, 1, "learners after %s", r.Act)
			for _, h := range hosts {
				living := 0
				content := string(g.w.machines[h].file("/etc/profile.d/etcdctl.sh").Content)
				if !g.w.machines[h].on || g.w.machines[h].proc == nil || content == "" {
					continue
				}
				for _, e := range c.members {
					if strings.Contains(content, hostPart(e.peerURL)+":2379") {
						require.False(g.t, e.learner, "after %s clients on %s are told of a learner", r.Act, h)
						if c.connected(e.id) {
							living++
						}
					}
				}
				require.GreaterOrEqual(g.t, living, min(2, len(c.voters()), least+1), "living voters that clients on %s are told of after %s", h, r.Act)
			}
		}
	}
}

func TestMigrate(t *testing.T) {
	for _, c := range []struct {
		from, to []int
		spare    int // at every moment
	}{
		{[]int{1, 2, 3}, []int{4, 5, 6}, 1},
		{[]int{1, 2, 3}, []int{3, 4, 5}, 1},
		{[]int{1, 2, 3}, []int{6, 2, 4, 1, 5}, 1},
		{[]int{1, 2, 3, 4, 5}, []int{3, 6, 7}, 1},
		{[]int{1, 2, 3, 4, 5}, []int{5, 6, 7, 3, 4}, 2},
		{[]int{1}, []int{2}, 0},
		{[]int{1}, []int{2, 3, 4}, 0},
		{[]int{1, 2, 3}, []int{1, 2, 3, 4, 5}, 1},
		{[]int{1, 2, 3, 4, 5}, []int{1, 2, 3}, 1},
	} {
		t.Run(fmt.Sprint(c.from, " to ", c.to), func(t *testing.T) {
			t.Parallel()
			bubble(t, len(c.from), func(g *ground) {
				g.up()
				p := to(c.to...)
				op := g.operator()
				g.watchOver(op, c.spare)
				_, err := op.do(p)
				require.NoError(g.t, err, op.story())
				g.settle()
				seqs := slices.Sorted(slices.Values(c.to))
				g.movedAs(c.to, len(c.from), seqs)
				led := 0
				for _, r := range op.records {
					if r.State == Answered && r.Title == "hand over the leadership" {
						led++
					}
				}
				require.LessOrEqual(g.t, led, 1, "the leadership moves once\n%s", op.story())
				g.nothingToDo(p)
			})
		})
	}
}

// movedAs is moved where the hosts were not brought in in the order of their
// addresses: a newcomer's number is the next one when its turn comes.
func (g *ground) movedAs(order []int, before int, seqs []int) {
	g.t.Helper()
	next := before
	text := map[int]string{}
	for _, s := range order {
		n := s
		if s > before {
			next++
			n = next
		}
		text[s] = fmt.Sprintf("%s etcd-%d voter", hosts[s-1], n)
	}
	var all []string
	for _, s := range seqs {
		all = append(all, text[s])
		require.ElementsMatch(g.t, clientURLs(seqs...), g.env(hosts[s-1]))
		require.Len(g.t, g.conf(hosts[s-1]).Initial, len(seqs))
	}
	require.Equal(g.t, strings.Join(all, ", "), g.roles())
	for i, h := range hosts {
		m := g.w.machines[h]
		if slices.Contains(seqs, i+1) {
			require.Contains(g.t, g.read(), "        "+h+": { etcd_seq: ")
			continue
		}
		require.NotContains(g.t, g.read(), "        "+h+":")
		require.Nil(g.t, m.proc, "etcd on %s", h)
		require.Nil(g.t, m.files["/data/etcd/member"], "data on %s", h)
	}
}

// One of the old members is dead: it goes first, since nobody could be promoted
// before, and then nothing may fail for a while.
func TestMigrateWithOneDead(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.machines[hosts[1]].kill()
		time.Sleep(6 * time.Second)
		p := to(4, 5, 6)
		op := g.operator()
		g.watchOver(op, 0)
		_, err := op.do(p)
		require.NoError(g.t, err, op.story())
		g.settle()
		g.moved(4, 5, 6)
		g.nothingToDo(p)
	})
	bubble(t, 3, func(g *ground) { // one that is to stay has to come back first
		g.up()
		g.w.machines[hosts[1]].kill()
		time.Sleep(6 * time.Second)
		g.refusal(g.operator(), to(2, 4, 5), "voters-answer")
	})
}

// A run that was cut off is given other hosts: what it had begun there is given
// up.
func TestMigrateElsewhereMidway(t *testing.T) {
	for _, title := range []string{"write etcd.conf", "promote to voter", "remove the join drop-in", "refresh etcdctl.sh"} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				g.up()
				g.killAt(to(4, 5, 6), title)
				p := to(3, 7, 6)
				g.must(p)
				g.settle()
				require.ElementsMatch(g.t, []string{hosts[2], hosts[5], hosts[6]}, g.voterHosts())
				require.NotContains(g.t, g.read(), hosts[3])
				require.Nil(g.t, g.w.machines[hosts[3]].proc)
				g.nothingToDo(p)
			})
		})
	}
}

func (g *ground) voterHosts() []string {
	c := g.etcd()
	var all []string
	for _, id := range c.voters() {
		all = append(all, hostPart(c.members[id].peerURL))
	}
	return all
}

func TestMigrateRefused(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.refusal(g.operator(), Migrate{}, "valid-hosts")
		g.refusal(g.operator(), Migrate{Hosts: []string{""}}, "valid-hosts")
		g.refusal(g.operator(), to(4, 5, 4), "valid-hosts")
		g.refusal(g.operator(), Migrate{Hosts: []string{hosts[3], "a b", hosts[4]}}, "valid-host"+"s")
		g.refusal(g.operator(), to(3, 1, 2), "new-hosts")
		g.refusal(g.operator(), to(4), "enough-hosts")
		g.refusal(g.operator(), to(2), "enough-hosts")
		g.refusal(g.operator(), to(4, 5), "spare")
		g.refusal(g.operator(), to(1, 2), "spare")
		g.w.machines[hosts[4]].reach = false
		g.refusal(g.operator(), to(4, 5, 6), "reachable")
		g.w.machines[hosts[4]].reach = true
		g.w.machines[hosts[5]].listeners[2380] = "nginx"
		g.refusal(g.operator(), to(4, 5, 6), "blank-host")
	})
}

// Clients that know old members alone are named before the last of those goes.
func TestMigrateClientsLeftBehind(t *testing.T) {
	const stale, both = "10.10.10.50:4711", "10.10.10.51:4711"
	connect := func(g *ground) {
		for _, h := range hosts[:3] {
			g.w.machines[h].callers = []string{stale, both, h + ":99", "127.0.0.1:98"}
		}
		for _, h := range hosts[3:6] {
			g.w.machines[h].callers = []string{both}
		}
	}
	bubble(t, 3, func(g *ground) {
		g.up()
		connect(g)
		p := to(4, 5, 6)
		p.Patient = false
		op := g.operator()
		_, err := op.do(p)
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "stale-clients", r.Safeguard)
		require.Contains(g.t, r.Found, "10.10.10.50 (1 connection)")
		require.NotContains(g.t, r.Found, "10.10.10.51")
		require.True(g.t, r.Changed)
		require.Len(g.t, g.voterHosts(), 4, "the last old one is still there")

		op = g.operator() // they are left behind
		op.Runner.Waive = []string{"stale-clients"}
		_, err = op.do(p)
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, op.story(), "10.10.10.50 (1 connection)", "and named")
		g.settle()
		g.moved(4, 5, 6)
	})
	bubble(t, 3, func(g *ground) {
		g.up()
		connect(g)
		op := g.operator()
		op.on = func(r Record) {
			if r.State == Waiting && r.Title == "stale-clients" { // restarted with the new endpoints
				g.w.mu.Lock()
				defer g.w.mu.Unlock()
				for _, h := range hosts[:3] {
					g.w.machines[h].callers = nil
				}
			}
		}
		_, err := op.do(to(4, 5, 6))
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, op.story(), "10.10.10.50")
		g.settle()
		g.moved(4, 5, 6)
	})
	// Who lost its members tries one dead endpoint after the other, and is between two
	// connections when it is looked at first.
	bubble(t, 3, func(g *ground) {
		g.up()
		p := to(4, 5, 6)
		p.Patient = false
		op := g.operator()
		op.on = func(r Record) {
			if r.State == Waiting && r.Title == "clients-seen" {
				g.w.mu.Lock()
				defer g.w.mu.Unlock()
				for _, h := range hosts[:3] {
					g.w.machines[h].callers = []string{stale}
				}
			}
		}
		_, err := op.do(p)
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "stale-clients", r.Safeguard)
		require.Contains(g.t, r.Found, "10.10.10.50 (1 connection)")
	})
}

// What a learner costs is not in the size of the turns, so they are looked at by
// themselves: never too many voters, never fewer than before or wanted.
func TestTurns(t *testing.T) {
	list := func(n int, prefix string) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint(prefix, i))
		}
		return all
	}
	for voters := 1; voters <= 7; voters++ {
		for come := range 8 {
			for leave := range voters + 1 {
				left := voters - leave + come
				if left < 1 {
					continue
				}
				r := relocation{to: list(left, "t"), come: list(come, "c"), leave: list(leave, "l")}
				n, came, gone := voters, 0, 0
				turns := r.turns(voters)
				for i, turn := range turns {
					n, came = n+len(turn.come), came+len(turn.come)
					if leave > 0 && left <= 5 {
						require.LessOrEqual(t, n, mostVoters, "%d voters, %d come, %d leave: %v", voters, come, leave, turns)
					}
					n, gone = n-len(turn.leave), gone+len(turn.leave)
					if i < len(turns)-1 {
						require.GreaterOrEqual(t, n, min(voters, left, 5), "%d voters, %d come, %d leave: %v", voters, come, leave, turns)
					}
				}
				require.Equal(t, come, came)
				require.Equal(t, leave, gone)
				require.Equal(t, left, n)
			}
		}
	}
}
