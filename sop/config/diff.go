package config

import (
	"fmt"
	"regexp"
	"strings"
)

// around is how many unchanged lines a diff shows around a change.
const around = 2

// Diff shows the change from before to after as a unified diff for a terminal,
// "" when there is none. Values of passwords and keys are masked, since the
// lines around a change may hold some.
func Diff(path string, before, after []byte) string {
	a, b := splitLines(string(before)), splitLines(string(after))
	ops := compare(a, b)
	var out strings.Builder
	for i := 0; i < len(ops); {
		if ops[i].kind == ' ' {
			i++
			continue
		}
		// A hunk goes on while changes are near enough for their context
		// lines to touch.
		start, end := max(0, i-around), i+1
		for j := i; j < len(ops) && j-end < 2*around; j++ {
			if ops[j].kind != ' ' {
				end = j + 1
			}
		}
		stop := min(len(ops), end+around)
		if out.Len() == 0 {
			fmt.Fprintf(&out, "--- %s\n+++ %s\n", path, path)
		}
		writeHunk(&out, ops[start:stop])
		i = stop
	}
	return out.String()
}

// An op is one line of a diff: ' ' kept, '-' dropped, '+' new, with the
// numbers, from 0, of the lines reached in either text.
type op struct {
	kind byte
	line string
	a, b int
}

func writeHunk(out *strings.Builder, ops []op) {
	olds, news := 0, 0
	for _, o := range ops {
		if o.kind != '+' {
			olds++
		}
		if o.kind != '-' {
			news++
		}
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", extent(ops[0].a, olds), extent(ops[0].b, news))
	for _, o := range ops {
		out.WriteByte(o.kind)
		line, ended := strings.CutSuffix(o.line, "\n")
		out.WriteString(mask(printable(line)))
		out.WriteByte('\n')
		if !ended {
			out.WriteString("\\ No newline at end of file\n")
		}
	}
}

// extent gives a hunk's first line and length as unified diffs count them.
func extent(from, length int) string {
	if length == 0 {
		return fmt.Sprintf("%d,0", from)
	}
	if length == 1 {
		return fmt.Sprint(from + 1)
	}
	return fmt.Sprintf("%d,%d", from+1, length)
}

// compare gives a shortest list of ops, by the longest common subsequence of
// what lies between the common beginning and the common end.
func compare(a, b []string) []op {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	var ops []op
	i, j := 0, 0
	keep := func() { ops = append(ops, op{' ', a[i], i, j}); i++; j++ }
	drop := func() { ops = append(ops, op{'-', a[i], i, j}); i++ }
	add := func() { ops = append(ops, op{'+', b[j], i, j}); j++ }
	for i < head {
		keep()
	}
	common := commonLengths(x, y)
	for i < head+len(x) || j < head+len(y) {
		p, q := i-head, j-head
		switch {
		case p < len(x) && q < len(y) && x[p] == y[q]:
			keep()
		case q == len(y) || p < len(x) && (common == nil || common[p+1][q] >= common[p][q+1]):
			drop()
		default:
			add()
		}
	}
	for i < len(a) {
		keep()
	}
	return ops
}

// commonLengths gives the lengths of the longest common subsequences of all
// tails; nil when the texts are so long and so different that the shortest
// diff is not worth its price.
func commonLengths(x, y []string) [][]int {
	if len(x)*len(y) > 1<<21 {
		return nil
	}
	t := make([][]int, len(x)+1)
	for i := range t {
		t[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				t[i][j] = t[i+1][j+1] + 1
			} else {
				t[i][j] = max(t[i+1][j], t[i][j+1])
			}
		}
	}
	return t
}

func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// secret matches settings whose value is nobody's business, in YAML and in
// shell.
var secret = regexp.MustCompile(`(?i)(pass(word|wd|phrase)?|secret|private[-_]?key|authentication)(["']?\s*[:=]\s*)(\S.*)$`)

// rootUser matches etcdctl's USER:PASSWORD.
var rootUser = regexp.MustCompile(`(ETCDCTL_USER=["']?[^:"']*:)([^$].*)$`)

func mask(line string) string {
	line = secret.ReplaceAllString(line, "${1}${3}********")
	return rootUser.ReplaceAllString(line, "${1}********")
}

// printable keeps a file's control characters from the terminal.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case r == '\r':
			return -1
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
			return '?'
		}
		return r
	}, line)
}
