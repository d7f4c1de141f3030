// Package check judges what a load saw, what its cluster looks like
// afterwards, and what operators did to it.
//
//	evidence, err := check.Collect(ctx, check.Query{History: history, Log: true, ...})
//	for _, f := range check.Judge(ctx, evidence, check.For(evidence)...) {
//		fmt.Println(f.Checker, f.Verdict, f.Err)
//	}
//
// A checker passes, finds a violation, or cannot tell. One that cannot tell
// has not passed: its error wraps ErrUnknown and says what is missing. All that
// a checker needs is in the Evidence, so a run can be judged again from its
// files. Each is seen to fail on histories in testdata that are bad on purpose.
//
// # Linearizable, without a search
//
// Every reply of etcd bears a revision, and revisions are the order in which
// writes took effect. So nothing has to be searched for: the order is given,
// and it only has to be seen whether all that the clients saw fits it.
//
//	(a) no two writes made the same revision; only a lease that ends takes
//	    several keys at once
//	(b) what was called after a reply has a revision no lower than that
//	    reply's; a write has a higher one. Serializable gets may be old, and
//	    may not be early
//	(c) what was found at a key is its newest change at that revision
//	(d) an acknowledged write is the last of its key or was replaced by a
//	    later one (this is NoAckedWriteLost, which gives the list)
//
// A write with an unknown outcome has no revision of its own. The Log tells
// which it got: every change of the load's keys, as a member tells of them when
// all is over. Where there is no log, a watcher that was told all from the start
// is as good; where there is none, whoever met the write tells: a get that read
// it, a write that replaced it, or the final state. A write that nobody met
// changed nothing that anybody saw, and drops out; a delete that nobody heard of
// again leaves a doubt. The scan takes n log n time, well under two seconds of
// one processor for a million operations, and less than a gigabyte.
//
// Every acknowledged write says which value it replaced, so each is a reading
// of its key too. A write that was lost is missed by the next on its key even
// where a later one covers it in the final state.
//
// SecondOpinion has porcupine search small windows of the same history without
// looking at revisions. It sees less, by a way of its own.
//
// # Operators
//
// An Operator is a run of a procedure: its command, its end, its journal, and,
// where somebody looked, what differs in the files of all hosts. From all of
// them in turn comes who was a member when, and so:
//
//	votes-kept            one more voter could have crashed at any time
//	one-change-at-a-time  no membership change began while another was pending
//	safeguards            no data was taken of a host that may be a member, and
//	                      no file touched that no act accounts for
//	refusals-harmless     what refused had changed nothing, and gave a reason
//	resumed               what was killed got there when it was called again,
//	                      and did nothing twice
//	journal-truthful      what was done was taken down first, and is so
//	available             nobody waited longer than the budget allows
package check
