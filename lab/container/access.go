package container

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// keyPair is an SSH key, as files have it.
type keyPair struct {
	private []byte // PEM, as OpenSSH writes it
	public  string // "ssh-ed25519 AAAA...", without comment
}

func newKey(comment string) (keyPair, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make an SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return keyPair{}, fmt.Errorf("make an SSH key: %w", err)
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return keyPair{}, fmt.Errorf("make an SSH key: %w", err)
	}
	return keyPair{pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))}, nil
}

// commonArgs are the options of ssh for a lab, as ansible_ssh_common_args has
// them: its own keys and known hosts, and nothing of the user's.
func (i Info) commonArgs() string {
	args := []string{
		"-o UserKnownHostsFile=" + i.KnownHosts,
		"-o GlobalKnownHostsFile=/dev/null",
		"-o StrictHostKeyChecking=yes",
		"-o IdentitiesOnly=yes",
	}
	if i.Gate != "" {
		args = append(args, fmt.Sprintf("-o ProxyCommand=\"ssh -F %s -W %%h:%%p gate\"", i.SSHConfig))
	}
	return strings.Join(args, " ")
}

// sshConfig is a configuration of ssh for work by hand: ssh -F FILE ADDRESS.
func (i Info) sshConfig() string {
	var b strings.Builder
	if i.Gate != "" {
		host, port, _ := strings.Cut(i.Gate, " ")
		fmt.Fprintf(&b, "Host gate\n  HostName %s\n  Port %s\n  HostKeyAlias gate\n  User root\n\n", host, port)
		fmt.Fprintf(&b, "Host * !gate\n  ProxyCommand ssh -F %s -W %%h:%%p gate\n\n", i.SSHConfig)
	}
	fmt.Fprintf(&b, "Host *\n  User dba\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
		i.Key, i.KnownHosts)
	return b.String()
}
