package scenarios

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/container/postgres"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// storyInventory is a small site of Pigsty's: etcd, and a PostgreSQL cluster
// with a virtual IP that lives by it.
const storyInventory = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: etcd
    pg-test:
      hosts:
        10.10.10.21: { pg_seq: 1, pg_role: primary }
        10.10.10.22: { pg_seq: 2, pg_role: replica }
        10.10.10.23: { pg_seq: 3, pg_role: replica }
      vars:
        pg_cluster: pg-test
        pg_vip_enabled: true
        pg_vip_address: 10.10.10.2/24
        pg_vip_interface: eth0
`

const (
	storySpare    = "10.10.10.13"
	storyCluster  = "pg-test"
	storyEtcdLoad = 2 // clients of etcd beside those of PostgreSQL
	// storyQuiet is how long the loads run alone before each procedure, and
	// after the last.
	storyQuiet = 2 * time.Second
)

// A StorySpec says how to play the story.
type StorySpec struct {
	Executable string    // the etcdrill binary: every operator is a process of it
	Root       string    // directory of container labs, absolute
	Cache      string    // directory of etcd's binaries, absolute
	Out        string    // directory that .etcdrill/runs is made in, absolute
	Path       string    // PATH of the operators, who need ssh; empty for the usual directories
	Seed       int64     // of the load on etcd
	Report     io.Writer // progress, and the report at the end; nil for none
}

// A chapter is one operator of the story. SPARE and LEADER stand for what they
// are at that moment.
type chapter struct{ name, command string }

// story is what is done to etcd, as a table of contents. PostgreSQL takes writes
// through its VIP all the while.
func story() []chapter {
	return []chapter{
		{"addMember", "addMember SPARE"},
		{"removeMember of the leader", "removeMember LEADER"},
		{"restart", "restart -soak=0s"},
		// Nothing before it restarts vip-manager, and so it still runs with the
		// list that it began with.
		{"restart of vip-manager", "reloadConfig -vips=true"},
	}
}

// Story plays the end-to-end story: PostgreSQL under Patroni and vip-manager, on
// real machines, takes writes through its virtual IP, while a member is added to
// its etcd, the leader is removed from it, all members are restarted, and
// vip-manager is made to read its new list, each by an operator who reaches the
// machines by SSH. The summary says how it went. An
// error means that it could not be played, or that what was seen could not be
// kept; there may be a summary beside it.
func Story(ctx context.Context, spec StorySpec) (Summary, error) {
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	began := time.Now()
	sum := Summary{Verdict: Pass, Seed: spec.Seed, Name: "story", Began: began, EtcdVersion: image.DefaultEtcd,
		Procedures: []Procedure{}, Checks: []Finding{}, Unknown: []string{
			"how PostgreSQL fares with production's load, data and settings",
			"slow networks and disks, and clocks that differ: all machines share one kernel",
		}}
	dir, err := makeRunDir(spec.Out, began)
	if err != nil {
		sum.blame(Infra, "%v", err)
		return sum, err
	}
	sum.Dir = string(dir)
	t := &teller{spec: spec, machines: &machines{executable: spec.Executable, path: spec.Path,
		stage: &stage{dir: dir, summary: &sum, seed: spec.Seed, quiet: storyQuiet}}}
	t.stage.tell = func(format string, args ...any) {
		fmt.Fprintf(spec.Report, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(spec.Report, "story, seed %d, in %s\n", spec.Seed, dir)

	failed := t.tell(ctx)
	t.stage.account()
	sum.Seconds = seconds(time.Since(began))
	sum.Time.Own += max(sum.Seconds-sum.Time.total(), 0)
	if err := sum.write(); failed == nil {
		failed = err
	}
	if _, err := io.WriteString(spec.Report, "\n"+sum.Text()); failed == nil && err != nil {
		failed = fmt.Errorf("report: %w", err)
	}
	return sum, failed
}

// A teller plays the story.
type teller struct {
	*machines
	spec StorySpec
	trio *postgres.Cluster
}

// tell builds the lab and plays on it. What the lab or the machines fail in is
// blamed on them; what is not as promised is a violation.
func (t *teller) tell(ctx context.Context) error {
	s := t.stage
	fail := func(err error) error {
		s.summary.blame(s.causeOf(ctx, Infra), "%v", err)
		return err
	}
	s.tell("machines up")
	machines := []container.MachineSpec{{Host: "10.10.10.10"}, {Host: "10.10.10.11"}, {Host: "10.10.10.12"}, {Host: storySpare}}
	var databases []string
	for n := range 3 {
		databases = append(databases, fmt.Sprintf("10.10.10.%d", 21+n))
		machines = append(machines, container.MachineSpec{Host: databases[n], Role: image.Database})
	}
	lab, err := container.Up(ctx, container.Spec{Root: t.spec.Root, Cache: t.spec.Cache, Machines: machines,
		Inventory: []byte(storyInventory), Progress: t.spec.Report})
	if err != nil {
		return fail(fmt.Errorf("bring up the machines: %w", err))
	}
	t.lab = lab
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		t.keepLogs(down)
		if err := lab.Down(down); err != nil {
			s.summary.blame(Infra, "take the machines down: %v", err)
		}
	}()
	if lab.Info().Gate != "" {
		return fail(errors.New("the machines are reached by a gate, and the clients of PostgreSQL have no way through it"))
	}
	s.tell("createCluster")
	if o, err := t.operate(ctx, "createCluster", []string{"createCluster"}); err != nil {
		return fail(err)
	} else if o.Status != 0 {
		s.summary.blame(verdictOf(o.Status, false), "createCluster: exit status %d: %s", o.Status, lastWords(o.Stderr))
		return nil
	}
	for _, m := range machines[:3] {
		s.intended = append(s.intended, lab.Info().Host(m.Host))
	}
	s.tell("PostgreSQL up")
	if err := t.database(ctx, databases); err != nil {
		return fail(err)
	}
	return t.underLoad(ctx, fail)
}

// database puts the PostgreSQL cluster on its machines.
func (t *teller) database(ctx context.Context, hosts []string) error {
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ca, err := t.pki().Load()
	if err != nil {
		return err
	}
	vip, err := vipOf(t.lab.Info().Inventory)
	if err != nil {
		return err
	}
	spec := postgres.Spec{Cluster: storyCluster, VIP: vip, Endpoints: Endpoints(t.stage.intended...), CA: ca, Random: rand.Reader, Clock: time.Now}
	for _, h := range hosts {
		m, err := t.lab.Machine(h)
		if err != nil {
			return err
		}
		spec.Machines = append(spec.Machines, m)
	}
	t.trio, err = postgres.Up(ctx, spec)
	return err
}

// vipOf reads the virtual IP that a lab's inventory gives its PostgreSQL.
func vipOf(path string) (netip.Prefix, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read the lab's inventory: %w", err)
	}
	var site struct {
		All struct {
			Children map[string]struct {
				Vars struct {
					VIP string `yaml:"pg_vip_address"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(content, &site); err != nil {
		return netip.Prefix{}, fmt.Errorf("read the lab's inventory: %w", err)
	}
	vip, err := netip.ParsePrefix(site.All.Children[storyCluster].Vars.VIP)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read pg_vip_address of the lab's inventory: %w", err)
	}
	return vip, nil
}

// underLoad plays the chapters while clients write to etcd and to PostgreSQL,
// and judges what is left.
func (t *teller) underLoad(ctx context.Context, fail func(error) error) error {
	s := t.stage
	config, err := clientTLS(t.pki())
	if err != nil {
		return fail(err)
	}
	t.dial = workload.Dialer{TLS: config}.Dial
	rows, err := t.trio.Load(ctx, postgres.LoadSpec{})
	if err != nil {
		return fail(err)
	}
	defer rows.Stop()
	log, err := workload.CreateLog(s.dir.path("history.jsonl"))
	if err != nil {
		return fail(err)
	}
	puts, err := workload.Start(ctx, workload.Spec{Seed: s.seed, Prefix: loadPrefix, Profile: workload.Profile{Clients: storyEtcdLoad},
		Endpoints: workload.Fixed(Endpoints(s.intended...)...), Dial: t.dial}, log)
	if err != nil {
		return fail(err)
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel() // ends a watch that nobody came to stop
	watch, err := t.trio.Watch(watching)
	if err != nil {
		_, stopping := puts.Stop()
		return fail(errors.Join(err, stopping))
	}
	for n, c := range story() {
		if s.summary.Verdict != Pass {
			s.played = append(s.played, played{row: row{name: c.name, command: c.command, loaded: true}, verdict: Skipped, reason: "skipped because of what came before"})
			continue
		}
		p := t.chapter(ctx, n+1, c)
		puts.UseEndpoints(Endpoints(s.intended...))
		s.played = append(s.played, p)
		if p.verdict != Pass {
			s.summary.blame(p.verdict, "%s: %s", c.name, p.reason)
		}
	}
	_ = pause(ctx, storyQuiet) // the end of it shows below
	writes := rows.Stop()
	seen, err := watch.Stop(ctx)
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Unknown), "%v", err)
	}
	seen.Writes = writes
	s.load = puts
	if s.history, err = puts.Stop(); err != nil {
		s.summary.blame(Infra, "the history is not whole: %v", err)
	}
	s.load = nil
	if ctx.Err() != nil {
		s.summary.blame(Unknown, "interrupted before it was judged")
		return nil
	}
	t.judge(ctx, seen)
	return nil
}

// chapter plays one operator and looks at what the clients' files name then.
func (t *teller) chapter(ctx context.Context, n int, c chapter) played {
	s := t.stage
	p := played{row: row{name: c.name, command: c.command, loaded: true}, verdict: Pass}
	end := func(v Verdict, format string, args ...any) played {
		p.verdict, p.reason = v, fmt.Sprintf(format, args...)
		return p
	}
	p.quiet.from = time.Now()
	if err := pause(ctx, storyQuiet); err != nil {
		return end(Unknown, "interrupted")
	}
	p.quiet.to = time.Now()
	p.other.Quiet = seconds(p.quiet.length())
	for _, w := range strings.Fields(c.command) {
		switch w {
		case "SPARE":
			w = t.lab.Info().Host(storySpare)
		case "LEADER":
			var err error
			if w, err = t.leader(ctx); err != nil {
				return end(s.causeOf(ctx, Unknown), "find the leader: %v", err)
			}
		}
		p.args = append(p.args, w)
	}
	s.tell("%s", strings.Join(p.args, " "))
	name := fmt.Sprintf("%02d-%s", n, p.args[0])
	p.out = filepath.Join("operators", name)
	var err error
	if p.outcome, err = t.operate(ctx, name, p.args); err != nil {
		return end(s.causeOf(ctx, Infra), "%v", err)
	}
	if err := s.dir.journal(p.outcome.Journal); err != nil {
		return end(Infra, "%v", err)
	}
	switch {
	case ctx.Err() != nil:
		return end(Unknown, "interrupted")
	case p.outcome.Status != 0:
		return end(verdictOf(p.outcome.Status, false), "exit status %d: %s", p.outcome.Status, lastWords(p.outcome.Stderr))
	}
	s.follow(p)
	if err := t.namesVoters(ctx); err != nil {
		return end(s.causeOf(ctx, Violation), "%v", err)
	}
	return p
}

// namesVoters: the files of Patroni and vip-manager on every machine name
// exactly those who ought to be voters.
func (t *teller) namesVoters(ctx context.Context) error {
	all, err := t.trio.Listed(ctx)
	if err != nil {
		return err
	}
	var voters []string
	for _, h := range t.stage.intended {
		voters = append(voters, net.JoinHostPort(h, "2379"))
	}
	slices.Sort(voters)
	var errs []error
	for _, name := range t.trio.Instances() {
		for file, named := range map[string][]string{postgres.PatroniPath: all[name].Patroni, postgres.VIPManagerPath: all[name].VIPManager} {
			if !slices.Equal(named, voters) {
				errs = append(errs, fmt.Errorf("%s of %s names %v, the voters are %v", file, name, named, voters))
			}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// judge lets all checkers have their say, and takes the account of PostgreSQL.
func (t *teller) judge(ctx context.Context, seen postgres.Evidence) {
	s := t.stage
	s.tell("judging %d acknowledged writes of etcd and %d of PostgreSQL", s.history.Acked(), seen.Acked())
	var err error
	if seen.Rows, err = t.trio.Rows(ctx); err != nil {
		s.summary.blame(s.causeOf(ctx, Unknown), "%v", err)
	}
	evidence, err := t.evidence(ctx)
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Unknown), "%v", err)
		return
	}
	s.findings(ctx, evidence, check.ForLoad(evidence)...)
	s.findings(ctx, evidence, seen.Checkers()...)
	s.summary.Database = account(seen, s.played)
}

// account sums up what PostgreSQL's clients saw.
func account(e postgres.Evidence, chapters []played) *Database {
	gap, _, _ := e.WriteGap(e.Began, e.Ended)
	d := &Database{Primary: e.After.Leader, Timeline: e.After.Timeline, AckedRows: e.Acked(), LostRows: len(e.Lost(e.After.Leader)),
		MaxWriteGapMS: millis(gap), VIPGoneTimes: len(e.Gone()), Procedures: []DatabaseImpact{}}
	if _, known := e.Rows[e.After.Leader]; !known {
		d.LostRows = 0 // nobody looked; a checker says so
	}
	gone := func(w window) (total time.Duration) {
		for _, g := range e.Gone() {
			from, to := later(g.From, w.from), earlier(g.To, w.to)
			total += max(to.Sub(from), 0)
		}
		return total
	}
	d.VIPGoneMS = millis(gone(window{e.From, e.To}))
	for _, o := range e.Overlaps() {
		d.VIPTwiceMS += millis(o.To.Sub(o.From))
	}
	for _, p := range chapters {
		if p.outcome.Began.IsZero() {
			continue
		}
		w := window{p.outcome.Began, p.outcome.Ended}
		quiet := quietBefore(w, p.quiet)
		during, _, acked := e.WriteGap(w.from, w.to)
		before, _, _ := e.WriteGap(quiet.from, quiet.to)
		d.Procedures = append(d.Procedures, DatabaseImpact{Name: p.title(), MaxWriteGapMS: millis(during), QuietGapMS: millis(before),
			AckedRows: acked, VIPGoneMS: millis(gone(w))})
	}
	return d
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
