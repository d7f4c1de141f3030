// Package inventory reads, checks and edits the inventory of an etcd cluster.
//
// The inventory is the user's own Pigsty inventory, which is Ansible YAML: a
// group with a host for every member, each with its etcd_seq, and variables on
// hosts, on groups and on all. It says what is wanted; what is so, only the
// cluster can say.
//
//	v, err := inventory.Read("pigsty.yml")
//	name, err := v.Choose("")        // the group: etcd, or the only one there is
//	for _, f := range v.Lint(name) { // everything that is wrong, at once
//		fmt.Println(f)
//	}
//	g, err := v.Group(name)          // values as Ansible would resolve them
//
// Reading is patient and checking is not. Only broken YAML keeps a file from
// being read; every other defect is a Finding, and Group answers all the same,
// so that a cluster can be looked at and repaired with an inventory that has
// faults. A switch that guards data and cannot be understood counts as guarding.
//
// # Values
//
// A variable on a host wins over one on its group, a nearer group over a
// farther one, and any of them over all.vars. A host that stands in several
// groups has the variables of them all. Scalars follow YAML 1.1 as Ansible
// does: bare yes, no, on and off are booleans, 010 is eight. Vault values and
// Jinja templates are not evaluated but named as findings where they matter.
//
// # Edits
//
// AddHost and RemoveHost take bytes and return bytes, and change the one host:
// indentation, comments, flow or block style, line ends and a missing last
// newline stay. Each edit reads its own result again and compares it with what
// was there; where anything but that host would differ, it fails with ErrByHand,
// says at which line, and changes nothing. Write puts the result in place, and
// only over the very bytes that the edit started from.
//
// Variables is the one table of what is known, and Reference prints it.
package inventory
