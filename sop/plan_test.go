package sop

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The plans as people read them, written down: testdata/plan. A file sets up a
// cluster and asks for plans; -rewrite writes the answers anew.
//
//	cluster voters=3 [saved] [certs] [etcd=V] [leader=H] [dead=(H,H)] [off=(H)] [pending=H] [vars=TEXT]
//	        [lost=(H,H)] [behind=(H)] [unheard=(H)]
//	cut addMember H before=promote_to_voter   killed there
//	done removeMember H                         run to its end
//	plan addMember H                            its plan, or its refusal
//	references addMember H                      of its plan, that stage alone
//	client host=H [patroni=LIST] [vip=LIST] [runs=LIST] [version=V] [off] [leads]
//	                                            what is otherwise on a PostgreSQL host
//
// With postgres=(H,H) in the first line these hosts are PostgreSQL's, the first
// of them leads; with infra=H there is an infra host.
//
// With certs clients have certificates of the cluster's CA, and members and clients
// do not talk to each other where one does not trust the other.
//
// A dead host is one whose etcd was killed, a lost one has no data any more, one
// that is behind has fewer entries, one that is unheard does not know of its last
// that they are committed, one that is off has no power, and a pending one is on the list and has never started. With saved a snapshot was
// taken, and more was written since. IDs are told by host.
func TestPlans(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			var g *ground
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				if d.Cmd == "cluster" {
					g = clusterOf(t, d)
					return g.text(g.roles0())
				}
				require.NotNil(t, g, "cluster comes first")
				if d.Cmd == "client" {
					return g.client(d)
				}
				return g.text(g.command(d))
			})
		})
	})
}

func clusterOf(t *testing.T, d *datadriven.TestData) *ground {
	t.Helper()
	var voters int
	d.ScanArgs(t, "voters", &voters)
	inFile := voters
	d.MaybeScanArgs(t, "inventory", &inFile)
	g := newGround(t, scratch(t), max(voters, inFile))
	var etcd string
	if d.MaybeScanArgs(t, "etcd", &etcd) {
		g.runs(etcd)
	}
	if voters > 0 {
		g.up()
	}
	var name string
	if d.MaybeScanArgs(t, "leader", &name) {
		g.lead(name)
	} else if voters > 0 {
		g.lead(hosts[0])
	}
	var postgres, infra []string
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "postgres":
			postgres = a.Vals
		case "infra":
			infra = a.Vals
		}
	}
	if len(postgres) > 0 {
		g.postgres("pg-test", "10.10.10.2", postgres...)
		g.write(withPostgres(max(voters, inFile), infra, map[string][]string{"pg-test": postgres}))
	}
	for _, h := range infra {
		g.infra(h)
	}
	if d.HasArg("certs") {
		g.certs()
	}
	if d.HasArg("saved") {
		g.must(g.snapshot())
		g.etcd().revision = 9
	}
	for _, a := range d.CmdArgs {
		for _, v := range a.Vals {
			switch a.Key {
			case "dead":
				g.w.machines[v].kill()
			case "off":
				g.w.machines[v].powerOff()
			case "lost":
				g.lose(v)
			case "behind":
				g.fallBehind(v, 3)
			case "unheard":
				g.knowsLess(v, 2)
			case "pending":
				c := g.etcd()
				_, err := c.addLearner(c.leader, "https://"+v+":2380", time.Now())
				require.NoError(t, err)
			case "revisions":
				g.revisions(int64(atoi(v)))
			case "size":
				g.etcd().dbSize = int64(atoi(v)) << 20
			case "unused":
				g.waste(500<<20, v)
			case "corrupt": // and etcd has found out
				g.corrupt(v)
				g.alarm(v)
			case "alarm":
				c := g.etcd()
				c.alarms[c.leader] = v
			case "foreign":
				g.lie(v, func(r *pb.StatusResponse) { r.Header.ClusterId = 0xbad })
			case "vars":
				g.write(inventoryText(max(voters, inFile), "", "        "+strings.ReplaceAll(v, "=", ": ")+"\n"))
			}
		}
	}
	time.Sleep(6 * time.Second)
	return g
}

// roles0 is roles where there may be no cluster.
func (g *ground) roles0() string {
	if g.onlyID() == 0 {
		return "no member runs\n"
	}
	return strings.ReplaceAll(g.roles(), ", ", "\n") + "\n"
}

func (g *ground) procedure(d *datadriven.TestData) Procedure {
	g.t.Helper()
	const stamp = "20260102T150405Z"
	verb := d.CmdArgs[0].Key
	subject := ""
	if len(d.CmdArgs) > 1 {
		subject = d.CmdArgs[1].Key
	}
	flag := func(name string) *bool {
		for _, a := range d.CmdArgs {
			if a.Key == name {
				b := a.Vals[0] == "true"
				return &b
			}
		}
		return nil
	}
	switch verb {
	case "addMember":
		return AddMember{Host: subject}
	case "removeMember":
		return RemoveMember{Host: subject, Stamp: stamp}
	case "replaceMember":
		return ReplaceMember{Old: subject, New: d.CmdArgs[2].Key, Stamp: stamp}
	case "migrate":
		return Migrate{Hosts: strings.Split(subject, "+"), Stamp: stamp, Patient: true}
	case "upgrade":
		return Upgrade{Version: subject, Down: flag("downgrade") != nil, Soak: Soak}
	case "moveLeader":
		if subject != "" {
			return MoveLeadership{To: subject}
		}
		leader, _ := g.look().Leader()
		return MoveLeadership{From: hostPart(leader.PeerURLs[0])}
	case "defrag":
		return Defragment{Least: LeastWin, Soak: Soak}
	case "rotateCerts":
		for _, a := range d.CmdArgs {
			if a.Key == "ca" {
				return RotateAuthority{Stride: Stride(a.Vals[0]), Clients: flag("clients") != nil, Soak: Soak, Stamp: stamp}
			}
		}
		return RotateCerts{Since: time.Now(), Soak: Soak}
	case "enableAuth":
		g.envUsers(hosts[:3]...)
		return EnableAuth{}
	case "compact":
		if subject == "keep" {
			return Compact{Revision: g.look().Revision() - 10, Keep: 10}
		}
		return Compact{Revision: int64(atoi(subject))}
	case "alarm:disarm":
		return DisarmAlarm{}
	case "restart":
		return Restart{Since: time.Now(), Soak: Soak}
	case "reloadConfig":
		p := ReloadConfig{}
		for _, a := range d.CmdArgs[1:] {
			if a.Key == "only" {
				p.Only = a.Vals
			}
			p.VIPs = p.VIPs || a.Key == "vips"
		}
		return p
	case "createCluster":
		return CreateCluster{Clean: flag("clean"), Safeguard: flag("safeguard"), Token: "etcd-20260102T150405Z-0123456789abcdef", Stamp: stamp}
	case "destroyCluster":
		return DestroyCluster{Clean: flag("clean"), Safeguard: flag("safeguard"), Stamp: stamp}
	case "purgeCluster":
		return PurgeCluster{}
	case "purgeHost":
		return PurgeHost{Host: subject}
	case "snapshot":
		p := Snapshot{File: subject, Since: time.Now()}
		if subject == "survivors" {
			p.File, p.Survivors = "s.db", true
		}
		return p
	case "restore":
		p := g.restore(time.Now())
		p.Token, p.Stamp = "etcd-restore-20260102T150405Z-0123456789abcdef", stamp
		return p
	case "clientEnv":
		return InstallClientEnv{}
	}
	g.t.Fatalf("%s: unknown procedure %s", d.Pos, verb)
	return nil
}

func (g *ground) command(d *datadriven.TestData) string {
	p := g.procedure(d)
	op := g.operator()
	if _, auth := p.(EnableAuth); auth {
		op = g.asRoot()
	}
	switch d.Cmd {
	case "plan", "references":
		plan, v, err := op.Runner.Explain(context.Background(), p)
		if err == nil {
			// As a run would, before it changes anything.
			op.Runner.Journal = JournalFunc(func(Record) error { return nil })
			if v, err = op.Runner.guard(context.Background(), p, plan, plan.Needs, v, ""); err == nil {
				err = op.Runner.firstNeeds(context.Background(), p, plan, &v)
			}
		}
		var r *Refusal
		switch {
		case errors.As(err, &r):
			return refusalText(r)
		case err != nil:
			return err.Error() + "\n"
		}
		if d.Cmd == "references" { // that stage alone, and what is said aloud
			for _, s := range plan.Stages {
				if strings.Contains(s.Title, "references") {
					plan.Stages = []Stage{s}
				}
			}
			plan.Needs = nil
		}
		text := plan.Text(v)
		if _, ok := p.(RotateAuthority); ok { // who is closest to the leader by then is chance
			text = heirPattern.ReplaceAllString(text, "move-leader HEIR")
		}
		if plan.Consent != nil {
			text = "consent to " + plan.Consent.Verb + ", code " + plan.Consent.Code + "\n  " + strings.Join(plan.Consent.Shown, "\n  ") + "\n" + text
		}
		return text
	case "cut":
		var title string
		d.ScanArgs(g.t.(*testing.T), "before", &title)
		title = strings.ReplaceAll(title, "_", " ")
		var at Point
		op.Runner.Point = func(pt Point) {
			if pt.State == Began && pt.Title == title {
				at = pt
				op.dead.Store(true)
				op.Site.abandon()
				panic(killedAt{pt})
			}
		}
		err := func() (err error) {
			defer func() {
				if k, ok := recover().(killedAt); ok {
					err = nil
					at = k.Point
				}
			}()
			_, err = op.do(p)
			return err
		}()
		require.NoError(g.t, err, op.story())
		require.NotZero(g.t, at.N, "it has no step %q", title)
		time.Sleep(6 * time.Second)
		where := " " + at.Host
		if plan, err := p.Plan(op.Site.last()); err == nil && slices.ContainsFunc(plan.Steps(), func(s Step) bool { return s.Title == title && s.Abreast }) {
			where = "" // of the hosts that are worked on side by side, any may be the first
		}
		return fmt.Sprintf("killed before %s%s\n", at.Title, where) + g.roles0()
	case "done":
		_, err := op.do(p)
		require.NoError(g.t, err, op.story())
		time.Sleep(6 * time.Second)
		return g.roles0()
	}
	g.t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	return ""
}

func refusalText(r *Refusal) string {
	var b strings.Builder
	fmt.Fprintf(&b, "refused by %s\n", r.Safeguard)
	for _, line := range [][2]string{{"host", r.Host}, {"found", r.Found}, {"needed", r.Needed}, {"hint", r.Hint}, {"show", r.Show}, {"risk", r.Risk}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "  %-7s %s\n", line[0], line[1])
		}
	}
	return b.String()
}

// text tells IDs by their hosts, paths without the test's directory, and no
// fingerprints.
func (g *ground) text(s string) string {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	for _, c := range g.w.clusters {
		for id, e := range c.members {
			s = strings.NewReplacer(ID(id), "ID-OF-"+hostPart(e.peerURL), fmt.Sprint(id), "ID-OF-"+hostPart(e.peerURL)).Replace(s)
		}
		s = strings.ReplaceAll(s, ID(c.id), "CLUSTER-ID")
	}
	s = printPattern.ReplaceAllString(s, "(FINGERPRINT)")
	return codePattern.ReplaceAllString(strings.ReplaceAll(s, g.dir+"/", ""), "code CODE")
}

// printPattern is what tells two CAs apart: keys are others each time.
var printPattern = regexp.MustCompile(`\((?:[0-9A-F]{2}:){3}[0-9A-F]{2}\)`)

var heirPattern = regexp.MustCompile(`move-leader [0-9a-f]+`)

// codePattern is a code that stands for a cluster ID where there is none: it
// depends on the inventory's path.
var codePattern = regexp.MustCompile(`(?m)code [0-9a-f]{12}$`)
