package sop

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// What is left of a cluster that has lost its quorum: members that still run and
// data of those that do not. They are compared by their logs (raft_log.go).
//
// The one that came furthest gives the snapshot. Where it runs and has applied
// all of its log, it is asked for one. Else its data is brought to the end of its
// log first, on a copy and by its own etcd, forced to be alone: only that version
// of etcd knows how to apply what is in there. What it does not know to be
// committed is kept as well, see allCommitted.

// A Survivor is a member whose data is there.
type Survivor struct {
	Host    string
	Log     RaftLog
	Written time.Time // the newest of its files; it says nothing of what is in them
	Serves  bool      // it answers, and has a vote
}

// Survivors are those whose logs could be read, those that serve first.
func (v View) Survivors() []Survivor {
	id := v.lostCluster()
	var all []Survivor
	for _, name := range v.lastHosts() {
		hv, _ := v.Host(name)
		if hv.Log == nil || hv.Log.Cluster != id {
			continue
		}
		s := Survivor{Host: name, Log: *hv.Log, Serves: v.serves(name)}
		for _, d := range dataDirs(v.Spec(name)) {
			if at := hv.Facts.Dirs[d].Changed; at.After(s.Written) {
				s.Written = at
			}
		}
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b Survivor) int {
		switch {
		case a.Serves == b.Serves:
			return 0
		case a.Serves:
			return -1
		}
		return 1
	})
	return all
}

// serves reports whether the member on a host answers and has a vote.
func (v View) serves(name string) bool {
	m, listed := v.At(name)
	return listed && !m.Learner && v.Alive(m)
}

// lostCluster is the ID of the cluster that is to be recovered; zero when nobody
// can say which of several that is.
func (v View) lostCluster() uint64 {
	if id := v.ownID(); id != 0 {
		return id
	}
	var id uint64
	for _, h := range v.Hosts {
		switch {
		case h.Log == nil || h.Log.Cluster == id:
		case id != 0:
			return 0
		default:
			id = h.Log.Cluster
		}
	}
	return id
}

// lastHosts are the hosts on which there may be data: the inventory's, the
// members' as those that answer tell them, and those in the configuration of any
// of these, which names all members since the last change of them.
func (v View) lastHosts() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, h := range v.Wanted.Hosts {
		add(h.Name)
	}
	for _, m := range v.Members {
		add(v.HostOf(m))
	}
	for _, u := range v.lastPeers() {
		name := v.HostOf(Member{PeerURLs: []string{u}})
		if _, removed := v.Admin.Removed[name]; !removed {
			add(name)
		}
	}
	return names
}

// lastPeers are the members' peer URLs as their configuration names them, sorted.
func (v View) lastPeers() []string {
	var urls []string
	for _, h := range v.Hosts {
		if h.Log == nil {
			continue
		}
		conf, err := v.confOn(h)
		if err != nil {
			continue
		}
		for _, p := range conf.Initial {
			urls = append(urls, p.URL)
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// fromSurvivors takes the snapshot from the member that came furthest, once all
// that is left was looked at.
func (p Snapshot) fromSurvivors(v View) (Plan, error) {
	needs := []Safeguard{notKubeadm(), mayAdminister(), sameCluster(), oneID(), oneLog()}
	for _, name := range v.lastHosts() {
		needs = append(needs, survivorRead(name))
	}
	needs = append(needs, quorumIsLost())
	all := v.Survivors()
	best := furthest(logsOf(all))
	if best < 0 {
		for _, n := range needs {
			if err := n.Holds(v); err != nil {
				return Plan{}, refusalOf(n, err)
			}
		}
		return Plan{}, refuse("survivors", "", "restore a snapshot that was taken before: restore FILE", "no host has data of a member")
	}
	from := all[best]
	var plan Plan
	if from.Serves {
		plan = p.plan(v, SaveSnapshot{To: p.File, From: from.Host, Only: true}, append(needs, hasApplied(from))...)
	} else {
		plan = p.replayed(v, from, needs)
	}
	if !plan.Empty() {
		plan.Warnings = append(plan.Warnings, tellOf(all, best)...)
		plan.Warnings = append(plan.Warnings, "what none of these has is lost; what is saved becomes a cluster with: restore "+p.File)
	}
	return plan, nil
}

func logsOf(all []Survivor) []RaftLog {
	var logs []RaftLog
	for _, s := range all {
		logs = append(logs, s.Log)
	}
	return logs
}

// tellOf tells how far each survivor came.
func tellOf(all []Survivor, best int) []string {
	var lines []string
	for i, s := range all {
		which := "has a log that ends"
		if i == best {
			which = "gives the snapshot: its log ends"
		}
		line := fmt.Sprintf("%s %s at %s, and it knows %d to be committed", s.Host, which, s.Log.Last, s.Log.Commit)
		if !s.Written.IsZero() {
			line += "; last written " + s.Written.UTC().Format("2006-01-02 15:04:05 MST")
		}
		if s.Log.Last.Compare(all[best].Log.Last) > 0 {
			line += "; its end was never committed: another knows different entries to be"
		}
		if i != best {
			lines = append(lines, line)
			continue
		}
		lines = append([]string{line}, lines...)
		if n := s.Log.Last.Index - min(s.Log.Commit, s.Log.Last.Index); n > 0 {
			lines = append(lines, fmt.Sprintf("what its member was not told to be committed, the last %d of its entries, is kept: it may have been acknowledged", n))
		}
	}
	return lines
}

// replayDir is where the copy of a member's data is made: in the place for what is
// set aside, so that nobody takes it for data.
func replayDir(h inventory.Host) string { return host.AsidePath(h.DataDir, "replay") }

// replayed brings a copy of a member's data to the end of its log, and saves that.
func (p Snapshot) replayed(v View, from Survivor, needs []Safeguard) Plan {
	h, spec, log := from.Host, v.Spec(from.Host), from.Log
	work, saved := replayDir(spec), p.saved
	file := path.Join(work, fmt.Sprintf("replayed-%x-%x.db", log.Last.Term, log.Last.Index))
	replay := host.ReplayLog{Program: v.layout().Binary, DataDir: spec.DataDir, WALDir: spec.WALDir, Work: work, Segment: log.segment, Offset: log.offset, Record: log.allCommitted(), Path: file}
	still := []Safeguard{installed(h), isIdle(h), roomToReplay(h)}
	plan := Plan{
		Needs: append(needs, still...),
		Stages: []Stage{
			{"bring a copy of its data to the end of its log", []Step{
				{Title: "make " + work, Host: h, Act: On{h, host.MakeDir{Path: work, Owner: "root", Group: "root", Mode: 0o700}}, Until: either(saved, dirThere(h, work))},
				{Title: "replay the log", Host: h, Act: On{h, replay}, Until: either(saved, hasCopy(h, file)), Patience: Saving, Needs: still},
			}},
			{"save the key space", []Step{
				{Title: "fetch and verify", Host: h, Act: BringSnapshot{Host: h, Path: file, To: p.File, Index: log.Last.Index}, Until: saved, Patience: Saving},
			}},
			{"clear up", []Step{
				{Title: "delete the copy in " + work, Host: h, Act: On{h, host.Delete{Path: work}}, Until: dirGone(h, work)},
			}},
		},
	}
	return plan.ifOpen(v)
}

// bringSnapshot makes a snapshot file of a backend on a host, with the checksum at
// its end that etcd would have put there.
func (s *Site) bringSnapshot(ctx context.Context, a BringSnapshot, v View) (string, error) {
	h, err := s.host(v.Spec(a.Host))
	if err != nil {
		return "", err
	}
	hv, _ := v.Host(a.Host)
	if hv.Log == nil {
		return "", fmt.Errorf("make a snapshot: nothing is known of the log on %s", a.Host)
	}
	saved, err := receive(a.To, func(w io.Writer) error {
		sum := sha256.New()
		if err := h.Fetch(ctx, a.Path, io.MultiWriter(w, sum)); err != nil {
			return err
		}
		_, err := w.Write(sum.Sum(nil))
		return err
	}, func(saved Saved) error {
		if saved.Index < a.Index {
			return fmt.Errorf("%w: the log is applied up to index %d in it, and not up to %d", ErrSnapshot, saved.Index, a.Index)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("make a snapshot of the data on %s: %w", a.Host, err)
	}
	// In the copy it was the only member.
	saved.PeerURLs, saved.Members = v.lastPeers(), v.IDs()
	saved.From, saved.ClusterID, saved.Version, saved.Survivor = "the data on "+a.Host, hv.Log.Cluster, hv.Facts.Etcd.Version, true
	return s.recordSnapshot(saved, a.To, true)
}

// --- safeguards ---

// survivorRead: it is known how far the member on a host came, or that its data is
// gone.
func survivorRead(name string) Safeguard {
	return Safeguard{Name: "survivors", Show: "systemctl status etcd; ls -A DATA",
		Risk: "acknowledged writes that no other member has are given up",
		Holds: func(v View) error {
			const needed = "a look at every member that could have more than the others"
			h, ok := v.Host(name)
			if !ok || !h.Reachable() {
				return &Refusal{Host: name, Found: fmt.Sprintf("the host cannot be looked at%s", because(h.Problem)), Needed: needed,
					Hint: "bring the host back, or into the inventory; if it is lost: -waive=survivors:" + name}
			}
			spec := v.Spec(name)
			if err := hiddenIn(name, h.Facts, dataDirs(spec)...); err != nil {
				return err
			}
			switch id := v.lostCluster(); {
			case h.LogProblem != "":
				return &Refusal{Host: name, Found: "how far its member came cannot be read: " + h.LogProblem, Needed: needed,
					Hint: "if the others are known to have all that it has: -waive=survivors:" + name}
			case h.Log != nil && id != 0 && h.Log.Cluster != id:
				return &Refusal{Host: name, Found: fmt.Sprintf("its data is of cluster %s, and %s is the one that was here", ID(h.Log.Cluster), ID(id)), Needed: needed,
					Hint: "if its member was one of this cluster, look for where that data is; if not: -waive=survivors:" + name}
			}
			return nil // it was read, or there is none
		}}
}

// oneLog: all data is of one cluster, where nothing else says which it was.
func oneLog() Safeguard {
	return Safeguard{Name: "one-cluster", Show: "ls -A DATA",
		Holds: func(v View) error {
			if v.lostCluster() != 0 {
				return nil
			}
			var found []string
			for _, h := range v.Hosts {
				if h.Log != nil {
					found = append(found, h.Name+" has data of cluster "+ID(h.Log.Cluster))
				}
			}
			if len(found) == 0 {
				return nil
			}
			return &Refusal{Found: strings.Join(found, ", ") + ", and which of them was here is not remembered", Needed: "data of one cluster",
				Hint: "set the data aside that is not of this cluster, or take its host off the inventory"}
		}}
}

// quorumIsLost: there is not enough data for the cluster to come up by itself.
func quorumIsLost() Safeguard {
	return Safeguard{Name: "data-quorum", Show: "systemctl status etcd; ls -A DATA",
		Risk: "a cluster that would come up by itself is replaced by a new one",
		Holds: func(v View) error {
			n := len(v.lastHosts())
			if v.Exists() {
				n = len(v.Voters())
			}
			var names []string
			for _, s := range v.Survivors() {
				if m, listed := v.At(s.Host); !listed || !m.Learner {
					names = append(names, s.Host)
				}
			}
			if len(names) < Quorum(n) {
				return nil
			}
			return &Refusal{Found: fmt.Sprintf("%d of %d members have their data: %s", len(names), n, strings.Join(names, ", ")), Needed: "a quorum that is lost for good",
				Hint: "start etcd on these hosts, and look with: status; a quorum of them is the cluster as it was"}
		}}
}

// hasApplied: a member that runs has applied all of its log, so that nothing is
// missing in what it gives.
func hasApplied(s Survivor) Safeguard {
	return Safeguard{Name: "log-applied", Show: "ETCDCTL_ENDPOINTS=MEMBER:2379 etcdctl endpoint status -w json",
		Risk: "the last entries of its log are left out, which may have been acknowledged",
		Holds: func(v View) error {
			applied := v.LookAt(s.Host).Applied
			if hv, _ := v.Host(s.Host); hv.Log == nil || hv.Log.Last.Index <= applied {
				return nil
			}
			return &Refusal{Host: s.Host, Found: fmt.Sprintf("its log ends at index %d, and it has applied it up to %d: it was not told that the rest is committed", s.Log.Last.Index, applied), Needed: "all that it has",
				Hint: "stop it (systemctl stop etcd), and run this again: it is brought to the end of its log then"}
		}}
}

// isIdle: nothing runs on the data that is to be copied.
func isIdle(name string) Safeguard {
	return Safeguard{Name: "stopped", Show: "systemctl is-active etcd",
		Holds: func(v View) error {
			if err := stopped(name)(v); err != nil {
				return &Refusal{Host: name, Found: err.Error() + ", and serves nobody", Needed: "data that nobody writes to",
					Hint: "stop it, and run this again: systemctl stop etcd"}
			}
			return nil
		}}
}

// roomToReplay: the host has room for a copy of the data.
func roomToReplay(name string) Safeguard {
	return Safeguard{Name: "disk", Show: "df -h DATA",
		Risk: "the host may run out of space in the middle; the data itself is only read",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			spec := v.Spec(name)
			var need int64
			for _, d := range dataDirs(spec) {
				need += facts.Dirs[d].UsedBytes
				for _, a := range facts.Dirs[d].Aside {
					need -= a.Bytes
				}
			}
			if free := facts.Dirs[spec.DataDir].FreeBytes; free < need {
				return &Refusal{Host: name, Found: fmt.Sprintf("%s are free for %s, which has %s", Bytes(free), spec.DataDir, Bytes(need)), Needed: "room for a copy", Hint: "make room there: what earlier runs set aside may go"}
			}
			return nil
		}}
}

// --- the look at a log ---

// walFiles is the pattern of the files of a host's log.
func walFiles(h inventory.Host) string {
	if h.WALDir != "" {
		return path.Join(h.WALDir, "*.wal")
	}
	return path.Join(h.DataDir, "member/wal/*.wal")
}

// A readLog is a log that was read, and of what.
type readLog struct {
	of      string
	log     *RaftLog
	problem string
}

// raftLog reads a host's log as far back as it has to be, unless it is as it was
// when it was read last.
func (s *Site) raftLog(ctx context.Context, h host.Host, spec inventory.Host, facts host.Facts) (*RaftLog, string) {
	names := facts.Globs[walFiles(spec)]
	if len(names) == 0 {
		return nil, ""
	}
	of := strings.Join(names, " ")
	for _, d := range dataDirs(spec) {
		of += fmt.Sprintf(" %v %d", facts.Dirs[d].Changed, facts.Dirs[d].UsedBytes)
	}
	s.mu.Lock()
	known := s.logs[spec.Name]
	s.mu.Unlock()
	if known.of == of {
		return known.log, known.problem
	}
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Installing])
	defer stop()
	read := readLog{of: of}
	for n := 1; ; n++ {
		log, err := fetchLog(ctx, h, names[len(names)-n:])
		if err != nil {
			read.problem = err.Error()
			break
		}
		if log.reaches() || n == len(names) {
			read.log = &log
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs == nil {
		s.logs = map[string]readLog{}
	}
	s.logs[spec.Name] = read
	return read.log, read.problem
}

// fetchLog reads the last files of a log, which are given in order.
func fetchLog(ctx context.Context, h host.Host, names []string) (RaftLog, error) {
	var r logReader
	for i, name := range names {
		in, out := io.Pipe()
		go func() { _ = out.CloseWithError(h.Fetch(ctx, name, out)) }() // it reaches the reader
		err := r.segment(path.Base(name), in, i == len(names)-1)
		_ = in.CloseWithError(err)
		if err != nil {
			return RaftLog{}, err
		}
	}
	return r.end()
}
