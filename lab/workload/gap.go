package workload

import (
	"slices"
	"time"
)

// A Gap is what a window of a history says of the availability of writes.
// Times are offsets from the history's base.
type Gap struct {
	From, To time.Duration
	// Longest is the longest time between two consecutive acknowledged writes
	// over all clients; the window's edges count as writes. At is its start.
	Longest time.Duration
	At      time.Duration
	// SlowestClient is the client with the longest gap of its own, lease clients
	// aside, and SlowestLongest that gap.
	SlowestClient  int
	SlowestLongest time.Duration
	Acked          int // acknowledged writes, or gets, in the window
}

// WriteGap measures the window from..to of a history. An empty or reversed
// window gives zeros.
func WriteGap(h *History, from, to time.Duration) Gap {
	return gapOf(h, from, to, (*Op).Acked)
}

// ReadGap is WriteGap for linearizable gets that were answered.
func ReadGap(h *History, from, to time.Duration) Gap {
	return gapOf(h, from, to, func(o *Op) bool { return o.Kind == Get && o.Outcome == OK })
}

func gapOf(h *History, from, to time.Duration, counts func(*Op) bool) Gap {
	g := Gap{From: from, To: to, At: from}
	if to <= from {
		return g
	}
	all := []time.Duration{}
	own := make([][]time.Duration, h.Clients)
	for i := range h.Ops {
		o := &h.Ops[i]
		if !counts(o) || o.Return < from || o.Return > to {
			continue
		}
		all = append(all, o.Return)
		if o.Client < len(own) {
			own[o.Client] = append(own[o.Client], o.Return)
		}
	}
	g.Acked = len(all)
	g.Longest, g.At = longest(all, from, to)
	for client, times := range own {
		if gap, _ := longest(times, from, to); gap > g.SlowestLongest {
			g.SlowestClient, g.SlowestLongest = client, gap
		}
	}
	return g
}

// longest sorts times.
func longest(times []time.Duration, from, to time.Duration) (gap, at time.Duration) {
	slices.Sort(times) // nearly sorted: replies are taken down as they come
	last := from
	for _, t := range append(times, to) {
		if t-last > gap {
			gap, at = t-last, last
		}
		last = t
	}
	return gap, at
}

// An Impact is a window beside the quiet one just before it, which says what
// of the gap is the machine's own noise.
type Impact struct {
	During Gap
	// Quiet is a window as long as During that ends where it begins, or the
	// part of it that lies after the start; QuietShort says that it is shorter.
	Quiet      Gap
	QuietShort bool
}

// Net is the gap less the quiet gap, never less than nothing.
func (i Impact) Net() time.Duration { return max(i.During.Longest-i.Quiet.Longest, 0) }

// Measure measures a window of a history, and the quiet one before it.
func Measure(h *History, from, to time.Duration) Impact {
	quiet := from - (to - from)
	start := h.begin()
	i := Impact{During: WriteGap(h, from, to), QuietShort: quiet < start}
	i.Quiet = WriteGap(h, max(quiet, start), from)
	return i
}

// begin is the first acknowledged write: before it the load was still
// getting under way, and there was nothing to be quiet about.
func (h *History) begin() time.Duration {
	first, found := time.Duration(0), false
	for i := range h.Ops {
		if h.Ops[i].Acked() && (!found || h.Ops[i].Return < first) {
			first, found = h.Ops[i].Return, true
		}
	}
	return first
}

// A StepGap is the gap between one mark and the next.
type StepGap struct {
	Name string // the first mark's
	Gap
}

// StepGaps measures from each mark to the next, and from the last to the end
// of the history. A gap that reaches over a mark is counted on both sides of
// it, each its part.
func StepGaps(h *History) []StepGap {
	marks := slices.Clone(h.Marks)
	slices.SortStableFunc(marks, func(a, b Mark) int { return int(a.At - b.At) })
	steps := make([]StepGap, len(marks))
	for i, m := range marks {
		to := h.End()
		if i+1 < len(marks) {
			to = marks[i+1].At
		}
		steps[i] = StepGap{m.Name, WriteGap(h, m.At, to)}
	}
	return steps
}
