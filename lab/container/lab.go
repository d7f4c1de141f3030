package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"

	"github.com/etcdrill/etcdrill/lab/container/image"
)

// A MachineSpec says what one machine is.
type MachineSpec struct {
	Host string     // its name in the inventory, an IPv4 address
	Role image.Role // empty is image.Machine
	Etcd string     // version that is installed; empty is Spec.Etcd
	// Disk makes /data a file system of its own of so many bytes, which Fill can
	// fill. It is in memory, and a reboot empties it. Zero makes /data a volume on
	// the engine's disk.
	Disk int64
}

// A Spec says what lab to make.
type Spec struct {
	Root  string // directory that holds labs, absolute and without blanks; made when absent
	Cache string // directory that keeps etcd's binaries, absolute; made when absent
	Name  string // of the lab, a file name; empty takes the first free of container1, container2, ...

	Machines  []MachineSpec
	Etcd      string // version; empty is image.DefaultEtcd
	Inventory []byte // the lab's own is made from it

	Keep     bool      // the lab outlives its creator; else Heal takes it for dead once he is gone
	Gate     bool      // machines are reached over the gate, even where that is not needed
	Started  time.Time // what Info tells; zero is now
	Progress io.Writer // hears of what takes long; nil hears nothing
}

// MachineInfo describes a machine.
type MachineInfo struct {
	Host      string // its name in the lab's inventory, which is its address
	For       string // the host of Spec that it stands for
	Role      image.Role
	Etcd      string // version, as the image has it
	Container string // its name at the engine
	Image     string
	Disk      int64
}

// Info describes a lab.
type Info struct {
	Name       string
	Dir        string
	Inventory  string // path of the lab's inventory
	SSHConfig  string // for work by hand: ssh -F FILE HOST
	Key        string // private key of root and dba, on all machines
	KnownHosts string
	Hosts      []string // names of the machines, in Spec's order
	Machines   []MachineInfo
	Network    string // its name at the engine
	Subnet     netip.Prefix
	Gateway    netip.Addr // the engine's host, as machines see it
	Gate       string     // "host port" of the gate; empty where machines are reached directly
	Engine     string     // its address, as it was reached then
	EngineID   string
	Cache      string
	Root       string // identity of the directory of labs, as labels tell it
	Keep       bool
	Started    time.Time

	// State is "up", "dead", or says what is between; only List tells it.
	State string `json:"-"`
}

// A Lab is a running lab.
type Lab struct {
	engine engine
	info   Info
	owner  *ownership // nil unless it is to end with us
}

// Labels of containers and networks.
const (
	labelRoot    = "etcdrill.root"
	labelLab     = "etcdrill.lab"
	labelMachine = "etcdrill.machine"
)

// Up makes a lab, images included, and returns when its machines can be reached.
// When ctx ends first, or anything fails, nothing is left but images. Errors that
// a caller acts on: ErrNoDocker, ErrExists, image.ErrNoBase, image.ErrVersion.
func Up(ctx context.Context, s Spec) (*Lab, error) {
	if s.Name != filepath.Base(filepath.Clean("/"+s.Name)) && s.Name != "" || strings.HasPrefix(s.Name, ".") || strings.ContainsAny(s.Name, " \t\n'\"\\$`%~") {
		return nil, fmt.Errorf("name of lab %q is no plain file name", s.Name)
	}
	if s.Progress == nil {
		s.Progress = io.Discard
	}
	s.Machines = slices.Clone(s.Machines)
	var hosts []string
	for i := range s.Machines {
		m := &s.Machines[i]
		if m.Role == "" {
			m.Role = image.Machine
		}
		for _, version := range []string{s.Etcd, image.DefaultEtcd} {
			if m.Etcd == "" {
				m.Etcd = version
			}
		}
		hosts = append(hosts, m.Host)
	}
	from, err := networksOf(hosts)
	if err != nil {
		return nil, err
	}
	e, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	// Images first: what takes longest, and leaves no lab behind when it fails.
	images := map[MachineSpec]string{}
	maker := e.maker(s.Cache, s.Progress)
	for _, m := range s.Machines {
		key := MachineSpec{Role: m.Role, Etcd: m.Etcd}
		if images[key] == "" {
			if images[key], _, err = maker.Ensure(ctx, m.Role, m.Etcd); err != nil {
				return nil, errors.Join(err, e.close())
			}
		}
	}
	dir, id, owner, err := claim(s.Root, s.Name)
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	l := &Lab{engine: e, owner: owner, info: Info{
		Name: filepath.Base(dir), Dir: dir, Root: id, Engine: e.docker.DaemonHost(), EngineID: e.id, Cache: s.Cache, Keep: s.Keep, Started: s.Started,
		Inventory:  filepath.Join(dir, inventoryName),
		SSHConfig:  filepath.Join(dir, sshConfigName),
		Key:        filepath.Join(dir, keyName),
		KnownHosts: filepath.Join(dir, knownName),
	}}
	if l.info.Started.IsZero() {
		l.info.Started = time.Now()
	}
	if err := l.raise(ctx, s, from, images); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("bring up lab %s: %w", l.info.Name, err), l.Down(end))
	}
	if s.Keep {
		owner.end()
		l.owner = nil
	}
	return l, nil
}

// raise makes the network, the files and the machines.
func (l *Lab) raise(ctx context.Context, s Spec, from []netip.Prefix, images map[MachineSpec]string) error {
	i := &l.info
	labels := map[string]string{labelRoot: i.Root, labelLab: i.Name}
	m, name, err := l.engine.makeNetwork(ctx, from, func(m mapping) (netip.Addr, error) {
		var err error
		i.Gateway, err = m.free(func(a netip.Addr) bool {
			stands := readdress(s.Inventory, m.addr)
			return slices.ContainsFunc(s.Machines, func(x MachineSpec) bool { return inLab(m, x.Host) == a.String() }) ||
				strings.Contains(string(stands), a.String())
		})
		return i.Gateway, err
	}, labels)
	if err != nil {
		return err
	}
	i.Network, i.Subnet = name, m.to
	for _, x := range s.Machines {
		host := inLab(m, x.Host)
		if err := m.usable(netip.MustParseAddr(host)); err != nil {
			return fmt.Errorf("machine for %s: %w", x.Host, err)
		}
		i.Hosts = append(i.Hosts, host)
		i.Machines = append(i.Machines, MachineInfo{
			Host: host, For: x.Host, Role: x.Role, Etcd: x.Etcd, Disk: x.Disk,
			Container: "etcdrill-" + host, Image: images[MachineSpec{Role: x.Role, Etcd: x.Etcd}],
		})
	}
	if err := writeInfo(*i); err != nil {
		return err
	}
	here, err := local(i.Gateway)
	if err != nil {
		return err
	}
	key, err := newKey("lab " + i.Name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(i.Key, key.private, 0o600); err != nil {
		return fmt.Errorf("write the lab's key: %w", err)
	}
	keys := make(map[string]keyPair, len(i.Machines)+1)
	var known strings.Builder
	for _, host := range append(slices.Clone(i.Hosts), "gate") {
		if keys[host], err = newKey(host); err != nil {
			return err
		}
		fmt.Fprintf(&known, "%s %s\n", host, keys[host].public)
	}
	if err := os.WriteFile(i.KnownHosts, []byte(known.String()), 0o600); err != nil {
		return fmt.Errorf("write known hosts: %w", err)
	}
	err = each(i.Machines, func(x MachineInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		// An engine goes on with what it was asked for when nobody waits for it any
		// more, so that a machine would come after it was looked for and removed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if err := l.start(ctx, x, key, keys[x.Host], labels); err != nil {
			return fmt.Errorf("machine %s: %w", x.Host, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Gate || !here {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if i.Gate, err = l.openGate(last, key, keys["gate"], labels); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
	}
	left, err := l.Furnish(s.Inventory)
	if err != nil {
		return err
	}
	for _, h := range left {
		fmt.Fprintf(s.Progress, "the lab's inventory is without %s: the lab has no machine for it\n", h)
	}
	if err := os.WriteFile(i.SSHConfig, []byte(i.sshConfig()), 0o600); err != nil {
		return fmt.Errorf("write configuration of ssh: %w", err)
	}
	if err := each(l.Machines(), func(x *Machine) error { return x.AwaitUp(ctx) }); err != nil {
		return err
	}
	if err := writeInfo(*i); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.Dir, completeName), nil, 0o600); err != nil {
		return fmt.Errorf("write lab down: %w", err)
	}
	return nil
}

// Furnish makes the lab's inventory from another: that of Spec, or one of the same
// hosts. It says which hosts it left out, since the lab has no machine for them.
func (l *Lab) Furnish(from []byte) (left []string, err error) {
	i := l.info
	m, err := i.mapping()
	if err != nil {
		return nil, err
	}
	isMachine := func(h string) bool { return slices.Contains(i.Hosts, h) }
	inventory, left, err := translate(from, m.addr, isMachine, reach{Key: i.Key, CommonArgs: i.commonArgs()})
	if err != nil {
		return left, err
	}
	if err := check(inventory, isMachine); err != nil {
		return left, fmt.Errorf("inventory of the lab: %w", err)
	}
	if err := os.WriteFile(i.Inventory, append([]byte(mark+i.Dir+"\n"), inventory...), 0o600); err != nil {
		return left, fmt.Errorf("write inventory: %w", err)
	}
	return left, nil
}

// mapping is how the addresses of Spec became the lab's.
func (i Info) mapping() (mapping, error) {
	hosts := make([]string, len(i.Machines))
	for n, m := range i.Machines {
		hosts[n] = m.For
	}
	from, err := networksOf(hosts)
	return mapping{from: from, to: i.Subnet}, err
}

// Here puts the lab's addresses into a text that has those of Spec's networks.
func (i Info) Here(text string) string {
	m, err := i.mapping()
	if err != nil {
		return text // there was no lab without one
	}
	return string(readdress([]byte(text), m.addr))
}

// inLab maps a host's name, which networksOf has found to be an address.
func inLab(m mapping, host string) string {
	a, _ := m.addr(netip.MustParseAddr(host))
	return a.String()
}

// each does something to all elements, a few at a time, and gives all errors.
func each[T any](all []T, do func(T) error) error {
	const atOnce = 4
	var wait sync.WaitGroup
	errs := make([]error, len(all))
	free := make(chan struct{}, atOnce)
	for i, x := range all {
		free <- struct{}{}
		wait.Go(func() {
			errs[i] = do(x)
			<-free
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// start makes the container of a machine and starts it.
func (l *Lab) start(ctx context.Context, x MachineInfo, user, host keyPair, labels map[string]string) error {
	addr := netip.MustParseAddr(x.Host)
	labels = with(labels, labelMachine, x.Host)
	files := []testcontainers.ContainerFile{
		text("/etc/ssh/ssh_host_ed25519_key", 0o600, string(host.private)),
		text("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, host.public+"\n"),
		text("/etc/ssh/etcdrill.pub", 0o644, user.public+"\n"),
		text("/etc/etcdrill-lab", 0o644, l.info.Name+"\n"),
	}
	if x.Disk > 0 {
		files = append(files, text("/etc/etcdrill-disk", 0o644, strconv.FormatInt(x.Disk, 10)+"\n"))
	}
	_, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		Started: true, Logger: silent{},
		ContainerRequest: testcontainers.ContainerRequest{
			Image: x.Image, Name: x.Container, Labels: labels, Networks: []string{l.info.Network}, Files: files,
			// What systemd wants of a container that is not privileged.
			Tmpfs:          map[string]string{"/run": "exec", "/run/lock": ""},
			ConfigModifier: func(c *container.Config) { c.Hostname = hostname(l.info.Subnet, addr) },
			HostConfigModifier: func(h *container.HostConfig) {
				h.NetworkMode = container.NetworkMode(l.info.Network)
				h.CapAdd = []string{"SYS_ADMIN", "NET_ADMIN"}
				h.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined"}
				// A reboot from inside ends the container; whoever stops it from
				// outside wants it to stay off.
				h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyUnlessStopped}
				if x.Disk == 0 {
					// A volume goes with its container. It is the disk itself, while
					// the container's own files may be behind a process that serves
					// one request at a time, and then every fsync of etcd's log
					// keeps all else on the machine waiting.
					h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeVolume, Target: "/data", VolumeOptions: &mount.VolumeOptions{Labels: labels}})
				}
				l.engine.groups(h)
			},
			EndpointSettingsModifier: func(m map[string]*network.EndpointSettings) {
				m[l.info.Network] = endpoint(addr)
			},
		},
	})
	return err
}

func endpoint(a netip.Addr) *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: a}}
}

func text(path string, mode int64, content string) testcontainers.ContainerFile {
	return testcontainers.ContainerFile{Reader: strings.NewReader(content), ContainerFilePath: path, FileMode: mode}
}

func with(labels map[string]string, key, value string) map[string]string {
	all := map[string]string{key: value}
	for k, v := range labels {
		all[k] = v
	}
	return all
}

// hostname tells machines apart by the end of their address.
func hostname(subnet netip.Prefix, a netip.Addr) string {
	b := a.As4()
	if subnet.Bits() == block {
		return fmt.Sprintf("host-%d", b[3])
	}
	return fmt.Sprintf("host-%d-%d", b[2], b[3])
}

// openGate starts the gate of a lab whose engine runs elsewhere, and gives the
// host and port at which it is reached from here.
func (l *Lab) openGate(ctx context.Context, user, host keyPair, labels map[string]string) (string, error) {
	const port = "22/tcp"
	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		Started: true, Logger: silent{},
		ContainerRequest: testcontainers.ContainerRequest{
			Image: l.info.Machines[0].Image, Name: "etcdrill-gate-" + l.info.Subnet.Addr().String(), Labels: labels,
			ExposedPorts: []string{port},
			Entrypoint:   []string{"/bin/sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e"},
			Networks:     []string{"bridge", l.info.Network},
			Files: []testcontainers.ContainerFile{
				text("/etc/ssh/ssh_host_ed25519_key", 0o600, string(host.private)),
				text("/etc/ssh/etcdrill.pub", 0o644, user.public+"\n"),
			},
		},
	})
	if err != nil {
		return "", err
	}
	mapped, err := c.MappedPort(ctx, port)
	if err != nil {
		return "", fmt.Errorf("ask for its port: %w", err)
	}
	return l.engine.host() + " " + mapped.Port(), nil
}

// host is where the engine's published ports are reached: on its own host.
func (e engine) host() string {
	u, err := url.Parse(e.docker.DaemonHost())
	if err == nil && u.Hostname() != "" && u.Scheme != "unix" {
		return u.Hostname()
	}
	return net.IPv4(127, 0, 0, 1).String()
}

// groups lets systemd make groups of processes. Where the hierarchies are
// several (cgroup v1), it needs them all, as the engine's host has them. Where
// there is one, the container has its own part of it, which boot makes writable.
func (e engine) groups(h *container.HostConfig) {
	if e.unified {
		h.CgroupnsMode = container.CgroupnsModePrivate
		return
	}
	h.Binds = append(h.Binds, "/sys/fs/cgroup:/sys/fs/cgroup:rw")
}

// Open opens a lab by its directory. ErrGone says that there is none, or that
// none of its machines is left; ErrElsewhere that another engine has it.
func Open(ctx context.Context, dir string) (*Lab, error) {
	i, err := Describe(dir)
	if err != nil {
		return nil, err
	}
	e, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	l := &Lab{engine: e, info: i}
	if err := e.has(i); err != nil {
		return nil, errors.Join(err, e.close())
	}
	there, err := l.containers(ctx)
	if err == nil && len(there) == 0 {
		err = fmt.Errorf("%w: no machine of lab %s is left", ErrGone, i.Name)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return l, nil
}

// Info describes the lab.
func (l *Lab) Info() Info { return l.info }

// Host gives the name that a host of Spec has in the lab; empty when there is no
// machine for it.
func (i Info) Host(was string) string {
	for _, m := range i.Machines {
		if m.For == was {
			return m.Host
		}
	}
	return ""
}

// Holds says why a host, to be reached at an address, is no machine of the lab;
// nil for one that is.
func (i Info) Holds(name, addr string) error {
	if slices.Contains(i.Hosts, name) && addr == name {
		return nil
	}
	if slices.Contains(i.Hosts, name) {
		return fmt.Errorf("host %s is to be reached at %s, outside of lab %s", name, addr, i.Name)
	}
	if h := i.Host(name); h != "" {
		return fmt.Errorf("%s is no machine of lab %s: %s stands for it there", name, i.Name, h)
	}
	return fmt.Errorf("%s is no machine of lab %s; it has %s", name, i.Name, strings.Join(i.Hosts, ", "))
}

// Machines are all machines, in Spec's order.
func (l *Lab) Machines() []*Machine {
	all := make([]*Machine, len(l.info.Machines))
	for n, m := range l.info.Machines {
		all[n] = &Machine{lab: l, info: m}
	}
	return all
}

// Machine gives a machine by its name, in the lab or in Spec.
func (l *Lab) Machine(name string) (*Machine, error) {
	for _, m := range l.Machines() {
		if m.info.Host == name {
			return m, nil
		}
	}
	for _, m := range l.Machines() {
		if m.info.For == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no machine %s; it has %s", l.info.Name, name, strings.Join(l.info.Hosts, ", "))
}

// containers are what the engine has of the lab.
func (l *Lab) containers(ctx context.Context) ([]container.Summary, error) {
	return l.engine.labelled(ctx, labelRoot+"="+l.info.Root, labelLab+"="+l.info.Name)
}

// labelled lists containers that have all of some labels, stopped ones too.
func (e engine) labelled(ctx context.Context, labels ...string) ([]container.Summary, error) {
	r, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", labels...)})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return r.Items, nil
}
