package sop

import (
	"fmt"
	"path"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A member's data is made from a snapshot by etcd's own etcdutl, on the host: it
// lies beside etcd in what etcd publishes and in most packages. Where it does not,
// the one beside the binary that etcd_binary_from names is put there.

// utility is where etcdutl is on a host.
func (v View) utility() string { return path.Join(path.Dir(v.layout().Binary), "etcdutl") }

// utilityFits holds when a host has an etcdutl of its etcd's minor version.
func utilityFits(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		b := facts.Programs[v.utility()]
		switch {
		case b.Version == "":
			return fmt.Errorf("no usable etcdutl is at %s of %s%s", v.utility(), name, because(b.Problem))
		case minor(b.Version) != minor(facts.Etcd.Version):
			return fmt.Errorf("etcdutl on %s is %s, and etcd is %s", name, b.Version, orNone(facts.Etcd.Version))
		case bumps(b.Version) != nil:
			return fmt.Errorf("etcdutl on %s: %w", name, bumps(b.Version))
		}
		return nil
	}
}

// bumps says why an etcdutl cannot raise the revision of what it restores; nil where
// it can.
func bumps(version string) error {
	first := release{3, 5, 10} // etcd pull request 16165
	if r, err := parseRelease(version); err == nil && r.compare(first) < 0 {
		return fmt.Errorf("%s cannot raise the revision of what it restores, %s is the first that can", version, first)
	}
	return nil
}

// installUtility puts etcdutl on a host that has none, where there is one to put.
func installUtility(v View, h string, done Condition) []Step {
	u := v.Admin.Utility
	if u == nil {
		return nil
	}
	a := host.PutProgram{From: u.Path, Path: v.utility(), SHA256: u.SHA256}
	return []Step{{Title: "install etcdutl", Host: h, Act: On{h, a}, Until: either(done, utilityFits(h)), Needs: []Safeguard{restorable(h)}}}
}

// restorable: the host has the etcdutl that makes a member's data, or there is one
// to put there.
func restorable(name string) Safeguard {
	return Safeguard{Name: "etcdutl", Show: "etcdutl version",
		Holds: func(v View) error {
			h, ok := v.Host(name)
			if !ok || !h.Reachable() {
				return nil // told by another safeguard, and waivable there
			}
			why := utilityFits(name)(v)
			u := v.Admin.Utility
			switch {
			case why == nil, u != nil && u.Problem == "":
				return nil
			case u != nil:
				return &Refusal{Host: name, Found: "etcdutl beside etcd_binary_from: " + u.Problem, Needed: "an etcdutl to put on the host"}
			case hasEtcd(name)(v) != nil && v.Wanted.BinaryFrom == "":
				return nil // the package may bring it; it is looked at again before it is used
			}
			return &Refusal{Host: name, Found: why.Error(), Needed: "etcd's own etcdutl, of the version of etcd",
				Hint: "install the package that has it (on Debian etcd-client), or name a binary in etcd_binary_from that has etcdutl beside it"}
		}}
}

// hasUtility: etcdutl is there, and of etcd's version.
func hasUtility(name string) Safeguard {
	return Safeguard{Name: "etcdutl", Show: "etcdutl version", Holds: func(v View) error {
		if err := utilityFits(name)(v); err != nil {
			return &Refusal{Host: name, Found: err.Error(), Needed: "etcd's own etcdutl, of the version of etcd"}
		}
		return nil
	}}
}
