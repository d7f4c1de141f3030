package scenarios

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/fault"
)

// walk plays scenarios that are drawn from the seed, until it is told to stop, or
// as many as were asked for were played, or for as long.
func walk(ctx context.Context, spec SuiteSpec) (SuiteResult, error) {
	began := time.Now()
	res := SuiteResult{Seed: spec.Seed}
	fmt.Fprintf(spec.Report, "a walk from seed %d: until it is told to stop, or -count or -walk is over\n", spec.Seed)
	spec.Lean = true
	batch := spec
	batch.Count = 1
	for n := 0; ctx.Err() == nil && (spec.Count == 0 || n < spec.Count) && (spec.Walk == 0 || time.Since(began) < spec.Walk); {
		var drawn []Scenario
		for range spec.places() {
			if spec.Count > 0 && n == spec.Count {
				break
			}
			drawn = append(drawn, draw(spec.Seed, n))
			n++
		}
		res.Results = append(res.Results, batch.playAll(ctx, drawn, began)...)
	}
	res.finish(began)
	return res, spec.tell(ctx, &res)
}

// draw makes the n-th scenario of a walk: a procedure, after others that are
// not hurt, and up to three strikes, with the operator among the victims as
// often as not.
func draw(seed int64, n int) Scenario {
	random := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	sc := Scenario{Name: fmt.Sprintf("walk-%d", n), Suites: []string{"soak"}, Tier: Soak, Start: grows()}
	var steps []string
	switch random.IntN(4) {
	case 0:
		sc.Procedure = addSpare
		steps = []string{"add as learner", "start etcd", "promote to voter", "refresh"}
	case 1:
		sc.Start.Before = []string{addSpare}
		sc.Procedure = "removeMember LEADER"
		steps = []string{"refresh", "hand over the leadership", "remove member", "set aside"}
	case 2:
		sc.Procedure = removeThird
		steps = []string{"refresh", "remove member", "set aside"}
	default:
		sc.Procedure = "restart"
		steps = []string{"restart etcd"}
	}
	moments := []func(string) At{before, recorded, answered, after}
	someone := []fault.Role{fault.Leader, fault.Follower}
	who := func() fault.Role { return someone[random.IntN(len(someone))] }
	for range 1 + random.IntN(3) {
		moment := moments[random.IntN(len(moments))](steps[random.IntN(len(steps))])
		var f fault.Fault
		switch random.IntN(8) {
		case 0:
			f = fault.Kill(who())
		case 1:
			f = fault.Pause(who())
		case 2:
			f = fault.Isolate(who())
		case 3:
			f = fault.Cut(fault.Admin, who())
		case 4:
			f = fault.Degrade(fault.Voters, fault.Voters, netswitch.Rule{Loss: 0.02 + 0.08*random.Float64()})
		case 5:
			f = fault.Degrade(who(), fault.Everyone, fault.Slow(time.Duration(random.IntN(40))*time.Millisecond, 5*time.Millisecond))
		case 6:
			f = fault.LoseReply()
		default:
			f = fault.Bridge()
		}
		sc.Strikes = append(sc.Strikes, Strike{At: moment, Fault: f, For: time.Second + time.Duration(random.IntN(2000))*time.Millisecond})
	}
	sc.Ending = survives(sameAgain)
	if random.IntN(2) == 0 {
		moment := moments[random.IntN(len(moments))](steps[random.IntN(len(steps))])
		sc.Strikes = append(sc.Strikes, Strike{At: moment, Fault: fault.KillOperator()})
		sc.Ending.MayDie = true
	}
	sc.Free = true
	return sc
}
