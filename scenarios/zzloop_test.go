package scenarios_test

import (
	"testing"
	"fmt"

	"github.com/stretchr/testify/require"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/scenarios"
)

func TestZZLoop(t *testing.T) {
	rig := build(t, three)
	g := on(rig)
	v := victims()["removeMember of the leader"]
	for i := range 25 {
		v.prepare(t, g)
		dial, err := g.Dial("client")
		require.NoError(t, err)
		load, err := workload.Start(t.Context(), workload.Spec{Clients: 2, Prefix: "/load/" + fmt.Sprint(i) + "/", Endpoints: workload.Fixed(scenarios.Endpoints(h10,h11,h12)...), Dial: dial}, nil)
		require.NoError(t, err)
		done(t, rig, remove(h10), waiving("spare"))
		history, err := load.Stop()
		require.NoError(t, err)
		t.Log(i, history.Acked())
	}
}
