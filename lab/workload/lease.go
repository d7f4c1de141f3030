package workload

import (
	"context"
	"fmt"
	"time"
)

// leaseKeys is how many keys a lease client attaches to each of its leases.
const leaseKeys = 3

// runLeases is the life of a lease client: one lease after the other, each
// kept alive for a while and then revoked, or left to run out. The keys are
// always the same, so that they pass from one lease to the next, sometimes
// before the old one has run out.
func (c *client) runLeases(ctx context.Context) {
	defer c.close()
	for !c.load.over(ctx) {
		c.lease(ctx)
	}
}

func (c *client) lease(ctx context.Context) {
	ttl := c.load.spec.LeaseTTL
	grant := Op{Client: c.id, Kind: Grant, TTL: int64(ttl / time.Second)}
	if c.do(ctx, &grant) != nil {
		return
	}
	key := func(i int) string { return fmt.Sprintf("%slease%d/k%d", c.load.spec.Prefix, c.id, i) }
	for i := range leaseKeys {
		put := Op{Client: c.id, Kind: Put, Key: key(i), Value: c.value(), Lease: grant.Lease}
		if c.do(ctx, &put) != nil && c.load.over(ctx) {
			return
		}
	}
	// What etcd has granted counts, which may be more than was asked for.
	third := time.Duration(grant.TTL) * time.Second / 3
	for range 1 + c.random.IntN(3) {
		if !c.load.pause(ctx, third) {
			return
		}
		alive := Op{Client: c.id, Kind: KeepAlive, Lease: grant.Lease}
		lost := c.do(ctx, &alive) != nil
		get := Op{Client: c.id, Kind: Get, Key: key(c.random.IntN(leaseKeys))}
		_ = c.do(ctx, &get) // it is in the history
		if lost {
			return
		}
	}
	if c.random.IntN(2) == 0 {
		return // it runs out, or is overtaken by the next
	}
	revoke := Op{Client: c.id, Kind: Revoke, Lease: grant.Lease}
	_ = c.do(ctx, &revoke)
	get := Op{Client: c.id, Kind: Get, Key: key(c.random.IntN(leaseKeys))}
	_ = c.do(ctx, &get)
}
