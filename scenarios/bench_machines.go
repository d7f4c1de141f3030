package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
)

// machineBenchmarks are those that are measured on machines, by SSH.
func machineBenchmarks() []benchmark {
	var names []string
	for _, r := range machineRows() {
		if r.name != "" {
			names = append(names, r.name)
		}
	}
	return []benchmark{{names, machineRound}}
}

// machineRows are as memberRows. SPARE is the next spare machine. ReloadRestart is
// what Pigsty's playbook does to refresh configuration: every member restarts.
func machineRows() []row {
	return []row{
		{name: "CreateCluster", command: "createCluster"},
		{name: "ReloadRestart", command: "reloadConfig -restart=true -soak=0s", loaded: true},
		{name: "AddMember", command: "addMember SPARE", loaded: true},
		{name: "RemoveFollower", command: "removeMember FOLLOWER", loaded: true},
		{name: "RollingRestart", command: "restart -soak=0s", loaded: true},
		{command: "addMember SPARE", loaded: true},
		{name: "RemoveLeader", command: "removeMember LEADER", loaded: true},
	}
}

// rowsFor are the rows up to the last one that is named: each leaves the cluster
// as the next wants it.
func rowsFor(names []string) []row {
	rows := machineRows()
	for n := len(rows); n > 0 && len(names) > 0; n-- {
		if slices.Contains(names, rows[n-1].name) {
			return rows[:n]
		}
	}
	return rows
}

// machineRound measures one lab of six machines, with a client load on it from
// this machine.
func machineRound(ctx context.Context, b *bench) (err error) {
	dir, err := makeRunDir(b.spec.Out, time.Now())
	if err != nil {
		return err
	}
	sum := Summary{Verdict: Pass, Seed: b.seed, Name: "benchmark", Began: time.Now(), Dir: string(dir)}
	m := &machines{executable: b.spec.Executable, path: b.spec.Path, stage: &stage{dir: dir, summary: &sum, seed: b.seed}}
	inventory, spares := BuiltIn()
	m.lab, err = container.Up(ctx, container.Spec{Root: b.spec.Machines, Cache: b.spec.Cache, Machines: machinesFor(inventory, spares), Inventory: inventory, Progress: b.spec.Report})
	if err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, m.lab.Down(down))
	}()
	if err := m.measure(ctx, b, spares); err != nil {
		return err
	}
	if sum.Verdict != Pass {
		return fmt.Errorf("verdict %s: %v (see %s)", sum.Verdict, sum.Reasons, sum.Dir)
	}
	return nil
}

func machinesFor(content []byte, spares []string) []container.MachineSpec {
	hosts, err := labHosts(RigSpec{Inventory: content, Group: machinesGroup, Spares: spares})
	if err != nil {
		return nil // container.Up says what is wrong with it
	}
	var all []container.MachineSpec
	for _, h := range hosts {
		all = append(all, container.MachineSpec{Host: h})
	}
	return all
}

// measure plays the rows and prints a line for each.
func (m *machines) measure(ctx context.Context, b *bench, spares []string) error {
	s := m.stage
	var load *workload.Load
	var first time.Duration // from createCluster's start to a write
	for n, r := range rowsFor(b.spec.Only) {
		if r.loaded && load == nil {
			log, err := workload.CreateLog(s.dir.path("history.jsonl"))
			if err != nil {
				return err
			}
			if load, err = workload.Start(ctx, workload.Spec{Profile: workload.Profile{Rate: cmp.Or(b.spec.Rate, MachineRate)}, Seed: s.seed, Prefix: loadPrefix, Endpoints: workload.Fixed(Endpoints(s.intended...)...), Dial: m.dial}, log); err != nil {
				return err
			}
			defer func() { _, _ = load.Stop() }() // a second time it has nothing to say
		}
		p, err := m.bench(ctx, n+1, r, &spares)
		if err != nil {
			return err
		}
		s.played = append(s.played, p)
		switch {
		case !r.loaded:
			if first, err = m.firstWrite(ctx, p.outcome.Began); err != nil {
				return err
			}
		default:
			load.UseEndpoints(Endpoints(s.intended...))
		}
	}
	var err error
	if load != nil {
		if s.history, err = load.Stop(); err != nil {
			return err
		}
		if err := m.lost(ctx); err != nil {
			return err
		}
	}
	for _, p := range s.played {
		if p.name == "" {
			continue // it only makes room for the next
		}
		proc := s.procedure(p)
		if !p.loaded {
			proc.FirstWriteSeconds = seconds(first)
		}
		r := measured(proc)
		opened, run := sshCounts(p.outcome.Stderr)
		r.metrics = append(r.metrics, metric{"ssh-connections", float64(opened)}, metric{"ssh-commands", float64(run)})
		b.line(p.name, r)
	}
	return nil
}

// bench plays one row, past etcd's HealthInterval.
func (m *machines) bench(ctx context.Context, n int, r row, spares *[]string) (played, error) {
	s := m.stage
	p := played{row: r, verdict: Pass, quiet: window{from: time.Now()}}
	if r.loaded {
		// As long as the longest of them, so that there is a baseline for it.
		const quiet = 10 * time.Second
		if err := pause(ctx, max(quiet, time.Until(s.changed.Add(sop.HealthInterval+settledSlack)))); err != nil {
			return p, err
		}
	}
	p.quiet.to = time.Now()
	for _, w := range strings.Fields(r.command) {
		var err error
		switch w {
		case "SPARE":
			w, *spares = m.lab.Info().Host((*spares)[0]), (*spares)[1:]
		case "LEADER":
			w, err = m.leader(ctx)
		case "FOLLOWER":
			var leader string
			leader, err = m.leader(ctx)
			w = s.intended[slices.IndexFunc(s.intended, func(h string) bool { return h != leader })]
		}
		if err != nil {
			return p, err
		}
		p.args = append(p.args, w)
	}
	name := fmt.Sprintf("%02d-%s", n, p.args[0])
	p.out = filepath.Join("operators", name)
	var err error
	if p.outcome, err = m.operate(ctx, name, p.args, ""); err != nil {
		return p, err
	}
	if p.outcome.Status != 0 {
		return p, fmt.Errorf("%v: exit status %d: %s", p.args, p.outcome.Status, lastWords(p.outcome.Stderr))
	}
	if p.args[0] == "createCluster" {
		config, err := clientTLS(m.pki())
		if err != nil {
			return p, err
		}
		m.dial = workload.Dialer{TLS: config}.Dial
		if s.intended, err = hostsIn(m.lab.Info().Inventory, machinesGroup); err != nil {
			return p, err
		}
		s.changed = p.outcome.Ended
		return p, nil
	}
	s.follow(p)
	return p, nil
}

// firstWrite tells how long after a moment a write was acknowledged.
func (m *machines) firstWrite(ctx context.Context, since time.Time) (time.Duration, error) {
	etcd, err := m.dial(ctx, Endpoints(m.stage.intended...)[0])
	if err != nil {
		return 0, err
	}
	defer etcd.Close()
	if _, err := etcd.Put(ctx, "/etcdrill/first", "1"); err != nil {
		return 0, err
	}
	return time.Since(since), nil
}

// lost looks for the acknowledged writes of the load.
func (m *machines) lost(ctx context.Context) error {
	evidence, err := m.evidence(ctx)
	if err != nil {
		return err
	}
	m.stage.findings(ctx, evidence, check.ForLoad(evidence)...)
	return nil
}

// sshCounts reads what an operator says of its connections: the most that one
// host took of each.
func sshCounts(said string) (connections, commands int) {
	for line := range strings.Lines(said) {
		_, rest, ok := strings.Cut(line, ": connections opened ")
		if !ok {
			continue
		}
		var c, n int
		if _, err := fmt.Sscanf(rest, "%d, commands run %d", &c, &n); err == nil {
			connections, commands = max(connections, c), max(commands, n)
		}
	}
	return connections, commands
}
