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
func keyOfEtcd(version, arch string) (string, error) {
	mod, sum, err := module(version)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(arch), mod, sum} {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
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
	dir := filepath.Join(cache, "etcd-"+version+"-"+arch+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for etcd %s: %w", version, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("keep etcd %s: %w", version, err)
	}
	// In the same directory, so that it can be moved into place.
	work, err := os.MkdirTemp(cache, ".build-")
	if err != nil {
		return "", fmt.Errorf("build etcd %s: %w", version, err)
	}
	defer os.RemoveAll(work)
	if log == nil {
		log = io.Discard
	}
	fmt.Fprintf(log, "building etcd %s for linux/%s\n", version, arch)
	if err := build(ctx, work, version, arch); err != nil {
		return "", fmt.Errorf("build etcd %s: %w", version, err)
	}
	if err := os.Rename(filepath.Join(work, "bin"), dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another was faster
		}
		return "", fmt.Errorf("keep etcd %s: %w", version, err)
	}
	return dir, nil
}

func build(ctx context.Context, work, version, arch string) error {
	mod, sum, err := module(version)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "go.mod"), mod, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "go.sum"), sum, 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(work, "bin"), 0o755); err != nil {
		return err
	}
	for name, pkg := range programs() {
		cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join("bin", name), pkg)
		cmd.Dir = work
		// The caller's settings of where modules come from hold; those of how a
		// build is made would make another.
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			if errors.Is(err, exec.ErrNotFound) {
				return errors.New("the go command is needed for this, and is not in the PATH: install Go, or make the lab once where there is one and move the image with docker save and load")
			}
			return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
		}
	}
	return nil
}
