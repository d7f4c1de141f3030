package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChoose(t *testing.T) {
	const one, two, three = "a: { hosts: { 10.0.0.1: { etcd_seq: 1 } } }\n", "b: { hosts: { 10.0.0.2: { etcd_seq: 1 } } }\n", "etcd: { hosts: { 10.0.0.3: } }\n"
	for _, c := range []struct{ content, name, want, err string }{
		{one, "", "a", ""},
		{one + two, "", "", "no such group as etcd, and none was named; groups with members: a, b"},
		{one + two, "b", "b", ""},
		{one + two + three, "", "etcd", ""},
		{one + two, "etcd", "", "no such group as etcd; groups with members: a, b"},
		{"c: { hosts: { 10.0.0.1: } }", "", "", "it has no group whose hosts have etcd_seq"},
	} {
		v, err := Parse("x.yml", []byte(c.content))
		require.NoError(t, err)
		got, err := v.Choose(c.name)
		require.Equal(t, c.want, got)
		if c.err == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrNoGroup)
		require.ErrorContains(t, err, c.err)
	}
}

func TestLab(t *testing.T) {
	for content, want := range map[string]string{
		"# etcdrill lab: /run/a b/c.sock\netcd:\n":                      "/run/a b/c.sock",
		"---\n# words\n\n# etcdrill lab: /c.sock\r\netcd:\n":            "/c.sock",
		"\ufeff# etcdrill lab: /c.sock\netcd:\n":                        "/c.sock",
		"etcd:\n# etcdrill lab: /c.sock\n":                              "",
		"etcd: # etcdrill lab: /c.sock\n":                               "",
		"# an inventory like '# etcdrill lab: /c.sock' is one\netcd:\n": "",
	} {
		v, err := Parse("x.yml", []byte(content))
		require.NoError(t, err)
		require.Equal(t, want, v.Lab, content)
	}
}

func TestHosts(t *testing.T) {
	v, err := Read("testdata/block.yml")
	require.NoError(t, err)
	g, err := v.Group("etcd")
	require.NoError(t, err)

	h, ok := g.Host("FD00:0::12")
	require.True(t, ok)
	require.Equal(t, "dcs-7", g.MemberName(h))
	require.Equal(t, "https://[fd00::12]:12380", g.PeerURL(h))
	require.Equal(t, "several lines,\n10.0.0.1: not a host\n", h.Vars["note"])
	require.Equal(t, int64(7), h.Vars["etcd_seq"])
	require.Equal(t, "3.6.4", h.Vars["etcd_version"])
	_, ok = g.Host("fd00::13")
	require.False(t, ok)

	// Any host can be resolved, for the sake of its SSH variables.
	v, err = Read("testdata/three.yml")
	require.NoError(t, err)
	meta := v.Host("10.10.10.10")
	require.Equal(t, "meta", meta.Addr)
	require.Equal(t, 2222, meta.SSHPort)
	require.Equal(t, "dba", v.Host("10.10.10.99").SSHUser)
	require.Equal(t, map[string]any{"no_proxy": "localhost,127.0.0.1,10.0.0.0/8"}, mustRead(t, "testdata/stock.yml").Host("x").Vars["proxy_env"])
}

func mustRead(t *testing.T, path string) *Inventory {
	v, err := Read(path)
	require.NoError(t, err)
	return v
}

func TestNoFile(t *testing.T) {
	_, err := Read(filepath.Join(t.TempDir(), "none.yml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestAliasesThatMultiply: a short file that would be endless is refused.
func TestAliasesThatMultiply(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 { x: 1 }\n")
	for i := '1'; i <= '9'; i++ {
		p := "*a" + string(i-1)
		b.WriteString("a" + string(i) + ": &a" + string(i) + " { children: { ")
		for _, k := range []string{"p", "q", "r", "s", "t"} {
			b.WriteString(k + string(i) + ": " + p + " , ")
		}
		b.WriteString("} }\n")
	}
	_, err := Parse("x.yml", []byte(b.String()))
	require.ErrorContains(t, err, "aliases repeat too much of the file")
}

func TestValidity(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"7300d": 7300 * 24 * time.Hour, "+1w2d3h4m5s": 9*24*time.Hour + 3*time.Hour + 4*time.Minute + 5*time.Second,
	} {
		got, err := parseValidity(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"", "20y", "30", "d", "0d", "-1d", "999999999999d", "99999999999999999999s", "100000d100000d"} {
		_, err := parseValidity(in)
		require.Error(t, err, in)
	}
}

func TestReference(t *testing.T) {
	ref := Reference()
	require.Equal(t, len(Variables)+2, strings.Count(ref, "\n"))
	require.Contains(t, ref, "| `etcd_data` | `/data/etcd` | group | data directory; absolute and at least two levels deep |\n")
	seen := map[string]bool{}
	for _, v := range Variables {
		require.False(t, seen[v.Name], v.Name)
		require.NotContains(t, v.Meaning, "|")
		seen[v.Name] = true
	}
}

// TestDefaults: what the table says is what a Group has.
func TestDefaults(t *testing.T) {
	v, err := Parse("x.yml", []byte("etcd: { hosts: { 10.0.0.1: { etcd_seq: 1 } } }"))
	require.NoError(t, err)
	bare, err := v.Group("etcd")
	require.NoError(t, err)

	var vars []string
	for _, k := range Variables {
		if k.Default != "" && k.Name != "etcd_seq" {
			vars = append(vars, k.Name+": "+k.Default)
		}
	}
	v, err = Parse("x.yml", []byte("etcd: { hosts: { 10.0.0.1: { etcd_seq: 1 } }, vars: { "+strings.Join(vars, ", ")+" } }"))
	require.NoError(t, err)
	written, err := v.Group("etcd")
	require.NoError(t, err)
	for _, g := range []*Group{bare, written} {
		for i := range g.Hosts {
			g.Hosts[i].Vars = nil
		}
	}
	require.Equal(t, bare, written)
	for _, f := range v.Lint("etcd") {
		require.Contains(t, f.Text, "1 member", "a default has a finding: %s", f)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"etcd", "etcd", 0}, {"ectd", "etcd", 1}, {"etcd_dat", "etcd_data", 1},
		{"kitten", "sitting", 3}, {"etcd_clena", "etcd_clean", 1},
	} {
		require.Equal(t, c.want, distance(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, distance(c.b, c.a), "%s %s", c.b, c.a)
	}
}

// TestSecretsStaySecret: no finding shows a password.
func TestSecretsStaySecret(t *testing.T) {
	v, err := Parse("x.yml", []byte("etcd: { hosts: { 10.0.0.1: { etcd_seq: 1, etcd_root_password: s3cret } }, vars: { etcd_root_password: '{{ s3cret }}', pg_etcd_password: 's3cret' } }"))
	require.NoError(t, err)
	for _, f := range v.Lint("etcd") {
		require.NotContains(t, f.String(), "s3cret")
	}
}
