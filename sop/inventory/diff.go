package inventory

import (
	"fmt"
	"strings"
)

// Diff shows a change as a unified diff that patch takes; "" when there is none.
// It has one hunk, from the first line that differs to the last, and shows the
// three lines around it as they are, should there be a password among them.
func Diff(path string, before, after []byte) string {
	a, b := linesOf(before), linesOf(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	if head == len(a) && head == len(b) {
		return ""
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	const context = 3
	from, behind := max(0, head-context), min(tail, context)
	endA, endB := len(a)-tail, len(b)-tail

	var s strings.Builder
	fmt.Fprintf(&s, "--- %s\n+++ %s\n@@ -%s +%s @@\n", path, path, hunk(from, endA+behind), hunk(from, endB+behind))
	show := func(sign string, lines []string) {
		for _, l := range lines {
			s.WriteString(sign + l)
			if !strings.HasSuffix(l, "\n") {
				s.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	show(" ", a[from:head])
	show("-", a[head:endA])
	show("+", b[head:endB])
	show(" ", a[endA:endA+behind])
	return s.String()
}

func hunk(from, to int) string {
	if from == to {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}

func linesOf(b []byte) []string {
	var lines []string
	for l := range strings.Lines(string(b)) {
		lines = append(lines, l)
	}
	return lines
}
