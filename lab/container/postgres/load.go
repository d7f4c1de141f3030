package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// A LoadSpec says what load to put on a cluster. Zero fields take the default
// that their comment names.
type LoadSpec struct {
	Clients int           // 4
	Timeout time.Duration // of each insert and of each connection, 500 ms
	// Pause is the time from an answer to the client's next insert, 10 ms: the
	// longest gap is to be told, not what PostgreSQL can bear.
	Pause time.Duration
	// StartWithin is how long the clients may take to their first
	// acknowledged inserts, 10 s.
	StartWithin time.Duration
}

// A Write is one insert as its client saw it.
type Write struct {
	ID       int64
	Client   int
	Call     time.Time // when it was sent
	Return   time.Time // when its client had heard, or given up
	Outcome  workload.Outcome
	Instance string // that acknowledged it
	Problem  string // why it was not
}

// idsPerClient keeps the numbers of clients apart.
const idsPerClient = 1_000_000_000

// A Load is a load under way.
type Load struct {
	spec     LoadSpec
	cluster  *Cluster
	stopping chan struct{}
	stopOnce sync.Once
	running  sync.WaitGroup
	clients  []*loader
}

// A loader is one closed loop. Only its own goroutine touches it until it has
// ended.
type loader struct {
	load    *Load
	id      int
	conn    *pgconn.PgConn
	started chan struct{} // closed by the first acknowledged insert
	writes  []Write
}

// Load empties the load's table and has clients insert rows into it through the
// VIP, each one at a time. It returns once each client has had one row acknowledged; when
// that takes longer than StartWithin, or ctx ends, it says why. The load runs
// until Stop, or until ctx ends; Stop must be called in either case.
func (c *Cluster) Load(ctx context.Context, spec LoadSpec) (*Load, error) {
	spec.Clients = cmp.Or(spec.Clients, 4)
	spec.Timeout = cmp.Or(spec.Timeout, 500*time.Millisecond)
	spec.Pause = cmp.Or(spec.Pause, 10*time.Millisecond)
	spec.StartWithin = cmp.Or(spec.StartWithin, 10*time.Second)
	if err := c.empty(ctx); err != nil {
		return nil, fmt.Errorf("start load on PostgreSQL: %w", err)
	}
	l := &Load{spec: spec, cluster: c, stopping: make(chan struct{})}
	for i := range spec.Clients {
		client := &loader{load: l, id: i, started: make(chan struct{})}
		l.clients = append(l.clients, client)
		l.running.Go(func() { client.run(ctx) })
	}
	starting, cancel := context.WithTimeout(ctx, spec.StartWithin)
	defer cancel()
	for _, client := range l.clients {
		select {
		case <-client.started:
		case <-starting.Done():
			l.Stop()
			return nil, fmt.Errorf("start load on PostgreSQL: %w", client.notStarted())
		}
	}
	return l, nil
}

// Stop lets the inserts under way end, and gives all of them by the time of
// their return. It may be called again.
func (l *Load) Stop() []Write {
	l.stopOnce.Do(func() { close(l.stopping) })
	l.running.Wait()
	var all []Write
	for _, client := range l.clients {
		all = append(all, client.writes...)
	}
	slices.SortStableFunc(all, func(a, b Write) int { return a.Return.Compare(b.Return) })
	return all
}

func (l *Load) over(ctx context.Context) bool {
	select {
	case <-l.stopping:
		return true
	default:
		return ctx.Err() != nil
	}
}

func (l *Load) pause(ctx context.Context) {
	t := time.NewTimer(l.spec.Pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stopping:
	case <-ctx.Done():
	}
}

func (w *loader) notStarted() error {
	select {
	case <-w.started:
		return context.DeadlineExceeded // it came just now
	default:
	}
	problem := "its first insert was still under way"
	if n := len(w.writes); n > 0 {
		problem = w.writes[n-1].Problem
	}
	return fmt.Errorf("client %d has had no row acknowledged: %s", w.id, problem)
}

func (w *loader) run(ctx context.Context) {
	defer w.hangUp()
	clock := w.load.cluster.spec.Clock
	begun := false
	for n := int64(1); !w.load.over(ctx); n++ {
		x := Write{ID: int64(w.id)*idsPerClient + n, Client: w.id, Call: clock()}
		var err error
		x.Instance, err = w.insert(ctx, x.ID)
		x.Return, x.Outcome = clock(), outcome(err)
		if err != nil {
			x.Problem = err.Error()
			w.hangUp()
		}
		w.writes = append(w.writes, x)
		if err == nil && !begun {
			begun = true
			close(w.started)
		}
		w.load.pause(ctx)
	}
}

func (w *loader) hangUp() {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.load.spec.Timeout)
	defer cancel()
	_ = w.conn.Close(ctx) // whatever comes of it, the connection is not used again
	w.conn = nil
}

// errNotSent says that an insert never left: there was no connection for it.
var errNotSent = errors.New("not connected")

// insert sends one row and gives the instance that took it.
func (w *loader) insert(ctx context.Context, id int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, w.load.spec.Timeout)
	defer cancel()
	if w.conn == nil {
		var err error
		if w.conn, err = w.load.cluster.connect(ctx); err != nil {
			return "", fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
	const sql = "INSERT INTO public." + loadTable + " (id) VALUES ($1) RETURNING current_setting('etcdrill.machine', true)"
	r := w.conn.ExecParams(ctx, sql, [][]byte{strconv.AppendInt(nil, id, 10)}, nil, nil, nil).Read()
	switch {
	case r.Err != nil:
		return "", r.Err
	case len(r.Rows) != 1 || len(r.Rows[0]) != 1:
		return "", fmt.Errorf("an insert came back with %d rows", len(r.Rows))
	}
	return string(r.Rows[0][0]), nil
}

// connect opens a connection to the VIP. All that the environment of this
// process could say otherwise is said here.
func (c *Cluster) connect(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s password=%s database=%s sslmode=disable application_name=etcdrill target_session_attrs=any",
		c.spec.VIP.Addr(), Port, loadUser, c.password, loadDatabase))
	if err != nil {
		return nil, errors.New("the load's own connection string is wrong") // its text has the password
	}
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.spec.Dial(ctx, network, address)
	}
	return pgconn.ConnectConfig(ctx, config)
}

// outcome reads the error of an insert. Only what never left, or what the
// server refused before it could commit, has failed.
func outcome(err error) workload.Outcome {
	if err == nil {
		return workload.OK
	}
	if errors.Is(err, errNotSent) || pgconn.SafeToRetry(err) {
		return workload.Fail
	}
	var said *pgconn.PgError
	if errors.As(err, &said) {
		switch said.Code[:min(len(said.Code), 2)] {
		case "22", "23", "25", "28", "42", "53": // data, constraint, transaction state (read-only), authorization, syntax, resources
			return workload.Fail
		}
	}
	return workload.Unknown
}
