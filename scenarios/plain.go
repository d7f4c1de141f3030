package scenarios

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/lab/workload/loopback"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// plain is a cluster without a lab: the same members, from the same binary and
// with the same certificates and files, but on this machine's own loopback. It
// is what a lab's links are measured against.
type plain struct {
	machines  map[string]*machine.Machine
	endpoints []string
	dial      workload.Dial
}

// startPlain creates a cluster of three below a directory.
func startPlain(ctx context.Context, dir, executable string) (p *plain, err error) {
	defer func() {
		if err != nil {
			p.close()
			p, err = nil, fmt.Errorf("start members on plain loopback: %w", err)
		}
	}()
	p = &plain{machines: map[string]*machine.Machine{}}
	hosts := plainHosts()
	// A member listens for clients on 127.0.0.1 too, so the ports differ.
	ports, err := freePorts(len(hosts))
	if err != nil {
		return p, err
	}
	var text strings.Builder
	text.WriteString("etcd:\n  hosts:\n")
	for i, h := range hosts {
		m, err := machine.New(machine.Config{Name: h, Root: filepath.Join(dir, h), Executable: executable})
		if err != nil {
			return p, err
		}
		p.machines[h] = m
		p.endpoints = append(p.endpoints, fmt.Sprintf("https://%s:%d", h, ports[i]))
		fmt.Fprintf(&text, "    %s: { etcd_seq: %d, etcd_port: %d }\n", h, i+1, ports[i])
	}
	file := filepath.Join(dir, "pigsty.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return p, err
	}
	keys := pki.Dir(filepath.Join(dir, "files", "pki"))
	site := &sop.Site{
		Inventory: file, Group: "etcd", Edit: "none", State: filepath.Join(dir, ".etcdrill"), PKI: keys,
		Hosts: func(spec inventory.Host) (host.Host, error) { return p.machines[spec.Name], nil },
		Dial: func(_ context.Context, endpoint string) (sop.Etcd, error) {
			config, err := clientTLS(keys)
			if err != nil {
				return nil, err
			}
			return sop.DialMember(clientv3.Config{TLS: config, DialTimeout: 2 * time.Second}, endpoint, nil)
		},
		Now: time.Now, Random: rand.Reader, Deadlines: sop.StandardDeadlines(),
		Self: sop.Holder{User: "bench", Host: "admin", BootID: "lab", PID: os.Getpid(), Run: "plain"},
	}
	defer site.Close()
	token, err := config.NewToken(time.Now(), rand.Reader)
	if err != nil {
		return p, err
	}
	run := sop.Runner{Site: site, Run: "plain", Poll: 50 * time.Millisecond, Journal: sop.JournalFunc(func(sop.Record) error { return nil })}
	if _, err := run.Do(ctx, sop.CreateCluster{Token: token, Stamp: sop.Stamp(time.Now())}); err != nil {
		return p, err
	}
	config, err := clientTLS(keys)
	p.dial = workload.Dialer{TLS: config}.Dial
	return p, err
}

// plainHosts are three loopback addresses of this process's own.
func plainHosts() []string {
	first := net.ParseIP(loopback.Host()).To4()
	var hosts []string
	for i := range 3 {
		hosts = append(hosts, net.IPv4(127, first[1]+byte(64*i), first[2], first[3]).String())
	}
	return hosts
}

// freePorts asks the kernel for ports. All are held until the last is found.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a port: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// close ends the members.
func (p *plain) close() {
	for _, m := range p.machines {
		m.Close()
	}
}

// A throughput is a rate of acknowledged writes.
type throughput float64 // puts per second

// measureThroughput puts a load on endpoints for a while. With no reads every
// acknowledged call is a write. The log is nil for a load in memory.
func measureThroughput(ctx context.Context, dial workload.Dial, endpoints []string, prefix string, seed int64, d time.Duration, log *workload.Log) (throughput, error) {
	load, err := workload.Start(ctx, workload.Spec{Seed: seed, Prefix: prefix, Profile: workload.Profile{Mix: workload.Mix{Put: 1}}, Endpoints: workload.Fixed(endpoints...), Dial: dial}, log)
	if err != nil {
		return 0, err
	}
	acked, began := load.Acked(), load.Now()
	waited := pause(ctx, d)
	rate := throughput(float64(load.Acked()-acked) / (load.Now() - began).Seconds())
	_, err = load.Stop()
	return rate, errors.Join(waited, err)
}
