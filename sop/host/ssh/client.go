package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Config says how a Client works. The zero Config is for changes, with the
// ssh that PATH finds.
type Config struct {
	// ReadOnly is for those who only look: sudo is never called, what the user
	// may not see is told as a problem of its own, and Do refuses.
	ReadOnly bool
	// Root has those who only look call sudo all the same, for what only root may
	// see.
	Root bool
	// Program is the ssh program; empty is ssh.
	Program string
	// Temp is where a directory for control sockets is made; empty is os.TempDir,
	// or /tmp where that is too deep for the path of a socket.
	Temp string
	// Shell is the shell of hosts with Spec.Local; empty is /bin/sh.
	Shell string
}

// A Client has the connections of one run. Its methods may be called from
// several goroutines.
type Client struct {
	config Config
	dir    string // of the control sockets
	ctx    context.Context
	stop   context.CancelFunc
	starts chan func() // run on the one thread that starts processes

	mu      sync.Mutex
	links   map[string]*link
	running sync.WaitGroup // goroutines and processes
	closed  bool
}

// dirPrefix begins the name of a directory for control sockets; the process that
// made it follows.
const dirPrefix = "etcdrill-ssh-"

// New makes a Client. Nothing is connected to yet.
func New(config Config) (*Client, error) {
	if config.Program == "" {
		config.Program = "ssh"
	}
	if config.Shell == "" {
		config.Shell = "/bin/sh"
	}
	if config.Temp == "" {
		// The path of a socket has 107 bytes, of which ssh takes 17 for a name of
		// its own at first.
		if config.Temp = os.TempDir(); len(config.Temp) > 50 {
			config.Temp = "/tmp"
		}
	}
	sweep(config.Temp)
	dir, err := os.MkdirTemp(config.Temp, dirPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for control sockets: %w", err)
	}
	c := &Client{config: config, dir: dir, links: map[string]*link{}, starts: make(chan func())}
	c.ctx, c.stop = context.WithCancel(context.Background())
	go func() {
		// The kernel ends a child with the thread that started it, not with the
		// process. This thread lives as long as the Client.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for start := range c.starts {
			start()
		}
	}()
	return c, nil
}

// sweep removes the directories of runs that were killed.
func sweep(temp string) {
	old, _ := filepath.Glob(filepath.Join(temp, dirPrefix+"*")) // no wildcard of ours is bad
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		n, err := strconv.Atoi(pid)
		var st syscall.Stat_t
		if err != nil || n <= 1 || syscall.Lstat(dir, &st) != nil || int(st.Uid) != os.Getuid() || st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			continue
		}
		if errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = os.RemoveAll(dir) // else it stays until the next run
		}
	}
}

// Host gives a host to look at and to act on. Two calls with one name give the
// same connection.
func (c *Client) Host(s Spec) *Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.links[s.Name]
	if !ok {
		l = newLink(c, s, filepath.Join(c.dir, strconv.Itoa(len(c.links))))
		c.links[s.Name] = l
	}
	return &Machine{link: l}
}

// A Count is what a host cost.
type Count struct {
	Host        string
	Connections int // handshakes that ssh made; none with a local host
	Commands    int // scripts that were run
}

// Counts tells the counts of every host that was asked for, by name.
func (c *Client) Counts() []Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Count
	for name, l := range c.links {
		l.mu.Lock()
		all = append(all, Count{Host: name, Connections: l.connections, Commands: l.commands})
		l.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Count) int { return strings.Compare(a.Host, b.Host) })
	return all
}

// Close ends all sessions and connections and waits for their processes.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	links := c.links
	c.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	c.stop()
	c.running.Wait()
	close(c.starts)
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the control sockets: %w", err)
	}
	return nil
}

// A process is one that we started. It dies with us.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	done   chan struct{} // closed when it has ended
	err    error         // of Wait, once done
}

// start starts a process in a session of its own, without a terminal.
func (c *Client) start(cmd *exec.Cmd, sig syscall.Signal) (*process, error) {
	p := &process{cmd: cmd, stderr: &tail{}, done: make(chan struct{})}
	cmd.Stderr = p.stderr
	cmd.WaitDelay = lingering
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: sig}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, errors.New("the connections are closed")
	}
	c.running.Add(1)
	c.mu.Unlock()
	started := make(chan error)
	c.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		c.running.Done()
		return nil, err
	}
	go func() {
		defer c.running.Done()
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// alive reports whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal reaches what the process itself has started, too.
func (p *process) signal(sig syscall.Signal) {
	if p.alive() {
		_ = unix.Kill(-p.cmd.Process.Pid, sig) // it may have ended meanwhile
	}
}

// status is the exit status of a process that is done; -1 when it was killed.
func (p *process) status() int { return p.cmd.ProcessState.ExitCode() }

// A tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailLimit = 256 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - tailLimit; over > 0 {
		t.text = slices.Delete(t.text, 0, over)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.ReplaceAll(string(t.text), "\r", ""))
}
