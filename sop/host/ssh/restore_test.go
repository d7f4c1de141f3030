package ssh_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

// utility is an etcdutl that writes down what it was asked for.
const utility = `#!/bin/sh
[ "$1" = version ] && { echo "etcdutl version: 3.7.3"; exit; }
for a; do
	case $a in
	--data-dir=*) data=${a#*=} ;;
	--wal-dir=*) wal=${a#*=} ;;
	--name=broken) mkdir -p "$data/member"; echo "expected sha256 [1], got [2]" >&2; exit 1 ;;
	esac
done
mkdir -p "$data/member/snap" "${wal:=$data/member/wal}" || exit
cp "$3" "$data/member/snap/db" && echo log >"$wal/0.wal"
shift 3
for a; do case $a in *-dir=*) ;; *) printf '%s\n' "$a" ;; esac; done >"$data/member/asked"
`

func TestPutFile(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		from := filepath.Join(t.TempDir(), "s.db")
		require.NoError(t, os.WriteFile(from, []byte("snapshot\x00\n"), 0o600))
		a := host.PutFile{From: from, Path: "/data/snapshot-abc.db", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("snapshot\x00\n")))}
		do(t, m, a)
		require.Equal(t, "snapshot\x00\n", r.read(a.Path))
		require.Equal(t, "root:root 600", r.kept(a.Path))
		inode := r.shell("stat -c %i " + a.Path)
		do(t, m, a)
		require.Equal(t, inode, r.shell("stat -c %i "+a.Path), "what is there is not sent again")
		wrong := a
		wrong.Path, wrong.SHA256 = "/data/other.db", "00"
		require.ErrorContains(t, failure(t, m.Do(t.Context(), wrong)), "sha256")
		require.Equal(t, "snapshot-abc.db", r.shell("ls -A /data"))
	})
}

func TestRestoreData(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		r.write("/usr/local/bin/etcdutl", utility, 0o755)
		r.shell("mkdir -p /data/etcd/.removed-x/restore '/wal etcd/.removed-x/restore' && echo data >/data/s.db")
		require.Equal(t, "3.7.3", look(t, m, host.Question{Programs: []string{"/usr/local/bin/etcdutl"}}).Programs["/usr/local/bin/etcdutl"].Version)
		a := host.RestoreData{Program: "/usr/local/bin/etcdutl", Snapshot: "/data/s.db", Work: "/data/etcd/.removed-x/restore", DataDir: "/data/etcd",
			Name: "etcd-1", PeerURL: "https://10.10.10.11:2380", Initial: "etcd-1=https://10.10.10.11:2380,etcd-2=https://10.10.10.12:2380",
			Token: "etcd-restore-20260101T000000Z-00", Bump: 1000, Owner: "etcd", Group: "etcd"}

		broken := a
		broken.Name = "broken"
		require.Contains(t, failure(t, m.Do(t.Context(), broken)).Output, "expected sha256 [1], got [2]")
		require.Empty(t, r.shell("ls -A /data/etcd/.removed-x/restore"), "nothing half done is left")
		require.Equal(t, ".removed-x", r.shell("ls -A /data/etcd"))

		do(t, m, a)
		require.Equal(t, "data\n", r.read("/data/etcd/member/snap/db"))
		require.Equal(t, "etcd:etcd", r.shell("stat -c %U:%G /data/etcd/member/wal/0.wal"))
		require.Equal(t, "--name=etcd-1\n--initial-cluster="+a.Initial+"\n--initial-cluster-token="+a.Token+"\n--initial-advertise-peer-urls="+a.PeerURL+
			"\n--bump-revision=1000\n--mark-compacted\n", r.read("/data/etcd/member/asked"))
		require.Empty(t, r.shell("ls -A /data/etcd/.removed-x/restore"))
		require.Contains(t, failure(t, m.Do(t.Context(), a)).Output, "File exists", "data that is there is not overwritten")

		r.shell("rm -r /data/etcd/member")
		a.WALDir, a.WALWork = "/wal etcd", "/wal etcd/.removed-x/restore"
		do(t, m, a)
		require.Equal(t, "log\n", r.read("/wal etcd/0.wal"))
		require.Equal(t, "etcd:etcd", r.shell("stat -c %U:%G '/wal etcd/0.wal'"))
		require.Equal(t, "asked\nsnap", r.shell("ls -A /data/etcd/member"))
		require.Empty(t, r.shell("ls -A '/wal etcd/.removed-x/restore'"))

		for _, bad := range []func(a *host.RestoreData){
			func(a *host.RestoreData) { a.Name = "-x" },
			func(a *host.RestoreData) { a.Token = "" },
			func(a *host.RestoreData) { a.DataDir = "data" },
			func(a *host.RestoreData) { a.Owner = "mallory" },
		} {
			b := a
			bad(&b)
			require.Error(t, m.Do(t.Context(), b), "%+v", b)
		}
	})
}
