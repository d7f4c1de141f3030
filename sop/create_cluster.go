package sop

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// CreateCluster brings up the cluster that the inventory describes.
//
// All hosts are looked at before the first is touched. A host has etcd if its
// unit runs, its data directory holds a log, or a living peer lists it; one
// that cannot be reached counts as having it, since it could come back. What
// is there already is only replaced when etcd_clean allows it, etcd_safeguard
// does not forbid it, and a human agreed.
type CreateCluster struct {
	// Clean and Safeguard override the inventory, nil where they do not.
	Clean, Safeguard *bool
	// Unreachable says that hosts which cannot be reached were waived.
	Unreachable bool
	Token       string // a fresh initial-cluster-token
	Stamp       string // names what is set aside
	// Since is when a run of this very command that was cut off began. The
	// cluster that it made is the goal of Clean, and not to be cleared again.
	Since time.Time
}

// String implements Procedure.
func (p CreateCluster) String() string {
	return "createCluster" + overrides(p.Clean, p.Safeguard)
}

func overrides(clean, safeguard *bool) string {
	var s string
	if clean != nil {
		s += fmt.Sprintf(" -clean=%v", *clean)
	}
	if safeguard != nil {
		s += fmt.Sprintf(" -safeguard=%v", *safeguard)
	}
	return s
}

// Lossy says that data may be set aside.
func (p CreateCluster) Lossy() {}

// Plan implements Procedure.
func (p CreateCluster) Plan(v View) (Plan, error) {
	if len(v.Wanted.Hosts) == 0 {
		return Plan{}, refuse("inventory-sound", "", "add hosts to it", "group %s has no hosts", v.Wanted.Name)
	}
	plan := Plan{
		NoCluster: true,
		GiveUp:    "destroyCluster",
		Needs:     []Safeguard{inventorySound(), notKubeadm(), mayAdminister(), allReachable(), oneID(), noForeignMembers(), clocksAgree(), caForCreate()},
	}
	for _, h := range v.reachableHosts() {
		plan.Needs = append(plan.Needs, installable(h.Name), portsFree(h.Name), noProxy(h.Name))
	}
	plan.Needs = append(plan.Needs, certificatesGiven(v.reachableNames()...))
	if n := len(v.Wanted.Hosts); n < 3 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%d hosts: nothing may fail; production means three members or more", n))
	} else if n%2 == 0 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%d hosts bear no more failures than %d", n, n-1))
	}
	token, rebuild := p.Token, false
	switch at := v.hostsWithEtcd(); {
	case len(at) == 0:
		if t, begun := v.tokenCutOff(); begun && !v.anyExisting() {
			token = t
		}
	case p.Clean != nil && *p.Clean && !v.cutOff() && !p.rebuilt(v):
		rebuild = true
	case v.asDescribed() && (p.Unreachable || len(v.reachableHosts()) == len(v.Wanted.Hosts)):
		if !v.cutOff() {
			return Plan{}, nil
		}
		token, _ = v.tokenCutOff()
	case v.cutOff():
		token, _ = v.tokenCutOff()
	default:
		rebuild = true
	}
	if rebuild {
		plan.Needs = append(plan.Needs, sameCluster())
		switch err := mayReplace(v, p.Clean, p.Safeguard); {
		case err != nil && len(v.unknown()) > 0:
			// It may be one of ours that was cut off, which would be gone on with.
			plan.Warnings = append(plan.Warnings, "whether what is there may be replaced is not known without root: "+plain(err))
		case err != nil:
			return Plan{}, err
		}
		plan.Consent = v.consent("set aside", plan, p.String())
		plan.Stages = append(plan.Stages, takeDown(v, p.Stamp)...)
	}
	plan.Stages = append(plan.Stages, p.build(v, token)...)
	return plan.ifOpen(v), nil
}

// rebuilt reports whether the cluster that is there is the one that this very
// command made: with this token, or in a run that was cut off.
func (p CreateCluster) rebuilt(v View) bool {
	if v.ClusterID() == expectedCluster(v, p.Token) {
		return true
	}
	token, ok := v.tokenCutOff()
	made, known := config.TokenTime(token)
	return ok && known && !p.Since.IsZero() && !made.Before(p.Since.Truncate(time.Second)) && v.ClusterID() == expectedCluster(v, token)
}

// build are the stages from blank hosts to a cluster that is in use.
func (p CreateCluster) build(v View, token string) []Stage {
	id := expectedCluster(v, token)
	// Those of the plan. One that does not answer a later look is not done with.
	hosts := v.reachableHosts()
	formed := formedAs(id, hosts)
	var certs []Step
	if v.layout().TLS {
		certs = append(certs, Step{Title: "make the CA", Act: MakeCA{}, Until: hasCA, Needs: []Safeguard{caForCreate()}})
	}
	var install, files, start, finish []Step
	for _, spec := range hosts {
		h := spec.Name
		conf := Install{Host: h, File: Conf, State: "new", Token: token, At: v.at(Conf)}
		certs = append(certs, certify(v, h)...)
		install = append(install, installEtcd(v, h)...)
		files = append(files, prepare(v, h)...)
		files = append(files, Step{Title: "write etcd.conf", Host: h, Act: conf, Until: either(formed, inPlace(conf)), Together: true}, daemonReload(h), enable(v, h))
		start = append(start, startUnit(v, h, installed(h), isBlankOr(h, id)))
		existing := Refresh{Host: h, File: Conf, At: v.at(Conf)}
		finish = append(finish, Step{Title: "set initial-cluster-state to existing", Host: h, Act: existing, Until: All(formed, isFresh(existing)), Together: true})
	}
	for i, n := 0, len(start); i < n; i++ {
		// All at once: Type=notify blocks each until there is quorum.
		start[i].Until = either(formed, start[i].Until)
		h := start[i].Host
		start = append(start, Step{Title: "wait until it answers", Host: h, Until: either(formed, comesUp(h)), Patience: Starting, Etcd: true, Sees: &Glimpse{Unit: true}})
	}
	start = append(abreast(start), Step{Title: "wait until all members agree", Until: All(formed, hasLeader), Patience: Starting, Etcd: true})
	for _, spec := range hosts {
		env := Refresh{Host: spec.Name, File: EnvFile}
		finish = append(finish, Step{Title: "refresh etcdctl.sh", Host: spec.Name, Act: env, Until: isFresh(env), Together: true})
	}
	for _, name := range v.Wanted.InfraHosts {
		if _, member := v.Wanted.Host(name); !member {
			env := Refresh{Host: name, File: EnvFile}
			finish = append(finish, Step{Title: "refresh etcdctl.sh", Host: name, Act: env, Until: owed(v, name, isFresh(env))})
		}
	}
	finish = append(abreast(finish), Step{Title: "remember the cluster's ID", Act: Remember{}, Until: remembers(id)})
	return []Stage{
		{"install etcd", abreast(install)},
		{"issue certificates", certs},
		{"prepare the hosts", abreast(files)},
		{"start all members at once", start},
		{"make it known", finish},
	}
}

func remembers(id uint64) Condition {
	return func(v View) error {
		if v.Admin.ClusterID != id {
			return fmt.Errorf("cluster %s is not remembered yet", ID(id))
		}
		return nil
	}
}

func hasCA(v View) error {
	if v.Admin.CA == "" {
		return fmt.Errorf("there is no CA in files/pki")
	}
	return nil
}

// reachableHosts are the inventory's hosts that can be worked on. One that
// cannot was waived by name.
func (v View) reachableHosts() []inventory.Host {
	return slices.DeleteFunc(slices.Clone(v.Wanted.Hosts), func(h inventory.Host) bool {
		hv, ok := v.Host(h.Name)
		return !ok || !hv.Reachable()
	})
}

func (v View) reachableNames() []string {
	var names []string
	for _, h := range v.reachableHosts() {
		names = append(names, h.Name)
	}
	return names
}

// formedAsWanted holds when the inventory's hosts, and no others, are voters
// that answer. Hosts that cannot be reached are members that do not.
func formedAsWanted(v View) error { return formedOn(v, v.reachableHosts()) }

// formedAs holds when a cluster answers on its hosts under the ID that it is to have.
func formedAs(id uint64, hosts []inventory.Host) Condition {
	return func(v View) error {
		if v.ClusterID() != id {
			return fmt.Errorf("no cluster %s answers yet", ID(id))
		}
		return formedOn(v, hosts)
	}
}

func formedOn(v View, hosts []inventory.Host) error {
	for _, h := range hosts {
		if err := answers(h.Name)(v); err != nil {
			return err
		}
		if err := votes(h.Name)(v); err != nil {
			return err
		}
	}
	if n := len(v.Members); n != len(v.Wanted.Hosts) {
		return fmt.Errorf("there are %d members, the inventory has %d hosts", n, len(v.Wanted.Hosts))
	}
	return nil
}

// asDescribed reports whether a healthy cluster is there, as the inventory has
// it.
func (v View) asDescribed() bool {
	return formedAsWanted(v) == nil && hasLeader(v) == nil && len(v.Alarms()) == 0
}

// hostsWithEtcd are the inventory's hosts that have etcd, or may.
func (v View) hostsWithEtcd() []string {
	var at []string
	for _, h := range v.Wanted.Hosts {
		if v.hasEtcd(h.Name) {
			at = append(at, h.Name)
		}
	}
	return at
}

// hasEtcd: a port check alone, as in the original playbook, wipes a member
// that has crashed.
func (v View) hasEtcd(name string) bool {
	hv, ok := v.Host(name)
	if !ok || !hv.Reachable() {
		return true
	}
	if hv.Facts.Units[v.unit()].Runs() {
		return true
	}
	for _, d := range dataDirs(v.Spec(name)) {
		dir := hv.Facts.Dirs[d]
		if dir.WAL || dir.Problem != "" || len(contents(dir)) > 0 {
			return true
		}
	}
	if l := v.LookAt(name); l.Answers() {
		return true
	}
	_, listed := v.At(name)
	return listed
}

// cutOff reports whether all that is there is from one earlier createCluster of
// this inventory that was cut off: the same token everywhere, the identities
// that this token gives, and something of it unfinished.
func (v View) cutOff() bool {
	token, ok := v.tokenCutOff()
	if !ok {
		return false
	}
	id := expectedCluster(v, token)
	existed := v.anyExisting()
	for _, h := range v.Wanted.Hosts {
		hv, ok := v.Host(h.Name)
		if !ok || !hv.Reachable() {
			return false
		}
		if existed && !hv.Facts.Dirs[h.DataDir].WAL && (h.WALDir == "" || !hv.Facts.Dirs[h.WALDir].WAL) {
			return false // it was finished once, and this host has lost its data since
		}
		for _, path := range dataDirs(h) {
			d := hv.Facts.Dirs[path]
			if len(contents(d)) == 0 {
				continue
			}
			if !d.WAL {
				if path == h.DataDir && h.WALDir != "" {
					continue
				}
				if onlyBegun(contents(d)) {
					continue
				}
				return false
			}
			who, err := Identify(d.WALHead)
			if err != nil || who.Cluster != id || who.Member != expectedMember(v.Wanted.PeerURL(h), token) {
				return false
			}
		}
		if l := v.LookAt(h.Name); l.Answers() && l.ClusterID != id {
			return false
		}
	}
	return v.Admin.ClusterID != id
}

// onlyBegun: etcd makes member/ and snap/ before it writes its log.
func onlyBegun(entries []string) bool { return slices.Equal(entries, []string{"member"}) }

// tokenCutOff is the token that every etcd.conf of a createCluster that was cut
// off has; the hosts that it had not come to have none.
func (v View) tokenCutOff() (string, bool) {
	var token string
	for _, h := range v.Wanted.Hosts {
		hv, ok := v.Host(h.Name)
		if !ok || !hv.Reachable() {
			return "", false
		}
		f := hv.Facts.Files[v.layout().Conf]
		if !f.Exists {
			continue
		}
		c, err := v.confOn(hv)
		if err != nil || !config.IsToken(c.Token) || len(c.Initial) != len(v.Wanted.Hosts) {
			return "", false
		}
		for _, p := range c.Initial {
			if !slices.ContainsFunc(v.Wanted.Hosts, func(other inventory.Host) bool { return v.Wanted.PeerURL(other) == p.URL }) {
				return "", false
			}
		}
		if token != "" && c.Token != token {
			return "", false
		}
		token = c.Token
	}
	return token, token != ""
}

// anyExisting reports whether an etcd.conf on a host is of a member that has
// joined or founded a cluster.
func (v View) anyExisting() bool {
	return slices.ContainsFunc(v.Wanted.Hosts, func(h inventory.Host) bool {
		hv, _ := v.Host(h.Name)
		c, err := v.confOn(hv)
		return err == nil && c.State == "existing"
	})
}

// expectedMember is the ID that etcd gives to a member of a new cluster: the
// first 8 bytes of the SHA-1 of its peer URL and the token
// (server/etcdserver/api/membership, computeMemberID).
func expectedMember(peerURL, token string) uint64 {
	sum := sha1.Sum([]byte(peerURL + token))
	return binary.BigEndian.Uint64(sum[:8])
}

// expectedCluster is the ID of a new cluster: the same over its members' IDs
// (RaftCluster.genID). Equal tokens on equal hosts mean equal clusters, which
// is why every creation has a fresh one.
func expectedCluster(v View, token string) uint64 {
	var ids []uint64
	for _, h := range v.Wanted.Hosts {
		ids = append(ids, expectedMember(v.Wanted.PeerURL(h), token))
	}
	slices.Sort(ids)
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	return binary.BigEndian.Uint64(sum[:8])
}

// mayReplace is the safeguard table of createCluster and destroyCluster.
func mayReplace(v View, clean, safeguard *bool) error {
	mayClean, guarded := v.Wanted.Clean, v.Wanted.Safeguard
	if clean != nil {
		mayClean = *clean
	}
	if safeguard != nil {
		guarded = *safeguard
	}
	at := v.hostsWithEtcd()
	switch {
	case guarded:
		return refuse("etcd_safeguard", at[0], "it protects this cluster; to override it for one run: -safeguard=false", "etcd_safeguard is true and etcd is on %s", strings.Join(at, ", "))
	case !mayClean:
		return refuse("etcd_clean", at[0], "to override it for one run: -clean=true", "etcd_clean is false and etcd is on %s", strings.Join(at, ", "))
	}
	return nil
}

// takeDown saves what can be saved, stops every member, then sets all data
// aside. The leader is stopped last: one that stops with the others tries for
// seven seconds to hand over to a member that is going as well.
func takeDown(v View, stamp string) []Stage {
	var stages []Stage
	if v.Votes().HasQuorum() { // also while they elect a leader: a follower gives it
		none := func(v View) error {
			if !v.Exists() {
				return nil
			}
			return fmt.Errorf("the cluster is still there")
		}
		stages = append(stages, Stage{"save what is there", []Step{snapshotBefore(none, v)}})
	}
	leader, led := v.Leader()
	var stop, last, aside []Step
	for _, spec := range v.reachableHosts() {
		h := spec.Name
		steps := []Step{
			{Title: "disable the unit", Host: h, Act: On{h, host.Systemctl{Verb: host.Disable, Unit: v.unit()}}, Until: enabled(h, "disabled", "masked", "")},
			stopUnit(v, h),
		}
		if led && v.HostOf(leader) == h {
			last = steps
		} else {
			stop = append(stop, steps...)
		}
		// What the old cluster was started with must not found another one: an
		// equal token means an equal cluster ID. It goes first, since it is the
		// data that tells a rerun that something is left here.
		aside = append(aside, keepConf(v, h)...)
		aside = append(aside, removeFile(h, v.layout().Conf, "remove the old etcd.conf"))
		for _, d := range dataDirs(spec) {
			aside = append(aside, Step{Title: "set aside " + d, Host: h, Act: On{h, host.SetAside{Path: d, Stamp: stamp}}, Until: dirEmpty(h, d), Needs: []Safeguard{isStopped(h)}})
		}
	}
	if len(last) > 0 {
		stages = append(stages, Stage{"stop every member but the leader", abreast(stop)}, Stage{"stop the leader", last})
	} else {
		stages = append(stages, Stage{"stop every member", abreast(stop)})
	}
	stages = append(stages, Stage{"set the data aside", abreast(aside)})
	return append(stages, Stage{"forget the old cluster", []Step{{Title: "forget the cluster's ID", Act: Remember{Forget: true}, Until: remembers(0)}}})
}

// consent tells a human what is at stake. The code to type is the ID of the
// cluster that is there, from its members or from the logs on disk.
func (v View) consent(verb string, plan Plan, command string) *Consent {
	c := &Consent{Verb: verb}
	var ids []uint64
	add := func(id uint64) {
		if id != 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	add(v.ClusterID())
	var where, names []string
	for _, h := range v.Wanted.Hosts {
		hv, _ := v.Host(h.Name)
		var used int64
		for _, path := range dataDirs(h) {
			d := hv.Facts.Dirs[path]
			used += d.UsedBytes
			if who, err := Identify(d.WALHead); err == nil {
				add(who.Cluster)
			}
		}
		where = append(where, fmt.Sprintf("%s (%s)", h.Name, Bytes(used)))
		names = append(names, h.Name)
	}
	add(v.Admin.ClusterID)
	c.Shown = append(c.Shown, "inventory: "+v.Inventory.Path, "hosts: "+strings.Join(where, ", "))
	for _, m := range v.Members {
		c.Shown = append(c.Shown, fmt.Sprintf("member: %s %s %s", ID(m.ID), m.Name, strings.Join(m.PeerURLs, ",")))
	}
	for _, id := range ids {
		c.Shown = append(c.Shown, "cluster ID: "+ID(id))
	}
	for _, l := range v.Looks {
		if l.Dependents != nil {
			c.Shown = append(c.Shown, l.Dependents.Lines()...)
			break
		}
	}
	if len(ids) == 1 {
		c.Code = ID(ids[0])
	} else {
		c.Code = Digest(command + v.Inventory.Path + fmt.Sprint(ids, names))
	}
	return c
}

// Bytes writes a size with its unit.
func Bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// allReachable: a host that cannot be looked at could come back with its old
// data, and cannot be fenced.
func allReachable() Safeguard {
	return Safeguard{Name: "unreachable", Show: "ssh HOST true", Risk: "a host that comes back with an old member disturbs or corrupts the cluster",
		Holds: func(v View) error {
			for _, h := range v.Wanted.Hosts {
				if hv, ok := v.Host(h.Name); !ok || !hv.Reachable() {
					return &Refusal{Host: h.Name, Found: h.Name + " cannot be reached: " + hv.Problem, Needed: "a look at every host before the first is touched"}
				}
			}
			return nil
		}}
}

// noForeignMembers: the members that answer live on the inventory's hosts.
func noForeignMembers() Safeguard {
	return Safeguard{Name: "inventory-agrees", Show: "etcdctl member list",
		Holds: func(v View) error {
			_, extra := v.drift()
			for _, l := range v.Looks {
				for _, m := range l.Members {
					if _, ok := v.Wanted.Host(v.HostOf(m)); !ok && !slices.Contains(extra, v.HostOf(m)) {
						extra = append(extra, v.HostOf(m))
					}
				}
			}
			if len(extra) > 0 {
				return &Refusal{Found: "members and not in the inventory: " + strings.Join(extra, ", "), Needed: "an inventory that names every member", Hint: "correct " + v.Inventory.Path}
			}
			return nil
		}}
}

// caForCreate: a CA is made only when no host has etcd; elsewhere the CA in
// files/pki must be the one that the members serve.
func caForCreate() Safeguard {
	return Safeguard{Name: "ca", Show: "ls files/pki/ca; ls /etc/etcd",
		Holds: func(v View) error {
			if !v.layout().TLS {
				return nil
			}
			if v.Admin.CAProblem != "" {
				return &Refusal{Found: v.Admin.CAProblem, Needed: "a CA in files/pki, or none"}
			}
			var hidden error
			for _, h := range v.Wanted.Hosts {
				hv, _ := v.Host(h.Name)
				f := hv.Facts.Files[v.layout().CA]
				if err := v.hiddenOn(h.Name, v.layout().CA); err != nil {
					hidden = err
					continue
				}
				if !f.Exists {
					continue
				}
				if v.Admin.CA == "" {
					return &Refusal{Host: h.Name, Found: "it has a CA certificate, and there is no CA in files/pki", Needed: "the CA that this host's certificates are from",
						Hint: "copy files/pki from the admin host that set it up, or clear the host: purgeHost " + h.Name}
				}
				if err := sameCAOn(v, h.Name); err != nil {
					return err
				}
			}
			return hidden
		}}
}

// oneID: the hosts are not of two clusters at once.
func oneID() Safeguard {
	return Safeguard{Name: "one-cluster", Show: "etcdctl endpoint status --cluster -w json",
		Holds: func(v View) error {
			for _, l := range v.Looks {
				if l.Answers() && l.ClusterID != v.ClusterID() {
					return &Refusal{Host: l.Host, Found: fmt.Sprintf("%s is of cluster %s, the others are of %s (cluster ID mismatch)", l.Endpoint, ID(l.ClusterID), ID(v.ClusterID())),
						Needed: "one cluster ID on all endpoints", Hint: "take the odd one out first: it is not this cluster's"}
				}
			}
			return nil
		}}
}

// portsFree: nothing but the host's own etcd listens where etcd is to.
func portsFree(name string) Safeguard {
	return Safeguard{Name: "ports-free", Show: "ss -ltnp",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			if facts.Units[v.unit()].Runs() {
				return nil
			}
			spec := v.Spec(name)
			for _, port := range []int{spec.ClientPort, spec.PeerPort} {
				if by, taken := facts.Ports[port]; taken {
					return &Refusal{Host: name, Found: fmt.Sprintf("port %d is taken by %s (address already in use), and %s does not run", port, by, v.unit()), Needed: "free ports", Hint: "stop what listens there"}
				}
			}
			return nil
		}}
}

// isBlankOr: before a member of a new cluster is started, its directory is
// empty or holds what this very cluster wrote.
func isBlankOr(name string, id uint64) Safeguard {
	return Safeguard{Name: "blank-host", Show: "ls -A DATA",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			if err := hiddenIn(name, facts, dataDirs(v.Spec(name))...); err != nil {
				return err
			}
			for _, path := range dataDirs(v.Spec(name)) {
				d := facts.Dirs[path]
				if len(contents(d)) == 0 || !d.WAL && onlyBegun(contents(d)) {
					continue
				}
				if who, err := Identify(d.WALHead); err == nil && who.Cluster == id {
					continue
				}
				return &Refusal{Host: name, Found: path + " holds other data", Needed: "an empty data directory"}
			}
			return nil
		}}
}
