package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrUsage is what every error of Check is: exit status 2.
var ErrUsage = errors.New("wrong usage")

type usageError string

func (e usageError) Error() string        { return string(e) }
func (e usageError) Is(target error) bool { return target == ErrUsage }

func wrong(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// Check says what is wrong with a command line, without the program's name. It
// may begin with the options that mage itself takes: -l, -h, -t and -v. Errors
// are ErrUsage.
func Check(args []string, targets []Target) error {
	args, m, err := skipMage(args)
	switch {
	case err != nil:
		return err
	case m.list:
		return nil
	case m.help:
		if len(args) > 0 {
			_, err := find(args[0], targets)
			return err
		}
		return nil
	}
	first := ""
	for len(args) > 0 {
		t, err := find(args[0], targets)
		if err != nil {
			return err
		}
		if first != "" {
			if alone := aloneOf(first, t, targets); alone != "" {
				return wrong("one procedure per call: %s stands alone, call %s by itself", alone, t.Name)
			}
		}
		if args, err = t.take(args[1:], targets); err != nil {
			return err
		}
		first = t.Name
	}
	return nil
}

// Called gives the target that a command line, which Check accepted, calls
// first; false when it calls none: it is empty, a list or a help.
func Called(args []string, targets []Target) (Target, bool) {
	args, m, err := skipMage(args)
	if err != nil || m.list || m.help || len(args) == 0 {
		return Target{}, false
	}
	t, err := find(args[0], targets)
	return t, err == nil
}

// Line gives what Check accepted without mage's own options, and with names
// spelt as in the table, flags in lower case.
func Line(args []string, targets []Target) []string {
	t, ok := Called(args, targets)
	if !ok {
		return nil
	}
	args, _, _ = skipMage(args) // Called has found no fault with them
	line := []string{t.Name}
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "-") {
			name, value, given := strings.Cut(a, "=")
			a = strings.ToLower(name)
			if given {
				a += "=" + value
			}
		}
		line = append(line, a)
	}
	return line
}

// Set reports whether a command line that Check accepted has a boolean flag
// that is on.
func Set(args []string, flag string) bool {
	for _, a := range args {
		name, value, given := strings.Cut(a, "=")
		if !strings.EqualFold(name, "-"+flag) {
			continue
		}
		on, err := strconv.ParseBool(value)
		return !given || err == nil && on
	}
	return false
}

func aloneOf(first string, t Target, targets []Target) string {
	if t.Alone {
		return t.Name
	}
	if f, err := find(first, targets); err == nil && f.Alone {
		return f.Name
	}
	return ""
}

// mages are the options of mage itself.
type mages struct{ list, help bool }

// skipMage takes mage's own options off the front. Mage gives any other a
// usage text and status 0.
func skipMage(args []string) ([]string, mages, error) {
	var m mages
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(args[0], "-"), "-"), "=")
		args = args[1:]
		switch name {
		case "l", "h", "v", "help":
			on := true
			if given {
				var err error
				if on, err = strconv.ParseBool(value); err != nil || name == "help" {
					return nil, m, wrong("-%s takes no value %q", name, value)
				}
			}
			m.list = m.list || name == "l" && on
			m.help = m.help || (name == "h" || name == "help") && on
		case "t":
			if !given {
				if len(args) == 0 {
					return nil, m, wrong("-t needs a duration, such as 5m")
				}
				value, args = args[0], args[1:]
			}
			if _, err := time.ParseDuration(value); err != nil {
				return nil, m, wrong("-t=%s: give a duration, such as 5m", value)
			}
		default:
			return nil, m, wrong("unknown option -%s before the target; a target's own flags stand after its name and arguments", name)
		}
	}
	return args, m, nil
}

// find finds a target by name; capitals make no difference to mage.
func find(name string, targets []Target) (Target, error) {
	var names []string
	for _, t := range targets {
		if strings.EqualFold(t.Name, name) {
			return t, nil
		}
		names = append(names, t.Name)
	}
	if near, ok := nearest(name, names); ok {
		return Target{}, wrong("unknown target %q: did you mean %s?", name, near)
	}
	return Target{}, wrong("unknown target %q: -l lists the targets", name)
}

// take reads what belongs to a target and gives the rest, which begins with
// another target or is empty.
func (t Target) take(args []string, targets []Target) ([]string, error) {
	for _, name := range t.Args {
		if len(args) == 0 {
			return nil, t.wrong("%s is missing", name)
		}
		a := args[0]
		switch {
		case a == "" && !t.Lists:
			return nil, t.wrong("%s is empty", name)
		case strings.HasPrefix(a, "-"):
			return nil, t.wrong("%s is missing before %s: arguments come first, then flags", name, a)
		case strings.ContainsFunc(a, unicode.IsControl):
			return nil, t.wrong("%s %q has a control character in it", name, a)
		}
		args = args[1:]
	}
	seen := map[string]bool{}
	var taken []Flag
	last := ""
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		f, err := t.flag(args[0])
		if err != nil {
			return nil, err
		}
		if seen[f.Name] {
			return nil, t.wrong("-%s stands there twice", f.Name)
		}
		seen[f.Name] = true
		taken = append(taken, f)
		last, args = args[0], args[1:]
	}
	for _, f := range taken {
		if f.Beside != "" && !seen[f.Beside] {
			if f.Beside != "reason" {
				return nil, t.wrong("-%s needs -%s beside it", f.Name, f.Beside)
			}
			return nil, t.wrong("-%s needs -%s=TEXT beside it: a ticket or a sentence, which is kept in the journals", f.Name, f.Beside)
		}
	}
	if len(args) == 0 {
		return nil, nil
	}
	if _, err := find(args[0], targets); err != nil {
		if last != "" && !strings.Contains(last, "=") {
			if _, err := strconv.ParseBool(args[0]); err == nil {
				return nil, t.wrong("write %s=%s, as one word", last, args[0])
			}
		}
		return nil, t.wrong("%q is one argument too many", args[0])
	}
	return args, nil
}

// flag checks one flag.
func (t Target) flag(arg string) (Flag, error) {
	name, value, given := strings.Cut(arg[1:], "=")
	if double, ok := strings.CutPrefix(name, "-"); ok && double != "" {
		return Flag{}, t.wrong("write -%s, with one dash", double)
	}
	if h := strings.ToLower(name); h == "h" || h == "help" {
		return Flag{}, t.wrong("for help write: -h %s", t.Name)
	}
	var names []string
	for _, f := range t.Flags {
		names = append(names, f.Name)
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		switch {
		case !given && f.Type == "bool":
			return f, nil
		case !given:
			return Flag{}, t.wrong("-%s needs a value: -%s=VALUE, as one word", f.Name, f.Name)
		case value == "":
			return Flag{}, t.wrong("-%s= has no value", f.Name)
		case strings.ContainsFunc(value, unicode.IsControl):
			return Flag{}, t.wrong("-%s=%q has a control character in it", f.Name, value)
		}
		if f.Check == nil {
			return f, nil
		}
		if err := f.Check(value); err != nil {
			return Flag{}, t.wrong("-%s=%s: %w", f.Name, value, err)
		}
		return f, nil
	}
	if near, ok := nearest(name, names); ok {
		return Flag{}, t.wrong("no flag -%s: did you mean -%s?", name, near)
	}
	return Flag{}, t.wrong("no flag -%s", name)
}

// wrong names the target and how it is called.
func (t Target) wrong(format string, args ...any) error {
	var usage strings.Builder
	line := "usage: " + t.Name
	for _, word := range t.words() {
		const width = 80
		if len(line)+1+len(word) > width {
			usage.WriteString(line + "\n")
			line = "      "
		}
		line += " " + word
	}
	usage.WriteString(line)
	return usageError(fmt.Sprintf("%s: %s\n%s", t.Name, fmt.Errorf(format, args...), usage.String()))
}

func (t Target) words() []string {
	words := append([]string{}, t.Args...)
	for _, f := range t.Flags {
		switch f.Type {
		case "bool":
			words = append(words, "[-"+f.Name+"]")
		case "time.Duration":
			words = append(words, "[-"+f.Name+"=DURATION]")
		default:
			words = append(words, "[-"+f.Name+"=VALUE]")
		}
	}
	return words
}

// nearest gives the name that s was most likely meant to be.
func nearest(s string, names []string) (string, bool) {
	const most = 64 // a longer word is no slip of the finger
	if len(s) > most {
		return "", false
	}
	best, found := 0, ""
	for _, n := range names {
		d := distance(strings.ToLower(s), strings.ToLower(n))
		if d <= max(2, len(n)/3) && (found == "" || d < best) {
			best, found = d, n
		}
	}
	return found, found != ""
}

// distance is how many letters are to be changed, put in or left out.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
