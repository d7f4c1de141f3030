package check_test

import (
	"slices"
	"testing"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// rich is the history with all kinds of calls that those below are made from.
var rich = simulation{seed: 16, clients: 3, keys: 2, ops: 70, reads: 0.3, doubt: 0.1,
	rich: true, leaseClients: 1, watchers: 2, step: 50 * time.Millisecond}

// eventful is the place of the n-th notice of watcher 0 with events.
func eventful(h *workload.History, n int) int {
	for i, x := range h.Notices {
		if x.Watcher == 0 && len(x.Events) > 0 {
			if n == 0 {
				return i
			}
			n--
		}
	}
	panic("not so many notices")
}

// more appends calls of a client to the end of a history, one after the other,
// each with the revision that it says.
func more(h *workload.History, e *check.Evidence, ops ...workload.Op) {
	at := h.End()
	for _, o := range ops {
		o.Call, o.Return, o.Endpoint = at+time.Millisecond, at+2*time.Millisecond, "https://m0:2379"
		at = o.Return
		if o.Outcome == 0 {
			o.Outcome = workload.OK
		}
		h.Ops = append(h.Ops, o)
		e.Log.To = max(e.Log.To, o.Revision)
		for v := range e.Views {
			e.Views[v].Revision = max(e.Views[v].Revision, o.Revision)
		}
		if o.Acked() && o.Kind == workload.Put {
			happens(e, workload.Event{Key: o.Key, Value: o.Value, ModRevision: o.Revision, Lease: o.Lease})
		}
	}
}

// happens appends a change to the log and the final states.
func happens(e *check.Evidence, x workload.Event) {
	e.Log.Events, e.Log.To = append(e.Log.Events, x), max(e.Log.To, x.ModRevision)
	for v := range e.Views {
		e.Views[v].Revision = max(e.Views[v].Revision, x.ModRevision)
		if x.Deleted {
			delete(e.Views[v].Final, x.Key)
		} else {
			e.Views[v].Final[x.Key] = check.Value{Value: x.Value, ModRevision: x.ModRevision}
		}
	}
}

// unhappen takes a revision out of the log and out of what watchers were told.
func unhappen(h *workload.History, e *check.Evidence, revision int64) {
	is := func(x workload.Event) bool { return x.ModRevision == revision }
	e.Log.Events = slices.DeleteFunc(e.Log.Events, is)
	for i := range h.Notices {
		h.Notices[i].Events = slices.DeleteFunc(slices.Clone(h.Notices[i].Events), is)
	}
	h.Notices = slices.DeleteFunc(h.Notices, func(n workload.Notice) bool { return n.Kind == workload.Events && len(n.Events) == 0 })
}

// spoiltRich are those made from rich.
var spoiltRich = []spoiltRow{
	{"watch-event-lost", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := eventful(h, 3)
		h.Notices[i].Events = h.Notices[i].Events[:0]
		h.Notices = slices.Delete(h.Notices, i, i+1)
	}, map[string]string{"watches": "and not of: "}},
	{"watch-event-twice", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := slices.IndexFunc(h.Notices, func(n workload.Notice) bool {
			return len(n.Events) > 0 && n.Events[0].ModRevision == n.Events[len(n.Events)-1].ModRevision
		})
		h.Notices = slices.Insert(h.Notices, i, h.Notices[i])
	}, map[string]string{"watches": "in two parts"}},
	{"watch-out-of-order", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := slices.IndexFunc(h.Notices, func(n workload.Notice) bool {
			return len(n.Events) > 1 && n.Events[0].ModRevision != n.Events[len(n.Events)-1].ModRevision
		})
		h.Notices[i].Events = slices.Clone(h.Notices[i].Events)
		slices.Reverse(h.Notices[i].Events)
	}, map[string]string{"watches": "and then of the"}},
	{"watch-lost-between-resumes", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The watch was cut off and taken up again one change too late.
		i := eventful(h, 3)
		n := h.Notices[i]
		ended, opened := n, n
		ended.Kind, ended.Events, ended.Revision, ended.Error = workload.Ended, nil, 0, "etcdserver: no leader"
		opened.Kind, opened.Events, opened.Revision, opened.From = workload.Opened, nil, 0, n.Events[len(n.Events)-1].ModRevision+1
		h.Notices = slices.Replace(h.Notices, i, i+1, ended, opened)
	}, map[string]string{"watches": "resumed at revision"}},
	{"watch-broken-promise", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := eventful(h, 3)
		promise := h.Notices[i]
		promise.Kind, promise.Events = workload.Progress, nil
		promise.Revision = h.Notices[i].Events[0].ModRevision
		h.Notices = slices.Insert(h.Notices, i, promise)
	}, map[string]string{"watches": "had been promised all up to revision"}},
	{"watch-revision-in-parts", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// The keys of one lease went together, and were told of apart.
		i := slices.IndexFunc(h.Notices, func(n workload.Notice) bool {
			k := len(n.Events)
			return k > 1 && n.Events[k-1].ModRevision == n.Events[k-2].ModRevision
		})
		first, second := h.Notices[i], h.Notices[i]
		k := len(first.Events) - 1
		first.Events, second.Events = first.Events[:k], second.Events[k:]
		h.Notices = slices.Replace(h.Notices, i, i+1, first, second)
	}, map[string]string{"watches": "in two parts"}},
	{"watch-of-nothing", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := eventful(h, 3)
		n := &h.Notices[i]
		n.Events = append(slices.Clone(n.Events), workload.Event{Key: prefix + "c0/k9", Value: "ghost", ModRevision: n.Events[len(n.Events)-1].ModRevision})
	}, map[string]string{"watches": "which the log does not have"}},
	{"watch-of-another-value", func(t *testing.T, h *workload.History, e *check.Evidence) {
		for i := range h.Notices {
			if n := &h.Notices[i]; len(n.Events) > 0 && !n.Events[0].Deleted {
				n.Events = slices.Clone(n.Events)
				n.Events[0].Value += "x"
				return
			}
		}
	}, map[string]string{"watches": "where this happened"}},
	{"watch-from-before", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := slices.IndexFunc(h.Notices, func(n workload.Notice) bool { return n.Kind == workload.Opened })
		h.Notices[i].From += 2
	}, map[string]string{"watches": "asked from revision 12 on"}},

	{"lease-ran-out-early", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// Its keys went with it although it had been kept alive for an hour.
		gone := slices.IndexFunc(e.Log.Events, func(x workload.Event) bool {
			return x.Deleted && !slices.ContainsFunc(h.Ops, func(o workload.Op) bool {
				return o.Revision == x.ModRevision && o.Outcome == workload.OK && (o.Acked() || o.Kind == workload.Revoke)
			})
		})
		put := slices.IndexFunc(e.Log.Events, func(x workload.Event) bool { return x.Key == e.Log.Events[gone].Key && !x.Deleted })
		for i := range e.Log.Events[:gone] {
			if e.Log.Events[i].Key == e.Log.Events[gone].Key {
				put = i
			}
		}
		for i := range h.Ops {
			if o := &h.Ops[i]; o.Lease == e.Log.Events[put].Lease && o.Kind == workload.Grant {
				o.TTL = 3600
			}
		}
	}, map[string]string{"leases": "which cannot have run out before"}},
	{"key-outlives-its-lease", func(t *testing.T, h *workload.History, e *check.Evidence) {
		r, key := e.Log.To, prefix+"lease3/k9"
		more(h, e, workload.Op{Client: 3, Kind: workload.Grant, Lease: 77, TTL: 1, Revision: r},
			workload.Op{Client: 3, Kind: workload.Put, Key: key, Value: "3-900-16", Lease: 77, Revision: r + 1},
			workload.Op{Client: 3, Kind: workload.Revoke, Lease: 77, Revision: r + 1})
	}, map[string]string{"leases": "stays after its lease was revoked"}},
	{"found-after-its-lease", func(t *testing.T, h *workload.History, e *check.Evidence) {
		r, key := e.Log.To, prefix+"lease3/k9"
		more(h, e, workload.Op{Client: 3, Kind: workload.Grant, Lease: 77, TTL: 1, Revision: r},
			workload.Op{Client: 3, Kind: workload.Put, Key: key, Value: "3-900-16", Lease: 77, Revision: r + 1},
			workload.Op{Client: 3, Kind: workload.Revoke, Lease: 77, Revision: r + 2})
		happens(e, workload.Event{Key: key, Deleted: true, ModRevision: r + 2})
		more(h, e, workload.Op{Client: 3, Kind: workload.Get, Key: key, Value: "3-900-16", ModRevision: r + 1, Revision: r + 2})
	}, map[string]string{"leases": "was found after its lease was revoked", "linearizable": "was found instead of 0"}},
	{"attached-to-no-lease", func(t *testing.T, h *workload.History, e *check.Evidence) {
		r, key := e.Log.To, prefix+"lease3/k9"
		more(h, e, workload.Op{Client: 3, Kind: workload.Grant, Lease: 77, TTL: 1, Revision: r},
			workload.Op{Client: 3, Kind: workload.Revoke, Lease: 77, Revision: r},
			workload.Op{Client: 3, Kind: workload.Put, Key: key, Value: "3-900-16", Lease: 77, Revision: r + 1})
	}, map[string]string{"leases": "was attached to lease 4d after that was revoked"}},

	{"txn-lied", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A put was made although the key had changed since its client looked.
		i := slices.IndexFunc(h.Ops, func(o workload.Op) bool { return o.Kind == workload.Txn && o.Done && o.ModRevision > 0 })
		h.Ops[i].Expect = 0
	}, map[string]string{"linearizable": "the comparison with mod revision 0 was answered wrong", "second-opinion": "there is no order"}},
	{"delete-undone", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A delete was acknowledged, and the key is there all the same.
		r, key := e.Log.To, prefix+"c0/k9"
		more(h, e, workload.Op{Kind: workload.Put, Key: key, Value: "0-900-16", Revision: r + 1},
			workload.Op{Kind: workload.Delete, Key: key, Prev: "0-900-16", ModRevision: r + 1, Revision: r + 2})
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing", "linearizable": "the log has no such change"}},
	{"deleted-by-nobody", func(t *testing.T, h *workload.History, e *check.Evidence) {
		r, key := e.Log.To, prefix+"c0/k9"
		more(h, e, workload.Op{Kind: workload.Put, Key: key, Value: "0-900-16", Revision: r + 1})
		happens(e, workload.Event{Key: key, Deleted: true, ModRevision: r + 2})
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing", "linearizable": "no client did that"}},
	{"covered-and-gone", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A write was acknowledged that never happened; its key was written again
		// by a client whose reply says nothing of what it replaced.
		r, key := e.Log.To, prefix+"c0/k9"
		more(h, e, workload.Op{Kind: workload.Put, Key: key, Value: "0-900-16", Revision: r + 1},
			workload.Op{Kind: workload.Put, Key: key, Value: "0-901-16", Revision: r + 2, Prev: "0-900-16", ModRevision: r + 1})
		unhappen(h, e, r+1)
	}, map[string]string{"no-acked-write-lost": "1 acknowledged writes are missing", "linearizable": "the log has no such change"}},
	{"from-the-future", func(t *testing.T, h *workload.History, e *check.Evidence) {
		// A stale read may be old. It may not be early.
		i := lastAcked(h, func(o workload.Op) bool { return o.Kind == workload.Put && o.Lease == 0 })
		o := h.Ops[i]
		h.Ops = slices.Insert(h.Ops, 0, workload.Op{Call: 0, Return: 1, Client: 1, Kind: workload.SerializableGet, Key: o.Key, Value: o.Value,
			ModRevision: o.Revision, Revision: o.Revision, Outcome: workload.OK, Endpoint: o.Endpoint})
	}, map[string]string{"linearizable": "had been seen", "leases": "is gone at 0s", "second-opinion": "there is no order"}},
	{"stale-after-its-own-write", func(t *testing.T, h *workload.History, e *check.Evidence) {
		r, key := e.Log.To, prefix+"c0/k9"
		more(h, e, workload.Op{Kind: workload.Put, Key: key, Value: "0-900-16", Revision: r + 1},
			workload.Op{Kind: workload.Get, Key: key, Revision: r})
	}, map[string]string{"linearizable": "had been seen", "second-opinion": "there is no order"}},
	{"log-of-another-write", func(t *testing.T, h *workload.History, e *check.Evidence) {
		i := slices.IndexFunc(e.Log.Events, func(x workload.Event) bool {
			return !x.Deleted && slices.ContainsFunc(h.Ops, func(o workload.Op) bool { return o.Acked() && o.Revision == x.ModRevision })
		})
		e.Log.Events[i].Value += "x"
	}, map[string]string{"linearizable": "where this was acknowledged", "no-acked-write-lost": "where this was acknowledged"}},
}
