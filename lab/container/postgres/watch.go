package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"
)

// A Holding is a time for which a machine held the VIP, by the machines' clock.
type Holding struct {
	Instance string
	From, To time.Time // To is the end of the watch where it held it still
}

// An addressChange is what a machine's kernel said of one address.
type addressChange struct {
	at      time.Time
	address netip.Addr
	gone    bool
}

const (
	// stateEvery is the time between two questions to an instance's Patroni.
	stateEvery = time.Second
	// proveEvery is how long a machine has to report the watch's own address
	// before it is put up again.
	proveEvery = time.Second
	// hushWithin is how long the commands on the machines may take to end.
	hushWithin = 5 * time.Second
)

// marker is the watch's own address: of the loopback, where nothing else uses
// it.
func marker() netip.Addr { return netip.AddrFrom4([4]byte{127, 255, 255, 1}) }

// monitor runs until its standard input ends, so that nothing is left of it on
// a machine that was watched from afar.
const monitor = `env TZ=UTC ip -ts -o monitor address & watch=$!; cat >/dev/null; kill $watch; wait $watch || true`

// A Watch is a watch under way.
type Watch struct {
	cluster  *Cluster
	evidence Evidence
	ears     []*ear
	cancel   context.CancelFunc
	asking   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	states []State
}

// An ear listens to one machine's addresses.
type ear struct {
	instance instance
	vip      netip.Addr
	from     time.Time // since when it is known who held the VIP
	held     bool      // whether the machine held it then
	mute     *io.PipeWriter
	ended    chan struct{} // closed when the command has
	said     chan struct{}

	mu      sync.Mutex // guards what follows
	rest    []byte     // of a line that is not whole yet
	changes []addressChange
	broken  error // why what it heard cannot be trusted
}

// Watch begins to watch the VIP on every machine, and each instance's Patroni.
// It returns once all machines have proved that they report. ctx bounds the
// whole watch; Stop must be called in any case but that of an error.
func (c *Cluster) Watch(ctx context.Context) (*Watch, error) {
	watching, cancel := context.WithCancel(ctx)
	w := &Watch{cluster: c, cancel: cancel, evidence: Evidence{Instances: c.Instances()}}
	var err error
	if w.evidence.Before, err = c.answered(ctx); err != nil {
		cancel()
		return nil, fmt.Errorf("watch PostgreSQL: %w", err)
	}
	for _, i := range c.instances {
		w.ears = append(w.ears, listen(watching, i, c.spec.VIP.Addr()))
	}
	err = c.each(func(n int, _ instance) error { return w.ears[n].begin(ctx, c) })
	if err != nil {
		w.hush(ctx)
		return nil, fmt.Errorf("watch the VIP: %w", err)
	}
	w.evidence.Began = c.spec.Clock()
	for _, i := range c.instances {
		w.asking.Go(func() { w.ask(watching, i) })
	}
	return w, nil
}

// Stop ends the watch and gives what was seen. An error says that the end
// could not be looked at; the evidence is then not whole, and says so too.
func (w *Watch) Stop(ctx context.Context) (Evidence, error) {
	e := w.evidence
	e.Ended = w.cluster.spec.Clock()
	for _, x := range w.ears {
		until, err := x.prove(ctx)
		if err == nil {
			err = x.trouble()
		}
		if err != nil {
			e.Blind = append(e.Blind, fmt.Sprintf("%s: %v", x.instance.Name, err))
			continue
		}
		if e.From.IsZero() || x.from.After(e.From) {
			e.From = x.from
		}
		if e.To.IsZero() || until.Before(e.To) {
			e.To = until
		}
		e.Holdings = append(e.Holdings, x.holdings(until)...)
	}
	w.hush(ctx)
	e.States = slices.Clone(w.states)
	slices.SortStableFunc(e.States, func(a, b State) int { return a.At.Compare(b.At) })
	slices.SortStableFunc(e.Holdings, func(a, b Holding) int { return a.From.Compare(b.From) })
	var err error
	if e.After, err = w.cluster.answered(ctx); err != nil {
		return e, fmt.Errorf("end the watch of PostgreSQL: %w", err)
	}
	return e, nil
}

// hush ends the commands on the machines: of their own accord, and where that
// takes long, for us at least.
func (w *Watch) hush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hushWithin)
	defer cancel()
	for _, x := range w.ears {
		x.mute.Close()
	}
	for _, x := range w.ears {
		select {
		case <-x.ended:
		case <-ctx.Done():
		}
	}
	w.cancel()
	for _, x := range w.ears {
		<-x.ended
	}
	w.asking.Wait()
}

// ask asks one instance's Patroni again and again.
func (w *Watch) ask(ctx context.Context, i instance) {
	tick := time.NewTicker(stateEvery)
	defer tick.Stop()
	for {
		s := w.cluster.state(ctx, i)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.states = append(w.states, s)
		w.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func listen(ctx context.Context, i instance, vip netip.Addr) *ear {
	in, mute := io.Pipe()
	x := &ear{instance: i, vip: vip, mute: mute, ended: make(chan struct{}), said: make(chan struct{}, 1)}
	go func() {
		err := i.Machine.Exec(ctx, in, x, "sh", "-c", monitor)
		in.Close()
		x.fail(fmt.Errorf("the monitor of addresses ended: %w", errors.Join(err, io.EOF)))
		close(x.ended)
	}()
	return x
}

// Write takes what a machine reports, in pieces of any size.
func (x *ear) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rest = append(x.rest, p...)
	for {
		n := bytes.IndexByte(x.rest, '\n')
		if n < 0 {
			break
		}
		c, ok, err := parseChange(string(x.rest[:n]))
		x.rest = x.rest[n+1:]
		if err != nil && x.broken == nil {
			x.broken = err
		}
		if ok {
			x.changes = append(x.changes, c)
		}
	}
	select {
	case x.said <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (x *ear) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.broken == nil {
		x.broken = err
	}
}

func (x *ear) trouble() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.broken
}

// begin finds out whether the machine holds the VIP, at a time about which it
// is known that it reports, and with no change while it was asked.
func (x *ear) begin(ctx context.Context, c *Cluster) error {
	for {
		from, err := x.prove(ctx)
		if err != nil {
			return err
		}
		if x.held, err = c.holds(ctx, x.instance); err != nil {
			return err
		}
		until, err := x.prove(ctx)
		if err != nil {
			return err
		}
		if !x.changed(from, until) {
			x.from = until
			return nil
		}
	}
}

func (x *ear) changed(from, until time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.changes, func(c addressChange) bool {
		return c.address == x.vip && !c.at.Before(from) && !c.at.After(until)
	})
}

// prove puts the watch's own address up and takes it away until the machine
// has reported that it went, and gives when it did. All that the kernel said
// before has then been heard.
func (x *ear) prove(ctx context.Context) (time.Time, error) {
	before := x.marks()
	for {
		if err := x.trouble(); err != nil {
			return time.Time{}, err
		}
		const script = `ip address add "$1" dev lo; ip address del "$1" dev lo`
		if err := x.instance.Machine.Exec(ctx, nil, io.Discard, "sh", "-ec", script, "sh", marker().String()+"/32"); err != nil {
			return time.Time{}, fmt.Errorf("put up an address of the watch's own: %w", err)
		}
		t := time.NewTimer(proveEvery)
		for heard := true; heard; {
			if marks := x.marks(); len(marks) > len(before) {
				t.Stop()
				return marks[len(marks)-1], nil
			}
			select {
			case <-x.said:
			case <-t.C:
				heard = false
			case <-ctx.Done():
				return time.Time{}, fmt.Errorf("the monitor of addresses says nothing: %w", ctx.Err())
			}
		}
	}
}

func (x *ear) marks() []time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []time.Time
	for _, c := range x.changes {
		if c.address == marker() && c.gone {
			all = append(all, c.at)
		}
	}
	return all
}

// holdings are the times for which the machine held the VIP.
func (x *ear) holdings(until time.Time) []Holding {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []Holding
	held, since := x.held, x.from
	for _, c := range x.changes {
		if c.address != x.vip || c.at.Before(x.from) {
			continue
		}
		switch {
		case held && c.gone:
			all, held = append(all, Holding{x.instance.Name, since, c.at}), false
		case !held && !c.gone:
			held, since = true, c.at
		}
	}
	if held {
		all = append(all, Holding{x.instance.Name, since, until})
	}
	return all
}

// changePattern is a line of "ip -ts -o monitor address".
var changePattern = regexp.MustCompile(`^\[(\S+)\] (Deleted )?\d+: \S+ +inet6? ([0-9A-Fa-f.:]+)(?:/\d+)?(?: |$)`)

// parseChange reads a line of the monitor. Lines about anything but addresses
// are none of ours; a line about an address that cannot be read is an error.
func parseChange(line string) (addressChange, bool, error) {
	m := changePattern.FindStringSubmatch(line)
	if m == nil {
		return addressChange{}, false, nil
	}
	at, err := time.ParseInLocation("2006-01-02T15:04:05.999999", m[1], time.UTC)
	if err != nil {
		return addressChange{}, false, fmt.Errorf("read %q of the monitor of addresses: %w", line, err)
	}
	address, err := netip.ParseAddr(m[3])
	if err != nil {
		return addressChange{}, false, fmt.Errorf("read %q of the monitor of addresses: %w", line, err)
	}
	return addressChange{at, address, m[2] != ""}, true, nil
}
