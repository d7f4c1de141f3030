package sop

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// Restore builds a new cluster on the inventory's hosts from a snapshot.
//
// It is a new cluster, with a token and so an ID of its own: an old member that
// comes back cannot talk to it. What is left of the old one is stopped and set
// aside on every host before the first member of the new one starts, and all of
// them start together, from the same file. The revision is raised far above
// anything that the old cluster can have reached and counts as compacted, so
// that a client which watches from an old revision is told to look anew.
//
// What is written on the admin host before the first change lets a rerun go on
// with the same token. A member's data is there whole or not at all, so each
// host tells by itself how far it came.
type Restore struct {
	File     string // absolute path
	Snapshot Saved  // as it was proved
	Problem  string // why it cannot be used; empty when it can
	// Denied is why our user would not get in once it is restored; empty when he
	// would. Users and passwords are those of the snapshot then.
	Denied string
	// Again restores a snapshot once more that was restored here before.
	Again bool
	// Since is when this run began, or the one that was cut off.
	Since time.Time
	Token string // a fresh initial-cluster-token
	Stamp string // names what is set aside
}

// Bump is what is added to the newest revision of a snapshot. A cluster that
// takes a thousand writes a second needs eleven days for as many.
const Bump = 1_000_000_000

// String implements Procedure.
func (p Restore) String() string {
	s := "restore " + p.File
	if p.Again {
		s += " -again"
	}
	return s
}

// Lossy says that data may be set aside.
func (p Restore) Lossy() {}

// Plan implements Procedure.
func (p Restore) Plan(v View) (Plan, error) {
	if err := p.Unsound(); err != nil {
		return Plan{}, err
	}
	if len(v.Wanted.Hosts) == 0 {
		return Plan{}, refuse("inventory-sound", "", "add hosts to it", "group %s has no hosts", v.Wanted.Name)
	}
	note := p.note(v)
	if note.Done && note.made(v) {
		return Plan{Warnings: []string{fmt.Sprintf("this snapshot was restored here, begun %s; to set aside what was written since, and restore it again: -again", note.Began.UTC().Format("2006-01-02 15:04:05 MST"))}}, nil
	}
	plan := Plan{
		NoCluster: true,
		GiveUp:    "destroyCluster",
		Needs: []Safeguard{inventorySound(), notKubeadm(), p.sameCluster(note), allReachable(), enoughHosts(), noLivingQuorum(note), p.noneElsewhere(note), mayAdminister(), p.admits(), clocksAgree(),
			caForCreate(), p.versions(), p.quota()},
		Warnings: append([]string{note.lost()}, p.references(v, note).warnings()...),
	}
	for _, h := range v.reachableHosts() {
		plan.Needs = append(plan.Needs, installable(h.Name), restorable(h.Name), p.roomToRestore(h.Name, note), portsFree(h.Name), noProxy(h.Name))
	}
	plan.Needs = append(plan.Needs, certificatesGiven(v.reachableNames()...))
	plan.Consent = p.consent(v, plan, note)
	noted := note
	noted.Done = true
	plan.Stages = slices.Concat(
		[]Stage{{"note what is restored", []Step{{Title: "note what is restored", Act: NoteRestore{note}, Until: isNoted(note)}}}},
		p.fence(v, note),
		p.bring(v, note),
		p.start(v, note),
		[]Stage{{"clear up", append(clearWork(v, note), Step{Title: "note that it is restored", Act: NoteRestore{noted}, Until: isNoted(noted)})}},
	)
	return plan.ifOpen(v), nil
}

// Unsound refuses a file that is no sound snapshot.
func (p Restore) Unsound() error {
	if p.Problem == "" {
		return nil
	}
	r := refuse("snapshot-sound", "", "take another snapshot, or another copy of this one", "%s", p.Problem)
	r.Needed = "a whole snapshot, as the target snapshot or etcdctl saved it"
	return r
}

// note is what there is to write down of this restore: what was, where it goes on
// with one that was begun.
func (p Restore) note(v View) Restoring {
	if r := v.Admin.Restoring; r != nil && r.SHA256 == p.Snapshot.SHA256 && r.isOf(v) && !(p.Again && r.Done && r.Began.Before(p.Since.Truncate(time.Second))) {
		return *r
	}
	own := v.ownClusters()
	note := Restoring{SHA256: p.Snapshot.SHA256, Revision: p.Snapshot.Revision, Taken: p.Snapshot.Taken, Token: p.Token, Stamp: p.Stamp, Began: p.Since, Former: own, Survivor: p.Snapshot.Survivor}
	note.Newest, note.Where = v.newestRevision()
	if id := p.Snapshot.ClusterID; id != 0 && !slices.Contains(own, id) {
		note.Former = append(slices.Clone(own), id)
	}
	note.Code = v.consent("", Plan{}, p.String()).Code
	return note
}

// isOf reports whether nothing is here but what this restore has left, or has made:
// an earlier one that was given up says nothing of what came after it.
func (r Restoring) isOf(v View) bool {
	id := expectedCluster(v, r.Token)
	if r.Done && !r.made(v) {
		return false
	}
	return !slices.ContainsFunc(v.presentClusters(), func(other uint64) bool { return other != id && !slices.Contains(r.Former, other) })
}

// made reports whether the cluster that serves is the one of this restore.
func (r Restoring) made(v View) bool {
	return v.ClusterID() == expectedCluster(v, r.Token) && v.Votes().HasQuorum()
}

// isNoted holds when this restore is written down.
func isNoted(r Restoring) Condition {
	return func(v View) error {
		if n := v.Admin.Restoring; n == nil || n.Token != r.Token || r.Done && !n.Done {
			return errors.New("the restore is not written down yet")
		}
		return nil
	}
}

// ownClusters are the IDs that this inventory's cluster is known to have, or to
// have had: of the members that answer, of the data on the hosts, of the one that
// was met before, and of those that it was restored from.
func (v View) ownClusters() []uint64 {
	ids := append(v.presentClusters(), v.Admin.ClusterID)
	if r := v.Admin.Restoring; r != nil && (r.Done && slices.Contains(ids, expectedCluster(v, r.Token)) || !r.Done && r.isOf(v)) {
		ids = append(ids, r.Former...)
	}
	return sortedIDs(ids)
}

// presentClusters are the IDs of the members that answer and of the data on the
// hosts.
func (v View) presentClusters() []uint64 {
	ids := []uint64{v.ClusterID()}
	for _, h := range v.Wanted.Hosts {
		hv, _ := v.Host(h.Name)
		if who, err := Identify(logOf(hv.Facts, h)); err == nil {
			ids = append(ids, who.Cluster)
		}
	}
	return sortedIDs(ids)
}

func sortedIDs(ids []uint64) []uint64 {
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id uint64) bool { return id == 0 })
}

// newestRevision is the newest that any member tells, with or without a quorum.
func (v View) newestRevision() (newest int64, where string) {
	for _, l := range v.Looks {
		if l.Answers() && l.Revision > newest {
			newest, where = l.Revision, l.Host
		}
	}
	return newest, where
}

// consent tells what is at stake; nil where nothing is left to be set aside. The
// code stays the same from the first run to the last.
func (p Restore) consent(v View, plan Plan, note Restoring) *Consent {
	if !slices.ContainsFunc(v.reachableHosts(), func(h inventory.Host) bool { return v.hasEtcd(h.Name) && note.restoredOn(v, h)(v) != nil }) {
		return nil
	}
	c := v.consent("set aside what is left of this cluster, and restore a snapshot", plan, p.String())
	c.Code = note.Code
	s := p.Snapshot
	taken := "unknown: nothing is recorded beside it"
	if !s.Taken.IsZero() {
		taken = fmt.Sprintf("%s, from %s of cluster %s", s.Taken.UTC().Format("2006-01-02 15:04:05 MST"), s.From, ID(s.ClusterID))
	}
	c.Shown = append(c.Shown, "snapshot: "+p.File, "taken: "+taken, fmt.Sprintf("revision: %d, %s, sha256 %s", s.Revision, Bytes(s.Bytes), s.SHA256[:12]), "lost: "+note.lost())
	return c
}

// --- the stages ---

// fence stops the old members on every host, then sets aside all that they could
// come back with. A host that has its new data already is done with.
func (p Restore) fence(v View, note Restoring) []Stage {
	var stages []Stage
	if v.Votes().HasQuorum() && !note.made(v) { // it was waived; what is there is saved all the same
		stages = append(stages, takeDown(v, note.Stamp)[0])
	}
	var stop, aside []Step
	for _, spec := range v.reachableHosts() {
		h, done := spec.Name, note.restoredOn(v, spec)
		for _, s := range []Step{
			{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: v.unit()}}, Until: enabled(h, "disabled", "masked", "")},
			stopUnit(v, h),
		} {
			s.Until = either(done, s.Until)
			stop = append(stop, s)
		}
		steps := append(keepConf(v, h), removeFile(h, v.layout().Conf, "remove the old etcd.conf"))
		for _, d := range dataDirs(spec) {
			steps = append(steps, Step{Title: "set aside " + d, Host: h, Act: On{h, host.SetAside{Path: d, Stamp: note.Stamp}}, Until: dirEmpty(h, d), Needs: []Safeguard{isStopped(h)}})
		}
		for _, s := range steps {
			s.Until = either(done, s.Until)
			aside = append(aside, s)
		}
	}
	return append(stages, Stage{"stop every old member", stop}, Stage{"set the old data aside", aside})
}

// bring puts on each host what a member needs, and makes its data there.
func (p Restore) bring(v View, note Restoring) []Stage {
	var install, certs, files, sent, data []Step
	if v.layout().TLS {
		certs = append(certs, Step{Title: "make the CA", Act: MakeCA{}, Until: hasCA, Needs: []Safeguard{caForCreate()}})
	}
	for _, spec := range v.reachableHosts() {
		h, done := spec.Name, note.restoredOn(v, spec)
		install = append(install, installEtcd(v, h)...)
		install = append(install, installUtility(v, h, done)...)
		files = append(files, append(certify(v, h), prepare(v, h)...)...)
		for _, d := range dataDirs(spec) {
			work := Step{Title: "make " + note.work(d), Host: h, Act: On{h, host.MakeDir{Path: note.work(d), Owner: "root", Group: "root", Mode: 0o700}}, Until: either(done, dirThere(h, note.work(d)))}
			sent = append(sent, work)
		}
		put := host.PutFile{From: p.File, Path: path.Join(note.work(spec.DataDir), note.copyName()), SHA256: p.Snapshot.FileSHA}
		sent = append(sent, Step{Title: "send the snapshot", Host: h, Act: On{h, put}, Until: either(done, hasCopy(h, put.Path)), Patience: Saving})
		data = append(data, Step{Title: "restore the data", Host: h, Act: On{h, p.dataOf(v, spec, note, put.Path)}, Until: done, Patience: Saving,
			Needs: []Safeguard{isStopped(h), hasUtility(h), emptyOr(h, spec, done)}})
	}
	return []Stage{{"install etcd", install}, {"issue certificates", certs}, {"prepare the hosts", files}, {"bring the snapshot to the hosts", sent}, {"restore the data", data}}
}

func (p Restore) dataOf(v View, spec inventory.Host, note Restoring, snapshot string) host.RestoreData {
	kept := v.layout().Place(config.DataDirectory(spec.DataDir))
	a := host.RestoreData{
		Program: v.utility(), Snapshot: snapshot, Work: note.work(spec.DataDir), DataDir: spec.DataDir, WALDir: spec.WALDir,
		Name: v.MemberName(spec.Name), PeerURL: v.PeerURL(spec.Name), Token: note.Token, Bump: Bump,
		Owner: kept.Owner, Group: kept.Group,
	}
	if spec.WALDir != "" {
		a.WALWork = note.work(spec.WALDir)
	}
	var initial []string
	for _, h := range v.Wanted.Hosts {
		initial = append(initial, v.Wanted.MemberName(h)+"="+v.Wanted.PeerURL(h))
	}
	a.Initial = strings.Join(initial, ",")
	return a
}

// start gives the members their configuration, now that each has its data, and
// starts them together. One that was started without would found an empty one.
func (p Restore) start(v View, note Restoring) []Stage {
	id := expectedCluster(v, note.Token)
	hosts := v.reachableHosts()
	formed := formedAs(id, hosts)
	risen := func(v View) error {
		for _, m := range v.LivingVoters() {
			if l := v.LookOf(m.ID); l.Revision < note.Revision+Bump {
				return fmt.Errorf("the member on %s is at revision %d, and the snapshot's is %d, raised by %d", v.HostOf(m), l.Revision, note.Revision, Bump)
			}
		}
		return nil
	}
	var files, start, finish []Step
	for _, spec := range hosts {
		h, done := spec.Name, note.restoredOn(v, spec)
		conf := Install{Host: h, File: Conf, State: "new", Token: note.Token, At: v.at(Conf)}
		files = append(files, Step{Title: "write etcd.conf", Host: h, Act: conf, Until: either(formed, inPlace(conf)), Needs: []Safeguard{isRestored(h, done)}}, daemonReload(h), enable(v, h))
		s := startUnit(v, h, installed(h), isRestored(h, done))
		s.Until = either(formed, s.Until)
		start = append(start, s)
		existing := Refresh{Host: h, File: Conf, At: v.at(Conf)}
		finish = append(finish, Step{Title: "set initial-cluster-state to existing", Host: h, Act: existing, Until: All(formed, isFresh(existing))})
	}
	start = append(start, Step{Title: "wait until all members agree", Until: All(formed, hasLeader, risen), Patience: Starting, Etcd: true})
	finish = append(finish, Step{Title: "remember the cluster's ID", Act: Remember{}, Until: remembers(id)})
	return []Stage{
		{"configure the members", files},
		{"start all members at once", start},
		{"make it known", finish},
		{"refresh the references", p.references(v, note).steps()},
	}
}

// references tells clients of the new members. What is to hold before that is
// looked at when it comes to it: PostgreSQL is not sound while there is no etcd.
func (p Restore) references(v View, note Restoring) refreshment {
	return v.founded(note.Token).refreshmentOf(change{without: p.former(v)})
}

// former are the hosts of members, when the snapshot was taken, that are to have
// none.
func (p Restore) former(v View) []string {
	var names []string
	for _, u := range p.Snapshot.PeerURLs {
		if name := v.HostOf(Member{PeerURLs: []string{u}}); !slices.ContainsFunc(v.Wanted.Hosts, func(h inventory.Host) bool { return h.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// founded is the View with the members that a new cluster of the inventory will
// have, for what has to be planned before there are any.
func (v View) founded(token string) View {
	v.Members = nil
	for _, h := range v.Wanted.Hosts {
		v.Members = append(v.Members, Member{ID: expectedMember(v.Wanted.PeerURL(h), token), Name: v.Wanted.MemberName(h),
			PeerURLs: []string{v.Wanted.PeerURL(h)}, ClientURLs: []string{v.Wanted.ClientURL(h)}})
	}
	slices.SortFunc(v.Members, byID)
	return v
}

// clearWork removes what was only needed on the way.
func clearWork(v View, note Restoring) []Step {
	var steps []Step
	for _, spec := range v.reachableHosts() {
		for _, d := range dataDirs(spec) {
			work := note.work(d)
			steps = append(steps, Step{Title: "delete the copy in " + work, Host: spec.Name, Act: On{spec.Name, host.Delete{Path: work}}, Until: dirGone(spec.Name, work)})
		}
	}
	return steps
}

// --- conditions ---

// restoredOn holds when a host has the whole data of its member of the new
// cluster.
func (r Restoring) restoredOn(v View, spec inventory.Host) Condition {
	want := Identity{Member: expectedMember(v.Wanted.PeerURL(spec), r.Token), Cluster: expectedCluster(v, r.Token)}
	return func(v View) error {
		facts, err := v.facts(spec.Name)
		if err != nil {
			return err
		}
		if err := hiddenIn(spec.Name, facts, dataDirs(spec)...); err != nil {
			return err
		}
		who, err := Identify(logOf(facts, spec))
		if err != nil || who != want || !slices.Contains(facts.Dirs[spec.DataDir].Entries, "member") {
			return fmt.Errorf("%s on %s does not hold the data of member %s of cluster %s", spec.DataDir, spec.Name, ID(want.Member), ID(want.Cluster))
		}
		return nil
	}
}

// hasCopy holds when the snapshot has arrived: it gets its name when it is whole.
func hasCopy(name, file string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if !slices.Contains(facts.Dirs[path.Dir(file)].Entries, path.Base(file)) {
			return fmt.Errorf("%s is not on %s", file, name)
		}
		return nil
	}
}

// --- safeguards ---

// sameCluster: the snapshot is of the cluster that was here.
func (p Restore) sameCluster(note Restoring) Safeguard {
	return Safeguard{Name: "snapshot-cluster", Show: "cat " + p.File + ".json",
		Risk: "the hosts would serve another cluster's keys to this cluster's clients",
		Holds: func(v View) error {
			own, s := note.Former, p.Snapshot
			if begun := v.Admin.Restoring; begun == nil || begun.Token != note.Token {
				own = v.ownClusters()
			}
			if s.ClusterID != 0 && len(own) > 0 {
				if slices.Contains(own, s.ClusterID) {
					return nil
				}
				return &Refusal{Found: fmt.Sprintf("the snapshot is of cluster %s, here is %s", ID(s.ClusterID), idsOf(own)), Needed: "a snapshot of this cluster", Hint: "is this the right file, and the right inventory?"}
			}
			// Nothing is known of one of the two: the members in the file tell.
			for _, h := range v.Wanted.Hosts {
				if slices.Contains(s.PeerURLs, v.Wanted.PeerURL(h)) {
					return nil
				}
			}
			return &Refusal{Found: fmt.Sprintf("the members in the snapshot are %s, and none of them is on this inventory's hosts", orNone(strings.Join(s.PeerURLs, ", "))),
				Needed: "a snapshot of this cluster", Hint: "is this the right file, and the right inventory? On hosts that are all new nothing else can tell"}
		}}
}

func idsOf(ids []uint64) string {
	var names []string
	for _, id := range ids {
		names = append(names, ID(id))
	}
	return strings.Join(names, ", ")
}

// noLivingQuorum: no cluster serves here but the one that is being restored.
func noLivingQuorum(note Restoring) Safeguard {
	return Safeguard{Name: "living-quorum", Show: "etcdctl endpoint status --cluster -w table",
		Risk: "a cluster that serves is taken down, and what was written to it after the snapshot is gone",
		Holds: func(v View) error {
			n := v.Votes()
			if !v.Exists() || !n.HasQuorum() || note.made(v) {
				return nil
			}
			newest, _ := v.newestRevision()
			return &Refusal{Found: fmt.Sprintf("%d of %d voters of cluster %s answer, at revision %d; the snapshot is of revision %d", n.Alive(), n.Voters, ID(v.ClusterID()), newest, note.Revision),
				Needed: "a cluster that has lost its quorum", Hint: "a dead member is replaced, not restored: removeMember HOST, then addMember HOST"}
		}}
}

// noneElsewhere: every member of the old cluster lives on a host of the inventory,
// where it is fenced. Members that answer tell who the others are; where none does,
// the snapshot tells who they were, but for those that were removed from here.
func (p Restore) noneElsewhere(note Restoring) Safeguard {
	return Safeguard{Name: "unfenced", Show: "etcdctl member list",
		Risk: "an old member that is not stopped goes on answering clients that know it, and where they are a majority so does a whole old cluster",
		Holds: func(v View) error {
			if v.ClusterID() == expectedCluster(v, note.Token) {
				return nil
			}
			var names []string
			add := func(name string) {
				if _, wanted := v.Wanted.Host(name); !wanted && name != "" && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
			for _, l := range v.Looks {
				for _, m := range l.Members {
					add(v.HostOf(m))
				}
			}
			if !v.Exists() {
				for _, u := range p.Snapshot.PeerURLs {
					if _, removed := v.Admin.Removed[hostPart(u)]; !removed {
						add(hostPart(u))
					}
				}
			}
			if len(names) == 0 {
				return nil
			}
			return &Refusal{Host: names[0], Found: "members of the old cluster, and not in the inventory: " + strings.Join(names, ", "), Needed: "an old cluster that cannot come back",
				Hint: "stop etcd there and mask its unit, or see to it that these hosts are gone for good; then waive it"}
		}}
}

// enoughHosts: the new cluster has a quorum on the hosts that can be reached.
func enoughHosts() Safeguard {
	return Safeguard{Name: "votes", Show: "ssh HOST true",
		Holds: func(v View) error {
			n, up := len(v.Wanted.Hosts), len(v.reachableHosts())
			if up >= Quorum(n) {
				return nil
			}
			return &Refusal{Found: fmt.Sprintf("%d of %d hosts can be reached, and the new cluster needs %d", up, n, Quorum(n)), Needed: "a quorum of the new cluster",
				Hint: "take hosts that are lost off the inventory, and add others when the cluster serves again"}
		}}
}

// admits: we get into the new cluster, or nobody would see to it that all of its
// members have come up.
func (p Restore) admits() Safeguard {
	return Safeguard{Name: "auth", Show: "etcdctl auth status",
		Holds: func(View) error {
			if p.Denied == "" {
				return nil
			}
			return &Refusal{Found: p.Denied, Needed: "etcd's root user, as he was when the snapshot was taken",
				Hint: "set ETCDCTL_USER=root and the ETCDCTL_PASSWORD of then, or etcd_root_password in the inventory; every client's password is that of then, too"}
		}}
}

// versions: the etcd on the hosts is of the snapshot's minor version.
func (p Restore) versions() Safeguard {
	return Safeguard{Name: "versions", Show: "etcd --version",
		Risk: "etcd reads the backend of its own minor version, and the one before it",
		Holds: func(v View) error {
			was := p.Snapshot.Version
			if was == "" {
				was = p.Snapshot.Storage
			}
			for _, h := range v.reachableHosts() {
				hv, _ := v.Host(h.Name)
				if is := hv.Facts.Etcd.Version; is != "" && was != "" && minor(is) != minor(was) {
					return &Refusal{Host: h.Name, Found: fmt.Sprintf("it has etcd %s, the snapshot is of %s", is, was), Needed: "one minor version", Hint: "install the etcd that the snapshot is of, and upgrade when the cluster serves again"}
				}
			}
			return nil
		}}
}

// quota: the backend fits, or NOSPACE would be raised at once.
func (p Restore) quota() Safeguard {
	return Safeguard{Name: "quota", Show: "grep quota INVENTORY",
		Holds: func(v View) error {
			if quota := quotaOr2GiB(v.Wanted.QuotaBytes); float64(p.Snapshot.Bytes) > 0.8*float64(quota) {
				return &Refusal{Found: fmt.Sprintf("the snapshot has %d bytes, and the quota would be %d", p.Snapshot.Bytes, quota), Needed: "a snapshot of at most 80 % of the quota", Hint: "set etcd_quota_backend_bytes"}
			}
			return nil
		}}
}

// roomToRestore: the host has room for the snapshot and for what is made of it.
func (p Restore) roomToRestore(name string, note Restoring) Safeguard {
	return Safeguard{Name: "disk", Show: "df -h DATA",
		Risk: "the host may run out of space in the middle",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			spec := v.Spec(name)
			if note.restoredOn(v, spec)(v) == nil {
				return nil
			}
			room := map[string]int64{spec.DataDir: 2 * p.Snapshot.Bytes}
			room[dataDirs(spec)[len(dataDirs(spec))-1]] += walRoom
			for _, d := range dataDirs(spec) {
				if facts.Dirs[d].FreeBytes == 0 && lacksRights(facts.Dirs[d].Problem) {
					return &Hidden{Host: name, Path: d}
				}
				if free := facts.Dirs[d].FreeBytes; free < room[d] {
					return &Refusal{Host: name, Found: fmt.Sprintf("%s are free for %s, and the snapshot has %s", Bytes(free), d, Bytes(p.Snapshot.Bytes)),
						Needed: Bytes(room[d]) + ": the snapshot twice, and two segments of the log; what is set aside stays where it is", Hint: "make room there: what earlier runs set aside may go"}
				}
			}
			return nil
		}}
}

// emptyOr: nothing is where the data is to be made.
func emptyOr(name string, spec inventory.Host, done Condition) Safeguard {
	return Safeguard{Name: "blank-host", Show: "ls -A DATA",
		Holds: func(v View) error {
			if done(v) == nil {
				return nil
			}
			for _, d := range dataDirs(spec) {
				if err := dirEmpty(name, d)(v); err != nil && d == spec.DataDir {
					return err
				}
			}
			return nil
		}}
}

// isRestored: a member is configured and started only on its restored data.
func isRestored(name string, done Condition) Safeguard {
	return Safeguard{Name: "restored", Show: "ls -A DATA",
		Holds: func(v View) error {
			if err := done(v); err != nil {
				return &Refusal{Host: name, Found: err.Error(), Needed: "the restored data: without it an empty member would be founded"}
			}
			return nil
		}}
}
