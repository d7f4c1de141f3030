// Package pki keeps the CA and the certificates of a cluster, in the files
// where Pigsty keeps them, beside the inventory:
//
//	files/pki/ca/ca.key, ca.crt       the CA
//	files/pki/etcd/NAME.key, NAME.crt one pair for each member
//	files/pki/csr/NAME.csr            the request it was signed from
//
// A member has one certificate, with which it serves clients, serves peers and
// dials them; its file on the host is another copy of the same pair.
//
//	ca, err := pki.Dir(dir).Load()
//	pair, err := ca.Issue(rand.Reader, now, pki.Leaf{Name: "etcd-1", Host: "10.10.10.10"})
//	err = pki.Dir(dir).SavePair("etcd-1", pair)
//
// The CA decides who may talk to whom. A second one, made where the first was
// merely missing, locks every member out of every other: NewCA is for blank
// hosts alone, and Save never writes over a CA. Where members run already, the
// CA of the directory has to be the one that they serve; Verifies tells.
//
// Another CA takes the place of the first in two strides, and in between both are
// trusted: see rotation.go.
//
// Private keys stand in fields named so and in files of mode 0600. No error
// and no String of this package shows one.
package pki
