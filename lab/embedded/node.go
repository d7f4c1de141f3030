package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Interface numbers. They are asked for, so that none needs to be looked up.
// They are high because kernels put tunnel devices of their own into every
// new namespace.
const (
	loopback   = 1
	ethIndex   = 100 // eth0 in every host
	bridge     = 100 // in the lab's namespace
	firstPort  = 101 // in the lab's namespace, one per host
	ethName    = "eth0"
	bridgeName = "lab"
)

var (
	// ErrNoHost says that the lab has no host of that name.
	ErrNoHost = errors.New("lab has no such host")
	// ErrPoweredOff says that a host is switched off.
	ErrPoweredOff = errors.New("host is powered off")
)

// A guest is what lives on a host: its files and its service manager.
type guest interface {
	host.Host
	PowerOff()
	PowerOn(ctx context.Context) error
	Signal(unit string, sig syscall.Signal) error
	Install(version string) error
	Open(path string) (*os.File, error)
}

// A node is a host's place in the lab: a network namespace, its link to the
// bridge, and what runs there.
type node struct {
	name  string
	addrs []netip.Addr
	mac   net.HardwareAddr
	port  int // interface number of its end in the lab's namespace
	guest guest

	offset atomic.Int64  // of its clock, in nanoseconds
	disk   *baddisk.Disk // under the data directory; nil is a sound one

	mu     sync.Mutex
	on     bool
	life   context.Context // ends when the power goes
	end    context.CancelFunc
	thread *thread
	route  *rtnetlink // of the host's namespace
	ns     *os.File   // the host's namespace
}

// open makes the host's network namespace and the thread that is in it.
func (n *node) open(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, err := startThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace of %s: %w", n.name, err)
		}
		var err error
		if n.route, err = openRTNetlink(); err != nil {
			return err
		}
		if n.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return fmt.Errorf("open network namespace of %s: %w", n.name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.thread = t
	n.life, n.end = context.WithCancel(ctx)
	n.on = true
	return nil
}

// plug makes the messages that join the host to the bridge (master 0: to
// none), for the lab's own namespace.
func (n *node) plug(master int) message {
	return addVeth(n.portName(), n.port, master, ethName, ethIndex, n.mac, int(n.ns.Fd()))
}

// furnish brings the interfaces in the host's namespace up, with addresses
// and a route to every peer. There is no other route: what is not in the lab
// cannot be reached, and says so at once.
func (n *node) furnish(peers []*node) error {
	messages := []message{linkUp(loopback), linkUp(ethIndex)}
	for _, a := range n.addrs {
		messages = append(messages, addAddress(ethIndex, a))
		for _, p := range peers {
			for _, b := range p.addrs {
				if p != n && a.Is4() == b.Is4() {
					messages = append(messages, addRoute(ethIndex, b, a))
				}
			}
		}
	}
	if err := n.route.do(messages...); err != nil {
		return fmt.Errorf("set up network of %s: %w", n.name, err)
	}
	return nil
}

// close lets the power go: nothing is started here any more, what is being
// done is told so, and the thread ends. The namespace stays until release.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.on = false
	n.end()
	n.thread.end()
}

// release lets go of the namespace, which goes with the last process and
// socket in it.
func (n *node) release() {
	n.route.close()
	_ = n.ns.Close()
}

// inside gives the thread of a host that is on, and the context that ends
// when the power goes.
func (n *node) inside() (*thread, context.Context, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.on {
		return nil, nil, fmt.Errorf("%s: %w", n.name, ErrPoweredOff)
	}
	return n.thread, n.life, nil
}

// start starts a command inside the host.
func (n *node) start(cmd *exec.Cmd) error { return n.within(cmd.Start) }

// within runs a function inside the host.
func (n *node) within(f func() error) error {
	t, _, err := n.inside()
	if err != nil {
		return err
	}
	return t.do(f)
}

// socket makes a TCP socket inside the host.
func (n *node) socket(v6 bool) (int, error) {
	t, _, err := n.inside()
	if err != nil {
		return -1, err
	}
	domain := unix.AF_INET
	if v6 {
		domain = unix.AF_INET6
	}
	fd := -1
	err = t.do(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return err
	})
	return fd, err
}

// dial opens a TCP connection from inside the host.
func (n *node) dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	fd, err := n.socket(to.Addr().Is6())
	if err != nil {
		return nil, err
	}
	return connect(ctx, os.NewFile(uintptr(fd), "socket"), to)
}

// hardware gives the host's MAC address: locally administered, and the same in
// every life of the host, as its neighbours may remember it.
func hardware(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		b := a.As4()
		return net.HardwareAddr{0x02, 0x00, b[0], b[1], b[2], b[3]}
	}
	b := a.As16()
	h := uint32(2166136261)
	for _, x := range b {
		h = (h ^ uint32(x)) * 16777619
	}
	return net.HardwareAddr{0x02, 0x06, byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}
}
