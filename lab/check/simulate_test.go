package check_test

import (
	"fmt"
	"math/rand/v2"
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
}

type kv struct {
	value string
	mod   int64
}

// run plays closed-loop clients against a key space that is right by
// construction: an operation takes effect at one moment between its call and
// its return, or, where the reply was lost, at any later one.
func (s simulation) run() (*workload.History, check.Evidence) {
	random := rand.New(rand.NewPCG(s.seed, 0))
	h := &workload.History{Header: workload.Header{
		Schema: workload.Schema, Base: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Seed: int64(s.seed),
		Clients: s.clients, Prefix: prefix, StartRevision: 9, Etcd: map[string]string{"https://m0:2379": "3.7.3"},
	}, Complete: true}
	store, revision := map[string]kv{}, int64(9)
	apply := func(o *workload.Op) {
		old := store[o.Key]
		if o.Kind == workload.Put {
			revision++
			store[o.Key] = kv{o.Value, revision}
			o.Prev = old.value
		} else {
			o.Value = old.value
		}
		o.Revision, o.ModRevision = revision, old.mod
	}

	const (
		idle = iota
		called
		applied
	)
	type client struct {
		state, written int
		op             workload.Op
	}
	clients := make([]client, s.clients)
	var late []workload.Op // unanswered, to take effect some time
	now := time.Duration(0)
	for len(h.Ops) < s.ops {
		now += time.Duration(1+random.IntN(100)) * time.Microsecond
		if len(late) > 0 && random.Float64() < 0.2 {
			i := random.IntN(len(late))
			apply(&late[i])
			late[i] = late[len(late)-1]
			late = late[:len(late)-1]
			continue
		}
		id := random.IntN(s.clients)
		switch c := &clients[id]; c.state {
		case idle:
			c.op = workload.Op{Call: now, Client: id, Kind: workload.Get, Endpoint: fmt.Sprintf("https://m%d:2379", id%3)}
			if random.Float64() < s.reads {
				c.op.Key = fmt.Sprintf("%sc%d/k%d", prefix, random.IntN(s.clients), random.IntN(s.keys))
			} else {
				c.written++
				c.op.Kind = workload.Put
				c.op.Key = fmt.Sprintf("%sc%d/k%d", prefix, id, random.IntN(s.keys))
				c.op.Value = fmt.Sprintf("%d-%d-%d", id, c.written, s.seed)
			}
			c.state = called
		case called:
			if c.op.Kind == workload.Put && random.Float64() < s.doubt {
				if random.IntN(2) == 0 {
					late = append(late, c.op)
				}
				c.op.Return, c.op.Outcome, c.op.Error = now, workload.Unknown, "etcdserver: request timed out"
				h.Ops = append(h.Ops, c.op)
				c.state = idle
				continue
			}
			apply(&c.op)
			c.state = applied
		case applied:
			c.op.Return, c.op.Outcome = now, workload.OK
			h.Ops = append(h.Ops, c.op)
			c.state = idle
		}
	}
	// Those under way when the load ended are heard of too.
	for i := range clients {
		if c := &clients[i]; c.state != idle {
			if c.state == called {
				apply(&c.op)
			}
			now += time.Microsecond
			c.op.Return, c.op.Outcome = now, workload.OK
			h.Ops = append(h.Ops, c.op)
		}
	}
	e := check.Evidence{History: h}
	for i := range 3 {
		e.Intended = append(e.Intended, fmt.Sprintf("https://m%d:2380", i))
		v := check.View{
			Endpoint: fmt.Sprintf("https://m%d:2379", i), MemberID: uint64(i + 1), ClusterID: 0xc1, Version: "3.7.3",
			Leader: 1, RaftTerm: 2, Final: map[string]check.Value{}, Revision: revision,
			Hash: 0xfeed, HashRevision: revision + 1, CompactRevision: 4,
		}
		for m := range 3 {
			v.Members = append(v.Members, check.Member{
				ID: uint64(m + 1), Name: fmt.Sprintf("m%d", m),
				PeerURLs: []string{fmt.Sprintf("https://m%d:2380", m)}, ClientURLs: []string{fmt.Sprintf("https://m%d:2379", m)},
			})
		}
		for k, x := range store {
			v.Final[k] = check.Value{Value: x.value, ModRevision: x.mod}
		}
		e.Views = append(e.Views, v)
	}
	return h, e
}
