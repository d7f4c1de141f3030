package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/config"
)

// The hosts that every lab has beside those of its inventory. They have an
// address and can run processes, but no files or services of their own.
const (
	Admin  = "admin"  // where the operator works
	Client = "client" // where load comes from
)

// Roles of this binary, by argv[0].
const (
	supervisorRole = "etcdrill-supervisor"
	doctorRole     = "etcdrill-doctor"
)

var (
	// ErrNoUserNamespaces says that the kernel does not let this user make the
	// namespaces that a lab consists of. The text has the remedy.
	ErrNoUserNamespaces = errors.New("this user may not make the namespaces of a lab: " +
		"run as root, or allow it with " +
		"sysctl -w kernel.unprivileged_userns_clone=1 (older Debian), " +
		"sysctl -w user.max_user_namespaces=10000 user.max_net_namespaces=10000 (RHEL), " +
		"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and newer); " +
		"in a container, run it with --security-opt seccomp=unconfined; lab:doctor tells which")
	// ErrGone says that the lab's supervisor does not answer: the lab is over.
	ErrGone = errors.New("lab is gone")
)

// Main plays the role that args[0] names when a lab re-executed this binary,
// and then does not return. In any other process it returns at once. It is
// called with os.Args before anything else.
func Main(args []string) {
	if len(args) == 0 {
		return
	}
	switch args[0] {
	case supervisorRole:
		// Host namespaces are made on other threads; this one shows the lab's.
		runtime.LockOSThread()
		os.Exit(supervise())
	case doctorRole:
		runtime.LockOSThread()
		os.Exit(examine(args[1:]))
	case machine.MemberName:
		machine.MemberMain(args)
		os.Exit(0)
	}
}

// A Spec says what lab to make.
type Spec struct {
	Root      string    // directory that holds labs, absolute; made when absent
	Name      string    // of the lab, a file name; empty takes the first free of lab1, lab2, ...
	Hosts     []string  // IP addresses, as in the inventory
	Inventory []byte    // copied into the lab, with a first line that names the lab
	Keep      bool      // the lab outlives its creator; else it ends with it
	Seed      int64     // of the faults of links
	Started   time.Time // what Info tells; zero is now

	// Executable is a binary whose main function calls Main; empty is this
	// one.
	Executable string

	// Versions are real, statically linked etcd binaries by version, beside
	// the one that is linked into Executable; Version is the one that is
	// installed on the hosts, empty is the linked one.
	Versions map[string]string
	Version  string
	// Environment is what the services of every host have in their environment
	// besides, NAME=value each.
	Environment []string
	// Mounts are directories of every host that count as mount points, so that
	// they cannot be renamed.
	Mounts []string
	// Disks puts every host's data directory on a disk that can be hurt, and
	// that loses what was not synced when the power goes. It takes root;
	// baddisk.Possible tells.
	Disks bool
}

// Info describes a lab.
type Info struct {
	Name      string
	Dir       string
	Socket    string // control socket
	Inventory string // path of the lab's inventory
	Hosts     []string
	Addresses map[string][]netip.Addr // of all hosts, Admin and Client included
	Started   time.Time
	UID       int    // user outside the lab
	UserSpace bool   // the lab has a user namespace of its own
	Kernel    string // release

	PID   int  `json:"-"` // of the supervisor, as the reader counts; 0 when it does not answer
	Alive bool `json:"-"` // some process of the lab lives
}

// A Lab is a running lab.
type Lab struct {
	socket string
	info   Info
}

// Up makes a lab and returns when its hosts can be reached. When ctx ends
// first, or anything fails, nothing is left. Errors that a caller acts on:
// ErrNoUserNamespaces, ErrExists, ErrSocketPath.
func Up(ctx context.Context, s Spec) (*Lab, error) {
	if !filepath.IsAbs(s.Root) {
		return nil, fmt.Errorf("directory of labs %q is no absolute path", s.Root)
	}
	if s.Name != filepath.Base(filepath.Clean("/"+s.Name)) && s.Name != "" || strings.HasPrefix(s.Name, ".") {
		return nil, fmt.Errorf("name of lab %q is no plain file name", s.Name)
	}
	nodes, err := plan(s.Hosts, s.Inventory)
	if err != nil {
		return nil, err
	}
	dir, alive, err := claim(ctx, s.Root, s.Name)
	if err != nil {
		return nil, err
	}
	lab, err := raise(ctx, s, nodes, dir, alive)
	_ = alive.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring up lab %s: %w", filepath.Base(dir), err), discard(dir))
	}
	return lab, nil
}

// discard removes what a lab left that did not come up.
func discard(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	alive, err := os.OpenFile(filepath.Join(dir, aliveName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return removeAll(dir)
	}
	if err != nil {
		return err
	}
	defer alive.Close()
	if err := waitDead(ctx, alive); err != nil {
		return fmt.Errorf("wait for its processes to end: %w", err)
	}
	return removeAll(dir)
}

func raise(ctx context.Context, s Spec, nodes []nodeSpec, dir string, alive *os.File) (*Lab, error) {
	c := charter{
		Info: Info{
			Name:      filepath.Base(dir),
			Dir:       dir,
			Socket:    filepath.Join(dir, socketName),
			Inventory: filepath.Join(dir, inventoryName),
			Hosts:     slices.Clone(s.Hosts),
			Addresses: map[string][]netip.Addr{},
			Started:   s.Started,
			UID:       os.Getuid(),
			UserSpace: !privileged(),
			Kernel:    kernel(),
		},
		Nodes: nodes, Seed: s.Seed, Keep: s.Keep,
		Versions: s.Versions, Version: s.Version, Mounts: s.Mounts, Disks: s.Disks, Environment: s.Environment,
	}
	if s.Disks {
		c.Mounts = append(slices.Clone(s.Mounts), config.DefaultDataDir)
	}
	if c.Info.Started.IsZero() {
		c.Info.Started = time.Now()
	}
	for _, n := range nodes {
		c.Info.Addresses[n.Name] = n.Addrs
	}
	if err := os.WriteFile(filepath.Join(dir, infoName), encode(c.Info), 0o600); err != nil {
		return nil, fmt.Errorf("write lab down: %w", err)
	}
	inventory := append([]byte(inventoryMark+c.Info.Socket+"\n"), s.Inventory...)
	if err := os.WriteFile(c.Info.Inventory, inventory, 0o600); err != nil {
		return nil, fmt.Errorf("write inventory: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, hostsName), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of hosts: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, logName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer log.Close()

	executable := s.Executable
	if executable == "" {
		executable = self
	}
	cmd, tether, err := bear(executable, []string{supervisorRole, dir}, log, alive)
	if err != nil {
		return nil, err
	}
	_ = alive.Close()
	// The supervisor is waited for as long as this process lives, and it lives
	// as long as the tether does.
	go func() {
		_ = cmd.Wait()
		_ = tether.Close()
	}()
	b, err := deliver(ctx, tether, c)
	if err != nil {
		_ = cmd.Process.Kill()
		if b.Forbidden || c.Info.UserSpace && errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w (%w)", ErrNoUserNamespaces, err)
		}
		return nil, withLog(err, dir)
	}
	c.Info.PID = cmd.Process.Pid
	c.Info.Alive = true
	return &Lab{socket: c.Info.Socket, info: c.Info}, nil
}

// deliver gives the supervisor its charter, hears how it came up, and tells
// it that this was heard.
func deliver(ctx context.Context, tether *net.UnixConn, c charter) (birth, error) {
	stop := context.AfterFunc(ctx, func() { _ = tether.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b birth
	err := send(tether, c)
	if err == nil {
		_, err = receive(tether, &b)
	}
	switch {
	case ctx.Err() != nil:
		return b, ctx.Err()
	case err != nil:
		return b, fmt.Errorf("supervisor did not come up: %w", err)
	case b.Problem != "":
		return b, errors.New(b.Problem)
	}
	if err := send(tether, "heard"); err != nil {
		return b, fmt.Errorf("supervisor did not stay: %w", err)
	}
	return b, nil
}

// withLog adds the last of what the supervisor said.
func withLog(err error, dir string) error {
	const most = 2 << 10
	f, openErr := os.Open(filepath.Join(dir, logName))
	if openErr != nil {
		return err
	}
	defer f.Close()
	if end, seekErr := f.Seek(0, io.SeekEnd); seekErr == nil {
		_, _ = f.Seek(max(0, end-most), io.SeekStart)
	}
	said, _ := io.ReadAll(f)
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w; the supervisor said: %s", err, strings.TrimSpace(string(said)))
}

// bear starts a process of this binary in namespaces of its own, on a tether.
func bear(executable string, argv []string, log *os.File, extra ...*os.File) (*exec.Cmd, *net.UnixConn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the supervisor's tether: %w", err)
	}
	tether, err := unixConn(os.NewFile(uintptr(pair[0]), "tether"))
	theirs := os.NewFile(uintptr(pair[1]), "tether")
	defer theirs.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("make the supervisor's tether: %w", err)
	}
	cmd := &exec.Cmd{
		Path: executable, Args: argv, Dir: "/", Env: []string{},
		Stdout: log, Stderr: log,
		ExtraFiles:  append([]*os.File{theirs}, extra...),
		SysProcAttr: namespaces(),
	}
	if err := cmd.Start(); err != nil {
		_ = tether.Close()
		if forbidden(err) {
			return nil, nil, fmt.Errorf("%w (%w)", ErrNoUserNamespaces, err)
		}
		return nil, nil, fmt.Errorf("start supervisor: %w", err)
	}
	return cmd, tether, nil
}

// namespaces are those of a lab. Root has no user namespace, as it needs none
// and more is possible without.
func namespaces() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
	}
	if !privileged() {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// forbidden reports whether the kernel refused to make namespaces: not
// permitted, not built in, or none left for this user.
func forbidden(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.ENOSYS)
}

// privileged reports whether this process can make namespaces without a user
// namespace: the root of some containers cannot.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	need := uint32(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_KILL)
	return os.Geteuid() == 0 && data[0].Effective&need == need
}

// inventoryMark begins the first line of a lab's inventory; the control socket
// follows.
const inventoryMark = "# etcdrill lab: "

// SocketOf finds the control socket that a lab's inventory names. It reports
// false for any other inventory.
func SocketOf(inventory []byte) (socket string, ok bool) {
	line, _, _ := strings.Cut(string(inventory), "\n")
	socket, ok = strings.CutPrefix(line, inventoryMark)
	return strings.TrimSpace(socket), ok && strings.TrimSpace(socket) != ""
}

// plan gives every host its place, and picks addresses for Admin and Client:
// the highest free ones beside the first host, of each family in use. An
// address that stands anywhere in the inventory is not free.
func plan(hosts []string, inventory []byte) ([]nodeSpec, error) {
	if len(hosts) == 0 {
		return nil, errors.New("lab without hosts")
	}
	taken := map[netip.Addr]bool{}
	var nodes []nodeSpec
	var firsts []netip.Addr // of each family
	for _, h := range hosts {
		a, err := netip.ParseAddr(h)
		if err != nil {
			return nil, fmt.Errorf("host %q is no IP address: %w", h, err)
		}
		if taken[a] {
			return nil, fmt.Errorf("host %s stands there twice", h)
		}
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
			return nil, fmt.Errorf("host %s is no address that a host can have", h)
		}
		taken[a] = true
		if !slices.ContainsFunc(firsts, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			firsts = append(firsts, a)
		}
		nodes = append(nodes, nodeSpec{Name: h, Addrs: []netip.Addr{a}, Guest: true})
	}
	for _, name := range []string{Admin, Client} {
		n := nodeSpec{Name: name}
		for _, first := range firsts {
			a, ok := highestFree(first, func(a netip.Addr) bool {
				return taken[a] || strings.Contains(string(inventory), a.String())
			})
			if !ok {
				return nil, fmt.Errorf("no free address for %s beside %s", name, first)
			}
			taken[a] = true
			n.Addrs = append(n.Addrs, a)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// highestFree goes down from the end of the address's /24, or of the /120 of
// IPv6, and leaves out the first and last, which may be network and broadcast.
func highestFree(near netip.Addr, taken func(netip.Addr) bool) (netip.Addr, bool) {
	b := near.AsSlice()
	for last := 254; last > 0; last-- {
		b[len(b)-1] = byte(last)
		if a, ok := netip.AddrFromSlice(b); ok && !taken(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}
