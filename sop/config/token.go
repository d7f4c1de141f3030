package config

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
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
	return newToken("etcd-", now, random)
}

// NewRestoreToken makes one for a cluster that is restored. It is of another form,
// so that nobody who goes on with a creation that was cut off starts blank members
// beside restored ones.
func NewRestoreToken(now time.Time, random io.Reader) (string, error) {
	return newToken("etcd-restore-", now, random)
}

func newToken(prefix string, now time.Time, random io.Reader) (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("read randomness for an initial-cluster-token: %w", err)
	}
	return prefix + now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:]), nil
}

// IsToken reports whether a token has the form that NewToken gives. Pigsty's
// own are the cluster's name, which may well begin alike.
func IsToken(token string) bool {
	_, ok := TokenTime(token)
	return ok
}

// TokenTime is the second in which NewToken made a token; false for a token of
// another form.
func TokenTime(token string) (time.Time, bool) {
	stamp, random, ok := strings.Cut(strings.TrimPrefix(token, "etcd-"), "-")
	if !ok || !strings.HasPrefix(token, "etcd-") || random == "" || strings.Trim(random, "0123456789abcdef") != "" {
		return time.Time{}, false
	}
	made, err := time.Parse("20060102T150405Z", stamp)
	return made, err == nil
}
