package sop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// readInventory reads the file at every look, and thinks about it anew when it
// has changed.
func (s *Site) readInventory(v *View, scope Scope) error {
	content, err := os.ReadFile(s.Inventory)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	if !scope.AllHosts && last.knowsSubjects(scope.Subjects) && bytes.Equal(last.Inventory.Content, content) {
		v.Wanted, v.Newcomers, v.Inventory = last.Wanted, last.Newcomers, last.Inventory
		return nil
	}
	inv, err := inventory.Parse(s.Inventory, content)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	g, err := inv.Group(s.Group)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	v.Wanted = *g
	if v.Newcomers, err = s.newcomers(content, g, scope.Subjects); err != nil {
		return fmt.Errorf("%w: %w", ErrInventory, err)
	}
	v.Inventory = InventoryFile{Path: s.Inventory, Content: content, Edit: s.Edit}
	if v.Inventory.Edit == "" {
		v.Inventory.Edit = "edit"
	}
	for _, f := range inv.Lint(s.Group) {
		if f.Level == inventory.Fault {
			v.Inventory.Faults = append(v.Inventory.Faults, f.String())
		}
	}
	if scope.Write && v.Inventory.Edit == "edit" {
		if err := inventory.CheckWritable(s.Inventory); err != nil {
			v.Inventory.Unwrites = err.Error()
		}
	}
	return nil
}

// newcomers tells what the inventory would say of hosts that it does not have
// yet, were they added in this order.
func (s *Site) newcomers(content []byte, g *inventory.Group, names []string) ([]inventory.Host, error) {
	var all []inventory.Host
	least := g.NextSeq()
	for _, name := range names {
		h, err := s.newcomer(content, g, name, least)
		if err != nil {
			return nil, err
		}
		all, least = append(all, h), max(least, h.Seq+1)
	}
	return all, nil
}

// newcomer tells it of one. Its etcd_seq is one that nobody had: neither the
// inventory, nor a member, nor a certificate, nor who is named before it.
func (s *Site) newcomer(content []byte, g *inventory.Group, name string, seq int) (inventory.Host, error) {
	if h, ok := g.Host(name); ok && h.HasSeq {
		return h, nil
	}
	used := func(member string) {
		if rest, ok := strings.CutPrefix(member, g.Cluster+"-"); ok {
			if n, err := strconv.Atoi(rest); err == nil {
				seq = max(seq, n+1)
			}
		}
	}
	s.mu.Lock()
	members := s.lastView.Members
	s.mu.Unlock()
	for _, m := range members {
		used(m.Name)
	}
	// Where the inventory is ours to edit, it has the number before a certificate
	// does; a certificate without it is of an earlier member on that host.
	_, pending := memberAt(members, g.PeerURL(inventory.Host{Name: name, PeerPort: g.PeerPort}))
	pending = pending && s.Edit != "" && s.Edit != "edit"
	// What somebody else has signed for this host is meant for it, and the number
	// with it; else each certificate that comes would ask for another.
	if _, err := s.PKI.Load(); errors.Is(err, pki.ErrHalfCA) {
		pending = true
	}
	for _, n := range s.certNames() {
		if own, ok := s.issuedTo(n, g.Cluster, name); ok && pending {
			seq = own // it is being added, and the number is its own
			break
		}
		used(n)
	}
	edited, err := inventory.AddHost(content, g.Name, name, seq)
	if err != nil {
		// It cannot be added to this file; what is common to all hosts still
		// holds for it, and the edit itself will say what is wrong.
		return inventory.Host{Name: name, Addr: name, Seq: seq, HasSeq: true, ClientPort: g.ClientPort, PeerPort: g.PeerPort,
			DataDir: g.DataDir, WALDir: g.WALDir, Become: true, BecomeUser: "root", Connection: "ssh"}, nil
	}
	inv, err := inventory.Parse(s.Inventory, edited)
	if err != nil {
		return inventory.Host{}, err
	}
	return inv.Host(name), nil
}

// issuedTo gives the etcd_seq under which a certificate was issued to a host.
func (s *Site) issuedTo(member, cluster, host string) (int, bool) {
	p, err := s.PKI.LoadPair(member)
	if err != nil {
		return 0, false
	}
	rest, ok := strings.CutPrefix(member, cluster+"-")
	seq, err := strconv.Atoi(rest)
	return seq, ok && err == nil && pki.IssuedTo(p.CertPEM, host)
}
