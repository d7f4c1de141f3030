package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A Sweep kills the operator of a scenario at its kill points: the scenario is
// played once as it is, then once for each point, on a lab of its own, with the
// operator killed there and the same command typed again. What is left has to
// be what the undisturbed operator left.
type Sweep struct {
	Points int // how many are tried, by the seed; 0 is all
	// Elsewhere has the command typed again on another admin host, which has
	// no journal.
	Elsewhere bool
}

// killed are the states of a step at which an operator is killed.
func killed() []sop.State {
	return []sop.State{sop.Began, sop.Recorded, Applied, sop.Sent, sop.Answered}
}

// sweep are the rows of the kill sweep: all points of every procedure each
// night, a sample on each pull request.
func sweep() []Scenario {
	var all []Scenario
	for _, s := range []Scenario{
		{Name: "create", Start: Start{Blank: true}, Procedure: "createCluster", Quiet: true},
		{Name: "destroy", Procedure: "destroyCluster -confirm=CLUSTERID", Quiet: true},
		{Name: "add", Start: grows(), Procedure: addSpare},
		// The same one each time, or what is left could not be compared.
		{Name: "remove-leader", Procedure: removeThird, Strikes: []Strike{from(fault.Lead(third))}},
		{Name: "restart", Procedure: "restart"},
		{Name: "reload", Procedure: "reloadConfig -restart=true",
			Strikes: []Strike{from(fault.Edit("10.10.10.11", config.EnvPath, "https://"+third+":2379", "https://10.10.10.99:2379"))}},
	} {
		s.Suites = []string{"operator"}
		name := s.Name
		s.Name, s.Tier, s.Sweep = "sample-"+name, PR, &Sweep{Points: 2}
		all = append(all, s)
		s.Name, s.Tier, s.Sweep = "sweep-"+name, Nightly, &Sweep{}
		all = append(all, s)
		if name == "add" || name == "remove-leader" {
			s.Name, s.Sweep = "sweep-"+name+"-elsewhere", &Sweep{Elsewhere: true}
			all = append(all, s)
		}
	}
	return all
}

// trailingID is the ID that the title of a removal ends in.
var trailingID = regexp.MustCompile(` [0-9a-f]{8,16}$`)

// points gives the scenarios of a sweep from its undisturbed playing. One that
// is picked by name is among them if it was come by.
func (s Scenario) points(base Result, seed int64) []Scenario {
	var all []Scenario
	counted := map[At]int{}
	for _, m := range base.Points {
		if !slices.Contains(killed(), m.State) {
			continue
		}
		a := At{Step: trailingID.ReplaceAllString(m.Title, ""), State: m.State}
		counted[a]++
		a.Nth = counted[a]
		k := s
		k.Sweep, k.like = nil, base.Remains
		k.Name = fmt.Sprintf("%s.%s.%s.%d", s.Name, slug(a.Step), a.State, a.Nth)
		k.Strikes = append(slices.Clone(s.Strikes), Strike{At: a, Fault: fault.KillOperator()})
		k.Ending = resumes()
		if s.Sweep.Elsewhere {
			k.Ending = resumes().then(elsewhere + sameAgain)
		}
		all = append(all, k)
	}
	n := s.Sweep.Points
	if n == 0 || n >= len(all) {
		return all
	}
	// One of each of equal parts.
	random := rand.New(rand.NewPCG(uint64(seedOf(seed, s.Name)), 2))
	var some []Scenario
	for i := range n {
		from, to := i*len(all)/n, (i+1)*len(all)/n
		some = append(some, all[from+random.IntN(to-from)])
	}
	return some
}

func slug(title string) string {
	mapped := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(title))
	return strings.Trim(regexp.MustCompile("-+").ReplaceAllString(mapped, "-"), "-")
}

var (
	anyToken = regexp.MustCompile(`etcd-\d{8}T\d{6}Z-[0-9a-f]{16}`)
	anyAside = regexp.MustCompile(`\.removed-\d{8}T\d{6}Z`)
)

// remains is what is left of a procedure, without what differs from one time to
// the next: IDs, keys, moments, and who leads.
func (s *stage) remains(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	o := s.rig.Operator("remains")
	defer o.Site.Close()
	v, err := o.Site.Observe(ctx, sop.Scope{AllHosts: true})
	if err != nil {
		return nil, err
	}
	for _, m := range v.Members {
		all["member "+v.HostOf(m)] = fmt.Sprintln(m.Name, m.PeerURLs, m.ClientURLs, m.Learner)
	}
	all["debts"] = strings.Join(v.Admin.Debts, " ")
	for _, name := range s.rig.Lab.Info().Hosts {
		if err := s.remainsOf(ctx, name, all); err != nil {
			return nil, fmt.Errorf("what is left on %s: %w", name, err)
		}
	}
	content, err := os.ReadFile(s.rig.Inventory())
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(content), "\n") // the first line names the lab
	all["inventory"] = rest
	dir := filepath.Dir(s.rig.Inventory())
	err = filepath.WalkDir(filepath.Join(dir, "files"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all["admin:"+strings.TrimPrefix(path, dir)] = info.Mode().String()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if v.Exists() {
		err = s.noKeysOfOperators(ctx)
	}
	return all, err
}

// remainsOf adds what is left on one host.
func (s *stage) remainsOf(ctx context.Context, name string, all map[string]string) error {
	f, err := s.rig.Lab.Host(name).Look(ctx, host.Question{Units: []string{config.UnitName}})
	if err != nil {
		return err
	}
	u := f.Units[config.UnitName]
	all["unit "+name] = fmt.Sprintln(u.Load, u.Active, u.Sub, u.Enabled, u.Stale)
	root := s.rig.Lab.Root(name)
	prints, err := machine.Fingerprint(root)
	if err != nil {
		return err
	}
	for path, print := range prints {
		if rest, in := strings.CutPrefix(path, config.DefaultDataDir+"/"); in {
			if strings.Contains(rest, "/") {
				continue // data
			}
			path = anyAside.ReplaceAllString(path, ".removed")
		}
		left := print[:strings.LastIndex(print, " ")+1] // mode and owner
		switch filepath.Dir(path) {
		case config.ConfDir, filepath.Dir(config.EnvPath):
			content, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				return err
			}
			switch path {
			case config.CAPath, config.ServerCertPath, config.ServerKeyPath:
			default:
				left += anyToken.ReplaceAllString(string(content), "TOKEN")
			}
		default:
			left = print
		}
		all[name+":"+path] = left
	}
	return nil
}

// noKeysOfOperators waits until no operator's key is in the cluster: where a
// rerun had nothing to do, the lock of the dead runs out.
func (s *stage) noKeysOfOperators(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	url, err := s.rig.clientURL(s.intended[0])
	if err != nil {
		return err
	}
	etcd, err := dial(ctx, url)
	if err != nil {
		return err
	}
	defer etcd.Close()
	for {
		r, err := etcd.Get(ctx, sop.LockKey, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && r.Count == 0 {
			return nil
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("the lock of an operator stays at %s", sop.LockKey), err)
		}
	}
}

// differ tells what of two remains differs, one line each.
func differ(want, got map[string]string) []string {
	var lines []string
	for k, w := range want {
		if g, ok := got[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s is missing, it was %q", k, w))
		} else if g != w {
			lines = append(lines, fmt.Sprintf("%s is %q, undisturbed it is %q", k, g, w))
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s is left: %q", k, g))
		}
	}
	slices.Sort(lines)
	return lines
}
