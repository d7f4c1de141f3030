package scenarios_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// PostgreSQL's and monitoring's hosts beside one member. There is no Patroni in
// this lab: what it and vip-manager do with their files is told elsewhere.
const withClients = one + `    infra: { hosts: { 10.10.10.30: { infra_seq: 1 } } }
    pg-test:
      hosts: { 10.10.10.31: { pg_seq: 1, pg_role: primary }, 10.10.10.32: { pg_seq: 2, pg_role: replica } }
      vars: { pg_cluster: pg-test }
`

const (
	h30 = "10.10.10.30"
	h31 = "10.10.10.31"
	h32 = "10.10.10.32"
)

func patroniFile(hosts string) string {
	return "scope: pg-test # as written\nname: pg-test-1\netcd3:\n  hosts: '" + hosts + "'\n  protocol: https\n  password: 'hush'\n"
}

func vipFile(endpoints string) string {
	return "interval: 1000\ntrigger-key: /pg/pg-test/leader\nip: 10.10.10.2\nnetmask: 24\ninterface: eth0\ndcs-endpoints: [" + endpoints + "]   # sorted\n"
}

func targetFile(name, address string) string {
	return "# " + name + " @ " + address + "\n- labels: { ip: " + address + " , ins: " + name + " , cls: etcd }\n  targets: [ " + address + ":2379 ]\n"
}

// The files of real clients follow the members; another etcd's client is left
// alone, byte for byte.
func TestClientsFollow(t *testing.T) {
	t.Parallel()
	rig := build(t, withClients, h11)
	done(t, rig, create("clients"))
	lay := func(name, dir, path, content string) {
		act(t, rig, name, host.MakeDir{Path: dir, Owner: "root", Group: "root", Mode: 0o755},
			host.WriteFile{Path: path, Content: []byte(content), Owner: "root", Group: "root", Mode: 0o640})
	}
	const foreign = "10.9.9.9:2379"
	lay(h31, "/etc/patroni", config.PatroniPath, patroniFile("10.10.10.10:2379"))
	lay(h31, "/etc/default", config.VIPManagerPath, vipFile("https://10.10.10.10:2379"))
	lay(h32, "/etc/patroni", config.PatroniPath, patroniFile(foreign))
	lay(h32, "/etc/default", config.VIPManagerPath, vipFile("https://"+foreign))
	lay(h30, "/infra/targets/etcd", "/infra/targets/etcd/etcd-1.yml", targetFile("etcd-1", h10))
	lay(h30, "/infra/conf", config.PatronictlInfraPath, patroniFile("10.10.10.10:2379"))

	done(t, rig, sop.AddMember{Host: h11})
	const both, bothURLs = "10.10.10.10:2379,10.10.10.11:2379", "https://10.10.10.10:2379, https://10.10.10.11:2379"
	for path, want := range map[[2]string]string{
		{h31, config.PatroniPath}:         patroniFile(both),
		{h31, config.VIPManagerPath}:      vipFile(bothURLs),
		{h32, config.PatroniPath}:         patroniFile(foreign),
		{h32, config.VIPManagerPath}:      vipFile("https://" + foreign),
		{h30, config.PatronictlInfraPath}: patroniFile(both),
	} {
		f := fileOn(t, rig, path[0], path[1])
		require.Equal(t, want, string(f.Content), "%s on %s", path[1], path[0])
		require.EqualValues(t, 0o640, f.Mode)
	}
	empty := done(t, rig, sop.ReloadConfig{})
	require.True(t, empty.Plan.Empty(), "%s", empty.Plan.Text(empty.View))

	done(t, rig, remove(h10), waiving("spare"))
	require.Equal(t, patroniFile("10.10.10.11:2379"), string(fileOn(t, rig, h31, config.PatroniPath).Content))
	require.Equal(t, vipFile("https://10.10.10.11:2379"), string(fileOn(t, rig, h31, config.VIPManagerPath).Content))
	require.Equal(t, patroniFile(foreign), string(fileOn(t, rig, h32, config.PatroniPath).Content))
}

// Monitoring's targets are like their siblings, and come and go with the members.
func TestTargetsFollow(t *testing.T) {
	t.Parallel()
	rig := build(t, withClients, h11)
	done(t, rig, create("targets"))
	act(t, rig, h30, host.MakeDir{Path: "/infra/targets/etcd", Owner: "root", Group: "root", Mode: 0o755},
		host.WriteFile{Path: "/infra/targets/etcd/etcd-1.yml", Content: []byte(targetFile("etcd-1", h10)), Owner: "root", Group: "root", Mode: 0o640})
	done(t, rig, sop.AddMember{Host: h11})
	require.Equal(t, targetFile("etcd-2", h11), string(fileOn(t, rig, h30, "/infra/targets/etcd/etcd-2.yml").Content))
	done(t, rig, remove(h10), waiving("spare"))
	require.False(t, fileOn(t, rig, h30, "/infra/targets/etcd/etcd-1.yml").Exists)
	require.True(t, fileOn(t, rig, h30, "/infra/targets/etcd/etcd-2.yml").Exists)
}

func fileOn(t *testing.T, rig *scenarios.Rig, name, path string) host.File {
	t.Helper()
	f, err := rig.Lab.Host(name).Look(t.Context(), host.Question{Files: []string{path}})
	require.NoError(t, err)
	return f.Files[path]
}
