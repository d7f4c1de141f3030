package baddisk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A Fault is what ails a disk. The zero Fault is nothing.
type Fault struct {
	Full      bool          `json:",omitempty"` // what takes more space gives ENOSPC
	SyncDelay time.Duration `json:",omitempty"` // of every sync
}

// Counts are how often a disk did harm since it was mounted.
type Counts struct {
	Refused int64 // writes and allocations for want of space, and questions for space that were told there is none
	Slowed  int64 // syncs
	Lost    int64 // writes that were forgotten
}

// ErrNotPossible says that this machine, or this user, has no filesystems in
// user space.
var ErrNotPossible = errors.New("a disk that can be hurt takes root and /dev/fuse")

// Possible says why no disk can be mounted: an error that wraps ErrNotPossible.
func Possible() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this user is not root", ErrNotPossible)
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPossible, err)
	}
	return f.Close()
}

// A Disk is a directory on a disk that can be hurt.
type Disk struct {
	dir    string
	below  *os.File // the directory beneath the mount
	server *fuse.Server

	refused, slowed, lost atomic.Int64

	mu    sync.Mutex
	fault Fault
	dirty map[inode]*undo
}

type inode struct{ dev, ino uint64 }

// Mount puts a disk over a directory: what is in it stays visible.
func Mount(dir string) (*Disk, error) {
	if err := Possible(); err != nil {
		return nil, err
	}
	below, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("mount a disk: %w", err)
	}
	d := &Disk{dir: dir, below: below, dirty: map[inode]*undo{}}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(below.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a disk on %s: %w", dir, err), below.Close())
	}
	data := &fs.LoopbackRoot{
		// Through the descriptor one comes to what is beneath the mount.
		Path: fmt.Sprintf("/proc/self/fd/%d", below.Fd()), Dev: uint64(st.Dev),
	}
	root := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: d}
	data.RootNode = root
	none := time.Duration(0) // nothing is remembered of what Forget may undo
	d.server, err = fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &none, AttrTimeout: &none, NullPermissions: true,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, AllowOther: true, FsName: "baddisk", Name: "baddisk", MaxBackground: 64},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount a disk on %s: %w", dir, err), below.Close())
	}
	return d, nil
}

// Unmount takes the disk away; the directory is what it was on it.
func (d *Disk) Unmount() error {
	err := d.server.Unmount()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, u := range d.dirty {
		_ = u.file.Close()
		delete(d.dirty, i)
	}
	return errors.Join(err, d.below.Close())
}

// Set makes the disk ail from now on.
func (d *Disk) Set(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Counts tells what harm was done so far.
func (d *Disk) Counts() Counts {
	return Counts{Refused: d.refused.Load(), Slowed: d.slowed.Load(), Lost: d.lost.Load()}
}

func (d *Disk) now() Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

// full says whether there is no more space, and counts it.
func (d *Disk) full() bool {
	if !d.now().Full {
		return false
	}
	d.refused.Add(1)
	return true
}

// An undo is what was taken away from a file since it was synced, the newest
// last.
type undo struct {
	file  *os.File
	steps []step
}

type step struct {
	at   int64
	was  []byte
	size int64 // of the file before
}

// remember keeps what n bytes at an offset are about to take away. A truncation
// takes away all from there on.
func (d *Disk) remember(f *os.File, at, n int64, path string) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	was := make([]byte, max(min(n, st.Size-at), 0))
	id := inode{uint64(st.Dev), st.Ino}
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.dirty[id]
	if u == nil {
		// A handle of its own: the writer's may be closed, or not for reading.
		own, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		u = &undo{file: own}
		d.dirty[id] = u
	}
	if len(was) > 0 {
		if _, err := u.file.ReadAt(was, at); err != nil {
			return err
		}
	}
	u.steps = append(u.steps, step{at: at, was: was, size: st.Size})
	return nil
}

// synced lets go of what was kept of a file.
func (d *Disk) synced(f *os.File) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return
	}
	id := inode{uint64(st.Dev), st.Ino}
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.dirty[id]; u != nil {
		_ = u.file.Close()
		delete(d.dirty, id)
	}
}

// Forget undoes every write that was not synced, and tells how many there were.
// Whoever used the disk is to be dead.
func (d *Disk) Forget() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := 0
	var errs []error
	for id, u := range d.dirty {
		for i := len(u.steps) - 1; i >= 0; i-- {
			s := u.steps[i]
			if _, err := u.file.WriteAt(s.was, s.at); err != nil {
				errs = append(errs, err)
			}
			if err := u.file.Truncate(s.size); err != nil {
				errs = append(errs, err)
			}
			lost++
		}
		_ = u.file.Close()
		delete(d.dirty, id)
	}
	d.lost.Add(int64(lost))
	return lost, errors.Join(errs...)
}
