package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
)

// A lab machine and a real one, on the same files in two places, must agree:
// what is done, what is refused, and what is found afterwards. The real one is
// this machine, asked by the scripts that real hosts are asked by.
func TestTwinOfRealHost(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can give files away")
	}
	m := newMachine(t)
	real := t.TempDir()
	client, err := ssh.New(ssh.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	h := client.Host(ssh.Spec{Name: "n1", Local: true})

	both := func(f func(root string) error) {
		t.Helper()
		for _, root := range []string{m.Root(), real} {
			require.NoError(t, f(root))
		}
	}
	both(func(root string) error { return os.MkdirAll(filepath.Join(root, "t/etc"), 0o755) })
	both(func(root string) error { return os.Symlink("../etc/target", filepath.Join(root, "t/etc/link")) })
	both(func(root string) error { return os.Symlink("loop", filepath.Join(root, "t/etc/loop")) })
	both(func(root string) error { return os.Mkdir(filepath.Join(root, "t/it's odd"), 0o750) })

	// at gives a path of the test on the real machine.
	at := func(path string) string { return filepath.Join(real, path) }
	file := func(path, content, owner string, mode uint32) func(func(string) string) host.Act {
		return func(at func(string) string) host.Act {
			return host.WriteFile{Path: at(path), Content: []byte(content), Owner: owner, Mode: os.FileMode(mode)}
		}
	}
	dir := func(path string, mode uint32) func(func(string) string) host.Act {
		return func(at func(string) string) host.Act {
			return host.MakeDir{Path: at(path), Owner: "root", Group: "root", Mode: os.FileMode(mode)}
		}
	}
	aside := func(path, stamp string) func(func(string) string) host.Act {
		return func(at func(string) string) host.Act { return host.SetAside{Path: at(path), Stamp: stamp} }
	}
	remove := func(path string) func(func(string) string) host.Act {
		return func(at func(string) string) host.Act { return host.RemoveFile{Path: at(path)} }
	}
	wipe := func(path string) func(func(string) string) host.Act {
		return func(at func(string) string) host.Act { return host.Delete{Path: at(path)} }
	}
	question := func(at func(string) string) host.Question {
		var q host.Question
		for _, p := range []string{"/t/etc/a", "/t/etc/target", "/t/etc/none", "/t/etc", "/t/it's odd/b", "/t/data/etcd/x"} {
			q.Files, q.Sums = append(q.Files, at(p)), append(q.Sums, at(p))
		}
		for _, p := range []string{"/t/data/etcd", "/t/data", "/t/none/at/all", "/t/etc/a", "/t/it's odd", "/t/etc"} {
			q.Dirs = append(q.Dirs, at(p))
		}
		q.Globs = []string{at("/t/etc/*"), at("/t/*/?")}
		return q
	}
	inPlace := func(path string) string { return path }
	for _, c := range []struct {
		name string
		act  func(at func(string) string) host.Act
	}{
		{"write", file("/t/etc/a", "a\x00b\n", "", 0o640)},
		{"write again", file("/t/etc/a", "", "root", 0o600)},
		{"write through a link", file("/t/etc/link", "c", "", 0o644)},
		{"write through a loop", file("/t/etc/loop", "c", "", 0o644)},
		{"write with an odd path", file("/t/it's odd/b", "'", "", 0o644)},
		{"write over a directory", file("/t/etc", "c", "", 0o644)},
		{"write below a file", file("/t/etc/a/c", "c", "", 0o644)},
		{"write into nothing", file("/t/nothing/c", "c", "", 0o644)},
		{"write for nobody that is known", file("/t/etc/a", "c", "mallory", 0o644)},
		{"make a directory", dir("/t/data/etcd/member/wal", 0o700)},
		{"make it again", dir("/t/data/etcd/member/wal", 0o750)},
		{"make it over a file", dir("/t/etc/a", 0o750)},
		{"make it below a file", dir("/t/etc/a/c", 0o750)},
		{"write a log", file("/t/data/etcd/member/wal/0000000000000000-0000000000000000.wal", strings.Repeat("w", 9000), "", 0o600)},
		{"write another", file("/t/data/etcd/member/wal/0000000000000001-0000000000000007.wal", "newest", "", 0o600)},
		{"write beside", file("/t/data/etcd/x", "x", "", 0o600)},
		{"set aside", aside("/t/data/etcd", "20260101T000000Z")},
		{"set aside what is empty", aside("/t/data/etcd", "20260202T000000Z")},
		{"set aside what is not there", aside("/t/data/none", "20260202T000000Z")},
		{"set aside with a bad stamp", aside("/t/data/etcd", "a/b")},
		{"write anew", file("/t/data/etcd/x", "y", "", 0o600)},
		{"set aside onto another", aside("/t/data/etcd", "20260101T000000Z")},
		{"remove", remove("/t/etc/a")},
		{"remove again", remove("/t/etc/a")},
		{"remove a link", remove("/t/etc/link")},
		{"remove a directory", remove("/t/etc")},
		{"remove below a file", remove("/t/etc/target/x")},
		{"delete", wipe("/t/data/etcd")},
		{"delete again", wipe("/t/data/etcd")},
		{"delete what is not there", wipe("/t/data/none")},
	} {
		labErr, realErr := m.Do(t.Context(), c.act(inPlace)), h.Do(t.Context(), c.act(at))
		require.Equal(t, labErr == nil, realErr == nil, "%s: the lab says %v, a real host says %v", c.name, labErr, realErr)
		if labErr != nil {
			var lab, there *host.Failure
			require.ErrorAs(t, labErr, &lab, c.name)
			require.ErrorAs(t, realErr, &there, c.name)
		}
		lab := look(t, m, question(inPlace))
		there, err := h.Look(t.Context(), question(at))
		require.NoError(t, err, c.name)
		require.Equal(t, comparable(lab, inPlace), comparable(there, func(p string) string { return strings.TrimPrefix(p, real) }), c.name)
	}
}

// comparable leaves out what differs between any two places, and brings paths
// to one form.
func comparable(f host.Facts, path func(string) string) host.Facts {
	c := host.Facts{Files: map[string]host.File{}, Sums: map[string]string{}, Dirs: map[string]host.Dir{}, Globs: map[string][]string{}}
	for name, file := range f.Files {
		file.Real, file.Changed = path(file.Real), time.Time{}
		if len(file.Content) == 0 {
			file.Content = nil
		}
		c.Files[path(name)] = file
	}
	for name, sum := range f.Sums {
		c.Sums[path(name)] = sum
	}
	for name, dir := range f.Dirs {
		dir.FreeBytes = min(dir.FreeBytes, 1)
		if !dir.Changed.IsZero() {
			dir.Changed = time.Unix(1, 0) // there is a file
		}
		for i := range dir.Aside {
			dir.Aside[i].Path = path(dir.Aside[i].Path)
		}
		c.Dirs[path(name)] = dir
	}
	for pattern, names := range f.Globs {
		for _, n := range names {
			c.Globs[path(pattern)] = append(c.Globs[path(pattern)], path(n))
		}
	}
	return c
}

var _ host.Host = (*machine.Machine)(nil)
