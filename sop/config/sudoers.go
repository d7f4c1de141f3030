package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A SudoRule lets one user run one command as another, without a password.
type SudoRule struct {
	User    string   // who logs in
	As      string   // whom the command runs as; empty is root
	Command []string // a path and its arguments, as words
}

// Sudoers gives a file for /etc/sudoers.d with just these rules, each once. A
// shell that takes its orders from its input is root's whole power, however
// narrow the line that allows it looks; so the file says that of itself.
func Sudoers(rules []SudoRule) ([]byte, error) {
	rules = slices.Clone(rules)
	for i, r := range rules {
		rules[i].As = cmp.Or(r.As, "root")
		if len(r.Command) == 0 || !strings.HasPrefix(r.Command[0], "/") {
			return nil, fmt.Errorf("sudoers: %q is no command with an absolute path", r.Command)
		}
		for _, name := range []string{r.User, rules[i].As} {
			if !sudoUser(name) {
				return nil, fmt.Errorf("sudoers: %q cannot stand there as the name of a user", name)
			}
		}
		if strings.ContainsAny(strings.Join(r.Command, ""), "\x00\n\r") {
			return nil, errors.New("sudoers: a command cannot have line ends in it")
		}
	}
	slices.SortFunc(rules, func(a, b SudoRule) int {
		return cmp.Or(strings.Compare(a.User, b.User), strings.Compare(a.As, b.As), slices.Compare(a.Command, b.Command))
	})
	rules = slices.CompactFunc(rules, func(a, b SudoRule) bool {
		return a.User == b.User && a.As == b.As && slices.Equal(a.Command, b.Command)
	})
	var b strings.Builder
	b.WriteString(`# What etcdrill runs by sudo, and nothing else. For /etc/sudoers.d/etcdrill, to be
# checked by: visudo -c -f FILE
#
# THIS MEANS ROOT. The one command is a shell that takes scripts from its
# standard input: a user who may run it can do anything as the user behind ALL=.
# No narrower list would be honest, since who may write units and files of root
# is root. What the line does give: nobody else, no password on any command
# line, no other way to call sudo, and a name in sudo's log for each use.
#
# status and -plan need none of it: they never call sudo.
`)
	for _, r := range rules {
		fmt.Fprintf(&b, "Defaults:%s !requiretty\n", r.User)
		fmt.Fprintf(&b, "%s ALL=(%s) NOPASSWD: %s\n", r.User, r.As, sudoCommand(r.Command))
	}
	return []byte(b.String()), nil
}

// sudoCommand writes a command so that sudo matches it and no other: sudoers has
// signs of its own, and arguments are compared as a pattern.
func sudoCommand(words []string) string {
	var b strings.Builder
	for _, c := range strings.Join(words, " ") {
		switch {
		case c == '\\': // for sudoers and for the pattern
			b.WriteString(`\\\`)
		case strings.ContainsRune(`,:=#*?[]!`, c):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func sudoUser(name string) bool {
	return name != "" && name != "ALL" && strings.IndexFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_.-", c)
	}) < 0 && !strings.HasPrefix(name, "-")
}
