package sop

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/protobuf/proto"
)

// VerifySnapshot proves a snapshot file: its sha256 trailer, and that the
// backend in it can be read from end to end. The revision is that of the
// newest key in it, and Keys counts revisions of keys, as etcdutl does.
// A file that is not sound gives ErrSnapshot.
func VerifySnapshot(path string) (Saved, error) {
	sum, whole, size, err := checksum(path)
	if err != nil {
		return Saved{}, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return Saved{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer db.Close()
	saved := Saved{Path: path, Bytes: size, SHA256: sum, FileSHA: whole}
	err = db.View(func(tx *bbolt.Tx) error {
		for problem := range tx.Check() {
			return fmt.Errorf("%w: %w", ErrSnapshot, problem)
		}
		saved.readMembers(tx)
		keys := tx.Bucket([]byte("key"))
		if keys == nil {
			return fmt.Errorf("%w: it has no bucket of keys", ErrSnapshot)
		}
		return keys.ForEach(func(k, _ []byte) error {
			if len(k) < 8 {
				return fmt.Errorf("%w: a key of %d bytes is no revision", ErrSnapshot, len(k))
			}
			saved.Keys++
			saved.Revision = max(saved.Revision, int64(binary.BigEndian.Uint64(k)))
			return nil
		})
	})
	if err != nil {
		return Saved{}, err
	}
	return saved, nil
}

// readMembers reads who the members were, whether authentication was on, how far
// the log is applied, and for which minor version of etcd the backend is; those
// before 3.6 do not say. The cluster's ID is not in there.
func (s *Saved) readMembers(tx *bbolt.Tx) {
	if meta := tx.Bucket([]byte("meta")); meta != nil {
		s.Storage = string(meta.Get([]byte("storageVersion")))
		if index := meta.Get([]byte("consistent_index")); len(index) == 8 {
			s.Index = binary.BigEndian.Uint64(index)
		}
	}
	if auth := tx.Bucket([]byte("auth")); auth != nil {
		s.Auth = slices.Equal(auth.Get([]byte("authEnabled")), []byte{1})
	}
	members := tx.Bucket([]byte("members"))
	if members == nil {
		return
	}
	_ = members.ForEach(func(_, value []byte) error {
		var m struct {
			ID       uint64   `json:"id"`
			PeerURLs []string `json:"peerURLs"`
		}
		if json.Unmarshal(value, &m) == nil { // what cannot be read is not known
			s.Members, s.PeerURLs = append(s.Members, m.ID), append(s.PeerURLs, m.PeerURLs...)
		}
		return nil
	})
	slices.Sort(s.Members)
	slices.Sort(s.PeerURLs)
}

// SnapshotAdmits says why a user would not get into a cluster that is restored from
// a snapshot, or would not be its root; nil where he would, and where authentication
// is off in it.
func SnapshotAdmits(path, user, password string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		auth, users := tx.Bucket([]byte("auth")), tx.Bucket([]byte("authUsers"))
		switch {
		case auth == nil || !slices.Equal(auth.Get([]byte("authEnabled")), []byte{1}):
			return nil
		case user == "":
			return errors.New("authentication is on in the snapshot, and no user is given")
		case users == nil || users.Get([]byte(user)) == nil:
			return fmt.Errorf("authentication is on in the snapshot, and it has no user %s", user)
		}
		var u authpb.User
		if err := proto.Unmarshal(users.Get([]byte(user)), &u); err != nil {
			return fmt.Errorf("user %s in the snapshot: %w", user, err)
		}
		if bcrypt.CompareHashAndPassword(u.Password, []byte(password)) != nil {
			return fmt.Errorf("authentication is on in the snapshot, and %s has another password there", user)
		}
		if !slices.Contains(u.Roles, "root") {
			return fmt.Errorf("authentication is on in the snapshot, and %s has not the role root there", user)
		}
		return nil
	})
}

// ReadSnapshot proves a snapshot file, and adds what is recorded beside it. Without
// a record it is not known where and when it was taken.
func ReadSnapshot(path string) (Saved, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Saved{}, err
	}
	saved, err := VerifySnapshot(path)
	if err != nil {
		return Saved{}, err
	}
	if saved.Keys == 0 {
		return Saved{}, fmt.Errorf("%w: there is no key in it", ErrSnapshot)
	}
	b, err := os.ReadFile(path + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return saved, nil
	}
	var beside Saved
	if err == nil {
		err = json.Unmarshal(b, &beside)
	}
	switch {
	case err != nil:
		return Saved{}, fmt.Errorf("%w: what is recorded in %s.json cannot be read: %w", ErrSnapshot, path, err)
	case beside.SHA256 != saved.SHA256:
		return Saved{}, fmt.Errorf("%w: its sha256 is %s, %s.json is about one with %s", ErrSnapshot, saved.SHA256, path, beside.SHA256)
	}
	saved.Taken, saved.From, saved.ClusterID, saved.Version, saved.Survivor = beside.Taken, beside.From, beside.ClusterID, beside.Version, beside.Survivor
	if beside.Survivor { // in the file there is but one
		saved.PeerURLs = beside.PeerURLs
	}
	if len(beside.Members) > 0 {
		saved.Members = beside.Members
	}
	return saved, nil
}
