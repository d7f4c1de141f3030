package machine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
)

// Space that was set apart and never written is not read; every byte that was
// written counts, wherever it is.
func TestFingerprintOfHoles(t *testing.T) {
	root := newMachine(t).Root()
	file := filepath.Join(root, "wal")
	print := func() string {
		all, err := machine.Fingerprint(root)
		require.NoError(t, err)
		return all["/wal"]
	}
	const size = 4 << 20
	require.NoError(t, os.WriteFile(file, make([]byte, size), 0o600))
	written := print()
	require.NoError(t, os.Remove(file))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NotEqual(t, written, print(), "the size counts")
	require.NoError(t, os.Truncate(file, size))
	require.Equal(t, written, print(), "a hole is as good as zeros")

	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != unix.EOPNOTSUPP {
		require.NoError(t, err)
	}
	require.Equal(t, written, print(), "and so is space that was set apart")
	seen := map[string]int64{written: -1}
	for _, at := range []int64{0, 1, 65535, 65536, 1 << 20, size - 1} {
		_, err := f.WriteAt([]byte{1}, at)
		require.NoError(t, err)
		now := print()
		require.NotContains(t, seen, now, "the byte at %d", at)
		seen[now] = at
		_, err = f.WriteAt([]byte{0}, at)
		require.NoError(t, err)
		require.Equal(t, written, print())
	}
}
