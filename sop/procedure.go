package sop

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/pki"
)

// A Procedure is one standard operating procedure with its parameters filled
// in: AddMember{Host: "10.10.10.13"} is a Procedure, "adding members" is not.
type Procedure interface {
	// String is the procedure and its subject, as it is typed:
	// "addMember 10.10.10.13".
	String() string
	// Plan gives the steps that lead from v to the goal. It reads nothing but
	// v. An empty Plan means that the goal is reached; a *Refusal says that no
	// plan is safe from here.
	Plan(v View) (Plan, error)
}

// A Plan is what is to be done, in order.
type Plan struct {
	// Needs must hold before the first change; a refusal here leaves
	// everything as it was. Steps carry needs of their own.
	Needs []Safeguard
	// Reached must hold for an empty plan to mean that the goal is reached: what
	// could not be looked at may be otherwise.
	Reached []Safeguard
	// Consent is what a human has to agree to, nil when nothing is lost.
	Consent *Consent
	// Warnings are said aloud and stop nothing.
	Warnings []string
	Stages   []Stage
	// NoCluster is set when the plan has no cluster to keep its lock in, so
	// that the lock is kept on the hosts.
	NoCluster bool
	// ReadOnly is set when the plan changes nothing in the cluster or on its
	// hosts, and so takes no lock.
	ReadOnly bool
	// Subjects are the hosts that the plan is about, looked at before every
	// change; none when it is about all of them.
	Subjects []string
	// Expected is how long it may take, and why; empty when that is not told.
	Expected string
	// GiveUp is the command that takes back a plan that was cut off; empty
	// when there is nothing to take back.
	GiveUp string
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Stages) == 0 }

// Steps gives all steps in order.
func (p Plan) Steps() []Step {
	var all []Step
	for _, s := range p.Stages {
		all = append(all, s.Steps...)
	}
	return all
}

// A Stage is a group of steps under one title, as an administrator would tell
// it: "announce as learner".
type Stage struct {
	Title string
	Steps []Step
}

// A Step makes at most one change in one place and can tell when it has taken.
type Step struct {
	Title string      // imperative and lower case: "promote to voter"
	Host  string      // where it acts; empty for the cluster or the admin host
	Also  []string    // hosts that its conditions ask about besides
	Needs []Safeguard // must hold in a fresh View just before Act
	Act   Act         // nil in a step that only waits
	// Until ends the step. A step whose Until holds beforehand is skipped. It
	// is never nil.
	Until Condition
	// Patience names the row of the table of deadlines that ends the wait.
	Patience Patience
	// Longer is added to that deadline.
	Longer time.Duration
	// Etcd is set where the time is spent waiting for etcd, not for us.
	Etcd bool
	// Nudge writes to the cluster while a step without Act waits, for what etcd
	// only does when something is written.
	Nudge bool
	// Abreast is set where the step has nothing to wait for on other hosts. Steps
	// that follow each other and have it are taken side by side, those of one host
	// in order.
	Abreast bool
	// Together is set where the act is done as soon as it was made. Steps of one
	// host that follow each other and have it are sent there in one go.
	Together bool
	// Sees is all that a step without Act has to see of Host while it waits; nil
	// for the whole host.
	Sees *Glimpse
	// Rest ends a step without Act once the cluster has been left in peace for so
	// long since the last change of the run, whatever its Until says.
	Rest time.Duration
	// Shake is set where its safeguards ask for TLS handshakes from Host.
	Shake bool
	// Hash is set where they ask what the members' data hashes to.
	Hash bool
	// Try is set where they ask what the etcd that Host is to run makes of its
	// configuration.
	Try bool
}

// A Condition is a question to a View. A nil answer means that it holds; an
// error says what is missing, in words fit for a progress line. A Condition
// that cannot tell does not hold.
type Condition func(v View) error

// All holds when every one of cs does; the first that does not answers.
func All(cs ...Condition) Condition {
	return func(v View) error {
		for _, c := range cs {
			if err := c(v); err != nil {
				return err
			}
		}
		return nil
	}
}

// A Safeguard is a Condition that protects the cluster from its administrator.
// It is waived by name, one at a time; nothing waives them all.
type Safeguard struct {
	Name  string
	Holds Condition
	// Show is the command with which an administrator sees it for himself.
	Show string
	// Risk is what waiving it would risk; empty when it cannot be waived.
	Risk string
	// Passing is set where the safeguard only needs time: it is waited for, up
	// to the deadline of its Patience, before it refuses.
	Passing Patience
	// Also are hosts that it asks about besides the step's, while it is waited for.
	Also []string
}

// A Refusal is a safeguard that would not go on.
type Refusal struct {
	Safeguard string // its name, as -waive takes it
	Host      string // where it was measured; empty for the cluster
	Found     string // what was measured
	Needed    string // what would be needed
	Show      string // the command that shows it
	Risk      string // what waiving it would risk; empty when it cannot be waived
	Hint      string // what to do instead
	Changed   bool   // something had been changed before, so this is no clean refusal

	certain bool       // time will not mend it
	missing []pki.Leaf // certificates that somebody else has to sign
}

// ErrRefused is what every Refusal is.
var ErrRefused = errors.New("refused")

// Error gives name, host and what was found.
func (r *Refusal) Error() string {
	var b strings.Builder
	b.WriteString("refused by safeguard " + r.Safeguard)
	if r.Host != "" {
		b.WriteString(" on " + r.Host)
	}
	b.WriteString(": " + r.Found)
	return b.String()
}

// Is makes errors.Is(err, ErrRefused) hold.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

// Consent is what a human has to agree to before data is set aside or deleted.
type Consent struct {
	Verb string // "set aside", "delete"
	// Code is what has to be typed: the cluster ID in hex, or where none can be
	// had a code that the plan shows.
	Code string
	// Shown tells what is at stake, one line each.
	Shown []string
}

// refuse builds a Refusal for a Plan to return.
func refuse(safeguard, host, hint, format string, args ...any) *Refusal {
	return &Refusal{Safeguard: safeguard, Host: host, Hint: hint, Show: shows[safeguard], Found: fmt.Sprintf(format, args...)}
}

// shows are the commands that show what a Plan itself refuses for; those of
// safeguards stand beside them.
var shows = map[string]string{
	"ca-rotation":     "ls -R files/pki/ca",
	"consent":         "the same command with -plan",
	"etcd_clean":      "systemctl status etcd; ls -A DATA",
	"etcd_safeguard":  "systemctl status etcd; ls -A DATA",
	"heir":            "etcdctl endpoint status --cluster -w table",
	"inventory-sound": "status",
	"enough-hosts":    "etcdctl member list",
	"known-host":      "etcdctl member list",
	"known-reference": "status",
	"new-hosts":       "etcdctl member list",
	"known-version":   "etcdctl endpoint status --cluster -w table",
	"not-newer":       "etcdctl endpoint status --cluster -w table",
	"not-older":       "etcdctl endpoint status --cluster -w table",
	"one-minor":       "etcdctl endpoint status --cluster -w table",
	"patch-level":     "etcdctl endpoint status --cluster -w table",
	"no-member":       "etcdctl member list",
	"no-member-yet":   "etcdctl member list",
	"not-after":       "date",
	"no-overwriting":  "ls -l FILE",
	"quorum":          "etcdctl endpoint health --cluster",
	"snapshot-sound":  "ls -l FILE FILE.json; etcdutl snapshot status FILE",
	"valid-host":      "etcdctl member list",
	"valid-hosts":     "etcdctl member list",
	"valid-version":   "etcdctl endpoint status --cluster -w table",
	"voters-answer":   "etcdctl endpoint status --cluster -w table",
}
