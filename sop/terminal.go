package sop

// Output rules. What a procedure prints follows these, wherever it is printed.
//
//   - Progress and refusals go to stderr, results to stdout.
//   - A line tells one thing, and has 80 columns at most; what is longer goes on
//     in the next line, further in. Words that have to be copied whole, such as
//     commands, are never broken.
//   - Times bear their zone. How long a step took stands
//     behind it, unless that was nothing.
//   - Plain ASCII, always: no colour, no pictures. What hosts and members say is
//     kept word for word, but a byte that a terminal would act on is shown
//     escaped. On a terminal other languages' letters stay.
//   - A wait is told once per reason, and again only every ten seconds.
//   - The first line says what ground one stands on; the last lines say whether
//     it is safe to walk away, and how to go on and how to give up.
//   - Secrets are never printed.

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// columns is how wide a line may be.
const columns = 80

// tellAgain is how long a wait whose reason merely counts on stays untold.
const tellAgain = 10 * time.Second

// A Terminal is the journal that people watch.
type Terminal struct {
	w    io.Writer
	tty  bool
	zone *time.Location

	stage  string
	waits  map[string]time.Time // shapes of the reasons that were told in this step
	step   int
	open   string // the line of the step under way, which has no end yet
	answer string // a short answer, to be told with the end of its step
	failed error
}

// NewTerminal writes progress to w. With tty it shows the step that is under
// way in a line without end; else every line is whole. Times are shown in zone.
func NewTerminal(w io.Writer, tty bool, zone *time.Location) *Terminal {
	return &Terminal{w: w, tty: tty, zone: zone}
}

// Append implements Journal. A terminal that is gone stops the run: the error
// is ErrInterrupted.
func (t *Terminal) Append(r Record) error {
	if r.Step != t.step {
		t.step, t.waits, t.answer = r.Step, map[string]time.Time{}, ""
	}
	if r.Stage != "" && r.Stage != t.stage && r.State != Skipped {
		t.stage = r.Stage
		t.line(r.Stage, "== ")
	}
	switch r.State {
	case Began:
		t.tell(r, fmt.Sprintf("%s: %s", r.Procedure, r.Detail))
	case Skipped:
		// A rerun passes over most of the plan; the count of the next step
		// tells how much.
	case Recorded:
		if t.tty {
			t.end("")
			t.open = t.head(r) + subject(r)
			t.print(t.open)
		}
	case Answered:
		const short = 64
		if len(r.Detail) <= short && !strings.Contains(r.Detail, "\n") {
			t.answer = r.Detail
		} else {
			t.tell(r, "answer: "+r.Detail)
		}
	case Waiting:
		if t.news(r) {
			t.tell(r, "waiting: "+r.Detail)
		}
	case Done:
		end := ""
		if t.answer != "" {
			end = ": " + Plain(t.answer, !t.tty)
		}
		if took := r.Took.Round(100 * time.Millisecond); took > 0 {
			end += fmt.Sprintf(" (%.1fs)", took.Seconds())
		}
		if t.open != "" && utf8.RuneCountInString(t.open+end) <= columns {
			t.end(end)
			break
		}
		t.tell(r, subject(r)+end)
	case Warned:
		t.tell(r, "warning: "+r.Detail)
	case Finished:
		if r.Detail != "" {
			t.tell(r, r.Procedure+": "+r.Detail)
		} else {
			t.tell(r, r.Procedure+": done")
		}
	case Refused, Failed:
		if t.answer != "" {
			t.tell(r, "answer: "+t.answer)
		}
		t.end("") // the Ending tells the rest
	}
	return t.failed
}

// subject names a step and where it acts.
func subject(r Record) string {
	if r.Host == "" || strings.Contains(r.Title, r.Host) {
		return r.Title
	}
	return r.Host + ": " + r.Title
}

// news reports whether a wait is worth a line: its reason was not told in this
// step, or only its numbers have changed for ten seconds.
func (t *Terminal) news(r Record) bool {
	if t.waits == nil {
		t.waits = map[string]time.Time{}
	}
	shape := r.Title + "\x00" + strings.Map(func(c rune) rune {
		if unicode.IsDigit(c) {
			return -1
		}
		return c
	}, r.Detail)
	if last, told := t.waits[shape]; told && r.Time.Sub(last) < tellAgain {
		return false
	}
	t.waits[shape] = r.Time
	return true
}

func (t *Terminal) head(r Record) string {
	h := r.Time.In(t.zone).Format("15:04:05 MST ")
	if r.Of > 0 {
		w := len(strconv.Itoa(r.Of))
		h += fmt.Sprintf("%*d/%d ", w, r.Step, r.Of)
	}
	return h
}

func (t *Terminal) tell(r Record, s string) {
	t.end("")
	head := t.head(r)
	t.line(s, head)
}

// end closes the line of the step under way.
func (t *Terminal) end(with string) {
	if t.open == "" {
		return
	}
	t.open = ""
	t.print(with + "\n")
}

func (t *Terminal) line(s, head string) {
	t.end("")
	indent := strings.Repeat(" ", min(len(head), 16))
	for i, part := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		if i > 0 {
			head = indent // a text of several lines, such as a difference, keeps them
		}
		t.print(wrap(head, indent, Plain(part, !t.tty)))
	}
}

func (t *Terminal) print(s string) {
	if t.failed != nil {
		return
	}
	if _, err := io.WriteString(t.w, s); err != nil {
		t.failed = fmt.Errorf("%w: nobody watches any more: %w", ErrInterrupted, err)
	}
}

// wrap breaks a text at 80 columns, between words.
func wrap(head, indent, s string) string {
	var b strings.Builder
	b.WriteString(head)
	at := utf8.RuneCountInString(head)
	fresh := true
	for i, word := range strings.Split(s, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case !fresh && at+1+n > columns:
			b.WriteString("\n" + indent + word)
			at = len(indent) + n
		case i > 0:
			b.WriteString(" " + word)
			at += 1 + n
		default:
			b.WriteString(word)
			at += n
		}
		fresh = false
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// Plain gives a text that no terminal acts on: control characters are escaped,
// and with ascii all other than ASCII too. Line ends and tabs stay.
func Plain(s string, ascii bool) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r == utf8.RuneError && n <= 1, ascii && r > unicode.MaxASCII, !unicode.IsPrint(r):
			q := strconv.QuoteToASCII(s[i : i+n])
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// JSONLines is the journal for programs: one record per line.
func JSONLines(w io.Writer) Journal {
	enc := json.NewEncoder(w)
	return JournalFunc(func(r Record) error {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("%w: nobody reads any more: %w", ErrInterrupted, err)
		}
		return nil
	})
}

// Header tells what ground a procedure stands on. The place is PROD or LAB.
func Header(v View, place string) string {
	s := fmt.Sprintf("%s %s, cluster %s", place, v.Inventory.Path, v.Wanted.Cluster)
	if !v.Exists() {
		return wrap("", "  ", s+": no member answers")
	}
	n := v.Votes()
	s += fmt.Sprintf(" (%s), etcd %s, %d of %d voters alive, ", ID(v.ClusterID()), orNone(strings.Join(v.Versions(), ", ")), n.Alive(), n.Voters)
	switch spare := n.Spare(); {
	case !n.HasQuorum():
		s += "NO QUORUM"
	case spare == 0:
		s += "none may fail"
	case spare == 1:
		s += "1 more may fail"
	default:
		s += fmt.Sprintf("%d more may fail", spare)
	}
	leader := "none"
	if l, ok := v.Leader(); ok {
		leader = v.HostOf(l)
	}
	s += ", leader " + leader
	for _, m := range v.Learners() {
		s += ", learner " + v.HostOf(m)
	}
	if alarms := v.Alarms(); len(alarms) > 0 {
		s += ", ALARM " + strings.Join(alarms, ", ")
	}
	return wrap("", "  ", s)
}
