package container_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
)

func TestMain(m *testing.M) {
	for name, value := range container.Environment() {
		os.Setenv(name, value)
	}
	if len(os.Args) > 2 && os.Args[1] == "owner" {
		os.Exit(own(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// own is what this binary does as a creator that is to be killed.
func own(root, cache string) int {
	l, err := container.Up(context.Background(), container.Spec{Root: root, Cache: cache, Machines: machines("10.10.10.10"), Inventory: sample})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir := l.Info().Dir
	runtime.GC() // nobody has the lab in hand any more; it is still his
	runtime.GC()
	fmt.Println(dir)
	select {}
}

var sample = []byte(`all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1, ansible_host: 192.0.2.10 }
        10.10.10.11: { etcd_seq: 2 }
      vars: { etcd_cluster: etcd, ansible_user: admin }
  vars: { admin_ip: 10.10.10.10, ansible_port: 2222 }
`)

func machines(hosts ...string) []container.MachineSpec {
	var all []container.MachineSpec
	for _, h := range hosts {
		all = append(all, container.MachineSpec{Host: h})
	}
	return all
}

// dirs are those of the user, so that he finds with lab:list what a killed test
// left, and lab:heal removes it.
func dirs(t testing.TB) (root, cache string) {
	base, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(base, "etcdrill", "containers"), filepath.Join(base, "etcdrill", "images")
}

func needsDocker(t testing.TB) context.Context {
	t.Helper()
	// Images may have to be made first.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	_, err := container.Answers(ctx)
	if errors.Is(err, container.ErrNoDocker) {
		t.Skipf("NOT TESTED: %v", err)
	}
	require.NoError(t, err)
	return ctx
}

func up(t testing.TB, s container.Spec) *container.Lab {
	t.Helper()
	ctx := needsDocker(t)
	root, cache := dirs(t)
	if s.Root == "" {
		s.Root = root
	}
	s.Cache = cache
	if s.Inventory == nil {
		s.Inventory = sample
	}
	if s.Progress == nil {
		s.Progress = t.Output()
	}
	l, err := container.Up(ctx, s)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, l.Down(context.Background()))
		require.NoDirExists(t, l.Info().Dir)
	})
	return l
}
