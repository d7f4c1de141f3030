package embedded

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

var errThreadEnded = errors.New("the host's thread has ended")

// A thread runs functions on one OS thread, which stays in the namespace that
// setup put it in. Processes that are started on it, and sockets that are made
// on it, belong to that namespace.
type thread struct {
	work chan func()
	quit chan struct{}
	done chan struct{}
}

// startThread returns when setup has run on the new thread.
func startThread(setup func() error) (*thread, error) {
	t := &thread{work: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error, 1)
	go t.loop(setup, ready, nil)
	if err := <-ready; err != nil {
		<-t.done
		return nil, err
	}
	return t, nil
}

func (t *thread) loop(setup func() error, ready chan<- error, locked chan<- struct{}) {
	// The thread is never unlocked: when this function returns the runtime
	// ends it, and with it the last hold on its namespace.
	runtime.LockOSThread()
	if locked != nil {
		close(locked)
	}
	if unix.Gettid() == unix.Getpid() {
		// The main thread is what /proc/PID/ns shows, so it stays in the lab's
		// own namespace. It is held until another goroutine has locked another
		// thread.
		other := make(chan struct{})
		go t.loop(setup, ready, other)
		<-other
		runtime.UnlockOSThread()
		return
	}
	defer close(t.done)
	err := setup()
	ready <- err
	if err != nil {
		return
	}
	for {
		select {
		case f := <-t.work:
			f()
		case <-t.quit:
			return
		}
	}
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.work <- func() { result <- f() }:
		return <-result
	case <-t.done:
		return errThreadEnded
	}
}

// end lets the thread finish what it does, and waits for its end. It is
// called once.
func (t *thread) end() {
	close(t.quit)
	<-t.done
}
