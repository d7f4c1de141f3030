package workload_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/workload"
)

const (
	header = `{"etcdrill_history":2,"base":"2026-01-01T00:00:00Z","seed":1,"clients":2,"lease_clients":1,"watchers":1,"prefix":"/load/","start_revision":3}` + "\n"
	put    = `{"call":0,"t_ns":1,"client":0,"op":"put","key":"/load/k","value":"a","endpoint":"e"}` + "\n"
	putOK  = `{"reply":0,"t_ns":2,"outcome":"ok","revision":4}` + "\n"
	get    = `{"call":1,"t_ns":3,"client":1,"op":"get","key":"/load/k","endpoint":"e"}` + "\n" + `{"reply":1,"t_ns":9,"outcome":"ok","revision":4,"mod_revision":4,"value":"a"}` + "\n"
	late   = `{"call":2,"t_ns":3,"client":1,"op":"put","key":"/load/k","value":"b","endpoint":"e"}` + "\n" + `{"reply":2,"t_ns":9,"outcome":"unknown","error":"timeout"}` + "\n"
	mark   = `{"t_ns":5,"mark":"step 1"}` + "\n"
	notice = `{"t_ns":6,"watcher":0,"notice":"events","revision":4,"events":[{"key":"/load/k","value":"a","mod_revision":4}],"endpoint":"e"}` + "\n"
	end    = `{"end":{"ops":3,"notices":1,"marks":1}}` + "\n"
	whole  = header + put + putOK + notice + mark + get + late + end
)

func TestRead(t *testing.T) {
	h, err := workload.Read(strings.NewReader(whole))
	require.NoError(t, err)
	require.True(t, h.Complete)
	require.Len(t, h.Ops, 3)
	require.Equal(t, []workload.Mark{{At: 5, Name: "step 1"}}, h.Marks)
	require.Equal(t, []workload.Notice{{At: 6, Kind: workload.Events, Revision: 4, Endpoint: "e",
		Events: []workload.Event{{Key: "/load/k", Value: "a", ModRevision: 4}}}}, h.Notices)
	require.Equal(t, 1, h.Acked())
	require.Equal(t, time.Duration(9), h.End())
	require.Equal(t, time.Second, h.Offset(h.Base.Add(time.Second)))
	require.Equal(t, workload.Op{Call: 3, Return: 9, Client: 1, Kind: workload.Put, Key: "/load/k", Value: "b",
		Outcome: workload.Unknown, Error: "timeout", Endpoint: "e"}, h.Ops[2])
	var b bytes.Buffer
	n, err := h.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	require.Equal(t, whole, b.String())
}

func TestReadTellsWhatIsWrong(t *testing.T) {
	with := func(old, new string) string { return header + strings.Replace(put+putOK, old, new, 1) }
	told := func(old, new string) string { return header + strings.Replace(notice, old, new, 1) }
	for _, row := range []struct {
		name, text string
		sentinel   error
		want       string
		ops        int // that come back beside a truncation
	}{
		{"empty", "", workload.ErrTruncated, "the file is empty", -1},
		{"cut in the header", header[:len(header)-1], workload.ErrTruncated, "line 1 is cut off", 0},
		{"cut early in the header", header[:50], workload.ErrTruncated, "line 1 is cut off", -1},
		{"cut in a line", header + put + putOK + mark + get[:40], workload.ErrTruncated, "line 5 is cut off after 1 operations", 1},
		{"cut between lines", header + put + putOK + mark, workload.ErrTruncated, "no last line after 1 operations", 1},
		{"cut between call and reply", header + put + putOK + late[:strings.Index(late, "\n")+1], workload.ErrTruncated, "no last line after 2 operations", 2},
		{"lines missing", header + put + putOK + mark + late + end, workload.ErrTruncated, "2 operations, 0 notices and 1 marks read, 3, 1 and 1 were written", 2},
		{"a reply missing", header + put + `{"end":{"ops":0,"marks":0}}` + "\n", workload.ErrTruncated, "1 operations, 0 notices", 1},
		{"another format", "#!/bin/sh\n", workload.ErrForeign, "line 1", -1},
		{"other JSON", `{"level":"info"}` + "\n", workload.ErrForeign, "line 1: no header", -1},
		{"not text", "\x1f\x8b\x00\n", workload.ErrForeign, "line 1", -1},
		{"older schema", strings.Replace(header, "history\":2", "history\":1", 1), workload.ErrForeign, "schema 1, this program reads 2", -1},
		{"newer schema", strings.Replace(header, "history\":2", "history\":3", 1), workload.ErrForeign, "schema 3, this program reads 2", -1},
		{"half a header", `{"etcdrill_history":2}` + "\n", workload.ErrForeign, "header without clients", -1},
		{"endless line", header + strings.Repeat("x", 5<<20), workload.ErrForeign, "line 2 is longer than", -1},
		{"a line that is no JSON", header + put + "\x00\x00\x00\n" + putOK, workload.ErrCorrupt, "line 3: history is corrupt", -1},
		{"half a line with an end", header + put[:30] + "\n" + putOK, workload.ErrCorrupt, "line 2: history is corrupt", -1},
		{"text after the end", header + `{"end":{"ops":0,"marks":0}}` + "\n" + put, workload.ErrCorrupt, "line 3: text after the end", -1},
		{"no time", header + "{}\n", workload.ErrCorrupt, "line 2: history is corrupt: a line without a time", -1},
		{"nothing known", header + `{"t_ns":1}` + "\n", workload.ErrCorrupt, "neither call nor reply, notice nor mark", -1},
		{"no kind", with(`"op":"put",`, ""), workload.ErrCorrupt, "call of nothing", -1},
		{"unknown kind", with(`"put"`, `"lock"`), workload.ErrCorrupt, `no such kind of operation: "lock"`, -1},
		{"called twice", header + put + put, workload.ErrCorrupt, "call 0 was made already", -1},
		{"answered twice", header + put + putOK + putOK, workload.ErrCorrupt, "reply to call 0, which was not made or was answered already", -1},
		{"unknown outcome", with(`"ok"`, `"perhaps"`), workload.ErrCorrupt, `no such outcome: "perhaps"`, -1},
		{"no outcome", with(`"outcome":"ok",`, ""), workload.ErrCorrupt, "reply without an outcome", -1},
		{"returned before it was called", with(`"t_ns":1`, `"t_ns":7`), workload.ErrCorrupt, "called at 7ns, returned at 2ns", -1},
		{"client out of range", with(`"client":0`, `"client":3`), workload.ErrCorrupt, "client 3 of 3", -1},
		{"lease of a client that has none", with(`"op":"put","key":"/load/k","value":"a"`, `"op":"grant"`), workload.ErrCorrupt, "client 0 has no leases", -1},
		{"revoke of nothing", with(`"client":0,"op":"put","key":"/load/k","value":"a"`, `"client":2,"op":"revoke"`), workload.ErrCorrupt, "revoke of no lease", -1},
		{"key elsewhere", with(`/load/k`, `/other/k`), workload.ErrCorrupt, `key "/other/k" is not below "/load/"`, -1},
		{"put that expects", with(`"value":"a"`, `"value":"a","expect":3`), workload.ErrCorrupt, "put expects mod revision 3", -1},
		{"put that is done", with(`"revision":4`, `"revision":4,"done":true`), workload.ErrCorrupt, "put is no txn", -1},
		{"acknowledged without a revision", with(`,"revision":4`, ""), workload.ErrCorrupt, "outcome ok with revision 0", -1},
		{"failed with a revision", with(`"ok"`, `"fail"`), workload.ErrCorrupt, "outcome fail with revision 4", -1},
		{"found what was to come", with(`"revision":4`, `"revision":4,"mod_revision":5`), workload.ErrCorrupt, "mod revision 5 with revision 4", -1},
		{"replaced itself", with(`"revision":4`, `"revision":4,"mod_revision":4`), workload.ErrCorrupt, "replaced itself", -1},
		{"write of nothing", with(`"value":"a",`, ""), workload.ErrCorrupt, "write without a value", -1},
		{"mark without a time", header + `{"mark":"x"}` + "\n", workload.ErrCorrupt, "a line without a time", -1},
		{"watcher out of range", told(`"watcher":0`, `"watcher":1`), workload.ErrCorrupt, "watcher 1 of 1", -1},
		{"unknown notice", told(`"events",`, `"rumour",`), workload.ErrCorrupt, `no such kind of notice: "rumour"`, -1},
		{"events of nothing", told(`"events":[{"key":"/load/k","value":"a","mod_revision":4}],`, ""), workload.ErrCorrupt, `notice "events" with 0 events`, -1},
		{"event elsewhere", told("/load/k", "/other/k"), workload.ErrCorrupt, "event without a key below", -1},
		{"opened nowhere", told(`"notice":"events","revision":4,"events":[{"key":"/load/k","value":"a","mod_revision":4}]`, `"notice":"open"`), workload.ErrCorrupt, `notice "open" from revision 0`, -1},
		{"progress to nowhere", told(`"notice":"events","revision":4,"events":[{"key":"/load/k","value":"a","mod_revision":4}]`, `"notice":"progress"`), workload.ErrCorrupt, `notice "progress" with revision 0`, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			h, err := workload.Read(strings.NewReader(row.text))
			require.ErrorIs(t, err, row.sentinel)
			require.ErrorContains(t, err, row.want)
			if row.ops < 0 {
				require.Nil(t, h)
				return
			}
			require.Len(t, h.Ops, row.ops)
			require.False(t, h.Complete)
		})
	}
	path := filepath.Join(t.TempDir(), "h.jsonl")
	_, err := workload.ReadHistory(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte(header), 0o644))
	_, err = workload.ReadHistory(path)
	require.ErrorIs(t, err, workload.ErrTruncated)
	require.ErrorContains(t, err, "read history "+path)
}

// A call that was sent and never answered is in the history all the same.
func TestUnansweredCalls(t *testing.T) {
	h, err := workload.Read(strings.NewReader(header + put + late[:strings.Index(late, "\n")+1] + mark))
	require.ErrorIs(t, err, workload.ErrTruncated)
	require.Len(t, h.Ops, 2)
	for _, o := range h.Ops {
		require.Equal(t, workload.Unknown, o.Outcome)
		require.Equal(t, "no reply was taken down", o.Error)
		require.Equal(t, time.Duration(5), o.Return, "the last moment that is known of")
	}
}

// Every kind is written and read again as the same.
func TestEveryKindIsWritten(t *testing.T) {
	op := func(o workload.Op) workload.Op {
		o.Call, o.Return, o.Endpoint = 1, 2, "e"
		if o.Outcome == 0 {
			o.Outcome = workload.OK
		}
		if o.Outcome == workload.OK {
			o.Revision = 9
		}
		return o
	}
	key := "/load/k"
	h := &workload.History{Complete: true, Ops: []workload.Op{
		op(workload.Op{Kind: workload.Put, Key: key, Value: "a\n\"\\é", Prev: "b", ModRevision: 8}),
		op(workload.Op{Kind: workload.Put, Key: key, Value: "a", Lease: 7, Outcome: workload.Unknown, Error: "say \"when\""}),
		op(workload.Op{Kind: workload.Get, Key: key, Value: "a", ModRevision: 8}),
		op(workload.Op{Kind: workload.SerializableGet, Key: key}),
		op(workload.Op{Kind: workload.Delete, Key: key, Prev: "b", ModRevision: 8}),
		op(workload.Op{Kind: workload.Txn, Key: key, Value: "c", Expect: 8, Prev: "b", ModRevision: 8, Done: true}),
		op(workload.Op{Kind: workload.Txn, Key: key, Value: "c", Expect: 8, Prev: "b", ModRevision: 9}),
		op(workload.Op{Client: 2, Kind: workload.Grant, Lease: 7, TTL: 2}),
		op(workload.Op{Client: 2, Kind: workload.KeepAlive, Lease: 7, TTL: 2}),
		op(workload.Op{Client: 2, Kind: workload.Revoke, Lease: 7}),
		op(workload.Op{Client: 2, Kind: workload.Revoke, Lease: 7, Outcome: workload.Fail, Error: "no"}),
	}, Notices: []workload.Notice{
		{At: 1, Kind: workload.Opened, From: 4}, {At: 1, Kind: workload.Progress, Revision: 6},
		{At: 2, Kind: workload.Events, Revision: 6, Events: []workload.Event{{Key: key, Deleted: true, ModRevision: 7, Lease: 1}}},
		{At: 2, Kind: workload.Ended, Compacted: 8, Error: "compacted"},
	}}
	require.NoError(t, json.Unmarshal([]byte(header), &h.Header))
	var b bytes.Buffer
	_, err := h.WriteTo(&b)
	require.NoError(t, err)
	again, err := workload.Read(&b)
	require.NoError(t, err)
	require.Equal(t, h, again)
	acked := 0
	for _, o := range h.Ops {
		if o.Acked() {
			acked++
		}
	}
	require.Equal(t, 3, acked, "put, delete of something, txn that was done")
}

// Whatever is read without an error is written and read again as the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(header + put + putOK))
	f.Add([]byte(header + `{"t_ns":1,"mark":""}` + "\n" + `{"end":{"ops":0,"marks":1}}` + "\n"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := workload.Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		var first bytes.Buffer
		_, err = h.WriteTo(&first)
		if err != nil {
			t.Skip("a base that RFC 3339 cannot write")
		}
		again, err := workload.Read(bytes.NewReader(first.Bytes()))
		require.NoError(t, err, first.String())
		var second bytes.Buffer
		_, err = again.WriteTo(&second)
		require.NoError(t, err)
		require.Equal(t, first.String(), second.String())
		require.Equal(t, len(h.Ops), len(again.Ops))
		require.Equal(t, len(h.Marks), len(again.Marks))
	})
}
