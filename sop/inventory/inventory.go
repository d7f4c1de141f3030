package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ErrNoGroup says that there is no group of that name, or that none was named
// and there are several. The error lists the groups there are.
var ErrNoGroup = errors.New("no such group")

// An Inventory is what one file says. It never changes.
type Inventory struct {
	Path string
	// Lab is the control socket of the lab that the file belongs to, from a
	// leading comment "# etcdrill lab: /path/control.sock"; "" for real hosts.
	Lab string

	content []byte
	root    *yaml.Node
	groups  map[string]*group
	order   []string // names of groups, as they are first met
	entries []entry  // every host entry of every group, as Ansible reads them
	defects []defect
}

// group is one group, gathered from every place that speaks of it.
type group struct {
	name     string
	line     int
	entries  []entry
	vars     []variable
	children []string
	parents  []string
	mappings []*yaml.Node // the `hosts` values, empty ones included
	depth    int          // longest way from all, as Ansible counts
	priority int64        // ansible_group_priority
}

// entry is one host in one group.
type entry struct {
	host    string
	group   string
	key     *yaml.Node
	value   *yaml.Node
	mapping *yaml.Node // where the pair stands
	vars    []variable
}

// variable is one value, and where it was set.
type variable struct {
	name  string
	key   *yaml.Node
	value *yaml.Node // no alias
	on    string     // "all.vars", "group NAME" or "host NAME"
}

// defect is a finding about structure. Only the group it is in is hurt by it.
type defect struct {
	group string // "" for the file as a whole
	Finding
}

// Read reads a file. Only a file that cannot be read or is no YAML is an error.
func Read(path string) (*Inventory, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read inventory: %w", err)
	}
	return Parse(path, content)
}

// Parse reads an inventory from memory; path is only a name. Only broken
// syntax, and a file that is no inventory at all, are errors.
func Parse(path string, content []byte) (*Inventory, error) {
	v, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("inventory %s: %w", path, err)
	}
	v.Path = path
	return v, nil
}

func parse(content []byte) (*Inventory, error) {
	root, err := parseYAML(content)
	if err != nil {
		return nil, err
	}
	v := &Inventory{
		Lab:     labOf(content),
		content: bytes.Clone(content),
		root:    root,
		groups:  map[string]*group{},
	}
	r := &reader{v: v, budget: 200_000}
	r.top(root)
	if r.budget <= 0 {
		return nil, errors.New("aliases repeat too much of the file")
	}
	v.setDepths()
	return v, nil
}

// Bytes is the file as it was read.
func (v *Inventory) Bytes() []byte { return bytes.Clone(v.content) }

// Groups names the groups that hold members: those with a host that has
// etcd_seq of its own, and a group called etcd with any host at all.
func (v *Inventory) Groups() []string {
	var names []string
	for _, name := range v.order {
		g := v.groups[name]
		if name == "all" || name == "ungrouped" {
			continue
		}
		has := name == defaultCluster && len(v.hostsOf(name)) > 0
		for _, e := range g.entries {
			has = has || slices.ContainsFunc(e.vars, func(x variable) bool { return x.name == "etcd_seq" })
		}
		if has {
			names = append(names, name)
		}
	}
	return names
}

// Choose gives the name of the group to work on. With an empty name it is
// etcd, or else the only group there is; it is never guessed among several.
// The error is ErrNoGroup.
func (v *Inventory) Choose(name string) (string, error) {
	names := v.Groups()
	if name != "" {
		if _, ok := v.groups[name]; ok {
			return name, nil
		}
		return "", v.noGroup(name)
	}
	if slices.Contains(names, defaultCluster) {
		return defaultCluster, nil
	}
	if len(names) == 1 {
		return names[0], nil
	}
	return "", v.noGroup("")
}

func (v *Inventory) noGroup(name string) error {
	there := "it has no group whose hosts have etcd_seq"
	if names := v.Groups(); len(names) > 0 {
		there = "groups with members: " + strings.Join(names, ", ")
	}
	where := ""
	if v.Path != "" {
		where = "inventory " + v.Path + ": "
	}
	if name == "" {
		return fmt.Errorf("%s%w as %s, and none was named; %s", where, ErrNoGroup, defaultCluster, there)
	}
	return fmt.Errorf("%s%w as %s; %s", where, ErrNoGroup, name, there)
}

// labOf looks for the lab's line among the comments that begin the file.
func labOf(content []byte) string {
	const mark = "# etcdrill lab:"
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, mark); ok {
			return strings.TrimSpace(rest)
		}
		if line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return ""
		}
	}
	return ""
}

// parseYAML reads the one document of a file and gives its mapping.
func parseYAML(content []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty")
	case err != nil:
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("not an inventory: its outermost value is no mapping")
	}
	switch err := d.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second document begins, an inventory is one", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return doc.Content[0], nil
}

// reader walks the nodes of one file into an Inventory.
type reader struct {
	v *Inventory
	// budget is how many pairs may still be read. Aliases can make a short
	// file endless.
	budget int
}

// pair is one key of a mapping with merge keys (<<) resolved.
type pair struct {
	name    string
	key     *yaml.Node
	value   *yaml.Node // no alias
	mapping *yaml.Node
}

// depthLimit is how deep mappings and aliases may nest.
const depthLimit = 64

// pairs lists the keys of a mapping as Ansible would see them: what was merged
// first, and of a key that stands twice the later one, at the earlier's place.
func (r *reader) pairs(group string, n *yaml.Node, depth int) []pair {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode || depth > depthLimit {
		return nil
	}
	var merged, own []pair
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if r.budget--; r.budget <= 0 {
			return nil
		}
		key, value := resolve(n.Content[i]), n.Content[i+1]
		if key == nil || key.Kind != yaml.ScalarNode {
			r.defect(group, n.Content[i].Line, Fault, "a key that is no text", "give it a plain name")
			continue
		}
		if isMerge(key) {
			merged = r.merge(group, merged, value, depth)
			continue
		}
		if readScalar(key).kind != text {
			r.defect(group, key.Line, Fault, fmt.Sprintf("the key %q is no text to Ansible", key.Value), "put it in quotes")
		}
		p := pair{key.Value, n.Content[i], resolve(value), n}
		if p.value == nil {
			r.defect(group, key.Line, Fault, fmt.Sprintf("the alias at %s leads back to itself", key.Value), "write the value out")
			continue
		}
		if at, twice := seen[p.name]; twice {
			r.defect(group, key.Line, Fault,
				fmt.Sprintf("%s stands twice, first on line %d; only the last one counts", p.name, own[at].key.Line),
				"keep one of them")
			own[at] = p
			continue
		}
		seen[p.name] = len(own)
		own = append(own, p)
	}
	var all []pair
	for _, p := range merged {
		if _, over := seen[p.name]; !over {
			all = append(all, p)
		}
	}
	return append(all, own...)
}

// merge adds what a merge key brings; what is there already stays.
func (r *reader) merge(group string, merged []pair, value *yaml.Node, depth int) []pair {
	value = resolve(value)
	if value == nil {
		return merged
	}
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	for _, s := range sources {
		if r.budget <= 0 {
			return merged
		}
		for _, p := range r.pairs(group, s, depth+1) {
			if !slices.ContainsFunc(merged, func(q pair) bool { return q.name == p.name }) {
				merged = append(merged, p)
			}
		}
	}
	return merged
}

func isMerge(key *yaml.Node) bool {
	return key.Value == "<<" && key.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0
}

// resolve follows aliases; nil when they lead nowhere.
func resolve(n *yaml.Node) *yaml.Node {
	for range depthLimit {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

func (r *reader) defect(group string, line int, l Level, text, fix string) {
	r.v.defects = append(r.v.defects, defect{group, Finding{line, l, text, fix}})
}

// top reads the outermost mapping: each key is a group, all among them.
func (r *reader) top(root *yaml.Node) {
	r.declare("all", root.Line)
	for _, p := range r.pairs("", root, 0) {
		r.group(p.name, p.key, p.value, "all", 1)
	}
}

// declare makes a group known.
func (r *reader) declare(name string, line int) *group {
	g, ok := r.v.groups[name]
	if !ok {
		g = &group{name: name, line: line, priority: 1}
		r.v.groups[name] = g
		r.v.order = append(r.v.order, name)
	}
	return g
}

func (r *reader) group(name string, key, n *yaml.Node, parent string, depth int) {
	if r.budget <= 0 {
		return
	}
	g := r.declare(name, key.Line)
	if name != "all" {
		if !slices.Contains(g.parents, parent) {
			g.parents = append(g.parents, parent)
		}
		if p := r.v.groups[parent]; !slices.Contains(p.children, name) {
			p.children = append(p.children, name)
		}
	}
	if depth > depthLimit {
		r.defect(name, key.Line, Fault, "group "+name+" is nested too deep", "write it flat")
		return
	}
	if readScalar(n).kind == null {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.defect(name, key.Line, Fault, "group "+name+" is no mapping", "give it hosts: and vars:")
		return
	}
	parts := map[string]pair{}
	for _, p := range r.pairs(name, n, 0) {
		switch p.name {
		case "hosts", "vars", "children":
			if p.value.Kind != yaml.MappingNode && readScalar(p.value).kind != null {
				r.defect(name, p.key.Line, Fault, fmt.Sprintf("%s of group %s is no mapping", p.name, name),
					"write one `name: value` for each")
				continue
			}
			parts[p.name] = p
		default:
			fix := "a group has hosts, vars and children"
			for _, word := range []string{"hosts", "vars", "children"} {
				if distance(p.name, word) <= 2 {
					fix = "did you mean " + word + "?"
				}
			}
			r.defect(name, p.key.Line, Warning, fmt.Sprintf("group %s has an unknown part %s, Ansible passes over it", name, p.name), fix)
		}
	}
	// Ansible reads the three in this order, whatever the file's.
	if p, ok := parts["vars"]; ok {
		on := "group " + name
		if name == "all" {
			on = "all.vars"
		}
		g.vars = append(g.vars, r.vars(name, on, p.value)...)
	}
	if p, ok := parts["children"]; ok {
		for _, c := range r.pairs(name, p.value, 0) {
			r.group(c.name, c.key, c.value, name, depth+1)
		}
	}
	if p, ok := parts["hosts"]; ok {
		g.mappings = append(g.mappings, p.value)
		for _, h := range r.pairs(name, p.value, 0) {
			e := entry{host: h.name, group: name, key: h.key, value: h.value, mapping: h.mapping}
			switch {
			case h.value.Kind == yaml.MappingNode:
				e.vars = r.vars(name, "host "+h.name, h.value)
			case readScalar(h.value).kind != null:
				r.defect(name, h.key.Line, Fault, fmt.Sprintf("host %s has a value that is no mapping", h.name),
					"write { etcd_seq: N }")
			}
			g.entries = append(g.entries, e)
			r.v.entries = append(r.v.entries, e)
		}
	}
}

func (r *reader) vars(group, on string, n *yaml.Node) []variable {
	var vars []variable
	for _, p := range r.pairs(group, n, 0) {
		vars = append(vars, variable{p.name, p.key, p.value, on})
	}
	return vars
}

// setDepths gives every group its depth, and breaks the circles that groups
// may form by naming one another as children.
func (v *Inventory) setDepths() {
	const open = -1
	done := map[string]int{}
	var depth func(name string) int
	depth = func(name string) int {
		if d, ok := done[name]; ok {
			return d // open within a circle: counts for nothing
		}
		if name == "all" {
			done[name] = 0
			return 0
		}
		done[name] = open
		g, d := v.groups[name], 1
		for _, p := range g.parents {
			at := depth(p)
			if at == open {
				v.defects = append(v.defects, defect{name, Finding{g.line, Fault,
					fmt.Sprintf("group %s is among its own parents", name), "take it out of one of them"}})
				continue
			}
			d = max(d, at+1)
		}
		done[name], g.depth = d, d
		return d
	}
	for _, name := range v.order {
		depth(name)
		g := v.groups[name]
		for _, x := range g.vars {
			if s := readScalar(x.value); x.name == "ansible_group_priority" && s.kind == integer {
				g.priority = s.int
			}
		}
	}
}
