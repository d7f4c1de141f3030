package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// Watches checks what watchers were told: changes in the order of their
// revisions, each once, all of one revision together, none left out between the
// first revision that was asked for and the last that was told of, however
// often the watch was resumed, and nothing that did not happen.
func Watches() Checker {
	return Checker{Name: "watches", Check: func(_ context.Context, e Evidence) error {
		h := e.History
		if h == nil || h.Watchers == 0 {
			return undecided("nobody watched")
		}
		streams := streamsOf(h)
		var found faults
		for i := range streams {
			streams[i].checkOrder(&found)
		}
		for i := range streams {
			streams[i].checkWhole(e, &found)
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		for _, s := range streams {
			if s.told == 0 {
				return undecided("watcher %d was told nothing", s.watcher)
			}
		}
		return nil
	}}
}

// A stream is all that one watcher was told, over all of its watches.
type stream struct {
	watcher int
	notices []workload.Notice
	from    int64 // the first revision that it asked for
	told    int64 // it was told of all up to here
	// skips are spans of revisions, both ends included, that etcd said were
	// compacted away before the watcher had been told of them.
	skips  []span
	events []workload.Event
}

type span struct{ from, to int64 }

func streamsOf(h *workload.History) []stream {
	streams := make([]stream, h.Watchers)
	for i := range streams {
		streams[i].watcher = i
	}
	for _, n := range h.Notices {
		s := &streams[n.Watcher]
		s.notices = append(s.notices, n)
	}
	for i := range streams {
		streams[i].read()
	}
	return streams
}

// read puts together what was told and how far.
func (s *stream) read() {
	for _, n := range s.notices {
		switch n.Kind {
		case workload.Opened:
			if s.from == 0 {
				s.from, s.told = n.From, n.From-1
			}
		case workload.Progress:
			s.told = max(s.told, n.Revision)
		case workload.Ended:
			if n.Compacted > s.told+1 {
				s.skips = append(s.skips, span{s.told + 1, n.Compacted - 1})
				s.told = n.Compacted - 1
			}
		}
		for _, e := range n.Events {
			s.told = max(s.told, e.ModRevision)
			s.events = append(s.events, e)
		}
	}
}

func (s *stream) skipped(revision int64) bool {
	return slices.ContainsFunc(s.skips, func(x span) bool { return revision >= x.from && revision <= x.to })
}

// checkOrder looks at one watcher alone.
func (s *stream) checkOrder(found *faults) {
	asked, last, promised := int64(0), int64(0), int64(0)
	seen := map[string]bool{} // keys of revision last
	for _, n := range s.notices {
		if n.Kind == workload.Opened {
			if asked != 0 && n.From > max(last, promised)+1 && !s.skipped(n.From-1) {
				found.add("watcher %d resumed at revision %d, and had been told up to %d", s.watcher, n.From, max(last, promised))
			}
			asked = n.From
		}
		if len(n.Events) > 0 && n.Events[0].ModRevision == last {
			found.add("watcher %d was told of revision %d in two parts", s.watcher, last)
		}
		for _, e := range n.Events {
			switch r := e.ModRevision; {
			case r < asked:
				found.add("watcher %d asked from revision %d on and was told of the %s", s.watcher, asked, e)
			case r < last:
				found.add("watcher %d was told of revision %d and then of the %s", s.watcher, last, e)
			case r == last && seen[e.Key]:
				found.add("watcher %d was told twice of the %s", s.watcher, e)
			case r <= promised:
				found.add("watcher %d had been promised all up to revision %d and was then told of the %s", s.watcher, promised, e)
			}
			if e.ModRevision != last {
				last = e.ModRevision
				clear(seen)
			}
			seen[e.Key] = true
			if n.Revision > 0 && e.ModRevision > n.Revision {
				found.add("watcher %d was told at revision %d of the %s", s.watcher, n.Revision, e)
			}
		}
		if n.Kind == workload.Progress {
			promised = max(promised, n.Revision)
		}
	}
}

// checkWhole holds what a watcher was told against all that has happened.
func (s *stream) checkWhole(e Evidence, found *faults) {
	t := e.timeline()
	type telling struct {
		revision int64
		key      int32
		event    workload.Event
	}
	told := make([]telling, len(s.events))
	for i, x := range s.events {
		k, ok := t.keys[x.Key]
		if !ok {
			k = -1 - int32(i) // nobody else knows of it
		}
		told[i] = telling{x.ModRevision, k, x}
	}
	slices.SortStableFunc(told, func(a, b telling) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.key, b.key))
	})
	told = slices.CompactFunc(told, func(a, b telling) bool { return a.revision == b.revision && a.key == b.key })

	extra := func(x workload.Event) {
		switch {
		case t.log.covers(x.ModRevision):
			found.add("watcher %d was told of the %s, which the log does not have", s.watcher, x)
		case !x.Deleted && t.stranger(x):
			found.add("watcher %d was told of the %s, which no client wrote", s.watcher, x)
		}
	}
	for _, c := range t.changes {
		for len(told) > 0 && (told[0].revision < c.revision || told[0].revision == c.revision && told[0].key < c.key) {
			extra(told[0].event)
			told = told[1:]
		}
		if len(told) > 0 && told[0].revision == c.revision && told[0].key == c.key {
			if x := told[0].event; x.Deleted != c.dead || !c.dead && x.Value != t.value(c) {
				found.add("watcher %d was told of the %s, where this happened: %s", s.watcher, x, t.describe(c))
			}
			told = told[1:]
			continue
		}
		if c.revision >= s.from && c.revision <= s.told && !s.skipped(c.revision) {
			found.add("watcher %d was told of revisions %d to %d, and not of: %s", s.watcher, s.from, s.told, t.describe(c))
		}
	}
	for _, x := range told {
		extra(x.event)
	}
}

// value is what a key holds after a change.
func (t *timeline) value(c change) string {
	if c.op >= 0 {
		return t.ops[c.op].Value
	}
	if c.event >= 0 {
		return t.log.Events[c.event].Value
	}
	return ""
}

// stranger says whether nobody can have written what an event tells of.
func (t *timeline) stranger(e workload.Event) bool {
	op, ok := t.hazy[e.Value]
	return !ok || t.ops[op].Key != e.Key || t.ops[op].Outcome == workload.Fail
}

// watched makes a log of what a watcher was told, if one was told all from the
// start without a break: the load's own record of what happened, for when no
// member could be asked any more.
func watched(h *workload.History) *Log {
	var best *Log
	for _, s := range streamsOf(h) {
		var disorder faults
		s.checkOrder(&disorder)
		if s.from != h.StartRevision+1 || len(s.skips) > 0 || len(disorder.told) > 0 || s.told < s.from {
			continue
		}
		if best == nil || s.told > best.To {
			best = &Log{Endpoint: fmt.Sprintf("watcher %d", s.watcher), From: s.from, To: s.told, Events: s.events}
		}
	}
	return best
}
