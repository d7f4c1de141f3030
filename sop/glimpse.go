package sop

import (
	"context"
	"maps"
	"path"
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A Glimpse is a look at a small part of a host. A whole look starts two dozen
// programs there, and a newcomer takes as many acts that each change one file:
// after those, that file is looked at. Whoever has a safeguard to hold looks
// at the whole host again.
type Glimpse struct {
	Files []string // to read
	Sums  []string // secrets
	Dirs  []string
	Globs []string
	Unit  bool // and what systemd says of etcd's unit
}

// glimpseOf is what to look at after an act that changes so little that nothing
// else has to be looked at; nil for all others.
func glimpseOf(a Act, l config.Layout) *Glimpse {
	var g Glimpse
	switch a := a.(type) {
	case Install:
		switch a.File {
		case ServerKey:
			g.Sums = []string{a.path()}
		case Conf, CACert, ServerCert, UnitFile, JoinDropIn, EnvFile:
			g.Files = []string{a.path()}
		default:
			return nil // those of clients are more than their bytes
		}
	case EditTrust:
		g.Files = []string{a.Path}
	case Refresh:
		if a.File != Conf && a.File != EnvFile {
			return nil
		}
		g.Files = []string{a.path()}
	case On:
		switch act := a.Act.(type) {
		case host.MakeDir:
			g.Dirs = []string{act.Path}
		case host.RemoveFile:
			g.Files = []string{act.Path}
		case host.Systemctl:
			if act.Verb != host.DaemonReload && (act.Verb != host.Enable || act.Unit != l.Unit) {
				return nil
			}
			g.Unit = true
		default:
			return nil
		}
	default:
		return nil
	}
	for _, f := range g.Files { // systemd tells that its files are newer than what it has read
		g.Unit = g.Unit || f == l.UnitPath() || path.Dir(f) == l.JoinDropInDir()
	}
	return &g
}

// glimpseAt looks at a part of a host that was looked at before. It says no
// where that is not enough: the host has not been seen yet or could not be,
// something of what is asked was not asked for before, or it has been booted.
func (s *Site) glimpseAt(ctx context.Context, v View, spec inventory.Host, g Glimpse) (HostView, bool) {
	known, ok := s.last().Host(spec.Name)
	if !ok || !known.Reachable() || known.Taken.IsZero() || !knows(known.Facts, g) {
		return HostView{}, false
	}
	h, err := s.host(spec)
	if err != nil {
		return HostView{}, false
	}
	q := host.Question{Files: g.Files, Sums: g.Sums, Dirs: g.Dirs, Globs: g.Globs}
	if g.Unit {
		q.Units = []string{v.layout().Unit}
	}
	ctx, stop := context.WithTimeout(ctx, s.Deadlines[Looking])
	defer stop()
	hv := known
	hv.Glimpsed = s.Now()
	done := s.Meter.atHost()
	facts, err := h.Look(ctx, q)
	done()
	if err != nil || facts.BootID != known.Facts.BootID {
		return HostView{}, false
	}
	hv.Facts.Files = kept(known.Facts.Files, facts.Files)
	hv.Facts.Dirs = kept(known.Facts.Dirs, facts.Dirs)
	hv.Facts.Units = kept(known.Facts.Units, facts.Units)
	// What is not there is not in the answer.
	hv.Facts.Sums = kept(without(known.Facts.Sums, g.Sums), facts.Sums)
	hv.Facts.Globs = kept(without(known.Facts.Globs, g.Globs), facts.Globs)
	return hv, true
}

// knows reports whether all that a Glimpse asks for was asked for before. Sums
// and globs of files that are not there are in no answer.
func knows(f host.Facts, g Glimpse) bool {
	return !slices.ContainsFunc(g.Files, func(p string) bool { _, ok := f.Files[p]; return !ok }) &&
		!slices.ContainsFunc(g.Dirs, func(p string) bool { _, ok := f.Dirs[p]; return !ok }) &&
		(!g.Unit || len(f.Units) > 0)
}

// kept is what is known after a look that did not ask about all.
func kept[T any](known, asked map[string]T) map[string]T {
	if len(asked) == 0 {
		return known
	}
	all := maps.Clone(known)
	if all == nil {
		all = map[string]T{}
	}
	maps.Copy(all, asked)
	return all
}

// without is what is known, but for what was asked about.
func without[T any](known map[string]T, asked []string) map[string]T {
	rest := maps.Clone(known)
	for _, k := range asked {
		delete(rest, k)
	}
	return rest
}
