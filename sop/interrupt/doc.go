// Package interrupt tells a process that someone wants it to stop: by a signal, by
// hanging up, or by killing whoever started it.
//
// A run must not end anywhere. It ends before its next change, so what it has in
// flight is answered and written down first. Whoever started it may be gone by
// then: `go tool mage` is three processes, go, mage and this one, and none of them
// takes the next with it when it is killed. So all that stand above are watched:
//
//	ctx, stop := interrupt.Context(ctx, os.Stderr, interrupt.Orphaned())
//	defer stop()
package interrupt
