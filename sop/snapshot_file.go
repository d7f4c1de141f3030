package sop

import (
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// VerifySnapshot proves a snapshot file: its sha256 trailer, and that the
// backend in it can be read from end to end. The revision is that of the
// newest key in it, and Keys counts revisions of keys, as etcdutl does.
// A file that is not sound gives ErrSnapshot.
func VerifySnapshot(path string) (Saved, error) {
	sum, size, err := checksum(path)
	if err != nil {
		return Saved{}, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return Saved{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	defer db.Close()
	saved := Saved{Path: path, Bytes: size, SHA256: sum}
	err = db.View(func(tx *bbolt.Tx) error {
		for problem := range tx.Check() {
			return fmt.Errorf("%w: %w", ErrSnapshot, problem)
		}
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
