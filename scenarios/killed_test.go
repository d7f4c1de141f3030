package scenarios_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

var (
	exhaustive = flag.Bool("exhaustive", false, "kill operators at every point, not at a sample of them")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of the sample of kill points; 0 takes a new one")
	killPoints = flag.Int("kill.points", 3, "how many kill points of each procedure are tried")
)

// A victim is a procedure whose operators are killed.
type victim struct {
	args   func(t *testing.T, g *ground) []string
	spares []string
	// prepare brings the lab to where the procedure begins, from the lab as it
	// was made and from where the procedure ended alike.
	prepare func(t *testing.T, g *ground)
	loaded  bool // there is a cluster all the while, so clients write to it
	// after asks for more than the end state; began is when the operator set
	// out for the first time.
	after func(t *testing.T, g *ground, began time.Time)
}

func words(w ...string) func(*testing.T, *ground) []string {
	return func(*testing.T, *ground) []string { return w }
}

// reset puts a host back to where it had never been a member.
func reset(t *testing.T, g *ground, name string) {
	t.Helper()
	v := observe(t, g.Rig)
	if _, in := v.At(name); in {
		done(t, g.Rig, remove(name), waiving("spare"))
	}
	done(t, g.Rig, sop.PurgeHost{Host: name})
	for _, pattern := range []string{"etcd/etcd-4.*", "csr/etcd-4.*"} {
		names, err := filepath.Glob(filepath.Join(filepath.Dir(g.Inventory()), "files", "pki", pattern))
		require.NoError(t, err)
		for _, n := range names {
			require.NoError(t, os.Remove(n))
		}
	}
}

// formed makes the cluster where there is none.
func formed(t *testing.T, g *ground) {
	t.Helper()
	if !observe(t, g.Rig).Exists() {
		done(t, g.Rig, fresh(t, nil, nil))
	}
}

func victims() map[string]victim {
	return map[string]victim{
		"addMember": {
			args: words("addMember", h13), spares: []string{h13}, loaded: true,
			prepare: func(t *testing.T, g *ground) {
				formed(t, g)
				reset(t, g, h13)
			},
		},
		"removeMember of the leader": {
			args: words("removeMember", h10, "-waive=spare", "-reason=test"), loaded: true,
			prepare: func(t *testing.T, g *ground) {
				formed(t, g)
				if _, in := observe(t, g.Rig).At(h10); !in {
					content, err := os.ReadFile(g.Inventory())
					require.NoError(t, err)
					// With the etcd_seq that it had, so that all runs are alike.
					content = bytes.Replace(content, []byte("      hosts:\n"), []byte("      hosts:\n        "+h10+": { etcd_seq: 1 }\n"), 1)
					require.NoError(t, os.WriteFile(g.Inventory(), content, 0o644))
					done(t, g.Rig, sop.PurgeHost{Host: h10})
					done(t, g.Rig, sop.AddMember{Host: h10})
					// An add leaves this empty directory, a creation does not.
					require.NoError(t, os.Remove(filepath.Join(g.Lab.Root(h10), config.JoinDropInDir)))
				}
				lead(t, g, h10)
			},
		},
		"createCluster": {
			args: words("createCluster"),
			prepare: func(t *testing.T, g *ground) {
				done(t, g.Rig, sop.PurgeCluster{})
				require.NoError(t, os.RemoveAll(filepath.Join(filepath.Dir(g.Inventory()), "files")))
			},
		},
		"destroyCluster": {
			prepare: func(t *testing.T, g *ground) {
				done(t, g.Rig, sop.PurgeCluster{})
				formed(t, g)
			},
			args: func(t *testing.T, g *ground) []string {
				return []string{"destroyCluster", "-confirm=" + sop.ID(observe(t, g.Rig).ClusterID())}
			},
		},
		"restore": {
			prepare: func(t *testing.T, g *ground) {
				done(t, g.Rig, sop.PurgeCluster{})
				done(t, g.Rig, fresh(t, nil, nil))
				g.puts(t, h10, "/kept", 5)
				file := filepath.Join(g.State(), "kept.db")
				require.NoError(t, errors.Join(os.RemoveAll(file), os.RemoveAll(file+".json")))
				done(t, g.Rig, sop.Snapshot{File: file, Since: time.Now()})
				crash(t, g.Rig, h10)
				crash(t, g.Rig, h12)
			},
			args: func(t *testing.T, g *ground) []string {
				return []string{"restore", filepath.Join(g.State(), "kept.db"), "-confirm=" + sop.ID(observe(t, g.Rig).ClusterID())}
			},
			after: func(t *testing.T, g *ground, _ time.Time) {
				for _, name := range []string{h10, h11, h12} {
					require.EqualValues(t, 5, g.count(t, name, "/kept"))
				}
			},
		},
		"restart": {
			args: words("restart"), loaded: true,
			prepare: func(t *testing.T, g *ground) {
				formed(t, g)
				lead(t, g, h11)
			},
			after: func(t *testing.T, g *ground, began time.Time) {
				for _, name := range g.Lab.Info().Hosts {
					require.True(t, unitOf(t, g.Rig, name).Since.After(began), "etcd on %s was not restarted", name)
				}
			},
		},
		"reloadConfig": {
			args: words("reloadConfig", "-restart"), loaded: true,
			prepare: func(t *testing.T, g *ground) {
				formed(t, g)
				lead(t, g, h12)
				stale := func(name, path, from, to string) {
					f := facts(t, g.Rig, name).Files[path]
					content := strings.Replace(string(f.Content), from, to, 1)
					require.NotEqual(t, string(f.Content), content)
					act(t, g.Rig, name, host.WriteFile{Path: path, Content: []byte(content), Owner: f.Owner, Group: f.Group, Mode: f.Mode})
				}
				stale(h10, config.EnvPath, ","+scenarios.Endpoints(h12)[0], "")
				stale(h11, config.ConfPath, ",etcd-3=https://"+h12+":2380", "")
			},
		},
	}
}

// An operator is killed by SIGKILL, at any point, and the same command is run
// again by another. What they leave is what one who was not disturbed leaves,
// and no write that etcd acknowledged is missing.
func TestKilled(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	exe := scenarios.Executable(t)
	for name, v := range victims() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig := buildSpec(t, scenarios.RigSpec{Inventory: []byte(three), Spares: v.spares, Executable: exe})
			g := on(rig)
			v.prepare(t, g)
			points := filepath.Join(t.TempDir(), "points")
			undisturbed := operator(t, g, v, func(args []string) {
				finish(t, g, scenarios.Command{Args: args, Env: map[string]string{"ETCDRILL_POINTS": points}})
			})
			n := lines(t, points)
			chosen := sample(n, seed, *killPoints)
			t.Logf("kill points %v of %d, -kill.seed=%d", chosen, n, seed)
			for _, at := range chosen {
				ok := t.Run(fmt.Sprintf("at %d", at), func(t *testing.T) {
					v.prepare(t, g)
					got := operator(t, g, v, func(args []string) {
						o := send(t, g, scenarios.Command{Args: args, Kill: &scenarios.Kill{Point: at}})
						if !o.Killed {
							// The members' own doings may make a step more or less.
							require.Zero(t, o.Status, "%s", o.Stderr)
							t.Logf("it was done before point %d", at)
						}
						finish(t, g, scenarios.Command{Args: args})
					})
					require.Equal(t, undisturbed, got)
				})
				if !ok {
					return // where it stands now nothing can begin
				}
			}
		})
	}
}

// operator lets f play operators, under load where there is a cluster, and
// gives what is left.
func operator(t *testing.T, g *ground, v victim, f func(args []string)) map[string]string {
	t.Helper()
	args, began := v.args(t, g), time.Now()
	if v.loaded {
		before := voters(observe(t, g.Rig))
		dial, err := g.Dial("client")
		require.NoError(t, err)
		load, err := workload.Start(t.Context(), workload.Spec{Profile: workload.Profile{Clients: 2, Rate: testRate}, Prefix: "/load/" + fmt.Sprint(began.UnixNano()) + "/", Endpoints: workload.Fixed(scenarios.Endpoints(before...)...), Dial: dial}, nil)
		require.NoError(t, err)
		f(args)
		history, err := load.Stop()
		require.NoError(t, err)
		require.NotZero(t, history.Acked())
		evidence, err := check.Collect(t.Context(), check.Query{Endpoints: scenarios.Endpoints(voters(observe(t, g.Rig))...), Dial: dial, History: history})
		require.NoError(t, err)
		lost, err := check.Lost(evidence)
		require.NoError(t, err)
		require.Empty(t, lost, "acknowledged writes are missing")
	} else {
		f(args)
	}
	if v.after != nil {
		v.after(t, g, began)
	}
	return left(t, g)
}

func send(t *testing.T, g *ground, c scenarios.Command) scenarios.Outcome {
	t.Helper()
	c.Out = filepath.Join(t.TempDir(), "operator")
	o, err := g.Command(t.Context(), c)
	require.NoError(t, err)
	t.Logf("%v, killed at %v: status %d after %v", c.Args, c.Kill, o.Status, o.Ended.Sub(o.Began).Round(time.Millisecond))
	return o
}

func finish(t *testing.T, g *ground, c scenarios.Command) {
	t.Helper()
	o := send(t, g, c)
	require.Zero(t, o.Status, "%v:\n%s", c.Args, o.Stderr)
}

// sample picks points from 1 to n, one from each of equal parts; or all.
func sample(n int, seed uint64, parts int) []int {
	var all []int
	random := rand.New(rand.NewPCG(seed, 0))
	if *exhaustive || parts > n {
		parts = n
	}
	for i := range parts {
		from, to := i*n/parts, (i+1)*n/parts
		all = append(all, 1+from+random.IntN(to-from))
	}
	return all
}

func lines(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
	}
	require.NotZero(t, n)
	return n
}

// lead hands the leadership to a host's member, whoever has it.
func lead(t *testing.T, g *ground, name string) {
	t.Helper()
	eventually(t, name+" leads", func() bool {
		v := observe(t, g.Rig)
		l, ok := v.Leader()
		if !ok {
			return false
		}
		if v.HostOf(l) == name {
			return true
		}
		m, ok := v.At(name)
		require.True(t, ok)
		c, err := g.client(v.HostOf(l))
		require.NoError(t, err)
		defer c.Close()
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		_, _ = c.MoveLeader(ctx, m.ID) // it is looked at again
		return false
	})
}

// left is what is left of a procedure.
func left(t *testing.T, g *ground) map[string]string {
	t.Helper()
	all, err := g.Remains(t.Context())
	require.NoError(t, err)
	return all
}
