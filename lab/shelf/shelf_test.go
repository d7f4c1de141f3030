package shelf

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	root := filepath.Join(t.TempDir(), "deep", "labs")
	names, err := Names(root)
	require.NoError(t, err)
	require.Empty(t, names, "there is no shelf yet")
	lock, err := Lock(root)
	require.NoError(t, err)
	defer lock.Close()
	for _, dir := range []string{"b", "a", ".dead-1-c"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	names, err = Names(root)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, names)
	_, err = Names(filepath.Join(root, "file"))
	require.ErrorContains(t, err, "list labs")
}

func TestAbandoned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alive")
	require.True(t, Abandoned(path), "nobody ever held it")
	f, err := Hold(path)
	require.NoError(t, err)
	require.False(t, Abandoned(path))
	_, err = Hold(path)
	require.ErrorIs(t, err, ErrHeld)

	// A process that inherits the file holds the lock as well, until it dies.
	heir := exec.Command("sleep", "60")
	heir.ExtraFiles = []*os.File{f}
	require.NoError(t, heir.Start())
	require.NoError(t, f.Close())
	require.False(t, Abandoned(path))
	require.NoError(t, heir.Process.Kill())
	require.Error(t, heir.Wait())
	require.True(t, Abandoned(path))
}

func TestLockIsWaitedFor(t *testing.T) {
	root := t.TempDir()
	first, err := Lock(root)
	require.NoError(t, err)
	got := make(chan *os.File)
	go func() {
		second, err := Lock(root)
		if err != nil {
			second = nil
		}
		got <- second
	}()
	other, err := os.Open(filepath.Join(root, lockName))
	require.NoError(t, err)
	defer other.Close()
	require.ErrorIs(t, Try(other), ErrHeld)
	require.NoError(t, first.Close())
	second := <-got
	require.NotNil(t, second)
	require.NoError(t, second.Close())
}
