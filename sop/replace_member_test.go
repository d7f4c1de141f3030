package sop

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func replace(old, fresh int) ReplaceMember {
	return ReplaceMember{Old: hosts[old-1], New: hosts[fresh-1], Stamp: stampNow()}
}

// order tells in which order members came and went.
func (op *operator) order() string {
	var all []string
	for _, r := range op.records {
		if r.State == Answered && (strings.HasPrefix(r.Title, "add as learner") || strings.HasPrefix(r.Title, "promote") || strings.HasPrefix(r.Title, "remove member") || strings.HasPrefix(r.Title, "disarm")) {
			verb, _, _ := strings.Cut(r.Title, " ")
			all = append(all, verb)
		}
	}
	return strings.Join(all, " ")
}

// corrupt makes the data of the member on a host another than the others'.
func (g *ground) corrupt(name string) {
	c := g.etcd()
	c.compacted = c.revision
	for id, e := range c.members {
		if hostPart(e.peerURL) == name {
			c.hashes[id] = 7
		}
	}
}

// alarm has etcd find out that the data of the member on a host is wrong.
func (g *ground) alarm(name string) { g.etcd().alarms[g.idOn(name)] = "CORRUPT" }

func TestReplaceMember(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(g *ground)
		order   string
		spare   int
		says    string
	}{
		{"alive", func(*ground) {}, "add promote remove", 1, ""},
		{"leading", func(g *ground) { g.lead(hosts[1]) }, "add promote remove", 1, ""},
		{"dead", func(g *ground) { g.w.machines[hosts[1]].kill() }, "remove add promote", 0, "does not answer: it goes first"},
		{"off", func(g *ground) { g.w.machines[hosts[1]].powerOff() }, "remove add promote", 0, "purgeHost " + hosts[1]},
		{"corrupt", func(g *ground) { g.corrupt(hosts[1]) }, "remove add promote", 0, "2 of 3 voters have hash"},
		{"corrupt, and etcd knows", func(g *ground) { g.corrupt(hosts[1]); g.alarm(hosts[1]) }, "remove disarm add promote", 0, "2 of 3 voters have hash"},
		{"dead, and known to be corrupt", func(g *ground) { g.corrupt(hosts[1]); g.alarm(hosts[1]); g.w.machines[hosts[1]].kill() }, "remove disarm add promote", 0, "does not answer: it goes first"},
		{"gone, and its alarm not", func(g *ground) {
			g.corrupt(hosts[1])
			g.alarm(hosts[1])
			g.killAt(replace(2, 4), "disarm CORRUPT")
		}, "disarm add promote", 0, ""},
		{"corrupt and leading", func(g *ground) { g.lead(hosts[1]); g.corrupt(hosts[1]) }, "remove add promote", 0, "2 of 3 voters have hash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				g.up()
				c.prepare(g)
				time.Sleep(6 * time.Second)
				op := g.operator()
				g.watchOver(op, c.spare)
				op.Runner.Waive = []string{"references-reachable"}
				_, err := op.do(replace(2, 4))
				require.NoError(g.t, err, op.story())
				require.Equal(g.t, c.order, op.order())
				require.Contains(g.t, op.story(), c.says)
				g.settle()
				require.ElementsMatch(g.t, []string{hosts[0], hosts[2], hosts[3]}, g.voterHosts())
				require.NotContains(g.t, g.read(), hosts[1]+":")
				require.Empty(g.t, g.etcd().alarms)
				g.nothingToDo(replace(2, 4))
			})
		})
	}
}

// etcd's alarm about one that goes is no obstacle; about any other it is, and so
// is one that could not be taken back afterwards.
func TestReplaceUnderAnAlarm(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.corrupt(hosts[1])
		g.etcd().alarms[0] = "CORRUPT"
		g.refusal(g.operator(), replace(2, 4), "no-alarm")
		g.etcd().alarms = map[uint64]string{}
		g.alarm(hosts[2])
		g.refusal(g.operator(), replace(2, 4), "no-alarm")
		g.etcd().alarms = map[uint64]string{}
		g.alarm(hosts[1])
		g.etcd().compacted = 0 // so that nobody has a hash
		g.w.machines[hosts[1]].kill()
		time.Sleep(6 * time.Second)
		r := g.refusal(g.operator(), replace(2, 4), "alarm-cause")
		require.Contains(g.t, r.Found, "is not known")
	})
}

// Nothing is removed on suspicion: where no majority says who is wrong, nobody
// goes, and neither does one of the majority.
func TestReplaceCorruptNeedsProof(t *testing.T) {
	bubble(t, 3, func(g *ground) { // the other one is the one that is wrong
		g.up()
		g.corrupt(hosts[2])
		g.refusal(g.operator(), replace(2, 4), "same-hash")
	})
	bubble(t, 3, func(g *ground) { // three members, three hashes
		g.up()
		g.corrupt(hosts[1])
		c := g.etcd()
		for id, e := range c.members {
			if hostPart(e.peerURL) == hosts[2] {
				c.hashes[id] = 8
			}
		}
		g.refusal(g.operator(), replace(2, 4), "same-hash")
	})
	bubble(t, 4, func(g *ground) { // two against two
		g.up()
		g.corrupt(hosts[1])
		c := g.etcd()
		for id, e := range c.members {
			if hostPart(e.peerURL) == hosts[2] {
				c.hashes[id] = 7
			}
		}
		g.refusal(g.operator(), replace(2, 5), "same-hash")
	})
}

func TestReplaceRefused(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.refusal(g.operator(), replace(2, 2), "valid-host")
		g.refusal(g.operator(), replace(5, 4), "known-host")
		g.refusal(g.operator(), replace(2, 3), "no-member-yet")
		g.refusal(g.operator(), ReplaceMember{Old: "", New: hosts[3]}, "valid-host")
		c := g.etcd()
		_, err := c.addLearner(c.leader, "https://"+hosts[5]+":2380", time.Now())
		require.NoError(t, err)
		g.refusal(g.operator(), replace(2, 4), "nothing-pending")
	})
	bubble(t, 3, func(g *ground) { // two are dead
		g.up()
		g.w.machines[hosts[1]].kill()
		g.w.machines[hosts[2]].kill()
		time.Sleep(6 * time.Second)
		g.refusal(g.operator(), replace(2, 4), "quorum")
	})
	bubble(t, 5, func(g *ground) { // another one is dead
		g.up()
		g.w.machines[hosts[2]].kill()
		time.Sleep(6 * time.Second)
		g.refusal(g.operator(), replace(2, 6), "voters-answer")
	})
	bubble(t, 3, func(g *ground) { // it answers as another cluster's
		g.up()
		g.lie(hosts[1], func(r *pb.StatusResponse) { r.Header.ClusterId = 0xbad })
		g.refusal(g.operator(), replace(2, 4), "one-cluster")
	})
}
