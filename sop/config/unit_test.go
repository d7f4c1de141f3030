package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnit(t *testing.T) {
	content := Unit(UnitSpec{DataDir: "/data/etcd"})
	golden(t, "etcd.golden.service", content)
	golden(t, "join.golden.conf", JoinDropIn())

	u, err := ParseUnit(content)
	require.NoError(t, err)
	require.Equal(t, UnitSpec{
		DataDir: "/data/etcd", ConfPath: ConfPath, Binary: BinaryPath, User: User,
		Type: "notify", TimeoutStart: "60", Restart: "on-failure",
	}, u)

	u, err = ParseUnit(append(content, JoinDropIn()...))
	require.NoError(t, err)
	require.Equal(t, "infinity", u.TimeoutStart, "a drop-in counts when it comes later")
}

func TestUnitQuotesOddPaths(t *testing.T) {
	want := UnitSpec{DataDir: "/data/100% etcd", ConfPath: `/etc/my etcd/a"b$c%d.conf`, Binary: "/opt/etcd 3/etcd", User: "etcd"}
	u, err := ParseUnit(Unit(want))
	require.NoError(t, err)
	require.Equal(t, want.DataDir, u.DataDir)
	require.Equal(t, want.ConfPath, u.ConfPath)
	require.Equal(t, want.Binary, u.Binary)
}

func TestParseUnitOfOthers(t *testing.T) {
	u, err := ParseUnit([]byte(`
; a unit by hand
[Unit]
ExecStart=/not/this
[Service]
Environment="ETCD_NAME=a b" ETCD_DEBUG=1
Environment=ETCD_X=y
EnvironmentFile=-/etc/default/etcd
ExecStart=/bin/false
ExecStart=
ExecStart=-/usr/local/bin/etcd --name a \
# in between
  --config-file=/etc/etcd.yml \
  --data-dir '/d d'
TimeoutSec=90
`))
	require.NoError(t, err)
	require.Equal(t, UnitSpec{
		ConfPath: "/etc/etcd.yml", Binary: "/usr/local/bin/etcd", Args: []string{"--name", "a", "--data-dir", "/d d"},
		Environment: []string{"ETCD_NAME=a b", "ETCD_DEBUG=1", "ETCD_X=y"}, EnvironmentFiles: []string{"-/etc/default/etcd"}, TimeoutStart: "90",
	}, u)

	for content, why := range map[string]string{
		"": "no ExecStart",
		"[Service]\nExecStart=/a\nExecStart=/b\n":    "2 ExecStart",
		"[Service]\nExecStart=/a 'b\n":               "not closed",
		"[Service]\nExecStart=-\n":                   "names no program",
		"[Service]\nEnvironment='x\nExecStart=/etcd": "not closed",
	} {
		_, err := ParseUnit([]byte(content))
		require.ErrorContains(t, err, why)
	}
}
