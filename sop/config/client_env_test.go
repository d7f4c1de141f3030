package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func stockEnv() ClientEnv {
	return ClientEnv{
		Endpoints: []string{"https://10.10.10.10:2379", "https://10.10.10.11:2379", "https://10.10.10.12:2379"},
		CAFile:    CAPath, CertFile: ServerCertPath, KeyFile: ServerKeyPath,
	}
}

// envs are environment files as Pigsty's versions have them.
func envs() map[string]string {
	const aliases = "#!/bin/bash\nalias e=\"etcdctl\"\nalias em=\"etcdctl member\"\n"
	const endpoints = "export ETCDCTL_ENDPOINTS=\"https://10.10.10.10:2379,https://10.10.10.11:2379,https://10.10.10.12:2379\"\n"
	const server = "export ETCDCTL_CERT=/etc/etcd/server.crt\nexport ETCDCTL_KEY=/etc/etcd/server.key\n"
	return map[string]string{
		"2.0": aliases + "export ETCDCTL_API=3\n" + endpoints + "export ETCDCTL_CACERT=/etc/pki/ca.crt\n" + server,
		"3.7": aliases + endpoints + "export ETCDCTL_CACERT=/etc/pki/ca.crt\n" + strings.TrimSuffix(server, "\n"),
		"4.5": aliases + endpoints + "export ETCDCTL_CACERT=/etc/etcd/ca.crt\n" + server + `
case "$(id -un)" in
  root|dba)
    [ -r /etc/etcd/etcd.pass ] && export ETCDCTL_USER="root:$(cat /etc/etcd/etcd.pass)"
    ;;
esac`,
		"infra": aliases + endpoints + "export ETCDCTL_CACERT=/etc/pki/ca.crt\nexport ETCDCTL_CERT=/etc/pki/infra.crt\nexport ETCDCTL_KEY=/etc/pki/infra.key\n",
	}
}

func TestClientEnvRender(t *testing.T) {
	c := stockEnv()
	require.NoError(t, c.Check())
	golden(t, "etcdctl.golden.sh", c.Render())
	c.API3, c.UserFile, c.Admins = true, PassPath, []string{"dba"}
	require.NoError(t, c.Check())
	golden(t, "etcdctl-auth.golden.sh", c.Render())
}

func TestParseClientEnv(t *testing.T) {
	for name, content := range envs() {
		c := stockEnv()
		switch name {
		case "2.0":
			c.API3, c.CAFile = true, InfraCAPath
		case "3.7":
			c.CAFile = InfraCAPath
		case "4.5":
			c.UserFile, c.Admins = PassPath, []string{"dba"}
		case "infra":
			c.CAFile, c.CertFile, c.KeyFile = InfraCAPath, InfraCertPath, InfraKeyPath
		}
		got, err := ParseClientEnv([]byte(content))
		require.NoError(t, err, name)
		require.Equal(t, c, got, name)
		again, err := ParseClientEnv(got.Render())
		require.NoError(t, err, name)
		require.Equal(t, got, again, name)
	}
}

func TestParseClientEnvByHand(t *testing.T) {
	c, err := ParseClientEnv([]byte("# export ETCDCTL_ENDPOINTS=no\nexport ETCDCTL_CACERT='/a b/ca' ETCDCTL_CERT=/c ; export ETCDCTL_KEY=\"/\\$k\"\nETCDCTL_ENDPOINTS=https://a:1,https://b:2 # two\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"https://a:1", "https://b:2"}, c.Endpoints)
	require.Equal(t, "/a b/ca", c.CAFile)

	_, err = ParseClientEnv([]byte("alias e=etcdctl\n"))
	require.ErrorIs(t, err, ErrNoEndpoints)
	_, err = ParseClientEnv([]byte("export ETCDCTL_ENDPOINTS=\"$(hosts)\"\n"))
	require.ErrorContains(t, err, "line 1: the shell computes ETCDCTL_ENDPOINTS")
}

func TestClientEnvCheckRefuses(t *testing.T) {
	for _, endpoint := range []string{
		"", "10.10.10.10:2379", "https://10.10.10.10", "https://a b:2379", "https://$(reboot):2379", "https://`id`:2379", "https://a;b:2379",
		"https://a\":2379", "https://a'b:2379", "https://a\n:2379", "https://[fe80::1%eth0]:2379", "https://[::1:2379", "https://a:0", "https://a:65536", "https://a:02379",
		"unix://a:2379", "https://a:2379/path", "https://-a:2379", "https://user@a:2379", "https://a,b:2379", "https://a\x00:2379",
	} {
		c := stockEnv()
		c.Endpoints = []string{endpoint}
		require.Error(t, c.Check(), "%q", endpoint)
		if endpoint != "10.10.10.10:2379" {
			_, err := EditClientEnv(stockEnv().Render(), []string{endpoint})
			require.Error(t, err, "%q", endpoint)
		}
	}
	_, err := EditClientEnv(stockEnv().Render(), nil)
	require.ErrorContains(t, err, "an empty list of endpoints")
	_, err = EditClientEnv(stockEnv().Render(), []string{"https://a:1", "https://a:1"})
	require.ErrorContains(t, err, "twice")

	c := stockEnv()
	c.KeyFile = "/etc/$(id)"
	require.ErrorContains(t, c.Check(), "ETCDCTL_KEY")
	c = stockEnv()
	c.Admins = []string{"x)"}
	require.ErrorContains(t, c.Check(), "no user name")
}

// sh has a shell read a file and print what etcdctl would see, one value to a
// line.
func sh(t testing.TB, shell string, content []byte, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "etcdctl.sh")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	cmd := exec.Command(shell, "-eu", "-c", strings.ReplaceAll(script, "FILE", path))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s\n%s", shell, out, content)
	return string(out)
}

// shells are those of sh, bash and zsh that this machine has; sh always.
func shells(t testing.TB) []string {
	t.Helper()
	found := []string{"sh"}
	for _, name := range []string{"bash", "zsh"} {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		} else {
			t.Logf("%s is not installed, not tried", name)
		}
	}
	return found
}

const printEnv = `for v in ENDPOINTS CACERT CERT KEY; do sh -c "printf '%s\n' \"\${ETCDCTL_$v}\""; done`

func TestShellsReadClientEnv(t *testing.T) {
	stock := stockEnv()
	odd := ClientEnv{
		Endpoints: []string{"https://[fd00::1]:2379", "a $(touch /nowhere) `b` \"c\" \\ 'd' $HOME *"},
		CAFile:    "/a b/$HOME/ca.crt", CertFile: "/c'\"/x", KeyFile: "/k;reboot`#",
	}
	for _, shell := range shells(t) {
		for _, c := range []ClientEnv{stock, odd} {
			want := strings.Join([]string{strings.Join(c.Endpoints, ","), c.CAFile, c.CertFile, c.KeyFile, ""}, "\n")
			require.Equal(t, want, sh(t, shell, c.Render(), ". FILE; "+printEnv), shell)
			require.Equal(t, want, sh(t, shell, c.Render(), `eval "$(cat FILE)"; `+printEnv), "%s, eval", shell)
		}
		out := sh(t, shell, stock.Render(), ". FILE; alias e; alias em")
		require.Contains(t, out, "e='etcdctl'")
		require.Contains(t, out, "em='etcdctl member'")
	}
}

func TestShellsReadThePassword(t *testing.T) {
	const password = `p w$d"'\`
	dir := t.TempDir()
	c := stockEnv()
	c.UserFile = filepath.Join(dir, "etcd.pass")
	me := strings.TrimSpace(sh(t, "sh", nil, "id -un"))
	if me != "root" {
		c.Admins = []string{me}
	}
	require.NoError(t, c.Check())
	for _, shell := range shells(t) {
		require.Equal(t, "none", sh(t, shell, c.Render(), `. FILE; printf %s "${ETCDCTL_USER-none}"`), "%s: without the file there is no user, and no failure", shell)
	}
	require.NoError(t, os.WriteFile(c.UserFile, []byte(password+"\n"), 0o600))
	for _, shell := range shells(t) {
		require.Equal(t, "root:"+password, sh(t, shell, c.Render(), `. FILE; sh -c 'printf %s "$ETCDCTL_USER"'`), shell)
	}
	require.NotContains(t, string(c.Render()), password)
}

func TestEditClientEnv(t *testing.T) {
	next := []string{"https://10.10.10.11:2379", "https://10.10.10.13:2379"}
	for name, content := range envs() {
		for _, before := range []string{content, strings.ReplaceAll(content, "\n", "\r\n")} {
			after, err := EditClientEnv([]byte(before), next)
			require.NoError(t, err, name)
			want := strings.ReplaceAll(before, "https://10.10.10.10:2379,https://10.10.10.11:2379,https://10.10.10.12:2379", strings.Join(next, ","))
			require.Equal(t, want, string(after), name)
			back, err := EditClientEnv(after, stockEnv().Endpoints)
			require.NoError(t, err)
			require.Equal(t, before, string(back), name)
		}
	}
	text := strings.Join(next, ",")
	for before, want := range map[string]string{
		"ETCDCTL_ENDPOINTS='https://a:1' # c\nexport ETCDCTL_ENDPOINTS\n": "ETCDCTL_ENDPOINTS='" + text + "' # c\nexport ETCDCTL_ENDPOINTS\n",
		"  export ETCDCTL_ENDPOINTS=https://a:1; x\n":                     "  export ETCDCTL_ENDPOINTS=" + text + "; x\n",
		"export A=1 ETCDCTL_ENDPOINTS=\"https://a:1\" B=2":                "export A=1 ETCDCTL_ENDPOINTS=\"" + text + "\" B=2",
		"#export ETCDCTL_ENDPOINTS=x\nexport ETCDCTL_ENDPOINTS=":          "",
	} {
		after, err := EditClientEnv([]byte(before), next)
		if want == "" {
			want = before + text
		}
		require.NoError(t, err)
		require.Equal(t, want, string(after))
	}
	same, err := EditClientEnv(stockEnv().Render(), []string{"https://10.10.10.12:2379", "https://10.10.10.10:2379/"[:24], "https://10.10.10.11:2379"})
	require.NoError(t, err)
	require.True(t, bytes.Equal(stockEnv().Render(), same), "another order is no change")

	for content, why := range map[string]string{
		"alias e=etcdctl\n":                                                                "no etcd endpoints",
		"export ETCDCTL_ENDPOINTS=\"$X\"\n":                                                "line 1: the shell computes",
		"export ETCDCTL_ENDPOINTS=\"a\"'b'\n":                                              "the shell computes",
		"export ETCDCTL_ENDPOINTS=\"https://a:1,\\\nhttps://b:1\"\n":                       "the shell computes",
		"if x; then\nexport ETCDCTL_ENDPOINTS=a:1\nelse\nexport ETCDCTL_ENDPOINTS=b:1\nfi": "line 4: ETCDCTL_ENDPOINTS is set a second time, first in line 2",
	} {
		_, err := EditClientEnv([]byte(content), next)
		require.ErrorContains(t, err, why)
	}
}

// FuzzEditClientEnv: no panic, the new endpoints are read back, and the way
// back leads to the same bytes.
func FuzzEditClientEnv(f *testing.F) {
	for _, content := range envs() {
		f.Add([]byte(content))
	}
	f.Add([]byte("ETCDCTL_ENDPOINTS='https://a:1' X=1;export ETCDCTL_ENDPOINTS"))
	one, two := []string{"https://10.0.0.1:2379"}, []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379"}
	f.Fuzz(func(t *testing.T, content []byte) {
		before, parseErr := ParseClientEnv(content)
		first, err := EditClientEnv(content, two)
		if err != nil {
			return
		}
		after, err := ParseClientEnv(first)
		require.NoError(t, err)
		require.True(t, SameEndpoints(two, after.Endpoints))
		second, err := EditClientEnv(first, one)
		require.NoError(t, err)
		again, err := EditClientEnv(second, two)
		require.NoError(t, err)
		if parseErr != nil {
			return
		}
		if !SameEndpoints(before.Endpoints, two) {
			require.Equal(t, string(first), string(again))
		}
		// All the way back, when the list was one that an edit writes.
		if checkEndpoints(before.Endpoints) != nil || rawEndpoints(content) != strings.Join(before.Endpoints, ",") {
			return
		}
		after.Endpoints = before.Endpoints
		require.Equal(t, before, after, "nothing else has changed")
		undone, err := EditClientEnv(second, before.Endpoints)
		require.NoError(t, err)
		if !SameEndpoints(before.Endpoints, one) {
			require.Equal(t, string(content), string(undone))
		}
	})
}

// rawEndpoints gives the bytes between the quotes around the endpoints.
func rawEndpoints(content []byte) string {
	for _, a := range assignments(content) {
		if a.name == envEndpoints {
			return string(content[a.start:a.end])
		}
	}
	return ""
}
