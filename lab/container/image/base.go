package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Base is what the Dockerfile begins with.
const Base = "debian:trixie"

const release = "trixie"

// pullTime is how long a registry may take. One that cannot be reached is often
// known at once, and sometimes only by its silence.
const pullTime = 5 * time.Minute

// ErrNoBase says that there is no Debian to begin with. The text tells what was
// tried.
var ErrNoBase = errors.New("no " + Base + " can be had")

// ensureBase sees to it that the engine has the base image.
func (m Maker) ensureBase(ctx context.Context) error {
	_, err := m.Docker.ImageInspect(ctx, Base)
	if err == nil {
		return nil
	}
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("look for image %s: %w", Base, err)
	}
	fmt.Fprintf(m.log(), "pulling %s\n", Base)
	pulled := m.pull(ctx)
	if pulled == nil {
		return nil
	}
	fmt.Fprintf(m.log(), "no registry gives it (%v); making it by debootstrap, which takes a minute or two\n", pulled)
	if err := m.bootstrap(ctx); err != nil {
		return fmt.Errorf("%w: the registry says: %w; and debootstrap: %w", ErrNoBase, pulled, err)
	}
	return nil
}

func (m Maker) pull(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	reply, err := m.Docker.ImagePull(ctx, Base, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer reply.Close()
	return reply.Wait(ctx)
}

// bootstrap makes the base image out of this machine's apt sources.
func (m Maker) bootstrap(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: run this once as root, or docker load an image of that name")
	}
	if err := installDebootstrap(ctx); err != nil {
		return err
	}
	mirrors, err := mirrors(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "etcdrill-debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var errs []error
	for i, mirror := range mirrors {
		root := filepath.Join(work, fmt.Sprint(i))
		if _, err := run(ctx, "debootstrap", "--variant=minbase", "--include=ca-certificates", release, root, mirror); err != nil {
			errs = append(errs, fmt.Errorf("from %s: %w", mirror, err))
			continue
		}
		if err := asHere(ctx, root); err != nil {
			return err
		}
		return m.importRoot(ctx, root)
	}
	return errors.Join(errs...)
}

func installDebootstrap(ctx context.Context) error {
	if _, err := exec.LookPath("debootstrap"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("debootstrap is not installed, and there is no apt-get to install it")
	}
	install := []string{"apt-get", "-qq", "-y", "--no-install-recommends", "install", "debootstrap"}
	if _, err := run(ctx, install...); err == nil {
		return nil
	}
	// The lists may be missing, or old.
	if _, err := run(ctx, "apt-get", "-qq", "update"); err != nil {
		return fmt.Errorf("install debootstrap: %w", err)
	}
	if _, err := run(ctx, install...); err != nil {
		return fmt.Errorf("install debootstrap: %w", err)
	}
	return nil
}

// mirrors are the repositories that apt here has, those of Debian proper first.
// Whether one of them has our release is for debootstrap to find out.
func mirrors(ctx context.Context) ([]string, error) {
	const format = "$(REPO_URI) $(COMPONENT) $(LABEL)"
	said, err := run(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages")
	if err != nil {
		return nil, fmt.Errorf("ask apt for its mirrors: %w", err)
	}
	all := mirrorsIn(said)
	if len(all) == 0 {
		return nil, errors.New("apt here has no sources to take Debian from")
	}
	return all, nil
}

// mirrorsIn reads lines of a repository's address, component and label.
func mirrorsIn(text string) []string {
	var debian, others []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2 || f[1] != "main" || strings.HasPrefix(f[0], "cdrom:"):
		case len(f) == 3 && f[2] == "Debian":
			debian = append(debian, f[0])
		case len(f) == 2: // not fetched yet, so that nobody knows what it is
			others = append(others, f[0])
		}
	}
	var all []string
	for _, uri := range append(debian, others...) {
		if !slices.Contains(all, uri) {
			all = append(all, uri)
		}
	}
	return all
}

// asHere gives a new system those settings of apt without which the mirror may
// be of no use to it.
func asHere(ctx context.Context, root string) error {
	said, err := run(ctx, "apt-config", "dump")
	if err != nil {
		return err
	}
	if keep := settings(said); keep != "" {
		if err := os.WriteFile(filepath.Join(root, "etc/apt/apt.conf.d/90etcdrill"), []byte(keep), 0o644); err != nil {
			return fmt.Errorf("set apt up: %w", err)
		}
	}
	for _, waste := range []string{"var/cache/apt/archives", "var/lib/apt/lists"} {
		if err := os.RemoveAll(filepath.Join(root, waste)); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(root, waste, "partial"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// settings picks, of what apt-config dumps, proxies and what is checked of
// dates. A proxy with a password in it is left out: images are passed on.
func settings(dump string) string {
	var keep strings.Builder
	for line := range strings.Lines(dump) {
		name, value, _ := strings.Cut(line, " ")
		switch name {
		case "Acquire::http::Proxy", "Acquire::https::Proxy":
			if strings.Contains(value, "@") {
				continue
			}
		case "Acquire::Check-Valid-Until", "Acquire::Check-Date":
		default:
			continue
		}
		keep.WriteString(line)
	}
	return keep.String()
}

func (m Maker) importRoot(ctx context.Context, root string) (err error) {
	tar := exec.CommandContext(ctx, "tar", "--numeric-owner", "-C", root, "-c", ".")
	var said bytes.Buffer
	tar.Stderr = &said
	content, err := tar.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tar.Start(); err != nil {
		return fmt.Errorf("pack the system: %w", err)
	}
	defer func() {
		if e := tar.Wait(); e != nil && err == nil {
			err = fmt.Errorf("pack the system: %w: %s", e, said.String())
		}
	}()
	reply, err := m.Docker.ImageImport(ctx, client.ImageImportSource{Source: content, SourceName: "-"}, Base,
		client.ImageImportOptions{Message: "made by debootstrap", Changes: []string{`CMD ["bash"]`}})
	if err != nil {
		return fmt.Errorf("import the system: %w", err)
	}
	defer reply.Close()
	if _, err := io.Copy(io.Discard, reply); err != nil {
		return fmt.Errorf("import the system: %w", err)
	}
	return nil
}

// run runs a command and gives what it said on stdout. What it said in all is
// in the error, its end if it is long.
func run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &all), &all
	if err := cmd.Run(); err != nil {
		const most = 2 << 10
		said := bytes.TrimSpace(all.Bytes())
		if len(said) > most {
			said = said[len(said)-most:]
		}
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said)
	}
	return out.String(), nil
}
