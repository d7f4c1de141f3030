package sop

import (
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// SudoRules are what has to be allowed on the hosts of a group, and on those
// whose files name its members: the one command, for each user that hosts are
// reached as. A host that the inventory names no user for is reached as user.
func SudoRules(inv *inventory.Inventory, g *inventory.Group, user string, command []string) []config.SudoRule {
	var rules []config.SudoRule
	add := func(h inventory.Host) {
		who := h.SSHUser
		if who == "" {
			who = user
		}
		if h.Become && who != h.BecomeUser && who != "root" {
			rules = append(rules, config.SudoRule{User: who, As: h.BecomeUser, Command: command})
		}
	}
	for _, h := range g.Hosts {
		add(h)
	}
	for _, name := range g.InfraHosts {
		add(inv.Host(name))
	}
	for _, p := range g.Postgres {
		add(inv.Host(p.Host))
	}
	if g.AdminHost != "" {
		add(inv.Host(g.AdminHost))
	}
	return rules
}
