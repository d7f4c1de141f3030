package fault_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/host"
)

func TestMain(m *testing.M) {
	embedded.Main(os.Args)
	os.Exit(m.Run())
}

// literal is a cast in which everybody is who he is named.
type literal struct{}

func (literal) Hosts(_ context.Context, _ *fault.Ground, r fault.Role) ([]string, error) {
	return []string{string(r)}, nil
}
func (literal) Answers(context.Context, string) error { return nil }
func (literal) Etcd(context.Context, string) (workload.Etcd, error) {
	return nil, os.ErrNotExist
}
func (literal) As(context.Context, string, string, string, func(context.Context, workload.Etcd) error) error {
	return os.ErrNotExist
}

// Whoever did the harm died: what it wrote down is enough to undo it.
func TestHeal(t *testing.T) {
	const a, b = "10.10.10.10", "10.10.10.11"
	root := t.TempDir()
	lab, err := embedded.Up(t.Context(), embedded.Spec{Root: root, Hosts: []string{a, b}, Inventory: []byte("all: {}\n")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Down(context.Background())) })
	did, err := fault.Heal(t.Context(), root)
	require.NoError(t, err)
	require.Empty(t, did, "nothing was hurt")

	journal, err := fault.OpenJournal(filepath.Join(lab.Info().Dir, fault.JournalName))
	require.NoError(t, err)
	g := &fault.Ground{Lab: lab, Kind: "embedded", Cast: literal{}, Journal: journal, Random: rand.New(rand.NewPCG(1, 1))}
	for _, f := range []fault.Fault{fault.Cut(a, b), fault.ClockOff(a, time.Hour), fault.PowerOff(b)} {
		wound, err := fault.Strike(t.Context(), g, f)
		require.NoError(t, err, "%s", f)
		if f.Kind() != "cut" { // nobody has sent anything
			require.NoError(t, wound.Bit(t.Context()), "%s", f)
		}
	}
	require.NoError(t, journal.Close())
	_, err = lab.Host(b).Look(t.Context(), host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	facts, err := lab.Host(a).Look(t.Context(), host.Question{})
	require.NoError(t, err)
	require.Greater(t, time.Until(facts.Clock), 50*time.Minute)

	did, err = fault.Heal(t.Context(), root)
	require.NoError(t, err)
	require.Equal(t, []string{
		"lab lab1: healed switch " + b + " off", "lab lab1: healed clock of " + a + " is 1h0m0s off", "lab lab1: healed cut between " + a + " and " + b,
	}, did)
	for _, name := range []string{a, b} {
		facts, err := lab.Host(name).Look(t.Context(), host.Question{})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), facts.Clock, time.Minute)
	}
	healed, err := lab.HealLinks(t.Context())
	require.NoError(t, err)
	require.Empty(t, healed, "the link was healed already")
	did, err = fault.Heal(t.Context(), root)
	require.NoError(t, err)
	require.Empty(t, did, "healed once is healed")
}

// Disks that were made sound cannot ail, and say so.
func TestSoundDisks(t *testing.T) {
	const a = "10.10.10.10"
	lab, err := embedded.Up(t.Context(), embedded.Spec{Root: t.TempDir(), Hosts: []string{a}, Inventory: []byte("all: {}\n")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Down(context.Background())) })
	g := &fault.Ground{Lab: lab, Kind: "embedded", Cast: literal{}, Random: rand.New(rand.NewPCG(1, 1))}
	_, err = fault.Strike(t.Context(), g, fault.DiskFull(a))
	require.ErrorContains(t, err, "its disks are sound")
	_, err = lab.DiskCounts(t.Context(), a)
	require.ErrorContains(t, err, "sound disks")
}
