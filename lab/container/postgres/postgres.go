package postgres

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/etcdrill/etcdrill/sop/pki"
)

// Where the parts of an instance listen.
const (
	Port        = 5432 // PostgreSQL
	PatroniPort = 8008 // Patroni's REST API
)

// A Machine is what an instance is put on: a lab's machine with systemd and the
// packages.
type Machine interface {
	// Host is its name in the inventory, which is its address.
	Host() string
	// Exec runs a command on it as root, to its end. What it wrote to standard
	// error, and its exit status where that is not 0, are in the error.
	Exec(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error
}

// A Spec says what cluster to make. Zero fields take the default that their
// comment names.
type Spec struct {
	Cluster  string    // pg_cluster; "pg-test"
	Machines []Machine // the first becomes the primary
	// VIP is the virtual IP with the length of the network's prefix, Interface
	// where it goes; "eth0".
	VIP       netip.Prefix
	Interface string
	// Endpoints are the client URLs of etcd's voters, as the files name them.
	Endpoints []string
	// CA signs the certificates by which etcd knows its clients.
	CA *pki.CA
	// Generation is the version of Pigsty whose layout the files have, 3 or 4;
	// 4. They differ in the chain of links to Patroni's file.
	Generation int
	Random     io.Reader        // passwords and serial numbers come from it
	Clock      func() time.Time // of all that is taken down here
	// Dial opens connections to machines where the network is not this
	// process's own; nil for the usual way.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (s Spec) withDefaults() (Spec, error) {
	s.Cluster = cmp.Or(s.Cluster, "pg-test")
	s.Interface = cmp.Or(s.Interface, "eth0")
	s.Generation = cmp.Or(s.Generation, 4)
	if s.Dial == nil {
		s.Dial = new(net.Dialer).DialContext
	}
	switch {
	case len(s.Machines) == 0:
		return s, errors.New("no machines")
	case !s.VIP.IsValid() || !s.VIP.Addr().Is4():
		return s, fmt.Errorf("VIP %s is no IPv4 address with a prefix length", s.VIP)
	case len(s.Endpoints) == 0:
		return s, errors.New("no etcd endpoints")
	case s.CA == nil:
		return s, errors.New("no CA for the clients of etcd")
	case s.Generation != 3 && s.Generation != 4:
		return s, fmt.Errorf("no layout of Pigsty %d is known", s.Generation)
	case s.Random == nil || s.Clock == nil:
		return s, errors.New("no source of randomness, or no clock")
	}
	for _, m := range s.Machines {
		if _, err := netip.ParseAddr(m.Host()); err != nil {
			return s, fmt.Errorf("machine: %w", err)
		}
	}
	return s, nil
}

// A Cluster is a PostgreSQL cluster under Patroni.
type Cluster struct {
	spec      Spec
	instances []instance
	password  string // of the load
}

// An instance is PostgreSQL on one machine.
type instance struct {
	Name    string // pg_instance, as Patroni knows it: pg-test-1
	Machine Machine
}

const (
	// loadUser owns the load's table, loadTable in loadDatabase.
	loadUser, loadDatabase, loadTable = "dbuser_load", "postgres", "load"
	// lookEvery is the time between two looks at what is waited for.
	lookEvery = 200 * time.Millisecond
)

// Up makes the cluster: files, units, the primary, its replicas. It returns
// once one instance is the primary and streams to all the others, and the VIP
// leads to it. When ctx ends first, the error says what was still missing.
func Up(ctx context.Context, spec Spec) (*Cluster, error) {
	spec, err := spec.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("set up PostgreSQL: %w", err)
	}
	c := &Cluster{spec: spec}
	for i, m := range spec.Machines {
		c.instances = append(c.instances, instance{fmt.Sprintf("%s-%d", spec.Cluster, i+1), m})
	}
	if err := c.up(ctx); err != nil {
		return nil, fmt.Errorf("set up PostgreSQL cluster %s: %w", spec.Cluster, err)
	}
	return c, nil
}

func (c *Cluster) up(ctx context.Context) error {
	var secrets secrets
	for _, s := range []*string{&secrets.replication, &secrets.superuser, &secrets.rewind, &c.password} {
		var err error
		if *s, err = c.newSecret(); err != nil {
			return err
		}
	}
	// A source of randomness need not be safe for use from many at once.
	var pairs []pki.Pair
	for _, i := range c.instances {
		p, err := c.spec.CA.Issue(c.spec.Random, c.spec.Clock(), pki.Leaf{Name: i.Name, Host: i.Machine.Host(), Validity: 24 * time.Hour})
		if err != nil {
			return err
		}
		pairs = append(pairs, p)
	}
	err := c.each(func(n int, i instance) error {
		files, err := c.files(i, pairs[n], secrets)
		if err != nil {
			return err
		}
		return i.install(ctx, c.spec.Clock(), files)
	})
	if err != nil {
		return err
	}
	first := c.instances[0]
	if err := first.start(ctx); err != nil {
		return err
	}
	if err := await(ctx, lookEvery, func(ctx context.Context) error { return c.leads(ctx, first) }); err != nil {
		return err
	}
	err = c.each(func(_ int, i instance) error {
		if i.Name == first.Name {
			return i.prepareLoad(ctx, c.password)
		}
		return i.start(ctx)
	})
	if err != nil {
		return err
	}
	return await(ctx, lookEvery, c.Settled)
}

// newSecret gives a password that needs no quoting anywhere.
func (c *Cluster) newSecret() (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(c.spec.Random, b); err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// each does something for all instances at once.
func (c *Cluster) each(do func(n int, i instance) error) error {
	errs := make([]error, len(c.instances))
	var running sync.WaitGroup
	for n, i := range c.instances {
		running.Go(func() {
			if err := do(n, i); err != nil {
				errs[n] = fmt.Errorf("%s on %s: %w", i.Name, i.Machine.Host(), err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// install puts files in place, with owners by name, in one stream. tar follows
// the links that it has just made (-P).
func (i instance) install(ctx context.Context, made time.Time, files []file) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: strings.TrimPrefix(f.path, "/"), Mode: f.mode, Uname: f.owner, Gname: f.group, ModTime: made, Format: tar.FormatPAX}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case f.content == nil:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.content))
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("pack %s: %w", f.path, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return fmt.Errorf("pack %s: %w", f.path, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	if err := i.Machine.Exec(ctx, &b, io.Discard, "tar", "-C", "/", "-x", "-p", "-P"); err != nil {
		return fmt.Errorf("put files in place: %w", err)
	}
	return i.systemctl(ctx, "daemon-reload")
}

func (i instance) start(ctx context.Context) error {
	return i.systemctl(ctx, "enable", "--now", "patroni.service", "vip-manager.service")
}

func (i instance) systemctl(ctx context.Context, args ...string) error {
	if err := i.Machine.Exec(ctx, nil, io.Discard, append([]string{"systemctl"}, args...)...); err != nil {
		return fmt.Errorf("systemctl %s on %s: %w", strings.Join(args, " "), i.Machine.Host(), err)
	}
	return nil
}

// prepareLoad makes the table of the load and its owner. The password goes by
// standard input.
func (i instance) prepareLoad(ctx context.Context, password string) error {
	sql := fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s';
CREATE TABLE public.%s (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());
ALTER TABLE public.%s OWNER TO %s;
`, loadUser, password, loadTable, loadTable, loadUser)
	_, err := i.psql(ctx, sql)
	return err
}

// empty takes all rows from the load's table.
func (c *Cluster) empty(ctx context.Context) error {
	t, err := c.topology(ctx)
	if err != nil {
		return err
	}
	leader, err := c.instance(t.Leader)
	if err != nil {
		return err
	}
	_, err = leader.psql(ctx, "TRUNCATE public."+loadTable+";")
	return err
}

// psql runs statements as the superuser, by the machine's own socket, and
// gives their rows.
func (i instance) psql(ctx context.Context, sql string) ([]string, error) {
	var out bytes.Buffer
	err := i.Machine.Exec(ctx, strings.NewReader(sql), &out,
		"runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", loadDatabase, "-f", "-")
	if err != nil {
		return nil, fmt.Errorf("psql on %s: %w", i.Machine.Host(), err)
	}
	return strings.Fields(out.String()), nil
}

// Settled says what is missing from a cluster that is well: one primary, all
// others streaming on its timeline, and the VIP on the primary alone.
func (c *Cluster) Settled(ctx context.Context) error {
	t, err := c.topology(ctx)
	if err != nil {
		return err
	}
	if err := t.settled(len(c.instances)); err != nil {
		return err
	}
	for _, i := range c.instances {
		held, err := c.holds(ctx, i)
		if err != nil {
			return err
		}
		if leads := i.Name == t.Leader; held != leads {
			return fmt.Errorf("VIP %s: %s holds it: %t, leads: %t", c.spec.VIP.Addr(), i.Name, held, leads)
		}
	}
	return nil
}

// holds reports whether the VIP is on an instance's machine.
func (c *Cluster) holds(ctx context.Context, i instance) (bool, error) {
	var out bytes.Buffer
	if err := i.Machine.Exec(ctx, nil, &out, "ip", "-o", "address", "show", "to", c.spec.VIP.Addr().String()); err != nil {
		return false, fmt.Errorf("look for the VIP on %s: %w", i.Name, err)
	}
	return out.Len() > 0, nil
}

// Rows gives the numbers of the load's rows on every instance, in order. It
// waits until the replicas have replayed what the primary had when it was
// called.
func (c *Cluster) Rows(ctx context.Context) (map[string][]int64, error) {
	t, err := c.answered(ctx)
	if err != nil {
		return nil, err
	}
	primary, err := c.instance(t.Leader)
	if err != nil {
		return nil, err
	}
	lsn, err := primary.psql(ctx, "SELECT pg_current_wal_flush_lsn();")
	if err != nil {
		return nil, err
	}
	rows := make([][]int64, len(c.instances))
	err = c.each(func(n int, i instance) error {
		if i.Name != primary.Name {
			if err := await(ctx, lookEvery, func(ctx context.Context) error { return i.replayed(ctx, lsn[0]) }); err != nil {
				return err
			}
		}
		words, err := i.psql(ctx, "SELECT id FROM public."+loadTable+" ORDER BY id;")
		if err != nil {
			return err
		}
		rows[n] = []int64{}
		for _, w := range words {
			id, err := strconv.ParseInt(w, 10, 64)
			if err != nil {
				return fmt.Errorf("read rows: %w", err)
			}
			rows[n] = append(rows[n], id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what the load wrote: %w", err)
	}
	all := map[string][]int64{}
	for n, i := range c.instances {
		all[i.Name] = rows[n]
	}
	return all, nil
}

func (i instance) replayed(ctx context.Context, lsn string) error {
	words, err := i.psql(ctx, fmt.Sprintf("SELECT pg_last_wal_replay_lsn() >= '%s', pg_last_wal_replay_lsn();", lsn))
	if err != nil {
		return err
	}
	if len(words) != 1 || !strings.HasPrefix(words[0], "t|") {
		return fmt.Errorf("%s has not replayed up to %s: %v", i.Name, lsn, words)
	}
	return nil
}

func (c *Cluster) instance(name string) (instance, error) {
	n := slices.IndexFunc(c.instances, func(i instance) bool { return i.Name == name })
	if n < 0 {
		return instance{}, fmt.Errorf("the leader %q that Patroni names is none of ours", name)
	}
	return c.instances[n], nil
}

// Instances are the names of the instances, as Patroni knows them, in the order
// of their machines.
func (c *Cluster) Instances() []string {
	var names []string
	for _, i := range c.instances {
		names = append(names, i.Name)
	}
	return names
}

// await looks until there is nothing to be said against it any more. When ctx
// ends first, the error is the last that was said.
func await(ctx context.Context, every time.Duration, look func(ctx context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		}
	}
}
