package machine_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

func TestMain(m *testing.M) {
	if os.Args[0] == machine.MemberName {
		machine.MemberMain(os.Args[1:])
	}
	goleak.VerifyTestMain(m)
}

const etcdUnit = "etcd.service"

// patience bounds a wait that only a defect could make long.
const patience = 60 * time.Second

func newMachine(t *testing.T, with ...func(*machine.Config)) *machine.Machine {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	c := machine.Config{Name: "n1", Root: filepath.Join(t.TempDir(), "root"), Executable: self}
	for _, w := range with {
		w(&c)
	}
	m, err := machine.New(c)
	require.NoError(t, err)
	t.Cleanup(m.Close)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(m.Root(), "var/log/*"))
			for _, l := range logs {
				text, _ := os.ReadFile(l)
				lines := strings.Split(string(text), "\n")
				t.Logf("%s:\n%s", l, strings.Join(lines[max(0, len(lines)-40):], "\n"))
			}
		}
	})
	return m
}

func do(t *testing.T, m *machine.Machine, acts ...host.Act) {
	t.Helper()
	for _, a := range acts {
		require.NoError(t, m.Do(t.Context(), a), "%s", a)
	}
}

func look(t *testing.T, m *machine.Machine, q host.Question) host.Facts {
	t.Helper()
	facts, err := m.Look(t.Context(), q)
	require.NoError(t, err)
	return facts
}

func systemctl(verb host.Verb, unit string) host.Systemctl {
	return host.Systemctl{Verb: verb, Unit: unit}
}

func write(path, content string) host.WriteFile {
	return host.WriteFile{Path: path, Content: []byte(content), Mode: 0o644}
}

func state(t *testing.T, m *machine.Machine, unit string) string {
	t.Helper()
	u := look(t, m, host.Question{Units: []string{unit}}).Units[unit]
	return u.Active + "/" + u.Sub
}

// await waits until a unit is in a state.
func await(t *testing.T, m *machine.Machine, unit, want string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assertT) {
		facts, err := m.Look(context.Background(), host.Question{Units: []string{unit}})
		require.NoError(c, err)
		u := facts.Units[unit]
		require.Equal(c, want, u.Active+"/"+u.Sub)
	}, patience, 5*time.Millisecond)
}

func TestFreshRoot(t *testing.T) {
	m := newMachine(t)
	facts := look(t, m, host.Question{
		Users: []string{"root", "etcd", "postgres", "dba", "mallory"},
		Etcd:  "/usr/bin/etcd",
		Dirs:  []string{"/data", "/etc/profile.d", "/data/etcd"},
		Units: []string{etcdUnit},
	})
	require.Equal(t, map[string]bool{"root": true, "etcd": true, "postgres": true, "dba": true, "mallory": false}, facts.Users)
	require.Equal(t, host.Binary{Path: "/usr/bin/etcd", Version: machine.EmbeddedVersion()}, facts.Etcd)
	require.True(t, facts.Dirs["/data"].Exists)
	require.Equal(t, "root", facts.Dirs["/data"].Owner)
	require.Positive(t, facts.Dirs["/data"].FreeBytes)
	require.False(t, facts.Dirs["/data/etcd"].Exists)
	require.Equal(t, host.Unit{Load: "not-found", Active: "inactive", Sub: "dead"}, facts.Units[etcdUnit])
	require.NotEmpty(t, facts.BootID)
	require.False(t, facts.Clock.IsZero())
}

func TestBinaryThatIsNone(t *testing.T) {
	m := newMachine(t)
	do(t, m, write("/usr/bin/broken", "no program"), write("/usr/bin/plain", "x"))
	require.NoError(t, os.Chmod(filepath.Join(m.Root(), "usr/bin/broken"), 0o755))
	facts := look(t, m, host.Question{Etcd: "/usr/bin/nothing"})
	require.Equal(t, host.Binary{Path: "/usr/bin/nothing"}, facts.Etcd)
	facts = look(t, m, host.Question{Etcd: "/usr/bin/plain"})
	require.Contains(t, facts.Etcd.Problem, "permission denied")
	facts = look(t, m, host.Question{Etcd: "/usr/bin/broken"})
	require.Contains(t, facts.Etcd.Problem, "does not tell its version")
	require.Empty(t, facts.Etcd.Version)
}

func TestInstallOfAnUnknownVersion(t *testing.T) {
	m := newMachine(t)
	require.ErrorContains(t, m.Install("3.4.0"), "no such version")
	require.Equal(t, machine.EmbeddedVersion(), look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd.Version)
}

func TestPower(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "a.service", "Type=notify")
	idle(t, m, "b.service", "Type=notify")
	do(t, m, systemctl(host.Enable, "a.service"), systemctl(host.Start, "a.service"), systemctl(host.Start, "b.service"))
	do(t, m, host.Claim{Owner: "me", Token: "t1"}, write("/data/kept", "x"))
	before := look(t, m, host.Question{})
	pid := m.PID("a.service")

	m.PowerOff()
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	_, err := m.Look(t.Context(), host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.ErrorContains(t, err, "n1")
	require.ErrorIs(t, m.Do(t.Context(), write("/data/x", "x")), host.ErrUnreachable)
	require.ErrorIs(t, m.Do(t.Context(), systemctl(host.Start, "a.service")), host.ErrUnreachable)

	require.NoError(t, m.PowerOn(t.Context()))
	await(t, m, "a.service", "active/running")
	require.Equal(t, "inactive/dead", state(t, m, "b.service"), "not enabled")
	after := look(t, m, host.Question{Files: []string{host.LockPath, "/data/kept"}})
	require.NotEqual(t, before.BootID, after.BootID)
	require.False(t, after.Files[host.LockPath].Exists, "/run does not outlive a boot")
	require.True(t, after.Files["/data/kept"].Exists)
}

func TestPowerFailsUnderAStart(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "slow.service", "Type=notify\nTimeoutStartSec=infinity", "--unready")
	done := make(chan error, 1)
	go func() { done <- m.Do(context.Background(), systemctl(host.Start, "slow.service")) }()
	await(t, m, "slow.service", "activating/start")
	m.PowerOff()
	require.ErrorIs(t, <-done, host.ErrUnknown)
}

func TestPortsAndDials(t *testing.T) {
	m := newMachine(t)
	port := freePort(t)
	free := freePort(t)
	release, err := m.Occupy(port, "nginx")
	require.NoError(t, err)
	open, closed := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", free)
	facts := look(t, m, host.Question{Ports: []int{port, free}, Dial: []string{open, closed}})
	require.Equal(t, map[int]string{port: "nginx"}, facts.Ports)
	require.Empty(t, facts.Dials[open])
	require.Contains(t, facts.Dials[closed], "connection refused")
	_, err = m.Occupy(port, "caddy")
	require.ErrorContains(t, err, "address already in use")
	release()
	require.Empty(t, look(t, m, host.Question{Ports: []int{port}}).Ports)

	// Machines that share a network do not see each other's listeners.
	l, err := net.Listen("tcp", open)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	require.Empty(t, look(t, m, host.Question{Ports: []int{port}}).Ports)
}

// freePort finds a port that nobody listens on, at any address.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().(*net.TCPAddr).Port
}
