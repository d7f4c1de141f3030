package scenarios_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

// as lets an operator work under a user of etcd's own. A member takes its time
// to check a password, seconds where races are looked for.
func as(rig *scenarios.Rig, user, password string) with {
	return func(o *scenarios.Operator) {
		dial := rig.Lab.DialContext(embedded.Admin)
		const patience = 30 * time.Second
		o.Site.User = user
		o.Site.Deadlines[sop.Looking] = patience
		o.Site.Dial = func(_ context.Context, endpoint string) (sop.Etcd, error) {
			config, err := rig.TLS()
			if err != nil {
				return nil, err
			}
			return sop.DialMember(clientv3.Config{TLS: config, Username: user, Password: password, DialTimeout: patience}, endpoint, dial)
		}
	}
}

// Where auth is on, procedures work as etcd's root user and are refused for
// anybody else.
func TestAuth(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13)
	g := on(rig)
	done(t, rig, create("auth"))
	const password = "not-for-the-journal"
	g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		_, err := c.Put(ctx, "/kept", "x")
		require.NoError(t, err)
		_, err = c.RoleAdd(ctx, "root")
		require.NoError(t, err)
		for _, name := range []string{"root", "reader"} {
			_, err = c.UserAdd(ctx, name, password)
			require.NoError(t, err)
		}
		_, err = c.UserGrantRole(ctx, "root", "root")
		require.NoError(t, err)
		_, err = c.RoleAdd(ctx, "reader")
		require.NoError(t, err)
		_, err = c.RoleGrantPermission(ctx, "reader", "/", "0", clientv3.PermissionType(clientv3.PermRead))
		require.NoError(t, err)
		_, err = c.UserGrantRole(ctx, "reader", "reader")
		require.NoError(t, err)
		_, err = c.AuthEnable(ctx)
		require.NoError(t, err)
	})
	g.creds = [2]string{"root", password}

	const reader = "a user who may only read"
	now := time.Now()
	for _, who := range []struct {
		name string
		with
	}{
		{"nobody", func(*scenarios.Operator) {}},
		{"root with a wrong password", as(rig, "root", "wrong")},
		{reader, as(rig, "reader", password)},
	} {
		chain(t, "refused for "+who.name, func(t *testing.T) {
			g.known, g.logins = nil, who.name == reader
			for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h12), sop.Restart{Since: now}, sop.ReloadConfig{Restart: true, Since: now}} {
				r := g.refused(t, p, "auth", who.with, waiving("spare"))
				require.Contains(t, r.Hint, "ETCDCTL_USER")
				require.NotContains(t, r.Text(), password)
			}
		})
	}
	root := as(rig, "root", password)
	chain(t, "all of it works for root", func(t *testing.T) {
		res := done(t, rig, sop.AddMember{Host: h13}, root)
		require.Equal(t, []string{h10, h11, h12, h13}, voters(res.View))
		done(t, rig, sop.Restart{Since: time.Now()}, root)
		lead := leader(t, observe(t, rig, root))
		res = done(t, rig, remove(lead), root)
		require.NotContains(t, voters(res.View), lead)
		requireRetired(t, rig, lead)
		res = done(t, rig, sop.DestroyCluster{Stamp: sop.Stamp(time.Now())}, root)
		require.False(t, res.View.Exists())
	})
}
