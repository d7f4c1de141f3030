package sop_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// told gives what a terminal shows of some records, a second apart.
func told(t *testing.T, tty bool, records ...sop.Record) string {
	t.Helper()
	var b strings.Builder
	term := sop.NewTerminal(&b, tty, time.UTC)
	at := time.Date(2026, 11, 23, 18, 49, 0, 0, time.UTC)
	for i, r := range records {
		r.Time = at.Add(time.Duration(i) * time.Second)
		require.NoError(t, term.Append(r))
	}
	return b.String()
}

func steps() []sop.Record {
	const h = "10.10.10.13"
	return []sop.Record{
		{State: sop.Began, Procedure: "addMember " + h, Detail: "cluster 1f, plan abc"},
		{State: sop.Skipped, Step: 1, Of: 12, Stage: "announce as learner", Title: "save a snapshot"},
		{State: sop.Recorded, Step: 2, Of: 12, Stage: "announce as learner", Title: "add as learner"},
		{State: sop.Answered, Step: 2, Of: 12, Stage: "announce as learner", Title: "add as learner", Detail: "member 2f"},
		{State: sop.Done, Step: 2, Of: 12, Stage: "announce as learner", Title: "add as learner", Took: 420 * time.Millisecond},
		{State: sop.Waiting, Step: 3, Of: 12, Stage: "promote to voter", Title: "wait until caught up", Host: h, Detail: "5000 entries behind"},
		{State: sop.Waiting, Step: 3, Of: 12, Stage: "promote to voter", Title: "wait until caught up", Host: h, Detail: "4000 entries behind"},
		{State: sop.Done, Step: 3, Of: 12, Stage: "promote to voter", Title: "wait until caught up", Host: h, Took: 10 * time.Millisecond},
		{State: sop.Warned, Detail: "an even number of voters bears no more failures than one less, which is one thing to think of"},
		{State: sop.Finished, Procedure: "addMember " + h},
	}
}

func TestTerminal(t *testing.T) {
	require.Equal(t, `18:49:00 UTC addMember 10.10.10.13: cluster 1f, plan abc
== announce as learner
18:49:04 UTC  2/12 add as learner: member 2f (0.4s)
== promote to voter
18:49:05 UTC  3/12 waiting: 5000 entries behind
18:49:07 UTC  3/12 10.10.10.13: wait until caught up
18:49:08 UTC warning: an even number of voters bears no more failures than one
             less, which is one thing to think of
18:49:09 UTC addMember 10.10.10.13: done
`, told(t, false, steps()...))
}

// On a terminal the step under way is seen before it is done.
func TestTerminalOpenLine(t *testing.T) {
	require.Equal(t, `== announce as learner
18:49:00 UTC  2/12 add as learner`, told(t, true, steps()[2]))
	require.Contains(t, told(t, true, steps()...), "18:49:02 UTC  2/12 add as learner: member 2f (0.4s)\n")
}

func TestTerminalWaits(t *testing.T) {
	var records []sop.Record
	for i := range 25 {
		records = append(records, sop.Record{State: sop.Waiting, Step: 1, Of: 1, Title: "wait", Detail: "entries behind: " + strings.Repeat("9", 1+i%3)})
	}
	require.Equal(t, 3, strings.Count(told(t, false, records...), "waiting"), "once, and again every ten seconds")
	records[13].Detail = "it does not answer"
	require.Equal(t, 4, strings.Count(told(t, false, records...), "waiting"), "another reason is told at once")
	records[0].Step, records[1].Step = 1, 2
	require.Contains(t, told(t, false, records[:2]...), "2/1 waiting")
}

func TestTerminalLinesFit(t *testing.T) {
	long := "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 10.10.10.13:2379: connect: connection refused\""
	records := append(steps(), sop.Record{State: sop.Answered, Step: 4, Of: 12, Title: "promote", Detail: long},
		sop.Record{State: sop.Waiting, Step: 4, Of: 12, Title: "promote", Detail: long})
	for _, tty := range []bool{false, true} {
		for line := range strings.SplitSeq(told(t, tty, records...), "\n") {
			require.LessOrEqual(t, utf8.RuneCountInString(line), 80, line)
		}
	}
}

// What a host says cannot move the cursor, and is ASCII where nobody asked for
// more.
func TestPlain(t *testing.T) {
	require.Equal(t, `\x1b[2J\ufffdx\u00fc`, sop.Plain("\x1b[2J\ufffdx\u00fc", true))
	require.Equal(t, `\x1b[2Jxü`, sop.Plain("\x1b[2Jxü", false))
	require.Equal(t, `\xff\r`, sop.Plain("\xff\r", false))
	require.Equal(t, "a\n\tb", sop.Plain("a\n\tb", true))
	out := told(t, false, sop.Record{State: sop.Waiting, Step: 1, Detail: "\x1b]0;owned\aü"})
	for _, r := range out {
		require.True(t, r == '\n' || r >= ' ' && r < 0x7f, "%q", out)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[0m ü \xff\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range sop.Plain(s, true) {
			require.True(t, r == '\n' || r == '\t' || r >= ' ' && r < 0x7f)
		}
		again := sop.Plain(s, false)
		require.Equal(t, again, sop.Plain(again, false))
	})
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A terminal that is gone stops the run.
func TestTerminalGone(t *testing.T) {
	for _, j := range []sop.Journal{sop.NewTerminal(brokenPipe{}, false, time.UTC), sop.JSONLines(brokenPipe{})} {
		err := j.Append(sop.Record{State: sop.Began})
		require.ErrorIs(t, err, sop.ErrInterrupted)
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.Equal(t, 130, sop.ExitStatus(err, true))
	}
}

func TestJSONLines(t *testing.T) {
	var b strings.Builder
	j := sop.JSONLines(&b)
	for _, r := range steps() {
		require.NoError(t, j.Append(r))
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, lines, len(steps()))
	var r sop.Record
	require.NoError(t, json.Unmarshal([]byte(lines[3]), &r))
	require.Equal(t, steps()[3], r)
}

// cluster is a view of a cluster with so many voters, of which some are dead,
// and learners.
func cluster(voters, dead, learners int) sop.View {
	v := sop.View{Wanted: inventory.Group{Name: "etcd", Cluster: "etcd", ClientPort: 2379, PeerPort: 2380}, Inventory: sop.InventoryFile{Path: "pigsty.yml"}, Linear: true}
	for i := range voters + learners {
		id := uint64(i + 1)
		host := "10.10.10.1" + string(rune('0'+i))
		m := sop.Member{ID: id, Name: "etcd", PeerURLs: []string{"https://" + host + ":2380"}, ClientURLs: []string{"https://" + host + ":2379"}, Learner: i >= voters}
		v.Members = append(v.Members, m)
		l := sop.Look{Endpoint: m.ClientURLs[0], ClusterID: 0x1f, MemberID: id, Leader: uint64(dead + 1), Version: "3.7.3", Learner: m.Learner}
		if i < dead {
			l = sop.Look{Endpoint: m.ClientURLs[0], Problem: "connection refused"}
		}
		v.Looks = append(v.Looks, l)
	}
	return v
}

func TestHeader(t *testing.T) {
	one := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	require.Equal(t, "PROD pigsty.yml, cluster etcd (1f), etcd 3.7.3, 3 of 3 voters alive, 1 more may fail, leader 10.10.10.10", one(sop.Header(cluster(3, 0, 0), "PROD")))
	require.Contains(t, one(sop.Header(cluster(3, 1, 1), "LAB")), "2 of 3 voters alive, none may fail, leader 10.10.10.11, learner 10.10.10.13")
	require.Contains(t, one(sop.Header(cluster(3, 2, 0), "LAB")), "1 of 3 voters alive, NO QUORUM")
	require.Contains(t, one(sop.Header(cluster(5, 0, 0), "LAB")), "2 more may fail")
	require.Equal(t, "LAB pigsty.yml, cluster etcd: no member answers\n", sop.Header(cluster(0, 0, 0), "LAB"))
	v := cluster(3, 0, 0)
	v.Looks[0].Alarms = []string{"memberID:1 alarm:NOSPACE"}
	require.Contains(t, one(sop.Header(v, "LAB")), "ALARM memberID:1 alarm:NOSPACE")
	for line := range strings.SplitSeq(sop.Header(v, "LAB"), "\n") {
		require.LessOrEqual(t, len(line), 80)
	}
}

var errAny = errors.New("any")
