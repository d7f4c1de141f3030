package sop

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Upgrade lets every member run another version of etcd, one at a time:
// followers first, the leader last and after it has handed over.
//
// It goes one minor version at a time, as etcd itself does. Until the last
// member runs the new one the cluster stays at its cluster version, and each
// member can go back to its old binary, which is kept beside the new one; from
// then on only Down leads back.
type Upgrade struct {
	Version string // a release: "3.6.16"
	// Down asks to go to an older version.
	Down bool
	Soak time.Duration // how long each must have run before the next is touched
}

// String implements Procedure.
func (p Upgrade) String() string {
	if p.Down {
		return "upgrade " + p.Version + " -downgrade"
	}
	return "upgrade " + p.Version
}

// Target is the version whose whereabouts on the hosts are looked for.
func (p Upgrade) Target() string { return p.Version }

// Deep reports whether the member list in every member's backend has to be read:
// where the etcd that comes goes by it and the one that runs does not. A member
// writes its backend out for that, so it is not asked where there is no way.
func (p Upgrade) Deep(v View) bool {
	to, err := p.path(v)
	return err == nil && (!p.Down && to.line() == "3.6" || listsForRoot(to))
}

// Awaits is a member that an earlier run restarted just before it was cut off.
func (p Upgrade) Awaits(v View) error { return runningAnswer(v) }

// Plan implements Procedure.
func (p Upgrade) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	to, err := p.path(v)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{
		Needs:   p.needs(v, to),
		Reached: []Safeguard{everyVoterAnswers(), membersAreHosts()},
		GiveUp:  p.back(v),
	}
	plan.Stages = append(plan.Stages, p.bring(v))
	plan.Stages = append(plan.Stages, Stage{"save a snapshot", []Step{snapshotBefore(allRun(p.Version), v)}})
	plan.Stages = append(plan.Stages, p.turn(v, to)...)
	for _, m := range v.deadFirst() {
		h := v.HostOf(m)
		plan.Stages = append(plan.Stages, Stage{"upgrade " + v.MemberName(h), p.member(v, h)})
	}
	plan.Stages = append(plan.Stages, Stage{"agree on the cluster version", []Step{
		{Title: "wait for cluster version " + to.line(), Until: All(clusterIs(to.line()), notDowngrading), Patience: Starting, Etcd: true},
	}})
	plan.Stages = slices.DeleteFunc(plan.Stages, func(s Stage) bool { return len(s.Steps) == 0 })
	plan.Warnings = p.warnings(v, to)
	return plan.ifOpen(v), nil
}

// deadFirst is the rolling order with those before it that do not answer: as long
// as they do not, no other may be restarted.
func (v View) deadFirst() []Member {
	order := v.rollingOrder()
	slices.SortStableFunc(order, func(a, b Member) int {
		switch dead := v.Alive(b); {
		case v.Alive(a) == dead:
			return 0
		case dead:
			return -1
		}
		return 1
	})
	return order
}

// warnings are what is said aloud before.
func (p Upgrade) warnings(v View, to release) []string {
	var all []string
	if n := v.Votes(); n.Voters < 3 {
		all = append(all, fmt.Sprintf("with %d voters the cluster does not write while one restarts", n.Voters))
	}
	low, _ := v.span()
	switch {
	case !p.Down && low.steps(to) > 0:
		all = append(all, fmt.Sprintf("once the last member runs %s the cluster version is %s: from then on the only way back is: upgrade %s -downgrade", p.Version, to.line(), low))
	case !p.Down && v.downgrading():
		all = append(all, "a downgrade is under way, and is cancelled")
	}
	if newer, ok := newest(to.line()); ok && to.compare(newer) > 0 {
		all = append(all, fmt.Sprintf("etcdrill was tried with %s and not with %s", newer, to))
	}
	return all
}

// back is the command that takes an upgrade back that was cut off.
func (p Upgrade) back(v View) string {
	low, high := v.span()
	switch {
	case p.Down:
		return "upgrade " + high.String()
	case low.String() == p.Version:
		return ""
	}
	return "upgrade " + low.String() + " -downgrade"
}

// bring puts the new etcd beside the one that runs, wherever it comes from the
// admin host.
func (p Upgrade) bring(v View) Stage {
	stage := Stage{Title: "bring etcd " + p.Version + " to the hosts"}
	b := v.Admin.Binary
	if b == nil || b.Version != "" && b.Version != p.Version {
		return stage // there is none, or it is another, and what is beside is all there is
	}
	for _, m := range v.deadFirst() {
		h := v.HostOf(m)
		put, _ := v.etcdFor().(host.PutProgram)
		put.Path = besidePath(v.layout().Binary, p.Version)
		stage.Steps = append(stage.Steps, Step{Title: "bring etcd " + p.Version, Host: h, Act: On{h, put}, Until: either(installedIs(h, p.Version), besideIs(h, p.Version)),
			Needs: []Safeguard{toBeHad(p.Version, h)}})
	}
	return stage
}

// packaged reports whether a host gets the version as a package: what it has is
// used first, then a binary of the admin host.
func (p Upgrade) packaged(v View, h string) bool {
	return v.Wanted.BinaryFrom == "" && besideIs(h, p.Version)(v) != nil
}

// turn changes the direction that the cluster goes, where it goes the other way.
func (p Upgrade) turn(v View, to release) []Stage {
	_, high := v.span()
	switch {
	case p.Down && to.steps(high) > 0:
		return []Stage{{"let the cluster go down", []Step{
			{Title: "enable the downgrade to " + to.line(), Act: Downgrade{to.line()}, Until: either(clusterIs(to.line()), downgradingTo(to.line())), Etcd: true,
				Needs: changeNeeds("", everyVoterAnswers())},
			{Title: "wait until the data is in the form of " + to.line(), Until: storedAs(to.line()), Patience: Starting, Etcd: true, Nudge: true},
		}}}
	case !p.Down && to.line() == "3.7" && high.line() == "3.6":
		return []Stage{{"write raft snapshots", rewind("3.5", "3.6")}}
	case !p.Down && v.downgrading(), p.Down && v.downgrading() && downgradingTo(to.line())(v) != nil:
		return []Stage{{"cancel the downgrade", []Step{cancelDowngrade()}}}
	}
	return nil
}

func cancelDowngrade() Step {
	return Step{Title: "cancel the downgrade", Act: CancelDowngrade{}, Until: notDowngrading, Etcd: true, Needs: changeNeeds("")}
}

// rewind lets the cluster version go down and up again, for nothing but what
// etcd 3.6 does when it goes down: each member takes a raft snapshot at once.
// A member that starts reads the raft log from its last one, which may be from
// before 3.6, since one is taken every 10000 entries; and 3.7.3 panics over
// entries of 3.5. Where no 3.5 ever ran it costs some seconds.
func rewind(down, up string) []Step {
	return []Step{
		{Title: "enable the downgrade to " + down + ", for which members write raft snapshots", Act: Downgrade{down},
			Until: either(clusterIs(down), downgradingTo(down)), Etcd: true, Needs: changeNeeds("", everyVoterAnswers())},
		{Title: "wait for cluster version " + down, Until: clusterIs(down), Patience: Starting, Etcd: true, Nudge: true},
		cancelDowngrade(),
		{Title: "wait for cluster version " + up, Until: All(clusterIs(up), storedAs(up)), Patience: Starting, Etcd: true, Nudge: true},
	}
}

// member upgrades one member. What is there before is kept; what comes is tried
// with the host's own configuration; only then is the old process stopped.
func (p Upgrade) member(v View, h string) []Step {
	l := v.layout()
	done := runsRelease(h, p.Version)
	var steps []Step
	hv, _ := v.Host(h)
	if old := hv.Facts.Etcd.Version; old != "" && old != p.Version {
		keep := host.CopyProgram{From: l.Binary, Path: besidePath(l.Binary, old)}
		steps = append(steps, Step{Title: "keep etcd " + old, Host: h, Act: On{h, keep}, Until: either(installedIs(h, p.Version), besideIs(h, old))})
	}
	put := Step{Title: "put etcd " + p.Version + " in place", Host: h, Until: installedIs(h, p.Version), Needs: []Safeguard{toBeHad(p.Version, h)}}
	if p.packaged(v, h) {
		put.Title = "install etcd " + p.Version
		put.Act = On{h, p.packageOf(v)}
	} else {
		put.Act = On{h, host.CopyProgram{From: besidePath(l.Binary, p.Version), Path: l.Binary}}
		put.Needs, put.Try = append(put.Needs, accepts(p.Version, h)), true
	}
	steps = append(steps, put, reloadBefore(h, done))
	if len(v.Voters()) > 1 {
		steps = append(steps, Step{Title: "hand over the leadership", Host: h, Act: MoveLeader{From: h}, Until: either(done, leadsElsewhere(h)),
			Patience: Electing, Etcd: true, Needs: changeNeeds("", hasHeir(h))})
	}
	m, _ := v.At(h)
	return append(steps,
		Step{Title: "restart etcd", Host: h, Act: On{h, host.Systemctl{Verb: host.Restart, Unit: v.unit(), NoBlock: true}}, Until: done, Patience: Starting, Etcd: true, Try: true,
			Needs: changeNeeds("", everyVoterAnswers(p.fallen(v)...), canRestart(h), votersKeepUp(), notLeading(m.ID), accepts(p.Version, h))},
		Step{Title: "wait until it answers", Host: h, Until: All(answers(h), hasLeader, keptUp(h)), Patience: Starting, Etcd: true},
		Step{Title: "soak", Host: h, Until: ranFor(h, p.Soak), Patience: Settling, Longer: p.Soak},
	)
}

// packageOf is the package that brings the version.
func (p Upgrade) packageOf(v View) host.InstallPackage {
	a := host.InstallPackage{Package: v.Wanted.Package, Version: p.Version + "*"}
	if offered(p.Version, []string{v.Wanted.PackageVersion}) {
		a.Version = v.Wanted.PackageVersion
	}
	return a
}

// fallen are the hosts whose member does not answer with an etcd that it is to
// get rid of: that is why one goes down.
func (p Upgrade) fallen(v View) []string {
	var all []string
	for _, m := range v.Voters() {
		h := v.HostOf(m)
		if p.Down && !v.Alive(m) && installedIs(h, p.Version)(v) != nil {
			all = append(all, h)
		}
	}
	return all
}

// besidePath is where a program of a version is kept beside the one in use.
func besidePath(program, version string) string {
	return path.Join(path.Dir(program), path.Base(program)+"-"+version)
}

// --- what an upgrade waits for ---

// installedIs holds when the etcd in place on a host is of a version.
func installedIs(name, version string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if b := facts.Etcd; b.Version != version {
			return fmt.Errorf("etcd in %s of %s is %s%s", v.layout().Binary, name, orNone(b.Version), because(b.Problem))
		}
		return nil
	}
}

// besideIs holds when an etcd of a version lies beside the one in place.
func besideIs(name, version string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		at := besidePath(v.layout().Binary, version)
		if b := facts.Programs[at]; b.Version != version {
			return fmt.Errorf("etcd in %s of %s is %s%s", at, name, orNone(b.Version), because(b.Problem))
		}
		return nil
	}
}

// runsRelease holds when the member on a host answers and is of a version. One
// whose process ends instead is told as Falling.
func runsRelease(name, version string) Condition {
	up := comesUp(name)
	return func(v View) error {
		if err := up(v); err != nil {
			return err
		}
		if l := v.LookAt(name); l.Version != version {
			return fmt.Errorf("the member on %s runs %s", name, l.Version)
		}
		return installedIs(name, version)(v) // or it would be another one after the next start
	}
}

// allRun holds when every voter runs a version.
func allRun(version string) Condition {
	return func(v View) error {
		for _, m := range v.Voters() {
			if err := runsRelease(v.HostOf(m), version)(v); err != nil {
				return err
			}
		}
		return nil
	}
}

// clusterIs holds when every living voter says that the cluster version is of a
// minor version. From 3.6 on the form of the
// backend follows it, and tells it where it is not asked.
func clusterIs(line string) Condition {
	return func(v View) error {
		for _, m := range v.LivingVoters() {
			l := v.LookOf(m.ID)
			is := l.Cluster
			if is == "" {
				is = l.Storage
			}
			switch {
			case is == "":
				return fmt.Errorf("the member on %s tells no cluster version", v.HostOf(m))
			case minor(is) != line:
				return fmt.Errorf("the cluster version is %s, says the member on %s", minor(is), v.HostOf(m))
			}
		}
		return nil
	}
}

// downgrading reports whether a member says that a downgrade is under way.
func (v View) downgrading() bool { return notDowngrading(v) != nil }

func notDowngrading(v View) error {
	for _, l := range v.Looks {
		if l.Answers() && l.Downgrading {
			return fmt.Errorf("a downgrade to %s is under way, says the member on %s", minor(l.DowngradeTo), l.Host)
		}
	}
	return nil
}

// downgradingTo holds when every living voter knows that the cluster goes down.
func downgradingTo(line string) Condition {
	return func(v View) error {
		for _, m := range v.LivingVoters() {
			if l := v.LookOf(m.ID); !l.Downgrading || minor(l.DowngradeTo) != line {
				return fmt.Errorf("the member on %s knows of no downgrade to %s", v.HostOf(m), line)
			}
		}
		return nil
	}
}

// storedAs holds when the backend of every living voter that says so is in the
// form of a minor version: then an older etcd can read it.
func storedAs(line string) Condition {
	return func(v View) error {
		for _, m := range v.LivingVoters() {
			if l := v.LookOf(m.ID); l.Storage != "" && minor(l.Storage) != line {
				return fmt.Errorf("the data on %s is in the form of %s", v.HostOf(m), minor(l.Storage))
			}
		}
		return nil
	}
}

// --- what is asked of hosts ---

// askPrograms adds to a question what an upgrade has to know of a host: which
// versions of etcd lie there or could be installed, and what the new one makes
// of the host's configuration.
func (s *Site) askPrograms(q *host.Question, v View, scope Scope, known HostView) {
	if s.target == "" {
		return
	}
	l := v.layout()
	q.Files = append(q.Files, dropIns(l, known)...)
	if q.Etcd != "" {
		for _, version := range []string{s.target, known.Facts.Etcd.Version} {
			if at := besidePath(l.Binary, version); version != "" && !slices.Contains(q.Programs, at) {
				q.Programs = append(q.Programs, at)
			}
		}
	}
	if scope.AllHosts && v.Wanted.BinaryFrom == "" {
		q.Package = v.Wanted.Package
	}
	if q.Etcd != "" || scope.Try && scope.Host == known.Name {
		if t, ok := trialOf(l, known, s.target); ok {
			q.Trials = append(q.Trials, t)
		}
	}
}

// trialOf is a start of the new etcd as the unit would start it, with the host's
// own configuration and no data directory.
func trialOf(l config.Layout, known HostView, version string) (host.Trial, bool) {
	t := host.Trial{Program: l.Binary}
	if at := besidePath(l.Binary, version); known.Facts.Programs[at].Version == version {
		t.Program = at
	} else if known.Facts.Etcd.Version != version {
		return t, false
	}
	conf := known.Facts.Files[l.Conf]
	if !conf.Exists || conf.Problem != "" {
		return t, false
	}
	var err error
	if t.Config, t.Env, err = config.Rehearsed(l.Form, conf.Content); err != nil {
		return t, false
	}
	if u, ok := unitOf(l, known); ok {
		t.Args = slices.DeleteFunc(u.Args, func(arg string) bool { return strings.HasPrefix(arg, "$") })
		t.Env = append(slices.Clone(u.Environment), t.Env...)
	}
	return t, true
}

// unitOf reads the unit that starts etcd on a host, an administrator's own, else
// the package's, and what was changed in it by drop-ins.
func unitOf(l config.Layout, hv HostView) (config.UnitSpec, bool) {
	for _, at := range []string{l.UnitPath(), l.PackagedUnitPath()} {
		f := hv.Facts.Files[at]
		if !f.Exists || f.Problem != "" || len(f.Content) == 0 {
			continue
		}
		content := slices.Clone(f.Content)
		for _, more := range dropIns(l, hv) {
			content = append(append(content, '\n'), hv.Facts.Files[more].Content...)
		}
		u, err := config.ParseUnit(content)
		return u, err == nil
	}
	return config.UnitSpec{}, false
}

// dropIns are the drop-ins of the unit, in the order in which systemd reads them.
func dropIns(l config.Layout, hv HostView) []string {
	var all []string
	for _, name := range hv.Facts.Dirs[l.JoinDropInDir()].Entries {
		if strings.HasSuffix(name, ".conf") {
			all = append(all, path.Join(l.JoinDropInDir(), name))
		}
	}
	return all
}
