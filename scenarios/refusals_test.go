package scenarios_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

const infraHost = "10.10.10.9"

// threeAndInfra has a host of its own in group infra, and one host that asks
// for less quota than the members have.
const threeAndInfra = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: etcd
    infra:
      hosts:
        10.10.10.9: { infra_seq: 1 }
`

// A bad state of a newcomer, of the cluster, or of what the operator brings
// along. All of these are played on one lab: each leaves it as it was, and the
// next begins with the proof of that.
func TestRefusedNewcomers(t *testing.T) {
	t.Parallel()
	rig := buildSpec(t, scenarios.RigSpec{Inventory: []byte(three), Spares: []string{h13, h14, h15, h16, h17}})
	g := on(rig)
	done(t, rig, create("newcomers"))

	foreign(t, rig, h14, "lives")
	foreign(t, rig, h16, "lived")
	crash(t, rig, h16)
	act(t, rig, h16, host.RemoveFile{Path: config.UnitPath}, host.Systemctl{Verb: host.DaemonReload})
	require.NoError(t, rig.Lab.Power(t.Context(), h15, false))
	release := occupy(t, rig, h17, "2380")

	// The newcomer.
	for _, c := range []struct {
		name, host, safeguard, found string
	}{
		{"is a member", h11, "no-member-yet", "voter already"},
		{"runs another etcd", h14, "blank-host", "/data/etcd holds the data of member"},
		{"has no power", h15, "reachable", "cannot be reached"},
		{"has data of another cluster", h16, "blank-host", "/data/etcd holds the data of member"},
		{"has its peer port taken", h17, "blank-host", "port 2380 is taken"},
	} {
		chain(t, "add host that "+c.name, func(t *testing.T) {
			r := g.refused(t, sop.AddMember{Host: c.host}, c.safeguard)
			require.Equal(t, c.host, r.Host)
			require.Contains(t, r.Found, c.found)
		})
	}
	release()

	chain(t, "add host that runs another etcd, its data elsewhere", func(t *testing.T) {
		g.change(func() {
			act(t, rig, h14, host.Systemctl{Verb: host.Stop, Unit: config.UnitName}, host.Delete{Path: config.DefaultDataDir}, host.MakeDir{Path: "/data/other", Owner: "etcd", Group: "etcd", Mode: 0o700})
			conf := strings.Replace(string(facts(t, rig, h14).Files[config.ConfPath].Content), "/data/etcd", "/data/other", 1)
			act(t, rig, h14, host.WriteFile{Path: config.ConfPath, Content: []byte(conf), Owner: "etcd", Group: "etcd", Mode: 0o644}, host.Systemctl{Verb: host.Start, Unit: config.UnitName})
		})
		r := g.refused(t, sop.AddMember{Host: h14}, "blank-host")
		require.Contains(t, r.Found, "etcd.service is active there")
	})
	chain(t, "purge a member", func(t *testing.T) {
		g.refused(t, sop.PurgeHost{Host: h12}, "no-member")
	})
	chain(t, "add what is no host", func(t *testing.T) {
		g.refused(t, sop.AddMember{Host: "a,b"}, "valid-host")
	})

	// Removal.
	chain(t, "remove a host that nobody knows", func(t *testing.T) {
		r := g.refused(t, remove(h13), "known-host")
		require.Contains(t, r.Found, "neither inventory nor member list")
	})
	chain(t, "remove one of three without the waiver", func(t *testing.T) {
		for _, name := range []string{leader(t, observe(t, rig)), h12} {
			r := g.refused(t, remove(name), "spare")
			require.NotEmpty(t, r.Risk, "this one can be waived")
		}
	})

}

// What the operator brings along is not what it should be.
func TestRefusedInventories(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13, h14)
	g := on(rig)
	done(t, rig, create("inventories"))

	// The inventory.
	edited := func(f func(content []byte) []byte) with {
		content, err := os.ReadFile(rig.Inventory())
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "pigsty.yml")
		require.NoError(t, os.WriteFile(path, f(content), 0o644))
		return func(o *scenarios.Operator) { o.Site.Inventory = path }
	}
	chain(t, "newcomer whose quota is below the members'", func(t *testing.T) {
		less := edited(func(content []byte) []byte {
			content, err := inventory.AddHost(content, "etcd", h13, 4)
			require.NoError(t, err)
			return []byte(strings.Replace(string(content), "etcd_seq: 4", "etcd_seq: 4, etcd_quota_backend_bytes: 2147483648", 1))
		})
		r := g.refused(t, sop.AddMember{Host: h13}, "quota", less)
		require.Contains(t, r.Found, "2147483648")
		require.Equal(t, h13, r.Host)
	})
	chain(t, "stale copy of the inventory", func(t *testing.T) {
		stale := edited(func(content []byte) []byte {
			content, err := inventory.RemoveHost(content, "etcd", h12)
			require.NoError(t, err)
			content, err = inventory.AddHost(content, "etcd", h14, 4)
			require.NoError(t, err)
			return content
		})
		for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h11), sop.ReloadConfig{}, sop.Restart{Since: time.Now()}} {
			r := g.refused(t, p, "inventory-agrees", stale)
			require.Contains(t, r.Found, h12)
			require.Contains(t, r.Found, h14)
		}
		g.refused(t, destroy(), "inventory-agrees", stale)
		g.refused(t, sop.CreateCluster{Token: "etcd-20260101T000000Z-stale", Stamp: "20260101T000000Z"}, "inventory-agrees", stale)
	})
	chain(t, "inventory with a fault", func(t *testing.T) {
		faulty := edited(func(content []byte) []byte {
			return []byte(strings.Replace(string(content), "etcd_seq: 2", "etcd_seq: 1", 1))
		})
		g.refused(t, sop.AddMember{Host: h13}, "inventory-sound", faulty)
		g.refused(t, sop.Restart{Since: time.Now()}, "inventory-sound", faulty)
	})
	chain(t, "inventory that cannot be written", func(t *testing.T) {
		var path string
		same := edited(func(content []byte) []byte { return content })
		o := rig.Operator("plan")
		defer o.Site.Close()
		same(o)
		path = o.Site.Inventory
		unwritable(t, filepath.Dir(path), func() {
			r := g.refused(t, sop.AddMember{Host: h13}, "inventory-writable", same)
			require.Contains(t, r.Hint, "-inventory=patch")
			g.refused(t, remove(h12), "inventory-writable", same, waiving("spare"))
			// Who does not want it edited need not be able to.
			o.Site.Edit = "none"
			plan, v, err := o.Runner.Explain(t.Context(), sop.AddMember{Host: h13})
			require.NoError(t, err)
			require.Empty(t, plan.Objections(v))
		})
	})

	// What the admin host keeps.
	chain(t, "another cluster ID is remembered", func(t *testing.T) {
		state := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(state, "cluster-id.etcd"), []byte("abcdef\n"), 0o600))
		other := func(o *scenarios.Operator) { o.Site.State = state }
		for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h12), sop.Restart{Since: time.Now()}, sop.Snapshot{File: filepath.Join(state, "s.db"), Since: time.Now()}} {
			r := g.refused(t, p, "remembered-cluster", other)
			require.Contains(t, r.Found, "abcdef")
		}
	})
	chain(t, "no CA in files/pki", func(t *testing.T) {
		none := func(o *scenarios.Operator) { o.Site.PKI = pki.Dir(t.TempDir()) }
		g.refused(t, sop.AddMember{Host: h13}, "ca", none)
		r := g.refused(t, sop.CreateCluster{Clean: ptr(true), Token: "etcd-20260101T000000Z-ca", Stamp: "20260101T000000Z"}, "ca", none)
		require.Contains(t, r.Hint, "files/pki")
	})
	chain(t, "another CA in files/pki", func(t *testing.T) {
		dir := pki.Dir(t.TempDir())
		ca, err := pki.NewCA(rand.Reader, time.Now())
		require.NoError(t, err)
		require.NoError(t, dir.Save(ca))
		other := func(o *scenarios.Operator) { o.Site.PKI = dir }
		g.refused(t, sop.AddMember{Host: h13}, "ca", other)
		g.refused(t, sop.CreateCluster{Clean: ptr(true), Token: "etcd-20260101T000000Z-ca", Stamp: "20260101T000000Z"}, "ca", other)
	})

	// Who else is there.
	chain(t, "another operator", func(t *testing.T) {
		first := rig.Operator("first")
		defer first.Site.Close()
		first.Runner.Agree = func(sop.Consent) error { return nil }
		reached, goOn := make(chan struct{}), make(chan struct{})
		ended := make(chan error, 1)
		first.Runner.Journal = sop.JournalFunc(func(r sop.Record) error {
			if r.State == sop.Recorded {
				close(reached)
				<-goOn
				return sop.ErrInterrupted
			}
			return nil
		})
		g.change(func() {
			go func() {
				_, err := first.Runner.Do(t.Context(), sop.Restart{Since: time.Now()})
				ended <- err
			}()
			select {
			case <-reached:
			case err := <-ended:
				t.Fatal(err)
			}
		})
		r := g.refused(t, sop.AddMember{Host: h13}, "lock")
		require.Contains(t, r.Found, "operator@admin")
		require.Contains(t, r.Found, "restart")
		close(goOn)
		require.ErrorIs(t, <-ended, sop.ErrInterrupted)
		g.known = nil
	})

}

// Hosts that could come back, and the votes that are left without them.
func TestRefusedWithoutHosts(t *testing.T) {
	t.Parallel()
	rig := build(t, threeAndInfra, h13)
	g := on(rig)
	done(t, rig, create("hosts"))

	chain(t, "infra host without power", func(t *testing.T) {
		g.change(func() { require.NoError(t, rig.Lab.Power(t.Context(), infraHost, false)) })
		r := g.refused(t, sop.AddMember{Host: h13}, "references-reachable")
		require.Equal(t, infraHost, r.Host)
		g.refused(t, remove(h12), "references-reachable", waiving("spare"))
		g.change(func() { require.NoError(t, rig.Lab.Power(t.Context(), infraHost, true)) })
	})
	chain(t, "member without power", func(t *testing.T) {
		g.change(func() { require.NoError(t, rig.Lab.Power(t.Context(), h12, false)) })
		stamp := "20260101T000000Z"
		for _, p := range []sop.Procedure{sop.DestroyCluster{Stamp: stamp}, sop.PurgeCluster{}, sop.CreateCluster{Clean: ptr(true), Token: "etcd-20260101T000000Z-off", Stamp: stamp}} {
			r := g.refused(t, p, "unreachable")
			require.Equal(t, h12, r.Host)
			require.NotEmpty(t, r.Risk, "this one can be waived")
		}
		g.refused(t, sop.PurgeHost{Host: h12}, "no-member")
		r := g.refused(t, sop.ReloadConfig{Restart: true, Since: time.Now()}, "references-reachable")
		require.Equal(t, h12, r.Host)
	})
}

// The vote rule, three with one dead: nobody is added and no living one is
// removed, until the dead one is.
func TestRefusedVotes(t *testing.T) {
	t.Parallel()
	// The log on a disk of its own is set aside as well.
	rig := buildSpec(t, scenarios.RigSpec{Inventory: []byte(strings.Replace(three, "etcd_cluster: etcd", "etcd_cluster: etcd\n        etcd_wal_dir: "+walDir, 1)),
		Spares: []string{h13}, Mounts: []string{config.DefaultDataDir, walDir}})
	g := on(rig)
	done(t, rig, create("votes"))
	g.change(func() { crash(t, rig, h12) })

	r := g.refused(t, sop.AddMember{Host: h13}, "votes", waiving("voters-answer"))
	require.Contains(t, r.Hint, "removeMember "+h12)
	for _, living := range []string{h10, h11} {
		r := g.refused(t, remove(living), "votes", waiving("spare", "voters-answer"))
		require.Contains(t, r.Hint, "removeMember "+h12)
	}
	g.refused(t, sop.Restart{Since: time.Now()}, "voters-answer")

	res := done(t, rig, remove(h12))
	require.Equal(t, []string{h10, h11}, voters(res.View))
	requireRetired(t, rig, h12)
	wal := facts(t, rig, h12).Dirs[walDir]
	require.Empty(t, wal.Entries)
	require.Len(t, wal.Aside, 1)
	require.Positive(t, wal.Aside[0].Bytes)
	g.known = nil
	g.unchanged(t, remove(h12)) // again: done, as the journal and its data say
	g.refused(t, remove(h11), "spare")
	done(t, rig, remove(leader(t, res.View)), waiving("spare"))
	g.known = nil
	last := voters(observe(t, rig))
	require.Len(t, last, 1)
	r = g.refused(t, remove(last[0]), "votes", waiving("spare"))
	require.Contains(t, r.Found, "last")
	require.Contains(t, r.Hint, "destroyCluster")
}

// occupy lets another program listen on a host's port.
func occupy(t *testing.T, rig *scenarios.Rig, name, port string) (release func()) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	p, err := rig.Lab.Exec(t.Context(), name, []string{exe, playOccupy, name + ":" + port}, os.Environ(), "", nil, w, os.Stderr)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	ready := make([]byte, 1)
	_, err = r.Read(ready) // it says so when it listens
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return func() {
		require.NoError(t, p.Signal(unix.SIGKILL))
		_, err := p.Wait()
		require.NoError(t, err)
	}
}

// unwritable runs f where a directory cannot be written: by its mode for
// ordinary users; for root, who passes over modes, in a mount namespace in
// which it is mounted read-only. That namespace is the calling thread's alone,
// as an operator reads and tries the inventory on the goroutine that runs it.
func unwritable(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(dir, 0o555))
		defer func() { require.NoError(t, os.Chmod(dir, info.Mode().Perm())) }()
		f()
		return
	}
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		finished := false
		defer func() {
			if !finished {
				ended <- errors.New("it was not finished")
			}
		}()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount(dir, dir, "", unix.MS_BIND, "")
		}
		if err == nil {
			err = unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err == nil {
			f()
		}
		finished = true
		ended <- err
	}()
	require.NoError(t, <-ended)
}

// One change of members at a time: while one is pending, only that host's goes
// on or is given up.
func TestPending(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13, h14)
	g := on(rig)
	done(t, rig, create("pending"))

	others := func(t *testing.T) {
		t.Helper()
		for _, p := range []sop.Procedure{sop.AddMember{Host: h14}, remove(h12), sop.Restart{Since: time.Now()}} {
			r := g.refused(t, p, "nothing-pending", waiving("inventory-agrees"))
			require.Equal(t, h13, r.Host)
			require.Contains(t, r.Hint, "removeMember "+h13)
			require.Contains(t, r.Hint, "addMember "+h13)
		}
	}
	chain(t, "learner that has not started", func(t *testing.T) {
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			eventually(t, "etcd takes the learner", func() bool {
				_, err := c.MemberAddAsLearner(ctx, []string{"https://" + h13 + ":2380"})
				return err == nil
			})
		})
		others(t)
	})
	chain(t, "given up", func(t *testing.T) {
		res := done(t, rig, remove(h13))
		require.Equal(t, []string{h10, h11, h12}, voters(res.View))
		require.Len(t, res.View.Members, 3)
		g.known = nil
	})
	chain(t, "learner that runs", func(t *testing.T) {
		_, err := run(t, rig, sop.AddMember{Host: h13}, stoppedAt("promote to voter"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		g.known = nil
		v := observe(t, rig)
		require.Len(t, v.Learners(), 1)
		others(t)
	})
	chain(t, "the same host goes on", func(t *testing.T) {
		res := done(t, rig, sop.AddMember{Host: h13})
		require.Equal(t, []string{h10, h11, h12, h13}, voters(res.View))
		g.known = nil
	})
	chain(t, "voter that has not started", func(t *testing.T) {
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			eventually(t, "etcd takes the voter", func() bool {
				_, err := c.MemberAdd(ctx, []string{"https://" + h14 + ":2380"})
				return err == nil
			})
		})
		r := g.refused(t, remove(h12), "nothing-pending", waiving("inventory-agrees", "voters-answer", "spare"))
		require.Equal(t, h14, r.Host)
		done(t, rig, remove(h14))
		g.known = nil
		require.Equal(t, []string{h10, h11, h12, h13}, voters(observe(t, rig)))
	})
}

// An alarm stops everything but the removal of the learner that raised it.
func TestAlarms(t *testing.T) {
	t.Parallel()
	const quota = 16 << 20
	rig := build(t, strings.Replace(three, "etcd_cluster: etcd", fmt.Sprintf("etcd_cluster: etcd\n        etcd_quota_backend_bytes: %d", quota), 1), h13)
	g := on(rig)
	done(t, rig, create("alarm"))
	disarm := func(t *testing.T) {
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			list, err := c.AlarmList(ctx)
			require.NoError(t, err)
			for _, a := range list.Alarms {
				_, err := c.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a))
				require.NoError(t, err)
			}
		})
		eventually(t, "the alarm ends on every member", func() bool { return len(observe(t, rig).Alarms()) == 0 })
	}
	alarmed := func(t *testing.T) {
		eventually(t, "every member knows of the alarm", func() bool {
			for _, l := range observe(t, rig).Looks {
				if l.Answers() && !l.Learner && len(l.Alarms) == 0 {
					return false
				}
			}
			return true
		})
	}
	put := func(ctx context.Context, c *clientv3.Client, n int) error {
		for i := range n {
			if _, err := c.Put(ctx, fmt.Sprintf("/fill/%d", i), strings.Repeat("x", 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}

	chain(t, "raised by a learner that is given up", func(t *testing.T) {
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) { require.NoError(t, put(ctx, c, 4)) })
		_, err := run(t, rig, sop.AddMember{Host: h13}, stoppedAt("promote to voter"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		// Its quota was written by hand, which no procedure would do.
		conf := string(facts(t, rig, h13).Files[config.ConfPath].Content)
		small := strings.Replace(conf, fmt.Sprint(quota), fmt.Sprint(1<<20), 1)
		require.NotEqual(t, conf, small)
		act(t, rig, h13, host.WriteFile{Path: config.ConfPath, Content: []byte(small), Owner: "etcd", Group: "etcd", Mode: 0o644},
			host.Systemctl{Verb: host.Restart, Unit: config.UnitName})
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			eventually(t, "the learner raises the alarm", func() bool {
				_, err := c.Put(ctx, "/any", "x")
				return err != nil
			})
		})
		alarmed(t)
		g.refused(t, sop.AddMember{Host: h13}, "no-alarm") // not even the same host goes on
		res := done(t, rig, remove(h13))
		require.Equal(t, []string{h10, h11, h12}, voters(res.View))
		require.Empty(t, res.View.Learners())
		g.known = nil
	})
	chain(t, "left behind by it", func(t *testing.T) {
		g.refused(t, sop.AddMember{Host: h13}, "no-alarm")
		disarm(t)
	})
	chain(t, "raised by a full quota", func(t *testing.T) {
		g.ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			err := put(ctx, c, 32)
			require.ErrorContains(t, err, "database space exceeded")
		})
		alarmed(t)
		now := time.Now()
		for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h12), sop.Restart{Since: now}, sop.ReloadConfig{Restart: true, Since: now}} {
			r := g.refused(t, p, "no-alarm", waiving("spare"))
			require.Contains(t, r.Found, "NOSPACE")
			require.Contains(t, r.Hint, "disarm")
		}
	})
	chain(t, "full again as soon as it is disarmed", func(t *testing.T) {
		disarm(t)
		r := g.refused(t, sop.AddMember{Host: h13}, "quota-headroom")
		require.Contains(t, r.Found, fmt.Sprint(quota))
	})
}

// One host was rebuilt alone: two clusters answer on the endpoints of one.
func TestTwoClusters(t *testing.T) {
	t.Parallel()
	rig := build(t, three, h13)
	g := on(rig)
	done(t, rig, create("first"))
	crash(t, rig, h12)
	conf := string(facts(t, rig, h12).Files[config.ConfPath].Content)
	var alone []string
	for _, line := range strings.Split(conf, "\n") {
		key, _, _ := strings.Cut(line, ":")
		switch key {
		case "initial-cluster":
			line = "initial-cluster: etcd-3=https://" + h12 + ":2380"
		case "initial-cluster-state":
			line = "initial-cluster-state: new"
		case "initial-cluster-token":
			line = "initial-cluster-token: alone"
		}
		alone = append(alone, line)
	}
	act(t, rig, h12, host.Delete{Path: config.DefaultDataDir}, host.MakeDir{Path: config.DefaultDataDir, Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.WriteFile{Path: config.ConfPath, Content: []byte(strings.Join(alone, "\n")), Owner: "etcd", Group: "etcd", Mode: 0o644},
		host.Systemctl{Verb: host.Start, Unit: config.UnitName})
	eventually(t, "two clusters answer", func() bool {
		ids := map[uint64]bool{}
		for _, l := range observe(t, rig).Looks {
			if l.Answers() {
				ids[l.ClusterID] = true
			}
		}
		return len(ids) == 2
	})
	now := time.Now()
	for _, p := range []sop.Procedure{sop.AddMember{Host: h13}, remove(h11), remove(h12), sop.Restart{Since: now}, sop.ReloadConfig{Only: []string{"etcd.conf"}, Restart: true, Since: now}} {
		r := g.refused(t, p, "one-cluster", waiving("voters-answer", "spare"))
		require.Equal(t, h12, r.Host)
		require.Contains(t, r.Found, "cluster ID mismatch")
	}
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}
