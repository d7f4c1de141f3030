package sop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrInterrupted says that someone, or the loss of the terminal, stopped a run
// before its next change.
var ErrInterrupted = errors.New("interrupted")

// ExitStatus picks the exit status of a run that ended with err, and that changed
// something or did not.
//
//	  0  the goal is reached
//	  1  failed; also refused after the first change
//	  2  wrong usage: no such inventory or group, or one that cannot be read
//	  3  refused, nothing was changed
//	  4  undecided: a change was sent, and nobody can say whether it was made
//	  5  the ground failed: lab, SSH, Docker
//	130  interrupted
//
// Where several hold, the one that matters most to who comes next wins:
// undecided over interrupted, interrupted over all others.
func ExitStatus(err error, changed bool) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrUndecided):
		return 4
	case errors.Is(err, ErrInterrupted), errors.Is(err, context.Canceled):
		return 130
	case errors.Is(err, ErrGround):
		return 5
	case changed:
		return 1
	case errors.Is(err, ErrRefused), errors.Is(err, ErrPlanChanged):
		return 3
	case errors.Is(err, ErrInventory):
		return 2
	}
	return 1
}

// An Ending is how a run ended, for the one who has to decide what is next.
type Ending struct {
	Procedure Procedure
	Err       error // nil when the goal is reached
	// Result is the run's; its View is the last look.
	Result Result
	// Command is the whole command as it was typed, without consent and without
	// the hash of a reviewed plan; Prefix is what stands before the name of a
	// target: "INVENTORY=x.yml go tool mage ".
	Command, Prefix string
	// Now is when it ended.
	Now time.Time
}

// Text tells an end: what happened, whether one may walk away, what is pending,
// one command to go on, one to give up, and both by hand.
func (o Ending) Text() string {
	var b strings.Builder
	if o.Err != nil {
		b.WriteString(o.reason())
	}
	changed := o.Result.Changed
	open := o.open()
	b.WriteString(wrap("", "  ", o.walkAway(open)))
	if o.Err == nil {
		return b.String()
	}
	if changed && len(open) > 0 {
		s := open[0]
		what := s.Title
		if s.Host != "" {
			what += " on " + s.Host
		}
		if more := len(open) - 1; more > 0 {
			what += fmt.Sprintf(", and %d more", more)
		}
		b.WriteString(wrap("", "  ", "Pending: "+what))
	}
	if goOn := o.goOn(); goOn != "" {
		fmt.Fprintf(&b, "Go on:   %s\n", goOn)
		if changed {
			b.WriteString(byHand(open, o.Result.View))
		}
	}
	if giveUp := o.Result.Plan.GiveUp; changed && giveUp != "" {
		fmt.Fprintf(&b, "Give up: %s%s\n", o.Prefix, giveUp)
		if p, ok := parseGiveUp(giveUp, o.Now); ok && o.Result.View.Wanted.Name != "" {
			if plan, err := p.Plan(o.Result.View); err == nil {
				b.WriteString(byHand(openSteps(plan, o.Result.View), o.Result.View))
			}
		}
	}
	return b.String()
}

// reason tells why a run stopped.
func (o Ending) reason() string {
	var r *Refusal
	if !errors.As(o.Err, &r) {
		if o.interrupted() {
			return "interrupted: it stopped before the next change\n"
		}
		// Mage puts a word of its own before it.
		const word = "Error: "
		return strings.TrimPrefix(wrap(word, "  ", o.Err.Error()), word)
	}
	return r.Text()
}

func (o Ending) interrupted() bool {
	return errors.Is(o.Err, context.Canceled) || errors.Is(o.Err, ErrInterrupted)
}

// Text tells a refusal: the safeguard, what was measured and what is needed,
// on which host, the command that shows it, and what waiving it would risk.
func (r *Refusal) Text() string {
	var b strings.Builder
	head := "refused by safeguard " + r.Safeguard
	if r.Host != "" {
		head += " on " + r.Host
	}
	if r.Changed {
		head += ", after something had been changed"
	}
	b.WriteString(head + "\n")
	row := func(name, s string) {
		if s != "" {
			b.WriteString(wrap(fmt.Sprintf("  %-8s ", name), strings.Repeat(" ", 11), s))
		}
	}
	row("found", r.Found)
	row("needed", r.Needed)
	if r.Show != "" {
		fmt.Fprintf(&b, "  %-8s %s\n", "see", r.Show)
	}
	row("instead", r.Hint)
	if r.Risk != "" {
		row("waiving", fmt.Sprintf("-waive=%s passes over it; the risk: %s", r.Safeguard, r.Risk))
	}
	return b.String()
}

// open are the steps of the plan that do not hold in the last look.
func (o Ending) open() []Step {
	if o.Result.View.Wanted.Name == "" {
		return nil // there was no look
	}
	return openSteps(o.Result.Plan, o.Result.View)
}

func openSteps(p Plan, v View) []Step {
	return slices.DeleteFunc(p.Steps(), func(s Step) bool { return s.Until(v) == nil })
}

// walkAway says whether one may.
func (o Ending) walkAway(open []Step) string {
	v, n := o.Result.View, o.Result.View.Votes()
	const yes, no = "Safe to walk away: ", "NOT safe to walk away: "
	switch {
	case o.Err == nil && v.Exists() && !n.HasQuorum():
		return no + "the goal is reached, but the cluster has no quorum."
	case o.Err == nil:
		return yes + "the goal is reached."
	case errors.Is(o.Err, ErrUndecided):
		return no + "a change was sent, and nobody can say yet whether it was made."
	case !o.Result.Changed:
		return yes + "nothing was changed."
	case v.Wanted.Name == "":
		return no + "something was changed, and there was no look since."
	case o.Result.Plan.NoCluster && len(open) > 0:
		return no + fmt.Sprintf("%d steps are open, and until they are done no cluster serves here.", len(open))
	case !v.Exists():
		return no + "no member answers: nothing can be read or written."
	case !n.HasQuorum():
		return no + fmt.Sprintf("%d of %d voters answer, which is no quorum: nothing can be written.", n.Alive(), n.Voters)
	case n.Spare() < 1:
		return no + fmt.Sprintf("%d of %d voters answer, and none may fail.", n.Alive(), n.Voters)
	case len(v.Learners()) > 0:
		return yes + fmt.Sprintf("%d of %d voters answer; a learner is pending, and until it is promoted or removed no other member can be added.", n.Alive(), n.Voters)
	}
	return yes + fmt.Sprintf("%d of %d voters answer, and %d may fail.", n.Alive(), n.Voters, n.Spare())
}

// goOn is the one command that goes on from here.
func (o Ending) goOn() string {
	var r *Refusal
	switch {
	case errors.Is(o.Err, ErrPlanChanged):
		return o.Command + " -plan   # to be reviewed again"
	case !errors.As(o.Err, &r):
		return o.Command
	case r.Safeguard == consentName && r.Hint == "" && o.Result.Plan.Consent != nil:
		return o.Command + " -confirm=" + o.Result.Plan.Consent.Code
	}
	return o.Command + "   # once that is mended"
}

// byHand gives what one would type instead, as far as it fits here: all of it,
// or what touches the membership, which is what one must not get wrong.
func byHand(open []Step, v View) string {
	const most = 4
	var all, members []string
	for _, s := range open {
		if s.Act == nil {
			continue
		}
		lines := s.Act.ByHand(v)
		all = append(all, lines...)
		if changesMembership(s.Act) {
			members = append(members, lines...)
		}
	}
	shown := all
	if len(all) > most {
		shown = members
		if len(members) == 0 {
			shown = all
		}
		shown = shown[:min(most, len(shown))]
	}
	var b strings.Builder
	for _, c := range shown {
		fmt.Fprintf(&b, "         $ %s\n", c)
	}
	if more := len(all) - len(shown); more > 0 {
		fmt.Fprintf(&b, "         and %d more, which -plan shows in their order\n", more)
	}
	return b.String()
}

// parseGiveUp makes a procedure of the command that a Plan gives for giving
// up.
func parseGiveUp(command string, now time.Time) (Procedure, bool) {
	words := strings.Fields(command)
	switch {
	case len(words) == 2 && words[0] == "removeMember":
		return RemoveMember{Host: words[1], Stamp: Stamp(now)}, true
	case len(words) == 2 && words[0] == "addMember":
		return AddMember{Host: words[1]}, true
	case len(words) > 1 && words[0] == "upgrade":
		return Upgrade{Version: words[1], Down: len(words) > 2}, true
	case len(words) == 2 && words[0] == "rotateCerts":
		return RotateAuthority{Stride: Abandon, Stamp: Stamp(now)}, true
	case len(words) == 1 && words[0] == "purgeCluster":
		return PurgeCluster{}, true
	}
	return nil, false
}

// Objections are the safeguards that do not hold in a View and would refuse the
// first change of a plan, each with what it found. Those that only need time are
// not among them.
func (p Plan) Objections(v View, names ...string) []*Refusal {
	needs := slices.Clone(p.Needs)
	if open := openSteps(p, v); len(open) > 0 {
		needs = append(needs, open[0].Needs...)
	}
	var all []*Refusal
	for _, s := range needs {
		why := s.Holds(v)
		if why == nil || isHidden(why) || s.Passing != Brief || waived(s, why, names) {
			continue
		}
		var r *Refusal
		if !errors.As(refusalOf(s, why), &r) || slices.ContainsFunc(all, func(o *Refusal) bool { return o.Safeguard == r.Safeguard && o.Found == r.Found }) {
			continue
		}
		all = append(all, r)
	}
	return all
}

// A PlanRecord is a plan for programs.
type PlanRecord struct {
	Procedure string       `json:"procedure"`
	Hash      string       `json:"hash"`
	Warnings  []string     `json:"warnings,omitempty"`
	Expected  string       `json:"expected,omitempty"` // how long it may take
	Consent   string       `json:"consent,omitempty"`  // the code to give
	Refused   []string     `json:"refused,omitempty"`  // by these safeguards, as things are
	Steps     []StepRecord `json:"steps"`
}

// A StepRecord is a step for programs.
type StepRecord struct {
	Stage  string   `json:"stage"`
	Title  string   `json:"title"`
	Host   string   `json:"host,omitempty"`
	Holds  bool     `json:"holds"` // what it wants is so already
	Needs  []string `json:"needs,omitempty"`
	ByHand []string `json:"by_hand,omitempty"`
}

// Record gives a plan for programs.
func (p Plan) Record(name string, v View, waived ...string) PlanRecord {
	rec := PlanRecord{Procedure: name, Hash: p.Digest(v), Warnings: p.Warnings, Expected: p.Expected, Steps: []StepRecord{}}
	if p.Consent != nil {
		rec.Consent = p.Consent.Code
	}
	for _, r := range p.Objections(v, waived...) {
		rec.Refused = append(rec.Refused, r.Safeguard)
	}
	for _, stage := range p.Stages {
		for _, s := range stage.Steps {
			sr := StepRecord{Stage: stage.Title, Title: s.Title, Host: s.Host, Holds: s.Until(v) == nil}
			for _, n := range s.Needs {
				sr.Needs = append(sr.Needs, n.Name)
			}
			if s.Act != nil {
				sr.ByHand = s.Act.ByHand(v)
			}
			rec.Steps = append(rec.Steps, sr)
		}
	}
	return rec
}

// consentName is the safeguard that a human is.
const consentName = "consent"

// Agreement asks a human for consent.
type Agreement struct {
	// Given is the code that came with the command; empty when none did.
	Given string
	// In is the terminal to ask at; nil when there is none.
	In io.Reader
	// Out is where what is at stake is shown.
	Out io.Writer
}

// Ask shows what is at stake and takes the code. Anything but the right code is
// a refusal. It ends with ctx; a line that is typed after that goes unread.
func (a Agreement) Ask(ctx context.Context, c Consent) error {
	var b strings.Builder
	fmt.Fprintf(&b, "This will %s:\n", c.Verb)
	for _, s := range c.Shown {
		b.WriteString(wrap("  ", "    ", Plain(s, a.In == nil)))
	}
	if _, err := io.WriteString(a.Out, b.String()); err != nil {
		return fmt.Errorf("%w: nobody watches any more: %w", ErrInterrupted, err)
	}
	const needed = "the code of what is to be lost, which is the cluster's ID where it has one"
	no := func(found string) error {
		return &Refusal{Safeguard: consentName, Found: found, Needed: needed, Show: shows[consentName]}
	}
	switch {
	case c.Code == "":
		return no("there is no code, so nobody can agree")
	case a.Given == c.Code:
		return nil
	case a.Given != "":
		// The right code is not told to whoever came with a wrong one: that is
		// how the wrong cluster is destroyed.
		return &Refusal{Safeguard: consentName, Found: fmt.Sprintf("-confirm=%s is not the code of what is here", a.Given),
			Needed: needed, Show: shows[consentName], Hint: "is this the right inventory? -plan shows the code"}
	case a.In == nil:
		return no("nobody is at a terminal to agree")
	}
	fmt.Fprintf(a.Out, "To agree, type the code %s: ", c.Code)
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		s, err := bufio.NewReader(a.In).ReadString('\n')
		typed <- answer{s, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.Out)
		return ctx.Err()
	case got := <-typed:
		if got.err != nil && got.text == "" {
			fmt.Fprintln(a.Out)
			return no("nothing was typed")
		}
		if s := strings.TrimSpace(got.text); s != c.Code {
			return no(fmt.Sprintf("%q was typed", s))
		}
	}
	return nil
}

// CutOff finds when a procedure began that was cut off after its first change,
// and was not finished since, within the hour before now: the event that a
// rerun goes on with.
func (s *Site) CutOff(procedure string, now time.Time) (began time.Time, ok bool) {
	const latest = time.Hour
	// Rehearsals may be kept in the same place; their directories name no
	// procedure.
	verb, _, _ := strings.Cut(procedure, " ")
	names, err := filepath.Glob(filepath.Join(s.RunsDir(), "*-"+verb+"*", "journal.jsonl"))
	if err != nil {
		return time.Time{}, false
	}
	slices.Sort(names) // they begin with their time
	for _, name := range slices.Backward(names) {
		records := readRun(name)
		if len(records) == 0 || records[0].Procedure != procedure {
			continue
		}
		if records[len(records)-1].State == Finished || now.Sub(records[0].Time) > latest {
			break
		}
		if slices.ContainsFunc(records, func(r Record) bool { return r.State == Recorded }) {
			began, ok = records[0].Time, true // and the one before it may have been the first
		}
	}
	return began, ok
}

// CutOffMove gives the last hand-over within the hour before now that named no
// new leader and was cut off after its change was written down: it may have been
// made, and another would be one too many.
func (s *Site) CutOffMove(now time.Time) (MoveLeadership, bool) {
	names, err := filepath.Glob(filepath.Join(s.RunsDir(), "*-moveLeader*", "journal.jsonl"))
	if err != nil || len(names) == 0 {
		return MoveLeadership{}, false
	}
	slices.Sort(names) // they begin with their time
	records := readRun(names[len(names)-1])
	if len(records) == 0 {
		return MoveLeadership{}, false
	}
	from, away := strings.CutPrefix(records[0].Procedure, "moveLeader from ")
	_, off := s.CutOff(records[0].Procedure, now)
	return MoveLeadership{From: from}, away && off
}

// readRun reads what it can of a journal, which may have been cut off.
func readRun(name string) []Record {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	records, _ := ReadJournal(f)
	return records
}
