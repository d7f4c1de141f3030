package inventory

import (
	"bytes"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// lines maps the parser's lines and columns to bytes. It breaks lines where
// the YAML parser does, which is in more places than at \n.
type lines struct {
	content []byte
	starts  []int // of each line; one more at the end of the content
}

func splitLines(content []byte) lines {
	l := lines{content: content, starts: []int{0}}
	for i := 0; i < len(content); {
		n := breakAt(content, i)
		if n == 0 {
			i++
			continue
		}
		i += n
		l.starts = append(l.starts, i)
	}
	if l.starts[len(l.starts)-1] != len(content) {
		l.starts = append(l.starts, len(content))
	}
	return l
}

// breakAt is the length of the line break at i, zero when there is none.
func breakAt(b []byte, i int) int {
	switch {
	case b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n':
		return 2
	case b[i] == '\n' || b[i] == '\r':
		return 1
	case bytes.HasPrefix(b[i:], []byte("\u0085")):
		return 2
	case bytes.HasPrefix(b[i:], []byte("\u2028")), bytes.HasPrefix(b[i:], []byte("\u2029")):
		return 3
	}
	return 0
}

// count is the number of lines.
func (l lines) count() int { return len(l.starts) - 1 }

// bounds are the offsets of a line, from 1, its break included.
func (l lines) bounds(line int) (start, end int) { return l.starts[line-1], l.starts[line] }

// end is where a line ends, its break left out.
func (l lines) end(line int) int {
	start, end := l.bounds(line)
	for i := start; i < end; i++ {
		if breakAt(l.content, i) > 0 {
			return i
		}
	}
	return end
}

// text is a line without its break.
func (l lines) text(line int) []byte { return l.content[l.starts[line-1]:l.end(line)] }

// at is the line that an offset is on.
func (l lines) at(offset int) int {
	line := 1
	for line < l.count() && l.starts[line] <= offset {
		line++
	}
	return line
}

// offset is where a node begins, or false when the line is too short for it.
func (l lines) offset(n *yaml.Node) (int, bool) {
	if n.Line < 1 || n.Line > l.count() {
		return 0, false
	}
	i, end := l.bounds(n.Line)
	if n.Line == 1 && bytes.HasPrefix(l.content, []byte("\ufeff")) {
		i += 3
	}
	for range n.Column - 1 {
		if i >= end {
			return 0, false
		}
		_, size := utf8.DecodeRune(l.content[i:])
		i += size
	}
	return i, i <= end
}

// newline is the line break of the file.
func (l lines) newline() string {
	_, end := l.bounds(1)
	if b := l.content[l.end(1):end]; len(b) > 0 {
		return string(b)
	}
	return "\n"
}

// blank says whether there is nothing but space, or space and a comment, from
// i to the end of its line.
func (l lines) blank(i int) (nothing, comment bool) {
	rest := l.content[i:l.end(l.at(i))]
	trimmed := bytes.TrimLeft(rest, " \t")
	if len(trimmed) == 0 {
		return true, false
	}
	return false, trimmed[0] == '#' && (len(trimmed) < len(rest) || i == 0)
}

// indent is the white space that a line begins with.
func (l lines) indent(line int) []byte {
	t := l.text(line)
	return t[:len(t)-len(bytes.TrimLeft(t, " "))]
}

// begins says whether nothing but spaces stands before i on its line.
func (l lines) begins(i int) bool {
	start, _ := l.bounds(l.at(i))
	return len(bytes.TrimLeft(l.content[start:i], " ")) == 0
}

// span is one entry of a flow mapping.
type span struct {
	start, end int // of its text, without space around
	comma      int // offset of the comma after it, or -1
}

// flowSpans splits the flow mapping or sequence that opens at i into its
// entries; closing is the offset of its brace. It knows YAML's tokens just well enough for that,
// and whoever edits by it checks the result.
func flowSpans(b []byte, i int) (entries []span, closing int, ok bool) {
	if i >= len(b) || b[i] != '{' && b[i] != '[' {
		return nil, 0, false
	}
	const none = -1
	depth, start, end := 0, none, none
	token := func(from, to int) { // a token of an entry at depth 1 or below
		if start == none {
			start = from
		}
		end = to
	}
	for i < len(b) {
		c := b[i]
		switch {
		case isSpace(c) || breakAt(b, i) > 0:
			i += max(1, breakAt(b, i))
			continue
		case c == '#':
			for i < len(b) && breakAt(b, i) == 0 {
				i++
			}
			continue
		case c == '{' || c == '[':
			if depth++; depth > 1 {
				token(i, i+1)
			}
			i++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				if start != none {
					entries = append(entries, span{start, end, -1})
				}
				return entries, i, true
			}
			token(i, i+1)
			i++
		case c == ',':
			if depth == 1 {
				if start == none {
					return nil, 0, false
				}
				entries = append(entries, span{start, end, i})
				start, end = none, none
			}
			i++
		case c == '"' || c == '\'':
			j := quoteEnd(b, i)
			token(i, j)
			i = j
		case c == '!' || c == '&' || c == '*':
			j := i
			for j < len(b) && !isSpace(b[j]) && breakAt(b, j) == 0 && !isFlow(b[j]) {
				j++
			}
			token(i, j)
			i = j
		case c == ':':
			token(i, i+1)
			i++
		default:
			j, last := plainEnd(b, i)
			token(i, last)
			i = j
		}
	}
	return nil, 0, false
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func isFlow(c byte) bool {
	return c == ',' || c == '{' || c == '}' || c == '[' || c == ']'
}

// quoteEnd is the offset after the quoted text that begins at i.
func quoteEnd(b []byte, i int) int {
	quote := b[i]
	for i++; i < len(b); i++ {
		switch {
		case b[i] == '\\' && quote == '"':
			i++
		case b[i] == quote && quote == '\'' && i+1 < len(b) && b[i+1] == quote:
			i++
		case b[i] == quote:
			return i + 1
		}
	}
	return len(b)
}

// plainEnd gives the offset of what ends the plain text that begins at i, and
// where its last word ends.
func plainEnd(b []byte, i int) (next, last int) {
	last = i
	for i < len(b) {
		c := b[i]
		switch {
		case isFlow(c):
			return i, last
		case c == ':' && (i+1 >= len(b) || isSpace(b[i+1]) || breakAt(b, i+1) > 0 || isFlow(b[i+1])):
			return i, last
		case isSpace(c) || breakAt(b, i) > 0:
			i += max(1, breakAt(b, i))
			if i < len(b) && b[i] == '#' {
				return i, last
			}
			continue
		}
		i++
		last = i
	}
	return i, last
}
