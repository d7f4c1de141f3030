package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// A tree is a directory that is a host's root.
type tree string

// path gives a host's path as a path of this process, without following
// links: what it names must come from resolve or be known to have none.
func (t tree) path(name string) string {
	return filepath.Join(string(t), filepath.FromSlash(path.Clean("/"+name)))
}

// maxLinks is how many symbolic links Linux follows in one path.
const maxLinks = 40

// resolve follows the symbolic links in a path as the host would and gives
// the path at their end; the last component is followed only when asked. What
// is not there is no error: a file may be about to be made.
func (t tree) resolve(name string, last bool) (string, error) {
	if !path.IsAbs(name) {
		return "", fmt.Errorf("%s: not an absolute path", name)
	}
	at, rest, links := "/", strings.Split(name, "/"), 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at) // the parent of the root is the root
			continue
		}
		next := path.Join(at, part)
		info, err := os.Lstat(t.path(next))
		if err != nil || info.Mode()&fs.ModeSymlink == 0 || len(rest) == 0 && !last {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(t.path(next))
		if err != nil {
			return "", &fs.PathError{Op: "readlink", Path: next, Err: errors.Unwrap(err)}
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// read reads a file of the host.
func (t tree) read(name string) ([]byte, error) {
	real, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(t.path(real))
}

// link gives the target of a symbolic link, or "" when it is none.
func (t tree) link(name string) string {
	dir, err := t.resolve(path.Dir(name), true)
	if err != nil {
		return ""
	}
	target, err := os.Readlink(t.path(path.Join(dir, path.Base(name))))
	if err != nil {
		return ""
	}
	return target
}

// list names what is in a directory, sorted; nothing when it is not there.
func (t tree) list(dir string) []string {
	real, err := t.resolve(dir, true)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(t.path(real))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// empty removes what is in a directory of this process.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

const (
	etcdPath    = "/usr/bin/etcd"
	etcdutlPath = "/usr/bin/etcdutl"
	logDir      = "/var/log"
)

// furnish makes what a freshly installed host has, and leaves alone what is
// there.
func furnish(root, name string) error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{"", 0o755},
		{"data", 0o755},
		{"dev", 0o755},
		{"etc/default", 0o755},
		{"etc/profile.d", 0o755},
		{"etc/systemd/system/multi-user.target.wants", 0o755},
		{"home/dba", 0o700},
		{"proc", 0o755},
		{"root", 0o700},
		{"run", 0o755},
		{"tmp", 0o777 | fs.ModeSticky},
		{"usr/bin", 0o755},
		{"usr/lib/systemd/system", 0o755},
		{"usr/sbin", 0o755},
		{"var/lib", 0o755},
		{"var/log", 0o755},
		{"var/tmp", 0o777 | fs.ModeSticky},
	} {
		dir := filepath.Join(root, d.path)
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, d.mode); err != nil { // past the umask
			return err
		}
	}
	for link, target := range map[string]string{"bin": "usr/bin", "lib": "usr/lib", "sbin": "usr/sbin"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for file, content := range map[string]string{
		"dev/null":     "", // nothing writes to it; that it is no directory is what counts
		"etc/hostname": name + "\n",
		"etc/hosts":    "127.0.0.1 localhost\n::1 localhost\n",
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" +
			"etcd:x:997:997::/var/lib/etcd:/usr/sbin/nologin\n" +
			"postgres:x:26:26::/var/lib/postgresql:/bin/bash\n" +
			"dba:x:88:88::/home/dba:/bin/bash\n",
		"etc/group": "root:x:0:\nnogroup:x:65534:\netcd:x:997:\npostgres:x:26:\ndba:x:88:\nadmin:x:89:dba\n",
	} {
		f, err := os.OpenFile(filepath.Join(root, file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// names gives the first field of every line of a file such as /etc/passwd.
func (t tree) names(file string) (map[string]bool, error) {
	text, err := t.read(file)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			known[name] = true
		}
	}
	return known, nil
}
