package ssh_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a wait that only a defect could make long.
const patience = 60 * time.Second

// A rig is a host with a real sshd, on loopback: this machine's own files, as
// copies that are thrown away, in namespaces of their own, so that packages,
// users and locks there are nobody else's.
type rig struct {
	t    *testing.T
	pid  int    // of its sshd, out here
	root string // its files, out here
	port int
	key  string // private key of whoever may log in
	keys string // known_hosts
	cmd  *exec.Cmd
	log  string // of sshd
}

// rigScript builds the root in a mount namespace of its own and becomes sshd. A
// fake systemctl stands in for systemd, which cannot run here.
const rigScript = `set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=0755 rig "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" rig "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=0755 rig run
mount -t tmpfs -o mode=1777 rig tmp
mkdir -p run/sshd etc/ssh/rig data usr/local/bin
cp "$2"/* etc/ssh/rig/
chmod 0600 etc/ssh/rig/host_key
rm -rf etc/ssh/sshd_config.d root/.bashrc root/.profile root/.bash_profile
chroot . useradd -m -s /bin/bash dba
chroot . useradd -m -s /bin/sh plain
chroot . usermod -p '*' dba
chroot . usermod -p '*' plain
chroot . useradd -r etcd
if [ -d etc/sudoers.d ]; then
	echo 'dba ALL=(ALL) NOPASSWD: ALL' >etc/sudoers.d/rig
fi
cp "$2/systemctl" usr/bin/systemctl
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/rig/sshd_config
`

func newRig(t *testing.T, options ...string) *rig {
	t.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen", "chroot"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, err.Error())
		}
	}
	if os.Getuid() != 0 {
		missing(t, "only root can make a host with its own files")
	}
	dir := t.TempDir()
	files := filepath.Join(dir, "files")
	mount := filepath.Join(dir, "mount")
	require.NoError(t, os.Mkdir(files, 0o700))
	require.NoError(t, os.Mkdir(mount, 0o700))
	r := &rig{t: t, key: filepath.Join(dir, "id"), keys: filepath.Join(dir, "known_hosts"), port: freePort(t), log: filepath.Join(dir, "log")}
	keygen(t, r.key)
	keygen(t, filepath.Join(files, "host_key"))
	public, err := os.ReadFile(r.key + ".pub")
	require.NoError(t, err)
	put := func(name, text string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(files, name), []byte(text), mode))
	}
	put("authorized_keys", string(public), 0o644)
	put("systemctl", fakeSystemctl, 0o755)
	put("sshd_config", fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey /etc/ssh/rig/host_key\nAuthorizedKeysFile /etc/ssh/rig/authorized_keys\n"+
		"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPrintMotd no\nLogLevel VERBOSE\n%s\n",
		r.port, strings.Join(options, "\n")), 0o644)
	r.trust(filepath.Join(files, "host_key.pub"))

	log, err := os.Create(r.log)
	require.NoError(t, err)
	r.cmd = exec.Command("sh", "-c", rigScript, "rig", mount, files)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, r.cmd.Start())
	require.NoError(t, log.Close())
	r.pid = r.cmd.Process.Pid
	r.root = fmt.Sprintf("/proc/%d/root", r.pid)
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(r.log)
			t.Logf("sshd:\n%s", text)
		}
	})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for {
		conn, err := net.Dial("tcp", r.address())
		if err == nil {
			banner, _ := bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
			if strings.HasPrefix(banner, "SSH-2.0") {
				return r
			}
		}
		text, _ := os.ReadFile(r.log)
		if strings.Contains(string(text), "mount:") || strings.Contains(string(text), "unshare") {
			missing(t, "a root of its own cannot be made here: "+string(text))
		}
		select {
		case <-ctx.Done():
			require.Fail(t, "sshd did not come up", "%s", text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// missing skips where a machine cannot have an sshd, aloud; on CI it fails.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI has to have an sshd: %s", why)
	}
	t.Skipf("NOT TESTED: %s", why)
}

func keygen(t *testing.T, path string) {
	t.Helper()
	_ = os.Remove(path)
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// freePort gives a port that nobody listens on, from below those that
// connections are given: one of them would have it before sshd does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (r *rig) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// trust writes known_hosts.
func (r *rig) trust(public string) {
	key, err := os.ReadFile(public)
	require.NoError(r.t, err)
	require.NoError(r.t, os.WriteFile(r.keys, []byte(fmt.Sprintf("[127.0.0.1]:%d %s", r.port, key)), 0o600))
}

// spec is what an inventory would say.
func (r *rig) spec(user string, with ...func(*inventory.Host)) ssh.Spec {
	r.t.Helper()
	h := inventory.Host{
		Name: "10.10.10.11", Addr: "127.0.0.1", SSHPort: r.port, SSHUser: user, SSHKey: r.key, Become: true, BecomeUser: "root", Connection: "ssh",
		Vars: map[string]any{"ansible_ssh_common_args": fmt.Sprintf("-o UserKnownHostsFile='%s' -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o IdentityAgent=none", r.keys)},
	}
	for _, w := range with {
		w(&h)
	}
	s, err := ssh.SpecOf(h)
	require.NoError(r.t, err)
	return s
}

func newClient(t *testing.T, with ...func(*ssh.Config)) *ssh.Client {
	t.Helper()
	var config ssh.Config
	for _, w := range with {
		w(&config)
	}
	c, err := ssh.New(config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func readOnly(c *ssh.Config) { c.ReadOnly = true }
func asRoot(c *ssh.Config)   { c.Root = true }

// machine is the host as root.
func (r *rig) machine() *ssh.Machine { return newClient(r.t).Host(r.spec("root")) }

func (r *rig) path(name string) string { return filepath.Join(r.root, name) }

func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	require.NoError(r.t, err)
	return string(b)
}

func (r *rig) write(name, content string, mode os.FileMode) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(content), mode))
	require.NoError(r.t, os.Chmod(r.path(name), mode))
}

// shell runs a command on the host, without ssh.
func (r *rig) shell(command string) string {
	r.t.Helper()
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(r.pid), "-m", "-p", "-r", "-w", "sh", "-c", command).CombinedOutput()
	require.NoError(r.t, err, "%s: %s", command, out)
	return strings.TrimSpace(string(out))
}

func do(t *testing.T, h host.Host, acts ...host.Act) {
	t.Helper()
	for _, a := range acts {
		require.NoError(t, h.Do(t.Context(), a), "%s", a)
	}
}

func look(t *testing.T, h host.Host, q host.Question) host.Facts {
	t.Helper()
	facts, err := h.Look(t.Context(), q)
	require.NoError(t, err)
	for p, f := range facts.Files { // when each was changed is told apart, below
		f.Changed = time.Time{}
		facts.Files[p] = f
	}
	return facts
}

func write(path, content string) host.WriteFile {
	return host.WriteFile{Path: path, Content: []byte(content), Mode: 0o644}
}

// fakeSystemctl keeps what a unit is in files, writes down how it is called, and
// waits where a test wants it to.
const fakeSystemctl = `#!/bin/sh
mkdir -p /run/units
case $* in show*) ;; *) printf '%s\n' "$*" >>/run/units/.calls ;; esac
verb= block=y unit=
for w; do
	case $w in
	-p | -n) skip=y ;;
	--no-block) block= ;;
	-*) ;;
	*)
		if [ "${skip-}" ]; then skip=; continue; fi
		if [ "$verb" ]; then unit="$unit $w"; else verb=$w; fi
		;;
	esac
done
case $verb in
show)
	first=y
	for u in $unit; do
		[ "$first" ] || echo
		first=
		if [ -e "/run/units/$u" ]; then
			cat "/run/units/$u"
		else
			printf 'Id=%s\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\nMainPID=0\nExecMainStartTimestampMonotonic=0\nExecMainStatus=0\nFragmentPath=\nEnvironment=\nNeedDaemonReload=no\n' "$u"
		fi
	done
	;;
start)
	[ -e /run/units/.hold ] && [ "$block" ] && while [ -e /run/units/.hold ]; do sleep 0.05; done
	if [ -e /run/units/.fail ]; then
		echo "Job for$unit failed because the control process exited with error code." >&2
		exit 1
	fi
	echo started >>/run/units/.started
	;;
status) echo "x$unit - loaded, and its last words" ;;
esac
`

// paste types a command on the admin host.
func (r *rig) paste(command string) string {
	r.t.Helper()
	out, _ := exec.Command("sh", "-c", command).CombinedOutput() // that it fails is what is asked
	return string(out)
}
