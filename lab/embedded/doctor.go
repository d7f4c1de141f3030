package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/shelf"
)

// A Check is one thing that a lab needs of this machine, tried.
type Check struct {
	Name   string
	OK     bool
	Needed bool   // without it there is no lab; else it is slower or poorer
	Detail string // what was seen, or why it failed
	Fix    string // what to do, empty when all is well
}

// Doctor tries everything that a lab is made of, one after the other, and says
// for each whether it works here and what to do when it does not. It reads no
// settings: some systems let namespaces be made and take away what they are
// good for.
func Doctor(ctx context.Context, root string) []Check {
	var all []Check
	add := func(name string, needed bool, fix string, detail string, err error) bool {
		c := Check{Name: name, OK: err == nil, Needed: needed, Detail: detail}
		if err != nil {
			c.Detail, c.Fix = err.Error(), fix
		}
		all = append(all, c)
		return err == nil
	}
	user := fmt.Sprintf("uid %d", os.Getuid())
	if privileged() {
		user += ", privileged: no user namespace needed"
	} else {
		user += ", plain user: a user namespace is needed"
	}
	add("kernel", true, "", "Linux "+kernel()+", "+user, nil)

	ok := add("directory of labs", true,
		"make the directory writable, or choose a shorter one", root, tryRoot(root))
	const allow = "sysctl -w kernel.unprivileged_userns_clone=1 (older Debian), " +
		"sysctl -w user.max_user_namespaces=10000 (RHEL), " +
		"in a container --security-opt seccomp=unconfined; or run as root"
	if !privileged() {
		ok = add("user namespace", true, allow, "made, one user mapped",
			tryNamespaces(unix.CLONE_NEWUSER)) && ok
	}
	for _, n := range []struct {
		name string
		flag uintptr
	}{{"network namespace", unix.CLONE_NEWNET}, {"mount namespace", unix.CLONE_NEWNS}, {"PID namespace", unix.CLONE_NEWPID}} {
		flags := n.flag
		if !privileged() {
			flags |= unix.CLONE_NEWUSER
		}
		fix := allow
		if n.flag == unix.CLONE_NEWNET {
			fix += "; sysctl -w user.max_net_namespaces=10000"
		}
		ok = add(n.name, true, fix, "made", tryNamespaces(flags)) && ok
	}
	if !ok {
		return all
	}

	// From here on inside, where the privileges are.
	found, err := examined(ctx)
	all = append(all, found...)
	if err != nil {
		add("inside the namespaces", true, "report this with what is said above", "", err)
		return all
	}
	for _, c := range found {
		if c.Needed && !c.OK {
			return all
		}
	}
	began := time.Now()
	detail, err := tryLab(ctx, root)
	add("a whole lab", true, "report this with what is said above",
		fmt.Sprintf("%s, all in %v", detail, time.Since(began).Round(time.Millisecond)), err)
	return all
}

func tryRoot(root string) error {
	// The longest that a lab would ask for.
	if socket := filepath.Join(root, "lab99", socketName); len(socket) > maxSocketPath {
		return fmt.Errorf("%w: %s has %d bytes, %d are possible", ErrSocketPath, socket, len(socket), maxSocketPath)
	}
	lock, err := shelf.Lock(root)
	if err != nil {
		return err
	}
	return lock.Close()
}

// tryNamespaces starts this binary in new namespaces; it ends at once.
func tryNamespaces(flags uintptr) error {
	cmd := &exec.Cmd{Path: self, Args: []string{doctorRole, "nothing"}, Dir: "/", Env: []string{}}
	cmd.SysProcAttr = namespaces()
	cmd.SysProcAttr.Cloneflags = flags
	if flags&unix.CLONE_NEWUSER == 0 {
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = nil, nil
	}
	return cmd.Run()
}

// examined runs examine in the namespaces of a lab.
func examined(ctx context.Context) ([]Check, error) {
	log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd, tether, err := bear(self, []string{doctorRole, "examine"}, log)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	defer func() { _ = cmd.Wait() }()
	defer tether.Close()
	var all []Check
	for {
		var c Check
		_, err := receive(tether, &c)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, err
		}
		all = append(all, c)
	}
}

// examine is the doctor's main function inside the namespaces.
func examine(args []string) int {
	if len(args) != 1 {
		return 2
	}
	switch args[0] {
	case "nothing":
		return 0
	case "chroot":
		if err := unix.Chroot("/proc"); err != nil {
			return 1
		}
		return 0
	case "examine":
	default:
		return 2
	}
	tether, err := unixConn(os.NewFile(tetherFD, "tether"))
	if err != nil {
		return 2
	}
	tell := func(name string, needed bool, fix, detail string, err error) bool {
		c := Check{Name: name, OK: err == nil, Needed: needed, Detail: detail}
		if err != nil {
			c.Detail, c.Fix = err.Error(), fix
		}
		return send(tether, c) == nil && err == nil
	}
	const stripped = "something took the privileges away inside the user namespace: " +
		"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and newer), or an AppArmor profile with \"userns,\" for this binary; or run as root"

	if !tell("privileges inside", true, stripped, "mounts are private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) {
		return 1
	}
	outer, err := os.Open("/proc")
	if err != nil {
		return 1
	}
	defer outer.Close()
	tell("a /proc of its own", false, "nothing needs doing: some containers forbid it, and labs do without",
		"mounted", unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))

	route, err := openRTNetlink()
	if err == nil {
		err = route.do(addBridge(bridgeName, bridge))
	}
	if !tell("bridge", true, "modprobe bridge; else "+stripped, "made", err) {
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, b, err := pair(ctx)
	if !tell("host namespaces", true, "sysctl -w user.max_net_namespaces=10000", "two made, each with a thread", err) {
		return 1
	}
	err = route.do(a.plug(bridge), b.plug(bridge))
	for _, n := range []*node{a, b} {
		if err == nil {
			err = n.furnish([]*node{a, b})
		}
	}
	if err == nil {
		err = route.awaitUp(ctx, a.port, b.port)
	}
	if !tell("veth pairs", true, "modprobe veth", "two made, with the addresses "+a.name+" and "+b.name, err) {
		return 1
	}
	took, err := exchange(ctx, a, b)
	if !tell("packets over the bridge", true,
		"a firewall filters bridged frames: sysctl -w net.bridge.bridge-nf-call-iptables=0",
		fmt.Sprintf("TCP there and back in %v", took), err) {
		return 1
	}
	took, err = exchangeOverSwitch(ctx, route, a, b)
	tell("packets over the switch", false, "faults of links need packet sockets (CAP_NET_RAW in the lab); faults of processes work without",
		fmt.Sprintf("TCP there and back in %v", took), err)

	cmd := &exec.Cmd{Path: self, Args: []string{doctorRole, "chroot"}, Env: []string{}}
	if !tell("chroot", true, stripped, "a child changed its root", a.run(cmd)) {
		return 1
	}
	tell("another owner for files", false, "nothing needs doing: owners are written down beside the files",
		"possible", tryChown())
	return 0
}

// run starts a command inside the host and waits for it.
func (n *node) run(cmd *exec.Cmd) error {
	if err := n.start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// pair makes two hosts with addresses that are for documentation only.
func pair(ctx context.Context) (*node, *node, error) {
	var nodes [2]*node
	for i := range nodes {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		nodes[i] = &node{name: addr.String(), addrs: []netip.Addr{addr}, mac: hardware(addr), port: firstPort + i}
		if err := nodes[i].open(ctx); err != nil {
			return nil, nil, err
		}
	}
	return nodes[0], nodes[1], nil
}

// exchange sends a byte from one host to the other and back, over TCP.
func exchange(ctx context.Context, from, to *node) (time.Duration, error) {
	began := time.Now()
	fd, err := to.socket(false)
	if err != nil {
		return 0, err
	}
	addr := netip.AddrPortFrom(to.addrs[0], 7)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	defer unix.Close(fd)
	fd2, err := from.socket(false)
	if err != nil {
		return 0, err
	}
	here, err := connect(ctx, os.NewFile(uintptr(fd2), "socket"), addr)
	if err != nil {
		return 0, err
	}
	defer here.Close()
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	for errors.Is(err, unix.EAGAIN) { // the last word of the handshake is on its way
		if err := pause(ctx); err != nil {
			return 0, fmt.Errorf("accept: %w", err)
		}
		accepted, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	}
	if err != nil {
		return 0, fmt.Errorf("accept: %w", err)
	}
	there := os.NewFile(uintptr(accepted), "socket")
	defer there.Close()
	limit, _ := ctx.Deadline()
	_ = here.SetDeadline(limit)
	_ = there.SetDeadline(limit)
	b := []byte("x")
	for _, way := range []struct {
		w io.Writer
		r io.Reader
	}{{here, there}, {there, here}} {
		if _, err := way.w.Write(b); err != nil {
			return 0, fmt.Errorf("send: %w", err)
		}
		if _, err := io.ReadFull(way.r, b); err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
	}
	return time.Since(began).Round(10 * time.Microsecond), nil
}

// exchangeOverSwitch is exchange with both hosts on a switch.
func exchangeOverSwitch(ctx context.Context, route *rtnetlink, a, b *node) (took time.Duration, err error) {
	sw := netswitch.New(1)
	defer func() { err = errors.Join(err, sw.Close()) }()
	if err := route.do(setMaster(a.port, 0), setMaster(b.port, 0)); err != nil {
		return 0, err
	}
	for _, n := range []*node{a, b} {
		p, err := n.switchPort()
		if err != nil {
			return 0, err
		}
		if err := sw.AddPort(p); err != nil {
			return 0, err
		}
	}
	return exchange(ctx, b, a)
}

func tryChown() error {
	f, err := os.CreateTemp("", "owner")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = f.Chown(1, 1)
	if errors.Is(err, syscall.EINVAL) {
		return errors.New("only one user is mapped")
	}
	return err
}

// tryLab makes a lab, runs a process in it, dials in it and ends it.
func tryLab(ctx context.Context, root string) (detail string, err error) {
	began := time.Now()
	lab, err := Up(ctx, Spec{Root: root, Hosts: []string{"192.0.2.1", "192.0.2.2"}})
	if err != nil {
		return "", err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	defer func() { err = errors.Join(err, lab.Down(end)) }()
	detail = fmt.Sprintf("2 hosts up in %v", time.Since(began).Round(time.Millisecond))

	p, err := lab.exec(ctx, Admin, self, []string{doctorRole, "nothing"}, nil, "/", nil, nil, nil)
	if err != nil {
		return "", err
	}
	status, err := p.Wait()
	if err != nil || status != 0 {
		return "", fmt.Errorf("process in the lab ended with status %d: %w", status, err)
	}
	conn, err := lab.DialContext(Client)(ctx, "192.0.2.1:7")
	if err == nil {
		return "", errors.Join(errors.New("somebody listens where nobody should"), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return "", fmt.Errorf("host in the lab does not answer: %w", err)
	}
	return detail, nil
}

// Text gives checks as lines for people.
func Text(checks []Check) string {
	var b strings.Builder
	for _, c := range checks {
		word := "ok  "
		switch {
		case !c.OK && c.Needed:
			word = "FAIL"
		case !c.OK:
			word = "no  "
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", word, c.Name, c.Detail)
		if c.Fix != "" {
			fmt.Fprintf(&b, "      fix: %s\n", c.Fix)
		}
	}
	return b.String()
}
