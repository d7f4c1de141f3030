package ssh

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// handshake bounds the making of a connection, jump hosts included.
	handshake = 20 * time.Second
	// lingering is how long the children of a dead process may hold its streams.
	lingering = 200 * time.Millisecond
	// again is for how long one waits for a connection that has failed before: a
	// dead host costs its whole patience only once.
	again = time.Second
	// glance is how often it is looked whether a control socket is there yet.
	glance = 10 * time.Millisecond
	// sessions is how many may be open to one host: sshd allows ten, and hosts
	// that were hardened fewer.
	sessions = 2
)

// A link is what there is of one host: its connection and its sessions.
type link struct {
	client *Client
	spec   Spec
	socket string

	places chan struct{} // one for each session that is in use

	mu          sync.Mutex
	attempt     *attempt
	tries       int
	failed      error // why the last attempt failed; nil when it did not
	idle        []*session
	connections int
	commands    int
}

func newLink(c *Client, s Spec, socket string) *link {
	return &link{client: c, spec: s, socket: socket, places: make(chan struct{}, sessions)}
}

// An attempt is a connection that is being made, that is there, or that failed.
type attempt struct {
	done   chan struct{} // closed when it is known which
	err    error
	socket string
	master *process
}

func (a *attempt) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// usable reports whether the connection is there, or may be soon.
func (a *attempt) usable() bool {
	return a != nil && (!a.over() || a.err == nil && a.master.alive())
}

// tried reports whether a connection was made or has failed before.
func (l *link) tried() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attempt != nil && l.attempt.over()
}

// connect gives the connection, made by whoever asked first. Who asks does not
// cut it off when his patience ends: the next one may have use for it.
func (l *link) connect(ctx context.Context) (*attempt, error) {
	l.mu.Lock()
	a := l.attempt
	if !a.usable() {
		l.tries++
		// A name of its own: a socket that was left behind would be in the way.
		a = &attempt{done: make(chan struct{}), socket: fmt.Sprintf("%s.%d", l.socket, l.tries)}
		l.attempt = a
		go l.make(a)
	}
	failed := l.failed
	l.mu.Unlock()
	var enough <-chan time.Time
	if failed != nil {
		timer := time.NewTimer(again)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-a.done:
		return a, a.err
	case <-enough:
		return nil, failed
	case <-ctx.Done():
		return nil, &Unreachable{Host: l.spec.Name, Said: "ssh has not connected yet (" + ctx.Err().Error() + ")",
			Hint: "try it by hand: ssh " + quoteAll(l.spec.target()...)}
	}
}

func (l *link) make(a *attempt) {
	defer func() {
		l.mu.Lock()
		l.failed = a.err
		l.mu.Unlock()
		close(a.done)
	}()
	ctx, stop := context.WithTimeout(l.client.ctx, handshake)
	defer stop()
	cmd := exec.Command(l.client.config.Program, masterArgs(l.spec, a.socket)...)
	p, err := l.client.start(cmd, syscall.SIGTERM)
	if err != nil {
		a.err = &Unreachable{Host: l.spec.Name, Said: err.Error(), Hint: "the ssh program of this machine is needed"}
		return
	}
	a.master = p
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			a.err = unreachable(l.spec, p.stderr.String())
			return
		case <-ctx.Done():
			p.signal(syscall.SIGTERM)
			<-p.done
			a.err = unreachable(l.spec, strings.TrimSpace(p.stderr.String()+"\nssh had not connected after "+handshake.String()))
			return
		case <-tick.C:
			if _, err := os.Stat(a.socket); err == nil {
				l.mu.Lock()
				l.connections++
				l.mu.Unlock()
				return
			}
		}
	}
}

// masterArgs are the arguments of the ssh that keeps the connection. To ssh the
// first word on a matter counts, so ours come first, then what the inventory
// says, then what only fills in.
func masterArgs(s Spec, socket string) []string {
	args := []string{"-N", "-T"}
	for _, o := range []string{
		"BatchMode=yes", "StrictHostKeyChecking=yes",
		"ControlMaster=yes", "ControlPersist=no", "ControlPath=" + strings.ReplaceAll(socket, "%", "%%"),
		"ClearAllForwardings=yes", "ForwardX11=no", "RemoteCommand=none", "PermitLocalCommand=no", "LogLevel=ERROR",
	} {
		args = append(args, "-o", o)
	}
	target := s.target()
	end := len(target) - 2 // before the host
	args = append(args, target[:end]...)
	for _, o := range []string{"ConnectTimeout=10", "ServerAliveInterval=3", "ServerAliveCountMax=3"} {
		args = append(args, "-o", o)
	}
	return append(args, target[end:]...)
}

// clientArgs are the arguments of an ssh that uses the connection. It reads no
// configuration, and where the connection is gone it must not make another.
func clientArgs(s Spec, socket string, more ...string) []string {
	args := []string{"-F", "/dev/null", "-T", "-o", "ControlMaster=no", "-o", "ControlPath=" + strings.ReplaceAll(socket, "%", "%%"),
		"-o", "ProxyCommand=exit 255", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"}
	return append(append(args, more...), "--", s.Addr)
}

// acquire gives a session, an idle one or a new one, and waits where too many
// are in use. The error is an *Unreachable: nothing was sent.
func (l *link) acquire(ctx context.Context) (*session, error) {
	select {
	case l.places <- struct{}{}:
	case <-ctx.Done():
		return nil, &Unreachable{Host: l.spec.Name, Said: "earlier commands have not ended (" + ctx.Err().Error() + ")"}
	}
	s, err := l.session(ctx)
	if err != nil {
		<-l.places
	}
	return s, err
}

func (l *link) session(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		n := len(l.idle)
		if n == 0 {
			l.mu.Unlock()
			break
		}
		s := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		if s.process.alive() {
			return s, nil
		}
	}
	if l.spec.Local {
		return l.open(ctx, nil)
	}
	for try := 0; ; try++ {
		a, err := l.connect(ctx)
		if err != nil {
			return nil, err
		}
		s, err := l.open(ctx, a)
		// A connection that turns out to be dead is made anew: nothing was sent.
		if err == nil || try > 0 || ctx.Err() != nil || a.master.alive() {
			return s, err
		}
	}
}

// release gives a session back, to be used again if it can be.
func (l *link) release(s *session) {
	l.mu.Lock()
	keep := !s.spent && s.process.alive() && l.client.ctx.Err() == nil
	if keep {
		l.idle = append(l.idle, s)
	}
	l.mu.Unlock()
	if !keep {
		s.quit()
	}
	<-l.places
}

func (l *link) count() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands++
}

// close ends sessions, then the connection.
func (l *link) close() {
	l.mu.Lock()
	idle, a := l.idle, l.attempt
	l.idle = nil
	l.mu.Unlock()
	for _, s := range idle {
		s.quit()
	}
	if a == nil {
		return
	}
	if !a.over() {
		l.client.stop() // the attempt ends itself
		<-a.done
	}
	if a.master == nil || !a.master.alive() {
		return
	}
	a.master.signal(syscall.SIGTERM) // ssh takes its leave and removes the socket
}
