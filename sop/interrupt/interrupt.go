package interrupt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Context gives a context that ends when someone wants us to stop, and says why it
// does. Orphaned is closed when whoever started us is gone. The function that is
// returned ends it without a word.
func Context(parent context.Context, say io.Writer, orphaned <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, Signals()...)
	// A terminal that is gone makes writing fail; it must not kill us.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		select {
		case s := <-signals:
			fmt.Fprintf(say, "%v: stopping before the next change\n", s)
		case <-orphaned:
			fmt.Fprintln(say, "whoever started this is gone: stopping before the next change")
		case <-ctx.Done():
			// Mage hears of a signal too, and may have ended its context before
			// this select saw the signal itself.
			if why := context.Cause(ctx); !errors.Is(why, errOver) {
				fmt.Fprintf(say, "%s: stopping before the next change\n", whyEnded(why))
			}
		}
		cancel(context.Canceled)
	}()
	return ctx, func() { signal.Stop(signals); cancel(errOver) }
}

// errOver ends the context of what has come to its end by itself.
var errOver = errors.New("it is over")

// whyEnded says for what mage ends the context it gives: a signal, or its -t.
func whyEnded(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "time is up"
	}
	return syscall.SIGINT.String()
}

// Signals are those that stop a run. One that was ignored when we came, as by nohup,
// stays ignored.
func Signals() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}

// Orphaned gives a channel that is closed when the process that started us is gone,
// or mage's own parent where mage did. It never is where hanging up is ignored: we are
// meant to go on alone then. A parent death signal would not do: it comes when a
// thread of the parent ends.
func Orphaned() <-chan struct{} {
	gone := make(chan struct{})
	if signal.Ignored(syscall.SIGHUP) {
		return gone
	}
	var fds []unix.PollFd
	watch := func(pid int) bool {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return false
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		return true
	}
	parent := os.Getppid()
	if parent <= 1 {
		return gone // in a container this may be how we were started
	}
	if !watch(parent) || os.Getppid() != parent {
		close(gone)
		return gone
	}
	if Program(parent) == "mage" {
		if above := parentOf(parent); above > 1 && Program(above) == "go" {
			watch(above)
		}
	}
	go func() {
		for {
			n, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n > 0 {
				close(gone)
			}
			return
		}
	}()
	return gone
}

// Program is the name of what a process executes; empty when it may not be known.
func Program(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
}

func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything, parentheses included.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return ppid
}
