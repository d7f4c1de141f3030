package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Tag is whom the lines of host.Note are by: Journal(Tag) is their file.
const Tag = "etcdrill"

// putProgram takes a program from the machine that the lab is on.
func (m *Machine) putProgram(a host.PutProgram) error {
	if !path.IsAbs(a.From) {
		return fmt.Errorf("%s: not an absolute path", a.From)
	}
	content, err := os.ReadFile(a.From)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(content); !strings.EqualFold(hex.EncodeToString(sum[:]), a.SHA256) {
		return saidf("%s: its sha256 is %x, and not %s", a.Path, sum, a.SHA256)
	}
	return m.installProgram(a.Path, content)
}

// copyProgram copies a program within the host.
func (m *Machine) copyProgram(a host.CopyProgram) error {
	content, err := m.root.read(a.From)
	if err != nil {
		return saidf("install: cannot stat '%s': %v", a.From, errors.Unwrap(err))
	}
	return m.installProgram(a.Path, content)
}

// installProgram is install(1), for root and everybody to run.
func (m *Machine) installProgram(path string, content []byte) error {
	real, err := m.root.resolve(path, true)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(m.root.path(real)); err == nil && !info.Mode().IsRegular() {
		return saidf("install: cannot replace '%s' (%s): not a regular file", path, real)
	}
	if err := m.replace(real, content, 0o755); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return saidf("install: cannot create regular file '%s': No such file or directory", path)
		}
		return err
	}
	return m.owners.set(real, owner{"root", "root"})
}

// packages are the versions of etcd that the lab has for its hosts, which is what
// a package manager is to them. A lab that was made without any has none: there
// is no way out to fetch anything from.
func (m *Machine) packages(name string) []string {
	if len(m.config.Versions) == 0 || name != "etcd" && name != "etcd-server" {
		return nil
	}
	all := slices.Sorted(maps.Keys(m.config.Versions))
	if !slices.Contains(all, EmbeddedVersion()) {
		all = append(all, EmbeddedVersion())
	}
	return all
}

// installPackage does what apt-get does: a version is a pattern, and without one
// what is there stays.
func (m *Machine) installPackage(a host.InstallPackage) error {
	offers := m.packages(a.Package)
	if len(offers) == 0 {
		return saidf("cannot install %s: neither apt-get nor dnf is on this host", a.Package)
	}
	if a.Version == "" {
		if _, err := m.program(etcdPath); err == nil {
			return nil
		}
		a.Version = EmbeddedVersion()
	}
	for _, v := range offers {
		if ok, _ := path.Match(a.Version, v); ok {
			return m.install(v)
		}
	}
	return saidf("E: Version '%s' for '%s' was not found", a.Version, a.Package)
}

// addUser does what useradd --system --user-group does.
func (m *Machine) addUser(a host.AddUser) error {
	if a.Name == "" || strings.ContainsAny(a.Name, ":\n/ ") {
		return saidf("useradd: invalid user name '%s'", a.Name)
	}
	users, err := m.root.names("/etc/passwd")
	if err != nil {
		return err
	}
	if users[a.Name] {
		return nil
	}
	groups, err := m.root.names("/etc/group")
	if err != nil {
		return err
	}
	if groups[a.Name] {
		return saidf("useradd: group %s exists - if you want to add this user to that group, use -g.", a.Name)
	}
	id, err := m.freeID()
	if err != nil {
		return err
	}
	if err := m.appendTo("/etc/group", fmt.Sprintf("%s:x:%d:\n", a.Name, id)); err != nil {
		return err
	}
	return m.appendTo("/etc/passwd", fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin\n", a.Name, id, id, a.Home))
}

// freeID gives a number for a system user and group that neither table has.
func (m *Machine) freeID() (int, error) {
	taken := map[int]bool{}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err := m.root.read(file)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 {
				if id, err := strconv.Atoi(f[2]); err == nil {
					taken[id] = true
				}
			}
		}
	}
	for id := 999; id >= 100; id-- {
		if !taken[id] {
			return id, nil
		}
	}
	return 0, said("useradd: can't get unique UID (no more available UIDs)")
}

func (m *Machine) appendTo(file, line string) error {
	text, err := m.root.read(file)
	if err != nil {
		return err
	}
	return m.replace(file, append(slices.Clip(text), line...), 0o644)
}

// noteLine writes into the journal of Tag.
func (m *Machine) noteLine(a host.Note) error {
	m.journal.Lock()
	defer m.journal.Unlock()
	f, err := os.OpenFile(m.Journal(Tag), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s %s: %s\n", m.config.Now().UTC().Format(time.RFC3339Nano), m.name, Tag, strings.Join(strings.Fields(a.Line), " "))
	return errors.Join(err, f.Close())
}

// hup does what a unit's ExecReload says, as far as a lab host can: a signal to
// the main process, by kill or because the unit is of Type=notify-reload.
func (m *Machine) hup(name string) (*job, error) {
	u := m.units[name]
	if u == nil || u.def == nil {
		u = m.unit(name)
		m.load(u)
	}
	if err := loadable(host.Systemctl{Verb: host.Reload, Unit: name}, u); err != nil {
		if u.active == "inactive" && u.def.load == "not-found" {
			delete(m.units, name)
		}
		return nil, err
	}
	sig, ok := u.def.reloadSignal()
	switch {
	case len(u.def.reload) == 0 && !ok:
		return nil, saidf("Failed to reload %s: Job type reload is not applicable for unit %s.", name, name)
	case u.active != "active":
		return nil, saidf("%s is not active, cannot reload.", name)
	case !ok:
		return nil, saidf("Job for %s failed: a lab host reloads by a signal only, not by %s.", name, strings.Join(u.def.reload, " "))
	}
	if err := u.cmd.Process.Signal(sig); err != nil {
		return nil, saidf("Job for %s failed because the control process exited with error code.", name)
	}
	m.note(u, "Reloaded.")
	return nil, nil
}

// reloadSignal reads ExecReload=/bin/kill -HUP $MAINPID in its several spellings.
func (d *definition) reloadSignal() (syscall.Signal, bool) {
	if len(d.reload) == 0 {
		return syscall.SIGHUP, d.kind == "notify-reload"
	}
	if path.Base(d.reload[0]) != "kill" {
		return 0, false
	}
	var signal string
	for _, word := range d.reload[1:] {
		switch {
		case word == "$MAINPID" || word == "${MAINPID}" || word == "-s":
		default:
			signal = strings.TrimPrefix(strings.TrimLeft(word, "-"), "SIG")
		}
	}
	switch signal {
	case "HUP", "1":
		return syscall.SIGHUP, true
	case "USR1", "10":
		return syscall.SIGUSR1, true
	case "USR2", "12":
		return syscall.SIGUSR2, true
	}
	return 0, false
}
