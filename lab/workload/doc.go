// Package workload is the live load under which procedures are rehearsed, and
// the record of what its clients saw.
//
// A Load is a handful of clients: each has one request in flight, writes values
// that nobody writes twice, and talks to one endpoint at a time. As a rule each
// sends the next as soon as it has heard of the last; a Profile with a rate has
// calls arrive whether the last is answered or not. A Profile also says what is
// called how often (puts, gets, deletes, transactions), and how many lease
// clients and watchers there are beside the others; Everything has them all.
//
//	log, err := workload.CreateLog("history.jsonl")
//	load, err := workload.Start(ctx, workload.Spec{
//		Seed:      1,
//		Prefix:    "/etcdrill/load/",
//		Endpoints: workload.Fixed("https://10.10.10.10:2379"),
//		Dial:      workload.Dialer{TLS: config}.Dial,
//	}, log)
//	load.Mark("promote to voter")
//	...
//	history, err := load.Stop()
//
// Every call ends in one of three outcomes, and the whole worth of a history
// hangs on keeping them apart:
//
//	ok       etcd acknowledged it
//	fail     etcd cannot have taken it: refused before it was proposed, or
//	         never sent at all
//	unknown  everything else. It may have taken effect, may yet do so, or never
//
// A call is written to the file before it is sent, so that the history of a
// load that was killed leaves none out; what was under way has an unknown
// outcome then. A last line without an end was being written when the writer
// died (ErrTruncated); any other line that makes no sense was not
// (ErrCorrupt).
//
// In doubt the outcome is unknown. NOSPACE, for one, is answered both by a
// member that refuses a write and by one that has just applied it.
//
// Writes ask for the value they replace. That makes each of them a witness of
// the one before on its key, so that a lost write shows even where a later
// one has covered it.
//
// The longest gap between acknowledged writes (WriteGap) is the measure of
// what a procedure does to its clients. It has to be etcd's gap and not the
// client's, so clients do not sit out a connect backoff: Dialer's clients fail
// at once when nobody listens, and go on with the next endpoint.
package workload
