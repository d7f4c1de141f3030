package workload

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// flushEvery is how old what watchers were told may be before it is in the
// file. Calls are there before they are sent, with all that came before.
const flushEvery = 200 * time.Millisecond

// A Log takes down a history while it happens, in memory and in a file. It
// belongs to the load it is given to, which closes it.
type Log struct {
	mu      sync.Mutex
	history History
	calls   uint64
	turned  int64         // arrivals turned away
	file    *os.File      // nil for a log in memory only
	out     *bufio.Writer // nil with file
	line    []byte        // being encoded
	err     error         // the first failure to write; memory goes on
}

// NewLog is a log in memory only.
func NewLog() *Log { return &Log{} }

// CreateLog is a log that is also written to a new file, as JSON lines. A call
// is handed to the kernel before it is sent: the death of this process, by
// SIGKILL too, leaves none out. The file is synced at the end only, and must
// not exist.
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
	if l.out != nil {
		l.write(appendLine(l.line[:0], h))
		l.flush()
	}
}

// call takes a call down before it is sent, and numbers it.
func (l *Log) call(o *Op) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.out != nil {
		l.write(appendCall(l.line[:0], l.calls, o))
		l.flush()
	}
	return l.calls
}

func (l *Log) reply(id uint64, o *Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Ops = append(l.history.Ops, *o)
	if l.out != nil {
		l.write(appendReply(l.line[:0], id, o))
	}
}

func (l *Log) notice(n Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Notices = append(l.history.Notices, n)
	if l.out != nil {
		l.write(appendLine(l.line[:0], n))
	}
}

func (l *Log) mark(m Mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history.Marks = append(l.history.Marks, m)
	if l.out != nil {
		l.write(appendLine(l.line[:0], m))
		l.flush()
	}
}

func (l *Log) turnAway() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turned++
}

func (l *Log) turnedAway() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turned
}

// write wants mu held. It keeps the line's memory for the next one.
func (l *Log) write(line []byte) {
	l.line = line
	if l.err == nil {
		_, l.err = l.out.Write(line)
	}
}

// flush wants mu held.
func (l *Log) flush() {
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
			l.mu.Lock()
			l.flush()
			l.mu.Unlock()
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
		if l.out != nil {
			l.write(appendLine(l.line[:0], endLine{trailer{len(l.history.Ops), len(l.history.Notices), len(l.history.Marks), l.turned}}))
		}
	}
	if l.file != nil {
		l.flush()
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
