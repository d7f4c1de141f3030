package workload

import (
	"errors"
	"fmt"
	"time"
)

// A Profile says what the clients of a load do, and how hard. Zero fields take
// the default that their comment names; the zero Profile is eight clients that
// put, and now and then get, as fast as they are answered.
type Profile struct {
	// Clients are how many work on keys, 8. Each has one call in flight.
	Clients       int `json:"clients"`
	KeysPerClient int `json:"keys_per_client"` // that only it writes, 8
	// SharedKeys are keys that all clients write; none by default. Where there
	// are any, every other call goes to one of them.
	SharedKeys int `json:"shared_keys,omitempty"`
	Mix        Mix `json:"mix"` // 9 puts to 1 get

	// Watchers watch all keys of the load, from its start on. They resume
	// where they were cut off, and cut themselves off now and then.
	Watchers int `json:"watchers,omitempty"`
	// LeaseClients grant leases, attach keys to them, keep them alive, and then
	// revoke them or let them run out. They have a rhythm of their own, which
	// Rate does not change.
	LeaseClients int           `json:"lease_clients,omitempty"`
	LeaseTTL     time.Duration `json:"lease_ttl_ns,omitempty"` // whole seconds, 2 s; etcd may grant more

	// Stale are clients beside the others that were started with the endpoints of
	// then and never ask for new ones, until Load.RestartStale. They have a rhythm of
	// their own too.
	Stale int `json:"stale,omitempty"`

	// Rate is how many calls a second arrive at all clients together, whether
	// they are answered or not (an open loop). With 0 each client calls again
	// as soon as it is answered (a closed loop).
	Rate float64 `json:"rate,omitempty"`
	// Backlog bounds an open loop: as many arrivals may wait for a free client,
	// as many as there are clients by default. What comes on top is turned
	// away and counted (Load.TurnedAway).
	Backlog int `json:"backlog,omitempty"`
}

// A Mix is how often each kind of call is made, as weights. The zero Mix is
// the default's.
type Mix struct {
	Put             float64 `json:"put,omitempty"`
	Get             float64 `json:"get,omitempty"` // linearizable
	SerializableGet float64 `json:"serializable_get,omitempty"`
	Delete          float64 `json:"delete,omitempty"`
	Txn             float64 `json:"txn,omitempty"` // if the mod revision is what the client saw last, put, else get
}

// Everything is a profile with all that a client can ask of etcd.
func Everything() Profile {
	return Profile{
		SharedKeys: 4, Mix: Mix{Put: 5, Get: 2, SerializableGet: 1, Delete: 1, Txn: 3},
		Watchers: 2, LeaseClients: 2,
	}
}

func (m Mix) total() float64 { return m.Put + m.Get + m.SerializableGet + m.Delete + m.Txn }

// pick gives the kind at a place between 0 and 1 of the mix.
func (m Mix) pick(at float64) Kind {
	at *= m.total()
	for _, w := range []struct {
		weight float64
		kind   Kind
	}{{m.Get, Get}, {m.SerializableGet, SerializableGet}, {m.Delete, Delete}, {m.Txn, Txn}} {
		if at < w.weight {
			return w.kind
		}
		at -= w.weight
	}
	return Put
}

// withDefaults gives the profile to go by, or what is wrong with it.
func (p Profile) withDefaults() (Profile, error) {
	if p.Clients == 0 {
		p.Clients = 8
	}
	if p.KeysPerClient == 0 {
		p.KeysPerClient = 8
	}
	if p.Mix == (Mix{}) {
		p.Mix = Mix{Put: 0.9, Get: 0.1}
	}
	if p.LeaseClients > 0 && p.LeaseTTL == 0 {
		p.LeaseTTL = 2 * time.Second
	}
	if p.Rate > 0 && p.Backlog == 0 {
		p.Backlog = p.Clients
	}
	m := p.Mix
	switch {
	case p.Clients < 0 || p.KeysPerClient < 0 || p.SharedKeys < 0 || p.Watchers < 0 || p.LeaseClients < 0 || p.Stale < 0 || p.Rate < 0 || p.Backlog < 0:
		return p, errors.New("negative clients, keys, watchers, rate or backlog")
	case m.Put < 0 || m.Get < 0 || m.SerializableGet < 0 || m.Delete < 0 || m.Txn < 0:
		return p, errors.New("negative weight in the mix")
	case m.Put == 0:
		return p, errors.New("a mix without puts: a load is there to write")
	case p.LeaseTTL < 0 || p.LeaseTTL%time.Second != 0:
		return p, fmt.Errorf("lease TTL %s is not whole seconds", p.LeaseTTL)
	case p.Backlog > 0 && p.Rate == 0:
		return p, errors.New("a backlog without a rate: in a closed loop nothing waits")
	}
	return p, nil
}
