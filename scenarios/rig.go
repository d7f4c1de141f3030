package scenarios

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// A Rig is a lab with an inventory, and operators for it.
type Rig struct {
	Lab   *embedded.Lab // nil where it is of machines
	Group string
	// Executable is the etcdrill binary that operators are; empty where they
	// only work in this process.
	Executable string
	// Password is that of etcd's root, where the cluster asks for users or will;
	// empty where it never does.
	Password string

	ground ground
}

// RigSpec says what rig to build.
type RigSpec struct {
	Root       string   // directory of labs
	Executable string   // see Rig
	Inventory  []byte   // what the lab's inventory says
	Group      string   // its group; empty is etcd
	Spares     []string // hosts that the lab has and the inventory does not
	Seed       int64
	Mounts     []string // directories of every host that cannot be renamed
	Disks      bool     // data directories are on disks that can be hurt; see embedded.Spec
	Points     bool     // members listen for who arms one of their gofail points
	// Version is the etcd that hosts have, empty for the one that is linked in;
	// Versions are real ones that they can get as a package.
	Version  string
	Versions map[string]string
	Stand    *Stand // of machines; nil makes an embedded lab
}

// Build brings a lab up for an inventory. It has a host for every host of the
// group, of the infra group, and for the spares.
func Build(ctx context.Context, spec RigSpec) (*Rig, error) {
	if spec.Group == "" {
		spec.Group = "etcd"
	}
	if spec.Stand != nil {
		return spec.Stand.build(ctx, spec)
	}
	hosts, err := labHosts(spec)
	if err != nil {
		return nil, err
	}
	var environment []string
	if spec.Points {
		environment = []string{fault.PointsEnvironment}
	}
	lab, err := embedded.Up(ctx, embedded.Spec{
		Root: spec.Root, Hosts: hosts, Inventory: spec.Inventory, Seed: spec.Seed,
		Executable: spec.Executable, Mounts: spec.Mounts, Disks: spec.Disks,
		Version: spec.Version, Versions: spec.Versions, Environment: environment,
	})
	if err != nil {
		return nil, fmt.Errorf("bring up the lab: %w", err)
	}
	return &Rig{Lab: lab, Group: spec.Group, Executable: spec.Executable, ground: cells{lab}}, nil
}

func labHosts(spec RigSpec) ([]string, error) {
	inv, err := inventory.Parse("inventory", spec.Inventory)
	if err != nil {
		return nil, err
	}
	g, err := inv.Group(spec.Group)
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, h := range g.Hosts {
		hosts = append(hosts, h.Name)
	}
	for _, h := range slices.Concat(g.Clients(), spec.Spares) {
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return hosts, nil
}

// Inventory is the path of the lab's inventory.
func (r *Rig) Inventory() string { return r.ground.Inventory() }

// State is where operators keep journals and snapshots.
func (r *Rig) State() string { return filepath.Join(filepath.Dir(r.Inventory()), ".etcdrill") }

func (r *Rig) pki() pki.Dir {
	return pki.Dir(filepath.Join(filepath.Dir(r.Inventory()), "files", "pki"))
}

// TLS is a client's identity, by the lab's own CA. There is none before a
// cluster was created.
func (r *Rig) TLS() (*tls.Config, error) { return clientTLS(r.pki()) }

func clientTLS(keys pki.Dir) (*tls.Config, error) {
	ca, err := keys.Load()
	if err != nil {
		return nil, err
	}
	p, err := ca.Issue(rand.Reader, time.Now(), pki.Leaf{Name: "etcdrill-client", Host: "127.0.0.1", Validity: 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	return pki.TLSConfig(ca.CertPEM, p.CertPEM, p.KeyPEM)
}

// Dial reaches one member from a host of the lab, for loads and judges; as root
// where the cluster asks for users.
func (r *Rig) Dial(at string) (workload.Dial, error) {
	if r.Password != "" {
		return r.dialAs(at, rootUser, r.Password)
	}
	return r.dialAs(at, "", "")
}

func (r *Rig) dialAs(at, user, password string) (workload.Dial, error) {
	config, err := r.TLS()
	if err != nil {
		return nil, err
	}
	return workload.Dialer{TLS: config, Connect: r.ground.Connect(at), User: user, Password: password}.Dial, nil
}

// An Operator works on a rig from within this process, with sockets of the
// lab's admin host.
type Operator struct {
	Site   *sop.Site
	Runner *sop.Runner
	Told   []sop.Record // all that its journal took
}

// Operator gives an operator. Close its Site when done.
func (r *Rig) Operator(run string) *Operator {
	o := &Operator{}
	dial := r.ground.Connect(embedded.Admin)
	o.Site = &sop.Site{
		Inventory: r.Inventory(), Group: r.Group, Edit: "edit",
		State: r.State(), PKI: r.pki(),
		Hosts: func(spec inventory.Host) (host.Host, error) { return r.ground.Host(spec.Name), nil },
		Dial: func(_ context.Context, endpoint string) (sop.Etcd, error) {
			config, err := r.TLS()
			if err != nil {
				return nil, err
			}
			return sop.DialMember(clientv3.Config{TLS: config, DialTimeout: 2 * time.Second}, endpoint, dial)
		},
		Now: time.Now, Random: rand.Reader, Deadlines: sop.StandardDeadlines(),
		Self: sop.Holder{User: "operator", Host: "admin", BootID: "lab", PID: os.Getpid(), Run: run},
	}
	o.Runner = &sop.Runner{Site: o.Site, Run: run, Poll: 50 * time.Millisecond,
		Journal: sop.JournalFunc(func(rec sop.Record) error { o.Told = append(o.Told, rec); return nil })}
	return o
}

// Fingerprint hashes every file of every host, but for what a member writes of
// its own accord while it idles: its log.
func (r *Rig) Fingerprint(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	hosts := r.ground.Hosts()
	prints, errs := make([]map[string]string, len(hosts)), make([]error, len(hosts))
	var hashing sync.WaitGroup
	for i, name := range hosts {
		hashing.Go(func() { prints[i], errs[i] = r.ground.Fingerprint(ctx, name) })
	}
	hashing.Wait()
	for i, name := range hosts {
		if errs[i] != nil {
			return nil, fmt.Errorf("hash the files of %s: %w", name, errs[i])
		}
		for path, sum := range prints[i] {
			all[name+":"+path] = sum
		}
	}
	content, err := os.ReadFile(r.Inventory())
	if err != nil {
		return nil, err
	}
	all["inventory"] = sop.Digest(string(content))
	return all, nil
}

// Endpoints are the client URLs of hosts, by the standard port.
func Endpoints(hosts ...string) []string {
	urls := make([]string, len(hosts))
	for i, h := range hosts {
		urls[i] = "https://" + h + ":2379"
		if strings.Contains(h, ":") {
			urls[i] = "https://[" + h + "]:2379"
		}
	}
	return urls
}
