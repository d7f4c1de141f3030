package ssh

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A Spec is how to reach a host and whom to be there.
type Spec struct {
	Name string // in the inventory
	// Local is set where the host is the machine that this runs on: the same
	// scripts, without ssh.
	Local bool

	Addr string   // what ssh is to connect to; an alias of ~/.ssh/config will do
	User string   // empty leaves it to ssh
	Port int      // 0 leaves it to ssh
	Key  string   // path of a private key; empty leaves it to ssh
	Args []string // more options of ssh, after ours, which win

	Become bool   // become BecomeUser by sudo where the user is not root
	As     string // whom to become; empty is root
}

// SpecOf reads the ansible_* variables of a host. They mean what they mean to
// Ansible, but for two: a password is never used, and host keys are strict
// whatever stands there.
func SpecOf(h inventory.Host) (Spec, error) {
	s := Spec{Name: h.Name, Addr: h.Addr, User: h.SSHUser, Port: h.SSHPort, Key: h.SSHKey, Become: h.Become}
	if h.BecomeUser != "root" {
		s.As = h.BecomeUser
	}
	if s.Addr == "" {
		s.Addr = h.Name
	}
	switch h.Connection {
	case "local":
		s.Local = true
	case "ssh", "":
	default:
		return Spec{}, fmt.Errorf("host %s: ansible_connection %q: only ssh and local are supported", h.Name, h.Connection)
	}
	for _, v := range []struct{ name, value string }{{"address", s.Addr}, {"ansible_user", s.User}, {"ansible_ssh_private_key_file", s.Key}, {"ansible_become_user", s.As}} {
		if strings.HasPrefix(v.value, "-") || strings.ContainsFunc(v.value, unicode.IsControl) {
			return Spec{}, fmt.Errorf("host %s: %s %q: it would be taken for an option", h.Name, v.name, v.value)
		}
	}
	for _, name := range []string{"ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"} {
		value, ok := h.Vars[name]
		if !ok || value == nil {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return Spec{}, fmt.Errorf("host %s: %s is no text", h.Name, name)
		}
		words, err := Words(text)
		if err == nil {
			err = optionsOnly(words)
		}
		if err != nil {
			return Spec{}, fmt.Errorf("host %s: %s: %w", h.Name, name, err)
		}
		s.Args = append(s.Args, words...)
	}
	return s, nil
}

// optionsOnly refuses words that ssh would take for the host to go to or for a
// command, and options that would turn the connection into something else.
func optionsOnly(words []string) error {
	const (
		valued = "BbcDEeFIiJLlmOoPpQRSWw" // options of ssh that a value follows
		bare   = "46AaCfGgKkMNnqsTtVvXxYy"
		ours   = "EfGMNnOQSstVWwy" // what they say is decided here
	)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if len(w) < 2 || w[0] != '-' {
			return fmt.Errorf("%q is no option: ssh would take it for a host or a command", w)
		}
	letters:
		for j := 1; j < len(w); j++ {
			switch c := w[j]; {
			case strings.IndexByte(ours, c) >= 0:
				return fmt.Errorf("option -%c cannot be used: this connection is made for commands", c)
			case strings.IndexByte(valued, c) >= 0:
				if j+1 == len(w) {
					if i++; i == len(words) {
						return fmt.Errorf("option -%c has no value", c)
					}
				}
				break letters
			case strings.IndexByte(bare, c) < 0:
				return fmt.Errorf("option -%c is not known", c)
			}
		}
	}
	return nil
}

// target is how one would name the host to ssh, as words.
func (s Spec) target() []string {
	var words []string
	if s.User != "" {
		words = append(words, "-l", s.User)
	}
	if s.Port != 0 {
		words = append(words, "-p", strconv.Itoa(s.Port))
	}
	if s.Key != "" {
		words = append(words, "-i", s.Key)
	}
	return append(append(words, s.Args...), "--", s.Addr)
}

// byHand is a command as one would type it on the admin host, ready to be pasted.
func (s Spec) byHand(command string) string {
	if s.Become {
		sudo := "sudo "
		if s.As != "" {
			sudo += "-u " + Quote(s.As) + " "
		}
		if strings.ContainsAny(command, ";|&<>(){}*?'\"$`\\") {
			command = "sh -c " + Quote(command)
		}
		command = sudo + command
	}
	if s.Local {
		return command
	}
	return "ssh " + quoteAll(s.target()...) + " " + Quote(command)
}
