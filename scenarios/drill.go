package scenarios

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
)

// A DrillSpec says how to play the drill.
type DrillSpec struct {
	Executable string    // the etcdrill binary: operators, lab and members
	Root       string    // directory of labs, absolute
	Out        string    // directory that .etcdrill/runs is made in, absolute
	Seed       int64     // of the load and the lab
	Rate       float64   // calls a second of all clients together; 0 is as fast as they are answered
	Report     io.Writer // progress, and the report at the end; nil for none
}

// drill is the standard drill, as a table of contents.
func drill() []row {
	const refused = 3
	const blink = 300 * time.Millisecond // as long as it takes
	dies := &Kill{Title: "start etcd", State: sop.Answered}
	return []row{
		{command: "createCluster"},
		{command: "createCluster", name: "createCluster again", says: "nothing to do", untouched: true},
		{command: "createCluster -clean=true -safeguard=true", name: "createCluster over it, safeguarded", status: refused, says: "safeguard", untouched: true},
		{command: "destroyCluster -safeguard=true", name: "destroyCluster, safeguarded", status: refused, says: "safeguard", untouched: true},
		{command: "destroyCluster -confirm=abad1dea", name: "destroyCluster, wrong consent", status: refused, says: "consent", untouched: true},

		{command: "clientEnv", loaded: true, quiet: blink, check: evaluates},
		{command: "clientEnv -check=true", loaded: true, quiet: blink, says: "put, get and delete"},
		{command: "addMember 10.10.10.13", loaded: true},
		{command: "addMember 10.10.10.14", loaded: true},
		{command: "reloadConfig -restart=true", loaded: true},
		{command: "removeMember LEADER", name: "removeMember of the leader", loaded: true},
		{command: "snapshot DIR/snapshot.db", name: "snapshot", loaded: true, check: verifies},
		{command: "addMember 10.10.10.15", name: "addMember 10.10.10.15, killed", loaded: true, kill: dies},
		{command: "addMember 10.10.10.15", name: "addMember 10.10.10.15 again", loaded: true},

		{command: "destroyCluster -safeguard=true", name: "destroyCluster, safeguarded again", status: refused, says: "safeguard", untouched: true},
		{command: "destroyCluster -confirm=CLUSTERID", name: "destroyCluster"},
	}
}

// quietBeforeEach is how long the load of a drill or rehearsal runs alone
// before each procedure.
const quietBeforeEach = 1500 * time.Millisecond

// Drill plays the standard drill: every procedure in turn, on the built-in
// inventory, under load, with an operator that is killed halfway. The summary
// says how it went. An error means that it could not be played, or that what
// was seen could not be kept; there may be a summary beside it.
func Drill(ctx context.Context, spec DrillSpec) (Summary, error) {
	inventory, spares := BuiltIn()
	return perform(ctx, show{
		name: "drill", seed: spec.Seed, out: spec.Out, report: spec.Report, quiet: quietBeforeEach,
		profile: workload.Profile{Rate: spec.Rate},
		rig:     RigSpec{Root: spec.Root, Executable: spec.Executable, Inventory: inventory, Spares: spares, Seed: spec.Seed},
		unknown: []string{
			"what Patroni and vip-manager do: there are none in the embedded lab",
			"SSH, systemd and sudo of real hosts: the lab has stand-ins for them",
			"another etcd than " + machine.EmbeddedVersion() + ", the one that is linked in",
			"production's load, data size, disks and network",
		},
		rows: func(context.Context, *stage) ([]row, error) { return drill(), nil },
	})
}

// A show is what a drill, a rehearsal and a benchmark have in common.
type show struct {
	name    string
	seed    int64
	out     string
	report  io.Writer
	quiet   time.Duration
	profile workload.Profile // of the load
	rig     RigSpec
	unknown []string
	rows    func(ctx context.Context, s *stage) ([]row, error)
	// ended is called once all rows were played and judged, while there is a
	// lab; nil where nothing is left to do.
	ended func(ctx context.Context, s *stage)
	// expect tells what to expect of production, once all is accounted for; nil
	// where nobody asked.
	expect func(sum Summary) []string
}

// perform builds the rig, plays the rows, judges, and keeps what was seen.
func perform(ctx context.Context, sh show) (Summary, error) {
	if sh.report == nil {
		sh.report = io.Discard
	}
	began := time.Now()
	sum := Summary{Verdict: Pass, Seed: sh.seed, Name: sh.name, Began: began, EtcdVersion: machine.EmbeddedVersion(),
		Unknown: sh.unknown, Procedures: []Procedure{}, Checks: []Finding{}}
	dir, err := makeRunDir(sh.out, began)
	if err != nil {
		sum.blame(Infra, "%v", err)
		return sum, err
	}
	sum.Dir = string(dir)
	if err := dir.begin(sum); err != nil {
		sum.blame(Infra, "%v", err)
		return sum, err
	}
	s := &stage{dir: dir, summary: &sum, seed: sh.seed, quiet: sh.quiet, profile: sh.profile}
	s.tell = func(format string, args ...any) {
		fmt.Fprintf(sh.report, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(sh.report, "%s, seed %d, in %s\n", sh.name, sh.seed, dir)

	failed := s.onStage(ctx, sh)
	s.account()
	if sh.expect != nil {
		sum.Expect = sh.expect(sum)
	}
	sum.Seconds = seconds(time.Since(began))
	// What no operator spent is the play's own.
	sum.Time.Own += max(sum.Seconds-sum.Time.total(), 0)
	if err := sum.write(); failed == nil {
		failed = err
	}
	if err := dir.keep(s.taken); failed == nil {
		failed = err
	}
	if _, err := io.WriteString(sh.report, "\n"+sum.Text()); failed == nil && err != nil {
		failed = fmt.Errorf("report: %w", err)
	}
	return sum, failed
}

// onStage is perform while there is a lab.
func (s *stage) onStage(ctx context.Context, sh show) error {
	s.tell("lab up")
	rig, err := Build(ctx, sh.rig)
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Infra), "%v", err)
		return err
	}
	s.rig = rig
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := rig.ground.Leave(down); err != nil {
			s.summary.blame(Infra, "take the lab down: %v", err)
		}
	}()
	rows, err := sh.rows(ctx, s)
	if err != nil {
		s.summary.blame(s.causeOf(ctx, Infra), "%v", err)
	} else {
		s.play(ctx, rows)
	}
	if sh.ended != nil {
		sh.ended(ctx, s)
	}
	return s.dir.members(context.WithoutCancel(ctx), rig)
}

// evaluates checks that a shell takes what clientEnv prints, and that it names
// the members.
func evaluates(ctx context.Context, s *stage, o Outcome) error {
	env, err := config.ParseClientEnv([]byte(o.Stdout))
	if err != nil {
		return fmt.Errorf("clientEnv: %w", err)
	}
	var want []string
	for _, h := range s.intended {
		url, err := s.rig.clientURL(h)
		if err != nil {
			return err
		}
		want = append(want, url)
	}
	slices.Sort(want)
	if !slices.Equal(env.Endpoints, want) {
		return fmt.Errorf("clientEnv names the endpoints %v, the members are %v", env.Endpoints, want)
	}
	shell := exec.CommandContext(ctx, "/bin/sh", "-euc", `eval "$1"; printf %s "$ETCDCTL_ENDPOINTS"`, "sh", o.Stdout)
	shell.Env, shell.Dir = []string{"PATH=/usr/bin:/bin"}, string(s.dir)
	said, err := shell.CombinedOutput()
	if err != nil || string(said) != strings.Join(want, ",") {
		return fmt.Errorf("a shell made %q of what clientEnv prints: %w", said, err)
	}
	return nil
}

// verifies checks the snapshot's file anew.
func verifies(_ context.Context, s *stage, _ Outcome) error {
	saved, err := sop.VerifySnapshot(filepath.Join(string(s.dir), "snapshot.db"))
	if err == nil && saved.Keys == 0 {
		err = fmt.Errorf("snapshot %s holds no key", saved.Path)
	}
	return err
}
