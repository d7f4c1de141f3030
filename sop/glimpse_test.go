package sop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A glimpse tells what an act was about, and leaves what else is known of the
// host as it was seen last. After a reboot nothing is known, so all is looked at.
func TestGlimpse(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		t := g.t
		g.up()
		site, h := g.operator().Site, hosts[0]
		look := func(scope Scope) HostView {
			t.Helper()
			scope.Host, scope.Still = h, true
			v, err := site.Observe(t.Context(), scope)
			require.NoError(t, err)
			seen, there := v.Host(h)
			require.True(t, there)
			require.True(t, seen.Reachable(), seen.Problem)
			return seen
		}
		glimpse := Scope{Glimpse: glimpseOf(Install{Host: h, File: CACert}, config.Layout{})}
		first := look(glimpse)
		require.True(t, first.Glimpsed.IsZero(), "what was never seen is looked at whole")

		time.Sleep(time.Second)
		m := g.w.machine(h)
		change := func(p string) {
			g.w.mu.Lock()
			defer g.w.mu.Unlock()
			m.files[p].content = []byte("another")
		}
		change(config.CAPath)
		change(config.ConfPath)
		second := look(glimpse)
		require.Equal(t, "another", string(second.Facts.Files[config.CAPath].Content))
		require.Equal(t, first.Facts.Files[config.ConfPath], second.Facts.Files[config.ConfPath], "it was not asked for")
		require.Equal(t, first.Facts.Sums, second.Facts.Sums)
		require.Equal(t, first.Facts.Units, second.Facts.Units)
		require.Equal(t, first.Taken, second.Taken, "it was not seen whole")
		require.True(t, second.lastSeen().After(first.lastSeen()))

		g.w.mu.Lock()
		m.boot++
		g.w.mu.Unlock()
		third := look(glimpse)
		require.Equal(t, "another", string(third.Facts.Files[config.ConfPath].Content))
		require.True(t, third.Taken.After(first.Taken))
		require.True(t, third.Glimpsed.IsZero())
	})
}

// Whatever has more to it than the bytes of one file is looked at whole.
func TestGlimpseOf(t *testing.T) {
	l := config.Layout{Unit: config.UnitName}
	file := func(p string, unit bool) *Glimpse { return &Glimpse{Files: []string{p}, Unit: unit} }
	for _, tt := range []struct {
		act  Act
		want *Glimpse
	}{
		{Install{File: Conf}, file(config.ConfPath, false)},
		{Install{File: UnitFile, At: l.UnitPath()}, file(l.UnitPath(), true)},
		{Install{File: JoinDropIn, At: l.JoinDropInPath()}, file(l.JoinDropInPath(), true)},
		{Install{File: ServerKey}, &Glimpse{Sums: []string{ServerKey.Path()}}},
		{Install{File: EnvFile}, file(config.EnvPath, false)},
		{Refresh{File: EnvFile}, file(config.EnvPath, false)},
		{Refresh{File: Conf, At: "/etc/default/etcd"}, file("/etc/default/etcd", false)},
		{Install{File: Targets}, nil},
		{Refresh{File: PatroniConf}, nil},
		{On{Act: host.RemoveFile{Path: l.JoinDropInPath()}}, file(l.JoinDropInPath(), true)},
		{On{Act: host.MakeDir{Path: "/data/etcd"}}, &Glimpse{Dirs: []string{"/data/etcd"}}},
		{On{Act: host.Systemctl{Verb: host.DaemonReload}}, &Glimpse{Unit: true}},
		{On{Act: host.Systemctl{Verb: host.Enable, Unit: l.Unit}}, &Glimpse{Unit: true}},
		{On{Act: host.Systemctl{Verb: host.Enable, Unit: config.VIPManagerUnit}}, nil},
		{On{Act: host.Systemctl{Verb: host.Start, Unit: l.Unit}}, nil},
		{On{Act: host.SetAside{Path: "/data/etcd"}}, nil},
		{AddLearner{}, nil},
		{Promote{}, nil},
	} {
		require.Equal(t, tt.want, glimpseOf(tt.act, l), "%v", tt.act)
	}
}

// A look that fills in asks a host again only where there is more to ask it, or
// where it did not answer, be it for another host.
func TestFill(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		t := g.t
		g.up()
		site := g.operator().Site
		g.w.machine(hosts[1]).reach = false
		g.w.machine(hosts[2]).deaf = map[string]bool{hosts[0] + ":2380": true}
		whole := Scope{AllHosts: true, Reach: true}
		taken := func(scope Scope) map[string]time.Time {
			t.Helper()
			time.Sleep(time.Second)
			v, err := site.Observe(t.Context(), scope)
			require.NoError(t, err)
			all := map[string]time.Time{}
			for _, h := range v.Hosts {
				require.Equal(t, g.w.machine(h.Name).reach, h.Reachable(), h.Problem)
				all[h.Name] = h.Taken
			}
			return all
		}
		taken(whole) // what there is to ask shows only now
		first := taken(whole)
		g.w.machine(hosts[1]).reach = true
		fill := whole
		fill.Fill = true
		second := taken(fill)
		require.Equal(t, first[hosts[0]], second[hosts[0]])
		require.True(t, second[hosts[1]].After(first[hosts[1]]), "it had not answered")
		require.True(t, second[hosts[2]].After(first[hosts[2]]), "it had not got through to another")
		fill.Logs = true
		third := taken(fill)
		require.True(t, third[hosts[0]].After(second[hosts[0]]), "its log was not asked for before")
	})
}
