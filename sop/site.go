package sop

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A Site is the ground that procedures stand on: the inventory and what is
// kept beside it, the hosts, and a way to each member. It does not know
// whether its hosts are machines or a lab's.
type Site struct {
	Inventory string // path of the inventory file
	Group     string // its group of etcd hosts
	// Edit says what becomes of the inventory: edit, patch (only the difference
	// is shown) or none.
	Edit string

	State string  // directory beside the inventory: journals, snapshots, what is remembered
	PKI   pki.Dir // files/pki

	Hosts func(spec inventory.Host) (host.Host, error)
	Dial  Dialer
	// Named are the files that Dial was told to come with, empty where it was not.
	Named ClientFiles
	User  string // RBAC user that Dial comes with, empty when it has none
	// Password is that user's, for those who make him; never to be printed.
	Password string

	// Ask runs a program of the admin host and gives what it says of its version;
	// nil where programs are not run here.
	Ask func(ctx context.Context, program string) (string, error)

	// Resolve gives the addresses of a host that the inventory has by name; nil
	// where names cannot be looked up.
	Resolve func(ctx context.Context, name string) ([]string, error)

	Now       func() time.Time
	Random    io.Reader
	Deadlines Deadlines
	Self      Holder // who runs
	Meter     *Meter // of Dial's connections; nil where nobody wants to know

	mu       sync.Mutex
	conns    map[string]Etcd
	hosts    map[string]host.Host
	slow     map[string]time.Time // when endpoints last let a look wait in vain
	lock     *lock
	logs     map[string]readLog // by host
	programs map[string]Program // what was read last of those to put on hosts, by path
	lastView View
	lags     map[uint64][]uint64
	calls    map[string][]Calls
	calledAs []uint64 // the members' IDs at that time
	seen     []View   // the looks of the last second, and one that is older
	target   string   // version of etcd that the members are to run; empty where nothing is upgraded

	adminMu   sync.Mutex // held while what the admin host keeps is read
	admin     AdminView
	adminKept bool // it is still so
}

// ErrInventory says that the inventory cannot be used.
var ErrInventory = errors.New("inventory")

// ErrGround says that what the procedures stand on failed: a lab, SSH, Docker.
var ErrGround = errors.New("the ground failed")

// A Scope says what a look is about. The zero Scope asks the members only.
type Scope struct {
	AllHosts  bool     // look at every host
	Host      string   // look at this host
	Also      []string // and at these
	NoClients bool     // of AllHosts, leave out those that are nothing but clients
	Shake     bool     // let Host try TLS handshakes with the members, as its clients would
	Hash      bool     // ask every member for its hash at the last compacted revision
	Compacted bool     // ask every member how far it has compacted
	Auth      bool     // ask for users and roles, and where authentication is on have known clients log in
	Serving   bool     // ask every member for its certificate, by a handshake of its own
	Trust     bool     // read the certificates that clients on hosts trust and show, and ask members who is connected
	Reach     bool     // let hosts try each other's peer ports
	Who       bool     // ask who depends on the cluster
	Disks     bool     // ask the voters how slow their disks are
	Write     bool     // try whether the inventory can be written
	Ports     bool     // ask Host for its listeners too
	Still     bool     // the members have not changed since the last look, so that only hosts are asked
	Fill      bool     // a host that was looked at just before is asked again only where there is more to ask it
	Subjects  []string // hosts that may be in neither inventory nor list
	Try       bool     // let Host try the etcd that it is to run with the configuration that it has
	Stored    bool     // ask every voter for the member list that is in its backend
	Logs      bool     // read how far the log of each host that is looked at goes
	// Glimpse, where it is not nil, keeps the look at Host to what an act of ours
	// there was about. What else is known of the host stays as it was.
	Glimpse *Glimpse
}

// Close closes the connections.
func (s *Site) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	s.conns = nil
	return errors.Join(errs...)
}

// Observe takes one look. It changes nothing, anywhere.
func (s *Site) Observe(ctx context.Context, scope Scope) (View, error) {
	v := View{Taken: s.Now()}
	if err := s.readInventory(&v, scope); err != nil {
		return View{}, err
	}
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	s.readAdmin(ctx, &v, scope)

	hosts, err := s.hostsOf(&v, scope, last)
	if err != nil {
		return View{}, err
	}
	var wg sync.WaitGroup
	looked := make([]HostView, len(hosts))
	v.Hosts = looked
	wanted := v // while v itself is filled in
	for i, h := range hosts {
		if !scope.looksAt(h.Name, onlyClient(v, h.Name, scope, last)) {
			old, ok := last.Host(h.Name)
			if !ok {
				old = HostView{Name: h.Name, Problem: "not looked at"}
			}
			v.Hosts[i] = old
			continue
		}
		wg.Go(func() { looked[i] = s.lookAtHost(ctx, wanted, h, scope) })
	}
	if scope.Still && !last.Taken.IsZero() {
		v.Looks, v.Members, v.Linear, v.Before, v.Lags, v.Callers = last.Looks, last.Members, last.Linear, last.Before, last.Lags, last.Callers
		wg.Wait()
		s.keep(&v)
		return v, ctx.Err()
	}
	endpoints := s.endpoints(v, hosts, last)
	v.Looks = s.askAll(ctx, endpoints, scope)
	// Members that the inventory does not know.
	var more []target
	for _, l := range v.Looks {
		for _, m := range l.Members {
			for _, u := range m.ClientURLs {
				t := target{endpoint: u}
				if !slices.ContainsFunc(endpoints, t.same) && !slices.ContainsFunc(more, t.same) {
					more = append(more, t)
				}
			}
		}
	}
	v.Looks = append(v.Looks, s.askAll(ctx, more, scope)...)
	v.Members, v.Linear = s.membership(ctx, v.Looks, v.ClusterID())
	s.askMore(ctx, &v, scope)
	for i := range v.Looks { // too dear to be asked twice; it does not change but by a change of members
		if j := slices.IndexFunc(last.Looks, func(o Look) bool { return o.Stored != nil && o.MemberID == v.Looks[i].MemberID }); j >= 0 && v.Looks[i].Stored == nil {
			v.Looks[i].Stored = last.Looks[j].Stored
		}
	}
	for i, l := range v.Looks {
		if l.Host == "" && l.Answers() {
			if m, ok := v.ByID(l.MemberID); ok {
				v.Looks[i].Host = v.HostOf(m)
			}
		}
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return View{}, err
	}
	v.Admin.Connections = s.ownEnds() // those of this very look too
	v.Before = s.before(v)
	v.Lags = s.sampleLags(v)
	v.Callers = s.sampleCallers(v, scope)
	s.keep(&v)
	return v, nil
}

// keep makes v the last look, with what looks that were taken beside it have
// found on other hosts since.
func (s *Site) keep(v *View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range v.Hosts {
		if o, ok := s.lastView.Host(h.Name); ok && o.lastSeen().After(h.lastSeen()) {
			v.Hosts[i] = o
		}
	}
	s.lastView = *v
}

// last is the last look.
func (s *Site) last() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastView
}

// sampleLags keeps how far each learner is behind the leader, look by look. A
// learner that does not answer begins anew.
func (s *Site) sampleLags(v View) map[uint64][]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	leader, ok := v.Leader()
	kept := map[uint64][]uint64{}
	for _, m := range v.Learners() {
		l := v.LookOf(m.ID)
		if !ok || !v.Alive(m) {
			continue
		}
		var lag uint64
		if head := v.LookOf(leader.ID).Index; head > l.Applied {
			lag = head - l.Applied
		}
		all := append(slices.Clone(s.lags[m.ID]), lag)
		kept[m.ID] = all[max(0, len(all)-lagSamples):]
	}
	s.lags = kept
	return kept
}

// sampleCallers keeps who was connected to each member, look by look, as many looks
// as tell who is its client. With other members it begins anew: who was a client of
// one that is gone may be another's now.
func (s *Site) sampleCallers(v View, scope Scope) map[string][]Calls {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ids := v.IDs(); !slices.Equal(ids, s.calledAs) {
		s.calls, s.calledAs = nil, ids
	}
	kept := maps.Clone(s.calls)
	if kept == nil {
		kept = map[string][]Calls{}
	}
	for _, h := range v.Hosts {
		if !h.Reachable() || h.Taken.Before(v.Taken) || !slices.Contains(scope.Also, h.Name) {
			continue
		}
		kept[h.Name] = lastCalls(append(slices.Clone(kept[h.Name]), Calls{At: h.Taken, From: v.callers(h.Facts, h.Name, v.Spec(h.Name).ClientPort)}))
	}
	s.calls = kept
	return kept
}

// apart is how far two looks must lie apart to tell movement from standstill.
const apart = time.Second

// before picks the look that v is to be compared with, the youngest that is at
// least a second older, and keeps v for those to come.
func (s *Site) before(v View) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *View
	for i := range s.seen {
		if v.Taken.Sub(s.seen[i].Taken) < apart {
			break
		}
		found = &s.seen[i]
	}
	kept := v
	kept.Before = nil
	young := slices.IndexFunc(s.seen, func(o View) bool { return v.Taken.Sub(o.Taken) < apart })
	if young < 0 {
		young = len(s.seen)
	}
	s.seen = append(slices.Clone(s.seen[max(0, young-1):]), kept)
	return found
}

// readInventory reads the file at every look, and thinks about it anew when it
// has changed.
func (s *Site) readInventory(v *View, scope Scope) error {
	content, err := os.ReadFile(s.Inventory)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	if !scope.AllHosts && last.knowsSubjects(scope.Subjects) && bytes.Equal(last.Inventory.Content, content) {
		v.Wanted, v.Newcomers, v.Inventory = last.Wanted, last.Newcomers, last.Inventory
		return nil
	}
	inv, err := inventory.Parse(s.Inventory, content)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	g, err := inv.Group(s.Group)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	v.Wanted = *g
	if v.Newcomers, err = s.newcomers(content, g, scope.Subjects); err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	v.Inventory = InventoryFile{Path: s.Inventory, Content: content, Edit: s.Edit}
	if v.Inventory.Edit == "" {
		v.Inventory.Edit = "edit"
	}
	for _, f := range inv.Lint(s.Group) {
		if f.Level == inventory.Fault {
			v.Inventory.Faults = append(v.Inventory.Faults, f.String())
		}
	}
	if scope.Write && v.Inventory.Edit == "edit" {
		if err := inventory.CheckWritable(s.Inventory); err != nil {
			v.Inventory.Unwrites = err.Error()
		}
	}
	return nil
}

// newcomers tells what the inventory would say of hosts that it does not have
// yet, were they added in this order.
func (s *Site) newcomers(content []byte, g *inventory.Group, names []string) ([]inventory.Host, error) {
	var all []inventory.Host
	least := g.NextSeq()
	for _, name := range names {
		h, err := s.newcomer(content, g, name, least)
		if err != nil {
			return nil, err
		}
		all, least = append(all, h), max(least, h.Seq+1)
	}
	return all, nil
}

// newcomer tells it of one. Its etcd_seq is one that nobody had: neither the
// inventory, nor a member, nor a certificate, nor who is named before it.
func (s *Site) newcomer(content []byte, g *inventory.Group, name string, seq int) (inventory.Host, error) {
	if h, ok := g.Host(name); ok && h.HasSeq {
		return h, nil
	}
	used := func(member string) {
		if rest, ok := strings.CutPrefix(member, g.Cluster+"-"); ok {
			if n, err := strconv.Atoi(rest); err == nil {
				seq = max(seq, n+1)
			}
		}
	}
	s.mu.Lock()
	members := s.lastView.Members
	s.mu.Unlock()
	for _, m := range members {
		used(m.Name)
	}
	// Where the inventory is ours to edit, it has the number before a certificate
	// does; a certificate without it is of an earlier member on that host.
	_, pending := memberAt(members, g.PeerURL(inventory.Host{Name: name, PeerPort: g.PeerPort}))
	pending = pending && s.Edit != "" && s.Edit != "edit"
	// What somebody else has signed for this host is meant for it, and the number
	// with it; else each certificate that comes would ask for another.
	if _, err := s.PKI.Load(); errors.Is(err, pki.ErrHalfCA) {
		pending = true
	}
	for _, n := range s.certNames() {
		if own, ok := s.issuedTo(n, g.Cluster, name); ok && pending {
			seq = own // it is being added, and the number is its own
			break
		}
		used(n)
	}
	edited, err := inventory.AddHost(content, g.Name, name, seq)
	if err != nil {
		// It cannot be added to this file; what is common to all hosts still
		// holds for it, and the edit itself will say what is wrong.
		return inventory.Host{Name: name, Addr: name, Seq: seq, HasSeq: true, ClientPort: g.ClientPort, PeerPort: g.PeerPort,
			DataDir: g.DataDir, WALDir: g.WALDir, Become: true, BecomeUser: "root", Connection: "ssh"}, nil
	}
	inv, err := inventory.Parse(s.Inventory, edited)
	if err != nil {
		return inventory.Host{}, err
	}
	return inv.Host(name), nil
}

// issuedTo gives the etcd_seq under which a certificate was issued to a host.
func (s *Site) issuedTo(member, cluster, host string) (int, bool) {
	p, err := s.PKI.LoadPair(member)
	if err != nil {
		return 0, false
	}
	rest, ok := strings.CutPrefix(member, cluster+"-")
	seq, err := strconv.Atoi(rest)
	return seq, ok && err == nil && pki.IssuedTo(p.CertPEM, host)
}

// readAdmin reads what the admin host keeps. While a run polls, nobody but the
// run itself changes it.
func (s *Site) readAdmin(ctx context.Context, v *View, scope Scope) {
	s.adminMu.Lock()
	defer s.adminMu.Unlock()
	if s.adminKept && !scope.AllHosts {
		v.Admin = s.admin
		return
	}
	last := s.admin
	defer func() { s.admin, s.adminKept = v.Admin, true }()
	a := &v.Admin
	a.ClusterID = s.rememberedID()
	a.User = s.User
	ca, err := s.PKI.Load()
	switch {
	case err == nil:
		a.CACert, a.Signer = ca.CertPEM, ca.SigningPEM()
		a.CA, _ = pki.Fingerprint(a.Signer)
		if a.Rotation, err = s.PKI.Rotation(); err != nil {
			a.RotationProblem = err.Error()
		}
	case errors.Is(err, pki.ErrHalfCA):
		if a.CACert, err = s.PKI.LoadCert(); err != nil {
			a.CAProblem = err.Error()
			break
		}
		a.CA, _ = pki.Fingerprint(a.CACert)
		a.Signer, a.External = pki.First(a.CACert), true
	case !errors.Is(err, pki.ErrNoCA):
		a.CAProblem = err.Error()
	}
	a.Own = s.ownFiles(v.Wanted)
	a.Issued, a.KeySums, a.Unusable = map[string][]byte{}, map[string]string{}, map[string]string{}
	a.IssuedAt = map[string]time.Time{}
	for _, h := range v.Wanted.Hosts {
		s.readIssued(a, v.Wanted.MemberName(h))
	}
	for _, h := range scope.Subjects {
		s.readIssued(a, v.MemberName(h))
	}
	a.Snapshot = s.newestSnapshot()
	a.Binary, a.Utility = s.localBinaries(ctx, v.Wanted)
	a.Restoring = s.restoring()
	if a.Removed, a.Added, a.Begun = last.Removed, last.Added, last.Begun; a.Removed == nil {
		a.Removed, a.Added, a.Begun = s.past() // what was before this run
	}
	a.Connections = s.ownEnds()
	a.Debts, a.Clients = s.debts(), s.clientRecord()
}

func (s *Site) readIssued(a *AdminView, name string) {
	p, err := s.PKI.LoadPair(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		// A run that was cut off between the two leaves the key of another.
		err = p.Matches()
	}
	if err != nil {
		a.Unusable[name] = err.Error()
		return
	}
	a.Issued[name] = p.CertPEM
	sum := sha256.Sum256(p.KeyPEM)
	a.KeySums[name] = hex.EncodeToString(sum[:])
	if st, err := os.Stat(s.PKI.CertPath(name)); err == nil {
		a.IssuedAt[name] = st.ModTime()
	}
}

// certNames are the members that certificates were issued for.
func (s *Site) certNames() []string {
	paths, err := filepath.Glob(s.PKI.CertPath("*"))
	if err != nil {
		return nil
	}
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(p), ".crt")
	}
	return paths
}

// hostsOf lists the machines that a look is about: the group's, the
// references', and the subject.
func (s *Site) hostsOf(v *View, scope Scope, last View) ([]inventory.Host, error) {
	hosts := slices.Clone(v.Wanted.Hosts)
	add := func(name string) {
		if name != "" && !slices.ContainsFunc(hosts, func(h inventory.Host) bool { return h.Name == name }) {
			hosts = append(hosts, v.Spec(name))
		}
	}
	for _, h := range scope.Subjects {
		add(h)
	}
	for _, h := range v.Wanted.Clients() {
		add(h)
	}
	for _, h := range last.Hosts {
		add(h.Name)
	}
	return hosts, nil
}

func (s *Site) host(spec inventory.Host) (host.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.hosts[spec.Name]; ok {
		return h, nil
	}
	h, err := s.Hosts(spec)
	if err != nil {
		return nil, err
	}
	if s.hosts == nil {
		s.hosts = map[string]host.Host{}
	}
	s.hosts[spec.Name] = h
	return h, nil
}

func (s *Site) lookAtHost(ctx context.Context, v View, spec inventory.Host, scope Scope) HostView {
	if scope.Glimpse != nil && spec.Name == scope.Host {
		if hv, ok := s.glimpseAt(ctx, v, spec, *scope.Glimpse); ok {
			return hv
		}
	}
	hv := HostView{Name: spec.Name, Taken: s.Now()}
	h, err := s.host(spec)
	if err != nil {
		hv.Problem = err.Error()
		return hv
	}
	l := v.layout()
	q := host.Question{
		Units: []string{l.Unit},
		Files: []string{kubeadmManifest, l.Conf, config.EnvPath, l.UnitPath(), l.JoinDropInPath(), config.KeptPath(l.UnitPath())},
		Dirs:  append([]string{spec.DataDir, config.ConfDir, l.JoinDropInDir()}, l.Dirs()...),
	}
	if l.TLS {
		q.Files, q.Sums = append(q.Files, l.CA, l.Cert), []string{l.Key}
	}
	if l.Form == config.Env {
		q.Files = append(q.Files, l.PackagedUnitPath())
	}
	if l.OwnDir() == "" {
		q.Files = append(q.Files, config.KeptPath(l.Conf))
	}
	// What costs a host most to find out, and no step of ours changes.
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	known, _ := last.Host(spec.Name)
	client := onlyClient(v, spec.Name, scope, last)
	if client {
		q = host.Question{}
	} else if scope.AllHosts || scope.Ports || known.Facts.Clock.IsZero() {
		q.Ports, q.Users, q.Etcd = []int{spec.ClientPort, spec.PeerPort}, []string{l.User}, l.Binary
		q.Addrs = isName(spec.Name)
	}
	if !client && (scope.Trust || slices.Contains(scope.Also, spec.Name)) { // the kernel goes through a table as large as its memory allows
		q.Callers = []int{spec.ClientPort}
	}
	if spec.DataDir == kubeadmDataDir && !client {
		q.Units = append(q.Units, kubeletUnit)
	}
	if spec.WALDir != "" && !client {
		q.Dirs = append(q.Dirs, spec.WALDir)
	}
	if r := v.Admin.Restoring; r != nil && !r.Done && !client {
		for _, d := range dataDirs(spec) {
			q.Dirs = append(q.Dirs, r.work(d))
		}
	}
	if m, ok := memberAt(last.Members, v.PeerURL(spec.Name)); ok && m.Learner && !client {
		q.Globs = append(q.Globs, snapFiles(spec))
	}
	if scope.Logs && !client {
		q.Globs, q.Dirs = append(q.Globs, walFiles(spec)), append(q.Dirs, replayDir(spec))
	}
	shakes, programs := askClients(&q, v, spec, scope, known, last)
	if scope.Trust {
		askTrust(&q, spec.Name, known)
	}
	if !client {
		s.askPrograms(&q, v, scope, known)
	}
	if scope.Reach && !client {
		for _, other := range v.Wanted.Hosts {
			if other.Name != spec.Name {
				q.Dial = append(q.Dial, dialable(v.Wanted.PeerURL(other)))
			}
		}
		for _, h := range scope.Subjects {
			if u := dialable(v.PeerURL(h)); h != spec.Name && !slices.Contains(q.Dial, u) {
				q.Dial = append(q.Dial, u)
			}
		}
	}
	if scope.Fill && known.complete() && reflect.DeepEqual(q, known.asked) {
		return known
	}
	hv.asked = q
	if c, ok := h.(host.Connector); ok {
		first, stop := context.WithTimeout(ctx, s.Deadlines[Connecting])
		c.Connect(first)
		stop()
	}
	patience := s.Deadlines[Inspecting]
	if len(q.Dial) > 0 || len(q.TLS) > 0 {
		patience *= 2 // the host itself waits for peers that do not answer
	}
	whole := ctx
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	asked := s.Now()
	done := s.Meter.atHost()
	facts, err := h.Look(ctx, q)
	done()
	if err != nil {
		hv.Problem = err.Error()
		return hv
	}
	answered := s.Now()
	if q.Etcd == "" {
		facts.Ports, facts.Users, facts.Etcd = known.Facts.Ports, known.Facts.Users, known.Facts.Etcd
	}
	if len(q.Callers) == 0 {
		facts.Callers = known.Facts.Callers
	}
	if !q.Addrs {
		facts.Addrs = known.Facts.Addrs
	}
	if hv.Listen = known.Listen; q.Etcd != "" && isName(spec.Name) {
		hv.Listen = s.listenOn(ctx, spec.Name, facts.Addrs)
	}
	if !scope.Reach {
		facts.Dials = kept(known.Facts.Dials, facts.Dials)
	}
	if !programs {
		facts.Programs = kept(known.Facts.Programs, facts.Programs)
	}
	if q.Package == "" {
		facts.Offers = known.Facts.Offers
	}
	if hv.Log, hv.LogProblem = known.Log, known.LogProblem; scope.Logs && !client {
		hv.Log, hv.LogProblem = s.raftLog(whole, h, spec, facts)
	}
	hv.Facts, hv.Shakes = facts, shaken(known.Shakes, shakes, facts.Handshakes)
	if !facts.Clock.IsZero() {
		// The answer is somewhere between question and receipt.
		switch {
		case facts.Clock.Before(asked):
			hv.Skew = facts.Clock.Sub(asked)
		case facts.Clock.After(answered):
			hv.Skew = facts.Clock.Sub(answered)
		}
	}
	return hv
}

func dialable(url string) string {
	if _, after, ok := strings.Cut(url, "://"); ok {
		return after
	}
	return url
}

type target struct{ endpoint, host string }

func (t target) same(o target) bool { return t.endpoint == o.endpoint }

func (s *Site) endpoints(v View, hosts []inventory.Host, last View) []target {
	var all []target
	clients := v.Wanted.Clients()
	for _, h := range hosts {
		if !slices.Contains(clients, h.Name) || v.comes(h.Name) {
			all = append(all, target{v.Wanted.ClientURL(h), h.Name})
		}
	}
	for _, m := range last.Members {
		for _, u := range m.ClientURLs {
			if t := (target{endpoint: u}); !slices.ContainsFunc(all, t.same) {
				all = append(all, t)
			}
		}
	}
	return all
}

func (s *Site) askAll(ctx context.Context, targets []target, scope Scope) []Look {
	looks := make([]Look, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			looks[i] = s.ask(ctx, t, scope)
		})
	}
	wg.Wait()
	return looks
}

// hashable is how large a backend may be for its hash to be asked for. The
// hash at the last compacted revision is cached, but not across a restart of
// the member, and then it is computed while writes wait: 80 to 90 ms for 300 MB.
const hashable = 128 << 20

// askMore asks voters what is too dear to ask of every member at every look.
// What has a member read its whole database is asked of one at a time: all of
// them at once would stop the writes of a large cluster.
func (s *Site) askMore(ctx context.Context, v *View, scope Scope) {
	user := scope.AllHosts && s.User != ""
	if !scope.Hash && !scope.Who && !user && !scope.Disks && !scope.Stored && !scope.Compacted && !scope.Serving && !scope.Auth {
		return
	}
	var voters []*Look
	for i := range v.Looks {
		if l := &v.Looks[i]; l.Answers() && !l.Learner {
			voters = append(voters, l)
		}
	}
	reading := make(baton, 1)
	var wg sync.WaitGroup
	for _, l := range voters {
		wg.Go(func() { s.askMoreOf(ctx, l, scope, user, reading) })
	}
	wg.Wait()
	if scope.Auth { // of the first that tells
		for _, l := range voters {
			if c, err := s.conn(ctx, l.Endpoint); err == nil {
				asking, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
				l.Auth = s.authOf(asking, c)
				if stop(); l.Auth != nil {
					break
				}
			}
		}
	}
	if scope.Who {
		for _, l := range voters {
			if c, err := s.conn(ctx, l.Endpoint); err == nil {
				asking, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
				l.Dependents = s.Dependents(asking, c)
				stop()
				break
			}
		}
	}
}

// askMoreOf asks one voter. Whoever has the baton lets it read its database.
func (s *Site) askMoreOf(ctx context.Context, l *Look, scope Scope, user bool, reading baton) {
	c, err := s.conn(ctx, l.Endpoint)
	if err != nil {
		return
	}
	if scope.Stored || scope.Hash {
		reading.take()
		if scope.Stored {
			l.Stored = s.stored(ctx, c)
		}
		if scope.Hash && l.DBSize <= hashable {
			hashing, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
			s.hash(hashing, c, l)
			stop()
		}
		reading.give()
	}
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
	defer stop()
	if user {
		l.Denied = cmp.Or(l.Denied, denied(ctx, c))
	}
	if scope.Disks {
		l.Fsync, _ = c.Fsync(ctx) // told only where it is known
	}
	if scope.Compacted && !l.Hashed {
		l.Compacted, _ = c.Compacted(ctx) // else it is none
	}
	if scope.Serving {
		if cert, err := c.Served(ctx); err == nil {
			l.Served, _ = pki.Fingerprint(cert)
		}
	}
	if scope.Who {
		l.Watches = watchesOn(ctx, c)
	}
}

// ask asks one member for what it knows, none of which needs a quorum.
func (s *Site) ask(ctx context.Context, t target, scope Scope) Look {
	l := Look{Endpoint: t.endpoint, Host: t.host}
	patience := s.Deadlines[Looking]
	s.mu.Lock()
	missed, slow := s.slow[t.endpoint]
	last := s.lastView
	s.mu.Unlock()
	if slow {
		patience /= 4
		const again = 2 * time.Second
		i := slices.IndexFunc(last.Looks, func(o Look) bool { return o.Endpoint == t.endpoint })
		if !scope.AllHosts && i >= 0 && s.Now().Sub(missed) < again {
			return last.Looks[i] // a poll does not wait for it each time
		}
	}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	began := s.Now()
	fail := func(err error) Look {
		l.Problem = Explain(err)
		if refusesUser(err) {
			l.Denied = l.Problem // with auth on, 3.6.9 and newer tell nothing at all
		}
		s.mark(t.endpoint, errors.Is(ctx.Err(), context.DeadlineExceeded))
		return l
	}
	c, err := s.conn(ctx, t.endpoint)
	if err != nil {
		return fail(err)
	}
	st, err := c.Status(ctx)
	if err != nil {
		return fail(err)
	}
	if _, guest := c.(*guestOf); guest && !st.IsLearner {
		if c, err = s.admitted(ctx, t.endpoint, c); err != nil {
			return fail(err)
		}
	}
	s.mark(t.endpoint, false)
	l.ClusterID, l.MemberID = st.Header.ClusterId, st.Header.MemberId
	l.Leader, l.Term, l.Index, l.Applied = st.Leader, st.RaftTerm, st.RaftIndex, st.RaftAppliedIndex
	l.Version, l.DBSize, l.DBUsed, l.Quota = st.Version, st.DbSize, st.DbSizeInUse, st.DbSizeQuota
	l.Learner, l.Revision = st.IsLearner, st.Header.Revision
	if d := st.DowngradeInfo; d != nil && d.Enabled {
		l.Downgrading, l.DowngradeTo = true, d.TargetVersion
	}
	l.Storage = st.StorageVersion
	for _, e := range st.Errors {
		if strings.Contains(e, "alarm:") {
			l.Alarms = append(l.Alarms, e)
		}
	}
	slices.Sort(l.Alarms) // etcd tells them in any order
	if !l.Learner {
		list, err := c.Members(ctx, false)
		switch {
		case refusesUser(err):
			l.Denied = Explain(err)
		case err != nil:
			return fail(err)
		default:
			for _, m := range list.Members {
				l.Members = append(l.Members, Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
			}
			slices.SortFunc(l.Members, byID)
		}
	}
	if s.target != "" && !l.Learner {
		l.Cluster, _ = c.ClusterVersion(ctx) // where it is not told, the form of the backend tells
	}
	l.Took = s.Now().Sub(began)
	return l
}

func byID(a, b Member) int {
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// denied says why the user that c comes with may not administer the cluster;
// nothing when he may. A list of members is told to every user; a hash to none
// but root, and at a revision that is yet to come it costs nothing.
func denied(ctx context.Context, c Etcd) string {
	if _, err := c.HashKV(ctx, math.MaxInt64); refusesUser(err) {
		return Explain(err)
	}
	return ""
}

// refusesUser: etcd wants another user, or one at all.
func refusesUser(err error) bool {
	return is(err, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrPermissionDenied)
}

func (s *Site) hash(ctx context.Context, c Etcd, l *Look) {
	rev, err := c.Compacted(ctx)
	if err != nil || rev == 0 {
		return
	}
	h, err := c.HashKV(ctx, rev)
	if err != nil {
		return
	}
	l.Compacted, l.Hash, l.HashSince, l.Hashed = rev, h.Hash, h.CompactRevision, true
}

func (s *Site) mark(endpoint string, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow == nil {
		s.slow = map[string]time.Time{}
	}
	if delete(s.slow, endpoint); slow {
		s.slow[endpoint] = s.Now()
	}
}

func (s *Site) conn(ctx context.Context, endpoint string) (Etcd, error) {
	s.mu.Lock()
	c, ok := s.conns[endpoint]
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	c, err := s.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.conns[endpoint]; ok {
		return old, c.Close()
	}
	if s.conns == nil {
		s.conns = map[string]Etcd{}
	}
	if g, ok := c.(*guestOf); ok {
		g.borrow = s.login
	}
	s.conns[endpoint] = c
	return c, nil
}

// login gives a token of our user by way of any voter that answered last.
func (s *Site) login(ctx context.Context) (string, error) {
	err := errors.New("no voter answers")
	for _, endpoint := range s.living() {
		var c Etcd
		if c, err = s.conn(ctx, endpoint); err != nil {
			continue
		}
		m, ok := c.(*member)
		if !ok {
			continue
		}
		var token string
		if token, err = m.login(ctx); err == nil {
			return token, nil
		}
	}
	return "", err
}

// admitted dials a member anew that was a learner when it was dialled and is
// none any more, so that it takes our login.
func (s *Site) admitted(ctx context.Context, endpoint string, c Etcd) (Etcd, error) {
	s.mu.Lock()
	if s.conns[endpoint] == c {
		delete(s.conns, endpoint)
	}
	s.mu.Unlock()
	if err := c.Close(); err != nil {
		return nil, err
	}
	return s.conn(ctx, endpoint)
}

// membership asks a voter for the list with a quorum's word, and falls back to
// the list of the member with the highest term.
func (s *Site) membership(ctx context.Context, looks []Look, cluster uint64) ([]Member, bool) {
	var best *Look
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
	defer stop()
	order := slices.Clone(looks)
	slices.SortStableFunc(order, func(a, b Look) int { return int(b.Term) - int(a.Term) })
	for i, l := range order {
		if !l.Answers() || l.Learner || len(l.Members) == 0 || l.ClusterID != cluster {
			continue
		}
		if best == nil {
			best = &order[i]
		}
		if l.Leader == 0 {
			continue
		}
		c, err := s.conn(ctx, l.Endpoint)
		if err != nil {
			continue
		}
		list, err := c.Members(ctx, true)
		if err != nil {
			continue
		}
		var members []Member
		for _, m := range list.Members {
			members = append(members, Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
		}
		slices.SortFunc(members, byID)
		return members, true
	}
	if best == nil {
		return nil, false
	}
	return best.Members, false
}

// --- what is kept beside the inventory ---

func (s *Site) idPath() string { return filepath.Join(s.State, "cluster-id."+s.Group) }

func (s *Site) rememberedID() uint64 {
	b, err := os.ReadFile(s.idPath())
	if err != nil {
		return 0
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(b)), 16, 64)
	if err != nil {
		return 0
	}
	return id
}

func (s *Site) remember(id uint64) error {
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return fmt.Errorf("remember the cluster's ID: %w", err)
	}
	if err := os.WriteFile(s.idPath(), []byte(ID(id)+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the cluster's ID: %w", err)
	}
	return nil
}

func (s *Site) forget() error {
	if err := os.Remove(s.idPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the cluster's ID: %w", err)
	}
	return nil
}

// RunsDir is where the journals of runs are kept, one directory each.
func (s *Site) RunsDir() string { return filepath.Join(s.State, "runs") }

func (s *Site) snapshotsDir() string { return filepath.Join(s.State, "snapshots") }

func (s *Site) newestSnapshot() *Saved {
	names, err := filepath.Glob(filepath.Join(s.snapshotsDir(), "*.json"))
	if err != nil || len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	b, err := os.ReadFile(names[len(names)-1])
	if err != nil {
		return nil
	}
	var saved Saved
	if json.Unmarshal(b, &saved) != nil {
		return nil
	}
	if st, err := os.Stat(saved.Path); err != nil || st.Size() != saved.Bytes {
		return nil
	}
	return &saved
}

// past reads from the journals which hosts were removed from here, which adds
// were begun, and which procedures. Runs on another cluster, of another group or
// of an earlier time, do not count.
func (s *Site) past() (removed, added map[string]time.Time, begun []string) {
	removed, added = map[string]time.Time{}, map[string]time.Time{}
	own := s.rememberedID()
	names, err := filepath.Glob(filepath.Join(s.RunsDir(), "*", "journal.jsonl"))
	if err != nil {
		return removed, added, nil
	}
	slices.Sort(names)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		records, _ := ReadJournal(f) // a journal that was cut off tells what it can
		f.Close()
		if id := clusterOfRun(records); id != 0 && own != 0 && id != own {
			continue
		}
		for _, r := range records {
			if name, ok := strings.CutPrefix(r.Procedure, "removeMember "); ok && (r.State == Finished || r.State == Recorded) {
				removed[name] = r.Time
			}
			if r.State != Recorded {
				continue
			}
			if !slices.Contains(begun, r.Procedure) {
				begun = append(begun, r.Procedure)
			}
			if name, ok := strings.CutPrefix(r.Procedure, "addMember "); ok {
				added[name] = r.Time
			}
			// Of those who move several members it is the single act that tells.
			var name string
			if n, _ := fmt.Sscanf(r.Act, "add %s as learner", &name); n == 1 {
				added[name] = r.Time
			}
			var id uint64
			if n, _ := fmt.Sscanf(r.Act, "remove member %x on %s", &id, &name); n == 2 {
				removed[name] = r.Time
			}
		}
	}
	return removed, added, begun
}

// clusterOfRun reads from a journal which cluster the run was about; zero when it
// does not say.
func clusterOfRun(records []Record) uint64 {
	for _, r := range records {
		var id uint64
		if r.State == Began && r.Step == 0 {
			if _, err := fmt.Sscanf(r.Detail, "cluster %x,", &id); err == nil {
				return id
			}
		}
	}
	return 0
}

func (s *Site) debtsPath() string { return filepath.Join(s.State, "debts."+s.Group) }

func (s *Site) debts() []string {
	b, err := os.ReadFile(s.debtsPath())
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// Digest is a short hash of a text, for plans and codes.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
