package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A client makes one call at a time, to one endpoint at a time. Only its own
// goroutine touches it.
type client struct {
	load    *Load
	id      int
	random  *rand.Rand
	written int              // values made so far
	known   map[string]int64 // the mod revision that it saw last, for its txns

	connection
	failures int // in a row, each one quick

	last    Standing // of a stale client; the load's mutex guards it
	wrote   bool
	started chan struct{} // closed by the first acknowledged write
	lastErr error         // of the last call that was not ok
}

func newClient(l *Load, id int) *client {
	return &client{load: l, id: id, random: l.random(id), known: map[string]int64{}, connection: connect(l, id), started: make(chan struct{})}
}

// run is the life of a client that works on keys.
func (c *client) run(ctx context.Context) {
	defer c.close()
	for c.load.turn(ctx) {
		o := c.next()
		if c.do(ctx, &o) == nil {
			c.learn(&o)
		}
	}
}

// do makes a call, takes it down, and after a failure sees to it that the next
// one goes elsewhere.
func (c *client) do(ctx context.Context, o *Op) error {
	c.follow()
	v, err := c.call(ctx, o)
	if err == nil {
		c.failures = 0
		if o.Acked() {
			c.load.acknowledge(o.Revision)
			if !c.wrote {
				c.wrote = true
				close(c.started)
			}
		}
		return nil
	}
	c.lastErr = err
	c.failOver(v.answered)
	// One quick failure sends the client on at once. After more in a row
	// the cluster is to be given a moment, and so is the machine.
	if o.Return-o.Call >= connectBackoffMax {
		c.failures = 0
		return err
	}
	if c.failures++; c.failures > 1 {
		spread := time.Duration(c.random.Int64N(int64(connectBackoffMax - connectBackoff)))
		c.load.pause(ctx, connectBackoff+spread)
	}
	return err
}

// next makes the next operation. The first is a put, which the load's start
// waits for.
func (c *client) next() Op {
	p := &c.load.spec.Profile
	kind := Put
	if c.written > 0 {
		kind = p.Mix.pick(c.random.Float64())
	}
	// Clients put keys of their own and read everybody's. Keys that all write
	// are there only where the profile wants that.
	whose := c.id
	if kind == Get || kind == SerializableGet {
		whose = c.random.IntN(p.Clients)
	}
	o := Op{Client: c.id, Kind: kind, Key: fmt.Sprintf("%sc%d/k%d", c.load.spec.Prefix, whose, c.random.IntN(p.KeysPerClient))}
	if p.SharedKeys > 0 && c.random.IntN(2) == 0 {
		o.Key = fmt.Sprintf("%sshared/k%d", c.load.spec.Prefix, c.random.IntN(p.SharedKeys))
	}
	if kind == Txn {
		o.Expect = c.known[o.Key]
	}
	if kind == Put || kind == Txn {
		o.Value = c.value()
	}
	return o
}

// value makes a value that nobody writes twice.
func (c *client) value() string {
	c.written++
	return fmt.Sprintf("%d-%d-%d", c.id, c.written, c.load.spec.Seed)
}

// learn keeps what the next txn on the key will expect.
func (c *client) learn(o *Op) {
	switch {
	case c.load.spec.Mix.Txn == 0 || o.Kind == SerializableGet:
	case o.Kind == Delete:
		c.known[o.Key] = 0
	case o.Acked():
		c.known[o.Key] = o.Revision
	default:
		c.known[o.Key] = o.ModRevision
	}
}

// call carries out an operation and fills in what came of it. The log has it
// before it is sent.
func (c *client) call(ctx context.Context, o *Op) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, c.load.spec.Timeout)
	defer cancel()
	o.Endpoint = c.endpoint
	o.Call = c.load.Now()
	id := c.load.log.call(o)
	v := verdict{Fail, false} // without a connection nothing is sent
	etcd, err := c.dial(ctx)
	switch {
	case err == nil && ctx.Err() != nil: // to log in took as long as a call may
		err, v.answered = fmt.Errorf("dial %s: %w", c.endpoint, ctx.Err()), true
	case err == nil:
		err = send(ctx, etcd, o)
		v = judge(err)
	}
	o.Return = c.load.Now()
	o.Outcome = v.outcome
	if err != nil {
		o.Error = err.Error()
	}
	c.load.log.reply(id, o)
	return v, err
}

// send makes the call that an operation stands for, and fills in the reply.
func send(ctx context.Context, etcd Etcd, o *Op) error {
	switch o.Kind {
	case Put:
		options := []clientv3.OpOption{clientv3.WithPrevKV()}
		if o.Lease != 0 {
			options = append(options, clientv3.WithLease(clientv3.LeaseID(o.Lease)))
		}
		r, err := etcd.Put(ctx, o.Key, o.Value, options...)
		if err != nil {
			return err
		}
		o.Revision = r.Header.Revision
		if r.PrevKv != nil {
			o.Prev, o.ModRevision = string(r.PrevKv.Value), r.PrevKv.ModRevision
		}
	case Get, SerializableGet:
		var options []clientv3.OpOption
		if o.Kind == SerializableGet {
			options = append(options, clientv3.WithSerializable())
		}
		r, err := etcd.Get(ctx, o.Key, options...)
		if err != nil {
			return err
		}
		o.Revision = r.Header.Revision
		if len(r.Kvs) > 0 {
			o.Value, o.ModRevision = string(r.Kvs[0].Value), r.Kvs[0].ModRevision
		}
	case Delete:
		r, err := etcd.Delete(ctx, o.Key, clientv3.WithPrevKV())
		if err != nil {
			return err
		}
		o.Revision = r.Header.Revision
		if len(r.PrevKvs) > 0 {
			o.Prev, o.ModRevision = string(r.PrevKvs[0].Value), r.PrevKvs[0].ModRevision
		}
	case Txn:
		return sendTxn(ctx, etcd, o)
	case Grant:
		r, err := etcd.Grant(ctx, o.TTL)
		o.TTL = 0 // what was asked for is the profile's
		if err != nil {
			return err
		}
		o.Revision, o.Lease, o.TTL = r.Revision, int64(r.ID), r.TTL
	case KeepAlive:
		r, err := etcd.KeepAliveOnce(ctx, clientv3.LeaseID(o.Lease))
		if err != nil {
			return err
		}
		o.Revision, o.TTL = r.Revision, r.TTL
	case Revoke:
		r, err := etcd.Revoke(ctx, clientv3.LeaseID(o.Lease))
		if err != nil {
			return err
		}
		o.Revision = r.Header.Revision
	}
	return nil
}

func sendTxn(ctx context.Context, etcd Etcd, o *Op) error {
	r, err := etcd.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(o.Key), "=", o.Expect)).
		Then(clientv3.OpPut(o.Key, o.Value, clientv3.WithPrevKV())).
		Else(clientv3.OpGet(o.Key)).
		Commit()
	if err != nil {
		return err
	}
	if len(r.Responses) != 1 {
		return fmt.Errorf("txn has %d responses", len(r.Responses))
	}
	o.Revision, o.Done = r.Header.Revision, r.Succeeded
	if put := r.Responses[0].GetResponsePut(); put != nil && put.PrevKv != nil {
		o.Prev, o.ModRevision = string(put.PrevKv.Value), put.PrevKv.ModRevision
	}
	if get := r.Responses[0].GetResponseRange(); get != nil && len(get.Kvs) > 0 {
		o.Prev, o.ModRevision = string(get.Kvs[0].Value), get.Kvs[0].ModRevision
	}
	return nil
}

// A connection goes to one endpoint at a time, and keeps those it has had
// open.
type connection struct {
	load       *Load
	id         int // spreads connections over endpoints
	endpoint   string
	generation int // of the load's list that endpoint was chosen under
	open       map[string]Etcd
	to         Dial
	fixed      []string // of a stale client: all that it knows; nil for the others
}

func connect(l *Load, id int) connection {
	list := l.list()
	return connection{load: l, id: id, endpoint: list[id%len(list)], open: map[string]Etcd{}, to: l.spec.Dial}
}

// list is what to connect to now. It is never empty.
func (c *connection) list() []string {
	if c.fixed != nil {
		return c.fixed
	}
	return c.load.list()
}

func (c *connection) dial(ctx context.Context) (Etcd, error) {
	if etcd, ok := c.open[c.endpoint]; ok {
		return etcd, nil
	}
	etcd, err := c.to(ctx, c.endpoint)
	if err != nil {
		return nil, err
	}
	c.open[c.endpoint] = etcd
	return etcd, nil
}

// follow moves the client when UseEndpoints was called, and when the load's
// list, which is looked at now and then, has its endpoint no more.
func (c *connection) follow() {
	if c.fixed != nil {
		return
	}
	g, evenly := c.load.generation()
	if g == c.generation {
		return
	}
	c.generation = g
	list := c.load.list()
	if evenly || !slices.Contains(list, c.endpoint) {
		c.endpoint = list[c.id%len(list)]
	}
	c.forget(list)
}

// failOver goes on to the next endpoint of the present list. A connection on
// which nothing was heard is given up: if its host was cut off, TCP would
// keep it dead for seconds after the host is back.
func (c *connection) failOver(answered bool) {
	if !answered {
		c.hangUp(c.endpoint)
	}
	list := c.list()
	if i := slices.Index(list, c.endpoint); i >= 0 {
		c.endpoint = list[(i+1)%len(list)]
	} else {
		c.endpoint = list[c.id%len(list)]
	}
	c.forget(list)
}

// forget closes what is not in the list.
func (c *connection) forget(list []string) {
	for endpoint := range c.open {
		if !slices.Contains(list, endpoint) {
			c.hangUp(endpoint)
		}
	}
}

func (c *connection) hangUp(endpoint string) {
	if etcd, ok := c.open[endpoint]; ok {
		// Nothing hangs on how it closes.
		etcd.Close()
		delete(c.open, endpoint)
	}
}

func (c *connection) close() {
	for _, etcd := range c.open {
		etcd.Close()
	}
}
