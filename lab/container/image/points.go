package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// What etcd's points are made with: its own source has them as comments.
const (
	serverModule = "go.etcd.io/etcd/server/v3"
	gofailModule = "go.etcd.io/gofail"
	gofailMod    = "\nrequire " + gofailModule + " v0.2.0\n\nreplace " + serverModule + " => ./server\n"
	gofailSum    = gofailModule + " v0.2.0 h1:p19drv16FKK345a09a1iubchlw/vmRuksmRzgBIGjcA=\n" +
		gofailModule + " v0.2.0/go.mod h1:nL3ILMGfkXTekKI3clMBNazKnjUZjYLKmBHzsVAnC1o=\n"
)

// EtcdWithPoints is Etcd for an etcd that can be told to crash in the middle of
// what it does: its gofail points are compiled in. It listens for who tells it so
// where the environment variable GOFAIL_HTTP says. There is no etcdctl and no
// etcdutl beside it.
func EtcdWithPoints(ctx context.Context, cache, version, arch string, log io.Writer) (string, error) {
	key, err := keyOfEtcd(version, arch, gofailMod, gofailSum)
	if err != nil {
		return "", err
	}
	return kept(ctx, cache, "etcd-points-"+version+"-"+arch+"-"+key, fmt.Sprintf("etcd %s with gofail points for linux/%s", version, arch), log,
		func(work string) error { return buildWithPoints(ctx, work, version, arch) })
}

func buildWithPoints(ctx context.Context, work, version, arch string) error {
	mod, sum, err := module(version)
	if err != nil {
		return err
	}
	// The module as it is, to ask where its source is.
	if err := writeModule(work, mod, sum); err != nil {
		return err
	}
	said, err := goCommand(ctx, work, arch, "list", "-mod=readonly", "-m", "-json", serverModule)
	if err != nil {
		return err
	}
	var m struct{ Dir, Path, Version string }
	if err := json.Unmarshal(said, &m); err != nil {
		return fmt.Errorf("find the source of %s: %w", serverModule, err)
	}
	if m.Dir == "" { // it is not on this machine yet
		if said, err = goCommand(ctx, work, arch, "mod", "download", "-json", m.Path+"@"+m.Version); err != nil {
			return err
		}
		if err := json.Unmarshal(said, &m); err != nil {
			return fmt.Errorf("find the source of %s: %w", serverModule, err)
		}
	}
	if m.Dir == "" {
		return fmt.Errorf("find the source of %s: the go command does not say where it is", serverModule)
	}
	with, err := copySource(m.Dir, filepath.Join(work, "server"))
	if err != nil {
		return fmt.Errorf("copy the source of %s: %w", serverModule, err)
	}
	if len(with) == 0 {
		return fmt.Errorf("the source of %s %s has no gofail points", serverModule, m.Version)
	}
	if err := writeModule(work, append(mod, gofailMod...), append(sum, gofailSum...)); err != nil {
		return err
	}
	tool := filepath.Join(work, "gofail")
	if _, err := goCommand(ctx, work, runtime.GOARCH, "build", "-mod=readonly", "-o", tool, gofailModule); err != nil {
		return err
	}
	if _, err := command(ctx, work, nil, tool, append([]string{"enable"}, with...)...); err != nil {
		return err
	}
	return buildProgram(ctx, work, arch, "etcd")
}

// copySource copies a module without its tests, and gives the directories that
// have points.
func copySource(from, to string) (with []string, err error) {
	err = filepath.WalkDir(from, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !e.Type().IsRegular(), strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if dir := filepath.Join(to, filepath.Dir(rel)); strings.HasSuffix(rel, ".go") && strings.Contains(string(content), "// gofail:") && !slices.Contains(with, dir) {
			with = append(with, dir)
		}
		return os.WriteFile(filepath.Join(to, rel), content, 0o644)
	})
	return with, err
}

func writeModule(work string, mod, sum []byte) error {
	return errors.Join(os.WriteFile(filepath.Join(work, "go.mod"), mod, 0o644), os.WriteFile(filepath.Join(work, "go.sum"), sum, 0o644))
}
