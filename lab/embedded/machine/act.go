package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Do implements host.Host. What the machine refuses is a *host.Failure with
// the words that a real one would say.
func (m *Machine) Do(ctx context.Context, a host.Act) error {
	if err := m.reach(ctx); err != nil {
		return err
	}
	if s, ok := a.(host.Systemctl); ok {
		return m.systemctl(ctx, s)
	}
	m.files.Lock()
	defer m.files.Unlock()
	if err := m.reach(ctx); err != nil { // the power may have gone meanwhile
		return err
	}
	var err error
	switch a := a.(type) {
	case host.WriteFile:
		err = m.writeFile(a)
	case host.RemoveFile:
		err = m.removeFile(a)
	case host.MakeDir:
		err = m.makeDir(a)
	case host.SetAside:
		err = m.setAside(a)
	case host.Delete:
		err = m.deleteIn(a)
	case host.Claim:
		err = m.claim(a)
	case host.Release:
		err = m.release(a)
	case host.PutProgram:
		err = m.putProgram(a)
	case host.CopyProgram:
		err = m.copyProgram(a)
	case host.PutFile:
		err = m.putFile(a)
	case host.RestoreData:
		err = m.restoreData(ctx, a)
	case host.ReplayLog:
		err = m.replayLog(ctx, a)
	case host.InstallPackage:
		err = m.installPackage(a)
	case host.AddUser:
		err = m.addUser(a)
	case host.Note:
		err = m.noteLine(a)
	default:
		return fmt.Errorf("act %T on %s: not one of the set", a, m.name)
	}
	return m.failure(a, err)
}

// said is something that a command wrote to its standard error.
type said string

func (s said) Error() string { return string(s) }

func saidf(format string, args ...any) error { return said(fmt.Sprintf(format, args...)) }

// failure dresses an error as what the host said; nil stays nil.
func (m *Machine) failure(a host.Act, err error) error {
	if err == nil {
		return nil
	}
	f := &host.Failure{Host: m.name, Act: a.String()}
	var words said
	if errors.As(err, &words) {
		f.Output = string(words)
	} else {
		f.Err = m.inside(err)
	}
	return f
}

// inside takes this process's view of the root out of an error's path.
func (m *Machine) inside(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return &fs.PathError{Op: p.Op, Path: m.guest(p.Path), Err: p.Err}
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return &os.LinkError{Op: l.Op, Old: m.guest(l.Old), New: m.guest(l.New), Err: l.Err}
	}
	return err
}

func (m *Machine) guest(name string) string {
	if rest, ok := strings.CutPrefix(name, string(m.root)); ok {
		return path.Join("/", rest)
	}
	return name
}

// wanted checks that an owner exists, as install would; none is root.
func (m *Machine) wanted(user, group string) (owner, error) {
	who := owner{"root", "root"}
	for _, q := range []struct {
		kind, file, name string
		set              *string
	}{
		{"user", "/etc/passwd", user, &who.User},
		{"group", "/etc/group", group, &who.Group},
	} {
		if q.name == "" {
			continue
		}
		known, err := m.root.names(q.file)
		if err != nil {
			return owner{}, fmt.Errorf("read known %ss: %w", q.kind, err)
		}
		if !known[q.name] {
			return owner{}, saidf("install: invalid %s '%s'", q.kind, q.name)
		}
		*q.set = q.name
	}
	return who, nil
}

func (m *Machine) writeFile(a host.WriteFile) error {
	who, err := m.wanted(a.Owner, a.Group)
	if err != nil {
		return err
	}
	real, err := m.root.resolve(a.Path, true)
	if err != nil {
		return err
	}
	// A masked unit is a link to /dev/null, and to replace that would be the
	// end of a real host.
	if strings.HasPrefix(real, "/dev/") || strings.HasPrefix(real, "/proc/") {
		return saidf("install: cannot replace '%s' (%s): not a regular file", a.Path, real)
	}
	info, err := os.Lstat(m.root.path(real))
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return saidf("install: failed to access '%s': Not a directory", a.Path)
	case err == nil && info.IsDir():
		return saidf("install: cannot overwrite directory '%s' with non-directory", a.Path)
	case err == nil && !info.Mode().IsRegular():
		return saidf("install: cannot replace '%s' (%s): not a regular file", a.Path, real)
	}
	if err := m.replace(real, a.Content, a.Mode.Perm()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return saidf("install: cannot create regular file '%s': No such file or directory", a.Path)
		}
		return err
	}
	return m.owners.set(real, who)
}

// replace puts a file in place whole, or leaves what was there. It does not
// sync: a lab's power fails by killing, which the page cache survives, and a
// lab does not outlive the machine that it is on.
func (m *Machine) replace(real string, content []byte, mode fs.FileMode) error {
	at := m.root.path(real)
	f, err := os.CreateTemp(path.Dir(at), "."+path.Base(at)+".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), at)
}

func (m *Machine) removeFile(a host.RemoveFile) error {
	real, err := m.root.resolve(a.Path, false)
	if err != nil {
		return err
	}
	info, err := os.Lstat(m.root.path(real))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return saidf("rm: cannot remove '%s': Is a directory", a.Path)
	}
	if err := os.Remove(m.root.path(real)); err != nil {
		return err
	}
	m.owners.forget(real, true)
	return nil
}

func (m *Machine) makeDir(a host.MakeDir) error {
	who, err := m.wanted(a.Owner, a.Group)
	if err != nil {
		return err
	}
	real, err := m.root.resolve(a.Path, true)
	if err != nil {
		return err
	}
	// Parents that are not there are root's and open to be passed through.
	var missing []string
	for at := real; at != "/"; at = path.Dir(at) {
		info, err := os.Lstat(m.root.path(at))
		if err == nil && !info.IsDir() {
			return saidf("install: cannot create directory '%s': Not a directory", a.Path)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		missing = append(missing, at)
	}
	slices.Reverse(missing)
	for _, at := range missing {
		if err := os.Mkdir(m.root.path(at), 0o700); err != nil {
			return err
		}
		if at == real {
			break
		}
		if err := os.Chmod(m.root.path(at), 0o755); err != nil {
			return err
		}
		if err := m.owners.set(at, owner{"root", "root"}); err != nil {
			return err
		}
	}
	if err := m.owners.set(real, who); err != nil {
		return err
	}
	return os.Chmod(m.root.path(real), a.Mode.Perm())
}

func (m *Machine) setAside(a host.SetAside) error {
	if a.Stamp == "" || strings.Contains(a.Stamp, "/") {
		return fmt.Errorf("stamp %q is no part of a file name", a.Stamp)
	}
	real, err := m.root.resolve(a.Path, true)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(m.root.path(real))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return strings.HasPrefix(e.Name(), host.AsidePrefix)
	})
	if len(entries) == 0 {
		return nil
	}
	to := host.AsidePath(real, a.Stamp)
	if err := os.Mkdir(m.root.path(to), 0o700); err == nil {
		if err := m.owners.set(to, owner{"root", "root"}); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, e := range entries {
		from, dest := path.Join(real, e.Name()), path.Join(to, e.Name())
		if m.isMount(from) {
			return saidf("mv: cannot move '%s' to '%s': Device or resource busy", from, dest)
		}
		if _, err := os.Lstat(m.root.path(dest)); err == nil {
			return saidf("mv: cannot overwrite '%s': File exists", dest)
		}
		if err := os.Rename(m.root.path(from), m.root.path(dest)); err != nil {
			return err
		}
		if err := m.owners.move(from, dest); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) deleteIn(a host.Delete) error {
	if err := deep(a.Path); err != nil {
		return err
	}
	real, err := m.root.resolve(a.Path, true)
	if err != nil {
		return err
	}
	if err := deep(real); err != nil {
		return err
	}
	entries, err := os.ReadDir(m.root.path(real))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := path.Join(real, e.Name())
		for mount := range m.mounts {
			if mount == at || strings.HasPrefix(mount, at+"/") {
				return saidf("find: cannot delete '%s': Device or resource busy", mount)
			}
		}
		if err := os.RemoveAll(m.root.path(at)); err != nil {
			return err
		}
		m.owners.forget(at, true)
	}
	return nil
}

// deep refuses to delete what is too near to the root of a host.
func deep(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%s is not an absolute path", name)
	}
	if strings.Count(path.Clean(name), "/") < 2 {
		return fmt.Errorf("%s is less than two levels deep", name)
	}
	return nil
}

// isMount says whether a real path is a mount point: declared as one, or on
// another filesystem than the directory that it is in.
func (m *Machine) isMount(real string) bool {
	if m.mounts[real] {
		return true
	}
	if real == "/" {
		return false
	}
	var self, parent syscall.Stat_t
	if syscall.Lstat(m.root.path(real), &self) != nil || syscall.Lstat(m.root.path(path.Dir(real)), &parent) != nil {
		return false
	}
	return self.Dev != parent.Dev
}

// The lock is two lines: the token, and who holds it.
func (m *Machine) claim(a host.Claim) error {
	if a.Token == "" || strings.ContainsAny(a.Token, "\n") {
		return fmt.Errorf("token %q cannot be kept in a lock", a.Token)
	}
	content := []byte(a.Token + "\n" + strings.ReplaceAll(a.Owner, "\n", " ") + "\n")
	at := m.root.path(host.LockPath)
	// A lock without words would hold for ever if the supervisor died here, so
	// the file is made with its words and then linked, which is as exclusive.
	ready := at + ".new"
	if err := os.WriteFile(ready, content, 0o644); err != nil {
		return err
	}
	defer func() { _ = os.Remove(ready) }()
	err := os.Link(ready, at)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	held, err := os.ReadFile(at)
	if err != nil {
		return err
	}
	token, holder, _ := bytes.Cut(held, []byte("\n"))
	if string(token) != a.Token && !slices.Contains(a.Supersedes, string(token)) {
		return fmt.Errorf("%w: %s", host.ErrClaimed, bytes.TrimSpace(holder))
	}
	return os.Rename(ready, at)
}

func (m *Machine) release(a host.Release) error {
	at := m.root.path(host.LockPath)
	held, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if token, _, _ := bytes.Cut(held, []byte("\n")); string(token) != a.Token {
		return nil
	}
	return os.Remove(at)
}
