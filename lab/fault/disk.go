package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A DataFile is one of the two things that a member keeps.
type DataFile string

// The files of a member.
const (
	WAL     DataFile = "WAL"
	Backend DataFile = "backend"
)

// Truncate cuts the end off a stopped member's file: a crash that the
// filesystem did not survive. The member is crashed first and stays down.
func Truncate(who Role, f DataFile) Fault { return damage{who, f, "truncate"} }

// Flip inverts one byte in the middle of a stopped member's file: a bad disk.
// The member is crashed first and stays down.
func Flip(who Role, f DataFile) Fault { return damage{who, f, "flip"} }

type damage struct {
	who  Role
	file DataFile
	how  string
}

func (d damage) String() string { return fmt.Sprintf("%s the %s of %s", d.how, d.file, d.who) }
func (d damage) Kind() string   { return d.how + " " + string(d.file) }
func (d damage) Band() Band     { return Disk }
func (d damage) Roles() []Role  { return []Role{d.who} }

func (d damage) Probe(g *Ground) error {
	_, err := needs[Files](g, "reach a host's files from outside")
	if g.Images == "" {
		err = errors.Join(err, errors.New("there is no directory to keep files in"))
	}
	return errors.Join(err, kill{d.who, true}.Probe(g))
}

func (d damage) Plan(ctx context.Context, g *Ground) (Harm, error) {
	crash, err := kill{d.who, true}.Plan(ctx, g)
	if err != nil {
		return Harm{}, err
	}
	if len(crash.Hosts) != 1 {
		return Harm{}, fmt.Errorf("%s: one member's file is damaged, not that of %v", d, crash.Hosts)
	}
	name := crash.Hosts[0]
	member := filepath.Join(g.Lab.(Files).Root(name), config.DefaultDataDir, "member")
	h := Harm{Hosts: crash.Hosts, Remedy: crash.Remedy}
	var before, at string
	h.Do = func(ctx context.Context) error {
		if err := crash.Do(ctx); err != nil {
			return err
		}
		var err error
		if at, err = d.pick(member); err != nil {
			return err
		}
		if before, err = sumOf(at); err != nil {
			return err
		}
		if err := keep(at, filepath.Join(g.Images, "damaged", name, filepath.Base(at))); err != nil {
			return err
		}
		return d.apply(at)
	}
	h.Bit = func(context.Context) error {
		after, err := sumOf(at)
		if err == nil && after == before {
			err = errors.New("the file is as it was")
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // set aside meanwhile
		}
		return err
	}
	// It does not heal: a member whose files are bad is replaced.
	h.Remedy = Remedy{}
	h.Passing = true
	return h, nil
}

func (d damage) pick(member string) (string, error) {
	if d.file == Backend {
		return filepath.Join(member, "snap", "db"), nil
	}
	segments, err := filepath.Glob(filepath.Join(member, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		return "", errors.Join(err, fmt.Errorf("there is no WAL in %s", member))
	}
	slices.Sort(segments)
	return segments[len(segments)-1], nil
}

// apply damages where there is something: WAL segments are made long and
// filled later, so their end is where the zeros begin.
func (d damage) apply(at string) error {
	content, err := os.ReadFile(at)
	if err != nil {
		return err
	}
	end := len(content)
	for end > 0 && content[end-1] == 0 {
		end--
	}
	if end < 64 {
		return fmt.Errorf("%s holds nothing to damage", at)
	}
	if d.how == "truncate" {
		return os.Truncate(at, int64(end/2))
	}
	middle := end / 2
	for content[middle] == 0 { // within something, not in a gap
		middle--
	}
	content[middle] ^= 0xff
	f, err := os.OpenFile(at, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content[middle:middle+1], int64(middle))
	return errors.Join(err, f.Close())
}

// --- what was, and comes back ---

// imagePaths are what of a host an image holds.
func imagePaths() []string {
	return []string{config.DefaultDataDir, config.ConfDir, "/etc/systemd/system"}
}

// TakeImage keeps an image of a role's host, as a backup of a virtual machine
// does. It harms nothing; RestoreImage does, later.
func TakeImage(who Role) Fault { return image{who, false} }

// RestoreImage brings a host back to the image that TakeImage took, and
// switches its power off and on: what ran there then runs again.
func RestoreImage(who Role) Fault { return image{who, true} }

type image struct {
	who  Role
	back bool
}

func (i image) String() string {
	if i.back {
		return fmt.Sprintf("restore the machine of %s from its image", i.who)
	}
	return fmt.Sprintf("take an image of the machine of %s", i.who)
}

func (i image) Kind() string {
	if i.back {
		return "old image"
	}
	return "image"
}

func (i image) Band() Band    { return Disk }
func (i image) Roles() []Role { return []Role{i.who} }

func (i image) Probe(g *Ground) error {
	_, files := needs[Files](g, "reach a host's files from outside")
	_, power := needs[Powered](g, "switch hosts off")
	err := errors.Join(files, power, i.who.Check())
	if g.Images == "" {
		err = errors.Join(err, errors.New("there is no directory to keep images in"))
	}
	return err
}

func (i image) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, i.who)
	if err != nil {
		return Harm{}, err
	}
	name := hosts[0]
	root, kept := g.Lab.(Files).Root(name), filepath.Join(g.Images, "image-"+name)
	if !i.back {
		return Harm{Hosts: hosts[:1], Passing: true, Do: func(ctx context.Context) error {
			if err := os.RemoveAll(kept); err != nil {
				return err
			}
			// Off first: an image of a running machine may be of two moments.
			power := g.Lab.(Powered)
			if err := power.Power(ctx, name, false); err != nil {
				return err
			}
			for _, p := range imagePaths() {
				if err := copyTree(filepath.Join(root, p), filepath.Join(kept, p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			if err := power.Power(ctx, name, true); err != nil {
				return err
			}
			return awaitAnswer(ctx, g, name)
		}}, nil
	}
	started := errors.New("it was not switched on again")
	return Harm{Hosts: hosts[:1], Passing: true, Remedy: Remedy{Power: hosts[:1]},
		Do: func(ctx context.Context) error {
			power := g.Lab.(Powered)
			if err := power.Power(ctx, name, false); err != nil {
				return err
			}
			for _, p := range imagePaths() {
				at := filepath.Join(root, p)
				if err := os.RemoveAll(at); err != nil {
					return err
				}
				if err := copyTree(filepath.Join(kept, p), at); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			if err := power.Power(ctx, name, true); err != nil {
				return err
			}
			started = awaitProcess(ctx, g, name)
			return nil
		},
		Bit: func(context.Context) error { return started }}, nil
}

// awaitProcess waits until etcd was started on a host. One that was removed from
// its cluster ends again by itself.
func awaitProcess(ctx context.Context, g *Ground, name string) error {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		if running(ctx, g.Lab, name) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd on %s was not started again", name)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitAnswer waits until the member on a host answers.
func awaitAnswer(ctx context.Context, g *Ground, name string) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		err := g.Cast.Answers(ctx, name)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the member on %s does not answer again: %w", name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stale puts the data of another host's stopped or running member into the
// data directory of a role's host: somebody copied it there.
func Stale(who, from Role) Fault { return stale{who, from} }

type stale struct{ who, from Role }

func (s stale) String() string { return fmt.Sprintf("data of %s lies on %s", s.from, s.who) }
func (s stale) Kind() string   { return "stale data" }
func (s stale) Band() Band     { return Disk }
func (s stale) Roles() []Role  { return []Role{s.who} }

func (s stale) Probe(g *Ground) error {
	_, err := needs[Files](g, "reach a host's files from outside")
	return errors.Join(err, s.who.Check(), s.from.Check())
}

func (s stale) Plan(ctx context.Context, g *Ground) (Harm, error) {
	who, err := g.Cast.Hosts(ctx, g, s.who)
	if err != nil {
		return Harm{}, err
	}
	from, err := g.Cast.Hosts(ctx, g, s.from)
	if err != nil {
		return Harm{}, err
	}
	files := g.Lab.(Files)
	to := filepath.Join(files.Root(who[0]), config.DefaultDataDir)
	return Harm{Hosts: who[:1], Passing: true, Do: func(context.Context) error {
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		return copyTree(filepath.Join(files.Root(from[0]), config.DefaultDataDir), to)
	}}, nil
}

// Revive puts the data that was set aside last on a role's host back into its
// data directory, as somebody does who wants the former member back.
func Revive(who Role) Fault { return revive{who} }

type revive struct{ who Role }

func (r revive) String() string { return fmt.Sprintf("the former data of %s is back", r.who) }
func (r revive) Kind() string   { return "former data" }
func (r revive) Band() Band     { return Disk }
func (r revive) Roles() []Role  { return []Role{r.who} }

func (r revive) Probe(g *Ground) error {
	_, err := needs[Files](g, "reach a host's files from outside")
	return errors.Join(err, r.who.Check())
}

func (r revive) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, r.who)
	if err != nil {
		return Harm{}, err
	}
	data := filepath.Join(g.Lab.(Files).Root(hosts[0]), config.DefaultDataDir)
	return Harm{Hosts: hosts[:1], Passing: true, Do: func(context.Context) error {
		aside, err := filepath.Glob(filepath.Join(data, host.AsidePrefix+"*"))
		if err != nil || len(aside) == 0 {
			return errors.Join(err, fmt.Errorf("nothing was set aside on %s", hosts[0]))
		}
		slices.Sort(aside)
		return copyTree(aside[len(aside)-1], data)
	}}, nil
}

// Foreign starts an etcd of its own on a role's host, a cluster of one that
// knows no TLS: somebody else's.
func Foreign(who Role) Fault { return foreign{who} }

type foreign struct{ who Role }

func (f foreign) String() string      { return fmt.Sprintf("another cluster lives on %s", f.who) }
func (f foreign) Kind() string        { return "foreign cluster" }
func (f foreign) Band() Band          { return Disk }
func (f foreign) Roles() []Role       { return []Role{f.who} }
func (f foreign) Probe(*Ground) error { return f.who.Check() }

func (f foreign) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, f.who)
	if err != nil {
		return Harm{}, err
	}
	name := hosts[0]
	conf := strings.ReplaceAll(`name: other
data-dir: /data/etcd
listen-peer-urls: http://HOST:2380
listen-client-urls: http://HOST:2379
initial-advertise-peer-urls: http://HOST:2380
advertise-client-urls: http://HOST:2379
initial-cluster: other=http://HOST:2380
initial-cluster-state: new
initial-cluster-token: other
`, "HOST", name)
	return Harm{Hosts: hosts[:1], Passing: true,
		Do: func(ctx context.Context) error {
			for _, a := range []host.Act{
				host.MakeDir{Path: config.ConfDir, Owner: config.User, Group: config.User, Mode: 0o750},
				host.MakeDir{Path: config.DefaultDataDir, Owner: config.User, Group: config.User, Mode: 0o700},
				host.WriteFile{Path: config.ConfPath, Content: []byte(conf), Owner: config.User, Group: config.User, Mode: 0o644},
				host.WriteFile{Path: config.UnitPath, Content: config.Unit(config.UnitSpec{DataDir: config.DefaultDataDir}), Owner: "root", Group: "root", Mode: 0o644},
				host.Systemctl{Verb: host.DaemonReload},
				host.Systemctl{Verb: host.Start, Unit: memberUnit},
			} {
				if err := g.Lab.Host(name).Do(ctx, a); err != nil {
					return err
				}
			}
			return nil
		},
		Bit: func(ctx context.Context) error {
			if !running(ctx, g.Lab, name) {
				return errors.New("it does not run")
			}
			return nil
		}}, nil
}

// Edit replaces text in a file of a role's hosts by hand.
func Edit(who Role, path, old, replacement string) Fault { return edit{who, path, old, replacement} }

type edit struct {
	who            Role
	path, old, new string
}

func (e edit) String() string {
	return fmt.Sprintf("in %s of %s %q becomes %q", e.path, e.who, e.old, e.new)
}
func (e edit) Kind() string        { return "edited file" }
func (e edit) Band() Band          { return Disk }
func (e edit) Roles() []Role       { return []Role{e.who} }
func (e edit) Probe(*Ground) error { return e.who.Check() }

func (e edit) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, e.who)
	if err != nil {
		return Harm{}, err
	}
	bit := errors.New("the text was not there")
	return Harm{Hosts: hosts, Passing: true,
		Do: func(ctx context.Context) error {
			for _, name := range hosts {
				if err := editFile(ctx, g, name, e.path, func(text string) string {
					if strings.Contains(text, g.here(e.old)) {
						bit = nil
					}
					return strings.ReplaceAll(text, g.here(e.old), g.here(e.new))
				}); err != nil {
					return err
				}
			}
			return nil
		},
		Bit: func(context.Context) error { return bit }}, nil
}

// --- the disk itself ---

// DiskFull leaves no space on the disk under the data directory of a role's
// hosts.
func DiskFull(who Role) Fault { return ailing{who, baddisk.Fault{Full: true}} }

// SlowSync delays every sync of a role's hosts.
func SlowSync(who Role, delay time.Duration) Fault {
	return ailing{who, baddisk.Fault{SyncDelay: delay}}
}

type ailing struct {
	who   Role
	fault baddisk.Fault
}

func (a ailing) String() string {
	if a.fault.Full {
		return fmt.Sprintf("disk of %s full", a.who)
	}
	return fmt.Sprintf("syncs of %s take %v more", a.who, a.fault.SyncDelay)
}

func (a ailing) Kind() string {
	if a.fault.Full {
		return "disk full"
	}
	return "slow sync"
}

func (a ailing) Band() Band    { return Disk }
func (a ailing) Roles() []Role { return []Role{a.who} }

func (a ailing) Probe(g *Ground) error {
	err := disks(g)
	if c, ok := g.Lab.(Choosy); ok {
		err = errors.Join(err, c.BearsDisk(a.fault))
	}
	return errors.Join(err, a.who.Check())
}

// disks says whether the lab's disks can be hurt.
func disks(g *Ground) error {
	_, err := needs[Disks](g, "hurt a disk")
	if err == nil && !g.Disks {
		err = unsupported(g, "its disks are sound: it takes root and /dev/fuse to have others")
	}
	return err
}

func (a ailing) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, a.who)
	if err != nil {
		return Harm{}, err
	}
	lab := g.Lab.(Disks)
	harm := func(c baddisk.Counts) int64 { return c.Refused + c.Slowed }
	var before int64
	return Harm{Hosts: hosts, Remedy: Remedy{Disks: hosts},
		Do: func(ctx context.Context) error {
			for _, name := range hosts {
				c, err := lab.DiskCounts(ctx, name)
				if err != nil {
					return err
				}
				before += harm(c)
				if err := lab.Disk(ctx, name, a.fault); err != nil {
					return err
				}
			}
			return nil
		},
		Bit: func(ctx context.Context) error {
			var after int64
			for _, name := range hosts {
				c, err := lab.DiskCounts(ctx, name)
				if err != nil {
					return err
				}
				after += harm(c)
			}
			if after <= before {
				return errors.New("nothing was written or synced meanwhile")
			}
			return nil
		}}, nil
}

// PowerLoss is PowerCycle on disks that forget what was not synced.
func PowerLoss(who Role) Fault { return powerLoss{cycle{powerOff{who}}} }

type powerLoss struct{ cycle }

func (p powerLoss) String() string { return p.cycle.String() + ", and what was not synced is lost" }
func (p powerLoss) Kind() string   { return "power loss" }
func (p powerLoss) Band() Band     { return Disk }

func (p powerLoss) Probe(g *Ground) error {
	err := disks(g)
	if c, ok := g.Lab.(Choosy); ok {
		err = errors.Join(err, c.BearsDisk(baddisk.Fault{}))
	}
	return errors.Join(err, p.cycle.Probe(g))
}

// --- space ---

// FillQuota writes to the cluster until it raises the alarm NOSPACE.
func FillQuota() Fault { return fillQuota{} }

type fillQuota struct{}

func (fillQuota) String() string      { return "write until the quota is full" }
func (fillQuota) Kind() string        { return "quota alarm" }
func (fillQuota) Band() Band          { return Disk }
func (fillQuota) Roles() []Role       { return []Role{Voters} }
func (fillQuota) Probe(*Ground) error { return nil }

func (fillQuota) Plan(ctx context.Context, g *Ground) (Harm, error) {
	const most, size = 4096, 1 << 20
	voters, err := g.Cast.Hosts(ctx, g, Voters)
	if err != nil {
		return Harm{}, err
	}
	var full error
	return Harm{Hosts: voters, Undo: func(ctx context.Context) error { return makeRoom(ctx, g, voters) },
		Do: func(ctx context.Context) error {
			c, err := g.Cast.Etcd(ctx, voters[0])
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
			defer stop()
			for i := range most {
				_, err := c.Put(ctx, fmt.Sprintf("/etcdrill/fill/%d", i), strings.Repeat("x", size))
				if err != nil && strings.Contains(err.Error(), "database space exceeded") {
					full = err
					return awaitAlarm(ctx, g, voters)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			return nil
		},
		Bit: func(context.Context) error {
			if full == nil {
				return errors.New("the quota is larger than what was written")
			}
			return nil
		}}, nil
}

// administered is what giving space back takes of a client.
type administered interface {
	Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error)
	Defragment(ctx context.Context, endpoint string) (*clientv3.DefragmentResponse, error)
	AlarmList(ctx context.Context) (*clientv3.AlarmResponse, error)
	AlarmDisarm(ctx context.Context, m *clientv3.AlarmMember) (*clientv3.AlarmResponse, error)
}

// makeRoom gives the space of a full quota back, as the handbook says: delete,
// compact, defragment, disarm.
func makeRoom(ctx context.Context, g *Ground, voters []string) error {
	c, err := g.Cast.Etcd(ctx, voters[0])
	if err != nil {
		return err
	}
	defer c.Close()
	admin, ok := c.(administered)
	if !ok {
		return errors.New("this client cannot give space back")
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	r, err := admin.Delete(ctx, "/etcdrill/fill/", clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("give space back: %w", err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !strings.Contains(err.Error(), "compacted") {
		return fmt.Errorf("give space back: %w", err)
	}
	for _, v := range voters {
		if err := defragment(ctx, g, v); err != nil {
			return fmt.Errorf("give space back: %w", err)
		}
	}
	return disarm(ctx, admin)
}

func defragment(ctx context.Context, g *Ground, name string) error {
	c, err := g.Cast.Etcd(ctx, name)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.(administered).Defragment(ctx, clientURL(name))
	return err
}

func disarm(ctx context.Context, admin administered) error {
	list, err := admin.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("disarm: %w", err)
	}
	for _, a := range list.Alarms {
		if _, err := admin.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return fmt.Errorf("disarm: %w", err)
		}
	}
	return nil
}

// awaitAlarm waits until every voter knows of an alarm.
func awaitAlarm(ctx context.Context, g *Ground, voters []string) error {
	for _, name := range voters {
		for {
			told, err := alarmed(ctx, g, name)
			if told {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("the member on %s does not know of the alarm", name), err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func alarmed(ctx context.Context, g *Ground, name string) (bool, error) {
	c, err := g.Cast.Etcd(ctx, name)
	if err != nil {
		return false, err
	}
	defer c.Close()
	// Serializable: each is to know it by itself.
	if _, err := c.Get(ctx, "/etcdrill/fill/0", clientv3.WithSerializable()); err != nil {
		return false, err
	}
	s, err := c.Status(ctx, clientURL(name))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(s.Errors, func(e string) bool { return strings.Contains(e, "NOSPACE") }), nil
}

// Compact compacts the key space, as every cluster does now and then: from then
// on members have a hash to compare. It harms nobody.
func Compact() Fault { return compaction{} }

type compaction struct{}

func (compaction) String() string      { return "the key space is compacted" }
func (compaction) Kind() string        { return "compaction" }
func (compaction) Band() Band          { return Disk }
func (compaction) Roles() []Role       { return []Role{Voters} }
func (compaction) Probe(*Ground) error { return nil }

func (compaction) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return throughVoter(ctx, g, 30*time.Second, func(ctx context.Context, c workload.Etcd) error {
		r, err := c.Put(ctx, "/etcdrill/compacted", "x")
		if err == nil {
			_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		}
		return err
	})
}

// Waste has every database hold so many mebibytes that are not in use, as one
// does in which much was changed and compacted. It harms nobody.
func Waste(mebibytes int) Fault { return waste{mebibytes} }

type waste struct{ mebibytes int }

func (w waste) String() string {
	return fmt.Sprintf("%d MiB of every database are not in use", w.mebibytes)
}
func (waste) Kind() string        { return "unused space" }
func (waste) Band() Band          { return Disk }
func (waste) Roles() []Role       { return []Role{Voters} }
func (waste) Probe(*Ground) error { return nil }

func (w waste) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return throughVoter(ctx, g, time.Minute, func(ctx context.Context, c workload.Etcd) error {
		const key = "/etcdrill/waste"
		for range w.mebibytes {
			if _, err := c.Put(ctx, key, strings.Repeat("x", 1<<20)); err != nil {
				return err
			}
		}
		r, err := c.Delete(ctx, key)
		if err == nil {
			_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		}
		return err
	})
}

// Lead gives a role's host the leadership, so that it is known who has it. It
// harms nobody.
func Lead(who Role) Fault { return lead{who} }

type lead struct{ who Role }

func (l lead) String() string      { return fmt.Sprintf("%s leads", l.who) }
func (l lead) Kind() string        { return "leadership" }
func (l lead) Band() Band          { return Process }
func (l lead) Roles() []Role       { return []Role{l.who} }
func (l lead) Probe(*Ground) error { return l.who.Check() }

func (l lead) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, l.who)
	if err != nil {
		return Harm{}, err
	}
	return Harm{Hosts: hosts[:1], Passing: true, Do: func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, 30*time.Second)
		defer stop()
		for {
			leader, err := g.Cast.Hosts(ctx, g, Leader)
			if err != nil || leader[0] == hosts[0] {
				return err
			}
			if err := moveLeader(ctx, g, leader[0], hosts[0]); err != nil && ctx.Err() != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond): // it is looked at again
			}
		}
	}}, nil
}

func moveLeader(ctx context.Context, g *Ground, from, to string) error {
	heir, err := g.Cast.Etcd(ctx, to)
	if err != nil {
		return err
	}
	defer heir.Close()
	st, err := heir.Status(ctx, clientURL(to))
	if err != nil {
		return err
	}
	c, err := g.Cast.Etcd(ctx, from)
	if err != nil {
		return err
	}
	defer c.Close()
	mover, ok := c.(interface {
		MoveLeader(ctx context.Context, to uint64) (*clientv3.MoveLeaderResponse, error)
	})
	if !ok {
		return errors.New("this client cannot move the leadership")
	}
	_, err = mover.MoveLeader(ctx, st.Header.MemberId)
	return err
}

// AwaitAlarm waits until every voter knows of an alarm NOSPACE that something
// else brings about.
func AwaitAlarm() Fault { return awaitedAlarm{} }

type awaitedAlarm struct{}

func (awaitedAlarm) String() string      { return "wait for the alarm" }
func (awaitedAlarm) Kind() string        { return "alarm" }
func (awaitedAlarm) Band() Band          { return Disk }
func (awaitedAlarm) Roles() []Role       { return []Role{Voters} }
func (awaitedAlarm) Probe(*Ground) error { return nil }

func (awaitedAlarm) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return onAll(ctx, g, Voters, time.Minute, func(ctx context.Context, voters []string) error {
		return awaitAlarm(ctx, g, voters)
	})
}

// SmallQuota gives a role's hosts a quota of their own, by hand, and restarts
// their etcd with it.
func SmallQuota(who Role, bytes int64) Fault { return smallQuota{who, bytes} }

type smallQuota struct {
	who   Role
	bytes int64
}

func (s smallQuota) String() string        { return fmt.Sprintf("quota of %s is %d bytes", s.who, s.bytes) }
func (s smallQuota) Kind() string          { return "small quota" }
func (s smallQuota) Band() Band            { return Disk }
func (s smallQuota) Roles() []Role         { return []Role{s.who} }
func (s smallQuota) Probe(g *Ground) error { return s.who.Check() }
func (s smallQuota) edit(conf string) string {
	return editKey(conf, "quota-backend-bytes", fmt.Sprint(s.bytes))
}

func (s smallQuota) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, s.who)
	if err != nil {
		return Harm{}, err
	}
	undo := func(ctx context.Context) error { // the alarm outlives its cause
		voters, err := g.Cast.Hosts(ctx, g, Voters)
		if err != nil {
			return err
		}
		c, err := g.Cast.Etcd(ctx, voters[0])
		if err != nil {
			return err
		}
		defer c.Close()
		return disarm(ctx, c.(administered))
	}
	return Harm{Hosts: hosts, Undo: undo, Do: func(ctx context.Context) error {
		for _, name := range hosts {
			if err := editFile(ctx, g, name, config.ConfPath, s.edit); err != nil {
				return err
			}
			if err := g.Lab.Host(name).Do(ctx, host.Systemctl{Verb: host.Restart, Unit: memberUnit, NoBlock: true}); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// editKey sets a top-level key of a YAML file, or adds it.
func editKey(text, key, value string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		if k, _, ok := strings.Cut(line, ":"); ok && k == key {
			lines[i] = key + ": " + value
			return strings.Join(lines, "\n") + "\n"
		}
	}
	return strings.Join(append(lines, key+": "+value), "\n") + "\n"
}

// editFile changes a file of a host as somebody with a shell there would, and
// keeps its owner and mode.
func editFile(ctx context.Context, g *Ground, name, path string, edit func(string) string) error {
	f, err := fileOf(ctx, g.Lab, name, path)
	if err != nil {
		return err
	}
	return g.Lab.Host(name).Do(ctx, host.WriteFile{Path: path, Content: []byte(edit(string(f.Content))), Owner: f.Owner, Group: f.Group, Mode: f.Mode})
}

func clientURL(name string) string { return "https://" + net.JoinHostPort(name, "2379") }
