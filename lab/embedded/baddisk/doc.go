// Package baddisk is a disk that can be full, slow, or forgetful.
//
// It is a filesystem in user space over a directory of a sound one. Everything
// passes through, and what is written stands in the directory at once; beside
// that a Disk keeps what each write and truncation took away, until the file is
// synced. Forget puts it all back: what a machine finds after its power went,
// had its disk kept nothing that was not asked to be kept. Names are durable at
// once, with or without a sync of their directory.
//
//	d, err := baddisk.Mount(dir)
//	d.Set(baddisk.Fault{SyncDelay: 300 * time.Millisecond})
//	d.Set(baddisk.Fault{Full: true})
//	d.Set(baddisk.Fault{})        // sound again
//	lost, err := d.Forget()       // with all that used it dead
//	err = d.Unmount()
//
// It takes root and /dev/fuse; Possible tells. The process that mounts a disk
// serves it, and must not map its files into memory: it would wait for itself.
package baddisk
