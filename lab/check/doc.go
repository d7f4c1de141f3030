// Package check judges what a load saw and what its cluster looks like
// afterwards.
//
//	evidence, err := check.Collect(ctx, check.Query{History: history, ...})
//	for _, f := range check.Judge(ctx, evidence, check.All()...) {
//		fmt.Println(f.Checker, f.Verdict, f.Err)
//	}
//
// A checker passes, finds a violation, or cannot tell. One that cannot tell
// has not passed: its error wraps ErrUnknown and says what is missing.
//
// # Linearizable, without a search
//
// Every reply of etcd bears a revision, and revisions are the order in which
// writes took effect. So nothing has to be searched for: the order is given,
// and it only has to be seen whether all that the clients saw fits it.
//
//	(a) no two writes made the same revision
//	(b) what was called after a reply has a revision no lower than that
//	    reply's; a write has a higher one
//	(c) what was found at a key is its newest write at that revision
//	(d) an acknowledged write is the last of its key or was replaced by a
//	    later one (this is NoAckedWriteLost, which gives the list)
//
// A write with an unknown outcome has no revision of its own. It gets one
// from whoever met it: a get that read it, a write that replaced it, or the
// final state. One that nobody met changed nothing that anybody saw, and
// drops out. The scan takes n log n time, a second for a million operations.
//
// Every acknowledged write says which value it replaced, so each is a reading
// of its key too. A write that was lost is missed by the next on its key even
// where a later one covers it in the final state.
package check
