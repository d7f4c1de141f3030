package scenarios

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
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
	storyCluster  = "pg-test"
	storyEtcdLoad = 2 // clients of etcd beside those of PostgreSQL
	// storyQuiet is how long the loads run alone before each procedure, and
	// after the last.
	storyQuiet = 2 * time.Second
)

// A Tale is what a story tells of its site: how it begins, and what is done to its
// etcd, as a table of contents. PostgreSQL takes writes through its VIP all the
// while.
type Tale struct {
	Name string
	// Etcd is the release that the members begin with, empty for
	// image.DefaultEtcd.
	Etcd     string
	Spares   []container.MachineSpec // hosts that come in later
	Chapters []Chapter
}

// A Chapter is one operator of a story. SPARE, SPARES and LEADER stand for what
// they are at that moment.
type Chapter struct {
	Name, Command string
	// Etcd is the release that all members run in the end. The inventory asks for
	// it first, and names a binary of it on the operator's machine. Empty leaves
	// both as they were.
	Etcd string
	// Until is the title of a step after which the operator is interrupted, as by
	// Ctrl-C; then some members run Etcd and some do not. Empty lets him finish.
	Until string
}

// Membership is the runbook as it is needed most: a member comes, the leader
// goes, all are restarted.
func Membership() Tale {
	return Tale{
		Name:   "membership",
		Spares: []container.MachineSpec{{Host: "10.10.10.13"}},
		Chapters: []Chapter{
			{Name: "addMember", Command: "addMember SPARE"},
			{Name: "removeMember of the leader", Command: "removeMember LEADER"},
			{Name: "restart", Command: "restart -soak=0s"},
			// Nothing before it restarts vip-manager, and so it still runs with the
			// list that it began with.
			{Name: "restart of vip-manager", Command: "reloadConfig -vips=true"},
		},
	}
}

// Renewal leaves nothing as it was: etcd goes from 3.5 to 3.6 and to 3.7, by way of
// an upgrade that was begun and taken back, and then to three other hosts. Of these
// one comes with the old etcd, so that it gets the new one first; the others have it.
func Renewal() Tale {
	return Tale{
		Name:   "renewal",
		Etcd:   "3.5.35",
		Spares: []container.MachineSpec{{Host: "10.10.10.13", Etcd: "3.5.35"}, {Host: "10.10.10.14"}, {Host: "10.10.10.15"}},
		Chapters: []Chapter{
			{Name: "upgrade to 3.6", Command: "upgrade 3.6.16 -soak=0s", Etcd: "3.6.16"},
			{Name: "part of an upgrade to 3.7", Command: "upgrade 3.7.3 -soak=0s", Etcd: "3.7.3", Until: "restart etcd"},
			{Name: "the way back", Command: "upgrade 3.6.16 -downgrade=true -soak=0s", Etcd: "3.6.16"},
			{Name: "upgrade to 3.7", Command: "upgrade 3.7.3 -soak=0s", Etcd: "3.7.3"},
			{Name: "migrate", Command: "migrate SPARES"},
		},
	}
}

// Trust is another CA, in its three strides. The clients of etcd that no file of the
// inventory's hosts names are the story's own load, which goes by what the admin host
// keeps: so they are waived.
func Trust() Tale {
	const waived = " -waive=unknown-clients -reason=story"
	return Tale{
		Name: "trust",
		Chapters: []Chapter{
			{Name: "trust another CA", Command: "rotateCerts -ca=trust -soak=0s"},
			{Name: "sign with it", Command: "rotateCerts -ca=sign -clients=true -soak=0s" + waived},
			{Name: "retire the former CA", Command: "rotateCerts -ca=retire -soak=0s" + waived},
		},
	}
}

// A StorySpec says how to play a story.
type StorySpec struct {
	Tale       Tale
	Executable string    // the etcdrill binary: every operator is a process of it
	Root       string    // directory of container labs, absolute
	Cache      string    // directory of etcd's binaries, absolute
	Out        string    // directory that .etcdrill/runs is made in, absolute
	Path       string    // PATH of the operators, who need ssh; empty for the usual directories
	Seed       int64     // of the load on etcd
	Report     io.Writer // progress, and the report at the end; nil for none
}

// Story plays an end-to-end story: PostgreSQL under Patroni and vip-manager, on
// real machines, takes writes through its virtual IP, while operators who reach
// the machines by SSH do to its etcd what the tale says. The summary says how it
// went. An error means that it could not be played, or that what was seen could
// not be kept; there may be a summary beside it.
func Story(ctx context.Context, spec StorySpec) (Summary, error) {
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	if spec.Tale.Etcd == "" {
		spec.Tale.Etcd = image.DefaultEtcd
	}
	began := time.Now()
	sum := Summary{Verdict: Pass, Seed: spec.Seed, Name: "story of " + spec.Tale.Name, Began: began, EtcdVersion: spec.Tale.Etcd,
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
	t := &teller{spec: spec, runs: spec.Tale.Etcd, machines: &machines{executable: spec.Executable, path: spec.Path,
		stage: &stage{dir: dir, summary: &sum, seed: spec.Seed, quiet: storyQuiet}}}
	t.stage.tell = func(format string, args ...any) {
		fmt.Fprintf(spec.Report, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(spec.Report, "%s, seed %d, in %s\n", sum.Name, spec.Seed, dir)

	failed := t.tell(ctx)
	t.stage.account()
	if t.runs != spec.Tale.Etcd {
		sum.EtcdVersion = spec.Tale.Etcd + " to " + t.runs
	}
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
