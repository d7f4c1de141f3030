package scenarios

import (
	"fmt"
	"slices"
	"strings"
)

// A Coverage counts, for each procedure, step, fault and role, how often a
// strike was borne, brought something to light, or never came to pass.
type Coverage struct {
	cells map[coverageKey]*coverageCell
	steps map[string]map[string]bool // by procedure: those that were seen at all
}

type coverageKey struct{ procedure, step, fault, role string }

type coverageCell struct{ green, red, never int }

func (c *Coverage) add(r Result) {
	if c.cells == nil {
		c.cells, c.steps = map[coverageKey]*coverageCell{}, map[string]map[string]bool{}
	}
	for _, s := range r.Strikes {
		k := coverageKey{s.Procedure, s.Step, s.Fault, s.Role}
		cell := c.cells[k]
		if cell == nil {
			cell = &coverageCell{}
			c.cells[k] = cell
		}
		switch s.Verdict {
		case Pass:
			cell.green++
		case Violation:
			cell.red++
		default:
			cell.never++ // it did not strike, or nothing can be said of it
		}
	}
	verb, _, _ := strings.Cut(r.Scenario.Procedure, " ")
	for _, m := range r.Points {
		if m.Title == "" {
			continue
		}
		if c.steps[verb] == nil {
			c.steps[verb] = map[string]bool{}
		}
		c.steps[verb][plainStep(verb, m.Title)] = true
	}
}

// plainStep is a step's title without the ID or path that it ends in.
func plainStep(verb, title string) string {
	best := title
	found := ""
	for _, name := range stepNames()[verb] {
		if (title == name || strings.HasPrefix(title, name+" ")) && len(name) > len(found) {
			best, found = name, name
		}
	}
	return best
}

// Text is the table. Steps that were passed and that nothing struck are never
// hit by anything.
func (c *Coverage) Text() string {
	if len(c.cells) == 0 {
		return ""
	}
	keys := make([]coverageKey, 0, len(c.cells))
	hit := map[[2]string]bool{}
	for k := range c.cells {
		keys = append(keys, k)
		hit[[2]string{k.procedure, k.step}] = true
	}
	for verb, steps := range c.steps {
		for step := range steps {
			if !hit[[2]string{verb, step}] {
				keys = append(keys, coverageKey{verb, step, "", ""})
			}
		}
	}
	slices.SortFunc(keys, func(a, b coverageKey) int {
		return strings.Compare(a.procedure+"\x00"+a.step+"\x00"+a.fault+"\x00"+a.role, b.procedure+"\x00"+b.step+"\x00"+b.fault+"\x00"+b.role)
	})
	rows := [][]string{{"procedure", "step", "fault", "role", "green", "red", "not hit"}}
	for _, k := range keys {
		cell := c.cells[k]
		if cell == nil {
			rows = append(rows, []string{k.procedure, k.step, "-", "-", "", "", "never"})
			continue
		}
		rows = append(rows, []string{k.procedure, k.step, k.fault, k.role, some(cell.green), some(cell.red), some(cell.never)})
	}
	return table(rows)
}

func some(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// table aligns columns.
func table(rows [][]string) string {
	var width []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			fmt.Fprintf(&line, "%-*s  ", width[i], cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
