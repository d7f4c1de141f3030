package sop

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// do makes one change. Its answer says what was learnt of it; its error what
// went wrong, with the outcome that Judge or the host gave.
func (s *Site) do(ctx context.Context, a Act, v View) (answer string, err error) {
	defer s.changed()
	switch a := a.(type) {
	case AddLearner:
		return s.addLearner(ctx, a, v)
	case Promote:
		return s.promote(ctx, a, v)
	case Expel:
		return s.removeMember(ctx, a, v)
	case MoveLeader:
		return s.moveLeader(ctx, a, v)
	case Downgrade:
		return "", s.downgrade(ctx, a.To, v)
	case CancelDowngrade:
		return "", s.downgrade(ctx, "", v)
	case ChangeAuth:
		return s.changeAuth(ctx, a, v)
	case DefragMember:
		return s.defragment(ctx, a, v)
	case CompactTo:
		return s.compact(ctx, a, v)
	case ClearAlarm:
		return s.clearAlarm(ctx, a, v)
	case SaveSnapshot:
		return s.saveSnapshot(ctx, a, v)
	case BringSnapshot:
		return s.bringSnapshot(ctx, a, v)
	case EditInventory:
		return s.editInventory(a, v)
	case MakeCA:
		ca, err := pki.NewCA(s.Random, s.Now())
		if err != nil {
			return "", err
		}
		return "", s.PKI.Save(ca)
	case IssueCert:
		return s.issue(a, v)
	case RenewCert:
		return s.renewCert(a, v)
	case ChangeCA:
		return s.changeCA(a)
	case Remember:
		if a.Forget {
			return "", s.forget()
		}
		return ID(v.ClusterID()), s.remember(v.ClusterID())
	case NoteRestore:
		return a.lost(), s.noteRestoring(a.Restoring)
	case TellPatroni:
		return "", s.tellPatroni(ctx, a, v)
	case Install, Refresh, PutBack, CopyTarget, EditTrust, Resign, On:
		w, err := s.onItsHost(a, v)
		if err != nil {
			return "", err
		}
		return "", s.onHost(ctx, touches(a), w, v)
	}
	return "", fmt.Errorf("act %T is not one of the set", a)
}

// changed forgets what was read on the admin host, which an act may have changed.
func (s *Site) changed() {
	s.adminMu.Lock()
	defer s.adminMu.Unlock()
	s.adminKept = false
}

// onItsHost is what an act comes to on the host that it touches. An edit of a
// client's file is noted here before it is made.
func (s *Site) onItsHost(a Act, v View) (host.Act, error) {
	switch a := a.(type) {
	case Install:
		return s.render(a, v)
	case Refresh:
		w, err := refreshed(a, v)
		if err != nil {
			return nil, err
		}
		return w, s.noteEdit(a.Host, a.File, v, w.Content, false)
	case PutBack:
		w, err := putBack(a, v)
		if err != nil {
			return nil, err
		}
		return w, s.noteEdit(a.Host, VIPConf, v, w.Content, true)
	case CopyTarget:
		return v.copied(a)
	case EditTrust:
		return v.edited(a)
	case Resign:
		return s.resigned(a, v)
	case On:
		return a.Act, nil
	}
	return nil, fmt.Errorf("act %T is none on a host", a)
}

func (s *Site) onHost(ctx context.Context, name string, a host.Act, v View) error {
	h, err := s.host(v.Spec(name))
	if err != nil {
		return err
	}
	defer s.Meter.atHost()()
	return h.Do(ctx, a)
}

// voterFor picks the member to ask for a change: the leader, which need not
// forward it, and never the member that is to go.
func (s *Site) voterFor(ctx context.Context, v View, not uint64) (Etcd, error) {
	if l, ok := v.Leader(); ok && l.ID != not && v.Alive(l) {
		return s.conn(ctx, v.LookOf(l.ID).Endpoint)
	}
	for _, m := range v.LivingVoters() {
		if m.ID != not {
			return s.conn(ctx, v.LookOf(m.ID).Endpoint)
		}
	}
	return nil, errors.New("no voter answers")
}

func (s *Site) addLearner(ctx context.Context, a AddLearner, v View) (string, error) {
	c, err := s.voterFor(ctx, v, 0)
	if err != nil {
		return "", err
	}
	r, err := c.AddLearner(ctx, v.PeerURL(a.Host))
	if err != nil {
		return "", err
	}
	return "member " + ID(r.Member.ID), nil
}

func (s *Site) promote(ctx context.Context, a Promote, v View) (string, error) {
	m, ok := v.At(a.Host)
	if !ok {
		return "", fmt.Errorf("%s is not on the member list", v.PeerURL(a.Host))
	}
	c, err := s.voterFor(ctx, v, m.ID)
	if err != nil {
		return "", err
	}
	return "member " + ID(m.ID), c.Promote(ctx, m.ID)
}

func (s *Site) removeMember(ctx context.Context, a Expel, v View) (string, error) {
	c, err := s.voterFor(ctx, v, a.ID)
	if err != nil {
		return "", err
	}
	return "member " + ID(a.ID), c.Remove(ctx, a.ID)
}

func (s *Site) moveLeader(ctx context.Context, a MoveLeader, v View) (string, error) {
	to, ok := v.heir(a.From, a.To...)
	if !ok {
		return "", errors.New("no other voter is close behind the leader")
	}
	leader, ok := v.Leader()
	if !ok {
		return "", errors.New("the voters do not agree on a leader")
	}
	c, err := s.conn(ctx, v.LookOf(leader.ID).Endpoint)
	if err != nil {
		return "", err
	}
	err = c.MoveLeader(ctx, to.ID)
	s.mu.Lock()
	s.seen = nil // the leader is not to be where it was, and that is our doing
	s.mu.Unlock()
	return fmt.Sprintf("from %s to %s", ID(leader.ID), ID(to.ID)), err
}

func (s *Site) downgrade(ctx context.Context, to string, v View) error {
	c, err := s.voterFor(ctx, v, 0)
	if err != nil {
		return err
	}
	return c.Downgrade(ctx, to)
}

func (s *Site) editInventory(a EditInventory, v View) (string, error) {
	after, err := editedInventory(a, v)
	if err != nil {
		return "", err
	}
	return "", inventory.Write(s.Inventory, v.Inventory.Content, after)
}

// Patch gives the difference that a plan would make to the inventory, for
// those who keep the file elsewhere.
func (p Plan) Patch(v View) (string, error) {
	for _, s := range p.Steps() {
		if a, ok := s.Act.(EditInventory); ok {
			after, err := editedInventory(a, v)
			if err != nil {
				return "", err
			}
			return inventory.Diff(v.Inventory.Path, v.Inventory.Content, after), nil
		}
	}
	return "", nil
}

func editedInventory(a EditInventory, v View) ([]byte, error) {
	if a.Remove {
		return inventory.RemoveHost(v.Inventory.Content, v.Wanted.Name, a.Host)
	}
	return inventory.AddHost(v.Inventory.Content, v.Wanted.Name, a.Host, v.Spec(a.Host).Seq)
}

func (s *Site) issue(a IssueCert, v View) (string, error) {
	ca, err := s.PKI.Load()
	if err != nil {
		return "", err
	}
	name := v.MemberName(a.Host)
	p, err := ca.Issue(s.Random, s.Now(), pki.Leaf{Name: name, Host: a.Host, Validity: v.Wanted.CertValidity})
	if err != nil {
		return "", err
	}
	if err := s.PKI.SavePair(name, p); err != nil {
		return "", err
	}
	return name, s.datedNow(name)
}

// render gives the file that an Install writes.
func (s *Site) render(a Install, v View) (host.WriteFile, error) {
	content, err := v.content(a)
	if err != nil {
		return host.WriteFile{}, err
	}
	if a.File == ServerKey {
		p, err := s.PKI.LoadPair(v.MemberName(a.Host))
		if err != nil {
			return host.WriteFile{}, err
		}
		content = p.KeyPEM
	}
	return v.writeFile(a.File, content), nil
}

func (v View) writeFile(f File, content []byte) host.WriteFile {
	o := v.owned(f)
	return host.WriteFile{Path: o.Path, Content: content, Owner: o.Owner, Group: o.Group, Mode: o.Mode, Secret: o.Secret}
}

// content gives what a file should hold; nothing for a key, which a View does
// not know.
func (v View) content(a Install) ([]byte, error) {
	switch a.File {
	case CACert:
		if len(v.Admin.CACert) == 0 {
			return nil, pki.ErrNoCA
		}
		return v.Admin.CACert, nil
	case ServerCert:
		if c, ok := v.Admin.Issued[v.MemberName(a.Host)]; ok {
			return c, nil
		}
		return nil, fmt.Errorf("no certificate was issued for %s yet", a.Host)
	case ServerKey:
		return nil, nil
	case UnitFile:
		return config.Unit(config.UnitSpec{DataDir: v.Spec(a.Host).DataDir, Binary: v.layout().Binary, ConfPath: v.layout().Conf, User: v.layout().User}), nil
	case JoinDropIn:
		return config.JoinDropIn(), nil
	case EnvFile:
		env := v.clientEnv(a.Host)
		if err := env.Check(); err != nil {
			return nil, fmt.Errorf("etcdctl.sh of %s: %w", a.Host, err)
		}
		return env.Render(), nil
	case Conf:
		m := v.memberConf(a)
		if err := m.Check(); err != nil {
			return nil, fmt.Errorf("etcd.conf of %s: %w", a.Host, err)
		}
		return m.RenderConf(v.layout().Form), nil
	}
	return nil, fmt.Errorf("file %q is not one of the set", a.File)
}

// clientEnv is etcdctl's environment on a host. An infra host that is no member
// has a certificate of its own.
func (v View) clientEnv(name string) config.ClientEnv {
	l := v.layout()
	env := config.ClientEnv{Endpoints: v.VoterURLs(), CAFile: l.CA, CertFile: l.Cert, KeyFile: l.Key, UserFile: v.passFile(name)}
	if len(env.Endpoints) == 0 { // of a cluster that is only being made
		for _, h := range v.Wanted.Hosts {
			env.Endpoints = append(env.Endpoints, v.Wanted.ClientURL(h))
		}
		slices.Sort(env.Endpoints)
	}
	h, _ := v.Host(name)
	env.API3 = olderThan36(h.Facts.Programs[config.EtcdctlPath].Version)
	_, wanted := v.Wanted.Host(name)
	if _, member := v.At(name); !member && !wanted && (name == v.Wanted.AdminHost || slices.Contains(v.Wanted.InfraHosts, name)) {
		env.CAFile, env.CertFile, env.KeyFile = config.InfraCAPath, config.InfraCertPath, config.InfraKeyPath
	}
	if !l.TLS {
		env.CAFile, env.CertFile, env.KeyFile = "", "", ""
	}
	return env
}

// passFile is where a host keeps the password of etcd's root user, if it does.
func (v View) passFile(name string) string {
	h, _ := v.Host(name)
	if slices.Contains(h.Facts.Dirs[config.ConfDir].Entries, "etcd.pass") {
		return config.PassPath
	}
	return ""
}

// memberConf is the etcd.conf of a host. Timing, quota and compaction of one
// that joins are those of the members that run: a learner with a smaller quota
// stops the writes of the whole cluster.
func (v View) memberConf(a Install) config.Member {
	spec := v.Spec(a.Host)
	m := config.Member{
		Name: v.MemberName(a.Host), DataDir: spec.DataDir, WALDir: spec.WALDir,
		Token: a.Token, State: a.State,
		PeerURL: v.PeerURL(a.Host), ClientURL: v.ClientURL(a.Host),
		ElectionMs: v.Wanted.ElectionMs, HeartbeatMs: v.Wanted.HeartbeatMs, QuotaBytes: v.Wanted.QuotaBytes,
		CompactionMode: "periodic", CompactionRetention: "24h",
	}
	if l := v.layout(); l.TLS {
		m.CAFile, m.CertFile, m.KeyFile = l.CA, l.Cert, l.Key
	}
	if isName(a.Host) {
		// etcd wants addresses here, and names only in what it advertises.
		hv, _ := v.Host(a.Host)
		m.ListenPeer, m.ListenClient = listenURLs(m.PeerURL, hv.Listen), listenURLs(m.ClientURL, hv.Listen, "127.0.0.1")
	}
	if a.State == "new" {
		for _, h := range v.Wanted.Hosts {
			m.Initial = append(m.Initial, config.Peer{Name: v.Wanted.MemberName(h), URL: v.Wanted.PeerURL(h)})
		}
		return m
	}
	m.Initial = v.peers([]string{a.Host})
	if model, ok := v.model(a.Host); ok {
		m.ElectionMs, m.HeartbeatMs, m.QuotaBytes = model.ElectionMs, model.HeartbeatMs, model.QuotaBytes
		m.CompactionMode, m.CompactionRetention = model.CompactionMode, model.CompactionRetention
		m.Token = cmp.Or(model.Token, "etcd-cluster") // etcd's own default; it counts in the first start of a new cluster only
	}
	return m
}

// model is the configuration of a running voter whose host could be looked at,
// of several the one with the largest quota.
func (v View) model(except string) (config.Member, bool) {
	var best config.Member
	var found bool
	for _, m := range v.LivingVoters() {
		name := v.HostOf(m)
		if name == except {
			continue
		}
		h, ok := v.Host(name)
		if f := h.Facts.Files[v.layout().Conf]; !ok || !f.Exists || f.Problem != "" {
			continue
		}
		c, err := v.confOn(h)
		if err == nil && (!found || quotaOr2GiB(c.QuotaBytes) > quotaOr2GiB(best.QuotaBytes)) {
			best, found = c, true
		}
	}
	return best, found
}

// quotaOr2GiB is what etcd takes for a quota that is not set.
func quotaOr2GiB(n int64) int64 {
	if n == 0 {
		return 2 << 30
	}
	return n
}

// refreshed gives a file with its endpoints edited, owner and mode kept.
func refreshed(a Refresh, v View) (host.WriteFile, error) {
	facts, err := v.facts(a.Host)
	if err != nil {
		return host.WriteFile{}, err
	}
	f := facts.Files[a.path()]
	content, err := v.refresh(f.Content, a)
	if err != nil {
		return host.WriteFile{}, err
	}
	return host.WriteFile{Path: a.path(), Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: a.File.isClients()}, nil
}

func (v View) refresh(content []byte, a Refresh) ([]byte, error) {
	switch a.File {
	case EnvFile:
		return config.EditClientEnv(content, a.endpoints(v))
	case PatroniConf, PatronictlConf:
		return config.EditPatroni(content, a.endpoints(v))
	case VIPConf:
		return config.EditVIPManager(content, a.endpoints(v))
	}
	peers, state := a.peers(v), "existing"
	return config.EditConf(v.layout().Form, content, config.MemberEdit{Initial: &peers, State: &state})
}

// saveSnapshot streams the key space of a follower to a file, checks it, and
// puts what is known of it beside it.
func (s *Site) saveSnapshot(ctx context.Context, a SaveSnapshot, v View) (string, error) {
	from, err := v.snapshotFrom(a.From, a.Not...)
	if err != nil {
		return "", err
	}
	if a.Only && v.HostOf(from) != a.From {
		return "", fmt.Errorf("save snapshot: the member on %s does not answer any more", a.From)
	}
	path := a.To
	if path == "" {
		if err := os.MkdirAll(s.snapshotsDir(), 0o700); err != nil {
			return "", fmt.Errorf("save snapshot: %w", err)
		}
		path = filepath.Join(s.snapshotsDir(), RunStamp(s.Now())+".db")
	}
	look := v.LookOf(from.ID)
	c, err := s.conn(ctx, look.Endpoint)
	if err != nil {
		return "", err
	}
	saved, err := save(ctx, c, path)
	if err != nil {
		return "", fmt.Errorf("save snapshot from %s: %w", look.Endpoint, err)
	}
	saved.From, saved.ClusterID, saved.Members, saved.Version = look.Endpoint, v.ClusterID(), v.IDs(), look.Version
	saved.Survivor = a.Only
	return s.recordSnapshot(saved, path, a.To != "")
}

// recordSnapshot puts beside a snapshot what is known of it.
func (s *Site) recordSnapshot(saved Saved, path string, elsewhere bool) (string, error) {
	saved.Taken = s.Now().UTC()
	b, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return "", fmt.Errorf("save snapshot: %w", err)
	}
	if err := os.WriteFile(path+".json", append(b, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("save snapshot: %w", err)
	}
	if elsewhere {
		// The collection knows of it too: it is as good as one of its own.
		if err := os.MkdirAll(s.snapshotsDir(), 0o700); err == nil {
			name := RunStamp(s.Now()) + ".elsewhere.json"
			if abs, err := filepath.Abs(path); err == nil {
				saved.Path = abs
				if b, err := json.MarshalIndent(saved, "", "  "); err == nil {
					_ = os.WriteFile(filepath.Join(s.snapshotsDir(), name), b, 0o600) // a convenience
				}
			}
		}
	}
	if err := s.keepSnapshots(10); err != nil {
		return "", err
	}
	return fmt.Sprintf("revision %d, %d keys, %d bytes, sha256 %s", saved.Revision, saved.Keys, saved.Bytes, saved.SHA256[:12]), nil
}

// keepSnapshots removes the oldest of the admin host's own collection.
func (s *Site) keepSnapshots(n int) error {
	names, err := filepath.Glob(filepath.Join(s.snapshotsDir(), "*.db"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for len(names) > n {
		err := os.Remove(names[0])
		if jerr := os.Remove(names[0] + ".json"); !errors.Is(jerr, fs.ErrNotExist) {
			err = errors.Join(err, jerr)
		}
		if err != nil {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
		names = names[1:]
	}
	return nil
}

// snapshotFrom picks a follower, so that the leader is left to its work; none on
// the hosts in not.
func (v View) snapshotFrom(host string, not ...string) (Member, error) {
	if host != "" {
		if m, ok := v.At(host); ok && !m.Learner && v.Alive(m) {
			return m, nil
		}
	}
	leader, _ := v.Leader()
	living := slices.DeleteFunc(v.LivingVoters(), func(m Member) bool { return slices.Contains(not, v.HostOf(m)) })
	for _, m := range living {
		if m.ID != leader.ID {
			return m, nil
		}
	}
	if len(living) > 0 {
		return living[0], nil
	}
	return Member{}, errors.New("no voter answers")
}

// save writes a snapshot beside its name first and moves it into place once it
// is proved: the sha256 that etcd appends is over all bytes before it, and
// neither etcdctl nor etcdutl checks it on saving.
func save(ctx context.Context, c Etcd, path string) (Saved, error) {
	return receive(path, func(w io.Writer) error {
		r, err := c.Snapshot(ctx)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	}, nil)
}

// receive writes a snapshot's file and proves it; sound may ask more of it.
func receive(path string, write func(w io.Writer) error, sound func(Saved) error) (Saved, error) {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return Saved{}, err
	}
	defer os.Remove(part)
	defer f.Close()
	count := &counter{to: f}
	if err := write(count); err != nil {
		return Saved{}, err
	}
	if err := f.Sync(); err != nil {
		return Saved{}, err
	}
	saved, err := VerifySnapshot(part)
	if err != nil {
		return Saved{}, err
	}
	if saved.Bytes != count.n {
		return Saved{}, fmt.Errorf("%d bytes arrived, %d are on disk", count.n, saved.Bytes)
	}
	if sound != nil {
		if err := sound(saved); err != nil {
			return Saved{}, err
		}
	}
	if err := os.Rename(part, path); err != nil {
		return Saved{}, err
	}
	saved.Path = path
	if abs, err := filepath.Abs(path); err == nil {
		saved.Path = abs
	}
	return saved, nil
}

// A counter counts what is written through it.
type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// ErrSnapshot says that a file is no sound snapshot.
var ErrSnapshot = errors.New("not a sound snapshot")

// checksum proves the sha256 trailer of a snapshot file, and gives the sum of the
// whole file beside it.
func checksum(path string) (sum, whole string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", "", 0, err
	}
	// etcd's pages are of 4 KiB or a multiple of 512 bytes; 32 more are the trailer.
	body := st.Size() - sha256.Size
	if body <= 0 || body%512 != 0 {
		return "", "", 0, fmt.Errorf("%w: %d bytes are no whole pages and a checksum; it was cut off", ErrSnapshot, st.Size())
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, body); err != nil {
		return "", "", 0, err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return "", "", 0, err
	}
	if got := h.Sum(nil); !slices.Equal(got, want) {
		return "", "", 0, fmt.Errorf("%w: its sha256 is %x, its trailer says %x", ErrSnapshot, got, want)
	}
	h.Write(want)
	return hex.EncodeToString(want), hex.EncodeToString(h.Sum(nil)), st.Size(), nil
}
