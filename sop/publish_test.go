package sop

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A learner that got its own name with its snapshot is started again, once, and
// does not serve seven seconds later only. One that may still be busy with a
// large database is left alone.
func TestPublishedWithinASnapshot(t *testing.T) {
	for _, tt := range []struct {
		name     string
		swallows bool
		size     int64
		again    bool
	}{
		{"as usual", false, 1 << 20, false},
		{"lost", true, 1 << 20, true},
		{"large", true, 1 << 30, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				g.w.swallows = tt.swallows
				g.etcd().dbSize = tt.size
				op := g.operator()
				began := time.Now()
				_, err := op.do(AddMember{Host: hosts[3]})
				require.NoError(g.t, err, op.story())
				require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
				again := 0
				for _, r := range op.records {
					if r.State == Recorded && r.Title == "let it publish its name again" {
						require.Equal(g.t, "systemctl restart etcd.service on "+hosts[3], r.Act)
						again++
					}
				}
				took := time.Since(began)
				if tt.again {
					require.Equal(g.t, 1, again, op.story())
				} else {
					require.Zero(g.t, again, op.story())
				}
				require.Equal(g.t, tt.swallows && !tt.again, took > 7*time.Second, "%v\n%s", took, op.story())
			})
		})
	}
}

// A learner has its time before anything is made of its silence.
func TestWaitsInVain(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.w.swallows = true
		h := hosts[3]
		op := g.operator()
		op.Runner.Point = func(p Point) {
			if p.Title == "let it publish its name again" {
				v := op.Site.last()
				require.NoError(g.t, waitsInVain(h)(v))
				require.Error(g.t, publishes(h)(v))
				i := slices.IndexFunc(v.Hosts, func(hv HostView) bool { return hv.Name == h })
				with := func(edit func(f *host.Facts, u *host.Unit)) View {
					other := v
					other.Hosts = slices.Clone(v.Hosts)
					f := &other.Hosts[i].Facts
					u := f.Units[v.unit()]
					edit(f, &u)
					f.Units = map[string]host.Unit{v.unit(): u}
					return other
				}
				young := func(_ *host.Facts, u *host.Unit) {
					u.Since = v.Hosts[i].Facts.Clock.Add(v.Taken.Sub(v.Hosts[i].Taken) - publishing/2)
				}
				require.ErrorContains(g.t, waitsInVain(h)(with(young)), "just now")
				require.NoError(g.t, publishes(h)(with(young)))
				require.ErrorContains(g.t, waitsInVain(h)(with(func(f *host.Facts, _ *host.Unit) { f.Globs = nil })), "no snapshot")
				require.NoError(g.t, waitsInVain(h)(with(func(f *host.Facts, u *host.Unit) {
					young(f, u)
					u.Active = "deactivating" // while it is started again
				})))
				require.ErrorContains(g.t, waitsInVain(h)(with(func(_ *host.Facts, u *host.Unit) {
					u.Active, u.PID = "failed", 0 // it crashed: nothing to be mended by a start
				})), "has failed")
				op.Runner.Point = nil
			}
		}
		_, err := op.do(AddMember{Host: h})
		require.NoError(g.t, err, op.story())
		require.Nil(g.t, op.Runner.Point, "it was asked")
	})
}
