package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/fault"
)

// A ground is a lab as plays stand on it. What of it faults act on they find out
// by themselves.
type ground interface {
	fault.Lab
	Kind() string // of the lab, as -lab has it
	Dir() string  // of the lab, on this machine
	Inventory() string
	Hosts() []string // all that the lab has, those beside the inventory's too
	// Here puts the lab's own addresses into a text that has those of the rows.
	Here(text string) string
	// Connect dials from one of the lab's own hosts, where clients or operators
	// are.
	Connect(at string) func(ctx context.Context, address string) (net.Conn, error)
	// Operate starts a process where operators work; Surroundings is what the
	// environment of an operator has for this lab alone.
	Operate(ctx context.Context, argv, env []string, dir string, stdout, stderr *os.File) (process, error)
	Surroundings() map[string]string

	// Read gives a file of a host, and when it was written; Glob the files that a
	// pattern finds there.
	Read(ctx context.Context, name, path string) ([]byte, time.Time, error)
	Glob(ctx context.Context, name, pattern string) ([]string, error)
	// Fingerprint tells what all files of a host are, but for what a member
	// writes of its own accord while it idles; see machine.Fingerprint.
	Fingerprint(ctx context.Context, name string) (map[string]string, error)
	// Newest is the file of a host that was written last.
	Newest(ctx context.Context, name string) (path string, written time.Time, err error)
	// Logs writes what the services of a host said.
	Logs(ctx context.Context, name string, to io.Writer) error
	// Leave ends what a play began.
	Leave(ctx context.Context) error
}

// A process is an operator's.
type process interface {
	Done() <-chan struct{}
	Wait() (status int, err error)
	CPU() time.Duration // that processors worked for it, when it has ended
	Signal(sig os.Signal) error
}

// cells are an embedded lab as a ground.
type cells struct{ *embedded.Lab }

func (c cells) Kind() string            { return "embedded" }
func (c cells) Dir() string             { return c.Info().Dir }
func (c cells) Inventory() string       { return c.Info().Inventory }
func (c cells) Hosts() []string         { return c.Info().Hosts }
func (c cells) Here(text string) string { return text }

func (c cells) Connect(at string) func(ctx context.Context, address string) (net.Conn, error) {
	return c.DialContext(at)
}

func (c cells) Operate(ctx context.Context, argv, env []string, dir string, stdout, stderr *os.File) (process, error) {
	return c.Exec(ctx, embedded.Admin, argv, env, dir, nil, stdout, stderr)
}

func (c cells) Surroundings() map[string]string {
	return map[string]string{"ETCDRILL_INSIDE": c.Info().Socket}
}

func (c cells) Read(_ context.Context, name, path string) ([]byte, time.Time, error) {
	at := filepath.Join(c.Root(name), path)
	info, err := os.Stat(at)
	if err != nil {
		return nil, time.Time{}, err
	}
	content, err := os.ReadFile(at)
	return content, info.ModTime(), err
}

func (c cells) Glob(_ context.Context, name, pattern string) ([]string, error) {
	return filepath.Glob(filepath.Join(c.Root(name), pattern))
}

func (c cells) Fingerprint(_ context.Context, name string) (map[string]string, error) {
	return machine.Fingerprint(c.Root(name))
}

func (c cells) Newest(_ context.Context, name string) (newest string, written time.Time, err error) {
	root := c.Root(name)
	err = filepath.WalkDir(root, func(at string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(root, at); rel == "run" || rel == filepath.Join("var", "log") {
			return fs.SkipDir
		}
		info, err := e.Info()
		if err == nil && info.ModTime().After(written) {
			newest, written = at, info.ModTime()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return newest, written, err
}

// Logs puts all logs into one, each under its name.
func (c cells) Logs(_ context.Context, name string, to io.Writer) error {
	logs := filepath.Join(c.Root(name), "var", "log")
	return filepath.WalkDir(logs, func(at string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(logs, at)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(to, "== %s\n%s", rel, content)
		return err
	})
}

func (c cells) Leave(ctx context.Context) error { return c.Down(ctx) }
