package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Program files in a root that this binary plays itself.
const (
	markerEtcd    = "etcdrill embedded etcd "    // a version follows
	markerEtcdutl = "etcdrill embedded etcdutl " // a version follows
	markerIdle    = "etcdrill embedded idle"     // a version may follow
)

// IdleProgram is the content of a program file that does nothing but tell the
// service manager that it is ready and wait to be stopped: a stand-in for
// services that a lab host has for their unit's sake. It knows four options,
// for services that misbehave: --status=N ends at once with that exit status,
// --brief tells that it is ready and ends with 0, --unready never tells that it
// is ready, --stubborn takes no notice of SIGTERM. A version behind the last
// word is what --version tells. Each SIGHUP is told in the unit's journal as
// IdleReloaded.
const IdleProgram = markerIdle + "\n"

// IdleReloaded is what an IdleProgram says of a SIGHUP.
const IdleReloaded = "reloaded"

// A task is what this binary is to do when it is executed as MemberName. It
// travels as JSON in argv[1].
type task struct {
	Role   string
	Root   string   // to change the root to, for the first four roles
	Dir    string   // working directory in there
	Notify string   // socket to tell readiness to, a path in there; may be empty
	Args   []string // the program as the unit names it, and its arguments
	Env    []string // NAME=value, all that the program is to have
}

// Roles of a task.
const (
	roleEtcd    = "etcd"    // be a member
	roleEtcdutl = "etcdutl" // make a member's data from a snapshot
	roleIdle    = "idle"    // be IdleProgram
	roleExec    = "exec"    // execute a real program in the root
	roleListen  = "listen"  // listen on the port in Args
	roleSockets = "sockets" // print the listening sockets of the network namespace
	roleAddrs   = "addrs"   // print the addresses of the network namespace
	roleTables  = "tables"  // print the kernel's tables of TCP sockets in it
)

// command makes the command for a task of a program in the root.
func (m *Machine) command(role, dir string, args ...string) *exec.Cmd {
	return m.taskCommand(task{Role: role, Root: string(m.root), Dir: dir, Args: args, Env: baseEnv()})
}

func baseEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"}
}

func (m *Machine) taskCommand(t task) *exec.Cmd {
	spec, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings only
	}
	return &exec.Cmd{
		Path: m.config.Executable,
		Args: []string{MemberName, string(spec)},
		Dir:  "/",
		Env:  t.Env, // nothing of this process's own: ETCD_ variables would be obeyed
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL, // no member outlives its lab
			Setpgid:   true,            // Ctrl-C is for the operator
		},
	}
}

// spawnHere starts a command in this process's own network namespace. A user
// who is not root gets a user namespace, without which there is no chroot.
func spawnHere(cmd *exec.Cmd) error {
	if uid := os.Geteuid(); uid != 0 {
		a := cmd.SysProcAttr
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd.Start()
}

// A program is what is at a path that can be executed.
type program struct {
	role    string
	version string // of what this binary plays itself
}

func (m *Machine) program(name string) (program, error) {
	real, err := m.root.resolve(name, true)
	if err != nil {
		return program{}, err
	}
	info, err := os.Lstat(m.root.path(real))
	if err != nil {
		return program{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return program{}, &fs.PathError{Op: "exec", Path: name, Err: fs.ErrPermission}
	}
	text := head(m.root.path(real))
	first, _, _ := strings.Cut(string(text), "\n")
	if v, ok := strings.CutPrefix(first, markerEtcd); ok {
		return program{role: roleEtcd, version: strings.TrimSpace(v)}, nil
	}
	if v, ok := strings.CutPrefix(first, markerEtcdutl); ok {
		return program{role: roleEtcdutl, version: strings.TrimSpace(v)}, nil
	}
	if v, ok := strings.CutPrefix(first, markerIdle); ok {
		return program{role: roleIdle, version: strings.TrimSpace(v)}, nil
	}
	return program{role: roleExec}, nil
}

// noStatus says that a run could not even be tried.
const noStatus = -1

// prepare makes the command of a unit's main process, or says with which exit
// status systemd gives up before the program has begun.
func (m *Machine) prepare(u *unit) (*exec.Cmd, int, error) {
	d := u.def
	env := append(baseEnv(), m.config.Environment...)
	env = append(env, "INVOCATION_ID="+fmt.Sprintf("%s-%d", m.bootID, u.run))
	if d.user != "" {
		known, err := m.root.names("/etc/passwd")
		if err != nil || !known[d.user] {
			return nil, exitUser, saidf("Failed to determine credentials for user '%s': No such process", d.user)
		}
		env = append(env, "USER="+d.user, "LOGNAME="+d.user)
	}
	specify := m.specifiers(u.name)
	for _, e := range d.env {
		env = assign(env, specify(e))
	}
	for _, file := range d.envFiles {
		name, optional := strings.CutPrefix(specify(file), "-")
		text, err := m.root.read(name)
		if err != nil && !optional {
			return nil, noStatus, saidf("Failed to load environment files: No such file or directory")
		}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' || line[0] == ';' {
				continue
			}
			name, value, _ := strings.Cut(line, "=")
			env = assign(env, name+"="+strings.Trim(value, `"'`))
		}
	}
	dir := "/"
	if d.dir != "" {
		real, err := m.root.resolve(specify(d.dir), true)
		if err == nil {
			var info fs.FileInfo
			info, err = os.Lstat(m.root.path(real))
			if err == nil && !info.IsDir() {
				err = syscall.ENOTDIR
			}
		}
		switch {
		case err == nil:
			dir = real
		case !d.dirOptional:
			return nil, exitChdir, saidf("Changing to the requested working directory failed: No such file or directory")
		}
	}
	p, err := m.program(d.exec[0])
	if err == nil && p.role == roleEtcd && p.version != EmbeddedVersion() {
		err = fmt.Errorf("etcd %s is not the embedded one, which is %s", p.version, EmbeddedVersion())
	}
	if err != nil {
		return nil, exitExec, saidf("Failed to execute %s: %s", d.exec[0], m.inside(err))
	}
	words := make([]string, len(d.exec))
	for i, w := range d.exec {
		words[i] = specify(w)
	}
	t := task{Role: p.role, Root: string(m.root), Dir: dir, Args: expand(words, env), Env: env}
	if d.notify() {
		t.Notify = fmt.Sprintf("/run/notify-%s-%d", u.name, u.run)
		t.Env = append(t.Env, "NOTIFY_SOCKET="+t.Notify)
		u.notify = t.Notify
	}
	return m.taskCommand(t), 0, nil
}

// specifiers puts in what systemd's specifiers stand for.
func (m *Machine) specifiers(unit string) func(string) string {
	prefix := strings.TrimSuffix(unit, ".service")
	return strings.NewReplacer("%%", "%", "%H", m.name, "%l", m.name, "%p", prefix, "%N", prefix, "%n", unit).Replace
}

// readiness is the socket on which a service tells that it is ready.
type readiness struct {
	conn *net.UnixConn
	dir  *os.File
	file string // of this process
	self *net.UnixAddr
	done chan struct{} // closed when nothing more will be heard
}

// listenReady opens the socket in the root's /run. Its path may be longer than
// the 107 bytes that a socket address holds, hence the way through /proc.
func (m *Machine) listenReady(name string) (*readiness, error) {
	at := m.root.path(name)
	dir, err := os.Open(filepath.Dir(at))
	if err != nil {
		return nil, fmt.Errorf("open directory of notify socket: %w", err)
	}
	self := &net.UnixAddr{
		Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(at)),
		Net:  "unixgram",
	}
	conn, err := net.ListenUnixgram("unixgram", self)
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("listen on notify socket: %w", err)
	}
	return &readiness{conn: conn, dir: dir, file: at, self: self, done: make(chan struct{})}, nil
}

// over is the message that the service manager sends to itself when the
// process has ended: what came before it is then known to have been heard.
const over = "X_ETCDRILL_OVER"

func (r *readiness) finish() {
	if _, err := r.conn.WriteToUnix([]byte(over), r.self); err != nil {
		_ = r.conn.Close() // ends the reader as well
	}
	<-r.done
}

func (r *readiness) close() {
	_ = r.conn.Close()
	_ = r.dir.Close()
	_ = os.Remove(r.file)
}

// awaitReady listens to a run's notify socket until the run is over.
func (m *Machine) awaitReady(u *unit, run int, r *readiness) {
	defer m.children.Done()
	defer close(r.done)
	buf := make([]byte, 4096)
	for {
		n, err := r.conn.Read(buf)
		if err != nil || string(buf[:n]) == over {
			return
		}
		if !slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			continue
		}
		m.mu.Lock()
		if m.units[u.name] == u && u.run == run && u.sub == "start" {
			m.up(u)
		}
		m.mu.Unlock()
	}
}

// An occupant is a program outside of any unit.
type occupant struct {
	port    int
	command string
}

// Occupy makes another program listen on a port, and gives what ends it. The
// power going away ends it too.
func (m *Machine) Occupy(port int, command string) (release func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("occupy port %d of %s: %w", port, m.name, err)
	}
	defer func() { _ = r.Close() }()
	cmd := m.taskCommand(task{Role: roleListen, Args: []string{command, strconv.Itoa(port)}, Env: baseEnv()})
	cmd.Stdout, cmd.Stderr = w, w
	m.mu.Lock()
	if !m.on {
		m.mu.Unlock()
		_ = w.Close()
		return nil, m.unreachable()
	}
	err = m.config.Spawn(cmd)
	_ = w.Close()
	if err != nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("occupy port %d of %s: %w", port, m.name, err)
	}
	m.occupants[cmd] = occupant{port, command}
	m.children.Add(1)
	m.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer m.children.Done()
		defer close(gone)
		_ = cmd.Wait() // killed, or said why on the pipe
		m.mu.Lock()
		delete(m.occupants, cmd)
		m.mu.Unlock()
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if line != listening {
		_ = cmd.Process.Kill()
		<-gone
		return nil, fmt.Errorf("occupy port %d of %s: %s", port, m.name, strings.TrimSpace(line))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("occupy port %d of %s: %w", port, m.name, err)
	}
	return func() {
		_ = cmd.Process.Kill()
		<-gone
	}, nil
}

// listening is what an occupant says when it does.
const listening = "listening\n"

// listeners says which command listens on which port.
func (m *Machine) listeners(ctx context.Context) (map[int]string, error) {
	table, err := m.networkSays(ctx, listeningSockets, roleSockets)
	if err != nil {
		return nil, fmt.Errorf("read listening sockets: %w", err)
	}
	known, commands := m.sockets()
	holders := map[int]string{}
	for line := range strings.Lines(table) {
		var port int
		var inode string
		if _, err := fmt.Sscan(line, &port, &inode); err != nil {
			return nil, fmt.Errorf("read listening sockets: %q: %w", line, err)
		}
		command, ours := known[inode]
		switch {
		case ours:
			holders[port] = command
		case m.shared || holders[port] != "":
			// Some other machine's, or known from another address.
		default:
			holders[port] = commands(port)
		}
	}
	return holders, nil
}

// networkSays has the host's network namespace looked at: by this process, by a
// thread that is in there, or by a process that does what role says.
func (m *Machine) networkSays(ctx context.Context, look func() (string, error), role string) (text string, err error) {
	switch {
	case m.shared:
		return look()
	case m.config.Within != nil:
		err = m.config.Within(func() error {
			text, err = look()
			return err
		})
		return text, err
	}
	return m.ask(ctx, m.taskCommand(task{Role: role, Env: baseEnv()}))
}

// sockets gives the command behind each socket that a process of this machine
// holds, and a guess for a port whose socket could not be placed: /proc may be
// that of another PID namespace, and then tells nothing of processes.
func (m *Machine) sockets() (byInode map[string]string, guess func(port int) string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	byInode = map[string]string{}
	byPort := map[int]string{}
	var running []string
	self, err := os.Readlink("/proc/self")
	placed := err == nil && self == strconv.Itoa(os.Getpid())
	note := func(pid int, command string) {
		if !placed {
			return
		}
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return // it has ended meanwhile
		}
		for _, e := range entries {
			target, _ := os.Readlink(filepath.Join(dir, e.Name()))
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				byInode[strings.TrimSuffix(inode, "]")] = command
			}
		}
	}
	for _, u := range m.units {
		if u.cmd != nil {
			running = append(running, u.program)
			note(u.cmd.Process.Pid, u.program)
		}
	}
	for cmd, o := range m.occupants {
		byPort[o.port] = o.command
		note(cmd.Process.Pid, o.command)
	}
	return byInode, func(port int) string {
		if command := byPort[port]; command != "" {
			return command
		}
		if !placed && len(running) == 1 {
			return running[0]
		}
		return "unknown"
	}
}

// socketTables gives the kernel's tables of the TCP sockets in the network
// namespace of the calling thread.
func socketTables() (string, error) {
	var out strings.Builder
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(file, "6") {
			continue // no IPv6 here
		}
		if err != nil {
			return "", err
		}
		out.Write(text)
	}
	return out.String(), nil
}
