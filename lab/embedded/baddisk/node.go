package baddisk

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A node is a file or directory of the disk.
type node struct {
	fs.LoopbackNode
	disk *Disk
}

// WrapChild makes what is found in a directory of the disk the disk's own.
func (n *node) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, disk: n.disk}
}

// at is the path of the file beneath.
func (n *node) at() string {
	return filepath.Join(n.RootData.Path, n.Path(n.RootData.RootNode.EmbeddedInode()))
}

// Statfs tells of no space where there is none.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	errno := n.LoopbackNode.Statfs(ctx, out)
	if n.disk.full() {
		out.Bavail, out.Bfree = 0, 0
	}
	return errno
}

// Mkdir takes space.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if n.disk.full() {
		return nil, syscall.ENOSPC
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

// Create takes space.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if n.disk.full() {
		return nil, nil, 0, syscall.ENOSPC
	}
	inode, handle, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return inode, handle, fuseFlags, errno
	}
	f, err := os.OpenFile(filepath.Join(n.at(), name), int(flags)&^(syscall.O_CREAT|syscall.O_EXCL|syscall.O_TRUNC|syscall.O_APPEND), 0)
	if r, ok := handle.(fs.FileReleaser); ok {
		r.Release(ctx)
	}
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	child, _ := inode.Operations().(*node)
	return inode, &file{f, child, n.disk}, 0, 0
}

// Open gives a handle of the disk's own.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	const exec = 0x20 // FMODE_EXEC, which no open takes
	f, err := os.OpenFile(n.at(), int(flags)&^(syscall.O_APPEND|exec), 0)
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	return &file{f, n, n.disk}, 0, 0
}

// Setattr remembers what a truncation takes away.
func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		f, err := os.OpenFile(n.at(), os.O_RDWR, 0)
		if err != nil {
			return fs.ToErrno(err)
		}
		defer f.Close()
		if err := n.disk.remember(f, int64(size), 1<<62, n.at()); err != nil {
			return fs.ToErrno(err)
		}
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

// A file is an open file of the disk.
type file struct {
	f    *os.File
	node *node
	disk *Disk
}

// Read implements fs.FileReader.
func (h *file) Read(_ context.Context, to []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, err := unix.Pread(int(h.f.Fd()), to, at)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(to[:n]), 0
}

// Write implements fs.FileWriter.
func (h *file) Write(_ context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	if h.disk.full() {
		return 0, syscall.ENOSPC
	}
	if err := h.disk.remember(h.f, at, int64(len(data)), h.node.at()); err != nil {
		return 0, fs.ToErrno(err)
	}
	n, err := h.f.WriteAt(data, at)
	return uint32(n), fs.ToErrno(err)
}

// Allocate implements fs.FileAllocater.
func (h *file) Allocate(_ context.Context, at, size uint64, mode uint32) syscall.Errno {
	if h.disk.full() {
		return syscall.ENOSPC
	}
	return fs.ToErrno(unix.Fallocate(int(h.f.Fd()), mode, int64(at), int64(size)))
}

// Fsync implements fs.FileFsyncer.
func (h *file) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	if d := h.disk.now().SyncDelay; d > 0 {
		h.disk.slowed.Add(1)
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done(): // the process was killed meanwhile: it was never told
			return syscall.EINTR
		}
	}
	if err := h.f.Sync(); err != nil {
		return fs.ToErrno(err)
	}
	h.disk.synced(h.f)
	return 0
}

// Flush implements fs.FileFlusher: closing syncs nothing.
func (h *file) Flush(context.Context) syscall.Errno { return 0 }

// Release implements fs.FileReleaser.
func (h *file) Release(context.Context) syscall.Errno { return fs.ToErrno(h.f.Close()) }

// Getattr implements fs.FileGetattrer.
func (h *file) Getattr(_ context.Context, out *fuse.AttrOut) syscall.Errno {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(h.f.Fd()), &st); err != nil {
		return fs.ToErrno(err)
	}
	out.FromStat(&st)
	return 0
}

// Lseek implements fs.FileLseeker.
func (h *file) Lseek(_ context.Context, at uint64, whence uint32) (uint64, syscall.Errno) {
	n, err := unix.Seek(int(h.f.Fd()), int64(at), int(whence))
	return uint64(n), fs.ToErrno(err)
}
