package sop

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

// bare takes etcd and its user off hosts.
func (g *ground) bare(names ...string) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	for _, name := range names {
		m := g.w.machines[name]
		m.version = ""
		delete(m.users, "etcd")
	}
}

// binary puts an etcd of a version on the admin host and into the inventory.
func (g *ground) binary(version string) string {
	g.t.Helper()
	require.NoError(g.t, os.MkdirAll(filepath.Join(g.dir, "bin"), 0o755))
	require.NoError(g.t, os.WriteFile(filepath.Join(g.dir, "bin/etcd"), []byte(version), 0o755))
	sum := sha256.Sum256([]byte(version))
	return "        etcd_binary_from: bin/etcd\n        etcd_binary_sha256: " + hex.EncodeToString(sum[:]) + "\n"
}

func (g *ground) sentTo(name string) []string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	var all []string
	for _, s := range g.w.sent {
		if rest, ok := strings.CutSuffix(s, " on "+name); ok {
			all = append(all, rest)
		}
	}
	return all
}

// What a host has is used; what it has not is installed, from a package or from
// a binary of the admin host.
func TestInstallOnNewcomer(t *testing.T) {
	for _, c := range []struct {
		name, has string
		vars      func(g *ground) string
		want      string // the act, "" for none
	}{
		{"a package", "", nil, "install package etcd"},
		{"a package of a version", "", func(*ground) string { return "        etcd_version: v3.7.3\n        etcd_package: etcd-server\n" }, "install package etcd-server 3.7.3*"},
		{"a package as its manager spells it", "", func(*ground) string { return "        etcd_package_version: 3.7.3-1\n" }, "install package etcd 3.7.3-1"},
		{"a binary", "", func(g *ground) string { return g.binary("3.7.3") }, "put program /usr/bin/etcd"},
		{"another place", "", func(g *ground) string { return g.binary("3.7.3") + "        etcd_binary: /opt/etcd/bin/etcd\n" }, "put program /opt/etcd/bin/etcd"},
		{"what it has", "3.7.3", nil, ""},
		{"what it has and is asked for", "3.7.3", func(g *ground) string { return "        etcd_version: 3.7.3\n" + g.binary("3.7.3") }, ""},
		{"another patch than it has", "3.7.1", func(g *ground) string { return "        etcd_version: 3.7.3\n" + g.binary("3.7.3") }, "put program /usr/bin/etcd"},
		{"another patch, and none is asked for", "3.7.1", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(g *ground) {
				g.up()
				g.bare(hosts[3])
				g.w.machines[hosts[3]].version = c.has
				if c.vars != nil {
					g.write(inventoryText(3, "", c.vars(g)))
				}
				g.must(AddMember{Host: hosts[3]})
				require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
				sent := g.sentTo(hosts[3])
				require.Contains(g.t, sent, "add user etcd")
				var installs []string
				for _, s := range sent {
					if strings.HasPrefix(s, "install package") || strings.HasPrefix(s, "put program") {
						installs = append(installs, s)
					}
				}
				if c.want == "" {
					require.Empty(g.t, installs)
					return
				}
				require.Equal(g.t, []string{c.want}, installs)
				if i := strings.LastIndex(c.want, " /"); i > 0 {
					require.Contains(g.t, string(g.w.machines[hosts[3]].file("/etc/systemd/system/etcd.service").Content), "ExecStart="+c.want[i+1:]+" ")
				}
			})
		})
	}
}

// A package may bring another version than the members run. That is found out
// before the cluster hears of the newcomer.
func TestInstalledVersionIsLookedAtBeforeItIsAnnounced(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.bare(hosts[3])
		g.w.packaged = "3.6.16"
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		var r *Refusal
		require.ErrorAs(g.t, err, &r, op.story())
		require.Equal(g.t, "newcomer-version", r.Safeguard)
		require.True(g.t, r.Changed, "the package is there now")
		require.Equal(g.t, "it has etcd 3.6.16, the members run 3.7.3", r.Found)
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
		require.Equal(g.t, inventoryText(3, "", ""), g.read())

		// There is nothing to take back, and the mended command goes on.
		res := g.must(RemoveMember{Host: hosts[3], Stamp: stampNow()})
		require.True(g.t, res.Plan.Empty())
		g.write(inventoryText(3, "", "        etcd_version: 3.7.3\n"+g.binary("3.7.3")))
		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
	})
}

func TestInstallFails(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.bare(hosts[3])
		g.w.packaged = ""
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		var f *host.Failure
		require.ErrorAs(g.t, err, &f)
		require.ErrorContains(g.t, err, "Unable to locate package etcd")
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}

// The connection may break while a package is installed: it is looked at again.
func TestInstallOutcomeUnknown(t *testing.T) {
	for _, lost := range []bool{true, false} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			bubble(t, 3, func(g *ground) {
				g.up()
				g.bare(hosts[3])
				struck := false
				g.w.peril = func(where, what string) fault {
					if struck || !strings.HasPrefix(what, "install package") {
						return fault{}
					}
					struck = true
					return fault{lost: lost, drop: !lost}
				}
				op := g.operator()
				_, err := op.do(AddMember{Host: hosts[3]})
				require.True(g.t, struck)
				if lost {
					require.NoError(g.t, err, op.story())
					require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
					return
				}
				require.ErrorIs(g.t, err, ErrUndecided)
				g.must(AddMember{Host: hosts[3]})
			})
		})
	}
}

// The hosts of a new cluster have one minor version, whatever each had before.
func TestCreateWithTwoMinors(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.w.machines[hosts[1]].version = "3.6.16"
		op := g.operator()
		_, err := op.do(g.create())
		var r *Refusal
		require.ErrorAs(g.t, err, &r)
		require.Equal(g.t, "installed", r.Safeguard)
		require.Contains(g.t, r.Found, "3.6.16")
		for _, s := range g.w.sent {
			require.NotContains(g.t, s, "start")
		}
		g.write(inventoryText(3, "", "        etcd_version: 3.7.3\n"))
		g.must(g.create())
		require.Equal(g.t, votersText(1, 2, 3), g.roles())
	})
}
