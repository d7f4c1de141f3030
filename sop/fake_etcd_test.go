package sop

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/etcdrill/etcdrill/sop/config"
)

// A cluster is what its members agree on. Living members have applied all of
// it; learners lag behind, and dead ones stay where they were.
type cluster struct {
	w       *world
	id      uint64
	members map[uint64]*entry
	removed map[uint64]time.Time
	procs   map[uint64]*proc
	applied map[uint64]uint64
	beyond  map[uint64]uint64 // entries that a member's log has after those: it does not know them to be committed
	runs    []run             // of the entries, by term

	head, term uint64
	leader     uint64
	since      time.Time // of the leader, or of there being none

	revision, compacted int64
	keys                map[string]*mvccpb.KeyValue
	leases              map[int64]*lease
	alarms              map[uint64]string // by member
	auth                bool
	users               map[string]*fakeUser
	roles               map[string][]*authpb.Permission
	dbSize              int64
	unused              map[uint64]int64     // bytes of a member's database that are not in use
	busy                map[uint64]time.Time // members that are defragmented until then, and answer nobody
	watchers, behind    int
	stuck               map[uint64][]byte // members that go on showing this certificate

	version  string    // cluster version, a minor; "" before there is one
	settledV time.Time // since when all members could have another
	storage  string    // form of the backends: follows the cluster version
	down     string    // minor that it is to go down to; "" for none
	// stale are the members whose promotion a backend does not know of, by the
	// member whose backend it is; ghosts are those that it still has.
	stale, ghosts map[uint64][]uint64

	// Lies that single members tell, by ID.
	lists  map[uint64][]Member
	hashes map[uint64]uint32
	fsync  map[uint64]time.Duration
	says   map[uint64]func(*pb.StatusResponse)
}

// An entry is one line of the member list.
type entry struct {
	id                 uint64
	name               string
	peerURL, clientURL string
	learner            bool
}

type lease struct {
	ttl int64
	due time.Time
}

// A proc is one running etcd.
type proc struct {
	m       *machine
	pid     int
	since   time.Time
	version string // of its binary, which may have been replaced since
	conf    config.Member
	trust   []byte // the CAs that it read when it started
	booted  bool   // it has read or founded its data
	ready   bool   // it has published itself, and serves
	joined  time.Time
	c       *cluster
	id      uint64
	exitAt  time.Time
	code    int
	// swallowed: it is fed with the entry that published it, and so waits for it
	swallowed bool
}

const (
	electionTime = 1200 * time.Millisecond
	publishTime  = 60 * time.Millisecond
	rumourTime   = 20 * time.Millisecond // in which followers hear of a new leader
)

func (w *world) cluster(id uint64) *cluster {
	c, ok := w.clusters[id]
	if !ok {
		c = &cluster{
			w: w, id: id, members: map[uint64]*entry{}, removed: map[uint64]time.Time{}, procs: map[uint64]*proc{}, applied: map[uint64]uint64{}, beyond: map[uint64]uint64{},
			head: 10, term: 1, runs: []run{{from: 1, term: 1}}, revision: 1, keys: map[string]*mvccpb.KeyValue{}, leases: map[int64]*lease{}, alarms: map[uint64]string{}, dbSize: 20 << 10,
			stale: map[uint64][]uint64{}, ghosts: map[uint64][]uint64{},
			users: map[string]*fakeUser{}, roles: map[string][]*authpb.Permission{},
			unused: map[uint64]int64{}, busy: map[uint64]time.Time{},
			lists: map[uint64][]Member{}, hashes: map[uint64]uint32{}, fsync: map[uint64]time.Duration{}, says: map[uint64]func(*pb.StatusResponse){},
		}
		w.clusters[id] = c
	}
	return c
}

func urlPort(url string) int {
	if i := strings.LastIndex(url, ":"); i >= 0 {
		return atoi(url[i+1:])
	}
	return 0
}

func (p *proc) listens(port int) bool {
	return urlPort(p.conf.PeerURL) == port || p.ready && urlPort(p.conf.ClientURL) == port
}

// end is the end of the process. A leader that is asked to stop hands over.
func (p *proc) end(politely bool) {
	p.m.proc = nil
	if p.c == nil || p.c.procs[p.id] != p {
		return
	}
	c := p.c
	delete(c.procs, p.id)
	if c.leader == p.id {
		c.leader, c.since = 0, time.Now()
		if politely {
			c.elect(time.Now())
		}
	}
}

func (p *proc) die(now time.Time, after time.Duration, code int) {
	p.exitAt, p.code = now.Add(after), code
}

func (p *proc) walDir() string {
	if p.conf.WALDir != "" {
		return p.conf.WALDir
	}
	return path.Join(p.conf.DataDir, "member/wal")
}

// bootUp is what etcd does between its start and its readiness.
func (p *proc) bootUp(now time.Time) {
	m := p.m
	conf, err := config.ParseMember(m.file(config.ConfPath).Content)
	p.conf = conf
	if d := m.files[conf.DataDir]; err != nil || d == nil || d.owner != "etcd" || m.version == "" || conf.Check() != nil {
		p.die(now, 0, 1)
		return
	}
	for _, f := range []string{conf.CAFile, conf.CertFile, conf.KeyFile} {
		if !m.file(f).Exists {
			p.die(now, 0, 1)
			return
		}
	}
	if _, taken := m.listeners[urlPort(conf.PeerURL)]; taken {
		p.die(now, 0, 1)
		return
	}
	p.trust = m.file(conf.CAFile).Content
	d := m.dirFacts(conf.DataDir)
	if conf.WALDir != "" {
		d = m.dirFacts(conf.WALDir)
	}
	switch {
	case d.WAL:
		who, err := Identify(d.WALHead)
		if err != nil {
			p.die(now, 0, 1)
			return
		}
		p.c, p.id = m.w.cluster(who.Cluster), who.Member
		if _, gone := p.c.removed[p.id]; gone && len(p.c.procs) > 0 {
			p.booted = true
			p.die(now, time.Second, 0) // its peers answer 410 Gone
			return
		}
	case conf.State == config.StateNew:
		if !p.found(now) {
			p.die(now, 0, 1)
			return
		}
	default:
		if !p.join() {
			p.die(now, 0, 1)
			return
		}
	}
	if m.w.starts != nil && !m.w.starts(m) || !p.bears() {
		p.die(now, 0, 1)
		return
	}
	p.booted, p.joined = true, now
	p.c.procs[p.id] = p
}

// mends reports whether this is a 3.5 that brings backends in order.
func (p *proc) mends() bool { return minor(p.version) == "3.5" && p.version >= "3.5.32" }

// bears reports whether the data is such as this version of etcd can start on.
func (p *proc) bears() bool {
	line := minor(p.version)
	switch {
	case p.c.version != "" && line < p.c.version && line < p.c.storage:
		return false // "invalid downgrade; server version is lower than determined cluster version"
	case p.mends():
		delete(p.c.ghosts, p.id)
	case line >= "3.6" && len(p.c.stale[p.id]) > 1:
		return false // "membership: too many learner members in cluster"
	}
	return true
}

// monitor raises or lowers the cluster version when all members could have
// another, after a while.
func (c *cluster) monitor(now time.Time) (moved bool) {
	const takes = 4 * time.Second
	low, all := "", true
	for id := range c.members {
		p := c.procs[id]
		if p == nil || !p.ready {
			all = false
			continue
		}
		if line := minor(p.version); low == "" || line < low {
			low = line
		}
	}
	want := low
	if c.down != "" {
		want = c.down
	}
	if c.leader == 0 || !all || want == c.version && (c.down == "" || c.storage == c.version && c.down != low) {
		c.settledV = time.Time{}
		return false
	}
	if c.settledV.IsZero() {
		c.settledV = now
	}
	if c.version != "" && now.Sub(c.settledV) < takes {
		return false
	}
	c.settledV = time.Time{}
	if c.down != "" && c.down == low { // all have arrived
		c.down = ""
	}
	c.version, c.storage = want, want
	c.head++
	return true
}

// found makes the data of a member of a new cluster.
func (p *proc) found(now time.Time) bool {
	var ids []uint64
	self := false
	for _, peer := range p.conf.Initial {
		ids = append(ids, expectedMember(peer.URL, p.conf.Token))
		self = self || peer.Name == p.conf.Name && peer.URL == p.conf.PeerURL
	}
	if !self {
		return false
	}
	slices.Sort(ids)
	var b []byte
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	c := p.m.w.cluster(binary.BigEndian.Uint64(sum[:8]))
	p.id = expectedMember(p.conf.PeerURL, p.conf.Token)
	if c.applied[p.id] > 0 && len(c.procs) > 0 {
		return false // "has already been bootstrapped"
	}
	if len(c.members) == 0 {
		c.since = now
		for _, peer := range p.conf.Initial {
			id := expectedMember(peer.URL, p.conf.Token)
			c.members[id] = &entry{id: id, name: peer.Name, peerURL: peer.URL}
		}
	}
	p.c = c
	p.writeData()
	return true
}

// join makes the data of a member that was added to a cluster.
func (p *proc) join() bool {
	for _, peer := range p.conf.Initial {
		other, ok := p.m.w.machines[hostPart(peer.URL)]
		if !ok || peer.URL == p.conf.PeerURL || other.proc == nil || !other.proc.ready || p.m.deaf[dialable(peer.URL)] {
			continue
		}
		c := other.proc.c
		if len(c.members) != len(p.conf.Initial) {
			return false // "member count is unequal"
		}
		for _, e := range c.members {
			if !slices.ContainsFunc(p.conf.Initial, func(i config.Peer) bool { return i.URL == e.peerURL }) {
				return false
			}
			if e.peerURL == p.conf.PeerURL {
				p.c, p.id = c, e.id
			}
		}
		if p.c == nil || !slices.Contains(p.conf.Initial, config.Peer{Name: p.conf.Name, URL: p.conf.PeerURL}) {
			return false
		}
		p.writeData()
		return true
	}
	return false // no peer answers
}

func (p *proc) writeData() {
	m := p.m
	for _, d := range []string{path.Join(p.conf.DataDir, "member"), p.walDir(), path.Join(p.conf.DataDir, "member/snap")} {
		if m.files[d] == nil {
			m.mkdir(d, "etcd", "etcd", 0o700)
		}
	}
	m.files[path.Join(p.walDir(), "0000000000000000-0000000000000000.wal")] = &node{content: walHead(p.id, p.c.id), owner: "etcd", group: "etcd", mode: 0o600}
	m.files[path.Join(p.conf.DataDir, "member/snap/db")] = &node{content: []byte("database"), owner: "etcd", group: "etcd", mode: 0o600}
}

// walHead is how a segment of etcd's log begins: a checksum record and a
// metadata record, each in its frame.
func walHead(member, cluster uint64) []byte {
	var meta []byte
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 1, protowire.VarintType), member)
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 2, protowire.VarintType), cluster)
	return slices.Concat(walFrame(4, nil), walFrame(1, meta), make([]byte, 512))
}

// walFrame frames the first walpb.Record of a log that has data.
func walFrame(kind uint64, data []byte) []byte {
	return frame(kind, data, crc32.Update(0, castagnoli(), data))
}

// logOf is the whole log of a member, as it is on its disk.
func (c *cluster) logOf(id uint64) []byte {
	var crc uint32
	var b []byte
	add := func(kind uint64, fields ...uint64) {
		var data []byte
		for i, n := range fields {
			data = protowire.AppendVarint(protowire.AppendTag(data, protowire.Number(i+1), protowire.VarintType), n)
		}
		crc = crc32.Update(crc, castagnoli(), data)
		b = append(b, frame(kind, data, crc)...)
	}
	add(crcRecord)
	add(metadataRecord, id, c.id)
	add(snapshotRecord, 0, 0)
	for i := uint64(1); i <= c.applied[id]+c.beyond[id]; i++ {
		add(entryRecord, 0, c.termAt(i), i)
	}
	add(stateRecord, c.termAt(c.applied[id]), 0, c.applied[id])
	return append(b, make([]byte, 4096)...)
}

func (c *cluster) termAt(index uint64) (term uint64) {
	for _, r := range c.runs {
		if r.from <= index {
			term = r.term
		}
	}
	return term
}

// voters are the IDs of those with a vote, sorted.
func (c *cluster) voters() []uint64 {
	var ids []uint64
	for id, e := range c.members {
		if !e.learner {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// connected reports whether a member takes part.
func (c *cluster) connected(id uint64) bool {
	p := c.procs[id]
	return p != nil && p.booted && !p.m.apart && p.exitAt.IsZero()
}

func (c *cluster) quorum() bool {
	n, alive := c.voters(), 0
	for _, id := range n {
		if c.connected(id) {
			alive++
		}
	}
	return len(n) > 0 && alive >= Quorum(len(n))
}

func (c *cluster) elect(now time.Time) {
	if !c.quorum() {
		return
	}
	for _, id := range c.voters() {
		if c.connected(id) && (c.leader == 0 || c.applied[id] > c.applied[c.leader]) {
			c.leader = id
		}
	}
	c.nextTerm()
	c.since = now
}

// nextTerm begins a term with an entry.
func (c *cluster) nextTerm() {
	c.term++
	c.head++
	c.runs = append(slices.Clip(c.runs), run{from: c.head, term: c.term})
}

func (c *cluster) tick(now time.Time) (moved bool) {
	e, listed := c.members[c.leader]
	switch {
	case c.leader != 0 && (!listed || e.learner || !c.connected(c.leader)):
		c.leader, c.since = 0, now
		return true
	case c.leader != 0 && !c.quorum():
		c.leader, c.since = 0, now // CheckQuorum
		return true
	case c.leader == 0 && c.quorum() && now.Sub(c.since) >= electionTime:
		c.elect(now)
		return true
	}
	for _, id := range slices.Sorted(maps.Keys(c.procs)) {
		p := c.procs[id]
		if at, gone := c.removed[id]; gone && p.exitAt.IsZero() {
			p.exitAt, p.code = at.Add(time.Second), 0
			return true
		}
		if e := c.members[id]; e != nil && p.booted && !p.ready && c.leader != 0 && now.Sub(p.joined) >= publishTime && (c.applied[id] > 0 || !e.learner || now.Sub(p.joined) >= c.w.transfer) {
			if e.learner && e.name == "" && c.w.swallows {
				p.swallowed = true
				p.m.files[path.Join(p.conf.DataDir, "member/snap/0000000000000002-0000000000000009.snap")] = &node{owner: "etcd", group: "etcd", mode: 0o600}
			}
			p.ready = !p.swallowed || now.Sub(p.joined) >= 7*time.Second
			if !p.ready && e.name != "" {
				continue
			}
			e.name, e.clientURL = p.conf.Name, p.conf.ClientURL
			for _, other := range c.procs { // whoever hears of it keeps the whole entry
				if other.mends() {
					c.stale[other.id] = slices.DeleteFunc(slices.Clone(c.stale[other.id]), func(stale uint64) bool { return stale == id })
				}
			}
			c.head++
			if e.learner {
				p.joined = now
			}
			moved = true
		}
	}
	moved = c.monitor(now) || moved
	for _, id := range slices.Sorted(maps.Keys(c.procs)) {
		if c.connected(id) && c.leader != 0 && c.procs[id].ready {
			c.applied[id] = c.head - c.lag(c.procs[id], now)
		}
	}
	for id, until := range c.busy {
		if !now.Before(until) {
			delete(c.busy, id)
			c.unused[id] = 0
			moved = true
		}
	}
	if c.leader != 0 {
		for _, id := range slices.Sorted(maps.Keys(c.leases)) {
			if now.After(c.leases[id].due) {
				c.revoke(id)
			}
		}
	}
	return moved
}

// lag is by how many entries a learner is behind, less and less.
func (c *cluster) lag(p *proc, now time.Time) uint64 {
	if e := c.members[p.id]; e == nil || !e.learner || c.w.lag == 0 {
		return 0
	}
	left := c.w.lagTime - now.Sub(p.joined)
	if left <= 0 {
		return 0
	}
	return min(c.head-1, uint64(float64(c.w.lag)*float64(left)/float64(c.w.lagTime)))
}

func (c *cluster) revoke(id int64) {
	delete(c.leases, id)
	for k, kv := range c.keys {
		if kv.Lease == id {
			delete(c.keys, k)
			c.revision++
		}
	}
	c.head++
}

// connectedFor reports whether a voter has been connected to the one that is
// asked for etcd's HealthInterval.
func (c *cluster) connectedFor(id, asked uint64, now time.Time) bool {
	if !c.connected(id) {
		return false
	}
	since := c.procs[id].joined
	if mine := c.procs[asked].joined; mine.After(since) {
		since = mine
	}
	return id == asked || now.Sub(since) >= HealthInterval
}

func (c *cluster) active(asked uint64, now time.Time) (n int) {
	for _, id := range c.voters() {
		if c.connectedFor(id, asked, now) {
			n++
		}
	}
	return n
}

func (c *cluster) addLearner(asked uint64, url string, now time.Time) (*entry, error) {
	if n := len(c.voters()); n > 1 && c.active(asked, now) < Quorum(n+1) {
		return nil, rpctypes.ErrUnhealthy
	}
	c.head++ // even one that is rejected when it is applied
	sum := sha1.Sum(fmt.Appendf(nil, "%s%d", url, now.Unix()))
	id := binary.BigEndian.Uint64(sum[:8])
	if _, gone := c.removed[id]; gone {
		return nil, rpctypes.ErrMemberNotFound
	}
	if _, there := c.members[id]; there {
		return nil, rpctypes.ErrMemberExist
	}
	for _, e := range c.members {
		if e.peerURL == url {
			return nil, rpctypes.ErrPeerURLExist
		}
	}
	for _, e := range c.members {
		if e.learner {
			return nil, rpctypes.ErrTooManyLearners
		}
	}
	e := &entry{id: id, peerURL: url, learner: true}
	c.members[id] = e
	return e, nil
}

func (c *cluster) promote(id uint64) error {
	e, ok := c.members[id]
	if !ok {
		return rpctypes.ErrMemberNotFound
	}
	if !e.learner {
		return rpctypes.ErrMemberNotLearner
	}
	// What the leader knows of it may be old: a learner that was stopped after
	// it had caught up is promoted all the same.
	if float64(c.applied[id]) < 0.9*float64(c.head) {
		return rpctypes.ErrMemberLearnerNotReady
	}
	started := 1
	for _, v := range c.voters() {
		if c.members[v].name != "" {
			started++
		}
	}
	if started < Quorum(len(c.voters())+1) {
		return rpctypes.ErrMemberNotEnoughStarted
	}
	e.learner = false
	c.head++
	return nil
}

func (c *cluster) remove(asked, id uint64, now time.Time) error {
	e, ok := c.members[id]
	if !ok {
		return rpctypes.ErrMemberNotFound
	}
	if !e.learner {
		n, started := len(c.voters()), 0
		for _, v := range c.voters() {
			if v != id && c.members[v].name != "" {
				started++
			}
		}
		if n == 1 || started < Quorum(n-1) {
			return rpctypes.ErrMemberNotEnoughStarted
		}
		if (c.connected(id) || id == asked) && c.active(asked, now)-1 < 1+(n-1)/2 {
			return rpctypes.ErrUnhealthy
		}
	}
	delete(c.members, id)
	c.removed[id] = now
	c.head++
	return nil
}

// --- Etcd ---

// A fakeEtcd is a member as one operator reaches it.
type fakeEtcd struct {
	w        *world
	op       *operator
	endpoint string
}

// What a call needs.
const (
	local  = iota // only the member itself
	voter         // a voter, without quorum
	linear        // quorum
)

func gone(ctx context.Context) error {
	<-ctx.Done()
	if errors.Is(ctx.Err(), context.Canceled) {
		return status.Error(codes.Canceled, "context canceled")
	}
	return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
}

// call waits for the member, and for quorum where that is needed, and then
// does what is asked.
func (e *fakeEtcd) call(ctx context.Context, what string, needs int, f func(c *cluster, p *proc, now time.Time) error) error {
	if e.op.dead.Load() {
		return errKilled
	}
	if err := sleep(ctx, latency); err != nil {
		return gone(ctx)
	}
	for {
		again, err := e.try(ctx, what, needs, f)
		if !again {
			return err
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return gone(ctx)
		}
		if e.op.dead.Load() {
			return errKilled
		}
	}
}

func (e *fakeEtcd) try(ctx context.Context, what string, needs int, f func(c *cluster, p *proc, now time.Time) error) (again bool, err error) {
	w := e.w
	w.mu.Lock()
	unlock := w.mu.Unlock
	defer func() { unlock() }()
	hang := func() (bool, error) {
		w.mu.Unlock()
		unlock = func() {}
		return false, gone(ctx)
	}
	w.tick()
	m, ok := w.machines[hostPart(e.endpoint)]
	if !ok || !m.on {
		return hang()
	}
	p := m.proc
	if p == nil || !p.booted || urlPort(p.conf.ClientURL) != urlPort(e.endpoint) {
		return false, status.Error(codes.Unavailable, fmt.Sprintf(`connection error: desc = "transport: Error while dialing: dial tcp %s: connect: connection refused"`, dialable(e.endpoint)))
	}
	if !p.ready {
		return true, nil
	}
	if problem := e.op.stranger(p); problem != "" {
		return false, status.Error(codes.Unavailable, problem)
	}
	c, now := p.c, time.Now()
	if _, busy := c.busy[p.id]; busy {
		return true, nil
	}
	if c.auth && e.op.user == "" {
		return false, rpctypes.ErrUserEmpty
	}
	if u := c.users[e.op.user]; c.auth && u != nil && e.op.Site.Password != "" && u.password != e.op.Site.Password {
		return false, rpctypes.ErrAuthFailed
	}
	if entry := c.members[p.id]; needs != local && entry != nil && entry.learner {
		return false, rpctypes.ErrGRPCNotSupportedForLearner
	}
	if needs == linear && (c.leader == 0 || !c.quorum() || !c.connected(p.id)) {
		return true, nil
	}
	trouble := w.befall(e.endpoint, what)
	if trouble.err != nil {
		return false, trouble.err
	}
	if trouble.drop {
		return hang()
	}
	err = f(c, p, now)
	switch {
	case err != nil:
	case slices.Contains([]string{"add", "promote", "remove", "move", "downgrade", "defrag", "compact", "disarm", "put", "delete", "grant", "revoke"}, what):
		w.sent = append(w.sent, what+" at "+m.name)
	}
	w.tick()
	if trouble.lost {
		return hang()
	}
	return false, err
}

func (c *cluster) header(p *proc) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: c.id, MemberId: p.id, Revision: c.revision, RaftTerm: c.term}
}

func (e *fakeEtcd) Status(ctx context.Context) (r *pb.StatusResponse, err error) {
	err = e.call(ctx, "status", local, func(c *cluster, p *proc, now time.Time) error {
		r = &pb.StatusResponse{
			Header: c.header(p), Version: p.version, DbSize: c.dbSize + c.unused[p.id], DbSizeInUse: c.dbSize, DbSizeQuota: p.conf.QuotaBytes,
			Leader: c.leader, RaftTerm: c.term, RaftIndex: c.head, RaftAppliedIndex: c.applied[p.id],
		}
		if minor(p.version) > "3.5" {
			r.StorageVersion = c.storage + ".0"
			r.DowngradeInfo = &pb.DowngradeInfo{Enabled: c.down != "", TargetVersion: c.down + ".0"}
		}
		if p.id != c.leader && now.Sub(c.since) < rumourTime || p.m.apart {
			r.Leader = 0
		}
		if en := c.members[p.id]; en != nil && en.learner {
			r.IsLearner, r.RaftIndex = true, c.applied[p.id]
		}
		for _, id := range slices.Sorted(maps.Keys(c.alarms)) {
			r.Errors = append(r.Errors, fmt.Sprintf("memberID:%d alarm:%s ", id, c.alarms[id]))
		}
		if lie := c.says[p.id]; lie != nil {
			lie(r)
		}
		return nil
	})
	return r, err
}

func (c *cluster) list() []*pb.Member {
	var all []*pb.Member
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		p := &pb.Member{ID: id, Name: m.name, PeerURLs: []string{m.peerURL}, IsLearner: m.learner}
		if m.clientURL != "" {
			p.ClientURLs = []string{m.clientURL}
		}
		all = append(all, p)
	}
	return all
}

func (e *fakeEtcd) Members(ctx context.Context, linearizable bool) (r *pb.MemberListResponse, err error) {
	needs := voter
	if linearizable {
		needs = linear
	}
	err = e.call(ctx, "members", needs, func(c *cluster, p *proc, _ time.Time) error {
		r = &pb.MemberListResponse{Header: c.header(p), Members: c.list()}
		if lie, ok := c.lists[p.id]; ok && !linearizable {
			r.Members = nil
			for _, m := range lie {
				r.Members = append(r.Members, &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner})
			}
		}
		return nil
	})
	return r, err
}

func (e *fakeEtcd) AddLearner(ctx context.Context, url string) (r *pb.MemberAddResponse, err error) {
	err = e.call(ctx, "add", linear, func(c *cluster, p *proc, now time.Time) error {
		m, err := c.addLearner(p.id, url, now)
		if err != nil {
			return err
		}
		r = &pb.MemberAddResponse{Header: c.header(p), Member: &pb.Member{ID: m.id, PeerURLs: []string{url}, IsLearner: true}, Members: c.list()}
		return nil
	})
	return r, err
}

func (e *fakeEtcd) Promote(ctx context.Context, id uint64) error {
	return e.call(ctx, "promote", linear, func(c *cluster, _ *proc, _ time.Time) error { return c.promote(id) })
}

func (e *fakeEtcd) Remove(ctx context.Context, id uint64) error {
	return e.call(ctx, "remove", linear, func(c *cluster, p *proc, now time.Time) error { return c.remove(p.id, id, now) })
}

func (e *fakeEtcd) MoveLeader(ctx context.Context, to uint64) error {
	return e.call(ctx, "move", linear, func(c *cluster, p *proc, now time.Time) error {
		if c.leader != p.id {
			return rpctypes.ErrNotLeader
		}
		if m, ok := c.members[to]; !ok || m.learner {
			return rpctypes.ErrBadLeaderTransferee
		}
		if !c.connected(to) {
			return status.Error(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
		}
		c.leader, c.since = to, now
		c.nextTerm()
		return nil
	})
}

func (e *fakeEtcd) ClusterVersion(ctx context.Context) (v string, err error) {
	err = e.call(ctx, "version", local, func(c *cluster, _ *proc, _ time.Time) error {
		if c.version != "" {
			v = c.version + ".0"
		}
		return nil
	})
	return v, err
}

func (e *fakeEtcd) Downgrade(ctx context.Context, to string) error {
	return e.call(ctx, "downgrade", linear, func(c *cluster, p *proc, _ time.Time) error {
		switch {
		case to == "" && c.down == "":
			return status.Error(codes.Unknown, "etcdserver: no inflight downgrade job")
		case to != "" && c.down != "":
			return status.Error(codes.Unknown, "etcdserver: cluster has a downgrade job in progress")
		case to != "" && minor(p.version) <= "3.5":
			return status.Error(codes.Unimplemented, "the fake's own rule: 3.5 does not go down")
		}
		c.down = to
		return nil
	})
}

func (e *fakeEtcd) HashKV(ctx context.Context, revision int64) (r *pb.HashKVResponse, err error) {
	err = e.call(ctx, "hash", voter, func(c *cluster, p *proc, _ time.Time) error {
		if revision != c.compacted {
			return fmt.Errorf("the fake's own rule: revision %d is hashed, %d is the compacted one", revision, c.compacted)
		}
		h := fnv.New32()
		fmt.Fprint(h, c.compacted)
		r = &pb.HashKVResponse{Header: c.header(p), Hash: h.Sum32() + c.hashes[p.id], CompactRevision: c.compacted}
		return nil
	})
	return r, err
}

func (e *fakeEtcd) Compacted(ctx context.Context) (rev int64, err error) {
	err = e.call(ctx, "compacted", voter, func(c *cluster, _ *proc, _ time.Time) error {
		rev = c.compacted
		return nil
	})
	return rev, err
}

func (e *fakeEtcd) Snapshot(ctx context.Context) (r io.ReadCloser, err error) {
	err = e.call(ctx, "snapshot", voter, func(c *cluster, p *proc, _ time.Time) error {
		b := slices.Clone(snapshotBytes())
		if minor(p.version) == "3.5" {
			var err error
			if b, err = backendOf(c, p.id); err != nil {
				return err
			}
		}
		if e.w.spoil {
			b[len(b)/2] ^= 1
		}
		r = io.NopCloser(bytes.NewReader(b))
		return nil
	})
	return r, err
}

// defragTime is what a defragmentation takes.
const defragTime = 3 * time.Second

// Defragment goes on when its caller is gone. The fake has rules of its own here:
// never the leader of others, and never two at once.
func (e *fakeEtcd) Defragment(ctx context.Context) error {
	err := e.call(ctx, "defrag", local, func(c *cluster, p *proc, now time.Time) error {
		switch {
		case c.leader == p.id && len(c.voters()) > 1:
			return errors.New("the fake's own rule: a leader is defragmented")
		case len(c.busy) > 0:
			return errors.New("the fake's own rule: two are defragmented at once")
		}
		c.busy[p.id] = now.Add(defragTime)
		return nil
	})
	if err != nil {
		return err
	}
	return e.call(ctx, "defragged", local, func(*cluster, *proc, time.Time) error { return nil })
}

func (e *fakeEtcd) Compact(ctx context.Context, revision int64) error {
	return e.call(ctx, "compact", linear, func(c *cluster, _ *proc, _ time.Time) error {
		switch {
		case errors.Is(c.full(), rpctypes.ErrCorrupt):
			return rpctypes.ErrCorrupt
		case revision > c.revision:
			return rpctypes.ErrFutureRev
		case revision <= c.compacted:
			return rpctypes.ErrCompacted
		}
		c.compacted = revision
		c.head++
		return nil
	})
}

func (e *fakeEtcd) Disarm(ctx context.Context, id uint64, kind string) error {
	return e.call(ctx, "disarm", linear, func(c *cluster, _ *proc, _ time.Time) error {
		if c.alarms[id] == kind {
			delete(c.alarms, id)
		}
		c.head++
		return nil
	})
}

func (e *fakeEtcd) Behind(ctx context.Context) (n int, err error) {
	err = e.call(ctx, "watchers", voter, func(c *cluster, _ *proc, _ time.Time) error {
		n = c.behind
		return nil
	})
	return n, err
}

func (e *fakeEtcd) Served(ctx context.Context) (cert []byte, err error) {
	err = e.call(ctx, "served", local, func(_ *cluster, p *proc, _ time.Time) error {
		cert = p.m.file(p.conf.CertFile).Content // read anew at each handshake
		if old := p.c.stuck[p.id]; old != nil {
			cert = old
		}
		return nil
	})
	return cert, err
}

func (e *fakeEtcd) Watchers(ctx context.Context) (n int, err error) {
	err = e.call(ctx, "watchers", voter, func(c *cluster, _ *proc, _ time.Time) error {
		n = c.watchers
		return nil
	})
	return n, err
}

func (e *fakeEtcd) Fsync(ctx context.Context) (d time.Duration, err error) {
	err = e.call(ctx, "fsync", local, func(c *cluster, p *proc, _ time.Time) error {
		d = c.fsync[p.id]
		return nil
	})
	return d, err
}

func (e *fakeEtcd) Auth() pb.AuthClient   { return fakeAuth{e: e} }
func (e *fakeEtcd) KV() clientv3.KV       { return clientv3.NewKVFromKVClient(fakeKV{e: e}, nil) }
func (e *fakeEtcd) Lease() clientv3.Lease { return fakeLease{e: e} }
func (e *fakeEtcd) Close() error          { return nil }

// A fakeUser is one of etcd's own.
type fakeUser struct {
	password string
	roles    []string
}

// fakeAuth is the server's side of users and roles.
type fakeAuth struct {
	pb.AuthClient
	e *fakeEtcd
}

func (a fakeAuth) change(ctx context.Context, f func(c *cluster) error) error {
	return a.e.call(ctx, "auth", linear, func(c *cluster, _ *proc, _ time.Time) error {
		c.head++
		return f(c)
	})
}

func (a fakeAuth) AuthStatus(ctx context.Context, _ *pb.AuthStatusRequest, _ ...grpc.CallOption) (r *pb.AuthStatusResponse, err error) {
	err = a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		r = &pb.AuthStatusResponse{Enabled: c.auth}
		return nil
	})
	return r, err
}

func (a fakeAuth) UserList(ctx context.Context, _ *pb.AuthUserListRequest, _ ...grpc.CallOption) (r *pb.AuthUserListResponse, err error) {
	err = a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		r = &pb.AuthUserListResponse{Users: slices.Sorted(maps.Keys(c.users))}
		return nil
	})
	return r, err
}

func (a fakeAuth) UserGet(ctx context.Context, in *pb.AuthUserGetRequest, _ ...grpc.CallOption) (r *pb.AuthUserGetResponse, err error) {
	err = a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		r = &pb.AuthUserGetResponse{Roles: c.users[in.Name].roles}
		return nil
	})
	return r, err
}

func (a fakeAuth) RoleList(ctx context.Context, _ *pb.AuthRoleListRequest, _ ...grpc.CallOption) (r *pb.AuthRoleListResponse, err error) {
	err = a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		r = &pb.AuthRoleListResponse{Roles: slices.Sorted(maps.Keys(c.roles))}
		return nil
	})
	return r, err
}

func (a fakeAuth) RoleGet(ctx context.Context, in *pb.AuthRoleGetRequest, _ ...grpc.CallOption) (r *pb.AuthRoleGetResponse, err error) {
	err = a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		r = &pb.AuthRoleGetResponse{Perm: c.roles[in.Role]}
		return nil
	})
	return r, err
}

func (a fakeAuth) RoleAdd(ctx context.Context, in *pb.AuthRoleAddRequest, _ ...grpc.CallOption) (*pb.AuthRoleAddResponse, error) {
	return nil, a.change(ctx, func(c *cluster) error {
		c.roles[in.Name] = []*authpb.Permission{}
		return nil
	})
}

func (a fakeAuth) UserDelete(ctx context.Context, in *pb.AuthUserDeleteRequest, _ ...grpc.CallOption) (*pb.AuthUserDeleteResponse, error) {
	return nil, a.change(ctx, func(c *cluster) error {
		delete(c.users, in.Name)
		return nil
	})
}

func (a fakeAuth) UserAdd(ctx context.Context, in *pb.AuthUserAddRequest, _ ...grpc.CallOption) (*pb.AuthUserAddResponse, error) {
	return nil, a.change(ctx, func(c *cluster) error {
		c.users[in.Name] = &fakeUser{password: in.Password}
		return nil
	})
}

func (a fakeAuth) UserGrantRole(ctx context.Context, in *pb.AuthUserGrantRoleRequest, _ ...grpc.CallOption) (*pb.AuthUserGrantRoleResponse, error) {
	return nil, a.change(ctx, func(c *cluster) error {
		c.users[in.User].roles = append(c.users[in.User].roles, in.Role)
		return nil
	})
}

func (a fakeAuth) AuthEnable(ctx context.Context, _ *pb.AuthEnableRequest, _ ...grpc.CallOption) (*pb.AuthEnableResponse, error) {
	return nil, a.change(ctx, func(c *cluster) error {
		if u := c.users["root"]; u == nil || !slices.Contains(u.roles, "root") {
			return rpctypes.ErrRootUserNotExist
		}
		c.auth = true
		return nil
	})
}

func (a fakeAuth) Authenticate(ctx context.Context, in *pb.AuthenticateRequest, _ ...grpc.CallOption) (*pb.AuthenticateResponse, error) {
	return nil, a.e.call(ctx, "auth status", linear, func(c *cluster, _ *proc, _ time.Time) error {
		switch u := c.users[in.Name]; {
		case !c.auth:
			return rpctypes.ErrAuthNotEnabled
		case u == nil || u.password != in.Password:
			return rpctypes.ErrAuthFailed
		}
		return nil
	})
}

// fakeKV is the server's side of what the lock and the probes use.
type fakeKV struct {
	pb.KVClient
	e *fakeEtcd
}

func (k fakeKV) Range(ctx context.Context, in *pb.RangeRequest, _ ...grpc.CallOption) (r *pb.RangeResponse, err error) {
	needs := linear
	if in.Serializable {
		needs = local
	}
	err = k.e.call(ctx, "get", needs, func(c *cluster, p *proc, _ time.Time) error {
		if err := c.full(); errors.Is(err, rpctypes.ErrCorrupt) {
			return err
		}
		r = c.read(p, in)
		return nil
	})
	return r, err
}

func (c *cluster) read(p *proc, in *pb.RangeRequest) *pb.RangeResponse {
	r := &pb.RangeResponse{Header: c.header(p)}
	for _, k := range slices.Sorted(maps.Keys(c.keys)) {
		if k == string(in.Key) || len(in.RangeEnd) > 0 {
			r.Count++
			if !in.CountOnly {
				r.Kvs = append(r.Kvs, c.keys[k])
			}
		}
	}
	return r
}

func (c *cluster) full() error {
	for _, a := range c.alarms {
		switch a {
		case "NOSPACE":
			return rpctypes.ErrNoSpace
		case "CORRUPT":
			return rpctypes.ErrCorrupt
		}
	}
	return nil
}

func (c *cluster) put(in *pb.PutRequest) error {
	if err := c.full(); err != nil {
		return err
	}
	if _, ok := c.leases[in.Lease]; in.Lease != 0 && !ok {
		return rpctypes.ErrLeaseNotFound
	}
	c.revision++
	c.head++
	kv := &mvccpb.KeyValue{Key: in.Key, Value: in.Value, Lease: in.Lease, CreateRevision: c.revision, ModRevision: c.revision, Version: 1}
	if old := c.keys[string(in.Key)]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	c.keys[string(in.Key)] = kv
	return nil
}

func (k fakeKV) Put(ctx context.Context, in *pb.PutRequest, _ ...grpc.CallOption) (r *pb.PutResponse, err error) {
	err = k.e.call(ctx, "put", linear, func(c *cluster, p *proc, _ time.Time) error {
		r = &pb.PutResponse{Header: c.header(p)}
		return c.put(in)
	})
	return r, err
}

func (k fakeKV) DeleteRange(ctx context.Context, in *pb.DeleteRangeRequest, _ ...grpc.CallOption) (r *pb.DeleteRangeResponse, err error) {
	err = k.e.call(ctx, "delete", linear, func(c *cluster, p *proc, _ time.Time) error {
		if _, ok := c.keys[string(in.Key)]; ok {
			delete(c.keys, string(in.Key))
			c.revision++
		}
		c.head++
		r = &pb.DeleteRangeResponse{Header: c.header(p)}
		return nil
	})
	return r, err
}

func (k fakeKV) Txn(ctx context.Context, in *pb.TxnRequest, _ ...grpc.CallOption) (r *pb.TxnResponse, err error) {
	err = k.e.call(ctx, "put", linear, func(c *cluster, p *proc, _ time.Time) error {
		if err := c.full(); err != nil {
			return err
		}
		r = &pb.TxnResponse{Header: c.header(p), Succeeded: true}
		for _, cmp := range in.Compare {
			kv := c.keys[string(cmp.Key)]
			if kv == nil {
				kv = &mvccpb.KeyValue{}
			}
			switch cmp.Target {
			case pb.Compare_CREATE:
				r.Succeeded = r.Succeeded && kv.CreateRevision == cmp.GetCreateRevision()
			case pb.Compare_MOD:
				r.Succeeded = r.Succeeded && kv.ModRevision == cmp.GetModRevision()
			default:
				return fmt.Errorf("the fake knows no comparison %v", cmp.Target)
			}
		}
		ops := in.Failure
		if r.Succeeded {
			ops = in.Success
		}
		for _, op := range ops {
			switch {
			case op.GetRequestPut() != nil:
				if err := c.put(op.GetRequestPut()); err != nil {
					return err
				}
				r.Responses = append(r.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}})
			case op.GetRequestRange() != nil:
				r.Responses = append(r.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: c.read(p, op.GetRequestRange())}})
			default:
				return fmt.Errorf("the fake knows no operation %v", op)
			}
		}
		return nil
	})
	return r, err
}

// fakeLease is what the lock uses of leases.
type fakeLease struct {
	clientv3.Lease
	e *fakeEtcd
}

var leaseIDs atomic.Int64

func (l fakeLease) Grant(ctx context.Context, ttl int64) (r *clientv3.LeaseGrantResponse, err error) {
	err = l.e.call(ctx, "grant", linear, func(c *cluster, _ *proc, now time.Time) error {
		if err := c.full(); err != nil {
			return err
		}
		id := leaseIDs.Add(1)
		c.leases[id] = &lease{ttl: ttl, due: now.Add(time.Duration(ttl) * time.Second)}
		c.head++
		r = &clientv3.LeaseGrantResponse{ID: clientv3.LeaseID(id), TTL: ttl}
		return nil
	})
	return r, err
}

func (l fakeLease) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	err := l.e.call(ctx, "revoke", linear, func(c *cluster, _ *proc, _ time.Time) error {
		if _, ok := c.leases[int64(id)]; !ok {
			return rpctypes.ErrLeaseNotFound
		}
		c.revoke(int64(id))
		return nil
	})
	return &clientv3.LeaseRevokeResponse{}, err
}

func (l fakeLease) TimeToLive(ctx context.Context, id clientv3.LeaseID, _ ...clientv3.LeaseOption) (r *clientv3.LeaseTimeToLiveResponse, err error) {
	err = l.e.call(ctx, "ttl", linear, func(c *cluster, _ *proc, now time.Time) error {
		r = &clientv3.LeaseTimeToLiveResponse{ID: id, TTL: -1}
		if le, ok := c.leases[int64(id)]; ok {
			r.TTL, r.GrantedTTL = int64(le.due.Sub(now)/time.Second), le.ttl
		}
		return nil
	})
	return r, err
}

func (l fakeLease) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (r *clientv3.LeaseKeepAliveResponse, err error) {
	err = l.e.call(ctx, "keepalive", linear, func(c *cluster, _ *proc, now time.Time) error {
		le, ok := c.leases[int64(id)]
		if !ok {
			return rpctypes.ErrLeaseNotFound
		}
		le.due = now.Add(time.Duration(le.ttl) * time.Second)
		r = &clientv3.LeaseKeepAliveResponse{ID: id, TTL: le.ttl}
		return nil
	})
	return r, err
}
