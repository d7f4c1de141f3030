package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// MachineSpec says where scenarios are played on machines.
type MachineSpec struct {
	Root  string // directory of container labs, absolute
	Cache string // directory of etcd's binaries, absolute
	Path  string // PATH of the operators, who need ssh
}

// A Stand is a lab of machines that scenarios are played on one after the other:
// machines take long to make, and are put back to how they were instead.
type Stand struct {
	lab  *container.Lab
	path string
}

// forMachines are the rows for a lab of machines: not those of the kill sweep,
// which are hundreds of plays, nor the walk, most of whose strikes machines
// cannot suffer. Smoke and pr are a few that try the kinds of faults that they can;
// the others are played each night.
func forMachines(all []Scenario) []Scenario {
	few := map[string]Tier{
		"add": Smoke, "destroy-safeguarded": Smoke,
		"remove-leader": PR, "restart-leader-killed-between": PR, "leader-paused-at-promote": PR, "power-lost-once-promoted": PR,
		"leader-isolated-at-promote": PR, "disk-full-on-newcomer": PR, "certificate-expired": PR,
		"add-killed-once-announced": PR, "second-operator-removes": PR,
	}
	var rows []Scenario
	for _, s := range all {
		if s.Sweep != nil || s.Tier == Soak {
			continue
		}
		if s.Tier = Nightly; few[s.Name] != "" {
			s.Tier = few[s.Name]
		}
		rows = append(rows, s)
	}
	return rows
}

// spareDisk is how large the disk of the spare host is, which can be filled. It
// is in memory: the host that has it cannot lose its power.
const spareDisk = 512 << 20

// raise makes the machines that the rows need.
func raise(ctx context.Context, spec MachineSpec, rows []Scenario, progress io.Writer) (*Stand, error) {
	var widest Start
	for _, s := range rows {
		widest.Hosts = max(widest.Hosts, s.Start.hosts()+s.Start.Spares)
		widest.Infra = widest.Infra || s.Start.Infra
	}
	from, _ := widest.inventory()
	var machines []container.MachineSpec
	for i := range widest.Hosts {
		m := container.MachineSpec{Host: hostOfScenario(i)}
		if m.Host == spare {
			m.Disk = spareDisk
		}
		machines = append(machines, m)
	}
	if widest.Infra {
		machines = append(machines, container.MachineSpec{Host: infraOfScenario})
	}
	lab, err := container.Up(ctx, container.Spec{Root: spec.Root, Cache: spec.Cache, Machines: machines, Inventory: from, Progress: progress})
	if err != nil {
		return nil, fmt.Errorf("bring up the machines: %w", err)
	}
	if lab.Info().Gate != "" {
		return nil, errors.Join(fmt.Errorf("%w: the machines are reached by a gate, and clients of etcd have no way through it", ErrLab), lab.Down(ctx))
	}
	return &Stand{lab: lab, path: spec.Path}, nil
}

// clear puts a machine back to where it never had etcd, whatever was done to it.
const clear = `systemctl kill --signal=KILL --kill-whom=all etcd 2>/dev/null
systemctl unmask etcd 2>/dev/null
systemctl disable --now etcd 2>/dev/null
rm -rf /etc/etcd /etc/systemd/system/etcd.service /etc/systemd/system/etcd.service.d /etc/profile.d/etcdctl.sh /run/etcdrill.lock /etc/pki/infra.* /etc/pki/ca.crt
find /data -mindepth 1 -delete
systemctl daemon-reload && systemctl reset-failed`

// build puts the machines back to how they were, and gives the lab the inventory
// of a scenario.
func (st *Stand) build(ctx context.Context, spec RigSpec) (*Rig, error) {
	hosts, err := labHosts(spec)
	if err != nil {
		return nil, err
	}
	info := st.lab.Info()
	g := &machineGround{Stand: st, began: time.Now(), links: map[netswitch.Link]netswitch.Rule{}, hits: map[netswitch.Link]int64{}, refused: map[string]int64{}}
	var clearing sync.WaitGroup
	errs := make([]error, len(info.Machines))
	for i, m := range st.lab.Machines() {
		if slices.Contains(hosts, m.Info().For) {
			g.hosts = append(g.hosts, m.Host())
		}
		clearing.Go(func() { errs[i] = st.clear(ctx, m) })
	}
	clearing.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	beside := filepath.Dir(info.Inventory)
	for _, name := range []string{"files", ".etcdrill", "elsewhere", fault.JournalName} {
		if err := os.RemoveAll(filepath.Join(beside, name)); err != nil {
			return nil, err
		}
	}
	if _, err := st.lab.Furnish(spec.Inventory); err != nil {
		return nil, err
	}
	if g.inventory, err = inventory.Read(info.Inventory); err != nil {
		return nil, err
	}
	if g.hands, err = ssh.New(ssh.Config{}); err != nil {
		return nil, err
	}
	return &Rig{Group: spec.Group, Executable: spec.Executable, ground: g}, nil
}

func (st *Stand) clear(ctx context.Context, m *container.Machine) error {
	if _, err := m.Heal(ctx); err != nil {
		return err
	}
	if err := m.Power(ctx, true); err != nil {
		return err
	}
	_, err := m.Run(ctx, "/bin/sh", "-c", clear)
	return err
}

// down takes the machines down.
func (st *Stand) down(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer stop()
	return st.lab.Down(ctx)
}

// machineGround is a lab of machines as a ground, for one scenario. Operators
// are processes of this machine, and so are clients: nothing can come between
// them and the lab.
type machineGround struct {
	*Stand
	hands     *ssh.Client // those of whoever looks, and of faults
	inventory *inventory.Inventory
	hosts     []string
	began     time.Time

	mu      sync.Mutex
	links   map[netswitch.Link]netswitch.Rule
	hits    map[netswitch.Link]int64 // of filters that others have taken the place of
	refused map[string]int64         // writes, by disks that are full
}

func (g *machineGround) Kind() string            { return "container" }
func (g *machineGround) Dir() string             { return g.lab.Info().Dir }
func (g *machineGround) Inventory() string       { return g.lab.Info().Inventory }
func (g *machineGround) Hosts() []string         { return slices.Clone(g.hosts) }
func (g *machineGround) Here(text string) string { return g.lab.Info().Here(text) }

func (g *machineGround) Host(name string) host.Host {
	spec, err := ssh.SpecOf(g.inventory.Host(name))
	if err != nil {
		return lost{name, err}
	}
	return g.hands.Host(spec)
}

// lost is a host that cannot be reached, for a reason that is known.
type lost struct {
	name string
	err  error
}

func (l lost) Name() string { return l.name }
func (l lost) Look(context.Context, host.Question) (host.Facts, error) {
	return host.Facts{}, fmt.Errorf("%w: %w", host.ErrUnreachable, l.err)
}
func (l lost) Do(context.Context, host.Act) error {
	return fmt.Errorf("%w: %w", host.ErrUnreachable, l.err)
}

func (l lost) Fetch(context.Context, string, io.Writer) error {
	return fmt.Errorf("%w: %w", host.ErrUnreachable, l.err)
}

func (g *machineGround) Connect(string) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	}
}

// Operate starts an operator on this machine.
func (g *machineGround) Operate(ctx context.Context, argv, env []string, dir string, stdout, stderr *os.File) (process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...) // its end is its caller's to bring about
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is passed on by the caller
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &localProcess{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
			p.err = err
		}
	}()
	return p, nil
}

// localProcess is a process of this machine.
type localProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (p *localProcess) Done() <-chan struct{}      { return p.done }
func (p *localProcess) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Wait gives the exit status, 128 and the signal for one that was killed.
func (p *localProcess) Wait() (int, error) {
	<-p.done
	if p.err != nil {
		return 0, p.err
	}
	if w, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal()), nil
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// CPU is that of its children as well, which ssh is.
func (p *localProcess) CPU() time.Duration {
	<-p.done
	if p.cmd.ProcessState == nil {
		return 0
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

func (g *machineGround) Surroundings() map[string]string {
	if g.path == "" {
		return nil
	}
	return map[string]string{"PATH": g.path}
}

// sh runs a script on a machine; $1 and what follows are words.
func (g *machineGround) sh(ctx context.Context, name, script string, words ...string) (string, error) {
	m, err := g.lab.Machine(name)
	if err != nil {
		return "", err
	}
	return m.Run(ctx, append([]string{"/bin/sh", "-c", script, "sh"}, words...)...)
}

// Read implements ground.
func (g *machineGround) Read(ctx context.Context, name, path string) ([]byte, time.Time, error) {
	out, err := g.sh(ctx, name, `[ -e "$1" ] || exit 0; stat -L -c %.9Y "$1"; cat "$1"`, path)
	if err != nil {
		return nil, time.Time{}, err
	}
	if out == "" {
		return nil, time.Time{}, fmt.Errorf("%s on %s: %w", path, name, fs.ErrNotExist)
	}
	stamp, content, _ := strings.Cut(out, "\n")
	written, err := moment1970(stamp)
	return []byte(content), written, err
}

// moment1970 reads seconds since 1970 with nine decimals.
func moment1970(text string) (time.Time, error) {
	whole, parts, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read a time: %w", err)
	}
	ns, err := strconv.ParseInt((parts + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read a time: %w", err)
	}
	return time.Unix(s, ns), nil
}

// Glob implements ground. A pattern has no blanks.
func (g *machineGround) Glob(ctx context.Context, name, pattern string) ([]string, error) {
	out, err := g.sh(ctx, name, `for f in $1; do [ ! -e "$f" ] && [ ! -L "$f" ] || echo "$f"; done`, pattern)
	return strings.Fields(out), err
}

// places are what a procedure may touch on a machine.
const places = "/etc/etcd /etc/systemd/system /etc/profile.d /etc/passwd /etc/group /etc/pki /usr/bin/etcd /usr/bin/etcdctl /var/lib/etcd /data"

// Fingerprint leaves out what members and the fault on the disk write.
func (g *machineGround) Fingerprint(ctx context.Context, name string) (map[string]string, error) {
	const look = `find $1 -xdev ! -path '*/member/*' ! -name .etcdrill-filler \( -type f -printf '%p\t%m %u:%g %s ' -exec sha256sum {} \; -o -printf '%p\t%m %u:%g %y %l\n' \) 2>/dev/null; true`
	out, err := g.sh(ctx, name, look, places)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(out) {
		path, print, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if sum, _, file := strings.Cut(print, "  "); file {
			print = sum // sha256sum tells the path again
		}
		all[path] = print
	}
	return all, nil
}

func (g *machineGround) Newest(ctx context.Context, name string) (path string, written time.Time, err error) {
	out, err := g.sh(ctx, name, `find $1 -xdev -type f -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1`, places)
	if err != nil || out == "" {
		return "", time.Time{}, err
	}
	stamp, path, _ := strings.Cut(strings.TrimSpace(out), " ")
	written, err = moment1970(stamp)
	return path, written, err
}

func (g *machineGround) Logs(ctx context.Context, name string, to io.Writer) error {
	m, err := g.lab.Machine(name)
	if err != nil {
		return err
	}
	err = m.Exec(ctx, nil, to, "journalctl", "--no-pager", "-o", "short-iso-precise", "-u", "etcd", "-t", "etcdrill", fmt.Sprintf("--since=@%d", g.began.Unix()))
	if err != nil { // switched off, say
		_, err = fmt.Fprintf(to, "not all of it: %v\n", err)
	}
	return err
}

func (g *machineGround) Leave(context.Context) error { return g.hands.Close() }

// --- what faults act on ---

// Member implements fault.Members.
func (g *machineGround) Member(ctx context.Context, name string, sig syscall.Signal) error {
	m, err := g.lab.Machine(name)
	if err != nil {
		return err
	}
	return m.Signal(ctx, config.UnitName, strings.TrimPrefix(unix.SignalName(sig), "SIG"))
}

// Power implements fault.Powered.
func (g *machineGround) Power(ctx context.Context, name string, on bool) error {
	m, err := g.lab.Machine(name)
	if err != nil {
		return err
	}
	if m.Info().Disk > 0 && !on {
		return fmt.Errorf("switch %s off: its disk is in memory, and would be empty afterwards: %w", name, errors.ErrUnsupported)
	}
	return m.Power(ctx, on)
}

// BearsLink implements fault.Choosy: packet filters cut, and do nothing else.
func (g *machineGround) BearsLink(from, to fault.Role, rule netswitch.Rule) error {
	for _, r := range []fault.Role{from, to} {
		if r == fault.Admin || r == fault.Client {
			return fmt.Errorf("container lab: operators and clients are on one machine, outside of it: %w", errors.ErrUnsupported)
		}
	}
	if rule.Cut || rule.Zero() {
		return nil
	}
	return fmt.Errorf("container lab: links can be cut, and not made to %s: %w", rule, errors.ErrUnsupported)
}

// BearsDisk implements fault.Choosy.
func (g *machineGround) BearsDisk(f baddisk.Fault) error {
	if f.Full {
		return nil
	}
	return fmt.Errorf("container lab: a disk can be full, and neither slow nor forgetful: %w", errors.ErrUnsupported)
}

// Link implements fault.Links, by the packet filter of the receiver.
func (g *machineGround) Link(ctx context.Context, from, to string, rule netswitch.Rule) error {
	m, err := g.lab.Machine(to)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.count(ctx, to); err != nil {
		return err
	}
	link := netswitch.Link{From: from, To: to}
	if rule.Zero() {
		delete(g.links, link)
	} else {
		g.links[link] = rule
	}
	var drops []container.Drop
	for l, r := range g.links {
		if l.To == to {
			drops = append(drops, container.Drop{From: l.From, Ports: r.Ports})
		}
	}
	return m.Lose(ctx, drops...)
}

// count takes down what the filter of a machine has dropped, before another takes
// its place.
func (g *machineGround) count(ctx context.Context, to string) error {
	lost, err := g.lost(ctx, to)
	for l, n := range lost {
		g.hits[l] += n
	}
	return err
}

func (g *machineGround) lost(ctx context.Context, to string) (map[netswitch.Link]int64, error) {
	m, err := g.lab.Machine(to)
	if err != nil {
		return nil, err
	}
	counts, err := m.Lost(ctx)
	all := map[netswitch.Link]int64{}
	for from, n := range counts {
		all[netswitch.Link{From: from, To: to}] = n
	}
	return all, err
}

// Counters implements fault.Links.
func (g *machineGround) Counters(ctx context.Context) (map[netswitch.Link]netswitch.Counter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[netswitch.Link]netswitch.Counter{}
	for l, n := range g.hits {
		all[l] = netswitch.Counter{Cut: n}
	}
	asked := map[string]bool{}
	for l := range g.links {
		if asked[l.To] {
			continue
		}
		asked[l.To] = true
		lost, err := g.lost(ctx, l.To)
		if err != nil {
			return nil, err
		}
		for l, n := range lost {
			c := all[l]
			c.Cut += n
			all[l] = c
		}
	}
	return all, nil
}

// Disk implements fault.Disks. That a full disk refuses a write is seen at once.
func (g *machineGround) Disk(ctx context.Context, name string, f baddisk.Fault) error {
	m, err := g.lab.Machine(name)
	if err != nil {
		return err
	}
	if !f.Full {
		return m.Free(ctx)
	}
	if err := m.Fill(ctx, 0); err != nil {
		return err
	}
	if _, err := m.Run(ctx, "dd", "if=/dev/zero", "of=/data/.etcdrill-filler", "bs=64k", "count=1", "oflag=append", "conv=notrunc", "status=none"); err != nil {
		g.mu.Lock()
		g.refused[name]++
		g.mu.Unlock()
	}
	return nil
}

// DiskCounts implements fault.Disks.
func (g *machineGround) DiskCounts(_ context.Context, name string) (baddisk.Counts, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return baddisk.Counts{Refused: g.refused[name]}, nil
}
