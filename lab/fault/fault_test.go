package fault

import (
	"context"
	"errors"
	"go/parser"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Every fault, for what all of them promise.
func all() []Fault {
	return []Fault{
		Kill(Leader), Crash(Follower), CrashAt(Learner, BeforeApply), Pause(Leader), PowerOff("10.10.10.12"), PowerCycle(Voters), Visit(Subject, time.Second),
		KillOperator(), PauseOperator(time.Second), InterruptOperator(), LoseReply(),
		Second([]string{"restart"}, "lock", 3), Overtaken(time.Second, []string{"restart"}, 0, 3),
		Cut(Leader, Followers), CutOneWay(Learner, Leader), Isolate(Minority), Firewall(Subject, 2380), Blackhole(Majority),
		Degrade(Client, Voters, netswitch.Rule{Delay: time.Millisecond, Loss: 0.5}), Ring(), Bridge(),
		Truncate(Follower, WAL), Flip(Follower, Backend), TakeImage(Subject), RestoreImage(Subject), Stale(Subject, Leader),
		Revive(Subject), Foreign(Subject), Edit(Subject, "/etc/etcd/etcd.conf", "a", "b"),
		DiskFull(Subject), SlowSync(Leader, time.Second), PowerLoss(Voters), Compact(), Corrupt(Follower), Waste(1), Lead(Follower), FillQuota(), Write(3), Rest(time.Second), RestartClients(), LoseData(Follower), Leave(Follower), Unwritten(Follower), AwaitAlarm(), SmallQuota(Subject, 1),
		Expired(Follower), WrongCA(Follower), ClockOff(Follower, time.Second), EnableAuth(),
		TearJournal(), BlockJournal(), ForgetJournal(), RememberOther("etcd"), LoseCA(), EditInventory("a", "b"),
	}
}

func TestEveryFaultTellsOfItself(t *testing.T) {
	said := map[string]bool{}
	for _, f := range all() {
		require.NotEmpty(t, f.String())
		require.False(t, said[f.String()], "two say %q", f)
		said[f.String()] = true
		require.NotEmpty(t, f.Kind(), "%s", f)
		require.Contains(t, []Band{Process, Network, Disk, Trust, Operator}, f.Band(), "%s", f)
		for _, r := range f.Roles() {
			require.NoError(t, r.Check(), "%s", f)
		}
		_, err := parser.ParseExpr(f.Source())
		require.NoError(t, err, "%s: %s", f, f.Source())
		require.Contains(t, f.Source(), "fault.")
	}
}

func TestUnknownRole(t *testing.T) {
	require.ErrorIs(t, Role("boss").Check(), ErrNoRole)
	require.ErrorContains(t, Role("boss").Check(), "leader")
	require.NoError(t, Role("10.10.10.9").Check())
	require.NoError(t, Role("fd00::1").Check())
}

// A lab that has hosts and nothing else cannot suffer what takes more.
type bare struct{}

func (bare) Host(string) host.Host { return nil }

func TestProbe(t *testing.T) {
	g := &Ground{Lab: bare{}, Kind: "bare", Cast: troupe("a"), Random: rand.New(rand.NewPCG(1, 1))}
	for _, f := range []Fault{Kill(Leader), CrashAt(Leader, BeforeSave), Pause(Leader), PowerOff(Leader), Cut(Leader, Follower), Ring(), Flip(Follower, WAL), DiskFull(Leader), ClockOff(Leader, 1), Expired(Leader), PowerLoss(Leader)} {
		err := f.Probe(g)
		require.ErrorIs(t, err, errors.ErrUnsupported, "%s", f)
		require.ErrorContains(t, err, "bare lab")
		_, err = Strike(t.Context(), g, f)
		require.ErrorIs(t, err, errors.ErrUnsupported, "%s", f)
	}
}

// troupe is a cast without members that answer: its first host leads, its second
// follows.
type fixed struct{ Troupe }

func troupe(hosts ...string) Cast {
	return fixed{Troupe{Members: func() []string { return hosts }, Subject: "new", Hands: [2]string{"admin", "client"}}}
}

func (f fixed) Hosts(ctx context.Context, g *Ground, r Role) ([]string, error) {
	switch r {
	case Leader:
		return f.Members()[:1], nil
	case Follower:
		return f.Members()[1:2], nil
	}
	return f.Troupe.Hosts(ctx, g, r)
}
func (fixed) Answers(context.Context, string) error               { return nil }
func (fixed) Etcd(context.Context, string) (workload.Etcd, error) { return nil, errors.New("none") }

// wires is a lab of links.
type wires struct {
	bare
	rules map[netswitch.Link]netswitch.Rule
	hits  int64
}

func (w *wires) Link(_ context.Context, from, to string, r netswitch.Rule) error {
	if l := (netswitch.Link{From: from, To: to}); r.Zero() {
		delete(w.rules, l)
	} else {
		w.rules[l] = r
	}
	return nil
}

func (w *wires) Counters(context.Context) (map[netswitch.Link]netswitch.Counter, error) {
	c := map[netswitch.Link]netswitch.Counter{}
	for l := range w.rules {
		c[l] = netswitch.Counter{Cut: w.hits}
	}
	return c, nil
}

func wired(hosts ...string) (*Ground, *wires) {
	w := &wires{rules: map[netswitch.Link]netswitch.Rule{}}
	return &Ground{Lab: w, Kind: "wired", Cast: troupe(hosts...), Random: rand.New(rand.NewPCG(1, 1))}, w
}

func TestLinksOfFaults(t *testing.T) {
	link := func(from, to string) netswitch.Link { return netswitch.Link{From: from, To: to} }
	for _, c := range []struct {
		fault Fault
		want  []netswitch.Link
	}{
		{Cut(Leader, Subject), []netswitch.Link{link("a", "new"), link("new", "a")}},
		{CutOneWay(Subject, Leader), []netswitch.Link{link("new", "a")}},
		{Isolate(Subject), []netswitch.Link{link("new", "a"), link("a", "new"), link("new", "b"), link("b", "new")}},
		{Cut(Voters, Voters), []netswitch.Link{link("a", "b"), link("b", "a")}},
		{Cut(Voters, Leader), []netswitch.Link{link("b", "a"), link("a", "b")}},
		{Cut(Follower, Everyone), []netswitch.Link{link("b", "a"), link("a", "b"), link("b", "new"), link("new", "b")}},
		{Blackhole(Leader), []netswitch.Link{link("admin", "a"), link("a", "admin")}},
	} {
		g, w := wired("a", "b")
		wound, err := Strike(t.Context(), g, c.fault)
		require.NoError(t, err, "%s", c.fault)
		var got []netswitch.Link
		for l := range w.rules {
			got = append(got, l)
		}
		require.ElementsMatch(t, c.want, got, "%s", c.fault)
		require.ErrorContains(t, wound.Bit(t.Context()), "never bit")
		w.hits++
		require.NoError(t, wound.Bit(t.Context()))
		require.NoError(t, wound.Heal(t.Context()))
		require.Empty(t, w.rules)
	}
}

// In a ring each voter sees a majority, no two the same one; over a bridge only
// one sees all.
func TestShapes(t *testing.T) {
	for n := 4; n <= 7; n++ {
		views := map[[7]bool]bool{}
		for i := range n {
			var sees [7]bool
			count := 0
			for j := range n {
				if i == j || ringed(n, i, j) {
					sees[j] = true
					count++
				}
				require.Equal(t, ringed(n, i, j), ringed(n, j, i), "of %d, %d and %d", n, i, j)
			}
			require.Greater(t, count, n/2, "voter %d of %d", i, n)
			require.False(t, views[sees] && count < n, "two see the same majority of %d", n)
			views[sees] = true
		}
	}
	for n := 3; n <= 7; n++ {
		all := 0
		for i := range n {
			count := 0
			for j := range n {
				if i == j || bridged(n, i, j) {
					count++
				}
			}
			if count == n {
				all++
			}
		}
		require.Equal(t, 1, all, "of %d", n)
	}
	g, _ := wired("a", "b", "c")
	_, err := Strike(t.Context(), g, Ring())
	require.ErrorIs(t, err, ErrNoRole)
}

// What was not healed is known from the journal alone, also where its last line
// was cut off.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), JournalName)
	g, w := wired("a", "b")
	var err error
	g.Journal, err = OpenJournal(path)
	require.NoError(t, err)
	first, err := Strike(t.Context(), g, Cut(Leader, Subject))
	require.NoError(t, err)
	_, err = Strike(t.Context(), g, CutOneWay("10.10.10.11", Subject))
	require.NoError(t, err)
	require.NoError(t, first.Heal(t.Context()))
	require.NoError(t, first.Heal(t.Context()), "twice does no harm")
	require.Len(t, w.rules, 1)
	require.NoError(t, g.Journal.Close())

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"ID":9,"Fau`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	entries, err := ReadJournal(path)
	require.NoError(t, err)
	open := Open(entries)
	require.Len(t, open, 1)
	require.Equal(t, "cut from 10.10.10.11 to subject", open[0].Fault)
	require.NoError(t, open[0].Remedy.Apply(t.Context(), w))
	require.Empty(t, w.rules)

	require.NoError(t, os.WriteFile(path, []byte("no journal\n{}\n"), 0o600))
	_, err = ReadJournal(path)
	require.ErrorContains(t, err, "read fault journal")
}

// The remedy is on disk before the harm is done.
func TestJournalComesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), JournalName)
	g, _ := wired("a", "b")
	var err error
	g.Journal, err = OpenJournal(path)
	require.NoError(t, err)
	require.NoError(t, g.Journal.file.Close())
	_, err = Strike(t.Context(), g, Cut(Leader, Subject))
	require.ErrorContains(t, err, "write fault journal")
	require.Empty(t, g.Lab.(*wires).rules, "nothing was hurt that nobody would know of")
}

// rooted is a lab of which nothing is known but the files of its hosts.
type rooted struct {
	bare
	dir string
}

func (r rooted) Root(name string) string { return filepath.Join(r.dir, name) }

// A member that systemd starts again is gone for as long as its host says, and
// not until the wound is looked at.
func TestGoneUntilItStartsAgain(t *testing.T) {
	lab := rooted{dir: t.TempDir()}
	struck := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(after time.Duration) string { return struck.Add(after).Format(time.RFC3339Nano) }
	write := func(name string, lines ...string) {
		dir := filepath.Join(lab.Root(name), "var", "log")
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "journal-etcd.service.log"), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	}
	life := func(name string, exit, back time.Duration) []string {
		return []string{
			at(-time.Minute) + " " + name + " systemd[1]: etcd.service: Main process exited with status 1.",
			at(-time.Second) + " " + name + " systemd[1]: etcd.service: Started.",
			`{"level":"info"}`, "panic: failpoint panic: raftAfterSave",
			at(exit) + " " + name + " systemd[1]: etcd.service: Main process exited with status 2.",
			at(back) + " " + name + " systemd[1]: etcd.service: Started.",
		}
	}
	write("a", life("a", 2*time.Second, 7*time.Second)...)
	write("b", life("b", time.Second, 6*time.Second)...)
	w := Wound{Fault: CrashAt(Voters, AfterSave), Hosts: []string{"a", "b"}, Struck: struck, Mended: struck.Add(time.Hour),
		ground: &Ground{Lab: lab}, harm: Harm{Returns: true}}
	from, to := w.Gone()
	require.Equal(t, struck.Add(time.Second), from, "it was armed before, and was there")
	require.Equal(t, struck.Add(7*time.Second), to)

	w.Fault = Kill(Voters)
	from, _ = w.Gone()
	require.Equal(t, struck, from)

	write("b", life("b", time.Second, 6*time.Second)[:5]...)
	_, to = w.Gone()
	require.Zero(t, to, "one is gone still")

	w.harm.Returns = false
	from, to = w.Gone()
	require.Equal(t, []time.Time{w.Struck, w.Mended}, []time.Time{from, to})
}

func TestPointsAreKnown(t *testing.T) {
	g := &Ground{Lab: bare{}, Kind: "bare", Cast: troupe("a"), Points: true}
	require.ErrorContains(t, CrashAt(Leader, "raftBeforeLunch").Probe(g), `"raftBeforeLunch" is none of the points [raftBeforeSave`)
	require.False(t, Remedy{Points: []Armed{{"a", AfterSave}}}.Empty())
}
