package scenarios_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

const three = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: etcd
`

// walDir is where the log is in some of the labs.
const walDir = "/wal/etcd"

const one = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
      vars:
        etcd_cluster: etcd
`

const (
	h10 = "10.10.10.10"
	h11 = "10.10.10.11"
	h12 = "10.10.10.12"
	h13 = "10.10.10.13"
	h14 = "10.10.10.14"
	h15 = "10.10.10.15"
	h16 = "10.10.10.16"
	h17 = "10.10.10.17"
)

// testRate is how many calls a second the load of a test makes. Flat out, each
// would take the processors away from the tests beside it.
const testRate = 200

func build(t *testing.T, inventory string, spares ...string) *scenarios.Rig {
	t.Helper()
	return buildSpec(t, scenarios.RigSpec{Inventory: []byte(inventory), Spares: spares})
}

func buildSpec(t *testing.T, spec scenarios.RigSpec) *scenarios.Rig {
	t.Helper()
	spec.Root, spec.Seed = t.TempDir(), 1
	rig, err := scenarios.Build(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			lastWords(t, rig)
		}
		require.NoError(t, rig.Lab.Down(context.Background()))
	})
	return rig
}

// lastWords logs the end of what every member said.
func lastWords(t *testing.T, rig *scenarios.Rig) {
	t.Helper()
	const most = 40
	for _, name := range rig.Lab.Info().Hosts {
		content, err := os.ReadFile(filepath.Join(rig.Lab.Root(name), "var", "log", "journal-"+config.UnitName+".log"))
		if err != nil {
			continue // it has said nothing
		}
		all := strings.Split(string(content), "\n")
		t.Logf("etcd on %s:\n%s", name, strings.Join(all[max(0, len(all)-most):], "\n"))
	}
}

// With changes an operator before it sets out.
type with func(o *scenarios.Operator)

func waiving(names ...string) with {
	return func(o *scenarios.Operator) { o.Runner.Waive = names }
}

// stoppedAt ends a run when the step of this title comes, as a lost terminal
// would.
func stoppedAt(title string) with {
	return func(o *scenarios.Operator) {
		inner := o.Runner.Journal
		o.Runner.Journal = sop.JournalFunc(func(r sop.Record) error {
			if r.Title == title && (r.State == sop.Recorded || r.State == sop.Waiting) {
				return sop.ErrInterrupted
			}
			return inner.Append(r)
		})
	}
}

// run carries a procedure out as an operator who agrees to everything.
func run(t *testing.T, rig *scenarios.Rig, p sop.Procedure, opts ...with) (sop.Result, error) {
	t.Helper()
	o := rig.Operator("run")
	defer o.Site.Close()
	o.Runner.Agree = func(sop.Consent) error { return nil }
	file, err := journal(o, p)
	require.NoError(t, err)
	defer file.Close()
	o.Runner.Journal = sop.Tee(file, o.Runner.Journal)
	for _, opt := range opts {
		opt(o)
	}
	began := time.Now()
	res, err := o.Runner.Do(t.Context(), p)
	t.Logf("%s took %v: %v", p, time.Since(began).Round(time.Millisecond), err)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, r := range o.Told {
			if r.State != sop.Skipped && r.State != sop.Answered {
				t.Log(r.Time.Format("05.000"), r.State, r.Step, "/", r.Of, r.Stage, "|", r.Title, r.Host, r.Detail, r.Took.Round(time.Millisecond))
			}
		}
	})
	return res, err
}

// journal opens the file that a run is written down in, from which later runs
// know of it.
func journal(o *scenarios.Operator, p sop.Procedure) (*sop.FileJournal, error) {
	name, _, _ := strings.Cut(p.String(), " ")
	dir := filepath.Join(o.Site.RunsDir(), time.Now().UTC().Format("20060102T150405.000000000Z-")+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return sop.OpenJournal(filepath.Join(dir, "journal.jsonl"))
}

// done carries out a procedure that has to succeed.
func done(t *testing.T, rig *scenarios.Rig, p sop.Procedure, opts ...with) sop.Result {
	t.Helper()
	res, err := run(t, rig, p, opts...)
	require.NoError(t, err, "%s", p)
	return res
}

func create(token string) sop.Procedure {
	return sop.CreateCluster{Token: "etcd-20260101T000000Z-" + token, Stamp: sop.Stamp(time.Now())}
}

func remove(name string) sop.Procedure {
	return sop.RemoveMember{Host: name, Stamp: sop.Stamp(time.Now())}
}

func destroy() sop.DestroyCluster { return sop.DestroyCluster{Stamp: sop.Stamp(time.Now())} }

func ptr(b bool) *bool { return &b }

// --- that nothing was touched ---

// A ground is a rig of which it is known how it stands.
type ground struct {
	*scenarios.Rig
	known *standing
	creds [2]string // user and password, where the cluster has auth on
	// logins says that operators log in, which etcd itself writes to its log;
	// its data and revision still stay as they were.
	logins bool
}

// A standing is all that a refusal must leave as it was.
type standing struct {
	files   map[string]string // of every host, and what the admin host keeps
	members map[string]string // by host: cluster, member, revision, applied index, unit
	terms   map[string]uint64
}

func on(rig *scenarios.Rig) *ground { return &ground{Rig: rig} }

// look takes the standing once it stands still: a member commits its backend
// some time after the last write, and notes the version of its storage up to
// 10 s after it started.
func (g *ground) look(t *testing.T) *standing {
	t.Helper()
	var last *standing
	for {
		s := g.once(t)
		if last != nil && len(s.diff(last)) == 0 {
			return s
		}
		last = s
		for {
			require.NoError(t, pause(t.Context(), time.Second/2))
			if restless := g.restless(t); len(restless) == 0 {
				break
			}
		}
	}
}

func (g *ground) once(t *testing.T) *standing {
	t.Helper()
	files, err := g.Fingerprint(t.Context())
	require.NoError(t, err)
	dir := filepath.Dir(g.Inventory())
	for _, sub := range []string{filepath.Join(dir, "files"), g.State()} {
		require.NoError(t, filepath.WalkDir(sub, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			sum := e.Type().String()
			if e.IsDir() && e.Name() == "runs" {
				return fs.SkipDir // journals tell of refusals too
			}
			if path == sub {
				return nil
			}
			if e.Type().IsRegular() {
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				digest := sha256.Sum256(content)
				sum += hex.EncodeToString(digest[:])
			}
			files["admin:"+path] = sum
			return nil
		}))
	}
	if g.logins {
		maps.DeleteFunc(files, func(path, _ string) bool { return strings.Contains(path, ":"+config.DefaultDataDir+"/member/") })
	}
	s := &standing{files: files, members: map[string]string{}, terms: map[string]uint64{}}
	for _, name := range g.Lab.Info().Hosts {
		u, st, err := g.status(t, name)
		switch {
		case err != nil:
			s.members[name] = err.Error()
		case st == nil:
			s.members[name] = fmt.Sprintln(u.Load, u.Active, u.Enabled, u.PID)
		default:
			if g.logins {
				st.RaftAppliedIndex = 0
			}
			slices.Sort(st.Errors) // alarms come in any order
			s.members[name] = fmt.Sprintln(u.Load, u.Active, u.Enabled, u.PID, st.Header.ClusterId, st.Header.MemberId, st.Header.Revision, st.RaftAppliedIndex, st.IsLearner, st.Errors)
			s.terms[name] = st.RaftTerm
		}
	}
	return s
}

// status asks the member on a host. There is none where the process does not
// run, speaks no TLS, or hangs.
func (g *ground) status(t *testing.T, name string) (u host.Unit, st *clientv3.StatusResponse, err error) {
	t.Helper()
	facts, err := g.Lab.Host(name).Look(t.Context(), host.Question{Units: []string{config.UnitName}})
	if errors.Is(err, host.ErrUnreachable) {
		return u, nil, err
	}
	require.NoError(t, err)
	u = facts.Units[config.UnitName]
	dial, err := g.Dial("client")
	if err != nil || u.PID == 0 {
		return u, nil, nil
	}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	url := scenarios.Endpoints(name)[0]
	c, err := dial(ctx, url)
	require.NoError(t, err)
	defer c.Close()
	if st, err = c.Status(ctx, url); err != nil {
		return u, nil, nil
	}
	return u, st, nil
}

// restless are the hosts whose etcd will yet write something of its own accord.
func (g *ground) restless(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, name := range g.Lab.Info().Hosts {
		u, st, err := g.status(t, name)
		switch {
		case err != nil || u.PID == 0:
		case st == nil && time.Since(u.Since) < 12*time.Second,
			st != nil && (st.StorageVersion == "" || time.Since(u.Since) < 6*time.Second),
			// 3.5 is also what etcd takes a storage for that bears no version yet.
			st != nil && strings.HasPrefix(st.StorageVersion, "3.5.") && time.Since(u.Since) < 12*time.Second:
			names = append(names, name)
		}
	}
	return names
}

// diff tells what differs, but for terms.
func (s *standing) diff(before *standing) []string {
	return append(machine.DiffFingerprints(before.files, s.files), machine.DiffFingerprints(before.members, s.members)...)
}

// elected reports whether the members held an election of their own, which
// writes to their logs.
func (s *standing) elected(before *standing) bool {
	for name, term := range s.terms {
		if was, ok := before.terms[name]; ok && was != term {
			return true
		}
	}
	return false
}

// chain is t.Run for tests that stand on those before them.
func chain(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

// change makes one that refusals are not to blame for.
func (g *ground) change(f func()) {
	g.known = nil
	f()
	g.known = nil
}

// refused carries out a procedure that has to be refused, by this safeguard,
// with nothing touched anywhere.
func (g *ground) refused(t *testing.T, p sop.Procedure, safeguard string, opts ...with) *sop.Refusal {
	t.Helper()
	for try := 1; ; try++ {
		if g.known == nil {
			g.known = g.look(t)
		}
		res, err := run(t, g.Rig, p, opts...)
		after := g.once(t)
		if diff := after.diff(g.known); len(diff) > 0 {
			if after.elected(g.known) && try < 4 {
				t.Logf("the members elected a leader meanwhile, so it is tried again: %v", err)
				g.known = nil
				continue
			}
			require.Empty(t, diff[:min(len(diff), 5)], "%s was refused (%v) and yet something was touched", p, err)
		}
		require.ErrorIs(t, err, sop.ErrRefused, "%s", p)
		var r *sop.Refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, safeguard, r.Safeguard, "%s: %v", p, err)
		require.False(t, r.Changed)
		require.False(t, res.Changed)
		require.NotEmpty(t, r.Found)
		require.NotEmpty(t, r.Hint+r.Needed, "what to do instead")
		require.NotEmpty(t, r.Show, "the command that shows it")
		require.Equal(t, 3, sop.ExitStatus(err, res.Changed))
		return r
	}
}

// unchanged carries out a procedure that finds nothing to do.
func (g *ground) unchanged(t *testing.T, p sop.Procedure, opts ...with) {
	t.Helper()
	for try := 1; ; try++ {
		if g.known == nil {
			g.known = g.look(t)
		}
		res, err := run(t, g.Rig, p, opts...)
		after := g.once(t)
		diff := after.diff(g.known)
		if len(diff) > 0 && after.elected(g.known) && try < 4 {
			g.known = nil
			continue
		}
		require.NoError(t, err)
		require.False(t, res.Changed)
		require.Empty(t, diff[:min(len(diff), 5)])
		return
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// eventually looks until a condition holds. Its patience is long since it is
// no measure of anything.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		require.True(t, time.Now().Before(deadline), "%s", what)
		require.NoError(t, pause(t.Context(), 20*time.Millisecond))
	}
}

// --- the hands of the tests ---

// client speaks to the members on hosts, from the lab's client host.
func (g *ground) client(hosts ...string) (*clientv3.Client, error) {
	config, err := g.TLS()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{Endpoints: scenarios.Endpoints(hosts...), TLS: config, Logger: zap.NewNop(),
		Username: g.creds[0], Password: g.creds[1], DialTimeout: 10 * time.Second, MaxCallSendMsgSize: 4 << 20,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(g.Lab.DialContext("client"))}})
}

// ask lets a test speak to the cluster behind everybody's back.
func (g *ground) ask(t *testing.T, hosts []string, f func(ctx context.Context, c *clientv3.Client)) {
	t.Helper()
	g.change(func() {
		c, err := g.client(hosts...)
		require.NoError(t, err)
		defer c.Close()
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		f(ctx, c)
	})
}

// act makes changes on a host, as someone with a shell there would.
func act(t *testing.T, rig *scenarios.Rig, name string, acts ...host.Act) {
	t.Helper()
	for _, a := range acts {
		require.NoError(t, rig.Lab.Host(name).Do(t.Context(), a), "%s on %s", a, name)
	}
}

func facts(t *testing.T, rig *scenarios.Rig, name string) host.Facts {
	t.Helper()
	f, err := rig.Lab.Host(name).Look(t.Context(), host.Question{Units: []string{config.UnitName}, Dirs: []string{config.DefaultDataDir, config.ConfDir, walDir},
		Files: []string{config.ConfPath, config.EnvPath, config.UnitPath}, Ports: []int{2379, 2380}})
	require.NoError(t, err)
	return f
}

func unitOf(t *testing.T, rig *scenarios.Rig, name string) host.Unit {
	t.Helper()
	return facts(t, rig, name).Units[config.UnitName]
}

// crash kills a member and sees to it that nothing starts it again: the unit is
// stopped, the data stays.
func crash(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	require.NoError(t, rig.Lab.Member(t.Context(), name, syscall.SIGKILL))
	act(t, rig, name, host.Systemctl{Verb: host.Stop, Unit: config.UnitName})
	require.False(t, unitOf(t, rig, name).Runs())
}

// foreign starts an etcd of its own on a host, a cluster of one that knows no
// TLS.
func foreign(t *testing.T, rig *scenarios.Rig, name, token string) {
	t.Helper()
	conf := strings.NewReplacer("HOST", name, "TOKEN", token).Replace(`name: other
data-dir: /data/etcd
listen-peer-urls: http://HOST:2380
listen-client-urls: http://HOST:2379
initial-advertise-peer-urls: http://HOST:2380
advertise-client-urls: http://HOST:2379
initial-cluster: other=http://HOST:2380
initial-cluster-state: new
initial-cluster-token: TOKEN
`)
	act(t, rig, name,
		host.MakeDir{Path: config.ConfDir, Owner: "etcd", Group: "etcd", Mode: 0o750},
		host.MakeDir{Path: config.DefaultDataDir, Owner: "etcd", Group: "etcd", Mode: 0o700},
		host.WriteFile{Path: config.ConfPath, Content: []byte(conf), Owner: "etcd", Group: "etcd", Mode: 0o644},
		host.WriteFile{Path: config.UnitPath, Content: config.Unit(config.UnitSpec{DataDir: config.DefaultDataDir}), Owner: "root", Group: "root", Mode: 0o644},
		host.Systemctl{Verb: host.DaemonReload},
		host.Systemctl{Verb: host.Start, Unit: config.UnitName})
}

// leader is the host whose member leads.
func leader(t *testing.T, v sop.View) string {
	t.Helper()
	m, ok := v.Leader()
	require.True(t, ok, "the voters do not agree on a leader")
	return v.HostOf(m)
}

// observe takes one look as an operator would.
func observe(t *testing.T, rig *scenarios.Rig, opts ...with) sop.View {
	t.Helper()
	o := rig.Operator("look")
	defer o.Site.Close()
	for _, opt := range opts {
		opt(o)
	}
	v, err := o.Site.Observe(t.Context(), sop.Scope{AllHosts: true})
	require.NoError(t, err)
	return v
}

// voters are the hosts of the members with a vote, sorted.
func voters(v sop.View) []string {
	var names []string
	for _, m := range v.Voters() {
		names = append(names, v.HostOf(m))
	}
	return sorted(names)
}
