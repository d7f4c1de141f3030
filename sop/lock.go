package sop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdrill/etcdrill/sop/host"
)

// LockKey is where the lock of a cluster is kept, under a lease of LockTTL.
//
// The lock keeps two operators apart as far as that can be. etcd has no
// membership call that is conditional on a key, so it cannot fence one that
// was sent before the lock was lost; and Ansible does not take it.
const LockKey = "/etcdrill/lock"

// A Holder is who holds a lock.
type Holder struct {
	User      string    `json:"user"`
	Host      string    `json:"host"`
	BootID    string    `json:"boot_id"`
	PID       int       `json:"pid"`
	Run       string    `json:"run"`
	Procedure string    `json:"procedure"`
	Started   time.Time `json:"started"`
	File      string    `json:"file"`  // the lock file on the holder's host
	Inode     string    `json:"inode"` // and which file that is: two containers may call theirs alike
	// Claims are the hosts whose locks it took, or was about to take.
	Claims []string `json:"claims,omitempty"`
}

// Self is who runs this process.
func Self() Holder {
	h := Holder{PID: os.Getpid()}
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	} else {
		h.User = strconv.Itoa(os.Getuid())
	}
	h.Host, _ = os.Hostname() // a host without a name is told apart by its boot
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		h.BootID = strings.TrimSpace(string(b))
	}
	return h
}

// String names the holder for a human.
func (h Holder) String() string {
	return fmt.Sprintf("%s@%s (pid %d) since %s, doing %q", h.User, h.Host, h.PID, h.Started.Format(time.RFC3339), h.Procedure)
}

// token says that two claims come from the same place. The lock file sees to
// it that only one run at a time speaks for it.
func (h Holder) token() string { return fmt.Sprintf("%s %s %s %s", h.Host, h.BootID, h.File, h.Inode) }

type lock struct {
	file    *os.File
	lease   clientv3.LeaseID
	claimed []string // hosts
	former  Holder   // who held the file before and did not give it up: it is gone
	stop    context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	lost error
}

// Locked says who holds the lock.
type Locked struct{ By Holder }

// Error implements error.
func (l *Locked) Error() string { return "the lock is held by " + l.By.String() }

// ErrLockLost says that the lock was there and is not any more.
var ErrLockLost = errors.New("the operator lock was lost")

// A lockPlace says where a lock is taken: in the cluster, on its hosts, or in
// both, as when the cluster is about to be taken down.
type lockPlace struct {
	inCluster, onHosts bool
	subjects           []string // hosts that are claimed although the inventory does not have them
}

// acquire takes the lock file on this host, then the lock in the cluster or,
// where there is none, on its hosts. waiting is told what it waits for.
func (s *Site) acquire(ctx context.Context, v View, procedure string, where lockPlace, waiting func(string)) error {
	l := &lock{done: make(chan struct{})}
	close(l.done)
	self := s.Self
	self.Procedure, self.Started = procedure, s.Now()
	if where.onHosts {
		for _, hv := range v.Hosts {
			if _, wanted := v.Wanted.Host(hv.Name); (wanted || slices.Contains(where.subjects, hv.Name)) && hv.Reachable() {
				self.Claims = append(self.Claims, hv.Name)
			}
		}
	}
	if err := s.acquireFile(l, &self); err != nil {
		return err
	}
	s.unclaim(ctx, v, l.former, self.Claims)
	if where.inCluster {
		if err := s.acquireKey(ctx, l, self, waiting); err != nil {
			s.free(l)
			return err
		}
	}
	if where.onHosts {
		if err := s.claim(ctx, l, v, self); err != nil {
			s.free(l)
			return err
		}
	}
	s.mu.Lock()
	s.lock = l
	s.mu.Unlock()
	return nil
}

// inodeOf tells a file from all others on this machine.
func inodeOf(f *os.File) string {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func (s *Site) acquireFile(l *lock, self *Holder) error {
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	path := filepath.Join(s.State, "operator."+s.Group)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("take the lock: %w", err)
		}
		var other Holder
		if b, err := os.ReadFile(path); err == nil {
			_ = json.Unmarshal(b, &other) // a holder that has not written its name yet stays nameless
		}
		return &Locked{By: other}
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	self.File, self.Inode = path, inodeOf(f)
	if b, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(b, &l.former) // empty where it was given up
	}
	b, err := json.Marshal(self)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("take the lock: %w", err)
	}
	l.file = f
	return nil
}

// acquireKey puts the key under a lease. A holder of the same host and boot
// whose lock file we now hold is gone, and its key is taken over at once; any
// other is given the time in which its lease would run out.
func (s *Site) acquireKey(ctx context.Context, l *lock, self Holder, waiting func(string)) error {
	value, err := json.Marshal(self)
	if err != nil {
		return fmt.Errorf("take the lock: %w", err)
	}
	var lastTTL int64
	deadline := s.Now().Add(s.Deadlines[Expiring])
	for {
		c, err := s.anyVoter(ctx)
		if err != nil {
			return fmt.Errorf("take the lock: %w", err)
		}
		if l.lease != 0 {
			// It was granted before the wait, and is to last for the run.
			_, err := within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.LeaseKeepAliveResponse, error) {
				return c.Lease().KeepAliveOnce(ctx, l.lease)
			})
			switch {
			case errors.Is(err, rpctypes.ErrLeaseNotFound):
				l.lease = 0
			case err != nil:
				return fmt.Errorf("take the lock: %w", err)
			}
		}
		if l.lease == 0 {
			g, err := within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
				return c.Lease().Grant(ctx, int64(LockTTL/time.Second))
			})
			if err != nil {
				return fmt.Errorf("take the lock: %w", err)
			}
			l.lease = g.ID
		}
		holder, rev, err := s.tryKey(ctx, c, l, string(value), self)
		if err != nil {
			return fmt.Errorf("take the lock: %w", err)
		}
		if rev == 0 {
			s.keepAlive(l)
			return nil
		}
		ttl, err := s.ttlOf(ctx, c, rev)
		switch {
		case err != nil:
			return fmt.Errorf("take the lock: %w", err)
		case lastTTL != 0 && ttl > lastTTL, s.Now().After(deadline):
			return &Locked{By: holder} // its holder renewed it
		}
		lastTTL = ttl
		waiting(fmt.Sprintf("the lock of %s, which runs out in %d s unless its holder is alive", holder, max(ttl, 0)))
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// tryKey gives revision zero when the lock was taken, else its holder and the
// lease that it is held under.
func (s *Site) tryKey(ctx context.Context, c Etcd, l *lock, value string, self Holder) (Holder, clientv3.LeaseID, error) {
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Calling])
	defer stop()
	put := clientv3.OpPut(LockKey, value, clientv3.WithLease(l.lease))
	r, err := c.KV().Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(LockKey), "=", 0)).
		Then(put).Else(clientv3.OpGet(LockKey)).Commit()
	if err != nil {
		return Holder{}, 0, err
	}
	if r.Succeeded {
		return Holder{}, 0, nil
	}
	kv := r.Responses[0].GetResponseRange().Kvs[0]
	if clientv3.LeaseID(kv.Lease) == l.lease {
		return Holder{}, 0, nil // an earlier try of ours that was not answered
	}
	var other Holder
	if err := json.Unmarshal(kv.Value, &other); err != nil {
		return Holder{}, 0, fmt.Errorf("read the lock: %w", err)
	}
	if other.token() != self.token() {
		return other, clientv3.LeaseID(kv.Lease), nil
	}
	r, err = c.KV().Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(LockKey), "=", kv.ModRevision)).Then(put).Commit()
	if err != nil {
		return Holder{}, 0, err
	}
	if !r.Succeeded {
		return other, clientv3.LeaseID(kv.Lease), nil
	}
	// The old lease is of no use to anybody; it ends by itself if this fails.
	_, _ = c.Lease().Revoke(ctx, clientv3.LeaseID(kv.Lease))
	return Holder{}, 0, nil
}

func (s *Site) ttlOf(ctx context.Context, c Etcd, lease clientv3.LeaseID) (int64, error) {
	r, err := within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return c.Lease().TimeToLive(ctx, lease)
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	return r.TTL, nil
}

// keepAlive renews the lease through whichever voter answers.
func (s *Site) keepAlive(l *lock) {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.done = stop, make(chan struct{})
	go func() {
		defer close(l.done)
		for {
			if sleep(ctx, LockTTL/5) != nil {
				return
			}
			if err := s.renew(ctx, l.lease); errors.Is(err, rpctypes.ErrLeaseNotFound) {
				l.mu.Lock()
				l.lost = err
				l.mu.Unlock()
				return
			}
		}
	}()
}

func (s *Site) renew(ctx context.Context, lease clientv3.LeaseID) error {
	var last error
	for _, endpoint := range s.living() {
		c, err := s.conn(ctx, endpoint)
		if err == nil {
			_, err = within(ctx, time.Second, func(ctx context.Context) (*clientv3.LeaseKeepAliveResponse, error) {
				return c.Lease().KeepAliveOnce(ctx, lease)
			})
		}
		if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
		last = err
	}
	return last
}

// held looks at the lock again.
func (s *Site) held(ctx context.Context) error {
	s.mu.Lock()
	l := s.lock
	s.mu.Unlock()
	if l == nil {
		return ErrLockLost
	}
	if l.lease == 0 {
		return nil // a claim on hosts: their next boot ends it, nothing else
	}
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	if lost != nil {
		return fmt.Errorf("%w: %w", ErrLockLost, lost)
	}
	c, err := s.anyVoter(ctx)
	if err != nil {
		return fmt.Errorf("look at the lock: %w", err)
	}
	r, err := within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.KV().Get(ctx, LockKey)
	})
	if err != nil {
		return fmt.Errorf("look at the lock: %w", err)
	}
	if len(r.Kvs) == 0 || clientv3.LeaseID(r.Kvs[0].Lease) != l.lease {
		return ErrLockLost
	}
	return nil
}

// unheld looks whether another operator holds the lock in the cluster, for a
// run that cannot take it there.
func (s *Site) unheld(ctx context.Context) error {
	c, err := s.anyVoter(ctx)
	if err != nil {
		return fmt.Errorf("look at the lock: %w", err)
	}
	r, err := within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.KV().Get(ctx, LockKey)
	})
	switch {
	case is(err, rpctypes.ErrCorrupt):
		return nil // it answers no reads either
	case err != nil:
		return fmt.Errorf("look at the lock: %w", err)
	case len(r.Kvs) == 0:
		return nil
	}
	var other Holder
	if err := json.Unmarshal(r.Kvs[0].Value, &other); err != nil {
		return fmt.Errorf("read the lock: %w", err)
	}
	self := s.Self
	path := filepath.Join(s.State, "operator."+s.Group)
	if f, err := os.Open(path); err == nil {
		self.Inode = inodeOf(f)
		f.Close()
	}
	if self.File, err = filepath.Abs(path); err == nil && other.token() == self.token() {
		return nil // left by a run from here; the lock file says whether it lives
	}
	return &Locked{By: other}
}

// release gives the lock up. What it cannot reach runs out by itself.
func (s *Site) release() {
	s.mu.Lock()
	l := s.lock
	s.lock = nil
	s.mu.Unlock()
	if l != nil {
		s.free(l)
	}
}

func (s *Site) free(l *lock) {
	if l.stop != nil {
		l.stop()
	}
	<-l.done
	ctx, stop := context.WithTimeout(context.Background(), s.Deadlines[Looking])
	defer stop()
	if l.lease != 0 {
		for _, endpoint := range s.living() {
			c, err := s.conn(ctx, endpoint)
			if err != nil {
				continue
			}
			if _, err := c.Lease().Revoke(ctx, l.lease); err == nil {
				break
			}
		}
	}
	released := true
	for _, name := range l.claimed {
		s.mu.Lock()
		h := s.hosts[name]
		s.mu.Unlock()
		if h != nil {
			released = h.Do(ctx, host.Release{Token: s.Self.token()}) == nil && released
		}
	}
	if l.file != nil {
		if released {
			_ = l.file.Truncate(0) // or the next run looks after what is left
		}
		l.file.Close()
	}
}

// unclaim gives up what a run that was killed has left claimed on hosts, but
// for those that are about to be claimed again. What it cannot reach ends with
// the host's next boot.
func (s *Site) unclaim(ctx context.Context, v View, former Holder, except []string) {
	for _, name := range former.Claims {
		h, err := s.host(v.Spec(name))
		if err != nil || slices.Contains(except, name) {
			continue
		}
		ctx, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
		_ = h.Do(ctx, host.Release{Token: former.token()})
		stop()
	}
}

// tidy ends a lock whose holder on this host was killed after its last change,
// so that there is nothing left to do but this.
func (s *Site) tidy(ctx context.Context, v View) {
	f, err := os.OpenFile(filepath.Join(s.State, "operator."+s.Group), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return // its holder lives
	}
	var former Holder
	if json.NewDecoder(f).Decode(&former) == nil {
		s.unclaim(ctx, v, former, nil)
		_ = f.Truncate(0)
	}
}

func (s *Site) claim(ctx context.Context, l *lock, v View, self Holder) error {
	s.Self.File, s.Self.Inode = self.File, self.Inode
	claim := host.Claim{Owner: self.String(), Token: self.token()}
	if l.former.File != "" {
		claim.Supersedes = []string{l.former.token()} // this host may have booted since
	}
	for _, name := range self.Claims {
		h, err := s.host(v.Spec(name))
		if err != nil {
			return fmt.Errorf("take the lock of %s: %w", name, err)
		}
		ctx, stop := context.WithTimeout(ctx, s.Deadlines[Acting])
		err = h.Do(ctx, claim)
		stop()
		if err != nil {
			return fmt.Errorf("take the lock of %s: %w", name, err)
		}
		l.claimed = append(l.claimed, name)
	}
	return nil
}

// living are the endpoints of the voters that answered last.
func (s *Site) living() []string {
	s.mu.Lock()
	v := s.lastView
	s.mu.Unlock()
	var all []string
	for _, m := range v.LivingVoters() {
		all = append(all, v.LookOf(m.ID).Endpoint)
	}
	return all
}

// anyVoter gives a connection to a living voter, the leader first: it is the
// one that answers without asking another.
func (s *Site) anyVoter(ctx context.Context) (Etcd, error) {
	s.mu.Lock()
	v := s.lastView
	s.mu.Unlock()
	if l, ok := v.Leader(); ok && v.Alive(l) {
		return s.conn(ctx, v.LookOf(l.ID).Endpoint)
	}
	for _, e := range s.living() {
		return s.conn(ctx, e)
	}
	return nil, errors.New("no voter answers")
}

func within[T any](ctx context.Context, d time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	return call(ctx)
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// underLease puts a key under the lock's lease, so that it goes with it.
func (s *Site) underLease() []clientv3.OpOption {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil || s.lock.lease == 0 {
		return nil
	}
	return []clientv3.OpOption{clientv3.WithLease(s.lock.lease)}
}

// probe writes and deletes a key of its own through every living voter: a
// status answers without quorum, a write does not.
func (s *Site) probe(ctx context.Context, v View) error {
	key := LockKey + ".probe." + s.Self.Run
	for _, m := range v.LivingVoters() {
		endpoint := v.LookOf(m.ID).Endpoint
		c, err := s.conn(ctx, endpoint)
		if err != nil {
			return fmt.Errorf("write through %s: %w", endpoint, err)
		}
		err = func() error {
			ctx, stop := context.WithTimeout(ctx, s.Deadlines[Calling])
			defer stop()
			if _, err := c.KV().Put(ctx, key, "probe", s.underLease()...); err != nil {
				return err
			}
			_, err := c.KV().Delete(ctx, key)
			return err
		}()
		if err != nil {
			return fmt.Errorf("write through %s: %w", endpoint, explained{err})
		}
	}
	return nil
}

// passes reports whether what a write failed with may be over in a moment: it was
// not answered, or there was nobody to answer it.
func passes(err error) bool {
	code := status.Code(err)
	if own := (rpctypes.EtcdError{}); errors.As(err, &own) {
		code = own.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

// nudge makes an entry in the cluster's log, and leaves nothing else.
func (s *Site) nudge(ctx context.Context) error {
	c, err := s.anyVoter(ctx)
	if err != nil {
		return fmt.Errorf("write to the cluster: %w", err)
	}
	_, err = within(ctx, s.Deadlines[Calling], func(ctx context.Context) (*clientv3.DeleteResponse, error) {
		return c.KV().Delete(ctx, LockKey+".probe."+s.Self.Run)
	})
	if err != nil {
		return fmt.Errorf("write to the cluster: %w", err)
	}
	return nil
}

// short cuts a text to its first line.
func short(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
