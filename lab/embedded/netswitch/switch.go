package netswitch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// ErrClosed is returned when a closed switch is asked to change.
var ErrClosed = errors.New("switch is closed")

// Wire carries the frames of one port. A frame is an Ethernet frame behind a
// ten-byte virtio-net header (see virtio 1.x, "struct virtio_net_hdr"; all
// zero means an ordinary frame with nothing left to do). One goroutine reads,
// several write; Close ends a read that is under way.
type Wire interface {
	// ReadFrame fills buf with one frame and returns its length. An error ends
	// the port: what passes by itself is retried inside.
	ReadFrame(buf []byte) (int, error)
	// WriteFrame sends one frame and does not keep it.
	WriteFrame(frame []byte) error
	Close() error
}

// Port is where a host is plugged in.
type Port struct {
	Name string // the name that rules and counters use
	Wire Wire   // the switch closes it, also when AddPort fails

	// IP and MAC are the host's own, where known. A declared MAC need not be
	// learned; an IP is needed where hosts share one MAC.
	IP  netip.Addr
	MAC net.HardwareAddr
}

// Switch passes frames between ports, and on every directed link does to them
// what the link's rule says. Its methods may be called concurrently.
type Switch struct {
	seed int64

	mu       sync.RWMutex
	closed   bool
	ports    map[string]*port
	links    map[Link]*link
	stations map[mac]station
	owners   map[netip.Addr]*port
	overruns map[string]uint64 // of ports that are gone
	ended    []error           // of ports whose wire failed

	timers sync.WaitGroup // deliveries that are still to run
}

// port is a plugged-in Port.
type port struct {
	Port
	mac  mac
	done chan struct{} // closed when nothing reads the wire any more
}

// station is where a MAC lives. Several ports with the same one share it, and
// it says nothing about where to send.
type station struct {
	port     *port
	declared bool
	shared   bool
}

// New returns a switch without ports or rules. All its randomness comes from
// the seed.
func New(seed int64) *Switch {
	return &Switch{
		seed:     seed,
		ports:    make(map[string]*port),
		links:    make(map[Link]*link),
		stations: make(map[mac]station),
		owners:   make(map[netip.Addr]*port),
		overruns: make(map[string]uint64),
	}
}

// AddPort plugs a host in; frames flow from here on. The wire belongs to the
// switch, and is closed when an error is returned: a name or an IP twice, a
// MAC that is not six bytes, ErrClosed.
func (s *Switch) AddPort(p Port) error {
	if p.Wire == nil {
		return fmt.Errorf("add port %s: it has no wire", p.Name)
	}
	added := &port{Port: p, done: make(chan struct{})}
	if err := s.plug(added); err != nil {
		return errors.Join(fmt.Errorf("add port %s: %w", p.Name, err), p.Wire.Close())
	}
	return nil
}

func (s *Switch) plug(p *port) error {
	if err := validateName(p.Name); err != nil {
		return err
	}
	if len(p.MAC) != 0 && len(p.MAC) != len(p.mac) {
		return fmt.Errorf("MAC %v is not an Ethernet address", p.MAC)
	}
	copy(p.mac[:], p.MAC)
	p.IP = p.IP.Unmap()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.ports[p.Name] != nil {
		return errors.New("there is one of this name")
	}
	if other := s.owners[p.IP]; other != nil {
		return fmt.Errorf("port %s has address %v", other.Name, p.IP)
	}
	for name := range s.ports {
		s.link(Link{From: p.Name, To: name})
		s.link(Link{From: name, To: p.Name})
	}
	s.ports[p.Name] = p
	s.chart()
	go s.serve(p)
	return nil
}

// RemovePort unplugs a host and closes its wire. Frames that the links from
// and to it hold are dropped and counted as Refused; rules and counters stay.
func (s *Switch) RemovePort(name string) error {
	s.mu.Lock()
	p := s.ports[name]
	if p == nil {
		s.mu.Unlock()
		return fmt.Errorf("remove port %s: there is none of this name", name)
	}
	delete(s.ports, name)
	s.chart()
	s.overruns[name] += overruns(p.Wire)
	err := p.Wire.Close()
	s.mu.Unlock()

	<-p.done
	s.mu.RLock()
	defer s.mu.RUnlock()
	for l, k := range s.links {
		if l.From == name || l.To == name {
			k.drop()
		}
	}
	if err != nil {
		return fmt.Errorf("remove port %s: %w", name, err)
	}
	return nil
}

// chart draws the tables of addresses anew from what the ports declare. What
// was learned is learned again. It needs the lock.
func (s *Switch) chart() {
	clear(s.stations)
	clear(s.owners)
	for _, p := range s.ports {
		if p.IP.IsValid() {
			s.owners[p.IP] = p
		}
		if len(p.MAC) != 0 {
			_, twice := s.stations[p.mac]
			s.stations[p.mac] = station{port: p, declared: true, shared: twice}
		}
	}
}

// link finds a directed link, or makes it. It needs the lock.
func (s *Switch) link(name Link) *link {
	k := s.links[name]
	if k == nil {
		k = &link{line: newLine(s.seed, name), timers: &s.timers}
		s.links[name] = k
	}
	return k
}

// SetRule sets what the directed link does from now on; the zero Rule heals
// it. When it returns, the new rule has met every frame the link held. The
// ports need not exist yet.
func (s *Switch) SetRule(from, to string, r Rule) error {
	name := Link{From: from, To: to}
	if err := errors.Join(name.validate(), r.Validate()); err != nil {
		return fmt.Errorf("set rule of %v: %w", name, err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("set rule of %v: %w", name, ErrClosed)
	}
	k := s.link(name)
	s.mu.Unlock()
	k.set(r)
	return nil
}

// Rules returns the rule of every link that has one.
func (s *Switch) Rules() map[Link]Rule {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rules := make(map[Link]Rule)
	for name, k := range s.links {
		if r := k.rule(); !r.Zero() {
			rules[name] = r
		}
	}
	return rules
}

// Counters returns what happened on every link that has seen a frame. It may
// be asked after Close too.
func (s *Switch) Counters() map[Link]Counter {
	s.mu.RLock()
	defer s.mu.RUnlock()
	counters := make(map[Link]Counter)
	for name, k := range s.links {
		if c := k.counter(); c != (Counter{}) {
			counters[name] = c
		}
	}
	return counters
}

// Overruns returns, for every port that had any, how many frames the kernel
// dropped because the switch was too slow: losses that no rule asked for.
func (s *Switch) Overruns() map[string]uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make(map[string]uint64)
	for name, n := range s.overruns {
		if n > 0 {
			all[name] = n
		}
	}
	for name, p := range s.ports {
		if n := overruns(p.Wire); n > 0 {
			all[name] += n
		}
	}
	return all
}

// overruns asks a wire that can tell. One that no longer can, because it is
// closed, has told all.
func overruns(w Wire) uint64 {
	teller, ok := w.(interface{ Overruns() (uint64, error) })
	if !ok {
		return 0
	}
	n, _ := teller.Overruns() // the count is good beside an error
	return n
}

// Close unplugs all hosts and forgets the frames that are held. When it
// returns, no goroutine of the switch is left. Its error tells of wires that
// failed on the way. Closing twice is no error.
func (s *Switch) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	ports := s.ports
	s.ports = make(map[string]*port)
	s.chart()
	var errs []error
	for name, p := range ports {
		s.overruns[name] += overruns(p.Wire)
		if err := p.Wire.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close port %s: %w", name, err))
		}
	}
	s.mu.Unlock()

	for _, p := range ports {
		<-p.done
	}
	s.mu.Lock()
	for _, k := range s.links {
		k.close()
	}
	if first {
		errs = append(errs, s.ended...)
	}
	s.mu.Unlock()
	s.timers.Wait()
	return errors.Join(errs...)
}

// serve reads a port until its wire ends.
func (s *Switch) serve(p *port) {
	defer close(p.done)
	buf := make([]byte, maxFrame+1)
	var hops []hop
	for {
		n, err := p.Wire.ReadFrame(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
				s.mu.Lock()
				s.ended = append(s.ended, fmt.Errorf("read port %s: %w", p.Name, err))
				s.mu.Unlock()
			}
			return
		}
		if n < offloadLen || n == len(buf) { // no frame, or one that was cut off
			continue
		}
		frame := buf[:n]
		h, ok := parse(frame[offloadLen:])
		if !ok {
			continue
		}
		// Other flags are about what the receiver found; on the way out the
		// only question is what is left to do.
		frame[offloadFlags] &= needsChecksum

		s.learn(p, h.src)
		hops = s.route(hops[:0], p, h)
		for _, hop := range hops {
			hop.link.send(hop.to, frame, h)
		}
	}
}

// learn takes down where a MAC was seen.
func (s *Switch) learn(p *port, src mac) {
	if src.group() || src == (mac{}) {
		return
	}
	known := func() bool {
		at, ok := s.stations[src]
		return ok && (at.port == p || at.declared || at.shared)
	}
	s.mu.RLock()
	done := known()
	s.mu.RUnlock()
	if done {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known() || s.ports[p.Name] != p {
		return
	}
	_, elsewhere := s.stations[src]
	s.stations[src] = station{port: p, shared: elsewhere}
}

// hop is one way that a frame takes.
type hop struct {
	link *link
	to   *port
}

// route appends the ways of a frame that came in at a port.
func (s *Switch) route(hops []hop, from *port, h header) []hop {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ports[from.Name] != from { // just unplugged
		return hops
	}
	to := func(p *port) []hop {
		if p == from {
			return hops
		}
		return append(hops, hop{link: s.links[Link{From: from.Name, To: p.Name}], to: p})
	}
	if !h.dst.group() {
		at, known := s.stations[h.dst]
		if known && !at.shared && at.port != from {
			return to(at.port)
		}
		if owner := s.owners[h.dstIP]; owner != nil {
			return to(owner)
		}
		if known && !at.shared { // on the side it came from
			return hops
		}
	}
	for _, p := range s.ports {
		hops = to(p)
	}
	return hops
}

// link is a line with what it takes to run: a lock, a clock and a way out.
type link struct {
	timers *sync.WaitGroup

	mu     sync.Mutex
	line   *line
	to     *port
	timer  *time.Timer
	wake   time.Time // when the timer fires; zero when there is none
	closed bool
}

// send passes a frame on, now or later. It does not keep the memory.
func (k *link) send(to *port, frame []byte, h header) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.to = to
	now := time.Now()
	if k.line.offer(now, frame, h) {
		k.write(frame, h)
		return
	}
	k.deliver(now)
}

// set changes the rule and delivers what is due under the new one. All is done
// under the lock: after a cut has returned, nothing more comes out.
func (k *link) set(r Rule) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	now := time.Now()
	k.line.set(now, r)
	k.deliver(now)
}

// deliver writes all that is due and sets the timer for the rest. It needs the
// lock.
func (k *link) deliver(now time.Time) {
	for {
		f, ok := k.line.pop(now)
		if !ok {
			break
		}
		k.write(f.frame, f.header)
	}
	next, ok := k.line.next()
	if ok && !k.wake.IsZero() && !next.Before(k.wake) {
		return // the timer that runs is early enough
	}
	k.stop()
	if !ok {
		return
	}
	k.timers.Add(1)
	k.wake = next
	k.timer = time.AfterFunc(next.Sub(now), func() {
		defer k.timers.Done()
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed {
			return
		}
		if k.wake.Equal(next) {
			k.wake = time.Time{}
		}
		k.deliver(time.Now())
	})
}

// stop ends the timer. One that is just firing finds nothing to do. It needs
// the lock.
func (k *link) stop() {
	if k.timer != nil && k.timer.Stop() {
		k.timers.Done()
	}
	k.timer, k.wake = nil, time.Time{}
}

// write hands a frame to the port. It needs the lock.
func (k *link) write(frame []byte, h header) {
	n := wireFrames(frame, h)
	if err := k.to.Wire.WriteFrame(frame); err != nil {
		k.line.count.Refused += n
		return
	}
	k.line.count.Frames += n
	k.line.count.Bytes += int64(size(frame))
}

// drop forgets what is held, because a port is gone.
func (k *link) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.line.count.Refused += k.line.drop()
	k.stop()
}

func (k *link) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.line.drop()
	k.stop()
}

func (k *link) rule() Rule {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.line.rule.normal()
}

func (k *link) counter() Counter {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.line.count
}
