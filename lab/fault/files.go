package fault

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// keep copies a file to a new place.
func keep(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	in, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, in, 0o600)
}

// copyTree copies files, directories and symbolic links with their modes and,
// for root, their owners.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		there := filepath.Join(to, rel)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			if err := os.MkdirAll(there, 0o700); err != nil {
				return err
			}
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			_ = os.Remove(there)
			return os.Symlink(target, there)
		case e.Type().IsRegular():
			_ = os.Remove(there)
			if err := keep(at, there); err != nil {
				return err
			}
		default:
			return nil // sockets and the like do not come back with an image
		}
		if err := os.Chmod(there, info.Mode().Perm()); err != nil {
			return fmt.Errorf("copy %s: %w", rel, err)
		}
		return nil
	})
}
