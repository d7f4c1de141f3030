package sop

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A cluster may have been set up by somebody else, with another unit, other
// files and other names. The inventory says what differs from Pigsty's layout;
// the members' names are in the member list, and nowhere else.

// layoutOf is where a group's cluster has its files.
func layoutOf(g inventory.Group) config.Layout {
	p := config.Pigsty()
	l := config.Layout{
		Unit: cmp.Or(g.Unit, p.Unit), Binary: cmp.Or(g.Binary, p.Binary), User: cmp.Or(g.User, p.User), Conf: cmp.Or(g.Conf, p.Conf),
		CA: cmp.Or(g.CAFile, p.CA), Cert: cmp.Or(g.CertFile, p.Cert), Key: cmp.Or(g.KeyFile, p.Key), TLS: g.Scheme != "http",
	}
	l.Form = config.Form(cmp.Or(g.ConfForm, string(config.FormOf(l.Conf))))
	return l
}

func (v View) layout() config.Layout { return layoutOf(v.Wanted) }

// unit is the unit that runs etcd.
func (v View) unit() string { return v.layout().Unit }

// owned gives a file's place, owner and mode in this cluster's layout.
func (v View) owned(f File) config.OwnedFile { return v.layout().Place(f.owned()) }

// at gives a file's place where it is not Pigsty's.
func (v View) at(f File) string {
	if p := v.owned(f).Path; p != f.Path() {
		return p
	}
	return ""
}

// confOn reads the configuration of the member on a host.
func (v View) confOn(h HostView) (config.Member, error) {
	l := v.layout()
	return config.ParseConf(l.Form, h.Facts.Files[l.Conf].Content)
}

// memberUnit is the unit that the members run, for a newcomer whose package has
// brought none: an administrator's own, else a package's.
func (v View) memberUnit() (path string, content []byte) {
	l := v.layout()
	for _, p := range []string{l.UnitPath(), l.PackagedUnitPath()} {
		for _, m := range v.Voters() {
			h, ok := v.Host(v.HostOf(m))
			if f := h.Facts.Files[p]; ok && f.Exists && f.Problem == "" && len(f.Content) > 0 {
				return p, f.Content
			}
		}
	}
	return "", nil
}

// foreignUnit is the step that gives a host the members' unit, where none of our
// own belongs.
func foreignUnit(v View, h string) Step {
	_, content := v.memberUnit()
	a := host.WriteFile{Path: v.layout().UnitPath(), Content: content, Owner: "root", Group: "root", Mode: 0o644}
	return Step{Title: "write the unit", Host: h, Act: On{h, a}, Until: hasUnit(h), Needs: []Safeguard{plainUnit(h)}}
}

// hasUnit holds when systemd knows the unit on a host.
func hasUnit(name string) Condition {
	return func(v View) error {
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if u := facts.Units[v.unit()]; u.Load != "loaded" {
			return fmt.Errorf("%s on %s is %s", v.unit(), name, orNone(u.Load))
		}
		return nil
	}
}

// plainUnit: a newcomer can run the unit that the members run, since what makes
// one of them another than the next stands in a file and not in the unit.
func plainUnit(name string) Safeguard {
	return Safeguard{Name: "plain-unit", Show: "systemctl cat etcd",
		Holds: func(v View) error {
			l := v.layout()
			if l.Form == config.YAML {
				return nil // the unit is ours
			}
			path, content := v.memberUnit()
			if hv, ok := v.Host(name); ok && hv.Reachable() {
				for _, p := range []string{l.UnitPath(), l.PackagedUnitPath()} {
					if f := hv.Facts.Files[p]; f.Exists && f.Problem == "" && len(f.Content) > 0 {
						path, content = p, f.Content
						break
					}
				}
			}
			if path == "" {
				return &Refusal{Host: name, Found: "there is no " + l.Unit + ", and no member's could be read", Needed: "the unit that runs etcd", Hint: "install the package that the members have"}
			}
			u, err := config.ParseUnit(content)
			if err == nil {
				err = config.PlainUnit(u, l)
			}
			if err != nil {
				return &Refusal{Host: name, Found: fmt.Sprintf("%s: %v", path, err), Needed: "a unit that reads " + l.Conf,
					Hint: "move what is one member's own from the unit to " + l.Conf + ", or name the right file in etcd_conf"}
			}
			return nil
		}}
}

// keepUnit keeps a unit that is not ours before its file has to go, as systemd
// masks none that has one.
func keepUnit(v View, h string) []Step {
	l := v.layout()
	hv, _ := v.Host(h)
	ours, err := v.content(Install{Host: h, File: UnitFile})
	if err != nil || sameUnit(hv.Facts.Files[l.UnitPath()].Content, ours) {
		return nil
	}
	return keep(v, h, l.UnitPath(), "keep a copy of the unit", enabled(h, "masked"))
}

// keepConf keeps a configuration that others wrote.
func keepConf(v View, h string) []Step {
	l := v.layout()
	if l.OwnDir() != "" {
		return nil
	}
	return keep(v, h, l.Conf, "keep a copy of the configuration")
}

// keep copies a file beside itself before it is removed.
func keep(v View, h, path, title string, or ...Condition) []Step {
	hv, _ := v.Host(h)
	f := hv.Facts.Files[path]
	if !f.Exists || f.Problem != "" || f.Real == "/dev/null" || len(f.Content) == 0 {
		return nil
	}
	a := host.WriteFile{Path: config.KeptPath(path), Content: f.Content, Owner: f.Owner, Group: f.Group, Mode: f.Mode}
	kept := func(v View) error {
		facts, err := v.facts(h)
		if err != nil {
			return err
		}
		if !bytes.Equal(facts.Files[a.Path].Content, a.Content) {
			return fmt.Errorf("%s on %s has no copy in %s", path, h, a.Path)
		}
		return nil
	}
	return []Step{{Title: title, Host: h, Act: On{h, a}, Until: either(append(or, fileGone(h, path), kept)...)}}
}

// sameUnit compares what two units run; comments and limits are not worth
// keeping a copy for.
func sameUnit(a, b []byte) bool {
	x, errX := config.ParseUnit(a)
	y, errY := config.ParseUnit(b)
	return errX == nil && errY == nil && x.Binary == y.Binary && x.ConfPath == y.ConfPath && x.User == y.User && x.Type == y.Type &&
		strings.Join(append(x.Args, x.Environment...), "\n") == strings.Join(append(y.Args, y.Environment...), "\n")
}
