package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// A Host is a machine that can run one member.
type Host interface {
	// Name is the host's name in the inventory.
	Name() string
	// Look answers a question and changes nothing. An unreachable host gives
	// an error that wraps ErrUnreachable; what could not be found out about a
	// single file, directory or unit is told in its own facts.
	Look(ctx context.Context, q Question) (Facts, error)
	// Do makes one change. A host that could not be reached at all gives
	// ErrUnreachable: nothing was changed. A connection lost after the change
	// was sent gives ErrUnknown: look again before deciding anything.
	Do(ctx context.Context, a Act) error
	// Fetch writes the whole content of a file to w, as it is while it is read, and
	// changes nothing. An unreachable host gives an error that wraps
	// ErrUnreachable. What came before an error is worth nothing.
	Fetch(ctx context.Context, path string, w io.Writer) error
}

// A Connector is a Host that has to be connected to. Look and Do do it by
// themselves, in the time that they are given; who calls Connect before them
// gives it time of its own, once.
type Connector interface {
	// Connect ends when it is connected, when it cannot be, or with ctx. Which of
	// them it was is for Look to say.
	Connect(ctx context.Context)
}

// A Sequencer is a Host to which several changes cost little more than one.
type Sequencer interface {
	// DoAll makes changes one after the other, until one fails. It tells how many
	// were made; with ErrUnknown there may be more. The error is that of the next.
	DoAll(ctx context.Context, all []Act) (made int, err error)
}

// DoAll makes changes one after the other, as a Sequencer does, on any Host.
func DoAll(ctx context.Context, h Host, all []Act) (made int, err error) {
	if s, ok := h.(Sequencer); ok {
		return s.DoAll(ctx, all)
	}
	for i, a := range all {
		if err := h.Do(ctx, a); err != nil {
			return i, err
		}
	}
	return len(all), nil
}

var (
	// ErrUnreachable says that a host could not be asked, so that nothing is
	// known of it and nothing was changed on it.
	ErrUnreachable = errors.New("host unreachable")
	// ErrUnknown says that a change was sent and its outcome not heard.
	ErrUnknown = errors.New("outcome unknown")
	// ErrClaimed says that another run holds the lock that a Claim asked for.
	ErrClaimed = errors.New("claimed by another run")
)

// A Failure is an act that a host refused or could not finish. Output is all
// that it said, kept whole.
type Failure struct {
	Host   string
	Act    string // what was asked, as Act.String gives it
	Output string
	Err    error // nil when Output says it all
	// Command is what to type on the admin host to see it for oneself; empty where
	// there is no such thing.
	Command string `json:",omitempty"`
}

// Error gives the act, the host, the output and the command.
func (f *Failure) Error() string {
	msg := f.Output
	if f.Err != nil {
		if msg != "" {
			msg += ": "
		}
		msg += f.Err.Error()
	}
	if f.Command != "" {
		msg += "; by hand: " + f.Command
	}
	return fmt.Sprintf("%s on %s: %s", f.Act, f.Host, msg)
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// A Question is everything that one look is to find out.
type Question struct {
	Units []string `json:",omitempty"` // systemd units, with suffix: "etcd.service"
	Files []string `json:",omitempty"` // files to read whole, absolute paths; for configuration, not for data
	Sums  []string `json:",omitempty"` // files whose sha256 to tell, for secrets; absolute paths
	Dirs  []string `json:",omitempty"` // directories to measure, absolute paths
	Ports []int    `json:",omitempty"` // TCP ports of which to name the listener
	// Callers are TCP ports of which to name who is connected.
	Callers []int    `json:",omitempty"`
	Users   []string `json:",omitempty"` // users of which to say whether they exist
	Etcd    string   `json:",omitempty"` // path of the etcd binary whose version to ask, usually /usr/bin/etcd
	Dial    []string `json:",omitempty"` // "address:port" pairs to which to try a TCP connection from there
	// Programs are paths of programs whose version to ask, as --version tells it.
	Programs []string `json:",omitempty"`
	// Package is one of which to say which versions could be installed.
	Package string `json:",omitempty"`
	// Trials are programs to run for a moment, to see what they say.
	Trials []Trial `json:",omitempty"`
	// Globs are patterns of files to name, absolute, with * and ? alone.
	Globs []string `json:",omitempty"`
	// Addrs asks for the IP addresses of the host's interfaces.
	Addrs bool `json:",omitempty"`
	// HTTP are URLs to GET from the host itself. Certificates are not verified:
	// it is the service's own word about itself, and decides nothing that a
	// stranger could gain by.
	HTTP []string `json:",omitempty"`
	// TLS are handshakes to try from there with files that lie there.
	TLS []Handshake `json:",omitempty"`
}

// A Trial is a program to run for a moment, to see what it says of arguments,
// variables and a configuration that it is not to act on. It has five seconds,
// and no environment but Env.
type Trial struct {
	Program string   // path on the host
	Args    []string `json:",omitempty"`
	Env     []string `json:",omitempty"` // NAME=value
	// Config, where it is not empty, is put into a file for the time of the trial,
	// and stands first among the arguments: --config-file=FILE.
	Config []byte `json:",omitempty"`
}

// Tried is what a Trial came to.
type Tried struct {
	Status int    // exit status; 124 when its time was up
	Said   string // the last 4 KiB of what it wrote
}

// A Handshake is a TLS connection with a client certificate, as a client on the
// host would make it. Empty files are left out.
type Handshake struct {
	Address       string // "address:port"
	CA, Cert, Key string // paths on the host
}

// Facts are what one look found on a host. Maps are keyed by what was asked.
type Facts struct {
	Clock  time.Time // the host's own clock, when it answered
	BootID string
	Units  map[string]Unit   `json:",omitempty"`
	Files  map[string]File   `json:",omitempty"`
	Sums   map[string]string `json:",omitempty"` // hex; absent when the file is not there, "" when it cannot be read
	Dirs   map[string]Dir    `json:",omitempty"`
	// Ports are absent when nothing listens there. They name the listener's command
	// where it can be seen and no unit of the question runs; else "another program".
	Ports map[int]string `json:",omitempty"`
	// Callers are the other ends of the connections to a port, as "address:port",
	// sorted; absent when there are none.
	Callers map[int][]string  `json:",omitempty"`
	Users   map[string]bool   `json:",omitempty"`
	Dials   map[string]string `json:",omitempty"` // "" when it connected, else the error's text
	Etcd    Binary            `json:",omitzero"`

	Programs   map[string]Binary   `json:",omitempty"` // absent when it is not there
	Offers     []string            `json:",omitempty"` // versions of Package, as its manager spells them
	Trials     []Tried             `json:",omitempty"` // one for each of Trials, in its order
	Globs      map[string][]string `json:",omitempty"` // sorted; absent when nothing matches
	Addrs      []string            `json:",omitempty"` // without prefix length, loopback left out, sorted
	HTTP       map[string]Reply    `json:",omitempty"`
	Handshakes []string            `json:",omitempty"` // one for each of TLS, in its order: "" when the server took the certificate, else the error's text
}

// A Reply is the answer to a GET.
type Reply struct {
	Status  int    // 0 when there was none
	Body    []byte // at most 64 KiB
	Problem string // why there was none
}

// A Binary is an installed program, etcd first of all.
type Binary struct {
	Path    string
	Version string // the first word that looks like one: "3.7.3"; empty when there is none
	Problem string // why Version is empty although the file is there
}

// aVersion is a word such as 3.7.3, 17.5 or v2.8.0-rc.1.
var aVersion = regexp.MustCompile(`^v?([0-9]+\.[0-9]+(?:\.[0-9]+)*(?:[-+~][0-9A-Za-z.~+-]+)?)$`)

// VersionIn gives the first word that looks like a version in what a program
// said of itself; empty when there is none.
func VersionIn(out string) string {
	for _, word := range strings.FieldsFunc(out, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("(),;:", r) }) {
		if found := aVersion.FindStringSubmatch(word); found != nil {
			return found[1]
		}
	}
	return ""
}

// AsksVersion is the argument by which a program is asked for its version: etcd's
// utilities know a command (etcdctl/ctlv3/command/version_command.go) and no such
// option.
func AsksVersion(program string) string {
	switch path.Base(program) {
	case "etcdctl", "etcdutl":
		return "version"
	}
	return "--version"
}

// A Unit is a systemd unit as systemctl show gives it.
type Unit struct {
	Load    string    // loaded, not-found, masked
	Active  string    // active, activating, deactivating, inactive, failed
	Sub     string    // running, start, dead, auto-restart, ...
	Enabled string    // enabled, disabled, masked, static; empty when there is no unit file
	PID     int       // main process, 0 when none
	Since   time.Time // when the present run of the main process began; zero when none
	Exit    int       // status of the last main process, when it ended
	Path    string    // unit file
	Env     []string  // Environment=, as NAME=value
	Stale   bool      // unit files changed since they were loaded (NeedDaemonReload)
}

// Runs reports whether the unit has, or is about to have, a process.
func (u Unit) Runs() bool {
	return u.Active == "active" || u.Active == "activating" || u.Active == "deactivating" || u.Active == "reloading"
}

// A File is a file's content and the way it is kept.
type File struct {
	Exists  bool
	Real    string // the path after symbolic links
	Content []byte
	Owner   string
	Group   string
	Mode    fs.FileMode // permission bits
	// Changed is when the file, or who may do what with it, was changed last, by the
	// host's clock: when it was put in place, where it was replaced by another.
	Changed time.Time
	Problem string // why the content could not be read, though the file exists
}

// A Dir is a directory and what of etcd is in it.
type Dir struct {
	Exists    bool
	Mount     bool // it is a mount point, so that it cannot be renamed
	Owner     string
	Group     string
	Mode      fs.FileMode
	Entries   []string  // names directly inside, sorted, without what was set aside
	WAL       bool      // a write-ahead log is in it (member/wal, or *.wal directly)
	WALHead   []byte    // first 512 bytes of the newest WAL segment: member and cluster ID stand there
	UsedBytes int64     // of everything inside
	FreeBytes int64     // free to an ordinary user on the filesystem that it is on, or would be
	Changed   time.Time // when a file in it was last written, without what was set aside; zero when there is none
	Aside     []Aside   // what earlier runs set aside in it, oldest first
	Problem   string    // why it could not be looked into
}

// An Aside is data that was moved away and kept.
type Aside struct {
	Path  string
	Bytes int64
	Since time.Time
}
