package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A Fault is a harm, as a value.
type Fault interface {
	// String says it in words: "cut learner from leader".
	String() string
	// Kind is the short name that reports count it under: "cut", "pause".
	Kind() string
	// Band is the lane of the report that it is drawn in.
	Band() Band
	// Roles are whom it strikes, for the account of what was covered.
	Roles() []Role
	// Source is the fault as Go source.
	Source() string
	// Probe says why it cannot be suffered on this ground: an error that wraps
	// errors.ErrUnsupported where the lab is not made for it.
	Probe(g *Ground) error
	// Plan resolves the roles and gives the harm to do, with its remedy. It
	// changes nothing.
	Plan(ctx context.Context, g *Ground) (Harm, error)
}

// A Band is a lane of reports.
type Band string

// The bands.
const (
	Process  Band = "process"
	Network  Band = "network"
	Disk     Band = "disk"
	Trust    Band = "trust"
	Operator Band = "operator"
)

// A Harm is a fault with its roles resolved.
type Harm struct {
	Hosts  []string // whom it strikes
	Remedy Remedy
	Do     func(ctx context.Context) error
	// Bit gives nil once it is seen that the harm was felt, else what is
	// missing. Nil where Do is its own proof.
	Bit func(ctx context.Context) error
	// Undo is the rest of the remedy, for what a value cannot say and whose
	// traces go with the lab; nil where there is none.
	Undo func(ctx context.Context) error
	// Passing is set where the harm is over in a moment and needs no remedy;
	// Returns where the members come back by themselves, after a while.
	Passing, Returns bool
}

// A Ground is what faults act on.
type Ground struct {
	Lab  Lab
	Kind string // of the lab, for messages: "embedded"
	// Here puts the lab's own addresses into a text that has those of the
	// inventory that it was made from; nil where they are the same.
	Here    func(text string) string
	Cast    Cast
	Journal *Journal   // nil keeps none
	Random  *rand.Rand // seeded by the caller
	// Operator is the process that carries the procedure out; nil where there
	// is none of its own.
	Operator Handle
	// Target is the host that the operator's step acts on; empty between steps.
	Target string
	// Beside is the directory on the admin host that the inventory is in.
	Beside string
	// Disks says that the lab was made with disks that can be hurt, Points that
	// its members were built with gofail points.
	Disks, Points bool
	// PKI are the cluster's certificates, for faults of trust.
	PKI pki.Dir
	// Clients are those of the load that know the endpoints of their start alone; nil
	// where there are none.
	Clients Restarted
	// Images is a directory for what faults set aside, on this machine.
	Images string
	Now    func() time.Time
}

// Restarted are clients that can be started anew, with the endpoints of now.
type Restarted interface{ RestartStale() }

// A Lab is a place with hosts.
type Lab interface {
	Host(name string) host.Host
}

// Members is a lab that signals a host's etcd process.
type Members interface {
	Member(ctx context.Context, name string, sig syscall.Signal) error
}

// Powered is a lab whose hosts can be switched off.
type Powered interface {
	Power(ctx context.Context, name string, on bool) error
}

// Links is a lab that owns every directed link between its hosts.
type Links interface {
	Link(ctx context.Context, from, to string, rule netswitch.Rule) error
	Counters(ctx context.Context) (map[netswitch.Link]netswitch.Counter, error)
}

// Choosy is a lab that owns links or disks, and can bear only some of what may
// become of them. It says why it cannot bear the others.
type Choosy interface {
	BearsLink(from, to Role, rule netswitch.Rule) error
	// BearsDisk is asked of a disk that does nothing too: one that forgets, at a
	// loss of power, what was not synced.
	BearsDisk(f baddisk.Fault) error
}

// Files is a lab whose hosts' files are in directories of this machine.
type Files interface {
	Root(name string) string
}

// Clocks is a lab that can set what a host takes for the time.
type Clocks interface {
	Clock(ctx context.Context, name string, offset time.Duration) error
}

// Disks is a lab whose disks can be hurt.
type Disks interface {
	Disk(ctx context.Context, name string, f baddisk.Fault) error
	DiskCounts(ctx context.Context, name string) (baddisk.Counts, error)
}

// Dialer is a lab that opens connections from inside a host.
type Dialer interface {
	DialContext(at string) DialFunc
}

func (g *Ground) here(text string) string {
	if g.Here == nil {
		return text
	}
	return g.Here(text)
}

// unsupported is a Probe's answer.
func unsupported(g *Ground, format string, args ...any) error {
	return fmt.Errorf("%s lab: %s: %w", g.Kind, fmt.Sprintf(format, args...), errors.ErrUnsupported)
}

// needs gives the part of a lab that a fault needs.
func needs[T any](g *Ground, what string) (T, error) {
	t, ok := g.Lab.(T)
	if !ok {
		return t, unsupported(g, "it cannot %s", what)
	}
	return t, nil
}

// A Wound is a fault that has struck.
type Wound struct {
	Fault  Fault
	Hosts  []string
	Struck time.Time
	Mended time.Time // zero until it is; never, of damage that stays

	ground *Ground
	harm   Harm
	id     int
	healed bool
}

// Strike does the harm of a fault. Its remedy is in the journal before that.
func Strike(ctx context.Context, g *Ground, f Fault) (*Wound, error) {
	if err := f.Probe(g); err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	harm, err := f.Plan(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	w := &Wound{Fault: f, Hosts: harm.Hosts, ground: g, harm: harm, Struck: g.now()}
	if w.id, err = g.Journal.struck(f, harm, w.Struck); err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	if err := harm.Do(ctx); err != nil {
		// Half of it may have been done.
		healing, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer stop()
		return nil, errors.Join(fmt.Errorf("%s: %w", f, err), w.Heal(healing))
	}
	return w, nil
}

func (g *Ground) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

// Bit gives nil when the harm was felt, else what is missing. It may be asked
// more than once, and after the remedy.
func (w *Wound) Bit(ctx context.Context) error {
	if w.harm.Bit == nil {
		return nil
	}
	if err := w.harm.Bit(ctx); err != nil {
		return fmt.Errorf("%s never bit: %w", w.Fault, err)
	}
	return nil
}

// Heal carries the remedy out. A second time it does nothing.
func (w *Wound) Heal(ctx context.Context) error {
	if w.healed {
		return nil
	}
	err := w.harm.Remedy.Apply(ctx, w.ground.Lab)
	if w.harm.Undo != nil {
		err = errors.Join(err, w.harm.Undo(ctx))
	}
	if err != nil {
		return fmt.Errorf("heal %s: %w", w.Fault, err)
	}
	w.healed, w.Mended = true, w.ground.now()
	if w.harm.Passing && w.harm.Remedy.Empty() && w.Fault.Band() == Disk {
		w.Mended = time.Time{} // nothing was mended
	}
	return w.ground.Journal.healed(w.id, w.ground.now())
}

// Passing reports whether the harm was over in a moment and needs no remedy.
func (w *Wound) Passing() bool { return w.harm.Passing }

// Returns reports whether the members that were struck come back by themselves.
func (w *Wound) Returns() bool { return w.harm.Returns }

// Healed reports whether the remedy was carried out.
func (w *Wound) Healed() bool { return w.healed }

// String says what was struck, with the hosts that its roles were.
func (w *Wound) String() string {
	if len(w.Hosts) == 0 {
		return w.Fault.String()
	}
	return fmt.Sprintf("%s (%s)", w.Fault, strings.Join(w.Hosts, ", "))
}
