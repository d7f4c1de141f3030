package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultEtcd is the version of etcd that machines have unless another is asked
// for: the one that etcdrill itself is made with.
const DefaultEtcd = "3.7.3"

//go:embed etcd
var modules embed.FS

// ErrVersion says that there is no module for a version of etcd.
var ErrVersion = errors.New("no such version of etcd can be built")

// Versions are the versions of etcd that can be built, in no particular order
// but always the same.
func Versions() []string {
	entries, err := modules.ReadDir("etcd")
	if err != nil {
		return nil // it is linked in
	}
	var all []string
	for _, e := range entries {
		if v, ok := strings.CutSuffix(e.Name(), ".mod"); ok {
			all = append(all, v)
		}
	}
	return all
}

// programs are what is built, by the names that they have on a host.
func programs() map[string]string {
	return map[string]string{
		"etcd":    "go.etcd.io/etcd/server/v3",
		"etcdctl": "go.etcd.io/etcd/etcdctl/v3",
		"etcdutl": "go.etcd.io/etcd/etcdutl/v3",
	}
}

// module gives the two files of a version's module.
func module(version string) (mod, sum []byte, err error) {
	if !slices.Contains(Versions(), version) {
		return nil, nil, fmt.Errorf("%w: %s; there are %s", ErrVersion, version, strings.Join(Versions(), ", "))
	}
	if mod, err = modules.ReadFile(path.Join("etcd", version+".mod")); err != nil {
		return nil, nil, err
	}
	sum, err = modules.ReadFile(path.Join("etcd", version+".sum"))
	return mod, sum, err
}

// keyOfEtcd is what binaries are known by: what they are made from, and for
// which processor.
func keyOfEtcd(version, arch string, more ...string) (string, error) {
	mod, sum, err := module(version)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range append([]string{arch, string(mod), string(sum)}, more...) {
		fmt.Fprintf(h, "%d\n", len(part))
		io.WriteString(h, part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// Etcd gives a directory that holds etcd, etcdctl and etcdutl of a version,
// statically linked, for Linux on a processor as Go names it. They are built
// unless they are in cache already, which takes a minute or two and writes what
// it does to log, if there is one. Two builds at once do not disturb each other.
func Etcd(ctx context.Context, cache, version, arch string, log io.Writer) (string, error) {
	key, err := keyOfEtcd(version, arch)
	if err != nil {
		return "", err
	}
	return kept(ctx, cache, "etcd-"+version+"-"+arch+"-"+key, fmt.Sprintf("etcd %s for linux/%s", version, arch), log,
		func(work string) error { return build(ctx, work, version, arch) })
}

// kept gives a directory of the cache, after it was built where it is not there:
// what it is to hold is made in bin of the directory that build is given.
func kept(ctx context.Context, cache, name, what string, log io.Writer, build func(work string) error) (string, error) {
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for %s: %w", what, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("keep %s: %w", what, err)
	}
	// In the same directory, so that it can be moved into place.
	work, err := os.MkdirTemp(cache, ".build-")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", what, err)
	}
	defer os.RemoveAll(work)
	if log == nil {
		log = io.Discard
	}
	fmt.Fprintf(log, "building %s\n", what)
	if err := os.Mkdir(filepath.Join(work, "bin"), 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", what, err)
	}
	if err := build(work); err != nil {
		return "", fmt.Errorf("build %s: %w", what, err)
	}
	if err := os.Rename(filepath.Join(work, "bin"), dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another was faster
		}
		return "", fmt.Errorf("keep %s: %w", what, err)
	}
	return dir, nil
}

func build(ctx context.Context, work, version, arch string) error {
	mod, sum, err := module(version)
	if err != nil {
		return err
	}
	if err := writeModule(work, mod, sum); err != nil {
		return err
	}
	for name := range programs() {
		if err := buildProgram(ctx, work, arch, name); err != nil {
			return err
		}
	}
	return nil
}

// buildProgram builds one of the programs of the module that is in work.
func buildProgram(ctx context.Context, work, arch, name string) error {
	_, err := goCommand(ctx, work, arch, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join("bin", name), programs()[name])
	return err
}

// goCommand runs the go command. The caller's settings of where modules come from
// hold; those of how a build is made would make another.
func goCommand(ctx context.Context, dir, arch string, args ...string) ([]byte, error) {
	said, err := command(ctx, dir, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT="}, "go", args...)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("the go command is needed for this, and is not in the PATH: install Go, or make the lab once where there is one and move the image with docker save and load")
	}
	return said, err
}

// command runs a program and gives what it prints; what it says besides is in the
// error.
func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	var printed, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(printed.String()+said.String()))
	}
	return printed.Bytes(), nil
}
