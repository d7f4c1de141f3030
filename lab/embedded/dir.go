package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/etcdrill/etcdrill/lab/shelf"
)

// What is in a lab's directory.
const (
	socketName    = "control"
	aliveName     = "alive"          // locked as long as any process of the lab lives
	infoName      = "lab.json"       // who and what, also when nobody answers any more
	logName       = "supervisor.log" // what the supervisor says, and how it dies
	inventoryName = "pigsty.yml"
	hostsName     = "hosts" // the hosts' roots, one directory each
)

// deadPrefix is what the directory of a lab is called by that is being removed.
const deadPrefix = ".dead-"

// maxSocketPath is the longest path of a unix socket, in bytes: sun_path
// without its end.
const maxSocketPath = 107

// tick is how often a lock that the kernel cannot be made to announce is tried
// again.
const tick = 2 * time.Millisecond

var (
	// ErrSocketPath says that the lab's directory is too deep for a unix
	// socket in it.
	ErrSocketPath = errors.New("path of the control socket is too long")
	// ErrExists says that a lab of this name is running.
	ErrExists = errors.New("lab is running already")
)

// claim makes the directory of a new lab and gives the lock that says it is
// alive. An empty name gets the lowest free number; a name whose lab is dead
// is taken over, and one whose lab is just ending is waited for.
func claim(ctx context.Context, root, name string) (dir string, alive *os.File, err error) {
	for {
		dir, alive, graves, err := tryClaim(root, name)
		for _, grave := range graves {
			if removed := removeAll(grave); removed != nil && err == nil {
				err = fmt.Errorf("remove dead lab %s: %w", name, removed)
			}
		}
		if err == nil {
			return dir, alive, nil
		}
		if !errors.Is(err, errHeld) {
			return "", nil, err
		}
		if _, err := open(ctx, dir); err == nil || mute(err) {
			return "", nil, fmt.Errorf("%w: %s", ErrExists, name)
		}
		if err := pause(ctx); err != nil {
			return "", nil, fmt.Errorf("wait for the last processes of lab %s to end: %w", name, err)
		}
	}
}

// errHeld says that processes of a lab of this name live: it runs, or is just
// starting or ending.
var errHeld = errors.New("lab is held by living processes")

func tryClaim(root, name string) (dir string, alive *os.File, graves []string, err error) {
	lock, err := shelf.Lock(root)
	if err != nil {
		return "", nil, nil, err
	}
	defer lock.Close()
	generated := name == ""
	for n := 1; ; n++ {
		if generated {
			name = "lab" + strconv.Itoa(n)
		}
		dir = filepath.Join(root, name)
		if socket := filepath.Join(dir, socketName); len(socket) > maxSocketPath {
			return dir, nil, graves, fmt.Errorf("%w: %s has %d bytes, %d are possible; keep labs in a shorter directory",
				ErrSocketPath, socket, len(socket), maxSocketPath)
		}
		err := os.Mkdir(dir, 0o700)
		switch {
		case err == nil:
			if alive, err = shelf.Hold(filepath.Join(dir, aliveName)); err != nil {
				return dir, nil, graves, fmt.Errorf("lock lab %s: %w", name, err)
			}
			return dir, alive, graves, nil
		case !errors.Is(err, fs.ErrExist):
			return dir, nil, graves, fmt.Errorf("make directory of lab %s: %w", name, err)
		case generated:
			continue
		case !dead(dir):
			return dir, nil, graves, errHeld
		}
		grave, err := bury(root, name)
		if err != nil {
			return dir, nil, graves, err
		}
		graves = append(graves, grave)
	}
}

// dead reports that no process of the lab in dir lives. The caller holds the
// lock of the root.
func dead(dir string) bool { return shelf.Abandoned(filepath.Join(dir, aliveName)) }

// bury moves a dead lab's directory out of the way, for the caller to remove
// it when it no longer holds the lock of the root, as it does now.
func bury(root, name string) (string, error) {
	for n := 1; ; n++ {
		grave := filepath.Join(root, deadPrefix+strconv.Itoa(n)+"-"+name)
		if _, err := os.Lstat(grave); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(root, name), grave); err != nil {
			return "", fmt.Errorf("move dead lab %s: %w", name, err)
		}
		return grave, nil
	}
}

// removeAll removes a tree of which some directories may have lost their
// write permission, and into which something that just dies may still write.
func removeAll(dir string) error {
	const tries = 5
	var err error
	for range tries {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrPermission) {
			_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					_ = os.Chmod(path, 0o700)
				}
				return nil
			})
		}
	}
	return err
}

// waitDead waits until no process of the lab lives. A lab whose directory is
// gone is dead.
func waitDead(ctx context.Context, alive *os.File) error {
	for {
		err := shelf.Try(alive)
		if !errors.Is(err, shelf.ErrHeld) {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause lets a tick pass.
func pause(ctx context.Context) error {
	t := time.NewTimer(tick)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readInfo reads what was written down when the lab was made.
func readInfo(dir string) (Info, error) {
	var i Info
	data, err := os.ReadFile(filepath.Join(dir, infoName))
	if err != nil {
		return i, fmt.Errorf("read lab: %w", err)
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("read lab %s: %w", dir, err)
	}
	return i, nil
}
