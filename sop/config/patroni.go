package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// PatroniEndpoints gives the endpoints in a Patroni file, etcd3.hosts, as
// host:port. A file without the key gives ErrNoEndpoints: it uses another way
// to find etcd, or another store.
func PatroniEndpoints(content []byte) ([]string, error) {
	d, err := parseDocument(content)
	if err != nil {
		return nil, fmt.Errorf("read Patroni's file: %w", err)
	}
	return d.patroniHosts()
}

func (d *document) patroniHosts() ([]string, error) {
	hosts, err := d.list("etcd3", "hosts")
	if err != nil {
		return nil, fmt.Errorf("read Patroni's file: %w", err)
	}
	if len(hosts) > 0 {
		return withoutScheme(hosts), nil
	}
	err = ErrNoEndpoints
	for _, key := range []string{"host", "url", "srv", "proxy"} {
		if p, found := d.find("etcd3", key); found {
			err = fmt.Errorf("line %d: etcd is given by etcd3.%s, not by etcd3.hosts: %w", p.key.Line, key, ErrNoEndpoints)
		}
	}
	if p, found := d.find("etcd"); found && errors.Is(err, ErrNoEndpoints) {
		if _, both := d.find("etcd3"); !both {
			err = fmt.Errorf("line %d: the section etcd speaks etcd's old v2 API, which no living etcd has: %w", p.key.Line, ErrNoEndpoints)
		}
	}
	return nil, fmt.Errorf("read Patroni's file: %w", err)
}

// EditPatroni gives a Patroni file with the hosts in etcd3.hosts replaced by
// endpoints, which may be client URLs, and every other byte as it was. A file
// that names the same hosts already is returned as it is.
func EditPatroni(content []byte, endpoints []string) ([]byte, error) {
	if err := checkEndpoints(endpoints); err != nil {
		return nil, fmt.Errorf("edit Patroni's file: %w", err)
	}
	d, err := parseDocument(content)
	if err != nil {
		return nil, fmt.Errorf("edit Patroni's file: %w", err)
	}
	present, err := d.patroniHosts()
	if err != nil {
		return nil, err
	}
	if SameEndpoints(present, endpoints) {
		return content, nil
	}
	edited, err := setList(content, withoutScheme(endpoints), "etcd3", "hosts")
	if err != nil {
		return nil, fmt.Errorf("edit Patroni's file: %w", err)
	}
	return edited, nil
}

// A Patroni is what a Patroni file says that can be held against what Patroni
// says of itself, and how it reaches etcd. Strings are empty where the file
// does not say; it may be said in Patroni's environment then.
type Patroni struct {
	Scope, Name     string
	RESTConnect     string // host:port that others are told for the REST API
	PostgresConnect string // host:port that others are told for PostgreSQL
	Plain           bool   // etcd is spoken to without TLS: etcd3.protocol is not https
	CA, Cert, Key   string // files for etcd
	User, Password  string // for etcd
	Namespace       string // of its keys; "/service/" where the file names none
}

// Prefix is what all keys of its cluster begin with.
func (p Patroni) Prefix() string {
	return "/" + strings.Trim(cmp.Or(p.Namespace, "service"), "/") + "/" + p.Scope + "/"
}

// ParsePatroni reads what a Patroni file says, whether or not it names etcd.
func ParsePatroni(content []byte) (Patroni, error) {
	d, err := parseDocument(content)
	if err != nil {
		return Patroni{}, fmt.Errorf("read Patroni's file: %w", err)
	}
	var p Patroni
	var protocol string
	for _, f := range []struct {
		to   *string
		path []string
	}{
		{&p.Scope, []string{"scope"}}, {&p.Name, []string{"name"}},
		{&p.RESTConnect, []string{"restapi", "connect_address"}}, {&p.PostgresConnect, []string{"postgresql", "connect_address"}},
		{&protocol, []string{"etcd3", "protocol"}},
		{&p.CA, []string{"etcd3", "cacert"}}, {&p.Cert, []string{"etcd3", "cert"}}, {&p.Key, []string{"etcd3", "key"}},
		{&p.User, []string{"etcd3", "username"}}, {&p.Password, []string{"etcd3", "password"}}, {&p.Namespace, []string{"namespace"}},
	} {
		if *f.to, err = d.text(f.path...); err != nil {
			return Patroni{}, fmt.Errorf("read Patroni's file: %w", err)
		}
	}
	p.Plain = protocol != "https" && p.CA == ""
	return p, nil
}
