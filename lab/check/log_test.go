package check

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/workload"
)

const logText = `{"etcdrill_events":1,"endpoint":"e","from":4,"to":9,"events":2}
{"key":"/k","value":"a","mod_revision":5,"lease":7}
{"key":"/k","deleted":true,"mod_revision":9}
`

func TestLogIsWrittenAndRead(t *testing.T) {
	l := &Log{Endpoint: "e", From: 4, To: 9, Events: []workload.Event{
		{Key: "/k", Value: "a", ModRevision: 5, Lease: 7}, {Key: "/k", Deleted: true, ModRevision: 9}}}
	var b bytes.Buffer
	require.NoError(t, l.Write(&b))
	again, err := readLog(&b)
	require.NoError(t, err)
	require.Equal(t, l, again)
	read, err := readLog(strings.NewReader(logText))
	require.NoError(t, err)
	require.Equal(t, l, read)
	require.True(t, l.covers(4) && l.covers(9))
	require.False(t, l.covers(3) || l.covers(10))
	require.False(t, (*Log)(nil).covers(5))
}

func TestReadLogTellsWhatIsWrong(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(logText, old, new, 1) }
	for name, row := range map[string]struct {
		text     string
		sentinel error
		want     string
	}{
		"empty":                  {"", workload.ErrTruncated, "no header"},
		"cut in the header":      {logText[:20], workload.ErrTruncated, "no header"},
		"cut in an event":        {logText[:len(logText)-10], workload.ErrTruncated, "1 of 2 events"},
		"cut between events":     {logText[:strings.LastIndex(strings.TrimSpace(logText), "\n")+1], workload.ErrTruncated, "1 of 2 events"},
		"another format":         {"#!/bin/sh\n", workload.ErrForeign, "no header"},
		"another schema":         {with(`"etcdrill_events":1`, `"etcdrill_events":2`), workload.ErrForeign, "schema 2, this program reads 1"},
		"no schema":              {with(`"etcdrill_events":1,`, ""), workload.ErrForeign, "schema 0"},
		"no revisions":           {with(`"from":4`, `"from":0`), workload.ErrCorrupt, "revisions 0 to 9"},
		"not JSON":               {with(`"deleted":true`, `deleted`), workload.ErrCorrupt, "event 2"},
		"an event without a key": {with(`"key":"/k","value"`, `"value"`), workload.ErrCorrupt, "event 1 is out of place"},
		"out of order":           {with(`"mod_revision":9`, `"mod_revision":4`), workload.ErrCorrupt, "event 2 is out of place"},
		"beyond the end":         {with(`"mod_revision":9`, `"mod_revision":10`), workload.ErrCorrupt, "event 2 is out of place"},
		"one too many":           {logText + `{"key":"/k","mod_revision":9}`, workload.ErrCorrupt, "text after the last"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readLog(strings.NewReader(row.text))
			require.ErrorIs(t, err, row.sentinel)
			require.ErrorContains(t, err, row.want)
		})
	}
	_, err := ReadLog(t.TempDir() + "/none")
	require.ErrorContains(t, err, "read events")
}

// Whatever is read is written and read again as the same.
func FuzzReadLog(f *testing.F) {
	f.Add([]byte(logText))
	f.Add([]byte(logText[:len(logText)-10]))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := readLog(bytes.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		require.NoError(t, l.Write(&b))
		again, err := readLog(&b)
		require.NoError(t, err)
		require.Equal(t, l, again)
	})
}
