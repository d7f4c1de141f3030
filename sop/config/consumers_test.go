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

func TestParsePatroni(t *testing.T) {
	p, err := ParsePatroni([]byte("scope: pg-test\nname: pg-test-1\nrestapi: {connect_address: '10.10.10.21:8008'}\npostgresql:\n  connect_address: 10.10.10.21:5432\n" +
		"etcd3: {hosts: 'a:1', protocol: https, cacert: /ca, cert: /crt, key: /key}\n"))
	require.NoError(t, err)
	require.Equal(t, Patroni{Scope: "pg-test", Name: "pg-test-1", RESTConnect: "10.10.10.21:8008", PostgresConnect: "10.10.10.21:5432", CA: "/ca", Cert: "/crt", Key: "/key"}, p)
	p, err = ParsePatroni([]byte("scope: x\netcd3: {host: 'a:1'}\n"))
	require.NoError(t, err)
	require.True(t, p.Plain)
	_, err = ParsePatroni([]byte("scope: [a]\n"))
	require.ErrorContains(t, err, "scope is no single value")
}

const wholeVIPManager = `interval: 1000
trigger-key: "/pg/pg-test/leader"
trigger-value: "pg-test-1"
ip: 10.10.10.3
netmask: 24
interface: eth1
dcs-type: etcd
dcs-endpoints:
  - https://10.10.10.10:2379
etcd-ca-file: "/pg/cert/ca.crt"
etcd-cert-file: "/pg/cert/server.crt"
etcd-key-file: "/pg/cert/server.key"
`

func TestParseVIPManager(t *testing.T) {
	m, err := ParseVIPManager([]byte(wholeVIPManager))
	require.NoError(t, err)
	require.Equal(t, VIPManager{IP: "10.10.10.3", TriggerKey: "/pg/pg-test/leader", TriggerValue: "pg-test-1", Endpoints: []string{"https://10.10.10.10:2379"},
		CA: "/pg/cert/ca.crt", Cert: "/pg/cert/server.crt", Key: "/pg/cert/server.key"}, m)
	_, err = ParseVIPManager([]byte(strings.NewReplacer("netmask", "mask", "interface", "iface", "trigger-key", "key").Replace(wholeVIPManager)))
	require.NoError(t, err, "the names of version 1 are still taken")
	for from, why := range map[string]string{
		"ip: 10.10.10.3\n":                       "ip is not in it",
		"netmask: 24\n":                          "netmask is not in it",
		"interface: eth1\n":                      "interface is not in it",
		"trigger-key: \"/pg/pg-test/leader\"\n":  "trigger-key is not in it",
		"  - https://10.10.10.10:2379\n":         "no etcd endpoints",
		"etcd-key-file: \"/pg/cert/server.key\"": "etcd-cert-file needs",
	} {
		_, err := ParseVIPManager([]byte(strings.Replace(wholeVIPManager, from, "", 1)))
		require.ErrorContains(t, err, why, "without %q", from)
	}
	_, err = ParseVIPManager([]byte(strings.Replace(wholeVIPManager, "10.10.10.3", "soon", 1)))
	require.ErrorContains(t, err, "no IP address")
}

const target = `# etcd-1 @ 10.10.10.1
- labels: { ip: 10.10.10.1 , ins: etcd-1 , cls: etcd }
  targets: [ 10.10.10.1:2379 ]
# not etcd-11, 110.10.10.1, 10.10.10.1.5 or 10.10.10.10
`

func TestTargetLike(t *testing.T) {
	from := Scraped{"etcd-1", "10.10.10.1"}
	got, err := TargetLike([]byte(target), from, Scraped{"etcd-12", "10.10.10.12"})
	require.NoError(t, err)
	require.Equal(t, `# etcd-12 @ 10.10.10.12
- labels: { ip: 10.10.10.12 , ins: etcd-12 , cls: etcd }
  targets: [ 10.10.10.12:2379 ]
# not etcd-11, 110.10.10.1, 10.10.10.1.5 or 10.10.10.10
`, string(got))
	require.Equal(t, "10.10.10.1", TargetHost([]byte(target)))
	require.Equal(t, "", TargetHost([]byte("- targets: [ 10.0.0.1:1, 10.0.0.2:1 ]")))
	require.Equal(t, "10.0.0.1", TargetHost([]byte("- targets: [10.0.0.1:1]")))
	require.Equal(t, "db-1.example", TargetHost([]byte("- labels: {a:b, ip: db-1.example}\n  targets: [ db-1.example:2379 ]")))
	require.Equal(t, "fd00::1", TargetHost([]byte("- targets: [ '[fd00::1]:2379' ]")))
	_, err = TargetLike([]byte(target), Scraped{"etcd-2", "10.10.10.2"}, from)
	require.ErrorContains(t, err, "does not name etcd-2")
	for _, bad := range []Scraped{{"", "10.0.0.1"}, {"a\nb", "10.0.0.1"}, {"etcd-3", "10.0.0.1 #"}} {
		_, err := TargetLike([]byte(target), from, bad)
		require.Error(t, err)
	}
}

// FuzzTargetLike: there and back again is where it was, or it is refused; what
// was made names the newcomer.
func FuzzTargetLike(f *testing.F) {
	f.Add([]byte(target))
	f.Add([]byte("etcd-1 10.10.10.1 etcd-1.10.10.10.1 .etcd-1. 10.10.10.1."))
	one, two := Scraped{"etcd-1", "10.10.10.1"}, Scraped{"etcd-10", "10.10.10.10"}
	f.Fuzz(func(t *testing.T, content []byte) {
		TargetHost(content)
		made, err := TargetLike(content, one, two)
		if err != nil {
			return
		}
		if !TargetNames(made, two) || TargetNames(made, one) {
			t.Fatalf("%q gave %q", content, made)
		}
		if TargetNames(content, two) {
			return // both are named, so that the way back is another
		}
		_, err = TargetLike(made, two, one)
		require.NoError(t, err)
	})
}

// FuzzParseConsumers: no panic, and what vip-manager would take has endpoints.
func FuzzParseConsumers(f *testing.F) {
	f.Add([]byte(wholeVIPManager))
	f.Add([]byte(patroni))
	f.Fuzz(func(t *testing.T, content []byte) {
		if m, err := ParseVIPManager(content); err == nil && (len(m.Endpoints) == 0 || m.IP == "") {
			t.Fatalf("%+v of %q", m, content)
		}
		_, _ = ParsePatroni(content)
	})
}
