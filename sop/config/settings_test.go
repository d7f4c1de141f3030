package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSettings(t *testing.T) {
	names, err := Settings(YAML, []byte("name: a\n\"enable-v2\": false\nclient-transport-security:\n  cert-file: x\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"client-transport-security", "enable-v2", "name"}, names)
	names, err = Settings(Env, []byte("ETCD_NAME=a\n# ETCD_NOTHING=1\nETCD_EXPERIMENTAL_CORRUPT_CHECK_TIME=\"1m\"\nDAEMON_ARGS=x\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"name", "experimental-corrupt-check-time"}, names)
	_, err = Settings(YAML, []byte("name: [\n"))
	require.Error(t, err)
}

// All is as in the file, but for the data and the log.
func TestRehearsed(t *testing.T) {
	file, env, err := Rehearsed(YAML, []byte("name: a\ndata-dir: '/data/etcd'\nlog-outputs: [/var/log/etcd.log]\nenable-log-rotation: true\nelection-timeout: 1000\n"))
	require.NoError(t, err)
	require.Empty(t, env)
	require.YAMLEq(t, "name: a\ndata-dir: "+Nowhere+"\nelection-timeout: 1000\n", string(file))
	file, env, err = Rehearsed(Env, []byte("ETCD_NAME=\"a b\"\nETCD_DATA_DIR=/data/etcd\nETCD_LOG_OUTPUTS=/var/log/etcd.log\n"))
	require.NoError(t, err)
	require.Empty(t, file)
	require.Equal(t, []string{"ETCD_NAME=a b", "ETCD_DATA_DIR=" + Nowhere}, env)
}

func TestGone(t *testing.T) {
	require.Equal(t, "corrupt-check-time", Gone("3.7")["experimental-corrupt-check-time"])
	require.Contains(t, Gone("3.6"), "enable-v2")
	require.Empty(t, Gone("3.5"))
}
