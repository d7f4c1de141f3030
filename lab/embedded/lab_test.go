package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/shelf"
	"github.com/etcdrill/etcdrill/sop/host"
)

func TestUpGivesHostsTheirAddresses(t *testing.T) {
	lab := up(t, Spec{Inventory: []byte("all: {}\n")})
	info := lab.Info()
	require.Equal(t, hosts4, info.Hosts)
	require.True(t, info.Alive)
	for i, h := range hosts4 {
		_, line := run(t, lab, h, "echo", h+":7")
		require.Equal(t, "listening\n", line)
		for _, from := range append([]string{Admin, Client}, hosts4...) {
			status, said := output(t, lab, from, "dial", h+":7")
			require.Equal(t, "connected\n", said, "host %d from %s", i, from)
			require.Zero(t, status)
		}
	}
	inventory, err := os.ReadFile(info.Inventory)
	require.NoError(t, err)
	require.Contains(t, string(inventory), "\nall: {}\n")
	socket, ok := SocketOf(inventory)
	require.True(t, ok)
	again, err := OpenSocket(deadline(t), socket)
	require.NoError(t, err)
	require.Equal(t, info.PID, again.Info().PID)
	require.Equal(t, info.Dir, again.Info().Dir)
	socketInfo, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), socketInfo.Mode().Perm())
	require.DirExists(t, lab.Root(hosts4[0]))
}

func TestIPv6(t *testing.T) {
	hosts := []string{"fd00:1::10", "fd00:2::10", "10.10.10.10"}
	lab := up(t, Spec{Hosts: hosts})
	for _, h := range hosts[:2] {
		_, line := run(t, lab, h, "echo", "["+h+"]:7")
		require.Equal(t, "listening\n", line)
		_, said := output(t, lab, Admin, "dial", "["+h+"]:7")
		require.Equal(t, "connected\n", said)
	}
	conn, err := lab.DialContext(Client)(deadline(t), "[fd00:2::10]:7")
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

// The supervisor's main thread has to be the one in the lab's own namespace,
// as that is the one that /proc shows.
func TestMainThreadStaysInTheLabsNamespace(t *testing.T) {
	lab := up(t, Spec{})
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", lab.Info().PID))
	require.NoError(t, err)
	require.Contains(t, string(data), "port0:")
	require.NotContains(t, string(data), ethName+":")
}

func TestNoWayOut(t *testing.T) {
	lab := up(t, Spec{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	addresses := []string{"192.0.2.1:80", "10.10.10.200:2379", "10.10.11.1:2379", "[2001:db8::1]:80"}
	ours, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range ours {
		prefix, err := netip.ParsePrefix(a.String())
		require.NoError(t, err)
		if !prefix.Addr().IsLoopback() && !prefix.Addr().IsLinkLocalUnicast() {
			addresses = append(addresses, netip.AddrPortFrom(prefix.Addr(), 22).String())
		}
	}
	for _, from := range []string{Admin, Client, hosts4[0]} {
		for _, to := range addresses {
			status, said := output(t, lab, from, "dial", to)
			require.NotZero(t, status, "%s from %s: %s", to, from, said)
			require.Contains(t, said, "unreachable", "%s from %s", to, from)
			_, err := lab.DialContext(from)(deadline(t), to)
			require.ErrorIs(t, err, unix.ENETUNREACH)
		}
		// Loopback is the host's own.
		status, said := output(t, lab, from, "dial", listener.Addr().String())
		require.NotZero(t, status, said)
		require.Contains(t, said, "refused")
	}
}

func TestExecStatusAndStreams(t *testing.T) {
	lab := up(t, Spec{})
	in, feed, err := os.Pipe()
	require.NoError(t, err)
	out, outW, err := os.Pipe()
	require.NoError(t, err)
	warn, warnW, err := os.Pipe()
	require.NoError(t, err)
	dir := t.TempDir()
	p, err := lab.Exec(deadline(t), Admin,
		[]string{"sh", "-c", `read line; echo "out $line $WHO $PWD"; echo err >&2; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; exit 7`},
		[]string{"WHO=me", "PATH=/usr/bin:/bin"}, dir, in, outW, warnW)
	require.NoError(t, err)
	require.NoError(t, errors.Join(in.Close(), outW.Close(), warnW.Close()))
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID()))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(command, []byte("sh\x00-c\x00")), "%q", command)

	_, err = feed.WriteString("hello\n")
	require.NoError(t, err)
	said, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Equal(t, "out hello me "+dir+"\n", string(said))
	said, err = io.ReadAll(warn)
	require.NoError(t, err)
	require.Equal(t, "err\n", string(said))
	status, err := p.Wait()
	require.NoError(t, err)
	require.Equal(t, 7, status)
	require.Positive(t, p.CPU())
	require.ErrorIs(t, p.Signal(syscall.SIGTERM), os.ErrProcessDone)
	require.NoError(t, errors.Join(feed.Close(), out.Close(), warn.Close()))

	_, err = lab.Exec(deadline(t), Admin, []string{"no-such-command"}, []string{"PATH=/usr/bin"}, "", nil, nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = lab.Exec(deadline(t), Admin, []string{"/no/such/command"}, nil, "", nil, nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = lab.Exec(deadline(t), "10.10.10.99", []string{"true"}, nil, "", nil, nil, nil)
	require.ErrorIs(t, err, ErrNoHost)
}

func TestExecSignals(t *testing.T) {
	lab := up(t, Spec{})
	p, line := run(t, lab, Admin, "deaf")
	require.Equal(t, "deaf\n", line)
	require.NoError(t, p.Signal(syscall.SIGTERM))
	require.NoError(t, p.Signal(syscall.SIGKILL))
	status, err := p.Wait()
	require.NoError(t, err)
	require.Equal(t, 128+9, status)
}

// The front process is another instance of this binary, which starts a process
// in the lab and is killed.
func TestExecDiesWithItsFront(t *testing.T) {
	lab := up(t, Spec{})
	front := exec.Command(executable(t), "inside", "front", lab.Info().Socket, executable(t), "inside", "deaf")
	out, err := front.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, front.Start())
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "deaf\n", line)
	var pid int
	_, err = fmt.Fscan(r, &pid)
	require.NoError(t, err)
	ref, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	defer unix.Close(ref)
	require.NoError(t, front.Process.Kill())
	ended := []unix.PollFd{{Fd: int32(ref), Events: unix.POLLIN}}
	ctx := deadline(t)
	for {
		n, err := unix.Poll(ended, 1000)
		if n == 1 {
			break
		}
		require.True(t, err == nil || errors.Is(err, unix.EINTR), "%v", err)
		require.NoError(t, ctx.Err(), "the inner process lives on")
	}
	_ = front.Wait()
}

func TestExecEndsWithTheLab(t *testing.T) {
	lab := up(t, Spec{})
	p, _ := run(t, lab, Admin, "deaf")
	require.NoError(t, lab.Down(deadline(t)))
	status, err := p.Wait()
	if err != nil { // else its end was the last thing that the lab told
		require.ErrorIs(t, err, ErrGone)
		require.Equal(t, -1, status)
	} else {
		require.Equal(t, 128+9, status)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	lab := up(t, Spec{})
	for range 5 {
		// The inner shell's parent is gone before it ends.
		p, err := lab.Exec(deadline(t), Admin, []string{"sh", "-c", "sh -c 'sleep 0.05; exit 3' & exit 0"}, nil, "/", nil, nil, nil)
		require.NoError(t, err)
		status, err := p.Wait()
		require.NoError(t, err)
		require.Zero(t, status)
	}
	children := fmt.Sprintf("/proc/%d/task/%d/children", lab.Info().PID, lab.Info().PID)
	if _, err := os.Stat(children); err != nil {
		t.Skip("this kernel does not list children")
	}
	ctx := deadline(t)
	for {
		left := ""
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", lab.Info().PID))
		require.NoError(t, err)
		for _, task := range tasks {
			data, _ := os.ReadFile(task)
			left += string(data)
		}
		if strings.TrimSpace(left) == "" {
			return
		}
		require.NoError(t, pause(ctx), "children left: %s", left)
	}
}

func TestDial(t *testing.T) {
	lab := up(t, Spec{})
	dial := lab.DialContext(Client)
	_, err := dial(deadline(t), "10.10.10.11:7")
	require.ErrorIs(t, err, unix.ECONNREFUSED)

	_, line := run(t, lab, "10.10.10.11", "echo", "10.10.10.11:7")
	require.Equal(t, "listening\n", line)
	conn, err := dial(deadline(t), "10.10.10.11:7")
	require.NoError(t, err)
	defer conn.Close()
	require.Equal(t, lab.Info().Addresses[Client][0].String(), netip.MustParseAddrPort(conn.LocalAddr().String()).Addr().String())
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { _, _ = conn.Write(big) }()
	got := make([]byte, len(big))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(big, got))

	require.NoError(t, lab.Link(deadline(t), Client, "10.10.10.11", netswitch.Rule{Cut: true}))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = dial(ctx, "10.10.10.11:7")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = lab.DialContext("nobody")(deadline(t), "10.10.10.11:7")
	require.ErrorIs(t, err, ErrNoHost)
}

// A connection lives through the way to the switch and back, and a cut holds
// exactly the one direction.
func TestLinks(t *testing.T) {
	lab := up(t, Spec{})
	ctx := deadline(t)
	for _, h := range hosts4[:2] {
		_, line := run(t, lab, h, "echo", h+":7")
		require.Equal(t, "listening\n", line)
	}
	conn, err := lab.DialContext("10.10.10.10")(ctx, "10.10.10.11:7")
	require.NoError(t, err)
	defer conn.Close()
	ping := func() error {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("ping")); err != nil {
			return err
		}
		_, err := io.ReadFull(conn, make([]byte, 4))
		return err
	}
	require.NoError(t, ping())
	require.NoError(t, lab.Link(ctx, "10.10.10.12", "10.10.10.10", netswitch.Rule{Cut: true}))
	require.NoError(t, ping(), "another link's fault")
	try := func(ctx context.Context, from, to string) error {
		c, err := lab.DialContext(from)(ctx, to)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, try(short, "10.10.10.12", "10.10.10.10:7"), context.DeadlineExceeded)
	require.NoError(t, try(ctx, "10.10.10.12", "10.10.10.11:7"))
	require.NoError(t, try(ctx, Admin, "10.10.10.10:7"))
	counters, err := lab.Counters(ctx)
	require.NoError(t, err)
	require.Positive(t, counters[netswitch.Link{From: "10.10.10.12", To: "10.10.10.10"}].Cut)
	require.Zero(t, counters[netswitch.Link{From: "10.10.10.10", To: "10.10.10.12"}].Cut)

	_, err = lab.Host("10.10.10.13").Look(ctx, host.Question{})
	require.NoError(t, err)
	require.NoError(t, lab.Link(ctx, "10.10.10.13", Admin, netswitch.Rule{Cut: true}))
	_, err = lab.Host("10.10.10.13").Look(ctx, host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)

	did, err := Heal(ctx, filepath.Dir(lab.Info().Dir))
	require.NoError(t, err)
	require.Len(t, did, 2)
	require.Contains(t, did[0], "10.10.10.12->10.10.10.10")
	require.NoError(t, ping(), "after healing")
	require.NoError(t, try(ctx, "10.10.10.12", "10.10.10.10:7"))
	_, err = lab.Host("10.10.10.13").Look(ctx, host.Question{})
	require.NoError(t, err)
	did, err = lab.HealLinks(ctx)
	require.NoError(t, err)
	require.Empty(t, did)

	require.Error(t, lab.Link(ctx, Admin, "nobody", netswitch.Rule{Cut: true}))
	require.Error(t, lab.Link(ctx, Admin, Admin, netswitch.Rule{Cut: true}))
	require.Error(t, lab.Link(ctx, Admin, Client, netswitch.Rule{Loss: 2}))
}

func TestPower(t *testing.T) {
	lab := up(t, Spec{})
	ctx := deadline(t)
	const h = "10.10.10.11"
	p, line := run(t, lab, h, "echo", h+":7")
	require.Equal(t, "listening\n", line)
	conn, err := lab.DialContext(Client)(ctx, h+":7")
	require.NoError(t, err)
	defer conn.Close()
	before, err := lab.Host(h).Look(ctx, host.Question{})
	require.NoError(t, err)

	require.NoError(t, lab.Power(ctx, h, false))
	status, err := p.Wait()
	require.NoError(t, err)
	require.Equal(t, 128+9, status)
	// No goodbye: the connection is silent, not closed.
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	_, err = lab.Host(h).Look(ctx, host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	err = lab.Host(h).Do(ctx, host.MakeDir{Path: "/tmp/x", Owner: "root", Group: "root", Mode: 0o755})
	require.ErrorIs(t, err, host.ErrUnreachable)
	_, err = lab.Exec(ctx, h, []string{"true"}, nil, "/", nil, nil, nil)
	require.ErrorIs(t, err, ErrPoweredOff)
	require.NoError(t, lab.Power(ctx, h, false), "twice")

	require.NoError(t, lab.Link(ctx, Client, "10.10.10.12", netswitch.Rule{Cut: true}))
	require.NoError(t, lab.Power(ctx, h, true))
	_, line = run(t, lab, h, "echo", h+":7")
	require.Equal(t, "listening\n", line)
	conn2, err := lab.DialContext(Client)(ctx, h+":7")
	require.NoError(t, err, "over the switch")
	require.NoError(t, conn2.Close())
	require.NoError(t, lab.Power(ctx, h, false))
	require.NoError(t, lab.Link(ctx, Client, "10.10.10.12", netswitch.Rule{}))
	require.NoError(t, lab.Power(ctx, h, true))
	_, line = run(t, lab, h, "echo", h+":7")
	require.Equal(t, "listening\n", line)
	conn2, err = lab.DialContext(Client)(ctx, h+":7")
	require.NoError(t, err, "over the bridge")
	require.NoError(t, conn2.Close())
	after, err := lab.Host(h).Look(ctx, host.Question{})
	require.NoError(t, err)
	require.NotEqual(t, before.BootID, after.BootID)
	require.ErrorIs(t, lab.Power(ctx, Admin, false), ErrNoHost)
}

func TestHostLooksAndDoes(t *testing.T) {
	lab := up(t, Spec{})
	ctx := deadline(t)
	h := lab.Host("10.10.10.12")
	require.Equal(t, "10.10.10.12", h.Name())
	require.NoError(t, h.Do(ctx, host.MakeDir{Path: "/etc/etcd", Owner: "root", Group: "root", Mode: 0o755}))
	content := bytes.Repeat([]byte("0123456789\n"), 100_000)
	require.NoError(t, h.Do(ctx, host.WriteFile{Path: "/etc/etcd/etcd.conf", Content: content, Owner: "root", Group: "root", Mode: 0o644}))
	facts, err := h.Look(ctx, host.Question{Files: []string{"/etc/etcd/etcd.conf"}})
	require.NoError(t, err)
	require.Equal(t, content, facts.Files["/etc/etcd/etcd.conf"].Content)
	require.FileExists(t, filepath.Join(lab.Root("10.10.10.12"), "etc/etcd/etcd.conf"))

	require.NoError(t, h.Do(ctx, host.Claim{Owner: "one", Token: "1"}))
	err = h.Do(ctx, host.Claim{Owner: "two", Token: "2"})
	require.ErrorIs(t, err, host.ErrClaimed)
	require.ErrorContains(t, err, "one")
	err = h.Do(ctx, host.Systemctl{Verb: host.Start, Unit: "nothing.service"})
	var failure *host.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "10.10.10.12", failure.Host)

	_, line := run(t, lab, "10.10.10.11", "echo", "10.10.10.11:7")
	require.Equal(t, "listening\n", line)
	facts, err = h.Look(ctx, host.Question{Dial: []string{"10.10.10.11:7", "10.10.10.11:8"}})
	require.NoError(t, err)
	require.Empty(t, facts.Dials["10.10.10.11:7"])
	require.Contains(t, facts.Dials["10.10.10.11:8"], "refused")

	_, err = lab.Host(Admin).Look(ctx, host.Question{})
	require.ErrorIs(t, err, ErrNoHost)
	require.NoError(t, lab.Down(ctx))
	_, err = h.Look(ctx, host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.ErrorIs(t, h.Do(ctx, host.Release{}), host.ErrUnreachable)
}

func TestKeptLabOutlivesItsCreator(t *testing.T) {
	dir := root(t)
	for _, keep := range []string{"keep", "end"} {
		cmd := exec.Command(executable(t), append([]string{"inside", "up", dir, keep, keep}, hosts4...)...)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		r := bufio.NewReader(out)
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, filepath.Join(dir, keep))
		if keep == "end" {
			require.NoError(t, cmd.Process.Kill())
		}
		// End of file: the supervisor has nothing of the creator's streams.
		_, err = io.ReadAll(r)
		require.NoError(t, err)
		_ = cmd.Wait()
	}
	lab, err := Open(deadline(t), filepath.Join(dir, "keep"))
	require.NoError(t, err)
	_, err = Up(deadline(t), Spec{Root: dir, Name: "keep", Hosts: hosts4})
	require.ErrorIs(t, err, ErrExists)
	ctx := deadline(t)
	for {
		all, err := List(ctx, dir)
		require.NoError(t, err)
		if len(all) == 1 {
			require.Equal(t, "keep", all[0].Name)
			require.True(t, all[0].Alive)
			require.Equal(t, lab.Info().PID, all[0].PID)
			break
		}
		require.NoError(t, pause(ctx), "%v", all)
	}
	require.NoError(t, lab.Down(ctx))
	nothingLeft(t, dir)
}

func TestDownOfAStoppedSupervisor(t *testing.T) {
	lab := up(t, Spec{})
	_, line := run(t, lab, Admin, "deaf")
	require.Equal(t, "deaf\n", line)
	require.NoError(t, syscall.Kill(lab.Info().PID, syscall.SIGSTOP))
	require.NoError(t, lab.Down(deadline(t)))
	nothingLeft(t, filepath.Dir(lab.Info().Dir))
	require.NoError(t, lab.Down(deadline(t)), "twice")
}

func TestDownKeepsEvidence(t *testing.T) {
	dir := root(t)
	lab, err := Up(deadline(t), Spec{Root: dir, Hosts: hosts4})
	require.NoError(t, err)
	require.NoError(t, lab.DownKeep(deadline(t)))
	require.DirExists(t, lab.Root(hosts4[0]))
	all, err := List(deadline(t), dir)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.False(t, all[0].Alive)
	did, err := Heal(deadline(t), dir)
	require.NoError(t, err)
	require.Equal(t, []string{"removed lab lab1: its supervisor is gone"}, did)
	nothingLeft(t, dir)
}

func TestUpRefuses(t *testing.T) {
	ctx := deadline(t)
	long := filepath.Join(root(t), strings.Repeat("x", 90))
	_, err := Up(ctx, Spec{Root: long, Hosts: hosts4})
	require.ErrorIs(t, err, ErrSocketPath)
	require.ErrorContains(t, err, "shorter directory")
	dir := root(t)
	for _, s := range []Spec{
		{Root: "labs", Hosts: hosts4},
		{Root: dir},
		{Root: dir, Hosts: hosts4, Name: "../x"},
		{Root: dir, Hosts: hosts4, Name: ".x"},
		{Root: dir, Hosts: []string{"etcd-1"}},
		{Root: dir, Hosts: []string{"10.10.10.10", "10.10.10.10"}},
		{Root: dir, Hosts: []string{"127.0.0.1"}},
		{Root: dir, Hosts: hosts4, Executable: "/bin/false"},
		{Root: dir, Hosts: hosts4, Executable: "/no/such/binary"},
	} {
		_, err := Up(ctx, s)
		require.Error(t, err, "%+v", s)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Up(ended, Spec{Root: dir, Hosts: hosts4})
	require.ErrorIs(t, err, context.Canceled)
	nothingLeft(t, dir)
}

func TestPlan(t *testing.T) {
	nodes, err := plan([]string{"10.10.10.10", "10.10.10.254"}, []byte("vip_address: 10.10.10.253/24"))
	require.NoError(t, err)
	require.Len(t, nodes, 4)
	require.Equal(t, "10.10.10.252", nodes[2].Addrs[0].String())
	require.Equal(t, "10.10.10.251", nodes[3].Addrs[0].String())
	require.False(t, nodes[2].Guest)
	require.True(t, slices.IsSortedFunc(nodes[:2], func(a, b nodeSpec) int { return a.Addrs[0].Compare(b.Addrs[0]) }))
}

func TestDoctor(t *testing.T) {
	dir := root(t)
	checks := Doctor(deadline(t), dir)
	t.Log("\n" + Text(checks))
	for _, c := range checks {
		require.True(t, c.OK || !c.Needed, "%+v", c)
		require.Equal(t, c.OK, c.Fix == "", "%+v", c)
	}
	require.Equal(t, "a whole lab", checks[len(checks)-1].Name)
	nothingLeft(t, dir)

	bad := Doctor(deadline(t), filepath.Join(dir, strings.Repeat("x", 100)))
	last := bad[len(bad)-1]
	require.True(t, slices.ContainsFunc(bad, func(c Check) bool { return c.Name == "directory of labs" && !c.OK && c.Fix != "" }))
	require.NotEqual(t, "a whole lab", last.Name)
}

// A user namespace with a limit of its own stands for a system that allows no
// labs.
func TestWhereNamespacesAreForbidden(t *testing.T) {
	dir := root(t)
	cmd := exec.Command(executable(t), "inside", "forbidden", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	t.Logf("%s", said)
	require.Contains(t, string(said), "lab:doctor tells which")
	require.Contains(t, string(said), "FAIL  network namespace")
	require.Contains(t, string(said), "max_net_namespaces")
	require.NotContains(t, string(said), "a whole lab")
	nothingLeft(t, dir)
}

func TestManyLabsAtOnce(t *testing.T) {
	dir := root(t)
	const many = 4
	made := make(chan *Lab, many)
	for range many {
		go func() {
			lab, err := Up(deadline(t), Spec{Root: dir, Hosts: hosts4})
			if err != nil {
				t.Error(err)
			}
			made <- lab
		}()
	}
	var names []string
	for range many {
		lab := <-made
		require.NotNil(t, lab)
		names = append(names, lab.Info().Name)
		// The same addresses in every lab, and no lab in another's way.
		_, line := run(t, lab, hosts4[0], "echo", hosts4[0]+":7")
		require.Equal(t, "listening\n", line)
		defer func() { require.NoError(t, lab.Down(deadline(t))) }()
	}
	slices.Sort(names)
	require.Equal(t, []string{"lab1", "lab2", "lab3", "lab4"}, names)
	did, err := Heal(deadline(t), dir)
	require.NoError(t, err)
	require.Empty(t, did, "living labs are left alone")
}

func BenchmarkLabUp(b *testing.B) {
	dir := root(b)
	for b.Loop() {
		lab, err := Up(deadline(b), Spec{Root: dir, Hosts: hosts4})
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, lab.Down(deadline(b)))
		b.StartTimer()
	}
}

func BenchmarkExec(b *testing.B) {
	lab, err := Up(deadline(b), Spec{Root: root(b), Hosts: hosts4})
	require.NoError(b, err)
	for b.Loop() {
		p, err := lab.Exec(deadline(b), Admin, []string{"true"}, nil, "/", nil, nil, nil)
		require.NoError(b, err)
		_, err = p.Wait()
		require.NoError(b, err)
	}
	require.NoError(b, lab.Down(deadline(b)))
}

// A lab that just dies takes the connection, and gives no answer.
func TestHealMeetsADyingLab(t *testing.T) {
	dir := root(t)
	alive := filepath.Join(dir, "x", aliveName)
	require.NoError(t, os.Mkdir(filepath.Dir(alive), 0o700))
	lock, err := shelf.Hold(alive)
	require.NoError(t, err)
	listener, err := net.Listen("unix", filepath.Join(dir, "x", socketName))
	require.NoError(t, err)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_ = conn.Close()
		}
		_ = listener.Close()
		_ = lock.Close()
	}()
	did, err := Heal(deadline(t), dir)
	require.NoError(t, err)
	require.Equal(t, []string{"removed lab x: its supervisor is gone"}, did)
	nothingLeft(t, dir)
}
