package sop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// Every refusal, by the state that causes it. Each is told by name with what
// was found, and leaves every byte as it was.
func TestRefusals(t *testing.T) {
	add := func(*ground) Procedure { return AddMember{Host: hosts[3]} }
	removeOf := func(i int) func(*ground) Procedure {
		return func(*ground) Procedure { return RemoveMember{Host: hosts[i], Stamp: stampNow()} }
	}
	restart := func(*ground) Procedure { return Restart{Since: time.Now()} }
	m := func(g *ground, i int) *machine { return g.w.machines[hosts[i]] }
	pending := func(start bool) func(g *ground) {
		return func(g *ground) {
			c := g.etcd()
			_, err := c.addLearner(c.leader, "https://"+hosts[4]+":2380", time.Now())
			require.NoError(g.t, err)
			if start {
				for _, e := range c.members {
					if e.learner {
						e.name, e.clientURL = "etcd-5", "https://"+hosts[4]+":2379"
					}
				}
			}
		}
	}
	allOff := func(g *ground) {
		require.NoError(g.t, g.operator().Site.forget(), "an inventory that has never met its cluster")
		for _, h := range hosts {
			g.w.machines[h].powerOff()
		}
	}
	kubeadm := func(i int) func(g *ground) {
		return func(g *ground) {
			m(g, i).mkdir("/etc/kubernetes/manifests", "root", "root", 0o700)
			m(g, i).files[kubeadmManifest] = &node{content: []byte("kind: Pod\n"), owner: "root", group: "root", mode: 0o600}
			m(g, i).mkdir("/data/etcd/member", "root", "root", 0o700)
		}
	}
	for _, c := range []struct {
		name      string
		hosts     int
		vars      string // of the inventory's group, after the cluster is up
		prepare   func(g *ground)
		procedure func(g *ground) Procedure
		safeguard string
		found     string // words that it must say
	}{
		{"add a member", 3, "", nil, func(*ground) Procedure { return AddMember{Host: hosts[1]} }, "no-member-yet", "it is a voter already"},
		{"add data of another cluster", 3, "", func(g *ground) {
			m(g, 3).mkdir("/data/etcd/member/wal", "etcd", "etcd", 0o700)
			m(g, 3).files["/data/etcd/member/wal/0.wal"] = &node{content: walHead(0xabc, 0xdef), owner: "etcd"}
		}, add, "blank-host", "holds the data of member abc of cluster def"},
		{"add data of no cluster", 3, "", func(g *ground) {
			m(g, 3).mkdir("/data/etcd/postgres", "postgres", "postgres", 0o700)
		}, add, "blank-host", "postgres"},
		{"add an unreachable host", 3, "", func(g *ground) { m(g, 3).powerOff() }, add, "reachable", "cannot be reached"},
		{"add a host where etcd runs", 3, "", func(g *ground) {
			m(g, 3).write(unitOn("/data/etcd"))
			m(g, 3).start(time.Now())
		}, add, "blank-host", "etcd.service is activating there"},
		{"add a host whose port is taken", 3, "", func(g *ground) { m(g, 3).listeners[2379] = "kube-apiserver" }, add, "blank-host", "address already in use"},
		{"add with another learner pending", 3, "", pending(true), add, "nothing-pending", "learner"},
		{"add with another unstarted", 3, "", pending(false), add, "nothing-pending", hosts[4]},
		{"remove with another pending", 4, "", pending(false), removeOf(1), "nothing-pending", hosts[4]},
		{"restart with one pending", 3, "", pending(true), restart, "nothing-pending", hosts[4]},
		{"add with one of three dead", 3, "", func(g *ground) { m(g, 2).kill() }, add, "votes", "1 of 3 voters are dead"},
		{"remove a living one with one of three dead", 3, "", func(g *ground) { m(g, 2).kill() }, removeOf(1), "votes", "1 of 3 voters are dead"},
		{"remove the last", 1, "", nil, removeOf(0), "votes", "it is the last voter"},
		{"remove a stranger", 3, "", nil, removeOf(5), "known-host", "in neither inventory nor member list"},
		{"remove what is no host", 3, "", nil, func(*ground) Procedure { return RemoveMember{Host: "a host"} }, "valid-host", "is no host"},
		{"add what is no host", 3, "", nil, func(*ground) Procedure { return AddMember{Host: "10.10.10.*"} }, "valid-host", "is no host"},
		{"remove down to two", 3, "", nil, removeOf(1), "spare", "nothing may fail"},
		{"add with a smaller quota", 3, "        etcd_quota_backend_bytes: 2147483648\n", nil, add, "quota", "2147483648"},
		{"create with a host that could come back", 3, "", func(g *ground) { g.must(PurgeCluster{}); m(g, 2).powerOff() },
			func(g *ground) Procedure { return g.create() }, "unreachable", "cannot be reached"},
		{"destroy with a host that could come back", 3, "", func(g *ground) { m(g, 2).powerOff() },
			func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} }, "unreachable", "cannot be reached"},
		{"purge with a host that could come back", 3, "", func(g *ground) { m(g, 2).powerOff() },
			func(*ground) Procedure { return PurgeCluster{} }, "unreachable", "cannot be reached"},
		{"destroy when no host can be looked at", 3, "", allOff, func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} }, "unreachable", "cannot be reached"},
		{"purge when no host can be looked at", 3, "", allOff, func(*ground) Procedure { return PurgeCluster{} }, "unreachable", "cannot be reached"},
		{"destroy again with a host that could come back", 3, "", func(g *ground) { g.must(DestroyCluster{Stamp: stampNow()}); m(g, 2).powerOff() },
			func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} }, "unreachable", "cannot be reached"},
		{"purge again with a host that could come back", 3, "", func(g *ground) { g.must(PurgeCluster{}); m(g, 2).powerOff() },
			func(*ground) Procedure { return PurgeCluster{} }, "unreachable", "cannot be reached"},
		{"add with a member's host unreachable", 3, "", func(g *ground) { m(g, 2).reach = false }, add, "references-reachable", "cannot be reached"},
		{"add under an alarm", 3, "", func(g *ground) { c := g.etcd(); c.alarms[c.leader] = "NOSPACE" }, add, "no-alarm", "NOSPACE"},
		{"remove under an alarm", 4, "", func(g *ground) { c := g.etcd(); c.alarms[c.leader] = "CORRUPT" }, removeOf(1), "no-alarm", "CORRUPT"},
		{"restart under an alarm", 3, "", func(g *ground) { c := g.etcd(); c.alarms[c.leader] = "NOSPACE" }, restart, "no-alarm", "NOSPACE"},
		{"add with two cluster IDs", 3, "", func(g *ground) {
			g.lie(hosts[2], func(r *pb.StatusResponse) { r.Header.ClusterId = 0xbad })
		}, add, "one-cluster", "cluster ID mismatch"},
		{"remove with two cluster IDs", 4, "", func(g *ground) {
			g.lie(hosts[2], func(r *pb.StatusResponse) { r.Header.ClusterId = 0xbad })
		}, removeOf(1), "one-cluster", "bad"},
		{"add with two leaders", 3, "", func(g *ground) {
			g.lead(hosts[0])
			g.lie(hosts[2], func(r *pb.StatusResponse) { r.Leader = r.Header.MemberId })
		}, add, "one-cluster", "do not agree on a leader"},
		{"add with an inventory that contradicts", 3, "", func(g *ground) {
			g.write(strings.Replace(g.read(), "        10.10.10.12: { etcd_seq: 2 } # host 2\n", "", 1))
		}, add, "inventory-agrees", "members and not in the inventory: 10.10.10.12"},
		{"add with a stale inventory", 3, "", func(g *ground) {
			g.write(strings.Replace(g.read(), "      vars:", "        10.10.10.16: { etcd_seq: 9 }\n      vars:", 1))
		}, add, "inventory-agrees", "in the inventory and no members: 10.10.10.16"},
		{"add to a faulty inventory", 3, "", func(g *ground) {
			g.write(strings.Replace(g.read(), "etcd_seq: 2", "etcd_seq: 1", 1))
		}, add, "inventory-sound", "etcd_seq"},
		{"add to an inventory that cannot be written", 3, "", (*ground).lockInventory, add, "inventory-writable", "writable"},
		{"remove from an inventory that cannot be written", 4, "", (*ground).lockInventory, removeOf(1), "inventory-writable", "writable"},
		{"another cluster than before", 3, "", func(g *ground) {
			require.NoError(g.t, os.WriteFile(g.dir+"/.etcdrill/cluster-id.etcd", []byte("1234\n"), 0o600))
		}, add, "remembered-cluster", "1234 is remembered"},
		{"no quorum", 3, "", func(g *ground) { m(g, 1).kill(); m(g, 2).kill(); time.Sleep(3 * time.Second) }, add, "quorum", "1 of 3 voters answer"},
		{"nobody answers", 3, "", func(g *ground) { m(g, 0).kill(); m(g, 1).kill(); m(g, 2).kill() }, add, "quorum", "no member"},
		{"remove, nobody answers", 3, "", func(g *ground) { m(g, 0).kill(); m(g, 1).kill(); m(g, 2).kill() }, removeOf(1), "quorum", "no member"},
		{"restart without quorum to spare", 4, "", func(g *ground) { m(g, 3).kill() }, restart, "voters-answer", "does not answer"},
		{"lists that differ", 3, "", func(g *ground) {
			c := g.etcd()
			for id, e := range c.members {
				if hostPart(e.peerURL) == hosts[1] {
					c.lists[id] = []Member{{ID: 1, PeerURLs: []string{"https://10.10.10.11:2380"}}}
				}
			}
		}, add, "same-list", "differs"},
		{"hashes that differ", 3, "", func(g *ground) {
			c := g.etcd()
			c.compacted = 1
			c.hashes[c.voters()[1]] = 1
		}, add, "same-hash", "corruption"},
		{"a backend near its quota", 3, "", func(g *ground) { g.etcd().dbSize = 7 << 30 }, add, "quota-headroom", "bytes"},
		{"add a host of kubeadm", 3, "", kubeadm(3), add, "no-kubeadm", "its etcd is kubeadm's: /etc/kubernetes/manifests/etcd.yaml is there"},
		{"remove a member of kubeadm", 3, "", kubeadm(1), removeOf(1), "no-kubeadm", "kubeadm"},
		{"restart members of kubeadm", 3, "", kubeadm(1), restart, "no-kubeadm", "kubeadm"},
		{"destroy members of kubeadm", 3, "", kubeadm(1), func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} }, "no-kubeadm", "kubeadm"},
		{"purge members of kubeadm", 3, "", kubeadm(1), func(*ground) Procedure { return PurgeCluster{} }, "no-kubeadm", "kubeadm"},
		{"purge a host of kubeadm", 3, "", kubeadm(4), func(*ground) Procedure { return PurgeHost{Host: hosts[4]} }, "no-kubeadm", "kubeadm"},
		{"two minors", 3, "", func(g *ground) { m(g, 1).is("3.6.16") }, add, "versions", "3.6.16"},
		{"a newcomer of another minor", 3, "", func(g *ground) { m(g, 3).version = "3.6.16" }, add, "newcomer-version", "3.6.16"},
		{"a newcomer that is to have another minor", 3, "        etcd_version: 3.6.16\n", nil, add, "newcomer-version", "etcd_version asks for 3.6.16, the members run 3.7.3"},
		{"a newcomer without etcd, and no binary for it", 3, "        etcd_binary_from: none\n        etcd_binary_sha256: " + strings.Repeat("0", 64) + "\n",
			func(g *ground) { m(g, 3).version = "" }, add, "installed", "no such file"},
		{"a newcomer without etcd, and another binary", 3, "        etcd_binary_from: pigsty.yml\n        etcd_binary_sha256: " + strings.Repeat("0", 64) + "\n",
			func(g *ground) { m(g, 3).version = "" }, add, "installed", "etcd_binary_sha256 is 0000"},
		{"a newcomer with a small disk", 3, "", func(g *ground) {
			g.etcd().dbSize = 3 << 30
			m(g, 3).free = 4 << 30
			m(g, 3).mkdir("/data/etcd", "etcd", "etcd", 0o700)
		}, add, "disk", "4.0 GiB are free for /data/etcd, and the database has 3.0 GiB"},
		{"a newcomer without room for the log", 3, "", func(g *ground) { m(g, 3).free = 100 << 20 }, add, "disk", "100.0 MiB are free"},
		{"a newcomer behind a firewall", 3, "", func(g *ground) { m(g, 3).deaf[hosts[1]+":2380"] = true }, add, "peers-reach", "i/o timeout"},
		{"a newcomer with a proxy", 3, "", func(g *ground) { m(g, 3).env = []string{"https_proxy=http://proxy:3128"} }, add, "no-proxy", "https_proxy"},
		{"a clock that is off", 3, "", func(g *ground) { m(g, 1).skew = 3 * time.Second }, add, "clocks", "3s off"},
		{"no CA", 3, "", func(g *ground) { require.NoError(g.t, os.RemoveAll(g.dir+"/files")) }, add, "ca", "there is no CA"},
		{"another CA", 3, "", func(g *ground) {
			require.NoError(g.t, os.RemoveAll(g.dir+"/files"))
			ca, err := pki.NewCA(g.operator().Site.Random, time.Now())
			require.NoError(g.t, err)
			require.NoError(g.t, pki.Dir(g.dir+"/files/pki").Save(ca))
		}, add, "ca", "not the one in files/pki"},
		{"auth is on", 3, "", func(g *ground) { g.etcd().auth = true }, add, "auth", "user name is empty"},
		{"auth is on, remove", 4, "", func(g *ground) { g.etcd().auth = true }, removeOf(1), "auth", "user name is empty"},
		{"voters that lag", 3, "", func(g *ground) {
			g.etcd().head += 100_000
			g.lead(hosts[0])
			g.lie(hosts[1], func(r *pb.StatusResponse) { r.RaftAppliedIndex = 10 })
		}, add, "voters-keep-up", "entries behind the leader"},
		{"restart what cannot be reached", 3, "", func(g *ground) { m(g, 1).reach = false }, restart, "reachable", "cannot be reached"},
		{"destroy more than the inventory has", 3, "", func(g *ground) { g.write(inventoryText(2, "", "")) },
			func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} }, "inventory-agrees", hosts[2]},
		{"purge two clusters", 3, "", func(g *ground) {
			g.lie(hosts[2], func(r *pb.StatusResponse) { r.Header.ClusterId = 0xbad })
		}, func(*ground) Procedure { return PurgeCluster{} }, "one-cluster", "cluster ID mismatch"},
		{"create where a port is taken", 1, "", func(g *ground) { g.must(PurgeCluster{}); m(g, 0).listeners[2380] = "consul" },
			func(g *ground) Procedure { return g.create() }, "ports-free", "consul"},
		{"reload what is no reference", 3, "", nil, func(*ground) Procedure { return ReloadConfig{Only: []string{"10.9.9.9"}} }, "known-reference", "10.9.9.9"},
		{"purge a member's host", 3, "", nil, func(*ground) Procedure { return PurgeHost{Host: hosts[1]} }, "no-member", "it is member"},
		{"purge an unreachable host", 3, "", func(g *ground) { m(g, 4).powerOff() }, func(*ground) Procedure { return PurgeHost{Host: hosts[4]} }, "reachable", "cannot be reached"},
		{"purge a host when nobody answers", 3, "", func(g *ground) { m(g, 0).kill(); m(g, 1).kill(); m(g, 2).kill() },
			func(*ground) Procedure { return PurgeHost{Host: hosts[1]} }, "no-member", "no member answers"},
		{"snapshot when nobody answers", 1, "", func(g *ground) { m(g, 0).kill() }, func(g *ground) Procedure { return Snapshot{File: g.dir + "/x.db"} }, "voters-answer", "no voter answers"},
		{"create without a CA on hosts that have one", 1, "", func(g *ground) {
			g.must(DestroyCluster{Stamp: stampNow()})
			require.NoError(g.t, os.RemoveAll(g.dir+"/files"))
		}, func(g *ground) Procedure { return g.create() }, "ca", "there is no CA"},
		{"create without etcd, from an archive", 1, "", func(g *ground) {
			g.must(PurgeCluster{})
			m(g, 0).version = ""
			require.NoError(g.t, os.WriteFile(g.dir+"/etcd.tar.gz", []byte("\x1f\x8b and more"), 0o600))
			g.write(inventoryText(1, "", "        etcd_binary_from: etcd.tar.gz\n        etcd_binary_sha256: "+strings.Repeat("0", 64)+"\n"))
		}, func(g *ground) Procedure { return g.create() }, "installed", "is an archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, c.hosts, func(g *ground) {
				g.up()
				if c.vars != "" {
					g.write(inventoryText(c.hosts, "", c.vars))
				}
				if c.prepare != nil {
					c.prepare(g)
					time.Sleep(3 * time.Second) // for an election, where one is due
				}
				r := g.refusal(g.operator(), c.procedure(g), c.safeguard)
				require.Contains(g.t, r.Found, c.found)
				require.True(g.t, r.Show != "" || r.Hint != "", "%+v", r)
				require.NotContains(g.t, r.Error(), "%!", "a format that went wrong")
			})
		})
	}
}

// What goes wrong in the middle of a run stops it before the change that it
// would spoil, and the refusal says that something was changed.
func TestRefusalsInTheMiddle(t *testing.T) {
	m := func(g *ground, i int) *machine { return g.w.machines[hosts[i]] }
	after := func(title, host string, do func(g *ground)) func(g *ground, r Record) {
		return func(g *ground, r Record) {
			if r.State == Done && r.Title == title && (host == "" || r.Host == host) {
				do(g)
			}
		}
	}
	foreign := func(g *ground, i int) {
		m(g, i).mkdir("/data/etcd/member/wal", "etcd", "etcd", 0o700)
		m(g, i).files["/data/etcd/member/wal/9.wal"] = &node{content: walHead(0xabc, 0xdef), owner: "etcd"}
	}
	for _, c := range []struct {
		name      string
		hosts     int
		blank     bool // there is no cluster yet
		leader    int
		prepare   func(g *ground)
		event     func(g *ground, r Record)
		procedure func(g *ground) Procedure
		safeguard string
		never     string // what must not have been sent
	}{
		{"a voter dies while another is about to restart", 3, false, 0, nil, after("restart etcd", hosts[1], func(g *ground) { go m(g, 0).kill() }),
			func(*ground) Procedure { return Restart{Since: time.Now(), Soak: 5 * time.Second} }, "votes", "systemctl restart etcd.service on " + hosts[2]},
		{"voters do not reach the newcomer", 3, false, 0, func(g *ground) { m(g, 0).deaf[hosts[3]+":2380"] = true }, nil,
			func(*ground) Procedure { return AddMember{Host: hosts[3]} }, "peers-reach", "promote at"},
		{"the leadership comes back", 4, false, 1, nil, after("hand over the leadership", "", func(g *ground) { g.lead(hosts[1]) }),
			func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }, "leader-handed-over", "remove at"},
		{"nobody can take the leadership", 4, false, 1, func(g *ground) {
			g.etcd().head += 10_000
			for _, i := range []int{0, 2, 3} {
				g.lie(hosts[i], func(r *pb.StatusResponse) { r.RaftAppliedIndex -= 1000 })
			}
		}, nil, func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }, "heir", "move at"},
		{"the host is another cluster's now", 4, false, 0, func(g *ground) { m(g, 1).kill(); foreign(g, 1) }, nil,
			func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }, "own-data", "set aside /data/etcd on " + hosts[1]},
		{"another etcd runs on the data", 4, false, 0, func(g *ground) { m(g, 1).listeners[2379] = "etcd" }, nil,
			func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }, "stopped", "set aside /data/etcd on " + hosts[1]},
		{"foreign data comes up before the start", 3, true, 0, nil, after("enable the unit", hosts[2], func(g *ground) { foreign(g, 2) }),
			func(g *ground) Procedure { return g.create() }, "blank-host", "systemctl start etcd.service on " + hosts[2]},
		{"an alarm before the promotion", 3, false, 0, nil, after("wait until it answers", hosts[3], func(g *ground) { c := g.etcd(); c.alarms[c.leader] = "CORRUPT" }),
			func(*ground) Procedure { return AddMember{Host: hosts[3]} }, "no-alarm", "promote at"},
		{"a voter dies before the promotion", 3, false, 0, nil, after("wait until it answers", hosts[3], func(g *ground) { m(g, 1).kill() }),
			func(*ground) Procedure { return AddMember{Host: hosts[3]} }, "voters-answer", "promote at"},
		{"another operator's learner", 4, false, 0, nil, after("save a snapshot", "", func(g *ground) {
			c := g.etcd()
			_, err := c.addLearner(c.leader, "https://"+hosts[5]+":2380", time.Now())
			require.NoError(g.t, err)
		}), func(*ground) Procedure { return RemoveMember{Host: hosts[1], Stamp: stampNow()} }, "nothing-pending", "remove at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, c.hosts, func(g *ground) {
				if !c.blank {
					g.up()
					g.lead(hosts[c.leader])
					time.Sleep(time.Second)
				}
				if c.prepare != nil {
					c.prepare(g)
				}
				op := g.operator()
				if c.event != nil {
					op.on = func(r Record) { c.event(g, r) }
				}
				from := len(g.w.sent)
				_, err := op.do(c.procedure(g))
				var r *Refusal
				require.ErrorAs(g.t, err, &r, op.story())
				require.Equal(g.t, c.safeguard, r.Safeguard, op.story())
				require.True(g.t, r.Changed, "it is no clean refusal")
				for _, s := range g.w.sent[from:] {
					require.NotContains(g.t, s, c.never)
				}
			})
		})
	}
}

// lie makes a member tell something else than what is so.
func (g *ground) lie(name string, f func(*pb.StatusResponse)) {
	c := g.etcd()
	for id, e := range c.members {
		if hostPart(e.peerURL) == name {
			c.says[id] = f
		}
	}
}

// lockInventory makes the file one that nobody can write, root included.
func (g *ground) lockInventory() {
	g.t.Helper()
	if os.Geteuid() != 0 {
		require.NoError(g.t, os.Chmod(g.inventory(), 0o444))
		return
	}
	f, err := os.Open(g.inventory())
	require.NoError(g.t, err)
	set := func(flags int) error {
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	if err := set(immutable); err != nil {
		f.Close()
		g.t.Skipf("root writes everything here: %v", err)
	}
	g.t.Cleanup(func() { require.NoError(g.t, errors.Join(set(0), f.Close())) })
}

// The pending host itself goes on.
func TestPendingHostGoesOn(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		c := g.etcd()
		_, err := c.addLearner(c.leader, "https://"+hosts[3]+":2380", time.Now())
		require.NoError(g.t, err)
		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
	})
}

// A waiver passes over the safeguard that it names and over no other.
func TestWaivers(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.machines[hosts[1]].skew = 3 * time.Second
		g.w.machines[hosts[1]].is("3.6.16")
		op := g.operator()
		op.Runner.Waive = []string{"clocks"}
		g.refusal(op, AddMember{Host: hosts[3]}, "versions")
		op = g.operator()
		op.Runner.Waive = []string{"clocks", "versions", "newcomer-version"}
		// The newcomer's version has no risk to waive: it is no matter of taste.
		g.refusal(op, AddMember{Host: hosts[3]}, "newcomer-version")
	})
}

// DESIGN's table of etcd_clean and etcd_safeguard.
func TestSafeguardTable(t *testing.T) {
	yes, no := true, false
	const (
		nowhere   = "nowhere"
		healthy   = "healthy"
		crashed   = "crashed"   // one member's process is gone, its data is there
		dataOnly  = "data only" // all is stopped
		peersOnly = "listed"    // a wiped host that its peers still list
	)
	create := func(clean, safeguard *bool) func(g *ground) Procedure {
		return func(g *ground) Procedure {
			p := g.create()
			p.Clean, p.Safeguard = clean, safeguard
			return p
		}
	}
	destroy := func(clean, safeguard *bool) func(g *ground) Procedure {
		return func(*ground) Procedure {
			return DestroyCluster{Clean: clean, Safeguard: safeguard, Stamp: stampNow()}
		}
	}
	purge := func(*ground) Procedure { return PurgeCluster{} }
	const (
		protect = "        etcd_safeguard: true\n"
		keep    = "        etcd_clean: false\n"
	)
	for _, c := range []struct {
		procedure string
		make      func(g *ground) Procedure
		state     string
		vars      string
		outcome   string // created, nothing, rebuilt, down, or the safeguard that refuses
	}{
		{"create", create(nil, nil), nowhere, "", "created"},
		{"create", create(nil, nil), nowhere, keep, "created"},
		{"create", create(nil, nil), nowhere, protect, "created"},
		{"create", create(nil, nil), healthy, "", "nothing"},
		{"create", create(nil, nil), healthy, keep, "nothing"},
		{"create", create(nil, nil), healthy, protect, "nothing"},
		{"create -clean=true", create(&yes, nil), healthy, "", "rebuilt"},
		{"create -clean=true", create(&yes, nil), healthy, keep, "rebuilt"},
		{"create -clean=true", create(&yes, nil), healthy, protect, "etcd_safeguard"},
		{"create -clean=true -safeguard=false", create(&yes, &no), healthy, keep + protect, "rebuilt"},
		{"create", create(nil, nil), crashed, "", "rebuilt"},
		{"create", create(nil, nil), crashed, keep, "etcd_clean"},
		{"create", create(nil, nil), crashed, protect, "etcd_safeguard"},
		{"create", create(nil, nil), crashed, keep + protect, "etcd_safeguard"},
		{"create -clean=false", create(&no, nil), crashed, "", "etcd_clean"},
		{"create -safeguard=true", create(nil, &yes), crashed, "", "etcd_safeguard"},
		{"create", create(nil, nil), dataOnly, "", "rebuilt"},
		{"create", create(nil, nil), dataOnly, keep, "etcd_clean"},
		{"create", create(nil, nil), dataOnly, protect, "etcd_safeguard"},
		{"create", create(nil, nil), peersOnly, keep, "etcd_clean"},
		{"create", create(nil, nil), peersOnly, protect, "etcd_safeguard"},
		{"destroy", destroy(nil, nil), healthy, "", "down"},
		{"destroy", destroy(nil, nil), crashed, "", "down"},
		{"destroy", destroy(nil, nil), dataOnly, "", "down"},
		{"destroy", destroy(nil, nil), healthy, keep, "etcd_clean"},
		{"destroy", destroy(nil, nil), dataOnly, keep, "etcd_clean"},
		{"destroy", destroy(nil, nil), healthy, protect, "etcd_safeguard"},
		{"destroy", destroy(nil, nil), healthy, keep + protect, "etcd_safeguard"},
		{"destroy -clean=true", destroy(&yes, nil), healthy, keep, "down"},
		{"destroy -safeguard=false", destroy(nil, &no), healthy, protect, "down"},
		{"destroy", destroy(nil, nil), nowhere, "", "nothing"},
		{"destroy", destroy(nil, nil), nowhere, keep + protect, "nothing"},
		{"purge", purge, healthy, "", "down"},
		{"purge", purge, healthy, keep + protect, "down"},
		{"purge", purge, crashed, protect, "down"},
		{"purge", purge, dataOnly, protect, "down"},
		{"purge", purge, nowhere, protect, "nothing"},
	} {
		t.Run(fmt.Sprintf("%s, %s, %s", c.procedure, c.state, strings.ReplaceAll(c.vars, "\n", "")), func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				var first uint64
				if c.state != nowhere {
					g.up()
					first = g.etcd().id
				}
				last := g.w.machines[hosts[2]]
				switch c.state {
				case crashed:
					last.kill()
				case dataOnly:
					for _, h := range hosts[:3] {
						g.w.machines[h].kill()
					}
				case peersOnly:
					last.kill()
					for _, p := range last.under("/data/etcd") {
						delete(last.files, p)
					}
				}
				g.write(inventoryText(3, "", c.vars))
				op := g.operator()
				p := c.make(g)
				switch c.outcome {
				case "created":
					g.must(p)
					require.Equal(g.t, votersText(1, 2, 3), g.roles())
				case "nothing":
					g.nothingToDo(p)
				case "rebuilt", "down":
					_, err := op.do(p)
					require.NoError(g.t, err, op.story())
					require.Len(g.t, op.consent, 1, "a human agreed")
					require.Equal(g.t, ID(first), op.consent[0].Code)
					require.Equal(g.t, c.procedure != "purge" && c.state != dataOnly, strings.Contains(op.story(), "save a snapshot"), "what can be saved is saved")
					for _, h := range hosts[:3] {
						d := g.w.machines[h].dirFacts("/data/etcd")
						if c.procedure == "purge" {
							require.Empty(g.t, d.Aside)
						} else {
							require.Len(g.t, d.Aside, 1, "what was there is kept")
						}
						if c.outcome == "down" {
							require.Empty(g.t, d.Entries)
							require.Nil(g.t, g.w.machines[h].proc)
						}
					}
					if c.outcome == "rebuilt" {
						require.Equal(g.t, votersText(1, 2, 3), g.roles())
						require.NotEqual(g.t, first, g.etcd().id, "with a fresh token")
					}
				default:
					r := g.refusal(op, p, c.outcome)
					require.Empty(g.t, op.consent, "nobody is asked for what is forbidden")
					require.NotEmpty(g.t, r.Hint)
				}
			})
		})
	}
}

// A host that cannot be looked at stops everything, unless that is waived.
func TestUnreachableHostStopsAll(t *testing.T) {
	for name, p := range map[string]func(g *ground) Procedure{
		"create":  func(g *ground) Procedure { return g.create() },
		"destroy": func(*ground) Procedure { return DestroyCluster{Stamp: stampNow()} },
		"purge":   func(*ground) Procedure { return PurgeCluster{} },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				g.w.machines[hosts[2]].powerOff()
				time.Sleep(3 * time.Second)
				r := g.refusal(g.operator(), p(g), "unreachable")
				require.NotEmpty(g.t, r.Risk)
				if name == "create" {
					return // there is no cluster of three on two hosts
				}
				op := g.operator()
				op.Runner.Waive = []string{"unreachable"}
				_, err := op.do(p(g))
				require.NoError(g.t, err, op.story())
				require.Nil(g.t, g.w.machines[hosts[0]].proc)
				require.True(g.t, g.w.machines[hosts[2]].dirFacts("/data/etcd").WAL, "the other is as it was")
			})
		})
	}
}

// Certificates that end soon are found before a member is locked out.
func TestCertificatesThatEnd(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		time.Sleep(19*365*24*time.Hour + 350*24*time.Hour) // of 20 years
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "certificates", r.Safeguard)
		require.NotEmpty(g.t, r.Risk)
	})
}

// unitOn is the file of a unit, written by other means.
func unitOn(dataDir string) (f host.WriteFile) {
	f.Path, f.Owner, f.Group, f.Mode = config.UnitPath, "root", "root", 0o644
	f.Content = config.Unit(config.UnitSpec{DataDir: dataDir})
	return f
}
