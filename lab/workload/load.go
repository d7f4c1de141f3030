package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Spec says what load to put on a cluster. Zero fields take the default
// that their comment names.
type Spec struct {
	Profile               // what the clients do
	Timeout time.Duration // of each request, 250 ms
	Seed    int64
	Prefix  string // of every key, with a slash at its end
	// StartWithin is how long the clients may take to their first
	// acknowledged writes, 10 s.
	StartWithin time.Duration
	// Endpoints gives the client URLs to use now. It is asked whenever a
	// client connects anew, by one goroutine at a time.
	Endpoints func() []string
	// Refresh is how often Endpoints is asked besides, for clients that leave
	// an endpoint once it is not listed any more, and not only once it fails.
	// With 0 it is not.
	Refresh time.Duration
	Dial    Dial
	// DialStale is from where stale clients are; Dial when nil.
	DialStale Dial
	// Clock is the clock of the record; time.Now when nil.
	Clock func() time.Time
}

// withDefaults gives the spec to go by, or what is wrong with it.
func (s Spec) withDefaults() (Spec, error) {
	var err error
	if s.Profile, err = s.Profile.withDefaults(); err != nil {
		return s, err
	}
	if s.Timeout == 0 {
		s.Timeout = 250 * time.Millisecond
	}
	if s.StartWithin == 0 {
		s.StartWithin = 10 * time.Second
	}
	if s.Clock == nil {
		s.Clock = time.Now
	}
	if s.DialStale == nil {
		s.DialStale = s.Dial
	}
	switch {
	case s.Timeout < 0 || s.StartWithin < 0 || s.Refresh < 0:
		return s, errors.New("negative durations")
	case len(s.Prefix) < 2 || !strings.HasSuffix(s.Prefix, "/"):
		return s, fmt.Errorf("prefix %q does not end in a slash", s.Prefix)
	case s.Dial == nil:
		return s, errors.New("no way to dial")
	case s.Endpoints == nil:
		return s, errors.New("no endpoints")
	}
	return s, nil
}

// A Load is a load under way.
type Load struct {
	spec  Spec
	log   *Log
	base  time.Time
	acked atomic.Int64
	// newest is the highest revision of an acknowledged write.
	newest   atomic.Int64
	arrivals chan struct{} // of an open loop; nil in a closed one

	mu      sync.Mutex
	chosen  []string // by UseEndpoints; nil leaves it to spec.Endpoints
	last    []string // the last list that spec.Endpoints gave, never empty
	changes int      // how often clients were to look whether to move
	stale   []*client
	reborn  int // how often RestartStale was called

	stopping chan struct{} // closed: finish the call under way, then end
	stopOnce sync.Once
	running  sync.WaitGroup // the clients
	watching sync.WaitGroup // the watchers
	drain    chan struct{}  // closed when the clients have ended
	dry      chan struct{}  // closed when watchers have to end
	flushed  chan struct{}  // closed when the flusher has ended
	unflush  chan struct{}  // closed to end it
	history  *History
	err      error
}

// Start puts a load on a cluster and returns once every client has had one
// acknowledged write, and every watcher a response. Where that takes longer than StartWithin, or ctx ends,
// it stops the load and says which client has had none, and why. A nil log
// keeps the history in memory only. The log is the load's from here on.
//
// The load runs until Stop, or until ctx ends, which breaks off the calls
// under way; Stop must be called in either case.
func Start(ctx context.Context, spec Spec, log *Log) (*Load, error) {
	if log == nil {
		log = NewLog()
	}
	spec, err := spec.withDefaults()
	if err != nil {
		_, closing := log.close(false)
		return nil, errors.Join(fmt.Errorf("start load: %w", err), closing)
	}
	l := &Load{
		spec:     spec,
		log:      log,
		base:     spec.Clock(),
		stopping: make(chan struct{}),
		drain:    make(chan struct{}),
		dry:      make(chan struct{}),
		flushed:  make(chan struct{}),
		unflush:  make(chan struct{}),
	}
	if len(l.list()) == 0 {
		_, closing := log.close(false)
		return nil, errors.Join(errors.New("start load: no endpoints"), closing)
	}
	starting, cancel := context.WithTimeout(ctx, spec.StartWithin)
	defer cancel()
	h, err := l.survey(starting)
	if err != nil {
		_, closing := log.close(false)
		return nil, errors.Join(fmt.Errorf("start load: %w", err), closing)
	}
	log.header(h)
	go func() {
		defer close(l.flushed)
		log.flushUntil(l.unflush)
	}()

	if spec.Rate > 0 {
		l.arrivals = make(chan struct{}, spec.Backlog)
		l.running.Go(func() { l.arrive(ctx) })
	}
	if spec.Refresh > 0 {
		l.running.Go(func() {
			for l.pause(ctx, spec.Refresh) {
				l.list()
			}
		})
	}
	var all []starter
	for i := range spec.Clients + spec.LeaseClients {
		c := newClient(l, i)
		all = append(all, c)
		if i < spec.Clients {
			l.running.Go(func() { c.run(ctx) })
		} else {
			l.running.Go(func() { c.runLeases(ctx) })
		}
	}
	for i := range spec.Stale {
		c := newStale(l, spec.Clients+spec.LeaseClients+i)
		all, l.stale = append(all, c), append(l.stale, c)
		l.running.Go(func() { c.runStale(ctx) })
	}
	for i := range spec.Watchers {
		w := newWatcher(l, i, h.StartRevision+1)
		all = append(all, w)
		l.watching.Go(func() { w.run(ctx) })
	}
	for _, s := range all {
		select {
		case <-s.begun():
		case <-starting.Done():
			_, closing := l.Stop()
			return nil, errors.Join(fmt.Errorf("start load: %w", notStarted(all)), closing)
		}
	}
	return l, nil
}

// A starter is a client or watcher, seen from the load's start.
type starter interface {
	begun() <-chan struct{}
	// excuse says what kept it; it wants it to have ended.
	excuse() error
}

func (c *client) begun() <-chan struct{}  { return c.started }
func (w *watcher) begun() <-chan struct{} { return w.started }

func (c *client) excuse() error {
	return fmt.Errorf("client %d has had no acknowledged write at %s: %w", c.id, c.endpoint, cmp.Or(c.lastErr, errNone))
}

func (w *watcher) excuse() error {
	return fmt.Errorf("watcher %d was told nothing at %s: %w", w.id, w.endpoint, cmp.Or(w.lastErr, errNone))
}

var (
	// errNone is the reason of who never got one.
	errNone   = errors.New("its first call was still under way")
	errSilent = errors.New("nothing was heard")
	errClosed = errors.New("the watch was closed")
)

func notStarted(all []starter) error {
	var missing []error
	for _, s := range all {
		select {
		case <-s.begun():
		default:
			missing = append(missing, s.excuse())
		}
	}
	if missing == nil { // the last one came just now
		return context.DeadlineExceeded
	}
	return errors.Join(missing...)
}

// survey asks, before the first write, where the cluster's history stands
// and which etcd it runs.
func (l *Load) survey(ctx context.Context) (Header, error) {
	h := Header{
		Schema:  Schema,
		Base:    l.base,
		Seed:    l.spec.Seed,
		Clients: l.spec.Clients,
		Prefix:  l.spec.Prefix,
		Profile: &l.spec.Profile,

		LeaseClients: l.spec.LeaseClients,
		Stale:        l.spec.Stale,
		Watchers:     l.spec.Watchers,
		Etcd:         map[string]string{},
	}
	var last error
	for h.StartRevision == 0 {
		for _, endpoint := range l.list() {
			version, revision, err := l.ask(ctx, endpoint)
			if version != "" {
				h.Etcd[endpoint] = version
			}
			if err != nil {
				if last == nil || ctx.Err() == nil { // the time that ran out is no reason
					last = fmt.Errorf("%s: %w", endpoint, err)
				}
				continue
			}
			h.StartRevision = max(h.StartRevision, revision)
		}
		if h.StartRevision > 0 {
			break
		}
		if !l.pause(ctx, connectBackoffMax) {
			return h, fmt.Errorf("no endpoint answers a linearizable get: %w", last)
		}
	}
	return h, nil
}

func (l *Load) ask(ctx context.Context, endpoint string) (version string, revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.spec.Timeout)
	defer cancel()
	etcd, err := l.spec.Dial(ctx, endpoint)
	if err != nil {
		return "", 0, err
	}
	defer etcd.Close()
	if s, err := etcd.Status(ctx, endpoint); err == nil {
		version = s.Version
	}
	r, err := etcd.Get(ctx, l.spec.Prefix)
	if err != nil {
		return version, 0, err
	}
	return version, r.Header.Revision, nil
}

// Now is the present moment as an offset into the history.
func (l *Load) Now() time.Duration { return l.spec.Clock().Sub(l.base) }

// Acked is the number of acknowledged writes so far.
func (l *Load) Acked() int { return int(l.acked.Load()) }

// acknowledge counts an acknowledged write.
func (l *Load) acknowledge(revision int64) {
	l.acked.Add(1)
	for {
		newest := l.newest.Load()
		if revision <= newest || l.newest.CompareAndSwap(newest, revision) {
			return
		}
	}
}

// TurnedAway is how many arrivals of an open loop found no free client and no
// room to wait.
func (l *Load) TurnedAway() int64 { return l.log.turnedAway() }

// Mark names the present moment in the history.
func (l *Load) Mark(name string) { l.log.mark(Mark{l.Now(), name}) }

// UseEndpoints moves the clients over to these endpoints, evenly, each after
// the call it has under way. Spec.Endpoints is asked no more. An empty list
// is ignored.
func (l *Load) UseEndpoints(list []string) {
	if len(list) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chosen = append([]string(nil), list...)
	l.changes++
}

// list is what to connect to now. It is never empty: while a file of
// endpoints is being rewritten, the list it gave before holds.
func (l *Load) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.chosen != nil {
		return l.chosen
	}
	if now := l.spec.Endpoints(); len(now) > 0 {
		if l.spec.Refresh > 0 && !slices.Equal(now, l.last) {
			l.changes++
		}
		l.last = now
	}
	return l.last
}

// generation counts the changes of the list that clients follow; evenly says
// that those are to move too whose endpoint is still on it.
func (l *Load) generation() (n int, evenly bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes, l.chosen != nil
}

// Stop ends the load: the clients finish the calls they have under way, the
// watchers are told of the last write or given up after two seconds, the
// file is synced, nothing is left running. The history is whole even where
// the error says that the file is not. Stop may be called again.
func (l *Load) Stop() (*History, error) {
	l.stopOnce.Do(func() {
		close(l.stopping)
		l.running.Wait()
		close(l.drain)
		dry := time.AfterFunc(drainWithin, func() { close(l.dry) })
		l.watching.Wait()
		dry.Stop()
		close(l.unflush)
		<-l.flushed
		l.history, l.err = l.log.close(true)
	})
	return l.history, l.err
}

// pause waits; false when there is nothing more to wait for.
func (l *Load) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-l.stopping:
		return false
	}
}

// breathe waits, also where the load is over and watchers are not.
func (l *Load) breathe(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-l.dry:
	}
}

func (l *Load) over(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-l.stopping:
		return true
	default:
		return false
	}
}

// random is the client's own source: its choices do not depend on how the
// clients happen to be scheduled.
func (l *Load) random(client int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(l.spec.Seed), uint64(client)))
}
