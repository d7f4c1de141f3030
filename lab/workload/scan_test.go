package workload

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// lines are calls and replies as they are written, and some that only look so.
func lines() [][]byte {
	var all [][]byte
	for _, o := range []Op{
		{Kind: Put, Key: "/k", Value: "a", Endpoint: "https://10.10.10.10:2379"},
		{Kind: Put, Key: "/k", Value: "a\\ \"b\" \u00e9", Lease: 7, Outcome: OK, Revision: 9, ModRevision: 8, Prev: "c"},
		{Kind: Txn, Key: "/k", Value: "a", Expect: 5, Outcome: OK, Revision: 9, Done: true},
		{Kind: Get, Key: "/k", Value: "a", Outcome: OK, Revision: math.MaxInt64},
		{Kind: Grant, Client: 3, Outcome: OK, Revision: 9, Lease: math.MaxInt64, TTL: 2},
		{Kind: Revoke, Lease: -7, Outcome: Fail, Error: "rpc error: code = Unknown desc = \n"},
		{Kind: KeepAlive, Lease: 7, Call: 1, Return: 2, Outcome: Unknown},
	} {
		if o.Outcome == 0 {
			o.Outcome = OK
		}
		all = append(all, bytes.TrimSpace(appendCall(nil, 12, &o)), bytes.TrimSpace(appendReply(nil, 12, &o)))
	}
	for _, s := range []string{
		`{"t_ns":1,"mark":"x"}`, `{"end":{"ops":1}}`, `{}`, `{"call":1`, `{"call":1}}`, `{"call":01}`, `{"call":1,}`, `{"call":1 }`, `{"call":"1"}`, `{"call":-1}`, `{"call":1.5}`,
		`{"call":1,"op":2}`, `{"call":1,"op":"lock"}`, `{"call":1,"key":3}`, `{"call":1,"t_ns":null}`, `{"Call":1}`, `{"call":1,"done":false}`, `{"call":1,"done":1}`,
		`{"reply":1,"outcome":"perhaps"}`, `{"call":1,"x":1}`, `{"call":1,"events":[]}`, `[1]`, `"call"`, ``,
	} {
		all = append(all, []byte(s))
	}
	return all
}

// FuzzScan holds the quick way of reading a line against the decoder: what it
// takes it reads as the same.
func FuzzScan(f *testing.F) {
	for _, b := range lines() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var quick, slow line
		if !quick.scan(b) {
			return
		}
		require.NoError(t, json.Unmarshal(b, &slow), "%s", b)
		again := quick
		for _, pair := range [][2]any{{again.Call, slow.Call}, {again.Reply, slow.Reply}, {again.At, slow.At}} {
			require.Equal(t, pair[1], pair[0], "%s", b)
		}
		again.Call, again.Reply, again.At, again.call, again.reply, again.at = nil, nil, nil, 0, 0, 0
		slow.Call, slow.Reply, slow.At = nil, nil, nil
		require.Equal(t, slow, again, "%s", b)
	})
}

// Most lines go the quick way.
func TestScanTakesWhatIsWritten(t *testing.T) {
	taken := 0
	for _, b := range lines() {
		var l line
		if l.scan(b) {
			taken++
		}
	}
	require.Equal(t, 9, taken)
}
