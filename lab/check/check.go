package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

var (
	// ErrViolation says that a promise was broken.
	ErrViolation = errors.New("violation")
	// ErrUnknown says that a checker could not decide. It has not passed.
	ErrUnknown = errors.New("undecided")
)

// A Checker judges one promise. Check gives nil, or an error that wraps
// ErrViolation or ErrUnknown. It does not change the evidence.
type Checker struct {
	Name  string
	Check func(ctx context.Context, e Evidence) error
}

// All are the checkers that judge any load on any cluster. For gives those of
// a run.
func All() []Checker {
	return []Checker{NoAckedWriteLost(), Linearizable(), HashesAgree(), MembershipAgrees()}
}

// For gives the checkers that evidence calls for: ForLoad and ForOperators.
func For(e Evidence) []Checker { return append(ForLoad(e), ForOperators(e)...) }

// ForLoad gives those that judge a load and its cluster: All, the second
// opinion, and those for whose promise there was an occasion. Without leases,
// say, there is nothing to say of leases.
func ForLoad(e Evidence) []Checker {
	all := append(All(), SecondOpinion())
	if h := e.History; h != nil && h.Watchers > 0 {
		all = append(all, Watches())
	}
	if h := e.History; h != nil && h.LeaseClients > 0 {
		all = append(all, Leases())
	}
	return all
}

// ForOperators gives those that judge the operators, when all have ended.
func ForOperators(e Evidence) []Checker {
	var all []Checker
	if len(e.Operators) > 0 {
		all = append(all, VotesKept(), OneChangeAtATime(), Safeguards(), RefusalsHarmless(), Resumed(), JournalTruthful())
	}
	if e.budgeted() {
		all = append(all, Available())
	}
	return all
}

// A Verdict is how a check ended.
type Verdict string

// The verdicts of a check that was made.
const (
	Pass      Verdict = "pass"
	Violation Verdict = "violation"
	Undecided Verdict = "unknown"
)

// A Finding is the verdict of one checker, Err its reason, nil with a pass.
type Finding struct {
	Checker string
	Verdict Verdict
	Err     error
}

// Judge makes the checks in turn. An error that wraps neither sentinel, and a
// ctx that has ended, count as undecided.
func Judge(ctx context.Context, e Evidence, checkers ...Checker) []Finding {
	if e.History != nil {
		e.order = &order{}
	}
	var findings []Finding
	for _, c := range checkers {
		err := ctx.Err()
		if err == nil {
			err = c.Check(ctx, e)
		}
		f := Finding{c.Name, Undecided, err}
		switch {
		case err == nil:
			f.Verdict = Pass
		case errors.Is(err, ErrViolation):
			f.Verdict = Violation
		}
		findings = append(findings, f)
	}
	return findings
}

// Evidence is what checkers judge.
type Evidence struct {
	// History is what the load's clients saw, and Log what a member says of the
	// same keys; nil where it could not be had (LogErr). Both are kept apart
	// from the rest.
	History *workload.History `json:"-"`
	Log     *Log              `json:"-"`
	LogErr  string            `json:"log_error,omitempty"`
	// Views are what the members say, each dialled on its own after the run.
	Views []View `json:"views"`
	// Intended are the peer URLs that the members should have. Empty means
	// that nobody said.
	Intended []string `json:"intended,omitempty"`
	// Taken is when the members were asked.
	Taken time.Time `json:"taken"`
	// Operators are those who worked on the cluster, in the order in which they
	// began. Others says that there were more, whose journals are not here: then
	// nobody can tell from these alone who was a member when.
	Operators []Operator `json:"operators,omitempty"`
	Others    bool       `json:"others,omitempty"`
	// Faults are what else the cluster went through.
	Faults []Fault `json:"faults,omitempty"`

	order *order // made once for all checkers of a Judge
}

// order keeps the timeline of a history.
type order struct{ t *timeline }

// timeline is the order of the history's changes. It is read only.
func (e Evidence) timeline() *timeline {
	if e.order == nil {
		return newTimeline(e.History, e.log(), e.Views)
	}
	if e.order.t == nil {
		e.order.t = newTimeline(e.History, e.log(), e.Views)
	}
	return e.order.t
}

// log is the log, or what a watcher was told from the start to its end without
// a break.
func (e Evidence) log() *Log {
	if e.Log != nil || e.History == nil {
		return e.Log
	}
	return watched(e.History)
}

// A View is what one member says.
type View struct {
	Endpoint string `json:"endpoint"`
	// Err says what the member did not answer; empty when all is here.
	Err string `json:"error,omitempty"`

	MemberID  uint64 `json:"member_id"`
	ClusterID uint64 `json:"cluster_id"`
	Version   string `json:"version"`
	Leader    uint64 `json:"leader"`
	RaftTerm  uint64 `json:"raft_term"`
	// IsLearner is the member's own word, not its member list's.
	IsLearner bool     `json:"is_learner,omitempty"`
	Members   []Member `json:"members"`

	// Final are the keys below the history's prefix, read linearizably at
	// Revision.
	Final    map[string]Value `json:"final"`
	Revision int64            `json:"revision"`

	// Hash covers the key space at HashRevision, a compacted one, since
	// CompactRevision; hashes since different revisions say nothing about each
	// other. HashRevision 0 means that no hash was asked for.
	Hash            uint32 `json:"hash,omitempty"`
	HashRevision    int64  `json:"hash_revision,omitempty"`
	CompactRevision int64  `json:"compact_revision,omitempty"`
	HashErr         string `json:"hash_error,omitempty"` // why there is no hash
}

// A Member is an entry of a member list.
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"` // empty until the member has started
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls"`
	IsLearner  bool     `json:"is_learner,omitempty"`
}

func (m Member) String() string {
	name := m.Name
	if name == "" {
		name = "(unstarted)"
	}
	role := "voter"
	if m.IsLearner {
		role = "learner"
	}
	return fmt.Sprintf("%x %s %s %v", m.ID, name, role, m.PeerURLs)
}

// A Value is what a key holds.
type Value struct {
	Value       string `json:"value"`
	ModRevision int64  `json:"mod_revision"`
}

// answered gives ErrUnknown unless there are views and all are whole.
func (e Evidence) answered() error {
	if len(e.Views) == 0 {
		return fmt.Errorf("%w: no member was asked", ErrUnknown)
	}
	for _, v := range e.Views {
		if v.Err != "" {
			return fmt.Errorf("%w: member at %s: %s", ErrUnknown, v.Endpoint, v.Err)
		}
	}
	return nil
}

func violation(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrViolation, fmt.Errorf(format, a...))
}

func undecided(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrUnknown, fmt.Errorf(format, a...))
}
