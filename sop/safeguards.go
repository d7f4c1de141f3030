package sop

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// The safeguards, by what they protect. Those that a step names are looked at in
// a fresh View just before its change, the others before the first one. None
// relies on a check of the server.

// everyVoterAnswers: each voter, asked on its own, is there. A cluster-wide
// call hides a dead one. Members on the hosts in except may be dead.
func everyVoterAnswers(except ...string) Safeguard {
	return Safeguard{Name: "voters-answer", Show: "etcdctl endpoint status --cluster -w table",
		Risk: "a change of members while a voter is dead leaves less to spare than it seems",
		Holds: func(v View) error {
			for _, m := range v.Voters() {
				if h := v.HostOf(m); !slices.Contains(except, h) && !v.Alive(m) {
					return &Refusal{Host: h, Found: fmt.Sprintf("voter %s on %s does not answer: %s", ID(m.ID), h, short(v.LookOf(m.ID).Problem)),
						Needed: "every voter answers", Hint: "bring it back, or remove it first: removeMember " + h}
				}
			}
			return nil
		}}
}

// quorate: a quorum confirmed the member list just now.
func quorate() Safeguard {
	return Safeguard{Name: "quorum", Show: "etcdctl endpoint health --cluster", Passing: Electing,
		Holds: func(v View) error {
			if v.Linear && v.Votes().HasQuorum() {
				return nil
			}
			n := v.Votes()
			return &Refusal{certain: !n.HasQuorum(), // else they are about to elect a leader
				Found:  fmt.Sprintf("%d of %d voters answer, and no quorum confirms the member list", n.Alive(), n.Voters),
				Needed: fmt.Sprintf("%d living voters", Quorum(n.Voters)), Hint: "bring voters back first; no change of members can be made without quorum"}
		}}
}

// oneCluster: all members are of one cluster, the one that this inventory met
// before, and agree on leader and term, in two looks. Members on the hosts in
// except may be cut off from the others.
func oneCluster(except ...string) Safeguard {
	return Safeguard{Name: "one-cluster", Show: "etcdctl endpoint status --cluster -w json", Passing: Electing,
		Holds: func(v View) error {
			for _, l := range v.Looks {
				if l.Answers() && l.ClusterID != v.ClusterID() {
					return &Refusal{certain: true, Host: l.Host, Found: fmt.Sprintf("%s is of cluster %s, the others are of %s (cluster ID mismatch)", l.Endpoint, ID(l.ClusterID), ID(v.ClusterID())),
						Needed: "one cluster ID on all endpoints"}
				}
			}
			if err := v.agreed(except...); err != nil {
				return err
			}
			if b := v.Before; b != nil {
				was, ok := b.Leader()
				is, _ := v.Leader()
				if ok && was.ID != is.ID {
					return fmt.Errorf("the leader moved from %s to %s between two looks", b.HostOf(was), v.HostOf(is))
				}
			}
			return nil
		}}
}

// sameCluster: the cluster is the one that this inventory met before.
func sameCluster() Safeguard {
	return Safeguard{Name: "remembered-cluster", Show: "etcdctl endpoint status -w json",
		Risk: "the procedure would run on another cluster than the one this inventory belonged to",
		Holds: func(v View) error {
			if was := v.Admin.ClusterID; was != 0 && v.Exists() && was != v.ClusterID() {
				return &Refusal{Found: fmt.Sprintf("the cluster's ID is %s; beside the inventory %s is remembered", ID(v.ClusterID()), ID(was)),
					Needed: "the same cluster as before", Hint: "is this the right inventory?"}
			}
			return nil
		}}
}

// sameList: every voter tells the same member list.
func sameList(except ...string) Safeguard {
	return Safeguard{Name: "same-list", Show: "ETCDCTL_ENDPOINTS=EACH:2379 etcdctl member list -w table", Passing: Looking,
		Holds: func(v View) error {
			for _, m := range v.LivingVoters() {
				h, l := v.HostOf(m), v.LookOf(m.ID)
				if slices.Contains(except, h) {
					continue // it may be cut off, and that may be why it is to go
				}
				if l.Denied != "" {
					return &Refusal{Host: h, Found: "it does not tell the member list: " + l.Denied, Needed: "a user that may read it"}
				}
				if !slices.EqualFunc(l.Members, v.Members, equalMember) {
					return &Refusal{Host: h, Found: fmt.Sprintf("the member list of %s differs from the others'", h), Needed: "equal lists on all members",
						Hint: "a zombie or a promotion that was not persisted (etcd issues 20967, 19557): do not change members before this is understood"}
				}
			}
			return nil
		}}
}

func equalMember(a, b Member) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Learner == b.Learner && slices.Equal(a.PeerURLs, b.PeerURLs) && slices.Equal(a.ClientURLs, b.ClientURLs)
}

// inventoryAgrees: the inventory and the cluster name the same hosts, except
// for those that the procedure is about.
func inventoryAgrees(except ...string) Safeguard {
	return Safeguard{Name: "inventory-agrees", Show: "etcdctl member list",
		Risk: "endpoints of hosts that are no members would be written to clients, or members left out",
		Holds: func(v View) error {
			missing, extra := v.drift(except...)
			var parts []string
			if len(missing) > 0 {
				parts = append(parts, "in the inventory and no members: "+strings.Join(missing, ", "))
			}
			if len(extra) > 0 {
				parts = append(parts, "members and not in the inventory: "+strings.Join(extra, ", "))
			}
			if len(parts) == 0 {
				return nil
			}
			return &Refusal{Found: strings.Join(parts, "; "), Needed: "an inventory that agrees with the cluster",
				Hint: "is this an old copy of the inventory? Edit " + v.Inventory.Path + ", or finish what was begun there"}
		}}
}

// drift compares the inventory's hosts with the members' hosts.
func (v View) drift(except ...string) (missing, extra []string) {
	for _, h := range v.Wanted.Hosts {
		if _, ok := v.At(h.Name); !ok && !slices.Contains(except, h.Name) {
			missing = append(missing, h.Name)
		}
	}
	for _, m := range v.Members {
		h := v.HostOf(m)
		if _, ok := v.Wanted.Host(h); !ok && !slices.Contains(except, h) {
			extra = append(extra, h)
		}
	}
	return missing, extra
}

// nothingPending: no learner and no unstarted member, but for the host's own.
func nothingPending(except ...string) Safeguard {
	return Safeguard{Name: "nothing-pending", Show: "etcdctl member list",
		Holds: func(v View) error {
			for _, m := range v.Members {
				h := v.HostOf(m)
				if slices.Contains(except, h) || m.Started() && !m.Learner {
					continue
				}
				what := "learner"
				if !m.Learner {
					what = "unstarted voter"
				}
				return &Refusal{Host: h, Found: fmt.Sprintf("%s %s on %s is pending", what, ID(m.ID), h), Needed: "one membership change at a time",
					Hint: fmt.Sprintf("finish it with: addMember %s, or give it up with: removeMember %s", h, h)}
			}
			return nil
		}}
}

// canPromote: the votes allow one more voter, the newcomer counted as dead.
func canPromote(name string) Safeguard {
	return Safeguard{Name: "votes", Show: "etcdctl endpoint status --cluster",
		Holds: func(v View) error {
			if m, ok := v.At(name); ok && !m.Learner {
				return nil
			}
			n := v.Votes()
			if n.Promote() != NoQuorum {
				return nil
			}
			return &Refusal{Found: fmt.Sprintf("%d of %d voters are dead; with %d voters and the newcomer dead too, %d would be alive and %d are needed", n.Dead, n.Voters, n.Voters+1, n.Alive(), Quorum(n.Voters+1)),
				Needed: "enough living voters for a quorum of the new size", Hint: "remove the dead member first" + v.deadOnes()}
		}}
}

func (v View) deadOnes() string {
	var names []string
	for _, m := range v.Voters() {
		if !v.Alive(m) {
			names = append(names, "removeMember "+v.HostOf(m))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, "; ")
}

// canRemove: the votes allow the removal, of a dead voter or a living one.
func canRemove(id uint64) Safeguard {
	return Safeguard{Name: "votes", Show: "etcdctl endpoint status --cluster",
		Holds: func(v View) error {
			m, ok := v.ByID(id)
			if !ok || m.Learner {
				return nil
			}
			n := v.Votes()
			if n.Voters == 1 {
				return &Refusal{Host: v.HostOf(m), Found: "it is the last voter", Needed: "a cluster keeps its last member", Hint: "to take the cluster down: destroyCluster"}
			}
			verdict, left := n.RemoveLiving(), Votes{n.Voters - 1, n.Dead}
			if !v.Alive(m) {
				verdict, left = n.RemoveDead(), Votes{n.Voters - 1, n.Dead - 1}
			}
			if verdict != NoQuorum {
				return nil
			}
			return &Refusal{Host: v.HostOf(m), Found: fmt.Sprintf("%d of %d voters are dead; %d would be alive of %d and %d are needed", n.Dead, n.Voters, left.Alive(), left.Voters, Quorum(left.Voters)),
				Needed: "a quorum now and afterwards", Hint: "bring dead members back, or remove a dead one first" + v.deadOnes()}
		}}
}

// keepsSpare: after the removal something may still fail.
func keepsSpare(id uint64) Safeguard {
	return Safeguard{Name: "spare", Show: "etcdctl endpoint status --cluster",
		Risk: "nothing may fail afterwards: one more dead member stops all writes",
		Holds: func(v View) error {
			m, ok := v.ByID(id)
			if !ok || m.Learner || !v.Alive(m) {
				return nil // a dead voter's removal lowers nothing
			}
			n := v.Votes()
			if n.RemoveLiving() != NoSpare {
				return nil
			}
			return &Refusal{Host: v.HostOf(m), Found: fmt.Sprintf("with %d voters left, %d of them alive, nothing may fail", n.Voters-1, n.Alive()-1),
				Needed: "one voter to spare afterwards", Hint: "add a member first, or waive it"}
		}}
}

// canRestart: the cluster writes on without the member for a while.
func canRestart(name string) Safeguard {
	return Safeguard{Name: "votes", Show: "etcdctl endpoint status --cluster",
		Holds: func(v View) error {
			m, ok := v.At(name)
			if !ok || m.Learner || !v.Alive(m) {
				return nil
			}
			n := v.Votes()
			if n.Restart() != NoQuorum {
				return nil
			}
			return &Refusal{Host: name, Found: fmt.Sprintf("%d of %d voters are dead; without this one too no quorum is left", n.Dead, n.Voters),
				Needed: "a quorum without the member that restarts", Hint: "bring the dead member back first"}
		}}
}

// noAlarm: no member reports an alarm.
func noAlarm() Safeguard {
	return Safeguard{Name: "no-alarm", Show: "etcdctl alarm list",
		Holds: func(v View) error {
			if a := v.Alarms(); len(a) > 0 {
				return &Refusal{Found: "alarm raised: " + strings.Join(a, ", "), Needed: "no alarm",
					Hint: "NOSPACE: compact and defragment, then etcdctl alarm disarm; CORRUPT: find the member that differs first"}
			}
			return nil
		}}
}

// quotaHeadroom: no backend is above 80 % of its quota.
func quotaHeadroom() Safeguard {
	const most = 0.8
	return Safeguard{Name: "quota-headroom", Show: "etcdctl endpoint status --cluster -w table",
		Risk: "the quota may be reached in the middle of the procedure, which stops all writes",
		Holds: func(v View) error {
			var hidden error
			for _, l := range v.Looks {
				quota := l.Quota
				if quota == 0 && l.Answers() {
					quota = v.quotaOf(l.Host)
					if why := v.hiddenOn(l.Host, v.layout().Conf); why != nil {
						hidden = why
					}
				}
				if l.Answers() && quota > 0 && float64(l.DBSize) > most*float64(quota) {
					return &Refusal{Host: l.Host, Found: fmt.Sprintf("the backend has %d of %d bytes", l.DBSize, quota), Needed: "at most 80 %",
						Hint: "compact and defragment first"}
				}
			}
			return hidden
		}}
}

// hiddenOn says which of some paths on a host could not be seen for lack of
// rights; nil when all could.
func (v View) hiddenOn(name string, paths ...string) error {
	h, ok := v.Host(name)
	if !ok || !h.Reachable() {
		return nil
	}
	return hiddenIn(name, h.Facts, paths...)
}

// quotaOf reads a member's quota from its etcd.conf; etcd's own default where
// the file names none, zero where it cannot be read.
func (v View) quotaOf(name string) int64 {
	h, ok := v.Host(name)
	f := h.Facts.Files[v.layout().Conf]
	if !ok || !f.Exists || f.Problem != "" {
		return 0
	}
	c, err := v.confOn(h)
	if err != nil {
		return 0
	}
	if c.QuotaBytes == 0 {
		return 2 << 30
	}
	return c.QuotaBytes
}

// settledMargin covers the time from a process's start to its connections.
const settledMargin = 300 * time.Millisecond

// settledToAdd and settledToRemove: with those counted as dead that have not been
// up for etcd's HealthInterval, there would be a quorum of the new size, the
// newcomer counted as dead too. That is what etcd itself asks of the connections
// of the member that it is asked by, which is the leader. It only needs time, so
// it is waited for.
func settledToAdd() Safeguard {
	return settled(func(v View, n int) int {
		if v.wantsAllConnected() {
			return n
		}
		return min(n, Quorum(n+1))
	})
}

func settledToRemove(id uint64) Safeguard {
	return settled(func(v View, n int) int {
		if m, ok := v.ByID(id); ok && v.Alive(m) {
			return Quorum(n-1) + 1 // it is among those that are counted
		}
		return Quorum(n - 1)
	})
}

func settled(enough func(v View, voters int) int) Safeguard {
	return Safeguard{Name: "settled", Passing: Settling, Show: "systemctl show -p ActiveEnterTimestamp etcd",
		Holds: func(v View) error {
			if len(v.settledVoters()) >= enough(v, len(v.Voters())) {
				return nil
			}
			return upFor(HealthInterval + settledMargin)(v)
		}}
}

// settledVoters are those that have been up, and connected to the leader, for
// etcd's HealthInterval, as far as that is known.
func (v View) settledVoters() []Member {
	young := func(m Member) bool {
		up, known := v.uptime(v.HostOf(m))
		return known && up < HealthInterval+settledMargin
	}
	leader, led := v.Leader()
	return slices.DeleteFunc(v.LivingVoters(), func(m Member) bool {
		return young(m) && m.ID != leader.ID || led && young(leader) && m.ID != leader.ID
	})
}

// wantsAllConnected: before 3.5.30 and 3.6.11 etcd wanted every voter connected
// before it let another member be announced.
func (v View) wantsAllConnected() bool {
	for _, m := range v.LivingVoters() {
		var major, minor, patch int
		if n, _ := fmt.Sscanf(v.LookOf(m.ID).Version, "%d.%d.%d", &major, &minor, &patch); n < 3 {
			return true
		}
		if major < 3 || major == 3 && (minor < 5 || minor == 5 && patch < 30 || minor == 6 && patch < 11) {
			return true
		}
	}
	return false
}

// votersKeepUp: no living voter is far behind the leader; a slow one counts as
// dead in the next step.
func votersKeepUp() Safeguard {
	return Safeguard{Name: "voters-keep-up", Passing: Settling, Show: "etcdctl endpoint status --cluster -w table",
		Holds: func(v View) error {
			leader, ok := v.Leader()
			if !ok {
				return errors.New("the voters do not agree on a leader")
			}
			head := v.LookOf(leader.ID).Index
			for _, m := range v.LivingVoters() {
				if l := v.LookOf(m.ID); head > l.Applied && head-l.Applied > 10*MaxLag {
					return fmt.Errorf("voter on %s is %d entries behind the leader", v.HostOf(m), head-l.Applied)
				}
			}
			return nil
		}}
}

// oneMinor: all members run one minor version.
func oneMinor() Safeguard {
	return Safeguard{Name: "versions", Show: "etcdctl endpoint status --cluster -w table",
		Risk: "members of different minors are for the time of an upgrade only",
		Holds: func(v View) error {
			var first Look
			for _, l := range v.Looks {
				if !l.Answers() {
					continue
				}
				if l.Downgrading {
					return &Refusal{Host: l.Host, Found: "a downgrade is under way", Needed: "no downgrade", Hint: "wait for its end, or: etcdctl downgrade cancel"}
				}
				if first.Version != "" && minor(l.Version) != minor(first.Version) {
					return &Refusal{Host: l.Host, Found: fmt.Sprintf("%s runs %s, %s runs %s", l.Host, l.Version, first.Host, first.Version),
						Needed: "one minor version on all members", Hint: "finish the upgrade first"}
				}
				if first.Version == "" {
					first = l
				}
			}
			return nil
		}}
}

func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return version
	}
	return parts[0] + "." + parts[1]
}

// sameHash: the members that hashed the same span came to the same hash.
// Only the last compacted revision is compared: it is cached, and any other
// would stop writes for seconds.
func sameHash() Safeguard {
	return Safeguard{Name: "same-hash", Show: "etcdctl endpoint hashkv --cluster --rev=COMPACTED",
		Holds: func(v View) error {
			type span struct{ since, to int64 }
			seen := map[span]Look{}
			for _, l := range v.Looks {
				if !l.Hashed {
					continue
				}
				hashed := span{l.HashSince, l.Compacted}
				if other, ok := seen[hashed]; ok && other.Hash != l.Hash {
					return &Refusal{Host: l.Host, Found: fmt.Sprintf("at revision %d %s has hash %d and %s has %d: corruption", l.Compacted, l.Host, l.Hash, other.Host, other.Hash),
						Needed: "equal data on all members", Hint: "find out which member is wrong before anything is copied from it"}
				}
				seen[hashed] = l
			}
			return nil
		}}
}

// mayAdminister: where the cluster asks for a user, there is one.
func mayAdminister() Safeguard {
	return Safeguard{Name: "auth", Show: "etcdctl auth status",
		Holds: func(v View) error {
			for _, l := range v.Looks {
				if l.Denied != "" {
					return &Refusal{Host: l.Host, Found: "it does not take us for its root user: " + l.Denied, Needed: "etcd's root user where auth is on",
						Hint: "set ETCDCTL_USER=root and ETCDCTL_PASSWORD, or etcd_root_password in the inventory"}
				}
			}
			return nil
		}}
}

// nobody refuses where no member tells its list: because none answers, or
// because none does without a user.
func (v View) nobody(hint string) error {
	auth := mayAdminister()
	if err := auth.Holds(v); err != nil {
		return refusalOf(auth, err)
	}
	return refuse("quorum", "", hint, "no member of a cluster answers")
}

// clocksAgree: no host's clock is more than a second off ours.
func clocksAgree() Safeguard {
	const most = time.Second
	return Safeguard{Name: "clocks", Show: "timedatectl",
		Risk: "certificates and leases are judged by clocks",
		Holds: func(v View) error {
			for _, h := range v.Hosts {
				if h.Reachable() && h.Skew.Abs() > most {
					return &Refusal{Host: h.Name, Found: fmt.Sprintf("its clock is %v off", h.Skew.Round(time.Millisecond)), Needed: "within " + most.String(), Hint: "set up time synchronisation"}
				}
			}
			return nil
		}}
}

// certificatesLast is how long the members' certificates must still be valid.
const certificatesLast = 30 * 24 * time.Hour

// certificates: what the members serve is of the CA in files/pki, names their
// host, and does not expire soon.
func certificates() Safeguard { return certificatesFor(certificatesLast) }

// certificatesFor is certificates for those who do with a shorter time.
func certificatesFor(left time.Duration) Safeguard {
	return Safeguard{Name: "certificates", Show: "openssl x509 -in /etc/etcd/server.crt -noout -text",
		Risk: "a member may be locked out by its peers and clients",
		Holds: func(v View) error {
			var hidden error
			if !v.layout().TLS {
				return nil
			}
			for _, m := range v.Voters() {
				name := v.HostOf(m)
				h, ok := v.Host(name)
				if !ok || !h.Reachable() {
					continue
				}
				if why := hiddenIn(name, h.Facts, v.layout().Cert, v.layout().CA); why != nil {
					hidden = why
				}
				crt, ca := h.Facts.Files[v.layout().Cert], h.Facts.Files[v.layout().CA]
				if !crt.Exists || crt.Problem != "" || ca.Problem != "" {
					continue // set up otherwise, or not ours to read
				}
				if err := pki.CheckLeaf(pki.Pair{CertPEM: crt.Content}, ca.Content, name, v.Taken, left); err != nil {
					return &Refusal{Host: name, Found: err.Error(), Needed: "a certificate of the cluster's CA that lasts",
						Hint: fmt.Sprintf("compare %s and %s there with the other members', and mend them before it restarts: with the wrong ones it may not come back", v.layout().CA, v.layout().Cert)}
				}
			}
			return hidden
		}}
}

// sameCA: the CA in files/pki is the one that the members use. A second CA
// locks every new member out.
func sameCA() Safeguard {
	return Safeguard{Name: "ca", Show: "openssl x509 -in files/pki/ca/ca.crt -noout -fingerprint -sha256",
		Holds: func(v View) error {
			switch {
			case !v.layout().TLS:
				return nil
			case v.Admin.CAProblem != "":
				return &Refusal{Found: v.Admin.CAProblem, Needed: "the cluster's CA in files/pki"}
			case v.Admin.CA == "":
				return &Refusal{Found: "there is no CA in files/pki beside the inventory", Needed: "the CA that the members' certificates are from",
					Hint: "copy files/pki from the admin host that created the cluster; a new CA would lock the members out of each other"}
			}
			var hidden error
			for _, m := range v.Voters() {
				switch err := sameCAOn(v, v.HostOf(m)); {
				case isHidden(err):
					hidden = err
				case err != nil:
					return err
				}
			}
			return hidden
		}}
}

// sameCAOn compares the CA on a host, where it can be read, with files/pki.
func sameCAOn(v View, name string) error {
	h, _ := v.Host(name)
	f := h.Facts.Files[v.layout().CA]
	if err := v.hiddenOn(name, v.layout().CA); err != nil {
		return err
	}
	if !f.Exists || f.Problem != "" {
		return nil
	}
	// It may trust others beside it, as while one takes the place of another.
	if !pki.HoldsCerts(f.Content, v.Admin.Signer) {
		return &Refusal{Host: name, Found: "its CA is not the one in files/pki", Needed: "one CA for all", Hint: "copy files/pki from the admin host that created the cluster"}
	}
	return nil
}

func checkCert(v View, name string, cert []byte) error {
	return pki.CheckLeaf(pki.Pair{CertPEM: cert}, v.Admin.CACert, name, v.Taken, certificatesLast)
}

// --- the newcomer ---

// reachable: a host can be looked at. What cannot be seen cannot be changed.
func reachable(names ...string) Safeguard {
	return Safeguard{Name: "reachable", Show: "ssh HOST true",
		Holds: func(v View) error {
			for _, name := range names {
				if h, ok := v.Host(name); !ok || !h.Reachable() {
					return &Refusal{Host: name, Found: name + " cannot be reached: " + h.Problem, Needed: "a host that answers"}
				}
			}
			return nil
		}}
}

// blankHost: no etcd runs on a newcomer, its ports are free, and its directory
// holds nothing but what the pending member of this very cluster wrote.
func blankHost(name string) Safeguard {
	return Safeguard{Name: "blank-host", Show: "systemctl status etcd; ss -ltnp; ls -A DATA",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			m, listed := v.At(name)
			spec := v.Spec(name)
			hidden := hiddenIn(name, facts, dataDirs(spec)...)
			if listed && hidden == nil && m.Started() && len(logOf(facts, spec)) == 0 && !facts.Units[v.unit()].Runs() {
				return &Refusal{Host: name, Found: fmt.Sprintf("member %s has run there before, and its data is gone", ID(m.ID)), Needed: "its own data, or a new member",
					Hint: fmt.Sprintf("removeMember %s, then addMember %s: a member that comes back without its log corrupts the cluster", name, name)}
			}
			for _, path := range dataDirs(spec) {
				d := facts.Dirs[path]
				if lacksRights(d.Problem) {
					continue // it is told as not known
				}
				if d.Problem != "" {
					return &Refusal{Host: name, Found: fmt.Sprintf("%s cannot be looked into: %s", path, d.Problem), Needed: "a look at the data directory"}
				}
				if len(contents(d)) == 0 {
					continue
				}
				// It ended before it could write its log, as on a full disk. Where systemd
				// starts it again and again it may have done so, and be named, since the
				// host was looked at.
				if listed && !d.WAL && onlyBegun(contents(d)) && (!m.Started() || facts.Units[v.unit()].Runs()) {
					continue
				}
				own, err := Identify(d.WALHead)
				switch {
				case listed && d.WAL && err == nil && own.Member == m.ID && own.Cluster == v.ClusterID():
					continue
				case err == nil && d.WAL:
					return &Refusal{Host: name, Found: fmt.Sprintf("%s holds the data of member %s of cluster %s", path, ID(own.Member), ID(own.Cluster)), Needed: "an empty data directory",
						Hint: "if it is not needed any more: purgeHost " + name}
				}
				return &Refusal{Host: name, Found: fmt.Sprintf("%s is not empty: %s", path, strings.Join(contents(d), ", ")), Needed: "an empty data directory",
					Hint: "move it away, or if it is not needed any more: purgeHost " + name}
			}
			if listed {
				return hidden // what runs there may be our own learner; its answers say which
			}
			if u := facts.Units[v.unit()]; u.Runs() {
				return &Refusal{Host: name, Found: fmt.Sprintf("%s is %s there (pid %d)", v.unit(), u.Active, u.PID), Needed: "no etcd on the newcomer", Hint: "is it a member of another cluster?"}
			}
			for _, port := range []int{spec.ClientPort, spec.PeerPort} {
				if by, taken := facts.Ports[port]; taken {
					return &Refusal{Host: name, Found: fmt.Sprintf("port %d is taken by %s (address already in use)", port, by), Needed: "free ports", Hint: "stop what listens there"}
				}
			}
			if l := v.LookAt(name); l.Answers() {
				return &Refusal{Host: name, Found: fmt.Sprintf("member %s of cluster %s answers there", ID(l.MemberID), ID(l.ClusterID)), Needed: "no etcd on the newcomer"}
			}
			return hidden
		}}
}

func dataDirs(h inventory.Host) []string {
	if h.WALDir != "" {
		return []string{h.DataDir, h.WALDir}
	}
	return []string{h.DataDir}
}

// walRoom is what etcd takes for its log before it writes the first entry: a
// segment, and the next one in advance (server/storage/wal, SegmentSizeBytes).
const walRoom = 2 * 64 * 1000 * 1000

// roomOnDisk: the newcomer has room for the database twice over, and for its log.
func roomOnDisk(name string) Safeguard {
	return Safeguard{Name: "disk", Show: "df -h DATA",
		Risk: "the newcomer may run out of space while it receives the database",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			var most int64
			for _, l := range v.Looks {
				most = max(most, l.DBSize)
			}
			spec := v.Spec(name)
			room := map[string]int64{spec.DataDir: 2 * most}
			if len(logOf(facts, spec)) == 0 { // else it has its log already
				room[dataDirs(spec)[len(dataDirs(spec))-1]] += walRoom
			}
			for _, path := range dataDirs(spec) {
				d := facts.Dirs[path]
				if d.FreeBytes == 0 && lacksRights(d.Problem) {
					return &Hidden{Host: name, Path: path}
				}
				if d.FreeBytes < room[path] {
					return &Refusal{Host: name, Found: fmt.Sprintf("%s are free for %s, and the database has %s", Bytes(d.FreeBytes), path, Bytes(most)),
						Needed: Bytes(room[path]) + ": the database twice, and two segments of the log", Hint: "make room there, or put the directory on a larger disk"}
				}
			}
			return nil
		}}
}

// quotaFits: the newcomer would not have a smaller quota than the members, nor
// than the database: that raises NOSPACE for the whole cluster.
func quotaFits(name string) Safeguard {
	return Safeguard{Name: "quota", Show: "grep quota /etc/etcd/etcd.conf",
		Holds: func(v View) error {
			asked, said := explicitQuota(v.Spec(name))
			var hidden error
			would := quotaOr2GiB(v.memberConf(Install{Host: name, File: Conf, State: "existing"}).QuotaBytes)
			for _, m := range v.LivingVoters() {
				l, h := v.LookOf(m.ID), v.HostOf(m)
				quota := l.Quota
				if quota == 0 {
					quota = v.quotaOf(h)
				}
				if why := v.hiddenOn(h, v.layout().Conf); why != nil {
					hidden = why // and what it would get is not known either
					if !said {
						continue
					}
				}
				switch {
				case said && quota > asked:
					return &Refusal{Host: name, Found: fmt.Sprintf("the inventory gives it a quota of %d bytes, the member on %s has %d", asked, h, quota),
						Needed: "at least the members' quota", Hint: "correct etcd_quota_backend_bytes; a smaller quota raises NOSPACE for the whole cluster"}
				case quota > would || l.DBSize > would:
					return &Refusal{Host: name, Found: fmt.Sprintf("it would get a quota of %d bytes; the member on %s has %d, and its backend %d", would, h, quota, l.DBSize),
						Needed: "at least the members' quota", Hint: "no member's etcd.conf could be read that says more; set etcd_quota_backend_bytes"}
				}
			}
			return hidden
		}}
}

func explicitQuota(h inventory.Host) (int64, bool) {
	switch n := h.Vars["etcd_quota_backend_bytes"].(type) {
	case int64:
		return n, true
	case int:
		return int64(n), true
	case string:
		i, err := strconv.ParseInt(n, 10, 64)
		return i, err == nil
	}
	return 0, false
}

// peersReach: the newcomer reaches the voters' peer ports, so that it can
// fetch the database; and once it runs, they reach its own.
func peersReach(name string) Safeguard {
	return Safeguard{Name: "peers-reach", Show: "nc -z HOST 2380",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			for _, m := range v.LivingVoters() {
				for _, u := range m.PeerURLs {
					if v.HostOf(m) == name {
						continue
					}
					if problem, asked := facts.Dials[dialable(u)]; asked && problem != "" {
						return &Refusal{Host: name, Found: fmt.Sprintf("it cannot reach %s: %s", dialable(u), problem), Needed: "the peer ports are open both ways", Hint: "look at the firewall"}
					}
				}
			}
			return nil
		}}
}

// noProxy: no HTTP proxy is in the unit's environment; peers would talk to it.
func noProxy(name string) Safeguard {
	return Safeguard{Name: "no-proxy", Show: "systemctl show -p Environment etcd",
		Risk: "members talk to each other through the proxy",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			for _, e := range facts.Units[v.unit()].Env {
				key, _, _ := strings.Cut(e, "=")
				if k := strings.ToUpper(key); k == "HTTP_PROXY" || k == "HTTPS_PROXY" || k == "ALL_PROXY" {
					return &Refusal{Host: name, Found: "the unit sets " + key, Needed: "no proxy between members"}
				}
			}
			return nil
		}}
}

// inventoryWritable: the file can be edited, tried before the first change.
func inventoryWritable() Safeguard {
	return Safeguard{Name: "inventory-writable", Show: "ls -l INVENTORY",
		Holds: func(v View) error {
			if v.Inventory.Unwrites != "" {
				return &Refusal{Found: v.Inventory.Unwrites, Needed: "an inventory that can be edited", Hint: "give leave to write it, or say -inventory=patch or -inventory=none"}
			}
			return nil
		}}
}

// inventorySound: the lint found no fault.
func inventorySound() Safeguard {
	return Safeguard{Name: "inventory-sound", Show: "status",
		Holds: func(v View) error {
			if len(v.Inventory.Faults) > 0 {
				return &Refusal{Found: strings.Join(v.Inventory.Faults, "\n"), Needed: "an inventory without faults", Hint: "correct " + v.Inventory.Path}
			}
			return nil
		}}
}

// validHost: the name can stand in URLs and certificates.
func validHost(name string) error {
	if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
		return nil
	}
	if _, err := url.Parse("https://" + name); err != nil || name == "" || strings.ContainsAny(name, "/,:* \t") && strings.Count(name, ":") < 2 {
		return fmt.Errorf("%q is no host", name)
	}
	return nil
}
