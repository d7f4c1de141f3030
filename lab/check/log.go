package check

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// logSchema is the version of the format that logs are kept in.
const logSchema = 1

// A Log is what a member says that happened to the keys of a load: every change
// of revisions From to To, as a watch from there told of it when all was over.
// It says what became of writes that nobody heard of again.
type Log struct {
	Endpoint string
	From, To int64
	Events   []workload.Event // by revision
}

// covers says whether the log would have a change of this revision.
func (l *Log) covers(revision int64) bool {
	return l != nil && revision >= l.From && revision <= l.To
}

type logHeader struct {
	Schema   int    `json:"etcdrill_events"`
	Endpoint string `json:"endpoint"`
	From     int64  `json:"from"`
	To       int64  `json:"to"`
	Events   int    `json:"events"`
}

// Write writes the log as JSON lines: a header, which counts them, and the
// events.
func (l *Log) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	err := enc.Encode(logHeader{logSchema, l.Endpoint, l.From, l.To, len(l.Events)})
	for i := 0; err == nil && i < len(l.Events); i++ {
		err = enc.Encode(l.Events[i])
	}
	if err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return b.Flush()
}

// ReadLog reads what Write has written. Errors wrap workload's: ErrForeign,
// ErrTruncated and ErrCorrupt.
func ReadLog(path string) (*Log, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer f.Close()
	l, err := readLog(f)
	if err != nil {
		return nil, fmt.Errorf("read events %s: %w", path, err)
	}
	return l, nil
}

func readLog(r io.Reader) (*Log, error) {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 256<<10))
	var h logHeader
	switch err := dec.Decode(&h); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("no header: %w", workload.ErrTruncated)
	case err != nil:
		return nil, fmt.Errorf("no header: %w: %w", workload.ErrForeign, err)
	case h.Schema != logSchema:
		return nil, fmt.Errorf("schema %d, this program reads %d: %w", h.Schema, logSchema, workload.ErrForeign)
	case h.From < 1 || h.To < h.From-1 || h.Events < 0:
		return nil, fmt.Errorf("revisions %d to %d, %d events: %w", h.From, h.To, h.Events, workload.ErrCorrupt)
	}
	l := &Log{Endpoint: h.Endpoint, From: h.From, To: h.To}
	last := int64(0)
	for n := range h.Events {
		var e workload.Event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, fmt.Errorf("%d of %d events: %w", n, h.Events, workload.ErrTruncated)
		case err != nil:
			return nil, fmt.Errorf("event %d: %w: %w", n+1, workload.ErrCorrupt, err)
		case e.Key == "" || e.ModRevision < max(last, h.From) || e.ModRevision > h.To:
			return nil, fmt.Errorf("event %d is out of place: %s: %w", n+1, e, workload.ErrCorrupt)
		}
		last = e.ModRevision
		l.Events = append(l.Events, e)
	}
	if err := dec.Decode(new(json.RawMessage)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("text after the last of %d events: %w", h.Events, workload.ErrCorrupt)
	}
	return l, nil
}
