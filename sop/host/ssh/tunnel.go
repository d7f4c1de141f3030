package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// Through gives a way to addresses by the connections to hosts: that of the host
// which the address names, else, for one that is none of them or that ssh does not
// reach, that of another. All are made at once, before the first is needed.
func (c *Client) Through(ctx context.Context, hosts []inventory.Host) func(ctx context.Context, address string) (net.Conn, error) {
	var machines []*Machine
	var wg sync.WaitGroup
	for _, h := range hosts {
		if spec, err := SpecOf(h); err == nil { // else a look says what is wrong
			m := c.Host(spec)
			machines = append(machines, m)
			wg.Go(func() { m.Connect(ctx) })
		}
	}
	wg.Wait()
	return func(ctx context.Context, address string) (net.Conn, error) {
		name, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		named := func(m *Machine) bool { return m.Name() == name }
		own := slices.Concat(slices.DeleteFunc(slices.Clone(machines), func(m *Machine) bool { return !named(m) }),
			slices.DeleteFunc(slices.Clone(machines), named))
		err = errors.New("there is no host to go through")
		for _, m := range own {
			conn, merr := m.DialContext(ctx, address)
			if merr == nil {
				return conn, nil
			}
			if err = merr; !errors.Is(err, host.ErrUnreachable) || ctx.Err() != nil {
				break
			}
		}
		return nil, err
	}
}

// DialContext connects to an address as the host sees it, through the connection
// that there is. Whether something listens there is heard only when the first
// byte is read: the error is then what ssh said. One that comes at once is an
// *Unreachable.
func (m *Machine) DialContext(ctx context.Context, address string) (net.Conn, error) {
	if m.link.spec.Local {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
	a, err := m.link.connect(ctx)
	if err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("tunnel through %s: %w", m.Name(), err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "tunnel"), os.NewFile(uintptr(fds[1]), "tunnel")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close() // conn has a duplicate
	if err != nil {
		return nil, fmt.Errorf("tunnel through %s: %w", m.Name(), err)
	}
	cmd := exec.Command(m.link.client.config.Program, clientArgs(m.link.spec, a.socket, "-W", bracketed(address))...)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	p, err := m.link.client.start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, errors.Join(&Unreachable{Host: m.Name(), Said: err.Error()}, conn.Close())
	}
	t := &tunnel{Conn: conn, process: p, to: address, through: m.Name()}
	t.unwatch = context.AfterFunc(m.link.client.ctx, func() { _ = t.Close() })
	return t, nil
}

// bracketed is an address as -W wants it.
func bracketed(address string) string {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return net.JoinHostPort(name, port)
}

// A tunnel is a connection through an ssh -W.
type tunnel struct {
	net.Conn
	process *process
	to      string
	through string // name of the host
	unwatch func() bool

	once   sync.Once
	closed error

	mu  sync.Mutex
	got bool // a byte came
}

// Read implements net.Conn. An end before the first byte is a failure to connect.
func (t *tunnel) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	t.got = t.got || n > 0
	got := t.got
	t.mu.Unlock()
	if err == nil || got || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return n, err
	}
	<-t.process.done // its end of the socket is closed
	said := t.process.stderr.String()
	switch {
	case strings.Contains(said, "forwarding request failed"):
		// ssh keeps the far end's own reason to itself.
		said += " (nothing answers there as the host sees it, or its sshd has AllowTcpForwarding no)"
	case said == "":
		said = "the connection was closed"
	}
	return n, fmt.Errorf("tunnel through %s to %s: %s", t.through, t.to, said)
}

// Close implements net.Conn.
func (t *tunnel) Close() error {
	t.once.Do(func() {
		t.unwatch()
		t.closed = t.Conn.Close()
		t.process.signal(syscall.SIGKILL)
	})
	return t.closed
}

// RemoteAddr implements net.Conn.
func (t *tunnel) RemoteAddr() net.Addr { return tunnelled(t.to) }

// tunnelled is the address at the far end.
type tunnelled string

func (tunnelled) Network() string  { return "tcp" }
func (a tunnelled) String() string { return string(a) }
