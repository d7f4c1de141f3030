// Package loopback runs an etcd cluster inside this process, on loopback
// addresses, without TLS. It is what loads and checkers are tried on: members
// stop and start in a moment, and nothing outlives the process.
//
// It is no lab. It has no hosts, no files that a procedure would know and no
// faults but a stopped member.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Raft timing in milliseconds: short enough for tests, long enough for a
// machine with other work.
const (
	tick     = 50
	election = 500
)

// A Cluster is a cluster of members in this process.
type Cluster struct {
	members []*member
}

type member struct {
	config embed.Config
	etcd   *embed.Etcd // nil while stopped
}

// Start starts a cluster of n members with their data below dir. Member i is
// is named m<i>. The host is a loopback address; one that no other process uses
// (127.x.y.z by process ID, say) keeps the ports that are reserved here from
// being taken by others before etcd listens on them. Where another cluster of
// this process took one, the start is tried again.
func Start(ctx context.Context, dir, host, token string, n int) (*Cluster, error) {
	const tries = 3
	for try := 1; ; try++ {
		c, err := start(ctx, filepath.Join(dir, strconv.Itoa(try)), host, token, n)
		if err == nil || try == tries || !errors.Is(err, syscall.EADDRINUSE) {
			return c, err
		}
	}
}

func start(ctx context.Context, dir, host, token string, n int) (*Cluster, error) {
	urls, err := reserve(host, 2*n)
	if err != nil {
		return nil, err
	}
	var initial []string
	for i := range n {
		initial = append(initial, fmt.Sprintf("m%d=%s", i, urls[2*i].String()))
	}
	c := &Cluster{}
	for i := range n {
		config := embed.NewConfig()
		config.Name = fmt.Sprintf("m%d", i)
		config.Dir = filepath.Join(dir, config.Name)
		config.ListenPeerUrls = []url.URL{urls[2*i]}
		config.AdvertisePeerUrls = []url.URL{urls[2*i]}
		config.ListenClientUrls = []url.URL{urls[2*i+1]}
		config.AdvertiseClientUrls = []url.URL{urls[2*i+1]}
		config.InitialCluster = strings.Join(initial, ",")
		config.InitialClusterToken = token
		config.TickMs, config.ElectionMs = tick, election
		config.UnsafeNoFsync = true // nothing here survives the process anyway
		config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		c.members = append(c.members, &member{config: *config})
	}
	if err := c.startAll(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// startAll starts members together: none is ready before there is a quorum.
func (c *Cluster) startAll(ctx context.Context) error {
	failed := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() { failed <- m.start(ctx) }()
	}
	var err error
	for range c.members {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (m *member) start(ctx context.Context) error {
	config := m.config
	e, err := embed.StartEtcd(&config)
	if err != nil {
		return fmt.Errorf("start member %s: %w", config.Name, err)
	}
	m.etcd = e
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("start member %s: %w", config.Name, err)
	case <-ctx.Done():
		return fmt.Errorf("start member %s: %w", config.Name, ctx.Err())
	}
}

// Endpoint is the client URL of member i.
func (c *Cluster) Endpoint(i int) string { return c.members[i].config.AdvertiseClientUrls[0].String() }

// Endpoints are the client URLs of all members.
func (c *Cluster) Endpoints() []string {
	var all []string
	for i := range c.members {
		all = append(all, c.Endpoint(i))
	}
	return all
}

// PeerURLs are the peer URLs of all members.
func (c *Cluster) PeerURLs() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.config.AdvertisePeerUrls[0].String())
	}
	return all
}

// Leader is the member that leads, -1 when none does.
func (c *Cluster) Leader() int {
	for i, m := range c.members {
		if m.etcd != nil && m.etcd.Server.Leader() == m.etcd.Server.MemberID() {
			return i
		}
	}
	return -1
}

// Stop stops member i in good order.
func (c *Cluster) Stop(i int) {
	if e := c.members[i].etcd; e != nil {
		e.Close()
		c.members[i].etcd = nil
	}
}

// Restart starts a stopped member again with the data it has, and returns
// once it has found its cluster.
func (c *Cluster) Restart(ctx context.Context, i int) error { return c.members[i].start(ctx) }

// Close stops all members, and not in good order: in the end a leader would
// look for a successor in vain, for seconds.
func (c *Cluster) Close() {
	var stopping sync.WaitGroup
	for i, m := range c.members {
		if m.etcd == nil {
			continue
		}
		stopping.Go(func() {
			m.etcd.Server.HardStop()
			c.Stop(i)
		})
	}
	stopping.Wait()
}

// reserve finds free ports. All are held until the last is found, so that
// they differ.
func reserve(host string, n int) ([]url.URL, error) {
	var urls []url.URL
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("reserve a port: %w", err)
		}
		defer l.Close()
		urls = append(urls, url.URL{Scheme: "http", Host: l.Addr().String()})
	}
	return urls, nil
}

// Host is a loopback address of this process's own, for Start.
func Host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>16&63, pid>>8&255, max(pid&255, 1))
}
