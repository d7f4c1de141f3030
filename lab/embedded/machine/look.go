package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

const (
	dialPatience = time.Second     // for a connection that is tried from the host; less than whoever asks will wait
	askPatience  = 5 * time.Second // for a program that is asked something
)

// Look implements host.Host.
func (m *Machine) Look(ctx context.Context, q host.Question) (host.Facts, error) {
	if err := m.reach(ctx); err != nil {
		return host.Facts{}, err
	}
	m.mu.Lock()
	facts := host.Facts{Clock: m.config.Now(), BootID: m.bootID}
	if len(q.Units) > 0 {
		facts.Units = map[string]host.Unit{}
		for _, name := range q.Units {
			facts.Units[name] = m.show(name)
		}
	}
	m.mu.Unlock()

	if len(q.Files) > 0 {
		facts.Files = map[string]host.File{}
		for _, name := range q.Files {
			facts.Files[name] = m.file(name)
		}
	}
	if len(q.Sums) > 0 {
		facts.Sums = map[string]string{}
		for _, name := range q.Sums {
			if f := m.file(name); f.Exists {
				facts.Sums[name] = sumOf(f)
			}
		}
	}
	if len(q.Dirs) > 0 {
		facts.Dirs = map[string]host.Dir{}
		for _, name := range q.Dirs {
			facts.Dirs[name] = m.dir(name)
		}
	}
	if len(q.Users) > 0 {
		known, err := m.root.names("/etc/passwd")
		if err != nil {
			return host.Facts{}, fmt.Errorf("read users of %s: %w", m.name, m.inside(err))
		}
		facts.Users = map[string]bool{}
		for _, user := range q.Users {
			facts.Users[user] = known[user]
		}
	}
	if q.Etcd != "" {
		facts.Etcd = m.binary(ctx, q.Etcd)
	}
	if len(q.Ports) > 0 {
		holders, err := m.listeners(ctx)
		if err != nil {
			return host.Facts{}, fmt.Errorf("list ports of %s: %w", m.name, err)
		}
		facts.Ports = map[int]string{}
		for _, port := range q.Ports {
			if command, ok := holders[port]; ok {
				facts.Ports[port] = command
			}
		}
	}
	if len(q.Callers) > 0 {
		tables, err := m.networkSays(ctx, socketTables, roleTables)
		if err == nil {
			facts.Callers, err = host.CallersIn(tables, q.Callers)
		}
		if err != nil {
			return host.Facts{}, fmt.Errorf("list who is connected to %s: %w", m.name, err)
		}
	}
	if len(q.Dial) > 0 {
		facts.Dials = m.dials(ctx, q.Dial)
	}
	if err := m.lookMore(ctx, q, &facts); err != nil {
		return host.Facts{}, err
	}
	// A machine that lost its power while it was asked never answered.
	if err := m.reach(ctx); err != nil {
		return host.Facts{}, err
	}
	return facts, nil
}

func (m *Machine) file(name string) host.File {
	real, err := m.root.resolve(name, true)
	if err != nil {
		return host.File{Exists: !errors.Is(err, fs.ErrNotExist), Problem: err.Error()}
	}
	info, err := os.Lstat(m.root.path(real))
	if err != nil {
		return host.File{Real: real}
	}
	who := m.owners.of(real)
	f := host.File{Exists: true, Real: real, Owner: who.User, Group: who.Group, Mode: info.Mode().Perm()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Changed = time.Unix(st.Ctim.Unix())
	}
	switch {
	case info.IsDir():
		f.Problem = "is a directory"
	case !info.Mode().IsRegular():
		f.Problem = "not a regular file"
	default:
		f.Content, err = os.ReadFile(m.root.path(real))
		if err != nil {
			f.Problem = m.inside(err).Error()
		}
	}
	return f
}

// walHead is how much of a WAL segment is shown: member and cluster ID stand
// within it.
const walHead = 512

func (m *Machine) dir(name string) host.Dir {
	real, err := m.root.resolve(name, true)
	if err != nil {
		return host.Dir{Problem: err.Error()}
	}
	at := m.root.path(real)
	info, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return host.Dir{FreeBytes: free(at)}
	}
	if err != nil {
		return host.Dir{Problem: m.inside(err).Error()}
	}
	who := m.owners.of(real)
	d := host.Dir{Exists: true, Owner: who.User, Group: who.Group, Mode: info.Mode().Perm(), Mount: m.isMount(real)}
	if !info.IsDir() {
		d.Problem = "not a directory"
		return d
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		d.Problem = m.inside(err).Error()
		return d
	}
	for _, e := range entries {
		stamp, aside := strings.CutPrefix(e.Name(), host.AsidePrefix)
		if !aside {
			d.Entries = append(d.Entries, e.Name())
			continue
		}
		since, err := time.Parse("20060102T150405Z", stamp)
		if info, ierr := e.Info(); err != nil && ierr == nil {
			since = info.ModTime()
		}
		d.Aside = append(d.Aside, host.Aside{
			Path:  path.Join(name, e.Name()),
			Bytes: used(filepath.Join(at, e.Name())),
			Since: since,
		})
	}
	slices.SortFunc(d.Aside, func(a, b host.Aside) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	for _, in := range []string{"member/wal", "."} {
		segments, _ := filepath.Glob(filepath.Join(at, in, "*.wal")) // no wildcard in a lab's paths
		if len(segments) == 0 {
			continue
		}
		d.WAL = true
		d.WALHead = head(slices.Max(segments)) // names begin with the sequence number, zero-padded
		break
	}
	d.UsedBytes, d.Changed = used(at), changed(at)
	var fsys syscall.Statfs_t
	if err := syscall.Statfs(at, &fsys); err != nil {
		d.Problem = fmt.Sprintf("statfs %s: %s", name, err)
	} else {
		d.FreeBytes = int64(fsys.Bavail) * fsys.Bsize
	}
	return d
}

func head(file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, walHead)
	n, err := f.ReadAt(buf, 0)
	if n == 0 && err != nil {
		return nil
	}
	return buf[:n]
}

// used adds up the blocks of everything inside, as du does. Files that go
// away while a member works are not counted.
func used(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, err := e.Info()
		if err != nil || info.IsDir() {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// changed is when a file inside was last written, without what was set aside.
func changed(dir string) (newest time.Time) {
	_ = filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // it went away
		case e.IsDir():
			if strings.HasPrefix(e.Name(), host.AsidePrefix) && filepath.Dir(at) == dir {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return nil
	})
	return newest
}

func (m *Machine) binary(ctx context.Context, name string) host.Binary {
	b := host.Binary{Path: name}
	p, err := m.program(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b
	case err != nil:
		b.Problem = m.inside(err).Error()
		return b
	case p.version != "":
		b.Version = p.version
		return b
	}
	var out string
	if p.role == roleExec {
		ctx, cancel := context.WithTimeout(ctx, askPatience)
		defer cancel()
		out, err = m.ask(ctx, m.command(roleExec, "/", name, host.AsksVersion(name)))
	}
	if b.Version = host.VersionIn(out); b.Version != "" {
		return b
	}
	b.Problem = "it does not tell its version"
	if err != nil {
		b.Problem += ": " + err.Error()
	}
	return b
}

// ask runs a short command on the host and gives what it wrote. The command
// is killed when ctx ends.
func (m *Machine) ask(ctx context.Context, cmd *exec.Cmd) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	cmd.Stdout, cmd.Stderr = w, w
	err = m.config.Spawn(cmd)
	_ = w.Close()
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	text, rerr := io.ReadAll(r)
	err = cmd.Wait()
	stop()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return string(text), errors.Join(err, rerr)
}

func (m *Machine) dials(ctx context.Context, addresses []string) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	results := make([]string, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() {
			conn, err := m.dial(ctx, address)
			if err != nil {
				results[i] = err.Error()
				return
			}
			_ = conn.Close()
		})
	}
	wg.Wait()
	said := map[string]string{}
	for i, address := range addresses {
		said[address] = results[i]
	}
	return said
}

// sumOf is a file's SHA-256 in hex, empty where it could not be read.
func sumOf(f host.File) string {
	if f.Problem != "" {
		return ""
	}
	sum := sha256.Sum256(f.Content)
	return hex.EncodeToString(sum[:])
}

// free is what an ordinary user may still write where a path is, or would be.
func free(at string) int64 {
	var fsys syscall.Statfs_t
	for syscall.Statfs(at, &fsys) != nil {
		if at == filepath.Dir(at) {
			return 0
		}
		at = filepath.Dir(at)
	}
	return int64(fsys.Bavail) * fsys.Bsize
}
