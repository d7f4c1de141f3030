package machine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

type assertT = assert.CollectT

// idle puts a unit in place whose program waits, or misbehaves as told.
func idle(t *testing.T, m *machine.Machine, unit, service string, options ...string) {
	t.Helper()
	do(t, m, host.WriteFile{Path: "/usr/bin/idle", Content: []byte(machine.IdleProgram), Mode: 0o755})
	do(t, m, write("/etc/systemd/system/"+unit, "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/bin/idle "+
		strings.Join(options, " ")+"\n"+service+"\n[Install]\nWantedBy=multi-user.target\n"))
}

func journal(t *testing.T, m *machine.Machine, unit string) string {
	t.Helper()
	text, err := os.ReadFile(m.Journal(unit))
	require.NoError(t, err)
	return string(text)
}

func TestStartAndStop(t *testing.T) {
	for _, kind := range []string{"simple", "notify"} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("ETCD_NAME", "of-the-supervisor")
			m := newMachine(t)
			idle(t, m, "x.service", "Type="+kind+"\nEnvironment=A=1 \"B=2 3\"\nUser=etcd")
			do(t, m, systemctl(host.Start, "x.service"))
			u := look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"]
			require.Equal(t, m.PID("x.service"), u.PID)
			require.NoError(t, syscall.Kill(u.PID, 0))
			require.False(t, u.Since.IsZero())
			require.Equal(t, "active", u.Active)
			require.Equal(t, "running", u.Sub)
			require.Equal(t, "loaded", u.Load)
			require.Equal(t, "disabled", u.Enabled)
			require.Equal(t, "/etc/systemd/system/x.service", u.Path)
			require.Equal(t, []string{"A=1", "B=2 3"}, u.Env)

			pid := m.PID("x.service")
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			require.NoError(t, err)
			require.Contains(t, string(env), "B=2 3\x00")
			require.Contains(t, string(env), "USER=etcd\x00")
			require.NotContains(t, string(env), "ETCD_")
			do(t, m, systemctl(host.Start, "x.service"))
			require.Equal(t, pid, m.PID("x.service"), "a unit that runs is left alone")
			do(t, m, systemctl(host.Restart, "x.service"))
			require.NotEqual(t, pid, m.PID("x.service"))

			do(t, m, systemctl(host.Stop, "x.service"), systemctl(host.Stop, "x.service"))
			u = look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"]
			require.Equal(t, "inactive/dead", u.Active+"/"+u.Sub)
			require.Zero(t, u.PID)
			require.True(t, u.Since.IsZero())
		})
	}
}

func TestStopOfAStubbornProcess(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nTimeoutStopSec=50ms\nRestart=always", "--stubborn")
	do(t, m, systemctl(host.Start, "x.service"))
	pid := m.PID("x.service")
	do(t, m, systemctl(host.Stop, "x.service"))
	require.Equal(t, "failed/failed", state(t, m, "x.service"), "killed after the time was up")
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	do(t, m, systemctl(host.ResetFailed, "x.service"))
	require.Equal(t, "inactive/dead", state(t, m, "x.service"))
}

func TestStopOfAFrozenProcess(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nTimeoutStopSec=infinity")
	do(t, m, systemctl(host.Start, "x.service"))
	require.NoError(t, m.Signal("x.service", syscall.SIGSTOP))
	do(t, m, systemctl(host.Stop, "x.service"))
	require.Equal(t, "inactive/dead", state(t, m, "x.service"))
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy, options string
		signal          syscall.Signal
		want            string
	}{
		{"no", "", syscall.SIGKILL, "failed/failed"},
		{"no", "", syscall.SIGTERM, "inactive/dead"},
		{"on-failure", "", syscall.SIGTERM, "inactive/dead"},
		{"on-failure", "", syscall.SIGKILL, "restarted"},
		{"on-abnormal", "", syscall.SIGKILL, "restarted"},
		{"always", "", syscall.SIGTERM, "restarted"},
	} {
		t.Run(c.policy+" "+c.signal.String(), func(t *testing.T) {
			m := newMachine(t)
			idle(t, m, "x.service", "Type=notify\nRestartSec=1ms\nRestart="+c.policy)
			do(t, m, systemctl(host.Start, "x.service"))
			pid := m.PID("x.service")
			require.NoError(t, m.Signal("x.service", c.signal))
			if c.want != "restarted" {
				await(t, m, "x.service", c.want)
				u := look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"]
				require.Equal(t, int(c.signal), u.Exit)
				return
			}
			require.EventuallyWithT(t, func(ct *assertT) {
				now := m.PID("x.service")
				require.NotZero(ct, now)
				require.NotEqual(ct, pid, now)
			}, patience, patience/10000)
			await(t, m, "x.service", "active/running")
		})
	}
}

func TestStopCallsOffARestart(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nRestartSec=1h\nRestart=always")
	do(t, m, systemctl(host.Start, "x.service"), systemctl(host.Enable, "x.service"))
	require.NoError(t, m.Signal("x.service", syscall.SIGKILL))
	await(t, m, "x.service", "activating/auto-restart")
	do(t, m, systemctl(host.Disable, "x.service"))
	require.Equal(t, "activating/auto-restart", state(t, m, "x.service"), "disable alone ends no restart loop")
	do(t, m, systemctl(host.Stop, "x.service"))
	require.Equal(t, "inactive/dead", state(t, m, "x.service"))
}

func TestRestartDuringAutoRestart(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nRestartSec=1h\nRestart=always")
	do(t, m, systemctl(host.Start, "x.service"))
	require.NoError(t, m.Signal("x.service", syscall.SIGKILL))
	await(t, m, "x.service", "activating/auto-restart")
	do(t, m, systemctl(host.Restart, "x.service"))
	require.Equal(t, "active/running", state(t, m, "x.service"))
}

func TestMaskDuringAutoRestart(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=simple\nRestartSec=50ms\nRestart=always", "--status=3")
	require.NoError(t, os.Rename(
		filepath.Join(m.Root(), "etc/systemd/system/x.service"),
		filepath.Join(m.Root(), "usr/lib/systemd/system/x.service")))
	do(t, m, systemctl(host.Start, "x.service"), systemctl(host.Mask, "x.service"))
	await(t, m, "x.service", "failed/failed")
	u := look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"]
	require.Equal(t, "masked", u.Load)
	require.Equal(t, "masked", u.Enabled)
}

func TestStartThatFails(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nRestartSec=1h\nRestart=on-failure", "--status=7")
	err := m.Do(t.Context(), systemctl(host.Start, "x.service"))
	var f *host.Failure
	require.ErrorAs(t, err, &f)
	require.Equal(t, "n1", f.Host)
	require.Contains(t, f.Output, "Job for x.service failed because the control process exited with error code.")
	require.Equal(t, "activating/auto-restart", state(t, m, "x.service"))
	require.Equal(t, 7, look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Exit)
}

func TestExitBeforeReadyIsAProtocolFailure(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify", "--status=0")
	err := m.Do(t.Context(), systemctl(host.Start, "x.service"))
	require.ErrorContains(t, err, "did not take the steps required")
	require.Equal(t, "failed/failed", state(t, m, "x.service"))
}

func TestReadyAndGoneAtOnce(t *testing.T) {
	// What a removed member does that is started again. It was ready, so its
	// end is no failure, however close the two are.
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nRestart=on-failure\nStartLimitBurst=0", "--brief")
	for range 20 {
		do(t, m, systemctl(host.Start, "x.service"))
		await(t, m, "x.service", "inactive/dead")
	}
	require.NotContains(t, journal(t, m, "x.service"), "protocol")
}

func TestStartLimit(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=simple\nRestartSec=1ms\nRestart=always", "--status=1")
	do(t, m, systemctl(host.Start, "x.service"))
	await(t, m, "x.service", "failed/failed")
	require.Equal(t, 5, strings.Count(journal(t, m, "x.service"), "Main process exited with status 1."))
	require.Error(t, m.Do(t.Context(), systemctl(host.Start, "x.service")), "still too often")
	do(t, m, systemctl(host.ResetFailed, "x.service"))
	do(t, m, systemctl(host.Start, "x.service"))
}

func TestStartTimeoutLoops(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nTimeoutStartSec=50ms\nRestart=on-failure\nRestartSec=1ms\nStartLimitBurst=0", "--unready")
	err := m.Do(t.Context(), systemctl(host.Start, "x.service"))
	require.ErrorContains(t, err, "because a timeout was exceeded")
	require.EventuallyWithT(t, func(c *assertT) {
		text, err := os.ReadFile(m.Journal("x.service"))
		require.NoError(c, err)
		require.GreaterOrEqual(c, strings.Count(string(text), "start operation timed out"), 3)
	}, patience, patience/1000)
	do(t, m, systemctl(host.Stop, "x.service"))
	require.False(t, look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Runs())
}

func TestUnlimitedStart(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify\nTimeoutStartSec=infinity", "--unready")
	do(t, m, host.Systemctl{Verb: host.Start, Unit: "x.service", NoBlock: true})
	require.Equal(t, "activating/start", state(t, m, "x.service"))

	// Who waits and is interrupted leaves the job running.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Do(ctx, systemctl(host.Start, "x.service")) }()
	cancel()
	err := <-done
	require.True(t, errors.Is(err, host.ErrUnknown) || errors.Is(err, host.ErrUnreachable), "%v", err)
	require.Equal(t, "activating/start", state(t, m, "x.service"))

	do(t, m, systemctl(host.Stop, "x.service"))
	require.Equal(t, "inactive/dead", state(t, m, "x.service"))

	// Who waits and is overtaken by a stop hears so.
	go func() { done <- m.Do(context.Background(), systemctl(host.Start, "x.service")) }()
	await(t, m, "x.service", "activating/start")
	do(t, m, systemctl(host.Stop, "x.service"))
	require.ErrorContains(t, <-done, "Job for x.service canceled.")
}

func TestWhatSystemdItselfRefuses(t *testing.T) {
	m := newMachine(t)
	for _, c := range []struct {
		service string
		exit    int
	}{
		{"WorkingDirectory=/data/nothing", 200},
		{"User=mallory", 217},
		{"ExecStart=\nExecStart=/usr/bin/nothing", 203},
		{"ExecStart=\nExecStart=/etc/passwd", 203},
	} {
		idle(t, m, "x.service", "Type=notify\n"+c.service)
		do(t, m, systemctl(host.DaemonReload, ""))
		require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Start, "x.service")), "exited with error code", c.service)
		u := look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"]
		require.Equal(t, c.exit, u.Exit, c.service)
		require.Equal(t, "failed", u.Active)
		do(t, m, systemctl(host.ResetFailed, "x.service"))
	}
	idle(t, m, "x.service", "Type=notify\nWorkingDirectory=-/data/nothing")
	do(t, m, systemctl(host.DaemonReload, ""), systemctl(host.Start, "x.service"))
	idle(t, m, "y.service", "Type=forking")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Start, "y.service")), "bad unit file setting")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Start, "z.service")), "Unit z.service not found.")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Stop, "z.service")), "Unit z.service not loaded.")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Enable, "z.service")), "does not exist")
}

func TestMask(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify")
	do(t, m, systemctl(host.Start, "x.service"))
	err := m.Do(t.Context(), systemctl(host.Mask, "x.service"))
	require.ErrorContains(t, err, "Failed to mask unit: File '/etc/systemd/system/x.service' already exists.")

	// With the unit where a package puts it, there is room for the link.
	require.NoError(t, os.Rename(
		filepath.Join(m.Root(), "etc/systemd/system/x.service"),
		filepath.Join(m.Root(), "usr/lib/systemd/system/x.service")))
	do(t, m, systemctl(host.Mask, "x.service"), systemctl(host.Mask, "x.service"))
	require.Equal(t, "active/running", state(t, m, "x.service"), "masking stops nothing")
	do(t, m, systemctl(host.Stop, "x.service"))
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Start, "x.service")), "Unit x.service is masked.")
	require.ErrorContains(t, m.Do(t.Context(), host.Systemctl{Verb: host.Start, Unit: "x.service", NoBlock: true}), "masked")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Enable, "x.service")), "masked")
	require.ErrorContains(t, m.Do(t.Context(), write("/etc/systemd/system/x.service", "x")), "not a regular file",
		"writing through the link would replace /dev/null")
	do(t, m, systemctl(host.Unmask, "x.service"), systemctl(host.Start, "x.service"))
	require.Equal(t, "/lib/systemd/system/x.service", look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Path)
}

func TestEnableAndBoot(t *testing.T) {
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify")
	enabled := func() string {
		return look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Enabled
	}
	require.Equal(t, "disabled", enabled())
	do(t, m, systemctl(host.Enable, "x.service"), systemctl(host.Enable, "x.service"))
	require.Equal(t, "enabled", enabled())
	target, err := os.Readlink(filepath.Join(m.Root(), "etc/systemd/system/multi-user.target.wants/x.service"))
	require.NoError(t, err)
	require.Equal(t, "/etc/systemd/system/x.service", target)
	do(t, m, systemctl(host.Disable, "x.service"), systemctl(host.Disable, "x.service"))
	require.Equal(t, "disabled", enabled())
	do(t, m, write("/etc/systemd/system/s.service", "[Service]\nExecStart=/usr/bin/idle\n"))
	require.Equal(t, "static", look(t, m, host.Question{Units: []string{"s.service"}}).Units["s.service"].Enabled)
}

func TestDaemonReload(t *testing.T) {
	m := newMachine(t)
	env := func() []string {
		return look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Env
	}
	idle(t, m, "x.service", "Type=notify\nEnvironment=A=1")
	do(t, m, systemctl(host.Start, "x.service"))
	idle(t, m, "x.service", "Type=notify\nEnvironment=A=2")
	require.Equal(t, []string{"A=1"}, env(), "not seen before daemon-reload")
	do(t, m, systemctl(host.Restart, "x.service"))
	require.Equal(t, []string{"A=1"}, env(), "not by a restart either")
	stale := func() bool {
		return look(t, m, host.Question{Units: []string{"x.service"}}).Units["x.service"].Stale
	}
	require.True(t, stale())
	do(t, m, systemctl(host.DaemonReload, ""))
	require.Equal(t, []string{"A=2"}, env())
	require.False(t, stale())

	do(t, m, host.MakeDir{Path: "/etc/systemd/system/x.service.d", Mode: 0o755},
		write("/etc/systemd/system/x.service.d/20-b.conf", "[Service]\nEnvironment=A=4\n"),
		write("/etc/systemd/system/x.service.d/10-a.conf", "[Service]\nEnvironment=A=3 B=1\n# no\n"),
		write("/etc/systemd/system/x.service.d/30-c.txt", "[Service]\nEnvironment=A=5\n"),
		host.MakeDir{Path: "/lib/systemd/system/x.service.d", Mode: 0o755},
		write("/lib/systemd/system/x.service.d/05-z.conf", "[Service]\nEnvironment=A=9\n"),
		write("/lib/systemd/system/x.service.d/20-b.conf", "[Service]\nEnvironment=A=9 B=9\n"),
		systemctl(host.DaemonReload, ""))
	require.Equal(t, []string{"A=4", "B=1"}, env(), "drop-ins in the order of their names")
}
