package workload

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Schema is the version of the history format that this package writes and
// reads.
const Schema = 2

// maxLine bounds a line of a history, so that a foreign file is refused
// before it fills the memory.
const maxLine = 4 << 20

var (
	// ErrForeign says that a file is no history, or one of another schema.
	ErrForeign = errors.New("not a history")
	// ErrTruncated says that a history ends before its last line, as it does
	// when its writer was killed. What was read up to there comes back beside
	// the error.
	ErrTruncated = errors.New("history is truncated")
	// ErrCorrupt says that a whole line of a history, which its writer cannot
	// have left like that, makes no sense.
	ErrCorrupt = errors.New("history is corrupt")
)

// A Kind is what a client asked for.
type Kind uint8

// The kinds of operation. A Txn compares the mod revision of its key with
// Op.Expect and puts where they are equal, and gets where they are not.
const (
	Put Kind = iota + 1
	Get
	SerializableGet
	Delete
	Txn
	Grant
	KeepAlive
	Revoke
)

// An Outcome is what a client may conclude from the end of a call.
type Outcome uint8

// The outcomes; the package comment says what each is worth.
const (
	OK Outcome = iota + 1
	Fail
	Unknown
)

func (k Kind) String() string {
	switch k {
	case Put:
		return "put"
	case Get:
		return "get"
	case SerializableGet:
		return "serializable-get"
	case Delete:
		return "delete"
	case Txn:
		return "txn"
	case Grant:
		return "grant"
	case KeepAlive:
		return "keepalive"
	case Revoke:
		return "revoke"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// OfLease says whether the operation is about a lease and not about a key.
func (k Kind) OfLease() bool { return k == Grant || k == KeepAlive || k == Revoke }

// MarshalText gives the word that String gives: "put", "get".
func (k Kind) MarshalText() ([]byte, error) {
	if k < Put || k > Revoke {
		return nil, fmt.Errorf("no such kind of operation: %d", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText gives.
func (k *Kind) UnmarshalText(b []byte) error {
	for i := Put; i <= Revoke; i++ {
		if i.String() == string(b) {
			*k = i
			return nil
		}
	}
	return fmt.Errorf("no such kind of operation: %q", b)
}

func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Fail:
		return "fail"
	case Unknown:
		return "unknown"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// MarshalText gives "ok", "fail" or "unknown".
func (o Outcome) MarshalText() ([]byte, error) {
	if o != OK && o != Fail && o != Unknown {
		return nil, fmt.Errorf("no such outcome: %d", uint8(o))
	}
	return []byte(o.String()), nil
}

// UnmarshalText reads what MarshalText gives.
func (o *Outcome) UnmarshalText(b []byte) error {
	for _, x := range []Outcome{OK, Fail, Unknown} {
		if x.String() == string(b) {
			*o = x
			return nil
		}
	}
	return fmt.Errorf("no such outcome: %q", b)
}

// An Op is one call of one client. Times are offsets from the history's Base
// on the monotonic clock.
type Op struct {
	Call, Return time.Duration
	Client       int
	Kind         Kind
	Key          string // empty for what is about a lease alone
	// Value is what was to be written by a put or txn, or what was read by a
	// get; empty for a key that was not there.
	Value  string
	Expect int64 // the mod revision that a txn compares with; 0 for no key
	// Lease is the lease that a put attaches its key to, 0 for none, or the one
	// that the operation is about.
	Lease int64
	// TTL is what a grant or keepalive was answered, in seconds.
	TTL int64
	// Revision is the revision of the reply's header; for what has written that
	// is the revision it made. 0 unless the outcome is ok.
	Revision int64
	// ModRevision is the mod revision of what was found at the key, 0 for
	// nothing: by a get, the value it read; by any other, the value that was
	// there before, which is Prev.
	ModRevision int64
	Prev        string
	// Done says of a txn that the comparison held and the put was made.
	Done     bool
	Outcome  Outcome
	Error    string
	Endpoint string
}

// Acked says whether the operation is an acknowledged write: it is known to
// have changed its key, at Revision. A delete of nothing has not.
func (o *Op) Acked() bool {
	if o.Outcome != OK {
		return false
	}
	switch o.Kind {
	case Put:
		return true
	case Delete:
		return o.ModRevision != 0
	case Txn:
		return o.Done
	}
	return false
}

// Writes says whether operations of this kind may change their key.
func (k Kind) Writes() bool { return k == Put || k == Delete || k == Txn }

// Found is what a successful operation found at its key, and the mod revision
// of that; 0 for nothing.
func (o *Op) Found() (value string, modRevision int64) {
	if o.Kind == Get || o.Kind == SerializableGet {
		return o.Value, o.ModRevision
	}
	return o.Prev, o.ModRevision
}

func (o Op) String() string {
	s := fmt.Sprintf("client %d %s", o.Client, o.Kind)
	if o.Key != "" {
		s += " " + o.Key
	}
	if o.Value != "" {
		s += " = " + o.Value
	}
	if o.Lease != 0 {
		s += fmt.Sprintf(" lease %x", o.Lease)
	}
	s += fmt.Sprintf(" at %s..%s: %s", o.Call.Round(time.Microsecond), o.Return.Round(time.Microsecond), o.Outcome)
	if o.Revision != 0 {
		s += fmt.Sprintf(", revision %d", o.Revision)
	}
	if o.Kind == Txn && o.Outcome == OK && !o.Done {
		s += ", not put"
	}
	if o.Outcome == OK && !o.Kind.OfLease() && !o.Acked() {
		s += fmt.Sprintf(", mod revision %d", o.ModRevision)
	}
	return s
}

// An Event is one change of one key, as a watch tells of it.
type Event struct {
	Key         string `json:"key"`
	Deleted     bool   `json:"deleted,omitempty"`
	Value       string `json:"value,omitempty"`
	ModRevision int64  `json:"mod_revision"` // of the change
	Lease       int64  `json:"lease,omitempty"`
}

func (e Event) String() string {
	if e.Deleted {
		return fmt.Sprintf("delete of %s at revision %d", e.Key, e.ModRevision)
	}
	return fmt.Sprintf("put of %s = %s at revision %d", e.Key, e.Value, e.ModRevision)
}

// A NoticeKind is what a watcher was told.
type NoticeKind string

// The kinds of notice.
const (
	Opened   NoticeKind = "open"     // a watch was asked for, from Notice.From on
	Events   NoticeKind = "events"   // one response with changes
	Progress NoticeKind = "progress" // all up to Notice.Revision has been told
	Ended    NoticeKind = "ended"    // the watch is over; it may be resumed
)

// A Notice is what a watcher did or was told, at one moment.
type Notice struct {
	At       time.Duration `json:"t_ns"`
	Watcher  int           `json:"watcher"`
	Kind     NoticeKind    `json:"notice"`
	From     int64         `json:"from,omitempty"`     // of an opening: the first revision wanted
	Revision int64         `json:"revision,omitempty"` // of the response's header
	// Compacted says, of an end, that what was asked for is compacted: the
	// oldest revision that can still be had.
	Compacted int64   `json:"compacted,omitempty"`
	Events    []Event `json:"events,omitempty"`
	Error     string  `json:"error,omitempty"`
	Endpoint  string  `json:"endpoint,omitempty"`
}

// A Mark names a moment of a history: "step 3 begins".
type Mark struct {
	At   time.Duration `json:"t_ns"`
	Name string        `json:"mark"`
}

// A Header is the first line of a history.
type Header struct {
	Schema int       `json:"etcdrill_history"`
	Base   time.Time `json:"base"`
	Seed   int64     `json:"seed"`
	// Clients are those that work on keys; the lease clients are numbered from
	// there on, and after them those that are stale.
	Clients      int    `json:"clients"`
	LeaseClients int    `json:"lease_clients,omitempty"`
	Stale        int    `json:"stale_clients,omitempty"`
	Watchers     int    `json:"watchers,omitempty"`
	Prefix       string `json:"prefix"`
	// StartRevision is the cluster's revision before the first operation.
	// What a client finds at or below it was there before the load.
	StartRevision int64 `json:"start_revision"`
	// Etcd is the server version at each endpoint that answered at the start.
	Etcd map[string]string `json:"etcd,omitempty"`
	// Profile is what the load was asked to do.
	Profile *Profile `json:"profile,omitempty"`
}

// A History is all that the clients of a load saw, in the order of the
// replies as far as that can be told. Calls that were never answered, because
// the load itself was killed, come last, with an unknown outcome.
type History struct {
	Header
	Ops     []Op
	Notices []Notice // of the watchers, in the order in which they came
	Marks   []Mark
	// Complete says that the load was stopped in good order. An incomplete
	// history may lack replies, and what watchers were told.
	Complete bool
}

// Offset places a moment of the wall clock in the history.
func (h *History) Offset(t time.Time) time.Duration { return t.Sub(h.Base) }

// End is the moment of the last reply or mark.
func (h *History) End() time.Duration {
	var end time.Duration
	for i := range h.Ops {
		end = max(end, h.Ops[i].Return)
	}
	for _, m := range h.Marks {
		end = max(end, m.At)
	}
	return end
}

// Acked counts the acknowledged writes.
func (h *History) Acked() int {
	n := 0
	for i := range h.Ops {
		if h.Ops[i].Acked() {
			n++
		}
	}
	return n
}

// ReadHistory reads the history in a file. Errors name the file and line and
// wrap ErrForeign, ErrCorrupt or ErrTruncated; a truncated history is returned
// too, as far as it goes, with Complete unset.
func ReadHistory(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer f.Close()
	h, err := Read(f)
	if err != nil {
		return h, fmt.Errorf("read history %s: %w", path, err)
	}
	return h, nil
}

// Read is ReadHistory for what is no file.
func Read(r io.Reader) (*History, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	lines.Split(wholeLines)

	if !lines.Scan() {
		if err := scanError(lines, 1); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the file is empty: %w", ErrTruncated)
	}
	h := &History{}
	first, whole := bytes.CutSuffix(lines.Bytes(), []byte("\n"))
	if err := json.Unmarshal(first, &h.Header); err != nil {
		if !whole && bytes.HasPrefix(first, []byte(`{"etcdrill_history":`)) {
			return nil, fmt.Errorf("line 1 is cut off: %w", ErrTruncated)
		}
		return nil, fmt.Errorf("line 1: %w: %w", ErrForeign, err)
	}
	switch {
	case h.Schema == 0:
		return nil, fmt.Errorf("line 1: no header: %w", ErrForeign)
	case h.Schema != Schema:
		return nil, fmt.Errorf("line 1: schema %d, this program reads %d: %w", h.Schema, Schema, ErrForeign)
	case !whole:
		return h, fmt.Errorf("line 1 is cut off: %w", ErrTruncated)
	case h.Clients < 1 || h.LeaseClients < 0 || h.Stale < 0 || h.Watchers < 0 || h.Prefix == "" || h.StartRevision < 0:
		return nil, fmt.Errorf("line 1: header without clients, prefix or start revision: %w", ErrForeign)
	}

	reading := reader{h: h, open: map[uint64]*Op{}, names: map[string]string{}}
	n := 1
	for lines.Scan() {
		n++
		text, whole := bytes.CutSuffix(lines.Bytes(), []byte("\n"))
		if !whole {
			reading.unanswered()
			return h, fmt.Errorf("line %d is cut off after %d operations: %w", n, len(h.Ops), ErrTruncated)
		}
		if h.Complete {
			return nil, fmt.Errorf("line %d: text after the end: %w", n, ErrCorrupt)
		}
		switch err := reading.line(text); {
		case errors.Is(err, ErrTruncated):
			return h, fmt.Errorf("line %d: %w", n, err)
		case err != nil:
			return nil, fmt.Errorf("line %d: %w: %w", n, ErrCorrupt, err)
		}
	}
	if err := scanError(lines, n+1); err != nil {
		return nil, err
	}
	reading.unanswered()
	if !h.Complete {
		return h, fmt.Errorf("no last line after %d operations (the load was not stopped in good order): %w", len(h.Ops), ErrTruncated)
	}
	return h, nil
}

// wholeLines splits after each newline and keeps it: a last line without one
// was being written when its writer died.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func scanError(s *bufio.Scanner, n int) error {
	switch err := s.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("line %d is longer than %d bytes: %w", n, maxLine, ErrForeign)
	default:
		return fmt.Errorf("line %d: %w", n, err)
	}
}
