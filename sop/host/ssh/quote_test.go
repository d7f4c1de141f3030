package ssh_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host/ssh"
)

// shells are those of this machine that Quote is held against.
func shells(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, name := range []string{"sh", "dash", "bash", "busybox", "zsh", "ksh"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	require.NotEmpty(t, found)
	return found
}

// echoed gives what a shell makes of a word: its bytes, with a mark behind.
func echoed(t testing.TB, shell, quoted string) string {
	t.Helper()
	args := []string{"-c", "printf '%s.' " + quoted}
	if strings.HasSuffix(shell, "busybox") {
		args = append([]string{"sh"}, args...)
	}
	out, err := exec.Command(shell, args...).Output()
	require.NoError(t, err, "%s: %s", shell, quoted)
	return string(out)
}

func words() []string {
	return []string{
		"", "a", "-n", "/etc/etcd/etcd.conf", "two words", "it's", `"`, `\`, `\'`, "'", "''", `a\`, "$HOME", "`id`", "$(id)", "*", "?", "[a]", "~", "~root",
		"!", "!!", "#", "a#b", "a;b", "a&b", "a|b", "a>b", "a\nb", "\n", "a\tb", "\r", "é", "\xff\xfe", "{a,b}", "=", "a=b", "%s", "%n", "--", "\x01\x1b[2J",
	}
}

func TestQuote(t *testing.T) {
	for _, shell := range shells(t) {
		for _, w := range words() {
			require.Equal(t, w+".", echoed(t, shell, ssh.Quote(w)), "%s: %q", shell, w)
		}
	}
	require.Equal(t, "/etc/etcd/etcd.conf", ssh.Quote("/etc/etcd/etcd.conf"), "what needs no quotes gets none")
	require.Equal(t, `'it'\''s'`, ssh.Quote("it's"))
}

func FuzzQuote(f *testing.F) {
	for _, w := range words() {
		f.Add(w)
	}
	all := shells(f)
	f.Fuzz(func(t *testing.T, w string) {
		if strings.ContainsRune(w, 0) {
			t.Skip("no shell has a NUL in a word")
		}
		for _, shell := range all {
			require.Equal(t, w+".", echoed(t, shell, ssh.Quote(w)), "%s: %q", shell, w)
		}
		back, err := ssh.Words(ssh.Quote(w) + " " + ssh.Quote(w))
		require.NoError(t, err)
		require.Equal(t, []string{w, w}, back)
	})
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":       nil,
		"  \t ":  nil,
		"-o A=b": {"-o", "A=b"},
		`-o ProxyCommand="ssh -W %h:%p -q bastion"`: {"-o", "ProxyCommand=ssh -W %h:%p -q bastion"},
		`'a b'c"d e"\ f`:                         {"a bcd e f"},
		`"a\"b\$c\\d\e"`:                         {`a"b$c\d\e`},
		`''`:                                     {""},
		`a $b *`:                                 {"a", "$b", "*"},
		"a\\\nb":                                 {"ab"},
		"A=1 $'B=two\\nlines' \"C=three words\"": {"A=1", "B=two\nlines", "C=three words"},
		`$'\x41\102\t\\\''`:                      {"AB\t\\'"},
	} {
		got, err := ssh.Words(line)
		require.NoError(t, err, "%q", line)
		require.Equal(t, want, got, "%q", line)
	}
	for line, want := range map[string]string{
		`'a`: "not closed", `"a`: "not closed", `"a\`: "not closed", `a\`: "backslash", `$'a`: "not closed", `$'\q'`: "not known", `$'\x'`: "not known",
	} {
		_, err := ssh.Words(line)
		require.ErrorContains(t, err, want, "%q", line)
	}
}

// FuzzWords: where no variable and no pattern is in a line, a shell makes the
// same words of it.
func FuzzWords(f *testing.F) {
	for _, line := range []string{"a b", `'a b' "c d"`, `a\ b`, "a\\\nb", `"a\"b"`, `''`, `"" x`, `$'a'`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got, err := ssh.Words(line)
		if err != nil || strings.ContainsAny(line, "$`*?[]~#;&|<>(){}!=\x00\r\v\f") || strings.Contains(line, "\n") || len(got) == 0 {
			return
		}
		out, err := exec.Command("sh", "-c", "printf '%s\\n.' "+line).Output()
		require.NoError(t, err, "%q", line)
		require.Equal(t, strings.Join(got, "\n.")+"\n.", string(out), "%q", line)
	})
}
