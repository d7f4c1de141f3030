// Package embedded is a lab on one machine, without images and without Docker.
//
// A lab is a supervisor process in namespaces of its own: user (where the
// creator is not root), network, mount and PID. In it every lab host has a
// network namespace with one interface, eth0, that bears the inventory's own
// address, and a directory that is its root. A kernel bridge joins the hosts.
// There is no route out, so an operator in the lab cannot reach production,
// although the addresses are production's.
//
//	lab, err := embedded.Up(ctx, embedded.Spec{
//		Root:      filepath.Join(cache, "etcdrill", "labs"),
//		Hosts:     []string{"10.10.10.10", "10.10.10.11", "10.10.10.12"},
//		Inventory: inventory,
//	})
//	defer lab.Down(ctx)
//	p, err := lab.Exec(ctx, embedded.Admin, argv, env, "", stdin, stdout, stderr)
//	status, err := p.Wait()
//
// The program that calls Up is re-executed for the supervisor and for the
// members, so it calls Main before anything else, in an init function or in
// TestMain.
//
// # Inside and outside
//
// A Go process cannot enter the user namespace of another. So nothing enters a
// lab: the supervisor listens on a unix socket in the lab's directory, starts
// processes for others, with the standard streams that they hand over, and
// gives out sockets that were made inside a host. Two hosts more than the
// inventory has are there for that: Admin for the operator and Client for
// load.
//
// # Death
//
// The supervisor is the first process of its PID namespace, so whatever kills
// it takes all that runs in the lab with it, and the namespaces, interfaces
// and mounts go with the last process. What stays is a directory, which Heal
// removes. Every process of a lab inherits one open file that bears a lock:
// a lab is over when that lock is free, and not before. The supervisor ends
// when its creator dies, unless the creator asked for it to be kept.
//
// # Faults
//
// Healthy links run over the kernel bridge. While any link has a fault, all
// hosts are off the bridge and served by a switch in the supervisor (package
// netswitch), which cuts, delays, loses and reorders, per directed link.
package embedded
