package fault

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
)

// memberUnit is the unit that runs etcd on a host.
const memberUnit = "etcd.service"

// A Remedy undoes a harm. It is a value, written down before the harm is done,
// and carrying it out twice does no harm of its own.
type Remedy struct {
	Links  []netswitch.Link `json:",omitempty"` // to be healthy again
	Resume []string         `json:",omitempty"` // hosts whose stopped process goes on
	Power  []string         `json:",omitempty"` // hosts to switch on
	Start  []string         `json:",omitempty"` // hosts whose etcd is to be started
	Clocks []string         `json:",omitempty"` // hosts whose clock is to be right again
	Disks  []string         `json:",omitempty"` // hosts whose disk is to be sound again
	Files  []Kept           `json:",omitempty"` // files to put back
	Points []Armed          `json:",omitempty"` // of members, at which they would crash
}

// A Kept is a file of a host of which a copy was kept. It is put back only
// where it still holds what the fault wrote.
type Kept struct {
	Host, Path string
	Copy       string // on this machine
	Wrote      string // sha256 of what the fault wrote, in hex
}

// Empty reports whether there is nothing to undo.
func (r Remedy) Empty() bool {
	return len(r.Links)+len(r.Resume)+len(r.Power)+len(r.Start)+len(r.Clocks)+len(r.Disks)+len(r.Files)+len(r.Points) == 0
}

// Apply carries the remedy out on a lab. It goes on after a failure, and gives
// all of them.
func (r Remedy) Apply(ctx context.Context, lab Lab) error {
	var errs []error
	try := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if l, ok := lab.(Links); ok {
		for _, link := range r.Links {
			try("heal link "+link.String(), l.Link(ctx, link.From, link.To, netswitch.Rule{}))
		}
	}
	if p, ok := lab.(Powered); ok {
		for _, h := range r.Power {
			try("switch "+h+" on", p.Power(ctx, h, true))
		}
	}
	if m, ok := lab.(Members); ok {
		for _, h := range r.Resume {
			// It may have ended, or been restarted, meanwhile.
			if err := m.Member(ctx, h, syscall.SIGCONT); err != nil && running(ctx, lab, h) {
				try("let etcd on "+h+" go on", err)
			}
		}
	}
	if d, ok := lab.(Disks); ok {
		for _, h := range r.Disks {
			try("mend the disk of "+h, d.Disk(ctx, h, baddisk.Fault{}))
		}
	}
	if c, ok := lab.(Clocks); ok {
		for _, h := range r.Clocks {
			try("set the clock of "+h, c.Clock(ctx, h, 0))
		}
	}
	if d, ok := lab.(Dialer); ok {
		for _, p := range r.Points {
			try(fmt.Sprintf("disarm %s on %s", p.Point, p.Host), p.disarm(ctx, d))
		}
	}
	for _, k := range r.Files {
		try("put back "+k.Path+" on "+k.Host, k.putBack(ctx, lab))
	}
	for _, h := range r.Start {
		u, err := unit(ctx, lab, h)
		if err != nil || u.Load != "loaded" || u.Runs() {
			try("look at "+h, err)
			continue // it is not to run any more, or does
		}
		try("start etcd on "+h, lab.Host(h).Do(ctx, host.Systemctl{Verb: host.Start, Unit: memberUnit, NoBlock: true}))
	}
	return errors.Join(errs...)
}

func unit(ctx context.Context, lab Lab, name string) (host.Unit, error) {
	f, err := lab.Host(name).Look(ctx, host.Question{Units: []string{memberUnit}})
	return f.Units[memberUnit], err
}

func running(ctx context.Context, lab Lab, name string) bool {
	u, err := unit(ctx, lab, name)
	return err == nil && u.PID != 0
}

func (k Kept) putBack(ctx context.Context, lab Lab) error {
	f, err := fileOf(ctx, lab, k.Host, k.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was set aside
	}
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(f.Content); hex.EncodeToString(sum[:]) != k.Wrote {
		return nil // it was written anew
	}
	content, err := os.ReadFile(k.Copy)
	if err != nil {
		return err
	}
	return lab.Host(k.Host).Do(ctx, host.WriteFile{Path: k.Path, Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: true})
}

// fileOf is a file of a host.
func fileOf(ctx context.Context, lab Lab, name, path string) (host.File, error) {
	facts, err := lab.Host(name).Look(ctx, host.Question{Files: []string{path}})
	if err != nil {
		return host.File{}, err
	}
	f := facts.Files[path]
	switch {
	case !f.Exists:
		return f, fmt.Errorf("%s on %s: %w", path, name, fs.ErrNotExist)
	case f.Problem != "":
		return f, fmt.Errorf("%s on %s: %s", path, name, f.Problem)
	}
	return f, nil
}

// --- the journal ---

// JournalName is the file of a lab's faults, in the lab's directory.
const JournalName = "faults.jsonl"

// An Entry is one line of a fault journal.
type Entry struct {
	ID     int
	Time   time.Time
	Fault  string   `json:",omitempty"`
	Band   Band     `json:",omitempty"`
	Hosts  []string `json:",omitempty"`
	Remedy Remedy   `json:",omitzero"`
	Healed bool     `json:",omitempty"` // the fault of this ID was healed
}

// A Journal takes down every fault before its harm is done, on disk. A nil
// Journal takes down nothing.
type Journal struct {
	mu   sync.Mutex
	file *os.File
	last int
}

// OpenJournal opens the journal of a lab for appending, or begins it.
func OpenJournal(path string) (*Journal, error) {
	entries, err := ReadJournal(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open fault journal: %w", err)
	}
	j := &Journal{file: f}
	for _, e := range entries {
		j.last = max(j.last, e.ID)
	}
	return j, nil
}

// Close closes the file.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	return j.file.Close()
}

func (j *Journal) struck(f Fault, h Harm, now time.Time) (int, error) {
	if j == nil {
		return 0, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	return j.last, j.append(Entry{ID: j.last, Time: now, Fault: f.String(), Band: f.Band(), Hosts: h.Hosts, Remedy: h.Remedy})
}

func (j *Journal) healed(id int, now time.Time) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(Entry{ID: id, Time: now, Healed: true})
}

func (j *Journal) append(e Entry) error {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write fault journal: %w", err)
	}
	return nil
}

// ReadJournal reads a fault journal. A last line that was cut off is passed
// over: its harm was not done.
func ReadJournal(path string) ([]Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Entry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var bad error
	for lines.Scan() {
		if bad != nil {
			return all, bad // it was not the last line
		}
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			bad = fmt.Errorf("read fault journal %s: line %d: %w", path, len(all)+1, err)
			continue
		}
		all = append(all, e)
	}
	return all, lines.Err()
}

// Open are the faults of a journal that were not healed, the newest first.
func Open(entries []Entry) []Entry {
	healed := map[int]bool{}
	for _, e := range entries {
		healed[e.ID] = healed[e.ID] || e.Healed
	}
	var open []Entry
	for i := len(entries) - 1; i >= 0; i-- {
		if e := entries[i]; !e.Healed && !healed[e.ID] {
			open = append(open, e)
		}
	}
	return open
}

// Heal carries out what the fault journals of the living labs below a
// directory say is open. It says what it did, one line each. Dead labs are
// embedded.Heal's.
func Heal(ctx context.Context, root string) ([]string, error) {
	var did []string
	var errs []error
	labs, err := embedded.List(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, info := range labs {
		path := filepath.Join(info.Dir, JournalName)
		entries, err := ReadJournal(path)
		if errors.Is(err, fs.ErrNotExist) || info.PID == 0 {
			continue
		}
		if err == nil {
			var lines []string
			lines, err = healLab(ctx, info, path, Open(entries))
			did = append(did, lines...)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("heal faults of lab %s: %w", info.Name, err))
		}
	}
	return did, errors.Join(errs...)
}

func healLab(ctx context.Context, info embedded.Info, path string, open []Entry) ([]string, error) {
	if len(open) == 0 {
		return nil, nil
	}
	lab, err := embedded.Open(ctx, info.Dir)
	if err != nil {
		return nil, err
	}
	j, err := OpenJournal(path)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	var did []string
	for _, e := range open {
		if err := e.Remedy.Apply(ctx, lab); err != nil {
			return did, err
		}
		if err := j.healed(e.ID, time.Now()); err != nil {
			return did, err
		}
		did = append(did, fmt.Sprintf("lab %s: healed %s", info.Name, e.Fault))
	}
	return did, nil
}
