package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/embed"
)

func stock() Member {
	return Member{
		Name: "etcd-2", DataDir: "/data/etcd", Token: "etcd-20260102T030405Z-0011223344556677", State: StateNew,
		Initial: []Peer{
			{"etcd-1", "https://10.10.10.10:2380"},
			{"etcd-2", "https://10.10.10.11:2380"},
			{"etcd-3", "https://10.10.10.12:2380"},
		},
		PeerURL: "https://10.10.10.11:2380", ClientURL: "https://10.10.10.11:2379",
		ElectionMs: 1000, HeartbeatMs: 100, QuotaBytes: 8 << 30,
		CompactionMode: "periodic", CompactionRetention: "24h",
		CAFile: CAPath, CertFile: ServerCertPath, KeyFile: ServerKeyPath,
	}
}

// read asks etcd itself what it makes of a file.
// read has etcd itself read a configuration, for which it opens its log at once:
// not this machine's, but one that is the same for all that a test reads.
func read(t testing.TB, content []byte) (*embed.Config, error) {
	t.Helper()
	dir := t.TempDir()
	content = bytes.ReplaceAll(content, []byte("- /var/log/"), []byte("- "+filepath.Dir(dir)+"/"))
	path := filepath.Join(dir, "etcd.conf")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return embed.ConfigFromFile(path)
}

func TestMemberRenderIsAsPigstyHasIt(t *testing.T) {
	golden(t, "member.golden.conf", stock().Render())
}

func TestMemberRenderIsReadByEtcd(t *testing.T) {
	wal := stock()
	wal.WALDir, wal.State, wal.QuotaBytes = "/wal/etcd", StateExisting, 0
	v6 := stock()
	v6.PeerURL, v6.ClientURL = "https://[fd00::11]:2380", "https://[fd00::11]:2379"
	v6.Initial = []Peer{{"etcd-2", "https://[fd00::11]:2380"}}
	named := stock()
	named.PeerURL, named.ClientURL = "https://db-a.example.org:2380", "https://db-a.example.org:2379"
	named.Initial = []Peer{{"etcd-2", "https://db-a.example.org:2380"}}
	plain := stock()
	plain.CAFile, plain.CertFile, plain.KeyFile = "", "", ""
	plain.PeerURL, plain.ClientURL = "http://10.10.10.11:2380", "http://10.10.10.11:2379"
	plain.Initial = []Peer{{"etcd-2", "http://10.10.10.11:2380"}}
	for name, m := range map[string]Member{"stock": stock(), "log on its own disk": wal, "IPv6": v6, "host name": named, "no TLS": plain} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, m.Check())
			content := m.Render()
			cfg, err := read(t, content)
			require.NoError(t, err, "%s", content)
			require.Equal(t, m.Name, cfg.Name)
			require.Equal(t, m.DataDir, cfg.Dir)
			require.Equal(t, m.WALDir, cfg.WalDir)
			require.Equal(t, m.State, cfg.ClusterState)
			require.Equal(t, m.Token, cfg.InitialClusterToken)
			require.Equal(t, formatInitial(m.Initial), cfg.InitialCluster)
			require.Equal(t, m.PeerURL, cfg.AdvertisePeerUrls[0].String())
			require.Equal(t, m.ClientURL, cfg.AdvertiseClientUrls[0].String())
			require.Equal(t, uint(m.ElectionMs), cfg.ElectionMs)
			require.Equal(t, uint(m.HeartbeatMs), cfg.TickMs)
			require.Equal(t, m.QuotaBytes, cfg.QuotaBackendBytes)
			require.Equal(t, m.CompactionMode, cfg.AutoCompactionMode)
			require.Equal(t, m.CompactionRetention, cfg.AutoCompactionRetention)
			require.Equal(t, m.CertFile, cfg.ClientTLSInfo.CertFile)
			require.Equal(t, m.KeyFile, cfg.PeerTLSInfo.KeyFile)
			require.Equal(t, m.CAFile, cfg.PeerTLSInfo.TrustedCAFile)

			again, err := ParseMember(content)
			require.NoError(t, err)
			require.Equal(t, m, again, "what was rendered is read back")
		})
	}
}

func TestMemberListensOnLoopbackToo(t *testing.T) {
	for advertised, want := range map[string]string{
		"https://10.10.10.11:2379": "https://10.10.10.11:2379,https://127.0.0.1:2379",
		"https://127.0.0.1:2379":   "https://127.0.0.1:2379",
		"https://[fd00::1]:2379":   "https://[fd00::1]:2379,https://127.0.0.1:2379",
		"https://db-a:2379":        "https://0.0.0.0:2379",
	} {
		require.Equal(t, want, strings.Join(derivedListenClient(advertised), ","))
	}
}

func TestParseMemberOfEveryVersion(t *testing.T) {
	for name, want := range map[string]Member{
		"pigsty-2.0.conf": {CAFile: "/etc/pki/ca.crt"},
		"pigsty-2.7.conf": {CAFile: CAPath, CompactionMode: "periodic", CompactionRetention: "24h"},
		"pigsty-3.3.conf": {CAFile: CAPath, CompactionMode: "periodic", CompactionRetention: "24h", QuotaBytes: 16 << 30},
		"pigsty-4.5.conf": {CAFile: CAPath, CompactionMode: "periodic", CompactionRetention: "24h", QuotaBytes: 8 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			content := fixture(t, name)
			_, err := read(t, content)
			require.NoError(t, err, "the fixture itself must be good")
			m := stock()
			m.Token = "etcd"
			m.CAFile, m.QuotaBytes = want.CAFile, want.QuotaBytes
			m.CompactionMode, m.CompactionRetention = want.CompactionMode, want.CompactionRetention
			got, err := ParseMember(content)
			require.NoError(t, err)
			require.Equal(t, m, got)
		})
	}
}

func TestParseMemberByHandKeepsWhatItDoesNotKnow(t *testing.T) {
	content := fixture(t, "by-hand.conf")
	before, err := read(t, content)
	require.NoError(t, err)
	m, err := ParseMember(content)
	require.NoError(t, err)
	require.Equal(t, "db-a", m.Name)
	require.Equal(t, "/srv/wal", m.WALDir)
	require.Equal(t, []string{"https://10.0.0.5:2380"}, m.ListenPeer)
	require.Nil(t, m.ListenClient, "a host name listens everywhere anyway")
	require.Equal(t, &TLSFiles{CAFile: "/c/ca.crt", CertFile: "/c/p.crt", KeyFile: "/c/p.key"}, m.PeerTLS)
	require.Equal(t, []Setting{
		{"", "snapshot-count", "10000"},
		{"", "log-outputs", "- stderr\n- /var/log/etcd.log"},
		{"", "log-rotation-config-json", `'{"maxsize": 100, "compress": true}'`},
		{sectionClient, "client-cert-auth", "true"},
		{sectionPeer, "client-cert-auth", "true"},
		{sectionPeer, "allowed-hostname", "- db-a.example.org\n- db-b.example.org"},
	}, m.Other)

	rendered := m.Render()
	golden(t, "by-hand.golden.conf", rendered)
	after, err := read(t, rendered)
	require.NoError(t, err)
	require.Equal(t, before.SnapshotCount, after.SnapshotCount)
	require.Equal(t, before.LogOutputs, after.LogOutputs)
	require.Equal(t, before.LogRotationConfigJSON, after.LogRotationConfigJSON)
	require.Equal(t, before.PeerTLSInfo.AllowedHostnames, after.PeerTLSInfo.AllowedHostnames)
	require.True(t, after.ClientTLSInfo.ClientCertAuth)
	require.Equal(t, before.PeerTLSInfo.CertFile, after.PeerTLSInfo.CertFile)
}

func TestParseMemberRefuses(t *testing.T) {
	for content, why := range map[string]string{
		"":                                   "empty",
		"# nothing\n":                        "empty",
		"- a\n- b\n":                         "not a YAML mapping",
		"name: a\n---\nname: b\n":            "more than one YAML document",
		"name: [a\n":                         "not valid YAML",
		"name: \xff\n":                       "not UTF-8",
		"ETCD_NAME=a\nETCD_DATA_DIR=/d\n":    "environment variables",
		"name: {a: b}\n":                     "line 1: name is no single value",
		"a: 1\nquota-backend-bytes: \"8\"\n": "line 2: quota-backend-bytes is no whole number",
		"quota-backend-bytes: -1\n":          "out of range",
		"initial-cluster: a\n":               "not NAME=URL",
		"client-transport-security: yes\n":   "client-transport-security is no mapping",
	} {
		_, err := ParseMember([]byte(content))
		require.ErrorContains(t, err, why, "%q", content)
	}
}

func TestMemberCheckNamesAllFaults(t *testing.T) {
	m := stock()
	m.Name, m.DataDir, m.State, m.Token, m.ElectionMs = "a b", "data", "maybe", "", 300
	m.Initial = append(m.Initial, Peer{"", "https://10.10.10.13:2380"}, Peer{"x", "10.10.10.14:2380"})
	m.ClientURL = ""
	err := m.Check()
	for _, part := range []string{
		`name "a b"`, `data-dir "data"`, `initial-cluster-state "maybe"`, "initial-cluster-token is empty", "advertise-client-urls is empty",
		"the member at https://10.10.10.13:2380 has no name", "is no URL", "does not hold a b=", "at least five times",
	} {
		require.ErrorContains(t, err, part)
	}
}
