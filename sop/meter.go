package sop

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// A Meter tells for how long a run waited for nothing but etcd: a request to a
// member was under way, and none to a host. Under load that is most of what a
// look costs. Handshakes with members are in it. The nil Meter measures nothing.
type Meter struct {
	now func() time.Time

	mu           sync.Mutex
	calls, hosts int       // under way
	since        time.Time // when the present wait began; zero when there is none
	total        time.Duration
}

// NewMeter makes a Meter that goes by a clock.
func NewMeter(now func() time.Time) *Meter { return &Meter{now: now} }

// Unary is an interceptor for the connections to members. What is streamed,
// snapshots and leases that are kept alive in the background, is left out.
func (m *Meter) Unary(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	m.change(1, 0)
	defer m.change(-1, 0)
	return invoke(ctx, method, req, reply, c, opts...)
}

// atHost is called before a host is asked, what it gives afterwards.
func (m *Meter) atHost() (done func()) {
	m.change(0, 1)
	return func() { m.change(0, -1) }
}

func (m *Meter) change(calls, hosts int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls, m.hosts = m.calls+calls, m.hosts+hosts
	waits := m.calls > 0 && m.hosts == 0
	switch {
	case waits && m.since.IsZero():
		m.since = m.now()
	case !waits && !m.since.IsZero():
		m.total += m.now().Sub(m.since)
		m.since = time.Time{}
	}
}

// take gives what was measured since it was taken last.
func (m *Meter) take() time.Duration {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.total
	if !m.since.IsZero() {
		now := m.now()
		taken += now.Sub(m.since)
		m.since = now
	}
	m.total = 0
	return taken
}
