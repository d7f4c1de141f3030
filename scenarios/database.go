package scenarios

import (
	"time"

	"github.com/etcdrill/etcdrill/lab/container/postgres"
)

// account sums up what PostgreSQL's clients saw.
func account(e postgres.Evidence, chapters []played) *Database {
	gap, _, _ := e.WriteGap(e.Began, e.Ended)
	d := &Database{Primary: e.After.Leader, Timeline: e.After.Timeline, AckedRows: e.Acked(), LostRows: len(e.Lost(e.After.Leader)),
		MaxWriteGapMS: millis(gap), VIPGoneTimes: len(e.Gone()), Procedures: []DatabaseImpact{}}
	if _, known := e.Rows[e.After.Leader]; !known {
		d.LostRows = 0 // nobody looked; a checker says so
	}
	gone := func(w window) (total time.Duration) {
		for _, g := range e.Gone() {
			from, to := later(g.From, w.from), earlier(g.To, w.to)
			total += max(to.Sub(from), 0)
		}
		return total
	}
	d.VIPGoneMS = millis(gone(window{e.From, e.To}))
	for _, o := range e.Overlaps() {
		d.VIPTwiceMS += millis(o.To.Sub(o.From))
	}
	for _, p := range chapters {
		if p.outcome.Began.IsZero() {
			continue
		}
		w := window{p.outcome.Began, p.outcome.Ended}
		quiet := quietBefore(w, p.quiet)
		during, _, acked := e.WriteGap(w.from, w.to)
		before, _, _ := e.WriteGap(quiet.from, quiet.to)
		d.Procedures = append(d.Procedures, DatabaseImpact{Name: p.title(), MaxWriteGapMS: millis(during), QuietGapMS: millis(before),
			AckedRows: acked, VIPGoneMS: millis(gone(w))})
	}
	return d
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
