package sop

import (
	"flag"
	"math/rand/v2"
)

var (
	exhaustive = flag.Bool("exhaustive", false, "sweep every point, not a sample of them")
	sweepSeed  = flag.Uint64("sweep.seed", 0, "seed of the samples of sweeps; 0 takes a new one")
)

// swept gives the points of a sweep from 1 to n: one at random from each of
// equal parts, or all of them. Every point has its turn in some run.
func swept(g *ground, n int) []int {
	g.t.Helper()
	parts := most
	if *exhaustive || parts > n {
		parts = n
	}
	seed := *sweepSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	g.t.Logf("%d of %d points, -sweep.seed=%d", parts, n, seed)
	random := rand.New(rand.NewPCG(seed, uint64(n)))
	points := make([]int, parts)
	for i := range parts {
		from, to := i*n/parts, (i+1)*n/parts
		points[i] = 1 + from + random.IntN(to-from)
	}
	return points
}
