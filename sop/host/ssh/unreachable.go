package ssh

import (
	"fmt"
	"strings"

	"github.com/etcdrill/etcdrill/sop/host"
)

// An Unreachable is why a host could not be asked. It is a host.ErrUnreachable.
type Unreachable struct {
	Host string
	Said string // ssh's or sudo's own words
	Hint string // what to do about it; may be empty
}

// Error gives the words and the hint.
func (u *Unreachable) Error() string {
	said := strings.ReplaceAll(u.Said, "\n", "; ")
	if u.Hint != "" {
		said += " (" + u.Hint + ")"
	}
	return fmt.Sprintf("%v: %s: %s", host.ErrUnreachable, u.Host, said)
}

// Unwrap says what kind of error it is.
func (u *Unreachable) Unwrap() error { return host.ErrUnreachable }

// unreachable reads from what ssh or sudo said what there is to do.
func unreachable(s Spec, said string) *Unreachable {
	by := "ssh " + quoteAll(s.target()...)
	user := s.User
	if user == "" {
		user = "that user"
	}
	for _, h := range []struct{ words, hint string }{
		{"REMOTE HOST IDENTIFICATION HAS CHANGED", "the host has another key than known_hosts says: find out why before anything else; if it was set up anew, `ssh-keygen -R " + s.Addr + "` and `" + by + "` once by hand"},
		{"Host key verification failed", "the host's key is not in known_hosts: compare its fingerprint and connect once by hand: " + by},
		{"host key is known", "the host's key is not in known_hosts: compare its fingerprint and connect once by hand: " + by},
		{"Bad owner or permissions", "mend the file that ssh names"},
		{"UNPROTECTED PRIVATE KEY", "mend the mode of the key: chmod 600"},
		{"Too many authentication failures", "the agent offers too many keys: name one with ansible_ssh_private_key_file, or IdentitiesOnly in ~/.ssh/config"},
		{"Permission denied (", "the host does not let this user in: check ansible_user, the key and the agent; passwords are never used. By hand: " + by},
		{"account is currently not available", "that user has no login shell there: check ansible_user; by hand: " + by},
		{"Could not resolve hostname", "the name is not known here: set ansible_host, or Host in ~/.ssh/config"},
		{"No route to host", "is the host up, and is there a way to it from here?"},
		{"Network is unreachable", "there is no way to it from here: is a jump host wanted in ~/.ssh/config?"},
		{"Connection refused", "nothing listens there for ssh: check ansible_port, and sshd on the host"},
		{"timed out", "nothing answers there: is the host up, and does a firewall let ssh through?"},
		{"had not connected after", "nothing answers there, or a jump host is slow: " + by},
		{"a password is required", "sudo wants a password, and none is ever given: allow " + user + " what `sudoers` prints, or NOPASSWD: ALL as Ansible needs it"},
		{"you must have a tty", "sudo wants a terminal: take requiretty out of sudoers for " + user},
		{"is not in the sudoers file", "allow " + user + " what `sudoers` prints"},
		{"is not allowed to", "allow " + user + " what `sudoers` prints"},
		{"may not run sudo", "allow " + user + " what `sudoers` prints"},
		{"sudo: not found", "install sudo there, or connect as root with ansible_user: root"},
		{"sudo: no such file", "install sudo there, or connect as root with ansible_user: root"},
		{"open refused by peer", "sshd there allows too few sessions: MaxSessions should be 3 or more"},
		{"administratively prohibited", "sshd there forbids it: AllowTcpForwarding"},
	} {
		if strings.Contains(strings.ToLower(said), strings.ToLower(h.words)) {
			return &Unreachable{Host: s.Name, Said: gist(said), Hint: h.hint}
		}
	}
	return &Unreachable{Host: s.Name, Said: gist(said), Hint: "by hand: " + by}
}

// gist leaves out the frame of at signs that ssh puts around its loudest words.
func gist(said string) string {
	var lines []string
	for _, l := range strings.Split(said, "\n") {
		l = strings.TrimSpace(l)
		if l == "" || strings.Trim(l, "@") == "" {
			continue
		}
		lines = append(lines, strings.TrimSpace(strings.Trim(l, "@")))
	}
	return strings.Join(lines, "\n")
}
