package ssh_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

func TestFetch(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		noise := make([]byte, 1<<20+7)
		random := rand.NewChaCha8([32]byte{1})
		_, _ = random.Read(noise)
		for name, content := range map[string]string{
			"/data/empty": "", "/data/it's a line\n": "a\n", "/data/zeros": strings.Repeat("\x00", 3<<20), "/data/noise": string(noise),
		} {
			r.write(name, content, 0o600)
			var b bytes.Buffer
			require.NoError(t, m.Fetch(t.Context(), name, &b), name)
			require.True(t, content == b.String(), "%q: %d bytes are %d", name, len(content), b.Len())
		}
		var b bytes.Buffer
		require.ErrorContains(t, m.Fetch(t.Context(), "/data/none", &b), "No such file or directory")
		require.ErrorContains(t, m.Fetch(t.Context(), "/data", &b), "Is a directory")
		require.ErrorContains(t, m.Fetch(t.Context(), "data", &b), "not an absolute path")
		require.Empty(t, b.Bytes())
		// A reader that has enough ends it, and the connection is as good as before.
		enough := errors.New("enough")
		require.ErrorIs(t, m.Fetch(t.Context(), "/data/noise", refusing{enough}), enough)
		require.NoError(t, m.Fetch(t.Context(), "/data/noise", &b))
		require.Equal(t, len(noise), b.Len())
	})
}

// Who only looks may see what root sees, where that was asked for.
func TestFetchAsRoot(t *testing.T) {
	r := newRig(t)
	r.write("/data/secret", "log", 0o600)
	r.shell("chmod 0700 /data")
	var b bytes.Buffer
	plain := newClient(t, readOnly).Host(r.spec("plain"))
	require.ErrorContains(t, plain.Fetch(t.Context(), "/data/secret", &b), "Permission denied")
	if _, err := os.Stat(r.path("/usr/bin/sudo")); err != nil {
		missing(t, "sudo is not on this machine")
	}
	root := newClient(t, readOnly, asRoot).Host(r.spec("dba"))
	require.NoError(t, root.Fetch(t.Context(), "/data/secret", &b))
	require.Equal(t, "log", b.String())
	require.Error(t, root.Do(t.Context(), host.RemoveFile{Path: "/data/secret"}))
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

// etcd is one that writes down what it finds, serves, and waits to be ended.
const etcd = `#!/bin/sh
conf=${1#--config-file=}
grep -q '^force-new-cluster: true$' "$conf" || exit 9
case $(tail -c 3 data/member/wal/*1.wal) in bad) echo 'panic: the log is bad'; exit 2 ;; esac
cat data/member/wal/*.wal >data/member/snap/db
echo '{"msg":"ready to serve client requests"}'
trap 'echo ended >>data/member/snap/db; exit 0' TERM
while :; do sleep 0.05; done
`

func TestReplayLog(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		r.write("/usr/local/bin/etcd", etcd, 0o755)
		r.shell("mkdir -p /data/etcd/member/wal /data/etcd/member/snap /data/etcd/.removed-replay; cd /data/etcd/member; printf one >wal/0.wal; printf two-torn >wal/1.wal; echo old >snap/db; chown -R etcd:etcd /data/etcd")
		before := r.shell("cd /data/etcd && find . -type f -exec sha256sum {} + | sort; stat -c %U:%G member/snap/db")
		a := host.ReplayLog{Program: "/usr/local/bin/etcd", DataDir: "/data/etcd", Work: "/data/etcd/.removed-replay", Segment: "1.wal", Offset: 3, Record: []byte("\x00end"), Path: "/data/etcd/.removed-replay/replayed.db"}
		do(t, m, a, a)
		require.Equal(t, "onetwo\x00endended\n", r.read(a.Path))
		require.Equal(t, "root:root 600", r.kept(a.Path))
		require.Equal(t, "replayed.db", r.shell("ls -A "+a.Work), "nothing else is left")
		r.shell("rm " + a.Path)
		require.Equal(t, before, r.shell("cd /data/etcd && find . -type f -exec sha256sum {} + | sort; stat -c %U:%G member/snap/db"), "the data itself is as it was")

		broken := a
		broken.Record = []byte("bad")
		require.Contains(t, failure(t, m.Do(t.Context(), broken)).Output, "panic: the log is bad")
		require.Empty(t, r.shell("ls -A "+a.Work))

		// With a log in a directory of its own.
		r.shell("mkdir '/wal etcd' && mv /data/etcd/member/wal/*.wal '/wal etcd/' && rmdir /data/etcd/member/wal")
		a.WALDir, a.Record = "/wal etcd", nil
		do(t, m, a)
		require.Equal(t, "onetwo-tornended\n", r.read(a.Path))

		for _, bad := range []func(a *host.ReplayLog){
			func(a *host.ReplayLog) { a.Segment = "../x" },
			func(a *host.ReplayLog) { a.DataDir = "data" },
			func(a *host.ReplayLog) { a.Program, a.Path = "/no/etcd", "/data/etcd/.removed-replay/x" },
		} {
			b := a
			bad(&b)
			require.Error(t, m.Do(t.Context(), b), "%+v", b)
		}
	})
}
