package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded"
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
		if runs {
			if err := s.began(ctx, name); err != nil {
				return err
			}
		}
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

// began waits until etcd was started on a host, whatever became of it.
func (s *stage) began(ctx context.Context, name string) error {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		f, err := s.rig.Lab.Host(name).Look(ctx, host.Question{Units: []string{config.UnitName}})
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
	return Inspection{Name: "fresh-token", Look: func(_ context.Context, s *stage) error {
		former, err := s.token(away)
		if err != nil {
			return err
		}
		now, err := s.token(s.intended[0])
		if err == nil && now == former {
			err = fmt.Errorf("the new cluster has the former one's initial-cluster-token, %s", now)
		}
		return err
	}}
}

// token is the initial-cluster-token in a host's etcd.conf.
func (s *stage) token(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(s.rig.Lab.Root(name), config.ConfPath))
	if err != nil {
		return "", err
	}
	c, err := config.ParseMember(content)
	return c.Token, err
}
