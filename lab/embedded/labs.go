package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/shelf"
)

// List gives the labs below a directory, by name, dead ones included. A lab
// with PID 0 does not answer: it is dead, or just coming up or going down.
func List(ctx context.Context, root string) ([]Info, error) {
	names, err := shelf.Names(root)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, name := range names {
		dir := filepath.Join(root, name)
		l, err := open(ctx, dir)
		if err == nil {
			all = append(all, l.info)
			continue
		}
		info, err := readInfo(dir)
		if err != nil {
			info = Info{Name: name, Dir: dir}
		}
		info.Alive = !dead(dir)
		all = append(all, info)
	}
	return all, nil
}

// mute reports that a supervisor listens but does not answer: it is stopped,
// or this machine is very busy.
func mute(err error) bool { return err != nil && !errors.Is(err, ErrGone) }

// open is Open for a supervisor that may be stopped.
func open(ctx context.Context, dir string) (*Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return Open(ctx, dir)
}

// Down ends the lab and removes its directory. A lab that does not answer is
// killed. One that is over already is no error.
func (l *Lab) Down(ctx context.Context) error { return l.down(ctx, false) }

// DownKeep ends the lab and keeps its directory, for evidence. Heal removes
// it.
func (l *Lab) DownKeep(ctx context.Context) error { return l.down(ctx, true) }

func (l *Lab) down(ctx context.Context, keep bool) error {
	dir := l.info.Dir
	alive, err := os.OpenFile(filepath.Join(dir, aliveName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		alive = nil
	} else if err != nil {
		return fmt.Errorf("end lab %s: %w", l.info.Name, err)
	} else {
		defer alive.Close()
	}
	// The reference is taken before asking: later the number may mean another.
	ref := l.reference(ctx)
	if ref != nil {
		defer ref.Close()
	}
	asked, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := l.ask(asked, request{Op: opDown, Keep: keep}); err != nil && ref != nil {
		if err := unix.PidfdSendSignal(int(ref.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill lab %s: %w", l.info.Name, err)
		}
	}
	if alive != nil {
		if err := waitDead(ctx, alive); err != nil {
			return fmt.Errorf("wait for the last processes of lab %s to end: %w", l.info.Name, err)
		}
	}
	if keep {
		return nil
	}
	lock, err := shelf.Lock(filepath.Dir(dir))
	if err != nil {
		return err
	}
	// Another lab may have taken the name by now.
	var grave string
	if now, err := os.Stat(filepath.Join(dir, aliveName)); err == nil && alive != nil {
		if then, err := alive.Stat(); err == nil && os.SameFile(now, then) {
			grave, err = bury(filepath.Dir(dir), filepath.Base(dir))
			if err != nil {
				_ = lock.Close()
				return err
			}
		}
	}
	_ = lock.Close()
	if grave == "" {
		return nil
	}
	return removeAll(grave)
}

// reference gives a reference to the supervisor's process, nil when it cannot
// be had: it is gone, or this process is inside the lab.
func (l *Lab) reference(ctx context.Context) *os.File {
	conn, err := l.dial(ctx)
	if err != nil {
		return nil
	}
	defer conn.Close()
	pid := peerPID(conn)
	if pid <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "supervisor")
}

// Heal removes what dead labs below a directory left, and heals the links of
// living ones. It says what it did, one line each. Processes of a lab without
// a supervisor are killed; by the kernel's rules there are none.
func Heal(ctx context.Context, root string) ([]string, error) {
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var did []string
	var errs []error
	names, err := shelf.Names(root)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		lines, err := heal(ctx, root, name)
		did = append(did, lines...)
		if err != nil {
			errs = append(errs, fmt.Errorf("heal lab %s: %w", name, err))
		}
	}
	// What an earlier removal was interrupted in.
	entries, err := os.ReadDir(root)
	if err != nil {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), deadPrefix) {
			continue
		}
		if err := removeAll(filepath.Join(root, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove dead lab: %w", err))
			continue
		}
		did = append(did, "removed the rest of dead lab "+e.Name())
	}
	return did, errors.Join(errs...)
}

func heal(ctx context.Context, root, name string) ([]string, error) {
	dir := filepath.Join(root, name)
	l, err := open(ctx, dir)
	switch {
	case err == nil:
		healed, err := l.HealLinks(ctx)
		var did []string
		for _, h := range healed {
			did = append(did, "lab "+name+": "+h)
		}
		return did, err
	case mute(err):
		return nil, err
	}
	grave, err := judge(root, name)
	if errors.Is(err, errHeld) {
		return killHolders(ctx, root, name)
	}
	if err != nil || grave == "" {
		return nil, err
	}
	if err := removeAll(grave); err != nil {
		return nil, err
	}
	return []string{"removed lab " + name + ": its supervisor is gone"}, nil
}

// judge buries a lab if it is dead. errHeld says that processes of it live.
func judge(root, name string) (string, error) {
	lock, err := shelf.Lock(root)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	dir := filepath.Join(root, name)
	if _, err := os.Lstat(dir); err != nil {
		return "", nil // its own removal was faster
	}
	if !dead(dir) {
		return "", errHeld
	}
	return bury(root, name)
}

// killHolders deals with a lab that nobody answers for although processes of
// it live. It is coming up or going down, which takes moments; so it is
// looked at until it is one or the other, and only what stays undecided for
// long is killed.
func killHolders(ctx context.Context, root, name string) ([]string, error) {
	dir := filepath.Join(root, name)
	patience, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var did []string
	for {
		grave, err := judge(root, name)
		if !errors.Is(err, errHeld) {
			if err == nil && grave != "" {
				err = removeAll(grave)
				did = append(did, "removed lab "+name+": its supervisor is gone")
			}
			return did, err
		}
		if _, err := open(ctx, dir); err == nil || mute(err) {
			return did, nil
		}
		if err := pause(patience); err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return did, err
		}
		killed, err := kill(filepath.Join(dir, aliveName))
		did = append(did, killed...)
		if err != nil || len(killed) == 0 {
			return did, errors.Join(errHeld, err)
		}
	}
}

// kill kills all processes that have a file open.
func kill(file string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var did []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !holds(pid, file) {
			continue
		}
		ref, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Looked at again, now that the number cannot change its meaning.
		if holds(pid, file) {
			if err := unix.PidfdSendSignal(ref, unix.SIGKILL, nil, 0); err == nil {
				did = append(did, "killed process "+strconv.Itoa(pid)+" of a lab without a supervisor")
			}
		}
		_ = unix.Close(ref)
	}
	return did, nil
}

// holds reports whether a process has a file open.
func holds(pid int, file string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		return err == nil && target == file
	})
}
