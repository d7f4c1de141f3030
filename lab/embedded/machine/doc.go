// Package machine makes a lab host out of a directory.
//
// The directory is the host's root: it holds a small Debian-like tree, and
// every path that a procedure names is a path in there. Symbolic links are
// followed inside it, an absolute target meaning the host's own root.
//
//	m, err := machine.New(machine.Config{Name: "10.10.10.11", Root: dir, Executable: self})
//	err = m.Do(ctx, host.Systemctl{Verb: host.Start, Unit: "etcd.service"})
//	facts, err := m.Look(ctx, host.Question{Units: []string{"etcd.service"}})
//
// A Machine is a host.Host, so a procedure cannot tell it from a real one.
// What a real one has and a directory has not is played as faithfully as a
// procedure can notice:
//
//   - The service manager reads real unit files and their drop-ins and goes
//     through systemd's states, blocking starts, timeouts, automatic restarts
//     and their rate limit included. It knows Type=simple, exec and notify.
//   - Members are processes of their own. /usr/bin/etcd in a root is a line
//     of text that names the version that this binary was linked with; the
//     service manager then executes this binary anew with argv[0] set to
//     MemberName, and its main function calls MemberMain, which changes its
//     root and starts the server. A real, statically linked etcd at that
//     place is executed in the root as it is.
//   - Owners are written down beside the root, in ROOT.owners.json, since a
//     lab of an ordinary user has only one user to give files to. What has no
//     entry belongs to whoever owns its directory. Permission bits are real;
//     but nobody is kept from reading a file, as everything runs as one user.
//   - PowerOff kills everything and empties /run; until PowerOn the host
//     cannot be reached.
//
// The network is not this package's business: Config.Spawn starts a process
// inside the host's network namespace, and Config.Dial connects from there.
package machine
