package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// gathered makes a configuration file of variables and options, which a real
// etcd takes as well: ETCD_NAME=n1 or --name=n1 is name: n1, and an option
// outweighs a variable. The file is in /run of the host.
func gathered(t task) (string, error) {
	settings := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := settings[name]; !ok {
			order = append(order, name)
		}
		settings[name] = value
	}
	for _, e := range t.Env {
		name, value, _ := strings.Cut(e, "=")
		if name, ok := strings.CutPrefix(name, "ETCD_"); ok {
			set(strings.ReplaceAll(strings.ToLower(name), "_", "-"), value)
		}
	}
	for i := 1; i < len(t.Args); i++ {
		name, value, given := strings.Cut(strings.TrimLeft(t.Args[i], "-"), "=")
		switch {
		case !strings.HasPrefix(t.Args[i], "-"):
			return "", fmt.Errorf("%q is not a valid flag", t.Args[i])
		case !given && i+1 < len(t.Args) && !strings.HasPrefix(t.Args[i+1], "-"):
			i++
			value = t.Args[i]
		case !given:
			value = "true"
		}
		set(name, value)
	}
	var top, client, peer strings.Builder
	for _, name := range order {
		at, key := &top, name
		if rest, ok := strings.CutPrefix(name, "peer-"); ok && ofTLS(rest) {
			at, key = &peer, "  "+rest
		} else if ofTLS(name) {
			at, key = &client, "  "+name
		}
		fmt.Fprintf(at, "%s: %s\n", key, scalarOf(name, settings[name]))
	}
	if client.Len() > 0 {
		top.WriteString("client-transport-security:\n" + client.String())
	}
	if peer.Len() > 0 {
		top.WriteString("peer-transport-security:\n" + peer.String())
	}
	file := fmt.Sprintf("/run/etcd-%d.conf", os.Getpid())
	return file, os.WriteFile(file, []byte(top.String()), 0o600)
}

func ofTLS(name string) bool {
	switch name {
	case "cert-file", "key-file", "trusted-ca-file", "client-cert-auth", "auto-tls", "client-cert-file", "client-key-file":
		return true
	}
	return false
}

// scalarOf writes a value as YAML: numbers and booleans as they are, where text
// is not wanted.
func scalarOf(name, v string) string {
	if _, err := strconv.ParseInt(v, 10, 64); (err == nil || v == "true" || v == "false") && name != "auto-compaction-retention" && name != "name" {
		return v
	}
	return strconv.Quote(v)
}
