package baddisk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
)

func mount(t *testing.T) (*baddisk.Disk, string) {
	t.Helper()
	if err := baddisk.Possible(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	d, err := baddisk.Mount(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Unmount()) })
	return d, dir
}

// What was synced stays, what was not is as before.
func TestForget(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString("kept ")
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	_, err = f.WriteString("lost")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("K"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(3))
	require.NoError(t, f.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "Kep", string(content))

	lost, err := d.Forget()
	require.NoError(t, err)
	require.Equal(t, 3, lost)
	content, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "kept ", string(content))
	require.EqualValues(t, 3, d.Counts().Lost)
}

func TestFull(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, []byte("there"), 0o600))
	d.Set(baddisk.Fault{Full: true})
	require.ErrorIs(t, os.WriteFile(path, []byte("more"), 0o600), unix.ENOSPC)
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600), unix.ENOSPC)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	require.Zero(t, st.Bavail)
	require.Positive(t, d.Counts().Refused)
	d.Set(baddisk.Fault{})
	require.NoError(t, os.WriteFile(path, []byte("more"), 0o600))
}

func TestSlow(t *testing.T) {
	const delay = 60 * time.Millisecond
	d, dir := mount(t)
	f, err := os.Create(filepath.Join(dir, "file"))
	require.NoError(t, err)
	defer f.Close()
	d.Set(baddisk.Fault{SyncDelay: delay})
	began := time.Now()
	require.NoError(t, f.Sync())
	require.GreaterOrEqual(t, time.Since(began), delay)
	require.EqualValues(t, 1, d.Counts().Slowed)
}

// etcd's own storage works on it: a map of the file in memory, sparse files, a
// lock.
func TestBackend(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "db")
	open := func() *bbolt.DB {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
		require.NoError(t, err)
		return db
	}
	put := func(db *bbolt.DB, key string, size int) {
		require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("keys"))
			if err != nil {
				return err
			}
			return b.Put([]byte(key), bytes.Repeat([]byte("x"), size))
		}))
	}
	db := open()
	for _, key := range []string{"a", "b", "c"} {
		put(db, key, 100_000)
	}
	require.NoError(t, db.Close())
	_, err := d.Forget()
	require.NoError(t, err)
	db = open()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		require.Len(t, tx.Bucket([]byte("keys")).Get([]byte("c")), 100_000)
		return nil
	}))
	require.NoError(t, db.Close())
}
