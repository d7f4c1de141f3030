package sop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A State is what has become of a step.
type State string

// The states of a step. Recorded, Sent and Answered are kill points: an
// operator that dies there leaves the step in that state.
const (
	Began    State = "began"    // of a run or a stage
	Skipped  State = "skipped"  // what it wants is so already
	Waiting  State = "waiting"  // with the reason as detail
	Recorded State = "recorded" // about to be made
	Sent     State = "sent"     // made; the answer has not been looked at
	Answered State = "answered" // with the answer as detail
	Done     State = "done"     // what it wants is so now
	Warned   State = "warned"
	Refused  State = "refused"
	Failed   State = "failed"
	Finished State = "finished" // of a run: the goal is reached
)

// A Record is one line of a journal.
type Record struct {
	Time      time.Time     `json:"time"`
	Run       string        `json:"run"`
	Procedure string        `json:"procedure"`
	Seq       int           `json:"seq"`            // of the record in the run
	Step      int           `json:"step,omitempty"` // 1 to Of; 0 for the run as a whole
	Of        int           `json:"of,omitempty"`
	Stage     string        `json:"stage,omitempty"`
	Title     string        `json:"title,omitempty"`
	Host      string        `json:"host,omitempty"`
	State     State         `json:"state"`
	Detail    string        `json:"detail,omitempty"`
	Act       string        `json:"act,omitempty"`
	Took      time.Duration `json:"took_ns,omitempty"`
	Etcd      bool          `json:"etcd,omitempty"` // the time was spent waiting for etcd
	// Called is how much of the time since the record before went by while
	// nothing but a member's answer was waited for.
	Called time.Duration `json:"called_ns,omitempty"`
}

// A Journal takes down what a run is about to do and what came of it. The run
// waits for Append and stops if it fails, so nothing happens unrecorded.
type Journal interface {
	Append(r Record) error
}

// Tee appends to several journals, the first of which is the one that counts:
// it is written first, and no other sees a record that it failed to take.
func Tee(first Journal, others ...Journal) Journal { return tee(append([]Journal{first}, others...)) }

type tee []Journal

func (t tee) Append(r Record) error {
	for _, j := range t {
		if err := j.Append(r); err != nil {
			return err
		}
	}
	return nil
}

// JournalFunc makes a function a Journal.
type JournalFunc func(Record) error

// Append calls f.
func (f JournalFunc) Append(r Record) error { return f(r) }

// A FileJournal keeps records as lines of JSON. What is about to be done, and
// how a run ended, is on disk before Append returns; a crash of the whole
// machine may cost the lines in between, which tell what can be seen again.
type FileJournal struct {
	mu   sync.Mutex
	file *os.File
}

// OpenJournal opens a journal for appending, or begins it. The file is for its
// owner alone.
func OpenJournal(path string) (*FileJournal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &FileJournal{file: f}, nil
}

// Append implements Journal.
func (j *FileJournal) Append(r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	switch r.State {
	case Recorded, Refused, Failed, Finished:
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	return nil
}

// Close closes the file.
func (j *FileJournal) Close() error { return j.file.Close() }

// ReadJournal reads the records of a journal. A last line that was cut off by
// a crash is passed over: what it spoke of was never done.
func ReadJournal(r io.Reader) ([]Record, error) {
	var all []Record
	dec := json.NewDecoder(r)
	for {
		var rec Record
		err := dec.Decode(&rec)
		switch {
		case err == nil:
			all = append(all, rec)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return all, nil
		default:
			return all, fmt.Errorf("read journal after record %d: %w", len(all), err)
		}
	}
}
