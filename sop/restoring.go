package sop

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A Restoring is a restore that was begun: what a rerun has to know of it, since
// neither its token nor what was lost can be read off the hosts.
type Restoring struct {
	SHA256   string    `json:"sha256"` // of the snapshot's file
	Revision int64     `json:"revision"`
	Taken    time.Time `json:"taken,omitzero"` // when the snapshot was
	Token    string    `json:"token"`          // initial-cluster-token of the new cluster
	Stamp    string    `json:"stamp"`          // names what is set aside
	Began    time.Time `json:"began"`
	Code     string    `json:"code"` // of the consent, for all runs of it
	// Former are the clusters that the new one stands for: the one that was there,
	// the snapshot's, and those before them.
	Former []uint64 `json:"former"`
	// Newest is the newest revision that was seen before, zero when none was; Where
	// is the host that had it.
	Newest int64  `json:"newest_seen"`
	Where  string `json:"seen_on,omitempty"`
	// Survivor is set where the snapshot is of the most advanced that was left.
	Survivor bool `json:"survivor,omitempty"`
	Done     bool `json:"done"`
}

// work is where a host keeps what is not whole yet, in a data or WAL directory.
// It is in the place for what is set aside, so that nobody takes it for data.
func (r Restoring) work(dir string) string { return path.Join(host.AsidePath(dir, r.Stamp), "restore") }

// copyName is what the snapshot is called on a host. It says what is in it.
func (r Restoring) copyName() string { return "snapshot-" + r.SHA256[:min(16, len(r.SHA256))] + ".db" }

// lost tells which acknowledged writes are gone, as far as that can be known.
func (r Restoring) lost() string {
	at := fmt.Sprintf("revision %d", r.Revision)
	if !r.Taken.IsZero() {
		at += ", taken " + r.Taken.UTC().Format("2006-01-02 15:04:05 MST")
	}
	switch {
	case r.Newest <= r.Revision && r.Survivor:
		return fmt.Sprintf("nothing is gone that any member had whose data is left: the snapshot (%s) is of the one that came furthest", at)
	case r.Newest == 0:
		return fmt.Sprintf("what was written after the snapshot (%s) is gone; how much that was is not known: no member tells a revision", at)
	case r.Newest <= r.Revision:
		return fmt.Sprintf("no write is known to be gone: the snapshot (%s) is as new as anything seen, revision %d on %s", at, r.Newest, r.Where)
	}
	return fmt.Sprintf("the writes of %d revisions, %d to %d, are gone: the snapshot is of %s, and %s had %d; what came after that nobody saw", r.Newest-r.Revision, r.Revision+1, r.Newest, at, r.Where, r.Newest)
}

func (s *Site) restoringPath() string { return filepath.Join(s.State, "restore."+s.Group) }

// restoring reads what is noted; nil where nothing is.
func (s *Site) restoring() *Restoring {
	b, err := os.ReadFile(s.restoringPath())
	if err != nil {
		return nil
	}
	var r Restoring
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// noteRestoring writes it down whole or not at all.
func (s *Site) noteRestoring(r Restoring) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(s.State, 0o700)
	}
	if err != nil {
		return fmt.Errorf("note the restore: %w", err)
	}
	fresh := s.restoringPath() + ".new"
	if err := os.WriteFile(fresh, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("note the restore: %w", err)
	}
	if err := os.Rename(fresh, s.restoringPath()); err != nil {
		return fmt.Errorf("note the restore: %w", err)
	}
	return nil
}
