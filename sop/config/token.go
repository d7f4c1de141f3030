package config

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// NewToken makes an initial-cluster-token that no cluster had before:
// "etcd-20260102T150405Z-" and 16 hex digits.
//
// Cluster and member IDs are hashes of peer URLs and this token. Two clusters
// on the same hosts with the same token have the same IDs, and a member of the
// old one that comes back is taken into the new one, with its old data. The
// token is read at the first start only, so a fresh one costs nothing.
func NewToken(now time.Time, random io.Reader) (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("read randomness for an initial-cluster-token: %w", err)
	}
	return "etcd-" + now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:]), nil
}
