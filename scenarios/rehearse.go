package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A RehearseSpec says what procedure to rehearse, and for what cluster.
type RehearseSpec struct {
	Inventory []byte // the user's own; it is not written to
	Group     string // empty is etcd
	// Args is the procedure's command line. What belongs to the real cluster,
	// -rehearse, -snapshot, -plan, -json, -confirm and -expect, is left out of it or
	// replaced.
	Args []string
	// Members are the hosts that are members now, which the inventory need not
	// agree with; empty takes all that it lists, but for one that is to be
	// added.
	Members []string
	// Version is the etcd that production runs, as far as it is known.
	Version string
	Cache   string // of etcd binaries of other versions; see Etcds
	// Snapshot is one of the real cluster, absolute, that the twin is to hold; empty
	// for a twin without data.
	Snapshot string
	// Revision is production's newest, as far as it is known; Alarms are those
	// that are raised there.
	Revision int64
	Alarms   []sop.AlarmStatus

	Executable string    // the etcdrill binary: operators, lab and members
	Root       string    // directory of labs, absolute
	Out        string    // directory that .etcdrill/runs is made in, absolute
	Seed       int64     // of the load and the lab
	Rate       float64   // calls a second of all clients together; 0 is as fast as they are answered
	Report     io.Writer // progress, and the report at the end; nil for none
}

// loadAlone is how long the load of a rehearsal runs alone before the
// procedure, and after it, when what it left behind would show.
const loadAlone = 3 * time.Second

// Rehearse plays one procedure on a twin of the inventory's cluster, under
// load: same members, variables and addresses, in a lab, with a CA of the lab's
// own. Errors are as Drill's.
func Rehearse(ctx context.Context, spec RehearseSpec) (Summary, error) {
	if spec.Group == "" {
		spec.Group = "etcd"
	}
	t, err := twinOf(spec)
	if err != nil {
		return Summary{Verdict: Infra, Seed: spec.Seed}, fmt.Errorf("rehearse %s: %w", strings.Join(spec.Args, " "), err)
	}
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	versions, err := Etcds(ctx, spec.Cache, spec.Report, t.versions...)
	if err != nil && ctx.Err() == nil && t.args[0] != "upgrade" { // it says as much with another etcd
		t.unknown = append(t.unknown, fmt.Sprintf("etcd %s, which production runs and which could not be built here: the lab's is %s (%v)", t.version, machine.EmbeddedVersion(), err))
		t.version, err = "", nil
	}
	if err != nil {
		return Summary{Verdict: Infra, Seed: spec.Seed}, fmt.Errorf("rehearse %s: %w", strings.Join(spec.Args, " "), err)
	}
	return perform(ctx, show{
		name: "rehearsal of " + strings.Join(t.args, " "), seed: spec.Seed, out: spec.Out, report: spec.Report,
		profile: workload.Profile{Rate: spec.Rate},
		rig: RigSpec{Root: spec.Root, Executable: spec.Executable, Inventory: t.founding, Group: spec.Group,
			Spares: t.spares, Seed: spec.Seed, Version: t.version, Versions: versions},
		unknown: t.unknown,
		rows:    t.rows,
		expect:  t.expect,
	})
}

// A twin is what is built of a cluster to rehearse on.
type twin struct {
	args    []string // the procedure
	members []string
	// inventory is the user's; founding is what createCluster is given, which
	// lists the members and no others.
	inventory, founding []byte
	spares              []string // hosts that only the others name
	unknown             []string
	version             string     // of etcd that the twin begins with; empty for the one that is linked in
	versions            []string   // that it can get
	data                *sop.Saved // what the twin is to hold; nil for nothing
	alarms              []sop.AlarmStatus
	past                int // revisions that are made before a compaction, to be discarded by it
}

func twinOf(spec RehearseSpec) (twin, error) {
	t := twin{args: withoutProduction(spec.Args), members: spec.Members, alarms: spec.Alarms}
	if len(t.args) == 0 {
		return t, fmt.Errorf("no procedure to rehearse")
	}
	t.inventory = spec.Inventory
	if _, lab := embedded.SocketOf(t.inventory); lab { // a twin of a lab is a lab of its own
		_, t.inventory, _ = bytes.Cut(t.inventory, []byte("\n"))
	}
	inv, err := inventory.Parse("inventory", t.inventory)
	if err != nil {
		return t, err
	}
	g, err := inv.Group(spec.Group)
	if err != nil {
		return t, err
	}
	subject := t.subject()
	if len(t.members) == 0 {
		for _, h := range g.Hosts {
			if t.args[0] != "addMember" || h.Name != subject {
				t.members = append(t.members, h.Name)
			}
		}
		t.unknown = append(t.unknown, "whether production's members are those of the inventory: nobody asked them")
	}
	if t.founding, err = founding(t.inventory, spec.Group, g, t.members); err != nil {
		return t, err
	}
	for _, h := range g.Hosts {
		t.spare(h.Name)
	}
	for _, w := range t.args[1:] {
		if _, err := netip.ParseAddr(w); err == nil {
			t.spare(w)
		}
	}
	t.etcds(spec.Version)
	t.unknown = append(t.unknown,
		"what Patroni and vip-manager do: there are none in the embedded lab",
		"SSH, systemd and sudo of the real hosts: the lab has stand-ins for them")
	if err := t.maintains(spec.Revision); err != nil {
		return t, err
	}
	if spec.Snapshot == "" {
		t.unknown = append(t.unknown, "production's load, data size, disks and network")
		return t, nil
	}
	saved, err := sop.ReadSnapshot(spec.Snapshot)
	if err != nil {
		return t, err
	}
	if saved.Auth {
		return t, fmt.Errorf("authentication is on in %s, and the clients of the lab have no password for it", spec.Snapshot)
	}
	t.data = &saved
	t.unknown = append(t.unknown, "production's load, disks and network: the data is its own, as of "+asOf(saved)+", and all members share this machine's disk and processors")
	return t, nil
}

// etcds gives the twin production's version, where it can be built, and for an
// upgrade those that it goes by.
func (t *twin) etcds(production string) {
	can := func(v string) bool { return v == machine.EmbeddedVersion() || slices.Contains(image.Versions(), v) }
	switch {
	case production == "":
		t.unknown = append(t.unknown, "etcd "+machine.EmbeddedVersion()+" in the lab, production's version was not asked")
	case !can(production):
		t.unknown = append(t.unknown, fmt.Sprintf("etcd %s, which production runs: the lab's is %s", production, machine.EmbeddedVersion()))
	case production != machine.EmbeddedVersion():
		t.version, t.versions = production, []string{production}
	}
	if t.args[0] == "upgrade" && len(t.args) > 1 {
		if to := strings.TrimPrefix(t.args[1], "v"); can(to) {
			t.versions = append(t.versions, to)
		}
	}
}

// asOf tells when a snapshot was taken, as far as that is known.
func asOf(s sop.Saved) string {
	if s.Taken.IsZero() {
		return fmt.Sprintf("revision %d", s.Revision)
	}
	return fmt.Sprintf("revision %d, %s", s.Revision, s.Taken.UTC().Format("2006-01-02 15:04 MST"))
}

func (t *twin) spare(name string) {
	if !slices.Contains(t.members, name) && !slices.Contains(t.spares, name) {
		t.spares = append(t.spares, name)
	}
}

// subject is the host that the procedure is about, if it is about one.
func (t *twin) subject() string {
	if len(t.args) > 1 && strings.HasSuffix(t.args[0], "Member") {
		return t.args[1]
	}
	return ""
}

// withoutProduction leaves out the flags that are about the real cluster.
func withoutProduction(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(w string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		return strings.HasPrefix(w, "-") && slices.Contains([]string{"rehearse", "snapshot", "plan", "json", "confirm", "expect"}, name)
	})
}

// founding is the inventory with the members and no others in the group.
func founding(content []byte, group string, g *inventory.Group, members []string) ([]byte, error) {
	seq := g.NextSeq()
	var err error
	for _, m := range members {
		if _, ok := g.Host(m); ok {
			continue
		}
		if content, err = inventory.AddHost(content, group, m, seq); err != nil {
			return nil, fmt.Errorf("give the twin the member %s, which the inventory does not list: %w", m, err)
		}
		seq++
	}
	for _, h := range g.Hosts {
		if slices.Contains(members, h.Name) {
			continue
		}
		if content, err = inventory.RemoveHost(content, group, h.Name); err != nil {
			return nil, fmt.Errorf("give the twin no member %s: %w", h.Name, err)
		}
	}
	return content, nil
}

// rows plays the procedure under load, where it leaves a cluster to put a load
// on.
func (t *twin) rows(_ context.Context, s *stage) ([]row, error) {
	procedure := row{args: t.args, loaded: true, quiet: loadAlone, mayRefuse: true}
	alone := row{name: "the load alone", loaded: true, quiet: loadAlone}
	ends := t.args[0] == "destroyCluster" || t.args[0] == "purgeCluster"
	switch {
	case t.args[0] == "snapshot" && len(t.args) > 1:
		// The admin host of a lab has this machine's files, and the real file is
		// not for a rehearsal to write.
		procedure.args = append([]string{"snapshot", "DIR/" + filepath.Base(t.args[1])}, t.args[2:]...)
	case t.args[0] == "createCluster" && !t.rebuilds():
		// The twin of no cluster is blank hosts.
		procedure.loaded = false
		return []row{procedure, alone}, nil
	case ends || t.args[0] == "createCluster":
		procedure.args = append(slices.Clone(t.args), "-confirm=CONSENT")
		procedure.loaded = false
		rows := []row{{command: "createCluster", name: "createCluster, to have a twin", check: t.asProduction}, alone, procedure}
		return rows, nil
	case t.args[0] == "restore":
		// The twin lives, and it is not production's cluster.
		procedure = t.restores(t.args)
		return []row{{command: "createCluster", name: "createCluster, to have a twin"}, procedure, alone}, nil
	case t.args[0] == "purgeHost":
		procedure.args = append(slices.Clone(t.args), "-confirm=CONSENT")
	}
	procedure.settled = true
	procedure.name = strings.Join(t.args, " ")
	rows := []row{{command: "createCluster", name: "createCluster, to have a twin", check: t.asProduction}}
	if t.data != nil {
		rows[0].check = nil // not before its members are those that it is to have
		data := t.restores([]string{"restore", t.data.Path})
		data.name, data.check = "restore, to have its data", t.asProduction
		rows = append(rows, data)
	}
	return append(append(rows, t.readied(s, &procedure)...), procedure, alone), nil
}

// restores is the row of a restore on the twin, which in production would find no
// living quorum.
func (t *twin) restores(args []string) row {
	return row{args: append(waivingToo(args, "living-quorum", "snapshot-cluster", "unfenced", "versions"), "-confirm=CONSENT"), name: strings.Join(t.args, " "), mayRefuse: true}
}

// waivingToo gives a command that passes over safeguards beside its own.
func waivingToo(args []string, names ...string) []string {
	waive := strings.Join(names, ",")
	args = slices.DeleteFunc(slices.Clone(args), func(w string) bool {
		if more, ok := strings.CutPrefix(w, "-waive="); ok {
			for _, name := range strings.Split(more, ",") {
				if !slices.Contains(strings.Split(waive, ","), name) {
					waive += "," + name
				}
			}
			return true
		}
		return strings.HasPrefix(w, "-reason=")
	})
	return append(args, "-waive="+waive, "-reason=rehearsal")
}

// expect tells what the twin with production's data lets one expect of production.
func (t *twin) expect(sum Summary) []string {
	if t.data == nil || sum.Verdict != Pass {
		return nil
	}
	i := slices.IndexFunc(sum.Procedures, func(p Procedure) bool { return p.Name == strings.Join(t.args, " ") })
	if i < 0 {
		return nil
	}
	p := sum.Procedures[i]
	size := sop.Bytes(t.data.Bytes)
	lines := []string{fmt.Sprintf("with the %s of data that production had, %.1f s, of which %.1f s waiting for etcd; longer there by the soak between members (-soak, 10 s each) where members are restarted, and by what SSH takes", size, p.Seconds, p.Etcd)}
	if p.UnderLoad {
		lines = append(lines, fmt.Sprintf("the longest time without an acknowledged write was %.0f ms (%.0f ms in a quiet window just before)", p.MaxWriteGapMS, p.QuietGapMS))
	}
	var copying float64
	for _, s := range p.Steps {
		if s.Title == "wait until it answers" || s.Title == "wait until it serves" || s.Title == "wait until caught up" {
			copying += s.Seconds
		}
	}
	if copying > 0 && strings.HasPrefix(p.Command, "addMember") {
		lines = append(lines, fmt.Sprintf("the learner had the %s after %.1f s, over a network without delay; over a slower one at least the time that it takes to send them", size, copying))
	}
	return lines
}

// rebuilds reports whether createCluster is to clear a cluster first.
func (t *twin) rebuilds() bool {
	return slices.ContainsFunc(t.args, func(w string) bool { return strings.HasPrefix(w, "-clean=true") || w == "-clean" })
}

// asProduction gives the lab the user's inventory, once there are the members
// that production has: from here on the two may disagree, as they do there.
func (t *twin) asProduction(_ context.Context, s *stage, _ Outcome) error {
	now, err := os.ReadFile(s.rig.Inventory())
	if err != nil {
		return err
	}
	mark, _, _ := bytes.Cut(now, []byte("\n"))
	content := append(append(slices.Clone(mark), '\n'), t.inventory...)
	if bytes.Equal(now, content) {
		return nil
	}
	if err := os.WriteFile(s.rig.Inventory(), content, 0o600); err != nil {
		return fmt.Errorf("give the twin production's inventory: %w", err)
	}
	return nil
}
