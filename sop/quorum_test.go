package sop

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// canCommit is the twin of the arithmetic: it looks for a set of living voters
// that every other majority meets, by trying all sets. Voter i is bit i; the
// dead are the highest bits.
func canCommit(voters, dead int) bool {
	alive := uint(1)<<(voters-dead) - 1
	var majorities []uint
	for set := range uint(1) << voters {
		if 2*ones(set) > voters {
			majorities = append(majorities, set)
		}
	}
	for _, q := range majorities {
		if q&^alive != 0 {
			continue
		}
		meets := true
		for _, other := range majorities {
			meets = meets && q&other != 0
		}
		if meets {
			return true
		}
	}
	return false
}

func ones(set uint) (n int) {
	for ; set != 0; set &= set - 1 {
		n++
	}
	return n
}

// verdictOf judges by trying: the change must be committed by the old voters,
// the cluster must be able to commit afterwards, and with one more voter dead
// as well, or nothing may fail.
func verdictOf(voters, dead, votersAfter, deadAfter, deadAtWorst int) Verdict {
	switch {
	case votersAfter < 1 || !canCommit(voters, dead) || !canCommit(votersAfter, deadAtWorst):
		return NoQuorum
	case votersAfter == deadAfter || !canCommit(votersAfter, deadAfter+1):
		return NoSpare
	}
	return Allowed
}

func TestVotesAgainstTwin(t *testing.T) {
	for n := 1; n <= 7; n++ {
		for d := 0; d <= n; d++ {
			v := Votes{Voters: n, Dead: d}
			name := fmt.Sprintf("%d voters, %d dead", n, d)
			require.Equal(t, canCommit(n, d), v.HasQuorum(), name)
			spare := -1
			for d+spare < n && canCommit(n, d+spare+1) {
				spare++
			}
			if v.HasQuorum() {
				require.Equal(t, spare, v.Spare(), name)
			} else {
				require.Negative(t, v.Spare(), name)
			}
			// The newcomer is counted as dead for the quorum and as alive, as it
			// was just seen, for what may fail afterwards.
			promote := verdictOf(n, d, n+1, d, d+1)
			if n == 1 && d == 0 {
				promote = NoSpare // the only way out of a cluster of one
			}
			require.Equal(t, promote, v.Promote(), "promote, %s", name)
			if d > 0 {
				require.Equal(t, verdictOf(n, d, n-1, d-1, d-1), v.RemoveDead(), "remove a dead one, %s", name)
			} else {
				require.Equal(t, NoQuorum, v.RemoveDead(), "there is none, %s", name)
			}
			if d < n {
				require.Equal(t, verdictOf(n, d, n-1, d, d), v.RemoveLiving(), "remove a living one, %s", name)
				restart := NoQuorum
				switch {
				case canCommit(n, d+1):
					restart = Allowed
				case d == 0 && n <= 2:
					restart = NoSpare
				}
				require.Equal(t, restart, v.Restart(), "restart, %s", name)
			}
		}
	}
}

// The whole table, for people to read.
func TestVotesTable(t *testing.T) {
	datadriven.RunTest(t, "testdata/votes.txt", func(t *testing.T, d *datadriven.TestData) string {
		var most int
		d.ScanArgs(t, "voters", &most)
		var b strings.Builder
		fmt.Fprintf(&b, "%-8s%-6s%-8s%-11s%-13s%-15s%s\n", "voters", "dead", "spare", "promote", "remove-dead", "remove-living", "restart")
		for n := 1; n <= most; n++ {
			for dead := 0; dead <= n; dead++ {
				v := Votes{Voters: n, Dead: dead}
				cell := func(there bool, verdict Verdict) string {
					if !there {
						return "-"
					}
					return verdict.String()
				}
				fmt.Fprintf(&b, "%-8d%-6d%-8d%-11s%-13s%-15s%s\n", n, dead, v.Spare(), v.Promote(),
					cell(dead > 0, v.RemoveDead()), cell(dead < n, v.RemoveLiving()), cell(dead < n, v.Restart()))
			}
		}
		return b.String()
	})
}

// What DESIGN says of the votes, in its own words.
func TestVotesByHand(t *testing.T) {
	require.Equal(t, NoSpare, Votes{1, 0}.Promote(), "1 to 2 is the exception")
	require.Equal(t, Allowed, Votes{2, 0}.Promote())
	require.Equal(t, NoQuorum, Votes{3, 1}.Promote(), "remove the dead one first")
	require.Equal(t, NoSpare, Votes{3, 1}.RemoveDead(), "lowers nothing")
	require.Equal(t, NoSpare, Votes{3, 0}.RemoveLiving(), "waived by name")
	require.Equal(t, NoSpare, Votes{2, 0}.RemoveLiving())
	require.Equal(t, NoQuorum, Votes{1, 0}.RemoveLiving(), "the last one stays")
	require.Equal(t, NoQuorum, Votes{2, 1}.RemoveDead(), "nobody is left to commit it")
	require.Equal(t, NoSpare, Votes{5, 1}.RemoveLiving())
}
