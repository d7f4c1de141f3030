package container

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/etcdrill/etcdrill/sop/inventory"
)

// mark begins the first line of a lab's inventory; the lab's directory follows.
const mark = "# etcdrill machines: "

// DirOf finds the directory of the lab that an inventory names. It reports false
// for any other inventory.
func DirOf(inventory []byte) (dir string, ok bool) {
	line, _, _ := strings.Cut(string(inventory), "\n")
	dir, ok = strings.CutPrefix(line, mark)
	dir = strings.TrimSpace(dir)
	return dir, ok && dir != ""
}

var address = regexp.MustCompile(`[0-9]{1,3}(?:\.[0-9]{1,3}){3}`)

// readdress replaces all addresses of text, as mapped tells; an address that it
// does not know stays. Digits and dots beside four numbers make something else
// of them.
func readdress(text []byte, mapped func(netip.Addr) (netip.Addr, bool)) []byte {
	var out []byte
	last := 0
	beside := func(i int) bool {
		return i >= 0 && i < len(text) && (text[i] == '.' || text[i] >= '0' && text[i] <= '9')
	}
	for _, at := range address.FindAllIndex(text, -1) {
		a, err := netip.ParseAddr(string(text[at[0]:at[1]]))
		// A full stop may end a sentence.
		after := beside(at[1]) && (text[at[1]] != '.' || beside(at[1]+1))
		if err != nil || beside(at[0]-1) || after {
			continue
		}
		if to, ok := mapped(a); ok {
			out = append(append(out, text[last:at[0]]...), to.String()...)
			last = at[1]
		}
	}
	return append(out, text[last:]...)
}

// reach is what an inventory says of how its hosts are reached.
type reach struct {
	Key        string // private key
	CommonArgs string // options of ssh
}

// translate makes the lab's inventory out of another: addresses replaced, no
// variable that tells Ansible how to reach a host but ours, and no host that is
// not a machine of the lab. It says which hosts it left out.
func translate(content []byte, mapped func(netip.Addr) (netip.Addr, bool), machine func(host string) bool, r reach) (text []byte, left []string, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(readdress(content, mapped), &doc); err != nil {
		return nil, nil, fmt.Errorf("read inventory: %w", err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, nil, errors.New("read inventory: its outermost value is no mapping")
	}
	root := doc.Content[0]
	t := translator{machine: machine, seen: map[*yaml.Node]bool{}}
	for i := 0; i+1 < len(root.Content); i += 2 {
		t.group(root.Content[i+1])
	}
	all := child(root, "all", true)
	vars := child(all, "vars", true)
	set := func(name, value string) {
		vars.Content = append(vars.Content, scalar(name), scalar(value))
	}
	set("ansible_user", "dba")
	set("ansible_ssh_private_key_file", r.Key)
	set("ansible_ssh_common_args", r.CommonArgs)

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return nil, nil, fmt.Errorf("write inventory: %w", err)
	}
	slices.Sort(t.left)
	return b.Bytes(), slices.Compact(t.left), nil
}

// check reads a lab's inventory as a procedure will, and finds hosts that would
// be reached outside of the lab.
func check(text []byte, machine func(host string) bool) error {
	inv, err := inventory.Parse("of the lab", text)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range inv.Groups() {
		g, err := inv.Group(name)
		if err != nil {
			return err
		}
		for _, h := range g.Hosts {
			if !machine(h.Name) || h.Addr != h.Name || h.Connection != "ssh" || h.SSHPort != 0 {
				errs = append(errs, fmt.Errorf("host %s of group %s would be reached outside of the lab", h.Name, name))
			}
		}
	}
	return errors.Join(errs...)
}

type translator struct {
	machine func(host string) bool
	left    []string
	seen    map[*yaml.Node]bool // aliases may lead back
}

// group goes through one group and those below it.
func (t *translator) group(n *yaml.Node) {
	n = resolved(n)
	if n == nil || n.Kind != yaml.MappingNode || t.seen[n] {
		return
	}
	t.seen[n] = true
	for i := 0; i+1 < len(n.Content); i += 2 {
		value := resolved(n.Content[i+1])
		switch n.Content[i].Value {
		case "<<":
			t.merged(value, t.group)
		case "vars":
			t.vars(value)
		case "hosts":
			t.hosts(value)
		case "children":
			if value != nil && value.Kind == yaml.MappingNode {
				for j := 1; j < len(value.Content); j += 2 {
					t.group(value.Content[j])
				}
			}
		}
	}
}

func (t *translator) hosts(n *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode || t.seen[n] {
		return
	}
	t.seen[n] = true
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Value == "<<":
			t.merged(resolved(value), t.hosts)
		case !t.machine(key.Value):
			t.left = append(t.left, key.Value)
			continue
		default:
			t.vars(resolved(value))
		}
		kept = append(kept, key, value)
	}
	n.Content = kept
}

// vars takes out what tells how to reach a host.
func (t *translator) vars(n *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode || t.seen[n] {
		return
	}
	t.seen[n] = true
	var kept []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if strings.HasPrefix(key.Value, "ansible_") {
			continue
		}
		if key.Value == "<<" {
			t.merged(resolved(value), t.vars)
		}
		kept = append(kept, key, value)
	}
	n.Content = kept
}

// merged goes through what a merge key brings: one mapping or several.
func (t *translator) merged(n *yaml.Node, through func(*yaml.Node)) {
	if n == nil {
		return
	}
	if n.Kind == yaml.SequenceNode {
		for _, c := range n.Content {
			through(resolved(c))
		}
		return
	}
	through(n)
}

// resolved follows aliases; nil when they lead nowhere.
func resolved(n *yaml.Node) *yaml.Node {
	for range 64 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// child gives a mapping that stands under a key, and makes it when it is not
// there or empty.
func child(n *yaml.Node, name string, first bool) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != name {
			continue
		}
		v := resolved(n.Content[i+1])
		if v == nil || v.Kind != yaml.MappingNode {
			v = &yaml.Node{Kind: yaml.MappingNode}
			n.Content[i+1] = v
		}
		v.Style &^= yaml.FlowStyle
		return v
	}
	v := &yaml.Node{Kind: yaml.MappingNode}
	pair := []*yaml.Node{scalar(name), v}
	if first {
		n.Content = append(pair, n.Content...)
	} else {
		n.Content = append(n.Content, pair...)
	}
	return v
}

func scalar(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}
