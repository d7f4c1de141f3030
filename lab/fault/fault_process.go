package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Kill ends the etcd of a role's hosts by SIGKILL; systemd starts it again.
func Kill(who Role) Fault { return kill{who, false} }

// Crash ends the etcd of a role's hosts by SIGKILL and keeps it down until the
// remedy starts it again.
func Crash(who Role) Fault { return kill{who, true} }

type kill struct {
	who  Role
	down bool
}

func (k kill) String() string {
	if k.down {
		return fmt.Sprintf("crash %s", k.who)
	}
	return fmt.Sprintf("kill %s", k.who)
}
func (k kill) Band() Band    { return Process }
func (k kill) Roles() []Role { return []Role{k.who} }

func (k kill) Kind() string {
	if k.down {
		return "crash"
	}
	return "kill"
}

func (k kill) Probe(g *Ground) error {
	_, err := needs[Members](g, "signal a member")
	return errors.Join(err, k.who.Check())
}

func (k kill) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, k.who)
	if err != nil {
		return Harm{}, err
	}
	lab := g.Lab.(Members)
	before := make([]int, len(hosts))
	h := Harm{Hosts: hosts, Passing: !k.down, Returns: !k.down}
	if k.down {
		h.Remedy.Start = hosts
	}
	h.Do = func(ctx context.Context) error {
		for i, name := range hosts {
			u, err := unit(ctx, g.Lab, name)
			if err != nil {
				return err
			}
			if u.PID == 0 {
				return fmt.Errorf("no etcd runs on %s", name)
			}
			before[i] = u.PID
			if err := lab.Member(ctx, name, syscall.SIGKILL); err != nil {
				return err
			}
			if k.down { // or systemd would start it again
				if err := g.Lab.Host(name).Do(ctx, host.Systemctl{Verb: host.Stop, Unit: memberUnit}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	h.Bit = func(ctx context.Context) error {
		for i, name := range hosts {
			switch u, err := unit(ctx, g.Lab, name); {
			case err != nil:
				return err
			case before[i] == 0 || u.PID == before[i]:
				return fmt.Errorf("etcd on %s is still process %d", name, u.PID)
			}
		}
		return nil
	}
	return h, nil
}

// Pause stops the etcd of a role's hosts by SIGSTOP, as a hypervisor does that
// moves a machine. The remedy lets it go on.
func Pause(who Role) Fault { return pause{who} }

type pause struct{ who Role }

func (p pause) String() string { return fmt.Sprintf("pause %s", p.who) }
func (p pause) Kind() string   { return "pause" }
func (p pause) Band() Band     { return Process }
func (p pause) Roles() []Role  { return []Role{p.who} }

func (p pause) Probe(g *Ground) error {
	_, err := needs[Members](g, "signal a member")
	return errors.Join(err, p.who.Check())
}

func (p pause) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, p.who)
	if err != nil {
		return Harm{}, err
	}
	lab := g.Lab.(Members)
	silent := false
	h := Harm{Hosts: hosts, Remedy: Remedy{Resume: hosts}}
	h.Do = func(ctx context.Context) error {
		for _, name := range hosts {
			if err := lab.Member(ctx, name, syscall.SIGSTOP); err != nil {
				return err
			}
		}
		// A process that is stopped takes connections and says nothing.
		err := g.Cast.Answers(ctx, hosts[0])
		silent = err != nil
		return nil
	}
	h.Bit = func(context.Context) error {
		if !silent {
			return fmt.Errorf("the member on %s went on answering", hosts[0])
		}
		return nil
	}
	return h, nil
}

// PowerOff switches the hosts of a role off; the remedy switches them on.
func PowerOff(who Role) Fault { return powerOff{who} }

type powerOff struct{ who Role }

func (p powerOff) String() string { return fmt.Sprintf("switch %s off", p.who) }
func (p powerOff) Kind() string   { return "power" }
func (p powerOff) Band() Band     { return Process }
func (p powerOff) Roles() []Role  { return []Role{p.who} }

func (p powerOff) Probe(g *Ground) error {
	_, err := needs[Powered](g, "switch hosts off")
	return errors.Join(err, p.who.Check())
}

func (p powerOff) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, p.who)
	if err != nil {
		return Harm{}, err
	}
	lab := g.Lab.(Powered)
	gone := false
	return Harm{Hosts: hosts, Remedy: Remedy{Power: hosts},
		Do: func(ctx context.Context) error {
			for _, name := range hosts {
				if err := lab.Power(ctx, name, false); err != nil {
					return err
				}
			}
			_, err := unit(ctx, g.Lab, hosts[0])
			gone = errors.Is(err, host.ErrUnreachable)
			return nil
		},
		Bit: func(context.Context) error {
			if !gone {
				return fmt.Errorf("%s still answered", hosts[0])
			}
			return nil
		}}, nil
}

// PowerCycle switches the hosts of a role off and on again, all of them off
// before the first is on.
func PowerCycle(who Role) Fault { return cycle{powerOff{who}} }

type cycle struct{ off powerOff }

func (c cycle) String() string        { return fmt.Sprintf("power of %s goes and comes", c.off.who) }
func (c cycle) Kind() string          { return "power cycle" }
func (c cycle) Band() Band            { return Process }
func (c cycle) Roles() []Role         { return c.off.Roles() }
func (c cycle) Probe(g *Ground) error { return c.off.Probe(g) }

func (c cycle) Plan(ctx context.Context, g *Ground) (Harm, error) {
	h, err := c.off.Plan(ctx, g)
	if err != nil {
		return h, err
	}
	off := h.Do
	h.Returns = true
	h.Do = func(ctx context.Context) error {
		if err := off(ctx); err != nil {
			return err
		}
		return h.Remedy.Apply(ctx, g.Lab)
	}
	return h, nil
}

// Visit switches the hosts of a role on for a while and off again. Meanwhile the
// cluster has to take every write and to keep what it had: whoever came back is
// not to disturb it.
func Visit(who Role, d time.Duration) Fault { return visit{powerOff{who}, d} }

type visit struct {
	off powerOff
	d   time.Duration
}

func (v visit) String() string        { return fmt.Sprintf("%s comes back for %v", v.off.who, v.d) }
func (v visit) Kind() string          { return "visit" }
func (v visit) Band() Band            { return Process }
func (v visit) Roles() []Role         { return v.off.Roles() }
func (v visit) Probe(g *Ground) error { return v.off.Probe(g) }

func (v visit) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, v.off.who)
	if err != nil {
		return Harm{}, err
	}
	members, err := g.Cast.Hosts(ctx, g, Voters)
	if err != nil {
		return Harm{}, err
	}
	members = slices.DeleteFunc(slices.Clone(members), func(m string) bool { return slices.Contains(hosts, m) })
	if len(members) == 0 {
		return Harm{}, fmt.Errorf("%w: nobody is there to be visited", ErrNoRole)
	}
	lab := g.Lab.(Powered)
	ran := false
	return Harm{Hosts: hosts, Passing: true,
		Do: func(ctx context.Context) error {
			const key = "/etcdrill/visit"
			c, err := g.Cast.Etcd(ctx, members[0])
			if err != nil {
				return err
			}
			defer c.Close()
			put := func(value string) error {
				ctx, stop := context.WithTimeout(ctx, 5*time.Second)
				defer stop()
				_, err := c.Put(ctx, key, value)
				return err
			}
			if err := put("before"); err != nil {
				return err
			}
			for _, name := range hosts {
				if err := lab.Power(ctx, name, true); err != nil {
					return err
				}
			}
			for began := g.now(); g.now().Sub(began) < v.d; {
				if err := put("during"); err != nil {
					return errors.Join(fmt.Errorf("%w: with %v back, a write failed: %w", ErrBroken, hosts, err), v.offAgain(ctx, lab, hosts))
				}
				ran = ran || running(ctx, g.Lab, hosts[0])
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(100 * time.Millisecond):
				}
			}
			r, err := c.Get(ctx, key)
			if err == nil && (len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "during") {
				err = fmt.Errorf("%w: with %v back, a write that was acknowledged is gone", ErrBroken, hosts)
			}
			return errors.Join(err, v.offAgain(ctx, lab, hosts))
		},
		Bit: func(context.Context) error {
			if !ran {
				return errors.New("its etcd never ran")
			}
			return nil
		}}, nil
}

func (v visit) offAgain(ctx context.Context, lab Powered, hosts []string) error {
	var errs []error
	for _, name := range hosts {
		errs = append(errs, lab.Power(ctx, name, false))
	}
	return errors.Join(errs...)
}

// --- the operator ---

// A Handle is the operator's process, as those who hurt it hold it.
type Handle interface {
	Signal(sig os.Signal) error
	// LoseReply has the operator carry out its next change of members without
	// hearing the reply: it was applied, and it timed out.
	LoseReply()
	// Another runs a second operator to its end meanwhile, or until ctx ends.
	Another(ctx context.Context, args []string) (status int, said string, err error)
}

// KillOperator ends the operator by SIGKILL.
func KillOperator() Fault {
	return operator{kind: "kill", source: "fault.KillOperator()", do: func(_ context.Context, h Handle) error { return h.Signal(syscall.SIGKILL) }}
}

// PauseOperator stops the operator by SIGSTOP for a while, as a laptop whose
// lid is shut: longer than its lock lasts, if the while is.
func PauseOperator(d time.Duration) Fault {
	return operator{kind: "pause", detail: " for " + d.String(), source: fmt.Sprintf("fault.PauseOperator(%d)", d), do: func(ctx context.Context, h Handle) error {
		if err := h.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		return errors.Join(ctx.Err(), h.Signal(syscall.SIGCONT))
	}}
}

// InterruptOperator asks the operator to stop, as Ctrl-C does.
func InterruptOperator() Fault {
	return operator{kind: "interrupt", source: "fault.InterruptOperator()", do: func(_ context.Context, h Handle) error { return h.Signal(syscall.SIGTERM) }}
}

// Overtaken stops the operator by SIGSTOP for a while, long enough for its lock
// to run out, lets a second one run to its end then, and lets the first go on:
// what it looked at last is not so any more.
func Overtaken(after time.Duration, args []string, statuses ...int) Fault {
	second := Second(args, "", statuses...).(operator)
	return operator{kind: "overtaken", detail: fmt.Sprintf(" after %v by one who does %v", after, args),
		source: fmt.Sprintf("fault.Overtaken(%d, %#v%s)", after, args, more(statuses)),
		do: func(ctx context.Context, h Handle) error {
			if err := h.Signal(syscall.SIGSTOP); err != nil {
				return err
			}
			t := time.NewTimer(after)
			defer t.Stop()
			select {
			case <-t.C:
			case <-ctx.Done():
				return errors.Join(ctx.Err(), h.Signal(syscall.SIGCONT))
			}
			return errors.Join(second.do(ctx, h), h.Signal(syscall.SIGCONT))
		}}
}

// LoseReply lets the operator's next change of members be applied and its
// reply be lost.
func LoseReply() Fault {
	return operator{kind: "lose the reply of", source: "fault.LoseReply()", do: func(_ context.Context, h Handle) error { h.LoseReply(); return nil }}
}

// Second runs another operator to its end while the first one waits. It has to
// end with one of the statuses, and to say what is asked for.
func Second(args []string, says string, statuses ...int) Fault {
	return operator{kind: "second", detail: fmt.Sprintf(" who does %v", args), source: fmt.Sprintf("fault.Second(%#v, %q%s)", args, says, more(statuses)), do: func(ctx context.Context, h Handle) error {
		status, said, err := h.Another(ctx, args)
		switch {
		case err != nil:
			return err
		case !slices.Contains(statuses, status):
			return fmt.Errorf("%w: the second operator ended with exit status %d, not with %v: %s", ErrBroken, status, statuses, said)
		case !strings.Contains(said, says):
			return fmt.Errorf("%w: the second operator was to say %q and said: %s", ErrBroken, says, said)
		}
		return nil
	}}
}

// ErrBroken says that what a fault did brought a broken promise to light, which
// is a verdict and no failure of the lab.
var ErrBroken = errors.New("a promise was broken")

type operator struct {
	kind, detail string
	source       string
	do           func(ctx context.Context, h Handle) error
}

// more are further arguments, as source.
func more(statuses []int) string {
	var b strings.Builder
	for _, s := range statuses {
		fmt.Fprintf(&b, ", %d", s)
	}
	return b.String()
}

func (o operator) String() string {
	switch o.kind {
	case "second":
		return "a second operator" + o.detail
	}
	return o.kind + " the operator" + o.detail
}

func (o operator) Kind() string {
	if o.kind == "lose the reply of" {
		return "reply lost"
	}
	return "operator " + o.kind
}
func (o operator) Band() Band    { return Operator }
func (o operator) Roles() []Role { return []Role{Admin} }

// Probe holds without an operator too: there is none before a procedure begins.
func (o operator) Probe(*Ground) error { return nil }

func (o operator) Plan(_ context.Context, g *Ground) (Harm, error) {
	if g.Operator == nil {
		return Harm{}, errors.New("there is no operator at this moment")
	}
	return Harm{Passing: true, Do: func(ctx context.Context) error { return o.do(ctx, g.Operator) }}, nil
}

// RestartClients restarts the clients that know old endpoints alone, with those of
// now, as somebody does who is told of them. It harms nobody.
func RestartClients() Fault { return restarted{} }

type restarted struct{}

func (restarted) String() string { return "the clients that know old members alone are restarted" }
func (restarted) Kind() string   { return "restarted clients" }
func (restarted) Band() Band     { return Process }
func (restarted) Roles() []Role  { return nil }
func (restarted) Source() string { return "fault.RestartClients()" }

func (restarted) Probe(g *Ground) error {
	if g.Clients == nil {
		return unsupported(g, "its load has no such clients")
	}
	return nil
}

func (restarted) Plan(_ context.Context, g *Ground) (Harm, error) {
	return Harm{Passing: true, Do: func(context.Context) error {
		g.Clients.RestartStale()
		return nil
	}}, nil
}
