package scenarios

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
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

// A teller plays the story.
type teller struct {
	*machines
	spec StorySpec
	runs string // the release that all members ought to run now
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
	machines := []container.MachineSpec{{Host: "10.10.10.10"}, {Host: "10.10.10.11"}, {Host: "10.10.10.12"}}
	for n := range machines {
		machines[n].Etcd = t.runs
	}
	first := slices.Clone(machines)
	machines = append(machines, t.spec.Tale.Spares...)
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
	if o, err := t.operate(ctx, "createCluster", []string{"createCluster"}, ""); err != nil {
		return fail(err)
	} else if o.Status != 0 {
		s.summary.blame(verdictOf(o.Status, false), "createCluster: exit status %d: %s", o.Status, lastWords(o.Stderr))
		return nil
	}
	for _, m := range first {
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
	t.dial = func(ctx context.Context, endpoint string) (workload.Etcd, error) {
		config, err := clientTLS(t.pki()) // of the CA that signs now
		if err != nil {
			return nil, err
		}
		return workload.Dialer{TLS: config}.Dial(ctx, endpoint)
	}
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
	follow := t.following(watching, puts)
	for n, c := range t.spec.Tale.Chapters {
		if s.summary.Verdict != Pass {
			s.played = append(s.played, played{row: c.row(), verdict: Skipped, reason: "skipped because of what came before"})
			continue
		}
		p := t.chapter(ctx, n+1, c)
		s.played = append(s.played, p)
		if p.verdict != Pass {
			s.summary.blame(p.verdict, "%s: %s", c.Name, p.reason)
		}
	}
	follow()
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

// followEndpoints is the time between two looks at what PostgreSQL's hosts name.
const followEndpoints = time.Second

// following lets the clients of etcd go by what Patroni's file names, as others do
// who are told of a change: they move over when it is made, and come with another
// identity when the CA is another. The function that it gives ends it.
func (t *teller) following(ctx context.Context, load *workload.Load) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var last []string
		var trusted []byte
		for pause(ctx, followEndpoints) == nil {
			all, err := t.trio.Listed(ctx)
			if err != nil {
				continue // it is read again in a moment
			}
			var now []string
			for _, member := range all[t.trio.Instances()[0]].Patroni {
				now = append(now, "https://"+member)
			}
			ca, err := os.ReadFile(t.pki().CACertPath())
			if err != nil {
				continue
			}
			if last != nil && !(slices.Equal(now, last) && bytes.Equal(ca, trusted)) {
				load.UseEndpoints(now)
			}
			last, trusted = now, ca
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (c Chapter) row() row { return row{name: c.Name, command: c.Command, loaded: true} }

// chapter plays one operator and looks at what the members run and at what the
// clients' files name then.
func (t *teller) chapter(ctx context.Context, n int, c Chapter) played {
	s := t.stage
	p := played{row: c.row(), verdict: Pass}
	end := func(v Verdict, format string, args ...any) played {
		p.verdict, p.reason = v, fmt.Sprintf(format, args...)
		return p
	}
	if c.Etcd != "" {
		if err := t.ask(ctx, c.Etcd); err != nil {
			return end(s.causeOf(ctx, Infra), "ask for etcd %s: %v", c.Etcd, err)
		}
	}
	p.quiet.from = time.Now()
	if err := pause(ctx, storyQuiet); err != nil {
		return end(Unknown, "interrupted")
	}
	p.quiet.to = time.Now()
	p.other.Quiet = seconds(p.quiet.length())
	var spares []string
	for _, m := range t.spec.Tale.Spares {
		spares = append(spares, t.lab.Info().Host(m.Host))
	}
	for _, w := range strings.Fields(c.Command) {
		switch w {
		case "SPARE":
			w = spares[0]
		case "SPARES":
			w = strings.Join(spares, ",")
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
	if p.outcome, err = t.operate(ctx, name, p.args, c.Until); err != nil {
		return end(s.causeOf(ctx, Infra), "%v", err)
	}
	if err := s.dir.journal(p.outcome.Journal); err != nil {
		return end(Infra, "%v", err)
	}
	switch status := p.outcome.Status; {
	case ctx.Err() != nil:
		return end(Unknown, "interrupted")
	case c.Until != "" && status == 0:
		return end(Unknown, "the operator was done before he could be interrupted after %q", c.Until)
	case status != 0 && (c.Until == "" || status != interrupted):
		return end(verdictOf(status, false), "exit status %d: %s", status, lastWords(p.outcome.Stderr))
	}
	s.follow(p)
	if err := errors.Join(t.namesVoters(ctx), lists(t.lab.Info().Inventory, s.intended), t.runEtcd(ctx, c.Until != "")); err != nil {
		return end(s.causeOf(ctx, Violation), "%v", err)
	}
	return p
}

// interrupted is the exit status of an operator who was.
const interrupted = 130

// lists: an inventory has who ought to be a member.
func lists(inventory string, intended []string) error {
	listed, err := hostsIn(inventory, machinesGroup)
	if err != nil {
		return err
	}
	if want := slices.Sorted(slices.Values(intended)); !slices.Equal(slices.Sorted(slices.Values(listed)), want) {
		return fmt.Errorf("the inventory lists %v, the members ought to be %v", listed, want)
	}
	return nil
}

// ask has the inventory ask for a release of etcd, and name a binary of it on the
// operator's machine.
func (t *teller) ask(ctx context.Context, version string) error {
	dir, err := t.lab.Programs(ctx, version, t.spec.Report)
	if err != nil {
		return err
	}
	binary := filepath.Join(dir, "etcd")
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	path := t.lab.Info().Inventory
	inventory, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if inventory, err = asking(inventory, version, binary, fmt.Sprintf("%x", sha256.Sum256(content))); err != nil {
		return err
	}
	t.runs = version
	return os.WriteFile(path, inventory, 0o600)
}

// asking is an inventory that asks for another etcd, as an administrator edits
// it: every other line stays.
func asking(inventory []byte, version, binary, sum string) ([]byte, error) {
	const before = "etcd_cluster:"
	var b bytes.Buffer
	asked := false
	for line := range bytes.Lines(inventory) {
		key := bytes.TrimLeft(line, " ")
		name, _, _ := strings.Cut(string(key), ":")
		if slices.Contains([]string{"etcd_version", "etcd_binary_from", "etcd_binary_sha256"}, name) {
			continue
		}
		b.Write(line)
		if bytes.HasPrefix(key, []byte(before)) {
			indent := line[:len(line)-len(key)]
			fmt.Fprintf(&b, "%[1]setcd_version: %[2]s\n%[1]setcd_binary_from: %[3]s\n%[1]setcd_binary_sha256: %[4]q\n", indent, version, binary, sum)
			asked = true
		}
	}
	if !asked {
		return nil, fmt.Errorf("the inventory has no %s on a line of its own", before)
	}
	return b.Bytes(), nil
}

// runEtcd: every member is of the release that it ought to be, and so is what
// systemd would start there. Of an upgrade that was cut off that holds for some,
// and not for all.
func (t *teller) runEtcd(ctx context.Context, some bool) error {
	found := map[string]string{}
	for _, h := range t.stage.intended {
		r, err := t.status(ctx, Endpoints(h)[0])
		if err != nil {
			return fmt.Errorf("ask the member on %s: %w", h, err)
		}
		m, err := t.lab.Machine(h)
		if err != nil {
			return err
		}
		said, err := m.Run(ctx, "/usr/bin/etcd", "--version")
		if err != nil {
			return err
		}
		found[h] = r.Version
		line, _, _ := strings.Cut(said, "\n")
		if in := strings.TrimPrefix(line, "etcd Version: "); in != r.Version {
			found[h] += ", and its next start is of " + in
		}
	}
	return allOf(found, t.runs, some)
}

// allOf: all members are of a release, or some of them and not all. What was found
// of a member is a release, or more words than that.
func allOf(found map[string]string, release string, some bool) error {
	var others []string
	for _, h := range slices.Sorted(maps.Keys(found)) {
		if found[h] != release {
			others = append(others, h+" runs etcd "+found[h])
		}
	}
	switch n := len(others); {
	case some && n == 0:
		return fmt.Errorf("all members run etcd %s, and only some of them ought to", release)
	case some && n < len(found), n == 0:
		return nil
	}
	return fmt.Errorf("%s; etcd %s was wanted", strings.Join(others, ", "), release)
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
