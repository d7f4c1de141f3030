package scenarios

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded"
)

func (e Ending) without(hosts ...string) Ending { e.Without = hosts; return e }

// staysApart: an old member that came back is in no cluster with the others,
// and does not disturb them: the member list is without it, writes go on, and
// the leader is one of those that are meant to be there.
func staysApart(name string) Check {
	return Check{Name: "stays-apart", Look: func(ctx context.Context, s *stage) error {
		// As long as it takes to stand for election several times.
		const watch = 4 * time.Second
		dial, err := s.rig.Dial(embedded.Client)
		if err != nil {
			return err
		}
		url, err := s.rig.clientURL(s.intended[0])
		if err != nil {
			return err
		}
		peer, err := s.rig.peerURL(name)
		if err != nil {
			return err
		}
		etcd, err := dial(ctx, url)
		if err != nil {
			return err
		}
		defer etcd.Close()
		for began := time.Now(); time.Since(began) < watch; {
			call, stop := context.WithTimeout(ctx, 5*time.Second)
			_, err := etcd.Put(call, "/etcdrill/apart", "x")
			stop()
			if err != nil {
				return fmt.Errorf("with the old member of %s back, a write failed: %w", name, err)
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
		r, err := etcd.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, m := range r.Members {
			if slices.Contains(m.PeerURLs, peer) {
				return fmt.Errorf("the old member of %s is on the list again, as %x", name, m.ID)
			}
		}
		return nil
	}}
}
