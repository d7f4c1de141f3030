package scenarios

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A row is one line of a play: an operator and what is to become of it.
type row struct {
	name string // in the report; empty is the command
	// command is what the operator types. LEADER, FOLLOWER, CLUSTERID, CONSENT
	// and DIR stand for what they are at that moment. With no command the load
	// runs alone for as long as quiet says.
	command string
	args    []string        // instead of command, where words may hold spaces
	say     func() []string // instead of both, where it is known only then
	loaded  bool            // the load runs, and is started where it does not
	// status is the exit status that is wanted, says what is to be found in
	// what the operator says.
	status int
	says   string
	// mayRefuse says that a refusal breaks no promise here: it is one that
	// production would see too.
	mayRefuse bool
	// untouched wants every byte on every host to be as it was.
	untouched bool
	kill      *Kill // how the operator is to die
	// settled lets etcd's HealthInterval pass first, since its last change.
	settled bool
	quiet   time.Duration // of the load alone before it, instead of the play's
	// moments is called at each moment of the operator, while it waits.
	moments func(ctx context.Context, o *Held, m Moment)
	// statuses are the exit statuses that are taken, instead of status.
	statuses []int
	dies     bool // a strike kills the operator
	mayDie   bool // or may
	// begin is done before the operator sets out, once all stands ready; end
	// when it has ended.
	begin, end func(ctx context.Context, args []string) error
	inventory  string // of another admin host
	// audited looks at every byte before and after, and leaves it to the checkers
	// to say what may differ.
	audited bool
	// budget is what it may cost the clients; zero is no limit.
	budget check.Budget
	// check looks closer at what came of it.
	check func(ctx context.Context, s *stage, o Outcome) error
}

// A stage is a rig that rows are played on, the load on its cluster, and what
// was seen.
type stage struct {
	rig     *Rig
	dir     runDir
	summary *Summary
	seed    int64
	tell    func(format string, args ...any) // progress
	// quiet is how long the load runs alone before each procedure.
	quiet time.Duration
	// intended are the hosts that are to be members now.
	intended []string
	left     []string // hosts whose member was removed
	// hurt tells what faults there were, and whether there were operators who
	// were not played by rows; nil for none.
	hurt func() ([]check.Fault, bool)
	// env is what operators get beside what every operator gets.
	env     map[string]string
	profile workload.Profile // of the load
	// user is who the load's clients are, with the password of all; empty for
	// nobody.
	user string

	load    *workload.Load
	history *workload.History
	lost    []workload.Op
	taken   check.Evidence // when the load had ended
	played  []played
	changed time.Time // when a member was last changed

	prints  map[string]string // the last look at every byte, and when it began
	printed time.Time
}

// played is a row that was played.
type played struct {
	row
	args    []string
	out     string
	outcome Outcome
	quiet   window // before it, with the load alone
	verdict Verdict
	reason  string
	other   Spent // of the time around it

	before, after []string // who was to be a member
	audit         *check.Audit
}

// play plays rows in turn. After the first that does not pass, the others are
// skipped.
func (s *stage) play(ctx context.Context, rows []row) {
	for i, r := range rows {
		if s.summary.Verdict != Pass {
			s.played = append(s.played, played{row: r, verdict: Skipped, reason: "skipped because of what came before"})
			continue
		}
		if err := ctx.Err(); err != nil {
			s.summary.blame(Unknown, "interrupted before %s", r.title())
			s.played = append(s.played, played{row: r, verdict: Skipped, reason: "interrupted"})
			continue
		}
		if err := s.loadAs(ctx, r); err != nil {
			s.summary.blame(s.causeOf(ctx, Violation), "%v", err)
			s.played = append(s.played, played{row: r, verdict: Skipped, reason: "there was no load"})
			continue
		}
		p := s.perform(ctx, i+1, r)
		s.played = append(s.played, p)
		if p.verdict != Pass {
			s.summary.blame(p.verdict, "%s: %s", r.title(), p.reason)
		}
	}
	s.judge(ctx)
	if ctx.Err() == nil {
		s.judgeOperators(ctx)
	}
}

// causeOf is the verdict of a failure: nobody can tell where it was the
// interruption.
func (s *stage) causeOf(ctx context.Context, v Verdict) Verdict {
	if ctx.Err() != nil {
		return Unknown
	}
	return v
}

func (r row) title() string {
	switch {
	case r.name != "":
		return r.name
	case r.command != "":
		return r.command
	}
	return strings.Join(r.args, " ")
}

// perform plays one row.
func (s *stage) perform(ctx context.Context, n int, r row) played {
	p := played{row: r, verdict: Pass}
	end := func(v Verdict, format string, args ...any) played {
		p.verdict, p.reason = v, fmt.Sprintf(format, args...)
		return p
	}
	quiet := window{from: time.Now()}
	if r.settled {
		if err := pause(ctx, time.Until(s.changed.Add(sop.HealthInterval+settledSlack))); err != nil {
			return end(Unknown, "interrupted")
		}
		p.other.Health = seconds(time.Since(quiet.from))
	}
	if s.load != nil {
		began := time.Now()
		if err := pause(ctx, cmp.Or(r.quiet, s.quiet)-time.Since(quiet.from)); err != nil {
			return end(Unknown, "interrupted")
		}
		p.other.Quiet = seconds(time.Since(began))
		quiet.to = time.Now()
		p.quiet = quiet // etcd's HealthInterval included: the load ran alone then too
	}
	words := r.args
	if words == nil {
		words = strings.Fields(r.command)
	}
	if r.say != nil {
		words = r.say()
	}
	if len(words) == 0 {
		p.outcome = Outcome{Began: quiet.from, Ended: time.Now()}
		if r.check != nil {
			if err := r.check(ctx, s, p.outcome); err != nil {
				return end(s.causeOf(ctx, Violation), "%v", err)
			}
		}
		return p
	}
	args, err := s.fill(ctx, words)
	if err != nil {
		return end(s.causeOf(ctx, Unknown), "%v", err)
	}
	p.args, p.before, p.after = args, slices.Clone(s.intended), slices.Clone(s.intended)
	p.out = filepath.Join("operators", fmt.Sprintf("%02d-%s", n, args[0]))
	s.tell("%s", r.title())
	if s.load != nil {
		s.load.Mark(r.title())
	}
	if r.begin != nil {
		if err := r.begin(ctx, args); err != nil {
			return end(s.causeOf(ctx, strikeVerdict(err)), "%v", err)
		}
	}
	switch {
	case r.untouched:
		p.outcome, err = s.untouched(ctx, &p)
	case r.audited:
		p.outcome, err = s.audited(ctx, &p)
	default:
		p.outcome, err = s.operator(ctx, &p)
	}
	if err == nil && p.verdict == Pass {
		s.follow(p)
		p.after = slices.Clone(s.intended)
	}
	if r.end != nil {
		if ended := r.end(ctx, args); ended != nil && err == nil {
			return end(s.causeOf(ctx, strikeVerdict(ended)), "%v", ended)
		}
	}
	if err != nil {
		return end(s.causeOf(ctx, Infra), "%v", err)
	}
	if p.verdict != Pass {
		return p
	}
	if r.check != nil {
		if err := r.check(ctx, s, p.outcome); err != nil {
			return end(s.causeOf(ctx, Violation), "%v", err)
		}
	}
	return p
}

// settledSlack covers the time from the start of a process to its connections.
const settledSlack = 500 * time.Millisecond

// operator runs a row's operator and judges how it ended.
func (s *stage) operator(ctx context.Context, p *played) (Outcome, error) {
	o, err := s.rig.Command(ctx, Command{Args: p.args, Kill: p.kill, Out: s.dir.path(p.out), Moments: p.moments, Inventory: p.inventory, Env: s.env})
	if err != nil {
		return o, err
	}
	if err := s.dir.journal(o.Journal); err != nil {
		return o, err
	}
	p.verdict, p.reason = Pass, ""
	said := o.Stdout + o.Stderr
	switch {
	case (p.kill != nil || p.dies || p.mayDie) && o.Killed:
	case p.dies:
		p.verdict, p.reason = Unknown, fmt.Sprintf("the operator ended with exit status %d before a strike killed it: %s", o.Status, lastWords(o.Stderr))
	case p.kill != nil:
		p.verdict, p.reason = Unknown, fmt.Sprintf("the operator ended with exit status %d before it could be killed", o.Status)
	case ctx.Err() != nil:
		p.verdict, p.reason = Unknown, "interrupted"
	case o.Killed:
		p.verdict, p.reason = Infra, "the operator was killed, and not by us"
	case p.statuses != nil && !slices.Contains(p.statuses, o.Status):
		p.verdict, p.reason = verdictOf(o.Status, p.mayRefuse), fmt.Sprintf("exit status %d, one of %v was wanted: %s", o.Status, p.statuses, lastWords(o.Stderr))
	case p.statuses == nil && o.Status != p.status:
		p.verdict, p.reason = verdictOf(o.Status, p.mayRefuse), fmt.Sprintf("exit status %d, %d was wanted: %s", o.Status, p.status, lastWords(o.Stderr))
	case !strings.Contains(unfolded(said), unfolded(p.says)):
		p.verdict, p.reason = Violation, fmt.Sprintf("it was to say %q and said: %s", p.says, lastWords(said))
	}
	return o, nil
}

// verdictOf is the verdict of an exit status that was not wanted.
func verdictOf(status int, mayRefuse bool) Verdict {
	switch {
	case status == 4, status == 130, status == 3 && mayRefuse:
		return Unknown
	case status == 5:
		return Infra
	}
	return Violation
}

// lastWords is what an operator gave as its reason, in one line; the end of what
// it said where it gave none.
func lastWords(said string) string {
	const most = 6
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "(it said nothing)"
	}
	from := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Error: ") })
	if from < 0 {
		from = max(0, len(lines)-most)
	}
	return strings.Join(lines[from:min(from+most, len(lines))], " / ")
}

// untouched runs a row's operator between two looks at every byte of every
// host. etcd itself may write meanwhile, a version or the end of a lease;
// where nothing but its own files differ, the operator is asked once more,
// and what it touches it would touch again.
func (s *stage) untouched(ctx context.Context, p *played) (o Outcome, err error) {
	const tries = 3
	began, own := time.Now(), time.Duration(0)
	for try := 1; ; try++ {
		waits := time.Now()
		if err := s.stillness(ctx); err != nil {
			return o, err
		}
		p.other.Etcd += seconds(time.Since(waits))
		before, err := s.fingerprint(ctx, true)
		if err != nil {
			return o, err
		}
		if o, err = s.operator(ctx, p); err != nil || p.verdict != Pass {
			return o, err
		}
		own += o.Ended.Sub(o.Began)
		after, err := s.fingerprint(ctx, false)
		if err != nil {
			return o, err
		}
		p.audit = auditOf(before, after)
		diff := machine.DiffFingerprints(before, after)
		etcdsOwn := !slices.ContainsFunc(diff, func(line string) bool { return !strings.Contains(line, "/member/") })
		if len(diff) == 0 || !etcdsOwn || try == tries {
			if len(diff) > 0 {
				p.verdict, p.reason = Violation, fmt.Sprintf("it touched what it was to leave alone: %s", strings.Join(diff[:min(len(diff), 5)], "; "))
			}
			p.other.Own += seconds(time.Since(began) - own - time.Duration(p.other.Etcd*float64(time.Second)))
			return o, nil
		}
	}
}

// audited runs a row's operator between two looks at every byte, whatever else
// writes meanwhile.
func (s *stage) audited(ctx context.Context, p *played) (Outcome, error) {
	before, err := s.fingerprint(ctx, false)
	if err != nil {
		return Outcome{}, err
	}
	o, err := s.operator(ctx, p)
	if err != nil {
		return o, err
	}
	after, err := s.fingerprint(ctx, false)
	if err == nil {
		p.audit = auditOf(before, after)
	}
	return o, err
}

// fingerprint looks at every byte. The look before is good enough where it may
// be and nothing was written since.
func (s *stage) fingerprint(ctx context.Context, again bool) (map[string]string, error) {
	if again && s.prints != nil {
		if newest, _, err := s.newestWrite(ctx); err == nil && newest.Before(s.printed) {
			return s.prints, nil
		}
	}
	began := time.Now()
	prints, err := s.rig.Fingerprint(ctx)
	if err == nil {
		s.prints, s.printed = prints, began
	}
	return prints, err
}

// stillFor is how long no file may have been written for a cluster to count
// as idle: members commit what they took ten times a second.
const stillFor = time.Second

// stillness waits until nothing writes on any host.
func (s *stage) stillness(ctx context.Context) error {
	const patience = 30 * time.Second
	tick := time.NewTicker(stillFor / 10)
	defer tick.Stop()
	began := time.Now()
	for {
		newest, file, err := s.newestWrite(ctx)
		if err != nil {
			return err
		}
		if time.Since(newest) >= stillFor {
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("the lab does not come to rest: %s is written to all the time", file)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *stage) newestWrite(ctx context.Context) (newest time.Time, file string, err error) {
	for _, name := range s.rig.ground.Hosts() {
		at, written, err := s.rig.ground.Newest(ctx, name)
		if err != nil {
			return newest, file, fmt.Errorf("look at the files of %s: %w", name, err)
		}
		if written.After(newest) {
			newest, file = written, at
		}
	}
	return newest, file, nil
}

// follow keeps the account of who is to be a member, by what was done.
func (s *stage) follow(p played) {
	if p.outcome.Killed || p.outcome.Status != 0 || len(p.args) == 0 {
		return
	}
	switch verb := p.args[0]; {
	case verb == "createCluster" || verb == "restore":
		if hosts, err := s.rig.Hosts(); err == nil {
			s.intended = hosts
		}
	case verb == "destroyCluster" || verb == "purgeCluster":
		s.intended = nil
	case verb == "addMember" && !slices.Contains(s.intended, p.args[1]):
		s.intended = append(s.intended, p.args[1])
		s.left = slices.DeleteFunc(s.left, func(h string) bool { return h == p.args[1] })
	case verb == "removeMember":
		if slices.Contains(s.intended, p.args[1]) {
			s.left = append(s.left, p.args[1])
		}
		s.intended = slices.DeleteFunc(s.intended, func(h string) bool { return h == p.args[1] })
	case verb == "replaceMember":
		s.becomes(append(slices.DeleteFunc(slices.Clone(s.intended), func(h string) bool { return h == p.args[1] || h == p.args[2] }), p.args[2]))
	case verb == "migrate":
		s.becomes(strings.Split(p.args[1], ","))
	case verb != "restart" && verb != "reloadConfig" && verb != "upgrade":
		return
	}
	s.changed = p.outcome.Ended
}

// becomes notes who is to be a member from now on, and who is none any more.
func (s *stage) becomes(members []string) {
	for _, h := range s.intended {
		if !slices.Contains(members, h) {
			s.left = append(s.left, h)
		}
	}
	s.left = slices.DeleteFunc(s.left, func(h string) bool { return slices.Contains(members, h) })
	s.intended = members
}

// fill puts in what the words of a command stand for.
func (s *stage) fill(ctx context.Context, words []string) ([]string, error) {
	args := slices.Clone(words)
	for i, w := range args {
		args[i] = strings.Replace(w, "DIR/", string(s.dir)+"/", 1)
	}
	words = slices.Clone(args)
	for i, w := range words {
		for name, value := range map[string]func(context.Context) (string, error){
			"LEADER": s.leader, "FOLLOWER": s.follower, "CLUSTERID": s.clusterID,
			"CONSENT": func(ctx context.Context) (string, error) { return s.consent(ctx, words) },
		} {
			if !strings.HasSuffix(w, name) {
				continue
			}
			v, err := value(ctx)
			if err != nil {
				return nil, fmt.Errorf("find the %s for %v: %w", strings.ToLower(name), words, err)
			}
			if args[i] = strings.TrimSuffix(w, name) + v; v == "" {
				args[i] = ""
			}
		}
	}
	for i := range args {
		args[i] = s.rig.ground.Here(args[i])
	}
	return slices.DeleteFunc(args, func(w string) bool { return w == "" }), nil
}

// consent asks for the plan of a command and gives the code that it wants.
func (s *stage) consent(ctx context.Context, words []string) (string, error) {
	args := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasSuffix(w, "CONSENT") })
	o, err := s.rig.Command(ctx, Command{Args: append(args, "-plan=true", "-json=true"), Out: s.dir.path("operators", "plan")})
	if err != nil {
		return "", err
	}
	var plan sop.PlanRecord
	if err := json.Unmarshal([]byte(o.Stdout), &plan); err != nil {
		return "", fmt.Errorf("%w: exit status %d: %s", err, o.Status, lastWords(o.Stderr))
	}
	return plan.Consent, nil
}

func (s *stage) leader(ctx context.Context) (string, error) {
	leader, _, _, err := s.roles(ctx)
	return leader, err
}

func (s *stage) follower(ctx context.Context) (string, error) {
	_, followers, _, err := s.roles(ctx)
	if err == nil && len(followers) == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		return "", err
	}
	return followers[0], nil
}

func (s *stage) clusterID(ctx context.Context) (string, error) {
	_, _, id, err := s.roles(ctx)
	return sop.ID(id), err
}

// roles asks the members, each on its own, until one of them leads.
func (s *stage) roles(ctx context.Context) (leader string, followers []string, cluster uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return "", nil, 0, err
	}
	for {
		leader, followers = "", nil
		for _, h := range s.intended {
			isLeader, id, askErr := s.role(ctx, dial, h)
			switch {
			case askErr != nil:
				err = askErr
			case isLeader:
				leader, cluster = h, id
			default:
				followers, cluster = append(followers, h), id
			}
		}
		if leader != "" {
			return leader, followers, cluster, nil
		}
		if wait := pause(ctx, 50*time.Millisecond); wait != nil {
			return "", nil, 0, errors.Join(errors.New("no member says that it leads"), err)
		}
	}
}

// follows asks the member on a host whom it takes for the leader.
func (s *stage) follows(ctx context.Context, dial workload.Dial, name string) (leader uint64, err error) {
	r, err := s.status(ctx, dial, name)
	if err != nil {
		return 0, err
	}
	if r.IsLearner {
		return 0, errors.New("it is a learner")
	}
	return r.Leader, nil
}

func (s *stage) role(ctx context.Context, dial workload.Dial, name string) (leads bool, cluster uint64, err error) {
	r, err := s.status(ctx, dial, name)
	if err != nil {
		return false, 0, err
	}
	return r.Leader == r.Header.MemberId, r.Header.ClusterId, nil
}

func (s *stage) status(ctx context.Context, dial workload.Dial, name string) (*clientv3.StatusResponse, error) {
	url, err := s.rig.clientURL(name)
	if err != nil {
		return nil, err
	}
	return statusOf(ctx, dial, url)
}

// statusOf asks a member. One that takes a second to answer is given more, once:
// the machine may have others to serve. One at which nobody listens is not.
func statusOf(ctx context.Context, dial workload.Dial, url string) (r *clientv3.StatusResponse, err error) {
	ask := func(within time.Duration) (slow bool) {
		trying, stop := context.WithTimeout(ctx, within)
		defer stop()
		var etcd workload.Etcd
		if etcd, err = dial(trying, url); err == nil {
			r, err = etcd.Status(trying, url)
			etcd.Close()
		}
		return err != nil && trying.Err() != nil && ctx.Err() == nil
	}
	if ask(time.Second) {
		ask(4 * time.Second)
	}
	return r, err
}

// --- the load ---

// loadAs starts or ends the load as a row wants it.
func (s *stage) loadAs(ctx context.Context, r row) error {
	switch {
	case r.loaded && s.load == nil && s.history == nil:
		return s.startLoad(ctx)
	case !r.loaded && s.load != nil:
		s.judge(ctx)
	}
	return nil
}

// loadPrefix is where the load's keys are.
const loadPrefix = "/etcdrill/load/"

func (s *stage) startLoad(ctx context.Context) error {
	dial, err := s.rig.dialAs(embedded.Client, s.user, s.rig.Password)
	if err != nil {
		return fmt.Errorf("give the load a certificate: %w", err)
	}
	log, err := workload.CreateLog(s.dir.path(historyFile))
	if err != nil {
		return err
	}
	spec := workload.Spec{Profile: s.profile, Seed: s.seed, Prefix: loadPrefix,
		Endpoints: func() []string { return s.endpoints(ctx) }, Refresh: s.refresh(), Dial: dial}
	if s.profile.Stale > 0 { // they are known by their address
		if spec.DialStale, err = s.rig.Dial(infraOfScenario); err != nil {
			return fmt.Errorf("give stale clients a certificate: %w", err)
		}
	}
	s.load, err = workload.Start(ctx, spec, log)
	return err
}

// unfolded takes the line breaks out that a terminal's width puts in.
func unfolded(text string) string { return strings.Join(strings.Fields(text), " ") }

// refresh is how often the load's clients look at the references: a client that
// is well served would else stay where it is, and a migration waits for those
// who are connected to its last old member for a quarter of an hour. On machines a
// look costs a connection to each.
func (s *stage) refresh() time.Duration {
	if s.rig.Lab == nil {
		return 5 * time.Second
	}
	return 500 * time.Millisecond
}

// restarted are the stale clients of the load, if it is to have any.
func (s *stage) restarted() fault.Restarted {
	if s.profile.Stale == 0 {
		return nil
	}
	return staleOf{s}
}

type staleOf struct{ s *stage }

// RestartStale implements fault.Restarted.
func (o staleOf) RestartStale() {
	if o.s.load != nil {
		o.s.load.RestartStale()
	}
}

// endpoints are what a client in the lab goes by: the newest environment file
// on any host. So the load depends on the references as real clients do.
func (s *stage) endpoints(ctx context.Context) []string {
	hosts := s.rig.ground.Hosts()
	written, named := make([]time.Time, len(hosts)), make([][]string, len(hosts))
	var reading sync.WaitGroup
	for i, name := range hosts {
		reading.Go(func() {
			content, at, err := s.rig.ground.Read(ctx, name, config.EnvPath)
			if err != nil {
				return
			}
			if env, err := config.ParseClientEnv(content); err == nil {
				written[i], named[i] = at, env.Endpoints
			}
		})
	}
	reading.Wait()
	var found []string
	var newest time.Time
	for i, at := range written {
		if at.After(newest) && len(named[i]) > 0 {
			newest, found = at, named[i]
		}
	}
	return found
}

// judge ends the load and judges what its clients saw and what its cluster
// holds. Without a load it does nothing.
func (s *stage) judge(ctx context.Context) {
	if s.load == nil {
		return
	}
	history, err := s.load.Stop()
	s.load, s.history = nil, history
	if err != nil {
		s.summary.blame(Infra, "the history is not whole: %v", err)
	}
	if ctx.Err() != nil {
		s.summary.blame(Unknown, "interrupted before the load was judged")
		return
	}
	asked := time.Now()
	evidence, err := s.evidence(ctx)
	// It asks, and waits for answers: a long log, a compaction, hashes.
	s.summary.Time.Etcd += seconds(time.Since(asked))
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Unknown), "%v", err)
		return
	}
	s.taken = evidence
	s.findings(ctx, evidence, check.ForLoad(evidence)...)
	s.listed()
}

func (s *stage) evidence(ctx context.Context) (check.Evidence, error) {
	s.tell("judging %d acknowledged writes", s.history.Acked())
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return check.Evidence{}, err
	}
	q := check.Query{Dial: dial, History: s.history, Log: true, Hash: true}
	for _, h := range s.intended {
		client, err := s.rig.clientURL(h)
		if err != nil {
			return check.Evidence{}, err
		}
		peer, err := s.rig.peerURL(h)
		if err != nil {
			return check.Evidence{}, err
		}
		q.Endpoints, q.Intended = append(q.Endpoints, client), append(q.Intended, peer)
	}
	return check.Collect(ctx, q)
}

// findings takes down what the checkers say of the evidence.
func (s *stage) findings(ctx context.Context, e check.Evidence, checkers ...check.Checker) {
	for _, f := range check.Judge(ctx, e, checkers...) {
		found := Finding{Checker: f.Checker, Verdict: Verdict(f.Verdict)}
		if f.Err != nil {
			found.Reason = f.Err.Error()
			s.summary.blamed(found)
		}
		s.summary.Checks = append(s.summary.Checks, found)
		if lost := (*check.LostError)(nil); errors.As(f.Err, &lost) {
			s.lost = lost.Writes
		}
	}
}

// listed checks that the inventory lists who is to be a member.
func (s *stage) listed() {
	found := Finding{Checker: "inventory-agrees", Verdict: Pass}
	hosts, err := s.rig.Hosts()
	if err == nil && !slices.Equal(slices.Sorted(slices.Values(hosts)), slices.Sorted(slices.Values(s.intended))) {
		err = fmt.Errorf("the inventory lists %v, the members ought to be %v", hosts, s.intended)
	}
	if err != nil {
		found.Verdict, found.Reason = Violation, err.Error()
		s.summary.blamed(found)
	}
	s.summary.Checks = append(s.summary.Checks, found)
}

// --- the account ---

// account fills in the summary. It is called when all has been played.
func (s *stage) account() {
	sum := s.summary
	if s.history != nil {
		sum.AckedWrites, sum.LostWrites = s.history.Acked(), len(s.lost)
		sum.EtcdVersion = versionsOf(s.history)
	}
	for _, p := range s.played {
		if p.command == "" && p.row.args == nil && p.say == nil { // the load alone
			sum.Time = sum.Time.plus(p.other)
			continue
		}
		proc := s.procedure(p)
		sum.MaxWriteGapMS = max(sum.MaxWriteGapMS, proc.MaxWriteGapMS)
		sum.Time = sum.Time.plus(proc.Spent).plus(p.other)
		sum.Procedures = append(sum.Procedures, proc)
	}
}

func versionsOf(h *workload.History) string {
	var all []string
	for _, v := range h.Etcd {
		all = append(all, v)
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// procedure sums up one operator.
func (s *stage) procedure(p played) Procedure {
	o := p.outcome
	w := window{o.Began, o.Ended}
	proc := Procedure{
		Name: p.title(), Command: strings.Join(p.args, " "), Verdict: p.verdict, Reason: p.reason, Status: o.Status,
		Killed: o.Killed, Output: p.out, Seconds: seconds(w.length()), Steps: []Step{}, Spent: spent(o),
	}
	loaded := p.loaded && s.history != nil && !o.Began.IsZero()
	if loaded {
		gap, quiet := gapIn(s.history, w), quietBefore(w, p.quiet)
		proc.UnderLoad, proc.MaxWriteGapMS, proc.AckedWrites = true, millis(gap.Longest), gap.Acked
		proc.SlowestClientGapMS = millis(gap.SlowestLongest)
		proc.QuietGapMS, proc.QuietSeconds = millis(gapIn(s.history, quiet).Longest), seconds(quiet.length())
		for _, op := range s.lost {
			if at := s.history.Base.Add(op.Return); !at.Before(w.from) && at.Before(w.to) {
				proc.LostWrites++
			}
		}
	}
	for _, st := range stepsOf(o.Journal, o.Ended) {
		step := Step{Title: st.title, Host: st.host, Seconds: seconds(st.length()), State: string(st.state)}
		if loaded {
			gap := gapIn(s.history, st.window)
			step.MaxWriteGapMS, step.AckedWrites = millis(gap.Longest), gap.Acked
		}
		proc.Steps = append(proc.Steps, step)
	}
	if !p.loaded && len(p.args) > 0 && p.args[0] == "createCluster" && p.status == 0 && !p.untouched && s.history != nil {
		if at, ok := firstWrite(s.history); ok && at.After(o.Began) {
			proc.FirstWriteSeconds = seconds(at.Sub(o.Began))
		}
	}
	return proc
}

func firstWrite(h *workload.History) (time.Time, bool) {
	var first time.Duration
	found := false
	for i := range h.Ops {
		if o := &h.Ops[i]; o.Acked() && (!found || o.Return < first) {
			first, found = o.Return, true
		}
	}
	return h.Base.Add(first), found
}

// pause lets time pass that has to pass: etcd's HealthInterval, and the window
// in which the load runs alone.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Hosts are the hosts that the rig's inventory lists now.
func (r *Rig) Hosts() ([]string, error) { return hostsIn(r.Inventory(), r.Group) }

func (r *Rig) group() (*inventory.Group, error) { return groupIn(r.Inventory(), r.Group) }

func hostsIn(path, group string) ([]string, error) {
	g, err := groupIn(path, group)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, h := range g.Hosts {
		hosts = append(hosts, h.Name)
	}
	return hosts, nil
}

func groupIn(path, group string) (*inventory.Group, error) {
	inv, err := inventory.Read(path)
	if err != nil {
		return nil, err
	}
	return inv.Group(group)
}

// spec is what the inventory says of a host, or would say.
func (r *Rig) spec(name string) (*inventory.Group, inventory.Host, error) {
	g, err := r.group()
	if err != nil {
		return nil, inventory.Host{}, err
	}
	h, ok := g.Host(name)
	if !ok {
		h = inventory.Host{Name: name, ClientPort: g.ClientPort, PeerPort: g.PeerPort}
	}
	return g, h, nil
}

// member connects to the member on a host, as a client of the lab.
func (r *Rig) member(ctx context.Context, name string) (workload.Etcd, error) {
	dial, err := r.Dial(embedded.Client)
	if err != nil {
		return nil, err
	}
	return r.memberBy(ctx, dial, name)
}

// memberBy is member for who has a way to dial.
func (r *Rig) memberBy(ctx context.Context, dial workload.Dial, name string) (workload.Etcd, error) {
	url, err := r.clientURL(name)
	if err != nil {
		return nil, err
	}
	return dial(ctx, url)
}

func (r *Rig) clientURL(name string) (string, error) {
	g, h, err := r.spec(name)
	if err != nil {
		return "", err
	}
	return g.ClientURL(h), nil
}

func (r *Rig) peerURL(name string) (string, error) {
	g, h, err := r.spec(name)
	if err != nil {
		return "", err
	}
	return g.PeerURL(h), nil
}
