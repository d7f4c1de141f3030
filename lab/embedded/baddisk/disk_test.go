package baddisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
// lock. It runs in a process of its own: one that waits for a page of the disk
// that it serves itself would wait for ever.
func TestBackend(t *testing.T) {
	d, dir := mount(t)
	path := filepath.Join(dir, "db")
	backend(t, "fill", path)
	_, err := d.Forget()
	require.NoError(t, err)
	backend(t, "check", path)
}

// backend runs this test binary as the user of a backend.
func backend(t *testing.T, do, path string) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), exe)
	c.Args = []string{backendRole, do, path}
	said, err := c.CombinedOutput()
	require.NoError(t, err, "%s", said)
}

const backendRole = "baddisk-backend"

func TestMain(m *testing.M) {
	if os.Args[0] != backendRole {
		os.Exit(m.Run())
	}
	if err := useBackend(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func useBackend(do, path string) error {
	const size = 100_000
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	bucket := []byte("keys")
	if do == "fill" {
		for _, key := range []string{"a", "b", "c"} {
			err := db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists(bucket)
				if err != nil {
					return err
				}
				return b.Put([]byte(key), bytes.Repeat([]byte("x"), size))
			})
			if err != nil {
				return err
			}
		}
		return db.Close()
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		if n := len(tx.Bucket(bucket).Get([]byte("c"))); n != size {
			return fmt.Errorf("%d bytes are there, %d were put", n, size)
		}
		return nil
	})
	return errors.Join(err, db.Close())
}
