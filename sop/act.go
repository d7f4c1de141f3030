package sop

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// An Act is one change, as a value: what is changed and where, in terms of
// hosts and files, never of IDs that are not known yet. The executor resolves
// it against a fresh View just before it is made.
type Act interface {
	// String says what it does, imperative and in lower case.
	String() string
	// ByHand is what an administrator would type, on the admin host unless a
	// line says otherwise.
	ByHand(v View) []string
}

// AddLearner announces a host to the cluster as a learner.
type AddLearner struct{ Host string }

// Promote gives the learner on a host its vote.
type Promote struct{ Host string }

// Expel takes a member off the list: etcd's MemberRemove.
type Expel struct {
	ID   uint64
	Host string // where it lives, for the reader
}

// MoveLeader hands leadership from the voter on a host to the one that is
// closest behind it when the time has come.
type MoveLeader struct {
	From string
	To   []string // only to a voter on one of these hosts; none is anybody
}

// Downgrade lets the cluster go down to a minor version, the one below its own.
type Downgrade struct{ To string }

// CancelDowngrade takes a Downgrade back.
type CancelDowngrade struct{}

// SaveSnapshot saves the key space of a follower and verifies the file.
type SaveSnapshot struct {
	To   string   // file; empty for the admin host's own collection
	From string   // host, as planned; another follower serves as well
	Not  []string // hosts whose members do not
	Only bool     // no other than From does
}

// BringSnapshot makes a snapshot file of a backend that is on a host, which has
// applied at least all entries up to an index, and verifies it.
type BringSnapshot struct {
	Host  string
	Path  string // of the backend, on the host
	To    string // file
	Index uint64
}

// EditInventory adds a host to the inventory's group, or removes it.
type EditInventory struct {
	Host   string
	Remove bool
}

// MakeCA makes the CA of a new cluster.
type MakeCA struct{}

// IssueCert issues the certificate of the member on a host.
type IssueCert struct{ Host string }

// Remember keeps the cluster's ID beside the inventory, or forgets it.
type Remember struct{ Forget bool }

// NoteRestore writes down on the admin host what is restored, so that a rerun
// knows it for its own.
type NoteRestore struct{ Restoring }

// Install writes one of etcd's files on a host.
type Install struct {
	Host  string
	File  File
	State string // of File Conf: new or existing
	Token string // of File Conf, when the cluster is new
	At    string // path, where it is not the file's own
}

// path is where the file stands.
func (a Install) path() string {
	if a.At != "" {
		return a.At
	}
	return a.File.Path()
}

// A File is one of those that a procedure puts on a host.
type File string

// The files of a member.
const (
	Conf       File = "etcd.conf"
	CACert     File = "ca.crt"
	ServerCert File = "server.crt"
	ServerKey  File = "server.key"
	UnitFile   File = "etcd.service"
	JoinDropIn File = "join drop-in"
	EnvFile    File = "etcdctl.sh"
)

// The files of other clients, which are edited and never made, except for
// monitoring targets.
const (
	PatroniConf    File = "patroni.yml"
	VIPConf        File = "vip-manager.yml"
	PatronictlConf File = "patronictl.yml"
	Targets        File = "targets" // one file for each member
)

// Path is where a file stands on a host; empty for Targets, which are several.
func (f File) Path() string {
	switch f {
	case PatroniConf:
		return config.PatroniPath
	case VIPConf:
		return config.VIPManagerPath
	case PatronictlConf:
		return config.PatronictlPath
	}
	return f.owned().Path
}

// owned gives the file's place, owner and mode.
func (f File) owned() config.OwnedFile {
	switch f {
	case Conf:
		return config.ConfFile()
	case CACert:
		return config.CAFile()
	case ServerCert:
		return config.ServerCertFile()
	case ServerKey:
		return config.ServerKeyFile()
	case UnitFile:
		return config.UnitFile()
	case JoinDropIn:
		return config.JoinDropInFile()
	case EnvFile:
		return config.EnvFile()
	}
	return config.OwnedFile{}
}

// Refresh edits the endpoints in a file that is on a host already; every other
// byte of it stays.
type Refresh struct {
	Host    string
	File    File
	Without []string // hosts whose members are left out
	With    []string // hosts whose members are voters by then
	At      string   // path, where it is not the file's own
}

// path is where the file stands.
func (a Refresh) path() string {
	if a.At != "" {
		return a.At
	}
	return a.File.Path()
}

// On makes a change that needs nothing but the host.
type On struct {
	Host string
	Act  host.Act
}

func (a AddLearner) String() string { return "add " + a.Host + " as learner" }

// ByHand implements Act.
func (a AddLearner) ByHand(v View) []string {
	return []string{fmt.Sprintf("etcdctl member add %s --learner --peer-urls=%s", v.MemberName(a.Host), v.PeerURL(a.Host))}
}

func (a Promote) String() string { return "promote the learner on " + a.Host }

// ByHand implements Act.
func (a Promote) ByHand(v View) []string {
	id := "ID   # of " + v.PeerURL(a.Host) + " in: etcdctl member list"
	if m, ok := v.At(a.Host); ok {
		id = ID(m.ID)
	}
	return []string{"etcdctl member promote " + id}
}

func (a Expel) String() string { return "remove member " + ID(a.ID) + " on " + a.Host }

// ByHand implements Act.
func (a Expel) ByHand(View) []string { return []string{"etcdctl member remove " + ID(a.ID)} }

func (a MoveLeader) String() string {
	if len(a.To) > 0 {
		return fmt.Sprintf("move the leadership from %s to %s", a.From, strings.Join(a.To, " or "))
	}
	return "move the leadership away from " + a.From
}

// ByHand implements Act.
func (a MoveLeader) ByHand(v View) []string {
	to := "ID   # of another voter"
	if m, ok := v.heir(a.From, a.To...); ok {
		to = ID(m.ID)
	} else if len(a.To) > 0 {
		to = "ID   # of the voter on " + strings.Join(a.To, " or ")
	}
	return []string{fmt.Sprintf("ETCDCTL_ENDPOINTS=%s etcdctl move-leader %s", v.ClientURL(a.From), to)}
}

func (a Downgrade) String() string { return "let the cluster go down to " + a.To }

// ByHand implements Act.
func (a Downgrade) ByHand(View) []string {
	return []string{"etcdctl downgrade validate " + a.To, "etcdctl downgrade enable " + a.To}
}

func (a CancelDowngrade) String() string { return "cancel the downgrade" }

// ByHand implements Act.
func (a CancelDowngrade) ByHand(View) []string { return []string{"etcdctl downgrade cancel"} }

func (a SaveSnapshot) String() string {
	if a.To != "" {
		return "save a snapshot to " + a.To
	}
	return "save and verify a snapshot"
}

// ByHand implements Act.
func (a SaveSnapshot) ByHand(v View) []string {
	to := a.To
	if to == "" {
		to = "FILE"
	}
	from := "ENDPOINT"
	if a.From != "" {
		from = v.ClientURL(a.From)
	}
	return []string{
		// Not --endpoints: where etcdctl.sh was read, etcdctl takes only one of the
		// two ways to say it.
		fmt.Sprintf("ETCDCTL_ENDPOINTS=%s etcdctl snapshot save %s", from, to),
		"etcdutl snapshot status " + to,
	}
}

func (a BringSnapshot) String() string { return "make a snapshot of " + a.Path + " on " + a.Host }

// ByHand implements Act.
func (a BringSnapshot) ByHand(View) []string {
	return []string{
		fmt.Sprintf("scp %s:%s %s   # restored with: etcdutl snapshot restore --skip-hash-check", a.Host, a.Path, a.To),
		"etcdutl snapshot status " + a.To,
	}
}

func (a EditInventory) String() string {
	if a.Remove {
		return "remove " + a.Host + " from the inventory"
	}
	return "add " + a.Host + " to the inventory"
}

// ByHand implements Act.
func (a EditInventory) ByHand(v View) []string {
	if a.Remove {
		return []string{fmt.Sprintf("vi %s   # group %s: remove %s", v.Inventory.Path, v.Wanted.Name, a.Host)}
	}
	return []string{fmt.Sprintf("vi %s   # group %s: %s: { etcd_seq: %d }", v.Inventory.Path, v.Wanted.Name, a.Host, v.Spec(a.Host).Seq)}
}

func (a MakeCA) String() string { return "make the CA" }

// ByHand implements Act.
func (a MakeCA) ByHand(View) []string {
	return []string{"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=pigsty-ca -keyout files/pki/ca/ca.key -out files/pki/ca/ca.crt"}
}

func (a IssueCert) String() string { return "issue the certificate of " + a.Host }

// ByHand implements Act.
func (a IssueCert) ByHand(v View) []string {
	n := v.MemberName(a.Host)
	return []string{
		fmt.Sprintf("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=pigsty/OU=etcd/CN=%s -addext subjectAltName=IP:127.0.0.1,DNS:localhost,IP:%s,DNS:%s -keyout files/pki/etcd/%s.key -out files/pki/csr/%s.csr", n, a.Host, n, n, n),
		fmt.Sprintf("openssl x509 -req -copy_extensions copy -CA files/pki/ca/ca.crt -CAkey files/pki/ca/ca.key -in files/pki/csr/%s.csr -out files/pki/etcd/%s.crt", n, n),
	}
}

func (a Remember) String() string {
	if a.Forget {
		return "forget the cluster's ID"
	}
	return "remember the cluster's ID"
}

// ByHand implements Act.
func (a Remember) ByHand(View) []string { return nil }

func (a NoteRestore) String() string {
	if a.Done {
		return "note that it is restored"
	}
	return "note what is restored"
}

// ByHand implements Act.
func (a NoteRestore) ByHand(View) []string { return nil }

func (a Install) String() string { return fmt.Sprintf("write %s on %s", a.path(), a.Host) }

// ByHand implements Act.
func (a Install) ByHand(v View) []string {
	o := v.owned(a.File)
	line := fmt.Sprintf("install -o %s -g %s -m %04o NEW %s", o.Owner, o.Group, o.Mode, o.Path)
	if a.File == Conf {
		line += "   # initial-cluster-state: " + a.State
	}
	return []string{onHost(a.Host, line)}
}

func (a Refresh) String() string {
	return fmt.Sprintf("refresh the endpoints in %s on %s", a.path(), a.Host)
}

// ByHand implements Act.
func (a Refresh) ByHand(v View) []string {
	line := "vi " + a.path()
	switch a.File {
	case EnvFile:
		line += "   # ETCDCTL_ENDPOINTS=" + strings.Join(a.endpoints(v), ",")
	case PatroniConf, PatronictlConf:
		line += "   # etcd3.hosts"
	case VIPConf:
		line += "   # dcs-endpoints"
	default:
		var peers []string
		for _, p := range a.peers(v) {
			peers = append(peers, p.Name+"="+p.URL)
		}
		line += "   # initial-cluster: " + strings.Join(peers, ",") + "; initial-cluster-state: existing"
	}
	return []string{onHost(a.Host, line)}
}

// Diff is the difference that it makes to a client's file; empty where there is
// none, or none can be told yet.
func (a Refresh) Diff(v View) string {
	f := v.hostView(a.Host).Facts.Files[a.path()]
	if !a.File.isClients() || !f.Exists {
		return ""
	}
	after, err := v.refresh(f.Content, a)
	if err != nil {
		return ""
	}
	return config.Diff(a.path(), f.Content, after)
}

// endpoints are what the file is to name: the voters, dead ones too, which may
// come back; never a learner.
func (a Refresh) endpoints(v View) []string {
	urls := v.VoterURLs(a.Without...)
	for _, h := range a.With {
		urls = append(urls, v.ClientURL(h))
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// peers are the members that an etcd.conf is to name.
func (a Refresh) peers(v View) []config.Peer {
	all := v.peers(a.With, a.Without...)
	for _, h := range a.With {
		if !slices.ContainsFunc(all, func(p config.Peer) bool { return p.URL == v.PeerURL(h) }) {
			all = append(all, config.Peer{Name: v.MemberName(h), URL: v.PeerURL(h)})
		}
	}
	sortPeers(all)
	return all
}

func (a On) String() string { return a.Act.String() + " on " + a.Host }

// ByHand implements Act.
func (a On) ByHand(View) []string {
	var lines []string
	for _, c := range a.Act.Commands() {
		lines = append(lines, onHost(a.Host, c))
	}
	return lines
}

func onHost(name, line string) string { return fmt.Sprintf("ssh %s  %s", name, line) }

// changesMembership reports whether an act touches the member list or its
// leader.
func changesMembership(a Act) bool {
	switch a.(type) {
	case AddLearner, Promote, Expel, MoveLeader:
		return true
	}
	return false
}

// peers gives the initial-cluster of a View: every member, those on joining
// hosts under the names that they will have. Hosts in without are left out.
func (v View) peers(joining []string, without ...string) []config.Peer {
	var all []config.Peer
	for _, m := range v.Members {
		h := v.HostOf(m)
		if slices.Contains(without, h) {
			continue
		}
		name := m.Name
		if name == "" || slices.Contains(joining, h) {
			name = v.MemberName(h)
		}
		for _, u := range m.PeerURLs {
			all = append(all, config.Peer{Name: name, URL: u})
		}
	}
	sortPeers(all)
	return all
}

func sortPeers(all []config.Peer) {
	slices.SortFunc(all, func(a, b config.Peer) int { return strings.Compare(a.Name+a.URL, b.Name+b.URL) })
}

// takesData reports whether an act moves or deletes what a process may be using.
func takesData(a Act) bool {
	on, ok := a.(On)
	if !ok {
		return false
	}
	switch on.Act.(type) {
	case host.SetAside, host.Delete:
		return true
	}
	return false
}

// touches is the host that an act changes something on; empty for none.
func touches(a Act) string {
	switch a := a.(type) {
	case Install:
		return a.Host
	case Refresh:
		return a.Host
	case PutBack:
		return a.Host
	case CopyTarget:
		return a.Host
	case EditTrust:
		return a.Host
	case Resign:
		return a.Host
	case On:
		return a.Host
	}
	return ""
}

// installs reports whether an act brings programs or users to a host, so that
// both have to be asked for anew.
func installs(a Act) bool {
	on, ok := a.(On)
	if !ok {
		return false
	}
	switch on.Act.(type) {
	case host.PutProgram, host.CopyProgram, host.InstallPackage, host.AddUser:
		return true
	}
	return false
}

// carries reports whether an act takes as long as the database is large.
func carries(a Act) bool {
	on, ok := a.(On)
	if !ok {
		return false
	}
	switch on.Act.(type) {
	case host.PutFile, host.RestoreData, host.ReplayLog:
		return true
	}
	return false
}

// saves reports whether an act makes a snapshot, and changes nothing else.
func saves(a Act) bool {
	switch a.(type) {
	case SaveSnapshot, BringSnapshot:
		return true
	}
	return false
}

// leavesMembers reports whether an act is about files alone, so that no member
// has to be asked before it or after it.
func leavesMembers(a Act) bool {
	switch a := a.(type) {
	case Install, Refresh, IssueCert, RenewCert, ChangeCA, EditTrust, Resign, EditInventory, MakeCA, TellPatroni, PutBack, CopyTarget, NoteRestore, BringSnapshot:
		return true
	case On:
		switch act := a.Act.(type) {
		case host.MakeDir, host.RemoveFile, host.PutProgram, host.CopyProgram, host.PutFile, host.RestoreData, host.ReplayLog, host.InstallPackage, host.AddUser:
			return true
		case host.Systemctl:
			return act.Verb == host.DaemonReload || act.Verb == host.Enable || act.Verb == host.Unmask || act.Unit == config.VIPManagerUnit
		}
	}
	return false
}

// rewrites reports whether an act has a member go through its whole database.
func rewrites(a Act) bool {
	switch a.(type) {
	case DefragMember, CompactTo:
		return true
	}
	return false
}
