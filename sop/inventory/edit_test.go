package inventory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOnlyThatHost: a result in which more differs than the host is refused,
// however it came about.
func TestOnlyThatHost(t *testing.T) {
	const before = "etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 } # two\n  vars: { etcd_cluster: etcd }\n"
	e, err := newEditor([]byte(before), "etcd")
	require.NoError(t, err)
	m := e.group.mappings[0]
	for name, c := range map[string]struct {
		after string
		want  bool
	}{
		"added":              {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 } # two\n    10.0.0.3: { etcd_seq: 3 }\n  vars: { etcd_cluster: etcd }\n", true},
		"nothing":            {before, false},
		"other number":       {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.3: { etcd_seq: 4 }\n  vars: { etcd_cluster: etcd }\n", false},
		"neighbour before":   {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 9 }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.3: { etcd_seq: 3 }\n  vars: { etcd_cluster: etcd }\n", false},
		"neighbour after":    {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.3: { etcd_seq: 3 }\n    10.0.0.2: { etcd_seq: 9 }\n  vars: { etcd_cluster: etcd }\n", false},
		"neighbour quoted":   {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: '1' }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.3: { etcd_seq: 3 }\n  vars: { etcd_cluster: etcd }\n", false},
		"two more":           {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.4: {}\n    10.0.0.3: { etcd_seq: 3 }\n  vars: { etcd_cluster: etcd }\n", false},
		"variable":           {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.3: { etcd_seq: 3 }\n  vars: { etcd_cluster: dcs }\n", false},
		"elsewhere":          {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 }\n  vars: { etcd_cluster: etcd, 10.0.0.3: { etcd_seq: 3 } }\n", false},
		"with more than seq": {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n    10.0.0.2: { etcd_seq: 2 }\n    10.0.0.3: { etcd_seq: 3, a: b }\n  vars: { etcd_cluster: etcd }\n", false},
		"broken":             {"etcd:\n  hosts: {\n", false},
	} {
		require.Equal(t, c.want, e.isAdded([]byte(c.after), m, "10.0.0.3", 3, true), name)
	}
	for name, c := range map[string]struct {
		after string
		want  bool
	}{
		"removed":   {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n  vars: { etcd_cluster: etcd }\n", true},
		"the other": {"etcd:\n  hosts:\n    10.0.0.2: { etcd_seq: 2 }\n  vars: { etcd_cluster: etcd }\n", false},
		"nothing":   {before, false},
		"both":      {"etcd:\n  hosts:\n  vars: { etcd_cluster: etcd }\n", false},
		"neighbour": {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 7 }\n  vars: { etcd_cluster: etcd }\n", false},
		"variable":  {"etcd:\n  hosts:\n    10.0.0.1: { etcd_seq: 1 }\n  vars: { }\n", false},
	} {
		require.Equal(t, c.want, e.isRemoved([]byte(c.after), m, 2), name)
	}
}

// TestNotText: what is no UTF-8 is read, but not edited.
func TestNotText(t *testing.T) {
	utf16 := []byte{0xff, 0xfe}
	for _, c := range "etcd: { hosts: { 10.0.0.1: { etcd_seq: 1 } } }\n" {
		utf16 = append(utf16, byte(c), 0)
	}
	v, err := Parse("x.yml", utf16)
	require.NoError(t, err)
	require.Equal(t, []string{"etcd"}, v.Groups())
	_, err = AddHost(utf16, "etcd", "10.0.0.2", 2)
	require.ErrorIs(t, err, ErrByHand)
}

func TestSameHost(t *testing.T) {
	require.True(t, sameHost("::ffff:10.0.0.1", "10.0.0.1"))
	require.True(t, sameHost("node-1", "node-1"))
	require.False(t, sameHost("node-1", "Node-1"))
	require.False(t, sameHost("10.0.0.1", "10.0.0.10"))
}
