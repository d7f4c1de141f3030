package scenarios

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop"
)

func TestRowsMakeSense(t *testing.T) {
	all, err := All("", 0)
	require.NoError(t, err)
	suites, tiers := map[string]int{}, map[Tier]int{}
	for _, s := range all {
		require.NoError(t, s.Check())
		for _, name := range s.Suites {
			suites[name]++
		}
		tiers[s.Tier]++
	}
	for _, name := range Suites() {
		require.Positive(t, suites[name], "suite %s is empty", name)
	}
	for _, tier := range Tiers() {
		require.Positive(t, tiers[tier], "tier %s has nothing of its own", tier)
	}
	require.Contains(t, ListText(all), "PENDING: there is no procedure that changes a peer URL")
}

func TestWhatMakesNoSense(t *testing.T) {
	good := Scenario{Name: "x", Suites: []string{"learner"}, Tier: PR, Start: grows(), Procedure: addSpare, Ending: completes()}
	require.NoError(t, good.Check())
	for what, c := range map[string]struct {
		change func(*Scenario)
		says   string
	}{
		"step": {func(s *Scenario) {
			s.Strikes = []Strike{at(before("promote"), fault.Kill(fault.Leader))}
		}, `procedure addMember has no step "promote"; it has save a snapshot, add as learner`},
		"step that changes nothing in etcd": {func(s *Scenario) {
			s.Strikes = []Strike{at(applied("start etcd"), fault.Kill(fault.Leader))}
		}, `no call of step "start etcd" is held back once it is applied; those of add as learner, compact,`},
		"points to crash at": {func(s *Scenario) {
			s.Strikes = []Strike{from(fault.CrashAt(fault.Leader, fault.BeforeSave))}
		}, "its members have no points to crash at"},
		"step to heal at": {func(s *Scenario) {
			s.Strikes = []Strike{{Fault: fault.Kill(fault.Leader), Until: after("hand over the leadership")}}
		}, `has no step "hand over the leadership"`},
		"role":           {func(s *Scenario) { s.Strikes = []Strike{from(fault.Kill("boss"))} }, `"boss" is neither an address nor one of leader`},
		"fault":          {func(s *Scenario) { s.Strikes = []Strike{{At: before("start etcd")}} }, "a strike without a fault"},
		"suite":          {func(s *Scenario) { s.Suites = []string{"chaos"} }, "there is no suite chaos"},
		"no suite":       {func(s *Scenario) { s.Suites = nil }, "it is in no suite"},
		"tier":           {func(s *Scenario) { s.Tier = "weekly" }, `there is no tier "weekly"`},
		"name":           {func(s *Scenario) { s.Name = "Add a member" }, "a name is of"},
		"procedure":      {func(s *Scenario) { s.Procedure = "addMembr 10.10.10.13" }, "addMember"},
		"argument":       {func(s *Scenario) { s.Procedure = "addMember" }, "HOST"},
		"later command":  {func(s *Scenario) { s.Ending.Then = []string{"removeMember"} }, "HOST"},
		"waiver":         {func(s *Scenario) { s.Procedure = "restart -waive=all -reason=x" }, "nothing waives all"},
		"empty":          {func(s *Scenario) { s.Procedure = "" }, "a command without words"},
		"command before": {func(s *Scenario) { s.Start.Before = []string{"lab:dwn"} }, "lab:dwn"},
	} {
		s := good
		c.change(&s)
		require.ErrorContains(t, s.Check(), c.says, what)
		// It is an error, never a pass.
		r := Play(t.Context(), s, PlaySpec{})
		require.Equal(t, Infra, r.Verdict, what)
	}
}

func TestPick(t *testing.T) {
	all, err := All("walk-7", 3)
	require.NoError(t, err)
	names := func(pattern string) []string {
		picked, err := Pick(all, pattern)
		require.NoError(t, err)
		var names []string
		for _, s := range picked {
			names = append(names, s.Name)
		}
		return names
	}
	smoke, pr, nightly := names("smoke"), names("pr"), names("nightly")
	require.Subset(t, pr, smoke)
	require.Subset(t, nightly, pr)
	require.Greater(t, len(nightly), len(pr))
	require.Equal(t, []string{"add"}, names("add"))
	require.Equal(t, []string{"add", "restart"}, names("add,restart,add"))
	require.Equal(t, []string{"walk"}, names("soak"), "it does not end by itself, so no tier holds it")
	require.Equal(t, []string{"walk-7"}, names("walk-7"))
	require.Equal(t, []string{"sweep-add"}, names("sweep-add.promote-to-voter.*"))
	require.Greater(t, len(names("learner")), 10)
	for _, pattern := range []string{"no-such", "", "smoke,no-such", "["} {
		_, err := Pick(all, pattern)
		require.ErrorIs(t, err, ErrScenario, "%q", pattern)
	}
	_, err = RunSuite(t.Context(), SuiteSpec{Pattern: "no-such"})
	require.ErrorIs(t, err, ErrScenario)
	_, err = RunSuite(t.Context(), SuiteSpec{Pattern: "smoke", Lab: "cloud"})
	require.ErrorIs(t, err, ErrLab)
}

// On a pull request every procedure meets each of the faults that it is to bear,
// if only once: what is moved to the nights must have somebody else to stand for
// it.
func TestPullRequestsMeetEveryFault(t *testing.T) {
	want := map[string][]string{
		"addMember":      {"alarm", "bridge", "compaction", "crash", "cut", "delay", "disk full", "edited inventory", "expired certificate", "firewall", "foreign cluster", "former data", "isolation", "kill", "loss", "no journal", "operator interrupt", "operator kill", "operator second", "other cluster remembered", "pause", "power cycle", "power loss", "quota alarm", "reply lost", "slow sync", "small quota", "stale data", "torn journal", "wrong CA"},
		"alarm:disarm":   {"quota alarm"},
		"compact":        {"operator kill"},
		"createCluster":  {"crash", "lost CA", "operator kill", "power", "visit"},
		"defrag":         {"crash", "kill", "operator kill"},
		"destroyCluster": {"operator kill", "power"},
		"migrate":        {"crash", "kill", "leadership", "operator kill", "power"},
		"moveLeader":     {"crash", "operator kill"},
		"reloadConfig":   {"edited file", "operator kill"},
		"removeMember":   {"crash", "flip backend", "image", "isolation", "leadership", "old image", "operator kill", "reply lost"},
		"replaceMember":  {"crash", "kill", "leadership", "operator kill"},
		"restart":        {"clock", "crash", "cut", "kill", "operator kill", "pause"},
		"restore":        {"crash", "operator kill", "power", "visit"},
		"rotateCerts":    {"kill", "operator kill"},
		"upgrade":        {"crash", "edited file", "kill", "operator kill"},
	}
	all, err := All("", 0)
	require.NoError(t, err)
	picked, err := Pick(all, string(PR))
	require.NoError(t, err)
	met := map[string]map[string]bool{}
	for _, s := range picked {
		verb, _, _ := strings.Cut(s.Procedure, " ")
		if met[verb] == nil {
			met[verb] = map[string]bool{}
		}
		if s.Sweep != nil {
			met[verb]["operator kill"] = true
		}
		for _, k := range s.Strikes {
			met[verb][k.Fault.Kind()] = true
		}
	}
	for verb, kinds := range want {
		for _, kind := range kinds {
			require.True(t, met[verb][kind], "no row of tier pr has %s meet %q", verb, kind)
		}
	}
}

// What a kill sweep plays first is not played twice.
func TestTwinsArePlayedOnce(t *testing.T) {
	all, err := All("", 0)
	require.NoError(t, err)
	picked, err := Pick(all, "restart,sample-restart,remove,sample-remove-leader")
	require.NoError(t, err)
	left, twins := withoutTwins(picked)
	require.Equal(t, []string{"restart is what sample-restart plays first"}, twins)
	require.Len(t, left, 3, "a sweep that begins with a strike is no twin of a row without")
	picked, err = Pick(all, "restart,remove")
	require.NoError(t, err)
	left, twins = withoutTwins(picked)
	require.Empty(t, twins)
	require.Equal(t, picked, left)
}

// On machines there are a few rows for each push, and all but sweeps and walks
// each night.
func TestRowsForMachines(t *testing.T) {
	all, err := All("", 0)
	require.NoError(t, err)
	rows := forMachines(all)
	count := map[Tier]int{}
	for _, s := range rows {
		require.NoError(t, s.Check())
		require.Nil(t, s.Sweep)
		count[s.Tier]++
	}
	require.Equal(t, 2, count[Smoke], "each that is named is a row")
	require.Equal(t, 9, count[PR], "each that is named is a row")
	require.Greater(t, count[Nightly], 80)
	_, err = Pick(rows, "soak")
	require.ErrorIs(t, err, ErrScenario)
	for _, s := range all {
		require.NotEmpty(t, s.Tier, "they are copies")
	}
}

// Titles are in the procedures' source, some with an ID or a path at the end.
func TestStrikesNameStepsThatThereAre(t *testing.T) {
	titles := map[string]bool{}
	files, err := filepath.Glob("../sop/*.go")
	require.NoError(t, err)
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if k, ok := n.Key.(*ast.Ident); ok && (k.Name == "Title" || k.Name == "Name") { // a safeguard is waited for as well
					for _, l := range literals(n.Value) {
						titles[strings.TrimSpace(l)] = true
					}
				}
			case *ast.CallExpr: // removeFile(host, path, title), step(title, ...)
				place := map[string]int{"removeFile": 2, "step": 0}
				if id, ok := n.Fun.(*ast.Ident); ok {
					if i, titled := place[id.Name]; titled && i < len(n.Args) {
						for _, l := range literals(n.Args[i]) {
							titles[l] = true
						}
					}
				}
			}
			return true
		})
	}
	require.Greater(t, len(titles), 20)
	for verb, steps := range stepNames() {
		for _, step := range steps {
			ok := titles[step]
			for title := range titles {
				ok = ok || strings.HasPrefix(step, title+" ") // "refresh etcdctl.sh" is a refresh
			}
			require.True(t, ok, "%s has no step %q", verb, step)
		}
	}
}

func literals(x ast.Expr) []string {
	var all []string
	ast.Inspect(x, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				all = append(all, s)
			}
		}
		return true
	})
	return all
}

func TestMutantsAreToBeCaught(t *testing.T) {
	all, err := All("", 0)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, m := range Mutants() {
		require.NotEmpty(t, m.Does, m.Name)
		require.NotEmpty(t, m.Caught, "%s is found out by nothing", m.Name)
		require.False(t, seen[m.Name], m.Name)
		seen[m.Name] = true
		for _, name := range m.Caught {
			i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
			require.GreaterOrEqual(t, i, 0, "%s: there is no scenario %s", m.Name, name)
			require.Empty(t, all[i].Pending, "%s: %s cannot be played", m.Name, name)
		}
		found, err := MutantNamed(m.Name)
		require.NoError(t, err)
		require.Equal(t, m.Name, found.Name)
	}
	require.GreaterOrEqual(t, len(seen), 25)
	_, err = RunMutants(t.Context(), SuiteSpec{}, []string{"kind"})
	require.ErrorIs(t, err, ErrScenario)
}

// Safeguards and steps that a mutant forgets by name are there to be forgotten.
func TestMutantsForgetWhatThereIs(t *testing.T) {
	var source strings.Builder
	for _, pattern := range []string{"../sop/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range files {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			source.Write(b)
		}
	}
	b, err := os.ReadFile("mutant.go")
	require.NoError(t, err)
	named := regexp.MustCompile(`(?:forget|skip|stageBefore|stageAfter)\(((?:"[^"]*"(?:, )?)+)\)`).FindAllStringSubmatch(string(b), -1)
	require.Greater(t, len(named), 20)
	for _, call := range named {
		for _, name := range strings.Split(call[1], ", ") {
			require.True(t, strings.Contains(source.String(), name), "nothing is called %s any more", name)
		}
	}
}

// --- shrinking ---

func TestShrink(t *testing.T) {
	noise := fault.Pause(fault.Follower)
	s := Scenario{Name: "x", Procedure: addSpare, Ending: survives(sameAgain, "restart"), Start: Start{Spares: 1, Before: []string{"restart", "reloadConfig"}},
		Strikes: []Strike{from(noise), at(before("start etcd"), fault.Kill(fault.Leader)), from(noise), at(before("promote to voter"), fault.KillOperator()), from(noise)}}
	played := 0
	needs := func(s Scenario, f fault.Fault) bool {
		return slices.ContainsFunc(s.Strikes, func(k Strike) bool { return k.Fault.String() == f.String() })
	}
	small := shrink(s, func(s Scenario) bool {
		played++
		return needs(s, fault.Kill(fault.Leader)) && needs(s, fault.KillOperator()) && slices.Contains(s.Start.Before, "reloadConfig")
	})
	require.Len(t, small.Strikes, 2)
	require.Equal(t, []string{"reloadConfig"}, small.Start.Before)
	require.Empty(t, small.Ending.Then)
	require.True(t, small.Quiet)
	require.Len(t, s.Strikes, 5, "the row that failed is as it was")
	require.Less(t, played, 40)

	require.Equal(t, s.Name, shrink(s, func(Scenario) bool { return false }).Name)
}

// A row that is printed is Go source that says the same.
func TestSource(t *testing.T) {
	all, err := All("walk-1", 5)
	require.NoError(t, err)
	for _, s := range all {
		if s.Pending != "" {
			continue
		}
		_, err := parser.ParseExpr("[]Scenario{\n" + s.Source() + "}")
		require.NoError(t, err, "%s:\n%s", s.Name, s.Source())
	}
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == "leader-paused-at-promote" })
	require.Equal(t, `	{Name: "leader-paused-at-promote", Suites: []string{"learner", "reload"}, Tier: "pr", Start: Start{Spares: 1},
		Strikes: []Strike{
			{At: recorded("promote to voter"), Fault: fault.Pause(fault.Leader), For: 3000000000}, // once recorded: "promote to voter": pause leader
		},
		Procedure: "addMember 10.10.10.13", Ending: Ending{Statuses: []int{0, 1, 3, 4, 130}, Then: []string{"AGAIN"}},
	},
`, all[i].Source())
}

// --- the kill sweep ---

func TestPointsOfASweep(t *testing.T) {
	row := Scenario{Name: "sweep-add", Procedure: addSpare, Sweep: &Sweep{}}
	var base Result
	for _, title := range []string{"write ca.crt", "remove member 5a3fb1c2d4e5f607", "write ca.crt"} {
		for _, state := range []sop.State{sop.Began, sop.Recorded, Applied, sop.Sent, sop.Answered, sop.Waiting, sop.Done} {
			base.Points = append(base.Points, Moment{Title: title, State: state})
		}
	}
	points := row.points(base, 1)
	require.Len(t, points, 3*len(killed()))
	require.Equal(t, "sweep-add.write-ca-crt.began.1", points[0].Name)
	require.Equal(t, "sweep-add.remove-member.recorded.1", points[6].Name, "without the ID, which differs each time")
	require.Equal(t, "sweep-add.write-ca-crt.answered.2", points[14].Name)
	for _, p := range points {
		require.Nil(t, p.Sweep)
		require.Equal(t, []string{sameAgain}, p.Ending.Then)
	}
	row.Sweep = &Sweep{Points: 4, Elsewhere: true}
	some := row.points(base, 1)
	require.Len(t, some, 4)
	require.Equal(t, []string{elsewhere + sameAgain}, some[0].Ending.Then)
	for i, p := range row.points(base, 1) {
		require.Equal(t, some[i].Name, p.Name, "the same seed, the same sample")
	}
}

func TestDiffer(t *testing.T) {
	want := map[string]string{"a": "1", "b": "2", "c": "3"}
	require.Empty(t, differ(want, want))
	require.Equal(t, []string{`a is "9", undisturbed it is "1"`, `b is missing, it was "2"`, `d is left: "4"`}, differ(want, map[string]string{"a": "9", "c": "3", "d": "4"}))
}

// A walk is the same each time from the same seed.
func TestDraw(t *testing.T) {
	for n := range 50 {
		s := draw(7, n)
		require.NoError(t, s.Check(), "%s", s.Source())
		require.Equal(t, s.Source(), draw(7, n).Source())
		require.NotEmpty(t, s.Strikes)
	}
	require.NotEqual(t, draw(7, 1).Source(), draw(8, 1).Source())
	swarms := 0
	for _, row := range Rows() {
		if len(row.Swarm) == 0 {
			continue
		}
		swarms++
		s := row.drawn(7)
		require.NoError(t, s.Check(), "%s", s.Source())
		require.NotEmpty(t, s.Strikes)
		require.Equal(t, s.Source(), row.drawn(7).Source())
		require.NotEqual(t, s.Source(), row.drawn(8).Source())
		// What was drawn for a play is shrunk as it is.
		require.Equal(t, s.Source(), s.drawn(8).Source())
	}
	require.Positive(t, swarms)
	require.Equal(t, draw(7, 1).Source(), draw(7, 1).drawn(8).Source(), "a walk's own are drawn by number")
}

// --- reports ---

func results() SuiteResult {
	struck := Struck{Procedure: "addMember", Step: "promote to voter", Fault: "kill", Role: "leader", Detail: "kill leader (10.10.10.10)"}
	of := func(name string, v Verdict, why string) Result {
		s := struck
		s.Verdict = v
		if v == Unknown {
			s.Verdict = Skipped
		}
		r := Result{Scenario: Scenario{Name: name, Suites: []string{"learner"}, Procedure: addSpare, Ending: completes()}, Seed: 7, Verdict: v, Seconds: 1.5, Strikes: []Struck{s},
			Points: []Moment{{Title: "promote to voter"}, {Title: "write ca.crt"}}}
		if why != "" {
			r.Reasons = []string{why}
		}
		if v == Skipped {
			r.Strikes = nil
		}
		return r
	}
	res := SuiteResult{Seed: 7, Results: []Result{of("a", Pass, ""), of("b", Violation, "a write is \x00missing"), of("c", Unknown, "kill leader never bit"), of("d", Infra, "no lab"), of("e", Skipped, "the lab cannot")}}
	res.finish(time.Now())
	return res
}

func TestVerdicts(t *testing.T) {
	res := results()
	require.Equal(t, Violation, res.Verdict)
	text := res.Text(SuiteSpec{Prefix: "etcdrill "})
	for _, want := range []string{
		"again: etcdrill scenario:run b -seed=7", "SKIPPED e: the lab cannot", "1 passed, 1 violated, 1 undecided, 1 failed by the lab, 1 skipped",
		"addMember  promote to voter  kill   leader  1      1    2", "addMember  write             -      -                   never",
	} {
		require.Contains(t, text, want)
	}
	for _, c := range []struct {
		of   []Verdict
		want Verdict
	}{
		{[]Verdict{Pass, Pass}, Pass},
		{[]Verdict{Pass, Skipped}, Pass},
		{[]Verdict{Skipped}, Unknown}, // nothing was learnt
		{nil, Unknown},
		{[]Verdict{Pass, Unknown}, Unknown},
		{[]Verdict{Unknown, Infra}, Infra},
		{[]Verdict{Infra, Violation, Pass}, Violation},
	} {
		var res SuiteResult
		for _, v := range c.of {
			res.Results = append(res.Results, Result{Verdict: v})
		}
		res.finish(time.Now())
		require.Equal(t, c.want, res.Verdict, "%v", c.of)
	}
}

func TestJUnit(t *testing.T) {
	res := results()
	b, err := res.JUnit(SuiteSpec{Pattern: "learner", Prefix: "etcdrill "})
	require.NoError(t, err)
	var read junitSuites
	require.NoError(t, xml.Unmarshal(b, &read))
	s := read.Suites[0]
	require.Equal(t, []int{5, 1, 2, 1}, []int{s.Tests, s.Failures, s.Errors, s.Skipped})
	require.Contains(t, s.Properties, junitProperty{"seed", "7"})
	require.Contains(t, s.Cases[1].Properties, junitProperty{"rerun", "etcdrill scenario:run b -seed=7"})
	require.Equal(t, "a write is missing", s.Cases[1].Failure.Message)
	require.Equal(t, "unknown", s.Cases[2].Error.Type)
	require.Equal(t, "infra", s.Cases[3].Error.Type)
	require.NotNil(t, s.Cases[4].Skipped)
	require.Nil(t, s.Cases[0].Failure)
	require.Equal(t, "kill leader (10.10.10.10)\n", s.Cases[0].Out)
}

func TestReproduced(t *testing.T) {
	res := SuiteResult{Results: []Result{{Scenario: Scenario{Name: "a"}, Verdict: Violation}, {Scenario: Scenario{Name: "a"}, Verdict: Pass}, {Scenario: Scenario{Name: "a"}, Verdict: Violation}}}
	require.Equal(t, "a: a violation in 2 of 3\n", res.reproduced(3))
	require.Empty(t, res.reproduced(1))
}

// --- the gate ---

// An operator waits at each moment, and goes on as it is told.
func TestGate(t *testing.T) {
	dir := t.TempDir()
	house, err := openGatehouse(dir)
	require.NoError(t, err)
	var met []string
	attended := make(chan error, 1)
	go func() {
		attended <- house.attend(func(m Moment) verdict {
			met = append(met, m.String())
			return verdict{Lose: m.State == sop.Recorded}
		})
	}()
	g, err := EnterGate(house.path)
	require.NoError(t, err)
	g.Point(sop.Point{Step: 1, Title: "add as learner", State: sop.Began})
	g.Point(sop.Point{Step: 1, Title: "add as learner", State: sop.Recorded})
	calls := 0
	call := func(method string) error {
		return g.Unary(t.Context(), method, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			calls++
			return nil
		})
	}
	require.NoError(t, call("/etcdserverpb.KV/Range"))
	require.ErrorContains(t, call("/etcdserverpb.Cluster/MemberAdd"), "deadline exceeded", "it was applied, and the reply lost")
	require.NoError(t, call("/etcdserverpb.Cluster/MemberAdd"), "one reply, and no more")
	require.Equal(t, 3, calls)
	require.NoError(t, call("/etcdserverpb.KV/Compact"), "what it holds is changed as well")
	require.NoError(t, g.Append(sop.Record{Step: 1, Title: "add as learner", State: sop.Done}))
	require.NoError(t, g.Append(sop.Record{State: sop.Finished}))
	require.NoError(t, g.conn.Close())
	require.NoError(t, <-attended)
	house.close()
	require.Equal(t, []string{
		"began: add as learner", "recorded: add as learner", "applied: add as learner", "applied: add as learner", "applied: add as learner", "done: add as learner",
	}, met)

	_, err = EnterGate(filepath.Join(dir, "none"))
	require.ErrorContains(t, err, "come to the gate")
	var none *Gate
	none.Point(sop.Point{})
	require.NoError(t, none.Append(sop.Record{Step: 1}))
}

func TestMoments(t *testing.T) {
	for _, c := range []struct {
		at    At
		title string
		state sop.State
		want  bool
	}{
		{before("set aside"), "set aside /data/etcd", sop.Began, true},
		{before("remove member"), "remove member 5a3fb1c2d4e5f607", sop.Began, true},
		{before("remove member"), "remove member 5a3fb1c2d4e5f607", sop.Answered, false},
		{before("start etcd"), "start etcd", sop.Began, true},
		{before("start"), "starts", sop.Began, false},
	} {
		require.Equal(t, c.want, c.at.is(Moment{Title: c.title, State: c.state}), "%v %s", c.at, c.title)
	}
	require.Equal(t, `before "restart etcd" (2)`, before("restart etcd").nth(2).String())
	require.Equal(t, "after the procedure", afterwards().String())
}

// What a strike could not do is told apart: the lab's failure, and a promise
// that was broken.
func TestVerdictsOfStrikes(t *testing.T) {
	require.Equal(t, Violation, strikeVerdict(fmt.Errorf("x: %w", fault.ErrBroken)))
	require.Equal(t, Skipped, strikeVerdict(fmt.Errorf("x: %w", errors.ErrUnsupported)))
	require.Equal(t, Infra, strikeVerdict(errors.New("x")))
	k := &striker{verdict: Pass, strikes: []*pending{{Strike: at(before("start etcd"), fault.Kill(fault.Leader))}}}
	v, why := k.account()
	require.Equal(t, Unknown, v, "a strike that never struck has proved nothing")
	require.Contains(t, why, "never struck")
	k.byLot = true
	v, _ = k.account()
	require.Equal(t, Pass, v)
	k.byLot = false
	k.strikes[0].struck, k.strikes[0].bit = true, errors.New("never bit")
	v, _ = k.account()
	require.Equal(t, Unknown, v)
}

// What others wait for is played first and what is short last, and a player that
// finds nothing to play waits for the points of a sweep that another plays.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := &act{sc: Scenario{Name: "refusal", Ending: refuses("votes")}}
		plain := &act{sc: Scenario{Name: "plain", Ending: refuses("votes").then(sameAgain)}}
		swept := &act{sc: Scenario{Name: "swept", Sweep: &Sweep{}}, sweeps: true}
		q := &queue{waiting: inTurn([]*act{refusal, plain, swept}), total: 3}
		q.changed.L = &q.mu
		require.Equal(t, swept, q.next())
		require.Equal(t, plain, q.next())
		require.Equal(t, refusal, q.next())
		told := ""
		tell := func(ended, total int) { told += fmt.Sprintf("%d of %d ", ended, total) }
		q.done(refusal, tell)

		var late *act
		go func() { late = q.next() }()
		synctest.Wait()
		require.Nil(t, late, "there is nothing to play yet")
		swept.points = []*act{{sc: Scenario{Name: "point"}}}
		q.done(swept, tell)
		synctest.Wait()
		require.Equal(t, swept.points[0], late)

		over := false
		go func() { over = q.next() == nil }()
		synctest.Wait()
		require.False(t, over, "others play still")
		q.done(plain, tell)
		q.done(late, tell)
		synctest.Wait()
		require.True(t, over)
		require.Equal(t, "1 of 3 2 of 4 3 of 4 4 of 4 ", told)
	})
}
