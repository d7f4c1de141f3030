package interrupt

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience, tick = 10 * time.Second, 5 * time.Millisecond

// said is a buffer that a context writes to.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func TestContext(t *testing.T) {
	gone := make(chan struct{})
	for name, c := range map[string]struct {
		end  func(cancel context.CancelFunc)
		says string
	}{
		"a signal":                {func(context.CancelFunc) { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) }, "terminated: stopping before the next change\n"},
		"whoever started us":      {func(context.CancelFunc) { close(gone) }, "whoever started this is gone: stopping before the next change\n"},
		"the context that it has": {func(cancel context.CancelFunc) { cancel() }, "interrupt: stopping before the next change\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var tell said
			parent, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx, stop := Context(parent, &tell, gone)
			require.NoError(t, ctx.Err())
			c.end(cancel)
			<-ctx.Done()
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			require.Eventually(t, func() bool { return tell.String() == c.says }, patience, tick, "%q", tell.String())
			stop()
			gone = make(chan struct{})
		})
	}
}

// What ends by itself says nothing.
func TestContextThatIsOver(t *testing.T) {
	var tell said
	ctx, stop := Context(t.Context(), &tell, nil)
	stop()
	<-ctx.Done()
	require.Never(t, func() bool { return tell.String() != "" }, 10*tick, tick)
}

func TestContextThatIsLate(t *testing.T) {
	parent, cancel := context.WithTimeout(t.Context(), tick)
	defer cancel()
	ctx, stop := Context(parent, io.Discard, nil)
	defer stop()
	<-ctx.Done()
	require.Equal(t, "time is up", whyEnded(parent.Err()))
}

func TestProgram(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	require.Equal(t, filepath.Base(exe), Program(os.Getpid()))
	require.Empty(t, Program(-1))
	require.Equal(t, os.Getppid(), parentOf(os.Getpid()))
	require.Zero(t, parentOf(-1))
}

func TestOrphaned(t *testing.T) {
	select {
	case <-Orphaned():
		t.Fatal("whoever started this test is still there")
	default:
	}
}
