package container_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// docker runs the docker command, which is not what the lab itself uses.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	require.NoError(t, err, "docker %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

// ssh runs a command on a machine as a person would, with the lab's own
// configuration.
func ssh(t testing.TB, i container.Info, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", append([]string{"-F", i.SSHConfig, "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func script(t testing.TB, m *container.Machine, text string) string {
	t.Helper()
	out, err := m.Run(t.Context(), "/bin/sh", "-c", text)
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

func machine(t testing.TB, l *container.Lab, name string) *container.Machine {
	t.Helper()
	m, err := l.Machine(name)
	require.NoError(t, err)
	return m
}

// One lab, looked at from all sides.
func TestMachines(t *testing.T) {
	t.Parallel()
	l := up(t, container.Spec{Machines: []container.MachineSpec{
		{Host: "10.10.10.10"}, {Host: "10.10.10.11", Etcd: "3.6.16"}, {Host: "10.10.10.13", Disk: 64 << 20},
	}, Etcd: image.DefaultEtcd})
	i := l.Info()
	host := i.Host("10.10.10.10")
	m := machine(t, l, host)

	t.Run("by hand", func(t *testing.T) {
		out, err := ssh(t, i, host, "id -un; sudo -n id -un; systemctl is-system-running; cat /etc/etcdrill-lab")
		require.NoError(t, err, out)
		require.Equal(t, "dba\nroot\nrunning\n"+i.Name, out)
		out, err = ssh(t, i, "root@"+host, "id -un")
		require.NoError(t, err, out)
		require.Equal(t, "root", out)
		out, err = ssh(t, i, "etcd@"+host, "true")
		require.Error(t, err, "nobody else is let in: %s", out)
	})

	t.Run("with the inventory's options", func(t *testing.T) {
		inv, err := inventory.Read(i.Inventory)
		require.NoError(t, err)
		h := inv.Host(host)
		args := append(strings.Fields(h.Vars["ansible_ssh_common_args"].(string)), "-F", "/dev/null", "-o", "BatchMode=yes",
			"-i", h.SSHKey, h.SSHUser+"@"+h.Addr, "hostname")
		out, err := exec.Command("ssh", args...).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Equal(t, "host-10\n", string(out))
		dir, ok := container.DirOf(inv.Bytes())
		require.True(t, ok)
		require.Equal(t, i.Dir, dir)
		require.NotContains(t, string(inv.Bytes()), "10.10.10.")
		require.NotContains(t, string(inv.Bytes()), "192.0.2.")
		g, err := inv.Group("etcd")
		require.NoError(t, err)
		require.Equal(t, host, g.AdminHost)
	})

	t.Run("as Pigsty leaves a host", func(t *testing.T) {
		require.Equal(t, strings.TrimSpace(`
/data root:root 755
/etc/pki root:root 755
/etc/sudoers.d root:root 750
/etc/sudoers.d/dba root:root 440
/usr/bin/etcd root:root 755
/var/lib/etcd etcd:etcd 770`), script(t, m, "stat -c '%n %U:%G %a' /data /etc/pki /etc/sudoers.d /etc/sudoers.d/dba /usr/bin/etcd /var/lib/etcd"))
		require.Equal(t, "uid=88(dba) gid=88(admin) groups=88(admin)", script(t, m, "id dba"))
	})

	t.Run("etcd's versions", func(t *testing.T) {
		for name, version := range map[string]string{"10.10.10.10": image.DefaultEtcd, "10.10.10.11": "3.6.16"} {
			said := script(t, machine(t, l, name), "etcd --version; etcdctl version; etcdutl version")
			require.Contains(t, said, "etcd Version: "+version)
			require.Contains(t, said, "etcdctl version: "+version)
			require.Contains(t, said, "etcdutl version: "+version)
		}
	})

	t.Run("no way out", func(t *testing.T) {
		require.Empty(t, script(t, m, "ip route show default"))
		// Not even for one who looks for it: a machine that has the route, as the
		// engine would have given it. The address is one for documentation.
		_, err := m.Run(t.Context(), "/bin/sh", "-c", "ip route add default via "+i.Gateway.String()+
			" && curl -sS --max-time 3 http://198.51.100.1/; status=$?; ip route del default; exit $status")
		require.Error(t, err)
		// While the machines see each other.
		script(t, m, "ping -c 1 -W 2 "+i.Host("10.10.10.11"))
	})

	t.Run("nothing waits for what a container has not", func(t *testing.T) {
		for _, m := range l.Machines() {
			require.Empty(t, script(t, m, "systemctl --failed --plain --no-legend"), m.Host())
		}
		require.NotEqual(t, script(t, m, "cat /proc/sys/kernel/random/boot_id"),
			script(t, machine(t, l, "10.10.10.11"), "cat /proc/sys/kernel/random/boot_id"), "machines have boot IDs of their own")
	})

	t.Run("seen by others", func(t *testing.T) {
		root, _ := dirs(t)
		labs, err := container.List(t.Context(), root)
		require.NoError(t, err)
		state := ""
		for _, other := range labs {
			if other.Name == i.Name {
				state = other.State
			}
		}
		require.Equal(t, "up", state)
		other, err := container.Open(t.Context(), i.Dir)
		require.NoError(t, err)
		require.Equal(t, i.Hosts, other.Info().Hosts)
		script(t, machine(t, other, host), "true")
		_, err = container.Up(t.Context(), container.Spec{Root: root, Cache: root, Name: i.Name, Machines: machines("10.10.10.10"), Inventory: sample})
		require.ErrorIs(t, err, container.ErrExists)
	})

	t.Run("faults", func(t *testing.T) { faults(t, l) })
}

func faults(t *testing.T, l *container.Lab) {
	ctx := t.Context()
	i := l.Info()
	a, b, spare := machine(t, l, "10.10.10.10"), machine(t, l, "10.10.10.11"), machine(t, l, "10.10.10.13")
	ping := func() error {
		_, err := b.Run(ctx, "ping", "-c", "1", "-W", "1", a.Host())
		return err
	}
	healed := func(t *testing.T, m *container.Machine, what ...string) {
		t.Helper()
		did, err := m.Heal(ctx)
		require.NoError(t, err)
		for n := range what {
			what[n] = m.Host() + ": " + what[n]
		}
		require.Equal(t, what, did)
		did, err = m.Heal(ctx)
		require.NoError(t, err)
		require.Empty(t, did)
	}
	require.NoError(t, ping())

	t.Run("unplugged", func(t *testing.T) {
		require.NoError(t, a.Disconnect(ctx))
		require.Error(t, ping())
		healed(t, a, "connected")
		require.NoError(t, ping())
		require.Equal(t, a.Host(), script(t, a, "hostname -I"))
		require.Empty(t, script(t, a, "ip route show default"))
	})
	t.Run("paused", func(t *testing.T) {
		require.NoError(t, a.Pause(ctx))
		// Its kernel, which is ours, still answers: connections are made, and stay
		// silent.
		const greet = "exec 3<>/dev/tcp/$0/22 && timeout 1 head -c 4 <&3"
		_, err := b.Run(ctx, "/bin/bash", "-c", greet, a.Host())
		require.ErrorContains(t, err, "status 124")
		healed(t, a, "unpaused")
		out, err := b.Run(ctx, "/bin/bash", "-c", greet, a.Host())
		require.NoError(t, err)
		require.Equal(t, "SSH-", out)
	})
	t.Run("a port", func(t *testing.T) {
		require.NoError(t, a.Block(ctx, container.Block{Port: 22, Peer: b.Host(), Reject: true}))
		_, err := b.Run(ctx, "/usr/bin/timeout", "5", "/bin/bash", "-c", "exec 3<>/dev/tcp/"+a.Host()+"/22")
		require.ErrorContains(t, err, "Connection refused")
		out, err := ssh(t, i, a.Host(), "true")
		require.NoError(t, err, "others are let in: %s", out)
		require.NoError(t, ping(), "other traffic passes")
		require.NoError(t, a.Block(ctx, container.Block{Peer: "10.10.10.11"}))
		require.Error(t, ping())
		healed(t, a, "traffic unblocked")
		require.NoError(t, ping())
	})
	t.Run("one way", func(t *testing.T) {
		require.NoError(t, a.Block(ctx, container.Block{Port: 22})) // it makes way
		require.NoError(t, a.Lose(ctx, container.Drop{From: b.Host()}))
		require.Error(t, ping())
		lost, err := a.Lost(ctx)
		require.NoError(t, err)
		require.Positive(t, lost[b.Host()])
		require.NoError(t, a.Lose(ctx, container.Drop{From: b.Host(), Ports: []int{2379, 2380}}))
		require.NoError(t, ping(), "other traffic passes")
		out, err := ssh(t, i, a.Host(), "true")
		require.NoError(t, err, out)
		lost, err = a.Lost(ctx)
		require.NoError(t, err)
		require.Equal(t, map[string]int64{b.Host(): 0}, lost)
		healed(t, a, "traffic unblocked")
		require.NoError(t, a.Lose(ctx))
		healed(t, a)
	})
	t.Run("a process", func(t *testing.T) {
		was := script(t, a, "systemctl show -P MainPID dbus")
		require.NoError(t, a.Signal(ctx, "dbus.service", "KILL"))
		require.Eventually(t, func() bool { return script(t, a, "systemctl show -P MainPID dbus") != was }, 10*time.Second, 100*time.Millisecond)
		script(t, a, "systemctl reset-failed; systemctl start dbus.socket; systemctl is-active dbus.socket")
	})
	t.Run("full disk", func(t *testing.T) {
		require.NoError(t, spare.Fill(ctx, 1<<20))
		_, err := spare.Run(ctx, "dd", "if=/dev/zero", "of=/data/more", "bs=1M", "count=4")
		require.ErrorContains(t, err, "No space left on device")
		script(t, spare, "rm /data/more")
		healed(t, spare, "/data freed")
		script(t, spare, "dd if=/dev/zero of=/data/more bs=1M count=4; rm /data/more")
		require.ErrorIs(t, a.Fill(ctx, 0), errors.ErrUnsupported)
	})
	t.Run("limits", func(t *testing.T) {
		require.NoError(t, spare.Limit(ctx, container.Limits{CPUs: 0.5, Memory: 96 << 20}))
		_, err := spare.Run(ctx, "/bin/sh", "-c", "head -c 200M /dev/zero | tail >/dev/null")
		require.Error(t, err, "more than the limit")
		healed(t, spare, "limits taken away")
		script(t, spare, "head -c 200M /dev/zero | tail >/dev/null")
	})
	t.Run("reboot", func(t *testing.T) {
		boot := script(t, a, "touch /run/gone /var/kept; cat /proc/sys/kernel/random/boot_id")
		require.NoError(t, a.Reboot(ctx))
		require.NotEqual(t, boot, script(t, a, "test ! -e /run/gone && test -e /var/kept && cat /proc/sys/kernel/random/boot_id"))
		require.Contains(t, script(t, a, "journalctl -b -u ssh --no-pager"), "Started ssh.service", "the journal knows the boot")
		out, err := ssh(t, i, a.Host(), "systemctl is-system-running")
		require.NoError(t, err, out)
		require.Equal(t, "running", out)
	})
	t.Run("reboot from inside", func(t *testing.T) {
		boot := script(t, a, "cat /proc/sys/kernel/random/boot_id")
		_, _ = ssh(t, i, a.Host(), "sudo systemctl reboot")
		require.Eventually(t, func() bool {
			now, err := a.Run(ctx, "cat", "/proc/sys/kernel/random/boot_id")
			return err == nil && strings.TrimSpace(now) != boot
		}, 30*time.Second, 200*time.Millisecond)
		require.NoError(t, a.AwaitUp(ctx))
	})
	t.Run("power", func(t *testing.T) {
		require.NoError(t, a.Power(ctx, false))
		require.Error(t, ping())
		healed(t, a) // off is off
		require.NoError(t, a.Power(ctx, true))
		require.NoError(t, ping())
	})
	t.Run("another host key", func(t *testing.T) {
		require.NoError(t, a.Rekey(ctx))
		out, err := ssh(t, i, a.Host(), "true")
		require.Error(t, err)
		require.Contains(t, out, "REMOTE HOST IDENTIFICATION HAS CHANGED")
	})
	t.Run("another etcd", func(t *testing.T) {
		require.NoError(t, a.Install(ctx, "3.6.16"))
		require.Contains(t, script(t, a, "etcd --version"), "etcd Version: 3.6.16")
	})
	t.Run("clock", func(t *testing.T) {
		require.ErrorIs(t, a.SkewClock(ctx, time.Hour), errors.ErrUnsupported)
	})
}

// Two labs for the same hosts, and the second one makes no image.
func TestTwoLabs(t *testing.T) {
	t.Parallel()
	one := up(t, container.Spec{Machines: machines("10.10.10.10")})
	var said bytes.Buffer
	two := up(t, container.Spec{Machines: machines("10.10.10.10"), Progress: &said})
	require.NotContains(t, said.String(), "building")
	require.False(t, one.Info().Subnet.Overlaps(two.Info().Subnet))
	a, b := one.Machines()[0], two.Machines()[0]
	require.NotEqual(t, a.Host(), b.Host())
	_, err := a.Run(t.Context(), "ping", "-c", "1", "-W", "1", b.Host())
	require.Error(t, err, "labs do not see each other")
	_, err = ssh(t, one.Info(), b.Host(), "true")
	require.Error(t, err, "a lab's key opens its own machines alone")
}

// A creator that is killed leaves machines; Heal leaves nothing.
func TestKilledCreator(t *testing.T) {
	t.Parallel()
	ctx := needsDocker(t)
	_, cache := dirs(t)
	root := filepath.Join(t.TempDir(), "labs")
	exe, err := os.Executable()
	require.NoError(t, err)
	owner := exec.CommandContext(ctx, exe, "owner", root, cache)
	var problem bytes.Buffer
	owner.Stderr = &problem
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	t.Cleanup(func() { _ = owner.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = owner.Wait()
		require.NoError(t, err, problem.String())
	}
	info, err := container.Describe(strings.TrimSpace(line))
	require.NoError(t, err)

	did, err := container.Heal(ctx, root)
	require.NoError(t, err)
	require.Empty(t, did, "while he lives, it is his")
	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()
	require.NotEmpty(t, docker(t, "ps", "-q", "--filter", "name="+info.Machines[0].Container))

	did, err = container.Heal(ctx, root)
	require.NoError(t, err)
	require.Equal(t, []string{"removed lab container1: its creator is gone"}, did)
	require.Empty(t, docker(t, "ps", "-aq", "--filter", "label=etcdrill.root="+info.Root))
	require.Empty(t, docker(t, "network", "ls", "-q", "--filter", "label=etcdrill.root="+info.Root))
	require.Empty(t, docker(t, "volume", "ls", "-q", "--filter", "label=etcdrill.root="+info.Root))
	require.NoDirExists(t, info.Dir)
}

// A lab that is kept outlives its creator, until somebody removes it behind the
// lab's back.
func TestKept(t *testing.T) {
	t.Parallel()
	ctx := needsDocker(t)
	_, cache := dirs(t)
	root := filepath.Join(t.TempDir(), "labs")
	l, err := container.Up(ctx, container.Spec{Root: root, Cache: cache, Name: "kept", Keep: true, Machines: machines("10.10.10.10", "10.20.0.9"), Inventory: sample})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Down(context.Background()) })
	did, err := container.Heal(ctx, root)
	require.NoError(t, err)
	require.Empty(t, did)
	require.Equal(t, 23, l.Info().Subnet.Bits(), "hosts of two networks have two networks")
	for _, m := range l.Machines() {
		docker(t, "rm", "-f", m.Info().Container)
	}
	_, err = container.Open(ctx, l.Info().Dir)
	require.ErrorIs(t, err, container.ErrGone)
	did, err = container.Heal(ctx, root)
	require.NoError(t, err)
	require.Equal(t, []string{"removed lab kept: its machines are gone"}, did)
	require.Empty(t, docker(t, "volume", "ls", "-q", "--filter", "label=etcdrill.root="+l.Info().Root), "their data is too")
	labs, err := container.List(ctx, root)
	require.NoError(t, err)
	require.Empty(t, labs)
}

// Over the gate, as when the engine runs elsewhere.
func TestGate(t *testing.T) {
	t.Parallel()
	l := up(t, container.Spec{Machines: machines("10.10.10.10"), Gate: true})
	i := l.Info()
	require.NotEmpty(t, i.Gate)
	out, err := ssh(t, i, i.Hosts[0], "echo $SSH_CONNECTION")
	require.NoError(t, err, out)
	require.NotContains(t, out, i.Gateway.String(), "it comes from the gate")
	inv, err := inventory.Read(i.Inventory)
	require.NoError(t, err)
	h := inv.Host(i.Hosts[0])
	cmd := exec.Command("/bin/sh", "-c", "ssh -F /dev/null -o BatchMode=yes "+h.Vars["ansible_ssh_common_args"].(string)+" -i "+h.SSHKey+" "+h.SSHUser+"@"+h.Addr+" hostname")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	require.Equal(t, "host-10\n", string(said))
}

// Whoever gives up while a lab is made leaves nothing.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	needsDocker(t)
	_, cache := dirs(t)
	root := filepath.Join(t.TempDir(), "labs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan error, 1)
	go func() {
		_, err := container.Up(ctx, container.Spec{Root: root, Cache: cache, Machines: machines("10.10.10.10", "10.10.10.11"), Inventory: sample})
		gone <- err
	}()
	var id []byte
	require.Eventually(t, func() bool {
		var err error
		id, err = os.ReadFile(filepath.Join(root, ".id"))
		return err == nil && docker(t, "ps", "-aq", "--filter", "label=etcdrill.root="+string(id)) != ""
	}, 10*time.Minute, 50*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Empty(t, docker(t, "ps", "-aq", "--filter", "label=etcdrill.root="+string(id)))
	require.Empty(t, docker(t, "network", "ls", "-q", "--filter", "label=etcdrill.root="+string(id)))
	labs, err := container.List(t.Context(), root)
	require.NoError(t, err)
	require.Empty(t, labs)
}

// The doctor tries a whole lab, and says so where there is no engine.
func TestDoctor(t *testing.T) {
	t.Parallel()
	l := up(t, container.Spec{Machines: machines("10.10.10.10")}) // so that the image is there
	_, cache := dirs(t)
	for _, c := range container.Doctor(t.Context(), filepath.Join(t.TempDir(), "labs"), cache) {
		require.True(t, c.OK, "%s: %s", c.Name, c.Detail)
		require.Empty(t, c.Fix)
		if c.Name == "a whole lab of machines" {
			require.Contains(t, c.Detail, "reached by ssh, root by sudo")
			l = nil
		}
	}
	require.Nil(t, l, "a lab was tried")
}

// What is left of a lab whose directory was damaged can be taken away.
func TestDiscard(t *testing.T) {
	t.Parallel()
	ctx := needsDocker(t)
	_, cache := dirs(t)
	root := filepath.Join(t.TempDir(), "labs")
	l, err := container.Up(ctx, container.Spec{Root: root, Cache: cache, Keep: true, Machines: machines("10.10.10.10"), Inventory: sample})
	require.NoError(t, err)
	i := l.Info()
	t.Cleanup(func() { _ = l.Down(context.Background()) })
	elsewhere, err := os.ReadFile(filepath.Join(i.Dir, "lab.json"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(i.Dir, "lab.json"), bytes.Replace(elsewhere, []byte(i.EngineID), []byte("another"), 1), 0o600))
	require.ErrorIs(t, container.Discard(ctx, i.Dir), container.ErrElsewhere)
	did, err := container.Heal(ctx, root)
	require.NoError(t, err)
	require.Len(t, did, 1)
	require.Contains(t, did[0], "left as it is: lab is with another Docker engine")
	require.NotEmpty(t, docker(t, "ps", "-q", "--filter", "label=etcdrill.root="+i.Root))

	require.NoError(t, os.Remove(filepath.Join(i.Dir, "lab.json")))
	require.NoError(t, container.Discard(ctx, i.Dir))
	require.Empty(t, docker(t, "ps", "-aq", "--filter", "label=etcdrill.root="+i.Root))
	require.Empty(t, docker(t, "network", "ls", "-q", "--filter", "label=etcdrill.root="+i.Root))
	require.NoDirExists(t, i.Dir)
}
