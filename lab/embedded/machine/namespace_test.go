package machine_test

import (
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

// namespace runs functions on a thread that is in a network namespace of its
// own, with nothing but a loopback device in it.
func namespace(t *testing.T) func(do func() error) error {
	t.Helper()
	type call struct {
		do   func() error
		done chan error
	}
	calls := make(chan call)
	begun, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		begun <- err
		for c := range calls {
			c.done <- c.do()
		}
	}()
	t.Cleanup(func() { close(calls); <-ended })
	if err := <-begun; err != nil {
		t.Skipf("no network namespace to be had: %v", err)
	}
	return func(do func() error) error {
		c := call{do, make(chan error)}
		calls <- c
		return <-c.done
	}
}

func TestNamespace(t *testing.T) {
	port := freePort(t)
	outside, err := net.Listen("tcp", ":"+strconv.Itoa(port)) // must not be seen from inside
	require.NoError(t, err)
	defer func() { require.NoError(t, outside.Close()) }()

	in := namespace(t)
	m := newMachine(t, func(c *machine.Config) {
		c.Spawn = func(cmd *exec.Cmd) error { return in(cmd.Start) }
	})
	p := place{Machine: m, name: "etcd-1", ip: "127.0.0.1", client: 2379, peer: 2380, scheme: "http"}
	require.Empty(t, look(t, m, host.Question{Ports: []int{port, 2379}}).Ports)
	p.install(t, []place{p}, "new", "60")
	text := string(file(t, m, "/etc/etcd/etcd.conf").Content)
	require.Contains(t, text, "2379")
	// One address only: 127.0.0.1 twice would be in use.
	do(t, m, write("/etc/etcd/etcd.conf", replaceListen(text)), systemctl(host.Start, etcdUnit))
	release, err := m.Occupy(port, "nginx")
	require.NoError(t, err)
	defer release()
	require.Equal(t, map[int]string{port: "nginx", 2379: "etcd", 2380: "etcd"},
		look(t, m, host.Question{Ports: []int{port, 2379, 2380, 2381}}).Ports)
	b := look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd
	require.Equal(t, machine.EmbeddedVersion(), b.Version)
}
