package scenarios_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// as lets an operator work under a user of etcd's own. A member takes its time
// to check a password.
func as(rig *scenarios.Rig, user, password string) with {
	return func(o *scenarios.Operator) {
		dial := rig.Lab.DialContext(embedded.Admin)
		const patience = 10 * time.Second
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

const etcdPassword = "not-for-the-journal"

// withUsers gives a cluster where auth is on, with etcd's root and one who may
// only read.
func withUsers(t *testing.T, token string) (*scenarios.Rig, *ground) {
	t.Helper()
	rig := build(t, three, h13)
	g := on(rig)
	done(t, rig, create(token))
	g.ask(t, []string{h10}, func(ctx context.Context, c *clientv3.Client) {
		_, err := c.Put(ctx, "/kept", "x")
		require.NoError(t, err)
		_, err = c.RoleAdd(ctx, "root")
		require.NoError(t, err)
		for _, name := range []string{"root", "reader"} {
			_, err = c.UserAdd(ctx, name, etcdPassword)
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
	g.creds = [2]string{"root", etcdPassword}
	return rig, g
}

// Where auth is on, procedures are refused for everybody but etcd's root user.
func TestAuthRefuses(t *testing.T) {
	t.Parallel()
	rig, g := withUsers(t, "auth")
	const reader = "a user who may only read"
	now := time.Now()
	for _, who := range []struct {
		name string
		with
	}{
		{"nobody", func(*scenarios.Operator) {}},
		{"root with a wrong password", as(rig, "root", "wrong")},
		{reader, as(rig, "reader", etcdPassword)},
	} {
		chain(t, "refused for "+who.name, func(t *testing.T) {
			g.known, g.logins = nil, who.name == reader
			for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h12), sop.Restart{Since: now}, sop.ReloadConfig{Restart: true, Since: now}} {
				r := g.refused(t, p, "auth", who.with, waiving("spare"))
				require.Contains(t, r.Hint, "ETCDCTL_USER")
				require.NotContains(t, r.Text(), etcdPassword)
			}
		})
	}
}

// They work as etcd's root.
func TestAuthWorks(t *testing.T) {
	t.Parallel()
	rig, _ := withUsers(t, "auth-works")
	root := as(rig, "root", etcdPassword)
	res := done(t, rig, sop.AddMember{Host: h13}, root)
	require.Equal(t, []string{h10, h11, h12, h13}, voters(res.View))
	done(t, rig, sop.Restart{Since: time.Now()}, root)
	lead := leader(t, observe(t, rig, root))
	res = done(t, rig, remove(lead), root)
	require.NotContains(t, voters(res.View), lead)
	requireRetired(t, rig, lead)
	res = done(t, rig, sop.DestroyCluster{Stamp: sop.Stamp(time.Now())}, root)
	require.False(t, res.View.Exists())
}

// A snapshot has its users in it. Who restores it has to be its root, which is
// looked at before anything is touched; and gets in as soon as it serves.
func TestRestoreWithUsers(t *testing.T) {
	t.Parallel()
	rig, g := withUsers(t, "restored-users")
	root := as(rig, "root", etcdPassword)
	file := filepath.Join(t.TempDir(), "s.db")
	done(t, rig, sop.Snapshot{File: file, Since: time.Now()}, root)
	for _, h := range []string{h10, h11, h12} {
		crash(t, rig, h)
	}
	denied := func(user, password string) sop.Restore {
		p := restore(t, file)
		if err := sop.SnapshotAdmits(file, user, password); err != nil {
			p.Denied = err.Error()
		}
		return p
	}
	for why, p := range map[string]sop.Restore{
		"no user is given":          denied("", ""),
		"it has no user mallory":    denied("mallory", etcdPassword),
		"root has another password": denied("root", "wrong"),
		"reader has not the role":   denied("reader", etcdPassword),
	} {
		r := refusedBy(t, rig, p, "auth")
		require.Contains(t, r.Found, why)
		require.NotContains(t, r.Text(), etcdPassword)
	}
	p := denied("root", etcdPassword)
	require.Empty(t, p.Denied)
	res := done(t, rig, p, root)
	require.Equal(t, []string{h10, h11, h12}, voters(res.View))
	empty := done(t, rig, denied("root", etcdPassword), root)
	require.True(t, empty.Plan.Empty())
	for user, may := range map[string]bool{"root": true, "reader": true, "mallory": false} {
		g.creds = [2]string{user, etcdPassword}
		c, err := g.client(h11)
		if err == nil {
			var r *clientv3.GetResponse
			if r, err = c.Get(t.Context(), "/kept"); err == nil {
				require.Len(t, r.Kvs, 1)
			}
			require.NoError(t, c.Close())
		}
		require.Equal(t, may, err == nil, "%s: %v", user, err)
	}
}

// Authentication is turned on by the procedure, and everything else works as root
// afterwards.
func TestEnableAuth(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13)
	g := on(rig)
	done(t, rig, create("enable"))
	const password = "not-for-the-journal"
	root := func(o *scenarios.Operator) {
		as(rig, "root", password)(o)
		o.Site.Password = password
	}
	g.logins = true // to ask for users is written to the log as well
	g.refused(t, sop.EnableAuth{}, "root-password")
	r := g.refused(t, sop.EnableAuth{}, "env-credentials", root)
	require.NotContains(t, r.Text(), password)
	g.change(func() {
		for _, h := range []string{h10, h11, h12} {
			f := config.PassFile()
			act(t, rig, h, host.WriteFile{Path: f.Path, Content: []byte(password), Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: true}, host.RemoveFile{Path: config.EnvPath})
		}
		done(t, rig, sop.InstallClientEnv{})
	})
	done(t, rig, sop.EnableAuth{}, root)
	g.creds = [2]string{"root", password}
	g.ask(t, []string{h11}, func(ctx context.Context, c *clientv3.Client) {
		_, err := c.Put(ctx, "/enabled", "x")
		require.NoError(t, err)
	})
	g.known = nil
	g.refused(t, sop.EnableAuth{}, "auth")
	g.unchanged(t, sop.EnableAuth{}, root)
	res := done(t, rig, sop.AddMember{Host: h13}, root)
	require.Equal(t, []string{h10, h11, h12, h13}, voters(res.View))
	done(t, rig, sop.MoveLeadership{To: h13}, root)
}
