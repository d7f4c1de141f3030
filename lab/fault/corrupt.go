package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// Corrupt gives the member on a role's host other data than the rest have, in a
// value, where no checksum finds out, and has the key space compacted, so that
// hashes tell. Then the alarm is raised that etcd raises itself where its check of
// hashes is on.
func Corrupt(who Role) Fault { return corrupt{who} }

type corrupt struct{ who Role }

func (c corrupt) String() string { return fmt.Sprintf("the data of %s is wrong", c.who) }
func (c corrupt) Kind() string   { return "corruption" }
func (c corrupt) Band() Band     { return Disk }
func (c corrupt) Roles() []Role  { return []Role{c.who} }

func (c corrupt) Probe(g *Ground) error {
	_, err := needs[Files](g, "reach a host's files from outside")
	return errors.Join(err, c.who.Check())
}

// What the key that is spoilt has, and has afterwards: of the same length.
const (
	spoiltKey = "/etcdrill/spoilt"
	soundBit  = "as-it-was-written"
	wrongBit  = "as-nobody-wrote-i"
)

func (c corrupt) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, c.who)
	if err != nil {
		return Harm{}, err
	}
	name := hosts[0]
	backend := filepath.Join(g.Lab.(Files).Root(name), config.DefaultDataDir, "member", "snap", "db")
	return Harm{Hosts: hosts[:1], Passing: true, Do: func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
		defer stop()
		if err := onMember(ctx, g, name, func(m workload.Etcd) error {
			_, err := m.Put(ctx, spoiltKey, strings.Repeat(soundBit, 8))
			return err
		}); err != nil {
			return err
		}
		// A member that is told to stop commits what it has first.
		if err := g.Lab.Host(name).Do(ctx, host.Systemctl{Verb: host.Stop, Unit: memberUnit}); err != nil {
			return err
		}
		if err := spoil(backend); err != nil {
			return err
		}
		if err := g.Lab.Host(name).Do(ctx, host.Systemctl{Verb: host.Start, Unit: memberUnit}); err != nil {
			return err
		}
		if err := awaitAnswer(ctx, g, name); err != nil {
			return err
		}
		return onMember(ctx, g, name, func(m workload.Etcd) error {
			r, err := m.Put(ctx, "/etcdrill/compacted", "x")
			if err == nil {
				_, err = m.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
			}
			if err != nil {
				return err
			}
			return raiseCorrupt(ctx, m, clientURL(name))
		})
	}}, nil
}

func onMember(ctx context.Context, g *Ground, name string, do func(m workload.Etcd) error) error {
	m, err := g.Cast.Etcd(ctx, name)
	if err != nil {
		return err
	}
	defer m.Close()
	return do(m)
}

// spoil changes the value in a backend whose member does not run. Pages of keys
// have no checksum.
func spoil(backend string) error {
	content, err := os.ReadFile(backend)
	if err != nil {
		return err
	}
	if !bytes.Contains(content, []byte(soundBit)) {
		return fmt.Errorf("%s does not hold what was written", backend)
	}
	return os.WriteFile(backend, bytes.ReplaceAll(content, []byte(soundBit), []byte(wrongBit)), 0o600)
}

// raiseCorrupt raises the alarm about the member that is asked.
func raiseCorrupt(ctx context.Context, m workload.Etcd, endpoint string) error {
	c, ok := m.(interface{ ActiveConnection() *grpc.ClientConn })
	if !ok {
		return errors.New("this client cannot raise an alarm")
	}
	s, err := m.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	_, err = pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx,
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: s.Header.MemberId, Alarm: pb.AlarmType_CORRUPT})
	return err
}
