package inventory

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

var (
	// ErrLastHost says that a group would be left without hosts.
	ErrLastHost = errors.New("the last host of the group is not removed")
	// ErrByHand says that an edit cannot be made here without touching more
	// than the host. Nothing was changed.
	ErrByHand = errors.New("edit by hand")
)

// AddHost adds a host with its etcd_seq to a group, after the last one and
// written as that one is. A host that is commented out there is put back, with
// the etcd_seq that is asked for. One that is there already leaves the content
// as it is. Errors are ErrNoGroup, ErrByHand, and of broken YAML.
func AddHost(content []byte, group, host string, seq int) ([]byte, error) {
	e, err := newEditor(content, group)
	if err != nil {
		return nil, fmt.Errorf("add host %s: %w", host, err)
	}
	after, err := e.add(host, seq)
	if err != nil {
		return nil, fmt.Errorf("add host %s to group %s: %w", host, group, err)
	}
	return after, nil
}

// RemoveHost takes a host out of a group, with the comment on its own lines and
// none other. One that is not there leaves the content as it is, and so does
// one that is commented out. Errors are ErrNoGroup, ErrLastHost, ErrByHand, and
// of broken YAML.
func RemoveHost(content []byte, group, host string) ([]byte, error) {
	for {
		e, err := newEditor(content, group)
		if err != nil {
			return nil, fmt.Errorf("remove host %s: %w", host, err)
		}
		after, err := e.remove(host)
		if err != nil {
			return nil, fmt.Errorf("remove host %s from group %s: %w", host, group, err)
		}
		if len(after) == len(content) {
			return after, nil
		}
		content = after // once more: a host may stand twice
	}
}

// editor is one edit of one content.
type editor struct {
	v       *Inventory
	group   *group
	content []byte
	lines   lines
	shared  map[*yaml.Node]bool // what an alias points to
	inOrder []*yaml.Node        // every node as it comes in the file
}

func newEditor(content []byte, name string) (*editor, error) {
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("%w: the file is not UTF-8", ErrByHand)
	}
	v, err := parse(content)
	if err != nil {
		return nil, err
	}
	g, ok := v.groups[name]
	if !ok {
		return nil, v.noGroup(name)
	}
	e := &editor{v: v, group: g, content: content, lines: splitLines(content), shared: map[*yaml.Node]bool{}}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		e.inOrder = append(e.inOrder, n)
		if n.Kind == yaml.AliasNode {
			e.shared[n.Alias] = true
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	walk(v.root)
	return e, nil
}

func byHand(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %w: %s", line, ErrByHand, fmt.Sprintf(format, args...))
}

func (e *editor) add(host string, seq int) ([]byte, error) {
	if _, err := netip.ParseAddr(host); err != nil && !namePattern.MatchString(host) {
		return nil, fmt.Errorf("%q is neither an IP nor a host name", host)
	}
	if seq < 0 || seq > maxSeq {
		return nil, fmt.Errorf("etcd_seq %d is out of range", seq)
	}
	for _, there := range e.v.hostsOf(e.group.name) {
		n, has := seqOf(e.v.hostVars(there.host)["etcd_seq"].value)
		switch same := sameHost(there.host, host); {
		case same && has:
			return e.content, nil
		case same:
			return nil, byHand(there.key.Line, "it is there without a usable etcd_seq; give it etcd_seq: %d", seq)
		case has && n == seq:
			return nil, fmt.Errorf("etcd_seq %d is taken by host %s on line %d", seq, there.host, there.key.Line)
		}
	}
	m, err := e.target()
	if err != nil {
		return nil, err
	}
	hosts, err := e.keyOf(m)
	if err != nil {
		return nil, err
	}
	if after, ok := e.uncomment(m, hosts, host, seq); ok {
		return after, nil
	}
	var after []byte
	var ok bool
	if m.Kind == yaml.MappingNode && m.Style&yaml.FlowStyle != 0 {
		after, ok = e.addFlow(m, host, seq)
	} else {
		after, ok = e.addBlock(m, hosts, host, seq)
	}
	if !ok {
		return nil, byHand(hosts.Line, "the hosts are written in a way that is not edited here; add %s", flowEntry(host, seq, true))
	}
	return after, nil
}

// target is the mapping of hosts to add to.
func (e *editor) target() (*yaml.Node, error) {
	all := e.group.mappings
	filled := slices.DeleteFunc(slices.Clone(all), func(m *yaml.Node) bool { return len(m.Content) == 0 })
	switch {
	case len(filled) > 0:
		return filled[len(filled)-1], nil
	case len(all) > 0:
		return all[len(all)-1], nil
	case len(e.v.hostsOf(e.group.name)) > 0:
		return nil, byHand(e.group.line, "the hosts of the group are all in groups below it")
	}
	return nil, byHand(e.group.line, "the group has no hosts: to add to")
}

// keyOf finds the key whose value is m, and refuses what other parts of the
// file refer to.
func (e *editor) keyOf(m *yaml.Node) (*yaml.Node, error) {
	var key *yaml.Node
	var find func(n *yaml.Node) bool
	find = func(n *yaml.Node) bool {
		for i, c := range n.Content {
			if c != m && !find(c) {
				continue
			}
			if c == m && n.Kind == yaml.MappingNode && i%2 == 1 {
				key = n.Content[i-1]
			}
			if e.shared[c] {
				key = nil
			}
			return true
		}
		return false
	}
	find(e.v.root)
	if key == nil {
		return nil, byHand(m.Line, "the hosts are shared with other parts of the file by an anchor")
	}
	return key, nil
}

// flowEntry writes a host in flow style.
func flowEntry(host string, seq int, padded bool) string {
	pad := ""
	if padded {
		pad = " "
	}
	return fmt.Sprintf("%s: {%setcd_seq: %d%s}", quoteHost(host, 0), pad, seq, pad)
}

// quoteHost writes a host as a key. Plain IPv6 can be read as something else.
func quoteHost(host string, style yaml.Style) string {
	switch {
	case style&yaml.SingleQuotedStyle != 0:
		return "'" + host + "'"
	case style&yaml.DoubleQuotedStyle != 0 || strings.Contains(host, ":") || readPlain(host).kind != text:
		return `"` + host + `"`
	}
	return host
}

// entryLike writes a host in flow style as its neighbour is written.
func (e *editor) entryLike(key, value *yaml.Node, host string, seq int) string {
	padded := true
	if value != nil && value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle != 0 {
		if i, ok := e.opening(value); ok && i+1 < len(e.content) {
			padded = isSpace(e.content[i+1]) || breakAt(e.content, i+1) > 0
		}
	}
	s := flowEntry(host, seq, padded)
	if key != nil {
		if plain := quoteHost(host, 0); plain == host {
			s = quoteHost(host, key.Style) + strings.TrimPrefix(s, plain)
		}
	}
	return s
}

// lastPair is the last pair that is no merge key, or nothing.
func lastPair(m *yaml.Node) (key, value *yaml.Node) {
	for i := len(m.Content) - 2; i >= 0; i -= 2 {
		if !isMerge(m.Content[i]) {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

func (e *editor) addBlock(m, hosts *yaml.Node, host string, seq int) ([]byte, bool) {
	var indent string
	var entry []string
	last := hosts.Line
	if len(m.Content) == 0 {
		at, ok := e.lines.offset(hosts)
		if !ok || !e.lines.begins(at) {
			return nil, false
		}
		indent = string(e.lines.indent(hosts.Line)) + "  "
		entry = []string{flowEntry(host, seq, true)}
	} else {
		at, ok := e.lines.offset(m.Content[0])
		if !ok || !e.lines.begins(at) {
			return nil, false
		}
		indent = string(e.lines.indent(m.Content[0].Line))
		key, value := lastPair(m)
		entry = []string{e.entryLike(key, value, host, seq)}
		if value != nil && value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && len(value.Content) > 0 {
			step, ok := strings.CutPrefix(string(e.lines.indent(value.Content[0].Line)), indent)
			if ok && step != "" {
				name, _, _ := strings.Cut(entry[0], ": {")
				entry = []string{name + ":", fmt.Sprintf("%setcd_seq: %d", step, seq)}
			}
		}
		last = e.lastLine(m)
	}
	for line := last; line < e.nextLine(m) && line-last < candidates; line++ {
		_, end := e.lines.bounds(line)
		nl := string(e.content[e.lines.end(line):end])
		var b strings.Builder
		if nl == "" {
			nl = e.lines.newline()
			b.WriteString(nl + indent + strings.Join(entry, nl+indent))
		} else {
			for _, s := range entry {
				b.WriteString(indent + s + nl)
			}
		}
		after := splice(e.content, end, end, b.String())
		if e.isAdded(after, m, host, seq, true) {
			return after, true
		}
	}
	return nil, false
}

// candidates is how many lines are tried for one edit, each with a full check.
const candidates = 40

func (e *editor) addFlow(m *yaml.Node, host string, seq int) ([]byte, bool) {
	open, ok := e.opening(m)
	if !ok {
		return nil, false
	}
	spans, _, ok := flowSpans(e.content, open)
	if !ok || len(spans) != len(m.Content)/2 {
		return nil, false
	}
	entry := e.entryLike(nil, nil, host, seq)
	if len(spans) == 0 {
		s := " " + entry
		if e.content[open+1] == '}' {
			s += " "
		}
		after := splice(e.content, open+1, open+1, s)
		return after, e.isAdded(after, m, host, seq, true)
	}
	entry = e.entryLike(m.Content[len(m.Content)-2], m.Content[len(m.Content)-1], host, seq)
	last := spans[len(spans)-1]
	var after []byte
	tail, comma := last.end, last.comma >= 0
	if comma {
		tail = last.comma + 1
	}
	// An entry on a line of its own has its successor on one too.
	if e.lines.begins(last.start) && e.lines.at(last.end) == e.lines.at(tail) {
		indent := string(e.lines.indent(e.lines.at(last.start)))
		line := e.lines.at(tail - 1)
		nothing, comment := e.lines.blank(tail)
		_, end := e.lines.bounds(line)
		nl := string(e.content[e.lines.end(line):end])
		switch {
		case nl == "" || !nothing && !comment: // more follows on the line
			if nl == "" {
				nl = e.lines.newline()
			}
			s := nl + indent + entry
			if comma {
				s += ","
			} else {
				s = "," + s
			}
			after = splice(e.content, tail, tail, s)
		case comma:
			after = splice(e.content, end, end, indent+entry+","+nl)
		default:
			after = splice(e.content, end, end, indent+entry+nl)
			after = splice(after, tail, tail, ",")
		}
	} else if comma {
		after = splice(e.content, tail, tail, " "+entry+",")
	} else {
		after = splice(e.content, tail, tail, ", "+entry)
	}
	return after, e.isAdded(after, m, host, seq, true)
}

// splice replaces b[from:to].
func splice(b []byte, from, to int, s string) []byte {
	return slices.Concat(b[:from], []byte(s), b[to:])
}

// commented matches a line that is commented out: indent, marks, space, rest.
var commented = regexp.MustCompile(`^([ \t]*)(#+)([ \t]*)(.*)$`)

// heading matches the key of a group or of its parts.
var heading = regexp.MustCompile(`^[A-Za-z_][\w-]*:\s*(#.*)?$`)

// uncomment puts a commented-out host back in its place.
func (e *editor) uncomment(m, hosts *yaml.Node, host string, seq int) ([]byte, bool) {
	tried := 0
	for line := hosts.Line + 1; line < e.nextLine(m) && tried < candidates; line++ {
		c := commented.FindSubmatch(e.lines.text(line))
		if c == nil {
			continue
		}
		if heading.Match(c[4]) {
			return nil, false // another group's, from here on
		}
		if key, ok := keyIn(string(c[4])); !ok || !sameHost(key, host) {
			continue
		}
		tried++
		for _, after := range e.uncommented(m, hosts, line) {
			value, ok := e.added(after, m, host)
			if !ok {
				continue
			}
			if after, ok := e.withSeq(after, value, m, host, seq); ok {
				return after, true
			}
		}
	}
	return nil, false
}

// keyIn is the key that a line begins with.
func keyIn(s string) (string, bool) {
	i := strings.Index(s, ": ")
	if i < 0 {
		i = strings.LastIndex(s, ":")
	}
	if i < 0 {
		return "", false
	}
	return strings.Trim(strings.TrimSpace(s[:i]), `"'`), true
}

// uncommented gives the ways to take away the comment mark of a line, and of
// the deeper ones that follow it, as contents that may or may not be right.
func (e *editor) uncommented(m, hosts *yaml.Node, line int) [][]byte {
	indent := string(e.lines.indent(hosts.Line)) + "  "
	flow := m.Kind == yaml.MappingNode && m.Style&yaml.FlowStyle != 0
	if key, _ := lastPair(m); key != nil {
		at, ok := e.lines.offset(key)
		if !ok || !e.lines.begins(at) {
			return nil
		}
		indent = string(e.lines.indent(key.Line))
	}
	start, end := e.lines.bounds(line)
	first := commented.FindSubmatch(e.lines.text(line))
	width := func(c [][]byte) int { return len(c[1]) + len(c[2]) + len(c[3]) }
	text := indent + string(first[4])
	textEnd := len(text)
	text += string(e.content[e.lines.end(line):end])
	for next := line + 1; next <= e.lines.count(); next++ {
		c := commented.FindSubmatch(e.lines.text(next))
		if c == nil || width(c) <= width(first) || len(c[4]) == 0 {
			break
		}
		_, end = e.lines.bounds(next)
		deeper := strings.Repeat(" ", width(c)-width(first))
		text += indent + deeper + string(e.lines.text(next)[width(c):])
		textEnd = len(text)
		text += string(e.content[e.lines.end(next):end])
	}
	ways := [][]byte{splice(e.content, start, end, text)}
	if !flow {
		return ways
	}
	// In flow style commas may be missing: after it, before it, or both.
	head := "{" + text[:textEnd]
	open, ok := e.opening(m)
	if spans, _, fine := flowSpans([]byte(head+"\n}"), 0); fine && len(spans) == 1 && ok {
		own := text
		if spans[0].comma < 0 {
			own = text[:spans[0].end-1] + "," + text[spans[0].end-1:]
			ways = append(ways, splice(e.content, start, end, own))
		}
		before, _, _ := flowSpans(e.content, open)
		for i := len(before) - 1; i >= 0; i-- {
			if at := before[i].end; at <= start {
				if before[i].comma < 0 {
					for _, t := range []string{text, own} {
						ways = append(ways, splice(splice(e.content, start, end, t), at, at, ","))
					}
				}
				break
			}
		}
	}
	return ways
}

// withSeq gives a host that was put back the number that is asked for.
func (e *editor) withSeq(after []byte, value, m *yaml.Node, host string, seq int) ([]byte, bool) {
	for i := 0; i+1 < len(value.Content); i += 2 {
		n := value.Content[i+1]
		if value.Content[i].Value != "etcd_seq" || n.Kind != yaml.ScalarNode {
			continue
		}
		if now, ok := seqOf(n); !ok || now != seq {
			at, ok := splitLines(after).offset(n)
			if !ok || !bytes.HasPrefix(after[at:], []byte(n.Value)) || n.Value == "" {
				return nil, false
			}
			after = splice(after, at, at+len(n.Value), strconv.Itoa(seq))
		}
		return after, e.isAdded(after, m, host, seq, false)
	}
	return nil, false
}

func (e *editor) remove(host string) ([]byte, error) {
	var found []entry
	others := false
	for _, name := range e.v.below(e.group.name) {
		for _, there := range e.v.groups[name].entries {
			if sameHost(there.host, host) {
				found = append(found, there)
			} else {
				others = true
			}
		}
	}
	if len(found) == 0 {
		return e.content, nil
	}
	if !others {
		return nil, fmt.Errorf("line %d: %w", found[0].key.Line, ErrLastHost)
	}
	there := found[0]
	m := there.mapping
	if _, err := e.keyOf(m); err != nil {
		return nil, byHand(there.key.Line, "the host is shared with other parts of the file by an anchor")
	}
	at := slices.Index(m.Content, there.key)
	if e.refersTo(there.key) || e.refersTo(m.Content[at+1]) {
		return nil, byHand(there.key.Line, "other parts of the file refer to an anchor of the host")
	}
	if len(m.Content) == 2 {
		return nil, byHand(there.key.Line, "group %s would be left without hosts", there.group)
	}
	var after []byte
	var ok bool
	if m.Style&yaml.FlowStyle != 0 {
		after, ok = e.removeFlow(m, at)
	} else {
		after, ok = e.removeBlock(m, at)
	}
	if !ok {
		return nil, byHand(there.key.Line, "the hosts are written in a way that is not edited here; take out %s", there.host)
	}
	return after, nil
}

// refersTo says whether an alias somewhere points into n.
func (e *editor) refersTo(n *yaml.Node) bool {
	return e.shared[n] || slices.ContainsFunc(n.Content, e.refersTo)
}

func (e *editor) removeBlock(m *yaml.Node, at int) ([]byte, bool) {
	key, value := m.Content[at], m.Content[at+1]
	offset, ok := e.lines.offset(key)
	if !ok || !e.lines.begins(offset) {
		return nil, false
	}
	start, _ := e.lines.bounds(key.Line)
	last := max(key.Line, e.lastLine(value))
	if empty(value) {
		last = key.Line
	}
	for line := last; line < e.nextLine(value) && line-last < candidates; line++ {
		ways := []int{start}
		_, end := e.lines.bounds(line)
		if e.lines.end(line) == end && key.Line > 1 { // no last newline: it stays so, if it can
			ways = []int{e.lines.end(key.Line - 1), start}
		}
		for _, from := range ways {
			if after := splice(e.content, from, end, ""); e.isRemoved(after, m, at) {
				return after, true
			}
		}
	}
	return nil, false
}

func (e *editor) removeFlow(m *yaml.Node, at int) ([]byte, bool) {
	open, ok := e.opening(m)
	if !ok {
		return nil, false
	}
	spans, _, ok := flowSpans(e.content, open)
	if !ok || len(spans) != len(m.Content)/2 {
		return nil, false
	}
	i := at / 2
	s, isLast := spans[i], i == len(spans)-1
	tail := s.end
	if s.comma >= 0 {
		tail = s.comma + 1
		if bytes.IndexByte(e.content[s.end:s.comma], '#') >= 0 {
			return nil, false
		}
	}
	// What is between the comma before and this entry.
	before, onlySpace := s.start, false
	if i > 0 && spans[i-1].comma >= 0 {
		before = spans[i-1].comma + 1
		onlySpace = len(bytes.TrimSpace(e.content[before:s.start])) == 0
	}
	nothing, comment := e.lines.blank(tail)
	ownLines := e.lines.begins(s.start) && (nothing || comment)
	from, to := s.start, tail
	switch {
	case ownLines:
		from, _ = e.lines.bounds(e.lines.at(s.start))
		_, to = e.lines.bounds(e.lines.at(tail - 1))
	case isLast && onlySpace:
		from = before
	case i > 0 && onlySpace && e.lines.at(before) == e.lines.at(s.start):
		from = before
	default:
		for to < len(e.content) && isSpace(e.content[to]) {
			to++
		}
	}
	after := splice(e.content, from, to, "")
	if isLast && s.comma < 0 && i > 0 { // the comma before it has nothing to part
		after = splice(after, spans[i-1].comma, spans[i-1].comma+1, "")
	}
	return after, e.isRemoved(after, m, at)
}

func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Value == "" && n.Style == 0 }

// opening is the offset of the brace that opens a flow collection, after its
// anchor and tag.
func (e *editor) opening(n *yaml.Node) (int, bool) {
	i, ok := e.lines.offset(n)
	if !ok {
		return 0, false
	}
	for i < len(e.content) {
		switch c := e.content[i]; {
		case c == '{' || c == '[':
			return i, true
		case c == '&' || c == '!':
			for i < len(e.content) && !isSpace(e.content[i]) && breakAt(e.content, i) == 0 {
				i++
			}
		case isSpace(c) || breakAt(e.content, i) > 0:
			i += max(1, breakAt(e.content, i))
		default:
			return 0, false
		}
	}
	return 0, false
}

// lastLine is the line that a node ends on, or an earlier one where that takes
// more than a look to know.
func (e *editor) lastLine(n *yaml.Node) int {
	switch {
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		if i, ok := e.lines.offset(n); ok && i < len(e.content) && (e.content[i] == '"' || e.content[i] == '\'') {
			return e.lines.at(quoteEnd(e.content, i) - 1)
		}
	case n.Style&yaml.FlowStyle != 0:
		if i, ok := e.opening(n); ok {
			if _, closing, ok := flowSpans(e.content, i); ok {
				return e.lines.at(closing)
			}
		}
	}
	if len(n.Content) == 0 {
		return n.Line
	}
	last := n.Content[len(n.Content)-1]
	if empty(last) && len(n.Content) > 1 {
		last = n.Content[len(n.Content)-2]
	}
	return max(n.Line, e.lastLine(last))
}

// nextLine is the first line after n that holds something else.
func (e *editor) nextLine(n *yaml.Node) int {
	inside := map[*yaml.Node]bool{}
	var mark func(n *yaml.Node)
	mark = func(n *yaml.Node) {
		inside[n] = true
		for _, c := range n.Content {
			mark(c)
		}
	}
	mark(n)
	met := false
	for _, o := range e.inOrder {
		if inside[o] {
			met = true
		} else if met {
			return o.Line
		}
	}
	return e.lines.count() + 1
}

// isAdded says whether after differs from the content by that host in m alone.
// With bare the host has etcd_seq and nothing else.
func (e *editor) isAdded(after []byte, m *yaml.Node, host string, seq int, bare bool) bool {
	value, ok := e.added(after, m, host)
	if !ok || bare && len(value.Content) != 2 {
		return false
	}
	for i := 0; i+1 < len(value.Content); i += 2 {
		if value.Content[i].Value == "etcd_seq" {
			n, ok := seqOf(value.Content[i+1])
			return ok && n == seq
		}
	}
	return false
}

// added says whether after differs from the content by one pair in m, with
// host as its key, and gives its value.
func (e *editor) added(after []byte, m *yaml.Node, host string) (*yaml.Node, bool) {
	root, err := parseYAML(after)
	if err != nil {
		return nil, false
	}
	var value *yaml.Node
	ok := same(e.v.root, root, m, func(a, b *yaml.Node) bool {
		if b.Kind != yaml.MappingNode || len(b.Content) != len(a.Content)+2 {
			return false
		}
		if a.Kind == yaml.MappingNode && (a.Style != b.Style || a.Tag != b.Tag || a.Anchor != b.Anchor) {
			return false
		}
		if a.Kind != yaml.MappingNode && (!empty(a) || a.Anchor != "" || b.Anchor != "") {
			return false
		}
		i := 0
		for i+1 < len(a.Content) && same(a.Content[i], b.Content[i], nil, nil) && same(a.Content[i+1], b.Content[i+1], nil, nil) {
			i += 2
		}
		for j := i; j < len(a.Content); j++ {
			if !same(a.Content[j], b.Content[j+2], nil, nil) {
				return false
			}
		}
		key := b.Content[i]
		value = b.Content[i+1]
		return key.Kind == yaml.ScalarNode && readScalar(key).kind == text && sameHost(key.Value, host) &&
			value.Kind == yaml.MappingNode && !anchored(key) && !anchored(value)
	})
	return value, ok
}

// isRemoved says whether after differs from the content by the pair at that
// index of m alone.
func (e *editor) isRemoved(after []byte, m *yaml.Node, at int) bool {
	root, err := parseYAML(after)
	if err != nil {
		return false
	}
	return same(e.v.root, root, m, func(a, b *yaml.Node) bool {
		if a.Kind != b.Kind || a.Style != b.Style || a.Tag != b.Tag || a.Anchor != b.Anchor || len(b.Content) != len(a.Content)-2 {
			return false
		}
		rest := slices.Delete(slices.Clone(a.Content), at, at+2)
		for i := range rest {
			if !same(rest[i], b.Content[i], nil, nil) {
				return false
			}
		}
		return true
	})
}

func anchored(n *yaml.Node) bool { return n.Anchor != "" || slices.ContainsFunc(n.Content, anchored) }

// same compares two trees as they are written, aliases by name. Where a is at,
// it is left to differ to judge.
func same(a, b, at *yaml.Node, differ func(a, b *yaml.Node) bool) bool {
	if a == at {
		return differ(a, b)
	}
	if a.Kind != b.Kind || a.Tag != b.Tag || a.Value != b.Value || a.Anchor != b.Anchor || a.Style != b.Style || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !same(a.Content[i], b.Content[i], at, differ) {
			return false
		}
	}
	return true
}
