package workload

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Schema is the version of the history format that this package writes, and
// the newest that it reads.
const Schema = 1

// maxLine bounds a line of a history, so that a foreign file is refused
// before it fills the memory.
const maxLine = 1 << 20

var (
	// ErrForeign says that a file is no history, or one of a newer schema.
	ErrForeign = errors.New("not a history")
	// ErrTruncated says that a history ends before its last line. What was
	// read up to there comes back beside the error.
	ErrTruncated = errors.New("history is truncated")
)

// A Kind is what a client asked for.
type Kind uint8

// The kinds of operation. Gets are linearizable.
const (
	Put Kind = iota + 1
	Get
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
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// MarshalText gives "put" or "get".
func (k Kind) MarshalText() ([]byte, error) {
	if k != Put && k != Get {
		return nil, fmt.Errorf("no such kind of operation: %d", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what MarshalText gives.
func (k *Kind) UnmarshalText(b []byte) error {
	switch string(b) {
	case "put":
		*k = Put
	case "get":
		*k = Get
	default:
		return fmt.Errorf("no such kind of operation: %q", b)
	}
	return nil
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
	switch string(b) {
	case "ok":
		*o = OK
	case "fail":
		*o = Fail
	case "unknown":
		*o = Unknown
	default:
		return fmt.Errorf("no such outcome: %q", b)
	}
	return nil
}

// An Op is one call of one client. Times are offsets from the history's Base
// on the monotonic clock.
type Op struct {
	Call   time.Duration `json:"t_call_ns"`
	Return time.Duration `json:"t_return_ns"`
	Client int           `json:"client"`
	Kind   Kind          `json:"op"`
	Key    string        `json:"key"`
	// Value is what was written, or what was read; empty for a key that was
	// not there.
	Value string `json:"value,omitempty"`
	// Revision is the revision of the reply's header; for a write that is the
	// revision it made. 0 unless the outcome is ok.
	Revision int64 `json:"revision,omitempty"`
	// ModRevision is the mod revision of what was found at the key, 0 for
	// nothing: by a get, the value it read; by a put, the value it replaced,
	// which is Prev.
	ModRevision int64   `json:"mod_revision,omitempty"`
	Prev        string  `json:"prev,omitempty"`
	Outcome     Outcome `json:"outcome"`
	Error       string  `json:"error,omitempty"`
	Endpoint    string  `json:"endpoint"`
}

// Acked says whether the operation is an acknowledged write.
func (o Op) Acked() bool { return o.Kind == Put && o.Outcome == OK }

func (o Op) String() string {
	s := fmt.Sprintf("client %d %s %s", o.Client, o.Kind, o.Key)
	if o.Value != "" {
		s += " = " + o.Value
	}
	s += fmt.Sprintf(" at %s..%s: %s", o.Call.Round(time.Microsecond), o.Return.Round(time.Microsecond), o.Outcome)
	if o.Revision != 0 {
		s += fmt.Sprintf(", revision %d", o.Revision)
	}
	if o.Kind == Get && o.Outcome == OK {
		s += fmt.Sprintf(", mod revision %d", o.ModRevision)
	}
	return s
}

// A Mark names a moment of a history: "step 3 begins".
type Mark struct {
	At   time.Duration `json:"t_ns"`
	Name string        `json:"mark"`
}

// A Header is the first line of a history.
type Header struct {
	Schema  int       `json:"etcdrill_history"`
	Base    time.Time `json:"base"`
	Seed    int64     `json:"seed"`
	Clients int       `json:"clients"`
	Prefix  string    `json:"prefix"`
	// StartRevision is the cluster's revision before the first operation.
	// What a client finds at or below it was there before the load.
	StartRevision int64 `json:"start_revision"`
	// Etcd is the server version at each endpoint that answered at the start.
	Etcd map[string]string `json:"etcd,omitempty"`
}

// A History is all that the clients of a load saw, in the order of the
// replies as far as that can be told.
type History struct {
	Header
	Ops   []Op
	Marks []Mark
	// Complete says that the load was stopped in good order. An incomplete
	// history may lack calls that did take effect.
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

// The last line of a history; without it the file was cut off.
type trailer struct {
	Ops   int `json:"ops"`
	Marks int `json:"marks"`
}

type endLine struct {
	End trailer `json:"end"`
}

// line is any line but the first. Pointers tell which it is.
type line struct {
	Op
	At   *time.Duration `json:"t_ns"`
	Mark *string        `json:"mark"`
	End  *trailer       `json:"end"`
}

// WriteTo writes the history as ReadHistory reads it: one JSON object per
// line, a header first and a count last.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	var n int64
	buffered := bufio.NewWriter(w)
	put := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode history: %w", err)
		}
		m, err := buffered.Write(append(b, '\n'))
		n += int64(m)
		return err
	}
	if err := put(h.Header); err != nil {
		return n, err
	}
	marks := h.Marks
	for i := range h.Ops {
		// Marks go where they fell, so that the file can be read by eye.
		for len(marks) > 0 && marks[0].At <= h.Ops[i].Return {
			if err := put(marks[0]); err != nil {
				return n, err
			}
			marks = marks[1:]
		}
		if err := put(&h.Ops[i]); err != nil {
			return n, err
		}
	}
	for _, m := range marks {
		if err := put(m); err != nil {
			return n, err
		}
	}
	if h.Complete {
		if err := put(endLine{trailer{len(h.Ops), len(h.Marks)}}); err != nil {
			return n, err
		}
	}
	return n, buffered.Flush()
}

// ReadHistory reads the history in a file. Errors name the file and line and
// wrap ErrForeign or ErrTruncated; a truncated history is returned too, as
// far as it goes, with Complete unset.
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
		return nil, fmt.Errorf("line 1: %w: %w", ErrForeign, err)
	}
	switch {
	case h.Schema == 0:
		return nil, fmt.Errorf("line 1: no header: %w", ErrForeign)
	case h.Schema != Schema:
		return nil, fmt.Errorf("line 1: schema %d, this program reads %d: %w", h.Schema, Schema, ErrForeign)
	case !whole:
		return h, fmt.Errorf("line 1 is cut off: %w", ErrTruncated)
	case h.Clients < 1 || h.Prefix == "" || h.StartRevision < 0:
		return nil, fmt.Errorf("line 1: header without clients, prefix or start revision: %w", ErrForeign)
	}

	n := 1
	for lines.Scan() {
		n++
		text, whole := bytes.CutSuffix(lines.Bytes(), []byte("\n"))
		if !whole {
			return h, fmt.Errorf("line %d is cut off after %d operations: %w", n, len(h.Ops), ErrTruncated)
		}
		if h.Complete {
			return nil, fmt.Errorf("line %d: text after the end: %w", n, ErrForeign)
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", n, ErrForeign, err)
		}
		switch {
		case l.Mark != nil:
			if l.At == nil || *l.At < 0 {
				return nil, fmt.Errorf("line %d: mark without a time: %w", n, ErrForeign)
			}
			h.Marks = append(h.Marks, Mark{*l.At, *l.Mark})
		case l.End != nil:
			if *l.End != (trailer{len(h.Ops), len(h.Marks)}) {
				return h, fmt.Errorf("line %d: %d operations and %d marks read, %d and %d were written: %w",
					n, len(h.Ops), len(h.Marks), l.End.Ops, l.End.Marks, ErrTruncated)
			}
			h.Complete = true
		default:
			if err := l.Op.validate(&h.Header); err != nil {
				return nil, fmt.Errorf("line %d: %w: %w", n, ErrForeign, err)
			}
			h.Ops = append(h.Ops, l.Op)
		}
	}
	if err := scanError(lines, n+1); err != nil {
		return nil, err
	}
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

func (o *Op) validate(h *Header) error {
	switch {
	case o.Kind == 0:
		return errors.New("neither an operation nor a mark")
	case o.Outcome == 0:
		return errors.New("operation without an outcome")
	case o.Call < 0 || o.Return < o.Call:
		return fmt.Errorf("called at %s, returned at %s", o.Call, o.Return)
	case o.Client < 0 || o.Client >= h.Clients:
		return fmt.Errorf("client %d of %d", o.Client, h.Clients)
	case !strings.HasPrefix(o.Key, h.Prefix):
		return fmt.Errorf("key %q is not below %q", o.Key, h.Prefix)
	case (o.Outcome == OK) != (o.Revision > 0):
		return fmt.Errorf("outcome %s with revision %d", o.Outcome, o.Revision)
	case o.ModRevision < 0 || o.ModRevision > o.Revision:
		return fmt.Errorf("mod revision %d with revision %d", o.ModRevision, o.Revision)
	case o.Acked() && o.ModRevision == o.Revision:
		return fmt.Errorf("write at revision %d replaced itself", o.Revision)
	case o.Kind == Put && o.Value == "":
		return errors.New("write without a value")
	}
	return nil
}
