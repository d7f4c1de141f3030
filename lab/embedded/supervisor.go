package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
)

// What the supervisor is born with.
const (
	tetherFD = 3   // to its creator
	aliveFD  = 4   // the lock of the lab, until it moves to
	keptFD   = 100 // where no child's own files get in its way
)

// self is the binary that runs, also after it was replaced or removed.
const self = "/proc/self/exe"

// A charter is what the creator tells the supervisor first.
type charter struct {
	Info        Info
	Nodes       []nodeSpec
	Seed        int64
	Keep        bool
	Versions    map[string]string
	Version     string
	Mounts      []string
	Disks       bool
	Environment []string
}

type nodeSpec struct {
	Name  string
	Addrs []netip.Addr
	Guest bool // it has files and services, not only an address
}

// A birth is what the supervisor tells its creator when the lab is up, or
// cannot be.
type birth struct {
	Problem    string
	Forbidden  bool // it is a question of privileges
	Kernel     string
	Supervisor int // PID, as the supervisor's /proc counts
}

// supervisor runs a lab from inside its namespaces.
type supervisor struct {
	charter charter
	dir     string
	proc    *os.File // /proc of the machine outside
	route   *rtnetlink
	nodes   []*node
	byName  map[string]*node
	ctx     context.Context
	log     io.Writer
	wired   bool // namespaces and network are made

	// forks is held for reading while a child is made and entered in
	// children, so that the reaper takes no child that has an owner.
	forks    sync.RWMutex
	children map[int]bool // have an owner who waits for them
	owned    sync.Mutex   // children

	mu    sync.Mutex // power and links
	fault *netswitch.Switch
	rules map[netswitch.Link]netswitch.Rule

	ending sync.Once
}

// supervise is the supervisor's main function. It runs as the first process
// of the lab's PID namespace and gives its exit status.
func supervise() int {
	tether, err := unixConn(os.NewFile(tetherFD, "tether"))
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcdrill-supervisor is started by a lab only: %v\n", err)
		return 2
	}
	if os.Getpid() != 1 {
		// It ends its lab by killing whatever it can: never outside a lab.
		fmt.Fprintln(os.Stderr, "etcdrill-supervisor is the first process of a lab only")
		return 2
	}
	var c charter
	if _, err := receive(tether, &c); err != nil {
		fmt.Fprintf(os.Stderr, "hear from creator: %v\n", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &supervisor{
		charter:  c,
		dir:      c.Info.Dir,
		byName:   map[string]*node{},
		ctx:      ctx,
		log:      os.Stderr,
		children: map[int]bool{},
		rules:    map[netswitch.Link]netswitch.Rule{},
	}
	listener, err := s.up()
	if err != nil {
		_ = send(tether, birth{Problem: err.Error(), Forbidden: !s.wired && errors.Is(err, fs.ErrPermission)})
		s.say("%v", err)
		return 1
	}
	go s.reap()
	go s.heed()
	go s.serve(listener)
	if err := send(tether, birth{Kernel: kernel(), Supervisor: s.outerPID()}); err != nil {
		s.down(false)
	}
	// The creator holds its end as long as it lives. It says that it has heard
	// that the lab is up; only then may a lab outlive it.
	var word string
	if _, err := receive(tether, &word); err != nil || !c.Keep {
		if err == nil {
			_, _ = receive(tether, &word)
		}
		s.say("the creator is gone: the lab ends")
		s.down(false)
	}
	select {}
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	if f == nil {
		return nil, errors.New("no connection")
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return u, nil
}

func (s *supervisor) say(format string, args ...any) {
	fmt.Fprintf(s.log, "%s %s\n", time.Now().Format(time.RFC3339Nano), fmt.Sprintf(format, args...))
}

// up makes everything: hosts in parallel, then the wiring in one call to the
// kernel, then what is inside the hosts.
func (s *supervisor) up() (*net.UnixListener, error) {
	unix.Umask(0o022)
	if err := unix.Dup3(aliveFD, keptFD, 0); err != nil {
		return nil, fmt.Errorf("keep the lab's lock: %w", err)
	}
	_ = unix.Close(aliveFD)
	var err error
	if s.proc, err = os.Open("/proc"); err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	if err := s.mounts(); err != nil {
		return nil, err
	}
	if s.route, err = openRTNetlink(); err != nil {
		return nil, err
	}
	for i, spec := range s.charter.Nodes {
		n := &node{name: spec.Name, addrs: spec.Addrs, mac: hardware(spec.Addrs[0]), port: firstPort + i}
		s.nodes = append(s.nodes, n)
		s.byName[n.name] = n
	}
	// Files take longer than the network, and need it not.
	settled := make(chan error, 1)
	go func() { settled <- s.each(s.settle) }()
	if err := s.each(func(n *node) error { return n.open(s.ctx) }); err != nil {
		return nil, err
	}
	messages := []message{addBridge(bridgeName, bridge)}
	for _, n := range s.nodes {
		messages = append(messages, n.plug(bridge))
	}
	if err := s.route.do(messages...); err != nil {
		return nil, fmt.Errorf("wire the lab: %w", err)
	}
	// Where the machine filters bridged frames, the lab's bridge is spared.
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
	}
	if err := s.each(func(n *node) error { return n.furnish(s.nodes) }); err != nil {
		return nil, err
	}
	s.wired = true
	ports := make([]int, 0, len(s.nodes))
	for _, n := range s.nodes {
		ports = append(ports, n.port)
	}
	if err := s.route.awaitUp(s.ctx, ports...); err != nil {
		return nil, err
	}
	if err := <-settled; err != nil {
		return nil, err
	}
	socket := filepath.Join(s.dir, socketName)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err == nil {
		err = os.Chmod(socket, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return listener, nil
}

// mounts makes the mount namespace private, and gives it a /proc that counts
// processes as the lab does. Some containers forbid the latter; then the lab
// makes do with the outer one.
func (s *supervisor) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		s.say("no /proc of the lab's own: %v", err)
	}
	return nil
}

// each does something for all hosts at once and gives the failures.
func (s *supervisor) each(do func(*node) error) error {
	errs := make([]error, len(s.nodes))
	var all sync.WaitGroup
	for i, n := range s.nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// spawn starts a command inside a host. The caller waits for it.
func (s *supervisor) spawn(n *node, cmd *exec.Cmd) error {
	s.forks.RLock()
	defer s.forks.RUnlock()
	if err := n.start(cmd); err != nil {
		return err
	}
	s.owned.Lock()
	defer s.owned.Unlock()
	s.children[cmd.Process.Pid] = true
	return nil
}

// reap takes the exit status of orphans: as the first process of the
// namespace, the supervisor is the parent of all whose own parent died.
func (s *supervisor) reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	again := time.NewTicker(time.Second) // an orphan may hide behind a child that has an owner
	for {
		for s.reapOne() {
		}
		select {
		case <-died:
		case <-again.C:
		}
	}
}

func (s *supervisor) reapOne() bool {
	s.forks.Lock()
	defer s.forks.Unlock()
	pid, err := peek()
	if err != nil || pid == 0 {
		return false
	}
	s.owned.Lock()
	owned := s.children[pid]
	s.owned.Unlock()
	if owned {
		return false
	}
	_, err = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return err == nil
}

// heed ends the lab in good order when the system asks for it.
func (s *supervisor) heed() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	s.say("%v: the lab ends", <-asked)
	s.down(s.charter.Keep)
}

// down ends the lab: it kills all other processes, removes the directory
// unless it is to stay, and exits.
func (s *supervisor) down(keepFiles bool, replies ...func()) {
	s.ending.Do(func() {
		s.forks.Lock() // no new children
		_ = unix.Kill(-1, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
				break // nobody is left
			}
		}
		for _, n := range s.nodes {
			if n.disk != nil {
				if err := n.disk.Unmount(); err != nil {
					s.say("unmount the disk of %s: %v", n.name, err)
				}
			}
		}
		if !keepFiles {
			if err := removeAll(s.dir); err != nil {
				s.say("remove the lab's directory: %v", err)
			}
		}
		for _, reply := range replies {
			reply()
		}
		os.Exit(0)
	})
}

func (s *supervisor) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			s.say("accept: %v", err)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		go func() {
			defer conn.Close()
			var r request
			files, err := receive(conn, &r)
			if err != nil {
				return
			}
			defer closeAll(files)
			s.answer(conn, r, files)
		}()
	}
}

// answer carries out one request.
func (s *supervisor) answer(conn *net.UnixConn, r request, files []*os.File) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var out reply
	var err error
	switch r.Op {
	case opInfo:
		info := s.charter.Info
		info.Alive = true
		out.Info = &info
	case opLook:
		stop := hangup(conn, cancel)
		out.Facts, err = s.look(ctx, r)
		stop()
	case opDo:
		err = s.do(ctx, r)
	case opInstall:
		err = s.install(r)
	case opExec:
		s.exec(conn, r, files)
		return
	case opFetch:
		s.fetch(conn, r)
		return
	case opSocket:
		s.socket(conn, r)
		return
	case opPower:
		err = s.power(ctx, r.At, r.On)
	case opSignal:
		err = s.signal(r)
	case opLink:
		err = s.link(r)
	case opHeal:
		out.Done, err = s.heal()
	case opClock:
		err = s.setClock(r)
	case opDisk:
		out.Counts, err = s.setDisk(r)
	case opCounters:
		out.Counters = s.counters()
	case opDown:
		s.say("asked to end")
		s.down(r.Keep, func() { _ = send(conn, reply{}) })
		return
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	out.Error = toWire(err)
	if err := send(conn, out); err != nil && r.Op != opLook {
		s.say("answer to %s not heard: %v", r.Op, err)
	}
}

// hangup calls f when the other side goes away. The returned function ends
// the watch; the connection can be written to afterwards.
func hangup(conn *net.UnixConn, f func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := conn.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			f()
		}
	}()
	return func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = conn.SetReadDeadline(time.Time{})
	}
}

func (s *supervisor) node(name string) (*node, error) {
	n := s.byName[name]
	if n == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoHost, name)
	}
	return n, nil
}

func (s *supervisor) guest(name string) (*node, error) {
	n, err := s.node(name)
	if err != nil {
		return nil, err
	}
	if n.guest == nil {
		return nil, fmt.Errorf("%w: %s has no files or services", ErrNoHost, name)
	}
	return n, nil
}

// reachable says why the operator cannot talk to a host, if it cannot.
func (s *supervisor) reachable(n *node) (context.Context, error) {
	_, life, err := n.inside()
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: no route to host", host.ErrUnreachable, n.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range []netswitch.Link{{From: Admin, To: n.name}, {From: n.name, To: Admin}} {
		if r := s.rules[l]; r.Cut && (len(r.Ports) == 0 || slices.Contains(r.Ports, 22)) {
			return nil, fmt.Errorf("%w: connect to %s: connection timed out", host.ErrUnreachable, n.name)
		}
	}
	return life, nil
}

func (s *supervisor) look(ctx context.Context, r request) (*host.Facts, error) {
	n, err := s.guest(r.At)
	if err != nil {
		return nil, err
	}
	life, err := s.reachable(n)
	if err != nil {
		return nil, err
	}
	if r.Question == nil {
		return nil, errors.New("look without a question")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	facts, err := n.guest.Look(ctx, *r.Question)
	if life.Err() != nil {
		return nil, fmt.Errorf("%w: connection to %s lost", host.ErrUnreachable, n.name)
	}
	if err != nil {
		return nil, err
	}
	return &facts, nil
}

// do makes one change. It goes on when the caller goes away, as a command
// does that was sent over SSH.
func (s *supervisor) do(ctx context.Context, r request) error {
	n, err := s.guest(r.At)
	if err != nil {
		return err
	}
	act, err := host.Unmarshal(r.Act)
	if err != nil {
		return err
	}
	life, err := s.reachable(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(life, cancel)()
	result := make(chan error, 1)
	go func() {
		defer cancel()
		result <- n.guest.Do(ctx, act)
	}()
	select {
	case err = <-result:
		if life.Err() == nil {
			return err
		}
	case <-life.Done():
	}
	return fmt.Errorf("%w: connection to %s lost while it was asked to %s", host.ErrUnknown, n.name, act)
}

// fetch opens a file of a host and hands it over.
func (s *supervisor) fetch(conn *net.UnixConn, r request) {
	n, err := s.guest(r.At)
	if err == nil {
		_, err = s.reachable(n)
	}
	var f *os.File
	if err == nil {
		f, err = n.guest.Open(r.Path)
	}
	if err != nil {
		_ = send(conn, reply{Error: toWire(err)})
		return
	}
	defer f.Close()
	_ = send(conn, reply{}, int(f.Fd()))
}

func (s *supervisor) install(r request) error {
	n, err := s.guest(r.At)
	if err != nil {
		return err
	}
	return n.guest.Install(r.Version)
}

func (s *supervisor) signal(r request) error {
	n, err := s.guest(r.At)
	if err != nil {
		return err
	}
	return n.guest.Signal(memberUnit, r.Signal)
}

func (s *supervisor) socket(conn *net.UnixConn, r request) {
	fd := -1
	n, err := s.node(r.At)
	if err == nil {
		fd, err = n.socket(r.V6)
	}
	if err != nil {
		_ = send(conn, reply{Error: toWire(err)})
		return
	}
	defer unix.Close(fd)
	_ = send(conn, reply{}, fd)
}

// exec starts a process inside a host, tells its PID and hands over a
// reference to it, waits for it and tells its exit status. When the other side
// goes away first, the process and its group are killed.
func (s *supervisor) exec(conn *net.UnixConn, r request, files []*os.File) {
	fail := func(err error) { _ = send(conn, reply{Error: toWire(err)}) }
	n, err := s.node(r.At)
	if err != nil {
		fail(err)
		return
	}
	if len(files) != 3 || len(r.Argv) == 0 {
		fail(errors.New("exec needs a command and three streams"))
		return
	}
	cmd := &exec.Cmd{
		Path: r.Path, Args: r.Argv, Env: r.Env, Dir: r.Dir,
		Stdin: files[0], Stdout: files[1], Stderr: files[2],
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	if err := s.spawn(n, cmd); err != nil {
		fail(fmt.Errorf("start %s on %s: %w", r.Path, n.name, err))
		return
	}
	closeAll(files)
	pid := cmd.Process.Pid
	// Until it is waited for, the number cannot mean another process.
	ref, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		err = send(conn, reply{PID: s.outer(ref)}, ref)
		_ = unix.Close(ref)
	} else {
		fail(fmt.Errorf("refer to process %d: %w", pid, err))
	}
	kill := func() { _ = unix.Kill(-pid, unix.SIGKILL) }
	if err != nil {
		kill()
		_ = cmd.Wait()
		return
	}
	stop := hangup(conn, kill)
	err = cmd.Wait()
	stop()
	if cmd.ProcessState == nil {
		s.say("wait for %s on %s: %v", r.Path, n.name, err)
		return
	}
	status := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	_ = send(conn, reply{Exit: &status, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()})
}

// outer gives a process's PID as the machine outside the lab counts, 0 when
// that cannot be known.
func (s *supervisor) outer(pidfd int) int {
	data, err := s.readProc("self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0
	}
	return pidIn(data)
}

// pidIn finds the PID in /proc/PID/fdinfo of a reference to a process.
func pidIn(fdinfo []byte) int {
	for line := range strings.Lines(string(fdinfo)) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, _ := strconv.Atoi(strings.TrimSpace(value))
			return max(pid, 0)
		}
	}
	return 0
}

// outerPID is the supervisor's own PID outside.
func (s *supervisor) outerPID() int {
	target := make([]byte, 32)
	n, err := unix.Readlinkat(int(s.proc.Fd()), "self", target)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(target[:n]))
	return pid
}

// readProc reads a file of the outer /proc.
func (s *supervisor) readProc(name string) ([]byte, error) {
	fd, err := unix.Openat(int(s.proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(f)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// encode is for what cannot fail.
func encode(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return append(b, '\n')
}
