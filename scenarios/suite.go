package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A SuiteSpec says which scenarios to play, and how.
type SuiteSpec struct {
	PlaySpec
	Pattern string // see Pick
	Lab     string // embedded; container labs suffer no faults of scenarios yet
	Count   int    // how often each is played, each time with the next seed; 1 when 0
	// AtOnce is how many are played at once; 0 is one for each processor, and
	// one more, since they wait for etcd most of the time.
	AtOnce int
	JUnit  string // file to write; empty for none
	Shrink bool   // make what failed smaller, and print it
	// Prefix is what stands before the name of a target in a command to type.
	Prefix string
	Report io.Writer // progress and the report; nil for none
}

// A SuiteResult is what playing scenarios came to.
type SuiteResult struct {
	Verdict  Verdict
	Results  []Result // in the order of the rows, a scenario's counts together
	Seconds  float64
	Seed     int64
	Coverage Coverage
}

// ErrLab says that a kind of lab cannot play scenarios.
var ErrLab = errors.New("this kind of lab cannot play scenarios")

// RunSuite plays scenarios, each on a lab of its own. An error means that
// nothing was played.
func RunSuite(ctx context.Context, spec SuiteSpec) (SuiteResult, error) {
	if spec.Lab != "" && spec.Lab != "embedded" {
		return SuiteResult{}, fmt.Errorf("%w: -lab=%s: its faults are not there yet, and nothing was played; use -lab=embedded", ErrLab, spec.Lab)
	}
	all, err := All(spec.Pattern, spec.Seed)
	if err != nil {
		return SuiteResult{}, err
	}
	picked, err := Pick(all, spec.Pattern)
	if err != nil {
		return SuiteResult{}, err
	}
	var bad []error
	for _, s := range picked {
		bad = append(bad, s.Check())
	}
	if err := errors.Join(bad...); err != nil {
		return SuiteResult{}, fmt.Errorf("%w: %w", ErrScenario, err)
	}
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	if len(picked) == 1 && picked[0].Name == theWalk {
		return walk(ctx, spec)
	}
	return spec.run(ctx, picked)
}

// run plays the scenarios that were picked, then the points of those that are
// swept.
func (spec SuiteSpec) run(ctx context.Context, picked []Scenario) (SuiteResult, error) {
	began := time.Now()
	count := max(spec.Count, 1)
	swept := slices.ContainsFunc(picked, func(s Scenario) bool { return s.Sweep != nil })
	spec.Lean = len(picked)*count > 1 || swept
	res := SuiteResult{Seed: spec.Seed}
	fmt.Fprintf(spec.Report, "scenarios %s, seed %d: %d to play\n", spec.Pattern, spec.Seed, len(picked)*count)
	res.Results = spec.playAll(ctx, picked, began)
	if swept {
		var points []Scenario
		for i, r := range res.Results {
			if r.Scenario.Sweep != nil && r.Verdict == Pass && i%count == 0 {
				points = append(points, spec.named(r.Scenario.points(r, spec.Seed))...)
			}
		}
		fmt.Fprintf(spec.Report, "%6.1f s  %d kill points to play\n", time.Since(began).Seconds(), len(points)*count)
		res.Results = append(res.Results, spec.playAll(ctx, points, began)...)
	}
	res.finish(began)
	return res, spec.tell(ctx, &res)
}

// named leaves those that the pattern names, where it names points.
func (spec SuiteSpec) named(points []Scenario) []Scenario {
	var some []Scenario
	for _, p := range strings.Split(spec.Pattern, ",") {
		if !strings.Contains(p, ".") {
			continue
		}
		for _, s := range points {
			if ok, err := path.Match(p, s.Name); err == nil && ok {
				some = append(some, s)
			}
		}
	}
	if len(some) == 0 && !strings.Contains(spec.Pattern, ".") {
		return points
	}
	return some
}

// playAll plays scenarios, several at once, each as often as is asked for.
func (spec SuiteSpec) playAll(ctx context.Context, picked []Scenario, began time.Time) []Result {
	count := max(spec.Count, 1)
	results := make([]Result, len(picked)*count)
	places := make(chan struct{}, spec.places())
	var playing sync.WaitGroup
	var telling sync.Mutex
	ended := 0
	for i := range results {
		sc, one := picked[i/count], spec.PlaySpec
		one.Seed += int64(i % count)
		places <- struct{}{}
		playing.Go(func() {
			defer func() { <-places }()
			r := Result{Scenario: sc, Seed: one.Seed, Verdict: Skipped, Reasons: []string{"interrupted"}}
			if ctx.Err() == nil {
				r = Play(ctx, sc, one)
			}
			telling.Lock()
			defer telling.Unlock()
			results[i] = r
			ended++
			fmt.Fprintf(spec.Report, "%6.1f s  %d of %d  %s\n", time.Since(began).Seconds(), ended, len(results), r.line())
		})
	}
	playing.Wait()
	return results
}

func (spec SuiteSpec) places() int { return cmp.Or(spec.AtOnce, runtime.GOMAXPROCS(0)+1) }

// finish sums up.
func (res *SuiteResult) finish(began time.Time) {
	res.Seconds = seconds(time.Since(began))
	res.Verdict = Pass
	passed := 0
	for _, r := range res.Results {
		if r.Verdict == Pass {
			passed++
		}
		if r.Verdict != Skipped {
			res.Verdict = worse(res.Verdict, r.Verdict)
		}
		res.Coverage.add(r)
	}
	if passed == 0 && res.Verdict == Pass {
		res.Verdict = Unknown // nothing was learnt
	}
}

// tell prints the report, writes the JUnit file, and shrinks what failed.
func (spec SuiteSpec) tell(ctx context.Context, res *SuiteResult) error {
	if _, err := io.WriteString(spec.Report, res.Text(spec)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if spec.JUnit != "" {
		if err := res.writeJUnit(spec); err != nil {
			return err
		}
	}
	if !spec.Shrink {
		return nil
	}
	for _, r := range res.Results {
		if r.Verdict != Violation || ctx.Err() != nil {
			continue
		}
		small := Shrink(ctx, r, spec)
		if _, err := fmt.Fprintf(spec.Report, "\nthe smallest row that still fails, of %s:\n\n%s\n", r.Scenario.Name, small.Source()); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// line is a result in one line.
func (r Result) line() string {
	s := fmt.Sprintf("%-9s  %s", r.Verdict, r.Scenario.Name)
	if r.Verdict != Pass && len(r.Reasons) > 0 {
		s += ": " + r.Reasons[0]
	}
	return s
}

// rerun is the command that plays a result again.
func (r Result) rerun(prefix string) string {
	return fmt.Sprintf("%sscenario:run %s -seed=%d", prefix, r.Scenario.Name, r.Seed)
}

// Text is the report for the terminal.
func (res *SuiteResult) Text(spec SuiteSpec) string {
	var b strings.Builder
	counts := map[Verdict]int{}
	for _, r := range res.Results {
		counts[r.Verdict]++
	}
	for _, v := range []Verdict{Violation, Unknown, Infra} {
		for _, r := range res.Results {
			if r.Verdict != v {
				continue
			}
			fmt.Fprintf(&b, "\n%s  %s\n", r.Verdict, r.Scenario.Name)
			fmt.Fprintf(&b, "  row: %s\n", r.Scenario.sentence())
			for _, why := range r.Reasons {
				fmt.Fprintf(&b, "  why: %s\n", why)
			}
			for _, st := range r.Strikes {
				fmt.Fprintf(&b, "  strike: %s\n", st.Detail)
			}
			if r.Dir != "" {
				fmt.Fprintf(&b, "  kept: %s\n", r.Dir)
			}
			fmt.Fprintf(&b, "  again: %s\n", r.rerun(spec.Prefix))
		}
	}
	if again := res.reproduced(spec.Count); again != "" {
		b.WriteString("\n" + again)
	}
	b.WriteString("\n" + res.Coverage.Text())
	for _, r := range res.Results {
		if r.Verdict == Skipped {
			fmt.Fprintf(&b, "SKIPPED %s: %s\n", r.Scenario.Name, strings.Join(r.Reasons, "; "))
		}
	}
	fmt.Fprintf(&b, "\n%s: %d passed, %d violated, %d undecided, %d failed by the lab, %d skipped, in %.0f s, seed %d\n",
		res.Verdict, counts[Pass], counts[Violation], counts[Unknown], counts[Infra], counts[Skipped], res.Seconds, res.Seed)
	return b.String()
}

// reproduced says how often each scenario failed that was played several
// times.
func (res *SuiteResult) reproduced(count int) string {
	if count < 2 {
		return ""
	}
	var b strings.Builder
	for chunk := range slices.Chunk(res.Results, count) {
		failed := 0
		for _, r := range chunk {
			if r.Verdict == Violation {
				failed++
			}
		}
		fmt.Fprintf(&b, "%s: a violation in %d of %d\n", chunk[0].Scenario.Name, failed, len(chunk))
	}
	return b.String()
}

// sentence is a row in words.
func (s Scenario) sentence() string {
	words := []string{s.Procedure}
	for _, k := range s.Strikes {
		w := fmt.Sprintf("%s: %s", k.At, k.Fault)
		if k.Until.Step != "" {
			w += fmt.Sprintf(" (until %s)", k.Until)
		}
		if k.Stays {
			w += " (for good)"
		}
		words = append(words, w)
	}
	if s.Mutant != "" {
		words = append(words, "by an operator who "+s.Mutant)
	}
	return strings.Join(append(words, s.Ending.String()), "; ")
}

// All are all scenarios: the rows, those of the kill sweep, and those of a walk
// from the seed that the pattern names.
func All(pattern string, seed int64) ([]Scenario, error) {
	all := slices.Concat(Rows(), sweep())
	for _, p := range strings.Split(pattern, ",") {
		var n int
		if _, err := fmt.Sscanf(p, "walk-%d", &n); err == nil {
			all = append(all, draw(seed, n))
		}
	}
	seen := map[string]bool{}
	for _, s := range all {
		if seen[s.Name] {
			return nil, fmt.Errorf("%w: two are called %s", ErrScenario, s.Name)
		}
		seen[s.Name] = true
	}
	return all, nil
}

// ListText is scenario:list: each row with its tier, suites and what it is
// about, pending ones with what they wait for.
func ListText(all []Scenario) string {
	var b strings.Builder
	for _, s := range all {
		what := s.sentence()
		if s.Pending != "" {
			what = "PENDING: " + s.Pending
		}
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", s.Name, s.Tier, strings.Join(s.Suites, ","), what)
	}
	return b.String()
}

// writeFile writes a file that somebody asked for by name.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
