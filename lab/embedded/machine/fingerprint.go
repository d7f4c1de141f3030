package machine

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Fingerprint tells what every file, directory and link in a root is, by path
// in the root: kind, a hash of the content or the target, permission bits, owner
// and group. Two fingerprints are equal when not a byte, bit or owner differs.
// Times are left out, and so are /run, which does not outlive a boot, and
// /var/log, where the journals are. It holds for an idle member too: etcd
// writes nothing when nothing is asked of it.
func Fingerprint(root string) (map[string]string, error) {
	table, err := readOwners(filepath.Clean(root))
	if err != nil {
		return nil, fmt.Errorf("read owners of %s: %w", root, err)
	}
	prints := map[string]string{}
	err = filepath.WalkDir(root, func(at string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since its directory was read: not there
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		name := filepath.Join("/", rel)
		if name == "/run" || name == logDir {
			return fs.SkipDir
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			content, err = sum(at)
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(at)
		}
		if err != nil {
			return err
		}
		who := table.of(name)
		prints[name] = fmt.Sprintf("%s %s:%s %s", info.Mode(), who.User, who.Group, content)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fingerprint %s: %w", root, err)
	}
	return prints, nil
}

// sum hashes a file: its size, and each block that is not all zero with its
// offset. A write-ahead log is 64 MB of space set apart, most of it never
// written, and holes are not read.
func sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	size, block, zero := info.Size(), make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(block)) {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			at = size // nothing but a hole
			continue
		case err == nil:
			at = data - data%int64(len(block))
		}
		n, err := f.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		if !bytes.Equal(block[:n], zero[:n]) {
			fmt.Fprintf(h, "%d %d ", at, n)
			h.Write(block[:n])
		}
	}
	fmt.Fprint(h, size)
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// DiffFingerprints lists the paths that differ, sorted, each with what became
// of it; nothing when both are equal.
func DiffFingerprints(a, b map[string]string) []string {
	var diff []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		switch now, ok := b[name]; {
		case !ok:
			diff = append(diff, name+": removed")
		case now != a[name]:
			diff = append(diff, fmt.Sprintf("%s: %s became %s", name, a[name], now))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			diff = append(diff, name+": added")
		}
	}
	slices.Sort(diff)
	return diff
}
