package workload_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/workload"
)

const (
	header = `{"etcdrill_history":1,"base":"2026-01-01T00:00:00Z","seed":1,"clients":2,"prefix":"/load/","start_revision":3}` + "\n"
	put    = `{"t_call_ns":1,"t_return_ns":2,"client":0,"op":"put","key":"/load/k","value":"a","revision":4,"outcome":"ok","endpoint":"e"}` + "\n"
	get    = `{"t_call_ns":3,"t_return_ns":9,"client":1,"op":"get","key":"/load/k","value":"a","revision":4,"mod_revision":4,"outcome":"ok","endpoint":"e"}` + "\n"
	late   = `{"t_call_ns":3,"t_return_ns":9,"client":1,"op":"put","key":"/load/k","value":"b","outcome":"unknown","error":"timeout","endpoint":"e"}` + "\n"
	mark   = `{"t_ns":5,"mark":"step 1"}` + "\n"
	end    = `{"end":{"ops":3,"marks":1}}` + "\n"
)

func TestRead(t *testing.T) {
	h, err := workload.Read(strings.NewReader(header + put + mark + get + late + end))
	require.NoError(t, err)
	require.True(t, h.Complete)
	require.Len(t, h.Ops, 3)
	require.Equal(t, []workload.Mark{{At: 5, Name: "step 1"}}, h.Marks)
	require.Equal(t, 1, h.Acked())
	require.Equal(t, time.Duration(9), h.End())
	require.Equal(t, time.Second, h.Offset(h.Base.Add(time.Second)))
	require.Equal(t, workload.Op{Call: 3, Return: 9, Client: 1, Kind: workload.Put, Key: "/load/k", Value: "b",
		Outcome: workload.Unknown, Error: "timeout", Endpoint: "e"}, h.Ops[2])
	var b bytes.Buffer
	n, err := h.WriteTo(&b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	require.Equal(t, header+put+mark+get+late+end, b.String())
}

func TestReadTellsWhatIsWrong(t *testing.T) {
	with := func(old, new string) string { return header + strings.Replace(put, old, new, 1) }
	for _, row := range []struct {
		name, text string
		sentinel   error
		want       string
		ops        int // that come back beside a truncation
	}{
		{"empty", "", workload.ErrTruncated, "the file is empty", -1},
		{"cut in the header", header[:len(header)-1], workload.ErrTruncated, "line 1 is cut off", 0},
		{"cut in a line", header + put + mark + get[:40], workload.ErrTruncated, "line 4 is cut off after 1 operations", 1},
		{"cut between lines", header + put + mark, workload.ErrTruncated, "no last line after 1 operations", 1},
		{"lines missing", header + put + mark + late + end, workload.ErrTruncated, "2 operations and 1 marks read, 3 and 1 were written", 2},
		{"another format", "#!/bin/sh\n", workload.ErrForeign, "line 1", -1},
		{"other JSON", `{"level":"info"}` + "\n", workload.ErrForeign, "line 1: no header", -1},
		{"not text", "\x1f\x8b\x00\n", workload.ErrForeign, "line 1", -1},
		{"newer schema", strings.Replace(header, "history\":1", "history\":2", 1), workload.ErrForeign, "schema 2, this program reads 1", -1},
		{"half a header", `{"etcdrill_history":1}` + "\n", workload.ErrForeign, "header without clients", -1},
		{"endless line", header + strings.Repeat("x", 2<<20), workload.ErrForeign, "line 2 is longer than", -1},
		{"text after the end", header + `{"end":{"ops":0,"marks":0}}` + "\n" + put, workload.ErrForeign, "line 3: text after the end", -1},
		{"no kind", header + "{}\n", workload.ErrForeign, "line 2: not a history: neither an operation nor a mark", -1},
		{"unknown kind", with(`"put"`, `"lock"`), workload.ErrForeign, `no such kind of operation: "lock"`, -1},
		{"unknown outcome", with(`"ok"`, `"perhaps"`), workload.ErrForeign, `no such outcome: "perhaps"`, -1},
		{"no outcome", with(`"outcome":"ok",`, ""), workload.ErrForeign, "operation without an outcome", -1},
		{"returned before it was called", with(`"t_call_ns":1`, `"t_call_ns":7`), workload.ErrForeign, "called at 7ns, returned at 2ns", -1},
		{"client out of range", with(`"client":0`, `"client":2`), workload.ErrForeign, "client 2 of 2", -1},
		{"key elsewhere", with(`/load/k`, `/other/k`), workload.ErrForeign, `key "/other/k" is not below "/load/"`, -1},
		{"acknowledged without a revision", with(`"revision":4,`, ""), workload.ErrForeign, "outcome ok with revision 0", -1},
		{"failed with a revision", with(`"ok"`, `"fail"`), workload.ErrForeign, "outcome fail with revision 4", -1},
		{"found what was to come", with(`"revision":4`, `"revision":4,"mod_revision":5`), workload.ErrForeign, "mod revision 5 with revision 4", -1},
		{"replaced itself", with(`"revision":4`, `"revision":4,"mod_revision":4`), workload.ErrForeign, "replaced itself", -1},
		{"write of nothing", with(`"value":"a",`, ""), workload.ErrForeign, "write without a value", -1},
		{"mark without a time", header + `{"mark":"x"}` + "\n", workload.ErrForeign, "mark without a time", -1},
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

// Whatever is read without an error is written and read again as the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(header + put + mark + get + late + end))
	f.Add([]byte(header + put))
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
