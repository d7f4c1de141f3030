package ssh_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
)

// kept tells how a file is kept, ACL included.
func (r *rig) kept(path string) string {
	r.t.Helper()
	return r.shell("stat -c '%U:%G %a' " + path)
}

func failure(t *testing.T, err error) *host.Failure {
	t.Helper()
	var f *host.Failure
	require.ErrorAs(t, err, &f)
	require.Equal(t, "10.10.10.11", f.Host)
	require.NotErrorIs(t, err, host.ErrUnreachable)
	require.NotErrorIs(t, err, host.ErrUnknown)
	return f
}

func TestWriteFile(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		every := make([]byte, 256*300)
		for i := range every {
			every[i] = byte(i * 7)
		}
		a := host.WriteFile{Path: "/data/it's etcd/server.key", Content: every, Owner: "etcd", Group: "etcd", Mode: 0o600, Secret: true}
		f := failure(t, m.Do(t.Context(), a))
		require.Contains(t, f.Output, "No such file or directory")
		do(t, m, host.MakeDir{Path: "/data/it's etcd", Owner: "etcd", Group: "etcd", Mode: 0o750}, a, a)
		require.Equal(t, string(every), r.read(a.Path))
		require.Equal(t, "etcd:etcd 600", r.kept("'/data/it'\\''s etcd/server.key'"))
		require.Equal(t, "server.key", r.shell("ls -A '/data/it'\\''s etcd'"), "no temporary file is left")

		// What a run that was cut off has left is swept: it may be a key.
		r.write("/data/it's etcd/.server.key.new-abcdef", "half of a key", 0o600)
		a.Content = nil
		do(t, m, a)
		require.Equal(t, "", r.read(a.Path))
		require.Equal(t, "server.key", r.shell("ls -A '/data/it'\\''s etcd'"))

		a.Owner = "mallory"
		require.Contains(t, failure(t, m.Do(t.Context(), a)).Output, "invalid user 'mallory'")
		a.Owner, a.Group = "", "mallory"
		require.Contains(t, failure(t, m.Do(t.Context(), a)).Output, "invalid group 'mallory'")
		require.Contains(t, failure(t, m.Do(t.Context(), write("/etc", "x"))).Output, "directory")
		require.Contains(t, failure(t, m.Do(t.Context(), write("/etc/passwd/x", "x"))).Output, "Not a directory")
		require.Contains(t, failure(t, m.Do(t.Context(), write("/dev/null", "x"))).Output, "not a regular file")
		r.shell("ln -s /dev/null /etc/masked.service; mkfifo /data/fifo")
		require.Contains(t, failure(t, m.Do(t.Context(), write("/etc/masked.service", "x"))).Output, "not a regular file")
		require.Contains(t, failure(t, m.Do(t.Context(), write("/data/fifo", "x"))).Output, "not a regular file")
		require.ErrorContains(t, m.Do(t.Context(), write("etc/x", "x")), "not an absolute path")
		require.ErrorContains(t, m.Do(t.Context(), write("/etc/\x00", "x")), "NUL")
		do(t, m, write("/etc/plain", "x"))
		require.Equal(t, "root:root 644", r.kept("/etc/plain"), "root's, where nobody is named")
	})
}

func TestWriteThroughLinks(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	r.shell("mkdir -p /pg/conf /pg/bin /etc/patroni; echo old >/pg/conf/pg-1.yml; ln -s ../conf/pg-1.yml /pg/bin/patroni.yml; ln -s /pg/bin/patroni.yml /etc/patroni/patroni.yml; ln -s loop /pg/loop; ln -s /pg/conf/new.yml /pg/dangling")
	do(t, m, write("/etc/patroni/patroni.yml", "new"))
	require.Equal(t, "new", r.read("/pg/conf/pg-1.yml"))
	require.Equal(t, "/pg/bin/patroni.yml ../conf/pg-1.yml", r.shell("echo $(readlink /etc/patroni/patroni.yml) $(readlink /pg/bin/patroni.yml)"), "links stay")
	require.Contains(t, failure(t, m.Do(t.Context(), write("/pg/loop", "x"))).Output, "Too many levels of symbolic links")
	do(t, m, write("/pg/dangling", "x"))
	require.Equal(t, "x", r.read("/pg/conf/new.yml"))
	do(t, m, host.RemoveFile{Path: "/etc/patroni/patroni.yml"}, host.RemoveFile{Path: "/etc/patroni/patroni.yml"})
	require.Equal(t, "new", r.read("/pg/conf/pg-1.yml"), "removing a link leaves its target")
}

// What an administrator gave a file stays with it: access lists, and attributes
// such as an SELinux label.
func TestWriteKeepsAccess(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	r.shell("echo old >/data/x; chmod 0640 /data/x; setfacl -m u:etcd:r /data/x")
	acl := r.shell("getfacl -cp /data/x")
	require.Contains(t, acl, "user:etcd:r--")
	seen := look(t, m, host.Question{Files: []string{"/data/x"}}).Files["/data/x"]
	do(t, m, host.WriteFile{Path: "/data/x", Content: []byte("new"), Owner: seen.Owner, Group: seen.Group, Mode: seen.Mode})
	require.Equal(t, "new", r.read("/data/x"))
	require.Equal(t, acl, r.shell("getfacl -cp /data/x"))
}

func TestDiskFull(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	r.shell("mkdir /data/small && mount -t tmpfs -o size=64k x /data/small && echo old >/data/small/x")
	a := host.WriteFile{Path: "/data/small/x", Content: bytes.Repeat([]byte("x"), 100<<10), Mode: 0o644}
	require.Contains(t, failure(t, m.Do(t.Context(), a)).Output, "No space left on device")
	require.Equal(t, "old\n", r.read("/data/small/x"))
	require.Equal(t, "x", r.shell("ls -A /data/small"))
	p := putProgram(t, bytes.Repeat([]byte("y"), 1<<20), "/data/small/etcd")
	require.Contains(t, failure(t, m.Do(t.Context(), p)).Output, "No space left on device")
	require.Equal(t, "x", r.shell("ls -A /data/small"))
	r.shell("mount -o remount,size=4m /data/small")
	do(t, m, a, p)
}

func TestMakeAndRemove(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		a := host.MakeDir{Path: "/data/one/etcd", Owner: "etcd", Group: "etcd", Mode: 0o700}
		do(t, m, a, a)
		require.Equal(t, "etcd:etcd 700", r.kept("/data/one/etcd"))
		require.Equal(t, "root:root 755", r.kept("/data/one"))
		a.Mode, a.Owner = 0o750, ""
		do(t, m, a)
		require.Equal(t, "root:etcd 750", r.kept("/data/one/etcd"))
		r.shell("ln -s /data/one /data/link")
		do(t, m, host.MakeDir{Path: "/data/link", Mode: 0o711})
		require.Equal(t, "root:root 711", r.kept("/data/one"))
		failure(t, m.Do(t.Context(), host.MakeDir{Path: "/etc/passwd/x", Mode: 0o755}))
		failure(t, m.Do(t.Context(), host.MakeDir{Path: "/etc/passwd", Mode: 0o755}))
		require.Contains(t, failure(t, m.Do(t.Context(), host.MakeDir{Path: "/data/x", Owner: "mallory", Mode: 0o755})).Output, "invalid user")

		r.write("/data/one/x", "x", 0o644)
		do(t, m, host.RemoveFile{Path: "/data/one/x"}, host.RemoveFile{Path: "/data/one/x"}, host.RemoveFile{Path: "/no/such/file"}, host.RemoveFile{Path: "/etc/passwd/x"})
		require.Contains(t, failure(t, m.Do(t.Context(), host.RemoveFile{Path: "/data/one/etcd"})).Output, "Is a directory")
		require.ErrorContains(t, m.Do(t.Context(), host.RemoveFile{Path: "x"}), "not an absolute path")
	})
}

func TestSetAside(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		r.shell("mkdir /data/etcd && mount -t tmpfs x /data/etcd && mkdir /data/etcd/.removed-20250101T000000Z && chown etcd:etcd /data/etcd")
		do(t, m, host.SetAside{Path: "/data/etcd", Stamp: "20260101T000000Z"}, host.SetAside{Path: "/data/nothing", Stamp: "20260101T000000Z"})
		require.Equal(t, ".removed-20250101T000000Z", r.shell("ls -A /data/etcd"), "an empty directory is left alone")
		r.shell("mkdir -p /data/etcd/member/wal '/data/etcd/a b' && touch /data/etcd/member/wal/0.wal /data/etcd/.hidden /data/etcd/..odd /data/etcd/-n && ln -s nowhere /data/etcd/link && chown -R etcd:etcd /data/etcd/member")
		a := host.SetAside{Path: "/data/etcd", Stamp: "20260202T000000Z"}
		do(t, m, a, a, host.SetAside{Path: "/data/etcd", Stamp: "20260303T000000Z"})
		require.Equal(t, ".removed-20250101T000000Z\n.removed-20260202T000000Z", r.shell("ls -A /data/etcd"), "a mount point stays, and nothing is moved twice")
		require.Equal(t, "root:root 700", r.kept("/data/etcd/.removed-20260202T000000Z"))
		require.Equal(t, "etcd:etcd 755", r.kept("/data/etcd/.removed-20260202T000000Z/member/wal"))
		require.ElementsMatch(t, []string{"-n", "..odd", ".hidden", "a b", "link", "member"}, strings.Split(r.shell("ls -A /data/etcd/.removed-20260202T000000Z"), "\n"))
		require.Contains(t, failure(t, m.Do(t.Context(), host.SetAside{Path: "/data", Stamp: "20260404T000000Z"})).Output, "Device or resource busy")

		r.shell("touch /data/etcd/link")
		require.Contains(t, failure(t, m.Do(t.Context(), a)).Output, "File exists", "what was set aside is not overwritten")
		for _, bad := range []host.SetAside{{Path: "/data/etcd"}, {Path: "/data/etcd", Stamp: "../x"}, {Path: "data/etcd", Stamp: "x"}, {Path: "/", Stamp: "x"}, {Path: "/etc/passwd", Stamp: "x"}} {
			require.Error(t, m.Do(t.Context(), bad), "%+v", bad)
		}
	})
}

func TestDelete(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		r.shell("mkdir -p /data/etcd/member '/data/etcd/.removed-x' /data/other '/data/a b/c' && touch /data/etcd/member/x /data/other/keep && ln -s /data/other /data/etcd/link && mount -t tmpfs x '/data/a b/c' && touch '/data/a b/c/keep'")
		do(t, m, host.Delete{Path: "/data/etcd"}, host.Delete{Path: "/data/etcd"}, host.Delete{Path: "/data/nothing"})
		require.Equal(t, "", r.shell("ls -A /data/etcd"))
		require.Equal(t, "keep", r.shell("ls -A /data/other"), "what a link points to stays")
		require.Contains(t, failure(t, m.Do(t.Context(), host.Delete{Path: "/data/a b"})).Output, "cannot delete '/data/a b/c': Device or resource busy")
		require.Equal(t, "keep", r.shell("ls -A '/data/a b/c'"))
		do(t, m, host.Delete{Path: "/data/a b/c"})
		require.Equal(t, "", r.shell("ls -A '/data/a b/c'"), "a mount point is emptied, and stays")

		r.shell("ln -s /etc /data/shallow")
		for _, p := range []string{"/", "/etc", "/etc/", "/etc/default/..", "etc/default", "", "/data/shallow"} {
			require.Error(t, m.Do(t.Context(), host.Delete{Path: p}), p)
		}
		r.shell("test -s /etc/passwd")
	})
}

func TestClaim(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		first := host.Claim{Owner: "alice on admin since\nnoon, 'quoted'", Token: "t 1"}
		do(t, m, first, first)
		second := host.Claim{Owner: "bob", Token: "t2"}
		err := m.Do(t.Context(), second)
		require.ErrorIs(t, err, host.ErrClaimed)
		require.ErrorContains(t, err, "alice on admin since noon, 'quoted'")
		do(t, m, host.Release{Token: "t2"})
		require.ErrorIs(t, m.Do(t.Context(), second), host.ErrClaimed, "another's release releases nothing")
		second.Supersedes = []string{"t0", "t 1"}
		do(t, m, second)
		require.ErrorIs(t, m.Do(t.Context(), first), host.ErrClaimed)
		require.Equal(t, "t2\nbob\n", r.read(host.LockPath))
		do(t, m, host.Release{Token: "t2"}, host.Release{Token: "t2"}, first)
		require.Equal(t, "etcdrill.lock", r.shell("cd /run && ls etcdrill*"), "nothing else is left")
		require.Error(t, m.Do(t.Context(), host.Claim{Token: ""}))
		require.Error(t, m.Do(t.Context(), host.Claim{Token: "a\nb"}))
	})
}

// Of those who come at once, one has the lock; also of those who take over from
// one that is known to be over.
func TestClaimAtOnce(t *testing.T) {
	r := newRig(t)
	const many = 6
	machines := make([]*ssh.Machine, many)
	for i := range machines {
		machines[i] = newClient(t).Host(r.spec("root"))
		look(t, machines[i], host.Question{})
	}
	for round, supersedes := range [][]string{nil, {"0"}} {
		if supersedes != nil {
			r.write(host.LockPath, "0\nsomeone who is gone\n", 0o644)
		}
		var wg sync.WaitGroup
		errs := make([]error, many)
		for i, m := range machines {
			wg.Go(func() {
				errs[i] = m.Do(t.Context(), host.Claim{Owner: fmt.Sprint(i), Token: fmt.Sprintf("%d of %d", i, round), Supersedes: supersedes})
			})
		}
		wg.Wait()
		got := 0
		for _, err := range errs {
			if err == nil {
				got++
			} else {
				require.ErrorIs(t, err, host.ErrClaimed)
			}
		}
		require.Equal(t, 1, got)
		r.shell("rm " + host.LockPath)
	}
}

func TestSystemctl(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	do(t, m, host.Systemctl{Verb: host.Start, Unit: etcdUnit, NoBlock: true}, host.Systemctl{Verb: host.Mask, Unit: etcdUnit}, host.Systemctl{Verb: host.DaemonReload}, host.Systemctl{Verb: host.ResetFailed, Unit: etcdUnit})
	require.Equal(t, "--no-ask-password start --no-block -- etcd.service\n--no-ask-password mask -- etcd.service\n--no-ask-password daemon-reload\n--no-ask-password reset-failed -- etcd.service", r.shell("cat /run/units/.calls"))
	r.shell("touch /run/units/.fail")
	f := failure(t, m.Do(t.Context(), host.Systemctl{Verb: host.Start, Unit: etcdUnit}))
	require.Equal(t, "start etcd.service", strings.TrimPrefix(f.Act, "systemctl "))
	require.Contains(t, f.Output, "Job for etcd.service failed because the control process exited with error code.")
	require.Contains(t, f.Output, "its last words")
	require.Equal(t, fmt.Sprintf("ssh -l root -p %d -i %s", r.port, r.key), f.Command[:strings.Index(f.Command, " -o ")])
	require.True(t, strings.HasSuffix(f.Command, " -- 127.0.0.1 'sudo systemctl start etcd.service'"), f.Command)
	require.ErrorContains(t, f, f.Command)
	for _, bad := range []host.Systemctl{{Verb: host.Start}, {Verb: "kill", Unit: etcdUnit}, {Verb: host.Stop, Unit: "--all"}} {
		require.Error(t, m.Do(t.Context(), bad), "%+v", bad)
	}
}

// The command that a failure gives can be pasted, whatever is in it.
func TestCommandCanBePasted(t *testing.T) {
	r := newRig(t)
	m := newClient(t).Host(r.spec("dba"))
	r.shell("mkdir -p '/data/it'\\''s' && touch '/data/it'\\''s/x' && mount -t tmpfs x '/data/it'\\''s'")
	f := failure(t, m.Do(t.Context(), host.RemoveFile{Path: "/data"}))
	out := r.paste(f.Command)
	require.Contains(t, out, "cannot remove")
	f = failure(t, m.Do(t.Context(), host.SetAside{Path: "/data", Stamp: "S"}))
	require.Contains(t, r.paste(f.Command), "busy")
}

func putProgram(t *testing.T, content []byte, path string) host.PutProgram {
	t.Helper()
	from := filepath.Join(t.TempDir(), "etcd")
	require.NoError(t, os.WriteFile(from, content, 0o600))
	return host.PutProgram{From: from, Path: path, SHA256: fmt.Sprintf("%X", sha256.Sum256(content))}
}

func TestPutProgram(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		c := newClient(t)
		m := c.Host(r.spec("dba"))
		content := bytes.Repeat([]byte("\x7fELF\x00\n'\xff"), 1<<20)
		a := putProgram(t, content, "/usr/local/bin/etcd")
		do(t, m, a)
		require.Equal(t, string(content), r.read(a.Path))
		require.Equal(t, "root:root 755", r.kept(a.Path))
		inode := r.shell("stat -c %i " + a.Path)
		do(t, m, a)
		require.Equal(t, inode, r.shell("stat -c %i "+a.Path), "what is there is not sent again")
		r.shell("chmod 0700 " + a.Path)
		do(t, m, a)
		require.Equal(t, "root:root 755", r.kept(a.Path))

		wrong := a
		wrong.SHA256 = strings.Repeat("0", 64)
		require.ErrorContains(t, failure(t, m.Do(t.Context(), wrong)), "sha256")
		wrong = a
		wrong.From += ".none"
		require.ErrorIs(t, m.Do(t.Context(), wrong), fs.ErrNotExist)
		wrong.From = "etcd"
		require.ErrorContains(t, m.Do(t.Context(), wrong), "not an absolute path")
		other := putProgram(t, []byte("#!/bin/sh\n"), "/no/such/dir/etcd")
		require.Contains(t, failure(t, m.Do(t.Context(), other)).Output, "No such file or directory")
		require.Equal(t, string(content), r.read(a.Path))
		require.Equal(t, "etcd", r.shell("ls -A /usr/local/bin | grep etcd"))
		look(t, m, host.Question{})
		require.Equal(t, 1, c.Counts()[0].Connections, "a session that was left in the middle costs no connection")
	})
}

func TestCopyProgram(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := newClient(t).Host(r.spec("dba"))
		r.write("/usr/bin/etcd", "\x7fELF old", 0o755)
		r.write("/usr/bin/etcd-3.7.3", "\x7fELF new", 0o755)
		do(t, m, host.CopyProgram{From: "/usr/bin/etcd", Path: "/usr/bin/etcd-3.6.16"}, host.CopyProgram{From: "/usr/bin/etcd-3.7.3", Path: "/usr/bin/etcd"})
		require.Equal(t, "\x7fELF old", r.read("/usr/bin/etcd-3.6.16"))
		require.Equal(t, "\x7fELF new", r.read("/usr/bin/etcd"))
		require.Equal(t, "root:root 755", r.kept("/usr/bin/etcd-3.6.16"))
		require.Contains(t, failure(t, m.Do(t.Context(), host.CopyProgram{From: "/usr/bin/none", Path: "/usr/bin/etcd"})).Output, "No such file or directory")
		require.Error(t, m.Do(t.Context(), host.CopyProgram{From: "etcd", Path: "/usr/bin/etcd"}))
		require.Equal(t, "\x7fELF new", r.read("/usr/bin/etcd"))
	})
}

func TestAddUserAndNote(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	before := r.read("/etc/passwd")
	do(t, m, host.AddUser{Name: "etcd", Home: "/elsewhere"})
	require.Equal(t, before, r.read("/etc/passwd"), "one that is there is left as it is")
	a := host.AddUser{Name: "etcd2", Home: "/var/lib/etcd2"}
	do(t, m, a, a)
	require.Regexp(t, `(?m)^etcd2:x:[0-9]{3}:[0-9]{3}::/var/lib/etcd2:/usr/sbin/nologin$`, r.read("/etc/passwd"))
	require.Contains(t, r.read("/etc/group"), "\netcd2:")
	r.shell("groupadd taken")
	require.Contains(t, failure(t, m.Do(t.Context(), host.AddUser{Name: "taken"})).Output, "group taken exists")
	for _, name := range []string{"", "a:b", "-x", "a b"} {
		require.Error(t, m.Do(t.Context(), host.AddUser{Name: name}))
	}

	// There is no journal here; what is asked of logger is what counts.
	r.write("/usr/bin/logger", "#!/bin/sh\n{ echo \"$*\"; cat; } >>/tmp/journal\n", 0o755)
	do(t, m, host.Note{Line: "addMember 10.10.10.13 by ann,\n-t ticket 'no 7'"})
	require.Equal(t, "-t etcdrill\naddMember 10.10.10.13 by ann, -t ticket 'no 7'\n", r.read("/tmp/journal"))
	r.shell("rm /usr/bin/logger")
	r.write("/usr/bin/systemd-cat", "#!/bin/sh\n{ echo \"$*\"; cat; } >>/tmp/cat\n", 0o755)
	do(t, m, host.Note{Line: "again"})
	require.Equal(t, "-t etcdrill\nagain\n", r.read("/tmp/cat"))
}

// A package of our own, from a repository that is a directory, by the real apt.
func TestInstallPackage(t *testing.T) {
	r := newRig(t)
	if _, err := os.Stat(r.path("/usr/bin/apt-get")); err != nil {
		missing(t, "only Debian has apt-get")
	}
	m := r.machine()
	r.shell(`mkdir -p /repo && cd /repo
		for v in 1.0 2.0; do
			mkdir -p drilled-$v/DEBIAN drilled-$v/usr/share/drilled
			echo $v >drilled-$v/usr/share/drilled/version
			printf 'Package: drilled\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: of a test\n' $v >drilled-$v/DEBIAN/control
			cat >drilled-$v/DEBIAN/postinst <<'END'
#!/bin/sh
if [ -x /usr/sbin/policy-rc.d ]; then
	/usr/sbin/policy-rc.d drilled start
	case $? in 101) exit 0 ;; esac
fi
echo started >>/run/started
END
			chmod 0755 drilled-$v/DEBIAN/postinst
			dpkg-deb -b drilled-$v drilled-$v.deb >/dev/null
			cat drilled-$v/DEBIAN/control >>Packages
			printf 'Filename: ./drilled-%s.deb\nSize: %s\nSHA256: %s\n\n' $v $(stat -c %s drilled-$v.deb) $(sha256sum drilled-$v.deb | cut -d ' ' -f 1) >>Packages
		done
		rm -rf /etc/apt/sources.list.d /etc/apt/apt.conf.d /var/lib/apt/lists; mkdir -p /etc/apt/apt.conf.d /etc/apt/sources.list.d /var/lib/apt/lists/partial
		echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
		echo 'APT::Sandbox::User "root";' >/etc/apt/apt.conf.d/rig`)
	r.shell("rm -f /usr/sbin/policy-rc.d")
	version := func() string { return strings.TrimSpace(r.read("/usr/share/drilled/version")) }
	nothingStarted := func() {
		t.Helper()
		_, err := os.Lstat(r.path("/run/started"))
		require.ErrorIs(t, err, fs.ErrNotExist, "nothing is started")
	}
	do(t, m, host.InstallPackage{Package: "drilled", Version: "1.0"})
	require.Equal(t, "1.0", version())
	do(t, m, host.InstallPackage{Package: "drilled"}, host.InstallPackage{Package: "drilled", Version: "1.0"})
	require.Equal(t, "1.0", version(), "any will do")
	do(t, m, host.InstallPackage{Package: "drilled", Version: "2.0"})
	require.Equal(t, "2.0", version())
	nothingStarted()
	_, err := os.Lstat(r.path("/usr/sbin/policy-rc.d"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	// A policy of the host's own is asked afterwards as it was before.
	r.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 42\n", 0o755)
	f := failure(t, m.Do(t.Context(), host.InstallPackage{Package: "nosuchpackage"}))
	require.Contains(t, f.Output, "Unable to locate package nosuchpackage")
	require.Equal(t, "#!/bin/sh\nexit 42\n", r.read("/usr/sbin/policy-rc.d"))

	// One that was left behind by a run that was cut off forbids nothing, and
	// asks the one before.
	r.shell("mv /usr/sbin/policy-rc.d /usr/sbin/policy-rc.d.etcdrill")
	r.write("/usr/sbin/policy-rc.d", "#!/bin/sh\n# written by etcdrill\n[ \"$(cut -d ' ' -f 22 /proc/1/stat)\" = 0 ] && exit 101\n[ ! -x /usr/sbin/policy-rc.d.etcdrill ] || exec /usr/sbin/policy-rc.d.etcdrill\n", 0o755)
	r.shell("dpkg -r drilled >/dev/null")
	do(t, m, host.InstallPackage{Package: "drilled"})
	nothingStarted()
	require.Equal(t, "#!/bin/sh\nexit 42\n", r.read("/usr/sbin/policy-rc.d"), "and is put back in order by the next")
	for _, bad := range []host.InstallPackage{{}, {Package: "-y"}, {Package: "a b"}, {Package: "a", Version: "1 2"}, {Package: "/a.deb"}, {Package: "a=1"}} {
		require.Error(t, m.Do(t.Context(), bad), "%+v", bad)
	}
	r.shell("rm /usr/bin/apt-get")
	require.Equal(t, "cannot install etcd-server: neither apt-get nor dnf is on this host", failure(t, m.Do(t.Context(), host.InstallPackage{Package: "etcd-server"})).Output)
}

// With dnf there is no Debian package to try it on here: what is asked of it is
// what counts.
func TestInstallPackageByDnf(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	r.shell("rm -f /usr/bin/apt-get")
	r.write("/usr/bin/dnf", "#!/bin/sh\necho \"$*\" >>/tmp/dnf\n", 0o755)
	r.write("/usr/bin/rpm", "#!/bin/sh\nfor w; do :; done\n[ \"$w\" = there ] && echo '3.5.1-2.el9 3.5.1'\n", 0o755)
	do(t, m, host.InstallPackage{Package: "there"}, host.InstallPackage{Package: "there", Version: "3.5.1"}, host.InstallPackage{Package: "there", Version: "3.5.1-2.el9"})
	_, err := os.Lstat(r.path("/tmp/dnf"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	do(t, m, host.InstallPackage{Package: "there", Version: "3.6"}, host.InstallPackage{Package: "etcd"})
	require.Equal(t, "-y install there-3.6\n-y install etcd\n", r.read("/tmp/dnf"))
}

// No secret is on a command line, on either side, nor in an error.
func TestSecretsStayOffCommandLines(t *testing.T) {
	r := newRig(t, "SetEnv PATH=/recorded:/usr/sbin:/usr/bin:/sbin:/bin")
	// Every program of the host writes down how it is called, then is itself.
	r.shell(`mkdir /recorded && cat >/usr/local/lib/record <<'END'
#!/bin/dash
printf '%s\0' "$0" "$@" >>/tmp/recorded
printf '\n' >>/tmp/recorded
exec "/usr/bin/${0##*/}" "$@"
END
		chmod 0755 /usr/local/lib/record; touch /tmp/recorded; chmod 0666 /tmp/recorded
		for p in base64 cat cp chmod chown cut date head id install ln ls mktemp mv printf readlink rm sed sh sha256sum stat sync tr find grep getent; do ln -s /usr/local/lib/record /recorded/$p; done`)
	program := filepath.Join(t.TempDir(), "ssh")
	record := filepath.Join(t.TempDir(), "record")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nprintf '%s ' \"$@\" >>"+record+"\nexec ssh \"$@\"\n"), 0o755))
	c := newClient(t, func(c *ssh.Config) { c.Program = program })
	m := c.Host(r.spec("root"))
	const secret = "Tr0ub4dor"
	do(t, m, host.WriteFile{Path: "/data/key", Content: []byte(secret), Mode: 0o600, Secret: true})
	err := m.Do(t.Context(), host.WriteFile{Path: "/no/key", Content: []byte(secret), Mode: 0o600, Secret: true})
	require.Error(t, err)
	coded := "VHIwdWI0ZG9y"
	theirs := r.read("/tmp/recorded")
	ours, rerr := os.ReadFile(record)
	require.NoError(t, rerr)
	require.Contains(t, theirs, "/recorded/base64\x00-d", "programs were recorded at all")
	require.Contains(t, theirs, "/data/.key.new-")
	require.Contains(t, string(ours), "ControlMaster=yes")
	for name, text := range map[string]string{"there": theirs, "here": string(ours), "the error": err.Error(), "sshd's log": func() string { b, _ := os.ReadFile(r.log); return string(b) }()} {
		require.NotContains(t, text, secret, name)
		require.NotContains(t, text, coded, name)
	}
}

func TestActThatIsNone(t *testing.T) {
	c, err := ssh.New(ssh.Config{})
	require.NoError(t, err)
	defer c.Close()
	m := c.Host(ssh.Spec{Name: "10.10.10.11", Addr: "127.0.0.1"})
	require.ErrorContains(t, m.Do(t.Context(), nil), "not one of the set")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("enough"))
	require.ErrorIs(t, m.Do(ctx, write("/x", "")), host.ErrUnreachable)
}

// Several acts are one command, and the first that fails is the last that was tried.
func TestDoAll(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		c := newClient(t)
		m := c.Host(r.spec("root"))
		dir := host.MakeDir{Path: "/data/all", Owner: "etcd", Group: "etcd", Mode: 0o750}
		a, b := write("/data/all/a", "it's a\n\\"), write("/data/all/b", "")
		a.Owner, a.Group, a.Mode = "etcd", "etcd", 0o600
		made, err := m.DoAll(t.Context(), []host.Act{dir, a, b, a, host.RemoveFile{Path: b.Path}})
		require.NoError(t, err)
		require.Equal(t, 5, made)
		require.Equal(t, 1, c.Counts()[0].Commands)
		require.Equal(t, "it's a\n\\", r.read(a.Path))
		require.Equal(t, "etcd:etcd 600", r.kept(a.Path))
		require.Equal(t, "a", r.shell("ls -A /data/all"))

		bad := write("/data/none/x", "x")
		made, err = m.DoAll(t.Context(), []host.Act{b, bad, host.RemoveFile{Path: a.Path}})
		require.Equal(t, 1, made)
		f := failure(t, err)
		require.Equal(t, bad.String(), f.Act)
		require.Contains(t, f.Output, "No such file or directory")
		require.Equal(t, "a b", r.shell("echo $(ls -A /data/all)"))

		// One that is more than a script, one that cannot be made, and none at all.
		p := putProgram(t, []byte("#!/bin/sh\n"), "/data/all/p")
		made, err = m.DoAll(t.Context(), []host.Act{host.RemoveFile{Path: b.Path}, p, host.RemoveFile{Path: a.Path}, write("x", ""), b})
		require.Equal(t, 3, made)
		require.ErrorContains(t, err, "not an absolute path")
		require.Equal(t, "p", r.shell("ls -A /data/all"))
		made, err = m.DoAll(t.Context(), nil)
		require.NoError(t, err)
		require.Zero(t, made)
		_, err = newClient(t, readOnly).Host(r.spec("root")).DoAll(t.Context(), []host.Act{b})
		require.ErrorContains(t, err, "looking only")
	})
}

// When the connection is lost, the act that is under way is done to its end, and
// those after it are not begun.
func TestDoAllCut(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	look(t, m, host.Question{})
	r.hold()
	done := make(chan error, 1)
	go func() {
		_, err := m.DoAll(t.Context(), []host.Act{write("/data/a", "a"), host.Systemctl{Verb: host.Start, Unit: etcdUnit}, write("/data/b", "b")})
		done <- err
	}()
	await(t, "systemctl was called", r.holds)
	require.NoError(t, unix.Kill(r.masters()[0].pid, unix.SIGKILL))
	require.ErrorIs(t, <-done, host.ErrUnknown)
	require.Equal(t, "a", r.read("/data/a"))
	r.shell("rm /run/units/.hold")
	await(t, "it was done to its end", func() bool { _, err := os.Stat(r.path("/run/units/.started")); return err == nil })
	await(t, "its shell is gone", func() bool { return len(processesWith(t, "@etcdrill ready")) == 0 })
	require.NoFileExists(t, r.path("/data/b"))
}
