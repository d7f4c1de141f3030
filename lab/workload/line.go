package workload

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A history is one JSON object per line: a header; then, as they happen, calls,
// replies, notices of watchers and marks; a count last. A call is in the file
// before it is sent, so that the death of the load leaves none out that etcd
// may have taken.
//
//	{"call":7,"t_ns":1200,"client":0,"op":"put","key":"/load/k","value":"a","endpoint":"..."}
//	{"reply":7,"t_ns":2900,"outcome":"ok","revision":4}
//	{"watcher":0,"t_ns":3100,"notice":"events","revision":4,"events":[...]}
//	{"t_ns":4000,"mark":"step 1"}
//	{"end":{"ops":1,"notices":1,"marks":1}}

// The last line of a history; without it the file was cut off.
type trailer struct {
	Ops     int `json:"ops"`
	Notices int `json:"notices,omitempty"`
	Marks   int `json:"marks"`
	// TurnedAway counts the arrivals of an open loop that found no room.
	TurnedAway int64 `json:"turned_away,omitempty"`
}

type endLine struct {
	End trailer `json:"end"`
}

// appendCall appends the line of a call, with its newline.
func appendCall(b []byte, id uint64, o *Op) []byte {
	b = append(b, `{"call":`...)
	b = strconv.AppendUint(b, id, 10)
	b = append(b, `,"t_ns":`...)
	b = strconv.AppendInt(b, int64(o.Call), 10)
	b = append(b, `,"client":`...)
	b = strconv.AppendInt(b, int64(o.Client), 10)
	b = append(b, `,"op":"`...)
	b = append(b, o.Kind.String()...)
	b = append(b, '"')
	b = appendText(b, "key", o.Key)
	if o.Kind == Put || o.Kind == Txn {
		b = appendText(b, "value", o.Value)
	}
	b = appendNumber(b, "expect", o.Expect)
	if o.Kind != Grant {
		b = appendNumber(b, "lease", o.Lease)
	}
	b = appendText(b, "endpoint", o.Endpoint)
	return append(b, "}\n"...)
}

// appendReply appends the line of a reply, with its newline.
func appendReply(b []byte, id uint64, o *Op) []byte {
	b = append(b, `{"reply":`...)
	b = strconv.AppendUint(b, id, 10)
	b = append(b, `,"t_ns":`...)
	b = strconv.AppendInt(b, int64(o.Return), 10)
	b = append(b, `,"outcome":"`...)
	b = append(b, o.Outcome.String()...)
	b = append(b, '"')
	b = appendNumber(b, "revision", o.Revision)
	b = appendNumber(b, "mod_revision", o.ModRevision)
	if o.Kind == Get || o.Kind == SerializableGet {
		b = appendText(b, "value", o.Value)
	}
	b = appendText(b, "prev", o.Prev)
	if o.Done {
		b = append(b, `,"done":true`...)
	}
	if o.Kind == Grant {
		b = appendNumber(b, "lease", o.Lease)
	}
	b = appendNumber(b, "ttl", o.TTL)
	b = appendText(b, "error", o.Error)
	return append(b, "}\n"...)
}

func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendInt(b, n, 10)
}

func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				panic(fmt.Sprintf("encode %q: %v", s, err)) // a string can be encoded
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	return append(append(b, s...), '"')
}

// appendLine appends any other line, with its newline. What is encoded here
// has no value that JSON could refuse.
func appendLine(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode history: %v", err))
	}
	return append(append(b, text...), '\n')
}

// WriteTo writes the history as ReadHistory reads it. Each call stands right
// before its reply; marks and notices go where they fell, so that the file can
// be read by eye.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	var n int64
	buffered := bufio.NewWriterSize(w, 256<<10)
	var line []byte
	put := func() error {
		m, err := buffered.Write(line)
		n, line = n+int64(m), line[:0]
		return err
	}
	header, err := json.Marshal(h.Header)
	if err != nil {
		return 0, fmt.Errorf("encode history: %w", err)
	}
	line = append(append(line, header...), '\n')
	if err := put(); err != nil {
		return n, err
	}
	marks, notices := h.Marks, h.Notices
	before := func(at time.Duration) error {
		for len(notices) > 0 && notices[0].At <= at {
			line, notices = appendLine(line, notices[0]), notices[1:]
			if err := put(); err != nil {
				return err
			}
		}
		for len(marks) > 0 && marks[0].At <= at {
			line, marks = appendLine(line, marks[0]), marks[1:]
			if err := put(); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range h.Ops {
		o := &h.Ops[i]
		if err := before(o.Return); err != nil {
			return n, err
		}
		line = appendReply(appendCall(line, uint64(i), o), uint64(i), o)
		if err := put(); err != nil {
			return n, err
		}
	}
	if err := before(1<<63 - 1); err != nil {
		return n, err
	}
	if h.Complete {
		line = appendLine(line, endLine{trailer{Ops: len(h.Ops), Notices: len(h.Notices), Marks: len(h.Marks)}})
		if err := put(); err != nil {
			return n, err
		}
	}
	return n, buffered.Flush()
}

// line is any line but the first. Pointers tell which it is.
type line struct {
	Call  *uint64        `json:"call"`
	Reply *uint64        `json:"reply"`
	At    *time.Duration `json:"t_ns"`

	Client   int    `json:"client"`
	Op       Kind   `json:"op"`
	Key      string `json:"key"`
	Value    string `json:"value"`
	Expect   int64  `json:"expect"`
	Lease    int64  `json:"lease"`
	Endpoint string `json:"endpoint"`

	Outcome     Outcome `json:"outcome"`
	Revision    int64   `json:"revision"`
	ModRevision int64   `json:"mod_revision"`
	Prev        string  `json:"prev"`
	Done        bool    `json:"done"`
	TTL         int64   `json:"ttl"`
	Error       string  `json:"error"`

	Watcher   *int       `json:"watcher"`
	Notice    NoticeKind `json:"notice"`
	From      int64      `json:"from"`
	Compacted int64      `json:"compacted"`
	Events    []Event    `json:"events"`

	Mark *string  `json:"mark"`
	End  *trailer `json:"end"`

	// What the pointers of a scanned line point to.
	call, reply uint64
	at          time.Duration
}

// scan reads the line of a call or a reply as appendCall and appendReply write
// them, without the JSON decoder: a history is mostly those. It gives false for anything
// else, which is for the decoder to read or refuse.
func (l *line) scan(b []byte) bool {
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return false
	}
	for b = b[1:]; ; b = b[1:] { // past the brace, or the comma
		name, rest, ok := scanText(b)
		if !ok || len(rest) == 0 || rest[0] != ':' {
			return false
		}
		if b, ok = l.field(string(name), rest[1:]); !ok || len(b) == 0 {
			return false
		}
		if b[0] == '}' {
			return len(b) == 1 && (l.Call != nil || l.Reply != nil)
		}
		if b[0] != ',' {
			return false
		}
	}
}

// field reads the value of a field, and gives what comes after it.
func (l *line) field(name string, b []byte) (rest []byte, ok bool) {
	var number int64
	var text []byte
	switch {
	case len(b) > 0 && b[0] == '"':
		text, rest, ok = scanText(b)
	case name == "done" && bytes.HasPrefix(b, []byte("true")):
		l.Done = true
		return b[len("true"):], true
	default:
		number, rest, ok = scanNumber(b)
	}
	if !ok {
		return nil, false
	}
	isText := text != nil
	switch name {
	case "call":
		l.call, l.Call = uint64(number), &l.call
	case "reply":
		l.reply, l.Reply = uint64(number), &l.reply
	case "t_ns":
		l.at, l.At = time.Duration(number), &l.at
	case "client":
		l.Client = int(number)
	case "expect":
		l.Expect = number
	case "lease":
		l.Lease = number
	case "revision":
		l.Revision = number
	case "mod_revision":
		l.ModRevision = number
	case "ttl":
		l.TTL = number
	case "op":
		return rest, isText && l.Op.UnmarshalText(text) == nil
	case "outcome":
		return rest, isText && l.Outcome.UnmarshalText(text) == nil
	case "key":
		l.Key = string(text)
		return rest, isText
	case "value":
		l.Value = string(text)
		return rest, isText
	case "prev":
		l.Prev = string(text)
		return rest, isText
	case "error":
		l.Error = string(text)
		return rest, isText
	case "endpoint":
		l.Endpoint = string(text)
		return rest, isText
	default:
		return nil, false
	}
	return rest, !isText
}

// scanText reads a string of plain characters; its text is never nil.
func scanText(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[1:i], b[i+1:], true
		case c == '\\', c < ' ', c > '~':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// scanNumber reads a whole number that is not negative, and small enough for
// what is counted here.
func scanNumber(b []byte) (n int64, rest []byte, ok bool) {
	const most = 18 // digits that fit
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + int64(b[i]-'0')
	}
	if i == 0 || i > most || i > 1 && b[0] == '0' {
		return 0, nil, false
	}
	return n, b[i:], true
}

// reader puts a history together from its lines.
type reader struct {
	h     *History
	open  map[uint64]*Op    // calls without a reply so far
	free  []*Op             // memory of those that have one
	names map[string]string // keys and endpoints, each of which is kept once
	last  time.Duration     // the latest moment of any line
	now   line
}

func (r *reader) once(s string) string {
	if known, ok := r.names[s]; ok {
		return known
	}
	r.names[s] = s
	return s
}

func (r *reader) line(text []byte) error {
	r.now = line{}
	l := &r.now
	if !l.scan(text) {
		r.now = line{}
		if err := json.Unmarshal(text, l); err != nil {
			return err
		}
	}
	h := r.h
	if l.End != nil {
		if *l.End != (trailer{len(h.Ops), len(h.Notices), len(h.Marks), l.End.TurnedAway}) || len(r.open) > 0 {
			r.unanswered()
			return fmt.Errorf("%d operations, %d notices and %d marks read, %d, %d and %d were written: %w",
				len(h.Ops), len(h.Notices), len(h.Marks), l.End.Ops, l.End.Notices, l.End.Marks, ErrTruncated)
		}
		h.Complete = true
		return nil
	}
	if l.At == nil || *l.At < 0 {
		return errors.New("a line without a time")
	}
	r.last = max(r.last, *l.At)
	switch {
	case l.Call != nil:
		return r.call(l)
	case l.Reply != nil:
		return r.reply(l)
	case l.Watcher != nil:
		return r.notice(l)
	case l.Mark != nil:
		h.Marks = append(h.Marks, Mark{*l.At, *l.Mark})
		return nil
	}
	return errors.New("neither call nor reply, notice nor mark")
}

func (r *reader) call(l *line) error {
	if _, twice := r.open[*l.Call]; twice {
		return fmt.Errorf("call %d was made already", *l.Call)
	}
	o := new(Op)
	if n := len(r.free); n > 0 {
		o, r.free = r.free[n-1], r.free[:n-1]
	}
	*o = Op{Call: *l.At, Client: l.Client, Kind: l.Op, Key: r.once(l.Key), Value: l.Value, Expect: l.Expect, Lease: l.Lease, Endpoint: r.once(l.Endpoint)}
	if err := o.validCall(&r.h.Header); err != nil {
		return err
	}
	r.open[*l.Call] = o
	return nil
}

func (r *reader) reply(l *line) error {
	o, ok := r.open[*l.Reply]
	if !ok {
		return fmt.Errorf("reply to call %d, which was not made or was answered already", *l.Reply)
	}
	delete(r.open, *l.Reply)
	defer func() { r.free = append(r.free, o) }()
	o.Return, o.Outcome, o.Error = *l.At, l.Outcome, l.Error
	o.Revision, o.ModRevision, o.Prev, o.Done, o.TTL = l.Revision, l.ModRevision, l.Prev, l.Done, l.TTL
	switch o.Kind {
	case Get, SerializableGet:
		o.Value = l.Value
	case Grant:
		o.Lease = l.Lease
	}
	if err := o.validReply(); err != nil {
		return err
	}
	r.h.Ops = append(r.h.Ops, *o)
	return nil
}

func (r *reader) notice(l *line) error {
	n := Notice{At: *l.At, Watcher: *l.Watcher, Kind: l.Notice, From: l.From, Revision: l.Revision,
		Compacted: l.Compacted, Events: l.Events, Error: l.Error, Endpoint: r.once(l.Endpoint)}
	switch {
	case n.Watcher < 0 || n.Watcher >= r.h.Watchers:
		return fmt.Errorf("watcher %d of %d", n.Watcher, r.h.Watchers)
	case !slices.Contains([]NoticeKind{Opened, Events, Progress, Ended}, n.Kind):
		return fmt.Errorf("no such kind of notice: %q", n.Kind)
	case (n.Kind == Opened) != (n.From > 0):
		return fmt.Errorf("notice %q from revision %d", n.Kind, n.From)
	case (n.Kind == Events) != (len(n.Events) > 0):
		return fmt.Errorf("notice %q with %d events", n.Kind, len(n.Events))
	case n.Kind == Progress && n.Revision <= 0 || n.Revision < 0 || n.Compacted < 0:
		return fmt.Errorf("notice %q with revision %d, compacted %d", n.Kind, n.Revision, n.Compacted)
	}
	for _, e := range n.Events {
		if e.ModRevision <= 0 || !strings.HasPrefix(e.Key, r.h.Prefix) {
			return fmt.Errorf("event without a key below %q or a revision: %s", r.h.Prefix, e)
		}
	}
	r.h.Notices = append(r.h.Notices, n)
	return nil
}

// unanswered appends the calls that have no reply: nobody can tell what became
// of them.
func (r *reader) unanswered() {
	if len(r.open) == 0 {
		return
	}
	left := slices.SortedFunc(maps.Values(r.open), func(a, b *Op) int {
		return cmp.Or(cmp.Compare(a.Call, b.Call), cmp.Compare(a.Client, b.Client))
	})
	for _, o := range left {
		o.Return, o.Outcome, o.Error = r.last, Unknown, "no reply was taken down"
		r.h.Ops = append(r.h.Ops, *o)
	}
	clear(r.open)
}

func (o *Op) validCall(h *Header) error {
	lease := o.Client >= h.Clients
	switch {
	case o.Kind == 0:
		return errors.New("call of nothing")
	case o.Client < 0 || o.Client >= h.Clients+h.LeaseClients+h.Stale:
		return fmt.Errorf("client %d of %d", o.Client, h.Clients+h.LeaseClients+h.Stale)
	case o.Kind.OfLease() && !lease:
		return fmt.Errorf("client %d has no leases", o.Client)
	case o.Kind.OfLease() != (o.Key == ""):
		return fmt.Errorf("%s of key %q", o.Kind, o.Key)
	case o.Key != "" && !strings.HasPrefix(o.Key, h.Prefix):
		return fmt.Errorf("key %q is not below %q", o.Key, h.Prefix)
	case (o.Kind == Put || o.Kind == Txn) && o.Value == "":
		return errors.New("write without a value")
	case o.Expect < 0 || o.Expect != 0 && o.Kind != Txn:
		return fmt.Errorf("%s expects mod revision %d", o.Kind, o.Expect)
	case (o.Kind == KeepAlive || o.Kind == Revoke) && o.Lease == 0:
		return fmt.Errorf("%s of no lease", o.Kind)
	}
	return nil
}

func (o *Op) validReply() error {
	switch {
	case o.Outcome == 0:
		return errors.New("reply without an outcome")
	case o.Return < o.Call:
		return fmt.Errorf("called at %s, returned at %s", o.Call, o.Return)
	case (o.Outcome == OK) != (o.Revision > 0):
		return fmt.Errorf("outcome %s with revision %d", o.Outcome, o.Revision)
	case o.ModRevision < 0 || o.ModRevision > o.Revision:
		return fmt.Errorf("mod revision %d with revision %d", o.ModRevision, o.Revision)
	case o.Acked() && o.ModRevision == o.Revision:
		return fmt.Errorf("write at revision %d replaced itself", o.Revision)
	case o.Kind == Grant && (o.Outcome == OK) != (o.Lease != 0):
		return fmt.Errorf("grant with outcome %s of lease %x", o.Outcome, o.Lease)
	case o.Outcome == OK && (o.Kind == Grant || o.Kind == KeepAlive) && o.TTL <= 0:
		return fmt.Errorf("%s of %d seconds", o.Kind, o.TTL)
	case o.Done && o.Kind != Txn:
		return fmt.Errorf("%s is no txn", o.Kind)
	}
	return nil
}
