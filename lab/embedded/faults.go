package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
)

// link sets or heals the fault of one directed link. All hosts are served by
// the switch while any link has a fault, and are back on the bridge when none
// has.
func (s *supervisor) link(r request) error {
	for _, name := range []string{r.At, r.To} {
		if _, err := s.node(name); err != nil {
			return err
		}
	}
	if r.Rule == nil {
		return errors.New("link without a rule")
	}
	if r.At == r.To {
		return fmt.Errorf("link from %s to itself", r.At)
	}
	if err := r.Rule.Validate(); err != nil {
		return fmt.Errorf("link from %s to %s: %w", r.At, r.To, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rule(netswitch.Link{From: r.At, To: r.To}, *r.Rule)
}

// rule needs the lock.
func (s *supervisor) rule(l netswitch.Link, r netswitch.Rule) error {
	if r.Zero() && s.rules[l].Zero() {
		return nil
	}
	if s.fault == nil {
		s.fault = netswitch.New(s.charter.Seed)
	}
	// The rule first, the ports second: no frame passes the switch unhurt.
	if err := s.fault.SetRule(l.From, l.To, r); err != nil {
		return err
	}
	switched := len(s.rules) > 0
	if r.Zero() {
		delete(s.rules, l)
	} else {
		s.rules[l] = r
	}
	s.say("link %v: %v", l, r)
	var err error
	switch {
	case !switched:
		err = s.takeOff()
	case len(s.rules) == 0:
		err = s.putBack()
	}
	return err
}

// takeOff moves all hosts from the bridge to the switch. The switch's sockets
// are opened first: a frame that comes at the wrong moment arrives twice and
// not never, which TCP does not mind. Needs the lock.
func (s *supervisor) takeOff() error {
	var ports []netswitch.Port
	var messages []message
	for _, n := range s.nodes {
		if !n.powered() {
			continue
		}
		p, err := n.switchPort()
		if err != nil {
			for _, p := range ports {
				_ = p.Wire.Close()
			}
			return err
		}
		ports = append(ports, p)
		messages = append(messages, setMaster(n.port, 0))
	}
	if err := s.route.do(messages...); err != nil {
		return fmt.Errorf("take hosts off the bridge: %w", err)
	}
	for _, p := range ports {
		if err := s.fault.AddPort(p); err != nil {
			return err
		}
	}
	return nil
}

// putBack moves all hosts to the bridge, and only then off the switch, for the
// same reason. Needs the lock.
func (s *supervisor) putBack() error {
	var messages []message
	for _, n := range s.nodes {
		if n.powered() {
			messages = append(messages, setMaster(n.port, bridge))
		}
	}
	if err := s.route.do(messages...); err != nil {
		return fmt.Errorf("put hosts back on the bridge: %w", err)
	}
	for _, n := range s.nodes {
		if n.powered() {
			if err := s.fault.RemovePort(n.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// powered reports whether the host has its link.
func (n *node) powered() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.on
}

func (n *node) portName() string { return "port" + strconv.Itoa(n.port-firstPort) }

// switchPort opens the host's end in the lab's namespace for the switch.
func (n *node) switchPort() (netswitch.Port, error) {
	wire, err := netswitch.OpenPort(n.portName())
	if err != nil {
		return netswitch.Port{}, err
	}
	return netswitch.Port{Name: n.name, Wire: wire, IP: n.addrs[0], MAC: n.mac}, nil
}

// heal takes all link faults away and says which there were.
func (s *supervisor) heal() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var done []string
	for l, r := range s.rules {
		if err := s.rule(l, netswitch.Rule{}); err != nil {
			return done, err
		}
		done = append(done, fmt.Sprintf("healed %v (%v)", l, r))
	}
	slices.Sort(done)
	return done, nil
}

func (s *supervisor) counters() map[netswitch.Link]netswitch.Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		return nil
	}
	return s.fault.Counters()
}

// power switches a host off or on.
func (s *supervisor) power(ctx context.Context, name string, on bool) error {
	n, err := s.guest(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.powered() == on {
		return nil
	}
	if on {
		return s.powerOn(ctx, n)
	}
	return s.powerOff(n)
}

// powerOff removes the cable first: a host that loses its power says no
// goodbye to its connections. Its network namespace goes with it, so that
// nothing of the old boot is heard again. Needs the lock.
func (s *supervisor) powerOff(n *node) error {
	s.say("power of %s goes off", n.name)
	if len(s.rules) > 0 {
		if err := s.fault.RemovePort(n.name); err != nil {
			return err
		}
	}
	if err := s.route.do(delLink(n.port)); err != nil {
		return fmt.Errorf("unplug %s: %w", n.name, err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n.ns.Fd()))
	if err != nil {
		return fmt.Errorf("name the network namespace of %s: %w", n.name, err)
	}
	n.close()
	n.guest.PowerOff()
	s.killIn(space)
	n.release()
	if n.disk != nil {
		lost, err := n.disk.Forget()
		s.say("disk of %s has lost %d writes that were not synced", n.name, lost)
		if err != nil {
			return fmt.Errorf("let the disk of %s forget: %w", n.name, err)
		}
	}
	return nil
}

// powerOn makes the host anew. Needs the lock.
func (s *supervisor) powerOn(ctx context.Context, n *node) error {
	s.say("power of %s goes on", n.name)
	if err := n.open(s.ctx); err != nil {
		return err
	}
	err := s.replug(n)
	if err == nil {
		err = n.guest.PowerOn(ctx)
	}
	return err
}

func (s *supervisor) replug(n *node) error {
	master := bridge
	if len(s.rules) > 0 {
		master = 0
	}
	if err := s.route.do(n.plug(master)); err != nil {
		return fmt.Errorf("plug %s in: %w", n.name, err)
	}
	if err := n.furnish(s.nodes); err != nil {
		return err
	}
	if len(s.rules) > 0 {
		p, err := n.switchPort()
		if err != nil {
			return err
		}
		if err := s.fault.AddPort(p); err != nil {
			return err
		}
	}
	return s.route.awaitUp(s.ctx, n.port)
}

// killIn kills all processes in a network namespace, named as /proc names it.
func (s *supervisor) killIn(space string) {
	const rounds = 100 // a process may fork between the look and the blow
	for range rounds {
		found := false
		for _, pid := range s.processes() {
			if s.readProcLink(pid+"/ns/net") != space {
				continue
			}
			if inner := s.inner(pid); inner > 1 && unix.Kill(inner, unix.SIGKILL) == nil {
				found = found || !s.zombie(pid)
			}
		}
		if !found {
			return
		}
	}
}

// processes lists the PIDs of the outer /proc.
func (s *supervisor) processes() []string {
	fd, err := unix.Openat(int(s.proc.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	dir := os.NewFile(uintptr(fd), "proc")
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := strconv.Atoi(name)
		return err != nil
	})
}

func (s *supervisor) readProcLink(name string) string {
	target := make([]byte, 256)
	n, err := unix.Readlinkat(int(s.proc.Fd()), name, target)
	if err != nil {
		return ""
	}
	return string(target[:n])
}

// inner gives the PID that a process of the outer /proc has in the lab, 0 when
// it is in no namespace of the lab.
func (s *supervisor) inner(pid string) int {
	if s.readProcLink(pid+"/ns/pid") != s.readProcLink("self/ns/pid") {
		return 0
	}
	fields := strings.Fields(s.statusLine(pid, "NSpid:"))
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[len(fields)-1])
	return n
}

func (s *supervisor) zombie(pid string) bool {
	return strings.HasPrefix(s.statusLine(pid, "State:"), "Z")
}

func (s *supervisor) statusLine(pid, key string) string {
	data, err := s.readProc(pid + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
