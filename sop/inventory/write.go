package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrChanged says that the file is not what the edit started from.
var ErrChanged = errors.New("the inventory was changed meanwhile")

// CheckWritable tries whether Write could replace the file, with its owner and
// mode kept, and leaves nothing behind.
func CheckWritable(path string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find inventory: %w", err)
	}
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("inventory is not writable: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("inventory is not writable: %w", err)
	}
	content, err := os.ReadFile(target)
	if err != nil {
		return fmt.Errorf("read inventory: %w", err)
	}
	temp, err := stage(target, content) // as large as the real thing
	if err != nil {
		return fmt.Errorf("inventory cannot be replaced: %w", err)
	}
	if err := os.Remove(temp); err != nil {
		return fmt.Errorf("remove trial file: %w", err)
	}
	return nil
}

// Write replaces the file's content, before, by after. A symbolic link is
// followed and stays; owner, mode and extended attributes stay. It fails with
// ErrChanged, and writes nothing, when the file does not hold before any more;
// a file that holds after already is done.
func Write(path string, before, after []byte) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find inventory: %w", err)
	}
	if done, err := unchanged(target, before, after); err != nil || done {
		return err
	}
	temp, err := stage(target, after)
	if err != nil {
		return fmt.Errorf("write inventory: %w", err)
	}
	// Looked at again, since staging waits for the disk.
	if done, err := unchanged(target, before, after); err != nil || done {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, target); err != nil {
		return errors.Join(fmt.Errorf("put inventory in place: %w", err), os.Remove(temp))
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return fmt.Errorf("sync directory of inventory: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync directory of inventory: %w", err)
	}
	return nil
}

func unchanged(target string, before, after []byte) (done bool, err error) {
	now, err := os.ReadFile(target)
	switch {
	case err != nil:
		return false, fmt.Errorf("read inventory: %w", err)
	case bytes.Equal(now, after):
		return true, nil
	case !bytes.Equal(now, before):
		return false, fmt.Errorf("%s: %w", target, ErrChanged)
	}
	return false, nil
}

// stage writes a file beside target with everything that target has but its
// content, and gives its path.
func stage(target string, content []byte) (path string, err error) {
	info, err := os.Stat(target)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", target)
	}
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := inherit(f, target, info); err != nil {
		return "", err
	}
	if _, err := f.Write(content); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

// inherit gives f the owner, mode and extended attributes of target, access
// lists and labels among them.
func inherit(f *os.File, target string, info fs.FileInfo) error {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		own, err := f.Stat()
		if err != nil {
			return err
		}
		if o, ok := own.Sys().(*syscall.Stat_t); !ok || o.Uid != s.Uid || o.Gid != s.Gid {
			if err := f.Chown(int(s.Uid), int(s.Gid)); err != nil {
				return fmt.Errorf("keep the owner: %w", err)
			}
		}
	}
	if err := f.Chmod(info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)); err != nil {
		return fmt.Errorf("keep the mode: %w", err)
	}
	names := make([]byte, 64<<10)
	n, err := unix.Listxattr(target, names)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Getxattr(target, name, value)
		if err != nil {
			return fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		has := make([]byte, len(value))
		if m, err := unix.Fgetxattr(int(f.Fd()), name, has); err == nil && bytes.Equal(has[:m], value[:n]) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value[:n], 0); err != nil {
			return fmt.Errorf("keep extended attribute %s: %w", name, err)
		}
	}
	return nil
}
