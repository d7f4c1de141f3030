package sop

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Etcd is one member, dialled on its own: a balanced client hides a dead one.
// Requests fail fast; the words are upstream's own.
type Etcd interface {
	Status(ctx context.Context) (*pb.StatusResponse, error)
	// Members reads the membership list, with a quorum's word or without.
	Members(ctx context.Context, linearizable bool) (*pb.MemberListResponse, error)
	AddLearner(ctx context.Context, peerURL string) (*pb.MemberAddResponse, error)
	Promote(ctx context.Context, id uint64) error
	Remove(ctx context.Context, id uint64) error
	// MoveLeader must be asked of the leader.
	MoveLeader(ctx context.Context, to uint64) error
	// ClusterVersion is the minor that the members agreed on: "3.6.0". Nothing as
	// long as they have not.
	ClusterVersion(ctx context.Context) (string, error)
	// Downgrade lets the cluster go down to a minor version, or takes that back
	// when the version is empty.
	Downgrade(ctx context.Context, version string) error
	// HashKV hashes the key space at a revision. Only the last compacted
	// revision is cached; any other stops writes while it is scanned.
	HashKV(ctx context.Context, revision int64) (*pb.HashKVResponse, error)
	// Compacted gives the last compacted revision, zero when there is none.
	Compacted(ctx context.Context) (int64, error)
	// Defragment writes the member's database anew. It answers nobody meanwhile,
	// and goes on when the caller is gone.
	Defragment(ctx context.Context) error
	// Compact discards the key space's past before a revision, and waits until
	// the member has done so on its disk.
	Compact(ctx context.Context, revision int64) error
	// Disarm takes an alarm of a member back.
	Disarm(ctx context.Context, id uint64, kind string) error
	// Served is the certificate, PEM, that the member shows to one who connects
	// now.
	Served(ctx context.Context) ([]byte, error)
	// Snapshot gives the backend as a stream, with its sha256 as trailer.
	Snapshot(ctx context.Context) (io.ReadCloser, error)
	// Watchers is how many watches are open on this member, by its metrics.
	Watchers(ctx context.Context) (int, error)
	// Behind is how many of them have not been told all yet.
	Behind(ctx context.Context) (int, error)
	// Fsync is how long the slowest hundredth of its syncs of the log took at
	// least, since it started, by its metrics; zero when it has made none.
	Fsync(ctx context.Context) (time.Duration, error)
	// Auth knows users and roles.
	Auth() pb.AuthClient
	// KV and Lease serve the lock and the probes.
	KV() clientv3.KV
	Lease() clientv3.Lease
	Close() error
}

// A Dialer reaches one member.
type Dialer func(ctx context.Context, endpoint string) (Etcd, error)

// member implements Etcd by upstream's client. Reads of state go through the
// plain protocol, since clientv3 waits for a dead endpoint to come back.
type member struct {
	client         *clientv3.Client
	endpoint       string
	user, password string // where auth is on
	web            *http.Client
	ends           *ends
}

// ends are the ends of connections on this machine, by which a member's host
// tells ours from others'.
type ends struct {
	mu  sync.Mutex
	all []string // "address:port"
}

// by lets a Way take down where its connections begin.
func (e *ends) by(way Way) Way {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := way.connect(ctx, address)
		if err == nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.all = append(e.all, c.LocalAddr().String())
		}
		return c, err
	}
}

// ownEnds are where the connections of this Site to members begin.
func (s *Site) ownEnds() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, c := range s.conns {
		m, ok := c.(*member)
		if g, guest := c.(*guestOf); guest {
			m, ok = g.member, true
		}
		if !ok {
			continue
		}
		m.ends.mu.Lock()
		all = append(all, m.ends.all...)
		m.ends.mu.Unlock()
	}
	return all
}

// A Way connects to an address. The nil Way is this machine's own network.
type Way func(ctx context.Context, address string) (net.Conn, error)

func (w Way) connect(ctx context.Context, address string) (net.Conn, error) {
	if w == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	return w(ctx, address)
}

// DialMember dials one member with upstream's client. The configuration gives
// TLS, user and password; endpoints and logger are set here, and a login is given
// eight seconds at least.
func DialMember(cfg clientv3.Config, endpoint string, way Way) (Etcd, error) {
	web := &http.Transport{TLSClientConfig: cfg.TLS, DisableKeepAlives: true}
	own := &ends{}
	dial := own.by(way)
	cfg.DialOptions = append(slices.Clone(cfg.DialOptions), grpc.WithContextDialer(dial))
	web.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
	cfg.Endpoints = []string{endpoint}
	cfg.Logger = zap.NewNop()
	cfg.MaxCallSendMsgSize = 0
	cfg.RejectOldCluster = false
	cfg.BackoffWaitBetween = 20 * time.Millisecond
	if cfg.Username != "" {
		if err := knock(cfg.DialTimeout, endpoint, way); err != nil {
			return nil, fmt.Errorf("dial %s: %w", endpoint, err)
		}
		cfg.DialTimeout = max(cfg.DialTimeout, loginPatience)
	}
	c, err := clientv3.New(cfg)
	guest := cfg.Username != "" && err != nil && rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
	user, password := cfg.Username, cfg.Password
	if guest {
		cfg.Username, cfg.Password = "", ""
		c, err = clientv3.New(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	m := &member{client: c, endpoint: endpoint, user: user, password: password, web: &http.Client{Transport: web}, ends: own}
	if guest {
		return &guestOf{member: m}, nil
	}
	return m, nil
}

// loginPatience is how long a login may take at a member that is there. A login
// costs etcd a twentieth of a second of a processor, and all clients log in at once
// when authentication is turned on; one that is given up is paid for all the same,
// and has to be made again.
const loginPatience = 8 * time.Second

// knock connects and hangs up. Upstream's client logs in as it is made, and waits
// for a member that is not there until its time is up.
func knock(patience time.Duration, endpoint string, way Way) error {
	ctx := context.Background() // of no one call: the connection outlives it
	if patience > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, patience)
		defer stop()
	}
	c, err := way.connect(ctx, dialable(endpoint))
	if err != nil {
		return err
	}
	return c.Close()
}

// login gives a token for the user that this connection comes with. etcd keeps
// it on every member.
func (m *member) login(ctx context.Context) (string, error) {
	r, err := pb.NewAuthClient(m.conn()).Authenticate(ctx, &pb.AuthenticateRequest{Name: m.user, Password: m.password})
	if err != nil {
		return "", rpctypes.Error(err)
	}
	return r.Token, nil
}

// A guestOf is a connection to a learner where auth is on: a learner takes no
// login, but it takes the token of one that a voter took.
type guestOf struct {
	*member
	borrow func(ctx context.Context) (string, error)

	mu    sync.Mutex
	token string
}

func (g *guestOf) Status(ctx context.Context) (*pb.StatusResponse, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for try := 0; ; try++ {
		if g.token == "" {
			token, err := g.borrow(ctx)
			if err != nil {
				return nil, fmt.Errorf("borrow a login for the learner: %w", err)
			}
			g.token = token
		}
		r, err := g.member.Status(metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, g.token))
		if !is(err, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision) {
			return r, err
		}
		if g.token = ""; try > 0 {
			return nil, err
		}
	}
}

func (m *member) conn() grpc.ClientConnInterface { return m.client.ActiveConnection() }

func (m *member) Status(ctx context.Context) (*pb.StatusResponse, error) {
	r, err := pb.NewMaintenanceClient(m.conn()).Status(ctx, &pb.StatusRequest{})
	return r, rpctypes.Error(err)
}

func (m *member) Members(ctx context.Context, linearizable bool) (*pb.MemberListResponse, error) {
	r, err := pb.NewClusterClient(m.conn()).MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable})
	return r, rpctypes.Error(err)
}

func (m *member) AddLearner(ctx context.Context, peerURL string) (*pb.MemberAddResponse, error) {
	r, err := pb.NewClusterClient(m.conn()).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{peerURL}, IsLearner: true})
	return r, rpctypes.Error(err)
}

func (m *member) Promote(ctx context.Context, id uint64) error {
	_, err := pb.NewClusterClient(m.conn()).MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
	return rpctypes.Error(err)
}

func (m *member) Remove(ctx context.Context, id uint64) error {
	_, err := pb.NewClusterClient(m.conn()).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	return rpctypes.Error(err)
}

func (m *member) MoveLeader(ctx context.Context, to uint64) error {
	_, err := pb.NewMaintenanceClient(m.conn()).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
	return rpctypes.Error(err)
}

func (m *member) ClusterVersion(ctx context.Context) (string, error) {
	var v struct {
		Cluster string `json:"etcdcluster"`
	}
	err := m.get(ctx, "/version", func(body io.Reader) error { return json.NewDecoder(body).Decode(&v) })
	if err != nil || v.Cluster == notDecided {
		return "", err
	}
	return v.Cluster, nil
}

// notDecided is the cluster version before there is one.
const notDecided = "not_decided"

func (m *member) Downgrade(ctx context.Context, version string) error {
	r := &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: version}
	if version == "" {
		r.Action = pb.DowngradeRequest_CANCEL
	}
	_, err := pb.NewMaintenanceClient(m.conn()).Downgrade(ctx, r)
	return rpctypes.Error(err)
}

func (m *member) HashKV(ctx context.Context, revision int64) (*pb.HashKVResponse, error) {
	r, err := pb.NewMaintenanceClient(m.conn()).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
	return r, rpctypes.Error(err)
}

// Compacted asks for a key at revision 1, which a store that was compacted
// refuses at once; only then a watch from revision 1 is opened, which is
// answered with the compact revision and scans nothing.
func (m *member) Compacted(ctx context.Context) (int64, error) {
	_, err := m.client.Get(ctx, "\x00", clientv3.WithRev(1), clientv3.WithSerializable(), clientv3.WithKeysOnly())
	switch {
	case err == nil, errors.Is(err, rpctypes.ErrFutureRev):
		return 0, nil
	case !errors.Is(err, rpctypes.ErrCompacted):
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for r := range m.client.Watch(ctx, "\x00", clientv3.WithRev(1)) {
		if r.CompactRevision > 0 {
			return r.CompactRevision, nil
		}
		if err := r.Err(); err != nil {
			return 0, err
		}
	}
	return 0, ctx.Err()
}

func (m *member) Defragment(ctx context.Context) error {
	_, err := pb.NewMaintenanceClient(m.conn()).Defragment(ctx, &pb.DefragmentRequest{})
	return rpctypes.Error(err)
}

func (m *member) Compact(ctx context.Context, revision int64) error {
	_, err := pb.NewKVClient(m.conn()).Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: true})
	return rpctypes.Error(err)
}

func (m *member) Disarm(ctx context.Context, id uint64, kind string) error {
	_, err := pb.NewMaintenanceClient(m.conn()).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id, Alarm: pb.AlarmType(pb.AlarmType_value[kind])})
	return rpctypes.Error(err)
}

// Served asks by a connection of its own: the others may be from before.
func (m *member) Served(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.endpoint+"/health", nil)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", m.endpoint, err)
	}
	r, err := m.web.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", m.endpoint, err)
	}
	defer r.Body.Close()
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, fmt.Errorf("read the certificate of %s: it shows none", m.endpoint)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.TLS.PeerCertificates[0].Raw}), nil
}

func (m *member) Snapshot(ctx context.Context) (io.ReadCloser, error) { return m.client.Snapshot(ctx) }

func (m *member) Watchers(ctx context.Context) (int, error) {
	return m.watchers(ctx, "etcd_debugging_mvcc_watcher_total")
}

func (m *member) Behind(ctx context.Context) (int, error) {
	return m.watchers(ctx, "etcd_debugging_mvcc_slow_watcher_total")
}

func (m *member) watchers(ctx context.Context, metric string) (int, error) {
	watchers := -1
	err := m.metrics(ctx, metric, func(_ string, value float64) { watchers = int(value) })
	if err == nil && watchers < 0 {
		err = errors.New("read metrics: the number of watchers is not among them")
	}
	return watchers, err
}

func (m *member) Fsync(ctx context.Context) (time.Duration, error) {
	var h histogram
	err := m.metrics(ctx, "etcd_disk_wal_fsync_duration_seconds_bucket", h.add)
	return h.quantile(0.99), err
}

// metrics calls f for each sample of a metric with its labels and value.
func (m *member) metrics(ctx context.Context, name string, f func(labels string, value float64)) error {
	return m.get(ctx, "/metrics", func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			rest, ok := strings.CutPrefix(lines.Text(), name)
			if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			labels, value, _ := strings.Cut(rest, " ")
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f(labels, n)
		}
		return lines.Err()
	})
}

// get reads what a member tells over HTTP.
func (m *member) get(ctx context.Context, path string, read func(body io.Reader) error) error {
	what := strings.TrimPrefix(path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.endpoint+path, nil)
	if err != nil {
		return err
	}
	r, err := m.web.Do(req)
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("read %s: %s", what, r.Status)
	}
	if err := read(r.Body); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// A histogram is Prometheus's: how many took at most so many seconds.
type histogram struct {
	bounds []float64 // seconds, ascending; the last is +Inf
	counts []float64
}

func (h *histogram) add(labels string, count float64) {
	le, _ := strings.CutPrefix(labels, `{le="`)
	le, _, _ = strings.Cut(le, `"`)
	if bound, err := strconv.ParseFloat(le, 64); err == nil {
		h.bounds, h.counts = append(h.bounds, bound), append(h.counts, count)
	}
}

// quantile gives the lower bound of the bucket that it lies in: at least so
// much, and no alarm for what is only coarse.
func (h histogram) quantile(q float64) time.Duration {
	if len(h.counts) == 0 || h.counts[len(h.counts)-1] == 0 {
		return 0
	}
	for i, n := range h.counts {
		if n >= q*h.counts[len(h.counts)-1] {
			if i == 0 {
				return 0
			}
			return time.Duration(h.bounds[i-1] * float64(time.Second))
		}
	}
	return 0
}

func (m *member) Auth() pb.AuthClient   { return pb.NewAuthClient(m.conn()) }
func (m *member) KV() clientv3.KV       { return m.client }
func (m *member) Lease() clientv3.Lease { return m.client }
func (m *member) Close() error          { return m.client.Close() }

// An Outcome is what an answer to a membership call means. A call that was
// not answered is Unknown: the list says which, never a second call.
type Outcome int

// The outcomes.
const (
	Applied   Outcome = iota // the change is there, or was before
	Rejected                 // definitely not made, and asking again will not help
	Postponed                // definitely not made; it may be asked again after a while and a fresh look
	Unknown                  // made or not: list the members
)

// Judge tells what an answer to a membership call means, by the table in
// etcd's api/v3rpc/rpctypes and what the server does before it proposes.
func Judge(err error) Outcome {
	switch {
	case err == nil:
		return Applied
	case is(err, rpctypes.ErrMemberNotFound, rpctypes.ErrPeerURLExist, rpctypes.ErrMemberExist, rpctypes.ErrMemberNotLearner):
		// Ours or another's: only the list can say whether the goal is reached.
		return Unknown
	case is(err, rpctypes.ErrUnhealthy, rpctypes.ErrMemberLearnerNotReady, rpctypes.ErrNotLeader):
		return Postponed
	case is(err, rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrTooManyLearners, rpctypes.ErrMemberBadURLs,
		rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken,
		rpctypes.ErrNoSpace, rpctypes.ErrCorrupt, rpctypes.ErrBadLeaderTransferee):
		return Rejected
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable && strings.Contains(s.Message(), "connection refused") {
		return Postponed // nothing was sent
	}
	return Unknown
}

// judgeAnswer tells what an answer to any other call means: an error that the
// member itself gave is final.
func judgeAnswer(err error) Outcome {
	var known rpctypes.EtcdError
	s, told := status.FromError(err)
	code := s.Code()
	if errors.As(err, &known) {
		code, told = known.Code(), true
	}
	switch {
	case err == nil:
		return Applied
	case is(err, rpctypes.ErrCompacted): // as far, or further
		return Unknown
	case code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.Canceled, !told && is(err, context.DeadlineExceeded, context.Canceled):
		return Judge(err)
	}
	return Rejected
}

func is(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// Explain gives etcd's own words, kept as they are, and what they mean.
func Explain(err error) string {
	text := err.Error()
	for _, m := range meanings {
		if strings.Contains(text, m.words) {
			return text + " (" + m.meaning + ")"
		}
	}
	return text
}

// meanings explains the texts that people search for at night.
var meanings = []struct{ words, meaning string }{
	{"unhealthy cluster", "fewer voters than a quorum of the new size have been connected to each other for 5 s"},
	{"too many learner members in cluster", "another learner is pending; finish or give up that one first"},
	{"in sync with leader", "the learner has not caught up with the leader yet"},
	{"not enough started members", "a member on the list has never started; start it or remove it first"},
	{"member count is unequal", "initial-cluster names other members than the cluster has"},
	{"cluster ID mismatch", "the data or the peers are those of another cluster"},
	{"permanently removed", "this member was removed; its data cannot be used again"},
	{"tocommit(", "the member lost log entries that it had acknowledged; remove it and add it with an empty directory"},
	{"database space exceeded", "the backend has reached its quota; compact, defragment, then disarm the alarm"},
	{"request timed out", "no quorum answered in time; whether it was done is unknown"},
	{"certificate signed by unknown authority", "the other side's certificate is from another CA"},
	{"certificate is valid for", "the certificate does not name this address"},
	{"permission denied", "the user may not do this"},
	{"address already in use", "another program listens on this port"},
}
