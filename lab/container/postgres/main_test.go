package postgres

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
)

func TestMain(m *testing.M) {
	for name, value := range container.Environment() {
		os.Setenv(name, value)
	}
	os.Exit(m.Run())
}

// machinesOf brings up machines for databases, and gives an address that none of
// them has. It is skipped aloud where no Docker engine answers.
func machinesOf(ctx context.Context, t *testing.T, n int) ([]Machine, netip.Prefix) {
	t.Helper()
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	spec := container.Spec{Root: t.TempDir(), Cache: filepath.Join(cache, "etcdrill", "images"), Progress: os.Stderr,
		Inventory: []byte("all: { children: { etcd: { hosts: { 10.10.10.11: { etcd_seq: 1 } } } } }\n")}
	for i := range n {
		spec.Machines = append(spec.Machines, container.MachineSpec{Host: netip.AddrFrom4([4]byte{10, 10, 10, byte(11 + i)}).String(), Role: image.Database})
	}
	lab, err := container.Up(ctx, spec)
	if errors.Is(err, container.ErrNoDocker) {
		t.Skipf("NOT TESTED: %v", err)
	}
	require.NoError(t, err)
	var all []Machine
	for _, m := range lab.Machines() {
		all = append(all, m)
	}
	t.Cleanup(func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if t.Failed() {
			for _, m := range lab.Machines() {
				said, err := m.Run(end, "sh", "-c", "journalctl --no-pager -n 20 -u patroni -u vip-manager; tail -n 20 /pg/log/patroni/*.log")
				t.Logf("%s: %v\n%s", m.Host(), err, strings.TrimSpace(said))
			}
		}
		require.NoError(t, lab.Down(end))
	})
	subnet := lab.Info().Subnet
	b := subnet.Addr().As4()
	b[3] += 2
	return all, netip.PrefixFrom(netip.AddrFrom4(b), subnet.Bits())
}
