package sop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// runs gives all hosts an etcd, and their package managers several.
func (g *ground) runs(version string) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.offers = []string{"3.5.16-4", "3.5.35-1", "3.6.9-1", "3.6.16-1", "3.7.3-1"}
	for _, m := range g.w.machines {
		m.version = version
	}
}

// running tells what the members run, by host.
func (g *ground) running() string {
	c := g.etcd()
	var all []string
	for _, p := range c.procs {
		all = append(all, p.m.name+" "+p.version)
	}
	slices.Sort(all)
	return strings.Join(all, ", ") + "; " + c.version
}

func runningText(version string, n int) string {
	var all []string
	for _, h := range hosts[:n] {
		all = append(all, h+" "+version)
	}
	return strings.Join(all, ", ") + "; " + minor(version)
}

// member gives the one on a host.
func (g *ground) member(name string) *entry {
	for _, e := range g.etcd().members {
		if hostPart(e.peerURL) == name {
			return e
		}
	}
	g.t.Fatalf("no member is on %s", name)
	return nil
}

// From one minor version to the next, whichever way the new etcd comes.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		prepare        func(g *ground)
		brought        string // the act that brings it, "" for none
	}{
		{"a package", "3.5.35", "3.6.16", nil, "install package etcd 3.6.16*"},
		{"a package as its manager spells it", "3.6.16", "3.7.3", func(g *ground) { g.write(inventoryText(3, "", "        etcd_package_version: 3.7.3-1\n")) }, "install package etcd 3.7.3-1"},
		{"a package version of another time", "3.6.16", "3.7.3", func(g *ground) { g.write(inventoryText(3, "", "        etcd_package_version: 3.6.16-1\n")) }, "install package etcd 3.7.3*"},
		{"a binary", "3.6.16", "3.7.3", func(g *ground) { g.write(inventoryText(3, "", g.binary("3.7.3"))) }, "put program /usr/bin/etcd-3.7.3"},
		{"one that lies there", "3.6.16", "3.7.3", func(g *ground) {
			g.w.offers = []string{}
			for _, m := range g.w.machines {
				m.programs["/usr/bin/etcd-3.7.3"] = "3.7.3"
			}
		}, ""},
		{"one that is in place", "3.6.16", "3.7.3", func(g *ground) {
			g.w.offers = []string{}
			for _, m := range g.w.machines {
				m.version = "3.7.3"
			}
		}, ""},
		{"another patch", "3.6.9", "3.6.16", nil, "install package etcd 3.6.16*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				g.runs(c.from)
				g.up()
				g.lead(hosts[0])
				time.Sleep(time.Second)
				if c.prepare != nil {
					c.prepare(g)
				}
				g.w.sent = nil
				op := g.operator()
				_, err := op.do(Upgrade{Version: c.to})
				require.NoError(g.t, err, op.story())
				require.Equal(g.t, runningText(c.to, 3), g.running())
				var brought, restarted []string
				for _, s := range g.w.sent {
					if what, on, _ := strings.Cut(s, " on "); strings.HasPrefix(what, "install package") || strings.HasPrefix(what, "put program") {
						brought = append(brought, what)
					} else if strings.HasPrefix(what, "systemctl restart") {
						restarted = append(restarted, on)
					}
				}
				if c.brought == "" {
					require.Empty(g.t, brought)
				} else {
					require.Equal(g.t, []string{c.brought, c.brought, c.brought}, brought)
				}
				require.Equal(g.t, []string{hosts[1], hosts[2], hosts[0]}, restarted, "the leader last")
				if c.name != "one that is in place" {
					require.Equal(g.t, c.from, g.w.machines[hosts[1]].programs["/usr/bin/etcd-"+c.from], "what was there is kept")
				}
				again, err := g.operator().do(Upgrade{Version: c.to})
				require.NoError(g.t, err)
				require.True(g.t, again.Plan.Empty())
			})
		})
	}
}

// A trap is found before anything is touched, by a safeguard of its own.
func TestUpgradeRefuses(t *testing.T) {
	edit := func(h, old, fresh string) func(g *ground) {
		return func(g *ground) {
			n := g.w.machines[h].files[config.ConfPath]
			g.w.machines[h].files[config.ConfPath] = &node{content: []byte(strings.Replace(string(n.content), old, fresh, 1)), owner: n.owner, group: n.group, mode: n.mode}
		}
	}
	for _, c := range []struct {
		name, from, to string
		down           bool
		prepare        func(g *ground)
		safeguard      string
		found          string
	}{
		{"no version", "3.6.16", "3.7", false, nil, "valid-version", `"3.7" is no release`},
		{"no release", "3.6.16", "3.7.0-rc.1", false, nil, "valid-version", "is no release"},
		{"one of the future", "3.7.3", "3.8.0", false, nil, "known-version", "3.8.0"},
		{"one of the past", "3.4.30", "3.5.35", false, nil, "known-version", "etcd 3.4.30"},
		{"an older one", "3.7.3", "3.6.16", false, nil, "not-older", "older than 3.7.3"},
		{"a newer one, down", "3.6.16", "3.7.3", true, nil, "not-newer", "oldest member runs 3.6.16"},
		{"two minors", "3.5.35", "3.7.3", false, nil, "one-minor", "2 minor versions"},
		{"two minors down", "3.7.3", "3.5.35", true, nil, "one-minor", "2 minor versions"},
		{"a young 3.5", "3.5.31", "3.6.16", false, nil, "patch-level", "3.5.32 or newer"},
		{"a young 3.6", "3.6.10", "3.7.3", false, nil, "patch-level", "3.6.11 or newer"},
		{"mixed, one too far behind", "3.6.16", "3.7.3", false, func(g *ground) {
			g.lie(hosts[2], func(r *pb.StatusResponse) { r.Version = "3.5.35" })
		}, "one-minor", "2 minor versions"},
		{"not to be had", "3.6.16", "3.7.2", false, nil, "to-be-had", "it could install 3.5.16-4"},
		{"no package at all", "3.6.16", "3.7.3", false, func(g *ground) { g.w.offers = []string{} }, "to-be-had", "none at all"},
		{"a binary of another version", "3.6.16", "3.7.3", false, func(g *ground) { g.write(inventoryText(3, "", g.binary("3.7.2"))) }, "to-be-had", "is etcd 3.7.2"},
		{"a binary that was not meant", "3.6.16", "3.7.3", false, func(g *ground) {
			vars := g.binary("3.7.3")
			g.write(inventoryText(3, "", vars[:len(vars)-9]+"00000000\n"))
		}, "to-be-had", "etcd_binary_sha256"},
		{"the inventory asks for another", "3.6.16", "3.7.3", false, func(g *ground) { g.write(inventoryText(3, "", "        etcd_version: 3.6.16\n")) }, "wanted-version", "etcd_version 3.6.16"},
		{"lists for root alone", "3.5.35", "3.6.9", false, func(g *ground) { g.etcd().auth = true }, "sound-release", "21516"},
		{"a quota below the size", "3.6.16", "3.7.3", false, func(g *ground) { // the file was changed since the last start
			edit(hosts[1], "quota-backend-bytes: 8589934592", "quota-backend-bytes: 10240")(g)
		}, "quota-after-restart", "a quota of 10.0 KiB"},
		{"a setting that is gone", "3.6.16", "3.7.3", false, edit(hosts[2], "name: ", "experimental-initial-corrupt-check: true\nname: "), "settings-known", "feature-gates: InitialCorruptCheck=true"},
		{"a setting that 3.6 has not", "3.5.35", "3.6.16", false, edit(hosts[2], "name: ", "enable-v2: false\nname: "), "settings-known", "enable-v2"},
		{"an option that is gone", "3.6.16", "3.7.3", false, func(g *ground) {
			n := g.w.machines[hosts[1]].files[config.UnitPath]
			n.content = []byte(strings.Replace(string(n.content), "/usr/bin/etcd ", "/usr/bin/etcd --experimental-corrupt-check-time=1m ", 1))
			g.w.machines[hosts[1]].reload()
		}, "options-known", "experimental-corrupt-check-time (now corrupt-check-time)"},
		{"an option that is gone, in a drop-in", "3.5.35", "3.6.16", false, func(g *ground) { // as systemctl edit writes it
			m := g.w.machines[hosts[2]]
			m.mkdir(config.JoinDropInDir, "root", "root", 0o755)
			m.files[config.JoinDropInDir+"/override.conf"] = &node{content: []byte("[Service]\nExecStart=\nExecStart=/usr/bin/etcd --config-file /etc/etcd/etcd.conf --enable-v2=true\n"), owner: "root", group: "root", mode: 0o644}
			m.reload()
		}, "options-known", "enable-v2"},
		{"a learner in place", "3.6.16", "3.7.3", false, func(g *ground) {
			c := g.etcd()
			_, err := c.addLearner(c.leader, "https://"+hosts[3]+":2380", time.Now())
			require.NoError(g.t, err)
		}, "nothing-pending", hosts[3]},
		{"lists that differ", "3.6.16", "3.7.3", false, func(g *ground) {
			c, id := g.etcd(), g.member(hosts[1]).id
			var list []Member
			for _, m := range c.list() {
				list = append(list, Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.ID == g.member(hosts[2]).id})
			}
			c.lists[id] = list
		}, "same-list", hosts[1]},
		{"a promotion that was not stored", "3.5.35", "3.6.16", false, func(g *ground) {
			g.etcd().stale[g.member(hosts[1]).id] = []uint64{g.member(hosts[2]).id}
		}, "stored-members", "etcd#19557"},
		{"a zombie", "3.5.35", "3.6.16", false, func(g *ground) {
			g.etcd().ghosts[g.member(hosts[0]).id] = []uint64{0xdead}
		}, "stored-members", "dead (ghost), which is on no list"},
		{"a backend that cannot be read", "3.5.35", "3.6.16", false, func(g *ground) { g.w.spoil = true }, "stored-members", "cannot be read"},
		{"a new etcd that does not take the configuration", "3.6.16", "3.7.3", false, func(g *ground) {
			for _, m := range g.w.machines {
				m.programs["/usr/bin/etcd-3.7.3"] = "3.7.3"
			}
			g.w.picky = func(string, host.Trial) string { return "etcd: bad wolf" }
		}, "takes-configuration", "bad wolf"},
		{"a dead voter", "3.6.16", "3.7.3", false, func(g *ground) { g.w.machines[hosts[1]].kill(); time.Sleep(time.Second) }, "voters-answer", hosts[1]},
		{"an alarm", "3.6.16", "3.7.3", false, func(g *ground) { c := g.etcd(); c.alarms[c.leader] = "NOSPACE" }, "no-alarm", "NOSPACE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				g.runs(c.from)
				g.up()
				if c.prepare != nil {
					c.prepare(g)
				}
				op := g.operator()
				if g.etcd().auth {
					op.user, op.Site.User = "root", "root"
				}
				r := g.refusal(op, Upgrade{Version: c.to, Down: c.down}, c.safeguard)
				require.Contains(g.t, r.Error(), c.found)
				require.True(g.t, r.Show != "", "a refusal says what shows it")
			})
		})
	}
}

// What was never promoted in the backends: naively, the members do not come up
// with 3.6. A newer 3.5 brings them in order, once every member has started again
// while all others run it.
func TestUpgradeAfterPromotions(t *testing.T) {
	trap := func(g *ground) {
		g.runs("3.5.16")
		g.up()
		c := g.etcd()
		for id := range c.members {
			c.stale[id] = []uint64{g.member(hosts[1]).id, g.member(hosts[2]).id}
		}
	}
	t.Run("naively", func(t *testing.T) {
		bubble(t, 3, func(g *ground) {
			trap(g)
			m := g.w.machines[hosts[1]]
			m.version = "3.6.16"
			require.NoError(g.t, m.systemctl(host.Systemctl{Verb: host.Restart, Unit: config.UnitName}))
			time.Sleep(10 * time.Second)
			require.NotContains(g.t, g.running(), hosts[1])
		})
	})
	bubble(t, 3, func(g *ground) {
		trap(g)
		r := g.refusal(g.operator(), Upgrade{Version: "3.6.16"}, "patch-level")
		require.Equal(g.t, "first: upgrade 3.5.35", r.Hint)
		g.must(Upgrade{Version: "3.5.35"})
		// Those that were restarted last have not heard of those before.
		r = g.refusal(g.operator(), Upgrade{Version: "3.6.16"}, "stored-members")
		require.Contains(g.t, r.Hint, "restart")
		g.must(Restart{Since: time.Now()})
		g.must(Upgrade{Version: "3.6.16"})
		g.must(Upgrade{Version: "3.7.3"})
		require.Equal(g.t, runningText("3.7.3", 3), g.running())
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}

// A new etcd that a package brought and that does not take the configuration:
// the old process is not stopped, and the way back is open.
func TestUpgradeTriesBeforeItStops(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.runs("3.6.16")
		g.up()
		g.w.picky = func(version string, _ host.Trial) string {
			if version == "3.7.3" {
				return "flag provided but not defined: -what"
			}
			return ""
		}
		op := g.operator()
		res, err := op.do(Upgrade{Version: "3.7.3"})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "takes-configuration", r.Safeguard)
		require.True(g.t, r.Changed)
		require.Equal(g.t, runningText("3.6.16", 3), g.running())
		require.Equal(g.t, "upgrade 3.6.16 -downgrade", res.Plan.GiveUp)
		require.NotContains(g.t, strings.Join(g.w.sent, "\n"), "restart")

		g.must(Upgrade{Version: "3.6.16", Down: true})
		require.Equal(g.t, runningText("3.6.16", 3), g.running())
		for _, h := range hosts[:3] {
			require.Equal(g.t, "3.6.16", g.w.machines[h].version, "it would be another one after the next start")
		}
	})
}

// A member that does not come up with the new etcd: the run says so soon, and
// giving up brings it back, before another is restarted.
func TestUpgradeOfOneThatDoesNotComeUp(t *testing.T) {
	for n, h := range []string{hosts[1], hosts[2]} { // in the order in which they are taken
		t.Run(fmt.Sprintf("number %d", n+1), func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.runs("3.6.16")
				g.up()
				g.lead(hosts[0])
				time.Sleep(time.Second)
				g.w.starts = func(m *machine) bool { return m.name != h || m.version != "3.7.3" }
				began := time.Now()
				op := g.operator()
				res, err := op.do(Upgrade{Version: "3.7.3"})
				require.ErrorContains(g.t, err, "journalctl -u etcd.service", op.story())
				require.Less(g.t, time.Since(began), 2*time.Minute)
				require.Equal(g.t, "upgrade 3.6.16 -downgrade", res.Plan.GiveUp)
				require.NotContains(g.t, g.running(), h)
				require.Contains(g.t, g.running(), hosts[0]+" 3.6.16")

				g.must(Upgrade{Version: "3.6.16", Down: true})
				require.Equal(g.t, runningText("3.6.16", 3), g.running())
			})
		})
	}
}

// An option that the new etcd does not know was taken out of the unit, and nobody
// has told systemd: it would go on starting etcd with it.
func TestUpgradeOfAnEditedUnit(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.runs("3.5.35")
		g.up()
		m := g.w.machines[hosts[1]]
		unit := m.files[config.UnitPath]
		was := unit.content
		unit.content = []byte(strings.Replace(string(was), "etcd.conf", "etcd.conf --enable-v2=true", 1))
		m.reload()
		unit.content = was
		g.w.starts = func(m *machine) bool { return m.version != "3.6.16" || !strings.Contains(m.known, "--enable-v2") }
		g.must(Upgrade{Version: "3.6.16"})
		require.Equal(g.t, runningText("3.6.16", 3), g.running())
	})
}

// Down and up again: a downgrade that is under way is carried on, or taken back.
func TestDowngrade(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.runs("3.7.3")
		g.up()
		g.killAt(Upgrade{Version: "3.6.16", Down: true}, "restart etcd")
		require.Equal(g.t, "3.6", g.etcd().down)
		require.Equal(g.t, "3.7.3", g.etcd().procs[g.member(hosts[0]).id].version)
		up := g.clone(scratch(g.t) + "/up")
		g.must(Upgrade{Version: "3.6.16", Down: true})
		require.Equal(g.t, runningText("3.6.16", 3), g.running())
		require.Empty(g.t, g.etcd().down, "etcd itself ends it")

		res := up.must(Upgrade{Version: "3.7.3"})
		require.Contains(g.t, strings.Join(res.Plan.Warnings, "\n"), "a downgrade is under way, and is cancelled")
		require.Equal(g.t, runningText("3.7.3", 3), up.running())
		require.Empty(g.t, up.etcd().down)
	})
}
