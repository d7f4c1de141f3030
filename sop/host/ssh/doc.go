// Package ssh reaches real machines through the user's own ssh program.
//
// It is a host.Host over a terminal's ssh, so that agent, keys, jump hosts,
// ~/.ssh/config and known_hosts are what they are when one types `ssh HOST`:
//
//	c, err := ssh.New(ssh.Config{})
//	defer c.Close()
//	spec, err := ssh.SpecOf(inventoryHost)
//	h := c.Host(spec)
//	facts, err := h.Look(ctx, question)
//
// # Connections
//
// A Client makes one connection to each host: an ssh that only keeps a control
// socket, in a directory that nobody else may enter. Callers that come while it
// is being made wait for it. Everything else goes through the socket, without a
// further handshake; a connection that is lost is made anew for whoever asks
// next. Host keys are always strict, and nothing ever asks for a password. All
// processes are in sessions of their own, so that Ctrl-C is ours to hear, and
// die with us, even by SIGKILL.
//
// # Sessions
//
// Over the socket runs, as root, a shell that waits for scripts on its standard
// input, a line with the length before each. Only one that has arrived whole is
// begun, and what it does is told between two marks, with its exit status and
// all of its standard error. So neither a script nor what it writes is ever on a
// command line, and a look is one round trip. The shell may be any POSIX sh; what
// the scripts call is in coreutils, findutils and grep, and systemctl.
//
// # What an error means
//
// Before a script was sent, nothing has changed: host.ErrUnreachable, with ssh's
// own words. After that and without the second mark it is not known what was
// done: host.ErrUnknown, also when our own patience ended. A script that ended
// with another status than 0 is a *host.Failure.
//
// # Rights
//
// A user who is not root becomes root by `sudo -n`, unless the inventory says
// ansible_become: false. A read-only Client never calls sudo, answers what its
// user may see, and refuses to change anything.
package ssh
