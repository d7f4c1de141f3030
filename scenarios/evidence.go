package scenarios

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
)

// runSchema is the version of the form in which runs are kept.
const runSchema = 1

// The files of a run that a judge needs; see runDir.
const (
	runFile      = "run.json"
	summaryFile  = "summary.json"
	evidenceFile = "evidence.json"
	historyFile  = "history.jsonl"
	eventsFile   = "events.jsonl"
	journalFile  = "journal.jsonl"
)

// A runHead is run.json, which is there from the start: it tells a run that was
// cut off from what is none.
type runHead struct {
	Schema int       `json:"etcdrill_run"`
	Name   string    `json:"name"`
	Seed   int64     `json:"seed"`
	Began  time.Time `json:"began"`
}

// keptEvidence is evidence.json: what the judges of a run had before them, but
// for what stands in files of its own.
type keptEvidence struct {
	Schema int `json:"etcdrill_evidence"`
	// Files are the SHA-256 sums of the files that belong to it.
	Files map[string]string `json:"files"`
	// Journal is how many lines of the journal each operator has written.
	Journal []int `json:"journal"`
	check.Evidence
}

// begin writes run.json.
func (d runDir) begin(sum Summary) error {
	return writeJSON(d.path(runFile), runHead{runSchema, sum.Name, sum.Seed, sum.Began})
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	// Whole or not at all: half a file would be taken for the end of a run.
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// keep writes evidence.json and what belongs to it, once the summary stands.
func (d runDir) keep(e check.Evidence) error {
	k := keptEvidence{Schema: runSchema, Files: map[string]string{}, Evidence: e}
	for _, o := range e.Operators {
		k.Journal = append(k.Journal, len(o.Records))
	}
	if e.Log != nil {
		f, err := os.Create(d.path(eventsFile))
		if err != nil {
			return fmt.Errorf("keep events: %w", err)
		}
		if err := errors.Join(e.Log.Write(f), f.Close()); err != nil {
			return err
		}
	}
	for _, name := range []string{summaryFile, historyFile, eventsFile, journalFile} {
		sum, err := d.sum(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("keep evidence: %w", err)
		}
		k.Files[name] = sum
	}
	return writeJSON(d.path(evidenceFile), k)
}

func (d runDir) sum(name string) (string, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// --- what operators did, for the judges ---

// operators are those that worked on the stage's cluster.
func (s *stage) operators() []check.Operator {
	var all []check.Operator
	for _, p := range s.played {
		if p.args == nil || p.outcome.Began.IsZero() {
			continue
		}
		wanted := p.status
		if slices.Contains(p.statuses, p.outcome.Status) {
			wanted = p.outcome.Status // one of several
		}
		o := check.Operator{
			Name: p.title(), Args: p.args, Began: p.outcome.Began, Ended: p.outcome.Ended, Status: p.outcome.Status, Wanted: wanted,
			Killed: p.outcome.Killed, Before: p.before, After: p.after, Audit: p.audit, Records: recordsOf(p.outcome.Journal),
		}
		if b := p.budget; b != (check.Budget{}) {
			b.QuietFrom, b.QuietTo = p.quiet.from, p.quiet.to
			o.Budget = &b
		}
		all = append(all, o)
	}
	return all
}

// recordsOf gives a journal as judges read it.
func recordsOf(journal []sop.Record) []check.Record {
	waived := regexp.MustCompile(`^waived (\S+):`)
	all := make([]check.Record, len(journal))
	for i, r := range journal {
		all[i] = check.Record{At: r.Time, Seq: r.Seq, Step: r.Step, Title: r.Title, Host: r.Host, State: check.RecordState(r.State), Act: r.Act, Detail: r.Detail}
		if w := waived.FindStringSubmatch(r.Detail); w != nil && r.State == sop.Warned {
			all[i].Waived = w[1]
		}
		if r.Act != "" {
			var host string
			if all[i].Effect, host = effectOf(r.Act); host != "" {
				all[i].Host = host
			}
		}
	}
	return all
}

// effectOf reads off the words of an act what it does to the cluster, and on
// which host.
func effectOf(act string) (check.Effect, string) {
	words, host, ok := cutLast(act, " on ")
	switch {
	case !ok:
		if h, learner := strings.CutSuffix(strings.TrimPrefix(act, "add "), " as learner"); learner {
			return check.AddsLearner, h
		}
		if strings.HasPrefix(act, "let the cluster go down to ") || act == "cancel the downgrade" {
			return check.TurnsVersion, ""
		}
		switch sop.AuthVerb(act) {
		case sop.DropRootUser:
			return check.DropsUser, ""
		case sop.AddRootUser, sop.GrantRoot:
			return check.MakesUser, ""
		}
		return check.Other, ""
	case strings.HasPrefix(words, "refresh the endpoints in "):
		return check.NamesMembers, host
	case words == "promote the learner":
		return check.Promotes, host
	case strings.HasPrefix(words, "remove member "):
		return check.RemovesMember, host
	case strings.HasSuffix(words, "/.removed-replay"): // a copy, made to be deleted
		return check.Other, host
	case strings.HasPrefix(words, "set aside "), strings.HasPrefix(words, "delete what is in "):
		return check.TakesData, host
	case strings.HasPrefix(words, "systemctl stop ") && strings.Contains(words, "etcd"):
		return check.StopsMember, host
	case strings.HasPrefix(words, "systemctl start ") && strings.Contains(words, "etcd"):
		return check.StartsMember, host
	}
	return check.Other, host
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// auditOf gives the difference between two fingerprints of all hosts.
func auditOf(before, after map[string]string) *check.Audit {
	a := &check.Audit{}
	add := func(name, what string) {
		c := check.FileChange{Path: name, What: what}
		if i := strings.Index(name, ":/"); i >= 0 { // an IPv6 address has colons too
			c.Host, c.Path = name[:i], name[i+1:]
		}
		a.Changes = append(a.Changes, c)
	}
	for name, was := range before {
		switch now, there := after[name]; {
		case !there:
			add(name, check.Gone)
		case now != was:
			add(name, check.Changed)
		}
	}
	for name := range after {
		if _, there := before[name]; !there {
			add(name, check.New)
		}
	}
	slices.SortFunc(a.Changes, func(a, b check.FileChange) int { return strings.Compare(a.String(), b.String()) })
	return a
}

// judgeOperators judges what operators did, when all have ended.
func (s *stage) judgeOperators(ctx context.Context) {
	s.taken.Operators = s.operators()
	if s.hurt != nil {
		s.taken.Faults, s.taken.Others = s.hurt()
	}
	s.findings(ctx, s.taken, check.ForOperators(s.taken)...)
}

// --- judged again ---

var (
	// ErrNoRun says that a directory holds no run that can be judged.
	ErrNoRun = errors.New("not a run")
	// ErrDamaged says that a run is not as it was when it ended, or ends too
	// early: nobody can tell how it went.
	ErrDamaged = errors.New("the run is damaged")
)

// Check judges a saved run again, from its directory alone: what checkers say
// of history, events, journals and views. How each operator ended, and what the
// lab itself found, is taken from the run's own summary.
//
// An error wraps ErrNoRun for what is no run or one of another schema, and
// ErrDamaged for one that is truncated, corrupt or changed; there is no pass
// beside either. A run that was cut off before its evidence was taken has the
// verdict unknown at best.
func Check(ctx context.Context, path string) (Summary, error) {
	d := runDir(path)
	var head runHead
	if err := d.read(runFile, &head); err != nil {
		return Summary{Verdict: Unknown}, err
	}
	if head.Schema != runSchema {
		return Summary{Verdict: Unknown}, fmt.Errorf("check %s: %w: schema %d in %s, this program reads %d", path, ErrNoRun, head.Schema, runFile, runSchema)
	}
	var kept keptEvidence
	err := d.read(evidenceFile, &kept)
	if errors.Is(err, fs.ErrNotExist) {
		return d.checkCutOff(ctx, head)
	}
	if err != nil {
		return Summary{Verdict: Unknown}, err
	}
	if kept.Schema != runSchema {
		return Summary{Verdict: Unknown}, fmt.Errorf("check %s: %w: schema %d in %s, this program reads %d", path, ErrNoRun, kept.Schema, evidenceFile, runSchema)
	}
	if err := d.unchanged(kept.Files); err != nil {
		return Summary{Verdict: Unknown}, err
	}
	var was Summary
	if err := d.read(summaryFile, &was); err != nil {
		return Summary{Verdict: Unknown}, err
	}
	e, err := d.evidence(kept)
	if err != nil {
		return Summary{Verdict: Unknown}, err
	}
	was.Dir = path
	return again(ctx, was, e), nil
}

// read reads a file of JSON.
func (d runDir) read(name string, v any) error {
	b, err := os.ReadFile(d.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == runFile:
		return fmt.Errorf("check %s: %w: there is no %s in it", d, ErrNoRun, name)
	case err != nil:
		return fmt.Errorf("check %s: %w", d, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("check %s: %w: %s: %w", d, ErrDamaged, name, err)
	}
	return nil
}

// unchanged sees that all files of the run are there, and as they were.
func (d runDir) unchanged(files map[string]string) error {
	if files[summaryFile] == "" {
		return fmt.Errorf("check %s: %w: %s names no %s", d, ErrDamaged, evidenceFile, summaryFile)
	}
	for name, want := range files {
		if filepath.Base(name) != name {
			return fmt.Errorf("check %s: %w: %s names a file elsewhere: %q", d, ErrDamaged, evidenceFile, name)
		}
		sum, err := d.sum(name)
		if err != nil {
			return fmt.Errorf("check %s: %w: %w", d, ErrDamaged, err)
		}
		if sum != want {
			return fmt.Errorf("check %s: %w: %s is not as it was when the run ended (sha256 %.12s, was %.12s)", d, ErrDamaged, name, sum, want)
		}
	}
	return nil
}

// evidence puts the evidence together again.
func (d runDir) evidence(kept keptEvidence) (check.Evidence, error) {
	e := kept.Evidence
	has := func(name string) bool { return kept.Files[name] != "" }
	damaged := func(err error) error {
		if errors.Is(err, workload.ErrForeign) { // of another schema, since it is as it was
			return fmt.Errorf("check %s: %w: %w", d, ErrNoRun, err)
		}
		return fmt.Errorf("check %s: %w: %w", d, ErrDamaged, err)
	}
	var err error
	if has(historyFile) {
		if e.History, err = workload.ReadHistory(d.path(historyFile)); err != nil && !errors.Is(err, workload.ErrTruncated) {
			return e, damaged(err)
		}
		// One that was truncated when the run ended is evidence too: the sum is
		// right.
	}
	if has(eventsFile) {
		if e.Log, err = check.ReadLog(d.path(eventsFile)); err != nil {
			return e, damaged(err)
		}
	}
	if len(kept.Journal) != len(e.Operators) {
		return e, damaged(fmt.Errorf("%d operators, and the journals of %d", len(e.Operators), len(kept.Journal)))
	}
	var journal []sop.Record
	if has(journalFile) {
		if journal, err = readJournal(d.path(journalFile)); err != nil {
			return e, damaged(err)
		}
	}
	for i, n := range kept.Journal {
		if n < 0 || n > len(journal) {
			return e, damaged(fmt.Errorf("%s ends before the records of %s", journalFile, e.Operators[i].Name))
		}
		e.Operators[i].Records = recordsOf(journal[:n])
		journal = journal[n:]
	}
	if len(journal) > 0 {
		return e, damaged(fmt.Errorf("%s has %d records of nobody", journalFile, len(journal)))
	}
	return e, nil
}

// again is the summary with the checkers' findings made anew.
func again(ctx context.Context, was Summary, e check.Evidence) Summary {
	now := was
	now.Verdict, now.Reasons, now.Blamed, now.Checks = Pass, nil, nil, nil
	judged := was.Checks != nil && e.History != nil || len(e.Operators) > 0
	var checkers []check.Checker
	if e.History != nil && len(e.Views) > 0 {
		checkers = check.ForLoad(e)
	}
	checkers = append(checkers, check.ForOperators(e)...)
	anew := func(name string) bool {
		return slices.ContainsFunc(checkers, func(c check.Checker) bool { return c.Name == name })
	}
	// What is not for checkers to say stands as it was.
	for _, b := range was.Blamed {
		if !anew(b.Checker) {
			now.blamed(b)
		}
	}
	for _, p := range was.Procedures {
		now.Verdict = worse(now.Verdict, p.Verdict)
	}
	for _, f := range was.Checks {
		if !anew(f.Checker) {
			now.Checks = append(now.Checks, f)
			now.Verdict = worse(now.Verdict, f.Verdict)
		}
	}
	s := &stage{summary: &now, history: e.History}
	s.findings(ctx, e, checkers...)
	if e.History != nil {
		now.LostWrites = len(s.lost)
	}
	if !judged && now.Verdict == Pass {
		now.blame(Unknown, "there is nothing in it that could be judged")
	}
	return now
}

// checkCutOff judges what there is of a run that was cut off: a history may
// show that a promise was broken, and cannot show that all were kept.
func (d runDir) checkCutOff(ctx context.Context, head runHead) (Summary, error) {
	sum := Summary{Verdict: Pass, Seed: head.Seed, Name: head.Name, Began: head.Began, Procedures: []Procedure{}, Checks: []Finding{}, Unknown: []string{}, Dir: string(d)}
	sum.blame(Unknown, "the run was cut off before its evidence was taken")
	h, err := workload.ReadHistory(d.path(historyFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sum, nil
	case errors.Is(err, workload.ErrForeign):
		return sum, fmt.Errorf("check %s: %w: %w", d, ErrNoRun, err)
	case h == nil:
		return sum, fmt.Errorf("check %s: %w: %w", d, ErrDamaged, err)
	case err != nil:
		sum.blame(Unknown, "%v", err)
	}
	sum.AckedWrites, sum.EtcdVersion = h.Acked(), versionsOf(h)
	e := check.Evidence{History: h}
	checkers := []check.Checker{check.Linearizable(), check.SecondOpinion()}
	for _, c := range check.ForLoad(e) {
		if c.Name == check.Watches().Name || c.Name == check.Leases().Name {
			checkers = append(checkers, c)
		}
	}
	s := &stage{summary: &sum, history: h}
	s.findings(ctx, e, checkers...)
	return sum, nil
}
