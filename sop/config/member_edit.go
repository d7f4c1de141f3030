package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// MemberEdit names the values to change in an etcd.conf; nil leaves a key
// alone.
type MemberEdit struct {
	Token               *string
	State               *string // StateNew or StateExisting
	Initial             *[]Peer
	ElectionMs          *int // milliseconds
	HeartbeatMs         *int // milliseconds
	Quota               *int64
	CompactionMode      *string
	CompactionRetention *string
}

// EditMember gives an etcd.conf with the named values changed and every other
// byte as it was. A key that is missing is added where Pigsty has it. Values
// that are so already leave the file as it is; of initial-cluster the order
// means nothing.
func EditMember(content []byte, e MemberEdit) ([]byte, error) {
	edited, err := e.apply(content)
	if err != nil {
		return nil, fmt.Errorf("edit etcd.conf: %w", err)
	}
	return edited, nil
}

func (e MemberEdit) apply(content []byte) ([]byte, error) {
	present, err := parseMember(content)
	if err != nil {
		return nil, err
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	set := func(key string, value scalar) {
		if err != nil {
			return
		}
		content, err = setScalar(content, value, keyOrder[:slices.Index(keyOrder, key)], key)
	}
	number := func(key string, n int64) { set(key, scalar{text: strconv.FormatInt(n, 10), number: true}) }
	if e.Token != nil {
		set(keyToken, scalar{text: *e.Token})
	}
	if e.State != nil {
		set(keyState, scalar{text: *e.State})
	}
	if e.Initial != nil && !samePeers(present.Initial, *e.Initial) {
		set(keyInitial, scalar{text: formatInitial(*e.Initial)})
	}
	if e.ElectionMs != nil {
		number(keyElection, int64(*e.ElectionMs))
	}
	if e.HeartbeatMs != nil {
		number(keyHeartbeat, int64(*e.HeartbeatMs))
	}
	if e.Quota != nil {
		number(keyQuota, *e.Quota)
	}
	if e.CompactionMode != nil {
		set(keyCompactionMode, scalar{text: *e.CompactionMode, bare: true})
	}
	if e.CompactionRetention != nil {
		set(keyRetention, scalar{text: *e.CompactionRetention})
	}
	return content, err
}

// check refuses values that would leave a file etcd does not start with.
func (e MemberEdit) check() error {
	if e.Token != nil && *e.Token == "" {
		return fmt.Errorf("%s must not be empty", keyToken)
	}
	if e.State != nil && *e.State != StateNew && *e.State != StateExisting {
		return fmt.Errorf("%s %q: %s or %s is expected", keyState, *e.State, StateNew, StateExisting)
	}
	if e.Initial != nil {
		if len(*e.Initial) == 0 {
			return fmt.Errorf("%s must not be empty", keyInitial)
		}
		for _, p := range *e.Initial {
			if err := p.check(); err != nil {
				return err
			}
		}
	}
	if e.Quota != nil && *e.Quota <= 0 || e.ElectionMs != nil && *e.ElectionMs <= 0 || e.HeartbeatMs != nil && *e.HeartbeatMs <= 0 {
		return errors.New("a quota, a timeout or an interval must be above zero")
	}
	if e.CompactionMode != nil && *e.CompactionMode != "periodic" && *e.CompactionMode != "revision" {
		return fmt.Errorf("%s %q: periodic or revision is expected", keyCompactionMode, *e.CompactionMode)
	}
	if e.CompactionRetention != nil && *e.CompactionRetention == "" {
		return fmt.Errorf("%s must not be empty", keyRetention)
	}
	return nil
}
