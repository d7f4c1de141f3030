package scenarios_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// five is three with two hosts more.
func five() string {
	const last = "        10.10.10.12: { etcd_seq: 3 }\n"
	return strings.Replace(three, last, last+"        10.10.10.13: { etcd_seq: 4 }\n        10.10.10.14: { etcd_seq: 5 }\n", 1)
}

// lazy has the member on a host write its backend out only when it must, and so
// fall far behind its own log on disk.
func lazy(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	f := facts(t, rig, name).Files[config.ConfPath]
	content := append(bytes.Clone(f.Content), "backend-batch-interval: 3600000000000\n"...)
	act(t, rig, name, host.WriteFile{Path: config.ConfPath, Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode},
		host.Systemctl{Verb: host.Restart, Unit: config.UnitName})
}

// leads waits until all members answer, and gives one of them the leadership.
func leads(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	eventually(t, "all answer, and "+name+" leads", func() bool {
		v := observe(t, rig)
		l, ok := v.Leader()
		if v.Votes().Dead > 0 || !ok {
			return false
		}
		if v.HostOf(l) != name {
			_, _ = run(t, rig, sop.MoveLeadership{To: name}) // it is looked at again
			return false
		}
		return true
	})
}

// onDisk is the newest revision in the backend of a member that does not run.
func onDisk(t *testing.T, rig *scenarios.Rig, name string) (revision int64) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(rig.Lab.Root(name), config.DefaultDataDir, "member/snap/db"))
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(copied, content, 0o600))
	db, err := bbolt.Open(copied, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		if k, _ := tx.Bucket([]byte("key")).Cursor().Last(); len(k) >= 8 {
			revision = int64(binary.BigEndian.Uint64(k))
		}
		return nil
	}))
	return revision
}

// touch makes all files of a member as new as they can be.
func touch(t *testing.T, rig *scenarios.Rig, name string) {
	t.Helper()
	at := time.Now().Add(time.Second)
	require.NoError(t, filepath.Walk(filepath.Join(rig.Lab.Root(name), config.DefaultDataDir), func(path string, _ os.FileInfo, err error) error {
		if err == nil {
			err = os.Chtimes(path, at, at)
		}
		return err
	}))
}

// The quorum is lost for good and there is no snapshot. Of two that are left, both
// of them stopped, one was behind; its backend is the newer on disk, and its files
// are. All that was acknowledged is in the other's log, and comes back.
func TestRestoreFromSurvivors(t *testing.T) {
	for _, version := range []string{"", "3.6.16", "3.5.35"} {
		t.Run("etcd "+version, func(t *testing.T) {
			t.Parallel()
			spec := scenarios.RigSpec{}
			if version != "" {
				spec = withEtcds(t, version)
			}
			spec.Inventory = []byte(five())
			rig := buildSpec(t, spec)
			g := on(rig)
			done(t, rig, create("survivors"))
			leads(t, rig, h10) // so that nobody whom a write is sent to is lost before it is
			g.puts(t, h10, "/early", 20)
			lazy(t, rig, h13)
			leads(t, rig, h10)
			early := g.puts(t, h10, "/then", 10)
			eventually(t, "all have applied it", func() bool {
				v := observe(t, rig)
				for _, m := range v.Members {
					if v.LookOf(m.ID).Revision < early {
						return false
					}
				}
				return true
			})
			require.NoError(t, pause(t.Context(), time.Second/2)) // the others write it out
			crash(t, rig, h14)
			crash(t, rig, h12)
			late := g.puts(t, h10, "/late", 30) // three of five: each of these is in the log of h13
			for _, name := range []string{h13, h10, h11} {
				crash(t, rig, name)
			}
			for _, name := range []string{h10, h11, h12} {
				wipe(t, rig, name)
			}
			touch(t, rig, h14)
			require.Less(t, onDisk(t, rig, h13), onDisk(t, rig, h14), "by its backend it would be the other")
			require.Equal(t, early, onDisk(t, rig, h14))

			file := filepath.Join(t.TempDir(), "left.db")
			p := sop.Snapshot{File: file, Since: time.Now()}
			refusedBy(t, rig, p, "voters-answer")
			p.Survivors = true
			before := g.once(t)
			res := done(t, rig, p)
			require.Contains(t, res.Plan.Warnings[0], h13+" gives the snapshot: its log ends at term")
			for _, line := range g.once(t).diff(before) {
				require.NotContains(t, line, config.DefaultDataDir+"/member", "what is left of the cluster was only read")
			}
			saved, err := sop.ReadSnapshot(file)
			require.NoError(t, err)
			require.EqualValues(t, late, saved.Revision)

			res = done(t, rig, restore(t, file))
			require.Equal(t, []string{h10, h11, h12, h13, h14}, voters(res.View))
			requireConsistent(t, rig)
			for _, name := range []string{h10, h14} {
				require.EqualValues(t, 20, g.count(t, name, "/early"))
				require.EqualValues(t, 10, g.count(t, name, "/then"))
				require.EqualValues(t, 30, g.count(t, name, "/late"))
			}
		})
	}
}

// What we read of a log is what etcd's own reader does, of a real log with elections
// and a raft snapshot in it, at every place where a crash may have cut it off.
func TestLogsAsEtcdReadsThem(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	g := on(rig)
	done(t, rig, create("logs"))
	for range 2 {
		g.puts(t, h10, "/keys", 40)
		leader, _ := observe(t, rig).Leader()
		done(t, rig, sop.MoveLeadership{From: observe(t, rig).HostOf(leader)})
	}
	crash(t, rig, h11)
	v := look(t, rig, sop.Scope{AllHosts: true, Logs: true})
	hv, _ := v.Host(h11)
	require.Empty(t, hv.LogProblem)
	state, entries := readWAL(t, filepath.Join(rig.Lab.Root(h11), config.DefaultDataDir, "member/wal"))
	last := entries[len(entries)-1]
	require.Equal(t, sop.Position{Term: last.GetTerm(), Index: last.GetIndex()}, hv.Log.Last)
	require.Equal(t, state.GetTerm(), hv.Log.Term)
	require.Equal(t, state.GetVote(), hv.Log.Vote)
	require.Equal(t, state.GetCommit(), hv.Log.Commit)

	at := filepath.Join(rig.Lab.Root(h11), config.DefaultDataDir, "member/wal", "0000000000000000-0000000000000000.wal")
	content, err := os.ReadFile(at)
	require.NoError(t, err)
	end := len(bytes.TrimRight(content, "\x00"))
	damaged := 0
	for _, n := range []int{end, end - 1, end - 9, end - 40, end - 300, end - 1000, end - end%512, end - end%512 - 512} {
		require.NoError(t, os.WriteFile(at, append(bytes.Clone(content[:n]), make([]byte, 4096)...), 0o600))
		hv, _ := look(t, rig, sop.Scope{AllHosts: true, Logs: true}).Host(h11)
		state, entries, err := tryWAL(filepath.Dir(at))
		if err != nil { // a piece of a sector is missing, which no crash leaves
			require.Contains(t, hv.LogProblem, "checksum is wrong", "%v", err)
			damaged++
			continue
		}
		require.NotNil(t, hv.Log, hv.LogProblem)
		require.Equal(t, entries[len(entries)-1].GetIndex(), hv.Log.Last.Index, "cut off %d bytes before its end", end-n)
		require.Equal(t, state.GetCommit(), hv.Log.Commit)
	}
	require.NotZero(t, damaged)
	require.Less(t, damaged, 7)
}

func look(t *testing.T, rig *scenarios.Rig, scope sop.Scope) sop.View {
	t.Helper()
	o := rig.Operator("look")
	defer o.Site.Close()
	v, err := o.Site.Observe(t.Context(), scope)
	require.NoError(t, err)
	return v
}

// readWAL reads a log with etcd's own reader.
func readWAL(t *testing.T, dir string) (*raftpb.HardState, []*raftpb.Entry) {
	t.Helper()
	state, entries, err := tryWAL(dir)
	require.NoError(t, err)
	return state, entries
}

func tryWAL(dir string) (*raftpb.HardState, []*raftpb.Entry, error) {
	w, err := wal.OpenForRead(zap.NewNop(), dir, &walpb.Snapshot{Index: new(uint64(0)), Term: new(uint64(0))})
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	return state, entries, err
}
