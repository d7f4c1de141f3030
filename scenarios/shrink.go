package scenarios

import (
	"context"
	"fmt"
	"go/format"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop"
)

// shrinkTries is how often a smaller row is played before it is taken not to
// fail: what fails may not fail each time.
const shrinkTries = 2

// Shrink makes the row of a result that failed smaller for as long as it still
// fails: without strikes, without load, without commands before and after. It
// gives the smallest.
func Shrink(ctx context.Context, r Result, spec SuiteSpec) Scenario {
	one := spec.PlaySpec
	one.Seed, one.Lean = r.Seed, true
	fails := func(s Scenario) bool {
		s.Name = r.Scenario.Name // with its seed
		for range shrinkTries {
			if ctx.Err() != nil {
				return false
			}
			if got := Play(ctx, s, one); got.Verdict == Violation {
				return true
			}
		}
		return false
	}
	small := shrink(r.Scenario, func(s Scenario) bool {
		ok := fails(s)
		fmt.Fprintf(spec.Report, "shrink: %s: fails %t\n", s.sentence(), ok)
		return ok
	})
	small.Name = r.Scenario.Name + "-shrunk"
	return small
}

// shrink takes away one part after another, as long as what is left fails, until
// nothing can be taken away.
func shrink(s Scenario, fails func(Scenario) bool) Scenario {
	for again := true; again; {
		again = false
		for _, smaller := range smallerThan(s) {
			if fails(smaller) {
				s, again = smaller, true
				break
			}
		}
	}
	return s
}

// smallerThan are the rows that have one part less, the largest parts first.
func smallerThan(s Scenario) []Scenario {
	var all []Scenario
	without := func(f func(*Scenario)) {
		c := s
		c.Strikes = slices.Clone(s.Strikes)
		c.Start.Before, c.Ending.Then = slices.Clone(s.Start.Before), slices.Clone(s.Ending.Then)
		f(&c)
		all = append(all, c)
	}
	if n := len(s.Strikes); n > 2 {
		without(func(c *Scenario) { c.Strikes = c.Strikes[:n/2] })
		without(func(c *Scenario) { c.Strikes = c.Strikes[n/2:] })
	}
	for i := range s.Strikes {
		without(func(c *Scenario) { c.Strikes = slices.Delete(c.Strikes, i, i+1) })
	}
	if !s.Quiet && !s.Ending.Untouched {
		without(func(c *Scenario) { c.Quiet = true })
	}
	for i := range s.Start.Before {
		without(func(c *Scenario) { c.Start.Before = slices.Delete(c.Start.Before, i, i+1) })
	}
	if n := len(s.Ending.Then); n > 0 {
		without(func(c *Scenario) { c.Ending.Then = c.Ending.Then[:n-1] })
	}
	return all
}

// Source is the row as Go source, to be put among the rows.
func (s Scenario) Source() string {
	var b strings.Builder
	fmt.Fprintf(&b, "package x\nvar _ = []Scenario{\n{Name: %q, Suites: %#v, Tier: %q,", s.Name, s.Suites, s.Tier)
	if start := s.Start.source(); start != "" {
		fmt.Fprintf(&b, " Start: %s,", start)
	}
	b.WriteString("\n")
	if len(s.Strikes) > 0 {
		b.WriteString("Strikes: []Strike{\n")
		for _, k := range s.Strikes {
			var parts []string
			if k.At != (At{}) {
				parts = append(parts, "At: "+k.At.source())
			}
			parts = append(parts, "Fault: "+k.Fault.Source())
			if k.Until != (At{}) {
				parts = append(parts, "Until: "+k.Until.source())
			}
			if k.For > 0 {
				parts = append(parts, fmt.Sprintf("For: %d", k.For))
			}
			if k.Stays {
				parts = append(parts, "Stays: true")
			}
			if k.Perhaps {
				parts = append(parts, "Perhaps: true")
			}
			fmt.Fprintf(&b, "{%s}, // %s: %s\n", strings.Join(parts, ", "), k.At, k.Fault)
		}
		b.WriteString("},\n")
	}
	fmt.Fprintf(&b, "Procedure: %q, Ending: %s,", s.Procedure, s.Ending.source())
	for _, flag := range []struct {
		on   bool
		name string
	}{{s.Quiet, "Quiet"}, {s.Free, "Free"}} {
		if flag.on {
			fmt.Fprintf(&b, " %s: true,", flag.name)
		}
	}
	if s.Patience != 0 {
		fmt.Fprintf(&b, " Patience: %d,", s.Patience)
	}
	if s.Mutant != "" {
		fmt.Fprintf(&b, " Mutant: %q,", s.Mutant)
	}
	b.WriteString("\n},\n}\n")
	out, err := format.Source([]byte(b.String()))
	if err != nil {
		return b.String()
	}
	_, rest, _ := strings.Cut(string(out), "[]Scenario{\n")
	return strings.TrimSuffix(rest, "}\n")
}

func (s Start) source() string {
	var parts []string
	if s.Hosts != 0 {
		parts = append(parts, fmt.Sprintf("Hosts: %d", s.Hosts))
	}
	if s.Spares != 0 {
		parts = append(parts, fmt.Sprintf("Spares: %d", s.Spares))
	}
	if s.Infra {
		parts = append(parts, "Infra: true")
	}
	if s.Stale > 0 {
		parts = append(parts, fmt.Sprintf("Stale: %d", s.Stale))
	}
	if s.Vars != "" {
		parts = append(parts, fmt.Sprintf("Vars: %q", s.Vars))
	}
	if s.Blank {
		parts = append(parts, "Blank: true")
	}
	if s.Disks {
		parts = append(parts, "Disks: true")
	}
	if s.Points {
		parts = append(parts, "Points: true")
	}
	if s.Waste != 0 {
		parts = append(parts, fmt.Sprintf("Waste: %d", s.Waste))
	}
	if s.Etcd != "" {
		parts = append(parts, fmt.Sprintf("Etcd: %q", s.Etcd))
	}
	if len(s.Before) > 0 {
		parts = append(parts, fmt.Sprintf("Before: %#v", s.Before))
	}
	if len(parts) == 0 {
		return ""
	}
	return "Start{" + strings.Join(parts, ", ") + "}"
}

func (a At) source() string {
	if a == afterwards() {
		return "afterwards()"
	}
	names := map[sop.State]string{sop.Began: "before", sop.Recorded: "recorded", Applied: "applied", sop.Answered: "answered", sop.Waiting: "waiting", sop.Done: "after"}
	name, ok := names[a.State]
	if !ok {
		return fmt.Sprintf("At{Step: %q, State: %q, Nth: %d}", a.Step, a.State, a.Nth)
	}
	s := fmt.Sprintf("%s(%q)", name, a.Step)
	if a.Nth > 1 {
		s += fmt.Sprintf(".nth(%d)", a.Nth)
	}
	return s
}

func (e Ending) source() string {
	var parts []string
	if e.Killed {
		parts = append(parts, "Killed: true")
	}
	if e.MayDie {
		parts = append(parts, "MayDie: true")
	}
	if e.Statuses != nil {
		parts = append(parts, fmt.Sprintf("Statuses: %#v", e.Statuses))
	}
	if e.Says != "" {
		parts = append(parts, fmt.Sprintf("Says: %q", e.Says))
	}
	if e.Untouched {
		parts = append(parts, "Untouched: true")
	}
	if e.Then != nil {
		parts = append(parts, fmt.Sprintf("Then: %#v", e.Then))
	}
	return "Ending{" + strings.Join(parts, ", ") + "}"
}
