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
	"reflect"
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
	Lab     string // embedded, or container: machines, which suffer some faults and not others
	// Machines says where those of -lab=container are made.
	Machines MachineSpec
	Count    int // how often each is played, each time with the next seed; 1 when 0
	// AtOnce is how many are played at once; 0 is two for each processor, since they
	// wait for etcd most of the time.
	AtOnce int
	Mutant string        // who the operators are, to see what that looks like; empty for sane ones
	Walk   time.Duration // how long the walk goes on; 0 is until told to stop
	JUnit  string        // file to write; empty for none
	Shrink bool          // make what failed smaller, and print it
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
func RunSuite(ctx context.Context, spec SuiteSpec) (res SuiteResult, err error) {
	onMachines := spec.Lab == "container"
	if spec.Lab != "" && spec.Lab != "embedded" && !onMachines {
		return SuiteResult{}, fmt.Errorf("%w: -lab=%s: there are embedded and container", ErrLab, spec.Lab)
	}
	all, err := All(spec.Pattern, spec.Seed)
	if err != nil {
		return SuiteResult{}, err
	}
	if onMachines {
		all = forMachines(all)
	}
	picked, err := Pick(all, spec.Pattern)
	if err != nil && onMachines {
		err = fmt.Errorf("%w; on machines neither a kill sweep nor the walk is played", err)
	}
	if err != nil {
		return SuiteResult{}, err
	}
	walks := len(picked) == 1 && picked[0].Name == theWalk
	if spec.Walk > 0 && !walks {
		return SuiteResult{}, fmt.Errorf("%w: -walk is about soak alone, and %s is picked", ErrScenario, spec.Pattern)
	}
	var bad []error
	if spec.Mutant != "" {
		_, err := MutantNamed(spec.Mutant)
		bad = append(bad, err)
		if onMachines {
			bad = append(bad, errors.New("mutants work in embedded labs alone"))
		}
	}
	for i := range picked {
		picked[i].Mutant = spec.Mutant
		bad = append(bad, picked[i].Check())
	}
	if err := errors.Join(bad...); err != nil {
		return SuiteResult{}, fmt.Errorf("%w: %w", ErrScenario, err)
	}
	if spec.Report == nil {
		spec.Report = io.Discard
	}
	if onMachines {
		if spec.Stand, err = raise(ctx, spec.Machines, picked, spec.Report); err != nil {
			return SuiteResult{}, err
		}
		defer func() { err = errors.Join(err, spec.Stand.down(ctx)) }()
		spec.AtOnce = 1 // there is one lab
	}
	if walks {
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
	picked, twins := withoutTwins(picked)
	spec.Lean = len(picked)*count > 1 || swept
	res := SuiteResult{Seed: spec.Seed}
	fmt.Fprintf(spec.Report, "scenarios %s, seed %d: %d to play\n", spec.Pattern, spec.Seed, len(picked)*count)
	for _, t := range twins {
		fmt.Fprintln(spec.Report, t)
	}
	res.Results = spec.playAll(ctx, picked, began)
	res.finish(began)
	return res, spec.tell(ctx, &res)
}

// withoutTwins leaves out scenarios that a kill sweep among them plays as well,
// before it kills anybody, and says which.
func withoutTwins(picked []Scenario) (left []Scenario, twins []string) {
	for _, s := range picked {
		i := slices.IndexFunc(picked, func(t Scenario) bool { return t.Sweep != nil && s.twin(t) })
		if i < 0 {
			left = append(left, s)
			continue
		}
		twins = append(twins, fmt.Sprintf("%s is what %s plays first", s.Name, picked[i].Name))
	}
	return left, twins
}

// twin says whether a scenario, and that of a sweep without its points, are the
// same but for their names.
func (s Scenario) twin(t Scenario) bool {
	if s.Sweep != nil || len(s.Swarm)+len(s.Strikes)+len(t.Strikes)+len(s.Inspections)+len(t.Inspections) > 0 {
		return false
	}
	return s.Procedure == t.Procedure && s.Quiet == t.Quiet && s.Mutant == t.Mutant &&
		reflect.DeepEqual(s.Start, t.Start) && reflect.DeepEqual(s.Ending, t.Ending)
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

// playAll plays scenarios, several at once, each as often as is asked for, and the
// points of those that are swept. The results are in the order of the scenarios,
// and those of points come after all others.
func (spec SuiteSpec) playAll(ctx context.Context, picked []Scenario, began time.Time) []Result {
	count := max(spec.Count, 1)
	var all []*act
	for i := range len(picked) * count {
		all = append(all, &act{sc: picked[i/count], seed: spec.Seed + int64(i%count), sweeps: picked[i/count].Sweep != nil && i%count == 0})
	}
	q := &queue{waiting: inTurn(all), total: len(all)}
	q.changed.L = &q.mu
	var playing sync.WaitGroup
	for range spec.places() {
		playing.Go(func() {
			for a := q.next(); a != nil; a = q.next() {
				a.result = Result{Scenario: a.sc, Seed: a.seed, Verdict: Skipped, Reasons: []string{"interrupted"}}
				if ctx.Err() == nil {
					one := spec.PlaySpec
					one.Seed = a.seed
					a.result = Play(ctx, a.sc, one)
				}
				if a.sweeps && a.result.Verdict == Pass {
					for _, p := range spec.named(a.sc.points(a.result, spec.Seed)) {
						for i := range count {
							a.points = append(a.points, &act{sc: p, seed: spec.Seed + int64(i)})
						}
					}
				}
				q.done(a, func(ended, total int) {
					line := fmt.Sprintf("%6.1f s  %d of %d  %s", time.Since(began).Seconds(), ended, total, a.result.line())
					if len(a.points) > 0 {
						line += fmt.Sprintf(": %d kill points to play", len(a.points))
					}
					fmt.Fprintln(spec.Report, line)
				})
			}
		})
	}
	playing.Wait()
	var results, points []Result
	for _, a := range all {
		results = append(results, a.result)
		for _, p := range a.points {
			points = append(points, p.result)
		}
	}
	return append(results, points...)
}

// An act is one playing of a scenario.
type act struct {
	sc     Scenario
	seed   int64
	sweeps bool // its points are to be played as well
	result Result
	points []*act
}

// inTurn puts first what others wait for, and last what is short: refusals, which
// even out the ends of the players.
func inTurn(all []*act) []*act {
	rank := func(a *act) int {
		switch {
		case a.sweeps:
			return 0
		case a.sc.Ending.Untouched && len(a.sc.Ending.Then) == 0:
			return 2
		}
		return 1
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b *act) int { return cmp.Compare(rank(a), rank(b)) })
	return sorted
}

// A queue is what is still to be played. It grows while sweeps find their points.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []*act
	playing int
	ended   int
	total   int
}

// next gives what to play next, or nil when there is nothing more, and nobody plays
// what could bring more.
func (q *queue) next() *act {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && q.playing > 0 {
		q.changed.Wait()
	}
	if len(q.waiting) == 0 {
		return nil
	}
	a := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.playing++
	return a
}

// done notes that one was played, with what it brought, and tells.
func (q *queue) done(a *act, tell func(ended, total int)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = inTurn(append(q.waiting, a.points...))
	q.playing--
	q.ended++
	q.total += len(a.points)
	tell(q.ended, q.total)
	q.changed.Broadcast()
}

func (spec SuiteSpec) places() int { return cmp.Or(spec.AtOnce, 2*runtime.GOMAXPROCS(0)) }

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
	shrunk := map[string]bool{}
	for _, r := range res.Results {
		if r.Verdict != Violation || shrunk[r.Scenario.Name] || ctx.Err() != nil {
			continue
		}
		shrunk[r.Scenario.Name] = true
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
	again := fmt.Sprintf("%sscenario:run %s -seed=%d%s", prefix, r.Scenario.Name, r.Seed, r.lab)
	if m := r.Scenario.Mutant; m != "" {
		again += " -mutant=" + m
	}
	return again
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
	if len(s.Swarm) > 0 {
		words = append(words, "strikes that the seed draws")
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
