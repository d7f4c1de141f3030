package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const patroni = `#!/usr/local/bin/patroni
# étcd below
scope: pg-meta
namespace: /pg/
etcd: {note: "not this one"}
etcd3:
  hosts: HOSTS
  cacert: /pg/cert/ca.crt
  cert:   /pg/cert/server.crt
  protocol: https
  username: 'pg-meta'
  password: 'hush'
bootstrap:
  dcs: { ttl: 30, hosts: 'not this' }
`

func TestEditPatroni(t *testing.T) {
	next := []string{"https://10.10.10.11:2379", "https://10.10.10.13:2379"}
	for before, want := range map[string]string{
		"'10.10.10.10:2379,10.10.10.11:2379'":                    "'10.10.10.11:2379,10.10.10.13:2379'",
		`"10.10.10.10:2379"`:                                     `"10.10.10.11:2379,10.10.10.13:2379"`,
		"10.10.10.10:2379, 10.10.10.11:2379":                     `"10.10.10.11:2379, 10.10.10.13:2379"`,
		"10.10.10.10:2379,10.10.10.11:2379":                      "10.10.10.11:2379,10.10.10.13:2379",
		"[10.10.10.10:2379, '10.10.10.11:2379']":                 "['10.10.10.11:2379', 10.10.10.13:2379]",
		"'10.10.10.10:2379'   # sorted":                          "'10.10.10.11:2379,10.10.10.13:2379'   # sorted",
		"[ \"10.10.10.10:2379\",\"10.10.10.11:2379\" ]":          "[ \"10.10.10.11:2379\",\"10.10.10.13:2379\" ]",
		"\n    - 10.10.10.10:2379\n    - 10.10.10.11:2379 # two": "\n    - 10.10.10.11:2379 # two\n    - 10.10.10.13:2379",
		"\n  - '10.10.10.11:2379' # two\n  # more\n  # to come":  "\n  - '10.10.10.11:2379' # two\n  - '10.10.10.13:2379'\n  # more\n  # to come",
		"[]": "[]",
	} {
		content := strings.ReplaceAll(patroni, "HOSTS", before)
		after, err := EditPatroni([]byte(content), next)
		if before == "[]" {
			require.ErrorIs(t, err, ErrNoEndpoints)
			continue
		}
		require.NoError(t, err, before)
		require.Equal(t, strings.ReplaceAll(patroni, "HOSTS", want), string(after))
		got, err := PatroniEndpoints(after)
		require.NoError(t, err)
		require.Equal(t, []string{"10.10.10.11:2379", "10.10.10.13:2379"}, got)
		again, err := EditPatroni(after, []string{next[1], next[0]})
		require.NoError(t, err)
		require.Equal(t, string(after), string(again))
	}
	crlf := strings.ReplaceAll(strings.ReplaceAll(patroni, "HOSTS", "\n    - a:1\n    - b:1"), "\n", "\r\n")
	after, err := EditPatroni([]byte(crlf), []string{"a:1", "c:1", "b:1"})
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(crlf, "- a:1\r\n", "- a:1\r\n    - c:1\r\n"), string(after))
	back, err := EditPatroni(after, []string{"a:1", "b:1"})
	require.NoError(t, err)
	require.Equal(t, crlf, string(back))
}

func TestEditPatroniRefuses(t *testing.T) {
	next := []string{"https://10.10.10.11:2379"}
	for content, why := range map[string]string{
		"scope: a\n":                              "no etcd endpoints",
		"etcd3: {srv: example.org}\n":             "etcd3.srv",
		"etcd3:\n  host: a:1\n":                   "line 2: etcd is given by etcd3.host",
		"etcd:\n  hosts: a:1\n":                   "v2 API",
		"etcd3: &e\n  hosts: [a:1, *e]\n":         "no single value",
		"etcd3:\n  hosts:\n  - - a:1\n":           "no single value",
		"etcd3:\n  hosts: &h [a:1]\nx: *h\n":      "anchor",
		"etcd3:\n  hosts: a:1\n  hosts: b:1\n":    "2 times",
		"etcd3:\n  hosts: [a:1, # one\n   b:1]\n": "comment inside the brackets",
		"etcd3:\n  hosts: |\n    a:1\n":           "block of text",
	} {
		after, err := EditPatroni([]byte(content), next)
		require.ErrorContains(t, err, why, "%q gave %q", content, after)
	}
}

const vipManager = `# tuned
interval: 1000
trigger-key: "/pg/pg-meta/leader"
dcs-type: etcd
dcs-endpoints:
  - https://10.10.10.10:2379
  - https://10.10.10.11:2379

# one is enough
etcd-ca-file: "/pg/cert/ca.crt"
etcd-password: "hush"
`

func TestEditVIPManager(t *testing.T) {
	next := []string{"https://10.10.10.11:2379", "https://10.10.10.12:2379"}
	after, err := EditVIPManager([]byte(vipManager), next)
	require.NoError(t, err)
	require.Equal(t, strings.NewReplacer("10.10.10.10", "10.10.10.11", "10.10.10.11", "10.10.10.12").Replace(vipManager), string(after))
	back, err := EditVIPManager(after, []string{"https://10.10.10.10:2379", "https://10.10.10.11:2379"})
	require.NoError(t, err)
	require.Equal(t, vipManager, string(back))
	got, err := VIPManagerEndpoints(after)
	require.NoError(t, err)
	require.Equal(t, next, got)

	for content, why := range map[string]string{
		"interval: 1\n": "no etcd endpoints",
		"dcs-type: consul\ndcs-endpoints: [http://a:1]\n": "consul",
		"dcs-endpoints:\n": "no etcd endpoints",
	} {
		_, err := EditVIPManager([]byte(content), next)
		require.ErrorIs(t, err, ErrNoEndpoints)
		require.ErrorContains(t, err, why)
	}
	_, err = EditVIPManager([]byte(vipManager), []string{"https://a b:1"})
	require.Error(t, err)
}

// FuzzEditConsumers: no panic; what was edited names the endpoints asked for.
func FuzzEditConsumers(f *testing.F) {
	f.Add([]byte(vipManager + patroni))
	f.Add([]byte("etcd3: {hosts: [a:1, 'b:1']}\ndcs-endpoints: https://a:1,https://b:2\n"))
	f.Add([]byte("etcd3:\n  hosts:\n  # x\n  - a:1\n\n  - \"b:1\" # y\n"))
	one, two := []string{"https://10.0.0.1:2379"}, []string{"https://10.0.0.1:2379", "https://[fd00::2]:2379"}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, c := range []struct {
			read func([]byte) ([]string, error)
			edit func([]byte, []string) ([]byte, error)
		}{{PatroniEndpoints, EditPatroni}, {VIPManagerEndpoints, EditVIPManager}} {
			before, err := c.read(content)
			if err != nil {
				continue
			}
			first, err := c.edit(content, two)
			if err != nil {
				continue
			}
			got, err := c.read(first)
			require.NoError(t, err)
			require.True(t, SameEndpoints(got, two))
			second, err := c.edit(first, one)
			require.NoError(t, err)
			if got, _ := c.read(second); !SameEndpoints(got, one) {
				t.Fatalf("%q after %q", got, before)
			}
		}
	})
}
