package sop

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// A segment is a file of a log that is being written.
type segment struct {
	name string
	b    []byte
	crc  uint32
}

// openSegment begins a file as etcd does, after what is in the one before it.
func openSegment(number, first uint64, crc uint32) *segment {
	s := &segment{name: fmt.Sprintf("%016x-%016x.wal", number, first), crc: crc}
	s.b = frame(crcRecord, nil, crc)
	return s.add(metadataRecord, 0xa, 0xc)
}

func (s *segment) add(kind uint64, fields ...uint64) *segment {
	var data []byte
	for i, n := range fields {
		data = protowire.AppendVarint(protowire.AppendTag(data, protowire.Number(i+1), protowire.VarintType), n)
	}
	s.crc = crc32.Update(s.crc, castagnoli(), data)
	s.b = append(s.b, frame(kind, data, s.crc)...)
	return s
}

// entries adds entries of a term, from one index to another.
func (s *segment) entries(term, from, to uint64) *segment {
	for i := from; i <= to; i++ {
		s.add(entryRecord, 0, term, i)
	}
	return s
}

func (s *segment) state(term, commit uint64) *segment { return s.add(stateRecord, term, 0, commit) }

// readSegments reads the files of a log.
func readSegments(all ...*segment) (RaftLog, error) {
	var r logReader
	for i, s := range all {
		if err := r.segment(s.name, bytes.NewReader(s.b), i == len(all)-1); err != nil {
			return RaftLog{}, err
		}
	}
	return r.end()
}

func TestRaftLog(t *testing.T) {
	first := func() *segment { return openSegment(0, 0, 0).add(snapshotRecord, 0, 0) }
	for name, c := range map[string]struct {
		segments []*segment
		last     Position
		commit   uint64
		reaches  bool
	}{
		"nothing yet":           {[]*segment{first()}, Position{}, 0, false},
		"one term":              {[]*segment{first().entries(1, 1, 5).state(1, 4)}, Position{1, 5}, 4, true},
		"a vote for nothing":    {[]*segment{first().entries(1, 1, 5).state(9, 4)}, Position{1, 5}, 4, true},
		"the end was replaced":  {[]*segment{first().entries(1, 1, 9).entries(3, 6, 7).state(3, 6)}, Position{3, 7}, 6, true},
		"a snapshot of its own": {[]*segment{first().entries(2, 1, 9).state(2, 9).add(snapshotRecord, 7, 2).entries(2, 10, 11).state(2, 10)}, Position{2, 11}, 10, true},
		"a snapshot of a leader": {[]*segment{first().entries(1, 1, 3).state(1, 3).add(snapshotRecord, 100, 4).state(4, 100)},
			Position{4, 100}, 100, true},
		"and what came after": {[]*segment{first().entries(1, 1, 3).state(1, 3).add(snapshotRecord, 100, 4).state(4, 100).entries(5, 101, 102).state(5, 101)},
			Position{5, 102}, 101, true},
		"and was replaced":         {[]*segment{first().add(snapshotRecord, 100, 4).state(4, 100).entries(5, 101, 109).entries(6, 102, 103).state(6, 102)}, Position{6, 103}, 102, true},
		"one that never came":      {[]*segment{first().entries(1, 1, 3).state(1, 3).add(snapshotRecord, 100, 4)}, Position{1, 3}, 3, true},
		"nor then":                 {[]*segment{first().entries(1, 1, 3).state(1, 3).add(snapshotRecord, 100, 4).entries(4, 4, 5).state(4, 3)}, Position{4, 5}, 3, true},
		"the last file is not all": {[]*segment{openSegment(3, 501, 77).state(2, 480).entries(2, 501, 510)}, Position{2, 510}, 480, false},
		"the last file suffices":   {[]*segment{openSegment(3, 501, 77).state(2, 480).add(snapshotRecord, 490, 2).entries(2, 501, 510).state(2, 505)}, Position{2, 510}, 505, true},
		"an empty last file":       {[]*segment{openSegment(3, 501, 77).state(2, 480)}, Position{}, 480, false},
		"an old snapshot in it":    {[]*segment{openSegment(3, 501, 77).state(2, 480).add(snapshotRecord, 470, 2)}, Position{}, 480, false},
	} {
		for _, tail := range []int{0, 5, 4096} { // what is allotted in advance is zeros
			c.segments[len(c.segments)-1].b = append(c.segments[len(c.segments)-1].b, make([]byte, tail)...)
			l, err := readSegments(c.segments...)
			require.NoError(t, err, name)
			require.Equal(t, Identity{0xa, 0xc}, l.Identity, name)
			require.Equal(t, c.last, l.Last, name)
			require.Equal(t, c.commit, l.Commit, name)
			require.Equal(t, c.reaches, l.reaches(), name)
			if tail == 5 { // etcd takes that for half a length, and repairs it
				break
			}
		}
	}

	// Files in a row, and one that is missing between them.
	one := first().entries(1, 1, 9).state(1, 8)
	two := openSegment(1, 10, one.crc).state(1, 8).entries(1, 10, 12)
	three := openSegment(2, 13, two.crc).state(1, 8).entries(2, 13, 13).state(2, 12)
	l, err := readSegments(one, two, three)
	require.NoError(t, err)
	require.Equal(t, Position{2, 13}, l.Last)
	for index, want := range map[uint64]uint64{1: 1, 12: 1, 13: 2} {
		term, known := l.termAt(index)
		require.True(t, known)
		require.Equal(t, want, term)
	}
	_, known := l.termAt(14)
	require.False(t, known)
	_, err = readSegments(one, three)
	require.ErrorIs(t, err, ErrLog)
}

// A log is cut off wherever a crash may cut it: what was whole is read, and nothing
// else. In its middle a flipped bit is told.
func TestRaftLogDamaged(t *testing.T) {
	whole := openSegment(0, 0, 0).add(snapshotRecord, 0, 0)
	ends := map[int]uint64{}
	for i := uint64(1); i <= 6; i++ {
		whole.entries(1, i, i).state(1, i-1)
		ends[len(whole.b)] = i
	}
	for n := len(openSegment(0, 0, 0).b); n < len(whole.b); n++ {
		cut := &segment{name: whole.name, b: whole.b[:n]}
		l, err := readSegments(cut)
		require.NoError(t, err, n)
		var last uint64
		for end, i := range ends {
			// The entry stands before the state, in whole frames.
			if n >= end-len(frame(stateRecord, bytes.Repeat([]byte{1}, 6), 1<<31)) {
				last = max(last, i)
			}
		}
		require.InDelta(t, last, l.Last.Index, 1, n)
		require.LessOrEqual(t, l.offset, int64(n))
		if l.offset < int64(n) {
			require.True(t, l.Torn, n)
		}
		again, err := readSegments(&segment{name: whole.name, b: slices.Concat(whole.b[:l.offset], make([]byte, 512))})
		require.NoError(t, err)
		require.Equal(t, l.Last, again.Last)
	}
	for n := range whole.b {
		b := bytes.Clone(whole.b)
		b[n] ^= 1
		l, err := readSegments(&segment{name: whole.name, b: b})
		if err == nil {
			require.LessOrEqual(t, l.Last.Index, uint64(6))
			require.True(t, l.Torn || l.Last.Index == 6, "byte %d: an end that nothing tells of", n)
		}
	}
	later := openSegment(1, 7, whole.crc).state(1, 5).entries(1, 7, 7)
	_, err := readSegments(&segment{name: whole.name, b: whole.b[:len(whole.b)-3]}, later)
	require.ErrorIs(t, err, ErrLog, "only the last file may end so")
	_, err = readSegments(&segment{name: "0.wal", b: whole.b})
	require.ErrorIs(t, err, ErrLog)
	_, err = readSegments(&segment{name: whole.name})
	require.ErrorIs(t, err, ErrLog)
}

// The record that ends a copy's log makes all of it committed, and fits in.
func TestAllCommitted(t *testing.T) {
	s := openSegment(0, 0, 0).add(snapshotRecord, 0, 0).entries(1, 1, 5).add(stateRecord, 1, 7, 3).entries(2, 6, 8)
	whole := len(s.b)
	s.b = append(s.b, 0x10, 0, 0) // half a length
	l, err := readSegments(s)
	require.NoError(t, err)
	require.EqualValues(t, whole, l.offset)
	s.b = append(s.b[:l.offset], l.allCommitted()...)
	l, err = readSegments(s)
	require.NoError(t, err)
	require.EqualValues(t, 8, l.Commit)
	require.EqualValues(t, 2, l.Term)
	require.Zero(t, l.Vote, "it has not voted in that term")
	require.Equal(t, Position{2, 8}, l.Last)
	require.Empty(t, l.allCommitted())
}

// logText reads "1 1 2 2|3": terms of the entries from index 1, and how many the
// member knows to be committed.
func logText(text string) RaftLog {
	terms, commit, _ := strings.Cut(text, "|")
	l := RaftLog{Commit: uint64(atoi(commit))}
	for i, f := range strings.Fields(terms) {
		l.Last = Position{Term: uint64(atoi(f)), Index: uint64(i + 1)}
		if n := len(l.runs); n == 0 || l.runs[n-1].term != l.Last.Term {
			l.runs = append(l.runs, run{from: l.Last.Index, term: l.Last.Term})
		}
	}
	return l
}

func TestFurthest(t *testing.T) {
	for _, c := range []struct {
		why  string
		logs []string
		best int
	}{
		{"nobody", nil, -1},
		{"the only one", []string{"1 1|2"}, 0},
		{"an empty one", []string{"|0"}, 0},
		{"the longer of one term", []string{"1 1|2", "1 1 1|2"}, 1},
		{"the later term, though it is shorter", []string{"1 1 1 1|1", "1 2|1"}, 1},
		{"the same end: who knows more of it", []string{"1 1|1", "1 1|2", "1 1|0"}, 1},
		{"the same in all: the first", []string{"1 1|2", "1 1|2"}, 0},
		// Figure 8 of the raft paper. Entries 2 of term 2 and 3 of term 4 were committed
		// in term 4, on members of which one is left, without entry 3; the other has an
		// entry of term 3 that was never committed.
		{"a later term that is known not to be committed", []string{"1 2|2", "1 3|1"}, 0},
		{"and not, where nobody knows", []string{"1 2|1", "1 3|1"}, 1},
		{"the end of it is of a later term still", []string{"1 2|2", "1 3 3 3|1", "1 2 2|1"}, 2},
	} {
		var logs []RaftLog
		for _, text := range c.logs {
			logs = append(logs, logText(text))
		}
		require.Equal(t, c.best, furthest(logs), c.why)
	}
}

// A simNode is a member of a simulated cluster, in which there is nothing of raft
// but what the order of logs follows from.
type simNode struct {
	terms  []uint64 // of its entries
	term   uint64
	commit int
}

// A sim plays elections, replication and commits at random. Entries that are
// committed are kept, with the term at which each index was.
type sim struct {
	random *rand.Rand
	nodes  []*simNode
	leader int
	apart  []bool // who is cut off for a while
	sure   []uint64
}

func (s *sim) upToDate(a, b *simNode) bool {
	return a.last().Compare(b.last()) >= 0
}

func (n *simNode) last() Position {
	if len(n.terms) == 0 {
		return Position{}
	}
	return Position{Term: n.terms[len(n.terms)-1], Index: uint64(len(n.terms))}
}

func (s *sim) play() {
	if s.random.IntN(10) == 0 {
		for i := range s.apart {
			s.apart[i] = s.random.IntN(3) == 0
		}
	}
	i := s.random.IntN(len(s.nodes))
	if s.apart[i] {
		return
	}
	switch s.random.IntN(8) {
	case 0: // i stands for election; some hear of it
		c := s.nodes[i]
		c.term++
		votes := 1
		for j, o := range s.nodes {
			if j != i && !s.apart[j] && o.term < c.term && s.upToDate(c, o) {
				o.term = c.term
				votes++
			}
		}
		if votes >= Quorum(len(s.nodes)) {
			s.leader = i
			c.terms = append(slices.Clip(c.terms), c.term)
		}
	case 1, 2: // a write
		if l := s.nodes[s.leader]; s.leads() { // cut off or not
			l.terms = append(slices.Clip(l.terms), l.term)
		}
	default: // the leader reaches i, up to some entry
		l, o := s.nodes[s.leader], s.nodes[i]
		if i == s.leader || s.apart[s.leader] || !s.leads() || o.term > l.term {
			return
		}
		o.term = l.term
		same := 0
		for same < len(o.terms) && same < len(l.terms) && o.terms[same] == l.terms[same] {
			same++
		}
		to := min(len(l.terms), same+1+s.random.IntN(2))
		if same == len(o.terms) || to > same {
			o.terms = append(slices.Clone(o.terms[:same]), l.terms[same:to]...)
		}
		o.commit = max(o.commit, min(l.commit, to))
		s.commit(l)
	}
}

// leads reports whether the leader has not heard of a later term yet.
func (s *sim) leads() bool {
	l := s.nodes[s.leader]
	return len(l.terms) > 0 && l.last().Term == l.term
}

// commit is the leader's: an entry of its own term that a majority has.
func (s *sim) commit(l *simNode) {
	for n := len(l.terms); n > l.commit; n-- {
		have := 0
		for _, o := range s.nodes {
			if len(o.terms) >= n && o.terms[n-1] == l.terms[n-1] {
				have++
			}
		}
		if have >= Quorum(len(s.nodes)) && l.terms[n-1] == l.term {
			l.commit = n
			break
		}
	}
	for len(s.sure) < l.commit {
		s.sure = append(s.sure, l.terms[len(s.sure)])
	}
}

func (n *simNode) log() RaftLog {
	l := RaftLog{Last: n.last(), Commit: uint64(n.commit)}
	for i, t := range n.terms {
		if k := len(l.runs); k == 0 || l.runs[k-1].term != t {
			l.runs = append(l.runs, run{from: uint64(i + 1), term: t})
		}
	}
	return l
}

// Whatever happened, no survivor has a committed entry that the one which is picked
// has not, but for those of which no survivor can know that they are committed.
func TestFurthestOfAnyHistory(t *testing.T) {
	contradicted := 0
	for seed := range uint64(300) {
		s := &sim{random: rand.New(rand.NewPCG(seed, 1))}
		for range []int{3, 5, 5}[seed%3] {
			s.nodes = append(s.nodes, &simNode{})
		}
		s.apart = make([]bool, len(s.nodes))
		s.nodes[0].term, s.nodes[0].terms = 1, []uint64{1}
		if len(s.nodes) == 5 && seed%2 == 0 { // as figure 8 of the raft paper has it at b
			for i, terms := range [][]uint64{{1, 2}, {1, 2}, {1}, {1}, {1, 3}} {
				*s.nodes[i] = simNode{terms: terms, term: []uint64{2, 2, 3, 3, 3}[i], commit: 1}
			}
			s.sure, s.leader = []uint64{1}, 4
		}
		for range 150 {
			s.play()
			s.judge(t, s.random.Perm(len(s.nodes))[:1+s.random.IntN(len(s.nodes)-1)])
			for i := range s.nodes { // of two it is most often so
				for j := range i {
					if s.judge(t, []int{i, j}) {
						contradicted++
					}
				}
			}
		}
	}
	require.NotZero(t, contradicted, "histories in which the highest position was not the one to take")
}

// judge looks at what would be picked of those that are left, and reports whether
// that is another than the one at the highest position.
func (s *sim) judge(t *testing.T, left []int) bool {
	var logs []RaftLog
	known := 0 // committed, as any of them knows
	for _, i := range left {
		logs = append(logs, s.nodes[i].log())
		known = max(known, s.nodes[i].commit)
	}
	if len(left) >= Quorum(len(s.nodes)) {
		known = len(s.sure) // whoever wins an election among them has it all
	}
	n := furthest(logs)
	require.GreaterOrEqual(t, n, 0)
	best := s.nodes[left[n]]
	for _, i := range left {
		o := s.nodes[i]
		for k, term := range s.sure[:min(len(s.sure), len(o.terms), known)] {
			if o.terms[k] == term && (k >= len(best.terms) || best.terms[k] != term) {
				t.Fatalf("entry %d of term %d is committed and lost: %v of %v", k+1, term, best, logs)
			}
		}
	}
	highest := slices.MaxFunc(logs, func(a, b RaftLog) int { return a.Last.Compare(b.Last) })
	return highest.Last.Compare(logs[n].Last) > 0
}

func FuzzRaftLog(f *testing.F) {
	f.Add(openSegment(0, 0, 0).add(snapshotRecord, 0, 0).entries(1, 1, 5).state(1, 4).b)
	f.Add(openSegment(0, 0, 0).add(snapshotRecord, 9, 3).state(1, 9).entries(4, 10, 12).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readSegments(&segment{name: fmt.Sprintf("%016x-%016x.wal", 0, 0), b: b})
		switch {
		case err != nil:
			if !errors.Is(err, ErrLog) {
				t.Fatal(err)
			}
		case l.offset > int64(len(b)):
			t.Fatalf("it ends at %d of %d bytes", l.offset, len(b))
		default:
			_ = l.allCommitted()
			_ = furthest([]RaftLog{l, l})
		}
	})
}
