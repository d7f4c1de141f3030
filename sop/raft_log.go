package sop

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// How far a member came stands in its write-ahead log and nowhere else: an entry
// is synced there before it is acknowledged to anybody. The backend lags behind by
// as much as is not written out yet, a tenth of a second by default, and the times
// of files say when something was written, not what.
//
// So the log of a stopped member is read, on the admin host, by the code below. It
// only takes what a host can always give, the content of files. The alternatives
// were worse: etcdutl has no command for it; to start the member, even alone on a
// copy, tells its applied index and not where its log ends; and etcd's own reader
// is in the server's module, which is not for procedures (a test holds the two
// against each other). Of the log no more is read than is needed, its last files
// as far back as the member's own commit index.

// A Position is a place in a raft log. Of two logs the one that ends at the higher
// position is the more advanced: with the later term, or in the same term with the
// higher index. That is how raft itself decides who may lead.
type Position struct{ Term, Index uint64 }

// Compare orders positions as raft does.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Term, o.Term), cmp.Compare(p.Index, o.Index))
}

// String tells it in words.
func (p Position) String() string { return fmt.Sprintf("term %d, index %d", p.Term, p.Index) }

// A RaftLog is what a write-ahead log tells of how far its member came.
type RaftLog struct {
	Identity
	Last   Position // where it ends
	Term   uint64   // that the member had seen; it may be of an election that came to nothing
	Vote   uint64
	Commit uint64 // up to here the member knew that the entries are committed; more may be
	Torn   bool   // it ends in a record that was not written whole, as after a crash

	runs    []run  // of the entries that were read, in order
	segment string // name of the last file
	offset  int64  // in it, where the last whole record ends
	crc     uint32 // of the records up to there
}

// A run is entries of one term.
type run struct{ from, term uint64 }

// ErrLog says that a write-ahead log cannot be read.
var ErrLog = errors.New("write-ahead log")

// termAt is the term of the entry at an index. It is not known of entries that
// were not read, and of what is beyond the end.
func (l RaftLog) termAt(index uint64) (term uint64, known bool) {
	if index > l.Last.Index {
		return 0, false
	}
	for _, r := range l.runs {
		if r.from <= index {
			term, known = r.term, true
		}
	}
	return term, known
}

// reaches reports whether the entries were read back to the commit index.
func (l RaftLog) reaches() bool { return len(l.runs) > 0 && l.runs[0].from <= max(l.Commit, 1) }

// holds reports whether the log has a committed entry, of which the position is
// known.
func (l RaftLog) holds(p Position) bool {
	if l.Commit >= p.Index {
		return true // no two members ever know different entries to be committed
	}
	term, known := l.termAt(p.Index)
	return known && term == p.Term
}

// furthest gives the log with which nothing is lost that any of them has and that
// can be known to be committed: the one at the highest position, among those that
// hold the latest entry that any member knew to be committed. Only in rare cases
// is there a difference between the two (figure 8 of the raft paper): the end of a
// log may be of a later term and yet never have been committed. It is -1 for none.
func furthest(logs []RaftLog) int {
	var sure Position
	for _, l := range logs {
		if term, ok := l.termAt(l.Commit); ok && l.Commit > sure.Index {
			sure = Position{Term: term, Index: l.Commit}
		}
	}
	best := -1
	for i, l := range logs {
		switch {
		case !l.holds(sure):
		case best < 0, cmp.Or(l.Last.Compare(logs[best].Last), cmp.Compare(l.Commit, logs[best].Commit)) > 0:
			best = i
		}
	}
	return best
}

// allCommitted is a record for the end of the log: that all of it is committed. A
// member that is forced to be alone drops what it does not know to be. That may
// have been acknowledged by a leader who is lost; and what was not, nobody was told
// of either way. It is empty where the log says so itself.
func (l RaftLog) allCommitted() []byte {
	if l.Commit >= l.Last.Index {
		return nil
	}
	term, vote := max(l.Term, l.Last.Term), l.Vote
	if term != l.Term {
		vote = 0
	}
	var state []byte
	for i, n := range []uint64{term, vote, l.Last.Index} {
		state = protowire.AppendVarint(protowire.AppendTag(state, protowire.Number(i+1), protowire.VarintType), n)
	}
	return frame(stateRecord, state, crc32.Update(l.crc, castagnoli(), state))
}

// castagnoli is the table of the checksums in a log.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// The types of a walpb.Record.
const (
	metadataRecord = 1
	entryRecord    = 2
	stateRecord    = 3
	crcRecord      = 4
	snapshotRecord = 5
)

// frame is a walpb.Record as it stands in a log: its length, and zeros to a
// multiple of 8 bytes.
func frame(kind uint64, data []byte, crc uint32) []byte {
	var rec []byte
	rec = protowire.AppendVarint(protowire.AppendTag(rec, 1, protowire.VarintType), kind)
	rec = protowire.AppendVarint(protowire.AppendTag(rec, 2, protowire.VarintType), uint64(crc))
	if data != nil {
		rec = protowire.AppendBytes(protowire.AppendTag(rec, 3, protowire.BytesType), data)
	}
	field := uint64(len(rec))
	pad := (8 - len(rec)%8) % 8
	if pad > 0 {
		field |= uint64(0x80|pad) << 56
	}
	return slices.Concat(binary.LittleEndian.AppendUint64(nil, field), rec, make([]byte, pad))
}

// A logReader reads the files of a log, one after the other.
type logReader struct {
	log   RaftLog
	begun bool   // a checksum record has come
	floor uint64 // the last entry before the first file
	// What there was before a snapshot that came from a leader: a crash may leave
	// its record without the state that goes with it, and then it never came.
	before *RaftLog
}

// maxRecord bounds the length of a record that is believed.
const maxRecord = 1 << 30

// segment reads one file. Only the last may end in a record that is not whole.
func (r *logReader) segment(name string, in io.Reader, last bool) error {
	var number, first uint64 // of the file, and the index that it begins at
	if n, err := fmt.Sscanf(name, "%16x-%16x.wal", &number, &first); n != 2 {
		return fmt.Errorf("%w: %s is no name of its files: %w", ErrLog, name, err)
	}
	if !r.begun {
		r.floor = max(first, 1) - 1
	}
	r.log.segment, r.log.offset = name, 0
	b := bufio.NewReaderSize(in, 64<<10)
	for {
		whole, err := r.next(b, last)
		if err != nil {
			return fmt.Errorf("%w: %s at %d: %w", ErrLog, name, r.log.offset, err)
		}
		if !whole {
			break
		}
	}
	if _, err := io.Copy(io.Discard, b); err != nil { // what was allotted in advance
		return fmt.Errorf("%w: %s: %w", ErrLog, name, err)
	}
	if !r.begun {
		return fmt.Errorf("%w: %s: nothing is in it", ErrLog, name)
	}
	return nil
}

// next takes one record. It is false at the end.
func (r *logReader) next(b *bufio.Reader, last bool) (bool, error) {
	torn := func(err error) (bool, error) {
		if !last {
			return false, err
		}
		r.log.Torn = true
		return false, nil
	}
	var head [8]byte
	switch _, err := io.ReadFull(b, head[:]); {
	case errors.Is(err, io.EOF):
		return false, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return torn(errors.New("it was cut off"))
	case err != nil:
		return false, err
	}
	field := binary.LittleEndian.Uint64(head[:])
	if field == 0 {
		return false, nil // from here on it was only allotted
	}
	size, pad := int64(field&(1<<56-1)), int64(0)
	if int64(field) < 0 {
		pad = int64(field>>56) & 7
	}
	if size > maxRecord {
		return torn(fmt.Errorf("a record of %d bytes", size))
	}
	var body bytes.Buffer
	switch n, err := io.CopyN(&body, b, size+pad); {
	case errors.Is(err, io.EOF):
		return torn(fmt.Errorf("a record of %d bytes, of which %d are there", size, n))
	case err != nil:
		return false, err
	}
	rec, ok := recordOf(body.Bytes()[:size])
	crc := crc32.Update(r.log.crc, castagnoli(), rec.data)
	switch {
	case !ok || rec.kind != crcRecord && rec.crc != crc:
		if halfWritten(body.Bytes(), r.log.offset+8) {
			return torn(errors.New("a record that is not whole"))
		}
		return false, errors.New("a record's checksum is wrong")
	case rec.kind == crcRecord && r.begun && rec.crc != r.log.crc:
		return false, errors.New("the checksum of what comes before is another")
	case rec.kind != crcRecord && !r.begun:
		return false, errors.New("it does not begin with a checksum")
	case rec.kind == crcRecord:
		r.log.crc, r.begun = rec.crc, true
	default:
		r.log.crc = crc
	}
	r.log.offset += 8 + size + pad
	return true, r.take(rec)
}

// halfWritten reports whether bytes that begin at an offset of a file have a whole
// sector of zeros: one that never reached the disk.
func halfWritten(b []byte, offset int64) bool {
	const sector = 512
	for len(b) > 0 {
		n := min(int64(len(b)), sector-offset%sector)
		if !slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 }) {
			return true
		}
		b, offset = b[n:], offset+n
	}
	return false
}

// take adds a record to what is known.
func (r *logReader) take(rec record) error {
	l := &r.log
	switch rec.kind {
	case metadataRecord:
		who, err := identity(rec.data)
		if err == nil && l.Identity != (Identity{}) && l.Identity != who {
			err = errors.New("it is of two members")
		}
		l.Identity = who
		return err
	case stateRecord: // a raftpb.HardState
		n, err := numbers(rec.data)
		if err == nil && (n[1] == 0 || n[1] < l.Term || n[3] < l.Commit) { // a checksum does not tell of a record's type
			err = fmt.Errorf("a state of term %d and commit index %d after one of %d and %d", n[1], n[3], l.Term, l.Commit)
		}
		l.Term, l.Vote, l.Commit = n[1], n[2], n[3]
		return err
	case entryRecord: // a raftpb.Entry
		n, err := numbers(rec.data)
		if err != nil {
			return err
		}
		return r.entry(Position{Term: n[2], Index: n[3]})
	case snapshotRecord: // a walpb.Snapshot
		n, err := numbers(rec.data)
		if err == nil && n[1] > max(l.Last.Index, r.floor) { // it came from a leader; those of its own are of entries that are there
			before := *l
			r.before = &before
			l.Last, l.runs = Position{Term: n[2], Index: n[1]}, []run{{n[1], n[2]}}
		}
		return err
	case crcRecord:
		return nil
	}
	return fmt.Errorf("a record of type %d", rec.kind)
}

// entry adds an entry. It takes the place of what was at its index, and of all
// that came after that.
func (r *logReader) entry(p Position) error {
	l := &r.log
	if p.Term == 0 || p.Index == 0 {
		return fmt.Errorf("an entry of %s", p)
	}
	if s := r.before; s != nil && p.Index <= l.runs[0].from {
		l.Last, l.runs = s.Last, s.runs // the snapshot never came
	}
	r.before = nil
	if before := max(l.Last.Index, r.floor); p.Index > before+1 {
		return fmt.Errorf("entry %d follows on entry %d", p.Index, before)
	}
	l.runs = slices.DeleteFunc(slices.Clone(l.runs), func(o run) bool { return o.from >= p.Index })
	if n := len(l.runs); n == 0 || l.runs[n-1].term != p.Term {
		l.runs = append(l.runs, run{from: p.Index, term: p.Term})
	}
	l.Last = p
	return nil
}

// end gives what was read.
func (r *logReader) end() (RaftLog, error) {
	l := r.log
	if s := r.before; s != nil && l.Commit < l.runs[0].from {
		l.Last, l.runs = s.Last, s.runs
	}
	switch {
	case l.Identity == (Identity{}):
		return RaftLog{}, fmt.Errorf("%w: %w", ErrLog, ErrNoIdentity)
	case len(l.runs) > 0 && l.Commit > l.Last.Index:
		return RaftLog{}, fmt.Errorf("%w: it ends at index %d, and says that %d is committed", ErrLog, l.Last.Index, l.Commit)
	}
	return l, nil
}

// numbers reads the fields 1 to 3 of a message that are numbers.
func numbers(b []byte) (n [4]uint64, err error) {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return n, protowire.ParseError(size)
		}
		b = b[size:]
		var v uint64
		if typ == protowire.VarintType {
			if v, size = protowire.ConsumeVarint(b); num < protowire.Number(len(n)) {
				n[num] = v
			}
		} else {
			size = protowire.ConsumeFieldValue(num, typ, b)
		}
		if size < 0 {
			return n, protowire.ParseError(size)
		}
		b = b[size:]
	}
	return n, nil
}
