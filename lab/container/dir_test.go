package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/shelf"
)

// A lab may be ended twice; the second time the descriptor is somebody else's.
func TestOwnershipEndsOnce(t *testing.T) {
	dir := t.TempDir()
	o, err := own(dir)
	require.NoError(t, err)
	require.False(t, shelf.Abandoned(filepath.Join(dir, ownerName)))
	o.end()
	require.True(t, shelf.Abandoned(filepath.Join(dir, ownerName)))
	var others []*os.File
	for range 20 {
		f, err := os.Open(dir)
		require.NoError(t, err)
		defer f.Close()
		others = append(others, f)
	}
	o.end()
	for _, f := range others {
		_, err := f.Stat()
		require.NoError(t, err)
	}
	(*ownership)(nil).end()
}
