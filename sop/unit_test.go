package sop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdrill/etcdrill/sop/inventory"
)

func TestIdentify(t *testing.T) {
	const member, cluster = 0x8e9e05c52164694d, 0xcdf818194e3a8c32
	head := walHead(member, cluster)
	who, err := Identify(head[:512])
	require.NoError(t, err)
	require.Equal(t, Identity{member, cluster}, who)

	// The metadata may be the first frame, and other records before it do no harm.
	who, err = Identify(head[len(walFrame(4, nil)):])
	require.NoError(t, err)
	require.Equal(t, Identity{member, cluster}, who)

	for name, bad := range map[string][]byte{
		"nothing":       nil,
		"zeros":         make([]byte, 512),
		"cut off":       head[:len(walFrame(4, nil))+12],
		"half a length": head[:5],
		"no metadata":   walFrame(4, nil),
		"no IDs":        walFrame(1, []byte{}),
		"too long":      {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 2, 3},
		"text":          []byte("this is no log at all, but a text of some length"),
	} {
		_, err := Identify(bad)
		require.ErrorIs(t, err, ErrNoIdentity, name)
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(walHead(1, 2))
	f.Add(walHead(0x8e9e05c52164694d, 0xcdf818194e3a8c32)[:40])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, head []byte) {
		who, err := Identify(head)
		if err != nil {
			if !errors.Is(err, ErrNoIdentity) || who != (Identity{}) {
				t.Fatalf("%v, %v", who, err)
			}
			return
		}
		// What was read survives a round trip, whatever came after it.
		again, err := Identify(append(walHead(who.Member, who.Cluster), head...))
		if err != nil || again != who {
			t.Fatalf("%v became %v (%v)", who, again, err)
		}
	})
}

func FuzzIdentifyIDs(f *testing.F) {
	f.Add(uint64(1), uint64(1<<63))
	f.Fuzz(func(t *testing.T, member, cluster uint64) {
		who, err := Identify(walHead(member, cluster)[:min(512, len(walHead(member, cluster)))])
		if member == 0 || cluster == 0 {
			if err == nil {
				t.Fatal("zero is no ID")
			}
			return
		}
		if err != nil || who != (Identity{member, cluster}) {
			t.Fatalf("%v (%v)", who, err)
		}
	})
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{nil, Applied},
		{rpctypes.ErrMemberExist, Unknown},
		{rpctypes.ErrPeerURLExist, Unknown},
		{rpctypes.ErrMemberNotFound, Unknown},
		{rpctypes.ErrMemberNotLearner, Unknown},
		{rpctypes.ErrUnhealthy, Postponed},
		{rpctypes.ErrMemberLearnerNotReady, Postponed},
		{rpctypes.ErrNotLeader, Postponed},
		{rpctypes.ErrMemberNotEnoughStarted, Rejected},
		{rpctypes.ErrTooManyLearners, Rejected},
		{rpctypes.ErrMemberBadURLs, Rejected},
		{rpctypes.ErrPermissionDenied, Rejected},
		{rpctypes.ErrUserEmpty, Rejected},
		{rpctypes.ErrNoSpace, Rejected},
		{rpctypes.ErrCorrupt, Rejected},
		{rpctypes.ErrBadLeaderTransferee, Rejected},
		{rpctypes.ErrTimeout, Unknown},
		{rpctypes.ErrTimeoutDueToLeaderFail, Unknown},
		{rpctypes.ErrTimeoutDueToConnectionLost, Unknown},
		{rpctypes.ErrLeaderChanged, Unknown},
		{rpctypes.ErrNoLeader, Unknown},
		{context.DeadlineExceeded, Unknown},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), Unknown},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), Unknown},
		{status.Error(codes.Unavailable, "transport is closing"), Unknown},
		{status.Error(codes.Unavailable, `dial tcp 10.10.10.11:2379: connect: connection refused`), Postponed},
		{errors.New("something else"), Unknown},
	} {
		require.Equal(t, c.want, Judge(c.err), "%v", c.err)
		if c.err != nil {
			require.Equal(t, c.want, Judge(fmt.Errorf("promote: %w", c.err)), "wrapped: %v", c.err)
		}
	}
	// As it comes over the wire: the server gives this one no code of its own.
	for text, want := range map[string]Outcome{
		"etcdserver: re-configuration failed due to not enough started members": Rejected,
		"etcdserver: unhealthy cluster":                                         Postponed,
		"etcdserver: too many learner members in cluster":                       Rejected,
		"etcdserver: request timed out":                                         Unknown,
	} {
		require.Equal(t, want, Judge(rpctypes.Error(status.Error(codes.Unknown, text))), text)
	}
}

// etcd's own words stay, and something is said of each.
func TestExplain(t *testing.T) {
	for _, m := range meanings {
		words, meaning := m.words, m.meaning
		got := Explain(errors.New("etcdserver: " + words))
		require.True(t, strings.HasPrefix(got, "etcdserver: "+words+" ("), got)
		require.Contains(t, got, meaning)
	}
	require.Equal(t, "unheard of", Explain(errors.New("unheard of")))
	err := explained{rpctypes.ErrUnhealthy}
	require.ErrorIs(t, err, rpctypes.ErrUnhealthy)
	// Each of the words that people search for at night is explained.
	for _, words := range []string{"unhealthy cluster", "too many learner members in cluster", "in sync with leader", "not enough started members",
		"member count is unequal", "cluster ID mismatch", "permanently removed", "tocommit(9) is out of range", "database space exceeded", "request timed out",
		"certificate signed by unknown authority", "certificate is valid for", "permission denied", "address already in use"} {
		require.NotEqual(t, words, Explain(errors.New(words)))
	}
}

func TestDeadlines(t *testing.T) {
	d := StandardDeadlines()
	for p := range patiences {
		require.Positive(t, d[p], "row %d", p)
	}
	// mage leaves five seconds after Ctrl-C for the change in flight.
	const mage = 5 * time.Second
	require.Less(t, d[Calling], mage)
	require.Less(t, d[Acting], mage)
	require.Greater(t, d[Settling], HealthInterval)
	require.Greater(t, d[Expiring], LockTTL, "a lease has run out before its lock is given up on")
	require.Equal(t, 5*time.Second, HealthInterval)
}

func TestReadJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	j, err := OpenJournal(path)
	require.NoError(t, err)
	began := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	var want []Record
	for i := range 3 {
		r := Record{Time: began, Run: "r", Procedure: "addMember 10.10.10.13", Seq: i + 1, Step: i, State: Recorded, Title: "add as learner", Act: "add", Took: time.Second}
		want = append(want, r)
		require.NoError(t, j.Append(r))
	}
	require.NoError(t, j.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 3, bytes.Count(content, []byte("\n")), "a line each")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	got, err := ReadJournal(bytes.NewReader(content))
	require.NoError(t, err)
	require.Equal(t, want, got)
	// A last line that was cut off, wherever, tells of what was never done.
	last := bytes.LastIndexByte(content[:len(content)-1], '\n') + 1
	for cut := last; cut < len(content)-1; cut++ {
		got, err := ReadJournal(bytes.NewReader(content[:cut]))
		require.NoError(t, err, "cut off at %d", cut)
		require.Equal(t, want[:2], got, "cut off at %d", cut)
	}
	// A broken line in the middle is an error, and what was before it is kept.
	broken := bytes.Replace(content, []byte(`"seq":2`), []byte(`"seq":"x"`), 1)
	got, err = ReadJournal(bytes.NewReader(broken))
	require.Error(t, err)
	require.Equal(t, want[:1], got)
	// It is appended to, never begun anew.
	j, err = OpenJournal(path)
	require.NoError(t, err)
	require.NoError(t, j.Append(want[0]))
	require.NoError(t, j.Close())
	longer, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(longer, content))
	// After the file is closed nothing is recorded, and that is an error.
	require.Error(t, j.Append(want[0]))
}

// The first journal is the one that counts.
func TestTee(t *testing.T) {
	full := errors.New("no space left on device")
	var second []Record
	j := Tee(JournalFunc(func(Record) error { return full }), JournalFunc(func(r Record) error { second = append(second, r); return nil }))
	require.ErrorIs(t, j.Append(Record{}), full)
	require.Empty(t, second, "no other journal sees what the first could not take")
	var first []Record
	j = Tee(JournalFunc(func(r Record) error { first = append(first, r); return nil }), JournalFunc(func(r Record) error { second = append(second, r); return nil }))
	require.NoError(t, j.Append(Record{Seq: 7}))
	require.Equal(t, first, second)
}

func TestVerifySnapshot(t *testing.T) {
	dir := t.TempDir()
	sound, err := backendBytes(filepath.Join(dir, "db"), 5, nil, 7)
	require.NoError(t, err)
	put := func(b []byte) string {
		path := filepath.Join(dir, "snapshot")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	saved, err := VerifySnapshot(put(sound))
	require.NoError(t, err)
	require.Equal(t, 5, saved.Keys)
	require.Equal(t, int64(6), saved.Revision)
	require.Equal(t, int64(len(sound)), saved.Bytes)
	require.Equal(t, fmt.Sprintf("%x", sound[len(sound)-32:]), saved.SHA256)

	flipped := bytes.Clone(sound)
	flipped[len(flipped)/2] ^= 1
	trailer := bytes.Clone(sound)
	trailer[len(trailer)-1] ^= 1
	for name, bad := range map[string][]byte{
		"empty":             nil,
		"only a checksum":   sound[len(sound)-32:],
		"without checksum":  sound[:len(sound)-32],
		"cut off":           sound[:len(sound)/2],
		"cut off by a byte": sound[:len(sound)-1],
		"cut off by a page": append(bytes.Clone(sound[:len(sound)-32-4096]), sound[len(sound)-32:]...),
		"a byte flipped":    flipped,
		"another checksum":  trailer,
		"a byte more":       append(bytes.Clone(sound), 0),
	} {
		_, err := VerifySnapshot(put(bad))
		require.ErrorIs(t, err, ErrSnapshot, name)
	}
	// A checksum that fits proves nothing of what is inside.
	for name, body := range map[string][]byte{"zeros": make([]byte, 8192), "text": bytes.Repeat([]byte("no backend at all. "), 2048)[:8192]} {
		_, err := VerifySnapshot(put(withSum(body)))
		require.ErrorIs(t, err, ErrSnapshot, name)
	}
	_, err = VerifySnapshot(filepath.Join(dir, "nowhere"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A snapshot that arrives broken is not put in place.
func TestBrokenSnapshotIsNotSaved(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		file := filepath.Join(g.dir, "my.db")
		g.w.spoil = true
		_, err := g.operator().do(Snapshot{File: file, Since: time.Now()})
		require.ErrorIs(g.t, err, ErrSnapshot)
		left, err := filepath.Glob(file + "*")
		require.NoError(g.t, err)
		require.Empty(g.t, left)
		before := g.roles()
		_, err = g.operator().do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, ErrSnapshot, "nothing is changed without a sound one")
		require.Equal(g.t, before, g.roles())
	})
}

// The digest of a plan is the same from run to run, and marks what would be
// done otherwise.
func TestDigest(t *testing.T) {
	require.Equal(t, "2cf24dba5fb0", Digest("hello"))
	bubble(t, 3, func(g *ground) {
		g.up()
		digest := func(p Procedure) string {
			plan, v, err := g.operator().Runner.Explain(context.Background(), p)
			require.NoError(g.t, err)
			return plan.Digest(v)
		}
		first := digest(AddMember{Host: hosts[3]})
		time.Sleep(time.Hour)
		require.Equal(g.t, first, digest(AddMember{Host: hosts[3]}))
		require.NotEqual(g.t, first, digest(AddMember{Host: hosts[4]}))
		require.NotEqual(g.t, digest(DestroyCluster{Stamp: "20260102T150405Z"}), digest(PurgeCluster{}))
	})
	plan := func(s Step) string {
		return Plan{Stages: []Stage{{"stage", []Step{s}}}}.Digest(View{})
	}
	step := Step{Title: "wait", Host: "a", Needs: []Safeguard{{Name: "votes"}}, Act: Promote{"a"}}
	for name, other := range map[string]Step{
		"title": {Title: "wait longer", Host: "a", Needs: step.Needs, Act: step.Act},
		"host":  {Title: "wait", Host: "b", Needs: step.Needs, Act: step.Act},
		"needs": {Title: "wait", Host: "a", Act: step.Act},
		"act":   {Title: "wait", Host: "a", Needs: step.Needs, Act: Promote{"b"}},
		"none":  {Title: "wait", Host: "a", Needs: step.Needs},
	} {
		require.NotEqual(t, plan(step), plan(other), name)
	}
}

func TestViewHelpers(t *testing.T) {
	v := View{
		Wanted: inventory.Group{Name: "etcd", Cluster: "etcd", ClientPort: 2379, PeerPort: 2380, Hosts: []inventory.Host{
			{Name: "10.10.10.11", Seq: 1, ClientPort: 2379, PeerPort: 2380}, {Name: "10.10.10.12", Seq: 2, ClientPort: 2379, PeerPort: 2380},
			{Name: "fd00::3", Seq: 3, ClientPort: 2379, PeerPort: 2380},
		}},
		Members: []Member{
			{ID: 1, Name: "etcd-2", PeerURLs: []string{"https://10.10.10.11:2380"}, ClientURLs: []string{"https://10.10.10.11:2379"}},
			{ID: 2, Name: "etcd-1", PeerURLs: []string{"https://10.10.10.12:2380"}, ClientURLs: []string{"https://10.10.10.12:2379"}},
			{ID: 3, PeerURLs: []string{"https://[fd00::3]:2380"}, Learner: true},
			{ID: 4, Name: "x", PeerURLs: []string{"https://10.10.10.99:2380"}, ClientURLs: []string{"https://10.10.10.99:2379"}},
		},
		Looks: []Look{
			{Endpoint: "https://10.10.10.11:2379", ClusterID: 7, MemberID: 1, Leader: 1, Alarms: []string{"b", "a"}},
			{Endpoint: "https://10.10.10.12:2379", Host: "10.10.10.12", Problem: "connection refused"},
			{Endpoint: "https://10.10.10.99:2379", ClusterID: 7, MemberID: 4, Leader: 1, Alarms: []string{"a"}},
		},
	}
	m, ok := v.At("10.10.10.11")
	require.True(t, ok)
	require.Equal(t, uint64(1), m.ID, "matched by peer URL, never by name")
	_, ok = v.At("10.10.10.13")
	require.False(t, ok)
	require.Equal(t, "fd00::3", v.HostOf(v.Members[2]))
	require.Equal(t, "10.10.10.99", v.HostOf(v.Members[3]), "a stranger's host is its URL's")
	require.Equal(t, Votes{Voters: 3, Dead: 1}, v.Votes())
	require.Equal(t, []string{"https://10.10.10.11:2379", "https://10.10.10.99:2379"}, v.Endpoints(), "living voters only")
	require.Equal(t, []string{"https://10.10.10.11:2379", "https://10.10.10.12:2379"}, v.VoterURLs("10.10.10.99"))
	require.Equal(t, []string{"a", "b"}, v.Alarms())
	leader, ok := v.Leader()
	require.True(t, ok)
	require.Equal(t, uint64(1), leader.ID)
	require.Equal(t, uint64(7), v.ClusterID())
	require.False(t, v.Alive(v.Members[1]))
	require.Equal(t, "it has not started yet", v.LookOf(3).Problem)
	missing, extra := v.drift()
	require.Empty(t, missing)
	require.Equal(t, []string{"10.10.10.99"}, extra)
	v.Looks[2].Leader = 4
	_, ok = v.Leader()
	require.False(t, ok, "they do not agree")
	require.Equal(t, []uint64{1, 2, 3, 4}, v.IDs())
	require.Equal(t, "8e9e05c52164694d", ID(0x8e9e05c52164694d))
	for url, want := range map[string]string{"https://10.10.10.11:2380": "10.10.10.11", "https://[fd00::3]:2380": "fd00::3", "10.10.10.11:2380": "10.10.10.11", "https://host.example:1": "host.example"} {
		require.Equal(t, want, hostPart(url))
	}
}

// A cluster ID that only a zombie tells is not taken for the cluster's.
func TestClusterIDOfMost(t *testing.T) {
	v := View{Looks: []Look{{ClusterID: 9}, {ClusterID: 7}, {ClusterID: 7}, {ClusterID: 9, Problem: "dead"}, {ClusterID: 9, Problem: "dead"}}}
	require.Equal(t, uint64(7), v.ClusterID())
	even := View{Looks: []Look{{ClusterID: 9}, {ClusterID: 7}}, Admin: AdminView{ClusterID: 9}}
	for range 50 { // whatever the order of a map
		require.Equal(t, uint64(9), even.ClusterID(), "the one that was met before")
	}
}

// IDs are computed as etcd does.
func TestExpectedIDs(t *testing.T) {
	require.NotEqual(t, expectedMember("https://10.10.10.11:2380", "a"), expectedMember("https://10.10.10.11:2380", "b"), "the token counts")
	// The one that everybody has seen: etcd's own default.
	require.Equal(t, uint64(0x8e9e05c52164694d), expectedMember("http://localhost:2380", "etcd-cluster"))
}

// A refusal reads as one sentence, and is one for errors.Is.
func TestRefusalText(t *testing.T) {
	var err error = &Refusal{Safeguard: "votes", Host: "10.10.10.13", Found: "it is the last voter"}
	require.EqualError(t, err, "refused by safeguard votes on 10.10.10.13: it is the last voter")
	require.ErrorIs(t, fmt.Errorf("run: %w", err), ErrRefused)
	b, err := json.Marshal(&Refusal{Safeguard: "votes", Found: "x"})
	require.NoError(t, err)
	require.Contains(t, string(b), "votes")
}
