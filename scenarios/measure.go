package scenarios

import (
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
)

// A window is a span of time.
type window struct{ from, to time.Time }

func (w window) length() time.Duration { return max(w.to.Sub(w.from), 0) }

// union is the time that is in any of the windows.
func union(windows []window) time.Duration {
	sorted := slices.Clone(windows)
	slices.SortFunc(sorted, func(a, b window) int { return a.from.Compare(b.from) })
	var total time.Duration
	var end time.Time
	for _, w := range sorted {
		if w.from.Before(end) {
			w.from = end
		}
		total += w.length()
		if w.to.After(end) {
			end = w.to
		}
	}
	return total
}

// covered is how much of a window lies in any of others.
func covered(w window, others []window) time.Duration {
	var within []window
	for _, o := range others {
		if o.from.Before(w.from) {
			o.from = w.from
		}
		if o.to = earlier(o.to, w.to); o.length() > 0 {
			within = append(within, o)
		}
	}
	return union(within)
}

// A stepWindow is when a step was taken.
type stepWindow struct {
	title, host string
	state       sop.State // the last that was recorded
	window
}

// stepsOf reads off a journal when each step was taken. What is between two
// steps, looking and the safeguards of the later one, is the later one's. Hosts
// take steps side by side, so that their records may be mixed. A step that was
// cut off ends with its operator.
func stepsOf(records []sop.Record, ended time.Time) []stepWindow {
	var steps []stepWindow
	var last time.Time  // the end of the step before
	at := map[int]int{} // steps by their numbers
	for _, r := range records {
		if r.Step == 0 {
			if last.IsZero() || r.State == sop.Began {
				last = r.Time
			}
			continue
		}
		i, ok := at[r.Step]
		if !ok {
			i = len(steps)
			at[r.Step] = i
			steps = append(steps, stepWindow{title: r.Title, host: r.Host, window: window{from: last}})
		}
		s := &steps[i]
		s.state, s.to = r.State, r.Time
		if r.State == sop.Done || r.State == sop.Skipped {
			s.from = r.Time.Add(-r.Took)
			last = r.Time
		}
	}
	for i := range steps {
		if steps[i].state != sop.Done && steps[i].state != sop.Skipped {
			steps[i].to = ended
		}
	}
	return slices.DeleteFunc(steps, func(s stepWindow) bool { return s.state == sop.Skipped })
}

// spent reads off a journal where an operator's time went.
func spent(o Outcome) Spent {
	total := o.Ended.Sub(o.Began)
	var health, watch, all []window
	acted := map[int]time.Time{} // when a step's act was recorded
	for i, r := range o.Journal {
		w := window{r.Time, nextOf(r, o.Journal[i+1:], o.Ended)}
		switch {
		case r.State == sop.Waiting && r.Etcd && r.Step == 0 && r.Title == "":
			// Between the two looks that a run begins with. The looks are ours.
			watch = append(watch, window{r.Time, earlier(w.to, r.Time.Add(r.Took))})
		case r.State == sop.Waiting && r.Etcd && r.Step == 0 && r.Title == "settled":
			health = append(health, w)
			all = append(all, w)
		case r.State == sop.Waiting && r.Etcd:
			all = append(all, w)
		case r.State == sop.Recorded && r.Etcd:
			acted[r.Step] = r.Time
			all = append(all, w)
		case r.State == sop.Answered && r.Etcd:
			all = append(all, w)
		case r.State == sop.Done && r.Etcd && acted[r.Step].IsZero():
			// It only waited, perhaps without having to say for what.
			all = append(all, window{r.Time.Add(-r.Took), r.Time})
		}
	}
	// What the journal has no wait for: the answers of members that looks, locks
	// and changes waited for.
	var answers time.Duration
	known, last := append(slices.Clone(all), watch...), o.Began
	for _, r := range o.Journal {
		w := window{last, r.Time}
		answers += min(r.Called, w.length()-covered(w, known))
		last = r.Time
	}
	s := Spent{Health: seconds(union(health)), Etcd: seconds(union(all) - union(health) + answers), Watch: seconds(union(watch))}
	s.Own = max(seconds(total)-s.Etcd-s.Health-s.Watch, 0)
	s.CPU = seconds(o.CPU)
	return s
}

// nextOf is when what a record tells of went on: at the next record of its step,
// since hosts take their steps side by side, and at the next of all for what is
// no step.
func nextOf(r sop.Record, after []sop.Record, ended time.Time) time.Time {
	for _, n := range after {
		if r.Step == 0 || n.Step == r.Step || n.Step == 0 {
			return n.Time
		}
	}
	return ended
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// gapIn measures a window of a history.
func gapIn(h *workload.History, w window) workload.Gap {
	return workload.WriteGap(h, h.Offset(w.from), h.Offset(w.to))
}

// quietBefore is the quiet window to measure another against: as long, or all
// the quiet that there was.
func quietBefore(w window, quiet window) window {
	if quiet.length() > w.length() {
		quiet.from = quiet.to.Add(-w.length())
	}
	return quiet
}
