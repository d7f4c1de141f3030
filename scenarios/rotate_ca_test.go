package scenarios_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A caller connects to each member in turn, anew each time, with what it has.
type caller struct {
	name     string
	rig      *scenarios.Rig
	ca, cert []byte
	key      []byte
	mu       sync.Mutex
	got      map[string]int // calls that were answered, by host
	cut      []string       // for what a side said of the other's certificate
}

// call writes once through the member on a host.
func (c *caller) call(ctx context.Context, name string) error {
	config, err := pki.TLSConfig(c.ca, c.cert, c.key)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	m, err := sop.DialMember(clientv3.Config{TLS: config, DialTimeout: 2 * time.Second}, scenarios.Endpoints(name)[0], c.rig.Lab.DialContext("client"))
	if err != nil {
		return err
	}
	defer m.Close()
	if _, err = m.Status(ctx); err != nil { // which fails fast, and tells why
		return err
	}
	_, err = m.KV().Put(ctx, "/callers/"+c.name, name)
	return err
}

// goOn calls until it is stopped.
func (c *caller) goOn(ctx context.Context, hosts ...string) {
	for ctx.Err() == nil {
		for _, h := range hosts {
			err := c.call(ctx, h)
			c.mu.Lock()
			switch {
			case err == nil:
				c.got[h]++
			case ctx.Err() == nil && distrusts(err):
				c.cut = append(c.cut, fmt.Sprintf("%s on %s: %v", c.name, h, err))
			}
			c.mu.Unlock()
		}
	}
}

// distrusts reports whether one side did not take the other's certificate.
func distrusts(err error) bool {
	return strings.Contains(err.Error(), "x509") || strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "certificate")
}

// during has callers call while something is done, and sees that each of them got
// in everywhere, all along.
func during(t *testing.T, do func(), callers ...*caller) {
	t.Helper()
	hosts := []string{h10, h11, h12}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, c := range callers {
		c.got, c.cut = map[string]int{}, nil
		wg.Go(func() { c.goOn(ctx, hosts...) })
	}
	do()
	stop()
	wg.Wait()
	for _, c := range callers {
		require.Empty(t, c.cut)
		for _, h := range hosts {
			require.Positive(t, c.got[h], "%s on %s", c.name, h)
			require.NoError(t, c.call(t.Context(), h), "%s on %s", c.name, h)
		}
		t.Logf("%s: %v", c.name, c.got)
	}
}

// Another CA takes the place of the cluster's under clients that know nothing of
// it, that know it, and that have a certificate of it, each as long as that does.
// Operators are cut off on the way.
func TestRotateCA(t *testing.T) {
	t.Parallel()
	rig := build(t, three)
	done(t, rig, create("ca"))
	keys := pki.Dir(filepath.Join(filepath.Dir(rig.Inventory()), "files", "pki"))
	now := func() *pki.CA {
		ca, err := keys.Load()
		require.NoError(t, err)
		return ca
	}
	with := func(name string, signer *pki.CA, trust []byte) *caller {
		p, err := signer.Issue(rand.Reader, time.Now(), pki.Leaf{Name: name, Host: "127.0.0.1", Validity: time.Hour})
		require.NoError(t, err)
		return &caller{name: name, rig: rig, ca: trust, cert: p.CertPEM, key: p.KeyPEM}
	}
	trust, sign, retire := sop.RotateAuthority{Stride: sop.Trust}, sop.RotateAuthority{Stride: sop.Sign}, sop.RotateAuthority{Stride: sop.Retire, Stamp: sop.Stamp(time.Now())}
	refused := func(p sop.Procedure, safeguard string) {
		t.Helper()
		_, err := run(t, rig, p)
		var r *sop.Refusal
		require.ErrorAs(t, err, &r)
		require.Equal(t, safeguard, r.Safeguard)
		require.False(t, r.Changed)
	}
	strangers := waiving("unknown-clients")

	was := now()
	untold := with("untold", was, was.CertPEM)
	refused(sign, "ca-rotation")
	during(t, func() {
		_, err := run(t, rig, trust, stoppedAt("restart etcd"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		refused(sign, "members-trust")
		done(t, rig, trust)
	}, untold)

	told := with("told", was, now().CertPEM)
	during(t, func() {
		on(rig).ask(t, []string{h10, h11, h12}, func(ctx context.Context, c *clientv3.Client) {
			_, err := c.Put(ctx, "/strangers", "connected") // and stays so
			require.NoError(t, err)
			refused(sign, "unknown-clients")
		})
		_, err := run(t, rig, sign, strangers, stoppedAt("write server.crt"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		refused(retire, "members-renewed")
		done(t, rig, sign, strangers)
	}, told)
	require.False(t, now().Cert.Equal(was.Cert))
	require.ErrorContains(t, untold.call(t.Context(), h11), "x509", "who was not told is cut off now, as it was said")

	renewed := with("renewed", now(), now().CertPEM)
	during(t, func() {
		_, err := run(t, rig, retire, strangers, stoppedAt("restart etcd"))
		require.ErrorIs(t, err, sop.ErrInterrupted)
		done(t, rig, retire, strangers)
	}, renewed)
	require.Equal(t, string(now().SigningPEM()), string(now().CertPEM))
	for _, h := range []string{h10, h11, h12} {
		for try := 0; ; try++ { // a member that hangs up may be faster than its reason
			err := told.call(t.Context(), h)
			require.Error(t, err, "a certificate of the old CA")
			if distrusts(err) {
				break
			}
			require.Less(t, try, 50, "%v", err)
		}
	}
	on(rig).unchanged(t, retire)
	done(t, rig, sop.RotateCerts{Since: time.Now()})
	done(t, rig, sop.Restart{Since: time.Now()})
	requireConsistent(t, rig)
}
