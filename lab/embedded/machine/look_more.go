package machine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

const (
	getPatience = 3 * time.Second // for a service that is asked over HTTP
	maxBody     = 64 << 10        // of a reply that is kept
)

// lookMore answers what is asked of programs, names, addresses and services.
func (m *Machine) lookMore(ctx context.Context, q host.Question, facts *host.Facts) error {
	if len(q.Programs) > 0 {
		facts.Programs = map[string]host.Binary{}
		for _, name := range q.Programs {
			if b := m.binary(ctx, name); b.Version != "" || b.Problem != "" {
				facts.Programs[name] = b
			}
		}
	}
	if q.Package != "" {
		facts.Offers = m.packages(q.Package)
	}
	for _, t := range q.Trials {
		tried, err := m.try(ctx, t)
		if err != nil {
			return fmt.Errorf("try %s on %s: %w", t.Program, m.name, err)
		}
		facts.Trials = append(facts.Trials, tried)
	}
	if len(q.Globs) > 0 {
		facts.Globs = map[string][]string{}
		for _, pattern := range q.Globs {
			if names := m.root.glob(pattern); len(names) > 0 {
				facts.Globs[pattern] = names
			}
		}
	}
	if q.Addrs {
		text, err := m.networkSays(ctx, interfaceAddrs, roleAddrs)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", m.name, err)
		}
		facts.Addrs = strings.Fields(text)
	}
	var wg sync.WaitGroup
	replies := make([]host.Reply, len(q.HTTP))
	for i, url := range q.HTTP {
		wg.Go(func() { replies[i] = m.get(ctx, url) })
	}
	if len(q.TLS) > 0 {
		facts.Handshakes = make([]string, len(q.TLS))
	}
	for i, h := range q.TLS {
		wg.Go(func() {
			if err := m.shake(ctx, h); err != nil {
				facts.Handshakes[i] = err.Error()
			}
		})
	}
	wg.Wait()
	if len(q.HTTP) > 0 {
		facts.HTTP = map[string]host.Reply{}
		for i, url := range q.HTTP {
			facts.HTTP[url] = replies[i]
		}
	}
	return nil
}

// try runs a program for a moment.
func (m *Machine) try(ctx context.Context, t host.Trial) (host.Tried, error) {
	const most, late = 4 << 10, 124
	p, err := m.program(t.Program)
	if err != nil {
		return host.Tried{Status: exitExec, Said: m.inside(err).Error()}, nil
	}
	args := []string{t.Program}
	if len(t.Config) > 0 {
		f, err := os.CreateTemp(m.root.path("/run"), "trial-*.yml")
		if err != nil {
			return host.Tried{}, err
		}
		defer func() { _ = os.Remove(f.Name()) }()
		if _, err := f.Write(t.Config); err != nil {
			return host.Tried{}, errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil {
			return host.Tried{}, err
		}
		args = append(args, "--config-file=/run/"+path.Base(f.Name()))
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	out, err := m.ask(ctx, m.taskCommand(task{Role: p.role, Root: string(m.root), Dir: "/", Args: append(args, t.Args...), Env: append(baseEnv(), t.Env...)}))
	tried := host.Tried{Said: out[max(0, len(out)-most):]}
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		tried.Status = late
	case errors.As(err, &ended):
		tried.Status = ended.ExitCode()
	case err != nil:
		return tried, err
	}
	return tried, nil
}

// glob names what matches a pattern, as a shell does: * and ? match no slash,
// and no dot at the beginning of a name; other signs stand for themselves.
func (t tree) glob(pattern string) []string {
	if !path.IsAbs(pattern) {
		return nil
	}
	found := []string{"/"}
	for _, part := range strings.Split(path.Clean(pattern), "/")[1:] {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?") {
				next = append(next, path.Join(dir, part))
				continue
			}
			for _, name := range t.list(dir) {
				hidden := strings.HasPrefix(name, ".") && !strings.HasPrefix(part, ".")
				if ok, _ := path.Match(literal(part), name); ok && !hidden {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	found = slices.DeleteFunc(found, func(name string) bool {
		real, err := t.resolve(name, true)
		if err == nil {
			_, err = os.Lstat(t.path(real))
		}
		return err != nil
	})
	slices.Sort(found)
	return found
}

// literal escapes what means something to path.Match and nothing to a glob.
func literal(part string) string {
	return strings.NewReplacer(`\`, `\\`, `[`, `\[`).Replace(part)
}

// interfaceAddrs lists the addresses of the network namespace of the calling
// thread, one a line and sorted, loopback and link-local ones left out.
func interfaceAddrs() (string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	var found []string
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			found = append(found, n.IP.String())
		}
	}
	slices.Sort(found)
	return strings.Join(found, "\n"), nil
}

// dial connects from the host to an address whose host may be a name that the
// host's own /etc/hosts knows; a lab has no other names.
func (m *Machine) dial(ctx context.Context, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(name) == nil {
		ip, err := m.root.lookup(name)
		if err != nil {
			return nil, err
		}
		address = net.JoinHostPort(ip, port)
	}
	return m.config.Dial(ctx, address)
}

// lookup finds a name in the host's /etc/hosts.
func (t tree) lookup(name string) (string, error) {
	text, err := t.read("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("lookup %s: %w", name, err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 && slices.Contains(f[1:], name) {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("lookup %s: no such host", name)
}

// get asks a service the way curl --insecure does from a shell on the host.
func (m *Machine) get(ctx context.Context, url string) host.Reply {
	return m.fetch(ctx, url, &tls.Config{InsecureSkipVerify: true})
}

func (m *Machine) fetch(ctx context.Context, url string, config *tls.Config) host.Reply {
	ctx, cancel := context.WithTimeout(ctx, getPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return host.Reply{Problem: err.Error()}
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return m.dial(ctx, address) },
		TLSClientConfig:   config,
		DisableKeepAlives: true,
	}
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(r)
	if err != nil {
		return host.Reply{Problem: err.Error()}
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return host.Reply{Problem: fmt.Sprintf("read the answer: %v", err)}
	}
	return host.Reply{Status: answer.StatusCode, Body: body}
}

// shake tries whether a server takes a client certificate and has one that the
// client takes. A server refuses a certificate only after its part of the
// handshake is done, so it is asked for something too.
func (m *Machine) shake(ctx context.Context, h host.Handshake) error {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if h.CA != "" {
		pem, err := m.root.read(h.CA)
		if err != nil {
			return m.inside(err)
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: no certificate is in it", h.CA)
		}
	}
	if h.Cert != "" || h.Key != "" {
		cert, err := m.root.read(h.Cert)
		if err != nil {
			return m.inside(err)
		}
		key, err := m.root.read(h.Key)
		if err != nil {
			return m.inside(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("%s and %s: %w", h.Cert, h.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if reply := m.fetch(ctx, "https://"+h.Address+"/health", config); reply.Problem != "" {
		return errors.New(reply.Problem)
	}
	return nil
}
