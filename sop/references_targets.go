package sop

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Monitoring has one file for each member, named after it. Where a member has
// one, a newcomer gets one in the same form; that of a removed member goes.
// Where there is none, monitoring is somebody else's business.

// CopyTarget makes the monitoring target of the member on a host, like that of
// another.
type CopyTarget struct {
	Host   string // where the file is
	Dir    string
	Member string // host whose member it is for
}

func (a CopyTarget) String() string {
	return fmt.Sprintf("write the monitoring target of %s into %s on %s", a.Member, a.Dir, a.Host)
}

// ByHand implements Act.
func (a CopyTarget) ByHand(v View) []string {
	of := v.scraped(a.Member)
	like, ok := v.sibling(a)
	if !ok {
		return nil
	}
	from := v.targetPath(a.Dir, like)
	return []string{onHost(a.Host, fmt.Sprintf("sed 's/%s/%s/; s/%s/%s/g' %s > %s", like.Name, of.Name, like.Host, of.Host, from, v.targetPath(a.Dir, of)))}
}

func (v View) scraped(name string) config.Scraped {
	if m, ok := v.At(name); ok && m.Name != "" {
		return config.Scraped{Name: m.Name, Host: name}
	}
	return config.Scraped{Name: v.MemberName(name), Host: name}
}

func (v View) targetPath(dir string, m config.Scraped) string { return path.Join(dir, m.Name+".yml") }

// sibling finds a member whose target can be a model.
func (v View) sibling(a CopyTarget) (config.Scraped, bool) {
	facts, err := v.facts(a.Host)
	if err != nil {
		return config.Scraped{}, false
	}
	for _, m := range v.Members {
		s := v.scraped(v.HostOf(m))
		f := facts.Files[v.targetPath(a.Dir, s)]
		if s.Host != a.Member && f.Exists && f.Problem == "" && config.TargetNames(f.Content, s) {
			return s, true
		}
	}
	return config.Scraped{}, false
}

// copied gives the file.
func (v View) copied(a CopyTarget) (host.WriteFile, error) {
	like, ok := v.sibling(a)
	if !ok {
		return host.WriteFile{}, fmt.Errorf("%s on %s has no target of another member to go by", a.Dir, a.Host)
	}
	of := v.scraped(a.Member)
	f := v.hostView(a.Host).Facts.Files[v.targetPath(a.Dir, like)]
	content, err := config.TargetLike(f.Content, like, of)
	return host.WriteFile{Path: v.targetPath(a.Dir, of), Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode}, err
}

// hasTarget holds when a member has a target that names it, and also where no
// other member has one.
func hasTarget(a CopyTarget) Condition {
	return func(v View) error {
		facts, err := v.facts(a.Host)
		if err != nil {
			return err
		}
		of := v.scraped(a.Member)
		p := v.targetPath(a.Dir, of)
		f := facts.Files[p]
		if f.Exists && (f.Problem != "" || bytes.Contains(f.Content, []byte(of.Host))) {
			return nil
		}
		if _, ok := v.sibling(a); !ok {
			return nil
		}
		return fmt.Errorf("%s is not on %s", p, a.Host)
	}
}

// targetRefreshment is about the monitoring targets on infra hosts.
func (v View) targetRefreshment(c change) (r refreshment) {
	var voters []string
	for _, m := range v.Voters() {
		if h := v.HostOf(m); !slices.Contains(c.without, h) {
			voters = append(voters, h)
		}
	}
	voters = append(voters, c.with...)
	slices.Sort(voters)
	voters = slices.Compact(voters)
	for _, name := range v.infraHosts() {
		facts, err := v.facts(name)
		if err != nil {
			continue
		}
		for _, dir := range v.Wanted.TargetDirs {
			for _, h := range voters {
				a := CopyTarget{name, dir, h}
				if _, ok := v.sibling(a); ok {
					r.add(Targets, []string{name}, Step{Title: "write the monitoring target of " + v.scraped(h).Name, Host: name, Act: a, Until: hasTarget(a)})
				}
			}
			for _, p := range facts.Globs[targetGlob(dir)] {
				if v.isGoneTarget(p, facts.Files[p], c.without) {
					r.add(Targets, []string{name}, removeFile(name, p, "remove the monitoring target "+path.Base(p)))
				}
			}
		}
	}
	return r
}

// isGoneTarget reports whether a file is the target of a member that goes, or
// that was removed from here.
func (v View) isGoneTarget(p string, f host.File, without []string) bool {
	h := config.TargetHost(f.Content)
	if !f.Exists || h == "" || !strings.HasPrefix(path.Base(p), v.Wanted.Cluster+"-") || !bytes.Contains(f.Content, []byte(v.Wanted.Cluster)) {
		return false
	}
	if slices.Contains(without, h) {
		return true
	}
	_, removed := v.Admin.Removed[h]
	_, wanted := v.Wanted.Host(h)
	return removed && !wanted && !v.isMemberHost(h)
}

func targetGlob(dir string) string { return path.Join(dir, "*.yml") }

// askTargets asks for the targets that there are. What a directory holds is
// known from the look before.
func askTargets(q *host.Question, v View, scope Scope, known HostView, last View) {
	var names []string
	for _, h := range v.Wanted.Hosts {
		names = append(names, v.Wanted.MemberName(h))
	}
	for _, m := range last.Members {
		names = append(names, m.Name)
	}
	for _, h := range scope.Subjects {
		names = append(names, v.MemberName(h))
	}
	slices.Sort(names)
	for _, dir := range v.Wanted.TargetDirs {
		q.Globs = append(q.Globs, targetGlob(dir))
		paths := known.Facts.Globs[targetGlob(dir)]
		for _, n := range slices.Compact(slices.Clone(names)) {
			if p := path.Join(dir, n+".yml"); n != "" && !slices.Contains(paths, p) {
				paths = append(slices.Clone(paths), p)
			}
		}
		q.Files = append(q.Files, paths...)
	}
}
