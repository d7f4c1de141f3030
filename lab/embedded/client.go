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
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Open finds the running lab in a directory. ErrGone says that none runs
// there.
func Open(ctx context.Context, dir string) (*Lab, error) {
	return OpenSocket(ctx, filepath.Join(dir, socketName))
}

// OpenSocket finds the running lab behind a control socket. ErrGone says that
// nobody listens there.
func OpenSocket(ctx context.Context, socket string) (*Lab, error) {
	l := &Lab{socket: socket}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, _, err := l.over(ctx, conn, request{Op: opInfo})
	if err != nil {
		return nil, err
	}
	if r.Info == nil {
		return nil, fmt.Errorf("lab at %s does not say what it is", socket)
	}
	l.info = *r.Info
	l.info.Alive = true
	l.info.PID = peerPID(conn)
	return l, nil
}

// peerPID is the process that listens, as this one counts.
func peerPID(conn *net.UnixConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// dial connects to the supervisor.
func (l *Lab) dial(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", l.socket)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTDIR) {
			return nil, fmt.Errorf("%w: %w", ErrGone, err)
		}
		return nil, fmt.Errorf("reach lab: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

// errNotHeard says that a request was sent, but no reply came.
var errNotHeard = errors.New("no reply from the lab")

// over makes one request over a connection; the caller owns the files.
func (l *Lab) over(ctx context.Context, conn *net.UnixConn, r request, fds ...int) (reply, []*os.File, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var out reply
	err := send(conn, r, fds...)
	var files []*os.File
	if err == nil {
		files, err = receive(conn, &out)
	}
	if err != nil {
		if ctx.Err() != nil {
			return out, nil, fmt.Errorf("%w to %s: %w", errNotHeard, r.Op, ctx.Err())
		}
		// It listened, and died before it answered.
		return out, nil, fmt.Errorf("%w to %s: %w: %w", errNotHeard, r.Op, ErrGone, err)
	}
	if err := out.Error.err(); err != nil {
		closeAll(files)
		return out, nil, err
	}
	return out, files, nil
}

// ask makes one request over a connection of its own.
func (l *Lab) ask(ctx context.Context, r request) (reply, error) {
	conn, err := l.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	out, files, err := l.over(ctx, conn, r)
	closeAll(files)
	return out, err
}

// Info describes the lab as it was when it was opened.
func (l *Lab) Info() Info { return l.info }

// Root is the directory that is a host's root.
func (l *Lab) Root(name string) string { return filepath.Join(l.info.Dir, hostsName, name) }

// Power switches a host off, which kills all that runs there and takes its
// cable, or on, which starts the units that are enabled. It returns when all
// processes are gone, or when the units are about to start.
func (l *Lab) Power(ctx context.Context, name string, on bool) error {
	_, err := l.ask(ctx, request{Op: opPower, At: name, On: on})
	return err
}

// Member sends a signal to the etcd process of a host.
func (l *Lab) Member(ctx context.Context, name string, sig syscall.Signal) error {
	_, err := l.ask(ctx, request{Op: opSignal, At: name, Signal: sig})
	return err
}

// Clock puts the clock of a host off, by what the host itself tells: of the
// time, and of when units began. Its processes go by this machine's clock.
func (l *Lab) Clock(ctx context.Context, name string, offset time.Duration) error {
	_, err := l.ask(ctx, request{Op: opClock, At: name, Offset: offset})
	return err
}

// Disk makes the disk under a host's data directory ail, the zero Fault makes it
// sound again. A lab that was made with sound disks gives
// errors.ErrUnsupported.
func (l *Lab) Disk(ctx context.Context, name string, f baddisk.Fault) error {
	_, err := l.ask(ctx, request{Op: opDisk, At: name, Disk: &f})
	return err
}

// DiskCounts tells what harm a host's disk did since the lab came up.
func (l *Lab) DiskCounts(ctx context.Context, name string) (baddisk.Counts, error) {
	r, err := l.ask(ctx, request{Op: opDisk, At: name})
	if err != nil || r.Counts == nil {
		return baddisk.Counts{}, err
	}
	return *r.Counts, nil
}

// Install puts another etcd version on a host, as its package manager would.
func (l *Lab) Install(ctx context.Context, name, version string) error {
	_, err := l.ask(ctx, request{Op: opInstall, At: name, Version: version})
	return err
}

// Link sets what happens to frames from one host to another, in this direction
// only; the zero Rule heals. While any link has a rule all hosts are served by
// the switch.
func (l *Lab) Link(ctx context.Context, from, to string, rule netswitch.Rule) error {
	_, err := l.ask(ctx, request{Op: opLink, At: from, To: to, Rule: &rule})
	return err
}

// HealLinks takes all rules of links away and says which there were.
func (l *Lab) HealLinks(ctx context.Context) ([]string, error) {
	r, err := l.ask(ctx, request{Op: opHeal})
	return r.Done, err
}

// Counters tells what the switch did on every link since the lab came up; a
// fault whose counters stay at zero was not tested.
func (l *Lab) Counters(ctx context.Context) (map[netswitch.Link]netswitch.Counter, error) {
	r, err := l.ask(ctx, request{Op: opCounters})
	return r.Counters, err
}

// Host is a host of the lab as procedures see it. A host that is switched off,
// or cut off from Admin either way, answers host.ErrUnreachable.
func (l *Lab) Host(name string) host.Host { return &remote{lab: l, name: name} }

type remote struct {
	lab  *Lab
	name string
}

func (h *remote) Name() string { return h.name }

func (h *remote) Look(ctx context.Context, q host.Question) (host.Facts, error) {
	r, err := h.lab.ask(ctx, request{Op: opLook, At: h.name, Question: &q})
	if errors.Is(err, ErrGone) || errors.Is(err, errNotHeard) {
		return host.Facts{}, fmt.Errorf("%w: %s: %w", host.ErrUnreachable, h.name, err)
	}
	if err != nil {
		return host.Facts{}, err
	}
	if r.Facts == nil {
		return host.Facts{}, fmt.Errorf("look at %s: empty answer", h.name)
	}
	return *r.Facts, nil
}

func (h *remote) Do(ctx context.Context, a host.Act) error {
	body, err := host.Marshal(a)
	if err != nil {
		return err
	}
	_, err = h.lab.ask(ctx, request{Op: opDo, At: h.name, Act: body})
	switch {
	case errors.Is(err, errNotHeard):
		return fmt.Errorf("%w: %s on %s: %w", host.ErrUnknown, a, h.name, err)
	case errors.Is(err, ErrGone):
		return fmt.Errorf("%w: %s: %w", host.ErrUnreachable, h.name, err)
	}
	return err
}

func (h *remote) Fetch(ctx context.Context, path string, w io.Writer) error {
	conn, err := h.lab.dial(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", host.ErrUnreachable, h.name, err)
	}
	defer conn.Close()
	_, files, err := h.lab.over(ctx, conn, request{Op: opFetch, At: h.name, Path: path})
	switch {
	case errors.Is(err, errNotHeard):
		return fmt.Errorf("%w: %s: %w", host.ErrUnreachable, h.name, err)
	case err != nil:
		return err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return fmt.Errorf("fetch %s from %s: the lab gave %d files", path, h.name, len(files))
	}
	if _, err := io.Copy(w, files[0]); err != nil {
		return fmt.Errorf("fetch %s from %s: %w", path, h.name, err)
	}
	return nil
}

// DialContext gives a dialler for connections from inside a host, such as an
// etcd client outside the lab needs. Addresses are "address:port".
func (l *Lab) DialContext(at string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, fmt.Errorf("dial from %s: %w", at, err)
		}
		conn, err := l.dial(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		_, files, err := l.over(ctx, conn, request{Op: opSocket, At: at, V6: to.Addr().Is6()})
		if err != nil {
			return nil, fmt.Errorf("dial %s from %s: %w", address, at, err)
		}
		if len(files) != 1 {
			closeAll(files)
			return nil, fmt.Errorf("dial %s from %s: the lab gave %d sockets", address, at, len(files))
		}
		return connect(ctx, files[0], to)
	}
}

// A Process runs inside a host of the lab.
type Process struct {
	conn *net.UnixConn
	ref  *os.File
	pid  int
	done chan struct{} // closed when status and err are set

	status int
	cpu    time.Duration
	err    error
}

// Exec starts a process inside a host, Admin and Client included. It has the
// files of this machine, not the host's root, and the streams that are given;
// nil is /dev/null. argv[0] is looked up in the PATH of env, and an empty dir
// is this process's own. The process has no controlling terminal, though its
// streams may be one: whoever is at the front passes Ctrl-C on.
//
// When this process dies, the lab kills the one that it started, and its
// process group. ctx bounds the start alone.
func (l *Lab) Exec(ctx context.Context, at string, argv, env []string, dir string, stdin, stdout, stderr *os.File) (*Process, error) {
	if len(argv) == 0 {
		return nil, errors.New("exec without a command")
	}
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return nil, fmt.Errorf("exec %s: %w", argv[0], err)
		}
	}
	path, err := lookPath(argv[0], env, dir)
	if err != nil {
		return nil, err
	}
	return l.exec(ctx, at, path, argv, env, dir, stdin, stdout, stderr)
}

// exec is Exec for a command that was found.
func (l *Lab) exec(ctx context.Context, at, path string, argv, env []string, dir string, stdin, stdout, stderr *os.File) (*Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("exec %s: %w", argv[0], err)
	}
	defer null.Close()
	fds := make([]int, 0, 3)
	for _, f := range []*os.File{stdin, stdout, stderr} {
		if f == nil {
			f = null
		}
		// As os/exec does: this makes the file blocking, which is what the
		// other program expects.
		fds = append(fds, int(f.Fd()))
	}
	conn, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	r, files, err := l.over(ctx, conn, request{Op: opExec, At: at, Path: path, Argv: argv, Env: env, Dir: dir}, fds...)
	if err == nil && len(files) != 1 {
		closeAll(files)
		err = fmt.Errorf("exec %s: no reference to the process", argv[0])
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p := &Process{conn: conn, ref: files[0], pid: r.PID, done: make(chan struct{})}
	if here, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(p.ref.Fd()))); err == nil {
		if pid := pidIn(here); pid > 0 {
			p.pid = pid
		}
	}
	go p.await()
	return p, nil
}

func (p *Process) await() {
	defer close(p.done)
	defer p.conn.Close()
	var r reply
	_, err := receive(p.conn, &r)
	switch {
	case err != nil:
		p.status, p.err = -1, fmt.Errorf("%w: exit status not heard: %w", ErrGone, err)
	case r.Exit == nil:
		p.status, p.err = -1, fmt.Errorf("exit status not told: %w", r.Error.err())
	default:
		p.status, p.cpu = *r.Exit, r.CPU
	}
}

// PID is the process's number as this process counts.
func (p *Process) PID() int { return p.pid }

// Done is closed when Wait would return.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and gives the exit status: 128 and the signal's
// number for a process that was killed by one. ErrGone with status -1 says
// that the lab ended first, and the process with it.
func (p *Process) Wait() (int, error) {
	<-p.done
	return p.status, p.err
}

// CPU is how long processors worked for a process that has ended; zero for one
// of which that is not known.
func (p *Process) CPU() time.Duration {
	<-p.done
	return p.cpu
}

// Signal sends a signal to the process alone, not to its group. A process that
// has ended gives os.ErrProcessDone.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v is none of this system", sig)
	}
	err := unix.PidfdSendSignal(int(p.ref.Fd()), s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("signal %v to process %d: %w", s, p.pid, err)
	}
	return nil
}

// lookPath finds a command as a shell with this environment would.
func lookPath(name string, env []string, dir string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.Contains(name, "/") {
		return filepath.Join(dir, name), nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			continue
		}
		full := filepath.Join(d, name)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("command %s is not in the PATH %s: %w", name, path, fs.ErrNotExist)
}
