package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// A PlaySpec says where scenarios are played.
type PlaySpec struct {
	Executable string // the etcdrill binary: operators, lab and members
	Root       string // directory of labs, absolute
	Out        string // directory that .etcdrill/runs is made in, absolute
	Seed       int64  // of this playing; each scenario has one of its own from it
	// Lean removes the history of a scenario that passed: there are many.
	Lean bool
	// Cache keeps etcd binaries of other versions; see Etcds.
	Cache string
	// Stand is the lab of machines to play on; nil is an embedded lab for each.
	Stand *Stand
}

// A Result is what playing one scenario came to.
type Result struct {
	Scenario Scenario
	Seed     int64 // of the PlaySpec
	Verdict  Verdict
	Reasons  []string
	Strikes  []Struck
	Seconds  float64
	Dir      string // what was kept
	Summary  Summary
	Points   []Moment          // that the procedure came by
	Remains  map[string]string // of a sweep: what was left

	lab string // the option that names the kind of lab, with a blank before it
}

// Struck is what became of one strike of a scenario.
type Struck struct {
	Procedure string  // its verb
	Step      string  // that it struck at, or was to
	Fault     string  // kind
	Role      string  // whom
	Verdict   Verdict // of the scenario; skipped for one that never struck
	Detail    string  // in words, with the hosts
}

// seedOf gives each scenario of a playing a seed of its own, the same each time.
func seedOf(base int64, name string) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", base, name)
	return int64(h.Sum64() >> 1)
}

// quietBeforeScenario is how long the load runs alone before each command of a
// scenario: long enough for it to run at all.
const quietBeforeScenario = 200 * time.Millisecond

// loadOfScenario is what the clients of a scenario do: all that etcd can be
// asked for, so that every checker has something to judge, and no faster than
// this, since several scenarios are played at once.
func loadOfScenario() workload.Profile {
	p := workload.Everything()
	p.Clients, p.SharedKeys, p.Watchers, p.LeaseClients = 3, 2, 1, 1
	p.Rate = 100
	return p
}

// Play plays a scenario on a lab of its own. What went wrong is in the result.
func Play(ctx context.Context, sc Scenario, spec PlaySpec) Result {
	began := time.Now()
	sc = sc.drawn(spec.Seed)
	r := Result{Scenario: sc, Seed: spec.Seed, Verdict: Skipped}
	if spec.Stand != nil {
		r.lab = " -lab=container"
	}
	end := func(v Verdict, format string, args ...any) Result {
		r.Verdict, r.Seconds = v, seconds(time.Since(began))
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
		return r
	}
	if sc.Pending != "" {
		return end(Skipped, "pending: %s", sc.Pending)
	}
	if err := sc.Check(); err != nil {
		return end(Infra, "%v", err)
	}
	if sc.Start.Etcd != "" && spec.Stand != nil {
		return end(Skipped, "skipped: machines have the etcd of their image, and it begins with %s", sc.Start.Etcd)
	}
	if sc.Start.Stale > 0 && spec.Stand != nil {
		return end(Skipped, "skipped: all clients of these machines have one address, and stale ones are told by theirs")
	}
	versions, err := Etcds(ctx, spec.Cache, io.Discard, sc.versions()...)
	if err != nil {
		return end(Infra, "%v", err)
	}
	if sc.Start.Points && spec.Stand == nil {
		if versions, err = withPoints(ctx, spec.Cache, versions); err != nil {
			return end(Infra, "%v", err)
		}
	}
	seed := seedOf(spec.Seed, sc.Name)
	inventory, spares := sc.Start.inventory()
	p := &player{sc: sc, seed: seed}
	sum, err := perform(ctx, show{
		name: "scenario " + sc.Name, seed: seed, out: spec.Out, report: io.Discard, quiet: quietBeforeScenario,
		rig: RigSpec{Root: spec.Root, Executable: spec.Executable, Inventory: inventory, Spares: spares, Seed: seed,
			Disks: sc.Start.Disks && baddisk.Possible() == nil, Points: sc.Start.Points, Stand: spec.Stand, Version: sc.Start.Etcd, Versions: versions},
		unknown: spec.unknown(),
		rows:    p.rows, ended: p.ended,
	})
	r.Summary, r.Dir, r.Verdict, r.Reasons = sum, sum.Dir, sum.Verdict, sum.Reasons
	if err != nil && sum.Verdict == Pass {
		r.Verdict, r.Reasons = Infra, append(r.Reasons, err.Error())
	}
	if p.skip != nil {
		r.Verdict, r.Reasons = Skipped, []string{p.skip.Error()}
	}
	r.Strikes, r.Points, r.Remains = p.struck(r.Verdict), p.points(), p.remains
	if r.Verdict == Pass && spec.Lean {
		_ = os.Remove(filepath.Join(sum.Dir, "history.jsonl")) // it costs space alone
		_ = os.RemoveAll(filepath.Join(sum.Dir, "kept"))
	}
	r.Seconds = seconds(time.Since(began))
	return r
}

// unknown is what no scenario can tell there.
func (spec PlaySpec) unknown() []string {
	if spec.Stand != nil {
		return []string{"what Patroni and vip-manager do: there are none on these machines", "another etcd than " + image.DefaultEtcd}
	}
	return []string{"what Patroni and vip-manager do: there are none in the embedded lab", "another etcd than " + machine.EmbeddedVersion()}
}

// A player plays one scenario.
type player struct {
	sc      Scenario
	seed    int64
	striker *striker
	skip    error
	remains map[string]string
}

// The hosts of scenarios.
const (
	infraOfScenario = "10.10.10.9"
	firstOfScenario = 10
)

func hostOfScenario(i int) string { return fmt.Sprintf("10.10.10.%d", firstOfScenario+i) }

// hosts are how many the inventory of a start has.
func (s Start) hosts() int { return cmp.Or(s.Hosts, 3) }

// inventory gives the inventory of a start, and the spares beside it.
func (s Start) inventory() ([]byte, []string) {
	n := s.hosts()
	var b strings.Builder
	b.WriteString("all:\n  children:\n    etcd:\n      hosts:\n")
	for i := range n {
		fmt.Fprintf(&b, "        %s: {etcd_seq: %d}\n", hostOfScenario(i), i+1)
	}
	b.WriteString("      vars:\n        etcd_cluster: etcd\n")
	for line := range strings.Lines(s.Vars) {
		fmt.Fprintf(&b, "        %s\n", strings.TrimSpace(line))
	}
	if s.Infra {
		fmt.Fprintf(&b, "    infra:\n      hosts:\n        %s: {infra_seq: 1}\n", infraOfScenario)
	}
	var spares []string
	for i := range s.Spares {
		spares = append(spares, hostOfScenario(n+i))
	}
	return []byte(b.String()), spares
}

// rows are the commands of the scenario, in turn.
func (p *player) rows(ctx context.Context, s *stage) ([]row, error) {
	sc := p.sc
	s.profile = loadOfScenario()
	s.profile.Stale = sc.Start.Stale
	s.env = map[string]string{}
	if sc.Mutant != "" {
		s.env["ETCDRILL_MUTANT"] = sc.Mutant
	}
	if sc.Patience > 0 {
		s.env["ETCDRILL_ELECTING"] = sc.Patience.String()
	}
	var err error
	if p.striker, err = s.newStriker(sc.Strikes, subjectOf(strings.Fields(sc.Procedure)), p.seed); err != nil {
		return nil, err
	}
	s.hurt = p.striker.faults
	p.striker.ground.Disks = sc.Start.Disks && (s.rig.Lab == nil || baddisk.Possible() == nil)
	p.striker.ground.Points = sc.Start.Points && s.rig.Lab != nil
	p.striker.watches, p.striker.byLot = watches(plainVerb(sc.Procedure)), sc.Free
	if err := p.striker.probe(); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			p.skip = err
			return nil, nil
		}
		return nil, err
	}
	loaded := !sc.Quiet && !sc.Ending.Untouched && !sc.Start.Blank
	var rows []row
	if !sc.Start.Blank {
		create := row{command: "createCluster"}
		if sc.Start.Waste > 0 {
			create.check = p.waste
		}
		rows = append(rows, create)
	}
	if sc.Start.Users {
		rows = append(rows, usersRows()...)
	}
	for _, c := range sc.Start.Before {
		rows = append(rows, row{command: c})
	}
	var typedArgs []string
	main := row{
		command: sc.Procedure, loaded: loaded, untouched: sc.Ending.Untouched, statuses: sc.Ending.Statuses, dies: sc.Ending.Killed, mayDie: sc.Ending.MayDie, says: sc.Ending.Says,
		moments: p.striker.moment,
		begin: func(ctx context.Context, args []string) error {
			typedArgs = args
			if t := subjectOf(args); t != "" { // LEADER has a name by now
				p.striker.about(t)
			}
			return p.striker.begin(ctx)
		},
		end: func(ctx context.Context, _ []string) error {
			if err := p.striker.end(ctx, false); err != nil {
				return err
			}
			if healed := p.striker.healed(); len(healed) > 0 && !sc.Ending.Untouched {
				s.answering(ctx, append(healed, s.intended...), p.striker.felt()) // whoever was hurt, the others may have had another leader
			}
			return p.striker.broken()
		},
	}
	rows = append(rows, main)
	for i, c := range sc.Ending.Then {
		name := fmt.Sprintf("then (%d) %s", i+1, c)
		away := strings.HasPrefix(c, elsewhere)
		c = strings.TrimPrefix(c, elsewhere)
		r := row{command: c, name: name, loaded: loaded}
		if c == sameAgain { // to the letter: the leader may be another one by now
			r.command, r.say = "", func() []string { return typedArgs }
		}
		if away {
			r = p.away(s, r)
		}
		rows = append(rows, r)
	}
	return append(rows, row{name: "come to rest", loaded: loaded, quiet: quietBeforeScenario, check: p.rest}), nil
}

// waste has every database hold what is not in use.
func (p *player) waste(ctx context.Context, s *stage, _ Outcome) error {
	h, err := fault.Waste(p.sc.Start.Waste).Plan(ctx, p.striker.ground)
	if err == nil {
		err = h.Do(ctx)
	}
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Infra), "waste space: %v", err)
	}
	return nil
}

// away has a row's operator work on another admin host: with the inventory and
// the keys as they are now, and with no journal.
func (p *player) away(s *stage, r row) row {
	r.inventory = s.rig.elsewhere()
	begin := r.begin
	r.begin = func(ctx context.Context, args []string) error {
		if err := s.rig.goElsewhere(); err != nil {
			return err
		}
		if begin != nil {
			return begin(ctx, args)
		}
		return nil
	}
	r.end = func(context.Context, []string) error { return s.rig.comeBack() }
	return r
}

// elsewhere is the inventory of another admin host.
func (r *Rig) elsewhere() string {
	return filepath.Join(r.ground.Dir(), "elsewhere", filepath.Base(r.Inventory()))
}

// goElsewhere gives another admin host the inventory and the keys as they are
// now, and nothing else.
func (r *Rig) goElsewhere() error {
	from, dir := filepath.Dir(r.Inventory()), filepath.Dir(r.elsewhere())
	content, err := os.ReadFile(r.Inventory())
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	if err := os.WriteFile(r.elsewhere(), content, 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(from, "files")); err != nil {
		return nil // there are no keys yet
	}
	return os.CopyFS(filepath.Join(dir, "files"), os.DirFS(filepath.Join(from, "files")))
}

// comeBack brings the inventory back that another admin host edited.
func (r *Rig) comeBack() error {
	content, err := os.ReadFile(r.elsewhere())
	if err != nil {
		return err
	}
	return os.WriteFile(r.Inventory(), content, 0o600)
}

// rest is the end of a scenario: all is healed, the cluster comes to rest, and
// is looked at.
func (p *player) rest(ctx context.Context, s *stage, _ Outcome) error {
	if err := p.striker.end(ctx, true); err != nil {
		s.summary.blame(s.causeOf(ctx, Infra), "%v", err)
		return nil
	}
	if len(s.intended) > 0 {
		if err := s.recovered(ctx); err != nil {
			return err
		}
	}
	if p.sc.Sweep != nil || p.sc.like != nil {
		left, err := s.rig.Remains(ctx)
		if err != nil {
			return err
		}
		p.remains = left
		if lines := differ(p.sc.like, left); p.sc.like != nil && len(lines) > 0 {
			s.summary.blame(Violation, "what is left is not what an undisturbed operator leaves: %s", strings.Join(lines[:min(len(lines), 8)], "; "))
		}
	}
	checks := p.sc.Inspections
	if len(s.intended) > 0 {
		checks = append(standing(), checks...)
	}
	for _, c := range checks {
		found := Finding{Checker: c.Name, Verdict: Pass}
		if err := c.Look(ctx, s); err != nil {
			found.Verdict, found.Reason = s.causeOf(ctx, Violation), err.Error()
			s.summary.blame(found.Verdict, "%s: %v", c.Name, err)
		}
		s.summary.Checks = append(s.summary.Checks, found)
	}
	if s.load == nil && s.history == nil && len(s.intended) > 0 {
		// Nobody wrote; what the members say of each other is judged all the same.
		s.history = &workload.History{Header: workload.Header{Prefix: loadPrefix, Base: time.Now()}, Complete: true}
		evidence, err := s.evidence(ctx)
		if err != nil {
			return err
		}
		s.findings(ctx, evidence, check.HashesAgree(), check.MembershipAgrees())
		s.listed()
		s.history = nil
	}
	return nil
}

// ended judges the strikes, once all has been judged, while there is a lab.
func (p *player) ended(ctx context.Context, s *stage) {
	if p.striker == nil || p.skip != nil {
		return
	}
	if err := p.striker.end(ctx, true); err != nil {
		s.summary.blame(s.causeOf(ctx, Infra), "%v", err)
	}
	if v, why := p.striker.account(); v != Pass {
		s.summary.blame(v, "%s", why)
	}
	_ = p.striker.close()
}

// struck tells what became of the strikes.
func (p *player) struck(v Verdict) []Struck {
	if p.striker == nil {
		return nil
	}
	var all []Struck
	verb, _, _ := strings.Cut(p.sc.Procedure, " ")
	for _, k := range p.striker.strikes {
		st := Struck{Procedure: verb, Step: cmp.Or(k.At.Step, "("+k.At.String()+")"), Fault: k.Fault.Kind(), Verdict: Skipped, Detail: k.Fault.String()}
		var roles []string
		for _, r := range k.Fault.Roles() {
			roles = append(roles, string(r))
		}
		st.Role = strings.Join(roles, ", ")
		if k.struck && k.wound != nil {
			st.Verdict = v
			st.Detail = fmt.Sprintf("%s, %s", k.wound, k.At)
		}
		all = append(all, st)
	}
	return all
}

func (p *player) points() []Moment {
	if p.striker == nil {
		return nil
	}
	return slices.Clone(p.striker.visited)
}

// writes tries a write through the member on a host: one that follows a leader
// may yet send what it is given to the one before.
func (s *stage) writes(ctx context.Context, dial workload.Dial, name string) error {
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	etcd, err := s.rig.memberBy(ctx, dial, name)
	if err != nil {
		return err
	}
	defer etcd.Close()
	_, err = etcd.Put(ctx, "/etcdrill/well", name)
	return err
}

// answering waits until the members on hosts that were healed answer and write
// again: those that are listed as voters, and whom no strike holds down. Where
// they do not, what comes next tells.
func (s *stage) answering(ctx context.Context, hosts, down []string) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return
	}
	slices.Sort(hosts)
	hosts = slices.DeleteFunc(slices.Compact(hosts), func(h string) bool { return slices.Contains(down, h) })
	for _, h := range hosts {
		for {
			if leader, err := s.follows(ctx, dial, h); err == nil && leader != 0 && s.writes(ctx, dial, h) == nil {
				break
			}
			if listed, err := s.listedVoter(ctx, dial, hosts, h); err == nil && !listed {
				break
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				return
			}
		}
	}
}

// listedVoter asks hosts, until a quorum has confirmed one's answer, whether the
// member on one of them is a voter.
func (s *stage) listedVoter(ctx context.Context, dial workload.Dial, hosts []string, name string) (bool, error) {
	peer, err := s.rig.peerURL(name)
	if err != nil {
		return false, err
	}
	last := errors.New("nobody is there to be asked")
	for _, h := range hosts {
		url, err := s.rig.clientURL(h)
		if err != nil {
			return false, err
		}
		list, err := memberList(ctx, dial, url)
		if err != nil {
			last = err
			continue
		}
		return slices.ContainsFunc(list.Members, func(m *pb.Member) bool { return !m.IsLearner && slices.Contains(m.PeerURLs, peer) }), nil
	}
	return false, last
}
