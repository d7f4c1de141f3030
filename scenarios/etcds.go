package scenarios

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"

	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
)

// Etcds gives real etcd binaries of versions, by version, for labs of members
// that this binary cannot be itself. They are built from their modules the first
// time, which takes a minute each and the go command, and kept in cache. The
// version that is linked in is not among them: no file is needed for it.
func Etcds(ctx context.Context, cache string, log io.Writer, versions ...string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range versions {
		if v == machine.EmbeddedVersion() {
			continue
		}
		dir, err := image.Etcd(ctx, cache, v, runtime.GOARCH, log)
		if err != nil {
			return nil, err
		}
		all[v] = filepath.Join(dir, "etcd")
	}
	return all, nil
}

// withPoints puts an etcd with gofail points in the place of the one that is
// linked in, whose code is as it was written. It is built as those of other
// versions are.
func withPoints(ctx context.Context, cache string, versions map[string]string) (map[string]string, error) {
	dir, err := image.EtcdWithPoints(ctx, cache, machine.EmbeddedVersion(), runtime.GOARCH, nil)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(versions)
	all[machine.EmbeddedVersion()] = filepath.Join(dir, "etcd")
	return all, nil
}

// allRun: every member runs a version.
func allRun(version string) Inspection {
	return Inspection{"runs-" + version, func(ctx context.Context, s *stage) error {
		dial, err := s.rig.Dial(embedded.Client)
		if err != nil {
			return err
		}
		for _, h := range s.intended {
			r, err := s.status(ctx, dial, h)
			if err != nil {
				return fmt.Errorf("ask the member on %s: %w", h, err)
			}
			if r.Version != version {
				return fmt.Errorf("the member on %s runs etcd %s", h, r.Version)
			}
		}
		return nil
	}}
}
