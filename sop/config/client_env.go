package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ClientEnv is the environment of etcdctl for a login shell,
// /etc/profile.d/etcdctl.sh.
type ClientEnv struct {
	Endpoints []string // client URLs
	CAFile    string
	CertFile  string
	KeyFile   string

	// API3 sets ETCDCTL_API=3, which an etcdctl older than 3.6 may need and a
	// newer one warns about on every call.
	API3 bool

	// UserFile is the file with the password of etcd's root user, for a
	// cluster with authentication. The password itself never stands in the
	// environment file.
	UserFile string
	// Admins may use that password besides root: "dba" in Pigsty.
	Admins []string
}

// The variables of etcdctl.
const (
	envEndpoints = "ETCDCTL_ENDPOINTS"
	envCA        = "ETCDCTL_CACERT"
	envCert      = "ETCDCTL_CERT"
	envKey       = "ETCDCTL_KEY"
	envAPI       = "ETCDCTL_API"
	envUser      = "ETCDCTL_USER"
)

// Render gives the file, which sh, bash and zsh can read, and which may be
// given to eval. Any value is quoted so that a shell takes it literally; Check
// says whether the values make sense.
func (c ClientEnv) Render() []byte {
	var b strings.Builder
	b.WriteString("#!/bin/bash\nalias e=\"etcdctl\"\nalias em=\"etcdctl member\"\n")
	if c.API3 {
		b.WriteString("export " + envAPI + "=3\n")
	}
	fmt.Fprintf(&b, "export %s=\"%s\"\n", envEndpoints, escapeShell(strings.Join(c.Endpoints, ",")))
	for _, v := range []struct{ name, value string }{{envCA, c.CAFile}, {envCert, c.CertFile}, {envKey, c.KeyFile}} {
		if v.value != "" {
			fmt.Fprintf(&b, "export %s=%s\n", v.name, shellWord(v.value))
		}
	}
	if c.UserFile != "" {
		file := shellWord(c.UserFile)
		fmt.Fprintf(&b, `
case "$(id -un)" in
  %s)
    if [ -r %s ]; then export ETCDCTL_USER="root:$(cat %s)"; fi
    ;;
esac
`, strings.Join(append([]string{"root"}, c.Admins...), "|"), file, file)
	}
	return []byte(b.String())
}

var (
	harmless  = regexp.MustCompile(`^[A-Za-z0-9_/.:@%+,=-]+$`)
	shellPath = regexp.MustCompile(`^/[A-Za-z0-9_/.@+-]+$`)
	userName  = regexp.MustCompile(`^[a-z_][a-z0-9_-]*$`)
)

// shellWord writes a value as one word.
func shellWord(v string) string {
	if harmless.MatchString(v) {
		return v
	}
	return `"` + escapeShell(v) + `"`
}

// escapeShell writes a value for use between double quotes.
func escapeShell(v string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(v)
}

// Check refuses endpoints, paths and users that no shell file should hold.
func (c ClientEnv) Check() error {
	if err := checkEndpoints(c.Endpoints); err != nil {
		return fmt.Errorf("client environment: %w", err)
	}
	for _, s := range c.Endpoints {
		if splitEndpoint(s).scheme == "" && c.CAFile != "" {
			return fmt.Errorf("client environment: endpoint %q needs its https://, or etcdctl speaks plain text", s)
		}
	}
	for _, v := range []struct{ name, path string }{{envCA, c.CAFile}, {envCert, c.CertFile}, {envKey, c.KeyFile}, {envUser, c.UserFile}} {
		if v.path != "" && !shellPath.MatchString(v.path) {
			return fmt.Errorf("client environment: %s: %q is no absolute path of letters, digits and ._-+@", v.name, v.path)
		}
	}
	for _, name := range c.Admins {
		if !userName.MatchString(name) {
			return fmt.Errorf("client environment: %q is no user name", name)
		}
	}
	return nil
}

// An assignment is one NAME=value in a shell file.
type assignment struct {
	name       string
	value      string
	start, end int  // the value's bytes, without its quotes
	quote      byte // '"', '\'' or 0
	line       int
	computed   bool // the shell computes the value, so it cannot be read here
}

var (
	exporting = regexp.MustCompile(`^((then|else|do|\{)[ \t]+)*((export|declare|typeset|readonly)[ \t]+(-[a-z]+[ \t]+)*)?`)
	naming    = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=`)
)

// assignments finds the assignments in a shell file, also those behind a test
// in the same line. It is no shell: it passes over what it does not understand.
func assignments(content []byte) []assignment {
	var found []assignment
	at, number := 0, 0
	for line := range strings.Lines(string(content)) {
		start := at
		at += len(line)
		number++
		text := strings.TrimRight(line, "\r\n")
		for i := 0; i < len(text); i = nextCommand(text, i) {
			i = skipBlanks(text, i)
			i += len(exporting.FindString(text[i:]))
			for {
				m := naming.FindStringSubmatch(text[i:])
				if m == nil {
					break
				}
				a := assignment{name: m[1], line: number}
				i = a.read(text, i+len(m[0]))
				a.start += start
				a.end += start
				found = append(found, a)
				i = skipBlanks(text, i)
			}
		}
	}
	return found
}

func skipBlanks(text string, i int) int {
	return len(text) - len(strings.TrimLeft(text[i:], " \t"))
}

// nextCommand gives where the command after the one at text[i] begins; the end
// of text when there is none or a comment.
func nextCommand(text string, i int) int {
	var quote byte
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			} else if c == '\\' && quote == '"' {
				i++
			}
		case c == '\\':
			i++
		case c == '"' || c == '\'':
			quote = c
		case c == '#' && (i == 0 || strings.ContainsRune(" \t;&|", rune(text[i-1]))):
			return len(text)
		case strings.ContainsRune(";&|", rune(c)):
			return i + 1
		}
	}
	return len(text)
}

// read takes in the value that begins at text[i] and returns where it ends,
// quotes included; start and end are places in text.
func (a *assignment) read(text string, i int) int {
	if i < len(text) && (text[i] == '"' || text[i] == '\'') {
		a.quote = text[i]
		i++
	}
	a.start = i
	var value strings.Builder
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case a.quote != 0 && c == a.quote:
			a.end = i
			i++
			a.value = value.String()
			if i < len(text) && !strings.ContainsRune(" \t;#&|", rune(text[i])) {
				a.computed = true // glued to another piece
			}
			return i
		case a.quote != '\'' && (c == '$' || c == '`'):
			a.computed = true
		case a.quote == '"' && c == '\\' && i+1 < len(text) && strings.ContainsRune("\\\"$`", rune(text[i+1])):
			i++
			c = text[i]
		case a.quote == 0 && strings.ContainsRune(" \t;&|", rune(c)):
			a.end = i
			a.value = value.String()
			return i
		case a.quote == 0 && strings.ContainsRune("\\\"'()<>", rune(c)):
			a.computed = true
		}
		value.WriteByte(c)
	}
	a.end = i
	a.value = value.String()
	if a.quote != 0 {
		a.computed = true // the quote is closed on a later line
	}
	return i
}

// passwordFile finds the file in ETCDCTL_USER="root:$(cat FILE)".
var passwordFile = regexp.MustCompile(`\$\((?:cat[ \t]+|<[ \t]*)["']?([^ "'()]+)["']?\)`)

// adminCase finds the users in the case that guards it.
var adminCase = regexp.MustCompile(`(?m)^[ \t]*(?:case .* in[ \t]+)?\(?root\|([a-z0-9_|-]+)\)`)

// ParseClientEnv reads an etcdctl environment file, Pigsty's of any version or
// Render's. A file without endpoints gives ErrNoEndpoints.
func ParseClientEnv(content []byte) (ClientEnv, error) {
	var c ClientEnv
	endpoints := false
	for _, a := range assignments(content) {
		switch a.name {
		case envUser:
			if m := passwordFile.FindStringSubmatch(string(content[a.start:])); m != nil {
				c.UserFile = m[1]
			}
			continue
		case envEndpoints, envCA, envCert, envKey, envAPI:
			if a.computed {
				return ClientEnv{}, fmt.Errorf("read client environment: line %d: the shell computes %s, so it cannot be read", a.line, a.name)
			}
		}
		switch a.name {
		case envEndpoints:
			c.Endpoints, endpoints = splitList(a.value), true
		case envCA:
			c.CAFile = a.value
		case envCert:
			c.CertFile = a.value
		case envKey:
			c.KeyFile = a.value
		case envAPI:
			c.API3 = a.value == "3"
		}
	}
	if !endpoints || len(c.Endpoints) == 0 {
		return ClientEnv{}, fmt.Errorf("read client environment: %w", ErrNoEndpoints)
	}
	if c.UserFile != "" {
		if m := adminCase.FindSubmatch(content); m != nil {
			c.Admins = strings.Split(string(m[1]), "|")
		}
	}
	return c, nil
}

// EditClientEnv gives an environment file with ETCDCTL_ENDPOINTS replaced and
// every other byte as it was, the quoting included. A file that names the same
// endpoints already is returned as it is.
func EditClientEnv(content []byte, endpoints []string) ([]byte, error) {
	edited, err := editClientEnv(content, endpoints)
	if err != nil {
		return nil, fmt.Errorf("edit client environment: %w", err)
	}
	return edited, nil
}

func editClientEnv(content []byte, endpoints []string) ([]byte, error) {
	if err := checkEndpoints(endpoints); err != nil {
		return nil, err
	}
	var at assignment
	for _, a := range assignments(content) {
		if a.name != envEndpoints {
			continue
		}
		if at.name != "" {
			return nil, fmt.Errorf("line %d: %s is set a second time, first in line %d; which one counts is for a person to see", a.line, envEndpoints, at.line)
		}
		at = a
	}
	switch {
	case at.name == "":
		return nil, ErrNoEndpoints
	case at.computed:
		return nil, fmt.Errorf("line %d: the shell computes %s; it is not edited automatically", at.line, envEndpoints)
	case SameEndpoints(splitList(at.value), endpoints):
		return content, nil
	}
	text := strings.Join(endpoints, ",")
	if at.quote == 0 && strings.ContainsAny(text, "[]") {
		text = `"` + text + `"` // bare brackets are a pattern to a shell
	}
	edited := splice(content, at.start, at.end, text)
	if again, err := ParseClientEnv(edited); err != nil || !slices.Equal(again.Endpoints, endpoints) {
		return nil, fmt.Errorf("line %d: %s cannot be edited automatically: the new value would not be read back", at.line, envEndpoints)
	}
	return edited, nil
}
