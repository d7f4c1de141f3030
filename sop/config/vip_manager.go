package config

import (
	"errors"
	"fmt"
	"net/netip"
)

const vipManagerKey = "dcs-endpoints"

// VIPManagerEndpoints gives the endpoints in a vip-manager file,
// dcs-endpoints. A file without them gives ErrNoEndpoints.
func VIPManagerEndpoints(content []byte) ([]string, error) {
	d, err := parseDocument(content)
	if err != nil {
		return nil, fmt.Errorf("read vip-manager's file: %w", err)
	}
	return d.vipManagerEndpoints()
}

func (d *document) vipManagerEndpoints() ([]string, error) {
	kind, err := d.text("dcs-type")
	if err != nil {
		return nil, fmt.Errorf("read vip-manager's file: %w", err)
	}
	if kind != "" && kind != "etcd" && kind != "etcd3" {
		return nil, fmt.Errorf("read vip-manager's file: dcs-type is %q: %w", kind, ErrNoEndpoints)
	}
	endpoints, err := d.list(vipManagerKey)
	if err != nil {
		return nil, fmt.Errorf("read vip-manager's file: %w", err)
	}
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("read vip-manager's file: %w", ErrNoEndpoints)
	}
	return endpoints, nil
}

// EditVIPManager gives a vip-manager file with dcs-endpoints replaced by
// endpoints, client URLs, and every other byte as it was. A file that names
// the same endpoints already is returned as it is.
func EditVIPManager(content []byte, endpoints []string) ([]byte, error) {
	if err := checkEndpoints(endpoints); err != nil {
		return nil, fmt.Errorf("edit vip-manager's file: %w", err)
	}
	d, err := parseDocument(content)
	if err != nil {
		return nil, fmt.Errorf("edit vip-manager's file: %w", err)
	}
	present, err := d.vipManagerEndpoints()
	if err != nil {
		return nil, err
	}
	if SameEndpoints(present, endpoints) {
		return content, nil
	}
	edited, err := setList(content, endpoints, vipManagerKey)
	if err != nil {
		return nil, fmt.Errorf("edit vip-manager's file: %w", err)
	}
	return edited, nil
}

// A VIPManager is what a vip-manager file says, as far as it matters for etcd
// and for the address.
type VIPManager struct {
	IP           string // the virtual IP
	TriggerKey   string // etcd's key with the leader
	TriggerValue string // the name of this host in it; empty for the hostname
	Endpoints    []string
	CA, Cert     string // files for etcd; empty without TLS
	Key          string
	User         string // for etcd
	Password     string
}

// ParseVIPManager reads a vip-manager file and refuses one that vip-manager
// would end on: with exit status 1, and with the address left where it is.
func ParseVIPManager(content []byte) (VIPManager, error) {
	d, err := parseDocument(content)
	if err != nil {
		return VIPManager{}, fmt.Errorf("read vip-manager's file: %w", err)
	}
	var m VIPManager
	var mask, device string
	for _, f := range []struct {
		to       *string
		key, old string // version 2 and newer still take the old names
		needed   bool
	}{
		{&m.IP, "ip", "", true}, {&mask, "netmask", "mask", true}, {&device, "interface", "iface", true},
		{&m.TriggerKey, "trigger-key", "key", true}, {&m.TriggerValue, "trigger-value", "nodename", false},
		{&m.CA, "etcd-ca-file", "", false}, {&m.Cert, "etcd-cert-file", "", false}, {&m.Key, "etcd-key-file", "", false},
		{&m.User, "etcd-user", "", false}, {&m.Password, "etcd-password", "", false},
	} {
		if *f.to, err = d.text(f.key); err == nil && *f.to == "" && f.old != "" {
			*f.to, err = d.text(f.old)
		}
		switch {
		case err != nil:
			return VIPManager{}, fmt.Errorf("read vip-manager's file: %w", err)
		case *f.to == "" && f.needed:
			return VIPManager{}, fmt.Errorf("read vip-manager's file: %s is not in it, and vip-manager does not start without", f.key)
		}
	}
	if _, err := netip.ParseAddr(m.IP); err != nil {
		return VIPManager{}, fmt.Errorf("read vip-manager's file: ip: %q is no IP address", m.IP)
	}
	if m.Cert != "" && (m.Key == "" || m.CA == "") {
		return VIPManager{}, errors.New("read vip-manager's file: etcd-cert-file needs etcd-key-file and etcd-ca-file, and vip-manager does not start without")
	}
	if m.Endpoints, err = d.vipManagerEndpoints(); err != nil {
		return VIPManager{}, err
	}
	return m, nil
}
