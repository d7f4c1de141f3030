package sop

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// The fake world: machines with a small file system and systemd, and a model
// of etcd on them that answers as the real one does. It lives in the fake time
// of a synctest bubble. Nothing runs in the background: whatever is due is
// made up for at the beginning of each call.

// A world is all that an operator can reach.
type world struct {
	mu       sync.Mutex
	machines map[string]*machine // by address, which is the inventory's name
	clusters map[uint64]*cluster // all that ever were
	pids     int

	// peril is asked before each call of a member and each act on a host takes
	// effect: "add", "promote", "put", "write /etc/etcd/etcd.conf".
	peril func(where, what string) fault
	// spoil breaks every snapshot on its way.
	spoil bool
	// sent lists what changed anything, in order.
	sent []string

	packaged string   // version of etcd that a package brings, "" for none
	offers   []string // versions that can be asked for; nil where whatever is asked for is that one

	// starts reports whether the etcd of a machine comes up; nil where all do.
	starts func(m *machine) bool
	// picky says what etcd of a version says of a configuration that it does not take.
	picky func(version string, t host.Trial) string

	// strict has connections fail where one side does not trust the other; clients
	// are those that have to get in at every moment, and cutOff who did not.
	strict  bool
	clients map[string]party
	cutOff  []string
	signed  map[[2]string]bool // certificates by CAs

	transfer time.Duration // a learner's first copy of the database
	swallows bool          // that copy comes with the learner's own name in it
	lag      uint64        // entries that it is behind after that
	lagTime  time.Duration // in which it makes up for them
}

// A fault is what befalls a call.
type fault struct {
	err  error // it answers this, and nothing is done
	lost bool  // it is done, and the answer never comes
	drop bool  // it is not done, and no answer ever comes
}

func newWorld(addresses ...string) *world {
	w := &world{machines: map[string]*machine{}, clusters: map[uint64]*cluster{}, transfer: 300 * time.Millisecond, packaged: "3.7.3"}
	for _, a := range addresses {
		w.machine(a)
	}
	return w
}

// machine gives a host, a blank one if it is new.
func (w *world) machine(address string) *machine {
	if m, ok := w.machines[address]; ok {
		return m
	}
	m := &machine{
		w: w, name: address, on: true, reach: true, boot: 1, version: "3.7.3", free: 100 << 30,
		files: map[string]*node{}, users: map[string]bool{"root": true, "etcd": true}, listeners: map[int]string{},
		mounts: map[string]bool{"/data/etcd": true}, deaf: map[string]bool{},
		programs: map[string]string{config.EtcdctlPath: "3.7.3", utilityPath: "3.7.3"}, addrs: map[string]bool{}, distrust: map[string]string{},
	}
	for _, d := range []string{"/etc", "/etc/systemd/system", "/etc/profile.d", "/run", "/usr/bin", "/var/lib/etcd"} {
		m.mkdir(d, "root", "root", 0o755)
	}
	w.machines[address] = m
	return m
}

// clone copies a world. The lock is held.
func (w *world) clone() *world {
	c := &world{machines: map[string]*machine{}, clusters: map[uint64]*cluster{}, pids: w.pids, packaged: w.packaged, offers: w.offers, picky: w.picky, starts: w.starts, strict: w.strict, clients: maps.Clone(w.clients), transfer: w.transfer, swallows: w.swallows, lag: w.lag, lagTime: w.lagTime}
	pgs := map[*fakePG]*fakePG{}
	for name, m := range w.machines {
		n := *m
		n.w, n.files, n.proc = c, maps.Clone(m.files), nil
		n.programs = maps.Clone(m.programs)
		n.users, n.mounts, n.deaf, n.listeners = maps.Clone(m.users), maps.Clone(m.mounts), maps.Clone(m.deaf), maps.Clone(m.listeners)
		m.cloneClients(&n, pgs)
		c.machines[name] = &n
	}
	for id, old := range w.clusters {
		n := *old
		n.w, n.procs, n.members, n.leases = c, map[uint64]*proc{}, map[uint64]*entry{}, map[int64]*lease{}
		n.beyond = maps.Clone(old.beyond)
		n.removed, n.applied, n.keys, n.alarms = maps.Clone(old.removed), maps.Clone(old.applied), maps.Clone(old.keys), maps.Clone(old.alarms)
		n.stale, n.ghosts = maps.Clone(old.stale), maps.Clone(old.ghosts)
		n.roles, n.users = maps.Clone(old.roles), map[string]*fakeUser{}
		for name, u := range old.users {
			n.users[name] = &fakeUser{u.password, slices.Clone(u.roles)}
		}
		n.unused, n.busy = maps.Clone(old.unused), maps.Clone(old.busy)
		for k, e := range old.members {
			e := *e
			n.members[k] = &e
		}
		for k, l := range old.leases {
			l := *l
			n.leases[k] = &l
		}
		c.clusters[id] = &n
	}
	for name, m := range w.machines {
		if m.proc != nil {
			p := *m.proc
			p.m = c.machines[name]
			p.m.proc = &p
			if p.c != nil {
				p.c = c.clusters[p.c.id]
				if m.proc.c.procs[p.id] == m.proc {
					p.c.procs[p.id] = &p
				}
			}
		}
	}
	return c
}

// tick makes up for what has fallen due. The lock is held.
func (w *world) tick() {
	for range 20 {
		if !w.tickOnce(time.Now()) {
			break
		}
	}
	for _, m := range w.machines {
		if m.on {
			m.tickClients(time.Now())
		}
	}
	w.watchTrust()
}

func (w *world) tickOnce(now time.Time) (moved bool) {
	for _, name := range slices.Sorted(maps.Keys(w.machines)) {
		if m := w.machines[name]; m.on && m.tick(now) {
			moved = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.clusters)) {
		if w.clusters[id].tick(now) {
			moved = true
		}
	}
	return moved
}

func (w *world) befall(where, what string) fault {
	if w.peril == nil {
		return fault{}
	}
	return w.peril(where, what)
}

// A machine is one host.
type machine struct {
	w       *world
	name    string
	on      bool // it has power
	reach   bool // SSH gets there
	apart   bool // its peers do not get there
	skew    time.Duration
	boot    int
	version string // of its etcd, "" when none is installed
	free    int64
	files   map[string]*node
	users   map[string]bool
	mounts  map[string]bool
	env     []string        // the unit's Environment=
	deaf    map[string]bool // host:port pairs that it cannot dial
	claim   host.Claim
	notes   []string // in its journal

	listeners map[int]string    // of other programs
	programs  map[string]string // versions by path
	addrs     map[string]bool   // besides its own
	callers   []string          // who is connected to its etcd, as a client
	distrust  map[string]string // host:port pairs whose handshake fails, and why

	patroni *fakePatroni
	vip     *fakeVIP

	// systemd
	known    string // the unit's files as systemd has read them
	patient  bool   // TimeoutStartSec=infinity is in force
	broken   int    // exit status with which each process ends at once, 0 when it does not
	proc     *proc
	failed   bool
	exit     int
	again    time.Time // when it is started again after a failure
	stopping time.Time // when the process will be gone
	restarts bool      // it is started again once it is gone
}

// A node is a file, a directory or a symbolic link.
type node struct {
	dir          bool
	link         string
	content      []byte
	owner, group string
	mode         fs.FileMode
	since        time.Time
}

const wantsPath = "/etc/systemd/system/multi-user.target.wants/etcd.service"

func (m *machine) mkdir(dir, owner, group string, mode fs.FileMode) {
	for d := path.Dir(dir); d != "/"; d = path.Dir(d) {
		if m.files[d] == nil {
			m.files[d] = &node{dir: true, owner: "root", group: "root", mode: 0o755}
		}
	}
	m.files[dir] = &node{dir: true, owner: owner, group: group, mode: mode}
}

// under lists what is in a directory, all the way down.
func (m *machine) under(dir string) []string {
	var all []string
	for p := range m.files {
		if strings.HasPrefix(p, dir+"/") {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	return all
}

// entries are the names directly in a directory.
func (m *machine) entries(dir string) []string {
	var names []string
	for _, p := range m.under(dir) {
		if path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	return names
}

func (m *machine) masked() bool {
	n := m.files[config.UnitPath]
	return n != nil && n.link == "/dev/null"
}

// unitFiles is what systemd would read now.
func (m *machine) unitFiles() string {
	n := m.files[config.UnitPath]
	switch {
	case n == nil:
		return "not-found"
	case n.link != "":
		return "masked"
	}
	text := string(n.content)
	if d := m.files[config.JoinDropInPath]; d != nil {
		text += "\n# drop-in\n" + string(d.content)
	}
	return text
}

// load reads the unit as systemd does when it is asked about one that it has
// not read yet.
func (m *machine) load() {
	if m.known == "" || m.known == "not-found" && m.proc == nil {
		m.reload()
	}
}

func (m *machine) reload() {
	m.known = m.unitFiles()
	m.patient = strings.Contains(m.known, "TimeoutStartSec=infinity")
}

// The real values of the unit that package config writes.
const (
	startTimeout = 60 * time.Second
	restartDelay = 5 * time.Second
)

func (m *machine) tick(now time.Time) (moved bool) {
	p := m.proc
	if p != nil && !m.stopping.IsZero() && !now.Before(m.stopping) {
		m.stopping = time.Time{}
		p.end(true)
		m.exit, m.failed = 0, false
		if m.restarts {
			m.restarts = false
			m.start(now)
		}
		return true
	}
	if p != nil && !p.exitAt.IsZero() && !now.Before(p.exitAt) {
		m.exited(p, p.code, now)
		return true
	}
	if p != nil && !p.ready && !m.patient && now.Sub(p.since) >= startTimeout {
		m.exited(p, 15, now)
		return true
	}
	if p == nil && !m.again.IsZero() && !now.Before(m.again) {
		m.again = time.Time{}
		m.start(now)
		return true
	}
	if p != nil && !p.booted && p.exitAt.IsZero() && now.Sub(p.since) >= bootTime {
		p.bootUp(now)
		return true
	}
	return false
}

// exited is Restart=on-failure.
func (m *machine) exited(p *proc, code int, now time.Time) {
	p.end(false)
	m.exit, m.failed = code, code != 0
	m.stopping, m.restarts = time.Time{}, false
	if code != 0 {
		m.again = now.Add(restartDelay)
	}
}

// is gives it an etcd of another version, the one that runs included.
func (m *machine) is(version string) {
	m.version = version
	if m.proc != nil {
		m.proc.version = version
	}
}

func (m *machine) start(now time.Time) {
	m.w.pids++
	m.failed, m.exit, m.again = false, 0, time.Time{}
	m.proc = &proc{m: m, pid: 1000 + m.w.pids, since: now, version: m.version}
	if m.broken != 0 {
		m.proc.exitAt, m.proc.code = now.Add(bootTime), m.broken
	}
}

// powerOff is a pulled plug.
func (m *machine) powerOff() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.tick()
	if m.proc != nil {
		m.proc.end(false)
	}
	m.on, m.again, m.stopping, m.restarts = false, time.Time{}, time.Time{}, false
}

// powerOn boots it: what is enabled is started.
func (m *machine) powerOn() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.on = true
	m.boot++
	m.claim = host.Claim{}
	m.reload()
	if m.files[wantsPath] != nil && !m.masked() {
		m.start(time.Now())
	}
}

// kill is SIGKILL to etcd on a host whose unit is not restarted.
func (m *machine) kill() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.w.tick()
	if m.proc != nil {
		m.proc.end(false)
	}
	m.failed, m.exit, m.again, m.stopping, m.restarts = true, 9, time.Time{}, time.Time{}, false
}

func (m *machine) unit() host.Unit {
	m.load()
	u := host.Unit{Active: "inactive", Sub: "dead", Load: "loaded", Exit: m.exit, Path: config.UnitPath, Env: m.env}
	switch m.known {
	case "not-found":
		u.Load, u.Path = "not-found", ""
	case "masked":
		u.Load, u.Path = "masked", ""
	}
	switch {
	case m.masked():
		u.Enabled = "masked"
	case m.files[config.UnitPath] == nil:
		u.Enabled = ""
	case m.files[wantsPath] != nil:
		u.Enabled = "enabled"
	default:
		u.Enabled = "disabled"
	}
	u.Stale = m.known != m.unitFiles()
	switch p := m.proc; {
	case p != nil:
		u.PID, u.Since = p.pid, p.since.Add(m.skew)
		switch {
		case !m.stopping.IsZero():
			u.Active, u.Sub = "deactivating", "stop-sigterm"
		case p.ready:
			u.Active, u.Sub = "active", "running"
		default:
			u.Active, u.Sub = "activating", "start"
		}
	case !m.again.IsZero():
		u.Active, u.Sub = "activating", "auto-restart"
	case m.failed:
		u.Active, u.Sub = "failed", "failed"
	}
	return u
}

// --- host.Host ---

// A fakeHost is a machine as one operator reaches it.
type fakeHost struct {
	m  *machine
	op *operator
}

func (h *fakeHost) Name() string { return h.m.name }

const latency = time.Millisecond

// errKilled is what a killed operator's connections say: nothing gets out.
var errKilled = errors.New("the operator is dead")

func (h *fakeHost) enter(ctx context.Context) error {
	if h.op.dead.Load() {
		return errKilled
	}
	if err := sleep(ctx, latency); err != nil {
		return fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	h.m.w.mu.Lock()
	h.m.w.tick()
	if !h.m.on || !h.m.reach {
		h.m.w.mu.Unlock()
		<-ctx.Done()
		return fmt.Errorf("%w: connection timed out", host.ErrUnreachable)
	}
	return nil
}

func (h *fakeHost) Look(ctx context.Context, q host.Question) (host.Facts, error) {
	if err := h.enter(ctx); err != nil {
		return host.Facts{}, err
	}
	m := h.m
	defer m.w.mu.Unlock()
	f := host.Facts{
		Clock: time.Now().Add(m.skew), BootID: fmt.Sprintf("boot-%s-%d", m.name, m.boot),
		Units: map[string]host.Unit{}, Files: map[string]host.File{}, Sums: map[string]string{}, Dirs: map[string]host.Dir{},
		Ports: map[int]string{}, Users: map[string]bool{}, Dials: map[string]string{},
	}
	for _, u := range q.Units {
		if f.Units[u] = m.clientUnit(u); u == config.UnitName {
			f.Units[u] = m.unit()
		}
	}
	for _, p := range q.Files {
		f.Files[p] = m.file(p)
	}
	for _, p := range q.Sums {
		if h.op.plain && m.files[path.Dir(p)] != nil && m.files[path.Dir(p)].mode&0o001 == 0 {
			f.Sums[p] = "" // whether it is there cannot be seen
		}
		if file := m.file(p); file.Exists {
			sum := sha256.Sum256(file.Content)
			f.Sums[p] = hex.EncodeToString(sum[:])
		}
	}
	for _, d := range q.Dirs {
		f.Dirs[d] = m.dirFacts(d)
	}
	for _, port := range q.Ports {
		if by, ok := m.listeners[port]; ok {
			f.Ports[port] = by
		} else if m.proc != nil && m.proc.listens(port) {
			f.Ports[port] = "etcd"
		}
	}
	for _, port := range q.Callers {
		if m.proc != nil && m.proc.listens(port) && len(m.callers) > 0 {
			f.Callers = map[int][]string{port: m.callers}
		}
	}
	for _, u := range q.Users {
		f.Users[u] = m.users[u]
	}
	for _, d := range q.Dial {
		f.Dials[d] = m.dial(d)
	}
	if h.op.plain {
		m.hide(&f)
	}
	if q.Etcd != "" {
		f.Etcd = host.Binary{Path: q.Etcd, Version: m.version}
	}
	if q.Package != "" && m.w.packaged != "" {
		if f.Offers = m.w.offers; f.Offers == nil {
			f.Offers = []string{m.w.packaged}
		}
	}
	for _, t := range q.Trials {
		f.Trials = append(f.Trials, m.try(t))
	}
	m.lookAtClients(q, &f)
	return f, nil
}

// Fetch implements host.Host.
func (h *fakeHost) Fetch(ctx context.Context, p string, w io.Writer) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	m := h.m
	content, err := m.content(p)
	m.w.mu.Unlock()
	if err == nil {
		_, err = w.Write(content)
	}
	return err
}

// content is what is in a file; a log has more in it than the file of the fake.
func (m *machine) content(p string) ([]byte, error) {
	f := m.file(p)
	switch {
	case !f.Exists:
		return nil, fmt.Errorf("cat: %s: No such file or directory", p)
	case strings.HasSuffix(p, ".wal"):
		who, err := Identify(f.Content)
		if c := m.w.clusters[who.Cluster]; c != nil && err == nil {
			return c.logOf(who.Member), nil
		}
	}
	return f.Content, nil
}

// replayLog is what etcd makes of a copy of its data.
func (m *machine) replayLog(a host.ReplayLog) error {
	var who Identity
	for _, p := range append(m.under(a.DataDir), m.under(cmp.Or(a.WALDir, a.DataDir))...) {
		if path.Base(p) == a.Segment {
			who, _ = Identify(m.files[p].content)
		}
	}
	switch c := m.w.clusters[who.Cluster]; {
	case c == nil || m.files[a.Work] == nil:
		return errors.New("no such file or directory")
	case m.proc != nil:
		return errors.New("the fake's own rule: data was copied under a running etcd")
	case c.beyond[who.Member] > 0 && len(a.Record) == 0:
		return errors.New("the fake's own rule: the end of a log was thrown away")
	default:
		b, err := backendOf(c, who.Member)
		if err != nil {
			return err
		}
		m.files[a.Path] = &node{content: b[:len(b)-sha256.Size], owner: "root", group: "root", mode: 0o600}
		return nil
	}
}

// try is a start of etcd that is to go no further than its data directory.
func (m *machine) try(t host.Trial) host.Tried {
	version := m.programs[t.Program]
	if t.Program == config.BinaryPath {
		version = m.version
	}
	if m.w.picky != nil {
		if said := m.w.picky(version, t); said != "" {
			return host.Tried{Status: 2, Said: said}
		}
	}
	if !bytes.Contains(t.Config, []byte(config.Nowhere)) {
		return host.Tried{Status: 1, Said: "the fake's own rule: a trial had a data directory"}
	}
	return host.Tried{Status: 1, Said: `failed to list data directory","dir":"` + config.Nowhere}
}

// hide takes out of facts what only root may see.
func (m *machine) hide(f *host.Facts) {
	shut := func(p string, need fs.FileMode) bool {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if n := m.files[d]; n != nil && n.mode&0o001 == 0 {
				return true
			}
		}
		n := m.files[p]
		return n != nil && n.link == "" && n.mode&need != need
	}
	for p := range f.Files {
		if shut(p, 0o004) {
			f.Files[p] = host.File{Exists: true, Problem: "Permission denied"}
		}
	}
	for p := range f.Sums {
		if shut(p, 0o004) {
			f.Sums[p] = ""
		}
	}
	for p, d := range f.Dirs {
		if shut(p, 0o005) {
			f.Dirs[p] = host.Dir{Exists: d.Exists, Owner: d.Owner, Group: d.Group, Mode: d.Mode, FreeBytes: d.FreeBytes, Problem: "Permission denied"}
		}
	}
}

func (m *machine) file(p string) host.File {
	n := m.files[p]
	switch {
	case n == nil || n.dir:
		return host.File{}
	case n.link == "/dev/null":
		return host.File{Exists: true, Real: n.link, Owner: "root", Group: "root", Mode: 0o666}
	}
	return host.File{Exists: true, Real: p, Content: bytes.Clone(n.content), Owner: n.owner, Group: n.group, Mode: n.mode, Changed: n.since.Add(m.skew)}
}

func (m *machine) dirFacts(p string) host.Dir {
	n := m.files[p]
	d := host.Dir{Mount: m.mounts[p], FreeBytes: m.free}
	if n == nil || !n.dir {
		return d
	}
	d.Exists, d.Owner, d.Group, d.Mode = true, n.owner, n.group, n.mode
	for _, name := range m.entries(p) {
		if strings.HasPrefix(name, host.AsidePrefix) {
			a := host.Aside{Path: path.Join(p, name), Since: m.files[path.Join(p, name)].since}
			for _, below := range m.under(a.Path) {
				a.Bytes += int64(len(m.files[below].content))
			}
			d.Aside = append(d.Aside, a)
			continue
		}
		d.Entries = append(d.Entries, name)
	}
	for _, below := range m.under(p) {
		d.UsedBytes += int64(len(m.files[below].content))
	}
	for _, wal := range []string{path.Join(p, "member/wal"), p} {
		for _, name := range m.entries(wal) {
			if strings.HasSuffix(name, ".wal") {
				d.WAL = true
				head := m.files[path.Join(wal, name)].content
				d.WALHead = bytes.Clone(head[:min(len(head), 512)])
			}
		}
		if d.WAL {
			break
		}
	}
	return d
}

// dial tries a TCP connection.
func (m *machine) dial(to string) string {
	address, port, err := net.SplitHostPort(to)
	if err != nil {
		return err.Error()
	}
	other, ok := m.w.machines[address]
	switch {
	case m.deaf[to] || !ok || !other.on:
		return "dial tcp " + to + ": i/o timeout"
	case other.proc != nil && other.proc.listens(atoi(port)), other.listeners[atoi(port)] != "":
		return ""
	}
	return "dial tcp " + to + ": connect: connection refused"
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

func (h *fakeHost) Do(ctx context.Context, a host.Act) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	m := h.m
	f := m.w.befall(m.name, a.String())
	if f.err != nil {
		m.w.mu.Unlock()
		return f.err
	}
	var err error
	if !f.drop {
		if _, note := a.(host.Note); !note { // it changes nothing
			m.w.sent = append(m.w.sent, a.String()+" on "+m.name)
		}
		err = m.do(a)
	}
	m.w.mu.Unlock()
	if f.drop || f.lost {
		<-ctx.Done()
		return fmt.Errorf("%w: connection lost", host.ErrUnknown)
	}
	if err != nil {
		return &host.Failure{Host: m.name, Act: a.String(), Err: err}
	}
	if s, ok := a.(host.Systemctl); ok && !s.NoBlock && s.Unit == config.UnitName {
		return h.settle(ctx, s.Verb)
	}
	return nil
}

// settle waits as systemctl does: for Type=notify, until etcd is ready.
func (h *fakeHost) settle(ctx context.Context, verb host.Verb) error {
	for {
		h.m.w.mu.Lock()
		h.m.w.tick()
		p, busy := h.m.proc, !h.m.stopping.IsZero()
		h.m.w.mu.Unlock()
		switch verb {
		case host.Start, host.Restart:
			if p != nil && p.ready {
				return nil
			}
		case host.Stop:
			if !busy {
				return nil
			}
		default:
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%w: %w", host.ErrUnknown, err)
		}
	}
}

func (m *machine) do(a host.Act) error {
	switch a := a.(type) {
	case host.WriteFile:
		return m.write(a)
	case host.RemoveFile:
		delete(m.files, a.Path)
		return nil
	case host.MakeDir:
		if !m.users[a.Owner] {
			return fmt.Errorf("install: invalid user: %q", a.Owner)
		}
		m.mkdir(a.Path, a.Owner, a.Group, a.Mode)
		return nil
	case host.SetAside:
		return m.setAside(a)
	case host.Delete:
		for _, p := range m.under(a.Path) {
			delete(m.files, p)
		}
		if !m.mounts[a.Path] {
			delete(m.files, a.Path)
		}
		return nil
	case host.Claim:
		if err := m.claimed(a); err != nil {
			return err
		}
		m.claim = a
		return nil
	case host.Release:
		if m.claim.Token == a.Token {
			m.claim = host.Claim{}
		}
		return nil
	case host.Systemctl:
		return m.systemctl(a)
	case host.InstallPackage:
		if m.w.packaged == "" {
			return fmt.Errorf("E: Unable to locate package %s", a.Package)
		}
		m.version = m.w.packaged
		if m.w.offers == nil || a.Version == "" {
			return nil
		}
		for _, o := range m.w.offers {
			if ok, _ := path.Match(a.Version, o); ok {
				m.version, _, _ = strings.Cut(o, "-")
				return nil
			}
		}
		return fmt.Errorf("E: Version '%s' for '%s' was not found", a.Version, a.Package)
	case host.CopyProgram:
		version := m.programs[a.From]
		if a.From == config.BinaryPath {
			version = m.version
		}
		if version == "" {
			return fmt.Errorf("install: cannot stat %q: No such file or directory", a.From)
		}
		if a.Path == config.BinaryPath {
			m.version = version
		} else {
			m.programs[a.Path] = version
		}
		return nil
	case host.PutProgram:
		content, err := os.ReadFile(a.From)
		if sum := sha256.Sum256(content); err != nil || hex.EncodeToString(sum[:]) != a.SHA256 {
			return fmt.Errorf("sha256 of %s is not %s: %w", a.From, a.SHA256, err)
		}
		m.files[a.Path] = &node{content: content, owner: "root", group: "root", mode: 0o755}
		if _, beside := strings.CutPrefix(a.Path, config.BinaryPath+"-"); beside || a.Path == utilityPath {
			m.programs = maps.Clone(m.programs)
			m.programs[a.Path] = strings.TrimSpace(string(content))
			return nil
		}
		m.version = strings.TrimSpace(string(content))
		return nil
	case host.PutFile:
		content, err := os.ReadFile(a.From)
		if sum := sha256.Sum256(content); err != nil || hex.EncodeToString(sum[:]) != a.SHA256 {
			return fmt.Errorf("sha256 of %s is not %s: %w", a.From, a.SHA256, err)
		}
		saved, err := VerifySnapshot(a.From)
		if err != nil {
			return err
		}
		if d := m.files[path.Dir(a.Path)]; d == nil || !d.dir {
			return fmt.Errorf("install: cannot create regular file %q: No such file or directory", a.Path)
		}
		m.files[a.Path] = &node{content: fmt.Appendf(nil, "snapshot of revision %d", saved.Revision), owner: "root", group: "root", mode: 0o600}
		return nil
	case host.RestoreData:
		return m.restoreData(a)
	case host.ReplayLog:
		return m.replayLog(a)
	case host.Note:
		m.notes = append(slices.Clip(m.notes), a.Line)
		return nil
	case host.AddUser:
		m.users[a.Name] = true
		return nil
	}
	return fmt.Errorf("unknown act %T", a)
}

// utilityPath is where etcdutl is.
const utilityPath = "/usr/bin/etcdutl"

// restoreData is what etcdutl does, and the move into place.
func (m *machine) restoreData(a host.RestoreData) error {
	snapshot, work := m.files[a.Snapshot], m.files[a.Work]
	switch {
	case m.programs[a.Program] == "":
		return fmt.Errorf("%s: not found", a.Program)
	case snapshot == nil || work == nil || a.WALDir != "" && m.files[a.WALWork] == nil:
		return errors.New("no such file or directory")
	case m.files[path.Join(a.DataDir, "member")] != nil:
		return fmt.Errorf("mv: cannot overwrite '%s/member': File exists", a.DataDir)
	case !m.users[a.Owner]:
		return fmt.Errorf("install: invalid user: %q", a.Owner)
	case m.proc != nil:
		return errors.New("the fake's own rule: data was restored under a running etcd")
	}
	conf := config.Member{Name: a.Name, PeerURL: a.PeerURL, Token: a.Token, DataDir: a.DataDir, WALDir: a.WALDir}
	for _, one := range strings.Split(a.Initial, ",") {
		name, url, _ := strings.Cut(one, "=")
		conf.Initial = append(conf.Initial, config.Peer{Name: name, URL: url})
	}
	p := &proc{m: m, conf: conf}
	if !p.found(time.Now()) {
		return errors.New("it is none of the initial cluster")
	}
	p.c.revision = int64(atoi(strings.TrimPrefix(string(snapshot.content), "snapshot of revision "))) + a.Bump
	p.c.compacted = p.c.revision
	return nil
}

func (m *machine) write(a host.WriteFile) error {
	if d := m.files[path.Dir(a.Path)]; d == nil || !d.dir {
		return fmt.Errorf("install: cannot create regular file %q: No such file or directory", a.Path)
	}
	if !m.users[a.Owner] {
		return fmt.Errorf("install: invalid user: %q", a.Owner)
	}
	if n := m.files[a.Path]; n != nil && n.link != "" {
		return nil // written through the link, to /dev/null
	}
	m.files[a.Path] = &node{content: bytes.Clone(a.Content), owner: a.Owner, group: a.Group, mode: a.Mode.Perm(), since: time.Now()}
	return nil
}

func (m *machine) setAside(a host.SetAside) error {
	to := host.AsidePath(a.Path, a.Stamp)
	var move []string
	for _, name := range m.entries(a.Path) {
		if !strings.HasPrefix(name, host.AsidePrefix) && name != "lost+found" {
			move = append(move, name)
		}
	}
	if len(move) == 0 {
		return nil
	}
	if m.proc != nil {
		return errors.New("the fake's own rule: data was moved away under a running etcd")
	}
	m.files[to] = &node{dir: true, owner: "root", group: "root", mode: 0o700, since: time.Now()}
	for _, name := range move {
		from := path.Join(a.Path, name)
		for _, p := range append(m.under(from), from) {
			m.files[path.Join(to, strings.TrimPrefix(p, a.Path))] = m.files[p]
			delete(m.files, p)
		}
	}
	return nil
}

// stopTime and bootTime are what etcd takes to stop and until it has read its
// data.
const (
	stopTime = 80 * time.Millisecond
	bootTime = 100 * time.Millisecond
)

func (m *machine) systemctl(a host.Systemctl) error {
	now := time.Now()
	if a.Unit != config.UnitName && a.Unit != "" {
		return m.clientSystemctl(a)
	}
	m.load()
	file := m.files[config.UnitPath]
	switch a.Verb {
	case host.DaemonReload:
		m.reload()
	case host.Start, host.Restart:
		switch {
		case m.known == "masked":
			return errors.New("Failed to start etcd.service: Unit etcd.service is masked.")
		case m.known == "not-found":
			return errors.New("Failed to start etcd.service: Unit etcd.service not found.")
		case m.proc == nil:
			m.start(now)
		case a.Verb == host.Restart:
			m.restarts = true
			if m.stopping.IsZero() {
				m.stopping = now.Add(stopTime)
			}
		}
	case host.Stop:
		if m.known == "not-found" && m.proc == nil {
			return errors.New("Failed to stop etcd.service: Unit etcd.service not loaded.")
		}
		m.again, m.restarts = time.Time{}, false
		if m.proc != nil && m.stopping.IsZero() {
			m.stopping = now.Add(stopTime)
		}
	case host.Enable:
		switch {
		case m.masked():
			return errors.New("Failed to enable unit: Unit file /etc/systemd/system/etcd.service is masked.")
		case file == nil:
			return errors.New("Failed to enable unit: Unit file etcd.service does not exist.")
		}
		m.files[wantsPath] = &node{link: config.UnitPath}
		m.reload()
	case host.Disable:
		if file == nil {
			return errors.New("Failed to disable unit: Unit file etcd.service does not exist.")
		}
		delete(m.files, wantsPath)
		m.reload()
	case host.Mask:
		if file != nil && file.link == "" {
			return errors.New("Failed to mask unit: File /etc/systemd/system/etcd.service already exists.")
		}
		m.files[config.UnitPath] = &node{link: "/dev/null"}
		m.reload()
	case host.Unmask:
		if m.masked() {
			delete(m.files, config.UnitPath)
		}
		m.reload()
	case host.ResetFailed:
		m.failed, m.exit = false, 0
	default:
		return fmt.Errorf("Unknown command verb %s.", a.Verb)
	}
	return nil
}

// claimed gives the holder of the host's lock, if it is another.
func (m *machine) claimed(a host.Claim) error {
	if m.claim.Token != "" && m.claim.Token != a.Token && !slices.Contains(a.Supersedes, m.claim.Token) {
		return fmt.Errorf("%w: %s", host.ErrClaimed, m.claim.Owner)
	}
	return nil
}

// dump tells a machine's state in words that do not depend on times, tokens,
// keys and IDs, so that two runs can be compared.
func (m *machine) dump(normal func(m *machine, path string, n *node) string) string {
	var b strings.Builder
	u := m.unit()
	fmt.Fprintf(&b, "host %s: %s, %s, %s, stale %v, claimed %v\n", m.name, u.Load, u.Active, cmp.Or(u.Enabled, "no file"), u.Stale, m.claim.Token != "")
	fmt.Fprintf(&b, "  etcd %s, programs %v\n", m.version, m.programs)
	var lines []string
	for p, n := range m.files {
		lines = append(lines, normal(m, p, n))
	}
	slices.Sort(lines)
	for _, l := range lines {
		if l != "" {
			b.WriteString("  " + l + "\n")
		}
	}
	b.WriteString(m.dumpClients())
	return b.String()
}
