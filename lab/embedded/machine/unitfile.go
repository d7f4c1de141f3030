package machine

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unitDir is where an administrator's units are, and the links of systemctl.
const unitDir = "/etc/systemd/system"

// unitDirs are searched in this order; the first that has a unit wins.
func unitDirs() []string {
	return []string{unitDir, "/run/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"}
}

// Defaults of systemd.
const (
	defaultTimeout      = 90 * time.Second
	defaultRestartDelay = 100 * time.Millisecond
	defaultBurst        = 5
	defaultInterval     = 10 * time.Second
)

// A definition is what the unit files of one unit say.
type definition struct {
	load    string // loaded, not-found, masked, bad-setting
	problem string // why bad-setting
	path    string

	kind          string // Type=
	exec          []string
	ignoreFailure bool     // ExecStart=-...
	reload        []string // ExecReload=
	env           []string
	envFiles      []string
	restart       string
	restartDelay  time.Duration
	timeoutStart  time.Duration // 0 is infinity
	timeoutStop   time.Duration // 0 is infinity
	dir           string        // WorkingDirectory=
	dirOptional   bool
	user          string
	burst         int
	interval      time.Duration
	wantedBy      []string
	install       bool // has an [Install] section with something in it
}

// definition reads a unit from its files, as daemon-reload does.
func (t tree) definition(name string) *definition {
	d := &definition{
		load:         "not-found",
		kind:         "simple",
		restart:      "no",
		restartDelay: defaultRestartDelay,
		timeoutStart: defaultTimeout,
		timeoutStop:  defaultTimeout,
		burst:        defaultBurst,
		interval:     defaultInterval,
	}
	for _, dir := range unitDirs() {
		file := path.Join(dir, name)
		if t.link(file) == "/dev/null" {
			d.load, d.path = "masked", file
			return d
		}
		text, err := t.read(file)
		if err != nil {
			continue
		}
		d.load, d.path = "loaded", file
		if err := d.read(string(text)); err != nil {
			d.load, d.problem = "bad-setting", fmt.Sprintf("%s: %s", file, err)
		}
		break
	}
	if d.load == "not-found" {
		return d
	}
	for _, file := range t.dropIns(name) {
		text, err := t.read(file)
		if err == nil {
			err = d.read(string(text))
		}
		if err != nil && d.load == "loaded" {
			d.load, d.problem = "bad-setting", fmt.Sprintf("%s: %s", file, err)
		}
	}
	if d.load == "loaded" {
		if err := d.check(); err != nil {
			d.load, d.problem = "bad-setting", fmt.Sprintf("%s: %s", d.path, err)
		}
	}
	return d
}

// dropIns are the files that amend a unit, in the order of their names; of two
// with the same name the one in the earlier directory counts.
func (t tree) dropIns(name string) []string {
	found := map[string]string{}
	var names []string
	for _, dir := range unitDirs() {
		in := path.Join(dir, name+".d")
		for _, file := range t.list(in) {
			if _, ok := found[file]; ok || !strings.HasSuffix(file, ".conf") {
				continue
			}
			found[file] = path.Join(in, file)
			names = append(names, file)
		}
	}
	slices.Sort(names)
	for i, file := range names {
		names[i] = found[file]
	}
	return names
}

// read takes in one unit file or drop-in. Settings that mean nothing to a lab
// host (limits, ordering, sandboxing) are passed over.
func (d *definition) read(text string) error {
	section := ""
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue // systemd warns and goes on
		}
		if err := d.set(section, strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("%s=%s: %w", strings.TrimSpace(key), strings.TrimSpace(value), err)
		}
	}
	return nil
}

func (d *definition) set(section, key, value string) error {
	var err error
	switch section + key {
	case "[Unit]StartLimitBurst", "[Service]StartLimitBurst":
		d.burst, err = strconv.Atoi(value)
	case "[Unit]StartLimitIntervalSec", "[Unit]StartLimitInterval", "[Service]StartLimitInterval":
		d.interval, err = span(value)
	case "[Install]WantedBy", "[Install]RequiredBy":
		d.install = true
		if key == "WantedBy" {
			d.wantedBy = append(d.wantedBy, strings.Fields(value)...)
		}
	case "[Install]Alias", "[Install]Also":
		d.install = true
	case "[Service]Type":
		d.kind = value
	case "[Service]ExecStart":
		if value == "" {
			d.exec = nil
			return nil
		}
		if d.exec != nil {
			return errors.New("more than one ExecStart")
		}
		at := strings.IndexAny(value, "/")
		prefix := strings.TrimLeft(value, "-@:+!|")
		if at < 0 || len(value)-len(prefix) > at {
			return errors.New("no absolute path")
		}
		d.ignoreFailure = strings.Contains(value[:len(value)-len(prefix)], "-")
		d.exec, err = words(prefix)
	case "[Service]ExecReload":
		d.reload, err = words(strings.TrimLeft(value, "-@:+!|"))
	case "[Service]Environment":
		if value == "" {
			d.env = nil
			return nil
		}
		var more []string
		more, err = words(value)
		for _, assignment := range more {
			d.env = assign(d.env, assignment)
		}
	case "[Service]EnvironmentFile":
		if value == "" {
			d.envFiles = nil
			return nil
		}
		d.envFiles = append(d.envFiles, value)
	case "[Service]Restart":
		d.restart = value
	case "[Service]RestartSec":
		d.restartDelay, err = span(value)
	case "[Service]TimeoutStartSec":
		d.timeoutStart, err = span(value)
	case "[Service]TimeoutStopSec":
		d.timeoutStop, err = span(value)
	case "[Service]TimeoutSec":
		d.timeoutStart, err = span(value)
		d.timeoutStop = d.timeoutStart
	case "[Service]WorkingDirectory":
		d.dir, d.dirOptional = strings.CutPrefix(value, "-")
	case "[Service]User":
		d.user = value
	}
	return err
}

// check says what a lab host cannot play. To refuse is better than to start
// such a unit in another way than systemd would.
func (d *definition) check() error {
	if len(d.exec) == 0 {
		return errors.New("service has no ExecStart= setting")
	}
	switch d.kind {
	case "simple", "exec", "notify", "notify-reload":
	default:
		return saidf("Type=%s is not known to a lab host", d.kind)
	}
	switch d.restart {
	case "no", "always", "on-failure", "on-success", "on-abnormal":
	default:
		return saidf("Restart=%s is not known to a lab host", d.restart)
	}
	return nil
}

func (d *definition) notify() bool { return strings.HasPrefix(d.kind, "notify") }

// assign puts NAME=value into an environment, in place of an earlier value.
func assign(env []string, assignment string) []string {
	name, _, _ := strings.Cut(assignment, "=")
	for i, e := range env {
		if strings.HasPrefix(e, name+"=") {
			env[i] = assignment
			return env
		}
	}
	return append(env, assignment)
}

// words splits a command line the way systemd does: at blanks, but not within
// quotes, and a backslash takes the next character as it is.
func words(line string) ([]string, error) {
	var out []string
	var word strings.Builder
	var quote rune
	begun, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped, begun = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			if begun {
				out = append(out, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("unbalanced quoting")
	}
	if begun {
		out = append(out, word.String())
	}
	return out, nil
}

// expand puts the environment into a command line: ${NAME} anywhere, $NAME as
// a word of its own, which may become several words or none.
func expand(args, env []string) []string {
	value := func(name string) string {
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}
	var out []string
	for _, arg := range args {
		if name, ok := strings.CutPrefix(arg, "$"); ok && name != "" && !strings.ContainsAny(name, "{}$") {
			out = append(out, strings.Fields(value(name))...)
			continue
		}
		for {
			before, rest, ok := strings.Cut(arg, "${")
			name, after, closed := strings.Cut(rest, "}")
			if !ok || !closed {
				break
			}
			arg = before + value(name) + after
		}
		out = append(out, arg)
	}
	return out
}

// span reads a time span such as "5", "1min 30s", "500ms" or "infinity",
// which is 0, as 0 also means for timeouts.
func span(text string) (time.Duration, error) {
	if text == "infinity" {
		return 0, nil
	}
	if text == "" {
		return 0, errors.New("no time span")
	}
	var sum time.Duration
	rest := strings.ReplaceAll(text, " ", "")
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if n < 0 {
			n = len(rest)
		}
		number, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no time span", text)
		}
		rest = rest[n:]
		n = strings.IndexAny(rest, "0123456789.")
		if n < 0 {
			n = len(rest)
		}
		unit, ok := spanUnit(rest[:n])
		if !ok {
			return 0, fmt.Errorf("%q is no time span", text)
		}
		sum += time.Duration(number * float64(unit))
		rest = rest[n:]
	}
	return sum, nil
}

func spanUnit(name string) (time.Duration, bool) {
	switch name {
	case "", "s", "sec", "second", "seconds":
		return time.Second, true
	case "us", "usec":
		return time.Microsecond, true
	case "ms", "msec":
		return time.Millisecond, true
	case "m", "min", "minute", "minutes":
		return time.Minute, true
	case "h", "hr", "hour", "hours":
		return time.Hour, true
	case "d", "day", "days":
		return 24 * time.Hour, true
	case "w", "week", "weeks":
		return 7 * 24 * time.Hour, true
	}
	return 0, false
}

// enabledUnits names the units that some target wants, sorted.
func (t tree) enabledUnits() []string {
	var names []string
	for _, entry := range t.list(unitDir) {
		if strings.HasSuffix(entry, ".target.wants") {
			names = append(names, t.list(path.Join(unitDir, entry))...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// enabled gives the state of a unit file as systemctl is-enabled does.
func (t tree) enabled(name string, d *definition) string {
	switch {
	case d.load == "not-found":
		return ""
	case d.load == "masked":
		return "masked"
	case !d.install:
		return "static"
	case slices.Contains(t.enabledUnits(), name):
		return "enabled"
	}
	return "disabled"
}
