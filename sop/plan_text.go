package sop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Text is the plan as people read it: numbered stages, under each the steps
// with their safeguards, and what one would type by hand. A step that holds
// already is marked with an equals sign, one of which that is not known for lack
// of rights with a question mark.
func (p Plan) Text(v View) string {
	var b strings.Builder
	if p.Empty() {
		for _, w := range p.Warnings {
			fmt.Fprintf(&b, "   warning: %s\n", w)
		}
		return b.String() + "nothing to do\n"
	}
	if names := namesOf(p.Needs); names != "" {
		b.WriteString(wrapList("   before anything: ", names))
	}
	for _, need := range p.Needs {
		if err := need.Holds(v); isHidden(err) {
			fmt.Fprintf(&b, "   ? %s: %v; a run looks at it before it changes anything\n", need.Name, err)
		} else if err != nil {
			fmt.Fprintf(&b, "   ! %s would refuse now: %v\n", need.Name, plain(err))
		}
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "   warning: %s\n", w)
	}
	if p.Expected != "" {
		b.WriteString(wrapList("   expected: ", p.Expected))
	}
	for i, stage := range p.Stages {
		title := stage.Title
		if slices.ContainsFunc(stage.Steps, func(s Step) bool { return s.Abreast && s.Host != stage.Steps[0].Host }) {
			title += " (hosts side by side)"
		}
		fmt.Fprintf(&b, "%2d %s\n", i+1, title)
		for _, s := range stage.Steps {
			mark := "-"
			switch err := s.Until(v); {
			case err == nil:
				mark = "="
			case isHidden(err):
				mark = "?"
			}
			line := fmt.Sprintf("   %s %s", mark, s.Title)
			if s.Host != "" {
				line = fmt.Sprintf("   %s %-15s %s", mark, s.Host, s.Title)
			}
			b.WriteString(line + "\n")
			if names := namesOf(s.Needs); names != "" {
				b.WriteString(wrapList("       needs ", names))
			}
			if s.Act != nil {
				for _, c := range s.Act.ByHand(v) {
					fmt.Fprintf(&b, "       $ %s\n", c)
				}
				if d, ok := s.Act.(interface{ Diff(v View) string }); ok && mark == "-" {
					for line := range strings.Lines(d.Diff(v)) {
						b.WriteString("         " + line)
					}
				}
			}
		}
	}
	return b.String()
}

// Digest names a plan: two that would do the same have the same digest. What
// holds already does not count, since it is what a rerun changes.
func (p Plan) Digest(v View) string {
	var b strings.Builder
	fmt.Fprintln(&b, ID(v.ClusterID()))
	for _, stage := range p.Stages {
		fmt.Fprintln(&b, stage.Title)
		for _, s := range stage.Steps {
			fmt.Fprintln(&b, s.Host, s.Title, namesOf(s.Needs))
			if s.Act != nil {
				fmt.Fprintln(&b, s.Act.String())
			}
		}
	}
	return Digest(b.String())
}

func namesOf(needs []Safeguard) string {
	var names []string
	for _, s := range needs {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}

// wrapList breaks a comma-separated list at 80 columns.
func wrapList(head, list string) string {
	const width = 80
	var b strings.Builder
	line := head
	for i, word := range strings.SplitAfter(list, ", ") {
		if i > 0 && len(line)+len(strings.TrimRight(word, " ")) > width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", len(head))
		}
		line += word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// plain leaves out the safeguard's name, which stands before it already.
func plain(err error) string {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Found
	}
	return err.Error()
}

// Digest is a short hash of a text, for plans and codes.
func Digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
