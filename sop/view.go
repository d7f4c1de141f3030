package sop

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A View is what one look at a cluster found. It is never updated: to know
// more, observe again.
type View struct {
	Taken time.Time
	// Wanted is the inventory's group: what ought to be.
	Wanted inventory.Group
	// Newcomers are what the inventory would say of the subjects if they were
	// added, in the order in which they were named.
	Newcomers []inventory.Host
	// Inventory is the file itself.
	Inventory InventoryFile
	// Members is the membership list. Linear says that a quorum confirmed it
	// just now; otherwise it is the word of the member with the highest term.
	Members []Member
	Linear  bool
	// Looks are what the members said, each asked on its own, by endpoint.
	Looks []Look
	// Hosts are the machines of the inventory's group, of the references and of
	// the plan's subject, each with what was found.
	Hosts []HostView
	// Admin is what the admin host keeps.
	Admin AdminView
	// Lags are how many entries each learner was behind in the last few looks.
	Lags map[uint64][]uint64
	// Callers are who was connected to the member on each host in the last few looks
	// at that, oldest first, while the members were these.
	Callers map[string][]Calls
	// Before is the look before this one, a second or more earlier; nil at
	// first. Two looks tell movement from standstill.
	Before *View
}

// Calls are who was connected to a member, as one look found it: how many
// connections there were by address, without our own and those of its host.
type Calls struct {
	At   time.Time
	From map[string]int
}

// An InventoryFile is the inventory as a file.
type InventoryFile struct {
	Path     string
	Content  []byte
	Edit     string // edit, patch or none: what to do with it
	Unwrites string // why it cannot be written; empty when it can
	Faults   []string
}

// A Member is an entry of the membership list.
type Member struct {
	ID         uint64
	Name       string // empty until the member has started for the first time
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Started reports whether the member has ever run: it publishes its name then.
// It says nothing about now.
func (m Member) Started() bool { return m.Name != "" }

// A Look is what one member said of itself and of the others.
type Look struct {
	Endpoint string
	Host     string // the inventory's name of the host it is on, empty when it is none of them
	Problem  string // why it did not answer, etcd's own words; empty when it did
	Denied   string // why it would not be administered by our user; empty when it would, or was not asked

	ClusterID, MemberID uint64
	Leader              uint64 // member ID, zero when it knows none
	Term                uint64
	Index, Applied      uint64 // raft index and applied index
	Version             string
	DBSize, DBUsed      int64 // bytes of the backend, allocated and in use
	Quota               int64 // bytes; zero when the member does not say (3.5)
	Learner             bool
	Downgrading         bool     // a downgrade is under way
	DowngradeTo         string   // to this version
	Storage             string   // version of the form that the backend is in; empty when the member does not say (3.5)
	Cluster             string   // cluster version, as far as it was asked
	Stored              *Stored  // the member list in the backend; nil when not asked
	Alarms              []string // as Status gives them: "memberID:1 alarm:NOSPACE"
	Members             []Member // its own list, read without quorum; nil from a learner
	Revision            int64
	Compacted           int64  // last compacted revision, zero when none or not asked
	Hash                uint32 // HashKV at Compacted
	// HashSince is the compaction that the hash begins after: the one before
	// Compacted where it was cached then, Compacted itself from a member that
	// was made from a snapshot since. Hashes of unlike spans say nothing of each
	// other.
	HashSince  int64
	Hashed     bool
	Took       time.Duration
	Fsync      time.Duration // what the slowest hundredth of its syncs of the log took at least; zero when not asked
	Dependents *Dependents   // who depends on the cluster; nil when not asked
	Auth       *AuthState    // what it knows of users; nil when not asked, or not told
	Served     string        // fingerprint of the certificate that it shows; empty when not asked
	Watches    *Watches      // open on this member; nil when not asked, or not told
}

// Watches counts the open watches of a member.
type Watches struct {
	Open   int
	Behind int // that have not been told all yet
}

// Dependents are those who would miss a cluster.
type Dependents struct {
	Keys     int64    // in the key space, ours left out
	Leased   []string // keys under a lease, as leader keys are; at most the first few
	Watchers int      // open watches on the member that was asked; -1 when it does not say
}

// Lines tells them to a human.
func (d Dependents) Lines() []string {
	lines := []string{fmt.Sprintf("keys: %d", d.Keys)}
	if d.Watchers >= 0 {
		lines = append(lines, fmt.Sprintf("open watches: %d", d.Watchers))
	}
	if len(d.Leased) > 0 {
		lines = append(lines, "leased keys: "+strings.Join(d.Leased, ", "))
	}
	return lines
}

// Answers reports whether the member was there.
func (l Look) Answers() bool { return l.Problem == "" }

// askedOnce takes over what was asked of the same member a moment ago and is
// too dear to be asked again.
func (l *Look) askedOnce(o Look) {
	l.Denied = cmp.Or(l.Denied, o.Denied)
	l.Dependents, l.Watches, l.Fsync = o.Dependents, o.Watches, o.Fsync
	if o.Hashed || l.Compacted == 0 {
		l.Compacted, l.Hash, l.HashSince, l.Hashed = o.Compacted, o.Hash, o.HashSince, o.Hashed
	}
	l.Auth, l.Served = cmp.Or(l.Auth, o.Auth), cmp.Or(l.Served, o.Served)
}

// A HostView is what was found on one machine.
type HostView struct {
	Name    string
	Problem string // why it could not be looked at; empty when it could
	Facts   host.Facts
	Taken   time.Time
	// Glimpsed is when a part of the facts was looked at anew, right after an act
	// of ours that was about nothing else; zero when none was since Taken.
	Glimpsed time.Time
	// Skew is how far the host's clock is ahead of ours.
	Skew time.Duration
	// Shakes are TLS handshakes that were tried from there: "" when the member
	// took the certificate, else the error's text. One that is not in it was not
	// tried, or the host could not.
	Shakes map[host.Handshake]string
	// Listen is the address that etcd is to listen on where the inventory has the
	// host by name; empty for all of them.
	Listen string
	// Log is how far the host's member came by its write-ahead log; nil where there is
	// none, or where it was not asked for. LogProblem says why it could not be read.
	Log        *RaftLog
	LogProblem string

	asked host.Question // what the look at Taken was about
}

// lastSeen is when anything of the host was looked at last.
func (h HostView) lastSeen() time.Time {
	if h.Glimpsed.After(h.Taken) {
		return h.Glimpsed
	}
	return h.Taken
}

// Reachable reports whether the host could be looked at.
func (h HostView) Reachable() bool { return h.Problem == "" }

// complete reports whether all that a look asked was answered. What was waited for
// in vain may come at a second try; that nobody listens is an answer.
func (h HostView) complete() bool {
	for _, why := range h.Facts.Dials {
		if why != "" && !strings.Contains(strings.ToLower(why), "refused") {
			return false
		}
	}
	for _, r := range h.Facts.HTTP {
		if r.Problem != "" {
			return false
		}
	}
	for _, why := range h.Facts.Handshakes {
		if why != "" {
			return false
		}
	}
	return h.Reachable() && !h.Taken.IsZero()
}

// An AdminView is what the admin host keeps beside the inventory.
type AdminView struct {
	// ClusterID is the one remembered from the first contact; zero when none.
	ClusterID uint64
	// CA is the fingerprint of the CA in files/pki, empty when there is none;
	// CAProblem says what is wrong with it.
	CA, CAProblem string
	CACert        []byte
	// Signer is the certificate of the CA that signs, alone; CACert may have others
	// that are trusted.
	Signer []byte
	// Rotation is how far another CA has come in taking its place; RotationProblem
	// why that cannot be told.
	Rotation        pki.Rotation
	RotationProblem string
	// Own are the files that we were told to connect to members with.
	Own OwnFiles
	// External is set where only the CA's certificate is in files/pki: somebody
	// else signs.
	External bool
	// Issued are the certificates in files/pki/etcd, PEM, by member name.
	Issued map[string][]byte
	// IssuedAt is when those were put there.
	IssuedAt map[string]time.Time
	// Unusable says of those that are there and not among Issued what is wrong.
	Unusable map[string]string
	// KeySums are the sha256 of their keys, hex.
	KeySums map[string]string
	// Snapshot is the newest one that was verified; nil when there is none.
	Snapshot *Saved
	// Removed are the hosts that this admin host has removed before, by name.
	Removed map[string]time.Time
	// Added are the hosts that this admin host has begun to add before.
	Added map[string]time.Time
	// Begun are the procedures that this admin host has begun before, as they
	// were typed.
	Begun []string
	// Connections are the ends on this machine of our own connections to members,
	// as "address:port".
	Connections []string
	// Debts are references that could not be refreshed and were waived.
	Debts []string
	// Clients is what this admin host did to Patroni and vip-manager.
	Clients ClientRecord
	// User is set when there are credentials for a cluster with auth on.
	User string
	// Binary is the etcd to put on hosts; nil when the inventory names none. Utility
	// is the etcdutl beside it; nil when there is none.
	Binary, Utility *Program
	// Restoring is the restore that was begun here last; nil when none ever was.
	Restoring *Restoring
}

// A Program is an executable of the admin host.
type Program struct {
	Path    string // absolute
	SHA256  string // hex
	Problem string // why it cannot be read
	Version string // as it tells it here; empty when it could not be asked

	size     int64
	modified time.Time
}

// Saved is a snapshot that was verified.
type Saved struct {
	Path      string    `json:"path"`
	Taken     time.Time `json:"taken"`
	From      string    `json:"from"` // endpoint
	ClusterID uint64    `json:"cluster_id"`
	Revision  int64     `json:"revision"`
	Keys      int       `json:"keys"`
	Bytes     int64     `json:"bytes"`
	SHA256    string    `json:"sha256"`                // of the backend, as the trailer has it
	FileSHA   string    `json:"file_sha256,omitempty"` // of the whole file, as sha256sum prints it
	Members   []uint64  `json:"members"`               // sorted IDs
	PeerURLs  []string  `json:"peer_urls,omitempty"`
	Version   string    `json:"etcd_version"`
	Storage   string    `json:"storage_version,omitempty"` // of the backend; empty before 3.6
	Auth      bool      `json:"auth,omitempty"`            // authentication is on in it
	Index     uint64    `json:"raft_index,omitempty"`      // of the last entry that is applied in it
	// Survivor is set where it is of what the most advanced member had after the
	// quorum was lost.
	Survivor bool `json:"survivor,omitempty"`
}

// Host gives the view of one host.
func (v View) Host(name string) (HostView, bool) {
	for _, h := range v.Hosts {
		if h.Name == name {
			return h, true
		}
	}
	return HostView{}, false
}

// Spec gives what the inventory says of a host, or what it would say if the
// host were added to the group.
func (v View) Spec(name string) inventory.Host {
	if h, ok := v.Wanted.Host(name); ok {
		return h
	}
	for _, h := range v.Newcomers {
		if h.Name == name {
			return h
		}
	}
	spec := inventory.Host{Name: name, Addr: name, Become: true, Connection: "ssh"}
	for _, h := range v.Wanted.Others {
		if h.Name == name { // how it is reached is its own, what etcd would have there is the group's
			spec = h
		}
	}
	spec.ClientPort, spec.PeerPort, spec.DataDir, spec.WALDir = v.Wanted.ClientPort, v.Wanted.PeerPort, v.Wanted.DataDir, v.Wanted.WALDir
	return spec
}

// comes reports whether a host is a subject of the look.
func (v View) comes(name string) bool {
	return slices.ContainsFunc(v.Newcomers, func(h inventory.Host) bool { return h.Name == name })
}

// knowsSubjects reports whether these are the subjects that a View was about.
func (v View) knowsSubjects(names []string) bool {
	return slices.EqualFunc(v.Newcomers, names, func(h inventory.Host, name string) bool { return h.Name == name })
}

// PeerURL is where peers would dial the member on a host.
func (v View) PeerURL(name string) string { return v.Wanted.PeerURL(v.Spec(name)) }

// ClientURL is where clients would dial the member on a host.
func (v View) ClientURL(name string) string { return v.Wanted.ClientURL(v.Spec(name)) }

// MemberName is what the member on a host is, or would be, called.
func (v View) MemberName(name string) string { return v.Wanted.MemberName(v.Spec(name)) }

// At gives the member that lives on a host, matched by peer URL and never by
// name.
func (v View) At(name string) (Member, bool) {
	return memberAt(v.Members, v.PeerURL(name))
}

func memberAt(members []Member, peerURL string) (Member, bool) {
	for _, m := range members {
		if slices.Contains(m.PeerURLs, peerURL) {
			return m, true
		}
	}
	return Member{}, false
}

// HostOf gives the name of the host that a member lives on: the inventory's
// where the peer URL is of one of its hosts, else the URL's own host part.
func (v View) HostOf(m Member) string {
	for _, h := range v.Wanted.Hosts {
		if slices.Contains(m.PeerURLs, v.Wanted.PeerURL(h)) {
			return h.Name
		}
	}
	for _, u := range m.PeerURLs {
		return hostPart(u)
	}
	return ""
}

// ByID gives the member with an ID.
func (v View) ByID(id uint64) (Member, bool) {
	for _, m := range v.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// LookOf gives what a member said when it was asked; the zero Look with a
// Problem when it was not or did not answer.
func (v View) LookOf(id uint64) Look {
	for _, l := range v.Looks {
		if l.Answers() && l.MemberID == id {
			return l
		}
	}
	if m, ok := v.ByID(id); ok {
		for _, l := range v.Looks {
			if slices.Contains(m.ClientURLs, l.Endpoint) || l.Host != "" && l.Host == v.HostOf(m) {
				return l
			}
		}
		if !m.Started() {
			return Look{Problem: "it has not started yet"}
		}
	}
	return Look{Problem: "it was not asked"}
}

// LookAt gives what answered at a host's client URL.
func (v View) LookAt(name string) Look {
	url := v.ClientURL(name)
	for _, l := range v.Looks {
		if l.Endpoint == url {
			return l
		}
	}
	if m, ok := v.At(name); ok {
		return v.LookOf(m.ID)
	}
	return Look{Endpoint: url, Problem: "it was not asked"}
}

// Alive reports whether a member answers now, as a member of this cluster.
func (v View) Alive(m Member) bool {
	l := v.LookOf(m.ID)
	return l.Answers() && l.MemberID == m.ID && l.ClusterID == v.ClusterID()
}

// Voters are the members with a vote, in the order of their IDs.
func (v View) Voters() []Member {
	return v.some(func(m Member) bool { return !m.Learner })
}

// Learners are the members without one.
func (v View) Learners() []Member {
	return v.some(func(m Member) bool { return m.Learner })
}

// LivingVoters are the voters that answer.
func (v View) LivingVoters() []Member {
	return v.some(func(m Member) bool { return !m.Learner && v.Alive(m) })
}

func (v View) some(keep func(Member) bool) []Member {
	var kept []Member
	for _, m := range v.Members {
		if keep(m) {
			kept = append(kept, m)
		}
	}
	return kept
}

// Votes counts the voters and the dead among them.
func (v View) Votes() Votes {
	n := len(v.Voters())
	return Votes{Voters: n, Dead: n - len(v.LivingVoters())}
}

// Exists reports whether any member of a cluster answered.
func (v View) Exists() bool { return len(v.Members) > 0 }

// ClusterID is that of the members that answered; zero when none did. Where
// they differ it is the one of most, and safeguard one-cluster refuses. A host
// that the inventory does not have may be another cluster's, with all of its
// members, and counts only when none of the inventory's answers.
func (v View) ClusterID() uint64 {
	count := map[uint64]int{}
	var best uint64
	for _, l := range v.Looks {
		if _, wanted := v.Wanted.Host(l.Host); wanted && l.Host != "" && l.Answers() {
			count[l.ClusterID]++
		}
	}
	strangers := len(count) == 0
	for _, l := range v.Looks {
		if l.Answers() && (strangers || count[l.ClusterID] > 0) {
			count[l.ClusterID]++
		}
	}
	for id, n := range count {
		if n > count[best] || n == count[best] && (id == v.Admin.ClusterID || best != v.Admin.ClusterID && id < best) {
			best = id
		}
	}
	return best
}

// ownID is the ID of the cluster that is there, or that was met before.
func (v View) ownID() uint64 {
	if id := v.ClusterID(); id != 0 {
		return id
	}
	return v.Admin.ClusterID
}

// Leader is the member that a quorum of the voters names, at the highest raft
// term that one of them knows. A voter that is cut off from the others names
// none, and does not count.
func (v View) Leader() (Member, bool) {
	var term uint64
	for _, m := range v.LivingVoters() {
		if l := v.LookOf(m.ID); l.Leader != 0 {
			term = max(term, l.Term)
		}
	}
	named := map[uint64]int{}
	for _, m := range v.LivingVoters() {
		if l := v.LookOf(m.ID); l.Leader != 0 && l.Term == term {
			named[l.Leader]++
		}
	}
	for id, n := range named {
		if n >= Quorum(len(v.Voters())) {
			return v.ByID(id)
		}
	}
	return Member{}, false
}

// agreed holds when every living voter, but for those on the hosts in except,
// names the same living leader at the same raft term.
func (v View) agreed(except ...string) error {
	leader, ok := v.Leader()
	if !ok {
		return errors.New("the voters do not agree on a leader")
	}
	if !v.Alive(leader) {
		return fmt.Errorf("the leader on %s does not answer", v.HostOf(leader))
	}
	term := v.LookOf(leader.ID).Term
	for _, m := range v.LivingVoters() {
		h, l := v.HostOf(m), v.LookOf(m.ID)
		if !slices.Contains(except, h) && (l.Leader != leader.ID || l.Term != term) {
			return fmt.Errorf("the voters do not agree on a leader: the one on %s names another, or another term, than the one on %s", h, v.HostOf(leader))
		}
	}
	return nil
}

// Alarms are those that any member reports, without duplicates.
func (v View) Alarms() []string {
	var all []string
	for _, l := range v.Looks {
		all = append(all, l.Alarms...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Endpoints are the client URLs of the living voters, sorted: what clients
// should be given. Learners are never among them.
func (v View) Endpoints() []string {
	var urls []string
	for _, m := range v.LivingVoters() {
		urls = append(urls, m.ClientURLs...)
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// VoterURLs are the client URLs of all voters, dead ones too, without those on
// the hosts that are named.
func (v View) VoterURLs(without ...string) []string {
	var urls []string
	for _, m := range v.Voters() {
		if slices.Contains(without, v.HostOf(m)) {
			continue
		}
		if len(m.ClientURLs) == 0 {
			continue
		}
		urls = append(urls, m.ClientURLs...)
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// IDs are the members' IDs, sorted.
func (v View) IDs() []uint64 {
	ids := make([]uint64, 0, len(v.Members))
	for _, m := range v.Members {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids
}

// ID writes a member or cluster ID as etcdctl does.
func ID(id uint64) string { return fmt.Sprintf("%x", id) }

func hostPart(url string) string {
	rest := url
	if _, after, ok := strings.Cut(url, "://"); ok {
		rest = after
	}
	if strings.HasPrefix(rest, "[") {
		if inner, _, ok := strings.Cut(rest[1:], "]"); ok {
			return inner
		}
	}
	if i := strings.LastIndex(rest, ":"); i >= 0 {
		return rest[:i]
	}
	return rest
}

// byHost has the members by host: their IDs, and so the order of the list, are
// others in each new cluster.
func (v View) byHost() []Member {
	all := slices.Clone(v.Members)
	slices.SortFunc(all, func(a, b Member) int { return compareHosts(v.HostOf(a), v.HostOf(b)) })
	return all
}
