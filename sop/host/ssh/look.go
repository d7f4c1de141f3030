package ssh

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// question writes the script that finds everything out in one go. What waits for
// others (programs, connections) runs side by side with what reads files.
func question(q host.Question, known programs) (string, error) {
	var calls, waits []string
	var errs []error
	call := func(to *[]string, words ...string) {
		for _, w := range words {
			if strings.ContainsRune(w, 0) {
				errs = append(errs, fmt.Errorf("%q: a NUL is in it", w))
			}
		}
		*to = append(*to, quoteAll(words...))
	}
	if len(q.Units) > 0 {
		call(&calls, append([]string{"units"}, q.Units...)...)
	}
	all := func(name string, values ...string) {
		if len(values) > 0 {
			call(&calls, append([]string{name}, values...)...)
		}
	}
	all("stats", slices.Concat(q.Files, q.Dirs)...)
	all("files", q.Files...)
	all("sums", q.Sums...)
	all("dirs", q.Dirs...)
	all("spaces", q.Dirs...)
	for i, u := range q.Users {
		call(&calls, "user", strconv.Itoa(i), u)
	}
	if len(q.Ports) > 0 {
		words := []string{"listeners"}
		for _, p := range q.Ports {
			words = append(words, fmt.Sprintf(":%04X", p))
		}
		call(&calls, words...)
	}
	if len(q.Callers) > 0 {
		words := []string{"callers"}
		for _, p := range q.Callers {
			words = append(words, fmt.Sprintf("%04X", p))
		}
		call(&calls, words...)
	}
	for i, g := range q.Globs {
		if !path.IsAbs(g) {
			continue // it matches nothing
		}
		call(&calls, "glob", strconv.Itoa(i))
		calls[len(calls)-1] += " " + globbed(g)
	}
	if q.Addrs {
		call(&calls, "addrs")
	}
	if q.Etcd != "" {
		call(&waits, "program", "0", q.Etcd, host.AsksVersion(q.Etcd), known[q.Etcd].stamp)
	}
	for i, p := range q.Programs {
		call(&waits, "program", strconv.Itoa(i+1), p, host.AsksVersion(p), known[p].stamp)
	}
	if q.Package != "" {
		call(&waits, "offers", q.Package)
	}
	for i, t := range q.Trials {
		words := slices.Concat([]string{"trial", strconv.Itoa(i), base64.StdEncoding.EncodeToString(t.Config)}, t.Env, []string{t.Program})
		if len(t.Config) > 0 {
			words = append(words, "--config-file=/dev/stdin")
		}
		call(&waits, append(words, t.Args...)...)
	}
	for i, d := range q.Dial {
		name, port, err := net.SplitHostPort(d)
		if err != nil {
			continue // answer says so
		}
		call(&waits, "dial", strconv.Itoa(i), name, port)
	}
	for i, u := range q.HTTP {
		if strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") {
			call(&waits, "http", strconv.Itoa(i), u)
		}
	}
	for i, h := range q.TLS {
		name, port, err := net.SplitHostPort(h.Address)
		if err != nil {
			continue
		}
		kind := "hostname"
		if _, err := netip.ParseAddr(name); err == nil {
			kind = "ip"
		}
		call(&waits, "shake", strconv.Itoa(i), name, port, kind, h.CA, h.Cert, h.Key)
	}
	calls = append(calls, "boot") // last, so that the clock is as of the answer
	script := "exec </dev/null\n" + preludeScript + lookScript
	if len(waits) == 0 {
		return script + strings.Join(calls, "\n"), errors.Join(errs...)
	}
	return script + "{\n" + strings.Join(waits, " &\n") + " &\nwait\n} | {\n" + strings.Join(calls, "\n") + "\ncat\n}", errors.Join(errs...)
}

// globbed quotes a pattern but for * and ?.
func globbed(pattern string) string {
	var b strings.Builder
	rest := pattern
	for rest != "" {
		i := strings.IndexAny(rest, "*?")
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			b.WriteString(Quote(rest[:i]))
		}
		if i < len(rest) {
			b.WriteByte(rest[i])
			i++
		}
		rest = rest[i:]
	}
	return b.String()
}

// programs are those of a host that told their version, by path. To ask etcd
// starts all of it, so it is asked again only once the file is another.
type programs map[string]told

// told is what a program said, and what marked the file then: device, inode,
// length, mode, and when content and inode were changed last.
type told struct {
	stamp  string
	binary host.Binary
}

// answer reads what the script of question found, and writes down in known what
// programs have told.
func answer(q host.Question, out []byte, known programs) (host.Facts, error) {
	a := reading{q: q, facts: host.Facts{}, parts: map[int]string{}, known: known}
	a.prepare()
	for _, l := range lines(out) {
		if err := a.line(string(l)); err != nil {
			return host.Facts{}, fmt.Errorf("answer %.80q: %w", l, err)
		}
	}
	return a.facts, a.finish()
}

// A reading is an answer that is being read.
type reading struct {
	q     host.Question
	facts host.Facts
	known programs

	up      time.Duration // since the kernel began
	began   []uint64      // of each unit's process, microseconds since then
	mounts  []string
	stats   map[string][]string // by name: mode, owner, uid, group, gid, length, type, time of the last change
	files   []int               // those that heads has, by number
	heads   []byte
	reals   map[string]string // of directories
	at      map[string]string // what there is of a directory's path
	spaces  map[string]int64
	inodes  map[string]int // of listening sockets, to their ports
	parts   map[int]string // of HTTP replies, in base64
	clocked bool
}

func (a *reading) prepare() {
	q, f := a.q, &a.facts
	a.stats, a.reals, a.at = map[string][]string{}, map[string]string{}, map[string]string{}
	a.spaces, a.inodes = map[string]int64{}, map[string]int{}
	if len(q.Files) > 0 {
		f.Files = map[string]host.File{}
		for _, name := range q.Files {
			f.Files[name] = host.File{}
		}
	}
	if len(q.Sums) > 0 {
		f.Sums = map[string]string{}
	}
	if len(q.Dirs) > 0 {
		f.Dirs = map[string]host.Dir{}
		for _, name := range q.Dirs {
			f.Dirs[name] = host.Dir{}
		}
	}
	if len(q.Users) > 0 {
		f.Users = map[string]bool{}
		for _, name := range q.Users {
			f.Users[name] = false
		}
	}
	if len(q.Ports) > 0 {
		f.Ports = map[int]string{}
	}
	if len(q.Dial) > 0 {
		f.Dials = map[string]string{}
		for _, d := range q.Dial {
			f.Dials[d] = "it was not tried"
			if _, _, err := net.SplitHostPort(d); err != nil {
				f.Dials[d] = err.Error()
			}
		}
	}
	if q.Etcd != "" {
		f.Etcd.Path = q.Etcd
	}
	if len(q.Programs) > 0 {
		f.Programs = map[string]host.Binary{}
	}
	if len(q.Trials) > 0 {
		f.Trials = make([]host.Tried, len(q.Trials))
	}
	if len(q.Globs) > 0 {
		f.Globs = map[string][]string{}
	}
	if len(q.HTTP) > 0 {
		f.HTTP = map[string]host.Reply{}
		for _, u := range q.HTTP {
			f.HTTP[u] = host.Reply{Problem: "no URL of http or https"}
		}
	}
	if len(q.TLS) > 0 {
		f.Handshakes = make([]string, len(q.TLS))
		for i, h := range q.TLS {
			if _, _, err := net.SplitHostPort(h.Address); err != nil {
				f.Handshakes[i] = err.Error()
			} else {
				f.Handshakes[i] = "it was not tried"
			}
		}
	}
}

// asked gives what a line is about.
func asked[T any](all []T, i int) (T, error) {
	if i < 0 || i >= len(all) {
		var none T
		return none, fmt.Errorf("number %d was not asked", i)
	}
	return all[i], nil
}

func (a *reading) line(l string) error {
	if l == "" {
		return nil
	}
	kind, rest, _ := strings.Cut(l, " ")
	number, rest, _ := strings.Cut(rest, " ")
	word, value, _ := strings.Cut(rest, " ")
	i, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	switch kind {
	case "units":
		return a.units(word, value)
	case "file":
		return a.file(i, word, value)
	case "sum":
		name, err := asked(a.q.Sums, i)
		if err == nil {
			a.facts.Sums[name] = "" // it is there, and cannot be read
		}
		return err
	case "dir":
		return a.dir(i, word, value)
	case "stats":
		return records(value, 9, func(r []string) error {
			a.stats[r[0]] = r[1:]
			return nil
		})
	case "heads":
		a.heads, err = decode(value)
		return err
	case "sums":
		text, err := decode(value)
		for _, l := range split0(text) {
			if sum, name, ok := strings.Cut(l, "  "); ok {
				a.facts.Sums[name] = sum
			}
		}
		return err
	case "found":
		return a.found(value)
	case "spaces":
		return records(value, 3, func(r []string) error {
			blocks, err := strconv.ParseInt(r[1], 10, 64)
			if err != nil {
				return err
			}
			size, err := strconv.ParseInt(r[2], 10, 64)
			a.spaces[r[0]] = blocks * size
			return err
		})
	case "mounts":
		text, err := decode(value)
		for l := range strings.Lines(string(text)) {
			if f := strings.Fields(l); len(f) > 4 {
				a.mounts = append(a.mounts, unescaped(f[4]))
			}
		}
		return err
	case "user":
		name, err := asked(a.q.Users, i)
		if err == nil {
			a.facts.Users[name] = true
		}
		return err
	case "port":
		port, err := strconv.ParseUint(word, 16, 16)
		if err != nil {
			return err
		}
		a.inodes[value] = int(port)
		if _, known := a.facts.Ports[int(port)]; !known {
			a.facts.Ports[int(port)] = unnamed
		}
		return nil
	case "holder":
		if port, ok := a.inodes[word]; ok && value != "" {
			a.facts.Ports[port] = value
		}
		return nil
	case "callers":
		text, err := decode(value)
		if err != nil {
			return err
		}
		a.facts.Callers, err = host.CallersIn(string(text), a.q.Callers)
		return err
	case "glob":
		pattern, err := asked(a.q.Globs, i)
		if err != nil {
			return err
		}
		text, err := decode(value)
		if names := split0(text); len(names) > 0 {
			slices.Sort(names)
			a.facts.Globs[pattern] = names
		}
		return err
	case "addr":
		text, _, _ := strings.Cut(word+value, "/")
		text = strings.TrimPrefix(text, "is")
		text, _, _ = strings.Cut(text, "%")
		addr, err := netip.ParseAddr(text)
		if err == nil && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !slices.Contains(a.facts.Addrs, addr.String()) {
			a.facts.Addrs = append(a.facts.Addrs, addr.String())
		}
		return nil // another word of ip's
	case "program":
		return a.program(i, word, value)
	case "offer":
		a.facts.Offers = append(a.facts.Offers, value)
		return nil
	case "trial":
		return a.trial(i, value)
	case "dial":
		address, err := asked(a.q.Dial, i)
		if err != nil {
			return err
		}
		a.facts.Dials[address], err = said(value)
		if s := a.facts.Dials[address]; s != "" {
			a.facts.Dials[address] = refusalIn(s)
		}
		return err
	case "shake":
		if _, err := asked(a.q.TLS, i); err != nil {
			return err
		}
		a.facts.Handshakes[i], err = said(value)
		return err
	case "http":
		a.parts[i] += value
		return nil
	case "boot":
		a.facts.BootID = value
		return nil
	case "clock":
		return a.clock(value)
	}
	return errors.New("no such answer is known")
}

// unnamed is who listens where we may not look.
const unnamed = "another program"

func (a *reading) clock(value string) error {
	now, up, _ := strings.Cut(value, " ")
	var err error
	if a.facts.Clock, err = moment(now); err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil {
		return err
	}
	a.up, a.clocked = time.Duration(seconds*float64(time.Second)), true
	return nil
}

// moment reads seconds since 1970, of which a part may follow the point.
func moment(text string) (time.Time, error) {
	sec, frac, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	ns, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	if err != nil {
		ns = 0 // it does not tell so much
	}
	return time.Unix(s, ns), nil
}

func (a *reading) file(i int, word, value string) error {
	name, err := asked(a.q.Files, i)
	if err != nil {
		return err
	}
	f := a.facts.Files[name]
	switch word {
	case "real":
		f.Real = value
	case "read":
		a.files = append(a.files, i)
	case "problem":
		f.Exists, f.Problem = true, value // whether it is there could not be seen
	}
	a.facts.Files[name] = f
	return nil
}

func (a *reading) dir(i int, word, value string) error {
	name, err := asked(a.q.Dirs, i)
	if err != nil {
		return err
	}
	d := a.facts.Dirs[name]
	switch word {
	case "real":
		a.reals[name] = value
	case "at":
		a.at[name] = value
	case "problem":
		d.Problem = value
	case "wal":
		d.WAL = true
		d.WALHead, err = decode(value)
	}
	a.facts.Dirs[name] = d
	return err
}

// found reads what find told of everything in the directories: where it began,
// the path below, type, blocks of 512 bytes, and when it was changed.
func (a *reading) found(value string) error {
	asides := map[string]*host.Aside{} // by path
	dirs := map[string]string{}        // what they are in
	err := records(value, 5, func(r []string) error {
		dir, below, kind := r[0], r[1], r[2]
		if below == "" {
			return nil
		}
		d := a.facts.Dirs[dir]
		var bytes int64
		if kind != "d" {
			blocks, err := strconv.ParseInt(r[3], 10, 64)
			if err != nil {
				return err
			}
			bytes = 512 * blocks
		}
		d.UsedBytes += bytes
		top, _, deep := strings.Cut(below, "/")
		stamp, aside := strings.CutPrefix(top, host.AsidePrefix)
		switch at := path.Join(dir, top); {
		case aside && !deep:
			since, err := time.Parse("20060102T150405Z", stamp)
			if err != nil {
				if since, err = moment(r[4]); err != nil {
					return err
				}
				since = since.Truncate(time.Second)
			}
			asides[at], dirs[at] = &host.Aside{Path: at, Bytes: bytes, Since: since}, dir
		case aside:
			if known := asides[at]; known != nil { // what it is in comes first
				known.Bytes += bytes
			}
		case !deep:
			d.Entries = append(d.Entries, top)
		}
		if !aside && kind != "d" {
			written, err := moment(r[4])
			if err != nil {
				return err
			}
			if written.After(d.Changed) {
				d.Changed = written
			}
		}
		a.facts.Dirs[dir] = d
		return nil
	})
	for at, aside := range asides {
		d := a.facts.Dirs[dirs[at]]
		d.Aside = append(d.Aside, *aside)
		a.facts.Dirs[dirs[at]] = d
	}
	return err
}

// records reads values of which each ends with a NUL, so many at a time. What
// was cut off at the end is left out.
func records(value string, n int, each func([]string) error) error {
	text, err := decode(value)
	if err != nil {
		return err
	}
	values := split0(text)
	if len(text) > 0 && text[len(text)-1] != 0 {
		values = values[:len(values)-1]
	}
	for ; len(values) >= n; values = values[n:] {
		if err := each(values[:n]); err != nil {
			return err
		}
	}
	return nil
}

// kept reads mode, owner and group as stat gives them.
func kept(f []string) (owner, group string, mode fs.FileMode, err error) {
	bits, err := strconv.ParseUint(f[0], 8, 32)
	owner, group = f[1], f[3]
	if owner == "UNKNOWN" {
		owner = f[2]
	}
	if group == "UNKNOWN" {
		group = f[4]
	}
	return owner, group, fs.FileMode(bits).Perm(), err
}

// maxFile is how long a file may be that is read.
const maxFile = 8 << 20

// errChanged says that a file was changed while it was read, so that it should
// be read again.
var errChanged = errors.New("a file changed while it was read")

// settle puts together what stat, head and find told of files and directories.
func (a *reading) settle() error {
	contents, err := a.contents()
	if err != nil {
		return err
	}
	for i, name := range a.q.Files {
		f := a.facts.Files[name]
		if f.Real == "" && f.Problem == "" {
			f.Real = path.Clean(name)
		}
		if st, ok := a.stats[name]; ok {
			f.Exists = true
			if f.Owner, f.Group, f.Mode, err = kept(st); err != nil {
				return fmt.Errorf("stat of %s: %w", name, err)
			}
			if f.Changed, err = moment(st[7]); err != nil {
				return fmt.Errorf("stat of %s: %w", name, err)
			}
			switch content, read := contents[i]; {
			case f.Problem != "":
			case st[6] == "directory":
				f.Problem = "is a directory"
			case !strings.HasPrefix(st[6], "regular"):
				f.Problem = "not a regular file"
			case len(content) > maxFile:
				f.Problem = "it is larger than 8 MiB"
			case read:
				f.Content = content
			default:
				return fmt.Errorf("%w: %s", errChanged, name)
			}
			if f.Real == "" {
				f.Real = path.Clean(name) // it is there, and cannot be read
			}
		}
		a.facts.Files[name] = f
	}
	for _, name := range a.q.Dirs {
		d := a.facts.Dirs[name]
		if st, ok := a.stats[name]; ok {
			d.Exists = true
			if d.Owner, d.Group, d.Mode, err = kept(st); err != nil {
				return fmt.Errorf("stat of %s: %w", name, err)
			}
			if st[6] != "directory" {
				d.Problem = "not a directory"
			}
		}
		if d.Problem != "not a directory" {
			d.FreeBytes = a.spaces[a.at[name]]
		}
		real := a.reals[name]
		if real == "" {
			real = path.Clean(name)
		}
		d.Mount = d.Exists && slices.Contains(a.mounts, real)
		slices.Sort(d.Entries)
		slices.SortFunc(d.Aside, func(x, y host.Aside) int {
			return cmp.Or(x.Since.Compare(y.Since), strings.Compare(x.Path, y.Path))
		})
		a.facts.Dirs[name] = d
	}
	return nil
}

// contents takes what head wrote apart: a line with the name before each file,
// an empty line before each such line but the first, and as many bytes as stat
// told.
func (a *reading) contents() (map[int][]byte, error) {
	read := map[int][]byte{}
	rest := a.heads
	for n, i := range a.files {
		name := a.q.Files[i]
		st, ok := a.stats[name]
		if !ok {
			return nil, fmt.Errorf("%w: %s", errChanged, name)
		}
		length, err := strconv.ParseInt(st[5], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("stat of %s: %w", name, err)
		}
		head := "==> " + name + " <==\n"
		if n > 0 {
			head = "\n" + head
		}
		length = min(length, maxFile+1)
		if !bytes.HasPrefix(rest, []byte(head)) || int64(len(rest)-len(head)) < length {
			return nil, fmt.Errorf("%w: %s", errChanged, name)
		}
		rest = rest[len(head):]
		if length > 0 {
			read[i] = rest[:length:length]
		} else {
			read[i] = nil
		}
		rest = rest[length:]
	}
	if len(rest) > 0 {
		return nil, errChanged
	}
	return read, nil
}

// units reads the blocks that systemctl show writes, one for each unit.
func (a *reading) units(word, value string) error {
	text, err := decode(value)
	if err != nil {
		return err
	}
	if word != "are" {
		return fmt.Errorf("systemctl show: %s", strings.TrimSpace(string(text)))
	}
	blocks := strings.Split(strings.TrimSpace(string(text)), "\n\n")
	if len(blocks) != len(a.q.Units) {
		return fmt.Errorf("systemctl show told of %d units and not of %d", len(blocks), len(a.q.Units))
	}
	a.facts.Units = map[string]host.Unit{}
	for i, block := range blocks {
		u, began, err := unitOf(block)
		if err != nil {
			return fmt.Errorf("unit %s: %w", a.q.Units[i], err)
		}
		a.facts.Units[a.q.Units[i]] = u
		a.began = append(a.began, began)
	}
	return nil
}

func unitOf(block string) (u host.Unit, began uint64, err error) {
	for l := range strings.Lines(block) {
		key, value, _ := strings.Cut(strings.TrimRight(l, "\n"), "=")
		var bad error
		switch key {
		case "LoadState":
			u.Load = value
		case "ActiveState":
			u.Active = value
		case "SubState":
			u.Sub = value
		case "UnitFileState":
			u.Enabled = value
		case "MainPID":
			u.PID, bad = strconv.Atoi(value)
		case "ExecMainStartTimestampMonotonic":
			began, bad = strconv.ParseUint(value, 10, 64)
		case "ExecMainStatus":
			u.Exit, bad = strconv.Atoi(value)
		case "FragmentPath":
			u.Path = value
		case "NeedDaemonReload":
			u.Stale = value == "yes"
		case "Environment":
			u.Env, bad = Words(value)
		}
		if bad != nil {
			err = fmt.Errorf("%s=%s: %w", key, value, bad)
		}
	}
	return u, began, err
}

func (a *reading) program(i int, word, value string) error {
	name := a.q.Etcd
	if i > 0 {
		var err error
		if name, err = asked(a.q.Programs, i-1); err != nil {
			return err
		}
	}
	b := host.Binary{Path: name}
	switch word {
	case "problem":
		b.Problem = value
	case "same":
		was, ok := a.known[name]
		if !ok {
			return fmt.Errorf("%s is said to be as it was, and was not known", name)
		}
		b = was.binary
	case "said":
		status, rest, _ := strings.Cut(value, " ")
		stamp, text, _ := strings.Cut(rest, " ")
		out, err := decode(text)
		if err != nil {
			return err
		}
		if b.Version = host.VersionIn(string(out)); b.Version == "" {
			b.Problem = "it does not tell its version"
			if status != "0" {
				b.Problem += ": exit status " + status
			}
		} else if a.known != nil {
			a.known[name] = told{stamp, b}
		}
	}
	if i == 0 {
		a.facts.Etcd = b
	} else {
		a.facts.Programs[name] = b
	}
	return nil
}

func (a *reading) trial(i int, value string) error {
	if _, err := asked(a.q.Trials, i); err != nil {
		return err
	}
	status, text, _ := strings.Cut(value, " ")
	out, err := decode(text)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(status)
	a.facts.Trials[i] = host.Tried{Status: n, Said: string(out)}
	return err
}

// said reads the status and the words of something that was tried; empty when it
// went well.
func said(value string) (string, error) {
	status, text, _ := strings.Cut(value, " ")
	words, err := decode(text)
	switch {
	case err != nil:
		return "", err
	case status == "0":
		return "", nil
	case status == "124" && len(words) == 0:
		return "connection timed out", nil
	case len(words) == 0:
		return "exit status " + status, nil
	}
	return strings.TrimSpace(string(words)), nil
}

// refusalIn picks the reason out of what bash says of a connection, the last
// words of several lines.
func refusalIn(text string) string {
	l := strings.Split(text, "\n")
	last := l[0]
	if i := strings.LastIndex(last, ": "); i >= 0 && strings.HasPrefix(last, "bash") || strings.Contains(last, "/dev/tcp/") {
		last = last[i+2:]
	}
	return strings.TrimSpace(last)
}

// finish fills in what takes more than one line to know.
func (a *reading) finish() error {
	if !a.clocked {
		return errors.New("the answer was cut off")
	}
	if err := a.settle(); err != nil {
		return err
	}
	for i, began := range a.began {
		name := a.q.Units[i]
		u := a.facts.Units[name]
		if u.PID != 0 && began > 0 {
			// The wall clock may have been set since; this one only runs.
			u.Since = a.facts.Clock.Add(time.Duration(began)*time.Microsecond - a.up)
		}
		a.facts.Units[name] = u
	}
	slices.Sort(a.facts.Addrs)
	for i, text := range a.parts {
		url, err := asked(a.q.HTTP, i)
		if err != nil {
			return err
		}
		b, err := decode(text)
		if err != nil {
			return fmt.Errorf("reply of %s: %w", url, err)
		}
		a.facts.HTTP[url] = replyOf(b)
	}
	return nil
}

// maxBody is how much of a reply's body is kept.
const maxBody = 64 << 10

// replyOf reads what curl -i writes: head, empty line, body; after it the exit
// status in a line of our own, unless the body was so long that it was cut off.
func replyOf(b []byte) host.Reply {
	text := string(b)
	status := "0"
	if i := strings.LastIndex(text, "\netcdrill:"); i >= 0 && len(text)-i < 20 {
		text, status = text[:i], strings.TrimSpace(text[i+len("\netcdrill:"):])
	}
	for strings.HasPrefix(text, "HTTP/") {
		head, body, ok := cutHead(text)
		f := strings.Fields(head)
		if !ok || len(f) < 2 {
			break
		}
		code, err := strconv.Atoi(f[1])
		if err != nil {
			break
		}
		if code < 200 {
			text = body // 100 Continue comes before the answer
			continue
		}
		return host.Reply{Status: code, Body: []byte(body[:min(len(body), maxBody)])}
	}
	problem := strings.TrimSpace(text)
	if problem == "" {
		problem = "exit status " + status
	}
	return host.Reply{Problem: problem}
}

func cutHead(text string) (head, body string, ok bool) {
	i, j := strings.Index(text, "\r\n\r\n"), strings.Index(text, "\n\n")
	switch {
	case i >= 0 && (j < 0 || i < j):
		return text[:i], text[i+4:], true
	case j >= 0:
		return text[:j], text[j+2:], true
	}
	return text, "", false
}

func decode(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if len(b) == 0 {
		b = nil
	}
	return b, err
}

func split0(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// unescaped undoes the octal escapes of /proc/self/mountinfo.
func unescaped(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+3 < len(name) {
			if n, err := strconv.ParseUint(name[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
