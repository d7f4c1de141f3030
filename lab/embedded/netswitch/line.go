package netswitch

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

const (
	// heldLimit bounds what one directed link holds, in bytes. Without it a
	// long Delay on a fast link would be bounded by memory alone.
	heldLimit = 32 << 20

	// A frame picked by Reorder stays behind for this much longer.
	minLag, maxLag = time.Millisecond, 10 * time.Millisecond

	// The token bucket holds a hundredth of a second, two full frames at
	// least; the queue before it a tenth of a second, 32 KiB at least (a TCP
	// connection opens with ten segments).
	minBurst = 2 * 1514
	minQueue = 32 << 10
)

// line is the model of one directed link: frames and times go in, frames that
// are due come out. It has no clock: now never goes back between two calls. It
// is not safe for concurrent use.
type line struct {
	rule  Rule
	rng   *rand.Rand
	queue queue
	bytes int // in the queue

	bucket time.Time // when the token bucket has paid for all that was offered
	tail   time.Time // when the last frame that keeps its order is due
	seq    uint64    // of the last frame that went in
	out    uint64    // highest seq that came out

	count Counter
}

// held is a frame inside the line.
type held struct {
	frame   []byte
	header  header
	arrived time.Time
	due     time.Time
	seq     uint64
}

// size is what rates and counters count: the Ethernet frame.
func size(frame []byte) int { return len(frame) - offloadLen }

// newLine gives a directed link its own stream of random numbers, which
// depends on nothing but the seed and the link's names.
func newLine(seed int64, link Link) *line {
	key := binary.BigEndian.AppendUint64(nil, uint64(seed))
	key = append(key, link.String()...)
	digest := sha256.Sum256(key)
	return &line{rng: rand.New(rand.NewPCG(
		binary.BigEndian.Uint64(digest[:]), binary.BigEndian.Uint64(digest[8:])))}
}

// offer gives a frame to the line. It reports true when the rule does not
// touch the frame: the caller passes it on at once. Otherwise the line has
// dropped it or holds copies, and the caller keeps the memory.
func (l *line) offer(now time.Time, frame []byte, h header) (through bool) {
	switch {
	case l.rule.Zero() || !l.rule.sees(h):
		return true
	case l.rule.Cut:
		l.count.Cut += wireFrames(frame, h)
		return false
	case h.resolves:
		return true
	}
	for _, f := range split(frame, h) {
		l.take(now, f, h)
	}
	return false
}

// take decides the fate of one frame that the rule hits.
func (l *line) take(now time.Time, frame []byte, h header) {
	// Always four draws, so that one field of the rule does not shift what
	// another one gets.
	lose, twin, lag, wobble := l.rng.Float64(), l.rng.Float64(), l.rng.Float64(), l.rng.Float64()

	if lose < l.rule.Loss {
		l.count.Lost++
		return
	}
	leave, ok := l.shape(now, size(frame))
	if !ok || l.bytes+size(frame) > heldLimit {
		l.count.Limited++
		return
	}
	due := leave.Add(l.rule.Delay + time.Duration(wobble*float64(l.rule.Jitter)))
	due = later(due, l.tail)
	if lag < l.rule.Reorder {
		// The tail stays where it is: those behind overtake this frame.
		due = due.Add(minLag + time.Duration(lag/l.rule.Reorder*float64(maxLag-minLag)))
	} else {
		l.tail = due
	}
	l.push(held{frame: frame, header: h, arrived: now, due: due})
	if due.After(now) {
		l.count.Delayed++
	}
	if twin < l.rule.Duplicate {
		l.push(held{frame: frame, header: h, arrived: now, due: due})
		l.count.Duplicated++
	}
}

// shape says when the token bucket lets a frame go, or false when the queue
// before it is full.
func (l *line) shape(now time.Time, n int) (time.Time, bool) {
	rate := l.rule.Rate
	if rate == 0 {
		return now, true
	}
	paid := later(l.bucket, now.Add(-lasts(burst(rate), rate))).Add(lasts(int64(n), rate))
	leave := later(paid, now)
	if leave.Sub(now) > lasts(max(minQueue, rate/10), rate) {
		return time.Time{}, false
	}
	l.bucket = paid
	return leave, true
}

// burst is what a bucket of this rate holds, in bytes.
func burst(rate int64) int64 { return max(minBurst, rate/100) }

// lasts is how long n bytes take at a rate.
func lasts(n, rate int64) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// set changes the rule. What the line holds meets the new one, without new
// draws: a cut drops it, a heal makes it due now, another Delay counts from
// the frame's own arrival.
func (l *line) set(now time.Time, r Rule) {
	if l.rule.Equal(r) {
		return
	}
	l.rule = r.normal()
	l.bucket, l.tail, l.bytes = time.Time{}, time.Time{}, 0
	waiting := l.queue
	l.queue = nil
	for len(waiting) > 0 {
		f := heap.Pop(&waiting).(held)
		f.due = now
		if !r.Zero() && r.sees(f.header) {
			if r.Cut {
				l.count.Cut++
				continue
			}
			leave, ok := l.shape(now, size(f.frame))
			if !ok {
				l.count.Limited++
				continue
			}
			if r.Rate == 0 {
				leave = f.arrived
			}
			f.due = later(later(now, leave.Add(r.Delay)), l.tail)
			l.tail = f.due
		}
		l.bytes += size(f.frame)
		heap.Push(&l.queue, f)
	}
}

// pop takes out the next frame that is due, or reports false.
func (l *line) pop(now time.Time) (held, bool) {
	if len(l.queue) == 0 || l.queue[0].due.After(now) {
		return held{}, false
	}
	f := heap.Pop(&l.queue).(held)
	l.bytes -= size(f.frame)
	if f.seq < l.out {
		l.count.Reordered++
	}
	l.out = max(l.out, f.seq)
	return f, true
}

// next says when pop will have a frame, or false when the line is empty.
func (l *line) next() (time.Time, bool) {
	if len(l.queue) == 0 {
		return time.Time{}, false
	}
	return l.queue[0].due, true
}

// drop forgets all that is held and says how many frames that was.
func (l *line) drop() int64 {
	n := len(l.queue)
	l.queue, l.bytes, l.tail = nil, 0, time.Time{}
	return int64(n)
}

func (l *line) push(f held) {
	l.seq++
	f.seq = l.seq
	l.bytes += size(f.frame)
	heap.Push(&l.queue, f)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// queue is a heap of frames, the one that is due first on top; among equals
// the one that came first.
type queue []held

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if !q[i].due.Equal(q[j].due) {
		return q[i].due.Before(q[j].due)
	}
	return q[i].seq < q[j].seq
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *queue) Push(x any) { *q = append(*q, x.(held)) }

func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = held{}
	*q = old[:len(old)-1]
	return last
}
