package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/etcdrill/etcdrill/sop/host"
)

// putFile takes a file from the machine that the lab is on.
func (m *Machine) putFile(a host.PutFile) error {
	if !path.IsAbs(a.From) {
		return fmt.Errorf("%s: not an absolute path", a.From)
	}
	real, err := m.root.resolve(a.Path, true)
	if err != nil {
		return err
	}
	at := m.root.path(real)
	switch info, err := os.Lstat(at); {
	case err == nil && info.Mode().IsRegular():
		return nil // its name says what is in it
	case err == nil:
		return saidf("install: cannot replace '%s' (%s): not a regular file", a.Path, real)
	}
	from, err := os.Open(a.From)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(path.Dir(at), "."+path.Base(at)+".new-*")
	if errors.Is(err, fs.ErrNotExist) {
		return saidf("install: cannot create regular file '%s': No such file or directory", a.Path)
	}
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(to.Name()) }() // gone already when all went well
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(to, sum), from)
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, a.SHA256) {
		return saidf("%s: its sha256 is %s on arrival, and not %s", a.Path, got, a.SHA256)
	}
	if err := os.Rename(to.Name(), at); err != nil {
		return err
	}
	return m.owners.set(real, owner{"root", "root"})
}

// restoreData has the host's etcdutl make the data of a member, and moves it into
// place when it is whole.
func (m *Machine) restoreData(ctx context.Context, a host.RestoreData) error {
	who, err := m.wanted(a.Owner, a.Group)
	if err != nil {
		return err
	}
	at := map[string]string{}
	for _, name := range []string{a.DataDir, a.Work, a.WALDir, a.WALWork} {
		if name == "" {
			continue
		}
		if at[name], err = m.root.resolve(name, true); err != nil {
			return err
		}
		if info, err := os.Stat(m.root.path(at[name])); err != nil || !info.IsDir() {
			return saidf("restore: %s: No such directory", name)
		}
	}
	member := path.Join(at[a.DataDir], "member")
	if _, err := os.Lstat(m.root.path(member)); err == nil {
		return saidf("restore: cannot overwrite '%s/member': File exists", a.DataDir)
	}
	// One of these works in a root at a time, so there is nobody else's.
	made, err := m.scratch(at[a.Work])
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(m.root.path(made)) }()
	data, log := path.Join(made, "data"), ""
	if a.WALDir != "" {
		logs, err := m.scratch(at[a.WALWork])
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(m.root.path(logs)) }()
		log = path.Join(logs, "wal")
	}
	if err := m.etcdutl(ctx, append([]string{a.Program}, a.Args(data, log)...)); err != nil {
		return err
	}
	if log != "" {
		segments, err := os.ReadDir(m.root.path(log))
		if err != nil {
			return err
		}
		for _, e := range segments {
			to := path.Join(at[a.WALDir], e.Name())
			if err := os.Rename(m.root.path(path.Join(log, e.Name())), m.root.path(to)); err != nil {
				return err
			}
			if err := m.owners.set(to, who); err != nil {
				return err
			}
		}
	}
	if err := os.Rename(m.root.path(path.Join(data, "member")), m.root.path(member)); err != nil {
		return err
	}
	return m.owners.set(member, who)
}

func (m *Machine) scratch(in string) (string, error) {
	dir, err := os.MkdirTemp(m.root.path(in), "made-")
	if err != nil {
		return "", err
	}
	return path.Join(in, filepath.Base(dir)), nil
}

// etcdutl runs a command of the host's etcdutl, whatever that is.
func (m *Machine) etcdutl(ctx context.Context, args []string) error {
	p, err := m.program(args[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return saidf("%s: not found", args[0])
	case err != nil:
		return err
	case p.role != roleEtcdutl && p.role != roleExec:
		return saidf("%s is no etcdutl", args[0])
	}
	said, err := m.ask(ctx, m.command(p.role, "/", args...))
	if err != nil {
		return saidf("%s%v", lastLines(said, 5), err)
	}
	return nil
}

// lastLines are the last few lines of what a program said.
func lastLines(text string, n int) string {
	lines := bytes.SplitAfter([]byte(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n-1):], nil))
}

// utility is etcdutl's own main function, as far as procedures use it: what it is
// asked for, or the data that it makes.
func utility(args []string) (said string, err error) {
	if len(args) == 2 && args[1] == "version" {
		return fmt.Sprintf("etcdutl version: %s\nAPI version: %s\n", version.Version, version.APIVersion), nil
	}
	if len(args) < 4 || args[1] != "snapshot" || args[2] != "restore" {
		return "", fmt.Errorf("a lab's etcdutl knows version and snapshot restore FILE, not %s", strings.Join(args[1:], " "))
	}
	c := snapshot.RestoreConfig{SnapshotPath: args[3]}
	for _, arg := range args[4:] {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--data-dir":
			c.OutputDataDir = value
		case "--wal-dir":
			c.OutputWALDir = value
		case "--name":
			c.Name = value
		case "--initial-cluster":
			c.InitialCluster = value
		case "--initial-cluster-token":
			c.InitialClusterToken = value
		case "--initial-advertise-peer-urls":
			c.PeerURLs = strings.Split(value, ",")
		case "--bump-revision":
			if c.RevisionBump, err = strconv.ParseUint(value, 10, 64); err != nil {
				return "", err
			}
		case "--mark-compacted":
			c.MarkCompacted = true
		default:
			return "", fmt.Errorf("unknown flag: %s", name)
		}
	}
	// Files of a member are for its user alone, as those of a real etcdutl are.
	syscall.Umask(0o077)
	return "", snapshot.NewV3(zap.NewNop()).Restore(c)
}
