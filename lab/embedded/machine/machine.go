package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A Config says what a machine is made of.
type Config struct {
	Name string // in the inventory
	Root string // directory that is its root; made when absent, kept when there
	// Spawn starts a command inside the host's network namespace. It may add
	// to SysProcAttr, and the thread that forks must outlive the command,
	// which is killed with it. Nil starts it where this process is, in a user
	// namespace of its own when that is not root.
	Spawn func(cmd *exec.Cmd) error
	// Dial opens a TCP connection from inside the host's network namespace.
	// Nil dials from where this process is.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Within runs a function on a thread that is inside the host's network
	// namespace. Nil has a process of its own look at what is there.
	Within func(f func() error) error
	// Executable is this very binary, or another one whose main function
	// calls MemberMain when argv[0] is MemberName.
	Executable string
	Now        func() time.Time  // the host's own clock; nil is time.Now
	Versions   map[string]string // version -> path of a real, statically linked etcd
	Version    string            // installed in a new root; empty is the embedded one
	Mounts     []string          // directories that count as mount points
	// Environment is what units have in their environment beside what systemd and
	// their files give them, NAME=value each.
	Environment []string
}

// EmbeddedVersion is the version of etcd that this binary can be a member of
// without any other file.
func EmbeddedVersion() string { return version.Version }

// A Machine is a lab host. It implements host.Host.
type Machine struct {
	name    string
	root    tree
	config  Config
	shared  bool // the network is this process's own, other machines' with it
	mounts  map[string]bool
	owners  *owners
	journal sync.Mutex // lines of the service manager itself

	files sync.Mutex // one change of files at a time

	mu        sync.Mutex // what follows
	on        bool
	boots     int
	bootID    string
	units     map[string]*unit
	occupants map[*exec.Cmd]occupant
	children  sync.WaitGroup
}

var _ host.Host = (*Machine)(nil)

// New makes a machine that is switched on and runs nothing. A root that is
// there already is kept as it is, but for /run, which is emptied; to start
// the units that are enabled in it, switch it off and on.
func New(c Config) (*Machine, error) {
	switch {
	case c.Name == "":
		return nil, errors.New("machine has no name")
	case c.Root == "" || !filepath.IsAbs(c.Root):
		return nil, fmt.Errorf("root of machine %s is no absolute path: %q", c.Name, c.Root)
	case c.Executable == "":
		return nil, fmt.Errorf("machine %s has no executable for its members", c.Name)
	}
	c.Root = filepath.Clean(c.Root)
	if c.Now == nil {
		c.Now = time.Now
	}
	shared := c.Spawn == nil
	if shared {
		c.Spawn = spawnHere
	}
	if c.Dial == nil {
		c.Dial = dialHere
	}
	if err := furnish(c.Root, c.Name); err != nil {
		return nil, fmt.Errorf("make root of %s: %w", c.Name, err)
	}
	table, err := openOwners(c.Root)
	if err != nil {
		return nil, fmt.Errorf("read owners of %s: %w", c.Name, err)
	}
	m := &Machine{
		name:      c.Name,
		root:      tree(c.Root),
		config:    c,
		shared:    shared,
		mounts:    map[string]bool{},
		owners:    table,
		units:     map[string]*unit{},
		occupants: map[*exec.Cmd]occupant{},
	}
	for _, dir := range c.Mounts {
		m.mounts[path.Clean(dir)] = true
		if err := os.MkdirAll(m.root.path(dir), 0o755); err != nil {
			return nil, fmt.Errorf("make mount point %s of %s: %w", dir, c.Name, err)
		}
	}
	if _, err := os.Lstat(m.root.path(etcdPath)); errors.Is(err, fs.ErrNotExist) {
		want := c.Version
		if want == "" {
			want = EmbeddedVersion()
		}
		if err := m.Install(want); err != nil {
			return nil, err
		}
	}
	if err := m.boot(); err != nil {
		return nil, err
	}
	return m, nil
}

// Name implements host.Host.
func (m *Machine) Name() string { return m.name }

// Root is the directory that is the machine's root.
func (m *Machine) Root() string { return string(m.root) }

// Journal is the file that takes what a unit writes to its standard output
// and error, and what the service manager says of it.
func (m *Machine) Journal(unit string) string {
	return m.root.path(path.Join(logDir, "journal-"+unit+".log"))
}

// Install puts an etcd of another version at /usr/bin/etcd, and etcdutl beside
// it, as a package manager would. A member that runs goes on running the old one.
func (m *Machine) Install(version string) error {
	m.files.Lock()
	defer m.files.Unlock()
	return m.install(version)
}

// install is Install for who holds the files.
func (m *Machine) install(version string) error {
	if version == EmbeddedVersion() && m.config.Versions[version] == "" {
		return errors.Join(m.replace(etcdPath, []byte(markerEtcd+EmbeddedVersion()+"\n"), 0o755),
			m.replace(etcdutlPath, []byte(markerEtcdutl+EmbeddedVersion()+"\n"), 0o755))
	}
	from, ok := m.config.Versions[version]
	if !ok {
		known := slices.Sorted(maps.Keys(m.config.Versions))
		return fmt.Errorf("install etcd %s on %s: no such version here, only the embedded %s and %v", version, m.name, EmbeddedVersion(), known)
	}
	binary, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("install etcd %s on %s: %w", version, m.name, err)
	}
	if err := m.replace(etcdPath, binary, 0o755); err != nil {
		return fmt.Errorf("install etcd %s on %s: %w", version, m.name, err)
	}
	// A package brings etcdutl too; where it is not at hand, there is none rather
	// than that of another version.
	utility, err := os.ReadFile(filepath.Join(filepath.Dir(from), "etcdutl"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = os.Remove(m.root.path(etcdutlPath)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	case err == nil:
		err = m.replace(etcdutlPath, utility, 0o755)
	}
	if err != nil {
		return fmt.Errorf("install etcdutl %s on %s: %w", version, m.name, err)
	}
	return nil
}

// boot begins a new boot: an empty /run, a new boot ID, no unit loaded.
func (m *Machine) boot() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := empty(m.root.path("/run")); err != nil {
		return fmt.Errorf("empty /run of %s: %w", m.name, err)
	}
	m.owners.forget("/run", false)
	m.boots++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", m.root, m.config.Now().UnixNano(), m.boots))
	m.bootID = fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	m.units = map[string]*unit{}
	m.on = true
	return nil
}

// PowerOff takes the power away: every process is killed at once, whatever
// was being waited for is lost, and the machine cannot be reached. It returns
// when all processes are gone.
func (m *Machine) PowerOff() {
	m.files.Lock() // a change of files in flight is whole or was not begun
	defer m.files.Unlock()
	m.mu.Lock()
	m.on = false
	for _, u := range m.units {
		m.cut(u)
	}
	for cmd := range m.occupants {
		_ = cmd.Process.Kill()
	}
	m.mu.Unlock()
	m.children.Wait()
}

// PowerOn boots a machine that is off and starts the units that are enabled,
// without waiting for them. One that is on is left alone.
func (m *Machine) PowerOn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("switch on %s: %w", m.name, err)
	}
	m.mu.Lock()
	on := m.on
	m.mu.Unlock()
	if on {
		return nil
	}
	if err := m.boot(); err != nil {
		return fmt.Errorf("switch on %s: %w", m.name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range m.root.enabledUnits() {
		u := m.unit(name)
		m.load(u)
		if u.def.load == "loaded" {
			m.start(u)
		}
	}
	return nil
}

// Close is PowerOff for good. The root stays.
func (m *Machine) Close() { m.PowerOff() }

// Signal sends a signal to the main process of a unit, behind the service
// manager's back.
func (m *Machine) Signal(unit string, sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units[unit]
	if u == nil || u.cmd == nil {
		return fmt.Errorf("signal %s to %s on %s: it has no process", sig, unit, m.name)
	}
	if err := u.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s to %s on %s: %w", sig, unit, m.name, err)
	}
	return nil
}

// PID is the main process of a unit, 0 when there is none.
func (m *Machine) PID(unit string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.units[unit]; u != nil && u.cmd != nil {
		return u.cmd.Process.Pid
	}
	return 0
}

func dialHere(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// unreachable is what a machine without power answers.
func (m *Machine) unreachable() error {
	return fmt.Errorf("%s: %w: no route to host", m.name, host.ErrUnreachable)
}

// reach reports whether the machine can be asked at all.
func (m *Machine) reach(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w: %w", m.name, host.ErrUnreachable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.on {
		return m.unreachable()
	}
	return nil
}
