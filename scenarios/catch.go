package scenarios

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Catch is what became of one mutant.
type Catch struct {
	Mutant   Mutant
	By       string   // the scenario that found it out; empty when none did
	Why      string   // what that scenario said
	Results  []Result // of all that were played
	Unproven string   // a scenario that fails without the mutant too, so that it proves nothing
	Cut      bool     // it was interrupted before a scenario could find it out
}

// RunMutants plays the scenarios that are to find each mutant out, first as
// they are, to see them pass, and then by the mutant. The verdict is pass when
// every mutant was found out by a violation; names are of those to play, none
// for all.
func RunMutants(ctx context.Context, spec SuiteSpec, names []string) (Verdict, error) {
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	var mutants []Mutant
	for _, m := range Mutants() {
		if len(names) == 0 || slices.Contains(names, m.Name) {
			mutants = append(mutants, m)
		}
	}
	for _, n := range names {
		if _, err := MutantNamed(n); err != nil {
			return Unknown, fmt.Errorf("%w: %w", ErrScenario, err)
		}
	}
	all, err := All("", 0)
	if err != nil {
		return Unknown, err
	}
	rows := map[string]Scenario{}
	for _, s := range all {
		rows[s.Name] = s
	}
	for _, m := range mutants {
		for _, name := range m.Caught {
			if _, ok := rows[name]; !ok {
				return Unknown, fmt.Errorf("%w: mutant %s is to be found out by %s, which is none", ErrScenario, m.Name, name)
			}
		}
	}
	began := time.Now()
	spec.Lean = true
	fmt.Fprintf(spec.Report, "%d mutants, seed %d\n", len(mutants), spec.Seed)
	sound := spec.controls(ctx, mutants, rows, began)
	catches := make([]Catch, len(mutants))
	places := make(chan struct{}, spec.places())
	var playing sync.WaitGroup
	var telling sync.Mutex
	for i, m := range mutants {
		places <- struct{}{}
		playing.Go(func() {
			defer func() { <-places }()
			c := spec.catch(ctx, m, rows, sound)
			telling.Lock()
			defer telling.Unlock()
			catches[i] = c
			fmt.Fprintf(spec.Report, "%6.1f s  %s\n", time.Since(began).Seconds(), c.line())
		})
	}
	playing.Wait()
	return tally(spec.Report, catches)
}

// controls plays the scenarios without a mutant, and gives those that pass.
func (spec SuiteSpec) controls(ctx context.Context, mutants []Mutant, rows map[string]Scenario, began time.Time) map[string]bool {
	var picked []Scenario
	seen := map[string]bool{}
	for _, m := range mutants {
		for _, name := range m.Caught {
			if !seen[name] {
				seen[name] = true
				picked = append(picked, rows[name])
			}
		}
	}
	sound := map[string]bool{}
	for _, r := range spec.playAll(ctx, picked, began) {
		sound[r.Scenario.Name] = r.Verdict == Pass
	}
	return sound
}

// catch plays a mutant until a scenario finds it out.
func (spec SuiteSpec) catch(ctx context.Context, m Mutant, rows map[string]Scenario, sound map[string]bool) Catch {
	c := Catch{Mutant: m}
	for _, name := range m.Caught {
		if c.Cut = ctx.Err() != nil; c.Cut {
			break
		}
		if !sound[name] {
			c.Unproven = name
			continue
		}
		sc := rows[name]
		sc.Mutant = m.Name
		r := Play(ctx, sc, spec.PlaySpec)
		c.Results = append(c.Results, r)
		if r.Verdict == Violation {
			c.By, c.Why = name, cmp.Or(strings.Join(r.Reasons, "; "), "violation")
			break
		}
		c.Cut = ctx.Err() != nil
	}
	return c
}

func (c Catch) line() string {
	what := fmt.Sprintf("%s (%s)", c.Mutant.Name, c.Mutant.Does)
	if c.By != "" {
		why, _, _ := strings.Cut(c.Why, "\n")
		return fmt.Sprintf("caught   %s: by %s: %s", what, c.By, why)
	}
	var told []string
	for _, r := range c.Results {
		told = append(told, fmt.Sprintf("%s: %s %s", r.Scenario.Name, r.Verdict, strings.Join(r.Reasons, "; ")))
	}
	if c.Unproven != "" {
		told = append(told, c.Unproven+" does not pass without it either")
	}
	if c.Cut {
		return fmt.Sprintf("cut off  %s", what)
	}
	return fmt.Sprintf("ESCAPED  %s: %s", what, strings.Join(told, " | "))
}

func tally(report io.Writer, catches []Catch) (Verdict, error) {
	caught := 0
	v := Pass
	for _, c := range catches {
		switch {
		case c.By != "":
			caught++
		case c.Unproven != "" || c.Cut:
			v = worse(v, Unknown)
		default:
			v = worse(v, Violation)
		}
	}
	_, err := fmt.Fprintf(report, "\n%s: %d of %d mutants were caught\n", v, caught, len(catches))
	return v, err
}
