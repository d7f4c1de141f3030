package inventory

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real", "pigsty.yml"), filepath.Join(dir, "pigsty.yml")
	require.NoError(t, os.Mkdir(filepath.Dir(real), 0o700))
	require.NoError(t, os.WriteFile(real, []byte("before"), 0o600))
	require.NoError(t, os.Chmod(real, 0o640))
	require.NoError(t, os.Symlink("real/pigsty.yml", link))
	attributes := unix.Setxattr(real, "user.note", []byte("kept"), 0) == nil
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(real, 12, 34))
	}
	was := stat(t, real)

	require.NoError(t, CheckWritable(link))
	require.Equal(t, []string{"pigsty.yml"}, names(t, filepath.Dir(real)))
	require.Equal(t, was.Ino, stat(t, real).Ino)

	require.ErrorIs(t, Write(link, []byte("other"), []byte("after")), ErrChanged)
	require.Equal(t, "before", read(t, real))

	require.NoError(t, Write(link, []byte("before"), []byte("after")))
	require.Equal(t, "after", read(t, real))
	require.NoError(t, Write(link, []byte("before"), []byte("after")), "done already")
	require.Equal(t, []string{"pigsty.yml"}, names(t, filepath.Dir(real)))

	target, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, "real/pigsty.yml", target)
	now := stat(t, real)
	require.Equal(t, was.Mode, now.Mode)
	require.Equal(t, was.Uid, now.Uid)
	require.Equal(t, was.Gid, now.Gid)
	if attributes {
		value := make([]byte, 16)
		n, err := unix.Getxattr(real, "user.note", value)
		require.NoError(t, err)
		require.Equal(t, "kept", string(value[:n]))
	}
}

func TestNotWritable(t *testing.T) {
	dir := t.TempDir()
	require.Error(t, CheckWritable(filepath.Join(dir, "none.yml")))
	require.Error(t, CheckWritable(dir))
	require.Error(t, Write(filepath.Join(dir, "none.yml"), nil, []byte("x")))
	if os.Geteuid() == 0 {
		t.Skip("modes do not bind root")
	}
	path := filepath.Join(dir, "x.yml")
	require.NoError(t, os.WriteFile(path, nil, 0o400))
	require.ErrorIs(t, CheckWritable(path), os.ErrPermission)
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, CheckWritable(path))
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(dir, 0o700)) })
	require.ErrorIs(t, CheckWritable(path), os.ErrPermission)
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t)
}

func read(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestDiff: the patch that is shown is one that patch takes.
func TestDiff(t *testing.T) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		t.Skip("no patch on this machine")
	}
	for _, c := range []struct{ before, after string }{
		{"a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nd\nnew\ne\nf\ng\n"},
		{"a\nb", "a\nb\nc"},
		{"a\nb\n", "a\nb"},
		{"", "a\n"},
		{"a\nb\n", "b\n"},
		{"a\r\nb\r\n", "a\r\nc\r\nb\r\n"},
		{"a\na\na\na\na\n", "a\na\na\na\n"},
	} {
		path := filepath.Join(t.TempDir(), "x.yml")
		require.NoError(t, os.WriteFile(path, []byte(c.before), 0o600))
		cmd := exec.Command(patch, "--binary", path)
		cmd.Stdin = strings.NewReader(Diff(path, []byte(c.before), []byte(c.after)))
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, c.after, read(t, path))
	}
	require.Empty(t, Diff("x", []byte("a\n"), []byte("a\n")))
}
