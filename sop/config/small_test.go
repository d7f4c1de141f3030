package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewToken(t *testing.T) {
	now := time.Date(2026, 1, 2, 4, 4, 5, 0, time.FixedZone("", 3600))
	token, err := NewToken(now, bytes.NewReader([]byte{0, 1, 2, 3, 4, 5, 6, 255}))
	require.NoError(t, err)
	require.Equal(t, "etcd-20260102T030405Z-00010203040506ff", token)
	_, err = NewToken(now, iotest.ErrReader(errors.New("dry")))
	require.ErrorContains(t, err, "dry")
}

func TestSameEndpoints(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://a:1,https://b:1", "https://b:1,https://a:1", true},
		{"a:1,b:1", "https://b:1/,https://A:1", true},
		{"https://[fd00:0::1]:1", "[fd00::1]:1", true},
		{"http://a:1", "https://a:1", false},
		{"a:1", "a:2", false},
		{"a:1", "a:1,b:1", false},
		{"", "", true},
		{"", "a:1", false},
		{"::1", "[::1]", false},
	} {
		require.Equal(t, c.same, SameEndpoints(splitList(c.a), splitList(c.b)), "%+v", c)
		require.Equal(t, c.same, SameEndpoints(splitList(c.b), splitList(c.a)), "%+v", c)
	}
}

func TestMeetsCluster(t *testing.T) {
	members := []string{"https://10.10.10.10:2379", "https://10.10.10.11:2379"}
	require.True(t, MeetsCluster([]string{"10.9.9.9:2379", "10.10.10.11:2379"}, members))
	require.True(t, MeetsCluster([]string{"http://10.10.10.11:2379"}, members))
	require.False(t, MeetsCluster([]string{"10.10.10.12:2379"}, members))
	require.False(t, MeetsCluster([]string{"10.10.10.11:2479"}, members))
	require.False(t, MeetsCluster(nil, members))
}

func TestLayout(t *testing.T) {
	got := ""
	for _, f := range []OwnedFile{
		ConfFile(), CAFile(), ServerCertFile(), ServerKeyFile(), PassFile(), EnvFile(), UnitFile(), JoinDropInFile(), ConfDirectory(), DataDirectory("/data/etcd"),
	} {
		got += fmt.Sprintf("%04o %s:%s %s %v\n", f.Mode, f.Owner, f.Group, f.Path, f.Secret)
	}
	require.Equal(t, `0644 etcd:etcd /etc/etcd/etcd.conf false
0644 etcd:etcd /etc/etcd/ca.crt false
0644 etcd:etcd /etc/etcd/server.crt false
0600 etcd:etcd /etc/etcd/server.key true
0640 root:etcd /etc/etcd/etcd.pass true
0644 root:root /etc/profile.d/etcdctl.sh false
0644 root:root /etc/systemd/system/etcd.service false
0644 root:root /etc/systemd/system/etcd.service.d/etcdrill-join.conf false
0750 etcd:etcd /etc/etcd false
0700 etcd:etcd /data/etcd false
`, got)
}

func TestDiff(t *testing.T) {
	before := strings.ReplaceAll(patroni, "HOSTS", "'10.10.10.10:2379'   # sorted")
	after, err := EditPatroni([]byte(before), []string{"10.10.10.11:2379"})
	require.NoError(t, err)
	require.Empty(t, Diff("x", []byte(before), []byte(before)))
	require.Equal(t, `--- /etc/patroni/patroni.yml
+++ /etc/patroni/patroni.yml
@@ -5,5 +5,5 @@
 etcd: {note: "not this one"}
 etcd3:
-  hosts: '10.10.10.10:2379'   # sorted
+  hosts: '10.10.10.11:2379'   # sorted
   cacert: /pg/cert/ca.crt
   cert:   /pg/cert/server.crt
`, Diff(PatroniPath, []byte(before), after))
}

func TestDiffMasksPasswords(t *testing.T) {
	for line, want := range map[string]string{
		"  password: 'hush'":                                 "  password: ********",
		"etcd-password: \"hush\"":                            "etcd-password: ********",
		"{user: a, password: hush}":                          "{user: a, password: ********",
		"export ETCDCTL_PASSWORD=hush":                       "export ETCDCTL_PASSWORD=********",
		"export ETCDCTL_USER=\"root:hush\"":                  "export ETCDCTL_USER=\"root:********",
		"export ETCDCTL_USER=\"root:$(cat /etc/etcd.pass)\"": "export ETCDCTL_USER=\"root:$(cat /etc/etcd.pass)\"",
		"initial-cluster-token: \"etcd\"":                    "initial-cluster-token: \"etcd\"",
		"bell \x1b[31m\a":                                    "bell ?[31m?",
	} {
		got := Diff("f", []byte(line+"\nx\n"), []byte(line+"\ny\n"))
		require.Equal(t, "--- f\n+++ f\n@@ -1,2 +1,2 @@\n "+want+"\n-x\n+y\n", got)
	}
}

// patch itself must agree with what a diff says.
func TestDiffIsWhatPatchTakes(t *testing.T) {
	if _, err := exec.LookPath("patch"); err != nil {
		t.Skip("patch is not installed; try: apt-get install patch")
	}
	numbers := func(n int, but ...string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "line %d\n", i)
		}
		return strings.NewReplacer(but...).Replace(b.String())
	}
	for i, c := range [][2]string{
		{"", "a\nb\n"}, {"a\nb\n", ""}, {"a", "a\n"}, {"a\n", "a"}, {"a\nb\nc", "a\nc"},
		{numbers(40), numbers(40, "line 3\n", "", "line 7\n", "x\n", "line 30\n", "line 30\ny\nz\n")},
		{numbers(9), "first\n" + numbers(9, "line 8", "last")},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		require.NoError(t, os.WriteFile(path, []byte(c[0]), 0o600))
		cmd := exec.Command("patch", "-s", "-o", path+".new", path)
		cmd.Stdin = strings.NewReader(Diff("f", []byte(c[0]), []byte(c[1])))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%d: %s\n%s", i, out, Diff("f", []byte(c[0]), []byte(c[1])))
		got, _ := os.ReadFile(path + ".new")
		require.Equal(t, c[1], string(got), "%d", i)
	}
}
