package scenarios

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/command"
)

// A Scenario is one row of a suite: a procedure on a cluster, what strikes it
// and when, how that has to end, and what is looked at beside what is always
// looked at.
type Scenario struct {
	Name   string   // lower case, words joined by hyphens
	Suites []string // safeguard, learner, reload, removal, migration, operator, network, disk, trust, maintenance, recovery, upgrade, soak
	Tier   Tier     // the smallest tier that plays it
	Start  Start
	// Procedure is what the operator types. LEADER, FOLLOWER, CLUSTERID,
	// CONSENT and DIR/ stand for what they are at that moment.
	Procedure   string
	Strikes     []Strike
	Ending      Ending
	Inspections []Inspection
	// Quiet has no clients write meanwhile: where every byte is watched, or
	// where there is no cluster.
	Quiet bool
	// Patience is how long its operators wait for a leader, where a strike sees to
	// it that there is none to come; as long as anybody's when 0.
	Patience time.Duration
	// Swarm are the steps at which more strikes fall, which the seed draws.
	Swarm []string
	// Sweep plays it once for each kill point as well.
	Sweep *Sweep
	// Pending says what is missing, for a row that cannot be played yet.
	Pending string
	// Mutant is the way in which the operators of this scenario are wrong on
	// purpose; empty is not at all.
	Mutant string

	// Free takes it that a strike never comes to pass, or never bites: it was
	// drawn by lot.
	Free bool

	like map[string]string // what has to be left
}

// A Tier says how often a scenario is played: smoke before each push, pr on
// every pull request, nightly, and soak until told to stop.
type Tier string

// The tiers, each with all of those before it.
const (
	Smoke   Tier = "smoke"
	PR      Tier = "pr"
	Nightly Tier = "nightly"
	Soak    Tier = "soak"
)

// theWalk is the name of the scenario that does not end by itself.
const theWalk = "walk"

// Tiers are all tiers, the smallest first.
func Tiers() []Tier { return []Tier{Smoke, PR, Nightly, Soak} }

// Suites are the names of all suites.
func Suites() []string {
	return []string{"safeguard", "learner", "reload", "removal", "migration", "operator", "network", "disk", "trust", "maintenance", "recovery", "upgrade", "soak"}
}

// Start is the cluster that a scenario begins with.
type Start struct {
	Hosts  int      // of the inventory: members once it is created; 3 when 0
	Spares int      // hosts of the lab beside them, of the addresses that follow
	Infra  bool     // one host more in group infra
	Stale  int      // clients there that know the members of the start alone; with Infra
	Vars   string   // lines of the group's vars, "key: value", one a line
	Blank  bool     // no cluster is created
	Disks  bool     // of disks that can be hurt, where the machine can have them
	Points bool     // of an etcd that can be told to crash at its gofail points
	Waste  int      // mebibytes of every database that are not in use; made before clients write, whose past it would take from those who judge
	Etcd   string   // version that the hosts have; empty is the one that is linked in
	Users  bool     // all who use the cluster can log in, though it asks nobody yet
	Before []string // commands of operators before the procedure, none of which is hurt
}

// versions are the versions of etcd that a scenario is about.
func (s Scenario) versions() []string {
	if s.Start.Etcd == "" {
		return nil
	}
	all := []string{s.Start.Etcd}
	for _, c := range slices.Concat(s.Start.Before, []string{s.Procedure}, s.Ending.Then) {
		for _, w := range strings.Fields(c) {
			if slices.Contains(image.Versions(), w) && !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

// A Strike is a fault and its moment.
type Strike struct {
	At    At // zero: before the procedure begins
	Fault fault.Fault
	// Until is when it is healed: zero when the operator has ended.
	Until At
	// For heals it after a while, if nothing does before; the operator goes on
	// meanwhile.
	For time.Duration
	// Stays leaves it to the ending's commands to live with it.
	Stays bool
	// Perhaps takes it that its moment never comes: it only makes an end sooner.
	Perhaps bool
}

// At is a moment of the procedure: a state of the step with this title. A title
// that ends in an ID or a path is named without it. Nth counts the steps of
// the same title from 1; 0 is the first.
type At struct {
	Step  string
	State sop.State
	Nth   int
}

func before(step string) At   { return At{Step: step, State: sop.Began} }
func recorded(step string) At { return At{Step: step, State: sop.Recorded} }
func applied(step string) At  { return At{Step: step, State: Applied} }
func answered(step string) At { return At{Step: step, State: sop.Answered} }
func waiting(step string) At  { return At{Step: step, State: sop.Waiting} }
func after(step string) At    { return At{Step: step, State: sop.Done} }

// afterwards is when the operator has ended, before anything is healed.
func afterwards() At { return At{State: sop.Finished} }

func (a At) nth(n int) At { a.Nth = n; return a }

// String is the moment in words.
func (a At) String() string {
	switch {
	case a == afterwards():
		return "after the procedure"
	case a.Step == "":
		return "before the procedure"
	}
	words := map[sop.State]string{
		sop.Began: "before", sop.Recorded: "once recorded:", Applied: "once applied:", sop.Sent: "once sent:",
		sop.Answered: "once answered:", sop.Waiting: "while waiting:", sop.Done: "after",
	}
	s := fmt.Sprintf("%s %q", words[a.State], a.Step)
	if a.Nth > 1 {
		s += fmt.Sprintf(" (%d)", a.Nth)
	}
	return s
}

// is reports whether a moment is of this kind; which one of several is for the
// caller to count.
func (a At) is(m Moment) bool {
	return a.State == m.State && (m.Title == a.Step || strings.HasPrefix(m.Title, a.Step+" "))
}

// An Ending is how a scenario has to end.
type Ending struct {
	// Killed says that the operator dies of a strike.
	Killed bool
	// MayDie says that it may.
	MayDie bool
	// Statuses are the exit statuses that are taken; nil is 0 alone.
	Statuses []int
	Says     string // to be found in what the operator says
	// Untouched wants every byte of every host as it was.
	Untouched bool
	// Then are commands that must succeed afterwards, once what does not stay
	// is healed. AGAIN is the procedure itself, ELSEWHERE before a command has
	// it typed on another admin host, which has no journal.
	Then []string
}

// completes: the procedure is done, in spite of it all.
func completes() Ending { return Ending{} }

// refuses: a safeguard refuses before anything is changed, and every byte of
// every host is as it was.
func refuses(safeguard string) Ending {
	return Ending{Statuses: []int{3}, Says: "refused by safeguard " + safeguard, Untouched: true}
}

// refusesOnceRead: as refuses, where what was read went by way of etcd's log, as
// who its users are does. Bytes change on members; who looks after the end says
// what did not.
func refusesOnceRead(safeguard string) Ending {
	e := refuses(safeguard)
	e.Untouched = false
	return e
}

// resumes: the operator dies, and the same command, typed again, is done.
func resumes() Ending { return Ending{Killed: true, Then: []string{sameAgain}} }

// stops: the procedure stops after a change, and says so; then these commands
// succeed.
func stops(says string, then ...string) Ending {
	return Ending{Statuses: []int{1, 4, 130}, Says: says, Then: then}
}

// survives: the procedure is done, or stops; then these commands succeed.
func survives(then ...string) Ending { return Ending{Statuses: []int{0, 1, 3, 4, 130}, Then: then} }

func (e Ending) then(commands ...string) Ending { e.Then = commands; return e }

const (
	sameAgain = "AGAIN"
	elsewhere = "ELSEWHERE "
)

// String is the ending in words.
func (e Ending) String() string {
	var s string
	switch {
	case e.Killed:
		s = "is killed"
	case e.Untouched:
		s = "is refused, nothing touched"
	case len(e.Statuses) == 0:
		s = "completes"
	case slices.Contains(e.Statuses, 0):
		s = "completes or stops"
	default:
		s = "stops"
	}
	if e.Says != "" {
		s += fmt.Sprintf(" saying %q", e.Says)
	}
	if len(e.Then) > 0 {
		s += ", then " + strings.Join(e.Then, ", ")
	}
	return s
}

// An Inspection is looked at when all commands of a scenario have ended and the
// cluster has come to rest.
type Inspection struct {
	Name string
	Look func(ctx context.Context, s *stage) error
}

// ErrScenario says that a scenario, or a pattern for scenarios, makes no sense.
var ErrScenario = errors.New("no such scenario")

// Check says what is wrong with a scenario, before anything is played.
func (s Scenario) Check() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("scenario %s: %w", s.Name, fmt.Errorf(format, args...)))
	}
	if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
		bad("a name is of lower-case letters, digits and hyphens")
	}
	for _, name := range s.Suites {
		if !slices.Contains(Suites(), name) {
			bad("there is no suite %s; there are %s", name, strings.Join(Suites(), ", "))
		}
	}
	if len(s.Suites) == 0 {
		bad("it is in no suite")
	}
	if !slices.Contains(Tiers(), s.Tier) {
		bad("there is no tier %q", s.Tier)
	}
	if s.Pending != "" {
		return errors.Join(errs...)
	}
	if err := typed(s.Procedure); err != nil {
		bad("%w", err)
	}
	for _, c := range append(slices.Clone(s.Start.Before), s.Ending.Then...) {
		if c = strings.TrimPrefix(c, elsewhere); c != sameAgain {
			if err := typed(c); err != nil {
				bad("%w", err)
			}
		}
	}
	verb, _, _ := strings.Cut(s.Procedure, " ")
	for _, k := range s.Strikes {
		if k.Fault == nil {
			bad("a strike without a fault")
			continue
		}
		for _, r := range k.Fault.Roles() {
			if err := r.Check(); err != nil {
				bad("%s: %w", k.Fault, err)
			}
		}
		if k.Fault.Kind() == "crash point" && !s.Start.Points {
			bad("%s: its members have no points to crash at: Start.Points", k.Fault)
		}
		for _, at := range []At{k.At, k.Until} {
			if at.Step == "" || s.like != nil { // of a sweep: it was come by
				continue
			}
			if _, ok := stepNames()[verb]; ok && !knownStep(verb, at.Step) {
				bad("%s: procedure %s has no step %q; it has %s", k.Fault, verb, at.Step, strings.Join(stepNames()[verb], ", "))
			}
			if at.State == Applied && changes()[at.Step] == "" {
				bad("%s: no call of step %q is held back once it is applied; those of %s are", k.Fault, at.Step, strings.Join(slices.Sorted(maps.Keys(changes())), ", "))
			}
		}
	}
	return errors.Join(errs...)
}

// typed checks a command line of a scenario as an operator's is.
func typed(line string) error {
	words := strings.Fields(line)
	for i, w := range words {
		for _, name := range []string{"CLUSTERID", "CONSENT"} {
			words[i] = strings.Replace(words[i], name, "0123456789abcdef", 1)
		}
		for _, name := range []string{"LEADER", "FOLLOWER"} {
			if w == name {
				words[i] = "10.10.10.10"
			}
		}
	}
	if len(words) == 0 {
		return errors.New("a command without words")
	}
	return command.Check(words, command.Targets())
}

func knownStep(verb, step string) bool {
	return slices.ContainsFunc(stepNames()[verb], func(name string) bool {
		return name == step || strings.HasPrefix(step, name+" ")
	})
}

// stepNames are the titles of the steps that strikes may name, without the IDs
// and paths that some end in, by procedure. A test holds them against what the
// procedures do.
func stepNames() map[string][]string {
	prepare := []string{
		"issue the certificate", "make", "write", "unmask the unit", "write the unit", "write etcdctl's environment",
		"write etcd.conf", "let systemd read the unit", "enable the unit", "start etcd",
	}
	references := []string{"refresh"}
	retire := []string{"stop etcd", "disable the unit", "remove the unit's file", "remove the join drop-in", "mask the unit", "let systemd read the unit", "set aside"}
	takeDown := []string{"save a snapshot", "stop etcd", "disable the unit", "remove the old etcd.conf", "set aside", "forget the cluster's ID"}
	joins := slices.Concat([]string{"save a snapshot", "add as learner", "add to the inventory"}, prepare,
		[]string{"lift the start timeout while it joins", "write the join drop-in", "wait until it answers",
			"let it publish its name again", "wait until it serves", "wait until caught up", "promote to voter", "remove the join drop-in"}, references)
	leaves := slices.Concat(references, []string{"save a snapshot", "hand over the leadership", "remove member"}, retire, []string{"remove from the inventory"})
	roll := []string{"hand over the leadership", "restart etcd", "wait until it answers", "soak"}
	return map[string][]string{
		"createCluster": slices.Concat([]string{"make the CA"}, prepare, []string{"wait until all members agree", "set initial-cluster-state to existing",
			"refresh etcdctl.sh", "remember the cluster's ID"}, takeDown),
		"addMember":     joins,
		"removeMember":  leaves,
		"replaceMember": slices.Concat(joins, leaves, []string{"disarm"}),
		"migrate":       slices.Concat(joins, leaves, []string{"stale-clients"}), // it is waited for
		"restart":       roll,
		"upgrade": slices.Concat([]string{"bring etcd", "save a snapshot", "enable the downgrade to", "wait until the data is in the form of", "cancel the downgrade",
			"keep etcd", "put etcd", "install etcd"}, roll, []string{"wait for cluster version"}),
		"reloadConfig": slices.Concat(references, roll),
		"moveLeader":   {"hand over the leadership"},
		"defrag":       {"soak", "hand over the leadership", "defragment", "wait until it answers"},
		"compact":      {"compact", "compact by one more, so that what is free is counted"},
		"alarm:disarm": {"disarm"},
		"enableAuth": {"add role root", "remove a user root whose password nobody can tell", "add user root", "grant root its role",
			"enable authentication", "wait until all clients get in"},
		"rotateCerts": slices.Concat([]string{"issue the certificate", "soak", "write", "wait until it is served"},
			[]string{"make the CA", "trust it here", "trust it in"}, roll, []string{"let the other CA sign", "trust it no more in", "trust it no more here", "put it aside"}),
		"destroyCluster": takeDown,
		"snapshot":       {"save and verify", "make", "replay the log", "fetch and verify", "delete the copy in"},
		"restore": slices.Concat([]string{"note what is restored"}, takeDown[:5], []string{"install etcdutl", "make the CA"}, prepare,
			[]string{"send the snapshot", "restore the data", "wait until all members agree", "set initial-cluster-state to existing", "remember the cluster's ID"}, references,
			[]string{"delete the copy in", "note that it is restored"}),
	}
}

// Pick gives the scenarios that a pattern names: a tier, a suite, or a name in
// which * stands for anything. Several are joined by commas.
func Pick(all []Scenario, pattern string) ([]Scenario, error) {
	var picked []Scenario
	seen := map[string]bool{}
	for _, p := range strings.Split(pattern, ",") {
		found := false
		for _, s := range all {
			if !s.matches(p) {
				continue
			}
			found = true
			if !seen[s.Name] {
				seen[s.Name] = true
				picked = append(picked, s)
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: %q is no tier (%s), no suite (%s) and no scenario's name: scenario:list has them",
				ErrScenario, p, joinTiers(), strings.Join(Suites(), ", "))
		}
	}
	return picked, nil
}

func joinTiers() string {
	var names []string
	for _, t := range Tiers() {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func (s Scenario) matches(p string) bool {
	if tier := slices.Index(Tiers(), Tier(p)); tier >= 0 {
		if Tier(p) == Soak { // the walk alone: it does not end by itself
			return s.Name == theWalk
		}
		return slices.Index(Tiers(), s.Tier) <= tier
	}
	if slices.Contains(Suites(), p) {
		return slices.Contains(s.Suites, p) && s.Tier != Soak
	}
	if s.Sweep != nil { // its points are known once it was played
		p, _, _ = strings.Cut(p, ".")
	}
	ok, err := path.Match(p, s.Name)
	return err == nil && ok
}
