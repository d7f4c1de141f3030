package sop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/pki"
)

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

// RunName names a run of a procedure, for its directory: names sort by when they
// began.
func RunName(began time.Time, p Procedure) string {
	verb, _, _ := strings.Cut(strings.ReplaceAll(p.String(), ":", "-"), " ")
	if s := SubjectsOf(p); len(s) == 1 {
		verb += "-" + strings.NewReplacer("/", "-", " ", "-").Replace(s[0])
	}
	return RunStamp(began) + "-" + verb
}

// RunStamp is a moment as the names of runs and snapshots have it, which sort by it.
func RunStamp(t time.Time) string { return t.UTC().Format("20060102T150405.000Z") }

// BeginRun opens the journal of a run, and lets runs/latest point to it.
func (s *Site) BeginRun(run string) (*FileJournal, error) {
	dir := filepath.Join(s.RunsDir(), run)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep a journal beside the inventory: %w", err)
	}
	file, err := OpenJournal(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		return nil, err
	}
	// The link is a convenience: without it the directories still sort by time.
	fresh := filepath.Join(dir, "latest")
	if os.Symlink(run, fresh) == nil {
		_ = os.Rename(fresh, filepath.Join(s.RunsDir(), "latest"))
	}
	return file, nil
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
