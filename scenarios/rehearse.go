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

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A RehearseSpec says what procedure to rehearse, and for what cluster.
type RehearseSpec struct {
	Inventory []byte // the user's own; it is not written to
	Group     string // empty is etcd
	// Args is the procedure's command line. What belongs to the real cluster,
	// -rehearse, -plan, -json, -confirm and -expect, is left out of it or
	// replaced.
	Args []string
	// Members are the hosts that are members now, which the inventory need not
	// agree with; empty takes all that it lists, but for one that is to be
	// added.
	Members []string
	// Version is the etcd that production runs, as far as it is known.
	Version string

	Executable string    // the etcdrill binary: operators, lab and members
	Root       string    // directory of labs, absolute
	Out        string    // directory that .etcdrill/runs is made in, absolute
	Seed       int64     // of the load and the lab
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
	return perform(ctx, show{
		name: "rehearsal of " + strings.Join(t.args, " "), seed: spec.Seed, out: spec.Out, report: spec.Report,
		rig: RigSpec{Root: spec.Root, Executable: spec.Executable, Inventory: t.founding, Group: spec.Group,
			Spares: t.spares, Seed: spec.Seed},
		unknown: t.unknown,
		rows:    t.rows,
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
}

func twinOf(spec RehearseSpec) (twin, error) {
	t := twin{args: withoutProduction(spec.Args), members: spec.Members}
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
	version := "etcd " + machine.EmbeddedVersion() + " in the lab, production's version was not asked"
	if spec.Version != "" && spec.Version != machine.EmbeddedVersion() {
		version = fmt.Sprintf("etcd %s, which production runs: the lab's is %s", spec.Version, machine.EmbeddedVersion())
	}
	if spec.Version != machine.EmbeddedVersion() {
		t.unknown = append(t.unknown, version)
	}
	t.unknown = append(t.unknown,
		"what Patroni and vip-manager do: there are none in the embedded lab",
		"SSH, systemd and sudo of the real hosts: the lab has stand-ins for them",
		"production's load, data size, disks and network")
	return t, nil
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
		return strings.HasPrefix(w, "-") && slices.Contains([]string{"rehearse", "plan", "json", "confirm", "expect"}, name)
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
	case t.args[0] == "purgeHost":
		procedure.args = append(slices.Clone(t.args), "-confirm=CONSENT")
	}
	procedure.settled = true
	procedure.name = strings.Join(t.args, " ")
	return []row{{command: "createCluster", name: "createCluster, to have a twin", check: t.asProduction}, procedure, alone}, nil
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
