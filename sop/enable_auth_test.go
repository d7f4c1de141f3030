package sop

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"

	"github.com/etcdrill/etcdrill/sop/config"
)

const secret = "never-to-be-seen"

// asRoot is an operator who has root's password.
func (g *ground) asRoot() *operator {
	op := g.operator()
	op.user, op.Site.User, op.Site.Password = "root", "root", secret
	return op
}

// envUsers gives etcdctl on hosts its user.
func (g *ground) envUsers(names ...string) {
	g.t.Helper()
	for _, name := range names {
		m := g.w.machines[name]
		m.mkdir(config.ConfDir, "etcd", "etcd", 0o755)
		m.files[config.PassPath] = &node{content: []byte(secret), owner: "root", group: "etcd", mode: 0o640}
		delete(m.files, config.EnvPath)
	}
	g.must(InstallClientEnv{})
}

// clientUsers gives Patroni and vip-manager a user in their files.
func (g *ground) clientUsers(user, password string) {
	g.t.Helper()
	for _, h := range pgHosts {
		for path, edit := range map[string][2]string{
			config.PatroniPath:    {"  password: 'hush'\n", fmt.Sprintf("  username: '%s'\n  password: '%s'\n", user, password)},
			config.VIPManagerPath: {"etcd-password: \"hush\"\n", fmt.Sprintf("etcd-user: %s\netcd-password: %s\n", user, password)},
		} {
			n := g.w.machines[h].files[path]
			text := strings.Replace(string(n.content), edit[0], edit[1], 1)
			require.NotEqual(g.t, text, string(n.content), path)
			n.content = []byte(text)
		}
	}
}

// grants makes a user of etcd who may do something below a prefix.
func (g *ground) grants(user, password, prefix string, may authpb.Permission_Type) {
	c := g.etcd()
	c.users[user] = &fakeUser{password, []string{user}}
	c.roles[user] = []*authpb.Permission{{PermType: may, Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0")}}
}

func TestEnableAuth(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		p := EnableAuth{}
		g.refusal(g.operator(), p, "root-password")
		r := g.refusal(g.asRoot(), p, "env-credentials")
		require.Contains(g.t, r.Hint, config.PassPath)
		g.envUsers(hosts[:3]...)
		op := g.asRoot()
		_, err := op.do(p)
		require.NoError(g.t, err, op.story())
		c := g.etcd()
		require.True(g.t, c.auth)
		require.Equal(g.t, &fakeUser{secret, []string{"root"}}, c.users["root"])
		require.NotContains(g.t, op.story(), secret)
		op = g.asRoot()
		res, err := op.do(p)
		require.NoError(g.t, err, op.story())
		require.True(g.t, res.Plan.Empty())
		g.refusal(g.operator(), p, "auth")
	})
}

// A user root who was there before may have any password, and nobody could get
// in: he is made anew. Nothing depends on him while authentication is off.
func TestEnableAuthWithAnotherRoot(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.envUsers(hosts[:3]...)
		g.etcd().users["root"] = &fakeUser{password: "forgotten"}
		op := g.asRoot()
		_, err := op.do(EnableAuth{})
		require.NoError(g.t, err, op.story())
		require.Equal(g.t, &fakeUser{secret, []string{"root"}}, g.etcd().users["root"])
	})
}

// No client is cut off that anybody knows of.
func TestEnableAuthWithClients(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		g.envUsers(append([]string{infraHost}, hosts[:3]...)...)
		p := EnableAuth{}
		r := g.refusal(g.asRoot(), p, "client-credentials")
		require.Contains(g.t, r.Found, "no user and password")
		require.Empty(g.t, r.Risk, "it cannot be waived")
		g.clientUsers("pg", "pg-secret")
		r = g.refusal(g.asRoot(), p, "client-credentials")
		require.Contains(g.t, r.Found, "etcd has no user pg")
		require.Contains(g.t, r.Hint, "readwrite /pg/pg-test/")
		g.grants("pg", "pg-secret", "/pg/", authpb.READ)
		r = g.refusal(g.asRoot(), p, "client-credentials")
		require.Contains(g.t, r.Found, "no permission to readwrite /pg/pg-test/")
		g.grants("pg", "pg-secret", "/pg/pg-other/", authpb.READWRITE)
		g.refusal(g.asRoot(), p, "client-credentials")
		g.w.machines[pgHosts[1]].reach = false
		r = g.refusal(g.asRoot(), p, "client-credentials")
		require.Equal(g.t, pgHosts[1], r.Host)
		g.w.machines[pgHosts[1]].reach = true
		g.grants("pg", "pg-secret", "/pg/", authpb.READWRITE)
		op := g.asRoot()
		_, err := op.do(p)
		require.NoError(g.t, err, op.story())
		require.NotContains(g.t, op.story(), "pg-secret")
	})
}

// An election is waited for, and what was asked about users before it is asked
// again afterwards.
func TestEnableAuthAfterAnElection(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		g.envUsers(append([]string{infraHost}, hosts[:3]...)...)
		g.clientUsers("pg", "pg-secret")
		g.grants("pg", "pg-secret", "/pg/", authpb.READWRITE)
		c := g.etcd()
		g.w.mu.Lock()
		c.leader, c.since = 0, time.Now()
		g.w.mu.Unlock()
		op := g.asRoot()
		_, err := op.do(EnableAuth{})
		require.NoError(g.t, err, op.story())
		require.True(g.t, c.auth)
	})
}

// A password that etcd has otherwise shows only afterwards: the run says which
// and how to go back, and does not call it done.
func TestEnableAuthWithAWrongPassword(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.withClients(3)
		g.envUsers(append([]string{infraHost}, hosts[:3]...)...)
		g.clientUsers("pg", "pg-secret")
		g.grants("pg", "another", "/pg/", authpb.READWRITE)
		op := g.asRoot()
		_, err := op.do(EnableAuth{})
		require.ErrorContains(g.t, err, "user pg does not get in")
		require.ErrorContains(g.t, err, "auth disable")
		require.NotContains(g.t, err.Error(), "pg-secret")
		g.etcd().users["pg"].password = "pg-secret"
		op = g.asRoot()
		_, err = op.do(EnableAuth{})
		require.NoError(g.t, err, op.story())
	})
}

// An operator dies at every point, and the same command leaves what one that
// nobody disturbed leaves.
func TestEnableAuthKilled(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		g.envUsers(hosts[:3]...)
		for n := 1; ; n++ {
			cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(n)))
			op := cut.asRoot()
			died, at, err := op.dieAt(n, EnableAuth{})
			require.NoError(g.t, err, op.story())
			if !died {
				require.Greater(g.t, n, 10)
				break
			}
			again := cut.asRoot()
			_, err = again.do(EnableAuth{})
			require.NoError(g.t, err, "killed at %+v, then\n%s", at, again.story())
			c := cut.etcd()
			require.True(g.t, c.auth)
			require.Equal(g.t, &fakeUser{secret, []string{"root"}}, c.users["root"], "killed at %+v", at)
			time.Sleep(15 * time.Second)
			require.Empty(g.t, cut.etcd().keys)
		}
	})
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		key, end string
		holds    bool
	}{
		{"/pg/", "/pg0", true},
		{"/pg/pg-test/", "/pg/pg-test0", true},
		{"/", "0", true},
		{"\x00", "\x00", true},
		{"/pg/pg-other/", "/pg/pg-other0", false},
		{"/pg/pg-test/", "/pg/pg-test/z", false},
		{"/pg/pg-test/", "", true}, // a key of that name; for vip-manager's trigger key
		{"/q", "/r", false},
	} {
		p := &authpb.Permission{Key: []byte(c.key), RangeEnd: []byte(c.end)}
		require.Equal(t, c.holds, covers(p, "/pg/pg-test/"), "%q to %q", c.key, c.end)
	}
}
