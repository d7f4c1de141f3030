package ssh_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host/ssh"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// hostOf reads one host of an inventory.
func hostOf(t *testing.T, vars string) inventory.Host {
	t.Helper()
	inv, err := inventory.Parse("pigsty.yml", []byte("etcd:\n  hosts:\n    10.10.10.11: "+vars+"\n"))
	require.NoError(t, err)
	return inv.Host("10.10.10.11")
}

func TestSpecOf(t *testing.T) {
	for _, c := range []struct {
		vars string
		want ssh.Spec
	}{
		{"{ etcd_seq: 1 }", ssh.Spec{Name: "10.10.10.11", Addr: "10.10.10.11", Become: true}},
		{"{ ansible_host: meta, ansible_user: dba, ansible_port: 2222, ansible_ssh_private_key_file: ~/.ssh/id, ansible_become: false }",
			ssh.Spec{Name: "10.10.10.11", Addr: "meta", User: "dba", Port: 2222, Key: "~/.ssh/id"}},
		{"{ ansible_connection: local, ansible_become_user: admin }", ssh.Spec{Name: "10.10.10.11", Addr: "10.10.10.11", Local: true, Become: true, As: "admin"}},
		{`{ ansible_ssh_common_args: '-o ProxyCommand="ssh -W %h:%p -q bastion" -C', ansible_ssh_extra_args: -J bastion -4 }`,
			ssh.Spec{Name: "10.10.10.11", Addr: "10.10.10.11", Become: true, Args: []string{"-o", "ProxyCommand=ssh -W %h:%p -q bastion", "-C", "-J", "bastion", "-4"}}},
	} {
		got, err := ssh.SpecOf(hostOf(t, c.vars))
		require.NoError(t, err, c.vars)
		require.Equal(t, c.want, got, c.vars)
	}
	for vars, want := range map[string]string{
		"{ ansible_connection: paramiko }":                     `ansible_connection "paramiko": only ssh and local`,
		"{ ansible_host: -oProxyCommand=x }":                   "taken for an option",
		"{ ansible_user: -x }":                                 "ansible_user",
		"{ ansible_ssh_common_args: elsewhere }":               `"elsewhere" is no option`,
		"{ ansible_ssh_common_args: -o A=b elsewhere }":        `"elsewhere" is no option`,
		"{ ansible_ssh_common_args: -J }":                      "option -J has no value",
		"{ ansible_ssh_common_args: -Jhop -f }":                "option -f cannot be used",
		"{ ansible_ssh_extra_args: -vM }":                      "option -M cannot be used",
		"{ ansible_ssh_extra_args: -Z }":                       "option -Z is not known",
		`{ ansible_ssh_args: "-o 'A=b" }`:                      "not closed",
		"{ ansible_ssh_args: 4 }":                              "is no text",
		`{ ansible_host: "a\nb" }`:                             "taken for an option",
		"{ ansible_ssh_common_args: -- }":                      "option -- is not known",
		"{ ansible_ssh_common_args: -o ControlPath=x -S none}": "option -S cannot be used",
	} {
		_, err := ssh.SpecOf(hostOf(t, vars))
		require.ErrorContains(t, err, want, vars)
		require.ErrorContains(t, err, "host 10.10.10.11", vars)
	}
}
