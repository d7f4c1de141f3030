package scenarios

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
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
		{Name: "migrate", Procedure: toSpares, Start: moves(), Strikes: []Strike{from(fault.Lead("10.10.10.10"))}},
		{Name: "replace", Procedure: replaceIt, Start: grows(), Strikes: []Strike{from(fault.Lead(third))}},
		{Name: "restart", Procedure: "restart"},
		{Name: "upgrade", Start: Start{Etcd: "3.6.16"}, Procedure: "upgrade 3.7.3", Inspections: []Inspection{allRun("3.7.3")}},
		{Name: "defragment", Start: Start{Waste: 8}, Procedure: "defrag -least=1MiB"},
		{Name: "enable-auth", Start: Start{Users: true}, Procedure: "enableAuth", Inspections: []Inspection{asksForUsers()}},
		{Name: "reload", Procedure: "reloadConfig -restart=true",
			Strikes: []Strike{from(fault.Edit("10.10.10.11", config.EnvPath, "https://"+third+":2379", "https://10.10.10.99:2379"))}},
	} {
		s.Suites = []string{"operator"}
		name := s.Name
		s.Name, s.Tier, s.Sweep = "sample-"+name, PR, &Sweep{Points: sampled(name)}
		all = append(all, s)
		s.Name, s.Tier, s.Sweep = "sweep-"+name, Nightly, &Sweep{}
		all = append(all, s)
		if name == "add" || name == "remove-leader" || name == "migrate" {
			s.Name, s.Sweep = "sweep-"+name+"-elsewhere", &Sweep{Elsewhere: true}
			all = append(all, s)
		}
	}
	return all
}

// sampled is how many points of a procedure are tried on a pull request: one of
// those that take long, and whose operators other rows kill as well.
func sampled(name string) int {
	if name == "migrate" || name == "upgrade" {
		return 1
	}
	return 2
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
