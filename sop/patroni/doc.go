// Package patroni reads what Patroni says of itself.
//
// Patroni is etcd's client that matters most: it keeps the leader key of a
// PostgreSQL cluster there. It has a REST API on each of its hosts, and two of
// its pages tell whether a change around it did harm:
//
//   - GET /patroni is one instance's word about itself: state, role, timeline,
//     and when it last heard from etcd.
//
//   - GET /cluster is what it has read in etcd about all instances: who leads,
//     on which timeline.
//
//     m, err := patroni.ParseMember(reply.Body)
//     if m.Leads() && m.Fresh(clock, 30*time.Second) { ... }
//
// Neither page, nor patronictl, tells what Patroni has read from its own file:
// /config and show-config give the dynamic configuration in etcd. What a reload
// would activate besides a known change can therefore be guessed at from names
// and addresses, which do show, and not be known.
//
// Versions differ: a primary was called master until 4.0, an instance's name is
// told from 3.1 on, and the time of the last word from etcd from 2.1 on. What
// an older one does not tell is left empty; what makes no sense is an error.
package patroni
