package sop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

// Stored is the member list as it is in a member's backend. Up to 3.5 a member
// goes by another one, of its v2 store; from 3.6 on by this one. Where they
// differ, an upgrade brings the difference to light.
type Stored struct {
	Members []StoredMember // by ID
	Auth    bool           // authentication is on
	Problem string         // why it could not be read; empty when it could
}

// A StoredMember is an entry of it.
type StoredMember struct {
	ID      uint64
	Name    string
	Learner bool
}

// stored reads the backend of a member, which it sends as a snapshot. What is
// read is not kept.
func (s *Site) stored(ctx context.Context, c Etcd) *Stored {
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Saving])
	defer stop()
	found, err := s.readStored(ctx, c)
	if err != nil {
		return &Stored{Problem: Explain(err)}
	}
	return found
}

func (s *Site) readStored(ctx context.Context, c Etcd) (*Stored, error) {
	dir, err := os.MkdirTemp("", "etcdrill-stored-")
	if err != nil {
		return nil, fmt.Errorf("read the backend: %w", err)
	}
	defer os.RemoveAll(dir)
	path := dir + "/db"
	r, err := c.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("read the backend: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the backend: %w", err)
	}
	return ReadStored(path)
}

// ReadStored reads the member list in a snapshot file.
func ReadStored(path string) (*Stored, error) {
	if _, _, _, err := checksum(path); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer db.Close()
	var found Stored
	err = db.View(func(tx *bbolt.Tx) error {
		if auth := tx.Bucket([]byte("auth")); auth != nil {
			found.Auth = slices.Equal(auth.Get([]byte("authEnabled")), []byte{1})
		}
		members := tx.Bucket([]byte("members"))
		if members == nil {
			return fmt.Errorf("%w: it has no member list", ErrSnapshot)
		}
		return members.ForEach(func(k, value []byte) error {
			id, err := strconv.ParseUint(string(k), 16, 64)
			if err != nil {
				return fmt.Errorf("%w: member %q: %w", ErrSnapshot, k, err)
			}
			m := struct {
				Name      string `json:"name"`
				IsLearner bool   `json:"isLearner"`
			}{}
			if err := json.Unmarshal(value, &m); err != nil {
				return fmt.Errorf("%w: member %q: %w", ErrSnapshot, k, err)
			}
			found.Members = append(found.Members, StoredMember{ID: id, Name: m.Name, Learner: m.IsLearner})
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found.Members, func(a, b StoredMember) int { return byID(Member{ID: a.ID}, Member{ID: b.ID}) })
	return &found, nil
}

// differs says how a stored member list differs from the one that is told; nil
// when they are the same.
func (s Stored) differs(told []Member) error {
	for _, m := range s.Members {
		t, ok := find(told, m.ID)
		switch {
		case !ok:
			return fmt.Errorf("its backend has member %s (%s), which is on no list: a zombie, which 3.6 brings back (etcd#20967)", ID(m.ID), orNone(m.Name))
		case m.Learner && !t.Learner:
			return fmt.Errorf("its backend has member %s (%s) as a learner, though it was promoted: 3.6 takes its vote away, or does not start at all (etcd#19557)", ID(m.ID), orNone(m.Name))
		case m.Learner != t.Learner:
			return fmt.Errorf("its backend has member %s (%s) as a voter, and the list has it as a learner", ID(m.ID), orNone(m.Name))
		}
	}
	for _, t := range told {
		if !slices.ContainsFunc(s.Members, func(m StoredMember) bool { return m.ID == t.ID }) {
			return fmt.Errorf("its backend lacks member %s (%s), which is on the list", ID(t.ID), orNone(t.Name))
		}
	}
	return nil
}
