package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// A BenchSpec says what to measure.
type BenchSpec struct {
	Executable string // the etcdrill binary: operators, lab and members
	Root       string // directory of labs, absolute
	Out        string // directory that runs are kept in, absolute
	Seed       int64  // of the first round; the others count on from it
	Count      int    // how often each is measured; 5 when 0
	// Lab is the kind of lab, embedded when empty, or container: then Machines is
	// the directory of labs, Cache that of etcd's binaries, and Path the PATH of
	// the operators, who need ssh.
	Lab                   string
	Machines, Cache, Path string
	// Only names the benchmarks to run, as they are called without Benchmark;
	// empty runs all. Those that are measured in one round come together, on
	// machines up to the last that is named.
	Only []string
	// Rate is how many calls a second the clients make all together. With 0 they
	// call again as soon as they are answered; on machines MachineRate stands
	// for it.
	Rate   float64
	Report io.Writer // progress and medians; nil for none
}

// MachineRate is the load of benchmarks on machines, in calls a second. They
// share this machine's processors with their clients, and where those call as
// fast as they can, nothing else is measured.
const MachineRate = 200

// benchmarks is what is measured, in its order. A round gives one line of each
// of its benchmarks.
func benchmarks() []benchmark {
	return []benchmark{
		{[]string{"LabUp"}, labUpRound},
		{[]string{"LabThroughput", "LabRecording"}, throughputRound},
		{[]string{"CreateCluster", "AddMember", "RemoveFollower", "RollingRestart", "RemoveLeader"}, memberRound},
		{[]string{"Migrate"}, migrateRound},
		{[]string{"MigrateData"}, migrateDataRound},
		{[]string{"Upgrade"}, upgradeRound},
		{[]string{"Drill"}, drillRound},
	}
}

// A benchmark is measured in rounds.
type benchmark struct {
	names []string
	round func(ctx context.Context, b *bench) error
}

// Bench measures the lab and the procedures on it, and writes the lines of a Go
// benchmark to w, one for each time, as benchstat reads them. What ns/op is:
//
//	LabUp           4 hosts, no etcd
//	LabThroughput   one acknowledged write over the lab's healthy links; ratio is
//	                the rate against plain loopback just afterwards
//	LabRecording    the same with every call and reply written to a file; ratio is
//	                the rate against plain loopback without that
//	CreateCluster   from its start to the first acknowledged write of a client
//	Upgrade         the same 3 members from 3.5 to 3.6 and then to 3.7: both together
//	ReloadRestart   reloadConfig -restart, on machines alone
//	Migrate         from three hosts to three others, all of it; times-etcd is
//	                that against what was spent waiting for nothing but etcd, its
//	                HealthInterval first of all: the least that this order can take
//	MigrateData     the same with 1 GiB in it; copies-s is what copying that three
//	                times over the same switch takes, and times-copies how many times
//	                that it took beyond the median of Migrate in the same run
//	others          the procedure, without the wait for etcd's HealthInterval,
//	                which is health-wait-s
//
// gap-ms is the longest write gap less the quiet gap before it; ssh-connections
// and ssh-commands are the most that one machine took. A write that
// was lost, or any other verdict than pass, is an error.
func Bench(ctx context.Context, spec BenchSpec, w io.Writer) error {
	if spec.Count == 0 {
		spec.Count = 5
	}
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	b := &bench{spec: spec, out: w, seen: map[string][]result{}}
	b.printf("goos: %s\ngoarch: %s\npkg: github.com/etcdrill/etcdrill\n", runtime.GOOS, runtime.GOARCH)
	all := benchmarks()
	if spec.Lab == "container" {
		all = machineBenchmarks()
	}
	ran := false
	for _, m := range all {
		if len(spec.Only) > 0 && !slices.ContainsFunc(m.names, func(n string) bool { return slices.Contains(spec.Only, n) }) {
			continue
		}
		ran = true
		for i := range spec.Count {
			b.seed = spec.Seed + int64(i)
			fmt.Fprintf(spec.Report, "# %s, round %d of %d\n", m.names[0], i+1, spec.Count)
			if err := m.round(ctx, b); err != nil {
				return fmt.Errorf("benchmark %s: %w", m.names[0], err)
			}
		}
	}
	if !ran {
		return fmt.Errorf("%w: %s", ErrNoBenchmark, strings.Join(spec.Only, ", "))
	}
	b.medians(spec.Report)
	return b.failed
}

// ErrNoBenchmark says that a kind of lab has none of the benchmarks that were
// named.
var ErrNoBenchmark = errors.New("no such benchmark on this kind of lab")

// bench is a run of benchmarks.
type bench struct {
	spec   BenchSpec
	out    io.Writer
	seed   int64 // of this round
	seen   map[string][]result
	order  []string
	failed error // of writing
}

// A result is one line.
type result struct {
	ops     int
	op      time.Duration
	metrics []metric
}

type metric struct {
	unit  string
	value float64
}

func (b *bench) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(b.out, format, args...); err != nil && b.failed == nil {
		b.failed = fmt.Errorf("print benchmark: %w", err)
	}
}

// line prints one measurement.
func (b *bench) line(name string, r result) {
	if _, ok := b.seen[name]; !ok {
		b.order = append(b.order, name)
	}
	b.seen[name] = append(b.seen[name], r)
	b.printf("Benchmark%s-%d\t%d\t%d ns/op", name, runtime.GOMAXPROCS(0), r.ops, r.op.Nanoseconds())
	for _, m := range r.metrics {
		b.printf("\t%.3f %s", m.value, m.unit)
	}
	b.printf("\n")
}

// medians prints the median of each measure, for those without benchstat.
func (b *bench) medians(w io.Writer) {
	for _, name := range b.order {
		var ops []float64
		units := map[string][]float64{}
		for _, r := range b.seen[name] {
			ops = append(ops, float64(r.op)/float64(time.Millisecond))
			for _, m := range r.metrics {
				units[m.unit] = append(units[m.unit], m.value)
			}
		}
		fmt.Fprintf(w, "# median of %d: %-15s %8.2f ms", len(ops), name, median(ops))
		for _, m := range b.seen[name][0].metrics {
			fmt.Fprintf(w, "  %.2f %s", median(units[m.unit]), m.unit)
		}
		fmt.Fprintln(w)
	}
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	if n == 0 {
		return 0
	}
	return (all[(n-1)/2] + all[n/2]) / 2
}

func labUpRound(ctx context.Context, b *bench) error {
	const ups = 5
	hosts := []string{"10.10.10.10", "10.10.10.11", "10.10.10.12", "10.10.10.13"}
	var took time.Duration
	for range ups {
		began := time.Now()
		lab, err := embedded.Up(ctx, embedded.Spec{Root: b.spec.Root, Hosts: hosts, Executable: b.spec.Executable, Seed: b.seed})
		if err != nil {
			return err
		}
		took += time.Since(began)
		if err := lab.Down(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	b.line("LabUp", result{ops: ups, op: took / ups})
	return nil
}

func throughputRound(ctx context.Context, b *bench) error {
	const window = 3 * time.Second
	dir, err := os.MkdirTemp(b.spec.Out, "plain")
	if err != nil {
		return fmt.Errorf("make a directory for plain members: %w", err)
	}
	defer os.RemoveAll(dir)
	inventory, _ := BuiltIn()
	rig, err := Build(ctx, RigSpec{Root: b.spec.Root, Executable: b.spec.Executable, Inventory: inventory, Seed: b.seed})
	if err != nil {
		return err
	}
	defer func() { _ = rig.Lab.Down(context.WithoutCancel(ctx)) }()
	o, err := rig.Command(ctx, Command{Args: []string{"createCluster"}, Out: filepath.Join(dir, "createCluster")})
	if err == nil && o.Status != 0 {
		err = fmt.Errorf("createCluster: exit status %d: %s", o.Status, lastWords(o.Stderr))
	}
	if err != nil {
		return err
	}
	p, err := startPlain(ctx, dir, b.spec.Executable)
	if err != nil {
		return err
	}
	defer p.close()
	dial, err := rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	hosts, err := rig.Hosts()
	if err != nil {
		return err
	}
	// In turn and twice each, so that a drift of the machine hits both.
	var there, recorded, here throughput
	for turn := range 2 {
		prefix := fmt.Sprintf("/etcdrill/load/%d/", turn)
		in, err := measureThroughput(ctx, dial, Endpoints(hosts...), prefix, b.seed, window, nil)
		if err != nil {
			return fmt.Errorf("load on the lab: %w", err)
		}
		log, err := workload.CreateLog(filepath.Join(dir, fmt.Sprintf("history-%d.jsonl", turn)))
		if err != nil {
			return err
		}
		taken, err := measureThroughput(ctx, dial, Endpoints(hosts...), "/etcdrill/recorded"+prefix, b.seed, window, log)
		if err != nil {
			return fmt.Errorf("recorded load on the lab: %w", err)
		}
		out, err := measureThroughput(ctx, p.dial, p.endpoints, prefix, b.seed, window, nil)
		if err != nil {
			return fmt.Errorf("load on plain loopback: %w", err)
		}
		there, recorded, here = there+in/2, recorded+taken/2, here+out/2
	}
	b.line("LabThroughput", result{ops: int(float64(there) * 2 * window.Seconds()), op: time.Duration(float64(time.Second) / float64(there)), metrics: []metric{
		{"puts/s", float64(there)}, {"plain-puts/s", float64(here)}, {"ratio", float64(there / here)},
	}})
	b.line("LabRecording", result{ops: int(float64(recorded) * 2 * window.Seconds()), op: time.Duration(float64(time.Second) / float64(recorded)), metrics: []metric{
		{"puts/s", float64(recorded)}, {"plain-puts/s", float64(here)}, {"ratio", float64(recorded / here)},
	}})
	return nil
}

// memberRows change the membership of a cluster of three that is always past
// its HealthInterval, with a quiet window as long as what comes after it.
func memberRows(context.Context, *stage) ([]row, error) {
	return []row{
		{name: "CreateCluster", command: "createCluster"},
		{name: "AddMember", command: "addMember 10.10.10.13", loaded: true, settled: true},
		{name: "RemoveFollower", command: "removeMember FOLLOWER", loaded: true, settled: true},
		{name: "RollingRestart", command: "restart -soak=0s", loaded: true, settled: true, quiet: 10 * time.Second},
		{command: "addMember 10.10.10.14", loaded: true, settled: true},
		{name: "RemoveLeader", command: "removeMember LEADER", loaded: true, settled: true},
	}, nil
}

// play plays rows on the built-in inventory, on a rig that is as given where that
// matters, and wants a pass.
func (b *bench) play(ctx context.Context, rows func(context.Context, *stage) ([]row, error), rig RigSpec) (Summary, error) {
	rig.Root, rig.Executable, rig.Seed = b.spec.Root, b.spec.Executable, b.seed
	rig.Inventory, rig.Spares = BuiltIn()
	sum, err := perform(ctx, show{name: "benchmark", seed: b.seed, out: b.spec.Out, report: io.Discard, rows: rows, profile: workload.Profile{Rate: b.spec.Rate}, rig: rig})
	return sum, b.passed(sum, err)
}

func memberRound(ctx context.Context, b *bench) error {
	sum, err := b.play(ctx, memberRows, RigSpec{})
	if err != nil {
		return err
	}
	for _, p := range sum.Procedures {
		if p.Name == p.Command {
			continue // it only makes room for the next
		}
		b.line(p.Name, measured(p))
	}
	return nil
}

// migrateRows move a cluster of three, that is past its HealthInterval and empty
// but for the load, to three other hosts.
func migrateRows(context.Context, *stage) ([]row, error) {
	return []row{
		{command: "createCluster"},
		{name: "Migrate", command: toSpares, loaded: true, settled: true, quiet: 10 * time.Second},
	}, nil
}

func migrateRound(ctx context.Context, b *bench) error {
	sum, err := b.play(ctx, migrateRows, RigSpec{})
	if err != nil {
		return err
	}
	for _, p := range sum.Procedures {
		if p.Name != "Migrate" {
			continue
		}
		r := measured(p)
		r.op = time.Duration(p.Seconds * float64(time.Second)) // the waits are what it is about
		r.metrics = append(r.metrics, metric{"times-etcd", p.Seconds / (p.Health + p.Etcd)})
		b.line(p.Name, r)
	}
	return nil
}

// upgradeBenchRows take the same three members up two minor versions, one by one, as
// etcd wants it.
func upgradeBenchRows(context.Context, *stage) ([]row, error) {
	return []row{
		{command: "createCluster"},
		{name: "to 3.6", command: "upgrade 3.6.16 -soak=0s", loaded: true, settled: true, quiet: 10 * time.Second},
		{name: "to 3.7", command: "upgrade 3.7.3 -soak=0s", loaded: true, settled: true, quiet: 10 * time.Second},
	}, nil
}

func upgradeRound(ctx context.Context, b *bench) error {
	versions, err := Etcds(ctx, b.spec.Cache, b.spec.Report, "3.5.35", "3.6.16", "3.7.3")
	if err != nil {
		return err
	}
	sum, err := b.play(ctx, upgradeBenchRows, RigSpec{Version: "3.5.35", Versions: versions})
	if err != nil {
		return err
	}
	all := Procedure{UnderLoad: true}
	for _, p := range sum.Procedures[1:] {
		all.Seconds += p.Seconds
		all.Spent = all.Spent.plus(p.Spent)
		all.MaxWriteGapMS = max(all.MaxWriteGapMS, p.MaxWriteGapMS-p.QuietGapMS)
	}
	b.line("Upgrade", measured(all))
	return nil
}

// passed wants a pass: what was measured of anything else is worth nothing.
func (b *bench) passed(sum Summary, err error) error {
	if err != nil {
		return err
	}
	if sum.Verdict != Pass {
		return fmt.Errorf("verdict %s: %v (see %s)", sum.Verdict, sum.Reasons, sum.Dir)
	}
	return nil
}

// measured is the line of a procedure.
func measured(p Procedure) result {
	op := cmp.Or(p.FirstWriteSeconds, p.Seconds) - p.Health
	r := result{ops: 1, op: time.Duration(op * float64(time.Second))}
	if p.UnderLoad {
		r.metrics = append(r.metrics, metric{"gap-ms", max(p.MaxWriteGapMS-p.QuietGapMS, 0)})
	}
	r.metrics = append(r.metrics, metric{"etcd-wait-s", p.Etcd}, metric{"own-s", p.Own}, metric{"watch-s", p.Watch})
	if p.UnderLoad {
		r.metrics = append(r.metrics, metric{"health-wait-s", p.Health})
	}
	return r
}

func drillRound(ctx context.Context, b *bench) error {
	sum, err := Drill(ctx, DrillSpec{Executable: b.spec.Executable, Root: b.spec.Root, Out: b.spec.Out, Seed: b.seed})
	if err := b.passed(sum, err); err != nil {
		return err
	}
	worst := 0.0
	for _, p := range sum.Procedures {
		worst = max(worst, p.MaxWriteGapMS-p.QuietGapMS)
	}
	b.line("Drill", result{ops: 1, op: time.Duration(sum.Seconds * float64(time.Second)), metrics: []metric{
		{"gap-ms", worst}, {"etcd-wait-s", sum.Time.Etcd}, {"own-s", sum.Time.Own}, {"watch-s", sum.Time.Watch},
		{"health-wait-s", sum.Time.Health}, {"quiet-s", sum.Time.Quiet},
	}})
	return nil
}
