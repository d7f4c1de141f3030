package container

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/shelf"
)

// What is in a lab's directory.
const (
	infoName      = "lab.json"
	ownerName     = "owner" // locked by the creator while he makes the lab, and as long as he lives if it is not kept
	completeName  = "complete"
	inventoryName = "pigsty.yml"
	keyName       = "id_ed25519" // opens all machines, as root and dba
	knownName     = "known_hosts"
	sshConfigName = "ssh_config"
)

// rootIDName is in the directory that holds labs, beside labs: what labels name
// it by.
const rootIDName = ".id"

// lockRoot takes the lock under which labs' directories are made and judged,
// and gives the identity of the root.
func lockRoot(root string) (lock *os.File, id string, err error) {
	if !filepath.IsAbs(root) || strings.ContainsAny(root, " \t\n'\"\\$`%~") {
		return nil, "", fmt.Errorf("directory of labs %q has to be an absolute path without blanks and quotes, as it stands in options of ssh", root)
	}
	f, err := shelf.Lock(root)
	if err != nil {
		return nil, "", err
	}
	b, err := os.ReadFile(filepath.Join(root, rootIDName))
	switch {
	case err == nil && len(b) > 0:
		return f, string(b), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, "", errors.Join(fmt.Errorf("read identity of labs: %w", err), f.Close())
	}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	id = hex.EncodeToString(random)
	if err := os.WriteFile(filepath.Join(root, rootIDName), []byte(id), 0o600); err != nil {
		return nil, "", errors.Join(fmt.Errorf("write identity of labs: %w", err), f.Close())
	}
	return f, id, nil
}

// An ownership is the lock of a lab's creator. It is a bare descriptor: a file
// would be closed by the garbage collector once nobody had the Lab in hand, while
// its machines are still in use, and the next Heal would take them.
type ownership struct {
	fd   int
	once sync.Once
}

func own(dir string) (*ownership, error) {
	f, err := shelf.Hold(filepath.Join(dir, ownerName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &ownership{fd: fd}, nil
}

// end gives the lock up, once. No ownership, nil, has none to give up.
func (o *ownership) end() {
	if o != nil {
		o.once.Do(func() { _ = unix.Close(o.fd) })
	}
}

// claim makes the directory of a new lab and holds its owner's lock. An empty
// name gets the first that is free.
func claim(root, name string) (dir, id string, owner *ownership, err error) {
	lock, id, err := lockRoot(root)
	if err != nil {
		return "", "", nil, err
	}
	defer lock.Close()
	generated := name == ""
	for n := 1; ; n++ {
		if generated {
			name = "container" + strconv.Itoa(n)
		}
		dir = filepath.Join(root, name)
		err := os.Mkdir(dir, 0o700)
		switch {
		case err == nil:
		case !errors.Is(err, fs.ErrExist):
			return "", "", nil, fmt.Errorf("make directory of lab %s: %w", name, err)
		case generated:
			continue
		default:
			return "", "", nil, fmt.Errorf("%w: %s", ErrExists, name)
		}
		if owner, err = own(dir); err != nil {
			return "", "", nil, fmt.Errorf("lock lab %s: %w", name, err)
		}
		return dir, id, owner, nil
	}
}

// orphaned reports whether nobody answers for the lab in dir: it was to end with
// its creator, or its making was cut off, and the creator is gone. The caller
// holds the lock of the root.
func orphaned(dir string, info Info) bool {
	if _, err := os.Stat(filepath.Join(dir, completeName)); err == nil && info.Keep {
		return false
	}
	return shelf.Abandoned(filepath.Join(dir, ownerName))
}

// Describe reads what was written down when a lab was made. It asks no engine.
// ErrGone says that there is no such lab.
func Describe(dir string) (Info, error) {
	var i Info
	data, err := os.ReadFile(filepath.Join(dir, infoName))
	if errors.Is(err, fs.ErrNotExist) {
		return i, fmt.Errorf("%w: there is no %s", ErrGone, filepath.Join(dir, infoName))
	}
	if err != nil {
		return i, fmt.Errorf("read lab: %w", err)
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("read lab %s: %w", dir, err)
	}
	return i, nil
}

func writeInfo(i Info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.Dir, infoName), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write lab down: %w", err)
	}
	return nil
}

// labDirs lists the directories of labs.
func labDirs(root string) ([]string, error) {
	names, err := shelf.Names(root)
	for i, name := range names {
		names[i] = filepath.Join(root, name)
	}
	return names, err
}
