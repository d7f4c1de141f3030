package sop

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A member that was made from a snapshot after a compaction hashes from there
// on, the others have the hash of what lies before it.
func TestHashesOfUnlikeSpans(t *testing.T) {
	v := View{Looks: []Look{
		{Host: "10.10.10.10", Compacted: 96, HashSince: 12, Hash: 1, Hashed: true},
		{Host: "10.10.10.13", Compacted: 96, HashSince: 96, Hash: 2, Hashed: true},
	}}
	require.NoError(t, sameHash().Holds(v))
	v.Looks[1].HashSince = 12
	require.ErrorContains(t, sameHash().Holds(v), "corruption")
}
