package ssh_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// logins counts the handshakes that sshd saw through to the end.
func (r *rig) logins() int {
	r.t.Helper()
	text, err := os.ReadFile(r.log)
	require.NoError(r.t, err)
	return strings.Count(string(text), "Accepted publickey")
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			require.Fail(t, "it did not come about: "+what)
		case <-tick.C:
		}
	}
}

// A proc is a process of ours.
type proc struct {
	pid, session int
	args         string
}

// processesWith gives the living processes whose command line has some words.
func processesWith(t *testing.T, words ...string) []proc {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	var found []proc
next:
	for _, p := range paths {
		b, err := os.ReadFile(p + "/cmdline")
		if err != nil || len(b) == 0 { // gone, or a zombie
			continue
		}
		args := strings.ReplaceAll(string(b), "\x00", " ")
		for _, w := range words {
			if !strings.Contains(args, w) {
				continue next
			}
		}
		pid, err := strconv.Atoi(filepath.Base(p))
		require.NoError(t, err)
		session, err := unix.Getsid(pid)
		if err == nil {
			found = append(found, proc{pid, session, args})
		}
	}
	return found
}

// masters are the processes that keep a connection to this host.
func (r *rig) masters() []proc {
	return processesWith(r.t, "ControlMaster=yes", fmt.Sprintf("-p %d ", r.port))
}

func TestOneHandshake(t *testing.T) {
	r := newRig(t)
	c := newClient(t)
	const many = 20
	var wg sync.WaitGroup
	errs := make([]error, many)
	for i := range many {
		wg.Go(func() {
			m := c.Host(r.spec("root"))
			if i%2 == 0 {
				errs[i] = m.Do(t.Context(), write(fmt.Sprintf("/data/%d", i), "x"))
				return
			}
			_, errs[i] = m.Look(t.Context(), host.Question{Files: []string{"/etc/passwd"}})
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 1, r.logins())
	require.Equal(t, []ssh.Count{{Host: "10.10.10.11", Connections: 1, Commands: many}}, c.Counts())
	masters := r.masters()
	require.Len(t, masters, 1)
	require.Equal(t, masters[0].pid, masters[0].session, "Ctrl-C of our terminal does not reach it")
	dir := socketDir(t)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "twice")
	require.Empty(t, r.masters())
	require.NoDirExists(t, dir)
	_, err = c.Host(r.spec("root")).Look(t.Context(), host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
}

// socketDir is the one directory for control sockets that this process has now.
func socketDir(t *testing.T) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("etcdrill-ssh-%d-*", os.Getpid())))
	require.NoError(t, err)
	require.Len(t, dirs, 1)
	return dirs[0]
}

func TestConnect(t *testing.T) {
	r := newRig(t)
	c := newClient(t)
	m := c.Host(r.spec("root"))
	m.Connect(t.Context())
	require.Equal(t, 1, c.Counts()[0].Connections)
	require.Zero(t, c.Counts()[0].Commands)
	require.Equal(t, "10.10.10.11", m.Name())
	require.NoError(t, r.cmd.Process.Kill())
	await(t, "the connection is gone", func() bool { return len(r.masters()) == 0 })
	m.Connect(t.Context()) // it was tried before, and is not again
	require.Equal(t, 1, c.Counts()[0].Connections)
}

// Whatever keeps a host from being reached is told in the words of ssh or sudo,
// with what to do; and nothing is changed.
func TestUnreachable(t *testing.T) {
	r := newRig(t)
	other := filepath.Join(t.TempDir(), "other")
	keygen(t, other)
	trusted, err := os.ReadFile(r.keys)
	require.NoError(t, err)
	known := func(text string) func(t *testing.T) {
		return func(t *testing.T) {
			require.NoError(t, os.WriteFile(r.keys, []byte(text), 0o600))
			t.Cleanup(func() { require.NoError(t, os.WriteFile(r.keys, trusted, 0o600)) })
		}
	}
	otherKey, err := os.ReadFile(other + ".pub")
	require.NoError(t, err)
	argument := func(words string) func(*inventory.Host) {
		return func(h *inventory.Host) { h.Vars["ansible_ssh_extra_args"] = words }
	}
	for _, c := range []struct {
		name       string
		user       string
		before     func(t *testing.T)
		with       func(*inventory.Host)
		said, hint string
	}{
		{"host key changed", "root", known(fmt.Sprintf("[127.0.0.1]:%d %s", r.port, otherKey)), nil, "REMOTE HOST IDENTIFICATION HAS CHANGED", "find out why before anything else"},
		{"host key unknown", "root", known(""), nil, "host key is known for [127.0.0.1]", "compare its fingerprint"},
		{"host keys not wanted", "root", known(""), argument("-o StrictHostKeyChecking=no"), "host key is known for [127.0.0.1]", "compare its fingerprint"},
		{"wrong user", "mallory", nil, nil, "Permission denied (publickey)", "check ansible_user"},
		{"wrong key", "root", nil, func(h *inventory.Host) { h.SSHKey = other }, "Permission denied (publickey)", "passwords are never used"},
		{"port closed", "root", nil, func(h *inventory.Host) { h.SSHPort = freePort(t) }, "Connection refused", "check ansible_port"},
		{"name unknown", "root", nil, func(h *inventory.Host) { h.Addr = "no-such-host.invalid" }, "Could not resolve hostname", "set ansible_host"},
		{"key readable by all", "root", func(t *testing.T) {
			require.NoError(t, os.Chmod(r.key, 0o644))
			t.Cleanup(func() { require.NoError(t, os.Chmod(r.key, 0o600)) })
		}, nil, "UNPROTECTED PRIVATE KEY", "chmod 600"},
		{"option of no ssh", "root", nil, argument("-o NoSuchOption=yes"), "Bad configuration option", "by hand: ssh "},
		{"jump host gone", "root", nil, argument(fmt.Sprintf("-o ProxyCommand='nc -z 127.0.0.1 %d'", freePort(t))), "closed", "by hand"},
		{"sudo wants a password", "plain", nil, nil, "a password is required", "NOPASSWD"},
		{"no such user to become", "dba", nil, func(h *inventory.Host) { h.BecomeUser = "mallory" }, "unknown user", "by hand"},
		{"sudo is not there", "dba", func(*testing.T) { r.shell("mv /usr/bin/sudo /usr/bin/sudo.gone") }, nil, "sudo: not found", "install sudo there"},
		{"no shell", "plain", func(*testing.T) { r.shell("mv /usr/bin/sudo.gone /usr/bin/sudo; usermod -s /usr/sbin/nologin plain") }, nil, "This account is currently not available", "by hand"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before(t)
			}
			var with []func(*inventory.Host)
			if c.with != nil {
				with = append(with, c.with)
			}
			m := newClient(t).Host(r.spec(c.user, with...))
			for _, err := range []error{m.Do(t.Context(), write("/data/x", "x")), errOf(m.Look(t.Context(), host.Question{}))} {
				require.ErrorIs(t, err, host.ErrUnreachable)
				require.ErrorContains(t, err, c.said)
				require.ErrorContains(t, err, c.hint)
				require.ErrorContains(t, err, "10.10.10.11")
				require.NotContains(t, err.Error(), "@@@")
				require.NotContains(t, err.Error(), "\n")
			}
			require.NoFileExists(t, r.path("/data/x"))
		})
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestNoSSHProgram(t *testing.T) {
	m := newClient(t, func(c *ssh.Config) { c.Program = "/no/such/ssh" }).Host(ssh.Spec{Name: "10.10.10.11", Addr: "127.0.0.1"})
	_, err := m.Look(t.Context(), host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.ErrorContains(t, err, "ssh program of this machine is needed")
}

// One who answers to nobody costs the patience of whoever asks, and no more.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	m := newClient(t).Host(ssh.Spec{Name: "10.10.10.11", Addr: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port})
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	err = m.Do(ctx, write("/x", "x"))
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "an outcome that is known must not look unknown")
	require.ErrorContains(t, err, "has not connected yet")
}

// Who connects as an ordinary user acts as root where that is wanted, and is
// told why it fails where it is not.
func TestBecome(t *testing.T) {
	r := newRig(t)
	m := newClient(t).Host(r.spec("dba"))
	do(t, m, host.MakeDir{Path: "/data/etcd", Owner: "etcd", Mode: 0o700})
	require.Equal(t, "etcd:root 700", r.kept("/data/etcd"))

	as := newClient(t).Host(r.spec("dba", func(h *inventory.Host) { h.BecomeUser = "etcd" }))
	do(t, as, host.MakeDir{Path: "/data/etcd/x", Owner: "etcd", Group: "etcd", Mode: 0o700})
	require.Equal(t, "etcd:etcd 700", r.kept("/data/etcd/x"))

	not := newClient(t).Host(r.spec("dba", func(h *inventory.Host) { h.Become = false }))
	err := not.Do(t.Context(), host.RemoveFile{Path: "/etc/passwd"})
	require.ErrorContains(t, err, "Permission denied")
	require.ErrorContains(t, err, "set ansible_become: true")
	require.NotContains(t, err.Error(), "sudo")

	// All that sudo has to allow.
	r.shell("rm /etc/sudoers.d/rig")
	words := ssh.SudoCommand()
	escaped := regexp.MustCompile(`[\\,:=#*?[\]!]`).ReplaceAllString(words[2], `\$0`)
	r.write("/etc/sudoers.d/etcdrill", "dba ALL=(root) NOPASSWD: "+words[0]+" "+words[1]+" "+escaped+"\n", 0o440)
	do(t, newClient(t).Host(r.spec("dba")), write("/data/allowed", "x"))
	require.ErrorContains(t, newClient(t).Host(r.spec("dba", func(h *inventory.Host) { h.BecomeUser = "etcd" })).Do(t.Context(), write("/data/y", "")), "password is required")
}

// What a login shell says, and does to its standard input, is not ours.
func TestNoisyLogin(t *testing.T) {
	r := newRig(t)
	r.write("/home/dba/.bashrc", "echo Welcome; echo '@etcdrill end 0'; echo noise >&2; printf 'no newline'; cd /tmp\n", 0o644)
	m := newClient(t).Host(r.spec("dba"))
	do(t, m, write("/data/x", "x"))
	require.Equal(t, "x", string(look(t, m, host.Question{Files: []string{"/data/x"}}).Files["/data/x"].Content))
}

func (r *rig) hold() {
	r.t.Helper()
	r.shell("mkdir -p /run/units && touch /run/units/.hold")
}

func (r *rig) holds() bool {
	_, err := os.Stat(r.path("/run/units/.calls"))
	return err == nil
}

// start asks for a start that does not end before its hold is gone.
func (r *rig) start(ctx context.Context, m *ssh.Machine) <-chan error {
	done := make(chan error, 1)
	go func() { done <- m.Do(ctx, host.Systemctl{Verb: host.Start, Unit: etcdUnit}) }()
	await(r.t, "systemctl was called", r.holds)
	return done
}

// The connection is cut while a change is under way: nobody knows what became
// of it, and whoever looks again has a connection again.
func TestCutInTheMiddle(t *testing.T) {
	for name, cut := range map[string]func(r *rig){
		"our ssh is killed":     func(r *rig) { require.NoError(r.t, unix.Kill(r.masters()[0].pid, unix.SIGKILL)) },
		"our ssh is ended":      func(r *rig) { require.NoError(r.t, unix.Kill(r.masters()[0].pid, unix.SIGTERM)) },
		"their sshd is killed":  func(r *rig) { r.shell("pkill -KILL -f '^sshd: root'") },
		"our session is killed": func(r *rig) { require.NoError(r.t, unix.Kill(r.session().pid, unix.SIGKILL)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c := newClient(t)
			m := c.Host(r.spec("root"))
			look(t, m, host.Question{})
			r.hold()
			done := r.start(t.Context(), m)
			cut(r)
			err := <-done
			require.ErrorIs(t, err, host.ErrUnknown)
			require.NotErrorIs(t, err, host.ErrUnreachable)
			require.ErrorContains(t, err, "start etcd.service on 10.10.10.11")
			look(t, m, host.Question{})
			want := 2
			if name == "our session is killed" {
				want = 1
			}
			require.Equal(t, want, c.Counts()[0].Connections)

			// What was begun on the host goes on there.
			r.shell("rm /run/units/.hold")
			await(t, "it was started", func() bool { _, err := os.Stat(r.path("/run/units/.started")); return err == nil })
		})
	}
}

// session is the process that speaks with the shell on the host.
func (r *rig) session() proc {
	r.t.Helper()
	for _, p := range processesWith(r.t, "ControlMaster=no", "@etcdrill", fmt.Sprintf("etcdrill-ssh-%d-", os.Getpid())) {
		if strings.Contains(p.args, socketOf(r)) {
			return p
		}
	}
	require.Fail(r.t, "no session")
	return proc{}
}

// socketOf is the path of the control socket to a host.
func socketOf(r *rig) string {
	_, rest, _ := strings.Cut(r.masters()[0].args, "ControlPath=")
	path, _, _ := strings.Cut(rest, " ")
	return path + " "
}

// Our patience ends before the change does.
func TestDeadlineInTheMiddle(t *testing.T) {
	r := newRig(t)
	c := newClient(t)
	m := c.Host(r.spec("dba"))
	look(t, m, host.Question{})
	r.hold()
	ctx, stop := context.WithCancel(t.Context())
	done := r.start(ctx, m)
	stop()
	err := <-done
	require.ErrorIs(t, err, host.ErrUnknown)
	require.ErrorIs(t, err, context.Canceled)
	look(t, m, host.Question{})
	r.shell("rm /run/units/.hold")
	await(t, "it was started", func() bool { _, err := os.Stat(r.path("/run/units/.started")); return err == nil })
	require.Equal(t, 1, c.Counts()[0].Connections)
}

// A connection that was lost while nobody used it is made anew, and the change
// is made: nothing was sent into the void.
func TestCutBetween(t *testing.T) {
	r := newRig(t)
	c := newClient(t)
	m := c.Host(r.spec("root"))
	look(t, m, host.Question{})
	require.NoError(t, unix.Kill(r.masters()[0].pid, unix.SIGKILL))
	await(t, "it is gone", func() bool {
		return len(r.masters()) == 0 && len(processesWith(t, "ControlMaster=no", fmt.Sprintf("etcdrill-ssh-%d-", os.Getpid()))) == 0
	})
	do(t, m, write("/data/x", "x"))
	require.Equal(t, 2, c.Counts()[0].Connections)
	require.Equal(t, 2, r.logins())
}

// A host that hangs does not answer, and the outcome of a change is unknown.
func TestHang(t *testing.T) {
	r := newRig(t)
	m := newClient(t).Host(r.spec("root"))
	look(t, m, host.Question{})
	r.shell("pkill -STOP -f '^sshd: root'")
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	err := m.Do(ctx, write("/data/x", "x"))
	require.ErrorIs(t, err, host.ErrUnknown)
	ctx, stop = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err = m.Look(ctx, host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	// In time ssh itself finds that nobody is there, and a connection is made anew.
	await(t, "the connection is given up", func() bool { return len(r.masters()) == 0 })
	look(t, m, host.Question{})
}

// A program that is cut off on its way leaves nothing.
func TestCutWhileSending(t *testing.T) {
	r := newRig(t)
	m := newClient(t).Host(r.spec("root"))
	look(t, m, host.Question{})
	r.write("/usr/local/bin/etcd", "old", 0o755)
	// It arrives slowly.
	r.shell("mv /usr/bin/head /usr/bin/head.real")
	r.write("/usr/bin/head", "#!/bin/sh\ncase $2 in ????????*) head.real -c 1000000; touch /tmp/half; while [ -e /tmp/half ]; do sleep 0.05; done ;; esac\nexec head.real \"$@\"\n", 0o755)
	a := putProgram(t, bytes.Repeat([]byte("x"), 16<<20), "/usr/local/bin/etcd")
	done := make(chan error, 1)
	go func() { done <- m.Do(t.Context(), a) }()
	await(t, "half of it is there", func() bool { _, err := os.Stat(r.path("/tmp/half")); return err == nil })
	require.NoError(t, unix.Kill(r.masters()[0].pid, unix.SIGKILL))
	require.ErrorIs(t, <-done, host.ErrUnknown)
	r.shell("rm /tmp/half")
	await(t, "what arrived is thrown away", func() bool { return r.shell("ls -A /usr/local/bin | grep -c etcd || true") == "1" })
	require.Equal(t, "old", r.read("/usr/local/bin/etcd"))
	r.shell("mv /usr/bin/head.real /usr/bin/head")
	do(t, m, a)
}

// A script of which only a part arrives is not begun.
func TestCutWhileAsking(t *testing.T) {
	r := newRig(t)
	// What stands between us and the host passes on a part of the first script.
	cut := filepath.Join(t.TempDir(), "ssh")
	require.NoError(t, os.WriteFile(cut, []byte("#!/bin/sh\ncase $* in *ControlMaster=no*) head -c 7000 | ssh \"$@\"; exit ;; esac\nexec ssh \"$@\"\n"), 0o755))
	m := newClient(t, func(c *ssh.Config) { c.Program = cut }).Host(r.spec("root"))
	err := m.Do(t.Context(), host.WriteFile{Path: "/data/x", Content: bytes.Repeat([]byte("x"), 100_000), Mode: 0o644})
	require.ErrorIs(t, err, host.ErrUnknown)
	require.NoFileExists(t, r.path("/data/x"))
}

// Nothing outlives a run that is killed, and the next one sweeps up.
func TestKilled(t *testing.T) {
	if spec := os.Getenv("ETCDRILL_TEST_SPEC"); spec != "" {
		helper(spec)
		return
	}
	r := newRig(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("ETCDRILL_TEST_SPEC=%d %s %s", r.port, r.key, r.keys))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	r.hold()
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "connected\n", line)
	await(t, "systemctl was called", r.holds)
	mark := fmt.Sprintf("etcdrill-ssh-%d-", cmd.Process.Pid)
	require.Len(t, processesWith(t, mark), 2, "the connection and a session")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	await(t, "all its processes are gone", func() bool { return len(processesWith(t, mark)) == 0 })
	left, err := filepath.Glob(filepath.Join(os.TempDir(), mark+"*"))
	require.NoError(t, err)
	require.Len(t, left, 1)
	newClient(t)
	require.NoDirExists(t, left[0])
	r.shell("rm /run/units/.hold")
}

// helper connects, says so, and hangs in a change.
func helper(spec string) {
	var port int
	var key, keys string
	_, err := fmt.Sscan(spec, &port, &key, &keys)
	if err == nil {
		var c *ssh.Client
		if c, err = ssh.New(ssh.Config{}); err == nil {
			m := c.Host(ssh.Spec{Name: "10.10.10.11", Addr: "127.0.0.1", Port: port, User: "root", Key: key,
				Args: []string{"-o", "UserKnownHostsFile=" + keys, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"}})
			if _, err = m.Look(context.Background(), host.Question{}); err == nil {
				fmt.Println("connected")
				err = m.Do(context.Background(), host.Systemctl{Verb: host.Start, Unit: etcdUnit})
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// ansible_connection: local is the same scripts without ssh.
func TestLocal(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t)
	m := c.Host(ssh.Spec{Name: "10.10.10.10", Local: true, Become: os.Getuid() != 0})
	a := host.WriteFile{Path: filepath.Join(dir, "x"), Content: []byte("x\x00"), Owner: "root", Group: "root", Mode: 0o640}
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: root is wanted, to give files away")
	}
	do(t, m, a)
	f := look(t, m, host.Question{Files: []string{a.Path}}).Files[a.Path]
	require.Equal(t, host.File{Exists: true, Real: a.Path, Content: a.Content, Owner: "root", Group: "root", Mode: 0o640}, f)
	require.Equal(t, []ssh.Count{{Host: "10.10.10.10", Commands: 2}}, c.Counts())
	err := m.Do(t.Context(), host.RemoveFile{Path: dir})
	var failed *host.Failure
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "rm -f "+dir, failed.Command)

	// A change that outlasts our patience goes on, and its outcome is unknown.
	slow := filepath.Join(dir, "slow")
	require.NoError(t, unix.Mkfifo(slow, 0o600))
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	_, err = m.Look(ctx, host.Question{Etcd: hanging(t, dir)})
	require.ErrorIs(t, err, host.ErrUnreachable)
	look(t, m, host.Question{})
	conn, err := m.DialContext(t.Context(), listen(t, "hello"))
	require.NoError(t, err)
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, conn.Close())
}

// hanging makes a program that does not tell its version for long.
func hanging(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "hanging")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\nexec sleep 4\n"), 0o755))
	return path
}

// listen answers every connection with a text and closes it.
func listen(t *testing.T, text string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestTunnel(t *testing.T) {
	r := newRig(t)
	c := newClient(t)
	m := c.Host(r.spec("dba"))
	address := listen(t, "hello")
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			conn, err := m.DialContext(t.Context(), address)
			if !assert(t, err == nil, err) {
				return
			}
			defer conn.Close()
			assert(t, conn.RemoteAddr().String() == address, conn.RemoteAddr())
			got, err := io.ReadAll(conn)
			assert(t, err == nil && string(got) == "hello", string(got), err)
		})
	}
	wg.Wait()
	require.Equal(t, []ssh.Count{{Host: "10.10.10.11", Connections: 1}}, c.Counts())

	closed, err := m.DialContext(t.Context(), fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	require.NoError(t, err)
	_, err = io.ReadAll(closed)
	require.ErrorContains(t, err, "tunnel through 10.10.10.11 to 127.0.0.1:")
	require.ErrorContains(t, err, "nothing answers there as the host sees it")
	require.NoError(t, closed.Close())

	// Deadlines are kept, and Close ends a Read.
	quiet, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer quiet.Close()
	conn, err := m.DialContext(t.Context(), quiet.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	time.AfterFunc(20*time.Millisecond, func() { _ = conn.Close() })
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)

	r.shell("true")
	_, err = newClient(t).Host(r.spec("mallory")).DialContext(t.Context(), address)
	require.ErrorIs(t, err, host.ErrUnreachable)
}

// assert is for goroutines, which may not end a test.
func assert(t *testing.T, holds bool, args ...any) bool {
	t.Helper()
	if !holds {
		t.Error(args...)
	}
	return holds
}

func TestTunnelForbidden(t *testing.T) {
	r := newRig(t, "AllowTcpForwarding no")
	conn, err := newClient(t).Host(r.spec("root")).DialContext(t.Context(), listen(t, "hello"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.ReadAll(conn)
	require.ErrorContains(t, err, "AllowTcpForwarding")
}

// Hosts that were hardened allow one session at a time.
func TestFewSessions(t *testing.T) {
	r := newRig(t, "MaxSessions 1")
	m := newClient(t).Host(r.spec("root"))
	do(t, m, write("/data/x", "x"))
	look(t, m, host.Question{})
	r.hold()
	done := r.start(t.Context(), m)
	_, err := m.Look(t.Context(), host.Question{})
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.ErrorContains(t, err, "MaxSessions")
	r.shell("rm /run/units/.hold")
	require.NoError(t, <-done)
	require.Equal(t, 1, r.logins(), "and no other connection is made instead")
}

// A directory whose maker lives, or that is another's, is not swept.
func TestSweep(t *testing.T) {
	temp := t.TempDir()
	dead := exec.Command("true")
	require.NoError(t, dead.Run())
	for _, name := range []string{fmt.Sprint("etcdrill-ssh-", dead.Process.Pid, "-1"), fmt.Sprint("etcdrill-ssh-", os.Getpid(), "-2"), "etcdrill-ssh-x-3", "etcdrill-ssh-1-4"} {
		require.NoError(t, os.Mkdir(filepath.Join(temp, name), 0o700))
	}
	theirs := filepath.Join(temp, fmt.Sprint("etcdrill-ssh-", dead.Process.Pid, "-5"))
	require.NoError(t, os.Mkdir(theirs, 0o700))
	stay := []string{fmt.Sprint("etcdrill-ssh-", os.Getpid(), "-2"), "etcdrill-ssh-x-3", "etcdrill-ssh-1-4"}
	if os.Getuid() == 0 { // nobody else can give away what he made
		require.NoError(t, syscall.Chown(theirs, 12345, 12345))
		stay = append(stay, filepath.Base(theirs))
	}
	c := newClient(t, func(c *ssh.Config) { c.Temp = temp })
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	names := []string{}
	for _, e := range left {
		names = append(names, e.Name())
	}
	require.Subset(t, names, stay)
	require.Len(t, names, len(stay)+1, "and the new one: %v", names)
	require.NoError(t, c.Close())
	_, err = ssh.New(ssh.Config{Temp: filepath.Join(temp, "none")})
	require.ErrorContains(t, err, "control sockets")
}
