package workload

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// flushEvery is how much of a history the death of this process may cost.
const flushEvery = 200 * time.Millisecond

// A Log takes down a history while it happens, in memory and in a file. It
// belongs to the load it is given to, which closes it.
type Log struct {
	mu      sync.Mutex
	history History
	file    *os.File      // nil for a log in memory only
	out     *bufio.Writer // nil with file
	err     error         // the first failure to write; memory goes on
}

// NewLog is a log in memory only.
func NewLog() *Log { return &Log{} }

// CreateLog is a log that is also written to a new file, as JSON lines,
// flushed five times a second and synced at the end. The file must not exist.
func CreateLog(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	return &Log{file: f, out: bufio.NewWriterSize(f, 256<<10)}, nil
}

func (l *Log) header(h Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Header = h
	l.write(l.encode(h))
}

func (l *Log) op(o Op) {
	b := l.encode(&o) // outside the lock: clients do this in parallel
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Ops = append(l.history.Ops, o)
	l.write(b)
}

func (l *Log) mark(m Mark) {
	b := l.encode(m)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Marks = append(l.history.Marks, m)
	l.write(b)
}

// encode gives a line without its newline, nil where no file wants it. What
// is encoded here has no value that JSON could refuse.
func (l *Log) encode(v any) []byte {
	if l.out == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode history: %v", err))
	}
	return append(b, '\n')
}

// write wants mu held.
func (l *Log) write(b []byte) {
	if l.out == nil || l.err != nil {
		return
	}
	_, l.err = l.out.Write(b)
}

func (l *Log) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && l.err == nil {
		l.err = l.out.Flush()
	}
}

// flushUntil flushes now and then until done is closed.
func (l *Log) flushUntil(done <-chan struct{}) {
	if l.out == nil {
		return
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			l.flush()
		}
	}
}

// close ends the log and gives the history. An error says that the file is
// not whole; the history is.
func (l *Log) close(complete bool) (*History, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if complete {
		l.history.Complete = true
		l.write(l.encode(endLine{trailer{len(l.history.Ops), len(l.history.Marks)}}))
	}
	if l.file != nil {
		if l.err == nil {
			l.err = l.out.Flush()
		}
		if l.err == nil {
			l.err = l.file.Sync()
		}
		l.err = errors.Join(l.err, l.file.Close())
		l.file, l.out = nil, nil
	}
	if l.err != nil {
		return &l.history, fmt.Errorf("write history: %w", l.err)
	}
	return &l.history, nil
}
