package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rotating is a directory with a CA and another that is to follow it.
func rotating(t testing.TB) (Dir, *CA, *CA) {
	t.Helper()
	d := Dir(t.TempDir())
	now, next := newCA(t), func() *CA {
		ca, err := NewCANamed(rand.Reader, start(), "pigsty-ca-20260102")
		require.NoError(t, err)
		return ca
	}()
	require.NoError(t, d.Save(now))
	return d, now, next
}

// TestRotation goes all the way. Each change is made twice: what was cut off is
// made again.
func TestRotation(t *testing.T) {
	d, was, next := rotating(t)
	r, err := d.Rotation()
	require.NoError(t, err)
	require.Equal(t, Rotation{}, r)
	for _, early := range []func() error{d.TrustNext, d.SignWithNext, d.TrustOldNoMore, func() error { _, err := d.RetireOld("x"); return err }} {
		require.ErrorIs(t, early(), ErrNoRotation)
	}

	require.NoError(t, d.SaveNext(next))
	require.ErrorIs(t, d.SaveNext(next), ErrExists)
	for range 2 {
		require.NoError(t, d.TrustNext())
		ca, err := d.Load()
		require.NoError(t, err)
		require.True(t, ca.Cert.Equal(was.Cert), "the one before still signs")
		require.Equal(t, string(was.CertPEM)+string(next.CertPEM), string(ca.CertPEM))
	}

	require.NoError(t, d.SignWithNext())
	require.ErrorIs(t, d.SignWithNext(), ErrNoRotation)
	ca, err := d.Load()
	require.NoError(t, err)
	require.True(t, ca.Cert.Equal(next.Cert))
	require.Equal(t, string(next.CertPEM)+string(was.CertPEM), string(ca.CertPEM), "the one that signs stands first")
	old, err := d.LoadOld()
	require.NoError(t, err)
	require.True(t, old.Cert.Equal(was.Cert))
	r, err = d.Rotation()
	require.NoError(t, err)
	require.Nil(t, r.Next)

	for range 2 {
		require.NoError(t, d.TrustOldNoMore())
		ca, err = d.Load()
		require.NoError(t, err)
		require.Equal(t, string(next.CertPEM), string(ca.CertPEM))
	}
	to, err := d.RetireOld("20260102T030405Z")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(to, "ca.key"))
	r, err = d.Rotation()
	require.NoError(t, err)
	require.Equal(t, Rotation{}, r)
	left, err := filepath.Glob(filepath.Join(string(d), "ca", ".*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestRotationGivenUp: a CA that is not to sign after all goes as it came.
func TestRotationGivenUp(t *testing.T) {
	d, was, next := rotating(t)
	require.ErrorIs(t, d.TrustNextNoMore(), ErrNoRotation)
	require.NoError(t, d.SaveNext(next))
	require.NoError(t, d.TrustNext())
	for range 2 {
		require.NoError(t, d.TrustNextNoMore())
		ca, err := d.Load()
		require.NoError(t, err)
		require.Equal(t, string(was.CertPEM), string(ca.CertPEM))
	}
	to, err := d.RetireNext("20260102T030405Z")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(to, "ca.key"))
	_, err = d.RetireNext("20260102T030406Z")
	require.ErrorIs(t, err, ErrNoRotation)
}

// TestRotationRefuses: what was put there by hand is looked at before it is used.
func TestRotationRefuses(t *testing.T) {
	pair := issue(t, newCA(t), Leaf{Name: "etcd-1", Host: "10.0.0.1"})
	for _, c := range []struct {
		name, says string
		key, cert  []byte
	}{
		{"no key", "there is no CA in", nil, newCA(t).CertPEM},
		{"another's key", "is not the key of ca.crt", newCA(t).keyPEM, newCA(t).CertPEM},
		{"no CA", "is no CA", pair.KeyPEM, pair.CertPEM},
		{"no certificate", "there is no certificate in it", newCA(t).keyPEM, []byte("none")},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, _ := rotating(t)
			require.NoError(t, os.MkdirAll(d.nextDir(), 0o700))
			for name, content := range map[string][]byte{"ca.key": c.key, "ca.crt": c.cert} {
				if content != nil {
					require.NoError(t, os.WriteFile(filepath.Join(d.nextDir(), name), content, 0o600))
				}
			}
			_, err := d.Rotation()
			require.ErrorContains(t, err, c.says)
		})
	}
}

// TestServes: what is for clients alone is told from what servers show too.
func TestServes(t *testing.T) {
	ca := newCA(t)
	pair := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.0.0.1"})
	require.True(t, Serves(pair.CertPEM))
	require.False(t, Serves([]byte("none")))
	leaf := first(t, pair.CertPEM)
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.Cert, leaf.PublicKey, ca.key)
	require.NoError(t, err)
	client := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.False(t, Serves(client))
	require.Equal(t, string(client), string(First(append(bytes.Clone(client), ca.CertPEM...))))
	require.Nil(t, First(nil))
	name, print := Named(ca.CertPEM)
	require.Equal(t, CAName, name)
	require.Len(t, print, len("AB:CD:EF:01"))
}

// TestSignWithNextCutOff: whatever of it was done, one of the two CAs signs, the
// old one is kept, and a second time ends where the first would have.
func TestSignWithNextCutOff(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  func(t *testing.T, d Dir, was, next *CA)
	}{
		{"once the old one is kept", func(t *testing.T, d Dir, was, _ *CA) {
			require.NoError(t, d.saveBeside(d.oldDir(), was.keyPEM, was.CertPEM))
		}},
		{"once ca.crt has the other order", func(t *testing.T, d Dir, was, next *CA) {
			require.NoError(t, d.saveBeside(d.oldDir(), was.keyPEM, was.CertPEM))
			require.NoError(t, os.WriteFile(d.CACertPath(), append(bytes.Clone(next.CertPEM), was.CertPEM...), 0o644))
		}},
		{"once the key is the other's", func(t *testing.T, d Dir, was, next *CA) {
			require.NoError(t, d.saveBeside(d.oldDir(), was.keyPEM, was.CertPEM))
			require.NoError(t, os.WriteFile(d.CACertPath(), append(bytes.Clone(next.CertPEM), was.CertPEM...), 0o644))
			require.NoError(t, os.WriteFile(d.CAKeyPath(), next.keyPEM, 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, was, next := rotating(t)
			require.NoError(t, d.SaveNext(next))
			require.NoError(t, d.TrustNext())
			c.cut(t, d, was, next)
			ca, err := d.Load()
			require.NoError(t, err)
			require.True(t, HoldsCerts(ca.CertPEM, was.CertPEM) && HoldsCerts(ca.CertPEM, next.CertPEM))
			require.NoError(t, d.SignWithNext())
			ca, err = d.Load()
			require.NoError(t, err)
			require.True(t, ca.Cert.Equal(next.Cert))
			old, err := d.LoadOld()
			require.NoError(t, err)
			require.True(t, old.Cert.Equal(was.Cert))
		})
	}
}

// TestCertFiles: certificates are put into a file and taken out of it, and every
// other byte stays.
func TestCertFiles(t *testing.T) {
	a, b, c := newCA(t), newCA(t), newCA(t)
	text := []byte("# ours\n" + string(a.CertPEM) + "# theirs\n" + string(b.CertPEM) + "# the end")
	require.True(t, HoldsCerts(text, a.CertPEM) && HoldsCerts(text, append(bytes.Clone(b.CertPEM), a.CertPEM...)))
	require.False(t, HoldsCerts(text, c.CertPEM))
	require.True(t, HoldsNone(text, c.CertPEM))
	require.False(t, HoldsNone(text, append(bytes.Clone(c.CertPEM), a.CertPEM...)))
	for _, bad := range [][]byte{nil, []byte("nothing")} {
		require.False(t, HoldsCerts(bad, a.CertPEM))
		require.False(t, HoldsNone(bad, a.CertPEM), "what cannot be read may hold anything")
		require.False(t, HoldsCerts(text, bad))
	}
	same, err := AddCerts(text, a.CertPEM)
	require.NoError(t, err)
	require.Equal(t, string(text), string(same))
	more, err := AddCerts(text, append(bytes.Clone(c.CertPEM), a.CertPEM...))
	require.NoError(t, err)
	require.Equal(t, string(text)+"\n"+string(c.CertPEM), string(more))
	less, err := RemoveCerts(more, append(bytes.Clone(b.CertPEM), c.CertPEM...))
	require.NoError(t, err)
	require.Equal(t, "# ours\n"+string(a.CertPEM)+"# theirs\n# the end\n", string(less))
	_, err = RemoveCerts(less, a.CertPEM)
	require.ErrorContains(t, err, "no other certificate would be left")
	_, err = AddCerts(nil, a.CertPEM)
	require.Error(t, err)
}

func TestSignedBy(t *testing.T) {
	a, b := newCA(t), newCA(t)
	leaf := issue(t, a, Leaf{Name: "m", Host: "10.0.0.1"})
	require.True(t, SignedBy(leaf.CertPEM, append(bytes.Clone(b.CertPEM), a.CertPEM...)))
	require.False(t, SignedBy(leaf.CertPEM, b.CertPEM), "of one name, and another key")
	require.False(t, SignedBy([]byte("x"), a.CertPEM))
	require.False(t, SignedBy(leaf.CertPEM, nil))
}

// TestResign: a certificate for the key and the names of the one before, which
// nobody needs the key for.
func TestResign(t *testing.T) {
	a, b := newCA(t), newCA(t)
	pair := issue(t, a, Leaf{Name: "pg-test-1", Host: "10.0.0.7", Validity: 100 * 24 * time.Hour})
	again, err := b.Resign(rand.Reader, start().Add(24*time.Hour), pair.CertPEM)
	require.NoError(t, err)
	require.NoError(t, Pair{CertPEM: again, KeyPEM: pair.KeyPEM}.Matches())
	require.NoError(t, CheckLeaf(Pair{CertPEM: again, KeyPEM: pair.KeyPEM}, b.CertPEM, "10.0.0.7", start().Add(24*time.Hour), 100*24*time.Hour))
	was, is := first(t, pair.CertPEM), first(t, again)
	require.Equal(t, was.RawSubject, is.RawSubject)
	require.Equal(t, was.KeyUsage, is.KeyUsage)
	require.NotEqual(t, was.SerialNumber, is.SerialNumber)
	_, err = b.Resign(rand.Reader, start(), a.CertPEM)
	require.ErrorContains(t, err, "is a CA")
	_, err = b.Resign(rand.Reader, start(), []byte("x"))
	require.Error(t, err)

	// OpenSSL, by which Patroni judges, finds the right one of two CAs of one name.
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; try: apt-get install openssl")
	}
	now := time.Now()
	old, err := NewCA(rand.Reader, now)
	require.NoError(t, err)
	fresh, err := NewCA(rand.Reader, now)
	require.NoError(t, err)
	leaf, err := old.Issue(rand.Reader, now, Leaf{Name: "m", Host: "10.0.0.1"})
	require.NoError(t, err)
	again, err = fresh.Resign(rand.Reader, now, leaf.CertPEM)
	require.NoError(t, err)
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	both, one := put("both", append(bytes.Clone(old.CertPEM), fresh.CertPEM...)), put("one", fresh.CertPEM)
	for _, cert := range []string{put("old.crt", leaf.CertPEM), put("again.crt", again)} {
		out, err := exec.Command("openssl", "verify", "-CAfile", both, "-purpose", "sslserver", cert).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	_, err = exec.Command("openssl", "verify", "-CAfile", one, filepath.Join(dir, "old.crt")).CombinedOutput()
	require.Error(t, err)

	// What is typed by hand, with the key, does the same.
	run := func(args ...string) {
		t.Helper()
		out, err := exec.Command("openssl", args...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	request, byHand := filepath.Join(dir, "client.csr"), filepath.Join(dir, "by-hand.crt")
	run("x509", "-x509toreq", "-copy_extensions", "copy", "-in", filepath.Join(dir, "old.crt"), "-signkey", put("client.key", leaf.KeyPEM), "-out", request)
	run("x509", "-req", "-copy_extensions", "copy", "-days", "7300", "-CA", one, "-CAkey", put("fresh.key", fresh.keyPEM), "-in", request, "-out", byHand)
	content, err := os.ReadFile(byHand)
	require.NoError(t, err)
	require.NoError(t, CheckLeaf(Pair{CertPEM: content, KeyPEM: leaf.KeyPEM}, fresh.CertPEM, "10.0.0.1", now.Add(time.Minute), time.Hour))
}
