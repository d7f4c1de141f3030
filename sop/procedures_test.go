package sop

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCreateAndAdd(t *testing.T) {
	bubble(t, 1, func(g *ground) {
		g.up()
		require.Equal(t, votersText(1), g.roles())
		g.must(AddMember{Host: hosts[1]})
		require.Equal(t, votersText(1, 2), g.roles())
		g.must(AddMember{Host: hosts[2]})
		require.Equal(t, votersText(1, 2, 3), g.roles())
		res := g.must(AddMember{Host: hosts[2]})
		require.True(t, res.Plan.Empty())
		t.Log(g.dump())
	})
}
