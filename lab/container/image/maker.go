package image

import (
	"archive/tar"
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
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"golang.org/x/sys/unix"
)

//go:embed Dockerfile root packages
var source embed.FS

// A Role is what a machine is for, a stage of the Dockerfile.
type Role string

// The roles that there are.
const (
	Machine  Role = "machine"  // etcd alone
	Database Role = "database" // PostgreSQL, Patroni and vip-manager beside it
	// Packaged has no etcd, and Debian's to install: from a repository of its own,
	// by apt, and by dnf where apt-get is taken away.
	Packaged Role = "packaged"
)

// A Maker makes images.
type Maker struct {
	// Builder builds an image, as testcontainers' DockerProvider does, and Docker
	// is a client of the same engine.
	Builder interface {
		BuildImage(ctx context.Context, img testcontainers.ImageBuildInfo) (string, error)
	}
	Docker client.APIClient
	Cache  string    // directory that keeps etcd's binaries; absolute, made when absent
	Log    io.Writer // hears what takes long; nil hears nothing
}

func (m Maker) log() io.Writer {
	if m.Log == nil {
		return io.Discard
	}
	if s, ok := m.Log.(*shared); ok {
		return s
	}
	return &shared{w: m.Log}
}

// shared is a writer for several at once.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// Ref is the name of an image for a processor, as Go names it.
func Ref(role Role, etcd, arch string) (string, error) {
	if role != Machine && role != Database && role != Packaged {
		return "", fmt.Errorf("no machine is a %q", role)
	}
	key, err := keyOfEtcd(etcd, arch)
	if err != nil {
		return "", err
	}
	files, err := files()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", key)
	for _, f := range files {
		fmt.Fprintf(h, "%s %o %d\n", f.name, f.mode, len(f.content))
		h.Write(f.content)
	}
	return "etcdrill/" + string(role) + ":" + etcd + "-" + hex.EncodeToString(h.Sum(nil))[:12], nil
}

// Arch asks an engine for its processor, as Go names it.
func Arch(ctx context.Context, docker client.APIClient) (string, error) {
	v, err := docker.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", fmt.Errorf("ask the engine for its processor: %w", err)
	}
	return v.Arch, nil
}

// Have reports whether the engine has an image.
func Have(ctx context.Context, docker client.APIClient, ref string) (bool, error) {
	_, err := docker.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for image %s: %w", ref, err)
	}
	return true, nil
}

// Ensure gives the name of the image for a role and version of etcd, and makes
// it if it is not there: built tells which. Errors that a caller acts on:
// ErrVersion, ErrNoBase.
func (m Maker) Ensure(ctx context.Context, role Role, etcd string) (ref string, built bool, err error) {
	m.Log = m.log()
	arch, err := Arch(ctx, m.Docker)
	if err != nil {
		return "", false, err
	}
	if ref, err = Ref(role, etcd, arch); err != nil {
		return "", false, err
	}
	if there, err := Have(ctx, m.Docker, ref); err != nil || there {
		return ref, false, err
	}
	// One at a time: the second would do all of it again.
	lock, err := m.lock(ctx)
	if err != nil {
		return "", false, err
	}
	defer lock.Close()
	if there, err := Have(ctx, m.Docker, ref); err != nil || there {
		return ref, false, err
	}
	// Both take a minute or two, and one mostly waits for disks and mirrors.
	both, stop := context.WithCancel(ctx)
	defer stop()
	var bin string
	var etcdErr error
	var wait sync.WaitGroup
	wait.Go(func() {
		if bin, etcdErr = Etcd(both, m.Cache, etcd, arch, m.log()); etcdErr != nil {
			stop()
		}
	})
	baseErr := m.ensureBase(both)
	if baseErr != nil {
		stop()
	}
	wait.Wait()
	switch {
	case ctx.Err() != nil:
		return "", false, fmt.Errorf("make image %s: %w", ref, ctx.Err())
	case baseErr != nil && !errors.Is(baseErr, context.Canceled):
		return "", false, baseErr
	case etcdErr != nil:
		return "", false, etcdErr
	case baseErr != nil:
		return "", false, baseErr
	}
	archive, err := buildContext(bin)
	if err != nil {
		return "", false, err
	}
	fmt.Fprintf(m.log(), "building %s\n", ref)
	repo, tag, _ := strings.Cut(ref, ":")
	var said bytes.Buffer
	_, err = m.Builder.BuildImage(ctx, &testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{
		ContextArchive: bytes.NewReader(archive), Repo: repo, Tag: tag, KeepImage: true, BuildLogWriter: &said,
		BuildOptionsModifier: func(o *client.ImageBuildOptions) {
			o.Target = string(role)
			o.NetworkMode = "host"
			o.Labels = map[string]string{"etcdrill.image": string(role)}
		},
	}})
	if err != nil {
		const most = 4 << 10
		tail := bytes.TrimSpace(said.Bytes())
		if len(tail) > most {
			tail = tail[len(tail)-most:]
		}
		return "", false, fmt.Errorf("build image %s: %w; the build said:\n%s", ref, err, tail)
	}
	return ref, true, nil
}

// lock waits until nobody else on this machine makes images with this cache.
func (m Maker) lock(ctx context.Context) (*os.File, error) {
	if !filepath.IsAbs(m.Cache) {
		return nil, fmt.Errorf("directory for etcd's binaries %q is no absolute path", m.Cache)
	}
	if err := os.MkdirAll(m.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for etcd's binaries: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(m.Cache, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of images: %w", err)
	}
	locked := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				locked <- err
				return
			}
		}
	}()
	select {
	case err := <-locked:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock images: %w", err), f.Close())
		}
		return f, nil
	case <-ctx.Done():
		go func() { <-locked; _ = f.Close() }() // whoever holds it ends some time
		return nil, fmt.Errorf("wait for another process that makes images: %w", ctx.Err())
	}
}

// file is one of the build's context.
type file struct {
	name    string
	mode    int64
	content []byte
}

// files are what the repository contributes, by name.
func files() ([]file, error) {
	var all []file
	err := fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := source.ReadFile(name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if bytes.HasPrefix(content, []byte("#!")) {
			mode = 0o755
		}
		all = append(all, file{name, mode, content})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what an image is made of: %w", err)
	}
	slices.SortFunc(all, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// buildContext packs the context of a build, with the binaries of a directory.
func buildContext(bin string) ([]byte, error) {
	all, err := files()
	if err != nil {
		return nil, err
	}
	for name := range programs() {
		content, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return nil, fmt.Errorf("pack etcd's binaries: %w", err)
		}
		all = append(all, file{path.Join("bin", name), 0o755, content})
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range all {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			return nil, fmt.Errorf("pack the build's context: %w", err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("pack the build's context: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack the build's context: %w", err)
	}
	return b.Bytes(), nil
}
