package sop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A ClientRecord is what this admin host did to files that a process reads only
// when it starts or is told to. No file, unit or API says which list of
// endpoints such a process has in its head: a unit's start and a file's change
// tell nothing of edits in between. So each edit is written down, before it is
// made, with the process that ran at that moment.
type ClientRecord struct {
	Patroni map[string]PatroniRecord `json:"patroni,omitempty"`     // by host
	VIP     map[string][]VIPEdit     `json:"vip_manager,omitempty"` // by host, oldest first
}

// A PatroniRecord is what Patroni on a host was last told.
type PatroniRecord struct {
	Owed bool      `json:"owed,omitempty"` // its file was edited, and it was not told since
	Told time.Time `json:"told,omitzero"`  // when it was last told to read its file
	Sum  string    `json:"sum,omitempty"`  // sha256 of the file that it read then, hex
}

// A VIPEdit is one edit of ours in a vip-manager file.
type VIPEdit struct {
	BootID string   `json:"boot_id,omitempty"`
	PID    int      `json:"pid,omitempty"` // process at that time, 0 when none ran
	Before []string `json:"before"`
	After  []string `json:"after"`
	Back   bool     `json:"back,omitempty"` // it put the edit before it back
}

// keptEdits is how many edits are kept for a host: a process that is older than
// all of them is taken to run what the first of them found.
const keptEdits = 32

func (s *Site) clientRecordPath() string { return filepath.Join(s.State, "clients."+s.Group+".json") }

// clientRecord reads the record. One that cannot be read is none: nothing is
// then known of what processes run with, and the files' contents are believed.
func (s *Site) clientRecord() ClientRecord {
	var r ClientRecord
	b, err := os.ReadFile(s.clientRecordPath())
	if err != nil || json.Unmarshal(b, &r) != nil {
		return ClientRecord{}
	}
	return r
}

func (s *Site) keepClientRecord(r ClientRecord) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(s.State, 0o700)
	}
	if err == nil {
		part := s.clientRecordPath() + ".part"
		if err = os.WriteFile(part, append(b, '\n'), 0o600); err == nil {
			err = os.Rename(part, s.clientRecordPath())
		}
	}
	if err != nil {
		return fmt.Errorf("write down what clients were given: %w", err)
	}
	return nil
}

// noteEdit writes down an edit that is about to be made; back says that it takes
// the one before it back.
func (s *Site) noteEdit(name string, f File, v View, after []byte, back bool) error {
	h, _ := v.Host(name)
	r := s.clientRecord()
	switch f {
	case PatroniConf:
		if bytes.Equal(h.Facts.Files[config.PatroniPath].Content, after) {
			return nil
		}
		if r.Patroni == nil {
			r.Patroni = map[string]PatroniRecord{}
		}
		p := r.Patroni[name]
		p.Owed = true
		r.Patroni[name] = p
	case VIPConf:
		old, err := config.VIPManagerEndpoints(h.Facts.Files[config.VIPManagerPath].Content)
		if err != nil {
			return err
		}
		next, err := config.VIPManagerEndpoints(after)
		if err != nil {
			return err
		}
		e := VIPEdit{BootID: h.Facts.BootID, PID: h.Facts.Units[config.VIPManagerUnit].PID, Before: old, After: next, Back: back}
		if r.VIP == nil {
			r.VIP = map[string][]VIPEdit{}
		}
		all := append(slices.Clone(r.VIP[name]), e)
		r.VIP[name] = all[max(0, len(all)-keptEdits):]
	default:
		return nil
	}
	return s.keepClientRecord(r)
}

// tellPatroni lets Patroni read its file, and writes down that it was told and
// what there was to read.
func (s *Site) tellPatroni(ctx context.Context, a TellPatroni, v View) error {
	if err := s.onHost(ctx, a.Host, host.Systemctl{Verb: host.Reload, Unit: config.PatroniUnit}, v); err != nil {
		return err
	}
	h, _ := v.Host(a.Host)
	sum := sha256.Sum256(h.Facts.Files[config.PatroniPath].Content)
	r := s.clientRecord()
	if r.Patroni == nil {
		r.Patroni = map[string]PatroniRecord{}
	}
	r.Patroni[a.Host] = PatroniRecord{Told: s.Now().UTC(), Sum: hex.EncodeToString(sum[:])}
	return s.keepClientRecord(r)
}
