package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// UnitSpec is what etcd's systemd unit says. For Unit, a zero field stands for
// what Pigsty writes.
type UnitSpec struct {
	DataDir  string // WorkingDirectory
	ConfPath string // argument of --config-file
	Binary   string // what ExecStart runs
	User     string

	// What ParseUnit finds besides; Unit does not write these.
	Type             string   // notify, as a rule; systemd's default is simple
	Args             []string // further arguments of etcd, which stand above etcd.conf or beside it
	Environment      []string // NAME=value
	EnvironmentFiles []string // with their leading "-", if any
	TimeoutStart     string   // TimeoutStartSec, "" for systemd's default of 90 s
	Restart          string
}

// Unit gives the systemd unit as Pigsty 4.5 writes it.
func Unit(u UnitSpec) []byte {
	return fmt.Appendf(nil, `[Unit]
Description=Etcd Server
Documentation=https://etcd.io/docs/
After=network.target
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
WorkingDirectory=%s
User=%s
ExecStart=%s --config-file %s
Restart=on-failure
RestartSec=5
TimeoutStartSec=60
TimeoutStopSec=60
LimitNOFILE=65536

# the last process to be killed when memory runs out
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
`,
		escapeSpecifiers(cmp.Or(u.DataDir, DefaultDataDir)),
		escapeSpecifiers(cmp.Or(u.User, User)),
		systemdWord(cmp.Or(u.Binary, BinaryPath)),
		systemdWord(cmp.Or(u.ConfPath, ConfPath)))
}

// JoinDropIn gives a drop-in for the unit of a member that joins: a learner is
// ready only when it has the whole database, and systemd must not kill and
// restart it meanwhile. Remove it once the member has been promoted.
func JoinDropIn() []byte {
	return []byte(`# Written by etcdrill while this member joins, and removed afterwards. A learner
# is ready when it has fetched the whole database, however long that takes.
[Service]
TimeoutStartSec=infinity
`)
}

func escapeSpecifiers(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// systemdWord writes one word of a command line.
func systemdWord(s string) string {
	s = strings.ReplaceAll(escapeSpecifiers(s), "$", "$$")
	if strings.ContainsAny(s, " \t\"'\\;") {
		s = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}

// ParseUnit reads a systemd unit that runs etcd, drop-ins appended or not.
func ParseUnit(content []byte) (UnitSpec, error) {
	var u UnitSpec
	var command string
	commands := 0
	for _, s := range unitSettings(content) {
		if s.section != "Service" {
			continue
		}
		switch s.key {
		case "Type":
			u.Type = s.value
		case "User":
			u.User = s.value
		case "WorkingDirectory":
			u.DataDir = strings.ReplaceAll(s.value, "%%", "%")
		case "TimeoutStartSec", "TimeoutSec":
			u.TimeoutStart = s.value
		case "Restart":
			u.Restart = s.value
		case "Environment":
			if s.value == "" {
				u.Environment = nil
				continue
			}
			words, err := systemdWords(s.value)
			if err != nil {
				return UnitSpec{}, fmt.Errorf("read unit file: Environment: %w", err)
			}
			u.Environment = append(u.Environment, words...)
		case "EnvironmentFile":
			if s.value == "" {
				u.EnvironmentFiles = nil
				continue
			}
			u.EnvironmentFiles = append(u.EnvironmentFiles, s.value)
		case "ExecStart":
			// An empty one takes back those before it.
			command, commands = s.value, commands+1
			if s.value == "" {
				commands = 0
			}
		}
	}
	switch commands {
	case 0:
		return UnitSpec{}, errors.New("read unit file: there is no ExecStart in it")
	case 1:
	default:
		return UnitSpec{}, fmt.Errorf("read unit file: there are %d ExecStart commands in it", commands)
	}
	words, err := systemdWords(strings.TrimLeft(command, "-@:+!|"))
	if err != nil {
		return UnitSpec{}, fmt.Errorf("read unit file: ExecStart: %w", err)
	}
	if len(words) == 0 {
		return UnitSpec{}, errors.New("read unit file: ExecStart names no program")
	}
	u.Binary = words[0]
	for i := 1; i < len(words); i++ {
		flag, value, given := strings.Cut(words[i], "=")
		if strings.TrimLeft(flag, "-") != "config-file" || !strings.HasPrefix(flag, "-") {
			u.Args = append(u.Args, words[i])
			continue
		}
		if !given && i+1 < len(words) {
			i++
			value = words[i]
		}
		u.ConfPath = value
	}
	return u, nil
}

type unitSetting struct{ section, key, value string }

// unitSettings reads systemd's syntax: sections, comments, continued lines.
func unitSettings(content []byte) []unitSetting {
	var settings []unitSetting
	section, pending := "", ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		comment := strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
		if comment {
			continue // also between the parts of a continued line
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			pending += rest + " "
			continue
		}
		line, pending = strings.TrimSpace(pending+line), ""
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			settings = append(settings, unitSetting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return settings
}

// systemdWords splits a command line or a list of assignments.
func systemdWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return slices.Clip(unescape(words)), nil
}

// unescape undoes what systemdWord doubles.
func unescape(words []string) []string {
	for i, w := range words {
		words[i] = strings.NewReplacer("%%", "%", "$$", "$").Replace(w)
	}
	return words
}
