package container

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/inventory"
)

func example() mapping {
	return mapping{from: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParsePrefix("10.20.0.0/24")}, to: netip.MustParsePrefix("198.19.4.0/23")}
}

func TestReaddress(t *testing.T) {
	for _, c := range []struct{ was, is string }{
		{"10.10.10.10", "198.19.4.10"},
		{"10.20.0.7/24", "198.19.5.7/24"},
		{"'10.10.10.10:2379,10.10.10.11:2379'", "'198.19.4.10:2379,198.19.4.11:2379'"},
		{"https://10.10.10.10/ ends with 10.10.10.11.", "https://198.19.4.10/ ends with 198.19.4.11."},
		{"10.10.10.1[0:5]", "198.19.4.1[0:5]"},
		// None of the networks, or no addresses at all.
		{"192.168.0.1 8.8.8.8", "192.168.0.1 8.8.8.8"},
		{"1.10.10.10.10 10.10.10.10.5 110.10.10.10 10.10.10.999 10.10.10.", "1.10.10.10.10 10.10.10.10.5 110.10.10.10 10.10.10.999 10.10.10."},
	} {
		require.Equal(t, c.is, string(readdress([]byte(c.was), example().addr)), c.was)
	}
}

// What leads to production does not get into a lab's inventory, wherever it
// stands.
func TestTranslate(t *testing.T) {
	const was = `all:
  children:
    infra: { hosts: { 10.10.10.10: { infra_seq: 1, ansible_host: bastion.example } } }
    etcd: &etcd
      hosts:
        10.10.10.10: { etcd_seq: 1, ansible_host: 192.0.2.1, ansible_ssh_private_key_file: /secret }
        10.10.10.11: &reach { etcd_seq: 2, ansible_connection: local, ansible_port: 2222 }
        10.10.10.12: { etcd_seq: 3 }   # no machine for this one
        10.20.0.7: { <<: *reach, etcd_seq: 4 }
      vars: { etcd_cluster: etcd, ansible_user: postgres }
    elsewhere:
      children:
        farther: { hosts: { db.example: { pg_seq: 1 } }, vars: { ansible_ssh_common_args: '-J bastion.example' } }
  vars:
    admin_ip: 10.10.10.10
    pg_vip_address: 10.10.10.2/24
    ansible_become: false
    dns: [ 8.8.8.8 ]
`
	machines := []string{"198.19.4.10", "198.19.4.11", "198.19.5.7"}
	machine := func(h string) bool { return slices.Contains(machines, h) }
	text, left, err := translate([]byte(was), example().addr, machine, reach{Key: "/lab/key", CommonArgs: "-o X=y"})
	require.NoError(t, err)
	require.Equal(t, []string{"198.19.4.12", "db.example"}, left)
	require.NoError(t, check(text, machine))
	for _, secret := range []string{"10.10.10", "10.20.0", "192.0.2", "bastion", "/secret", "2222", "local", "become", "example"} {
		require.NotContains(t, string(text), secret)
	}
	inv, err := inventory.Parse("", text)
	require.NoError(t, err)
	g, err := inv.Group("etcd")
	require.NoError(t, err)
	require.Len(t, g.Hosts, 3)
	for i, h := range g.Hosts {
		require.Equal(t, machines[i], h.Name)
		require.Equal(t, h.Name, h.Addr)
		require.Equal(t, "dba", h.SSHUser)
		require.Equal(t, "/lab/key", h.SSHKey)
		require.Equal(t, "-o X=y", h.Vars["ansible_ssh_common_args"])
		require.True(t, h.Become)
	}
	require.Equal(t, 4, g.Hosts[2].Seq)
	require.Equal(t, "198.19.4.10", g.AdminHost)
	require.Equal(t, []string{"198.19.4.10"}, g.InfraHosts)
	require.Equal(t, "198.19.4.2/24", g.Hosts[0].Vars["pg_vip_address"])
}

func TestTranslateShortForm(t *testing.T) {
	machine := func(h string) bool { return h == "198.19.4.10" }
	text, left, err := translate([]byte("etcd: { hosts: { 10.10.10.10: { etcd_seq: 1 } }, vars: { ansible_host: 10.9.9.9 } }\n"), example().addr, machine, reach{"k", "a"})
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, check(text, machine))
	inv, err := inventory.Parse("", text)
	require.NoError(t, err)
	require.Equal(t, "dba", inv.Host("198.19.4.10").SSHUser)
}

// check is the last to look, so it has to find what translate let through.
func TestCheckFinds(t *testing.T) {
	machine := func(h string) bool { return h == "198.19.4.10" }
	for name, text := range map[string]string{
		"a foreign host": "etcd: { hosts: { 10.10.10.10: { etcd_seq: 1 } } }",
		"a foreign way":  "etcd: { hosts: { 198.19.4.10: { etcd_seq: 1, ansible_host: 10.10.10.10 } } }",
		"this machine":   "etcd: { hosts: { 198.19.4.10: { etcd_seq: 1, ansible_connection: local } } }",
		"a foreign port": "etcd: { hosts: { 198.19.4.10: { etcd_seq: 1 } }, vars: { ansible_port: 2222 } }",
	} {
		require.ErrorContains(t, check([]byte(text), machine), "outside of the lab", name)
	}
	require.NoError(t, check([]byte("etcd: { hosts: { 198.19.4.10: { etcd_seq: 1 } } }"), machine))
}

// Whatever the inventory is, no connection out of the lab is in the lab's.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte("all: { children: { etcd: { hosts: { 10.10.10.10: { ansible_host: x } } } }, vars: { ansible_user: y } }"))
	f.Add([]byte("etcd: &a { hosts: { 10.10.10.10: &b { <<: [ *b ], etcd_seq: 1 } }, children: { x: *a } }"))
	f.Add([]byte("all: null"))
	f.Add([]byte("all: &a\n  vars: &v { ansible_x: 1 }\n  hosts: { 10.10.10.10: *v, '[10:11]': {} }\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		machine := func(h string) bool { return h == "198.19.4.10" }
		text, _, err := translate(content, example().addr, machine, reach{"key", "args"})
		if err != nil || check(text, machine) != nil {
			return // no lab is made of it
		}
		inv, err := inventory.Parse("", text)
		require.NoError(t, err)
		for _, name := range inv.Groups() {
			g, err := inv.Group(name)
			require.NoError(t, err)
			for _, h := range g.Hosts {
				require.Equal(t, "198.19.4.10", h.Addr)
				require.Equal(t, "key", h.SSHKey)
				require.Equal(t, "args", h.Vars["ansible_ssh_common_args"])
			}
		}
	})
}

func TestNetworks(t *testing.T) {
	from, err := networksOf([]string{"10.10.10.10", "10.10.10.11", "10.20.0.7"})
	require.NoError(t, err)
	require.Equal(t, example().from, from)
	require.Equal(t, 23, bits(2))
	require.Equal(t, 22, bits(3))
	require.Equal(t, 24, bits(1))
	for _, wrong := range [][]string{nil, {"etcd-1.example"}, {"fd00::1"}, {"10.10.10.10", "10.10.10.10"}} {
		_, err := networksOf(wrong)
		require.Error(t, err, "%v", wrong)
	}
	p, ok := nth(pool(), 23, 1)
	require.True(t, ok)
	require.Equal(t, "198.19.2.0/23", p.String())
	_, ok = nth(pool(), 24, 256)
	require.False(t, ok, "outside of the pool")

	m := example()
	require.Error(t, m.usable(netip.MustParseAddr("198.19.4.0")))
	require.Error(t, m.usable(netip.MustParseAddr("198.19.5.255")))
	require.NoError(t, m.usable(netip.MustParseAddr("198.19.4.255")))
	gate, err := m.free(func(a netip.Addr) bool { return a == netip.MustParseAddr("198.19.5.254") })
	require.NoError(t, err)
	require.Equal(t, "198.19.5.253", gate.String())
}

func TestNames(t *testing.T) {
	ctx := t.Context()
	for _, name := range []string{"../x", "a b", ".hidden", "a/b", "x'"} {
		_, err := Up(ctx, Spec{Root: t.TempDir(), Name: name, Machines: []MachineSpec{{Host: "10.10.10.10"}}})
		require.ErrorContains(t, err, "no plain file name", name)
	}
	_, _, err := lockRoot(t.TempDir() + "/with blank/x")
	require.ErrorContains(t, err, "without blanks")
	_, ok := DirOf([]byte("etcd: {}\n# etcdrill machines: /x\n"))
	require.False(t, ok, "only the first line counts")
	require.ErrorIs(t, func() error { _, err := Describe(t.TempDir()); return err }(), ErrGone)
	require.Equal(t, "host-1-10", hostname(netip.MustParsePrefix("198.19.0.0/23"), netip.MustParseAddr("198.19.1.10")))
	i := Info{Name: "x", Hosts: []string{"198.19.0.10"}, Machines: []MachineInfo{{Host: "198.19.0.10", For: "10.10.10.10"}}}
	require.NoError(t, i.Holds("198.19.0.10", "198.19.0.10"))
	require.ErrorContains(t, i.Holds("198.19.0.10", "10.10.10.10"), "outside of lab x")
	require.ErrorContains(t, i.Holds("10.10.10.10", "10.10.10.10"), "198.19.0.10 stands for it")
	require.ErrorContains(t, i.Holds("10.10.10.11", "10.10.10.11"), "no machine of lab x")
	require.False(t, bytes.Contains([]byte(i.commonArgs()), []byte("Proxy")))
}
