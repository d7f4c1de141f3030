// Package postgres puts PostgreSQL with high availability on machines of a lab,
// the way Pigsty leaves it, and watches what becomes of it while others work on
// the etcd below.
//
//	trio, err := postgres.Up(ctx, postgres.Spec{
//		Cluster: "pg-test", Machines: machines, VIP: vip,
//		Endpoints: endpoints, CA: ca, Random: rand.Reader, Clock: time.Now,
//	})
//	load, err := trio.Load(ctx, postgres.LoadSpec{})
//	watch, err := trio.Watch(ctx)
//	...
//	writes := load.Stop()
//	evidence, err := watch.Stop(ctx)
//	evidence.Writes = writes
//	evidence.Rows, err = trio.Rows(ctx)
//	findings := check.Judge(ctx, evidence ...)
//
// Each machine has PostgreSQL, Patroni and vip-manager from Debian's packages,
// with real clients of a real etcd: Patroni keeps its leader key there, and
// vip-manager puts the virtual IP (VIP) up where that key points.
//
// # How things are measured
//
// The writer's rows are numbered, and nobody sends a number twice. An insert
// that was acknowledged has to be there in the end; one that ended in doubt may
// be. Clients connect to the VIP as applications do, from the process that
// judges: so the acknowledgements of PostgreSQL and those of etcd are told by
// one clock, and an insert that failed is told from one in doubt by the
// protocol, which a psql on a machine would not tell.
//
// Whether a machine holds the VIP is not sampled: the kernel of each machine
// reports every address that comes and goes, and all machines of a lab share
// the clock of one engine. So the shortest time for which the VIP was on two
// machines shows, and for how long it was on none is known to the microsecond.
// The watch proves itself: at both ends an address of its own is put up and
// taken away, and where that is not reported the watch has not seen a thing.
//
// That Patroni kept its leader is told by the timeline above all: PostgreSQL
// begins a new one with each promotion, so that none can be missed between two
// looks. A primary that was taken down and came back tells by the start of its
// postmaster.
package postgres
