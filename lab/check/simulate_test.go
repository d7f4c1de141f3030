package check_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
)

const prefix = "/etcdrill/load/"

// A simulation says what history to make up.
type simulation struct {
	seed    uint64
	clients int
	keys    int // per client
	ops     int
	reads   float64
	doubt   float64 // share of writes whose reply is lost, half of them before they take effect

	// With rich, clients also delete, transact, read what is stale and share
	// keys, and there are leases, watchers and a log.
	rich         bool
	leaseClients int
	watchers     int
	step         time.Duration // the longest time between two moments, 100 us
}

type kv struct {
	value string
	mod   int64
	lease int64
}

// A world is a key space that is right by construction.
type world struct {
	random   *rand.Rand
	now      time.Duration
	revision int64
	store    map[string]kv
	leases   map[int64]time.Duration // to when it runs out
	granted  int64                   // so far
	events   []workload.Event
	at       []time.Duration // when each event was
	ofKey    map[string][]int32
}

func (w *world) change(e workload.Event) {
	w.ofKey[e.Key] = append(w.ofKey[e.Key], int32(len(w.events)))
	w.events, w.at = append(w.events, e), append(w.at, w.now)
	if e.Deleted {
		delete(w.store, e.Key)
	} else {
		w.store[e.Key] = kv{e.Value, e.ModRevision, e.Lease}
	}
}

// end ends a lease, with all keys that hang on it.
func (w *world) end(lease int64) {
	delete(w.leases, lease)
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(w.store)), func(k string) bool { return w.store[k].lease != lease })
	if len(keys) == 0 {
		return
	}
	w.revision++
	for _, k := range keys {
		w.change(workload.Event{Key: k, Deleted: true, ModRevision: w.revision})
	}
}

// expire ends the leases that have run out, not all of them at once.
func (w *world) expire() {
	for _, id := range slices.Sorted(maps.Keys(w.leases)) {
		if w.leases[id] < w.now && w.random.Float64() < 0.3 {
			w.end(id)
		}
	}
}

// apply carries out an operation, all at one moment. It gives false where etcd
// refuses.
func (w *world) apply(o *workload.Op) bool {
	old, there := w.store[o.Key]
	o.Prev, o.ModRevision = old.value, old.mod
	switch o.Kind {
	case workload.Put:
		if _, alive := w.leases[o.Lease]; o.Lease != 0 && !alive {
			return false
		}
		w.revision++
		w.change(workload.Event{Key: o.Key, Value: o.Value, ModRevision: w.revision, Lease: o.Lease})
	case workload.Get:
		o.Value, o.Prev = old.value, ""
	case workload.SerializableGet:
		// What some member knew a few changes ago.
		o.Value, o.Prev, o.ModRevision = "", "", 0
		o.Revision = max(9, w.revision-int64(w.random.IntN(4)))
		for _, i := range slices.Backward(w.ofKey[o.Key]) {
			if e := w.events[i]; e.ModRevision <= o.Revision {
				if !e.Deleted {
					o.Value, o.ModRevision = e.Value, e.ModRevision
				}
				break
			}
		}
		return true
	case workload.Delete:
		if there {
			w.revision++
			w.change(workload.Event{Key: o.Key, Deleted: true, ModRevision: w.revision})
		}
	case workload.Txn:
		if o.Done = old.mod == o.Expect; o.Done {
			w.revision++
			w.change(workload.Event{Key: o.Key, Value: o.Value, ModRevision: w.revision})
		}
	case workload.Grant:
		w.granted++
		o.Lease, o.TTL = 1000+w.granted, 1
		w.leases[o.Lease] = w.now + time.Second
	case workload.KeepAlive:
		if _, alive := w.leases[o.Lease]; !alive {
			return false
		}
		o.TTL = 1
		w.leases[o.Lease] = w.now + time.Second
	case workload.Revoke:
		if _, alive := w.leases[o.Lease]; !alive {
			return false
		}
		w.end(o.Lease)
	}
	o.Revision = w.revision
	return true
}

const (
	idle = iota
	called
	applied
)

// player is a closed-loop client.
type player struct {
	id, state, written int
	op                 workload.Op
	refused            bool
	known              map[string]int64
	lease              int64 // that it holds
	todo               []workload.Kind
}

// run plays closed-loop clients against a key space that is right by
// construction: an operation takes effect at one moment between its call and
// its return, or, where the reply was lost, at any later one.
func (s simulation) run() (*workload.History, check.Evidence) {
	random := rand.New(rand.NewPCG(s.seed, 0))
	h := &workload.History{Header: workload.Header{
		Schema: workload.Schema, Base: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Seed: int64(s.seed),
		Clients: s.clients, LeaseClients: s.leaseClients, Watchers: s.watchers,
		Prefix: prefix, StartRevision: 9, Etcd: map[string]string{"https://m0:2379": "3.7.3"},
	}, Complete: true}
	w := &world{random: random, revision: 9, store: map[string]kv{}, leases: map[int64]time.Duration{}, ofKey: map[string][]int32{}}
	step := int(max(s.step, 100*time.Microsecond) / time.Microsecond)

	players := make([]player, s.clients+s.leaseClients)
	for i := range players {
		players[i] = player{id: i, known: map[string]int64{}}
	}
	var late []workload.Op // unanswered, to take effect some time
	for len(h.Ops) < s.ops {
		w.now += time.Duration(1+random.IntN(step)) * time.Microsecond
		w.expire()
		if len(late) > 0 && random.Float64() < 0.2 {
			i := random.IntN(len(late))
			w.apply(&late[i])
			late[i] = late[len(late)-1]
			late = late[:len(late)-1]
			continue
		}
		p := &players[random.IntN(len(players))]
		switch p.state {
		case idle:
			p.op = s.next(p, random)
			p.op.Call, p.op.Client, p.op.Endpoint = w.now, p.id, fmt.Sprintf("https://m%d:2379", p.id%3)
			p.state = called
		case called:
			if (p.op.Kind.Writes() || p.op.Kind == workload.Revoke) && random.Float64() < s.doubt {
				if random.IntN(2) == 0 {
					late = append(late, p.op)
				}
				p.op.Return, p.op.Outcome, p.op.Error = w.now, workload.Unknown, "etcdserver: request timed out"
				h.Ops = append(h.Ops, p.op)
				p.state = idle
				continue
			}
			p.refused = !w.apply(&p.op)
			p.state = applied
		case applied:
			h.Ops = append(h.Ops, p.answered(w.now))
		}
	}
	// Those under way when the load ended are heard of too.
	for i := range players {
		if p := &players[i]; p.state != idle {
			if p.state == called {
				p.refused = !w.apply(&p.op)
			}
			w.now += time.Microsecond
			h.Ops = append(h.Ops, p.answered(w.now))
		}
	}
	s.watch(h, w)
	return h, s.evidence(h, w)
}

// answered is what a client makes of its reply.
func (p *player) answered(now time.Duration) workload.Op {
	o := &p.op
	o.Return, o.Outcome, p.state = now, workload.OK, idle
	if p.refused {
		*o = workload.Op{Call: o.Call, Return: now, Client: o.Client, Kind: o.Kind, Key: o.Key, Value: o.Value, Lease: o.Lease,
			Endpoint: o.Endpoint, Outcome: workload.Fail, Error: "etcdserver: requested lease not found"}
		p.todo = nil
		return *o
	}
	switch {
	case o.Kind == workload.Grant:
		p.lease = o.Lease
	case o.Acked() && o.Kind != workload.Delete:
		p.known[o.Key] = o.Revision
	case o.Kind == workload.Delete:
		p.known[o.Key] = 0
	default:
		p.known[o.Key] = o.ModRevision
	}
	return *o
}

func (s simulation) next(p *player, random *rand.Rand) workload.Op {
	if p.id >= s.clients {
		return s.nextOfLease(p, random)
	}
	o := workload.Op{Kind: workload.Put, Key: fmt.Sprintf("%sc%d/k%d", prefix, p.id, random.IntN(s.keys))}
	if random.Float64() < s.reads {
		o.Kind, o.Key = workload.Get, fmt.Sprintf("%sc%d/k%d", prefix, random.IntN(s.clients), random.IntN(s.keys))
	}
	if s.rich {
		switch random.IntN(6) {
		case 0:
			o.Kind = workload.Delete
		case 1, 2:
			o.Kind = workload.Txn
		case 3:
			o.Kind = workload.SerializableGet
		}
		if random.IntN(2) == 0 {
			o.Key = fmt.Sprintf("%sshared/k%d", prefix, random.IntN(s.keys))
		}
	}
	if o.Kind == workload.Txn {
		o.Expect = p.known[o.Key]
	}
	if o.Kind == workload.Put || o.Kind == workload.Txn {
		p.written++
		o.Value = fmt.Sprintf("%d-%d-%d", p.id, p.written, s.seed)
	}
	return o
}

// nextOfLease grants, attaches, keeps alive, and revokes or forgets.
func (s simulation) nextOfLease(p *player, random *rand.Rand) workload.Op {
	if len(p.todo) == 0 {
		p.todo = []workload.Kind{workload.Grant, workload.Put, workload.Put}
		for range random.IntN(6) {
			p.todo = append(p.todo, []workload.Kind{workload.KeepAlive, workload.Get}[random.IntN(2)])
		}
		if random.IntN(2) == 0 {
			p.todo = append(p.todo, workload.Revoke, workload.Get)
		}
	}
	o := workload.Op{Kind: p.todo[0]}
	p.todo = p.todo[1:]
	if o.Kind != workload.Grant {
		o.Lease = p.lease
	}
	if !o.Kind.OfLease() {
		o.Key = fmt.Sprintf("%slease%d/k%d", prefix, p.id, random.IntN(2))
	}
	switch o.Kind {
	case workload.Put:
		p.written++
		o.Value = fmt.Sprintf("%d-%d-%d", p.id, p.written, s.seed)
	case workload.Get:
		o.Lease = 0
	}
	return o
}

// watch has watchers told of all that happened, in several parts and over
// several watches.
func (s simulation) watch(h *workload.History, w *world) {
	for id := range s.watchers {
		next, at := int64(10), time.Duration(0)
		add := func(n workload.Notice) {
			n.Watcher, n.At, n.Endpoint = id, at, fmt.Sprintf("https://m%d:2379", id%3)
			h.Notices = append(h.Notices, n)
		}
		add(workload.Notice{Kind: workload.Opened, From: next})
		for i := 0; i < len(w.events); {
			// One or more whole revisions in one response.
			j := i
			for n := 1 + w.random.IntN(3); n > 0 && j < len(w.events); n-- {
				for r := w.events[j].ModRevision; j < len(w.events) && w.events[j].ModRevision == r; j++ {
				}
			}
			last := w.events[j-1].ModRevision
			at = max(at, w.at[j-1]) + time.Duration(1+w.random.IntN(50))*time.Microsecond
			add(workload.Notice{Kind: workload.Events, Revision: last, Events: slices.Clone(w.events[i:j])})
			next, i = last+1, j
			switch w.random.IntN(8) {
			case 0:
				add(workload.Notice{Kind: workload.Progress, Revision: last})
			case 1:
				add(workload.Notice{Kind: workload.Ended, Error: "etcdserver: no leader"})
				add(workload.Notice{Kind: workload.Opened, From: next})
			}
		}
		add(workload.Notice{Kind: workload.Progress, Revision: w.revision})
	}
	slices.SortStableFunc(h.Notices, func(a, b workload.Notice) int { return cmp.Compare(a.At, b.At) })
}

func (s simulation) evidence(h *workload.History, w *world) check.Evidence {
	e := check.Evidence{History: h}
	if s.rich {
		e.Log = &check.Log{Endpoint: "https://m0:2379", From: 10, To: w.revision, Events: slices.Clone(w.events)}
	}
	for i := range 3 {
		e.Intended = append(e.Intended, fmt.Sprintf("https://m%d:2380", i))
		v := check.View{
			Endpoint: fmt.Sprintf("https://m%d:2379", i), MemberID: uint64(i + 1), ClusterID: 0xc1, Version: "3.7.3",
			Leader: 1, RaftTerm: 2, Final: map[string]check.Value{}, Revision: w.revision,
			Hash: 0xfeed, HashRevision: w.revision + 1, CompactRevision: 4,
		}
		for m := range 3 {
			v.Members = append(v.Members, check.Member{
				ID: uint64(m + 1), Name: fmt.Sprintf("m%d", m),
				PeerURLs: []string{fmt.Sprintf("https://m%d:2380", m)}, ClientURLs: []string{fmt.Sprintf("https://m%d:2379", m)},
			})
		}
		for k, x := range w.store {
			v.Final[k] = check.Value{Value: x.value, ModRevision: x.mod}
		}
		e.Views = append(e.Views, v)
	}
	return e
}
