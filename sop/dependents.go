package sop

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Dependents asks a voter who would miss the cluster. It reads, without quorum.
func (s *Site) Dependents(ctx context.Context, c Etcd) *Dependents {
	const most = 8
	d := &Dependents{Watchers: -1}
	all, err := c.KV().Get(ctx, "", clientv3.WithFromKey(), clientv3.WithCountOnly(), clientv3.WithSerializable())
	if err != nil {
		if is(err, rpctypes.ErrUserEmpty, rpctypes.ErrPermissionDenied) {
			return nil
		}
		return d
	}
	d.Keys = all.Count
	page, err := c.KV().Get(ctx, "", clientv3.WithFromKey(), clientv3.WithKeysOnly(), clientv3.WithSerializable(), clientv3.WithLimit(10_000))
	if err == nil {
		for _, kv := range page.Kvs {
			if kv.Lease != 0 && string(kv.Key) != LockKey && len(d.Leased) < most {
				d.Leased = append(d.Leased, string(kv.Key))
			}
		}
	}
	if n, err := c.Watchers(ctx); err == nil {
		d.Watchers = n
	}
	return d
}

// watchesOn asks a member for its open watches.
func watchesOn(ctx context.Context, c Etcd) *Watches {
	open, err := c.Watchers(ctx)
	if err != nil {
		return nil // without metrics nobody can tell
	}
	behind, err := c.Behind(ctx)
	if err != nil {
		return nil
	}
	return &Watches{open, behind}
}
