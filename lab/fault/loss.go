package fault

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// What is left of a cluster, and what was in it: Write, Rest, LoseData, Unwritten
// and Leave are for rows in which a quorum is lost for good.

// KeptPrefix is where Write puts its keys.
const KeptPrefix = "/etcdrill/kept/"

// Write has a client write so many keys, each of which is acknowledged. It harms
// nobody.
func Write(n int) Fault { return write{n} }

type write struct{ n int }

func (w write) String() string        { return fmt.Sprintf("%d keys are written and acknowledged", w.n) }
func (write) Kind() string            { return "writes" }
func (write) Band() Band              { return Disk }
func (write) Roles() []Role           { return []Role{Voters} }
func (write) Probe(*Ground) error     { return nil }
func (w write) Source() string        { return fmt.Sprintf("fault.Write(%d)", w.n) }
func kept(at time.Time, i int) string { return fmt.Sprintf("%s%d-%03d", KeptPrefix, at.UnixNano(), i) }

func (w write) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return onAll(ctx, g, Voters, time.Minute, func(ctx context.Context, voters []string) error {
		began, open := g.now(), map[string]workload.Etcd{}
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for i := range w.n {
			if err := w.put(ctx, g, open, voters, kept(began, i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// put writes one key through whichever voter takes it.
func (w write) put(ctx context.Context, g *Ground, open map[string]workload.Etcd, voters []string, key string) error {
	for {
		var last error
		for _, v := range voters {
			if last = putThrough(ctx, g, open, v, key); last == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("write %s: %w", key, errors.Join(ctx.Err(), last))
		case <-time.After(100 * time.Millisecond): // there may be a leader then
		}
	}
}

// putThrough writes a key through a voter, and keeps the connection.
func putThrough(ctx context.Context, g *Ground, open map[string]workload.Etcd, voter, key string) error {
	c, ok := open[voter]
	if !ok {
		var err error
		if c, err = g.Cast.Etcd(ctx, voter); err != nil {
			return err
		}
		open[voter] = c
	}
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	_, err := c.Put(ctx, key, "x")
	return err
}

// Rest lets time pass, in which members write out what they have.
func Rest(d time.Duration) Fault { return rest{d} }

type rest struct{ d time.Duration }

func (r rest) String() string    { return fmt.Sprintf("nothing happens for %v", r.d) }
func (rest) Kind() string        { return "rest" }
func (rest) Band() Band          { return Process }
func (rest) Roles() []Role       { return nil }
func (rest) Probe(*Ground) error { return nil }
func (r rest) Source() string    { return fmt.Sprintf("fault.Rest(%d)", r.d) }

func (r rest) Plan(context.Context, *Ground) (Harm, error) {
	return Harm{Passing: true, Do: func(ctx context.Context) error {
		select {
		case <-time.After(r.d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, nil
}

// LoseData deletes the data of a role's hosts, whose members do not run, as the
// loss of a disk does.
func LoseData(who Role) Fault { return loss{who} }

type loss struct{ who Role }

func (l loss) String() string      { return fmt.Sprintf("the data of %s is lost", l.who) }
func (l loss) Kind() string        { return "lost data" }
func (l loss) Band() Band          { return Disk }
func (l loss) Roles() []Role       { return []Role{l.who} }
func (l loss) Probe(*Ground) error { return l.who.Check() }
func (l loss) Source() string      { return fmt.Sprintf("fault.LoseData(%s)", l.who.source()) }

func (l loss) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return onEach(ctx, g, l.who, func(ctx context.Context, h host.Host) error {
		return h.Do(ctx, host.Delete{Path: config.DefaultDataDir})
	})
}

// Leave puts a file among the data of a role's hosts, so that something there is
// newer than all else.
func Leave(who Role) Fault { return leave{who} }

type leave struct{ who Role }

func (l leave) String() string {
	return fmt.Sprintf("somebody leaves a file among the data of %s", l.who)
}
func (l leave) Kind() string        { return "newer file" }
func (l leave) Band() Band          { return Disk }
func (l leave) Roles() []Role       { return []Role{l.who} }
func (l leave) Probe(*Ground) error { return l.who.Check() }
func (l leave) Source() string      { return fmt.Sprintf("fault.Leave(%s)", l.who.source()) }

func (l leave) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return onEach(ctx, g, l.who, func(ctx context.Context, h host.Host) error {
		return h.Do(ctx, host.WriteFile{Path: path.Join(config.DefaultDataDir, "member", "README"), Content: []byte("do not touch\n"), Owner: "root", Group: "root", Mode: 0o644})
	})
}

// Unwritten has the members of a role write their backends out only when they must
// from now on: on disk they fall behind their own logs. They are restarted for it.
func Unwritten(who Role) Fault { return unwritten{who} }

type unwritten struct{ who Role }

func (u unwritten) String() string      { return fmt.Sprintf("%s keeps its backend in memory", u.who) }
func (u unwritten) Kind() string        { return "late backend" }
func (u unwritten) Band() Band          { return Disk }
func (u unwritten) Roles() []Role       { return []Role{u.who} }
func (u unwritten) Probe(*Ground) error { return u.who.Check() }
func (u unwritten) Source() string      { return fmt.Sprintf("fault.Unwritten(%s)", u.who.source()) }

func (u unwritten) Plan(ctx context.Context, g *Ground) (Harm, error) {
	return onEach(ctx, g, u.who, func(ctx context.Context, h host.Host) error {
		err := editFile(ctx, g, h.Name(), config.ConfPath, func(text string) string {
			return text + fmt.Sprintf("\nbackend-batch-interval: %d\n", time.Hour)
		})
		if err != nil {
			return err
		}
		if err := h.Do(ctx, host.Systemctl{Verb: host.Restart, Unit: memberUnit}); err != nil {
			return err
		}
		return awaitAnswer(ctx, g, h.Name())
	})
}

// onEach is a harm that is done on each host of a role, and stays.
func onEach(ctx context.Context, g *Ground, who Role, do func(ctx context.Context, h host.Host) error) (Harm, error) {
	return onAll(ctx, g, who, time.Minute, func(ctx context.Context, hosts []string) error {
		for _, name := range hosts {
			if err := do(ctx, g.Lab.Host(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// throughVoter does something once through one of the voters.
func throughVoter(ctx context.Context, g *Ground, within time.Duration, do func(ctx context.Context, c workload.Etcd) error) (Harm, error) {
	return onAll(ctx, g, Voters, within, func(ctx context.Context, voters []string) error {
		c, err := g.Cast.Etcd(ctx, voters[0])
		if err != nil {
			return err
		}
		defer c.Close()
		return do(ctx, c)
	})
}

// onAll does something once that is about all of a role's hosts, within a time.
func onAll(ctx context.Context, g *Ground, who Role, within time.Duration, do func(ctx context.Context, hosts []string) error) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, who)
	if err != nil {
		return Harm{}, err
	}
	return Harm{Hosts: hosts, Passing: true, Do: func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, within)
		defer stop()
		return do(ctx, hosts)
	}}, nil
}
