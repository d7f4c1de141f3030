package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMirrors(t *testing.T) {
	const said = `http://security.example/debian-security/ main Debian-Security
https://code.example/apt/ main
http://mirror.example/debian/ main Debian
http://mirror.example/debian/ contrib Debian
http://mirror.example/debian/ main Debian
cdrom:[Debian]/ main Debian
`
	require.Equal(t, []string{"http://mirror.example/debian/", "https://code.example/apt/"}, mirrorsIn(said))
	require.Empty(t, mirrorsIn(""))
}

func TestSettings(t *testing.T) {
	const said = `APT "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "http://user:secret@proxy.example:3128";
Acquire::Check-Valid-Until "false";
Dir::Etc "etc/apt";
`
	require.Equal(t, `Acquire::http::Proxy "http://proxy.example:3128";
Acquire::Check-Valid-Until "false";
`, settings(said))
}

// An image is another as soon as anything that goes into it is.
func TestRef(t *testing.T) {
	seen := map[string]bool{}
	for _, role := range []Role{Machine, Database, Packaged} {
		for _, v := range Versions() {
			for _, arch := range []string{"amd64", "arm64"} {
				ref, err := Ref(role, v, arch)
				require.NoError(t, err)
				require.Regexp(t, `^etcdrill/(machine|database|packaged):3\.[5-7]\.[0-9]+-[0-9a-f]{12}$`, ref)
				require.False(t, seen[ref], ref)
				seen[ref] = true
			}
		}
	}
	require.Contains(t, Versions(), DefaultEtcd)
	_, err := Ref(Machine, "3.4.0", "amd64")
	require.ErrorIs(t, err, ErrVersion)
	_, err = Ref("toaster", DefaultEtcd, "amd64")
	require.Error(t, err)
}

// The modules name one version of etcd's programs, that which they are named for.
func TestModules(t *testing.T) {
	require.Len(t, Versions(), 4)
	for _, v := range Versions() {
		mod, sum, err := module(v)
		require.NoError(t, err)
		for _, pkg := range programs() {
			require.Contains(t, string(mod), pkg+" v"+v+" // indirect\n")
			require.Contains(t, string(sum), pkg+" v"+v+" h1:")
		}
	}
}

func TestContext(t *testing.T) {
	bin := t.TempDir()
	_, err := buildContext(bin)
	require.ErrorIs(t, err, os.ErrNotExist)
	for name := range programs() {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(name), 0o600))
	}
	b, err := buildContext(bin)
	require.NoError(t, err)
	modes := map[string]int64{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		modes[h.Name] = h.Mode
	}
	require.EqualValues(t, 0o755, modes["bin/etcd"])
	require.EqualValues(t, 0o755, modes["root/usr/lib/etcdrill/boot"])
	require.EqualValues(t, 0o644, modes["root/etc/ssh/sshd_config.d/etcdrill.conf"])
	require.Contains(t, modes, "Dockerfile")
	for name := range modes {
		require.False(t, strings.HasPrefix(name, "/"), name)
	}
}

// What fails to build says what the go command said, and leaves nothing behind.
func TestEtcdThatCannotBeBuilt(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOMODCACHE", t.TempDir())
	cache := t.TempDir()
	var log bytes.Buffer
	_, err := Etcd(t.Context(), cache, DefaultEtcd, "amd64", &log)
	require.ErrorContains(t, err, "module lookup disabled by GOPROXY=off")
	require.Contains(t, log.String(), "building etcd "+DefaultEtcd)
	left, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Empty(t, left)

	t.Setenv("PATH", cache)
	_, err = Etcd(t.Context(), cache, DefaultEtcd, "amd64", nil)
	require.ErrorContains(t, err, "install Go")
}
