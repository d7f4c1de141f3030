package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// A Query says where evidence is to be had.
type Query struct {
	// Endpoints are the client URLs of the members, one of each; Dial reaches
	// one of them and no other.
	Endpoints []string
	Dial      workload.Dial
	// History is that of the load, which has ended. It gives the prefix of the
	// final state, and goes into the evidence.
	History *workload.History
	// Intended are the peer URLs that the members should have.
	Intended []string
	// Log has a member tell all that happened to the load's keys since it began,
	// which says what became of writes that nobody heard of again.
	Log bool
	// Hash compacts the key space and compares the hashes at the compacted
	// revision. For labs only: it writes a key (HashKey), drops all history,
	// and a member that has not cached the hash stops writes while it scans.
	Hash bool
	// Timeout of each request, 5 s when 0.
	Timeout time.Duration
	// Clock gives the time of the evidence; time.Now when nil.
	Clock func() time.Time
}

// HashKey is written before a compaction, so that there is always something
// new to compact and the cluster is seen to take a write.
const HashKey = "/etcdrill/check"

const (
	defaultTimeout = 5 * time.Second
	// settleEvery is the time between two looks at a hash that is not cached
	// yet.
	settleEvery = 20 * time.Millisecond
	// hashRounds is how often a compaction is tried until all members have the
	// hash of the same span: the first may find a member that was made from a
	// snapshot and knows of another compaction before it.
	hashRounds = 3
)

// Collect asks the members, each on its own, what they hold in the end. What
// a member does not answer is told in its view, and leaves checks undecided;
// an error is returned only for a query that makes no sense or a ctx that has
// ended.
func Collect(ctx context.Context, q Query) (Evidence, error) {
	if q.Clock == nil {
		q.Clock = time.Now
	}
	e := Evidence{History: q.History, Intended: q.Intended, Taken: q.Clock()}
	switch {
	case len(q.Endpoints) == 0:
		return e, errors.New("collect evidence: no endpoints")
	case q.Dial == nil:
		return e, errors.New("collect evidence: no way to dial")
	case q.History == nil:
		return e, errors.New("collect evidence: no history")
	}
	timeout := cmp.Or(q.Timeout, defaultTimeout)
	members := make([]*asked, len(q.Endpoints))
	e.Views = make([]View, len(q.Endpoints))
	for i, endpoint := range q.Endpoints {
		members[i] = &asked{view: &e.Views[i], timeout: timeout}
		e.Views[i].Endpoint = endpoint
		defer members[i].close()
	}
	each(members, func(m *asked) { m.connect(ctx, q.Dial) })
	each(members, func(m *asked) { m.look(ctx, q.History.Prefix) })
	if q.Log {
		e.Log, e.LogErr = logOf(ctx, members, q.History) // before anything is compacted
	}
	if q.Hash {
		hash(ctx, members)
	}
	if err := ctx.Err(); err != nil {
		return e, fmt.Errorf("collect evidence: %w", err)
	}
	return e, nil
}

// asked is a member that is being asked. A failure stays in its view and ends
// the asking.
type asked struct {
	view    *View
	etcd    workload.Etcd
	timeout time.Duration
}

func each(members []*asked, do func(*asked)) {
	var wait sync.WaitGroup
	for _, m := range members {
		if m.view.Err == "" {
			wait.Go(func() { do(m) })
		}
	}
	wait.Wait()
}

func (m *asked) close() {
	if m.etcd != nil {
		m.etcd.Close()
	}
}

// ask makes one request, with a deadline of its own.
func (m *asked) ask(ctx context.Context, doing string, do func(context.Context) error) bool {
	return m.try(ctx, &m.view.Err, doing, do)
}

// askHash is ask for what only the hash hangs on.
func (m *asked) askHash(ctx context.Context, doing string, do func(context.Context) error) bool {
	return m.try(ctx, &m.view.HashErr, doing, do)
}

func (m *asked) try(ctx context.Context, failure *string, doing string, do func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if err := do(ctx); err != nil {
		*failure = fmt.Sprintf("%s: %v", doing, err)
		return false
	}
	return true
}

func (m *asked) connect(ctx context.Context, dial workload.Dial) {
	m.ask(ctx, "dial", func(ctx context.Context) (err error) {
		m.etcd, err = dial(ctx, m.view.Endpoint)
		return err
	})
}

func (m *asked) look(ctx context.Context, prefix string) {
	v := m.view
	ok := m.ask(ctx, "read status", func(ctx context.Context) error {
		s, err := m.etcd.Status(ctx, v.Endpoint)
		if err != nil {
			return err
		}
		v.MemberID, v.ClusterID = s.Header.MemberId, s.Header.ClusterId
		v.Version, v.Leader, v.RaftTerm, v.IsLearner = s.Version, s.Leader, s.RaftTerm, s.IsLearner
		return nil
	})
	if !ok || v.IsLearner { // a learner answers nothing else
		return
	}
	ok = m.ask(ctx, "list members", func(ctx context.Context) error {
		r, err := m.etcd.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, x := range r.Members {
			v.Members = append(v.Members, Member{x.ID, x.Name, x.PeerURLs, x.ClientURLs, x.IsLearner})
		}
		return nil
	})
	if !ok {
		return
	}
	m.ask(ctx, "read final state", func(ctx context.Context) error {
		r, err := m.etcd.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		v.Revision, v.Final = r.Header.Revision, map[string]Value{}
		for _, kv := range r.Kvs {
			v.Final[string(kv.Key)] = Value{string(kv.Value), kv.ModRevision}
		}
		return nil
	})
}

// logOf asks one voter after the other, until one tells all that happened up to
// the newest revision that any of them has shown.
func logOf(ctx context.Context, members []*asked, h *workload.History) (*Log, string) {
	voters := slices.DeleteFunc(slices.Clone(members), func(m *asked) bool { return m.view.Err != "" || m.view.IsLearner })
	to := h.StartRevision
	for _, m := range voters {
		to = max(to, m.view.Revision)
	}
	why := "no voter answered"
	for _, m := range voters {
		l := &Log{Endpoint: m.view.Endpoint, From: h.StartRevision + 1, To: to}
		err := m.log(ctx, h.Prefix, l)
		if compacted := (compactedError{}); errors.As(err, &compacted) {
			l.From, l.Events = compacted.revision+1, nil
			err = m.log(ctx, h.Prefix, l)
		}
		if err == nil {
			return l, ""
		}
		why = fmt.Sprintf("member at %s: %v", m.view.Endpoint, err)
	}
	return nil, why
}

// compactedError says that a watch asked for what is compacted.
type compactedError struct{ revision int64 }

func (e compactedError) Error() string { return fmt.Sprintf("compacted up to revision %d", e.revision) }

// log has the member tell all from the log's first revision up to its last. To a
// watch that begins in the past etcd tells a thousand revisions at a time, ten
// times a second (mvcc: watchBatchMaxRevs, watchResyncPeriod), and to several at
// once as many each, from one reading of its store. So a long history is asked for
// in parts, which come in the same moment.
func (m *asked) log(ctx context.Context, prefix string, l *Log) error {
	if l.To < l.From {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := partsOf(l.From, l.To)
	var wait sync.WaitGroup
	for i := range parts {
		wait.Go(func() {
			if err := m.part(ctx, prefix, i, &parts[i]); err != nil {
				cancel(err) // the first says why
			}
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, p := range parts {
		l.Events = append(l.Events, p.events...)
	}
	return nil
}

// part is a span of revisions, and what happened in it.
type part struct {
	from, to int64
	events   []workload.Event
}

const (
	// partOf is how many revisions a part has: what etcd tells in two rounds, of
	// which the second is seldom later than a connection's first answer.
	partOf = 2000
	// partsAtOnce bounds them: etcd tells no more than 512 watches in one round.
	partsAtOnce = 64
)

// partsOf divides a span.
func partsOf(from, to int64) []part {
	n := min((to-from)/partOf+1, partsAtOnce)
	each := (to-from)/n + 1
	var parts []part
	for ; from <= to; from += each {
		parts = append(parts, part{from: from, to: min(from+each-1, to)})
	}
	return parts
}

// part watches from a part's first revision on until all up to its last has been
// told. Only silence means that nothing more will come.
func (m *asked) part(ctx context.Context, prefix string, number int, p *part) error {
	// A stream of its own for each: see the load's watcher.
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "etcdrill-part", strconv.Itoa(number)))
	defer cancel()
	silence := time.NewTimer(m.timeout)
	defer silence.Stop()
	responses := m.etcd.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(p.from), clientv3.WithCreatedNotify())
	asking := time.NewTicker(settleEvery)
	defer asking.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch from revision %d: %w", p.from, ctx.Err())
		case <-silence.C:
			return fmt.Errorf("watch from revision %d: told nothing for %v after %d events", p.from, m.timeout, len(p.events))
		case <-asking.C:
			asked, stop := context.WithTimeout(ctx, m.timeout)
			err := m.etcd.RequestProgress(asked)
			if stop(); err != nil {
				return fmt.Errorf("ask how far the watch is: %w", err)
			}
		case r, ok := <-responses:
			if !ok {
				return errors.New("the watch was closed")
			}
			if r.CompactRevision > 0 {
				return compactedError{r.CompactRevision}
			}
			if err := r.Err(); err != nil {
				return fmt.Errorf("watch from revision %d: %w", p.from, err)
			}
			if len(r.Events) > 0 {
				silence.Reset(m.timeout)
			}
			for _, x := range r.Events {
				if x.Kv.ModRevision > p.to { // another part's, or nobody's
					return nil
				}
				p.events = append(p.events, workload.Event{Key: string(x.Kv.Key), Deleted: x.Type == clientv3.EventTypeDelete,
					Value: string(x.Kv.Value), ModRevision: x.Kv.ModRevision, Lease: x.Kv.Lease})
			}
			if r.IsProgressNotify() && r.Header.Revision >= p.to {
				return nil
			}
		}
	}
}

// hash has one member compact and all members give their hashes there. Where
// it comes to nothing the views have no hash, or unlike spans, and the check
// is undecided.
func hash(ctx context.Context, members []*asked) {
	voters := slices.DeleteFunc(slices.Clone(members), func(m *asked) bool { return m.view.Err != "" || m.view.IsLearner })
	if len(voters) == 0 {
		return
	}
	for range hashRounds {
		var revision int64
		first := voters[0]
		ok := first.askHash(ctx, "write "+HashKey, func(ctx context.Context) error {
			r, err := first.etcd.Put(ctx, HashKey, "compacted")
			if err == nil {
				revision = r.Header.Revision
			}
			return err
		}) && first.askHash(ctx, "compact", func(ctx context.Context) error {
			_, err := first.etcd.Compact(ctx, revision, clientv3.WithCompactPhysical())
			return err
		})
		if !ok {
			return
		}
		each(voters, func(m *asked) { m.hash(ctx, revision) })
		failed := func(m *asked) bool { return m.view.HashErr != "" }
		if slices.ContainsFunc(voters, failed) {
			return
		}
		same := func(m *asked) bool { return m.view.CompactRevision == first.view.CompactRevision }
		if ctx.Err() != nil || !slices.ContainsFunc(voters, func(m *asked) bool { return !same(m) }) {
			return
		}
	}
}

// hash waits for the member to have compacted, and so cached the hash. Such a
// hash covers what came since the compaction before; one that is made on the
// spot begins at this compaction.
func (m *asked) hash(ctx context.Context, revision int64) {
	m.askHash(ctx, "hash key space", func(ctx context.Context) error {
		tick := time.NewTicker(settleEvery)
		defer tick.Stop()
		// Linearizable: once it is answered, the compaction is applied here.
		if _, err := m.etcd.Get(ctx, HashKey); err != nil {
			return err
		}
		for {
			r, err := m.etcd.HashKV(ctx, m.view.Endpoint, revision)
			if err != nil {
				return err
			}
			m.view.Hash, m.view.HashRevision, m.view.CompactRevision = r.Hash, revision, r.CompactRevision
			if r.CompactRevision < revision {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil // what there is may do: all may be alike
			}
		}
	})
}
