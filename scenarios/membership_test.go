package scenarios_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

const three = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: etcd
`

func build(t *testing.T, inventory string, spares ...string) *scenarios.Rig {
	t.Helper()
	rig, err := scenarios.Build(t.Context(), scenarios.RigSpec{Root: t.TempDir(), Inventory: []byte(inventory), Spares: spares, Seed: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rig.Lab.Down(context.Background())) })
	return rig
}

func do(t *testing.T, rig *scenarios.Rig, p sop.Procedure, waive ...string) (sop.Result, error) {
	t.Helper()
	o := rig.Operator("run")
	defer o.Site.Close()
	o.Runner.Waive = waive
	o.Runner.Agree = func(sop.Consent) error { return nil }
	began := time.Now()
	res, err := o.Runner.Do(t.Context(), p)
	for _, r := range o.Told {
		t.Log(r.Time.Format("05.000"), r.State, r.Step, "/", r.Of, r.Stage, "|", r.Title, r.Host, r.Detail, r.Took.Round(time.Millisecond))
	}
	t.Logf("%s took %v: %v", p, time.Since(began).Round(time.Millisecond), err)
	return res, err
}

func create(token string) sop.Procedure {
	return sop.CreateCluster{Token: "etcd-20260101T000000Z-" + token, Stamp: sop.Stamp(time.Now())}
}

func TestGrowAndShrink(t *testing.T) {
	rig := build(t, three, "10.10.10.13", "10.10.10.14")
	_, err := do(t, rig, create("a"))
	require.NoError(t, err)
	_, err = do(t, rig, sop.AddMember{Host: "10.10.10.13"})
	require.NoError(t, err)
	_, err = do(t, rig, sop.Restart{Since: time.Now()})
	require.NoError(t, err)
	res, err := do(t, rig, sop.ReloadConfig{})
	require.NoError(t, err)
	leader, ok := res.View.Leader()
	require.True(t, ok)
	_, err = do(t, rig, sop.RemoveMember{Host: res.View.HostOf(leader), Stamp: sop.Stamp(time.Now())})
	require.NoError(t, err)
	fmt.Println(sop.ReportOf(res.View).Text())
	_, err = do(t, rig, sop.DestroyCluster{Stamp: sop.Stamp(time.Now())})
	require.NoError(t, err)
}
