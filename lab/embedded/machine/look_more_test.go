package machine_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/host"
)

func executable(t *testing.T, m *machine.Machine, path, content string) {
	t.Helper()
	do(t, m, host.WriteFile{Path: path, Content: []byte(content), Mode: 0o755})
}

func TestPrograms(t *testing.T) {
	m := newMachine(t)
	executable(t, m, "/usr/bin/patroni", strings.TrimSpace(machine.IdleProgram)+" 4.0.7\n")
	executable(t, m, "/usr/bin/mute", machine.IdleProgram)
	facts := look(t, m, host.Question{Programs: []string{"/usr/bin/etcd", "/usr/bin/patroni", "/usr/bin/mute", "/usr/bin/nothing"}})
	require.Equal(t, map[string]host.Binary{
		"/usr/bin/etcd":    {Path: "/usr/bin/etcd", Version: machine.EmbeddedVersion()},
		"/usr/bin/patroni": {Path: "/usr/bin/patroni", Version: "4.0.7"},
		"/usr/bin/mute":    {Path: "/usr/bin/mute", Problem: "it does not tell its version"},
	}, facts.Programs)

	idle(t, m, "patroni.service", "Type=notify")
	do(t, m, systemctl(host.Start, "patroni.service"))
	require.Equal(t, "active/running", state(t, m, "patroni.service"))
}

func TestGlobs(t *testing.T) {
	m := newMachine(t)
	do(t, m, host.MakeDir{Path: "/pg/conf", Mode: 0o755}, host.MakeDir{Path: "/pg/bin", Mode: 0o755})
	for _, f := range []string{"/pg/conf/a-1.yml", "/pg/conf/a-2.yml", "/pg/conf/.a-3.yml", "/pg/conf/a[1].yml", "/pg/bin/a-1.yml", "/pg/conf/a-1.txt"} {
		do(t, m, write(f, ""))
	}
	require.NoError(t, os.Symlink("/pg/nowhere", filepath.Join(m.Root(), "pg/conf/a-9.yml")))
	q := host.Question{Globs: []string{"/pg/conf/a-*.yml", "/pg/*/a-?.yml", "/pg/conf/a[1].yml", "/pg/conf/.a*", "/pg/conf/a[*.yml", "/pg/conf/b*", "conf/*"}}
	require.Equal(t, map[string][]string{
		"/pg/conf/a-*.yml":  {"/pg/conf/a-1.yml", "/pg/conf/a-2.yml"},
		"/pg/*/a-?.yml":     {"/pg/bin/a-1.yml", "/pg/conf/a-1.yml", "/pg/conf/a-2.yml"},
		"/pg/conf/a[1].yml": {"/pg/conf/a[1].yml"},
		"/pg/conf/.a*":      {"/pg/conf/.a-3.yml"},
		"/pg/conf/a[*.yml":  {"/pg/conf/a[1].yml"},
	}, look(t, m, q).Globs)
}

func TestAddresses(t *testing.T) {
	in := namespace(t)
	require.NoError(t, in(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		var errs []error
		for _, text := range []string{"10.10.10.11/32", "10.10.10.2/24", "fd00::7/64"} {
			a, err := netlink.ParseAddr(text)
			errs = append(errs, err, netlink.AddrAdd(lo, a))
		}
		return errors.Join(errs...)
	}))
	want := []string{"10.10.10.11", "10.10.10.2", "fd00::7"}
	for name, within := range map[string]func(func() error) error{"thread": in, "process": nil} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, func(c *machine.Config) {
				c.Spawn = func(cmd *exec.Cmd) error { return in(cmd.Start) }
				c.Within = within
			})
			require.Equal(t, want, look(t, m, host.Question{Addrs: true}).Addrs)
			require.Empty(t, look(t, m, host.Question{}).Addrs)
		})
	}
}

func TestHTTP(t *testing.T) {
	m := newMachine(t)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000))
		case "/moved":
			http.Redirect(w, r, "/patroni", http.StatusFound)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"state":"starting"}`))
		}
	}))
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	base := "https://localhost:" + port // a name that the host's own /etc/hosts has
	refused := fmt.Sprintf("http://127.0.0.1:%d/", freePort(t))
	q := host.Question{HTTP: []string{base + "/patroni", base + "/long", base + "/moved", refused, "http://unknown.example:1/", "::"}}
	got := look(t, m, q).HTTP
	require.Equal(t, host.Reply{Status: 503, Body: []byte(`{"state":"starting"}`)}, got[base+"/patroni"])
	require.Len(t, got[base+"/long"].Body, 64<<10)
	require.Equal(t, http.StatusFound, got[base+"/moved"].Status)
	require.Contains(t, got[refused].Problem, "connection refused")
	require.Contains(t, got["http://unknown.example:1/"].Problem, "no such host")
	require.NotEmpty(t, got["::"].Problem)
}

func TestHandshakes(t *testing.T) {
	m := newMachine(t)
	authority := newAuthority(t)
	ca := authority.pem
	cert, key := authority.issue(t, 2, "n1", "127.0.0.1")
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca))
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	address := s.Listener.Addr().String()
	do(t, m, write("/ca.crt", string(ca)), write("/client.crt", string(cert)), write("/client.key", string(key)), write("/empty.crt", ""))
	free := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	good := host.Handshake{Address: address, CA: "/ca.crt", Cert: "/client.crt", Key: "/client.key"}
	nobody := host.Handshake{Address: address, CA: "/ca.crt"}
	stranger := host.Handshake{Address: address, Cert: "/client.crt", Key: "/client.key"}
	missing := host.Handshake{Address: address, CA: "/ca.crt", Cert: "/no.crt", Key: "/client.key"}
	wrong := host.Handshake{Address: address, CA: "/empty.crt"}
	closed := host.Handshake{Address: free, CA: "/ca.crt"}
	got := look(t, m, host.Question{TLS: []host.Handshake{good, nobody, stranger, missing, wrong, closed}}).Handshakes
	require.Len(t, got, 6)
	require.Empty(t, got[0])
	require.Contains(t, got[1], "certificate required", "the server refuses after its part of the handshake")
	require.Contains(t, got[2], "unknown authority")
	require.Contains(t, got[3], "open /no.crt: no such file")
	require.Contains(t, got[4], "no certificate")
	require.Contains(t, got[5], "connection refused")
}

func TestPutProgram(t *testing.T) {
	m := newMachine(t)
	from := filepath.Join(t.TempDir(), "etcd")
	content := []byte("etcdrill embedded etcd " + machine.EmbeddedVersion() + "\n")
	require.NoError(t, os.WriteFile(from, content, 0o600))
	a := host.PutProgram{From: from, Path: "/usr/local/bin/etcd", SHA256: fmt.Sprintf("%X", sha256.Sum256(content))}
	err := m.Do(t.Context(), a)
	var failure *host.Failure
	require.ErrorAs(t, err, &failure)
	require.Contains(t, failure.Output, "No such file or directory")
	do(t, m, host.MakeDir{Path: "/usr/local/bin", Mode: 0o755}, a, a)
	f := file(t, m, a.Path)
	require.Equal(t, content, f.Content)
	require.Equal(t, "root:root 755", fmt.Sprintf("%s:%s %o", f.Owner, f.Group, f.Mode))
	require.Equal(t, machine.EmbeddedVersion(), look(t, m, host.Question{Etcd: a.Path}).Etcd.Version)

	require.NoError(t, os.WriteFile(from, []byte("something else"), 0o600))
	require.ErrorContains(t, m.Do(t.Context(), a), "sha256")
	require.Equal(t, content, file(t, m, a.Path).Content, "what was there stays")
	a.From = "etcd"
	require.ErrorContains(t, m.Do(t.Context(), a), "not an absolute path")
	a.From = from + ".none"
	require.ErrorContains(t, m.Do(t.Context(), a), "no such file")
}

func TestCopyProgram(t *testing.T) {
	m := newMachine(t)
	do(t, m, host.CopyProgram{From: "/usr/bin/etcd", Path: "/usr/bin/etcd-kept"})
	require.Equal(t, file(t, m, "/usr/bin/etcd").Content, file(t, m, "/usr/bin/etcd-kept").Content)
	require.Equal(t, machine.EmbeddedVersion(), look(t, m, host.Question{Programs: []string{"/usr/bin/etcd-kept"}}).Programs["/usr/bin/etcd-kept"].Version)
	require.ErrorContains(t, m.Do(t.Context(), host.CopyProgram{From: "/usr/bin/none", Path: "/usr/bin/etcd"}), "cannot stat")
}

// A lab that was made with versions of etcd has them as packages.
func TestPackages(t *testing.T) {
	other := filepath.Join(t.TempDir(), "etcd")
	require.NoError(t, os.WriteFile(other, []byte("#!/bin/sh"), 0o755))
	m := newMachine(t, func(c *machine.Config) { c.Versions = map[string]string{"3.6.16": other} })
	require.Equal(t, []string{"3.6.16", machine.EmbeddedVersion()}, look(t, m, host.Question{Package: "etcd"}).Offers)
	require.Empty(t, look(t, m, host.Question{Package: "postgresql"}).Offers)
	do(t, m, host.InstallPackage{Package: "etcd", Version: "3.6.16*"})
	require.Equal(t, "#!/bin/sh", string(file(t, m, "/usr/bin/etcd").Content))
	do(t, m, host.InstallPackage{Package: "etcd"})
	require.Equal(t, "#!/bin/sh", string(file(t, m, "/usr/bin/etcd").Content), "what is there stays")
	require.ErrorContains(t, m.Do(t.Context(), host.InstallPackage{Package: "etcd", Version: "3.4.30"}), "Version '3.4.30' for 'etcd' was not found")
}

// An etcd says what it makes of a configuration, and goes no further.
func TestTrials(t *testing.T) {
	m := newMachine(t)
	got := look(t, m, host.Question{Trials: []host.Trial{
		{Program: "/usr/bin/etcd", Config: []byte("name: a\ndata-dir: /dev/null/none\n")},
		{Program: "/usr/bin/etcd", Config: []byte("name: a\ndata-dir: /dev/null/none\nelection-timeout: 7\n")},
		{Program: "/usr/bin/none"},
	}}).Trials
	require.Contains(t, got[0].Said, "failed to list data directory")
	require.Contains(t, got[0].Said, "/dev/null/none")
	require.Contains(t, got[1].Said, "failed to verify flags")
	require.NotContains(t, got[1].Said, "/dev/null/none")
	require.NotZero(t, got[2].Status)
	left, err := os.ReadDir(filepath.Join(m.Root(), "run"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestInstallPackageWithoutManager(t *testing.T) {
	m := newMachine(t)
	err := m.Do(t.Context(), host.InstallPackage{Package: "etcd-server"})
	var failure *host.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "cannot install etcd-server: neither apt-get nor dnf is on this host", failure.Output)
}

func TestAddUser(t *testing.T) {
	m := newMachine(t)
	before := file(t, m, "/etc/passwd").Content
	do(t, m, host.AddUser{Name: "etcd", Home: "/elsewhere"})
	require.Equal(t, before, file(t, m, "/etc/passwd").Content, "one that is there is left as it is")
	a := host.AddUser{Name: "etcd2", Home: "/var/lib/etcd2"}
	do(t, m, a, a)
	require.True(t, look(t, m, host.Question{Users: []string{"etcd2"}}).Users["etcd2"])
	require.Equal(t, string(before)+"etcd2:x:999:999::/var/lib/etcd2:/usr/sbin/nologin\n", string(file(t, m, "/etc/passwd").Content))
	do(t, m, host.MakeDir{Path: "/data/etcd2", Owner: "etcd2", Group: "etcd2", Mode: 0o700}, host.AddUser{Name: "third", Home: "/"})
	require.Contains(t, string(file(t, m, "/etc/passwd").Content), "\nthird:x:998:998::/:")
	require.ErrorContains(t, m.Do(t.Context(), host.AddUser{Name: "admin"}), "group admin exists")
	require.ErrorContains(t, m.Do(t.Context(), host.AddUser{Name: "a:b"}), "invalid user name")
}

func TestNote(t *testing.T) {
	m := newMachine(t)
	do(t, m, host.Note{Line: "addMember 10.10.10.13 by ann,\nticket 7"}, host.Note{Line: "again"})
	text, err := os.ReadFile(m.Journal(machine.Tag))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 2)
	require.Regexp(t, `^\S+Z n1 etcdrill: addMember 10\.10\.10\.13 by ann, ticket 7$`, lines[0])
	require.True(t, strings.HasSuffix(lines[1], " n1 etcdrill: again"))
}

func TestReload(t *testing.T) {
	for _, c := range []struct{ name, service string }{
		{"by kill", "Type=notify\nExecReload=/bin/kill -s HUP $MAINPID"},
		{"by kill -HUP", "Type=notify\nExecReload=-/usr/bin/kill -HUP ${MAINPID}"},
		{"by type", "Type=notify-reload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			idle(t, m, "x.service", c.service)
			require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Reload, "x.service")), "x.service is not active, cannot reload")
			do(t, m, systemctl(host.Start, "x.service"))
			await(t, m, "x.service", "active/running")
			pid := m.PID("x.service")
			do(t, m, systemctl(host.Reload, "x.service"))
			require.EventuallyWithT(t, func(c *assertT) {
				require.Contains(c, journal(t, m, "x.service"), "\n"+machine.IdleReloaded+"\n")
			}, patience, patience/10000)
			require.Equal(t, pid, m.PID("x.service"), "it is the same process")
		})
	}
	m := newMachine(t)
	idle(t, m, "x.service", "Type=notify")
	do(t, m, systemctl(host.Start, "x.service"))
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Reload, "x.service")), "Job type reload is not applicable")
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Reload, "none.service")), "not found")
	idle(t, m, "y.service", "Type=notify\nExecReload=/usr/bin/pg_ctl reload")
	do(t, m, systemctl(host.Start, "y.service"))
	require.ErrorContains(t, m.Do(t.Context(), systemctl(host.Reload, "y.service")), "by a signal only")
}
