// Package shelf is the directory that holds labs of one kind, one directory each.
//
//	lock, err := shelf.Lock(root) // while a lab's directory is made, judged or moved
//	defer lock.Close()
//	if shelf.Abandoned(filepath.Join(dir, "alive")) { ... } // it may go
//
// Who lives is told by locks on files, which the kernel lets go of when their
// last holder dies, however that was. Nothing has to be cleaned up for that, and
// no process ID is trusted, which may be another's by now.
//
// Names that begin with a dot are the shelf's own and no lab's.
package shelf
