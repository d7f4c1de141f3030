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

// draw makes the n-th scenario of a walk: a procedure, after others that are not
// hurt, and a swarm.
func draw(seed int64, n int) Scenario {
	random := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
	sc := Scenario{Name: fmt.Sprintf("walk-%d", n), Suites: []string{"soak"}, Tier: Soak, Start: grows()}
	var steps []string
	switch random.IntN(8) {
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
	case 3:
		sc.Procedure = "replaceMember LEADER " + spare
		steps = []string{"add as learner", "promote to voter", "hand over the leadership", "remove member"}
	case 4:
		sc.Start, sc.Procedure = moves(), toSpares
		steps = stepsOfMove()
	case 5:
		sc.Procedure = "moveLeader"
		steps = []string{"hand over the leadership"}
	case 6:
		sc.Start, sc.Procedure = Start{Waste: 8}, "defrag -least=1MiB"
		steps = []string{"defragment"}
	default:
		sc.Procedure = "restart"
		steps = []string{"restart etcd"}
	}
	return sc.swarmed(random, steps)
}

// stepsOfMove are the steps of a migration at which a swarm strikes.
func stepsOfMove() []string {
	return []string{"add as learner", "start etcd", "promote to voter", "refresh", "hand over the leadership", "remove member", "set aside"}
}

// drawn is the scenario with the swarm that a seed draws for it, where it has one.
func (s Scenario) drawn(seed int64) Scenario {
	steps := s.Swarm
	if len(steps) == 0 {
		return s
	}
	s.Swarm = nil
	return s.swarmed(rand.New(rand.NewPCG(uint64(seedOf(seed, s.Name)), 3)), steps)
}

// swarmed draws up to three strikes at any of these steps, with the operator among
// the victims as often as not. Some may never strike: a step may not be needed.
func (s Scenario) swarmed(random *rand.Rand, steps []string) Scenario {
	states := []func(string) At{before, recorded, answered, after}
	moment := func() At {
		at := states[random.IntN(len(states))](steps[random.IntN(len(steps))])
		if s.Procedure == toSpares { // most of them come three times
			at = at.nth(1 + random.IntN(3))
		}
		return at
	}
	someone := []fault.Role{fault.Leader, fault.Follower}
	who := func() fault.Role { return someone[random.IntN(len(someone))] }
	for range 1 + random.IntN(3) {
		at := moment()
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
		s.Strikes = append(s.Strikes, Strike{At: at, Fault: f, For: time.Second + time.Duration(random.IntN(2000))*time.Millisecond})
	}
	s.Ending = survives(sameAgain)
	if random.IntN(2) == 0 {
		s.Strikes = append(s.Strikes, Strike{At: moment(), Fault: fault.KillOperator()})
		s.Ending.MayDie = true
	}
	s.Free = true
	return s
}
