package sop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/etcdrill/etcdrill/sop/config"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ClientFiles are the certificate files that a client has.
type ClientFiles struct{ CA, Cert, Key string }

// ReadableClient picks the files of a client that this user can read: those that he
// named, the inventory's, an infra host's own, a member's, or those of the admin host
// that issued them. Own says that this machine's files count; those of a lab's
// cluster are never there. The notes tell of files that are there and that he cannot
// read; where he can read none, the first of those is given.
func (s *Site) ReadableClient(v View, own bool) (files ClientFiles, notes []string) {
	for _, f := range []ClientFiles{s.Named, s.InventoryClient(&v.Wanted)} {
		if f.Cert != "" && f.Key != "" {
			return f, nil
		}
	}
	for _, f := range s.clientFilesOn(v, own) {
		k, err := os.Open(f.Key)
		switch {
		case err == nil:
			k.Close()
			return f, notes
		case errors.Is(err, fs.ErrNotExist):
			continue
		}
		notes = append(notes, fmt.Sprintf("this user cannot read %s: use sudo, or ask for membership of its group", f.Key))
		if files == (ClientFiles{}) {
			files = f
		}
	}
	if len(notes) == 0 {
		notes = []string{"no client certificate was found on this machine: set ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY"}
	}
	return files, notes
}

// clientFilesOn lists where a client's files may be, best first.
func (s *Site) clientFilesOn(v View, own bool) []ClientFiles {
	var all []ClientFiles
	if own {
		all = []ClientFiles{
			{config.InfraCAPath, config.InfraCertPath, config.InfraKeyPath},
			{config.CAPath, config.ServerCertPath, config.ServerKeyPath},
		}
	}
	for _, m := range v.LivingVoters() {
		all = append(all, ClientFiles{s.PKI.CACertPath(), s.PKI.CertPath(m.Name), s.PKI.KeyPath(m.Name)})
	}
	for _, h := range v.Wanted.Hosts {
		n := v.Wanted.MemberName(h)
		all = append(all, ClientFiles{s.PKI.CACertPath(), s.PKI.CertPath(n), s.PKI.KeyPath(n)})
	}
	return all
}

// ClientEnv gives the environment of etcdctl: the endpoints of the living
// voters, never a learner. When nothing answers they are the inventory's, and
// the warning says so.
func ClientEnv(v View, f ClientFiles) (env config.ClientEnv, warning string) {
	env = config.ClientEnv{Endpoints: v.Endpoints(), CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	if len(env.Endpoints) > 0 {
		return env, ""
	}
	for _, h := range v.Wanted.Hosts {
		env.Endpoints = append(env.Endpoints, v.Wanted.ClientURL(h))
	}
	slices.Sort(env.Endpoints)
	return env, "no voter answers: these are the inventory's endpoints, and nobody has confirmed them"
}

// CheckClient tries what a client does: it puts, gets and deletes a key of its
// own through each living voter, and tells what it did.
func (s *Site) CheckClient(ctx context.Context, v View) ([]string, error) {
	voters := v.LivingVoters()
	if len(voters) == 0 {
		return nil, errors.New("no voter answers")
	}
	key := LockKey + ".check." + s.Self.Run
	var told []string
	for _, m := range voters {
		endpoint := v.LookOf(m.ID).Endpoint
		c, err := s.conn(ctx, endpoint)
		if err != nil {
			return told, err
		}
		ctx, stop := context.WithTimeout(ctx, s.Deadlines[Calling])
		_, err = c.KV().Put(ctx, key, "check")
		if err == nil {
			var r *clientv3.GetResponse
			if r, err = c.KV().Get(ctx, key); err == nil && (len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "check") {
				err = errors.New("the key that was put did not come back")
			}
		}
		if err == nil {
			_, err = c.KV().Delete(ctx, key)
		}
		stop()
		if err != nil {
			return told, fmt.Errorf("%s: %s", endpoint, Explain(err))
		}
		told = append(told, endpoint+": put, get and delete of "+key)
	}
	return told, nil
}
