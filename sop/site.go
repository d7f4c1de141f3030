package sop

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

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
