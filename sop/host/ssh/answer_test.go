package ssh

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

func asked1() host.Question {
	return host.Question{
		Units: []string{"a.service"}, Files: []string{"/a", "/b"}, Sums: []string{"/a"}, Dirs: []string{"/d"}, Ports: []int{22}, Callers: []int{22}, Users: []string{"etcd"}, Etcd: "/etcd",
		Dial: []string{"h:1"}, Programs: []string{"/p"}, Globs: []string{"/*"}, Addrs: true, HTTP: []string{"http://h/"}, TLS: []host.Handshake{{Address: "h:1"}},
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// anAnswer is a whole one.
func anAnswer() string {
	stat := func(name, kind string, length int) string {
		return fmt.Sprintf("%s\x00640\x00root\x000\x00UNKNOWN\x0077\x00%d\x00%s\x00990.500000000\x00", name, length, kind)
	}
	return strings.Join([]string{
		"units 0 are " + b64("LoadState=loaded\nMainPID=5\nExecMainStartTimestampMonotonic=2000000\nEnvironment=A=1\n"),
		"stats 0 are " + b64(stat("/a", "regular file", 3)+stat("/b", "regular empty file", 0)+stat("/d", "directory", 0)),
		"file 0 read", "file 1 read", "file 1 real /c", "heads 0 are " + b64("==> /a <==\n==>\n==> /b <==\n"),
		"sums 0 are " + b64("00ff  /a\x00"),
		"dir 0 wal " + b64("w"), "found 0 are " + b64("/d\x00\x00d\x000\x001.5\x00/d\x00.removed-x\x00d\x000\x007.5\x00/d\x00.removed-x/y\x00f\x002\x001\x00/d\x00z\x00f\x003\x001\x00/d\x00cut"),
		"mounts 0 are " + b64("1 2 0:1 / /d rw - ext4 x rw\n"), "dir 0 at /", "spaces 0 are " + b64("/\x0010\x004096\x00"),
		"user 0 there", "port 0 0016 77", "holder 0 77 sshd", "callers 0 are " + b64("   1: 0A0A0A0A:0016 0D0A0A0A:C350 01 00000000:00000000\n"), "glob 0 are " + b64("/b\x00/a\x00"), "addr 0 is 10.10.10.11/24",
		"program 0 said 0 1:2:3 " + b64("etcd Version: 3.7.3\n"), "program 1 problem Permission denied",
		"dial 0 said 1 " + b64("bash: connect: Connection refused\nbash: line 1: /dev/tcp/h/1: Connection refused"), "shake 0 said 0 ",
		"http 0 part " + b64("HTTP/1.1 100 Continue\r\n\r\nHTTP/2 200 \r\nA: b\r\n\r\nbody\netcdrill:0\n"),
		"boot 0 is abc", "clock 0 is 1000.5 10.00", "",
	}, "\n")
}

func TestAnswer(t *testing.T) {
	f, err := answer(asked1(), []byte(anAnswer()), nil)
	require.NoError(t, err)
	require.Equal(t, "==>", string(f.Files["/a"].Content), "a file may look like what stands between files")
	require.Equal(t, host.File{Exists: true, Real: "/c", Owner: "root", Group: "77", Mode: 0o640, Changed: time.Unix(990, 5e8)}, f.Files["/b"])
	require.Equal(t, map[string]string{"/a": "00ff"}, f.Sums)
	require.Equal(t, int64(992), f.Units["a.service"].Since.Unix(), "2 s after a start 10 s before the clock's 1000.5")
	d := f.Dirs["/d"]
	require.Equal(t, []string{"z"}, d.Entries)
	require.Equal(t, int64(5*512), d.UsedBytes)
	require.Equal(t, int64(40960), d.FreeBytes)
	require.Len(t, d.Aside, 1)
	require.Equal(t, int64(1024), d.Aside[0].Bytes)
	require.True(t, d.Mount)
	require.Equal(t, map[int]string{22: "sshd"}, f.Ports)
	require.Equal(t, map[int][]string{22: {"10.10.10.13:50000"}}, f.Callers)
	require.Equal(t, "Connection refused", f.Dials["h:1"])
	require.Equal(t, host.Reply{Status: 200, Body: []byte("body")}, f.HTTP["http://h/"])
	require.Equal(t, []string{""}, f.Handshakes)

	// A file that changes between stat and head is read again, never taken for
	// what it is not.
	for was, is := range map[string]string{"==> /a <==\n==>": "==> /a <==\n==>x", "==> /a <==\n": "==> /a <==\nx", "\n==> /b <==\n": "\n==> /b <==\nx"} {
		changed := strings.Replace("==> /a <==\n==>\n==> /b <==\n", was, is, 1)
		_, err = answer(asked1(), []byte(strings.Replace(anAnswer(), b64("==> /a <==\n==>\n==> /b <==\n"), b64(changed), 1)), nil)
		require.ErrorIs(t, err, errChanged, "%q", changed)
	}
	for i, line := range strings.Split(anAnswer(), "\n") {
		if strings.HasPrefix(line, "clock") {
			_, err := answer(asked1(), []byte(strings.Join(strings.Split(anAnswer(), "\n")[:i], "\n")), nil)
			require.ErrorContains(t, err, "cut off")
		}
	}
	for _, bad := range []string{"nonsense", "file x read", "file 9 real /x", "dir 0 wal ***", "clock 0 is soon 1", "program 9 said 0 ", "program 0 same", "units 0 are " + b64("MainPID=x"), "units 0 problem " + b64("no bus")} {
		_, err := answer(asked1(), []byte(bad+"\n"+anAnswer()), nil)
		require.Error(t, err, bad)
	}
}

// FuzzAnswer: whatever a host says, it is read or refused.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(anAnswer()))
	for _, line := range strings.Split(anAnswer(), "\n") {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		_, _ = answer(asked1(), out, nil)
	})
}
