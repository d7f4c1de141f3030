package embedded

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/machine"
	"github.com/etcdrill/etcdrill/sop/config"
)

// memberUnit is the unit whose main process is the member.
const memberUnit = "etcd.service"

// settle gives a host its files and services.
func (s *supervisor) settle(n *node) error {
	i := s.nodeIndex(n)
	if !s.charter.Nodes[i].Guest {
		return nil
	}
	m, err := machine.New(machine.Config{
		Name:        n.name,
		Root:        filepath.Join(s.dir, hostsName, n.name),
		Executable:  self,
		Versions:    s.charter.Versions,
		Version:     s.charter.Version,
		Mounts:      s.charter.Mounts,
		Environment: s.charter.Environment,
		Spawn:       func(cmd *exec.Cmd) error { return s.spawn(n, cmd) },
		Dial:        n.dial,
		Within:      n.within,
		Now:         n.clock,
	})
	if err != nil {
		return err
	}
	n.guest = m
	if s.charter.Disks {
		// The machine made the directory: it counts as a mount point, and is one.
		if n.disk, err = baddisk.Mount(filepath.Join(s.dir, hostsName, n.name, config.DefaultDataDir)); err != nil {
			return err
		}
	}
	return nil
}

// setDisk makes the disk of a host ail, and tells what harm that did so far.
func (s *supervisor) setDisk(r request) (*baddisk.Counts, error) {
	n, err := s.guest(r.At)
	if err != nil {
		return nil, err
	}
	if n.disk == nil {
		return nil, fmt.Errorf("disk of %s: the lab was made with sound disks: %w", n.name, errors.ErrUnsupported)
	}
	if r.Disk != nil {
		s.say("disk of %s: %+v", n.name, *r.Disk)
		n.disk.Set(*r.Disk)
	}
	c := n.disk.Counts()
	return &c, nil
}

// clock is what the host takes for the time. Processes on it go by the
// machine's own clock: no namespace has another.
func (n *node) clock() time.Time { return time.Now().Add(time.Duration(n.offset.Load())) }

// setClock puts a host's clock off.
func (s *supervisor) setClock(r request) error {
	n, err := s.guest(r.At)
	if err != nil {
		return err
	}
	s.say("clock of %s is %v off", n.name, r.Offset)
	n.offset.Store(int64(r.Offset))
	return nil
}

func (s *supervisor) nodeIndex(n *node) int { return n.port - firstPort }
