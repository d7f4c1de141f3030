package check

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// An Operator is one run of a procedure, as its journal and its surroundings
// tell of it.
type Operator struct {
	Name  string    `json:"name"`
	Args  []string  `json:"args"` // as they were typed, the verb first
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Status is its exit status, Wanted the one that it was to have. A refusal
	// before any change is 3.
	Status int  `json:"status"`
	Wanted int  `json:"wanted"`
	Killed bool `json:"killed,omitempty"`
	// Before and After are the hosts that were to be members when it began and
	// when it had ended; empty without a cluster.
	Before []string `json:"before,omitempty"`
	After  []string `json:"after,omitempty"`
	// Audit is what differs in the hosts' files between two looks at every byte,
	// just before it and just after; nil where nobody looked.
	Audit *Audit `json:"audit,omitempty"`
	// Budget is what it may cost the clients; nil where nobody said.
	Budget *Budget `json:"budget,omitempty"`
	// Records are its journal, which is kept apart.
	Records []Record `json:"-"`
}

func (o *Operator) verb() string {
	if len(o.Args) == 0 {
		return ""
	}
	return o.Args[0]
}

// ends says whether a procedure makes or ends a whole cluster, for which it
// needs consent and no votes.
func (o *Operator) ends() bool {
	return slices.Contains([]string{"createCluster", "destroyCluster", "purgeCluster", "purgeHost", "restore"}, o.verb())
}

// waives says whether a safeguard was passed over by name.
func (o *Operator) waives(name string) bool {
	return slices.ContainsFunc(o.Records, func(r Record) bool { return r.State == Warned && r.Waived == name })
}

// A RecordState is what a record says of its step.
type RecordState string

// The states that matter here, as journals spell them.
const (
	Recorded RecordState = "recorded"
	Sent     RecordState = "sent"
	Answered RecordState = "answered"
	Done     RecordState = "done"
	Skipped  RecordState = "skipped"
	Warned   RecordState = "warned"
	Refused  RecordState = "refused"
	Finished RecordState = "finished"
)

// An Effect is what a step does to a cluster, as far as it matters here.
type Effect string

// The effects. Any other act is Other, a step without one has none.
const (
	AddsLearner   Effect = "add learner"
	Promotes      Effect = "promote"
	RemovesMember Effect = "remove member"
	StopsMember   Effect = "stop member"
	StartsMember  Effect = "start member"
	TakesData     Effect = "take data"    // sets aside or deletes what is in a data directory
	TurnsVersion  Effect = "turn version" // lets the cluster version go down, or takes that back
	NamesMembers  Effect = "name members" // writes who is a member into a file
	DropsUser     Effect = "drop user"    // forgets a user, with his password and roles
	MakesUser     Effect = "make user"    // makes a user, or gives him a role
	Other         Effect = "other"
)

// membership says whether an effect changes the member list.
func (e Effect) membership() bool { return e == AddsLearner || e == Promotes || e == RemovesMember }

// A Record is one line of a journal.
type Record struct {
	At     time.Time   `json:"at"`
	Seq    int         `json:"seq"`            // counts from 1 through the journal
	Step   int         `json:"step,omitempty"` // 0 for the run as a whole
	Title  string      `json:"title,omitempty"`
	Host   string      `json:"host,omitempty"` // that it is about; empty for the cluster
	State  RecordState `json:"state"`
	Effect Effect      `json:"effect,omitempty"` // of the step's act
	Act    string      `json:"act,omitempty"`
	Detail string      `json:"detail,omitempty"`
	Waived string      `json:"waived,omitempty"` // the safeguard that was passed over, with Warned
}

func (r Record) String() string {
	s := r.Title
	if r.Act != "" {
		s = r.Act
	} else if r.Host != "" {
		s += " on " + r.Host
	}
	return s
}

// A step is what became of one act of an operator.
type step struct {
	Record             // the first that tells of it
	from, to time.Time // from its record to its answer, or to the end of the operator
	taken    bool      // seen to be so; else nobody can tell
}

// steps are the acts that an operator began, in turn.
func (o *Operator) steps() []step {
	var all []step
	at := map[int]int{} // step to index in all, of its last act
	for _, r := range o.Records {
		if r.Step == 0 {
			continue
		}
		i, begun := at[r.Step]
		switch r.State {
		case Recorded:
			if r.Effect == "" {
				continue
			}
			at[r.Step] = len(all)
			all = append(all, step{Record: r, from: r.At, to: o.Ended})
		case Answered:
			// With an error, perhaps; only what is seen to be so is done.
			if begun && all[i].to == o.Ended {
				all[i].to = r.At
			}
		case Done:
			if begun {
				all[i].taken = true
			}
		}
	}
	return all
}

// A roster is who is a member, by what operators have done.
type roster struct {
	voters, learners []string // hosts
	down             []string // stopped by an operator
	unsure           []string // of whom nobody can tell, since an answer is missing
	unknown          bool     // nobody can tell anything
}

func without(all []string, host string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(h string) bool { return h == host })
}

func with(all []string, host string) []string {
	if slices.Contains(all, host) {
		return all
	}
	return append(slices.Clone(all), host)
}

// after is the roster when a step was taken.
func (r roster) after(s step) roster {
	if !s.taken {
		if s.Effect.membership() {
			r.unsure = with(r.unsure, s.Host)
		}
		return r
	}
	if s.Effect.membership() {
		r.unsure = without(r.unsure, s.Host)
	}
	switch s.Effect {
	case AddsLearner:
		r.learners = with(r.learners, s.Host)
	case Promotes:
		r.learners, r.voters = without(r.learners, s.Host), with(r.voters, s.Host)
	case RemovesMember:
		r.learners, r.voters, r.down = without(r.learners, s.Host), without(r.voters, s.Host), without(r.down, s.Host)
	case StopsMember:
		r.down = with(r.down, s.Host)
	case StartsMember:
		r.down = without(r.down, s.Host)
	}
	return r
}

// promoted is the roster if the learners of whom nobody can tell are voters. A
// run that begins after one was killed plans from what it sees, and has nothing
// to say of a promotion that was made.
func (r roster) promoted() roster {
	for _, h := range r.unsure {
		if slices.Contains(r.learners, h) {
			r.learners, r.voters = without(r.learners, h), with(r.voters, h)
		}
	}
	return r
}

// walk goes through all acts of all operators, in turn, with the roster before
// and after each, and gives the last one. What makes or ends a whole cluster
// is taken by its result.
func (e Evidence) walk(visit func(o *Operator, s step, before, after roster)) roster {
	var now roster
	for i := range e.Operators {
		o := &e.Operators[i]
		if i == 0 {
			now.voters = o.Before
		}
		for _, s := range o.steps() {
			next := now
			if !o.ends() {
				next = now.after(s)
			}
			visit(o, s, now, next)
			now = next
		}
		switch {
		case !o.ends() || o.Status == 3 && !o.Killed:
		case o.Status == 0:
			now = roster{voters: o.After}
		default:
			now = roster{unknown: true}
		}
	}
	return now
}

// quorum is how many of n voters it takes.
func quorum(n int) int { return n/2 + 1 }

// dead counts the voters that a fault kept from voting at a moment.
func (e Evidence) dead(voters []string, at time.Time) []string {
	var all []string
	for _, f := range e.Faults {
		if !f.Kills || at.Before(f.Injected) || !f.Healed.IsZero() && at.After(f.Healed) {
			continue
		}
		for _, h := range f.Hosts {
			if slices.Contains(voters, h) {
				all = with(all, h)
			}
		}
	}
	return all
}

// VotesKept checks that no operator led the cluster to where one more crash
// would cost its quorum, unless that was said and agreed to (a waiver, or a
// cluster of fewer than three), and that none took the quorum itself by what it
// stopped.
func VotesKept() Checker {
	return Checker{Name: "votes-kept", Check: func(_ context.Context, e Evidence) error {
		var found faults
		e.walk(func(o *Operator, s step, before, after roster) {
			if o.ends() || e.Others || len(before.voters) == 0 || before.unknown || !s.taken {
				return
			}
			said := e.votes(o, s, before, after)
			if len(said) > 0 && len(e.votes(o, s, before.promoted(), after.promoted())) == 0 {
				return // all was well if a promotion without an answer was made
			}
			for _, f := range said {
				found.add("%s: after %q %s", o.Name, s, f)
			}
		})
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}

// votes tells what a step did to the votes that it ought not to have done.
func (e Evidence) votes(o *Operator, s step, before, after roster) (said []string) {
	n := len(after.voters)
	// Who dies once the change is on its way cannot be known to whoever makes it.
	dead := e.dead(after.voters, s.from)
	switch s.Effect {
	case Promotes, RemovesMember:
		// The way from one voter leads over two, and back to one where there was no
		// more than one before; whoever was down already takes nothing away when he
		// leaves.
		declared := o.waives("spare") || o.waives("voters-answer") || s.Effect == Promotes && n <= 2 ||
			s.Effect == RemovesMember && (slices.Contains(before.down, s.Host) || slices.Contains(e.dead(before.voters, s.from), s.Host) || n == 1 && len(o.Before) == 1)
		same := s.Effect == RemovesMember && n == len(before.voters) // it was a learner
		if n-len(dead)-1 < quorum(n) && !declared && !same {
			said = append(said, fmt.Sprintf("there are %d voters with %d dead, and one more would cost the quorum; no waiver says so", n, len(dead)))
		}
		if n-len(dead) < quorum(n) {
			said = append(said, fmt.Sprintf("%d of %d voters are dead, and there is no quorum", len(dead), n))
		}
	case StopsMember:
		down := dead
		for _, h := range after.down {
			if slices.Contains(after.voters, h) {
				down = with(down, h)
			}
		}
		if n > 2 && n-len(down) < quorum(n) {
			said = append(said, fmt.Sprintf("%d of %d voters are down, and there is no quorum", len(down), n))
		}
	}
	return said
}

// OneChangeAtATime checks that there was never more than one membership change
// pending: no learner beside another, no change of anything else while one
// waits to be promoted, and no two operators at it at once.
func OneChangeAtATime() Checker {
	return Checker{Name: "one-change-at-a-time", Check: func(_ context.Context, e Evidence) error {
		var found faults
		type change struct {
			o *Operator
			s step
		}
		var changes []change
		e.walk(func(o *Operator, s step, before, _ roster) {
			if !s.Effect.membership() {
				return
			}
			changes = append(changes, change{o, s})
			// One whose promotion has no answer may be a voter; etcd itself lets no
			// second learner in.
			pending := slices.DeleteFunc(without(before.learners, s.Host), func(h string) bool { return slices.Contains(before.unsure, h) })
			if len(pending) > 0 && !o.ends() {
				found.add("%s: %q while the learner on %s was pending", o.Name, s, pending[0])
			}
		})
		for i, a := range changes {
			for _, b := range changes[i+1:] {
				if a.o != b.o && a.s.from.Before(b.s.to) && b.s.from.Before(a.s.to) {
					found.add("%s and %s changed the membership at once: %q and %q", a.o.Name, b.o.Name, a.s, b.s)
				}
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}

// Resumed checks that an operator that was killed and called again comes to
// its goal, and makes no change again that was made: at most the one that was
// under way when it died.
func Resumed() Checker {
	return Checker{Name: "resumed", Check: func(_ context.Context, e Evidence) error {
		var found faults
		for i := range e.Operators {
			killed := &e.Operators[i]
			if !killed.Killed {
				continue
			}
			again := i + 1
			for again < len(e.Operators) && !slices.Equal(e.Operators[again].Args, killed.Args) {
				again++
			}
			if again == len(e.Operators) {
				continue // nobody wanted to know
			}
			o := &e.Operators[again]
			if o.Killed {
				continue // its own turn comes
			}
			if o.Status != 0 || !slices.ContainsFunc(o.Records, func(r Record) bool { return r.State == Finished }) {
				found.add("%s was killed, and the same command ended with exit status %d and not at its goal", killed.Name, o.Status)
			}
			var twice []string
			had := map[string]bool{}
			for _, s := range killed.steps() {
				if s.taken {
					had[s.String()] = true
				}
			}
			changed, dropped := false, false
			for _, s := range o.steps() {
				changed = changed || s.Effect.membership()
				dropped = dropped || s.Effect == DropsUser
				if changed && s.Effect == NamesMembers {
					continue // there are others to name by now
				}
				// That the version goes down and up again is done for the raft snapshots
				// that come of it; who cannot tell whether they are there does it again.
				if !had[s.String()] || s.Effect == TurnsVersion {
					continue
				}
				// Nobody can tell what password a user has while nobody is asked for it; so
				// one whom the killed operator may have made is made again.
				if dropped && s.Effect == MakesUser {
					continue
				}
				twice = append(twice, s.String())
				if s.Effect.membership() {
					found.add("%s was killed after %q, and the same command did that again", killed.Name, s)
				}
			}
			if len(twice) > 1 {
				found.add("%s was killed, and the same command did again what had been done: %q", killed.Name, twice)
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}

// JournalTruthful checks that what journals say was done is so: that each act
// was taken down before it was made, and that the members are those that come
// of all changes that were.
func JournalTruthful() Checker {
	return Checker{Name: "journal-truthful", Check: func(_ context.Context, e Evidence) error {
		var found faults
		for i := range e.Operators {
			o := &e.Operators[i]
			open := map[int]bool{}
			for i, r := range o.Records {
				if r.Seq != i+1 {
					found.add("%s: record %d of its journal is number %d: %q", o.Name, i+1, r.Seq, r)
					break
				}
				switch {
				case r.Step == 0 || r.Effect == "":
				case r.State == Recorded:
					open[r.Step] = true
				case (r.State == Sent || r.State == Answered) && !open[r.Step]:
					found.add("%s: %q was made before it was taken down", o.Name, r)
				}
			}
		}
		end := e.asked().walk(func(*Operator, step, roster, roster) {})
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		if len(e.Views) == 0 {
			return nil // there is no cluster to hold it against
		}
		if e.Others {
			return nil // whose journals are not here
		}
		if end.unknown {
			return undecided("what made or ended the cluster was cut off or failed, so nobody can tell who is a member")
		}
		if err := e.answered(); err != nil {
			return err
		}
		for _, v := range e.Views {
			var voters, learners []string
			for _, m := range v.Members {
				for _, u := range m.PeerURLs {
					if m.IsLearner {
						learners = with(learners, hostOf(u))
					} else {
						voters = with(voters, hostOf(u))
					}
				}
			}
			for _, h := range end.unsure {
				voters, learners = without(voters, h), without(learners, h)
				end.voters, end.learners = without(end.voters, h), without(end.learners, h)
			}
			if !same(voters, end.voters) || !same(learners, end.learners) {
				found.add("by the journals the voters are %v and the learners %v; %s lists %v and %v",
					end.voters, end.learners, v.Endpoint, voters, learners)
			}
		}
		if err := found.err(); err != nil {
			return violation("%w", err)
		}
		return nil
	}}
}

// asked is the evidence with those operators alone that had ended when the
// members were asked.
func (e Evidence) asked() Evidence {
	e.Operators = slices.DeleteFunc(slices.Clone(e.Operators), func(o Operator) bool { return !e.Taken.IsZero() && o.Ended.After(e.Taken) })
	return e
}

func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func hostOf(peerURL string) string {
	u, err := url.Parse(peerURL)
	if err != nil {
		return peerURL
	}
	return u.Hostname()
}
