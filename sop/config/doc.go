// Package config knows the files that etcd and its clients read on a host:
// etcd.conf, the systemd unit, the etcdctl environment, Patroni's and
// vip-manager's lists of endpoints.
//
// Everything here is a function from bytes to bytes. Reading a file from a
// host and writing it back is the business of others, so that a plan can show
// a change before it is made and a test needs no host.
//
// There are two ways to a new file. A file that is not there yet is rendered
// whole, in the form Pigsty gives it, so that its playbooks and its users find
// what they expect:
//
//	content := config.Member{Name: "etcd-1", ...}.Render()
//
// A file that is there belongs to whoever wrote it. It is edited in place: the
// values of the named keys change and every other byte stays, comments, order,
// quoting and line ends included.
//
//	after, err := config.EditMember(before, config.MemberEdit{State: &existing})
//	fmt.Print(config.Diff(config.ConfPath, before, after))
//
// An edit is checked before it is handed out: the new text is read again and
// must differ from the old in the named keys and in nothing else. What cannot
// be edited safely is refused with the line and the reason, and is then for a
// person to edit. An edit that would change nothing returns the very bytes it
// was given, so bytes.Equal tells whether a reload is due.
package config
