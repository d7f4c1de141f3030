package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Open opens a file for reading; whoever asked for it closes it.
func (m *Machine) Open(name string) (*os.File, error) {
	real, err := m.root.resolve(name, true)
	if err != nil {
		return nil, err
	}
	at := m.root.path(real)
	switch info, err := os.Stat(at); {
	case err != nil:
		return nil, m.inside(err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(at)
	if err != nil {
		return nil, m.inside(err)
	}
	return f, nil
}

// Fetch implements host.Host.
func (m *Machine) Fetch(ctx context.Context, name string, w io.Writer) error {
	if err := m.reach(ctx); err != nil {
		return err
	}
	f, err := m.Open(name)
	if err != nil {
		return fmt.Errorf("fetch %s from %s: %w", name, m.name, err)
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("fetch %s from %s: %w", name, m.name, err)
	}
	return m.reach(ctx)
}

// replayLog has the host's etcd bring a copy of a member's data to the end of its
// log.
func (m *Machine) replayLog(ctx context.Context, a host.ReplayLog) error {
	at := map[string]string{}
	for _, name := range []string{a.DataDir, a.WALDir, a.Work, path.Dir(a.Path)} {
		if name == "" {
			continue
		}
		real, err := m.root.resolve(name, true)
		if err != nil {
			return err
		}
		at[name] = m.root.path(real)
		if info, err := os.Stat(at[name]); err != nil || !info.IsDir() {
			return saidf("replay: %s: No such directory", name)
		}
	}
	to := filepath.Join(at[path.Dir(a.Path)], path.Base(a.Path))
	if _, err := os.Lstat(to); err == nil {
		return nil // its name says what is in it
	}
	p, err := m.program(a.Program)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return saidf("%s: not found", a.Program)
	case err != nil:
		return err
	}
	made, err := os.MkdirTemp(at[a.Work], "made-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(made) }()
	member := filepath.Join(made, "data/member")
	if err := copyTree(member, filepath.Join(at[a.DataDir], "member")); err != nil {
		return err
	}
	if a.WALDir != "" {
		segments, err := filepath.Glob(filepath.Join(at[a.WALDir], "*.wal"))
		if err != nil {
			return err
		}
		for _, s := range segments {
			if err := copyTree(filepath.Join(member, "wal", filepath.Base(s)), s); err != nil {
				return err
			}
		}
	}
	if len(a.Record) > 0 {
		if err := endWith(filepath.Join(member, "wal", a.Segment), a.Offset, a.Record); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(made, "etcd.yml"), []byte(a.Config("data")), 0o600); err != nil {
		return err
	}
	if err := m.runAlone(ctx, p, a.Program, m.guest(made)); err != nil {
		return err
	}
	return os.Rename(filepath.Join(member, "snap/db"), to)
}

// endWith cuts a file off and puts some bytes there.
func endWith(file string, offset int64, b []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(offset)
	if err == nil {
		_, err = f.WriteAt(b, offset)
	}
	return errors.Join(err, f.Close())
}

// copyTree copies a file, or a directory with all that is in it.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		there := filepath.Join(to, rest)
		if e.IsDir() {
			return os.MkdirAll(there, 0o700)
		}
		if err := os.MkdirAll(filepath.Dir(there), 0o700); err != nil {
			return err
		}
		in, err := os.Open(at)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(there, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

// runAlone runs an etcd with the configuration in a directory of the host until it
// serves, and ends it then.
func (m *Machine) runAlone(ctx context.Context, p program, name, dir string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := m.command(p.role, dir, name, "--config-file=etcd.yml")
	cmd.Stdout, cmd.Stderr = w, w
	err = m.config.Spawn(cmd)
	_ = w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	said, serves := told(r, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !serves:
		return saidf("%s%v", lastLines(said, 5), err)
	}
	return nil // it was ended by a signal
}

// told reads what an etcd says to its end, and calls serves once it serves.
func told(r io.Reader, serves func()) (said string, served bool) {
	var all strings.Builder
	b := make([]byte, 16<<10)
	for {
		n, err := r.Read(b)
		all.Write(b[:n])
		if !served && strings.Contains(all.String(), host.Serves) {
			served = true
			serves()
		}
		if err != nil {
			return all.String(), served
		}
	}
}
