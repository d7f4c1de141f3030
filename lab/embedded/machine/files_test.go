package machine_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

func file(t *testing.T, m *machine.Machine, path string) host.File {
	t.Helper()
	return look(t, m, host.Question{Files: []string{path}}).Files[path]
}

func dir(t *testing.T, m *machine.Machine, path string) host.Dir {
	t.Helper()
	return look(t, m, host.Question{Dirs: []string{path}}).Dirs[path]
}

func TestWriteFile(t *testing.T) {
	m := newMachine(t)
	a := host.WriteFile{Path: "/etc/etcd/server.key", Content: []byte("secret"), Owner: "etcd", Group: "etcd", Mode: 0o600, Secret: true}
	err := m.Do(t.Context(), a)
	require.ErrorContains(t, err, "No such file or directory")
	require.NotContains(t, err.Error(), m.Root())
	do(t, m, host.MakeDir{Path: "/etc/etcd", Owner: "etcd", Group: "etcd", Mode: 0o750}, a, a)
	written := file(t, m, a.Path)
	require.WithinDuration(t, time.Now(), written.Changed, time.Minute)
	written.Changed = time.Time{}
	require.Equal(t, host.File{
		Exists: true, Real: a.Path, Content: a.Content, Owner: "etcd", Group: "etcd", Mode: 0o600,
	}, written)
	entries, err := os.ReadDir(filepath.Join(m.Root(), "etc/etcd"))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file is left")

	require.Equal(t, map[string]string{a.Path: fmt.Sprintf("%x", sha256.Sum256(a.Content)), "/etc/etcd": ""},
		look(t, m, host.Question{Sums: []string{a.Path, "/etc/etcd", "/etc/nothing"}}).Sums)

	a.Owner = "mallory"
	require.ErrorContains(t, m.Do(t.Context(), a), "invalid user 'mallory'")
	require.ErrorContains(t, m.Do(t.Context(), write("/etc", "x")), "directory")
	require.ErrorContains(t, m.Do(t.Context(), write("/etc/passwd/x", "x")), "Not a directory")
	require.Error(t, m.Do(t.Context(), write("etc/x", "x")))

	do(t, m, host.RemoveFile{Path: a.Path}, host.RemoveFile{Path: a.Path}, host.RemoveFile{Path: "/no/such/file"})
	require.False(t, file(t, m, a.Path).Exists)
	require.ErrorContains(t, m.Do(t.Context(), host.RemoveFile{Path: "/etc/etcd"}), "Is a directory")

	// What a process makes is its directory's owner's, whatever was there.
	a.Owner = "dba"
	do(t, m, a, host.RemoveFile{Path: a.Path})
	require.NoError(t, os.WriteFile(filepath.Join(m.Root(), a.Path), nil, 0o644))
	require.Equal(t, "etcd", file(t, m, a.Path).Owner, "a removed file leaves no owner behind")
}

func TestMakeDir(t *testing.T) {
	m := newMachine(t)
	a := host.MakeDir{Path: "/data/one/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700}
	do(t, m, a, a)
	require.Equal(t, "etcd root", dir(t, m, a.Path).Owner+" "+dir(t, m, "/data/one").Owner)
	require.Equal(t, fs.FileMode(0o700), dir(t, m, a.Path).Mode)
	require.Equal(t, fs.FileMode(0o755), dir(t, m, "/data/one").Mode)
	a.Mode = 0o750
	do(t, m, a)
	require.Equal(t, fs.FileMode(0o750), dir(t, m, a.Path).Mode)
	require.Error(t, m.Do(t.Context(), host.MakeDir{Path: "/etc/passwd/x", Mode: 0o755}))
	require.Error(t, m.Do(t.Context(), host.MakeDir{Path: "/etc/passwd", Mode: 0o755}))
}

func TestSymbolicLinks(t *testing.T) {
	m := newMachine(t)
	link := func(target, at string) {
		t.Helper()
		require.NoError(t, os.Symlink(target, filepath.Join(m.Root(), at)))
	}
	do(t, m, host.MakeDir{Path: "/pg/conf", Mode: 0o755}, host.MakeDir{Path: "/pg/bin", Mode: 0o755},
		host.MakeDir{Path: "/etc/patroni", Mode: 0o755}, write("/pg/conf/pg-1.yml", "old"))
	link("/pg/bin/patroni.yml", "etc/patroni/patroni.yml")
	link("../conf/pg-1.yml", "pg/bin/patroni.yml")
	link("../../../../../../pg/conf", "pg/up") // above the root there is only the root
	link("loop", "pg/loop")
	link("/pg/conf/new.yml", "pg/dangling")

	do(t, m, host.WriteFile{Path: "/etc/patroni/patroni.yml", Content: []byte("new"), Owner: "postgres", Group: "postgres", Mode: 0o640})
	f := file(t, m, "/etc/patroni/patroni.yml")
	require.Equal(t, "/pg/conf/pg-1.yml", f.Real)
	require.Equal(t, "new", string(f.Content))
	require.Equal(t, f, file(t, m, "/pg/conf/pg-1.yml"))
	require.Equal(t, f, file(t, m, "/pg/up/pg-1.yml"))
	for _, at := range []string{"etc/patroni/patroni.yml", "pg/bin/patroni.yml"} {
		info, err := os.Lstat(filepath.Join(m.Root(), at))
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&fs.ModeSymlink, "%s is a link still", at)
	}
	require.ErrorContains(t, m.Do(t.Context(), write("/pg/loop", "x")), "too many levels of symbolic links")
	require.Contains(t, file(t, m, "/pg/loop").Problem, "too many levels")
	require.False(t, file(t, m, "/pg/dangling").Exists)
	do(t, m, write("/pg/dangling", "x"))
	require.True(t, file(t, m, "/pg/conf/new.yml").Exists)
	do(t, m, host.RemoveFile{Path: "/etc/patroni/patroni.yml"})
	require.True(t, file(t, m, "/pg/conf/pg-1.yml").Exists, "removing a link leaves its target")
}

func TestOwnersOutliveTheSupervisor(t *testing.T) {
	m := newMachine(t)
	do(t, m, host.MakeDir{Path: "/data/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.WriteFile{Path: "/data/x", Content: []byte("x"), Owner: "dba", Group: "admin", Mode: 0o600})
	m.Close()
	again := newMachine(t, func(c *machine.Config) { c.Root = m.Root() })
	require.Equal(t, "etcd:etcd", dir(t, again, "/data/etcd").Owner+":"+dir(t, again, "/data/etcd").Group)
	require.Equal(t, "dba:admin", file(t, again, "/data/x").Owner+":"+file(t, again, "/data/x").Group)
}

func TestSetAside(t *testing.T) {
	m := newMachine(t, func(c *machine.Config) { c.Mounts = []string{"/data/etcd"} })
	do(t, m,
		host.SetAside{Path: "/data/etcd", Stamp: "20260101T000000Z"}, // empty
		host.SetAside{Path: "/data/nothing", Stamp: "20260101T000000Z"},
		host.MakeDir{Path: "/data/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.MakeDir{Path: "/data/etcd/member/wal", Owner: "etcd", Group: "etcd", Mode: 0o700},
		write("/data/etcd/member/wal/0000000000000000-0000000000000000.wal", "old"),
		write("/data/etcd/member/wal/0000000000000001-0000000000000009.wal", "new"))
	d := dir(t, m, "/data/etcd")
	require.True(t, d.Mount)
	require.True(t, d.WAL)
	require.Equal(t, "new", string(d.WALHead), "of the newest segment")
	require.Equal(t, []string{"member"}, d.Entries)
	require.Empty(t, d.Aside)
	require.Positive(t, d.UsedBytes)
	require.Equal(t, "new", string(dir(t, m, "/data/etcd/member/wal").WALHead), "wal-dir by itself")

	do(t, m, host.SetAside{Path: "/data/etcd", Stamp: "20260202T000000Z"},
		host.SetAside{Path: "/data/etcd", Stamp: "20260303T000000Z"}) // nothing is left to move
	d = dir(t, m, "/data/etcd")
	require.False(t, d.WAL)
	require.Empty(t, d.Entries)
	require.Equal(t, []host.Aside{{
		Path:  "/data/etcd/.removed-20260202T000000Z",
		Bytes: d.UsedBytes,
		Since: time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC),
	}}, d.Aside)
	aside := dir(t, m, d.Aside[0].Path)
	require.Equal(t, fs.FileMode(0o700), aside.Mode)
	require.True(t, aside.WAL)
	require.Equal(t, "root", dir(t, m, d.Aside[0].Path+"/member").Owner, "a parent that MakeDir made")
	require.Equal(t, "etcd", dir(t, m, d.Aside[0].Path+"/member/wal").Owner, "owners move along")

	do(t, m, write("/data/etcd/more", "x"), host.SetAside{Path: "/data/etcd", Stamp: "20260404T000000Z"})
	require.Len(t, dir(t, m, "/data/etcd").Aside, 2)
	require.ErrorContains(t, m.Do(t.Context(), host.SetAside{Path: "/data", Stamp: "20260404T000000Z"}), "Device or resource busy")

	do(t, m, host.Delete{Path: "/data/etcd"}, host.Delete{Path: "/data/etcd"}, host.Delete{Path: "/data/nothing"})
	d = dir(t, m, "/data/etcd")
	require.True(t, d.Exists, "a mount point stays")
	require.Equal(t, "etcd", d.Owner)
	require.Empty(t, d.Aside)
	require.Zero(t, d.UsedBytes)
}

func TestDeleteRefusesShallowPaths(t *testing.T) {
	m := newMachine(t)
	require.NoError(t, os.Symlink("/etc", filepath.Join(m.Root(), "data/link")))
	for _, p := range []string{"/", "/etc", "/etc/", "/etc/default/..", "etc/default", "", "/data/link"} {
		require.Error(t, m.Do(t.Context(), host.Delete{Path: p}), p)
	}
	require.True(t, file(t, m, "/etc/passwd").Exists)
}

func TestClaim(t *testing.T) {
	m := newMachine(t)
	first := host.Claim{Owner: "alice on admin since noon", Token: "t1"}
	do(t, m, first, first)
	second := host.Claim{Owner: "bob", Token: "t2"}
	err := m.Do(t.Context(), second)
	require.ErrorIs(t, err, host.ErrClaimed)
	require.ErrorContains(t, err, "alice on admin since noon")
	do(t, m, host.Release{Token: "t2"})
	require.ErrorIs(t, m.Do(t.Context(), second), host.ErrClaimed, "another's release releases nothing")
	second.Supersedes = []string{"t0", "t1"}
	do(t, m, second)
	require.ErrorIs(t, m.Do(t.Context(), first), host.ErrClaimed)
	do(t, m, host.Release{Token: "t2"}, host.Release{Token: "t2"}, first)
}

func TestFingerprint(t *testing.T) {
	m := newMachine(t)
	do(t, m, host.MakeDir{Path: "/data/etcd", Owner: "etcd", Mode: 0o700}, write("/data/etcd/a", "a"), write("/data/etcd/b", "b"))
	print := func() map[string]string {
		p, err := machine.Fingerprint(m.Root())
		require.NoError(t, err)
		return p
	}
	before := print()
	require.Empty(t, machine.DiffFingerprints(before, print()))
	for _, c := range []struct {
		act  host.Act
		says string
	}{
		{write("/data/etcd/a", "A"), "/data/etcd/a: "},
		{host.WriteFile{Path: "/data/etcd/a", Content: []byte("a"), Mode: 0o600}, "/data/etcd/a: "},
		{host.WriteFile{Path: "/data/etcd/a", Content: []byte("a"), Owner: "dba", Mode: 0o644}, "/data/etcd/a: "},
		{write("/data/etcd/c", "c"), "/data/etcd/c: added"},
		{host.RemoveFile{Path: "/data/etcd/b"}, "/data/etcd/b: removed"},
	} {
		do(t, m, c.act)
		diff := machine.DiffFingerprints(before, print())
		require.Len(t, diff, 1)
		require.Contains(t, diff[0], c.says)
		do(t, m, write("/data/etcd/a", "a"), write("/data/etcd/b", "b"), host.RemoveFile{Path: "/data/etcd/c"})
		require.Empty(t, machine.DiffFingerprints(before, print()))
	}
	do(t, m, host.Claim{Owner: "x", Token: "x"})
	require.Empty(t, machine.DiffFingerprints(before, print()), "/run is left out")
}
