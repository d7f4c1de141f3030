package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A Mutant is an operator who is wrong on purpose, in one way. Scenarios are
// shown to find each out; what finds none proves nothing.
//
// A plan is data, and etcd and the hosts are interfaces, so a mutant needs no
// other code than that of the procedures: it changes what they plan, ask for,
// or send.
type Mutant struct {
	Name string
	Does string // "promotes a learner that it has not looked at"
	// Caught are the scenarios that are to find it out; the first that does
	// is enough.
	Caught []string

	procedure func(p sop.Procedure) sop.Procedure
	plan      func(p sop.Plan, v sop.View) sop.Plan
	view      func(v sop.View) sop.View
	host      func(ctx context.Context, h host.Host, a host.Act) error
	site      func(s *sop.Site)
	request   func(ctx context.Context, method string, req any, call func() error) error
}

// Mutants are all mutants.
func Mutants() []Mutant {
	disks := &backends{}
	return []Mutant{
		// the learner
		{Name: "promote-blindly", Does: "promotes a learner without waiting for it to catch up, or looking at it",
			Caught: []string{"learner-crashed-once-it-answered"},
			plan:   both(skip("wait until caught up"), forget("learner-alive", "peers-reach"))},
		{Name: "promote-unreached", Does: "does not ask whether the voters reach the newcomer", Caught: []string{"firewall-before-promote"}, plan: forget("peers-reach", "learner-alive")},
		{Name: "add-as-voter", Does: "adds a voter instead of a learner", Caught: []string{"add", "newcomer-never-starts-from-one"}, request: asVoter},
		{Name: "list-the-learner", Does: "gives clients the learner's endpoint before it votes", Caught: []string{"add"},
			plan: stageBefore("reload references", "promote to voter")},
		{Name: "ignore-former-data", Does: "starts a newcomer on whatever data lies there", Caught: []string{"add-on-copied-data", "add-on-stale-data"}, plan: forget("blank-host")},
		{Name: "ignore-dead-voters", Does: "adds a member while the votes do not allow it", Caught: []string{"add-with-one-dead"}, plan: forget("votes", "voters-answer")},
		{Name: "initial-cluster-short", Does: "leaves the newcomer out of its own initial-cluster", Caught: []string{"add"}, host: conf(withoutSelf)},
		{Name: "quota-of-the-template", Does: "writes the template's quota instead of the members'", Caught: []string{"add-with-quota"}, host: conf(templateQuota)},
		{Name: "no-snapshot", Does: "saves no snapshot before a change of members", Caught: []string{"add"}, plan: skip("save a snapshot")},
		{Name: "not-enabled", Does: "does not enable the unit", Caught: []string{"add"}, host: ignoring(host.Enable)},
		{Name: "state-new", Does: "starts a newcomer as if the cluster were new", Caught: []string{"add"}, host: conf(stateNew)},

		// removal
		{Name: "wipe-before-remove", Does: "stops a member and moves its data away before it is off the list", Caught: []string{"remove"},
			plan: stageBefore("stop it and set its data aside", "remove the member")},
		{Name: "references-last", Does: "removes a member that clients are still told of", Caught: []string{"remove"},
			plan: stageAfter("take it out of the references", "remove the member")},
		{Name: "remove-the-leader", Does: "does not hand the leadership over first", Caught: []string{"remove-leader"},
			plan: both(skip("hand over the leadership"), forget("leader-handed-over"))},
		{Name: "remove-another", Does: "takes the wrong member's ID", Caught: []string{"remove"}, plan: anotherID},
		{Name: "delete-data", Does: "deletes data instead of setting it aside", Caught: []string{"remove"}, host: deleting},
		{Name: "ignore-spare", Does: "removes a member when nothing may fail then", Caught: []string{"remove-without-spare"}, plan: forget("spare")},
		{Name: "not-masked", Does: "does not mask the unit of a removed member", Caught: []string{"remove"}, host: ignoring(host.Mask)},

		// restarts
		{Name: "restart-at-once", Does: "restarts the next member before the last answers", Caught: []string{"restart-one-slow-to-return"},
			plan: both(skip("wait until it answers", "soak"), forget("quorum", "one-cluster", "same-list", "votes", "voters-keep-up", "voters-answer"))},
		{Name: "restart-the-leader", Does: "restarts the leader without handing over", Caught: []string{"restart"},
			plan: both(skip("hand over the leadership"), forget("leader-handed-over"))},
		{Name: "ignore-a-dead-member", Does: "restarts members while one is down", Caught: []string{"restart-with-one-down"}, plan: forget("voters-answer")},

		// maintenance
		{Name: "defragment-the-leader", Does: "defragments the leader without handing over", Caught: []string{"defragment"},
			plan: both(skip("hand over the leadership"), forget("leader-handed-over"))},
		{Name: "defragment-with-one-dead", Does: "defragments a member while another is down", Caught: []string{"defragment-with-one-down"}, plan: forget("voters-answer", "votes")},
		{Name: "disarm-blindly", Does: "disarms an alarm whose cause is still there", Caught: []string{"disarm-a-full-database"}, plan: forget("alarm-cause")},

		// recovery
		{Name: "newest-files", Does: "takes the data whose files were written last for the most advanced", Caught: []string{"survivors-one-behind"}, view: newestFiles},
		{Name: "highest-revision-on-disk", Does: "takes the backend with the highest revision for the most advanced", Caught: []string{"survivors-one-behind"},
			site: disks.of, view: disks.highest},
		{Name: "drop-what-is-not-known", Does: "drops the entries that a survivor does not know to be committed", Caught: []string{"survivors-one-behind"}, host: forgetful},
		{Name: "ignore-the-unread", Does: "takes a survivor that it cannot look at for gone", Caught: []string{"survivors-one-unread"}, plan: forget("survivors")},
		{Name: "ignore-a-data-quorum", Does: "restores a cluster that would come up by itself", Caught: []string{"survivors-are-a-quorum"}, plan: forget("data-quorum")},

		// safeguards
		{Name: "safeguard-by-port", Does: "takes a host for empty when no port is open", Caught: []string{"create-over-all-crashed", "create-over-crashed"}, view: portsOnly},
		{Name: "ignore-etcd-clean", Does: "does not read etcd_clean and etcd_safeguard", Caught: []string{"destroy-safeguarded"}, view: unguarded},
		{Name: "ignore-consent", Does: "destroys a cluster without consent", Caught: []string{"destroy-wrong-consent"}, plan: noConsent},
		{Name: "ignore-unreachable", Does: "takes a host that cannot be reached for gone", Caught: []string{"destroy-host-off"}, plan: forget("unreachable")},
		{Name: "ignore-remembered", Does: "works on another cluster than the inventory's", Caught: []string{"destroy-other-cluster"}, plan: forget("remembered-cluster")},
		{Name: "ignore-inventory", Does: "writes the endpoints of a stale inventory", Caught: []string{"add-stale-inventory"}, plan: forget("inventory-agrees")},
		{Name: "ignore-alarm", Does: "changes members under an alarm", Caught: []string{"alarm-raised"}, plan: forget("no-alarm", "quota-headroom")},
		{Name: "ignore-ca", Does: "does not compare the CA with the members'", Caught: []string{"wrong-ca-on-a-member"}, plan: forget("ca", "certificates")},
		{Name: "ignore-certificates", Does: "does not look at the members' certificates", Caught: []string{"certificate-expired"}, plan: forget("certificates", "voters-answer", "ca")},
		{Name: "ignore-clocks", Does: "does not compare clocks", Caught: []string{"clock-off"}, plan: forget("clocks")},

		// the operator
		{Name: "no-lock", Does: "takes no lock", Caught: []string{"second-operator-removes"}, plan: noLock},
		{Name: "timeout-is-failure", Does: "takes a change of members that timed out for one that was not made", Caught: []string{"add-reply-lost", "remove-reply-lost"}, request: givingUp},
		{Name: "believe-the-reply", Does: "goes on after a promotion that failed, and does not read the list", Caught: []string{"leader-isolated-at-promote"},
			request: pretending, plan: believing},
		{Name: "stale-list", Does: "trusts a member list that no quorum confirmed", Caught: []string{"members-cut-from-each-other"},
			request: unconfirmed, plan: forget("quorum", "one-cluster")},
		{Name: "same-token", Does: "founds every cluster with the same initial-cluster-token", Caught: []string{"old-member-visits-rebuilt"}, procedure: sameToken},
		{Name: "hash-at-zero", Does: "hashes the key space at revision 0", Caught: []string{"add-after-compaction"}, request: hashAtZero},
	}
}

// MutantNamed finds a mutant.
func MutantNamed(name string) (Mutant, error) {
	for _, m := range Mutants() {
		if m.Name == name {
			return m, nil
		}
	}
	return Mutant{}, fmt.Errorf("there is no mutant %q", name)
}

// Spoil makes the operator of a site one: its hosts are asked for what the
// mutant asks.
func (m Mutant) Spoil(s *sop.Site) {
	if m.site != nil {
		m.site(s)
	}
	if m.host == nil {
		return
	}
	hosts := s.Hosts
	s.Hosts = func(spec inventory.Host) (host.Host, error) {
		h, err := hosts(spec)
		if err != nil {
			return nil, err
		}
		return spoiltHost{h, m.host}, nil
	}
}

// Unary is the mutant's gRPC interceptor.
func (m Mutant) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	next := func() error { return call(ctx, method, req, reply, cc, opts...) }
	if m.request == nil {
		return next()
	}
	return m.request(ctx, method, req, next)
}

// Procedure makes a procedure the mutant's.
func (m Mutant) Procedure(p sop.Procedure) sop.Procedure {
	if m.procedure != nil {
		p = m.procedure(p)
	}
	if m.plan == nil && m.view == nil {
		return p
	}
	s := spoilt{p, m}
	if _, lossy := p.(interface{ Lossy() }); lossy {
		return spoiltLossy{s}
	}
	return s
}

// A spoilt procedure plans as its mutant does. It asks what the procedure asks
// beside its plan.
type spoilt struct {
	sop.Procedure
	mutant Mutant
}

type spoiltLossy struct{ spoilt }

// Lossy says that data may be set aside.
func (spoiltLossy) Lossy() {}

// Plan implements sop.Procedure.
func (s spoilt) Plan(v sop.View) (sop.Plan, error) {
	seen := v
	if s.mutant.view != nil {
		seen = s.mutant.view(v)
	}
	p, err := s.Procedure.Plan(seen)
	if err != nil || p.Empty() {
		return p, err
	}
	if see := s.mutant.view; see != nil {
		through := func(c sop.Condition) sop.Condition { return func(v sop.View) error { return c(see(v)) } }
		p = eachNeed(p, func(n sop.Safeguard) (sop.Safeguard, bool) { n.Holds = through(n.Holds); return n, true })
	}
	if s.mutant.plan != nil {
		p = s.mutant.plan(p, v)
	}
	return p, nil
}

// Refuses asks the procedure.
func (s spoilt) Refuses(v sop.View) error {
	if r, ok := s.Procedure.(interface{ Refuses(v sop.View) error }); ok {
		return r.Refuses(v)
	}
	return nil
}

// Asks asks the procedure.
func (s spoilt) Asks(scope *sop.Scope) {
	if a, ok := s.Procedure.(interface{ Asks(s *sop.Scope) }); ok {
		a.Asks(scope)
	}
}

// Awaits asks the procedure.
func (s spoilt) Awaits(v sop.View) error {
	if r, ok := s.Procedure.(interface{ Awaits(v sop.View) error }); ok {
		return r.Awaits(v)
	}
	return nil
}

// Subjects asks the procedure.
func (s spoilt) Subjects() []string { return sop.SubjectsOf(s.Procedure) }

// --- ways to be wrong ---

func both(fs ...func(sop.Plan, sop.View) sop.Plan) func(sop.Plan, sop.View) sop.Plan {
	return func(p sop.Plan, v sop.View) sop.Plan {
		for _, f := range fs {
			p = f(p, v)
		}
		return p
	}
}

// eachNeed gives a plan with its safeguards, and those of its steps, changed or
// left out.
func eachNeed(p sop.Plan, f func(sop.Safeguard) (sop.Safeguard, bool)) sop.Plan {
	change := func(needs []sop.Safeguard) []sop.Safeguard {
		var all []sop.Safeguard
		for _, n := range needs {
			if n, ok := f(n); ok {
				all = append(all, n)
			}
		}
		return all
	}
	p.Needs = change(p.Needs)
	p.Stages = slices.Clone(p.Stages)
	for i := range p.Stages {
		p.Stages[i].Steps = slices.Clone(p.Stages[i].Steps)
		for j := range p.Stages[i].Steps {
			s := &p.Stages[i].Steps[j]
			s.Needs = change(s.Needs)
		}
	}
	return p
}

func forget(names ...string) func(sop.Plan, sop.View) sop.Plan {
	return func(p sop.Plan, _ sop.View) sop.Plan {
		return eachNeed(p, func(n sop.Safeguard) (sop.Safeguard, bool) { return n, !slices.Contains(names, n.Name) })
	}
}

func skip(titles ...string) func(sop.Plan, sop.View) sop.Plan {
	return func(p sop.Plan, _ sop.View) sop.Plan {
		p.Stages = slices.Clone(p.Stages)
		for i := range p.Stages {
			p.Stages[i].Steps = slices.DeleteFunc(slices.Clone(p.Stages[i].Steps), func(s sop.Step) bool { return slices.Contains(titles, s.Title) })
		}
		return p
	}
}

// stageBefore moves a stage to before another.
func stageBefore(title, other string) func(sop.Plan, sop.View) sop.Plan {
	return moveStage(title, other, 0)
}

// stageAfter moves a stage to after another.
func stageAfter(title, other string) func(sop.Plan, sop.View) sop.Plan {
	return moveStage(title, other, 1)
}

func moveStage(title, other string, beyond int) func(sop.Plan, sop.View) sop.Plan {
	return func(p sop.Plan, _ sop.View) sop.Plan {
		stages := slices.Clone(p.Stages)
		from := slices.IndexFunc(stages, func(s sop.Stage) bool { return s.Title == title })
		if from < 0 {
			return p
		}
		moved := stages[from]
		// What it moves away from is what its own safeguards ask for.
		moved.Steps = slices.Clone(moved.Steps)
		for i := range moved.Steps {
			moved.Steps[i].Needs = nil
		}
		stages = slices.Delete(stages, from, from+1)
		to := slices.IndexFunc(stages, func(s sop.Stage) bool { return s.Title == other })
		if to < 0 {
			return p
		}
		p.Stages = slices.Insert(stages, to+beyond, moved)
		return p
	}
}

func noConsent(p sop.Plan, _ sop.View) sop.Plan {
	p.Consent = nil
	return p
}

func noLock(p sop.Plan, _ sop.View) sop.Plan {
	p.ReadOnly = true
	return p
}

// anotherID removes the member that stands first in the list of those that are
// not to go.
func anotherID(p sop.Plan, v sop.View) sop.Plan {
	p.Stages = slices.Clone(p.Stages)
	for i := range p.Stages {
		p.Stages[i].Steps = slices.Clone(p.Stages[i].Steps)
		for j, s := range p.Stages[i].Steps {
			a, ok := s.Act.(sop.Expel)
			if !ok {
				continue
			}
			for _, m := range v.Members {
				if m.ID != a.ID && m.Started() {
					a.ID = m.ID
					break
				}
			}
			gone := a.ID
			p.Stages[i].Steps[j].Act = a
			p.Stages[i].Steps[j].Until = func(v sop.View) error {
				if slices.ContainsFunc(v.Members, func(m sop.Member) bool { return m.ID == gone }) {
					return errors.New("it is on the list")
				}
				return nil
			}
		}
	}
	return p
}

// portsOnly sees etcd where a port is open, and nowhere else: as the original
// playbook does.
func portsOnly(v sop.View) sop.View {
	v.Hosts = slices.Clone(v.Hosts)
	for i := range v.Hosts {
		h := &v.Hosts[i]
		if u := h.Facts.Units[config.UnitName]; u.PID != 0 {
			continue
		}
		dirs := map[string]host.Dir{}
		for path, d := range h.Facts.Dirs {
			d.WAL, d.WALHead, d.Entries = false, nil, nil
			dirs[path] = d
		}
		h.Facts.Dirs = dirs
		units := map[string]host.Unit{}
		for name, u := range h.Facts.Units {
			if name == config.UnitName {
				u.Active, u.Sub = "inactive", "dead"
			}
			units[name] = u
		}
		h.Facts.Units = units
	}
	return v
}

// unguarded reads the inventory as if it protected nothing.
func unguarded(v sop.View) sop.View {
	v.Wanted.Clean, v.Wanted.Safeguard = true, false
	return v
}

// only leaves of the logs that were read one at its place: the others end at
// nothing.
func only(v sop.View, name string) sop.View {
	v.Hosts = slices.Clone(v.Hosts)
	for i, h := range v.Hosts {
		if h.Log == nil || h.Name == name || name == "" {
			continue
		}
		l := *h.Log
		l.Last, l.Commit = sop.Position{}, 0
		v.Hosts[i].Log = &l
	}
	return v
}

func newestFiles(v sop.View) sop.View {
	var newest sop.Survivor
	for _, s := range v.Survivors() {
		if s.Written.After(newest.Written) {
			newest = s
		}
	}
	return only(v, newest.Host)
}

// backends are those of stopped members, as they are on disk.
type backends struct{ site *sop.Site }

func (b *backends) of(s *sop.Site) { b.site = s }

func (b *backends) highest(v sop.View) sop.View {
	best, revision := "", ""
	for _, s := range v.Survivors() {
		if r, err := b.newest(v.Spec(s.Host)); err == nil && r > revision {
			best, revision = s.Host, r
		}
	}
	return only(v, best)
}

// newest is the last key of a backend: it begins with its revision, high byte first.
func (b *backends) newest(spec inventory.Host) (key string, err error) {
	h, err := b.site.Hosts(spec)
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "backend-*.db")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	err = h.Fetch(context.Background(), path.Join(spec.DataDir, "member/snap/db"), f)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	db, err := bbolt.Open(f.Name(), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer db.Close()
	return key, db.View(func(tx *bbolt.Tx) error {
		last, _ := tx.Bucket([]byte("key")).Cursor().Last()
		key = string(last)
		return nil
	})
}

func sameToken(p sop.Procedure) sop.Procedure {
	if c, ok := p.(sop.CreateCluster); ok {
		c.Token = "etcd-cluster"
		return c
	}
	return p
}

// --- hosts ---

type spoiltHost struct {
	host.Host
	do func(ctx context.Context, h host.Host, a host.Act) error
}

// Do implements host.Host.
func (h spoiltHost) Do(ctx context.Context, a host.Act) error { return h.do(ctx, h.Host, a) }

// conf edits every etcd.conf that is written.
func conf(edit func(content string, h host.Host) string) func(context.Context, host.Host, host.Act) error {
	return func(ctx context.Context, h host.Host, a host.Act) error {
		if w, ok := a.(host.WriteFile); ok && w.Path == config.ConfPath {
			w.Content = []byte(edit(string(w.Content), h))
			a = w
		}
		return h.Do(ctx, a)
	}
}

// line rewrites the value of a key of etcd.conf.
func line(content, key string, edit func(value string) string) string {
	lines := strings.Split(content, "\n")
	for i, l := range lines {
		if k, value, ok := strings.Cut(l, ":"); ok && k == key {
			lines[i] = key + ": " + edit(strings.TrimSpace(value))
		}
	}
	return strings.Join(lines, "\n")
}

func withoutSelf(content string, h host.Host) string {
	return line(content, "initial-cluster", func(value string) string {
		peers := strings.Split(strings.Trim(value, `"'`), ",")
		return strings.Join(slices.DeleteFunc(peers, func(p string) bool { return strings.Contains(p, "://"+h.Name()+":") }), ",")
	})
}

func templateQuota(content string, _ host.Host) string {
	if strings.Contains(content, "initial-cluster-state: new") || strings.Contains(content, `initial-cluster-state: "new"`) {
		return content // the members' own
	}
	return line(content, "quota-backend-bytes", func(string) string { return "2147483648" })
}

func stateNew(content string, _ host.Host) string {
	return line(content, "initial-cluster-state", func(string) string { return "new" })
}

func ignoring(verb host.Verb) func(context.Context, host.Host, host.Act) error {
	return func(ctx context.Context, h host.Host, a host.Act) error {
		if s, ok := a.(host.Systemctl); ok && s.Verb == verb {
			return nil
		}
		return h.Do(ctx, a)
	}
}

// forgetful has etcd drop what it would drop by itself.
func forgetful(ctx context.Context, h host.Host, a host.Act) error {
	if r, ok := a.(host.ReplayLog); ok {
		r.Record = nil
		a = r
	}
	return h.Do(ctx, a)
}

func deleting(ctx context.Context, h host.Host, a host.Act) error {
	if s, ok := a.(host.SetAside); ok {
		a = host.Delete{Path: s.Path}
	}
	return h.Do(ctx, a)
}

// --- requests ---

func asVoter(_ context.Context, _ string, req any, call func() error) error {
	if r, ok := req.(*pb.MemberAddRequest); ok {
		r.IsLearner = false
	}
	return call()
}

func unconfirmed(_ context.Context, _ string, req any, call func() error) error {
	if r, ok := req.(*pb.MemberListRequest); ok {
		r.Linearizable = false
	}
	return call()
}

func hashAtZero(_ context.Context, _ string, req any, call func() error) error {
	if r, ok := req.(*pb.HashKVRequest); ok {
		r.Revision = 0
	}
	return call()
}

func givingUp(_ context.Context, method string, _ any, call func() error) error {
	err := call()
	if changesMembers(method) && status.Code(err) == codes.DeadlineExceeded {
		return rpctypes.ErrGRPCMemberNotEnoughStarted // as good as any that says no
	}
	return err
}

func pretending(_ context.Context, method string, _ any, call func() error) error {
	err := call()
	if strings.HasSuffix(method, "/MemberPromote") {
		return nil
	}
	return err
}

// believing takes a promotion for made once it was asked for.
func believing(p sop.Plan, _ sop.View) sop.Plan {
	p.Stages = slices.Clone(p.Stages)
	for i := range p.Stages {
		p.Stages[i].Steps = slices.Clone(p.Stages[i].Steps)
		for j, s := range p.Stages[i].Steps {
			if _, ok := s.Act.(sop.Promote); !ok {
				continue
			}
			looked := false
			p.Stages[i].Steps[j].Until = func(v sop.View) error {
				if looked {
					return nil
				}
				err := s.Until(v)
				looked = true
				return err
			}
		}
	}
	return p
}
