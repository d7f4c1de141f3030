package pki

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

// names lists a directory, hidden files included.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestSaveAndLoad(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "files", "pki"))
	_, err := d.Load()
	require.ErrorIs(t, err, ErrNoCA)
	ca := newCA(t)
	require.NoError(t, d.Save(ca))
	require.Equal(t, fs.FileMode(0o700), mode(t, filepath.Dir(d.CAKeyPath())))
	require.Equal(t, fs.FileMode(0o600), mode(t, d.CAKeyPath()))
	require.Equal(t, fs.FileMode(0o644), mode(t, d.CACertPath()))
	require.Equal(t, []string{"ca"}, names(t, string(d)), "nothing is left over")
	got, err := d.Load()
	require.NoError(t, err)
	require.Equal(t, ca.CertPEM, got.CertPEM)
	require.NoError(t, got.Verifies(issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"}).CertPEM))

	err = d.Save(newCA(t))
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, d.CAKeyPath())
	again, err := d.Load()
	require.NoError(t, err)
	require.Equal(t, ca.CertPEM, again.CertPEM, "the CA is the one that was there")
}

func TestSaveBesideOtherFiles(t *testing.T) {
	d := Dir(t.TempDir())
	require.NoError(t, os.MkdirAll(filepath.Dir(d.CAKeyPath()), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(d.CAKeyPath()), ".gitkeep"), nil, 0o600))
	require.NoError(t, d.Save(newCA(t)))
	require.Equal(t, []string{".gitkeep", "ca.crt", "ca.key"}, names(t, filepath.Dir(d.CAKeyPath())))
	require.Equal(t, fs.FileMode(0o600), mode(t, d.CAKeyPath()))
	require.Equal(t, fs.FileMode(0o700), mode(t, filepath.Dir(d.CAKeyPath())))
	require.ErrorIs(t, d.Save(newCA(t)), ErrExists)
	_, err := d.Load()
	require.NoError(t, err)

	// Also when the other came between the look and the writing.
	require.ErrorIs(t, writeNew(d.CAKeyPath(), []byte("x"), 0o600), ErrExists)
	_, err = d.Load()
	require.NoError(t, err)

	linked := Dir(t.TempDir())
	require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(string(linked), "ca")))
	require.NoError(t, linked.Save(newCA(t)))
	_, err = linked.Load()
	require.NoError(t, err)
}

func TestOfTwoThatSaveOneWins(t *testing.T) {
	for range 20 {
		d := Dir(t.TempDir())
		cas := []*CA{newCA(t), newCA(t)}
		errs := make([]error, len(cas))
		var both sync.WaitGroup
		for i, ca := range cas {
			both.Go(func() { errs[i] = d.Save(ca) })
		}
		both.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		require.NoError(t, errs[winner])
		require.ErrorIs(t, errs[1-winner], ErrExists)
		got, err := d.Load()
		require.NoError(t, err)
		require.Equal(t, cas[winner].CertPEM, got.CertPEM)
	}
}

func TestLoadHalfACA(t *testing.T) {
	for _, missing := range []func(Dir) string{Dir.CAKeyPath, Dir.CACertPath} {
		d := Dir(t.TempDir())
		require.NoError(t, d.Save(newCA(t)))
		require.NoError(t, os.Remove(missing(d)))
		_, err := d.Load()
		require.ErrorIs(t, err, ErrHalfCA)
		require.NotErrorIs(t, err, ErrNoCA)
		require.ErrorContains(t, err, missing(d)+" is not")
		require.ErrorIs(t, d.Save(newCA(t)), ErrExists, "half a CA is not written over either")
	}
}

func TestLoadUnreadable(t *testing.T) {
	d := Dir(t.TempDir())
	require.NoError(t, d.Save(newCA(t)))
	require.NoError(t, os.Remove(d.CAKeyPath()))
	require.NoError(t, os.Mkdir(d.CAKeyPath(), 0o700))
	_, err := d.Load()
	require.ErrorContains(t, err, "read the CA's key")
	require.NotErrorIs(t, err, ErrNoCA)

	if os.Geteuid() == 0 {
		t.Skip("root can read everything; run as an ordinary user for the rest")
	}
	d = Dir(t.TempDir())
	require.NoError(t, d.Save(newCA(t)))
	require.NoError(t, os.Chmod(d.CAKeyPath(), 0))
	_, err = d.Load()
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "run as the user who owns it")
	require.NoError(t, os.Chmod(filepath.Dir(d.CAKeyPath()), 0))
	defer os.Chmod(filepath.Dir(d.CAKeyPath()), 0o700)
	_, err = d.Load()
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NotErrorIs(t, err, ErrNoCA, "a directory that cannot be looked into is no reason to make a second CA")
	err = d.Save(newCA(t))
	require.ErrorIs(t, err, fs.ErrPermission)
}

func TestPairs(t *testing.T) {
	d, ca := Dir(t.TempDir()), newCA(t)
	_, err := d.LoadPair("etcd-1")
	require.ErrorIs(t, err, fs.ErrNotExist)
	pair := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	require.NoError(t, d.SavePair("etcd-1", pair))
	got, err := d.LoadPair("etcd-1")
	require.NoError(t, err)
	require.True(t, string(pair.CertPEM) == string(got.CertPEM) && string(pair.KeyPEM) == string(got.KeyPEM) && string(pair.CSRPEM) == string(got.CSRPEM))
	require.Equal(t, fs.FileMode(0o600), mode(t, d.KeyPath("etcd-1")))
	require.Equal(t, fs.FileMode(0o644), mode(t, d.CertPath("etcd-1")))
	require.Equal(t, []string{"etcd-1.crt", "etcd-1.key"}, names(t, filepath.Join(string(d), "etcd")))
	require.Equal(t, []string{"etcd-1.csr"}, names(t, filepath.Join(string(d), "csr")))

	// A new one for the same host takes its place, one for another does not.
	renewed := issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	require.NoError(t, d.SavePair("etcd-1", renewed))
	err = d.SavePair("etcd-1", issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.11"}))
	require.ErrorIs(t, err, ErrTaken)
	require.ErrorContains(t, err, "an etcd_seq must not be used again")
	got, err = d.LoadPair("etcd-1")
	require.NoError(t, err)
	require.Equal(t, renewed.CertPEM, got.CertPEM)

	// A cut between key and certificate is found and can be mended.
	require.NoError(t, os.WriteFile(d.KeyPath("etcd-1"), pair.KeyPEM, 0o600))
	got, err = d.LoadPair("etcd-1")
	require.NoError(t, err)
	require.ErrorIs(t, CheckLeaf(got, ca.CertPEM, "10.10.10.10", start(), 0), ErrKeyMismatch)
	require.NoError(t, d.SavePair("etcd-1", renewed))

	require.NoError(t, d.RemovePair("etcd-1"))
	require.NoError(t, d.RemovePair("etcd-1"))
	require.Empty(t, names(t, filepath.Join(string(d), "etcd")))
	require.Empty(t, names(t, filepath.Join(string(d), "csr")))
	require.NoError(t, d.SavePair("etcd-1", issue(t, ca, Leaf{Name: "etcd-1", Host: "10.10.10.11"})))
}

func TestPairsFollowLinks(t *testing.T) {
	d, ca := Dir(t.TempDir()), newCA(t)
	elsewhere := filepath.Join(t.TempDir(), "k")
	require.NoError(t, os.WriteFile(elsewhere, nil, 0o600))
	require.NoError(t, os.MkdirAll(filepath.Dir(d.KeyPath("m")), 0o755))
	require.NoError(t, os.Symlink(elsewhere, d.KeyPath("m")))
	pair := issue(t, ca, Leaf{Name: "m", Host: "10.0.0.1"})
	require.NoError(t, d.SavePair("m", pair))
	content, err := os.ReadFile(elsewhere)
	require.NoError(t, err)
	require.True(t, string(pair.KeyPEM) == string(content))
}

func TestPairsRefuse(t *testing.T) {
	d, ca := Dir(t.TempDir()), newCA(t)
	a, b := issue(t, ca, Leaf{Name: "a", Host: "10.0.0.1"}), issue(t, ca, Leaf{Name: "b", Host: "10.0.0.2"})
	require.ErrorIs(t, d.SavePair("a", Pair{CertPEM: a.CertPEM, KeyPEM: b.KeyPEM}), ErrKeyMismatch)
	require.Error(t, d.SavePair("a", Pair{CertPEM: a.CertPEM}))
	require.Error(t, d.SavePair("a", Pair{KeyPEM: a.KeyPEM}))
	for _, name := range []string{"", "..", "../ca/ca", "a/b", "/a"} {
		require.Error(t, d.SavePair(name, a), "%q", name)
		_, err := d.LoadPair(name)
		require.ErrorContains(t, err, "cannot stand in a certificate", "%q", name)
		require.Error(t, d.RemovePair(name), "%q", name)
	}
	require.Empty(t, names(t, string(d)), "a refusal writes nothing")
	_, err := NewCA(rand.Reader, start())
	require.NoError(t, err)
}
