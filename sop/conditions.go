package sop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// MaxLag is how many raft entries a learner may be behind when it is promoted.
// etcd takes 90 % of the leader's index for good enough, which after a million
// entries is a hundred thousand.
const MaxLag = 500

// lagSamples is how many looks in a row must find it so.
const lagSamples = 3

// facts gives what was found on a host, or why nothing was.
func (v View) facts(name string) (host.Facts, error) {
	h, ok := v.Host(name)
	switch {
	case !ok:
		return host.Facts{}, fmt.Errorf("%s was not looked at", name)
	case !h.Reachable():
		return host.Facts{}, fmt.Errorf("%s cannot be looked at: %s", name, h.Problem)
	}
	return h.Facts, nil
}

// isListed holds when the member list has a member with the host's peer URL.
func isListed(name string) Condition {
	return func(v View) error {
		if _, ok := v.At(name); !ok {
			return fmt.Errorf("%s is not on the member list", v.PeerURL(name))
		}
		if !v.Linear {
			return errors.New("no quorum confirms the member list")
		}
		return nil
	}
}

// isGone holds when no living voter lists the member any more.
func isGone(id uint64) Condition {
	return func(v View) error {
		if !v.Linear {
			return errors.New("no quorum confirms the member list")
		}
		for _, m := range v.LivingVoters() {
			if _, still := find(v.LookOf(m.ID).Members, id); still {
				return fmt.Errorf("%s still lists member %s", v.HostOf(m), ID(id))
			}
		}
		if _, still := v.ByID(id); still {
			return fmt.Errorf("member %s is still on the member list", ID(id))
		}
		return nil
	}
}

func find(members []Member, id uint64) (Member, bool) {
	for _, m := range members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// answers holds when the member on a host answers as a member of this cluster.
func answers(name string) Condition {
	return func(v View) error {
		m, ok := v.At(name)
		if !ok {
			return fmt.Errorf("%s is not on the member list", v.PeerURL(name))
		}
		l := v.LookOf(m.ID)
		switch {
		case !l.Answers():
			return fmt.Errorf("member on %s does not answer: %s", name, short(l.Problem))
		case l.MemberID != m.ID:
			return fmt.Errorf("member %s answers on %s, %s is listed there", ID(l.MemberID), name, ID(m.ID))
		case l.ClusterID != v.ClusterID():
			return fmt.Errorf("the member on %s is of cluster %s, not %s", name, ID(l.ClusterID), ID(v.ClusterID()))
		}
		return nil
	}
}

// hasStarted holds when the member on a host has published its name.
func hasStarted(name string) Condition {
	return func(v View) error {
		m, ok := v.At(name)
		if ok && m.Started() {
			return nil
		}
		return fmt.Errorf("the member on %s has not started yet", name)
	}
}

// caughtUp holds when the learner on a host answers now and was at most MaxLag
// entries behind the leader in each of the last looks. A voter holds.
func caughtUp(name string) Condition {
	return func(v View) error {
		m, ok := v.At(name)
		if ok && !m.Learner {
			return nil
		}
		if err := answers(name)(v); err != nil {
			return err
		}
		lags := v.Lags[m.ID]
		if len(lags) < lagSamples {
			return fmt.Errorf("the learner on %s was seen %d of %d times in a row", name, len(lags), lagSamples)
		}
		if worst := slices.Max(lags); worst > MaxLag {
			return fmt.Errorf("the learner on %s is %d entries behind the leader, at most %d are allowed", name, lags[len(lags)-1], MaxLag)
		}
		return nil
	}
}

// votes holds when every living voter lists the member on a host as a voter,
// and the member itself says that it is none of the learners.
func votes(name string) Condition {
	return func(v View) error {
		m, ok := v.At(name)
		switch {
		case !ok:
			return fmt.Errorf("%s is not on the member list", v.PeerURL(name))
		case m.Learner:
			return fmt.Errorf("the member on %s is a learner", name)
		case !v.Linear:
			return errors.New("no quorum confirms the member list")
		}
		for _, other := range v.LivingVoters() {
			seen, ok := find(v.LookOf(other.ID).Members, m.ID)
			if !ok || seen.Learner {
				return fmt.Errorf("%s does not list the member on %s as a voter yet", v.HostOf(other), name)
			}
		}
		if l := v.LookOf(m.ID); l.Answers() && l.Learner {
			return fmt.Errorf("the member on %s takes itself for a learner", name)
		}
		return nil
	}
}

// hasLeader holds when every living voter names the same living leader.
func hasLeader(v View) error { return v.agreed() }

// leadsElsewhere holds when every living voter names a leader that is not on a
// host. Until all do, a write that is forwarded to the old one hangs.
func leadsElsewhere(name string) Condition {
	return func(v View) error {
		if err := v.agreed(); err != nil {
			return err
		}
		if leader, _ := v.Leader(); v.HostOf(leader) == name {
			return fmt.Errorf("the leader is on %s", name)
		}
		return nil
	}
}

// upFor holds when the etcd process of every living voter has run that long.
func upFor(d time.Duration) Condition {
	return func(v View) error {
		for _, m := range v.LivingVoters() {
			name := v.HostOf(m)
			if up, known := v.uptime(name); known && up < d {
				return fmt.Errorf("etcd on %s was started at %s, and etcd wants its voters to have been connected for %v", name, v.Taken.Add(-up).Format(time.TimeOnly), HealthInterval)
			}
		}
		return nil
	}
}

// uptime tells for how long etcd has run on a host, by the host's own clock.
func (v View) uptime(name string) (time.Duration, bool) {
	h, ok := v.Host(name)
	if !ok || !h.Reachable() {
		return 0, false
	}
	u := h.Facts.Units[v.unit()]
	if u.Since.IsZero() || u.PID == 0 {
		return 0, false
	}
	return h.Facts.Clock.Sub(u.Since) + v.Taken.Sub(h.Taken), true
}

// ranFor holds when the process on a host has run that long: the soak.
func ranFor(name string, d time.Duration) Condition {
	return func(v View) error {
		if d <= 0 {
			return nil
		}
		up, ok := v.uptime(name)
		if !ok {
			return fmt.Errorf("etcd on %s does not run", name)
		}
		if up < d {
			return fmt.Errorf("soaking: etcd on %s has run for %v of %v", name, up.Round(time.Second), d)
		}
		return nil
	}
}

// startedAfter holds when the process on a host began after a moment.
func startedAfter(name string, t time.Time) Condition {
	return func(v View) error {
		h, err := v.facts(name)
		if err != nil {
			return err
		}
		u := h.Units[v.unit()]
		hv, _ := v.Host(name)
		if u.PID == 0 || !u.Since.Add(-hv.Skew).After(t) {
			return fmt.Errorf("etcd on %s has not been restarted since %s", name, t.Format(time.TimeOnly))
		}
		return nil
	}
}

// --- what is on a host ---

// inPlace holds when a file on a host is what Install would write.
func inPlace(a Install) Condition {
	return func(v View) error {
		facts, err := v.facts(a.Host)
		if err != nil {
			return err
		}
		if err := hiddenIn(a.Host, facts, a.path()); err != nil {
			return err
		}
		if a.File == ServerKey {
			want := v.Admin.KeySums[v.MemberName(a.Host)]
			if want == "" || facts.Sums[a.path()] != want {
				return fmt.Errorf("%s on %s is not the key that was issued", a.path(), a.Host)
			}
			return nil
		}
		f := facts.Files[a.path()]
		if !f.Exists {
			return fmt.Errorf("%s is not on %s", a.path(), a.Host)
		}
		want, err := v.content(a)
		if err != nil {
			return err
		}
		if !bytes.Equal(f.Content, want) {
			return fmt.Errorf("%s on %s differs", a.path(), a.Host)
		}
		o := v.owned(a.File)
		if f.Owner != o.Owner || f.Group != o.Group || f.Mode.Perm() != o.Mode.Perm() {
			return fmt.Errorf("%s on %s is %s:%s %04o, not %s:%s %04o", o.Path, a.Host, f.Owner, f.Group, f.Mode.Perm(), o.Owner, o.Group, o.Mode.Perm())
		}
		return nil
	}
}

// isFresh holds when a Refresh would change nothing, which is so also when the
// file is not there.
func isFresh(a Refresh) Condition {
	return func(v View) error {
		facts, err := v.facts(a.Host)
		if err != nil {
			return err
		}
		if err := hiddenIn(a.Host, facts, a.path()); err != nil {
			return err
		}
		f := facts.Files[a.path()]
		if !f.Exists || !v.meets(a.Host, a.File, f.Content) {
			return nil
		}
		want, err := v.refresh(f.Content, a)
		if err != nil {
			return err
		}
		if !bytes.Equal(f.Content, want) {
			return fmt.Errorf("%s on %s has other endpoints", a.path(), a.Host)
		}
		return nil
	}
}

// fileGone holds when a file is not on a host.
func fileGone(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if err := hiddenIn(name, facts, path); err != nil {
			return err
		}
		if facts.Files[path].Exists {
			return fmt.Errorf("%s is on %s", path, name)
		}
		return nil
	}
}

// hasDir holds when a directory is there with owner and mode.
func hasDir(name string, d config.OwnedFile) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		got := facts.Dirs[d.Path]
		switch {
		case !got.Exists && lacksRights(got.Problem):
			return &Hidden{Host: name, Path: d.Path}
		case !got.Exists:
			return fmt.Errorf("%s is not on %s", d.Path, name)
		case got.Owner != d.Owner || got.Group != d.Group || got.Mode.Perm() != d.Mode.Perm():
			return fmt.Errorf("%s on %s is %s:%s %04o", d.Path, name, got.Owner, got.Group, got.Mode.Perm())
		}
		return nil
	}
}

// dirEmpty holds when nothing but what was set aside is in a directory.
func dirEmpty(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if err := hiddenIn(name, facts, path); err != nil {
			return err
		}
		if left := contents(facts.Dirs[path]); len(left) > 0 {
			return fmt.Errorf("%s on %s holds %s", path, name, strings.Join(left, ", "))
		}
		return nil
	}
}

// dirGone holds when a directory is empty altogether, or not there.
func dirGone(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if err := hiddenIn(name, facts, path); err != nil {
			return err
		}
		d := facts.Dirs[path]
		if len(contents(d)) > 0 || len(d.Aside) > 0 {
			return fmt.Errorf("%s on %s is not empty", path, name)
		}
		return nil
	}
}

// contents are a directory's entries but for what every new filesystem has.
func contents(d host.Dir) []string {
	return slices.DeleteFunc(slices.Clone(d.Entries), func(e string) bool { return e == "lost+found" })
}

// runs holds when the unit has a process, or is about to.
func runs(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if u := facts.Units[v.unit()]; !u.Runs() {
			return fmt.Errorf("%s on %s is %s (%s)%s", v.unit(), name, u.Active, u.Sub, exitOf(u))
		}
		return nil
	}
}

func exitOf(u host.Unit) string {
	if u.Exit == 0 {
		return ""
	}
	return fmt.Sprintf(", exit status %d", u.Exit)
}

// stopped holds when the unit has no process and systemd will not start one.
func stopped(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if u := facts.Units[v.unit()]; u.Runs() {
			return fmt.Errorf("%s on %s is %s", v.unit(), name, u.Active)
		}
		return nil
	}
}

// enabled holds when the unit's file is enabled, or disabled, or masked.
func enabled(name string, want ...string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		u := facts.Units[v.unit()]
		got := u.Enabled
		if u.Load == "masked" {
			got = "masked"
		}
		if !slices.Contains(want, got) {
			return fmt.Errorf("%s on %s is %q, not %s", v.unit(), name, got, strings.Join(want, " or "))
		}
		return nil
	}
}

// loaded holds when systemd has read the unit's files as they are.
func loaded(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if facts.Units[v.unit()].Stale {
			return fmt.Errorf("systemd on %s has not read the changed unit", name)
		}
		return nil
	}
}

// --- what is on the admin host ---

// issued holds when the admin host has the certificate of a host, by its CA.
func issued(name string) Condition {
	return func(v View) error {
		cert, ok := v.Admin.Issued[v.MemberName(name)]
		if !ok {
			return fmt.Errorf("no certificate was issued for %s", v.MemberName(name))
		}
		return checkCert(v, name, cert)
	}
}

// wanted holds when the inventory has a host, or when the file is not ours to edit.
func wanted(name string) Condition {
	return func(v View) error {
		if _, ok := v.Wanted.Host(name); ok || v.Inventory.Edit != "edit" {
			return nil
		}
		return fmt.Errorf("%s is not in group %s of %s", name, v.Wanted.Name, v.Inventory.Path)
	}
}

// unwanted holds when the inventory does not have a host.
func unwanted(name string) Condition {
	return func(v View) error {
		if _, ok := v.Wanted.Host(name); !ok || v.Inventory.Edit != "edit" {
			return nil
		}
		return fmt.Errorf("%s is in group %s of %s", name, v.Wanted.Name, v.Inventory.Path)
	}
}

// snapshotFresh holds when a verified snapshot of this cluster with these
// members is younger than ten minutes.
func snapshotFresh(v View) error {
	s := v.Admin.Snapshot
	switch {
	case s == nil:
		return errors.New("no verified snapshot is there")
	case s.ClusterID != v.ClusterID():
		return fmt.Errorf("the newest snapshot is of cluster %s", ID(s.ClusterID))
	case !slices.Equal(s.Members, v.IDs()):
		return errors.New("the newest snapshot is from before the last change of members")
	case v.Taken.Sub(s.Taken) > 10*time.Minute:
		return fmt.Errorf("the newest snapshot is %v old", v.Taken.Sub(s.Taken).Round(time.Minute))
	}
	return nil
}
