package fault

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// A Role says whom a fault strikes. It is resolved when the fault strikes. An
// IP address stands for the host that bears it.
type Role string

// The roles.
const (
	Leader    Role = "leader"
	Follower  Role = "follower"  // one of them, by the seed
	Followers Role = "followers" // all of them
	Learner   Role = "learner"
	Subject   Role = "subject"  // the host that the procedure is about
	Target    Role = "target"   // the host that the step acts on at which it strikes
	Others    Role = "others"   // all members but for the subject
	Voters    Role = "voters"   // all of them
	Minority  Role = "minority" // as many voters as can be lost, the leader among them
	Majority  Role = "majority" // the voters that are not the minority
	Client    Role = "client"   // where the load comes from
	Admin     Role = "operator" // where the operator works
	Everyone  Role = "everyone" // every host of the lab that is there to be struck
)

// Roles are all roles that have a name.
func Roles() []Role {
	return []Role{Leader, Follower, Followers, Learner, Subject, Target, Others, Voters, Minority, Majority, Client, Admin, Everyone}
}

// ErrNoRole says that nothing has this role: it is unknown, or nobody plays it
// now.
var ErrNoRole = errors.New("nobody has this role")

// Check says what is wrong with a role, before anything is played.
func (r Role) Check() error {
	if slices.Contains(Roles(), r) {
		return nil
	}
	if _, err := netip.ParseAddr(string(r)); err == nil {
		return nil
	}
	var names []string
	for _, known := range Roles() {
		names = append(names, string(known))
	}
	return fmt.Errorf("%w: %q is neither an address nor one of %s", ErrNoRole, string(r), strings.Join(names, ", "))
}

// A Cast knows who plays which role now.
type Cast interface {
	// Hosts are the hosts of a role, sorted but for one that is picked.
	Hosts(ctx context.Context, g *Ground, r Role) ([]string, error)
	// Answers asks the member on a host for its status.
	Answers(ctx context.Context, host string) error
	// As speaks to the member on a host as a user.
	As(ctx context.Context, host, user, password string, f func(ctx context.Context, c workload.Etcd) error) error
	// Etcd speaks to the member on a host.
	Etcd(ctx context.Context, host string) (workload.Etcd, error)
}

// A Troupe is a Cast that asks the members.
type Troupe struct {
	Dial workload.Dial // from where the cluster can be reached
	// Login is Dial as a user.
	Login func(ctx context.Context, endpoint, user, password string) (workload.Etcd, error)
	// URL is a host's client URL.
	URL func(host string) (string, error)
	// Members are the hosts that are to be members now; Subject is who the
	// procedure is about, empty for none.
	Members func() []string
	Subject string
	Hands   [2]string // the lab's own hosts: operator, client
}

// patience is how long roles wait for a leader to be known.
const patience = 10 * time.Second

// Hosts implements Cast.
func (t Troupe) Hosts(ctx context.Context, g *Ground, r Role) ([]string, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	var hosts []string
	switch r {
	case Admin:
		hosts = []string{t.Hands[0]}
	case Client:
		hosts = []string{t.Hands[1]}
	case Subject:
		if t.Subject != "" {
			hosts = []string{t.Subject}
		}
	case Target:
		if g.Target != "" {
			hosts = []string{g.Target}
		}
	case Everyone:
		hosts = sorted(append(slices.Clone(t.Members()), t.subject()...))
	case Others:
		hosts = slices.DeleteFunc(sorted(t.Members()), func(h string) bool { return h == t.Subject })
	case Learner:
		return t.learner(ctx)
	case Voters:
		hosts = sorted(t.Members())
	case Leader, Follower, Followers, Minority, Majority:
		leader, followers, err := t.led(ctx)
		if err != nil {
			return nil, err
		}
		lose := (len(followers) + 1 - 1) / 2 // of all voters, as many as can be lost
		switch r {
		case Leader:
			hosts = []string{leader}
		case Followers:
			hosts = followers
		case Follower:
			if len(followers) > 0 {
				hosts = []string{followers[g.Random.IntN(len(followers))]}
			}
		case Minority:
			if lose > 0 {
				hosts = sorted(append(slices.Clone(followers[:lose-1]), leader))
			}
		case Majority:
			hosts = followers[max(lose-1, 0):]
		}
	default:
		hosts = []string{g.here(string(r))}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoRole, r)
	}
	return hosts, nil
}

func (t Troupe) subject() []string {
	if t.Subject == "" {
		return nil
	}
	return []string{t.Subject}
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// led asks the members until one says that it leads.
func (t Troupe) led(ctx context.Context) (leader string, followers []string, err error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for {
		leader, followers = "", nil
		for _, h := range sorted(t.Members()) {
			leads, askErr := t.leads(ctx, h)
			switch {
			case askErr != nil:
				err = askErr
				followers = append(followers, h)
			case leads:
				leader = h
			default:
				followers = append(followers, h)
			}
		}
		if leader != "" {
			return leader, followers, nil
		}
		select {
		case <-ctx.Done():
			return "", nil, errors.Join(fmt.Errorf("%w: no member says that it leads", ErrNoRole), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (t Troupe) leads(ctx context.Context, name string) (bool, error) {
	leads := false
	err := t.with(ctx, name, func(ctx context.Context, c workload.Etcd, url string) error {
		s, err := c.Status(ctx, url)
		if err == nil {
			leads = s.Leader == s.Header.MemberId
		}
		return err
	})
	return leads, err
}

func (t Troupe) with(ctx context.Context, name string, f func(ctx context.Context, c workload.Etcd, url string) error) error {
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	url, err := t.URL(name)
	if err != nil {
		return err
	}
	c, err := t.Dial(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c, url)
}

// Answers implements Cast.
func (t Troupe) Answers(ctx context.Context, name string) error {
	return t.with(ctx, name, func(ctx context.Context, c workload.Etcd, url string) error {
		_, err := c.Status(ctx, url)
		return err
	})
}

// Etcd implements Cast. The caller closes it.
func (t Troupe) Etcd(ctx context.Context, name string) (workload.Etcd, error) {
	url, err := t.URL(name)
	if err != nil {
		return nil, err
	}
	return t.Dial(ctx, url)
}

// As implements Cast.
func (t Troupe) As(ctx context.Context, name, user, password string, f func(ctx context.Context, c workload.Etcd) error) error {
	url, err := t.URL(name)
	if err != nil {
		return err
	}
	c, err := t.Login(ctx, url, user, password)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

// learner finds the learner's host by its peer URL, since one that has not
// started has no other name.
func (t Troupe) learner(ctx context.Context) ([]string, error) {
	var last error
	for _, h := range sorted(t.Members()) {
		var hosts []string
		err := t.with(ctx, h, func(ctx context.Context, c workload.Etcd, _ string) error {
			r, err := c.MemberList(ctx)
			if err != nil {
				return err
			}
			for _, m := range r.Members {
				if !m.IsLearner {
					continue
				}
				for _, u := range m.PeerURLs {
					if name, ok := hostOf(u); ok {
						hosts = append(hosts, name)
					}
				}
			}
			return nil
		})
		if err == nil && len(hosts) > 0 {
			return sorted(hosts), nil
		}
		last = errors.Join(last, err)
	}
	return nil, errors.Join(fmt.Errorf("%w: there is no learner", ErrNoRole), last)
}

func hostOf(url string) (string, bool) {
	_, rest, _ := strings.Cut(url, "://")
	a, err := netip.ParseAddrPort(rest)
	return a.Addr().String(), err == nil
}
