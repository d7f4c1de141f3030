package postgres

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Listed is what the files of one instance name, as "host:port", sorted.
type Listed struct {
	Patroni    []string // etcd3.hosts
	VIPManager []string // dcs-endpoints
}

// Listed reads, on every machine, which members of etcd the files of Patroni
// and vip-manager name. The result is by instance.
func (c *Cluster) Listed(ctx context.Context) (map[string]Listed, error) {
	found := make([]Listed, len(c.instances))
	err := c.each(func(n int, i instance) error {
		patroni, err := i.read(ctx, PatroniPath)
		if err != nil {
			return err
		}
		vip, err := i.read(ctx, VIPManagerPath)
		if err != nil {
			return err
		}
		found[n], err = listed(patroni, vip)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read which members are named: %w", err)
	}
	all := map[string]Listed{}
	for n, i := range c.instances {
		all[i.Name] = found[n]
	}
	return all, nil
}

func (i instance) read(ctx context.Context, path string) ([]byte, error) {
	var b bytes.Buffer
	if err := i.Machine.Exec(ctx, nil, &b, "cat", path); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b.Bytes(), nil
}

// listed reads the two files as their programs do, by a parser of YAML, and
// not as those do that edit them.
func listed(patroni, vipManager []byte) (Listed, error) {
	var p struct {
		Etcd3 struct{ Hosts yaml.Node }
	}
	if err := yaml.Unmarshal(patroni, &p); err != nil {
		return Listed{}, fmt.Errorf("read %s: %w", PatroniPath, err)
	}
	var v struct {
		Endpoints []string `yaml:"dcs-endpoints"`
	}
	if err := yaml.Unmarshal(vipManager, &v); err != nil {
		return Listed{}, fmt.Errorf("read %s: %w", VIPManagerPath, err)
	}
	var l Listed
	// Patroni takes a list, or one text with commas.
	if err := p.Etcd3.Hosts.Decode(&l.Patroni); err != nil {
		var text string
		if err := p.Etcd3.Hosts.Decode(&text); err != nil {
			return Listed{}, fmt.Errorf("read etcd3.hosts of %s: %w", PatroniPath, err)
		}
		l.Patroni = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, e := range v.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" {
			return Listed{}, fmt.Errorf("read dcs-endpoints of %s: %q is no URL", VIPManagerPath, e)
		}
		l.VIPManager = append(l.VIPManager, u.Host)
	}
	slices.Sort(l.Patroni)
	slices.Sort(l.VIPManager)
	return l, nil
}
