package sop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// The hosts of PostgreSQL and monitoring in these tests. The first of pgHosts
// leads.
var pgHosts, infraHost = hosts[4:6], hosts[6]

const vip = "10.10.10.2"

// withClients brings up n members, PostgreSQL on two hosts, and an infra host.
func (g *ground) withClients(n int) *fakePG {
	g.t.Helper()
	g.up()
	pg := g.postgres("pg-test", vip, pgHosts...)
	g.infra(infraHost)
	g.write(withPostgres(n, []string{infraHost}, map[string][]string{"pg-test": pgHosts}))
	time.Sleep(15 * time.Second)
	return pg
}

func (g *ground) content(name, path string) string {
	g.t.Helper()
	f := g.w.machines[name].file(path)
	require.True(g.t, f.Exists, "%s on %s", path, name)
	return string(f.Content)
}

// clientsName checks that every client's file names these members and nothing
// else about it has changed.
func (g *ground) clientsName(before map[string]string, seqs ...int) {
	g.t.Helper()
	for _, h := range pgHosts {
		got, err := config.PatroniEndpoints([]byte(g.content(h, config.PatroniPath)))
		require.NoError(g.t, err)
		require.True(g.t, config.SameEndpoints(got, clientURLs(seqs...)), "%s: %v", h, got)
		got, err = config.VIPManagerEndpoints([]byte(g.content(h, config.VIPManagerPath)))
		require.NoError(g.t, err)
		require.ElementsMatch(g.t, clientURLs(seqs...), got, h)
		for path, edit := range map[string]func([]byte, []string) ([]byte, error){config.PatroniPath: config.EditPatroni, config.VIPManagerPath: config.EditVIPManager} {
			want, err := edit([]byte(before[h+path]), clientURLs(seqs...))
			require.NoError(g.t, err)
			require.Equal(g.t, string(want), g.content(h, path), "only the endpoints have changed")
		}
	}
	require.ElementsMatch(g.t, clientURLs(seqs...), g.env(infraHost))
	got, err := config.PatroniEndpoints([]byte(g.content(infraHost, config.PatronictlInfraPath)))
	require.NoError(g.t, err)
	require.True(g.t, config.SameEndpoints(got, clientURLs(seqs...)))
	var targets []string
	for _, s := range seqs {
		targets = append(targets, fmt.Sprintf("etcd-%d.yml", s))
	}
	require.Equal(g.t, targets, g.w.machines[infraHost].entries("/infra/targets/etcd"))
}

func (g *ground) clientFiles() map[string]string {
	files := map[string]string{}
	for _, h := range pgHosts {
		for _, p := range []string{config.PatroniPath, config.VIPManagerPath} {
			files[h+p] = g.content(h, p)
		}
	}
	return files
}

// bearers are the hosts that have the VIP now.
func (g *ground) bearers() []string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.w.tick()
	var names []string
	for name, m := range g.w.machines {
		if m.addrs[vip] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (g *ground) acts(from int) []string {
	return slices.DeleteFunc(slices.Clone(g.w.sent[from:]), func(s string) bool { return !strings.Contains(s, " on ") })
}

// A member joins: clients follow after it votes, PostgreSQL's replica first, and
// nothing of theirs is restarted.
func TestAddMemberWithClients(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		pg := g.withClients(3)
		before, from := g.clientFiles(), len(g.w.sent)
		pids := []int{g.w.machines[pgHosts[0]].vip.pid, g.w.machines[pgHosts[1]].vip.pid}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		g.clientsName(before, 1, 2, 3, 4)
		require.Equal(g.t, "victoria", g.w.machines[infraHost].file("/infra/targets/etcd/etcd-4.yml").Owner)
		require.Equal(g.t, "# etcd-4 @ 10.10.10.14\n- labels: { ip: 10.10.10.14 , ins: etcd-4 , cls: etcd }\n  targets: [ 10.10.10.14:2379 ]\n", g.content(infraHost, "/infra/targets/etcd/etcd-4.yml"))
		for i, h := range pgHosts {
			m := g.w.machines[h]
			require.Equal(g.t, pids[i], m.vip.pid, "its list is long enough")
			require.Equal(g.t, m.text(config.PatroniPath), m.patroni.read, "Patroni has read its file")
			f := m.file(config.VIPManagerPath)
			require.Equal(g.t, []any{"root", "postgres", os.FileMode(0o600)}, []any{f.Owner, f.Group, f.Mode})
		}
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
		require.Equal(g.t, 1, pg.timeline)
		var order []string
		for _, s := range g.w.sent[from:] {
			if strings.HasPrefix(s, "promote") || strings.Contains(s, "patroni") || strings.Contains(s, "vip-manager") {
				order = append(order, strings.Fields(s)[0]+" "+s[strings.LastIndex(s, " ")+1:])
			}
		}
		require.Equal(g.t, "promote", strings.Fields(order[0])[0])
		require.Equal(g.t, []string{"write " + infraHost, "write " + pgHosts[1], "systemctl " + pgHosts[1], "write " + pgHosts[0], "systemctl " + pgHosts[0], "write " + pgHosts[1], "write " + pgHosts[0]}, order[1:])
		require.Contains(g.t, op.story(), "has not asked etcd since", "it waits for Patroni's next turn")
		require.NotContains(g.t, op.story(), "hush")
		g.nothingToDo(AddMember{Host: hosts[3]})
		g.nothingToDo(ReloadConfig{})
	})
}

// A member goes: clients know before it does.
func TestRemoveMemberWithClients(t *testing.T) {
	bubble(t, 4, func(g *ground) {
		g.withClients(4)
		before, from := g.clientFiles(), len(g.w.sent)
		p := RemoveMember{Host: hosts[2], Stamp: stampNow()}
		g.must(p)
		g.clientsName(before, 1, 2, 4)
		gone := slices.IndexFunc(g.w.sent, func(s string) bool { return strings.HasPrefix(s, "remove at") })
		for i, s := range g.w.sent {
			if i >= from && (strings.Contains(s, "patroni") || strings.Contains(s, "vip-manager") || strings.Contains(s, "/infra/")) {
				require.Less(g.t, i, gone, s)
			}
		}
		require.NotContains(g.t, strings.Join(g.w.sent[from:], "\n"), "restart vip-manager", "two of its list live")
		g.nothingToDo(p)
		// Two more of those that vip-manager runs with: now it has to. A host of
		// PostgreSQL's may have a member of its own, too.
		g.must(AddMember{Host: pgHosts[0]})
		g.must(RemoveMember{Host: hosts[0], Stamp: stampNow()})
		from = len(g.w.sent)
		op := g.operator()
		op.Runner.Waive = []string{"spare"}
		_, err := op.do(RemoveMember{Host: hosts[1], Stamp: stampNow()})
		require.NoError(g.t, err, op.story())
		require.Equal(g.t, 2, strings.Count(strings.Join(g.w.sent[from:], "\n"), "restart vip-manager"))
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
	})
}

// A vip-manager whose list is spent is restarted, the VIP's holder last.
func TestSpentListIsRestarted(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		old := []string{"https://10.10.10.18:2379", clientURLs(1)[0]}
		for _, h := range pgHosts {
			m := g.w.machines[h]
			text, err := config.EditVIPManager([]byte(m.text(config.VIPManagerPath)), old)
			require.NoError(g.t, err)
			m.lay(config.VIPManagerPath, "root", "postgres", 0o600, string(text))
			m.vip.list = old
		}
		double := 0
		g.w.peril = func(_, what string) fault {
			n := 0
			for _, m := range g.w.machines {
				if m.addrs[vip] {
					n++
				}
			}
			double = max(double, n)
			return fault{}
		}
		from := len(g.w.sent)
		g.must(ReloadConfig{})
		require.Equal(g.t, []string{
			"write /etc/default/vip-manager.yml on " + pgHosts[1], "systemctl restart vip-manager.service on " + pgHosts[1],
			"write /etc/default/vip-manager.yml on " + pgHosts[0], "systemctl restart vip-manager.service on " + pgHosts[0],
		}, g.acts(from))
		require.Equal(g.t, 1, double, "the VIP is never on two hosts")
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
		for _, h := range pgHosts {
			require.Equal(g.t, clientURLs(1, 2, 3), g.w.machines[h].vip.list)
		}
		g.nothingToDo(ReloadConfig{})
	})
}

// What vip-manager runs with, and what is in its file, are two things: it is
// told only where that is asked for.
func TestRunningListIsRemembered(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, clientURLs(1, 2, 3), g.w.machines[pgHosts[0]].vip.list)
		g.nothingToDo(ReloadConfig{})
		g.must(ReloadConfig{VIPs: true})
		for _, h := range pgHosts {
			require.Equal(g.t, clientURLs(1, 2, 3, 4), g.w.machines[h].vip.list)
		}
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
		g.nothingToDo(ReloadConfig{VIPs: true})
	})
}

func TestVIPRuns(t *testing.T) {
	file := func(urls ...string) []byte { return []byte(vipText("pg", "pg-1", vip, urls)) }
	const a, b, c = "https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://10.0.0.3:2379"
	view := func(pid int, content []byte, edits ...VIPEdit) View {
		v := View{Hosts: []HostView{{Name: "h", Facts: host.Facts{BootID: "boot", Files: map[string]host.File{config.VIPManagerPath: {Exists: true, Content: content}},
			Units: map[string]host.Unit{config.VIPManagerUnit: {Active: "active", PID: pid}}}}}}
		v.Admin.Clients.VIP = map[string][]VIPEdit{"h": edits}
		return v
	}
	first := VIPEdit{BootID: "boot", PID: 7, Before: []string{a}, After: []string{a, b}}
	second := VIPEdit{BootID: "boot", PID: 8, Before: []string{a, b}, After: []string{b, c}}
	require.Equal(t, []string{a}, view(7, file(a)).vipRuns("h"), "nothing is known: the file is believed")
	require.Equal(t, []string{a}, view(7, file(a, b), first).vipRuns("h"), "it is older than the edit")
	require.Equal(t, []string{a, b}, view(9, file(a, b), first).vipRuns("h"), "it is younger")
	require.Equal(t, []string{a, b}, view(8, file(b, c), first, second).vipRuns("h"), "it is between two")
	require.Equal(t, []string{b, c}, view(9, file(b, c), first, second).vipRuns("h"))
	require.Equal(t, []string{b}, view(9, file(a, b), first, second).vipRuns("h"), "somebody else has edited it since: what both have")
	other := second
	other.BootID = "another"
	require.Equal(t, []string{b, c}, view(8, file(b, c), first, other).vipRuns("h"), "the same number after a reboot is another process")
}

// A VIP that does not come back with the new list comes back with the old one,
// and the run says so; so does one whose vip-manager ends.
func TestVIPIsPutBack(t *testing.T) {
	for name, ail := range map[string]func(v *fakeVIP, endpoint string){
		"hears nothing": func(v *fakeVIP, endpoint string) { v.rejects = endpoint },
		"ends":          func(v *fakeVIP, endpoint string) { v.dies = endpoint },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.spentList()
				m := g.w.machines[pgHosts[0]]
				ail(m.vip, clientURLs(2)[0])
				before := g.clientFiles()
				op := g.operator()
				_, err := op.do(ReloadConfig{})
				require.ErrorContains(g.t, err, "was given its old list again", op.story())
				require.Equal(g.t, before[pgHosts[0]+config.VIPManagerPath], g.content(pgHosts[0], config.VIPManagerPath))
				require.Equal(g.t, []string{pgHosts[0]}, g.bearers(), op.story())
				require.True(g.t, m.vip.on)
				require.Equal(g.t, clientURLs(1, 2, 3), g.w.machines[pgHosts[1]].vip.list, "the other host's is as it should be")
				ail(m.vip, "")
				g.must(ReloadConfig{})
				require.Equal(g.t, clientURLs(1, 2, 3), m.vip.list)
				require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
				g.nothingToDo(ReloadConfig{})
			})
		})
	}
}

// Who bears the VIP comes last, whatever the inventory says of roles, and also
// where no Patroni tells who leads.
func TestBearerComesLast(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.spentList()
		pg := g.w.machines[pgHosts[0]].patroni.pg
		pg.leader = pgHosts[1]
		for _, h := range pgHosts {
			g.w.machines[h].patroni.silent = true
		}
		require.Equal(g.t, pgHosts[1:], g.bearers())
		from := len(g.w.sent)
		g.must(ReloadConfig{})
		require.Equal(g.t, []string{"systemctl restart vip-manager.service on " + pgHosts[0], "systemctl restart vip-manager.service on " + pgHosts[1]},
			slices.DeleteFunc(g.acts(from), func(s string) bool { return !strings.HasPrefix(s, "systemctl") }))
		require.Equal(g.t, pgHosts[1:], g.bearers())
	})
}

// spentList leaves both vip-managers with one living member in their list.
func (g *ground) spentList() {
	g.withClients(3)
	old := []string{clientURLs(1)[0], "https://10.10.10.18:2379"}
	for _, h := range pgHosts {
		m := g.w.machines[h]
		text, err := config.EditVIPManager([]byte(m.text(config.VIPManagerPath)), old)
		require.NoError(g.t, err)
		m.lay(config.VIPManagerPath, "root", "postgres", 0o600, string(text))
		m.vip.list = old
	}
}

// Killed anywhere on the way to putting it back, and run again: the VIP is where
// it belongs in the end, whether the cause is gone or not.
func TestKilledWhilePuttingBack(t *testing.T) {
	for _, c := range []struct{ mended, ends bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		mended := c.mended
		t.Run(fmt.Sprintf("mended %v, ends %v", c.mended, c.ends), func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.spentList()
				if v := g.w.machines[pgHosts[0]].vip; c.ends {
					v.dies = clientURLs(2)[0]
				} else {
					v.rejects = clientURLs(2)[0]
				}
				whole := g.clone(filepath.Join(scratch(g.t), "whole"))
				points := 0
				op := whole.operator()
				op.Runner.Point = func(Point) { points++ }
				_, err := op.do(ReloadConfig{})
				require.Error(g.t, err)
				for n := 1; n <= points; n += stride {
					cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(n)))
					op := cut.operator()
					died, at, err := op.dieAt(n, ReloadConfig{})
					require.NoError(g.t, err)
					require.True(g.t, died)
					again := cut.operator()
					if mended {
						cut.w.machines[pgHosts[0]].vip.rejects, cut.w.machines[pgHosts[0]].vip.dies = "", ""
					}
					_, err = again.do(ReloadConfig{})
					if mended && err != nil {
						// It was found ended: not to be started is put back first.
						require.True(g.t, c.ends)
						require.ErrorContains(g.t, err, "old list again")
						require.Equal(g.t, []string{pgHosts[0]}, cut.bearers())
						again = cut.operator()
						_, err = again.do(ReloadConfig{})
					}
					if mended {
						require.NoError(g.t, err, "%+v\n%s", at, again.story())
						require.Equal(g.t, clientURLs(1, 2, 3), cut.w.machines[pgHosts[0]].vip.list, "%+v", at)
						cut.nothingToDo(ReloadConfig{})
					} else {
						require.ErrorContains(g.t, err, "old list again", "%+v\n%s", at, again.story())
					}
					cut.settle()
					require.Equal(g.t, []string{pgHosts[0]}, cut.bearers(), "%+v\n%s", at, again.story())
					require.NoError(g.t, os.RemoveAll(cut.dir))
				}
			})
		})
	}
}

// Whose file names another etcd is another's client, whatever the inventory says.
func TestForeignClientsAreLeftAlone(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		m := g.w.machines[pgHosts[1]]
		for p, edit := range map[string]func([]byte, []string) ([]byte, error){config.PatroniPath: config.EditPatroni, config.VIPManagerPath: config.EditVIPManager} {
			text, err := edit([]byte(m.text(p)), []string{"https://10.9.9.1:2379", "https://10.9.9.2:2379"})
			require.NoError(g.t, err)
			m.lay(p, "postgres", "postgres", 0o640, string(text))
		}
		before, from := g.clientFiles(), len(g.w.sent)
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Contains(g.t, op.story(), "left alone")
		for _, s := range g.acts(from) {
			require.NotContains(g.t, s, pgHosts[1])
		}
		require.Equal(g.t, before[pgHosts[1]+config.PatroniPath], g.content(pgHosts[1], config.PatroniPath))
		require.Equal(g.t, before[pgHosts[1]+config.VIPManagerPath], g.content(pgHosts[1], config.VIPManagerPath))
	})
}

// A client that cannot be reached is named, waived by host, remembered, shown,
// and followed up, also when all that it knew is gone.
func TestUnreachableClientIsADebt(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		m := g.w.machines[pgHosts[1]]
		m.reach = false
		r := g.refusal(g.operator(), AddMember{Host: hosts[3]}, "references-reachable")
		require.Equal(g.t, pgHosts[1], r.Host)
		waived := func(p Procedure, more ...string) {
			op := g.operator()
			op.Runner.Waive = append(more, "references-reachable:"+pgHosts[1])
			_, err := op.do(p)
			require.NoError(g.t, err, op.story())
		}
		waived(AddMember{Host: hosts[3]})
		for _, i := range []int{0, 1, 2} {
			waived(RemoveMember{Host: hosts[i], Stamp: stampNow()}, "spare")
		}
		v, err := g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Equal(g.t, []string{pgHosts[1]}, v.Admin.Debts)
		require.Contains(g.t, strings.Join(ReportOf(v).Findings, "\n"), "debt: the references on "+pgHosts[1])
		m.reach = true
		v, err = g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Contains(g.t, strings.Join(ReportOf(v).Findings, "\n"), "drift: /etc/patroni/patroni.yml on "+pgHosts[1])
		op := g.operator()
		_, err = op.do(ReloadConfig{})
		require.NoError(g.t, err, op.story())
		got, err := config.PatroniEndpoints([]byte(g.content(pgHosts[1], config.PatroniPath)))
		require.NoError(g.t, err)
		require.Equal(g.t, []string{"10.10.10.14:2379"}, got)
		v, err = g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Empty(g.t, v.Admin.Debts)
	})
}

// A client that a member does not take is refused before anything is changed;
// and one whose file is no longer editable is a person's.
func TestClientsThatCannotFollow(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		m := g.w.machines[pgHosts[1]]
		m.distrust["10.10.10.12:2379"] = "remote error: tls: unknown certificate authority"
		r := g.refusal(g.operator(), AddMember{Host: hosts[3]}, "client-reaches")
		require.Equal(g.t, pgHosts[1], r.Host)
		require.Contains(g.t, r.Found, "unknown certificate authority")
		delete(m.distrust, "10.10.10.12:2379")

		text := strings.Replace(m.text(config.PatroniPath), "hosts: '10", "hosts: &h '10", 1)
		m.lay(config.PatroniPath, "postgres", "postgres", 0o640, text)
		r = g.refusal(g.operator(), AddMember{Host: hosts[3]}, "references-editable")
		require.Equal(g.t, pgHosts[1], r.Host)
		op := g.operator()
		op.Runner.Waive = []string{"references-editable:" + pgHosts[1]}
		res, err := op.do(AddMember{Host: hosts[3]})
		require.NoError(g.t, err, op.story())
		require.Equal(g.t, text, m.text(config.PatroniPath))
		v, err := g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Equal(g.t, []string{pgHosts[1]}, v.Admin.Debts, "%s", res.Plan.Text(res.View))
		require.Contains(g.t, strings.Join(ReportOf(v).Findings, "\n"), "references-editable")
	})
}

// A reload that PostgreSQL does not stand ends the run before the primary's turn.
func TestUpsetPostgres(t *testing.T) {
	for name, upset := range map[string]func(p *fakePG, m *machine){
		"led":            func(p *fakePG, m *machine) { p.leader = m.name; p.timeline++ },
		"is on timeline": func(p *fakePG, _ *machine) { p.timeline++ },
		"not answer":     func(_ *fakePG, m *machine) { m.patroni.silent = true },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.withClients(3).upset = upset
				old := g.content(pgHosts[0], config.PatroniPath)
				op := g.operator()
				_, err := op.do(AddMember{Host: hosts[3]})
				require.ErrorContains(g.t, err, name, op.story())
				require.Equal(g.t, old, g.content(pgHosts[0], config.PatroniPath), "the primary's file is as it was")
				require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
			})
		})
	}
}

// Nobody leads: nobody could tell whether a reload did harm.
func TestLeaderlessPostgres(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3).leader = ""
		r := g.refusal(g.operator(), AddMember{Host: hosts[3]}, "postgres-sound")
		require.Contains(g.t, r.Found, "nobody leads pg-test")
		g.nothingToDo(ReloadConfig{})
	})
}

// vip-manager 1 is refused by name where it would have to be restarted, and one
// that does not tell is believed where the VIP is.
func TestVIPManagerVersions(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.spentList()
		for _, h := range pgHosts {
			g.w.machines[h].programs[config.VIPManagerBin] = ""
		}
		r := g.refusal(g.operator(), ReloadConfig{}, "vip-manager-version")
		require.Equal(g.t, pgHosts[1], r.Host, "the VIP is not there to show that it works")
		g.w.machines[pgHosts[1]].programs[config.VIPManagerBin] = "1.0.2"
		r = g.refusal(g.operator(), ReloadConfig{}, "vip-manager-version")
		require.Contains(g.t, r.Found, "1.0.2")
		delete(g.w.machines[pgHosts[1]].programs, config.VIPManagerBin)
		g.w.machines[pgHosts[1]].programs[config.VIPManagerBin+"2"] = "3.0.0"
		g.must(ReloadConfig{})
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
	})
	// It is not started where it does not run, and its version is nobody's concern.
	bubble(t, 3, func(g *ground) {
		g.spentList()
		m := g.w.machines[pgHosts[1]]
		m.vip.on, m.vip.enabled, m.vip.pid, m.programs[config.VIPManagerBin] = false, false, 0, "1.0.2"
		g.must(ReloadConfig{})
		require.False(g.t, m.vip.on)
		got, err := config.VIPManagerEndpoints([]byte(m.text(config.VIPManagerPath)))
		require.NoError(g.t, err)
		require.ElementsMatch(g.t, clientURLs(1, 2, 3), got)
	})
}

// A vip-manager that lost the VIP with its list gets it back.
func TestBlindVIPManagerIsMended(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		dead := []string{"https://10.10.10.18:2379", "https://10.10.10.19:2379"}
		for _, h := range pgHosts {
			m := g.w.machines[h]
			m.addrs[vip] = false
			text, err := config.EditVIPManager([]byte(m.text(config.VIPManagerPath)), append(slices.Clone(dead), clientURLs(1)...))
			require.NoError(g.t, err)
			m.lay(config.VIPManagerPath, "root", "postgres", 0o600, string(text))
			m.vip.list = dead
		}
		v, err := g.operator().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Contains(g.t, strings.Join(ReportOf(v).Findings, "\n"), "vip: the VIP 10.10.10.2 is not on "+pgHosts[0])
		g.must(ReloadConfig{})
		require.Equal(g.t, []string{pgHosts[0]}, g.bearers())
	})
}

func TestReloadOnlyKinds(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.spentList()
		m := g.w.machines[pgHosts[0]]
		text, err := config.EditPatroni([]byte(m.text(config.PatroniPath)), clientURLs(1))
		require.NoError(g.t, err)
		m.lay(config.PatroniPath, "postgres", "postgres", 0o640, string(text))
		delete(g.w.machines[infraHost].files, "/infra/targets/etcd/etcd-2.yml")
		for _, c := range []struct {
			only string
			acts int
		}{{"etcd.conf", 0}, {"patronictl.yml", 0}, {"patroni.yml", 2}, {"targets", 1}, {pgHosts[1], 2}, {"vip-manager.yml", 2}} {
			from := len(g.w.sent)
			g.must(ReloadConfig{Only: []string{c.only}})
			require.Len(g.t, g.acts(from), c.acts, c.only)
		}
		require.True(g.t, bytes.Contains([]byte(g.content(infraHost, "/infra/targets/etcd/etcd-2.yml")), []byte("etcd-2")))
		g.nothingToDo(ReloadConfig{})
	})
}

// The same for every change on a client's host: an answer that is lost is looked
// for, and asked for again where nothing would ever tell.
func TestClientAnswersLost(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.spentList()
		for _, h := range pgHosts {
			m := g.w.machines[h]
			text, err := config.EditPatroni([]byte(m.text(config.PatroniPath)), clientURLs(1))
			require.NoError(g.t, err)
			m.lay(config.PatroniPath, "postgres", "postgres", 0o640, string(text))
		}
		whole := g.clone(filepath.Join(scratch(g.t), "whole"))
		from := len(whole.w.sent)
		whole.must(ReloadConfig{})
		whole.settle()
		want, acts := whole.dump(), len(whole.acts(from))
		require.Equal(g.t, 8, acts)
		for k := 1; k <= acts; k++ {
			cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(k)))
			n, lost := 0, ""
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
			op := cut.operator()
			_, err := op.do(ReloadConfig{})
			require.NoError(g.t, err, "lost: %s\n%s", lost, op.story())
			cut.settle()
			require.Equal(g.t, want, cut.dump(), "lost: %s", lost)
		}
	})
}

// ETCDCTL_API=3 is for an etcdctl that needs it.
func TestOldEtcdctl(t *testing.T) {
	for version, want := range map[string]bool{"3.4.3": true, "3.5.16": true, "3.6.0": false, "3.7.3": false, "4.0.0": false, "": false, "2.3.8": true} {
		require.Equal(t, want, olderThan36(version), version)
	}
	bubble(t, 3, func(g *ground) {
		g.up()
		for _, h := range hosts[:2] {
			delete(g.w.machines[h].files, config.EnvPath)
		}
		g.w.machines[hosts[0]].programs[config.EtcdctlPath] = "3.5.16"
		g.must(InstallClientEnv{})
		require.Contains(g.t, g.content(hosts[0], config.EnvPath), "ETCDCTL_API=3")
		require.NotContains(g.t, g.content(hosts[1], config.EnvPath), "ETCDCTL_API")
	})
}

// Without root a plan tells of clients' files what can be told: that they are
// not known.
func TestClientsWithoutRoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		for _, p := range []Procedure{AddMember{Host: hosts[3]}, ReloadConfig{}} {
			plan, v, err := g.plain().Runner.Explain(context.Background(), p)
			require.NoError(g.t, err)
			require.Empty(g.t, plan.Objections(v))
			require.Contains(g.t, plan.Text(v), "? references-editable: /etc/patroni/patroni.yml on 10.10.10.16 is not known without root")
			require.Contains(g.t, plan.Text(v), "   ? 10.10.10.16     refresh vip-manager.yml\n")
		}
		v, err := g.plain().Site.Observe(context.Background(), Scope{AllHosts: true})
		require.NoError(g.t, err)
		require.Empty(g.t, ReportOf(v).Findings)
	})
}
