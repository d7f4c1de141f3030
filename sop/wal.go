package sop

import (
	"encoding/binary"
	"errors"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"google.golang.org/protobuf/encoding/protowire"
)

// An Identity is whose data a write-ahead log holds.
type Identity struct {
	Member, Cluster uint64
}

// ErrNoIdentity says that the beginning of a WAL segment does not tell whose
// it is.
var ErrNoIdentity = errors.New("no member and cluster ID at the beginning of the log")

// Identify reads member and cluster ID from the first bytes of a WAL segment:
// every segment begins with a checksum record and a metadata record. A frame is
// a little-endian length (its lower 56 bits; the rest tells the padding) and a
// walpb.Record; the metadata is an etcdserverpb.Metadata.
func Identify(head []byte) (Identity, error) {
	for len(head) >= 8 {
		field := binary.LittleEndian.Uint64(head)
		size := field & (1<<56 - 1)
		pad := uint64(0)
		if int64(field) < 0 {
			pad = (field >> 56) & 7
		}
		head = head[8:]
		if size == 0 || size+pad > uint64(len(head)) {
			break
		}
		r, ok := recordOf(head[:size])
		if !ok {
			break
		}
		if r.kind == metadataRecord {
			return identity(r.data)
		}
		head = head[size+pad:]
	}
	return Identity{}, ErrNoIdentity
}

// A record is a walpb.Record.
type record struct {
	kind uint64
	crc  uint32
	data []byte
}

// recordOf reads type (1), crc (2) and data (3).
func recordOf(b []byte) (r record, ok bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return record{}, false
		}
		b = b[n:]
		var v uint64
		switch {
		case num == 1 && typ == protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
			r.kind = v
		case num == 2 && typ == protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
			r.crc = uint32(v)
		case num == 3 && typ == protowire.BytesType:
			r.data, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return record{}, false
		}
		b = b[n:]
	}
	return r, true
}

// identity reads NodeID (1) and ClusterID (2) of an etcdserverpb.Metadata.
func identity(b []byte) (Identity, error) {
	var id Identity
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return Identity{}, ErrNoIdentity
		}
		b = b[n:]
		var v uint64
		if typ == protowire.VarintType {
			v, n = protowire.ConsumeVarint(b)
		} else {
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return Identity{}, ErrNoIdentity
		}
		switch num {
		case 1:
			id.Member = v
		case 2:
			id.Cluster = v
		}
		b = b[n:]
	}
	if id.Member == 0 || id.Cluster == 0 {
		return Identity{}, ErrNoIdentity
	}
	return id, nil
}

// logOf is the beginning of a host's log, wherever it is kept.
func logOf(facts host.Facts, spec inventory.Host) []byte {
	for _, path := range dataDirs(spec) {
		if d := facts.Dirs[path]; d.WAL {
			return d.WALHead
		}
	}
	return nil
}
