package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// staysApart: an old member that came back is in no cluster with the others,
// and does not disturb them: the member list is without it, writes go on, and
// the leader is one of those that are meant to be there. Where it is not known
// to have run, it has to run now.
func staysApart(name string, runs bool) Inspection {
	return Inspection{Name: "stays-apart", Look: func(ctx context.Context, s *stage) error {
		// As long as it takes to stand for election several times.
		const watch = 4 * time.Second
		name := s.rig.ground.Here(name)
		if runs {
			if err := s.began(ctx, name); err != nil {
				return err
			}
		}
		peer, err := s.rig.peerURL(name)
		if err != nil {
			return err
		}
		etcd, err := s.rig.member(ctx, s.intended[0])
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

// began waits until etcd was started on a host, whatever became of it.
func (s *stage) began(ctx context.Context, name string) error {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		f, err := s.rig.ground.Host(name).Look(ctx, host.Question{Units: []string{config.UnitName}})
		if u := f.Units[config.UnitName]; err == nil && (u.PID != 0 || u.Exit != 0 || u.Active == "failed") {
			return nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("etcd on %s was never started again, so nothing was tried: %w", name, errors.Join(ctx.Err(), err))
		}
	}
}

// freshToken: the cluster has another initial-cluster-token than the former one,
// whose configuration is still on a host that was away. With an equal one the
// former member would be taken for one of the new cluster.
func freshToken(away string) Inspection {
	return Inspection{Name: "fresh-token", Look: func(ctx context.Context, s *stage) error {
		former, err := s.token(ctx, s.rig.ground.Here(away))
		if err != nil {
			return err
		}
		now, err := s.token(ctx, s.intended[0])
		if err == nil && now == former {
			err = fmt.Errorf("the new cluster has the former one's initial-cluster-token, %s", now)
		}
		return err
	}}
}

// token is the initial-cluster-token in a host's etcd.conf.
func (s *stage) token(ctx context.Context, name string) (string, error) {
	content, _, err := s.rig.ground.Read(ctx, name, config.ConfPath)
	if err != nil {
		return "", err
	}
	c, err := config.ParseMember(content)
	return c.Token, err
}

// staleAre: clients that knew the members of the start alone are served again by
// those of now, or are left behind: they have nobody left to talk to.
func staleAre(served bool) Inspection {
	name := map[bool]string{true: "stale-clients-served", false: "stale-clients-left-behind"}[served]
	return Inspection{name, func(ctx context.Context, s *stage) error {
		if s.load == nil {
			return errors.New("there is no load")
		}
		var last error
		for range 100 { // the call that is under way may be the last of its kind
			if last = s.stale(served); last == nil {
				return nil
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
		return last
	}}
}

func (s *stage) stale(served bool) error {
	all := s.load.Stale()
	if len(all) == 0 {
		return errors.New("the load has no stale clients")
	}
	for _, c := range all {
		known := slices.ContainsFunc(s.intended, func(h string) bool {
			url, err := s.rig.clientURL(h)
			return err == nil && slices.Contains(c.Knows, url)
		})
		if c.Served != served || known != served {
			return fmt.Errorf("a client that knows %v is served: %v, by %s; a member is among them: %v", c.Knows, c.Served, c.Endpoint, known)
		}
	}
	return nil
}

// keeps: of the keys that a fault wrote, this many are there.
func keeps(n int64) Inspection {
	return Inspection{fmt.Sprintf("keeps-%d", n), func(ctx context.Context, s *stage) error {
		dial, err := s.rig.Dial(embedded.Client)
		if err != nil {
			return err
		}
		for _, h := range s.intended {
			if err := s.counts(ctx, dial, h, n); err != nil {
				return err
			}
		}
		return nil
	}}
}

// counts asks the member on a host how many of those keys it has.
func (s *stage) counts(ctx context.Context, dial workload.Dial, name string, n int64) error {
	etcd, err := s.rig.memberBy(ctx, dial, name)
	if err != nil {
		return err
	}
	defer etcd.Close()
	r, err := etcd.Get(ctx, fault.KeptPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("ask the member on %s: %w", name, err)
	}
	if r.Count != n {
		return fmt.Errorf("of %d keys that were acknowledged %d are on %s", n, r.Count, name)
	}
	return nil
}
