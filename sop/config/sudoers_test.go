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

// awkward has all that sudoers and patterns give a meaning to.
var awkward = []string{"/bin/sh", "-c", `trap "" HUP; echo "ready, $(id -u): a=b #1 ${#n} [x] *? \\ !y"; while read -r n; do eval "$n"; done`}

func TestSudoers(t *testing.T) {
	got, err := Sudoers([]SudoRule{{User: "dba", Command: awkward}, {User: "dba", As: "root", Command: awkward}, {User: "admin", As: "etcd", Command: []string{"/bin/true"}}})
	require.NoError(t, err)
	golden(t, "sudoers", got)
	for _, bad := range []SudoRule{
		{User: "", Command: awkward}, {User: "ALL", Command: awkward}, {User: "a b", Command: awkward}, {User: "%wheel", Command: awkward},
		{User: "dba", As: "a,b", Command: awkward}, {User: "dba"}, {User: "dba", Command: []string{"sh"}}, {User: "dba", Command: []string{"/bin/sh", "a\nroot ALL=(ALL) ALL"}},
	} {
		_, err := Sudoers([]SudoRule{bad})
		require.Error(t, err, "%+v", bad)
	}
}

// visudo takes the file, and sudo takes it as it is meant: this command, and no
// other.
func TestSudoersForReal(t *testing.T) {
	for _, tool := range []string{"visudo", "sudo", "unshare", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: there is no %s here", tool)
		}
	}
	text, err := Sudoers([]SudoRule{{User: "nobody", Command: awkward}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sudoers")
	require.NoError(t, os.WriteFile(file, text, 0o440))
	out, err := exec.Command("visudo", "-c", "-f", file).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, text)
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can try sudo with a file of its own")
	}
	run := func(words ...string) (string, error) {
		// In a mount namespace of its own, so that nobody else sees it.
		c := exec.Command("unshare", append([]string{"-m", "sh", "-ec",
			`mount --bind "$0" /etc/sudoers; exec setpriv --reuid=nobody --regid=nogroup --clear-groups sudo -n "$@"`, file}, words...)...)
		c.Stdin = strings.NewReader("id -un\n")
		var all bytes.Buffer
		c.Stdout, c.Stderr = &all, &all
		err := c.Run()
		return all.String(), err
	}
	if said, err := run("-l"); err != nil && !strings.Contains(said, "may run") {
		t.Skipf("NOT TESTED: sudo cannot be tried here: %s", said)
	}
	said, err := run(awkward...)
	require.NoError(t, err, said)
	require.Contains(t, said, "ready, 0: a=b #1 0 [x]")
	require.Contains(t, said, "\nroot\n")
	for _, other := range [][]string{
		{"/bin/sh", "-c", "id"}, {"/bin/sh"}, {"/usr/bin/id"}, append(append([]string{}, awkward...), "x"),
		{"/bin/sh", "-c", strings.Replace(awkward[2], "*?", "anything", 1)}, {"-u", "daemon", "/bin/sh", "-c", awkward[2]},
	} {
		said, err := run(other...)
		require.Error(t, err, "%q: %s", other, said)
		require.Contains(t, said, "a password is required", "%q", other)
	}
}
