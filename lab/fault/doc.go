// Package fault hurts labs.
//
// A Fault is a value: what is done to whom. It is not bound to a lab or to a
// moment. When it strikes, its roles ("leader", "learner", "minority") are
// resolved on the cluster as it is then, the remedy is written to a journal,
// the harm is done, and what comes back tells whether it bit:
//
//	g := &fault.Ground{Lab: lab, Cast: cast, Journal: journal, Random: random}
//	if err := f.Probe(g); err != nil { ... }  // errors.ErrUnsupported: skip aloud
//	wound, err := fault.Strike(ctx, g, f)
//	defer wound.Heal(ctx)
//	how, err := wound.Bit(ctx)                // a fault that never bit proves nothing
//
// # Remedies
//
// A Remedy is a value too, of directed links, processes, hosts and files, so
// that it can be carried out by a process that did not do the harm: Heal reads
// the journals of the labs below a directory, for lab:heal after a crash. A
// remedy may be carried out twice.
//
// # Labs
//
// What a fault needs of a lab are small interfaces (Members, Links, Powered,
// Files, ...), which a lab has or has not. A lab without one cannot suffer the
// fault, and Probe says so.
//
// # Chance
//
// All that is random, such as which follower is "one", comes from the Ground's
// source, which the caller seeds.
package fault
