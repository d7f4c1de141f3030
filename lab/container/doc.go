// Package container is a lab of real machines: Debian with systemd as PID 1 and
// sshd, in containers that testcontainers-go starts.
//
//	lab, err := container.Up(ctx, container.Spec{
//		Root:      filepath.Join(cache, "etcdrill", "containers"),
//		Cache:     filepath.Join(cache, "etcdrill", "images"),
//		Machines:  []container.MachineSpec{{Host: "10.10.10.10"}, {Host: "10.10.10.11", Role: image.Database}},
//		Inventory: inventory,
//	})
//	defer lab.Down(ctx)
//
// It hands out an ordinary inventory: its machines are reached by the SSH that
// reaches production, as the admin user dba who becomes root by sudo. What
// distinguishes them from hosts that Pigsty has prepared is told in the
// Dockerfile of package image. Who uses testcontainers sets the environment that
// Environment gives, before anything else.
//
// # Addresses
//
// Each lab has an internal Docker network of its own: reachable from the
// engine's host, and without a way out. It is taken from 198.18.0.0/15, which is
// set apart for tests of networks, and never overlaps a route of this machine: a
// connected route to production's addresses would cut production off. So the
// hosts of the inventory get other addresses, which end as theirs do, and the
// lab's inventory is the given one with all addresses of those networks replaced
// (10.10.10.2 may become 198.19.0.2), every ansible_ variable taken out, and
// hosts that have no machine left out. No connection that it describes leads
// anywhere but into the lab.
//
// # Where the engine runs
//
// Nothing is mounted from this machine; files go in by the engine's own copying.
// So the engine may run elsewhere (DOCKER_HOST). Addresses are reachable from
// its host alone, though: for a remote engine the lab has one container more,
// the gate, which publishes a port, and the inventory's SSH options jump over it.
// What speaks to etcd has to take the same way. The engine's host must let us
// publish a port, and its routes cannot be known from here.
//
// # Death
//
// Containers outlive their creator, so a lab is known by labels and by its
// directory. Unless it is kept, its creator holds a lock there, which the kernel
// frees whatever becomes of it; Heal removes what such labs left. Labels bear the
// identity of the directory that holds labs, so that an engine can serve several
// users, and nobody removes another's.
//
// # Faults
//
// A Machine can be switched off and on, rebooted, paused, unplugged, limited,
// filled up, and shut off from single ports or peers. Clocks cannot be hurt:
// containers share the kernel's, a time namespace has no wall clock of its own,
// and a Go program reads the kernel's page past any library that is preloaded.
// Faults can be seen on the machines themselves,
// so Heal needs no list of them.
package container
