package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A client is one closed loop. Only its own goroutine touches it.
type client struct {
	load    *Load
	id      int
	random  *rand.Rand
	written int // values made so far

	endpoint   string
	generation int // of UseEndpoints that endpoint was chosen under
	open       map[string]Etcd
	failures   int // in a row, each one quick

	started chan struct{} // closed by the first acknowledged write
	lastErr error         // of the last call that was not ok
}

func newClient(l *Load, id int) *client {
	list := l.list()
	return &client{
		load:     l,
		id:       id,
		random:   l.random(id),
		endpoint: list[id%len(list)],
		open:     map[string]Etcd{},
		started:  make(chan struct{}),
	}
}

func (c *client) run(ctx context.Context) {
	defer func() {
		for _, etcd := range c.open {
			etcd.Close()
		}
	}()
	begun := false
	for !c.load.over(ctx) {
		c.follow()
		o := c.next()
		v, err := c.call(ctx, &o)
		c.load.log.op(o)
		if err == nil {
			c.failures = 0
			if o.Kind == Put {
				c.load.acked.Add(1)
				if !begun {
					begun = true
					close(c.started)
				}
			}
			continue
		}
		c.lastErr = err
		c.failOver(v.answered)
		// One quick failure sends the client on at once. After more in a row
		// the cluster is to be given a moment, and so is the machine.
		if o.Return-o.Call >= connectBackoffMax {
			c.failures = 0
			continue
		}
		if c.failures++; c.failures > 1 {
			spread := time.Duration(c.random.Int64N(int64(connectBackoffMax - connectBackoff)))
			c.load.pause(ctx, connectBackoff+spread)
		}
	}
}

// next makes the next operation. Clients write keys of their own, so that
// the order of the writes of a key is known, and read everybody's.
func (c *client) next() Op {
	s := &c.load.spec
	key := func(client int) string {
		return fmt.Sprintf("%sc%d/k%d", s.Prefix, client, c.random.IntN(s.KeysPerClient))
	}
	if c.written > 0 && c.random.Float64() < s.Reads {
		return Op{Client: c.id, Kind: Get, Key: key(c.random.IntN(s.Clients))}
	}
	c.written++
	return Op{Client: c.id, Kind: Put, Key: key(c.id), Value: fmt.Sprintf("%d-%d-%d", c.id, c.written, s.Seed)}
}

// call carries out an operation and fills in what came of it.
func (c *client) call(ctx context.Context, o *Op) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, c.load.spec.Timeout)
	defer cancel()
	o.Endpoint = c.endpoint
	o.Call = c.load.Now()
	v := verdict{Fail, false} // without a connection nothing is sent
	etcd, err := c.dial(ctx)
	if err == nil {
		err = send(ctx, etcd, o)
		v = judge(err)
	}
	o.Return = c.load.Now()
	o.Outcome = v.outcome
	if err != nil {
		o.Error = err.Error()
	}
	return v, err
}

func (c *client) dial(ctx context.Context) (Etcd, error) {
	if etcd, ok := c.open[c.endpoint]; ok {
		return etcd, nil
	}
	etcd, err := c.load.spec.Dial(ctx, c.endpoint)
	if err != nil {
		return nil, err
	}
	c.open[c.endpoint] = etcd
	return etcd, nil
}

func send(ctx context.Context, etcd Etcd, o *Op) error {
	if o.Kind == Get {
		r, err := etcd.Get(ctx, o.Key)
		if err != nil {
			return err
		}
		o.Revision = r.Header.Revision
		if len(r.Kvs) > 0 {
			o.Value, o.ModRevision = string(r.Kvs[0].Value), r.Kvs[0].ModRevision
		}
		return nil
	}
	r, err := etcd.Put(ctx, o.Key, o.Value, clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	o.Revision = r.Header.Revision
	if r.PrevKv != nil {
		o.Prev, o.ModRevision = string(r.PrevKv.Value), r.PrevKv.ModRevision
	}
	return nil
}

// follow moves the client when UseEndpoints was called.
func (c *client) follow() {
	g := c.load.generation()
	if g == c.generation {
		return
	}
	c.generation = g
	list := c.load.list()
	c.endpoint = list[c.id%len(list)]
	c.forget(list)
}

// failOver goes on to the next endpoint of the present list. A connection on
// which nothing was heard is given up: if its host was cut off, TCP would
// keep it dead for seconds after the host is back.
func (c *client) failOver(answered bool) {
	if !answered {
		c.hangUp(c.endpoint)
	}
	list := c.load.list()
	if i := slices.Index(list, c.endpoint); i >= 0 {
		c.endpoint = list[(i+1)%len(list)]
	} else {
		c.endpoint = list[c.id%len(list)]
	}
	c.forget(list)
}

// forget closes what is not in the list.
func (c *client) forget(list []string) {
	for endpoint := range c.open {
		if !slices.Contains(list, endpoint) {
			c.hangUp(endpoint)
		}
	}
}

func (c *client) hangUp(endpoint string) {
	if etcd, ok := c.open[endpoint]; ok {
		// Nothing hangs on how it closes.
		etcd.Close()
		delete(c.open, endpoint)
	}
}
