package config

import "fmt"

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
	if kind != "" && kind != "etcd" {
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
