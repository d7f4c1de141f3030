package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const environment = `## options of etcd, by hand
ETCD_NAME="alpha"
# ETCD_DATA_DIR="/var/lib/etcd/default"
ETCD_LISTEN_PEER_URLS='http://10.0.0.1:2380'
ETCD_LISTEN_CLIENT_URLS=http://10.0.0.1:2379,http://127.0.0.1:2379
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://10.0.0.1:2380"
ETCD_ADVERTISE_CLIENT_URLS="http://10.0.0.1:2379"
ETCD_INITIAL_CLUSTER="alpha=http://10.0.0.1:2380,beta=http://10.0.0.2:2380"
ETCD_INITIAL_CLUSTER_STATE=new
ETCD_QUOTA_BACKEND_BYTES=4294967296
ETCD_ENABLE_PPROF=true
DAEMON_ARGS=""`

func TestEnvironmentFile(t *testing.T) {
	m, err := ParseConf(Env, []byte(environment))
	require.NoError(t, err)
	require.Equal(t, Member{
		Name: "alpha", State: "new", Initial: []Peer{{"alpha", "http://10.0.0.1:2380"}, {"beta", "http://10.0.0.2:2380"}},
		PeerURL: "http://10.0.0.1:2380", ClientURL: "http://10.0.0.1:2379", QuotaBytes: 4 << 30,
		Other: []Setting{{Key: "ETCD_ENABLE_PPROF", Value: "true"}},
	}, m)

	peers, state := append(m.Initial, Peer{"gamma", "http://10.0.0.3:2380"}), StateExisting
	edited, err := EditConf(Env, []byte(environment), MemberEdit{Initial: &peers, State: &state})
	require.NoError(t, err)
	require.Equal(t, strings.NewReplacer("STATE=new", "STATE=existing", `0.2:2380"`, `0.2:2380,gamma=http://10.0.0.3:2380"`).Replace(environment), string(edited),
		"every other byte stays")
	again, err := EditConf(Env, edited, MemberEdit{Initial: &peers, State: &state})
	require.NoError(t, err)
	require.Equal(t, &edited[0], &again[0], "what is so already is left alone")

	bare, err := EditConf(Env, []byte("ETCD_NAME=a"), MemberEdit{Initial: &peers, State: &state})
	require.NoError(t, err)
	require.Equal(t, "ETCD_NAME=a\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\nETCD_INITIAL_CLUSTER=\"alpha=http://10.0.0.1:2380,beta=http://10.0.0.2:2380,gamma=http://10.0.0.3:2380\"\n", string(bare))

	for text, want := range map[string]string{
		"ETCD_NAME=$(hostname)\n": "line 1: ETCD_NAME is computed",
		"ETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_STATE=new\n": "set a second time, first in line 1",
		"ETCD_INITIAL_CLUSTER=alpha\n":                                     `"alpha" is not NAME=URL`,
		"ETCD_QUOTA_BACKEND_BYTES=8G\n":                                    "line 1: ETCD_QUOTA_BACKEND_BYTES",
	} {
		_, err := EditConf(Env, []byte(text), MemberEdit{Initial: &peers, State: &state})
		require.ErrorContains(t, err, want, text)
	}
	quota := int64(1)
	_, err = EditConf(Env, []byte(environment), MemberEdit{Quota: &quota})
	require.ErrorContains(t, err, "only the members and the state")
}

func TestRenderEnvironment(t *testing.T) {
	m := Member{
		Name: "prod-4", DataDir: "/var/lib/etcd/default", Token: `a"b$c`, State: StateExisting, Initial: []Peer{{"prod-4", "https://[fd00::1]:2380"}},
		PeerURL: "https://[fd00::1]:2380", ClientURL: "https://[fd00::1]:2379", ElectionMs: 1000, HeartbeatMs: 100, QuotaBytes: 8 << 30,
		CompactionMode: "periodic", CompactionRetention: "24h", CAFile: "/etc/ssl/etcd/ca.crt", CertFile: "/etc/ssl/etcd/a.crt", KeyFile: "/etc/ssl/etcd/a.key",
	}
	require.NoError(t, m.Check())
	text := m.RenderConf(Env)
	golden(t, "member.golden.env", text)
	m.Token = "plain" // a dollar sign is for a person to read
	again, err := ParseConf(Env, m.RenderConf(Env))
	require.NoError(t, err)
	require.Equal(t, m, again)
	yaml, err := ParseConf(YAML, m.RenderConf(YAML))
	require.NoError(t, err)
	require.Equal(t, m, yaml)
}

func FuzzEnvironment(f *testing.F) {
	f.Add(environment)
	f.Add("export ETCD_INITIAL_CLUSTER='a=http://x:1' # c\r\nETCD_NAME=\"x\\\"y\"")
	f.Fuzz(func(t *testing.T, text string) {
		peers, state := []Peer{{"a", "http://10.0.0.1:2380"}, {"b", "http://10.0.0.2:2380"}}, StateExisting
		edited, err := EditConf(Env, []byte(text), MemberEdit{Initial: &peers, State: &state})
		if err != nil {
			return
		}
		m, err := ParseConf(Env, edited)
		require.NoError(t, err)
		require.True(t, samePeers(peers, m.Initial))
		require.Equal(t, state, m.State)
		before, err := ParseConf(Env, []byte(text))
		require.NoError(t, err)
		before.Initial, before.State, m.Initial, m.State = nil, "", nil, ""
		require.Equal(t, before, m, "nothing else changes")
	})
}

func TestPlacement(t *testing.T) {
	p := Pigsty()
	require.Equal(t, UnitPath, p.UnitPath())
	require.Equal(t, JoinDropInPath, p.JoinDropInPath())
	require.Equal(t, ConfDir, p.OwnDir())
	require.Empty(t, p.Dirs())
	for _, f := range []OwnedFile{ConfFile(), CAFile(), ServerCertFile(), ServerKeyFile(), UnitFile(), JoinDropInFile(), EnvFile(), ConfDirectory()} {
		require.Equal(t, f, p.Place(f), "Pigsty's layout is where it is")
	}
	l := Layout{Unit: "etcd@main.service", User: "kv", Conf: "/etc/default/etcd", CA: "/etc/ssl/kv/ca.pem", Cert: "/etc/ssl/kv/me.pem", Key: "/etc/ssl/private/me.key", TLS: true, Form: FormOf("/etc/default/etcd")}
	require.Equal(t, Env, l.Form)
	require.Empty(t, l.OwnDir(), "/etc/default is not etcd's alone")
	require.Equal(t, []string{"/etc/default", "/etc/ssl/kv", "/etc/ssl/private"}, l.Dirs())
	require.Equal(t, OwnedFile{Path: "/etc/ssl/private/me.key", Owner: "kv", Group: "kv", Mode: 0o600, Secret: true}, l.Place(ServerKeyFile()))
	require.Equal(t, "/etc/systemd/system/etcd@main.service.d/etcdrill-join.conf", l.Place(JoinDropInFile()).Path)
}

func TestPlainUnit(t *testing.T) {
	l := Layout{Unit: "etcd.service", Conf: "/etc/default/etcd", Form: Env}
	unit := func(service string) error {
		u, err := ParseUnit([]byte("[Service]\n" + service))
		require.NoError(t, err)
		return PlainUnit(u, l)
	}
	require.NoError(t, unit("Environment=ETCD_NAME=%H\nEnvironment=ETCD_DATA_DIR=/var/lib/etcd/default\nEnvironmentFile=-/etc/default/%p\nExecStart=/usr/bin/etcd $DAEMON_ARGS"))
	require.NoError(t, unit("EnvironmentFile=/etc/default/etcd\nExecStart=/usr/bin/etcd --logger=zap"))
	for service, want := range map[string]string{
		"EnvironmentFile=/etc/default/etcd\nExecStart=/usr/bin/etcd --name=a":                            "command line has --name=a",
		"EnvironmentFile=/etc/default/etcd\nExecStart=/usr/bin/etcd -listen-peer-urls http://10.0.0.1:1": "-listen-peer-urls",
		"EnvironmentFile=/etc/default/etcd\nEnvironment=ETCD_NAME=a\nExecStart=/usr/bin/etcd":            "environment has ETCD_NAME",
		"EnvironmentFile=/etc/etcd/env\nExecStart=/usr/bin/etcd":                                         "it reads /etc/etcd/env, and not /etc/default/etcd",
		"ExecStart=/usr/bin/etcd --config-file /etc/etcd.yml":                                            "it reads no file",
	} {
		require.ErrorContains(t, unit(service), want, service)
	}
	l = Layout{Unit: "etcd.service", Conf: "/etc/etcd.yml", Form: YAML}
	require.NoError(t, unit("ExecStart=/usr/bin/etcd --config-file /etc/etcd.yml"))
	require.ErrorContains(t, unit("ExecStart=/usr/bin/etcd --config-file /etc/other.yml"), "it reads /etc/other.yml")
}
