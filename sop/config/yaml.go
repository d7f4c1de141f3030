package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A document is one YAML mapping together with the bytes it was read from, so
// that a value can be found again in the text and replaced there.
type document struct {
	src   []byte
	lines []int      // offset of the first byte of each line
	root  *yaml.Node // the mapping at the top
}

// parseDocument reads src, which must hold exactly one mapping.
func parseDocument(src []byte) (d *document, err error) {
	// The YAML reader reports some malformed input by panicking.
	defer func() {
		if r := recover(); r != nil {
			d, err = nil, fmt.Errorf("not valid YAML: %v", r)
		}
	}()
	if !utf8.Valid(src) {
		return nil, errors.New("not UTF-8 text")
	}
	var top, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src))
	switch err := dec.Decode(&top); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("empty")
	case err != nil:
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, errors.New("more than one YAML document in it")
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	if len(top.Content) != 1 || top.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("not a YAML mapping of keys to values")
	}
	return &document{src: src, lines: lineStarts(src), root: top.Content[0]}, nil
}

// lineStarts gives the offset of every line, lines being what YAML takes for
// lines, and a byte order mark being no part of the first.
func lineStarts(src []byte) []int {
	first := 0
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		first = len("\ufeff")
	}
	starts := []int{first}
	for i := first; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		i += size
		switch r {
		case '\r':
			if i < len(src) && src[i] == '\n' {
				i++
			}
			starts = append(starts, i)
		case '\n', '\u0085', '\u2028', '\u2029':
			starts = append(starts, i)
		}
	}
	return starts
}

// lineEnd gives the offset where the text of a line ends, line break excluded.
func (d *document) lineEnd(line int) int {
	if line >= len(d.lines) {
		return len(d.src)
	}
	end := d.lines[line]
	return d.lines[line-1] + len(bytes.TrimRight(d.src[d.lines[line-1]:end], "\r\n\u0085\u2028\u2029"))
}

// offset gives the place of a node in the text.
func (d *document) offset(n *yaml.Node) (int, error) {
	if n.Line < 1 || n.Line > len(d.lines) {
		return 0, fmt.Errorf("line %d: not found in the text", n.Line)
	}
	at := d.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(d.src) {
			return 0, fmt.Errorf("line %d: not found in the text", n.Line)
		}
		_, size := utf8.DecodeRune(d.src[at:])
		at += size
	}
	return at, nil
}

// A place is where a value stands: the key, the value, and whether it is
// inside flow brackets, where plain text may not hold a comma.
type place struct {
	key, value *yaml.Node
	flow       bool
	times      int // how often the key stands in its mapping
}

// find follows a path of keys. Of a repeated key the last one counts, as it
// does for etcd; found is false when there is none.
func (d *document) find(path ...string) (p place, found bool) {
	m := d.root
	flow := m.Style&yaml.FlowStyle != 0
	for i, name := range path {
		p = place{flow: flow}
		for k := 0; k+1 < len(m.Content); k += 2 {
			if m.Content[k].Kind == yaml.ScalarNode && m.Content[k].Value == name {
				p.key, p.value = m.Content[k], m.Content[k+1]
				p.times++
			}
		}
		if p.times == 0 {
			return place{}, false
		}
		if i == len(path)-1 {
			break
		}
		if p.value.Kind != yaml.MappingNode {
			return place{}, false
		}
		m = p.value
		flow = flow || m.Style&yaml.FlowStyle != 0
	}
	return p, true
}

// text gives a scalar's value; "" when the key is absent or has no value.
func (d *document) text(path ...string) (string, error) {
	p, found := d.find(path...)
	if !found || isNull(p.value) {
		return "", nil
	}
	v := resolved(p.value)
	if v == nil || v.Kind != yaml.ScalarNode {
		return "", fmt.Errorf("line %d: %s is no single value", p.key.Line, strings.Join(path, "."))
	}
	return v.Value, nil
}

// number gives an integer; 0 when the key is absent or has no value. A number
// given as quoted text is refused, as etcd refuses it.
func (d *document) number(path ...string) (int64, error) {
	p, found := d.find(path...)
	if !found || isNull(p.value) {
		return 0, nil
	}
	var n int64
	if v := resolved(p.value); v == nil || v.ShortTag() == "!!str" || v.Decode(&n) != nil {
		return 0, fmt.Errorf("line %d: %s is no whole number", p.key.Line, strings.Join(path, "."))
	}
	return n, nil
}

// list gives the items of a list that is written as a sequence or as text with
// commas.
func (d *document) list(path ...string) ([]string, error) {
	p, found := d.find(path...)
	if !found || isNull(p.value) {
		return nil, nil
	}
	v := resolved(p.value)
	if v != nil && v.Kind == yaml.SequenceNode {
		var items []string
		for _, n := range v.Content {
			if n = resolved(n); n == nil || n.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: %s holds something that is no single value", p.key.Line, strings.Join(path, "."))
			}
			items = append(items, n.Value)
		}
		return items, nil
	}
	s, err := d.text(path...)
	if err != nil {
		return nil, err
	}
	return splitList(s), nil
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// splitList splits at commas and drops blanks and empty items.
func splitList(s string) []string {
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// span gives the bytes of a scalar in the text, quotes included.
func (d *document) span(n *yaml.Node) (start, end int, err error) {
	fail := func(why string) (int, int, error) {
		return 0, 0, fmt.Errorf("line %d: %s, which is not edited automatically", n.Line, why)
	}
	if n.Kind != yaml.ScalarNode {
		return fail("the value is no single value")
	}
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return fail("the value has an anchor or a tag")
	}
	start, err = d.offset(n)
	if err != nil {
		return 0, 0, err
	}
	rest := d.src[start:]
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return fail("the value is a block of text")
	case n.Style&yaml.DoubleQuotedStyle != 0 && bytes.HasPrefix(rest, []byte(`"`)):
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case '"':
				return start, start + i + 1, nil
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0 && bytes.HasPrefix(rest, []byte(`'`)):
		for i := 1; i < len(rest); i++ {
			if rest[i] != '\'' {
				continue
			}
			if i+1 < len(rest) && rest[i+1] == '\'' {
				i++
				continue
			}
			return start, start + i + 1, nil
		}
	case n.Style == 0 && n.Value != "" && bytes.HasPrefix(rest, []byte(n.Value)):
		return start, start + len(n.Value), nil
	case n.Style == 0 && n.Value == "":
		return fail("the key has no value")
	case n.Style == 0:
		return fail("the value runs over several lines")
	}
	return fail("the value could not be found in the text")
}

// plain matches text that may stand without quotes outside of brackets;
// flowPlain the same inside.
var (
	plain     = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./:@+=,\[\]-]*$`)
	flowPlain = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./:@+=-]*$`)
)

// isPlain reports whether v may stand without quotes and is still read as text,
// by YAML 1.1 and 1.2 alike.
func isPlain(v string, flow bool) bool {
	re := plain
	if flow {
		re = flowPlain
	}
	if !re.MatchString(v) || strings.HasSuffix(v, ":") || numeric.MatchString(v) {
		return false
	}
	switch strings.ToLower(v) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return false
	}
	return true
}

// numeric matches what some YAML reader takes for a number or a date when it
// stands without quotes. It is wide on purpose: quotes around text never hurt.
var numeric = regexp.MustCompile(`^(0[xXobOB][0-9a-fA-F_]*|[0-9][0-9_,]*(:[0-9_]+)*(\.[0-9_]*)?([eE][+-]?[0-9]+)?|[0-9]{4}-[0-9].*)$`)

// quoted writes text in the style of the scalar it replaces, or with double
// quotes where that style cannot hold it.
func quoted(v string, style yaml.Style, flow bool) string {
	switch {
	case style&yaml.SingleQuotedStyle != 0 && !strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) }):
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case style == 0 && isPlain(v, flow):
		return v
	}
	return strconv.Quote(v)
}

// splice replaces src[start:end] by text.
func splice(src []byte, start, end int, text string) []byte {
	return slices.Concat(src[:start], []byte(text), src[end:])
}

// A scalar is a value to write: text in any quoting, or a number.
type scalar struct {
	text   string
	number bool
	bare   bool // a new key gets this text without quotes, as Pigsty writes it
}

func (s scalar) write(style yaml.Style, flow bool) string {
	if s.number {
		return s.text
	}
	return quoted(s.text, style, flow)
}

func (s scalar) is(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Value != s.text {
		return false
	}
	return !s.number || n.ShortTag() == "!!int"
}

// setScalar gives content with the value at path replaced. after names the
// keys behind which a missing key is put; with none of them there it goes to
// the end.
func setScalar(content []byte, value scalar, after []string, path ...string) ([]byte, error) {
	d, err := parseDocument(content)
	if err != nil {
		return nil, err
	}
	name := strings.Join(path, ".")
	p, found := d.find(path...)
	var edited []byte
	switch {
	case found && p.times > 1:
		return nil, fmt.Errorf("line %d: %s stands there %d times", p.key.Line, name, p.times)
	case found && value.is(p.value):
		return content, nil
	case found:
		start, end, err := d.span(p.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		edited = splice(content, start, end, value.write(p.value.Style, p.flow))
	case len(path) != 1:
		return nil, fmt.Errorf("%s is not in it", name)
	default:
		if edited, err = d.insert(path[0], value, after); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return edited, d.check(edited, func(n *yaml.Node) bool { return value.is(n) }, path...)
}

// insert puts a new key into the top mapping, behind the last of the keys in
// after that is there, with an empty line around it where the file has them.
func (d *document) insert(key string, value scalar, after []string) ([]byte, error) {
	if d.root.Style&yaml.FlowStyle != 0 {
		return nil, errors.New("missing, and not added to a mapping in brackets automatically")
	}
	style := yaml.DoubleQuotedStyle
	if value.bare {
		style = 0
	}
	entry := strings.Repeat(" ", d.root.Column-1) + key + ": " + value.write(style, false)
	eol := lineBreak(d.src)
	for _, name := range slices.Backward(after) {
		p, found := d.find(name)
		if !found {
			continue
		}
		_, end, err := d.span(p.value)
		if err != nil {
			continue
		}
		line := 1 + lastAtOrBefore(d.lines, end)
		at := d.lineEnd(line)
		text := eol + entry
		if line < len(d.lines) && d.lines[line] < len(d.src) && len(bytes.TrimSpace(d.src[d.lines[line]:d.lineEnd(line+1)])) == 0 {
			text = eol + text
		}
		return splice(d.src, at, at, text), nil
	}
	text := entry + eol
	if n := len(d.src); n > 0 && d.lines[len(d.lines)-1] != n {
		text = eol + text
	}
	return splice(d.src, len(d.src), len(d.src), text), nil
}

// lastAtOrBefore gives the index of the last start that is not beyond at.
func lastAtOrBefore(starts []int, at int) int {
	i, found := slices.BinarySearch(starts, at)
	if found {
		return i
	}
	return i - 1
}

// lineBreak gives the line break that the text uses.
func lineBreak(src []byte) string {
	if i := bytes.IndexByte(src, '\n'); i > 0 && src[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// setList gives content with the list at path replaced, in the form the list
// has now: text with commas, brackets, or a line for each item. Items that
// stay keep their bytes; order is that of items.
func setList(content []byte, items []string, path ...string) ([]byte, error) {
	d, err := parseDocument(content)
	if err != nil {
		return nil, err
	}
	name := strings.Join(path, ".")
	p, found := d.find(path...)
	if !found {
		return nil, fmt.Errorf("%s is not in it", name)
	}
	if p.times > 1 {
		return nil, fmt.Errorf("line %d: %s stands there %d times", p.key.Line, name, p.times)
	}
	if p.value.Kind == yaml.ScalarNode {
		separator := ","
		if strings.Contains(p.value.Value, ", ") {
			separator = ", "
		}
		return setScalar(content, scalar{text: strings.Join(items, separator)}, nil, path...)
	}
	if p.value.Kind != yaml.SequenceNode || p.value.Anchor != "" {
		return nil, fmt.Errorf("line %d: %s is neither text nor a list, or has an anchor; it is not edited automatically", p.key.Line, name)
	}
	var edited []byte
	if p.value.Style&yaml.FlowStyle != 0 {
		edited, err = d.setFlowList(p.value, items)
	} else {
		edited, err = d.setBlockList(p.value, items)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return edited, d.check(edited, func(n *yaml.Node) bool {
		return n.Kind == yaml.SequenceNode && slices.EqualFunc(n.Content, items, func(n *yaml.Node, item string) bool {
			return scalar{text: item}.is(n)
		})
	}, path...)
}

func (d *document) setFlowList(list *yaml.Node, items []string) ([]byte, error) {
	raw := make(map[string]string)
	style, separator := yaml.DoubleQuotedStyle, ", "
	start, end := 0, 0
	for i, n := range list.Content {
		s, e, err := d.span(n)
		if err != nil {
			return nil, err
		}
		raw[n.Value] = string(d.src[s:e])
		switch i {
		case 0:
			style, start = n.Style, s
		case 1:
			if between := string(d.src[end:s]); strings.Trim(between, " ") == "," {
				separator = between
			}
		}
		if i > 0 && strings.Trim(string(d.src[end:s]), " ,\r\n") != "" {
			return nil, fmt.Errorf("line %d: there is a comment inside the brackets; the list is not edited automatically", n.Line)
		}
		end = e
	}
	if len(list.Content) == 0 {
		at, err := d.offset(list)
		if err != nil {
			return nil, err
		}
		start, end = at+1, at+1
	}
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = raw[item]
		if words[i] == "" {
			words[i] = quoted(item, style, true)
		}
	}
	return splice(d.src, start, end, strings.Join(words, separator)), nil
}

// dash is the beginning of a list item's line.
var dash = regexp.MustCompile(`^[ ]*-[ ]+$`)

func (d *document) setBlockList(list *yaml.Node, items []string) ([]byte, error) {
	if len(list.Content) == 0 {
		return nil, fmt.Errorf("line %d: the list is empty", list.Line)
	}
	// An item's chunk is its line and what follows up to the next item, so
	// that a comment stays with the item above it.
	chunks := make(map[string]string)
	prefix := ""
	first, last := 0, 0
	for i, n := range list.Content {
		s, e, err := d.span(n)
		if err != nil {
			return nil, err
		}
		begin := d.lines[n.Line-1]
		if !dash.Match(d.src[begin:s]) {
			return nil, fmt.Errorf("line %d: the item does not stand on a line of its own; the list is not edited automatically", n.Line)
		}
		end := d.lineEnd(1 + lastAtOrBefore(d.lines, e))
		if i == 0 {
			prefix, first = string(d.src[begin:s]), begin
		}
		if i+1 < len(list.Content) {
			end = d.lineEnd(list.Content[i+1].Line - 1)
		}
		chunks[n.Value] = string(d.src[begin:end])
		last = end
	}
	lines := make([]string, len(items))
	for i, item := range items {
		lines[i] = chunks[item]
		if lines[i] == "" {
			lines[i] = prefix + quoted(item, list.Content[0].Style, false)
		}
	}
	return splice(d.src, first, last, strings.Join(lines, lineBreak(d.src))), nil
}

// check reads edited again: the value at path must be the wanted one, and
// everything else what it was. It catches whatever the finding of places in
// the text got wrong.
func (d *document) check(edited []byte, wanted func(*yaml.Node) bool, path ...string) error {
	name := strings.Join(path, ".")
	now, err := parseDocument(edited)
	if err != nil {
		return fmt.Errorf("%s cannot be edited automatically: the edited text would be %w", name, err)
	}
	p, found := now.find(path...)
	if !found || p.times != 1 || !wanted(p.value) {
		return fmt.Errorf("%s cannot be edited automatically: the new value would not be read back", name)
	}
	if !same(without(d.root, path), without(now.root, path)) {
		return fmt.Errorf("%s cannot be edited automatically: other keys would change with it", name)
	}
	return nil
}

// without gives a copy of a mapping that lacks the value at path.
func without(m *yaml.Node, path []string) *yaml.Node {
	if m.Kind != yaml.MappingNode {
		return m
	}
	c := *m
	c.Content = nil
	for k := 0; k+1 < len(m.Content); k += 2 {
		key, value := m.Content[k], m.Content[k+1]
		if key.Kind == yaml.ScalarNode && key.Value == path[0] {
			if len(path) == 1 {
				continue
			}
			value = without(value, path[1:])
		}
		c.Content = append(c.Content, key, value)
	}
	return &c
}

// same compares what two nodes say, not how they are written.
func same(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value && a.Anchor == b.Anchor &&
		slices.EqualFunc(a.Content, b.Content, same)
}
