package sop

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

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
