package config

import "io/fs"

// Where Pigsty keeps etcd's files.
const (
	ConfDir        = "/etc/etcd"
	ConfPath       = "/etc/etcd/etcd.conf"
	CAPath         = "/etc/etcd/ca.crt"
	ServerCertPath = "/etc/etcd/server.crt"
	ServerKeyPath  = "/etc/etcd/server.key"
	PassPath       = "/etc/etcd/etcd.pass"
	EnvPath        = "/etc/profile.d/etcdctl.sh"
	UnitName       = "etcd.service"
	UnitPath       = "/etc/systemd/system/etcd.service"
	JoinDropInDir  = "/etc/systemd/system/etcd.service.d"
	JoinDropInPath = "/etc/systemd/system/etcd.service.d/etcdrill-join.conf"
	HomeDir        = "/var/lib/etcd"
	DefaultDataDir = "/data/etcd"
	BinaryPath     = "/usr/bin/etcd"
	User           = "etcd" // who runs etcd and owns its files; the group bears the same name

	// Infra hosts are clients with a certificate of their own.
	InfraCAPath   = "/etc/pki/ca.crt"
	InfraCertPath = "/etc/pki/infra.crt"
	InfraKeyPath  = "/etc/pki/infra.key"

	PatroniPath    = "/etc/patroni/patroni.yml"
	VIPManagerPath = "/etc/default/vip-manager.yml"
	PatroniUnit    = "patroni.service"
	VIPManagerUnit = "vip-manager.service"
	VIPManagerBin  = "/usr/bin/vip-manager"
	EtcdctlPath    = "/usr/bin/etcdctl"

	// patronictl's own file on infra hosts: until Pigsty 3.7, and from 4 on.
	PatronictlPath      = "/etc/pigsty/patronictl.yml"
	PatronictlInfraPath = "/infra/conf/patronictl.yml"
)

// An OwnedFile is a file or directory with the owner and mode it is given when
// it is made. One that is there keeps its own when only its content changes.
type OwnedFile struct {
	Path   string
	Owner  string
	Group  string
	Mode   fs.FileMode // permission bits
	Secret bool        // the content is never shown
}

// The files of a member and of a client, with the owners and modes that Pigsty
// gives them.

// ConfFile is etcd.conf.
func ConfFile() OwnedFile { return OwnedFile{Path: ConfPath, Owner: User, Group: User, Mode: 0o644} }

// CAFile is the CA's certificate on a member.
func CAFile() OwnedFile { return OwnedFile{Path: CAPath, Owner: User, Group: User, Mode: 0o644} }

// ServerCertFile is a member's certificate.
func ServerCertFile() OwnedFile {
	return OwnedFile{Path: ServerCertPath, Owner: User, Group: User, Mode: 0o644}
}

// ServerKeyFile is a member's private key.
func ServerKeyFile() OwnedFile {
	return OwnedFile{Path: ServerKeyPath, Owner: User, Group: User, Mode: 0o600, Secret: true}
}

// PassFile holds the password of etcd's root user, from Pigsty 4 on.
func PassFile() OwnedFile {
	return OwnedFile{Path: PassPath, Owner: "root", Group: User, Mode: 0o640, Secret: true}
}

// EnvFile is the etcdctl environment. It is read by shells, not executed:
// 0644, as in Pigsty 4.5; earlier versions made it 0755.
func EnvFile() OwnedFile { return OwnedFile{Path: EnvPath, Owner: "root", Group: "root", Mode: 0o644} }

// UnitFile is the systemd unit.
func UnitFile() OwnedFile {
	return OwnedFile{Path: UnitPath, Owner: "root", Group: "root", Mode: 0o644}
}

// JoinDropInFile is the drop-in of a member that joins.
func JoinDropInFile() OwnedFile {
	return OwnedFile{Path: JoinDropInPath, Owner: "root", Group: "root", Mode: 0o644}
}

// ConfDirectory is where etcd.conf and the certificates are.
func ConfDirectory() OwnedFile {
	return OwnedFile{Path: ConfDir, Owner: User, Group: User, Mode: 0o750}
}

// DataDirectory is a data or WAL directory: path is the inventory's etcd_data.
func DataDirectory(path string) OwnedFile {
	return OwnedFile{Path: path, Owner: User, Group: User, Mode: 0o700}
}
