package scenarios

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Of an inventory that asks for another etcd, nothing else is another.
func TestAsking(t *testing.T) {
	in := func(lines string) string {
		return `all:
  children:
    etcd:
      hosts:
        10.10.10.10: {etcd_seq: 1}
      vars:
        etcd_cluster: etcd # of them all
` + lines + `        pg_vip_enabled: true
`
	}
	first, err := asking([]byte(in("")), "3.6.16", "/there/etcd", "0e1")
	require.NoError(t, err)
	require.Equal(t, in("        etcd_version: 3.6.16\n        etcd_binary_from: /there/etcd\n        etcd_binary_sha256: \"0e1\"\n"), string(first))
	then, err := asking(first, "3.7.3", "/here/etcd", "0e2")
	require.NoError(t, err)
	require.Equal(t, in("        etcd_version: 3.7.3\n        etcd_binary_from: /here/etcd\n        etcd_binary_sha256: \"0e2\"\n"), string(then))
	_, err = asking([]byte("etcd: { hosts: { 10.10.10.10: { etcd_seq: 1 } } }\n"), "3.7.3", "/here/etcd", "0e2")
	require.ErrorContains(t, err, "etcd_cluster:")
}

func TestAllOf(t *testing.T) {
	for _, c := range []struct {
		found map[string]string
		some  bool
		says  string
	}{
		{map[string]string{"a": "3.7.3", "b": "3.7.3"}, false, ""},
		{map[string]string{"a": "3.7.3", "b": "3.6.16"}, false, "b runs etcd 3.6.16; etcd 3.7.3 was wanted"},
		{map[string]string{"a": "3.7.3", "b": "3.7.3, and its next start is of 3.6.16"}, false, "its next start is of 3.6.16"},
		{map[string]string{"a": "3.7.3", "b": "3.6.16"}, true, ""},
		{map[string]string{"a": "3.7.3", "b": "3.7.3"}, true, "only some of them ought to"},
		{map[string]string{"a": "3.6.16", "b": "3.6.16"}, true, "a runs etcd 3.6.16, b runs etcd 3.6.16"},
	} {
		err := allOf(c.found, "3.7.3", c.some)
		if c.says == "" {
			require.NoError(t, err, "%v", c.found)
			continue
		}
		require.ErrorContains(t, err, c.says, "%v", c.found)
	}
}

func TestLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	require.NoError(t, os.WriteFile(path, []byte("all: { children: { etcd: { hosts: { 10.10.10.11: { etcd_seq: 2 }, 10.10.10.10: { etcd_seq: 1 } } } } }\n"), 0o600))
	require.NoError(t, lists(path, []string{"10.10.10.10", "10.10.10.11"}))
	require.ErrorContains(t, lists(path, []string{"10.10.10.10", "10.10.10.12"}), "ought to be [10.10.10.10 10.10.10.12]")
}
