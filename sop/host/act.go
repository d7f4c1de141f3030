package host

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// An Act is one change on one host, as a value. The set is closed: WriteFile,
// RemoveFile, MakeDir, Systemctl, SetAside, Delete, Claim, Release, PutProgram,
// CopyProgram, PutFile, RestoreData, ReplayLog, InstallPackage, AddUser and Note.
type Act interface {
	// String says what the act does, imperative and in lower case.
	String() string
	// Commands are what an administrator would type on the host instead.
	Commands() []string
	act()
}

// WriteFile puts a file in place whole: a temporary file beside it, owner,
// mode, fsync, rename. A symbolic link is followed, and the file at its end
// replaced. The directory must be there.
type WriteFile struct {
	Path    string
	Content []byte
	Owner   string
	Group   string
	Mode    fs.FileMode
	Secret  bool // the content is kept out of plans, journals and errors
}

// RemoveFile removes one file that is not a directory.
type RemoveFile struct{ Path string }

// MakeDir makes a directory, with its parents, and gives it owner and mode.
type MakeDir struct {
	Path  string
	Owner string
	Group string
	Mode  fs.FileMode
}

// A Verb is what systemctl is asked to do.
type Verb string

// The verbs that procedures use.
const (
	Start        Verb = "start"
	Stop         Verb = "stop"
	Restart      Verb = "restart"
	Reload       Verb = "reload" // the unit's own ExecReload, nothing of systemd
	Enable       Verb = "enable"
	Disable      Verb = "disable"
	Mask         Verb = "mask"
	Unmask       Verb = "unmask"
	ResetFailed  Verb = "reset-failed"
	DaemonReload Verb = "daemon-reload" // takes no unit
)

// Systemctl asks systemd for something. Without NoBlock it returns when
// systemd has done it: for a unit of Type=notify, when the service is ready.
type Systemctl struct {
	Verb    Verb
	Unit    string
	NoBlock bool
}

// SetAside moves the contents of a directory into Path/.removed-Stamp, on the
// same filesystem, since a data directory may be a mount point. What was set
// aside before stays where it is. An empty or absent directory is left alone.
type SetAside struct {
	Path  string
	Stamp string // as time.Format("20060102T150405Z") gives it
}

// Delete removes the contents of a directory for good, what was set aside
// included; the directory itself, which may be a mount point, stays. The path
// must be absolute and at least two levels deep.
type Delete struct{ Path string }

// Claim takes the lock of a host for a run that has no cluster to keep its
// lock in. It fails with ErrClaimed, and the holder's words, when another
// owner holds it; the same owner may claim again. The lock lives in /run and
// so does not outlive a boot.
type Claim struct {
	Owner string // who, where and since when, in one line
	Token string // says that two claims are by the same run
	// Supersedes lists tokens of runs that are known to be over.
	Supersedes []string
}

// Release gives up a Claim; one that another token holds is left alone.
type Release struct{ Token string }

// PutProgram puts an executable of the admin host in place on the host: owner
// root, mode 0755, fsync, rename, and only if its sha256 is what it should be
// when it has arrived. A program that runs keeps the old file.
type PutProgram struct {
	From   string // path on the admin host
	Path   string // on the host
	SHA256 string // hex
}

// CopyProgram puts a program of the host in another place there as well: owner
// root, mode 0755, fsync, rename. A program that runs keeps the old file.
type CopyProgram struct {
	From string
	Path string
}

// PutFile copies a file of the admin host, such as a snapshot, to the host: owner
// root, for root's eyes alone, fsync, rename, and only if its sha256 is what it
// should be when it has arrived. A file of that name is taken to be it: its name
// has to say what is in it.
type PutFile struct {
	From   string // path on the admin host
	Path   string // on the host
	SHA256 string // hex
}

// RestoreData makes the data of a member of a new cluster from a snapshot file
// that is on the host, with etcd's own etcdutl. It is made in a directory of its
// own and moved into place whole: DataDir/member comes last. Data that is there
// already is never overwritten, so of two that do this at once the first wins.
type RestoreData struct {
	Program  string // etcdutl, on the host
	Snapshot string // on the host
	Work     string // what is not whole yet is kept in there; it is on DataDir's filesystem
	WALWork  string // the same for WALDir; empty without one
	DataDir  string
	WALDir   string // empty where the log is in DataDir
	Name     string // of the member
	PeerURL  string
	Initial  string // initial-cluster: name=URL,name=URL
	Token    string // initial-cluster-token
	Bump     int64  // what is added to the newest revision, which counts as compacted then
	Owner    string
	Group    string
}

// ReplayLog has etcd bring a copy of a member's data to the end of the log, and
// keeps the backend that comes of it. The data itself is only read. In the copy
// etcd runs as the only member of its cluster, until it serves; it listens on
// sockets in a directory that only root may enter, so that nobody else writes.
type ReplayLog struct {
	Program string // etcd, on the host
	DataDir string
	WALDir  string // empty where the log is in DataDir
	Work    string // where the copy is made; on DataDir's filesystem
	Segment string // name of the log's last file
	Offset  int64  // end of the last whole record in it
	// Record is put there in the copy, in place of whatever follows: that all
	// before it is committed. Empty where the log says so itself.
	Record []byte
	Path   string // of the backend; one that is there is taken to be it
}

// InstallPackage installs a package with apt or dnf, whichever the host has,
// and starts no service of it. A package that is there already is left alone
// unless Version asks for another.
type InstallPackage struct {
	Package string
	Version string // as the package manager spells it; empty for any
}

// AddUser makes a system user and the group of the same name, without login.
// One that is there is left as it is.
type AddUser struct {
	Name string
	Home string
}

// Note writes one line to the host's journal under the tag etcdrill, for those
// who ask later who was here.
type Note struct{ Line string }

func (WriteFile) act()      {}
func (RemoveFile) act()     {}
func (MakeDir) act()        {}
func (Systemctl) act()      {}
func (SetAside) act()       {}
func (Delete) act()         {}
func (Claim) act()          {}
func (Release) act()        {}
func (PutProgram) act()     {}
func (CopyProgram) act()    {}
func (PutFile) act()        {}
func (RestoreData) act()    {}
func (ReplayLog) act()      {}
func (InstallPackage) act() {}
func (AddUser) act()        {}
func (Note) act()           {}

func (a WriteFile) String() string   { return "write " + a.Path }
func (a RemoveFile) String() string  { return "remove " + a.Path }
func (a MakeDir) String() string     { return "make directory " + a.Path }
func (a SetAside) String() string    { return "set aside " + a.Path }
func (a Delete) String() string      { return "delete what is in " + a.Path }
func (a Claim) String() string       { return "take the host's lock" }
func (a Release) String() string     { return "release the host's lock" }
func (a PutProgram) String() string  { return "put program " + a.Path }
func (a PutFile) String() string     { return "put " + a.Path }
func (a RestoreData) String() string { return "restore the data in " + a.DataDir }
func (a ReplayLog) String() string   { return "bring a copy of " + a.DataDir + " to the end of its log" }
func (a AddUser) String() string     { return "add user " + a.Name }
func (a Note) String() string        { return "write a line to the host's journal" }
func (a CopyProgram) String() string { return "copy program " + a.From + " to " + a.Path }
func (a InstallPackage) String() string {
	if a.Version == "" {
		return "install package " + a.Package
	}
	return "install package " + a.Package + " " + a.Version
}
func (a Systemctl) String() string {
	if a.Unit == "" {
		return "systemctl " + string(a.Verb)
	}
	return fmt.Sprintf("systemctl %s %s", a.Verb, a.Unit)
}

// LockPath is where Claim keeps its lock.
const LockPath = "/run/etcdrill.lock"

// Commands implements Act.
func (a WriteFile) Commands() []string {
	return []string{fmt.Sprintf("install -o %s -g %s -m %04o NEW %s", a.Owner, a.Group, a.Mode.Perm(), a.Path)}
}

// Commands implements Act.
func (a RemoveFile) Commands() []string { return []string{"rm -f " + a.Path} }

// Commands implements Act.
func (a MakeDir) Commands() []string {
	return []string{fmt.Sprintf("install -d -o %s -g %s -m %04o %s", a.Owner, a.Group, a.Mode.Perm(), a.Path)}
}

// Commands implements Act.
func (a Systemctl) Commands() []string {
	words := []string{"systemctl", string(a.Verb)}
	if a.NoBlock {
		words = append(words, "--no-block")
	}
	if a.Unit != "" {
		words = append(words, a.Unit)
	}
	return []string{strings.Join(words, " ")}
}

// Commands implements Act.
func (a SetAside) Commands() []string {
	to := AsidePath(a.Path, a.Stamp)
	return []string{
		"mkdir -m 0700 " + to,
		fmt.Sprintf("find %s -mindepth 1 -maxdepth 1 ! -name '%s*' -exec mv -t %s {} +", a.Path, AsidePrefix, to),
	}
}

// Commands implements Act.
func (a Delete) Commands() []string {
	return []string{fmt.Sprintf("find %s -mindepth 1 -delete", a.Path)}
}

// Commands implements Act.
func (a Claim) Commands() []string { return []string{"set -C; echo ... > " + LockPath} }

// Commands implements Act.
func (a Release) Commands() []string { return []string{"rm -f " + LockPath} }

// Commands implements Act.
func (a PutProgram) Commands() []string {
	return []string{fmt.Sprintf("install -o root -g root -m 0755 NEW %s   # sha256 %s", a.Path, a.SHA256)}
}

// Commands implements Act.
func (a CopyProgram) Commands() []string {
	return []string{fmt.Sprintf("install -o root -g root -m 0755 %s %s.new && mv -f %s.new %s", a.From, a.Path, a.Path, a.Path)}
}

// Commands implements Act.
func (a PutFile) Commands() []string {
	return []string{fmt.Sprintf("install -o root -g root -m 0600 NEW %s   # sha256 %s", a.Path, a.SHA256)}
}

// Commands implements Act.
func (a RestoreData) Commands() []string {
	made := path.Join(a.Work, "made")
	restore := a.Program + " " + strings.Join(a.Args(made, a.madeWAL()), " ")
	chown := fmt.Sprintf("chown -R %s:%s %s", a.Owner, a.Group, made)
	lines := []string{restore}
	if a.WALDir == "" {
		lines = append(lines, chown)
	} else {
		lines = append(lines, chown+" "+a.madeWAL(), fmt.Sprintf("mv -t %s %s/*", a.WALDir, a.madeWAL()))
	}
	return append(lines, fmt.Sprintf("mv -T %s/member %s/member", made, a.DataDir))
}

func (a RestoreData) madeWAL() string {
	if a.WALDir == "" {
		return ""
	}
	return path.Join(a.WALWork, "made")
}

// Args are the arguments of etcdutl that make the data in a directory, and the
// log in another where one is given.
func (a RestoreData) Args(data, wal string) []string {
	args := []string{"snapshot", "restore", a.Snapshot, "--data-dir=" + data}
	if wal != "" {
		args = append(args, "--wal-dir="+wal)
	}
	return append(args, "--name="+a.Name, "--initial-cluster="+a.Initial, "--initial-cluster-token="+a.Token,
		"--initial-advertise-peer-urls="+a.PeerURL, fmt.Sprintf("--bump-revision=%d", a.Bump), "--mark-compacted")
}

// Commands implements Act.
func (a ReplayLog) Commands() []string {
	made := path.Join(a.Work, "made")
	data := path.Join(made, "data")
	lines := []string{"mkdir -p " + data, fmt.Sprintf("cp -a %s/member %s/", a.DataDir, data)}
	if a.WALDir != "" {
		lines = append(lines, fmt.Sprintf("mkdir %s/member/wal && cp -a %s/*.wal %s/member/wal/", data, a.WALDir, data))
	}
	if len(a.Record) > 0 {
		last := path.Join(data, "member/wal", a.Segment)
		lines = append(lines, fmt.Sprintf("truncate -s %d %s && echo %s | base64 -d >> %s", a.Offset, last, base64.StdEncoding.EncodeToString(a.Record), last))
	}
	return append(lines,
		fmt.Sprintf("cd %s && %s %s   # Ctrl-C once it is ready to serve", made, a.Program, strings.Join(a.flags("data"), " ")),
		fmt.Sprintf("mv -nT %s/member/snap/db %s", data, a.Path))
}

// Config is the configuration with which etcd runs on the copy in a directory. The
// sockets are made where it runs.
func (a ReplayLog) Config(data string) string {
	return "name: alone\ndata-dir: " + data + "\nforce-new-cluster: true\nquota-backend-bytes: -1\n" +
		"listen-client-urls: unix://localhost:1\nadvertise-client-urls: unix://localhost:1\n" +
		"listen-peer-urls: unix://localhost:2\ninitial-advertise-peer-urls: unix://localhost:2\ninitial-cluster: alone=unix://localhost:2\n"
}

// flags are the same settings, as they are typed.
func (a ReplayLog) flags(data string) []string {
	var flags []string
	for _, line := range strings.Split(strings.TrimSpace(a.Config(data)), "\n") {
		key, value, _ := strings.Cut(line, ": ")
		flags = append(flags, "--"+key+"="+value)
	}
	return flags
}

// Serves is what etcd says in its log once it has applied all of the log.
const Serves = "ready to serve client requests"

// Commands implements Act.
func (a InstallPackage) Commands() []string {
	if a.Version == "" {
		return []string{"apt-get install -y --no-install-recommends " + a.Package + "   # or: dnf install -y " + a.Package}
	}
	return []string{fmt.Sprintf("apt-get install -y --no-install-recommends %s=%s   # or: dnf install -y %s-%s", a.Package, a.Version, a.Package, a.Version)}
}

// Commands implements Act.
func (a AddUser) Commands() []string {
	return []string{fmt.Sprintf("useradd --system --user-group --no-create-home --home-dir %s --shell /usr/sbin/nologin %s", a.Home, a.Name)}
}

// Commands implements Act.
func (a Note) Commands() []string { return []string{"logger -t etcdrill ..."} }

// AsidePrefix begins the name of whatever was set aside.
const AsidePrefix = ".removed-"

// AsidePath is where SetAside puts the contents of a directory.
func AsidePath(dir, stamp string) string { return path.Join(dir, AsidePrefix+stamp) }

// Marshal gives an act as JSON with its kind, for journals and for hosts that
// are asked through a socket.
func Marshal(a Act) ([]byte, error) {
	kind, ok := kindOf(a)
	if !ok {
		return nil, fmt.Errorf("act %T is not one of the set", a)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("write act %s: %w", kind, err)
	}
	return json.Marshal(envelope{Kind: kind, Act: body})
}

// Unmarshal reads what Marshal wrote.
func Unmarshal(data []byte) (Act, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("read act: %w", err)
	}
	switch e.Kind {
	case "write-file":
		return decode[WriteFile](e.Act)
	case "remove-file":
		return decode[RemoveFile](e.Act)
	case "make-dir":
		return decode[MakeDir](e.Act)
	case "systemctl":
		return decode[Systemctl](e.Act)
	case "set-aside":
		return decode[SetAside](e.Act)
	case "delete":
		return decode[Delete](e.Act)
	case "claim":
		return decode[Claim](e.Act)
	case "release":
		return decode[Release](e.Act)
	case "put-program":
		return decode[PutProgram](e.Act)
	case "copy-program":
		return decode[CopyProgram](e.Act)
	case "put-file":
		return decode[PutFile](e.Act)
	case "restore-data":
		return decode[RestoreData](e.Act)
	case "replay-log":
		return decode[ReplayLog](e.Act)
	case "install-package":
		return decode[InstallPackage](e.Act)
	case "add-user":
		return decode[AddUser](e.Act)
	case "note":
		return decode[Note](e.Act)
	}
	return nil, fmt.Errorf("read act: unknown kind %q", e.Kind)
}

type envelope struct {
	Kind string          `json:"kind"`
	Act  json.RawMessage `json:"act"`
}

func decode[A Act](body []byte) (Act, error) {
	var a A
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("read act %T: %w", a, err)
	}
	return a, nil
}

func kindOf(a Act) (string, bool) {
	switch a.(type) {
	case WriteFile:
		return "write-file", true
	case RemoveFile:
		return "remove-file", true
	case MakeDir:
		return "make-dir", true
	case Systemctl:
		return "systemctl", true
	case SetAside:
		return "set-aside", true
	case Delete:
		return "delete", true
	case Claim:
		return "claim", true
	case Release:
		return "release", true
	case PutProgram:
		return "put-program", true
	case CopyProgram:
		return "copy-program", true
	case PutFile:
		return "put-file", true
	case RestoreData:
		return "restore-data", true
	case ReplayLog:
		return "replay-log", true
	case InstallPackage:
		return "install-package", true
	case AddUser:
		return "add-user", true
	case Note:
		return "note", true
	}
	return "", false
}
