package sop

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// hostsOf lists the machines that a look is about: the group's, the
// references', and the subject.
func (s *Site) hostsOf(v *View, scope Scope, last View) ([]inventory.Host, error) {
	hosts := slices.Clone(v.Wanted.Hosts)
	add := func(name string) {
		if name != "" && !slices.ContainsFunc(hosts, func(h inventory.Host) bool { return h.Name == name }) {
			hosts = append(hosts, v.Spec(name))
		}
	}
	for _, h := range scope.Subjects {
		add(h)
	}
	for _, h := range v.Wanted.Clients() {
		add(h)
	}
	for _, h := range last.Hosts {
		add(h.Name)
	}
	return hosts, nil
}

func (s *Site) host(spec inventory.Host) (host.Host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h, ok := s.hosts[spec.Name]; ok {
		return h, nil
	}
	h, err := s.Hosts(spec)
	if err != nil {
		return nil, err
	}
	if s.hosts == nil {
		s.hosts = map[string]host.Host{}
	}
	s.hosts[spec.Name] = h
	return h, nil
}

func (s *Site) lookAtHost(ctx context.Context, v View, spec inventory.Host, scope Scope) HostView {
	if scope.Glimpse != nil && spec.Name == scope.Host {
		if hv, ok := s.glimpseAt(ctx, v, spec, *scope.Glimpse); ok {
			return hv
		}
	}
	hv := HostView{Name: spec.Name, Taken: s.Now()}
	h, err := s.host(spec)
	if err != nil {
		hv.Problem = err.Error()
		return hv
	}
	l := v.layout()
	q := host.Question{
		Units: []string{l.Unit},
		Files: []string{kubeadmManifest, l.Conf, config.EnvPath, l.UnitPath(), l.JoinDropInPath(), config.KeptPath(l.UnitPath())},
		Dirs:  append([]string{spec.DataDir, config.ConfDir, l.JoinDropInDir()}, l.Dirs()...),
	}
	if l.TLS {
		q.Files, q.Sums = append(q.Files, l.CA, l.Cert), []string{l.Key}
	}
	if l.Form == config.Env {
		q.Files = append(q.Files, l.PackagedUnitPath())
	}
	if l.OwnDir() == "" {
		q.Files = append(q.Files, config.KeptPath(l.Conf))
	}
	// What costs a host most to find out, and no step of ours changes.
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	known, _ := last.Host(spec.Name)
	client := onlyClient(v, spec.Name, scope, last)
	if client {
		q = host.Question{}
	} else if scope.AllHosts || scope.Ports || known.Facts.Clock.IsZero() {
		q.Ports, q.Users, q.Etcd = []int{spec.ClientPort, spec.PeerPort}, []string{l.User}, l.Binary
		q.Addrs = isName(spec.Name)
	}
	if !client && (scope.Trust || slices.Contains(scope.Also, spec.Name)) { // the kernel goes through a table as large as its memory allows
		q.Callers = []int{spec.ClientPort}
	}
	if spec.DataDir == kubeadmDataDir && !client {
		q.Units = append(q.Units, kubeletUnit)
	}
	if spec.WALDir != "" && !client {
		q.Dirs = append(q.Dirs, spec.WALDir)
	}
	if r := v.Admin.Restoring; r != nil && !r.Done && !client {
		for _, d := range dataDirs(spec) {
			q.Dirs = append(q.Dirs, r.work(d))
		}
	}
	if m, ok := memberAt(last.Members, v.PeerURL(spec.Name)); ok && m.Learner && !client {
		q.Globs = append(q.Globs, snapFiles(spec))
	}
	if scope.Logs && !client {
		q.Globs, q.Dirs = append(q.Globs, walFiles(spec)), append(q.Dirs, replayDir(spec))
	}
	shakes, programs := askClients(&q, v, spec, scope, known, last)
	if scope.Trust {
		askTrust(&q, spec.Name, known)
	}
	if !client {
		s.askPrograms(&q, v, scope, known)
	}
	if scope.Reach && !client {
		for _, other := range v.Wanted.Hosts {
			if other.Name != spec.Name {
				q.Dial = append(q.Dial, dialable(v.Wanted.PeerURL(other)))
			}
		}
		for _, h := range scope.Subjects {
			if u := dialable(v.PeerURL(h)); h != spec.Name && !slices.Contains(q.Dial, u) {
				q.Dial = append(q.Dial, u)
			}
		}
	}
	if scope.Fill && known.complete() && reflect.DeepEqual(q, known.asked) {
		return known
	}
	hv.asked = q
	if c, ok := h.(host.Connector); ok {
		first, stop := context.WithTimeout(ctx, s.Deadlines[Connecting])
		c.Connect(first)
		stop()
	}
	patience := s.Deadlines[Inspecting]
	if len(q.Dial) > 0 || len(q.TLS) > 0 {
		patience *= 2 // the host itself waits for peers that do not answer
	}
	whole := ctx
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	asked := s.Now()
	done := s.Meter.atHost()
	facts, err := h.Look(ctx, q)
	done()
	if err != nil {
		hv.Problem = err.Error()
		return hv
	}
	answered := s.Now()
	if q.Etcd == "" {
		facts.Ports, facts.Users, facts.Etcd = known.Facts.Ports, known.Facts.Users, known.Facts.Etcd
	}
	if len(q.Callers) == 0 {
		facts.Callers = known.Facts.Callers
	}
	if !q.Addrs {
		facts.Addrs = known.Facts.Addrs
	}
	if hv.Listen = known.Listen; q.Etcd != "" && isName(spec.Name) {
		hv.Listen = s.listenOn(ctx, spec.Name, facts.Addrs)
	}
	if !scope.Reach {
		facts.Dials = kept(known.Facts.Dials, facts.Dials)
	}
	if !programs {
		facts.Programs = kept(known.Facts.Programs, facts.Programs)
	}
	if q.Package == "" {
		facts.Offers = known.Facts.Offers
	}
	if hv.Log, hv.LogProblem = known.Log, known.LogProblem; scope.Logs && !client {
		hv.Log, hv.LogProblem = s.raftLog(whole, h, spec, facts)
	}
	hv.Facts, hv.Shakes = facts, shaken(known.Shakes, shakes, facts.Handshakes)
	if !facts.Clock.IsZero() {
		// The answer is somewhere between question and receipt.
		switch {
		case facts.Clock.Before(asked):
			hv.Skew = facts.Clock.Sub(asked)
		case facts.Clock.After(answered):
			hv.Skew = facts.Clock.Sub(answered)
		}
	}
	return hv
}

func dialable(url string) string {
	if _, after, ok := strings.Cut(url, "://"); ok {
		return after
	}
	return url
}
