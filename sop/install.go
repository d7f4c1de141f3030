package sop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// How etcd comes to a host. What a host has is used when it is etcd_version, or
// when none is asked for; else the binary that etcd_binary_from names is put
// there, or the package that etcd_package names is installed. What came of it is
// looked at before anybody relies on it.

// installEtcd brings etcd and its user to a host. The package comes first, since
// it may bring the user along. A host whose member has run is left alone: which
// version that one runs is the business of an upgrade.
func installEtcd(v View, h string) []Step {
	ran := func(v View) error { return hasStarted(h)(v) }
	return []Step{
		{Title: "install etcd", Host: h, Act: On{h, v.etcdFor()}, Until: either(ran, hasEtcd(h)), Needs: []Safeguard{installable(h)}},
		{Title: "add the user " + v.layout().User, Host: h, Act: On{h, host.AddUser{Name: v.layout().User, Home: config.HomeDir}}, Until: either(ran, hasUser(h))},
	}
}

// etcdFor is what brings etcd to a host.
func (v View) etcdFor() host.Act {
	g := v.Wanted
	if g.BinaryFrom != "" {
		a := host.PutProgram{From: g.BinaryFrom, Path: g.Binary, SHA256: g.BinarySHA256}
		if v.Admin.Binary != nil {
			a.From = v.Admin.Binary.Path
		}
		return a
	}
	a := host.InstallPackage{Package: g.Package, Version: g.PackageVersion}
	if a.Version == "" && g.Version != "" {
		a.Version = g.Version + "*" // the packager's own number follows
	}
	return a
}

// hasEtcd holds when a host has the etcd that is asked for.
func hasEtcd(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		switch b, want := facts.Etcd, v.Wanted.Version; {
		case b.Version == "":
			return fmt.Errorf("no usable etcd is at %s of %s%s", v.Wanted.Binary, name, because(b.Problem))
		case want != "" && b.Version != want:
			return fmt.Errorf("etcd on %s is %s, and etcd_version asks for %s", name, b.Version, want)
		}
		return nil
	}
}

func because(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}

// hasUser holds when the user that runs etcd is on a host.
func hasUser(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if user := v.layout().User; !facts.Users[user] {
			return fmt.Errorf("there is no user %s on %s", user, name)
		}
		return nil
	}
}

// installable: the host has the etcd that is asked for, or there is something to
// bring it from.
func installable(name string) Safeguard {
	return Safeguard{Name: "installed", Show: "etcd --version",
		Holds: func(v View) error {
			h, ok := v.Host(name)
			if !ok || !h.Reachable() {
				return nil // told by another safeguard, and waivable there
			}
			if hasEtcd(name)(v) == nil {
				return nil
			}
			g, b := v.Wanted, v.Admin.Binary
			switch {
			case b == nil:
				return nil // whether the package is to be had is for the host to find out
			case b.Problem != "":
				return &Refusal{Host: name, Found: "etcd_binary_from: " + b.Problem, Needed: "a binary to put on the host", Hint: "correct etcd_binary_from"}
			case b.SHA256 != g.BinarySHA256:
				return &Refusal{Host: name, Found: fmt.Sprintf("the sha256 of %s is %s, etcd_binary_sha256 is %s", b.Path, b.SHA256, orNone(g.BinarySHA256)),
					Needed: "the binary that was meant", Hint: "find out which of the two is right before any host runs it"}
			}
			return nil
		}}
}

// installed: the host has the etcd that is asked for, and of the same minor
// version as the other hosts of a new cluster.
func installed(name string) Safeguard {
	return Safeguard{Name: "installed", Show: "etcd --version",
		Holds: func(v View) error {
			if err := hasEtcd(name)(v); err != nil {
				return &Refusal{Host: name, Found: err.Error(), Needed: "an installed etcd"}
			}
			if v.Exists() {
				return nil // the members decide, which is another safeguard's business
			}
			own, _ := v.Host(name)
			for _, h := range v.reachableHosts() {
				other, _ := v.Host(h.Name)
				if b := other.Facts.Etcd; b.Version != "" && minor(b.Version) != minor(own.Facts.Etcd.Version) {
					return &Refusal{Host: name, Found: fmt.Sprintf("it has etcd %s, %s has %s", own.Facts.Etcd.Version, h.Name, b.Version), Needed: "one minor version on all hosts",
						Hint: "say which in the inventory: etcd_version"}
				}
			}
			return nil
		}}
}

// versionFits: what the newcomer has, or will get as far as the inventory says,
// is of the members' minor version. It is asked before anything is installed.
func versionFits(name string) Safeguard {
	return Safeguard{Name: "newcomer-version", Show: "etcd --version",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			has, what := facts.Etcd.Version, "it has etcd "+facts.Etcd.Version
			if hasEtcd(name)(v) != nil {
				has, what = v.Wanted.Version, "etcd_version asks for "+v.Wanted.Version
			}
			if has == "" {
				return nil // what comes of it is looked at before it is announced
			}
			return v.ofTheMembersMinor(name, has, what)
		}}
}

// sameVersion: the etcd on a newcomer is of the members' minor.
func sameVersion(name string) Safeguard {
	return Safeguard{Name: "newcomer-version", Show: "etcd --version",
		Holds: func(v View) error {
			facts, err := v.facts(name)
			if err != nil {
				return err
			}
			b := facts.Etcd
			if b.Version == "" {
				return &Refusal{Host: name, Found: fmt.Sprintf("no usable etcd is at %s%s", v.Wanted.Binary, because(b.Problem)), Needed: "an installed etcd",
					Hint: "install the version that the members run"}
			}
			return v.ofTheMembersMinor(name, b.Version, "it has etcd "+b.Version)
		}}
}

func (v View) ofTheMembersMinor(name, version, what string) error {
	for _, l := range v.Looks {
		if l.Answers() && minor(l.Version) != minor(version) {
			return &Refusal{Host: name, Found: fmt.Sprintf("%s, the members run %s", what, l.Version), Needed: "the members' minor version",
				Hint: "install the version that the members run, or have it installed: etcd_version: " + l.Version}
		}
	}
	return nil
}

// etcdUser: the user that runs etcd is there before files are given to it.
func etcdUser(name string) Safeguard {
	return Safeguard{Name: "etcd-user", Show: "id etcd",
		Holds: func(v View) error {
			if err := hasUser(name)(v); err != nil {
				return &Refusal{Host: name, Found: err.Error(), Needed: "the user that runs etcd", Hint: "install the etcd package, or: useradd --system " + v.layout().User}
			}
			return nil
		}}
}

// localBinaries look at the binaries that are to be put on hosts: etcd, and the
// etcdutl that lies beside it.
func (s *Site) localBinaries(ctx context.Context, g inventory.Group) (etcd, utility *Program) {
	if g.BinaryFrom == "" {
		return nil, nil
	}
	path := g.BinaryFrom
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(s.Inventory), path)
	}
	beside := filepath.Join(filepath.Dir(path), "etcdutl")
	if _, err := os.Stat(beside); err == nil {
		utility = s.localProgram(beside)
	}
	etcd = s.localProgram(path)
	if s.Ask != nil && etcd.Version == "" && etcd.SHA256 != "" && etcd.SHA256 == g.BinarySHA256 { // no other is run
		ctx, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
		etcd.Version, _ = s.Ask(ctx, path) // it may be for another processor
		stop()
		s.mu.Lock()
		s.programs[path] = *etcd
		s.mu.Unlock()
	}
	return etcd, utility
}

// AskVersion asks a program of this machine for its version, which it says in a line
// as etcd does: "etcd Version: 3.7.3".
func AskVersion(ctx context.Context, program string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	_, version, ok := strings.Cut(first, "Version: ")
	if !ok {
		return "", fmt.Errorf("%s says %q, which is no version of etcd", program, first)
	}
	return strings.TrimSpace(version), nil
}

// localProgram takes the sum of a program anew only when the file has changed.
func (s *Site) localProgram(path string) *Program {
	p := Program{Path: path}
	fail := func(err error) *Program {
		p.Problem = err.Error()
		return &p
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	p.size, p.modified = st.Size(), st.ModTime()
	s.mu.Lock()
	last := s.programs[p.Path]
	s.mu.Unlock()
	if last.Path == p.Path && last.size == p.size && last.modified.Equal(p.modified) {
		return &last
	}
	head := make([]byte, 2)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return fail(fmt.Errorf("%s: %w", p.Path, err))
	}
	if head = head[:n]; bytes.Equal(head, []byte(gzipped)) || bytes.Equal(head, []byte(zipped)) {
		return fail(errors.New(p.Path + " is an archive: unpack it, and name the etcd that is in it"))
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.MultiReader(bytes.NewReader(head), f)); err != nil {
		return fail(err)
	}
	p.SHA256 = hex.EncodeToString(sum.Sum(nil))
	s.mu.Lock()
	if s.programs == nil {
		s.programs = map[string]Program{}
	}
	s.programs[p.Path] = p
	s.mu.Unlock()
	return &p
}

// How the archives begin that etcd is published in.
const (
	gzipped = "\x1f\x8b"
	zipped  = "PK"
)
