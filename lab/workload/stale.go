package workload

import (
	"context"
	"slices"
	"time"
)

// stalePause is how long a stale client rests between two calls: it is there to be
// connected.
const stalePause = 50 * time.Millisecond

// newStale makes a client that knows the endpoints of now and no others, ever.
func newStale(l *Load, id int) *client {
	c := newClient(l, id)
	c.to, c.fixed = l.spec.DialStale, slices.Clone(l.list())
	return c
}

// runStale is the life of a stale client.
func (c *client) runStale(ctx context.Context) {
	defer c.close()
	lives := 0
	for !c.load.over(ctx) {
		if n := c.load.lives(); n != lives {
			lives = n
			c.restart()
		}
		o := c.next()
		err := c.do(ctx, &o)
		if err == nil {
			c.learn(&o)
		}
		c.load.standing(c, err == nil)
		if !c.load.pause(ctx, stalePause) {
			return
		}
	}
}

// restart has it begin anew, with the endpoints of now.
func (c *client) restart() {
	c.close()
	clear(c.open)
	c.fixed = slices.Clone(c.load.list())
	c.endpoint = c.fixed[c.id%len(c.fixed)]
}

// RestartStale restarts the stale clients with the endpoints of now, each after the
// call that it has under way.
func (l *Load) RestartStale() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reborn++
}

func (l *Load) lives() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reborn
}

// A Standing is how a stale client stands.
type Standing struct {
	Knows    []string // endpoints
	Endpoint string   // that it called last
	Served   bool     // that call was answered
}

// standing takes down how the last call of a stale client went.
func (l *Load) standing(c *client, served bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.last = Standing{Knows: c.fixed, Endpoint: c.endpoint, Served: served}
}

// Stale tells how the stale clients stand.
func (l *Load) Stale() []Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Standing
	for _, c := range l.stale {
		all = append(all, c.last)
	}
	return all
}
