package config

import (
	"path"
	"strings"
)

// A Form is how the configuration of a member is written.
type Form string

// The forms that etcd is configured in.
const (
	YAML Form = "yaml" // a file for --config-file, as Pigsty has it
	Env  Form = "env"  // variables (ETCD_NAME=...) that the unit reads, as Debian's package has it
)

// A Layout says where a cluster has its files and what it is run by, for one
// that was not set up by Pigsty. All are paths on the hosts.
type Layout struct {
	Unit   string // of systemd: "etcd.service"
	Binary string
	User   string // who runs etcd; the group bears the same name
	Conf   string
	Form   Form
	// CA, Cert and Key are for TLS towards clients and peers, where there is TLS.
	CA, Cert, Key string
	TLS           bool
}

// Pigsty is where Pigsty has everything.
func Pigsty() Layout {
	return Layout{Unit: UnitName, Binary: BinaryPath, User: User, Conf: ConfPath, Form: YAML, CA: CAPath, Cert: ServerCertPath, Key: ServerKeyPath, TLS: true}
}

const systemUnits = "/etc/systemd/system"

// UnitPath is where an administrator's unit is.
func (l Layout) UnitPath() string { return path.Join(systemUnits, l.Unit) }

// PackagedUnitPath is where a package puts it.
func (l Layout) PackagedUnitPath() string { return path.Join("/usr/lib/systemd/system", l.Unit) }

// KeptPath is where a file that we did not write is kept when it has to go.
func KeptPath(file string) string { return file + ".etcdrill-removed" }

// JoinDropInDir is where drop-ins of the unit are.
func (l Layout) JoinDropInDir() string { return l.UnitPath() + ".d" }

// JoinDropInPath is the drop-in of a member that joins.
func (l Layout) JoinDropInPath() string {
	return path.Join(l.JoinDropInDir(), "etcdrill-join.conf")
}

// OwnDir is the directory that is etcd's alone; empty where its files lie among
// those of others.
func (l Layout) OwnDir() string {
	if path.Dir(l.Conf) == ConfDir {
		return ConfDir
	}
	return ""
}

// Dirs are the directories that the files need, besides OwnDir.
func (l Layout) Dirs() []string {
	var all []string
	add := func(file string) {
		d := path.Dir(file)
		for _, have := range append(all, l.OwnDir()) {
			if d == have {
				return
			}
		}
		all = append(all, d)
	}
	add(l.Conf)
	if l.TLS {
		add(l.CA)
		add(l.Cert)
		add(l.Key)
	}
	return all
}

// Place gives a file of Pigsty's its place, owner and group in this layout.
func (l Layout) Place(f OwnedFile) OwnedFile {
	switch f.Path {
	case ConfPath:
		f.Path = l.Conf
	case CAPath:
		f.Path = l.CA
	case ServerCertPath:
		f.Path = l.Cert
	case ServerKeyPath:
		f.Path = l.Key
	case UnitPath:
		f.Path = l.UnitPath()
	case JoinDropInPath:
		f.Path = l.JoinDropInPath()
	case JoinDropInDir:
		f.Path = l.JoinDropInDir()
	}
	if f.Owner == User {
		f.Owner = l.User
	}
	if f.Group == User {
		f.Group = l.User
	}
	return f
}

// FormOf guesses the form of a configuration by where it is: what lies in
// /etc/default or /etc/sysconfig is read by systemd.
func FormOf(conf string) Form {
	if d := path.Dir(conf); d == "/etc/default" || d == "/etc/sysconfig" {
		return Env
	}
	return YAML
}

// PlainUnit reports whether a unit takes all that makes one member different from
// another out of a file, so that another host can be given the same unit. The
// answer no says what it holds.
func PlainUnit(u UnitSpec, l Layout) error {
	for _, a := range u.Args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(a, "-") && ownSetting(name) {
			return perMember("its command line has " + a)
		}
	}
	for _, e := range u.Environment {
		name, value, _ := strings.Cut(e, "=")
		key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "ETCD_")), "_", "-")
		if strings.HasPrefix(name, "ETCD_") && ownSetting(key) && !strings.Contains(value, "%") && key != keyDataDir {
			return perMember("its environment has " + name)
		}
	}
	if l.Form == YAML {
		if u.ConfPath != l.Conf {
			return perMember("it reads " + orNothing(u.ConfPath) + ", and not " + l.Conf)
		}
		return nil
	}
	for _, f := range u.EnvironmentFiles {
		f = strings.ReplaceAll(strings.TrimPrefix(f, "-"), "%p", strings.TrimSuffix(l.Unit, ".service"))
		if f == l.Conf {
			return nil
		}
	}
	return perMember("it reads " + orNothing(strings.Join(u.EnvironmentFiles, ", ")) + ", and not " + l.Conf)
}

func orNothing(s string) string {
	if s == "" {
		return "no file"
	}
	return s
}

type perMember string

func (p perMember) Error() string { return string(p) }

// ownSetting reports whether a setting of etcd belongs to one member.
func ownSetting(name string) bool {
	switch name {
	case keyName, keyDataDir, keyWALDir, keyInitial, keyState, keyPeerURL, keyListenPeer, keyListenClient, keyClientURL:
		return true
	}
	return false
}
