package ssh_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
)

const etcdUnit = "etcd.service"

// eachShell runs a test with each shell that hosts have as sh.
func eachShell(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.shell("ln -sf " + shell + " /bin/sh")
			test(t, r)
		})
	}
}

func TestFiles(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		every := make([]byte, 256*3)
		for i := range every {
			every[i] = byte(i)
		}
		r.shell("mkdir -p /etc/etcd '/data/it'\\''s here' && chown etcd /etc/etcd && chmod 0750 /etc/etcd")
		r.write("/etc/etcd/every", string(every), 0o640)
		r.write("/etc/etcd/none", "", 0o600)
		r.write("/data/it's here/\n x", "odd", 0o644)
		r.shell("chown etcd:adm /etc/etcd/every; chown 54321:54321 /etc/etcd/none; ln -s etcd/every /etc/link; ln -s loop /etc/loop; ln -s /data/later /etc/dangling")
		r.shell("truncate -s 9M /data/large")
		q := host.Question{
			Files: []string{"/etc/etcd/every", "/etc/etcd/none", "/data/it's here/\n x", "/etc/link", "/etc/loop", "/etc/dangling", "/etc/passwd/x", "/etc", "/dev/null", "/data/large", "/etc/nothing"},
			Sums:  []string{"/etc/etcd/every", "/etc/link", "/etc/loop", "/etc", "/etc/nothing", "/data/it's here/\n x"},
		}
		facts := look(t, r.machine(), q)
		f := facts.Files
		require.Equal(t, host.File{Exists: true, Real: "/etc/etcd/every", Content: every, Owner: "etcd", Group: "adm", Mode: 0o640}, f["/etc/etcd/every"])
		require.Equal(t, f["/etc/etcd/every"], f["/etc/link"])
		require.Equal(t, host.File{Exists: true, Real: "/etc/etcd/none", Owner: "54321", Group: "54321", Mode: 0o600}, f["/etc/etcd/none"])
		require.Equal(t, "odd", string(f["/data/it's here/\n x"].Content))
		require.Equal(t, host.File{Exists: true, Problem: "Too many levels of symbolic links"}, f["/etc/loop"])
		require.Equal(t, host.File{Real: "/data/later"}, f["/etc/dangling"])
		require.Equal(t, host.File{Real: "/etc/passwd/x"}, f["/etc/passwd/x"])
		require.Equal(t, "is a directory", f["/etc"].Problem)
		require.Equal(t, "not a regular file", f["/dev/null"].Problem)
		require.Contains(t, f["/data/large"].Problem, "larger than")
		require.Equal(t, host.File{Real: "/etc/nothing"}, f["/etc/nothing"])
		sum := fmt.Sprintf("%x", sha256.Sum256(every))
		require.Equal(t, map[string]string{"/etc/etcd/every": sum, "/etc/link": sum, "/etc/loop": "", "/etc": "", "/data/it's here/\n x": fmt.Sprintf("%x", sha256.Sum256([]byte("odd")))}, facts.Sums)
		require.InDelta(t, time.Now().Unix(), facts.Clock.Unix(), 60)
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		require.NoError(t, err)
		require.Equal(t, strings.TrimSpace(string(boot)), facts.BootID)
	})
}

func TestDirs(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		r.shell(`mkdir -p /data/etcd/member/wal /data/blank /data/mounted '/data/a b' /data/walonly
			mount -t tmpfs -o size=1m x /data/mounted; mount -t tmpfs x '/data/a b'
			chown etcd:etcd /data/etcd; chmod 0700 /data/etcd`)
		r.write("/data/etcd/member/wal/0000000000000000-0000000000000000.wal", "old", 0o600)
		r.write("/data/etcd/member/wal/0000000000000001-0000000000000009.wal", strings.Repeat("n", 600), 0o600)
		r.write("/data/walonly/0000000000000000-0000000000000000.wal", "", 0o600)
		r.write("/data/etcd/.hidden\n'x", "", 0o600)
		r.write("/data/etcd/..odd", "", 0o600)
		r.shell(`cd /data/etcd && mkdir -p .removed-20260303T000000Z .removed-20260202T000000Z/member .removed-odd && echo x >.removed-20260202T000000Z/member/x && touch -d @1700000000 .removed-odd`)
		facts := look(t, r.machine(), host.Question{Dirs: []string{"/data/etcd", "/data/blank", "/data/mounted", "/data/a b", "/data/walonly", "/data/none/at/all", "/etc/passwd", "/etc/passwd/x"}}).Dirs
		d := facts["/data/etcd"]
		require.True(t, d.Exists)
		require.False(t, d.Mount)
		require.Equal(t, "etcd:etcd 700", fmt.Sprintf("%s:%s %o", d.Owner, d.Group, d.Mode))
		require.Equal(t, []string{"..odd", ".hidden\n'x", "member"}, d.Entries)
		require.True(t, d.WAL)
		require.Equal(t, strings.Repeat("n", 512), string(d.WALHead), "of the newest segment")
		require.Positive(t, d.UsedBytes)
		require.Positive(t, d.FreeBytes)
		require.Len(t, d.Aside, 3)
		require.Equal(t, host.Aside{Path: "/data/etcd/.removed-odd", Since: time.Unix(1700000000, 0)}, d.Aside[0])
		require.Equal(t, "/data/etcd/.removed-20260202T000000Z", d.Aside[1].Path)
		require.Equal(t, time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC), d.Aside[1].Since)
		require.Positive(t, d.Aside[1].Bytes)
		require.Equal(t, host.Dir{Exists: true, Owner: "root", Group: "root", Mode: 0o755, FreeBytes: facts["/data/blank"].FreeBytes}, facts["/data/blank"])
		require.True(t, facts["/data/mounted"].Mount)
		require.Equal(t, int64(1<<20), facts["/data/mounted"].FreeBytes)
		require.True(t, facts["/data/a b"].Mount)
		require.True(t, facts["/data/walonly"].WAL)
		require.Empty(t, facts["/data/walonly"].WALHead)
		require.False(t, facts["/data/none/at/all"].Exists)
		require.Positive(t, facts["/data/none/at/all"].FreeBytes)
		require.Equal(t, "not a directory", facts["/etc/passwd"].Problem)
		require.False(t, facts["/etc/passwd/x"].Exists)
	})
}

func TestUnits(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	r.shell("mkdir -p /run/units")
	r.write("/run/units/etcd.service", "Id=etcd.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=4711\n"+
		"ExecMainStartTimestampMonotonic=1000000\nExecMainStatus=0\nFragmentPath=/etc/systemd/system/etcd.service\nEnvironment=A=b \"C=d e\" $'F=g\\nh'\nNeedDaemonReload=yes\n", 0o644)
	r.write("/run/units/vip.service", "Id=vip.service\nLoadState=masked\nActiveState=failed\nSubState=failed\nUnitFileState=masked\nMainPID=0\n"+
		"ExecMainStartTimestampMonotonic=1000000\nExecMainStatus=2\nFragmentPath=\nEnvironment=\nNeedDaemonReload=no\n", 0o644)
	facts := look(t, m, host.Question{Units: []string{"vip.service", etcdUnit, "none.service"}})
	u := facts.Units[etcdUnit]
	up, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	var seconds float64
	_, err = fmt.Sscan(string(up), &seconds)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Second-time.Duration(seconds*1e9)), u.Since, 5*time.Second, "a second after the kernel began")
	u.Since = time.Time{}
	require.Equal(t, host.Unit{Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled", PID: 4711, Path: "/etc/systemd/system/etcd.service",
		Env: []string{"A=b", "C=d e", "F=g\nh"}, Stale: true}, u)
	require.Equal(t, host.Unit{Load: "masked", Active: "failed", Sub: "failed", Enabled: "masked", Exit: 2}, facts.Units["vip.service"])
	require.Equal(t, host.Unit{Load: "not-found", Active: "inactive", Sub: "dead"}, facts.Units["none.service"])

	// Units that nothing is known of must not look like units that do not run.
	r.write("/usr/bin/systemctl", "#!/bin/sh\necho 'Failed to connect to bus: Host is down' >&2\nexit 1\n", 0o755)
	_, err = m.Look(t.Context(), host.Question{Units: []string{etcdUnit}})
	require.ErrorContains(t, err, "Failed to connect to bus")
	require.NotErrorIs(t, err, host.ErrUnreachable)
}

func TestPortsUsersProgramsNames(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		r.write("/usr/bin/etcd", "#!/bin/sh\necho 'etcd Version: 3.7.3'; echo 'Go Version: go1.26.8'\n", 0o755)
		r.write("/usr/bin/etcdctl", "#!/bin/sh\n[ \"$*\" = version ] || { echo 'Error: unknown flag: --version' >&2; exit 1; }\necho 'etcdctl version: 3.7.3'; echo 'API version: 3.7'\n", 0o755)
		r.write("/usr/bin/patroni", "#!/bin/sh\nshift; echo patroni 4.0.7 >&2\n", 0o755)
		r.write("/usr/bin/mute", "#!/bin/sh\nexit 3\n", 0o755)
		r.write("/usr/bin/weak", "#!/bin/sh\n", 0o644)
		r.shell("mkdir -p /pg/conf /pg/bin && cd /pg/conf && touch a-1.yml a-2.yml .a-3.yml 'a[1].yml' a-1.txt ../bin/a-1.yml && ln -s nowhere a-9.yml")
		free := freePort(t)
		q := host.Question{
			Ports: []int{free, r.port}, Callers: []int{free, r.port}, Users: []string{"etcd", "root", "mallory"}, Etcd: "/usr/bin/etcd",
			Programs: []string{"/usr/bin/etcdctl", "/usr/bin/patroni", "/usr/bin/mute", "/usr/bin/weak", "/usr/bin/nothing", "/usr/bin"},
			Globs:    []string{"/pg/conf/a-*.yml", "/pg/*/a-?.yml", "/pg/conf/a[1].yml", "/pg/conf/.a*", "/pg/conf/a[*.yml", "/pg/conf/b*", "conf/*"},
		}
		facts := look(t, r.machine(), q)
		require.Equal(t, map[int]string{r.port: "sshd"}, facts.Ports)
		require.NotEmpty(t, facts.Callers[r.port], "who asks is connected")
		require.Empty(t, facts.Callers[free])
		require.Equal(t, map[string]bool{"etcd": true, "root": true, "mallory": false}, facts.Users)
		require.Equal(t, host.Binary{Path: "/usr/bin/etcd", Version: "3.7.3"}, facts.Etcd)
		require.Equal(t, map[string]host.Binary{
			"/usr/bin/etcdctl": {Path: "/usr/bin/etcdctl", Version: "3.7.3"},
			"/usr/bin/patroni": {Path: "/usr/bin/patroni", Version: "4.0.7"},
			"/usr/bin/mute":    {Path: "/usr/bin/mute", Problem: "it does not tell its version: exit status 3"},
			"/usr/bin/weak":    {Path: "/usr/bin/weak", Problem: "Permission denied"},
			"/usr/bin":         {Path: "/usr/bin", Problem: "not a regular file"},
		}, facts.Programs)
		require.Equal(t, map[string][]string{
			"/pg/conf/a-*.yml":  {"/pg/conf/a-1.yml", "/pg/conf/a-2.yml"},
			"/pg/*/a-?.yml":     {"/pg/bin/a-1.yml", "/pg/conf/a-1.yml", "/pg/conf/a-2.yml"},
			"/pg/conf/a[1].yml": {"/pg/conf/a[1].yml"},
			"/pg/conf/.a*":      {"/pg/conf/.a-3.yml"},
			"/pg/conf/a[*.yml":  {"/pg/conf/a[1].yml"},
		}, facts.Globs)
		require.Equal(t, host.Binary{Path: "/usr/bin/none"}, look(t, r.machine(), host.Question{Etcd: "/usr/bin/none"}).Etcd)
	})
}

// A program is tried with arguments, variables and a configuration that are its
// own, and leaves nothing behind.
func TestTrials(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		r.write("/usr/bin/etcd", "#!/bin/sh\necho \"args: $*\"; echo \"name: $ETCD_NAME\"; env | grep -c ^SECRET=; [ \"$1\" ] && cat \"${1#--config-file=}\"; exit 2\n", 0o755)
		config := []byte("name: 'it''s'\ndata-dir: /dev/null/x\n")
		before := r.shell("ls -A /tmp | wc -l")
		got := look(t, r.machine(), host.Question{Trials: []host.Trial{
			{Program: "/usr/bin/etcd", Args: []string{"--what is=it's"}, Config: config},
			{Program: "/usr/bin/etcd", Env: []string{"ETCD_NAME=a b"}},
			{Program: "/usr/bin/none"},
		}}).Trials
		require.Equal(t, []host.Tried{
			{Status: 2, Said: "args: --config-file=/dev/stdin --what is=it's\nname: \n0\n" + strings.TrimSpace(string(config))},
			{Status: 2, Said: "args: \nname: a b\n0"},
		}, got[:2])
		require.Equal(t, 127, got[2].Status)
		require.Equal(t, before, r.shell("ls -A /tmp | wc -l"))
	})
}

// When a file was changed last is told by its inode: its own time can be set.
func TestFileChanged(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		m := r.machine()
		changed := func() time.Time {
			t.Helper()
			facts, err := m.Look(t.Context(), host.Question{Files: []string{"/etc/x"}})
			require.NoError(t, err)
			return facts.Files["/etc/x"].Changed
		}
		require.True(t, changed().IsZero(), "there is none")
		r.write("/etc/x", "x", 0o644)
		first := changed()
		require.WithinDuration(t, time.Now(), first, time.Minute)
		r.shell("touch -d 2001-01-01 /etc/x")
		require.False(t, changed().Before(first))
		r.shell("mv /etc/x /etc/y && mv /etc/y /etc/x")
		require.False(t, changed().Before(first))
	})
}

// A program is asked for its version once, and again when the file is another:
// to ask etcd starts all of it.
func TestVersionIsAskedOnce(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		etcd := func(version string) string {
			return "#!/bin/sh\necho x >>/tmp/asked\necho 'etcd Version: " + version + "'\n"
		}
		r.write("/usr/bin/etcd", etcd("3.6.16"), 0o755)
		m := r.machine()
		ask := func(version string, times int) {
			t.Helper()
			require.Equal(t, host.Binary{Path: "/usr/bin/etcd", Version: version}, look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd)
			require.Equal(t, fmt.Sprint(times), r.shell("grep -c x /tmp/asked"))
		}
		ask("3.6.16", 1)
		ask("3.6.16", 1)
		r.write("/usr/bin/etcd", etcd("3.7.30"), 0o755) // as long as before
		ask("3.7.30", 2)
		r.shell("cp -p /usr/bin/etcd /usr/bin/other && mv /usr/bin/other /usr/bin/etcd")
		ask("3.7.30", 3)
		r.shell("chmod 0644 /usr/bin/etcd")
		require.Equal(t, "Permission denied", look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd.Problem)
		r.shell("rm /usr/bin/etcd")
		require.Equal(t, host.Binary{Path: "/usr/bin/etcd"}, look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd)
		r.write("/usr/bin/etcd", "#!/bin/sh\necho x >>/tmp/asked\nexit 3\n", 0o755)
		require.Equal(t, "it does not tell its version: exit status 3", look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd.Problem)
		require.Equal(t, "it does not tell its version: exit status 3", look(t, m, host.Question{Etcd: "/usr/bin/etcd"}).Etcd.Problem)
		require.Equal(t, "5", r.shell("grep -c x /tmp/asked"), "one that does not tell is asked each time")
	})
}

// What a package manager could install.
func TestOffers(t *testing.T) {
	eachShell(t, func(t *testing.T, r *rig) {
		r.write("/usr/bin/apt-cache", "#!/bin/sh\n[ \"$*\" = 'madison -- etcd-server' ] && printf ' etcd-server | 3.6.16-1 | http://mirror.example trixie/main amd64 Packages\\n etcd-server | 3.5.16-4+b1 | http://mirror.example trixie/main amd64 Packages\\n'\n", 0o755)
		require.Equal(t, []string{"3.6.16-1", "3.5.16-4+b1"}, look(t, r.machine(), host.Question{Package: "etcd-server"}).Offers)
		require.Empty(t, look(t, r.machine(), host.Question{Package: "etcd"}).Offers)
	})
}

func TestAddresses(t *testing.T) {
	r := newRig(t)
	var want []string
	all, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range all {
		if n := a.(*net.IPNet); !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			want = append(want, n.IP.String())
		}
	}
	require.ElementsMatch(t, want, look(t, r.machine(), host.Question{Addrs: true}).Addrs)
	r.shell("rm -f /bin/ip /sbin/ip /usr/bin/ip /usr/sbin/ip")
	require.ElementsMatch(t, want, look(t, r.machine(), host.Question{Addrs: true}).Addrs, "by hostname -I")
}

// Connections are tried from the host, with whatever it has for it.
func TestConnections(t *testing.T) {
	for _, with := range []string{"bash and curl", "curl", "wget and openssl"} {
		t.Run(with, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			// In its place, what every shell says of a program that is not there.
			if !strings.Contains(with, "curl") {
				r.shell("rm -f /usr/bin/curl")
			}
			if with == "curl" {
				r.shell("ln -sf dash /bin/sh; usermod -s /bin/sh root; rm -f /usr/bin/bash")
			}
			connections(t, r, with)
		})
	}
	r := newRig(t)
	r.shell("rm -f /usr/bin/curl /usr/bin/wget /usr/bin/openssl; ln -sf dash /bin/sh; usermod -s /bin/sh root; rm -f /usr/bin/bash")
	facts := look(t, r.machine(), host.Question{Dial: []string{r.address()}, HTTP: []string{"http://" + r.address()}, TLS: []host.Handshake{{Address: r.address()}}})
	require.Contains(t, facts.Dials[r.address()], "neither bash nor curl")
	require.Contains(t, facts.HTTP["http://"+r.address()].Problem, "neither curl nor wget")
	require.Contains(t, facts.Handshakes[0], "neither curl nor openssl")
}

func connections(t *testing.T, r *rig, with string) {
	long := strings.Repeat("0123456789abcdef", 8<<10)
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/long":
			_, _ = w.Write([]byte(long))
		case "/moved":
			http.Redirect(w, req, "/patroni", http.StatusFound)
		case "/bytes":
			_, _ = w.Write([]byte("a\x00b\n\netcdrill:0\n\xff"))
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"state":"starting"}`))
		}
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure, files := newTLSServer(t, handler)
	for name, content := range files {
		r.write(name, string(content), 0o600)
	}
	r.write("/tmp/empty.crt", "", 0o600)
	address := secure.Listener.Addr().String()
	free := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	good := host.Handshake{Address: address, CA: "/tmp/ca.crt", Cert: "/tmp/client.crt", Key: "/tmp/client.key"}
	nobody := host.Handshake{Address: address, CA: "/tmp/ca.crt"}
	stranger := host.Handshake{Address: address, CA: "/tmp/other.crt", Cert: "/tmp/client.crt", Key: "/tmp/client.key"}
	missing := host.Handshake{Address: address, CA: "/tmp/ca.crt", Cert: "/no.crt", Key: "/tmp/client.key"}
	closed := host.Handshake{Address: free, CA: "/tmp/ca.crt"}
	q := host.Question{
		Dial: []string{plain.Listener.Addr().String(), free, "nonsense"},
		HTTP: []string{plain.URL + "/patroni", plain.URL + "/long", plain.URL + "/moved", plain.URL + "/bytes", plain.URL + "/empty", "http://" + free + "/", "::", "file:///etc/passwd"},
		TLS:  []host.Handshake{good, nobody, stranger, missing, closed, {Address: "nonsense"}},
	}
	facts := look(t, r.machine(), q)
	require.Equal(t, "", facts.Dials[plain.Listener.Addr().String()])
	require.Contains(t, facts.Dials[free], "onnect") // refused, in the words of what tried it
	require.Contains(t, facts.Dials["nonsense"], "missing port")
	require.Equal(t, host.Reply{Status: 503, Body: []byte(`{"state":"starting"}`)}, facts.HTTP[plain.URL+"/patroni"])
	require.Equal(t, 200, facts.HTTP[plain.URL+"/long"].Status)
	require.Equal(t, long[:64<<10], string(facts.HTTP[plain.URL+"/long"].Body))
	if strings.Contains(with, "wget") {
		require.NotEmpty(t, facts.HTTP[plain.URL+"/moved"].Problem, "wget keeps to itself what is no document")
		require.NotEmpty(t, facts.HTTP[plain.URL+"/empty"].Problem)
	} else {
		require.Equal(t, http.StatusFound, facts.HTTP[plain.URL+"/moved"].Status)
		require.Equal(t, http.StatusNoContent, facts.HTTP[plain.URL+"/empty"].Status)
	}
	require.Equal(t, host.Reply{Status: 200, Body: []byte("a\x00b\n\netcdrill:0\n\xff")}, facts.HTTP[plain.URL+"/bytes"])
	require.Zero(t, facts.HTTP["http://"+free+"/"].Status)
	require.NotEmpty(t, facts.HTTP["http://"+free+"/"].Problem)
	require.Contains(t, facts.HTTP["file:///etc/passwd"].Problem, "no URL")
	require.NotEmpty(t, facts.HTTP["::"].Problem)

	h := facts.Handshakes
	require.Len(t, h, 6)
	require.Empty(t, h[0], with)
	require.NotEmpty(t, h[1], "the server refuses after its part of the handshake")
	require.Contains(t, h[2], "verif", "the client refuses the server")
	require.Contains(t, h[3], "/no.crt: No such file")
	require.NotEmpty(t, h[4])
	require.Contains(t, h[5], "missing port")
}

// newTLSServer serves with a certificate for 127.0.0.1 and wants one of clients.
func newTLSServer(t *testing.T, handler http.Handler) (*httptest.Server, map[string][]byte) {
	t.Helper()
	ca, caPEM, _ := certificate(t, nil, nil)
	_, otherPEM, _ := certificate(t, nil, nil)
	_, certPEM, keyPEM := certificate(t, ca.Leaf, ca.PrivateKey)
	files := map[string][]byte{"/tmp/ca.crt": caPEM, "/tmp/other.crt": otherPEM, "/tmp/client.crt": certPEM, "/tmp/client.key": keyPEM}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, files
}

// certificate makes one for 127.0.0.1, signed by its own key where there is no
// parent.
func certificate(t *testing.T, parent *x509.Certificate, signer any) (pair tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	wanted := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "c" + serial.String()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, signer = wanted, key
	}
	der, err := x509.CreateCertificate(rand.Reader, wanted, parent, key.Public(), signer)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	return tls.Certificate{PrivateKey: key, Leaf: leaf}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// Without root's rights all is answered that may be seen, and what may not is
// told as such.
func TestReadOnly(t *testing.T) {
	r := newRig(t)
	r.write("/usr/bin/sudo", "#!/bin/sh\necho called >>/tmp/sudo\nexit 1\n", 0o755)
	r.shell("chmod 01777 /tmp; mkdir -p /data/etcd/member/wal /etc/etcd; chmod 0700 /data/etcd; chmod 0750 /etc/etcd; echo secret >/etc/etcd/server.key; chmod 0600 /etc/etcd/server.key; echo key >/etc/open.key; chmod 0600 /etc/open.key; echo conf >/etc/open.conf")
	m := newClient(t, readOnly).Host(r.spec("plain"))
	facts := look(t, m, host.Question{
		Units: []string{etcdUnit}, Files: []string{"/etc/open.conf", "/etc/open.key", "/etc/etcd/etcd.conf"}, Sums: []string{"/etc/open.key", "/etc/etcd/server.key", "/etc/open.none"},
		Dirs: []string{"/data/etcd", "/etc", "/data/none"}, Ports: []int{r.port}, Users: []string{"etcd"},
	})
	require.Equal(t, "not-found", facts.Units[etcdUnit].Load)
	require.Equal(t, "conf\n", string(facts.Files["/etc/open.conf"].Content))
	require.Equal(t, host.File{Exists: true, Real: "/etc/open.key", Owner: "root", Group: "root", Mode: 0o600, Problem: "Permission denied"}, facts.Files["/etc/open.key"])
	require.Equal(t, host.File{Exists: true, Problem: "Permission denied"}, facts.Files["/etc/etcd/etcd.conf"], "it is not known whether it is there")
	require.Equal(t, map[string]string{"/etc/open.key": "", "/etc/etcd/server.key": ""}, facts.Sums)
	require.Equal(t, "Permission denied", facts.Dirs["/data/etcd"].Problem)
	require.True(t, facts.Dirs["/data/etcd"].Exists)
	require.Empty(t, facts.Dirs["/etc"].Problem)
	require.False(t, facts.Dirs["/data/none"].Exists)
	require.Equal(t, map[int]string{r.port: "another program"}, facts.Ports)
	require.True(t, facts.Users["etcd"])

	require.ErrorContains(t, m.Do(t.Context(), write("/tmp/x", "")), "for looking only")
	_, err := os.Lstat(r.path("/tmp/x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = os.Lstat(r.path("/tmp/sudo"))
	require.ErrorIs(t, err, fs.ErrNotExist, "sudo is never called")
}

// A look leaves everything as it is.
func TestLookChangesNothing(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	q := host.Question{Units: []string{etcdUnit}, Files: []string{"/etc/passwd"}, Sums: []string{"/etc/shadow"}, Dirs: []string{"/etc"}, Ports: []int{1}, Users: []string{"etcd"},
		Etcd: "/usr/bin/etcd", Dial: []string{r.address()}, Programs: []string{"/usr/bin/ssh"}, Globs: []string{"/etc/*"}, Addrs: true, HTTP: []string{"http://" + r.address()}}
	look(t, m, q)
	upper := filepath.Join(filepath.Dir(r.keys), "mount", "upper")
	list := func() string {
		// All that the host ever wrote on its disk is in the upper layer.
		out, err := exec.Command("nsenter", "-t", strconv.Itoa(r.pid), "-m", "find", upper, "-printf", "%p %y %s %C@\n").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "sshd_config")
		return string(out) + r.shell("find /run /tmp -xdev -printf '%p %y %s %C@\\n'")
	}
	before := list()
	look(t, m, q)
	require.Equal(t, before, list())
}

func TestLookEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	m := r.machine()
	look(t, m, host.Question{})
	r.write("/usr/bin/systemctl", "#!/bin/sh\nsleep 300\n", 0o755)
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err := m.Look(ctx, host.Question{Units: []string{etcdUnit}})
	require.ErrorIs(t, err, host.ErrUnreachable)
	require.ErrorContains(t, err, "did not answer in time")
	require.NotErrorIs(t, err, context.DeadlineExceeded, "that it changes nothing must not look like an unknown outcome")
	r.write("/usr/bin/systemctl", fakeSystemctl, 0o755)
	look(t, m, host.Question{Units: []string{etcdUnit}})
	_, err = m.Look(t.Context(), host.Question{Files: []string{"/a\x00b"}})
	require.ErrorContains(t, err, "NUL")
}
