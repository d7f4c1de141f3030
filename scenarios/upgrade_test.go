package scenarios_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Real members of other versions than the one that is linked in. Their binaries
// are built the first time, and kept in the user's cache.
func withEtcds(t *testing.T, version string, more ...string) scenarios.RigSpec {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT TESTED: real etcd binaries are built, which takes minutes the first time")
	}
	versions, err := scenarios.Etcds(t.Context(), etcdCache(t), t.Output(), append(more, version)...)
	require.NoError(t, err)
	return scenarios.RigSpec{Inventory: []byte(three), Version: version, Versions: versions}
}

func etcdCache(t *testing.T) string {
	t.Helper()
	_, cache := places(t)
	return cache
}

func upgrade(version string) sop.Procedure { return sop.Upgrade{Version: version} }

func runAll(t *testing.T, rig *scenarios.Rig, version string) {
	t.Helper()
	for _, l := range observe(t, rig).Looks {
		if l.Answers() {
			require.Equal(t, version, l.Version, l.Endpoint)
		}
	}
}

func refusedBy(t *testing.T, rig *scenarios.Rig, p sop.Procedure, safeguard string) *sop.Refusal {
	t.Helper()
	_, err := run(t, rig, p)
	var r *sop.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, safeguard, r.Safeguard, "%v", err)
	require.False(t, r.Changed)
	return r
}

// A host with an etcd of another version has the etcdutl of that version beside it,
// which tells its version otherwise than the rest does.
func TestEtcdutlOfAnotherVersion(t *testing.T) {
	t.Parallel()
	rig := buildSpec(t, withEtcds(t, "3.5.35"))
	const path = "/usr/bin/etcdutl"
	f, err := rig.Lab.Host(h10).Look(t.Context(), host.Question{Programs: []string{path}})
	require.NoError(t, err)
	require.Equal(t, host.Binary{Path: path, Version: "3.5.35"}, f.Programs[path])
}

// etcd issues 19557 and 20793, on real members: learners that were promoted by
// 3.5.16 are promoted in its v2 store and not in the backend, by which 3.6 goes.
func TestPromotionsThatWereNotStored(t *testing.T) {
	t.Parallel()
	spec := withEtcds(t, "3.5.16", "3.5.35", "3.6.16")
	spec.Spares = []string{h13, h14}
	promoted := func(t *testing.T, token string) *scenarios.Rig {
		rig := buildSpec(t, spec)
		done(t, rig, create(token))
		for _, h := range spec.Spares {
			done(t, rig, sop.AddMember{Host: h})
		}
		require.Equal(t, []string{h10, h11, h12, h13, h14}, voters(observe(t, rig)), "nothing is to be seen of it")
		return rig
	}
	t.Run("naively, the first member does not come up again", func(t *testing.T) {
		t.Parallel()
		rig := promoted(t, "naive")
		h := rig.Lab.Host(h10)
		require.NoError(t, h.Do(t.Context(), host.InstallPackage{Package: "etcd", Version: "3.6.16"}))
		require.NoError(t, h.Do(t.Context(), host.Systemctl{Verb: host.Restart, Unit: config.UnitName, NoBlock: true}))
		log := filepath.Join(rig.Lab.Root(h10), "var", "log", "journal-"+config.UnitName+".log")
		eventually(t, "it says why", func() bool {
			said, err := os.ReadFile(log)
			return err == nil && strings.Contains(string(said), "too many learner members in cluster")
		})
		v := observe(t, rig)
		require.False(t, v.LookAt(h10).Answers())
		require.Equal(t, 4, v.Votes().Alive(), "the others go on, until they are restarted too")
	})
	t.Run("ours refuses, and says the way", func(t *testing.T) {
		t.Parallel()
		rig := promoted(t, "ours")
		r := refusedBy(t, rig, upgrade("3.6.16"), "patch-level")
		require.Equal(t, "first: upgrade 3.5.35", r.Hint)
		done(t, rig, upgrade("3.5.35"))
		runAll(t, rig, "3.5.35")

		// All run what etcd's own guide asks for, and that is not enough: a member
		// mends what it hears of others after its own start.
		r = refusedBy(t, rig, upgrade("3.6.16"), "stored-members")
		require.Contains(t, r.Found, "as a learner, though it was promoted")
		require.Contains(t, r.Hint, "restart")
		done(t, rig, sop.Restart{Since: time.Now()})
		done(t, rig, upgrade("3.6.16"))
		runAll(t, rig, "3.6.16")
		require.Equal(t, []string{h10, h11, h12, h13, h14}, voters(observe(t, rig)))
		requireConsistent(t, rig)
	})
}

// A binary of the admin host, and one that does not take the configuration.
func TestUpgradeFromABinary(t *testing.T) {
	t.Parallel()
	spec := withEtcds(t, "3.5.35", "3.6.16")
	rig := buildSpec(t, spec)
	done(t, rig, create("binary"))
	from := spec.Versions["3.6.16"]
	content, err := os.ReadFile(rig.Inventory())
	require.NoError(t, err)
	text := strings.Replace(string(content), "etcd_cluster: etcd", "etcd_cluster: etcd\n        etcd_binary_from: "+from+"\n        etcd_binary_sha256: "+sumOfFile(t, from), 1)
	require.NotEqual(t, string(content), text)
	require.NoError(t, os.WriteFile(rig.Inventory(), []byte(text), 0o600))

	done(t, rig, upgrade("3.6.16"))
	runAll(t, rig, "3.6.16")
	for _, h := range []string{h10, h11, h12} {
		facts, err := rig.Lab.Host(h).Look(context.Background(), host.Question{Programs: []string{"/usr/bin/etcd-3.5.35", "/usr/bin/etcd-3.6.16"}})
		require.NoError(t, err)
		require.Equal(t, "3.5.35", facts.Programs["/usr/bin/etcd-3.5.35"].Version)
		require.Equal(t, "3.6.16", facts.Programs["/usr/bin/etcd-3.6.16"].Version)
	}
	requireConsistent(t, rig)
}

// A twin begins with the etcd that production runs.
func TestRehearseUpgrade(t *testing.T) {
	t.Parallel()
	spec := withEtcds(t, "3.6.16")
	sum, err := scenarios.Rehearse(t.Context(), scenarios.RehearseSpec{
		Inventory: spec.Inventory, Args: []string{"upgrade", "3.7.3"}, Version: spec.Version, Cache: etcdCache(t),
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: t.Output(),
	})
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Contains(t, titles(sum.Procedures[1].Steps), "install etcd 3.7.3")
	require.NotContains(t, strings.Join(sum.Unknown, "\n"), "which production runs")
}

// Where production's etcd cannot be built, most is to be learned with another.
func TestRehearseWithoutProductionsEtcd(t *testing.T) {
	t.Parallel()
	spec := scenarios.RehearseSpec{
		Inventory: []byte(three), Args: []string{"restart"}, Version: "3.6.16", Cache: "/dev/null/none",
		Executable: executable(t), Root: t.TempDir(), Out: keep(t), Seed: 3, Rate: testRate, Report: t.Output(),
	}
	sum, err := scenarios.Rehearse(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, scenarios.Pass, sum.Verdict, sum.Reasons)
	require.Contains(t, strings.Join(sum.Unknown, "\n"), "etcd 3.6.16, which production runs and which could not be built here")
	spec.Args = []string{"upgrade", "3.7.3"}
	sum, err = scenarios.Rehearse(t.Context(), spec)
	require.Error(t, err, "of an upgrade nothing is")
	require.Equal(t, scenarios.Infra, sum.Verdict)
}

func sumOfFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(content))
}
