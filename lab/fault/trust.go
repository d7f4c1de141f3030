package fault

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// Expired gives a role's hosts a certificate of the right CA that has expired.
// Members read it anew for every connection.
func Expired(who Role) Fault { return trust{who, "expired certificate"} }

// WrongCA gives a role's hosts another CA to trust, as where a second one was
// made by mistake.
func WrongCA(who Role) Fault { return trust{who, "wrong CA"} }

type trust struct {
	who  Role
	kind string
}

func (t trust) String() string { return fmt.Sprintf("%s on %s", t.kind, t.who) }
func (t trust) Kind() string   { return t.kind }
func (t trust) Band() Band     { return Trust }
func (t trust) Roles() []Role  { return []Role{t.who} }

func (t trust) Probe(g *Ground) error {
	var err error
	if g.Images == "" || g.PKI == "" {
		err = unsupported(g, "it has no certificates of its own to make others with")
	}
	return errors.Join(err, t.who.Check())
}

// files gives what to write where on a host.
func (t trust) files(g *Ground, name string) (map[string][]byte, error) {
	now := g.now()
	if t.kind == "wrong CA" {
		ca, err := pki.NewCA(rand.Reader, now)
		if err != nil {
			return nil, err
		}
		return map[string][]byte{config.CAPath: ca.CertPEM}, nil
	}
	ca, err := g.PKI.Load()
	if err != nil {
		return nil, err
	}
	// Issued as if some time ago, but not before the CA was: what is issued is
	// never for the past.
	pair, err := ca.Issue(rand.Reader, now.Add(-30*time.Minute), pki.Leaf{Name: "etcd-" + name, Host: name, Validity: 10 * time.Minute})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{config.ServerCertPath: pair.CertPEM, config.ServerKeyPath: pair.KeyPEM}, nil
}

func (t trust) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, t.who)
	if err != nil {
		return Harm{}, err
	}
	h := Harm{Hosts: hosts}
	var writes []func(ctx context.Context) error
	for _, name := range hosts {
		files, err := t.files(g, name)
		if err != nil {
			return Harm{}, err
		}
		for path, content := range files {
			f, err := fileOf(ctx, g.Lab, name, path)
			if err != nil {
				return Harm{}, err
			}
			kept := filepath.Join(g.Images, "trust", name, filepath.Base(path))
			if err := errors.Join(os.MkdirAll(filepath.Dir(kept), 0o700), os.WriteFile(kept, f.Content, 0o600)); err != nil {
				return Harm{}, err
			}
			sum := sha256.Sum256(content)
			h.Remedy.Files = append(h.Remedy.Files, Kept{Host: name, Path: path, Copy: kept, Wrote: hex.EncodeToString(sum[:])})
			writes = append(writes, func(ctx context.Context) error {
				return g.Lab.Host(name).Do(ctx, host.WriteFile{Path: path, Content: content, Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: path == config.ServerKeyPath})
			})
		}
	}
	h.Do = func(ctx context.Context) error {
		for _, write := range writes {
			if err := write(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	return h, nil
}

// ClockOff puts the clocks of a role's hosts off, as the hosts tell it. What
// runs there goes by this machine's own clock: no lab can give one process
// another wall clock.
func ClockOff(who Role, offset time.Duration) Fault { return clock{who, offset} }

type clock struct {
	who    Role
	offset time.Duration
}

func (c clock) String() string { return fmt.Sprintf("clock of %s is %v off", c.who, c.offset) }
func (c clock) Kind() string   { return "clock" }
func (c clock) Band() Band     { return Trust }
func (c clock) Roles() []Role  { return []Role{c.who} }

func (c clock) Probe(g *Ground) error {
	_, err := needs[Clocks](g, "set a host's clock")
	return errors.Join(err, c.who.Check())
}

func (c clock) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, c.who)
	if err != nil {
		return Harm{}, err
	}
	lab := g.Lab.(Clocks)
	return Harm{Hosts: hosts, Remedy: Remedy{Clocks: hosts},
		Do: func(ctx context.Context) error {
			for _, name := range hosts {
				if err := lab.Clock(ctx, name, c.offset); err != nil {
					return err
				}
			}
			return nil
		}}, nil
}
