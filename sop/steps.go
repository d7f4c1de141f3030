package sop

import (
	"fmt"
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Steps that several procedures share.

// ifOpen gives the plan, or the empty one when every step holds already.
func (p Plan) ifOpen(v View) Plan {
	for _, s := range p.Steps() {
		if s.Until(v) != nil {
			return p
		}
	}
	return Plan{Reached: p.Reached}
}

// either holds when one of cs does; the last one answers otherwise.
func either(cs ...Condition) Condition {
	return func(v View) error {
		var err error
		for _, c := range cs {
			if err = c(v); err == nil {
				return nil
			}
		}
		return err
	}
}

// clusterNeeds are the safeguards of every procedure on a living cluster. The
// subject may be missing, pending, dead or in the inventory already.
func clusterNeeds(subject ...string) []Safeguard {
	return []Safeguard{
		inventorySound(), notKubeadm(), mayAdminister(), quorate(), oneCluster(), sameCluster(), sameList(),
		nothingPending(subject...), inventoryAgrees(subject...), noAlarm(), quotaHeadroom(), oneMinor(),
		sameHash(), votersKeepUp(), clocksAgree(), certificates(), sameCA(),
	}
}

// changeNeeds are looked at again right before each change of members.
func changeNeeds(subject string, more ...Safeguard) []Safeguard {
	return slices.Concat([]Safeguard{quorate(), oneCluster(subject), sameList(subject), nothingPending(subject), noAlarm()}, more)
}

// snapshotBefore saves the key space before the first change of a procedure;
// once that is made, there is nothing to save any more. It is not taken from the
// hosts in not.
func snapshotBefore(made Condition, v View, not ...string) Step {
	from := ""
	if m, err := v.snapshotFrom("", not...); err == nil {
		from = v.HostOf(m)
	}
	return Step{Title: "save a snapshot", Act: SaveSnapshot{From: from, Not: not}, Until: either(made, snapshotFresh), Patience: Saving}
}

// aliveNow: the learner answers now and is close behind. Neither etcd nor a
// list says so: it promotes one that was stopped after it had caught up.
func aliveNow(name string) Safeguard {
	return Safeguard{Name: "learner-alive", Show: "ETCDCTL_ENDPOINTS=LEARNER:2379 etcdctl endpoint status", Passing: Electing, Holds: caughtUp(name)}
}

// reachesBack: the voters reach the newcomer's peer port, on which it listens
// by now. At least one must have tried and succeeded.
func reachesBack(name string) Safeguard {
	return Safeguard{Name: "peers-reach", Show: "nc -z NEWCOMER 2380",
		Holds: func(v View) error {
			url, reached := dialable(v.PeerURL(name)), false
			for _, m := range v.LivingVoters() {
				facts, err := v.facts(v.HostOf(m))
				if err != nil {
					continue // it cannot be asked; another must be
				}
				problem, asked := facts.Dials[url]
				if asked && problem != "" {
					return &Refusal{Host: v.HostOf(m), Found: fmt.Sprintf("it cannot reach %s: %s", url, problem), Needed: "the peer ports are open both ways", Hint: "look at the firewall"}
				}
				reached = reached || asked
			}
			if !reached {
				return &Refusal{Host: name, Found: "no voter's host could be asked to try its peer port", Needed: "one that reaches it"}
			}
			return nil
		}}
}

// abreast lets steps on different hosts be taken side by side.
func abreast(steps []Step) []Step {
	for i := range steps {
		steps[i].Abreast = true
	}
	return steps
}

// together lets steps that follow each other on one host be sent there in one go.
func together(steps ...Step) []Step {
	for i := range steps {
		steps[i].Together = true
	}
	return steps
}

// certify makes a host's certificate, where it is for us to make.
func certify(v View, h string) []Step {
	if !v.layout().TLS || v.Admin.External {
		return nil
	}
	return []Step{{Title: "issue the certificate", Host: h, Act: IssueCert{h}, Until: issued(h), Needs: []Safeguard{sameCA()}}}
}

// prepare makes directories and unit on a host, and puts the certificate there.
func prepare(v View, h string) []Step {
	spec, l := v.Spec(h), v.layout()
	var steps []Step
	if l.OwnDir() != "" {
		steps = append(steps, guarded(makeDir(h, l.Place(config.ConfDirectory())), etcdUser(h)))
	}
	for _, d := range l.Dirs() {
		at := config.OwnedFile{Path: d, Owner: "root", Group: "root", Mode: 0o755}
		steps = append(steps, Step{Title: "make " + d, Host: h, Act: On{h, host.MakeDir{Path: d, Owner: at.Owner, Group: at.Group, Mode: at.Mode}}, Until: dirThere(h, d)})
	}
	steps = append(steps, guarded(makeDir(h, l.Place(config.DataDirectory(spec.DataDir))), etcdUser(h)))
	if spec.WALDir != "" {
		steps = append(steps, makeDir(h, l.Place(config.DataDirectory(spec.WALDir))))
	}
	if l.TLS {
		for _, f := range []File{CACert, ServerKey, ServerCert} {
			a := Install{Host: h, File: f, At: v.at(f)}
			steps = append(steps, Step{Title: "write " + string(f), Host: h, Act: a, Until: inPlace(a)})
		}
	}
	// A package's unit shows once the mask is gone, and is not to be written over.
	own := l.Form != config.Env
	unit := Install{Host: h, File: UnitFile, At: v.at(UnitFile)}
	write := Step{Title: "write the unit", Host: h, Act: unit, Until: inPlace(unit), Together: true}
	if !own {
		write = foreignUnit(v, h)
	}
	env := Install{Host: h, File: EnvFile}
	return append(together(steps...),
		Step{Title: "unmask the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Unmask, Unit: l.Unit}}, Until: notMasked(h), Together: own},
		write,
		Step{Title: "write etcdctl's environment", Host: h, Act: env, Until: either(fileThere(h, config.EnvPath), inPlace(env)), Together: true},
	)
}

// dirThere holds when a directory is there, whoever's it is.
func dirThere(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if !facts.Dirs[path].Exists {
			return fmt.Errorf("%s is not on %s", path, name)
		}
		return nil
	}
}

func fileThere(name, path string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if err := hiddenIn(name, facts, path); err != nil {
			return err
		}
		if !facts.Files[path].Exists {
			return fmt.Errorf("%s is not on %s", path, name)
		}
		return nil
	}
}

func notMasked(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if facts.Units[v.unit()].Load == "masked" {
			return fmt.Errorf("%s on %s is masked", v.unit(), name)
		}
		return nil
	}
}

func makeDir(h string, d config.OwnedFile) Step {
	return Step{Title: "make " + d.Path, Host: h, Act: On{h, host.MakeDir{Path: d.Path, Owner: d.Owner, Group: d.Group, Mode: d.Mode}}, Until: hasDir(h, d)}
}

func removeFile(h, path, title string) Step {
	return Step{Title: title, Host: h, Act: On{h, host.RemoveFile{Path: path}}, Until: fileGone(h, path)}
}

func daemonReload(h string) Step {
	return Step{Title: "let systemd read the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.DaemonReload}}, Until: loaded(h)}
}

func enable(v View, h string) Step {
	return Step{Title: "enable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Enable, Unit: v.unit()}}, Until: enabled(h, "enabled")}
}

// startUnit does not wait for Type=notify, which blocks until there is quorum.
func startUnit(v View, h string, needs ...Safeguard) Step {
	if v.layout().Form == config.Env {
		needs = append(needs, plainUnit(h))
	}
	return Step{Title: "start etcd", Host: h, Act: On{h, host.Systemctl{Verb: host.Start, Unit: v.unit(), NoBlock: true}}, Until: runs(h), Needs: needs}
}

func stopUnit(v View, h string) Step {
	return Step{Title: "stop etcd", Host: h, Act: On{h, host.Systemctl{Verb: host.Stop, Unit: v.unit(), NoBlock: true}}, Until: stopped(h), Patience: Electing, Etcd: true}
}
