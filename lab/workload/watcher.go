package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

const (
	// progressEvery is how often a watcher asks how far it has been told: what
	// it is answered is a promise that nothing up to there is missing.
	progressEvery = 250 * time.Millisecond
	// silence is how long a watch may say nothing, asked or not, before it is
	// resumed at another endpoint.
	silence = 4 * progressEvery
	// A watcher cuts itself off after cutOffMin to cutOffMax, to see whether it
	// can resume.
	cutOffMin = 1 * time.Second
	cutOffMax = 4 * time.Second
	// drainWithin is how long watchers have, after the last write, to be told
	// of it.
	drainWithin = 2 * time.Second
)

// A watcher watches all keys of the load from its start on.
type watcher struct {
	load   *Load
	id     int
	random *rand.Rand
	connection
	watches int           // so far
	next    int64         // the first revision that it was not told of
	started chan struct{} // closed by the first response
	lastErr error
}

func newWatcher(l *Load, id int, from int64) *watcher {
	// Their endpoints and seeds follow those of the clients.
	place := l.spec.Clients + l.spec.LeaseClients + id
	return &watcher{load: l, id: id, random: l.random(place), connection: connect(l, place), next: from, started: make(chan struct{})}
}

// run watches until the load is over and the last acknowledged write has been
// told of.
func (w *watcher) run(ctx context.Context) {
	defer w.close()
	for ctx.Err() == nil && !w.drained() {
		w.follow()
		told, err := w.watch(ctx)
		if err == nil {
			continue // it cut itself off
		}
		w.lastErr = err
		w.failOver(told)
		w.load.breathe(ctx, connectBackoff+time.Duration(w.random.Int64N(int64(connectBackoffMax))))
	}
}

// drained says whether the load is over and there is nothing more to be told.
func (w *watcher) drained() bool {
	select {
	case <-w.load.dry:
		return true
	default:
	}
	select {
	case <-w.load.drain:
		return w.next > w.load.newest.Load()
	default:
		return false
	}
}

func (w *watcher) note(n Notice) {
	n.Watcher, n.At, n.Endpoint = w.id, w.load.Now(), w.endpoint
	w.load.log.notice(n)
}

// watch watches at one endpoint until it is cut off; told says whether it was
// told anything.
func (w *watcher) watch(ctx context.Context) (told bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialing, dialed := context.WithTimeout(ctx, w.load.spec.Timeout)
	etcd, err := w.dial(dialing)
	dialed()
	if err != nil {
		return false, err
	}
	// Each watch has a stream of its own, which clientv3 tells apart by what is
	// sent along. On a shared one, etcd tells a new watch how far the one before
	// it had been told, as of a request of that one's: a promise that is not kept.
	w.watches++
	ctx = metadata.AppendToOutgoingContext(ctx, "etcdrill-watch", fmt.Sprintf("%d-%d", w.id, w.watches))
	w.note(Notice{Kind: Opened, From: w.next})
	end := func(n Notice, err error) (bool, error) {
		n.Kind = Ended
		if err != nil {
			n.Error = err.Error()
		}
		w.note(n)
		return told, err
	}
	// A member without a leader is to end the watch and not to hold it. One that
	// is gone holds the call itself, for as long as it may.
	opening := time.AfterFunc(silence, cancel)
	responses := etcd.Watch(clientv3.WithRequireLeader(ctx), w.load.spec.Prefix, clientv3.WithPrefix(),
		clientv3.WithRev(w.next), clientv3.WithCreatedNotify())
	if !opening.Stop() {
		return end(Notice{}, errSilent)
	}
	asking := time.NewTicker(progressEvery)
	defer asking.Stop()
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	cutOff := time.NewTimer(cutOffMin + time.Duration(w.random.Int64N(int64(cutOffMax-cutOffMin))))
	defer cutOff.Stop()
	drain := w.load.drain
	for {
		select {
		case <-ctx.Done():
			return end(Notice{}, ctx.Err())
		case <-w.load.dry:
			return end(Notice{}, nil)
		case <-drain:
			drain = nil
			if w.drained() {
				return end(Notice{}, nil)
			}
			w.ask(ctx, etcd)
		case <-quiet.C:
			return end(Notice{}, errSilent)
		case <-cutOff.C:
			if !w.load.over(ctx) {
				return end(Notice{}, nil)
			}
		case <-asking.C:
			w.ask(ctx, etcd)
		case r, ok := <-responses:
			if !ok {
				return end(Notice{}, errClosed)
			}
			if err := r.Err(); err != nil {
				if r.CompactRevision >= w.next {
					w.next = r.CompactRevision
				}
				return end(Notice{Revision: r.Header.GetRevision(), Compacted: r.CompactRevision}, err)
			}
			told = true
			quiet.Reset(silence)
			w.take(r)
			if w.drained() {
				return end(Notice{}, nil)
			}
		}
	}
}

// ask asks how far the watch has been told. Where that cannot be asked, the
// silence will be noticed.
func (w *watcher) ask(ctx context.Context, etcd Etcd) {
	ctx, cancel := context.WithTimeout(ctx, progressEvery)
	defer cancel()
	_ = etcd.RequestProgress(clientv3.WithRequireLeader(ctx))
}

// take takes down one response.
func (w *watcher) take(r clientv3.WatchResponse) {
	select {
	case <-w.started:
	default:
		close(w.started)
	}
	switch {
	case r.IsProgressNotify():
		w.note(Notice{Kind: Progress, Revision: r.Header.Revision})
		w.next = max(w.next, r.Header.Revision+1)
	case len(r.Events) > 0:
		events := make([]Event, len(r.Events))
		for i, e := range r.Events {
			events[i] = Event{Key: string(e.Kv.Key), Deleted: e.Type == clientv3.EventTypeDelete, Value: string(e.Kv.Value),
				ModRevision: e.Kv.ModRevision, Lease: e.Kv.Lease}
			w.next = max(w.next, e.Kv.ModRevision+1)
		}
		w.note(Notice{Kind: Events, Revision: r.Header.Revision, Events: events})
	}
}
