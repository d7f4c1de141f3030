//go:build mage

// Standard operating procedures for etcd clusters: rehearsed, safe to repeat.
//
// INVENTORY names the inventory (pigsty.yml, else ~/pigsty/pigsty.yml), CLUSTER
// its group (etcd). Flags stand after the arguments; -h TARGET lists them.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/magefile/mage/mg"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/container/image"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/command"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/host/ssh"
	"github.com/etcdrill/etcdrill/sop/interrupt"
	"github.com/etcdrill/etcdrill/sop/inventory"
	"github.com/etcdrill/etcdrill/sop/pki"
)

//mage:multiline

// The environment that is read here and nowhere else. The last six are set by
// this program or by tests of it.
const (
	envInventory = "INVENTORY"
	envCluster   = "CLUSTER"
	envUser      = "ETCDCTL_USER"
	envPassword  = "ETCDCTL_PASSWORD"
	envCA        = "ETCDCTL_CACERT"
	envCert      = "ETCDCTL_CERT"
	envKey       = "ETCDCTL_KEY"
	envDocker    = "DOCKER_HOST"
	envInside    = "ETCDRILL_INSIDE"   // control socket of the lab that this process is in
	envCalled    = "ETCDRILL_CALLED"   // how the user called the process outside
	envKill      = "ETCDRILL_KILL"     // number of the kill point to die at
	envPoints    = "ETCDRILL_POINTS"   // file that gets a line for each kill point
	envGate      = "ETCDRILL_GATE"     // unix socket at which to wait at each moment of a run
	envMutant    = "ETCDRILL_MUTANT"   // how to be wrong on purpose, in a lab
	envElecting  = "ETCDRILL_ELECTING" // how long to wait for a leader, in a lab
)

// init does what has to be done before mage reads the command line: a lab's own
// processes begin here, what is wrong with the whole line is said before
// anything is done, and a command about a lab's cluster moves into the lab.
func init() {
	embedded.Main(os.Args)
	args := os.Args[1:]
	// `go tool mage -h TARGET` passes its own options on in the environment.
	if on, _ := strconv.ParseBool(os.Getenv("MAGEFILE_LIST")); on {
		return
	}
	if on, _ := strconv.ParseBool(os.Getenv("MAGEFILE_HELP")); on {
		args = append([]string{"-h"}, args...)
	}
	targets := command.Targets()
	if err := command.Check(args, targets); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for name, value := range container.Environment() {
		os.Setenv(name, value)
	}
	if t, ok := command.Called(args, targets); ok && t.Site && !command.Set(args, "rehearse") {
		enterLab()
	}
}

// --- procedures ---

// CreateCluster brings up the cluster that the inventory describes.
func CreateCluster(
	ctx context.Context,
	clean *bool, // whether an existing cluster may be cleared; overrides etcd_clean
	safeguard *bool, // whether an existing cluster is protected; overrides etcd_safeguard
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	confirm *string, // consent without a terminal: the cluster's ID, or the code that -plan shows
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, confirm: confirm}, func(g *ground) (sop.Procedure, error) {
		token, err := config.NewToken(g.began, rand.Reader)
		p := sop.CreateCluster{Clean: clean, Safeguard: safeguard, Unreachable: slices.Contains(strings.Split(given(waive), ","), "unreachable"), Token: token, Stamp: sop.Stamp(g.began)}
		if on(clean) { // a rebuild is an event, which a rerun has to know
			p.Since = g.since(p.String())
		}
		return p, err
	})
}

// DestroyCluster takes the whole cluster down and sets its data aside.
func DestroyCluster(
	ctx context.Context,
	clean *bool, // whether an existing cluster may be cleared; overrides etcd_clean
	safeguard *bool, // whether an existing cluster is protected; overrides etcd_safeguard
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	confirm *string, // consent without a terminal: the cluster's ID, or the code that -plan shows
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, confirm: confirm}, func(g *ground) (sop.Procedure, error) {
		return sop.DestroyCluster{Clean: clean, Safeguard: safeguard, Stamp: sop.Stamp(g.began)}, nil
	})
}

// PurgeCluster takes the whole cluster down and deletes all its data.
func PurgeCluster(
	ctx context.Context,
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	confirm *string, // consent without a terminal: the cluster's ID, or the code that -plan shows
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, confirm: confirm}, func(*ground) (sop.Procedure, error) {
		return sop.PurgeCluster{}, nil
	})
}

// PurgeHost deletes etcd's leftovers on a host that is in no cluster.
func PurgeHost(
	ctx context.Context,
	host string, // inventory name of the host
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	confirm *string, // consent without a terminal: the cluster's ID, or the code that -plan shows
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, confirm: confirm}, func(*ground) (sop.Procedure, error) {
		return sop.PurgeHost{Host: host}, nil
	})
}

// ClientEnv prints the environment of etcdctl, for eval "$(...)".
func ClientEnv(
	ctx context.Context,
	install *bool, // write /etc/profile.d/etcdctl.sh on the hosts
	check *bool, // try put, get and delete of a key of its own through every voter
	plan *bool, // show the steps of -install and take none
	rehearse *bool, // run -install on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
) error {
	o := options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}
	if on(install) || on(plan) || on(rehearse) {
		if on(check) {
			return mg.Fatal(2, "clientEnv: -check stands without -install, -plan and -rehearse")
		}
		return perform(ctx, o, func(*ground) (sop.Procedure, error) { return sop.InstallClientEnv{}, nil })
	}
	return clientEnv(ctx, o, on(check))
}

// ReloadConfig refreshes every file that names the endpoints.
func ReloadConfig(
	ctx context.Context,
	only *string, // these hosts or kinds of file alone, comma separated: 10.10.10.10, etcd.conf, etcdctl.sh, patroni.yml, vip-manager.yml, patronictl.yml, targets
	restart *bool, // restart the members afterwards, one at a time
	vips *bool, // restart vip-manager wherever it still runs with another list
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	soak *time.Duration, // how long a restarted member must have run before the next (10s; 0s in a lab)
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		p := sop.ReloadConfig{Restart: on(restart), VIPs: on(vips), Soak: g.soak(soak)}
		if only != nil {
			p.Only = strings.Split(*only, ",")
		}
		p.Since = g.since(p.String())
		return p, nil
	})
}

// AddMember brings one host into the cluster, as a learner first.
func AddMember(
	ctx context.Context,
	host string, // inventory name of the host
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	inventory *string, // what becomes of the inventory: edit, patch (print the difference) or none
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, edit: inventory}, func(*ground) (sop.Procedure, error) {
		return sop.AddMember{Host: host}, nil
	})
}

// RemoveMember takes one member out, and gives up an add that was cut off.
func RemoveMember(
	ctx context.Context,
	host string, // inventory name of the host
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	inventory *string, // what becomes of the inventory: edit, patch (print the difference) or none
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, edit: inventory}, func(g *ground) (sop.Procedure, error) {
		return sop.RemoveMember{Host: host, Stamp: sop.Stamp(g.began)}, nil
	})
}

// ReplaceMember puts a new host in the place of a member, be that alive, dead or corrupt.
func ReplaceMember(
	ctx context.Context,
	old string, // inventory name of the host whose member is to go
	new string, // inventory name of the host to bring in
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	inventory *string, // what becomes of the inventory: edit, patch (print the difference) or none
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, edit: inventory}, func(g *ground) (sop.Procedure, error) {
		return sop.ReplaceMember{Old: old, New: new, Stamp: sop.Stamp(g.began)}, nil
	})
}

// Migrate moves the cluster to other hosts, clients following.
func Migrate(
	ctx context.Context,
	hosts string, // inventory names of all hosts that are to have a member, comma separated; some may have one already
	stale *string, // clients that know old members alone: wait for them, refuse, or ignore them (wait)
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	inventory *string, // what becomes of the inventory: edit, patch (print the difference) or none
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: left(waive, stale), reason: reason, json: json, expect: expect, notAfter: notAfter, edit: inventory}, func(g *ground) (sop.Procedure, error) {
		return sop.Migrate{Hosts: strings.Split(hosts, ","), Stamp: sop.Stamp(g.began), Patient: given(stale) != "refuse"}, nil
	})
}

// left adds to the safeguards that are waived the one for clients that would be
// left behind, where they are to be.
func left(waive, stale *string) *string {
	if given(stale) != "ignore" {
		return waive
	}
	all := strings.TrimPrefix(given(waive)+",stale-clients", ",")
	return &all
}

// Restart restarts the members one at a time, the leader last.
func Restart(
	ctx context.Context,
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	soak *time.Duration, // how long a restarted member must have run before the next (10s; 0s in a lab)
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		p := sop.Restart{Soak: g.soak(soak)}
		p.Since = g.since(p.String())
		return p, nil
	})
}

// MoveLeader hands the leadership over.
func MoveLeader(
	ctx context.Context,
	to *string, // inventory name of the host whose voter is to lead; else the one that is closest behind
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		if to != nil {
			return sop.MoveLeadership{To: *to}, nil
		}
		return g.awayFromLeader(ctx)
	})
}

// Defrag gives unused space of the databases back, one member at a time.
func Defrag(
	ctx context.Context,
	least *string, // how much a member has to win, else it is left alone: 100MiB
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	soak *time.Duration, // how long the cluster is left in peace between two members (10s; 0s in a lab)
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		p := sop.Defragment{Least: sop.LeastWin, Soak: g.soak(soak)}
		if least == nil {
			return p, nil
		}
		n, err := sop.ParseBytes(*least)
		p.Least = n
		return p, err
	})
}

// Compact discards the past of the key space before a revision.
func Compact(
	ctx context.Context,
	revision *int, // the oldest revision that is left
	keep *int, // instead: how many of the last revisions are left
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	if (revision == nil) == (keep == nil) {
		return mg.Fatal(2, "compact: give -revision=N, or -keep=N")
	}
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		if revision != nil {
			return sop.Compact{Revision: int64(*revision)}, nil
		}
		v, err := g.site.Observe(ctx, sop.Scope{})
		return sop.Compact{Revision: v.Revision() - int64(*keep), Keep: int64(*keep)}, err
	})
}

// RotateCerts renews the members' certificates, without a restart; -ca=trust, then sign, then retire bring in another CA.
func RotateCerts(
	ctx context.Context,
	ca *string, // a stride in which another CA takes the place of the present one: trust, sign, retire; abandon gives it up before it signs
	clients *bool, // with -ca=sign: sign clients' certificates anew, too, that are for servers as well
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	soak *time.Duration, // how long the cluster is left in peace between two members (10s; 0s in a lab)
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	if on(clients) && sop.Stride(given(ca)) != sop.Sign {
		return mg.Fatal(2, "rotateCerts: -clients goes with -ca=sign")
	}
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		if ca != nil {
			return sop.RotateAuthority{Stride: sop.Stride(*ca), Clients: on(clients), Soak: g.soak(soak), Stamp: sop.Stamp(g.began)}, nil
		}
		p := sop.RotateCerts{Soak: g.soak(soak)}
		p.Since = g.since(p.String())
		return p, nil
	})
}

// EnableAuth has the cluster ask everybody for a user from then on.
func EnableAuth(
	ctx context.Context,
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(*ground) (sop.Procedure, error) {
		return sop.EnableAuth{}, nil
	})
}

// Upgrade lets the members run another version of etcd, one at a time, the leader last.
func Upgrade(
	ctx context.Context,
	version string, // a release: 3.6.16; one minor version at a time
	downgrade *bool, // go to an older version, or back to the one before
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	soak *time.Duration, // how long an upgraded member must have run before the next (10s; 0s in a lab)
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(g *ground) (sop.Procedure, error) {
		return sop.Upgrade{Version: strings.TrimPrefix(version, "v"), Down: on(downgrade), Soak: g.soak(soak)}, nil
	})
}

// Snapshot saves the key space to a file and verifies it.
func Snapshot(
	ctx context.Context,
	file string, // file to write, which must not be there yet
	survivors *bool, // without a quorum: from the member's data that is the most advanced
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, looks: !on(survivors), deep: on(survivors)}, func(g *ground) (sop.Procedure, error) {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		_, err = os.Lstat(path)
		p := sop.Snapshot{File: path, Since: g.began, Exists: err == nil, Survivors: on(survivors)}
		if p.Survivors { // it may go on with what it left
			p.Since = g.since(p.String())
		}
		return p, nil
	})
}

// Restore builds a new cluster on the inventory's hosts from a snapshot.
func Restore(
	ctx context.Context,
	file string, // snapshot, as the target snapshot or etcdctl saved it
	again *bool, // restore a snapshot once more that was restored here before
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	confirm *string, // consent without a terminal: the cluster's ID, or the code that -plan shows
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter, confirm: confirm}, func(g *ground) (sop.Procedure, error) {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		token, err := config.NewRestoreToken(g.began, rand.Reader)
		if err != nil {
			return nil, err
		}
		p := sop.Restore{File: path, Again: on(again), Token: token, Stamp: sop.Stamp(g.began)}
		p.Since = g.since(p.String())
		if p.Snapshot, err = sop.ReadSnapshot(path); err != nil {
			p.Problem = err.Error()
		} else if err := sop.SnapshotAdmits(path, g.site.User, g.site.Password); err != nil {
			p.Denied = err.Error()
		}
		return p, nil
	})
}

// Status takes one look: members, roles, lag, alarms, drift.
func Status(
	ctx context.Context,
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	json *bool, // one line of JSON on stdout
) error {
	return look(ctx, tunnel, func(v sop.View) error {
		if on(json) {
			return printJSON(sop.ReportOf(v))
		}
		fmt.Print(sop.ReportOf(v).Text())
		return nil
	})
}

// look takes one look at everything and has it told.
func look(ctx context.Context, tunnel *bool, tell func(v sop.View) error) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	g, err := open(ctx, options{tunnel: tunnel, looks: true})
	if err != nil {
		return ended(err, false)
	}
	defer g.close()
	v, err := g.site.Observe(ctx, sop.Scope{AllHosts: true, Hash: true, Disks: true})
	if err != nil {
		return ended(err, false)
	}
	fmt.Fprint(os.Stderr, sop.Header(v, g.place))
	return ended(tell(v), false)
}

// --- alarms ---

// Alarm is what members raise when they cannot go on as before.
type Alarm mg.Namespace

// List lists alarms, why they were raised, and what to do.
func (Alarm) List(
	ctx context.Context,
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	json *bool, // one line of JSON on stdout
) error {
	return look(ctx, tunnel, func(v sop.View) error {
		r := sop.AlarmsOf(v)
		if on(json) {
			return printJSON(r)
		}
		fmt.Print(r.Text())
		return nil
	})
}

// Disarm takes alarms back whose cause is gone.
func (Alarm) Disarm(
	ctx context.Context,
	plan *bool, // show the steps and take none
	rehearse *bool, // run it on a twin of the cluster in a lab, under load
	tunnel *bool, // reach etcd through the SSH connections, where its port cannot be reached from here
	waive *string, // safeguards to pass over, by name, comma separated
	reason *string, // why: a ticket or a sentence, for the journals; -waive needs it
	json *bool, // one record per line on stdout
	expect *string, // the reviewed plan's hash; another plan is refused
	notAfter *string, // no change begins after it: HH:MM today, or RFC 3339
	snapshot *string, // of a rehearsal: a snapshot of the real cluster, which the twin is to hold
) error {
	return perform(ctx, options{plan: plan, rehearse: rehearse, snapshot: snapshot, tunnel: tunnel, waive: waive, reason: reason, json: json, expect: expect, notAfter: notAfter}, func(*ground) (sop.Procedure, error) {
		return sop.DisarmAlarm{}, nil
	})
}

// Sudoers prints what hosts have to allow by sudo, for /etc/sudoers.d.
func Sudoers(
	ctx context.Context,
	user *string, // who logs in where the inventory names nobody; else you
) error {
	g, err := open(ctx, options{})
	if err != nil {
		return ended(err, false)
	}
	defer g.site.Close()
	group, err := g.inv.Group(g.site.Group)
	if err != nil {
		return ended(fmt.Errorf("%w: %w", sop.ErrInventory, err), false)
	}
	who := given(user)
	if who == "" {
		who = sop.Self().User
	}
	rules := sop.SudoRules(g.inv, group, who, ssh.SudoCommand())
	if len(rules) == 0 {
		fmt.Fprintln(os.Stderr, "no host is reached by sudo: the inventory says root, or ansible_become: false")
		return nil
	}
	text, err := config.Sudoers(rules)
	if err != nil {
		return mg.Fatal(2, err)
	}
	_, err = os.Stdout.Write(text)
	return ended(err, false)
}

// options are what every procedure takes.
type options struct {
	plan, rehearse, tunnel, json *bool
	waive, expect, confirm, edit *string
	reason, notAfter, snapshot   *string
	// looks is set where hosts are only looked at, so that no sudo is needed; deep
	// where that takes what only root may see, so that it is.
	looks, deep bool
}

func on(b *bool) bool { return b != nil && *b }

func given(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (o options) waived() []string {
	if o.waive == nil {
		return nil
	}
	return strings.Split(*o.waive, ",")
}

// perform carries a procedure out, or shows its plan.
func perform(ctx context.Context, o options, procedure func(*ground) (sop.Procedure, error)) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	o.looks = o.looks || on(o.plan) || on(o.rehearse)
	g, err := open(ctx, o)
	if err != nil {
		return ended(err, false)
	}
	defer g.close()
	p, err := procedure(g)
	if err != nil {
		return ended(err, false)
	}
	p = g.mutant.Procedure(p)
	if on(o.rehearse) {
		return g.rehearse(ctx, given(o.snapshot))
	}
	if on(o.plan) {
		return g.explain(ctx, p, o)
	}
	defer g.tellCounts()
	return g.run(ctx, p, o)
}

// explain prints a plan.
func (g *ground) explain(ctx context.Context, p sop.Procedure, o options) error {
	r := sop.Runner{Site: g.site}
	plan, v, err := r.Explain(ctx, p)
	if v.Wanted.Name != "" {
		fmt.Fprint(os.Stderr, sop.Header(v, g.place))
	}
	if err != nil {
		return g.ending(p, sop.Result{Plan: plan, View: v}, err)
	}
	hash := plan.Digest(v)
	if on(o.json) {
		err = printJSON(plan.Record(p.String(), v, o.waived()...))
	} else {
		fmt.Printf("plan of %s\n%s", p, plan.Text(v))
		if plan.Consent != nil {
			fmt.Printf("consent: %s -confirm=%s\n", g.command, plan.Consent.Code)
		}
		if !plan.Empty() {
			fmt.Printf("reviewed: %s -expect=%s\n", g.command, hash)
		}
	}
	if e := given(o.expect); err == nil && e != "" && e != hash {
		err = fmt.Errorf("%w: %s was reviewed, %s is what would be done now", sop.ErrPlanChanged, e, hash)
	}
	if err != nil {
		return g.ending(p, sop.Result{Plan: plan, View: v}, err)
	}
	return nil
}

// rehearse runs this very command on a twin of the cluster, in a lab of its own.
// Production is only looked at.
func (g *ground) rehearse(ctx context.Context, snapshot string) error {
	if snapshot != "" {
		path, err := filepath.Abs(snapshot)
		if err != nil {
			return ended(err, false)
		}
		if _, err := sop.ReadSnapshot(path); err != nil {
			return ended(sop.Restore{Problem: err.Error()}.Unsound(), false)
		}
		snapshot = path
	}
	v, err := g.site.Observe(ctx, sop.Scope{})
	if err != nil {
		return ended(err, false)
	}
	fmt.Fprint(os.Stderr, sop.Header(v, g.place))
	spec, err := drill(nil)
	if err != nil {
		return ended(groundError(err), false)
	}
	twin := scenarios.RehearseSpec{
		Inventory: v.Inventory.Content, Group: g.site.Group, Args: command.Line(os.Args[1:], command.Targets()),
		Executable: spec.Executable, Root: spec.Root, Out: spec.Out, Seed: spec.Seed, Report: spec.Report,
		Snapshot: snapshot, Revision: v.Revision(), Alarms: sop.AlarmsOf(v).Alarms,
	}
	if _, twin.Cache, err = containerDirs(); err != nil {
		return ended(groundError(err), false)
	}
	for _, m := range v.Members {
		twin.Members = append(twin.Members, v.HostOf(m))
	}
	if versions := v.Versions(); len(versions) > 0 {
		twin.Version = versions[0]
	}
	sum, err := scenarios.Rehearse(ctx, twin)
	return judged(ctx, sum.Verdict, err)
}

// run carries a procedure out.
func (g *ground) run(ctx context.Context, p sop.Procedure, o options) error {
	// One look at the members alone, to say where we are before all else.
	v, err := g.site.Observe(ctx, sop.Scope{})
	if err != nil {
		return ended(err, false)
	}
	fmt.Fprint(os.Stderr, sop.Header(v, g.place))
	run := sop.RunName(g.began, p)
	file, err := g.site.BeginRun(run)
	if err != nil {
		return ended(err, false)
	}
	defer file.Close()
	var watched sop.Journal = sop.NewTerminal(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())), time.Local)
	if on(o.json) {
		watched = sop.JSONLines(os.Stdout)
	}
	g.site.Self.Run = run
	agreement := sop.Agreement{Given: given(o.confirm), Out: os.Stderr}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		agreement.In = os.Stdin
	}
	point, err := scenarios.KillPoints(os.Getenv(envKill), os.Getenv(envPoints), os.Stderr)
	if err != nil {
		return ended(err, false)
	}
	if g.gate != nil {
		point, watched = g.gate.Point, sop.Tee(watched, g.gate)
	}
	var notAfter time.Time
	if text := given(o.notAfter); text != "" {
		if notAfter, err = sop.ParseMoment(text, g.began); err != nil {
			return mg.Fatal(2, err)
		}
	}
	r := sop.Runner{
		Site: g.site, Journal: sop.Tee(file, watched), Run: run, Waive: o.waived(), Expect: given(o.expect),
		Reason: given(o.reason), NotAfter: notAfter,
		Agree: func(c sop.Consent) error { return agreement.Ask(ctx, c) },
		Poll:  50 * time.Millisecond, Point: point,
	}
	res, err := r.Do(ctx, p)
	if err != nil && res.Changed {
		// What was in flight when it stopped may be there by now. Mage leaves
		// little time after Ctrl-C.
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 800*time.Millisecond)
		if v, err := g.site.Observe(last, sop.Scope{AllHosts: true}); err == nil {
			res.View = v
		}
		stop()
	}
	return g.ending(p, res, err)
}

// ending tells how a run ended and picks the exit status.
func (g *ground) ending(p sop.Procedure, res sop.Result, err error) error {
	text := sop.Ending{Procedure: p, Err: err, Result: res, Command: g.command, Prefix: g.prefix, Now: time.Now()}.Text()
	if status := sop.ExitStatus(err, res.Changed); status != 0 {
		return mg.Fatal(status, strings.TrimRight(text, "\n"))
	}
	fmt.Fprint(os.Stderr, text)
	return nil
}

// ended picks the exit status where nothing was begun, or nothing is to be told
// beside the error.
func ended(err error, changed bool) error {
	var r *sop.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return mg.Fatal(sop.ExitStatus(err, changed), strings.TrimRight(r.Text(), "\n"))
	}
	return mg.Fatal(sop.ExitStatus(err, changed), err)
}

func printJSON(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// clientEnv prints the environment of etcdctl, or tries what a client does.
func clientEnv(ctx context.Context, o options, check bool) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	o.looks = true
	g, err := open(ctx, o)
	if err != nil {
		return ended(err, false)
	}
	defer g.close()
	v, err := g.site.Observe(ctx, sop.Scope{})
	if err != nil {
		return ended(err, false)
	}
	fmt.Fprint(os.Stderr, sop.Header(v, g.place))
	if check {
		g.site.Self.Run = sop.RunStamp(g.began) + "-clientEnv"
		told, err := g.site.CheckClient(ctx, v)
		for _, s := range told {
			fmt.Println(s)
		}
		return ended(err, false)
	}
	files, notes := g.site.ReadableClient(v, g.place != "LAB") // this machine's own files have no business in a lab
	env, warning := sop.ClientEnv(v, files)
	if warning != "" {
		notes = append(notes, warning)
	}
	if err := env.Check(); err != nil {
		return ended(err, false)
	}
	for _, n := range notes {
		fmt.Fprintln(os.Stderr, "warning: "+n)
	}
	if on(o.json) {
		return ended(printJSON(map[string]any{"endpoints": env.Endpoints, "cacert": env.CAFile, "cert": env.CertFile, "key": env.KeyFile, "warnings": notes}), false)
	}
	_, err = os.Stdout.Write(env.Render())
	return ended(err, false)
}

// --- the ground ---

// ground is what a command stands on.
type ground struct {
	inv             *inventory.Inventory
	site            *sop.Site
	lab             *embedded.Lab // nil on real hosts
	client          *ssh.Client   // nil in a lab
	place           string        // PROD or LAB
	began           time.Time
	command, prefix string // as it was typed
	gate            *scenarios.Gate
	mutant          scenarios.Mutant // who is wrong in no way, but in tests of scenarios
}

// open finds the inventory and what it is about.
func open(ctx context.Context, o options) (*ground, error) {
	path, err := inventoryPath()
	if err != nil {
		return nil, err
	}
	inv, err := inventory.Read(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sop.ErrInventory, err)
	}
	name, err := inv.Choose(os.Getenv(envCluster))
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", sop.ErrInventory, path, err)
	}
	group, err := inv.Group(name)
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", sop.ErrInventory, path, err)
	}
	g := &ground{inv: inv, place: "PROD", began: time.Now()}
	g.prefix = prefix()
	g.command = g.prefix + command.Quoted(command.Lasting(os.Args[1:])...)
	dir := filepath.Dir(path)
	g.site = &sop.Site{
		Inventory: path, Group: name, Edit: "edit",
		State: filepath.Join(dir, ".etcdrill"), PKI: pki.Dir(filepath.Join(dir, "files", "pki")),
		Resolve: net.DefaultResolver.LookupHost, Ask: sop.AskVersion,
		Now: time.Now, Random: rand.Reader, Deadlines: sop.StandardDeadlines(), Self: sop.Self(),
	}
	if e := given(o.edit); e != "" {
		g.site.Edit = e
	}
	if inv.Lab != "" {
		if g.lab, err = embedded.OpenSocket(ctx, inv.Lab); err != nil {
			return nil, labGone(path, inv.Lab, err)
		}
		g.place = "LAB"
		g.site.Hosts = func(spec inventory.Host) (host.Host, error) { return g.lab.Host(spec.Name), nil }
	} else if err := g.overSSH(o.looks, o.deep); err != nil {
		return nil, groundError(err)
	}
	tunnelled := on(o.tunnel)
	if dir, ok := container.DirOf(inv.Bytes()); ok && g.lab == nil {
		lab, err := g.inMachines(dir, group)
		if err != nil {
			return nil, err
		}
		tunnelled = tunnelled || lab.Gate != "" // etcd is behind it too
	}
	name, password := credentials(group)
	if password != "" {
		g.site.User, g.site.Password = name, password
	}
	var way sop.Way
	switch {
	case g.lab == nil && tunnelled:
		first, stop := context.WithTimeout(ctx, g.site.Deadlines[sop.Connecting])
		way = g.client.Through(first, group.Hosts)
		stop()
	case g.lab != nil && os.Getenv(envInside) != inv.Lab:
		// From out here the lab's addresses are production's.
		way = g.lab.DialContext(embedded.Admin)
	}
	if name := os.Getenv(envMutant); name != "" && g.lab != nil {
		if g.mutant, err = scenarios.MutantNamed(name); err != nil {
			return nil, fmt.Errorf("%s: %w", envMutant, err)
		}
		g.mutant.Spoil(g.site)
	}
	if socket := os.Getenv(envGate); socket != "" && g.place == "LAB" {
		if g.gate, err = scenarios.EnterGate(socket); err != nil {
			return nil, fmt.Errorf("%s: %w", envGate, err)
		}
	}
	if text := os.Getenv(envElecting); text != "" && g.place == "LAB" {
		if g.site.Deadlines[sop.Electing], err = time.ParseDuration(text); err != nil {
			return nil, fmt.Errorf("%s: %w", envElecting, err)
		}
	}
	g.site.Named = sop.ClientFiles{CA: os.Getenv(envCA), Cert: os.Getenv(envCert), Key: os.Getenv(envKey)}
	g.site.Meter = sop.NewMeter(time.Now)
	g.site.Dial = sop.Access{
		TLS: func() (*tls.Config, error) {
			// This machine's own files have no business in a lab.
			c, _, err := g.site.ClientTLS(group, g.site.Named, g.lab == nil)
			return c, err
		},
		User: name, Password: password, Way: way,
		Options: []grpc.DialOption{grpc.WithNoProxy(), grpc.WithChainUnaryInterceptor(g.site.Meter.Unary, g.mutant.Unary, g.gate.Unary)},
	}.Dialer()
	return g, nil
}

// overSSH lets the hosts be real ones, reached by the user's own ssh. Those who
// only look need no sudo, unless they look deep.
func (g *ground) overSSH(looks, deep bool) error {
	client, err := ssh.New(ssh.Config{ReadOnly: looks, Root: deep})
	if err != nil {
		return err
	}
	g.client = client
	g.site.Hosts = func(h inventory.Host) (host.Host, error) {
		spec, err := ssh.SpecOf(h)
		if err != nil {
			return nil, err
		}
		return client.Host(spec), nil
	}
	return nil
}

// inMachines has the command work on a lab of containers and nowhere else: the
// inventory may have been edited, and a host on the command line may be anyone's.
func (g *ground) inMachines(dir string, group *inventory.Group) (container.Info, error) {
	lab, err := container.Describe(dir)
	if err != nil {
		return lab, fmt.Errorf("%w: inventory %s belongs to the lab in %s (%w): make another with lab:up -kind=container", sop.ErrGround, g.site.Inventory, dir, err)
	}
	for _, h := range group.Hosts {
		if err := lab.Holds(h.Name, h.Addr); err != nil {
			return lab, fmt.Errorf("%w %s: line %d: %w; take the host out, or the first line of a file that is no lab's any more", sop.ErrInventory, g.site.Inventory, h.Line, err)
		}
	}
	g.place = "LAB"
	reach := g.site.Hosts
	g.site.Hosts = func(spec inventory.Host) (host.Host, error) {
		if err := lab.Holds(spec.Name, spec.Addr); err != nil {
			return nil, err
		}
		return reach(spec)
	}
	return lab, nil
}

// close ends the connections to members, then those to hosts.
func (g *ground) close() {
	err := g.site.Close()
	if g.client != nil {
		err = errors.Join(err, g.client.Close())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "warning: close the connections: %v\n", err)
	}
}

// tellCounts says what the hosts cost.
func (g *ground) tellCounts() {
	if g.client == nil {
		return
	}
	for _, c := range g.client.Counts() {
		fmt.Fprintf(os.Stderr, "%s: connections opened %d, commands run %d\n", c.Host, c.Connections, c.Commands)
	}
}

func labGone(path, socket string, err error) error {
	return fmt.Errorf("%w: inventory %s belongs to the lab behind %s, which does not answer (%w): make another with lab:up", sop.ErrGround, path, socket, err)
}

// inventoryPath finds the inventory, as an absolute path.
func inventoryPath() (string, error) {
	if p := os.Getenv(envInventory); p != "" {
		p, err := filepath.Abs(p)
		if err != nil {
			return "", fmt.Errorf("%w: %w", sop.ErrInventory, err)
		}
		return p, nil
	}
	tried := []string{"pigsty.yml"}
	if home, err := os.UserHomeDir(); err == nil {
		tried = append(tried, filepath.Join(home, "pigsty", "pigsty.yml"))
	}
	for _, p := range tried {
		if _, err := os.Stat(p); err == nil {
			return filepath.Abs(p)
		}
	}
	return "", fmt.Errorf("%w: there is neither %s: name it with INVENTORY=FILE", sop.ErrInventory, strings.Join(tried, " nor "))
}

// soak is the pause of a rolling procedure.
func (g *ground) soak(asked *time.Duration) time.Duration {
	switch {
	case asked != nil:
		return *asked
	case g.place == "LAB":
		return 0
	}
	return sop.Soak
}

// since is the moment after which every process has to have started: now, or
// when a run that was cut off began.
func (g *ground) since(procedure string) time.Time {
	if began, ok := g.site.CutOff(procedure, g.began); ok {
		fmt.Fprintf(os.Stderr, "going on with the run that was cut off, begun %s\n", began.Local().Format("15:04:05 MST"))
		return began
	}
	return g.began
}

// awayFromLeader takes the leadership away from who leads now, or from who led
// when a run began that was cut off.
func (g *ground) awayFromLeader(ctx context.Context) (sop.Procedure, error) {
	if p, ok := g.site.CutOffMove(g.began); ok {
		fmt.Fprintf(os.Stderr, "going on with the run that was cut off: %s\n", p)
		return p, nil
	}
	v, err := g.site.Observe(ctx, sop.Scope{})
	if err != nil {
		return nil, err
	}
	leader, _ := v.Leader()
	return sop.MoveLeadership{From: v.HostOf(leader)}, nil
}

// credentials are the user and password for a cluster with authentication.
func credentials(group *inventory.Group) (name, password string) {
	name, password = os.Getenv(envUser), os.Getenv(envPassword)
	// etcdctl takes both in one.
	if n, p, both := strings.Cut(name, ":"); both && password == "" {
		name, password = n, p
	}
	if name != "" && password != "" {
		return name, password
	}
	if name == "" && group.RootPassword != "" {
		return "root", group.RootPassword
	}
	return "", ""
}

// --- signals, parents, and the way into a lab ---

// interruptible gives a context that ends when someone wants us to stop.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return interrupt.Context(ctx, os.Stderr, orphans())
}

// orphans is closed when whoever started us is gone. In a lab, the lab sees to it.
func orphans() <-chan struct{} {
	if os.Getenv(envInside) != "" {
		return nil
	}
	return interrupt.Orphaned()
}

// called is how the user calls this program.
func called() string {
	if c := os.Getenv(envCalled); c != "" {
		return c
	}
	if interrupt.Program(os.Getppid()) == "mage" {
		return "go tool mage"
	}
	return command.Quoted(os.Args[0])
}

// prefix is what stands before the name of a target in a command that does the
// same here as it did for the user.
func prefix() string {
	var b strings.Builder
	for _, name := range []string{envInventory, envCluster} {
		if v := os.Getenv(name); v != "" {
			fmt.Fprintf(&b, "%s=%s ", name, command.Quoted(v))
		}
	}
	return b.String() + called() + " "
}

// enterLab runs this very command inside the lab that the inventory names, if
// it names one and we are not there yet, and ends with its status. Inside are
// the lab's addresses, and nothing else: there is no way out to production.
func enterLab() {
	path, err := inventoryPath()
	if err != nil {
		return // the target says so
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return
	}
	socket, ok := embedded.SocketOf(content)
	if !ok || os.Getenv(envInside) == socket {
		return
	}
	status, err := runInLab(socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", labGone(path, socket, err))
		os.Exit(5)
	}
	os.Exit(status)
}

func runInLab(socket string) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, interrupt.Signals()...)
	orphaned := orphans()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	lab, err := embedded.OpenSocket(ctx, socket)
	if err != nil {
		return 0, err
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	env := append(os.Environ(), envInside+"="+socket, envCalled+"="+called())
	p, err := lab.Exec(ctx, embedded.Admin, append([]string{exe}, os.Args[1:]...), env, "", os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return 0, err
	}
	for {
		var sig os.Signal
		select {
		case <-p.Done():
			return p.Wait()
		case sig = <-signals:
		case <-orphaned:
			sig, orphaned = syscall.SIGTERM, nil
		}
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 0, err
		}
	}
}

// --- labs ---

// Lab has labs to play in by hand.
type Lab mg.Namespace

// Up makes a lab and prints the path of its inventory on stdout.
func (Lab) Up(
	ctx context.Context,
	kind *string, // embedded: a lab of namespaces on this machine; container: machines with systemd and SSH, by Docker
	inventory *string, // build the lab for the hosts of this file; it is only read
	hosts *string, // more hosts, comma separated, for the inventory to grow by
	name *string, // of the lab; else lab1, lab2, ... or container1, container2, ...
	etcd *string, // versions of etcd: hosts have the first, and can get all of them as a package; built when first asked for
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	order, err := labFor(given(inventory), given(hosts))
	if err != nil {
		return err
	}
	if etcd != nil {
		if given(kind) == "container" {
			return mg.Fatal(2, "-etcd= is for labs of kind embedded: machines have their etcd in their image")
		}
		order.etcds = strings.Split(*etcd, ",")
	}
	if name != nil {
		labs, err := allLabs(ctx)
		if err != nil {
			return mg.Fatal(5, err)
		}
		// lab:down tells them apart by name alone; that one of the same kind has
		// the name is found out as it is made.
		for _, l := range labs {
			if l.name == *name && l.machines != (given(kind) == "container") {
				return mg.Fatalf(2, "lab %s is running already, of another kind: lab:list shows it, lab:down -name=%s ends it", *name, *name)
			}
		}
	}
	up := embeddedUp
	if given(kind) == "container" {
		up = containerUp
	}
	made, names, path, err := up(ctx, order, given(name))
	switch {
	case errors.Is(err, embedded.ErrExists), errors.Is(err, container.ErrExists):
		return mg.Fatalf(2, "%v: lab:list shows it, lab:down -name=%s ends it", err, *name)
	case errors.Is(err, image.ErrVersion):
		return mg.Fatal(2, err)
	case err != nil && ctx.Err() != nil:
		return mg.Fatal(130, err)
	case err != nil:
		return mg.Fatal(5, err)
	}
	fmt.Fprintf(os.Stderr, "lab %s is up: %s\n", made, strings.Join(names, ", "))
	fmt.Println(path)
	return nil
}

// labOrder is what a lab is to be made for.
type labOrder struct {
	inventory []byte
	hosts     []string // sorted
	databases []string // hosts with PostgreSQL, which may have etcd as well
	etcds     []string // versions that are to be had there, the first in place
}

// labFor reads what a lab is to be made for.
func labFor(file, more string) (labOrder, error) {
	content, extra := scenarios.BuiltIn()
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return labOrder{}, mg.Fatal(2, err)
		}
		content, extra = b, nil
	}
	socket, ok := embedded.SocketOf(content)
	if !ok {
		socket, ok = container.DirOf(content)
	}
	if ok {
		return labOrder{}, mg.Fatalf(2, "%s is a lab's own inventory already, of the lab behind %s", file, socket)
	}
	if more != "" {
		extra = append(extra, strings.Split(more, ",")...)
	}
	inv, err := inventory.Parse(file, content)
	if err != nil {
		return labOrder{}, mg.Fatal(2, err)
	}
	group, err := inv.Choose(os.Getenv(envCluster))
	if err != nil {
		return labOrder{}, mg.Fatal(2, err)
	}
	g, err := inv.Group(group)
	if err != nil {
		return labOrder{}, mg.Fatal(2, err)
	}
	var hosts []string
	for _, h := range g.Hosts {
		hosts = append(hosts, h.Name)
	}
	hosts = append(append(hosts, g.Clients()...), extra...)
	slices.Sort(hosts)
	var databases []string
	for _, p := range g.Postgres {
		databases = append(databases, p.Host)
	}
	return labOrder{inventory: content, hosts: slices.Compact(hosts), databases: databases}, nil
}

func embeddedUp(ctx context.Context, o labOrder, name string) (made string, hosts []string, inventory string, err error) {
	root, err := labRoot()
	if err != nil {
		return "", nil, "", err
	}
	spec := embedded.Spec{Root: root, Name: name, Hosts: o.hosts, Inventory: o.inventory, Keep: true, Started: time.Now()}
	if len(o.etcds) > 0 {
		_, cache, err := containerDirs()
		if err != nil {
			return "", nil, "", err
		}
		spec.Version = o.etcds[0]
		if spec.Versions, err = scenarios.Etcds(ctx, cache, os.Stderr, o.etcds...); err != nil {
			return "", nil, "", err
		}
	}
	l, err := embedded.Up(ctx, spec)
	if err != nil {
		return "", nil, "", err
	}
	i := l.Info()
	return i.Name, i.Hosts, i.Inventory, nil
}

func containerUp(ctx context.Context, o labOrder, name string) (made string, hosts []string, inventory string, err error) {
	root, cache, err := containerDirs()
	if err != nil {
		return "", nil, "", err
	}
	engine, err := container.Answers(ctx)
	if err != nil {
		return "", nil, "", err
	}
	if want := os.Getenv(envDocker); want != "" && want != engine {
		return "", nil, "", fmt.Errorf("the Docker engine that DOCKER_HOST names, %s, does not answer; the one at %s does, and was not asked: unset DOCKER_HOST to use it", want, engine)
	}
	spec := container.Spec{Root: root, Cache: cache, Name: name, Inventory: o.inventory, Keep: true, Started: time.Now(), Progress: os.Stderr}
	hosts = append(slices.Clone(o.hosts), o.databases...)
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		m := container.MachineSpec{Host: h}
		if slices.Contains(o.databases, h) {
			m.Role = image.Database
		}
		spec.Machines = append(spec.Machines, m)
	}
	l, err := container.Up(ctx, spec)
	if err != nil {
		return "", nil, "", err
	}
	i := l.Info()
	fmt.Fprintf(os.Stderr, "by hand: ssh -F %s %s\n", i.SSHConfig, i.Hosts[0])
	return i.Name, i.Hosts, i.Inventory, nil
}

// Down ends a lab and removes all that is left of it.
func (Lab) Down(
	ctx context.Context,
	name *string, // of the lab; may be left out when there is only one
) error {
	labs, err := allLabs(ctx)
	if err != nil {
		return mg.Fatal(5, err)
	}
	labs = slices.DeleteFunc(labs, func(l labLine) bool { return name != nil && l.name != *name })
	switch {
	case len(labs) == 0 && name != nil:
		return mg.Fatalf(2, "there is no lab %s: lab:list shows what there is", *name)
	case len(labs) == 0:
		fmt.Fprintln(os.Stderr, "there is no lab")
		return nil
	case len(labs) > 1:
		var names []string
		for _, l := range labs {
			names = append(names, l.name)
		}
		return mg.Fatalf(2, "which one? -name=%s", strings.Join(names, ", -name="))
	}
	if err := labs[0].down(ctx); err != nil {
		return mg.Fatal(5, err)
	}
	fmt.Fprintf(os.Stderr, "lab %s is down\n", labs[0].name)
	return nil
}

// labLine is one lab of whatever kind.
type labLine struct {
	machines               bool // it is one of containers
	name, state, inventory string
	hosts                  []string
	down                   func(context.Context) error
}

// allLabs lists the labs of both kinds.
func allLabs(ctx context.Context) ([]labLine, error) {
	root, err := labRoot()
	if err != nil {
		return nil, err
	}
	here, err := embedded.List(ctx, root)
	if err != nil {
		return nil, err
	}
	var all []labLine
	for _, i := range here {
		l := labLine{name: i.Name, state: "up", inventory: i.Inventory, hosts: i.Hosts}
		if i.PID == 0 {
			l.state = "dead"
			if i.Alive {
				l.state = "does not answer"
			}
		}
		l.down = func(ctx context.Context) error {
			l, err := embedded.Open(ctx, i.Dir)
			if errors.Is(err, embedded.ErrGone) {
				_, err := embedded.Heal(ctx, root)
				return err
			}
			if err != nil {
				return err
			}
			return l.Down(ctx)
		}
		all = append(all, l)
	}
	root, _, err = containerDirs()
	if err != nil {
		return nil, err
	}
	machines, err := container.List(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, i := range machines {
		all = append(all, labLine{machines: true, name: i.Name, state: i.State, inventory: i.Inventory, hosts: i.Hosts,
			down: func(ctx context.Context) error { return container.Discard(ctx, i.Dir) }})
	}
	return all, nil
}

// List lists the labs, dead ones included.
func (Lab) List(ctx context.Context) error {
	labs, err := allLabs(ctx)
	if err != nil {
		return mg.Fatal(5, err)
	}
	for _, l := range labs {
		fmt.Printf("%s\t%s\t%s\t%s\n", l.name, l.state, l.inventory, strings.Join(l.hosts, ","))
	}
	return nil
}

// Doctor tries all that a lab is made of, and says how to mend it.
func (Lab) Doctor(ctx context.Context) error {
	root, err := labRoot()
	if err != nil {
		return mg.Fatal(5, err)
	}
	checks := embedded.Doctor(ctx, root)
	fmt.Print(embedded.Text(checks))
	machines, cache, err := containerDirs()
	if err != nil {
		return mg.Fatal(5, err)
	}
	fmt.Println("labs of containers, lab:up -kind=container:")
	var more []embedded.Check
	for _, c := range container.Doctor(ctx, machines, cache) {
		more = append(more, embedded.Check(c))
	}
	fmt.Print(embedded.Text(more))
	for _, c := range checks {
		if c.Needed && !c.OK {
			return mg.Fatalf(5, "no lab can be had on this machine: %s", c.Name)
		}
	}
	return nil
}

// Heal removes what dead labs left and ends the faults of living ones.
func (Lab) Heal(ctx context.Context) error {
	root, err := labRoot()
	if err != nil {
		return mg.Fatal(5, err)
	}
	did, err := embedded.Heal(ctx, root)
	more, ferr := fault.Heal(ctx, root)
	did, err = append(did, more...), errors.Join(err, ferr)
	root, _, failed := containerDirs()
	if failed == nil {
		var also []string
		also, failed = container.Heal(ctx, root)
		did = append(did, also...)
	}
	for _, s := range did {
		fmt.Println(s)
	}
	return ended(groundError(errors.Join(err, failed)), false)
}

func groundError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", sop.ErrGround, err)
}

// labRoot is the directory that holds labs. Paths of sockets are short, so a
// user whose cache is deep has his labs with the temporary files.
func labRoot() (string, error) {
	const longest = 60
	if cache, err := os.UserCacheDir(); err == nil && filepath.IsAbs(cache) {
		if root := filepath.Join(cache, "etcdrill", "labs"); len(root) <= longest {
			return root, nil
		}
	}
	dir := filepath.Join(os.TempDir(), "etcdrill-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory for labs: %w", err)
	}
	if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() || fi.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid()) {
		return "", fmt.Errorf("directory for labs %s is not ours", dir)
	}
	return filepath.Join(dir, "labs"), nil
}

// containerDirs are the directories of labs of containers, and of what their
// images are made from.
func containerDirs() (root, cache string, err error) {
	base, err := os.UserCacheDir()
	if err != nil || !filepath.IsAbs(base) {
		return "", "", fmt.Errorf("labs of containers are kept in the user's cache, and there is none: set HOME or XDG_CACHE_HOME (%v)", err)
	}
	base = filepath.Join(base, "etcdrill")
	return filepath.Join(base, "containers"), filepath.Join(base, "images"), nil
}

// --- the drill, and the work on etcdrill itself ---

// Rehearse plays all procedures in a lab, under load and with a kill.
func Rehearse(
	ctx context.Context,
	seed *int, // of the load and the lab; else a fresh one, which is printed
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	spec, err := drill(seed)
	if err != nil {
		return ended(groundError(err), false)
	}
	sum, err := scenarios.Drill(ctx, spec)
	return judged(ctx, sum.Verdict, err)
}

// Scenario has suites of procedures under faults.
type Scenario mg.Namespace

// Run plays scenarios: a tier (smoke, pr, nightly, soak), a suite, or names.
func (Scenario) Run(
	ctx context.Context,
	pattern string, // a tier, a suite, or a name with * in it; several with commas
	lab *string, // the kind of lab: embedded (default) or container
	seed *int, // of all that is random; else a fresh one, which is printed
	count *int, // how often each is played, each time with the next seed (1)
	walk *time.Duration, // how long the soak goes on (until Ctrl-C)
	mutant *string, // who the operators are: one that scenario:mutants knows
	junit *string, // file to write the results to, as JUnit
	shrink *bool, // make what failed smaller, and print it as a row
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	spec, err := suite(pattern, given(lab), seed, count)
	if err != nil {
		return ended(groundError(err), false)
	}
	spec.Shrink = on(shrink)
	if walk != nil {
		spec.Walk = *walk
	}
	spec.Mutant = given(mutant)
	if junit != nil {
		if spec.JUnit, err = filepath.Abs(*junit); err != nil {
			return mg.Fatal(2, err)
		}
	}
	res, err := scenarios.RunSuite(ctx, spec)
	switch {
	case errors.Is(err, scenarios.ErrScenario), errors.Is(err, scenarios.ErrLab):
		return mg.Fatal(2, err)
	case err != nil && res.Verdict == "" && ctx.Err() == nil: // nothing was played
		return ended(groundError(err), false)
	}
	return judged(ctx, res.Verdict, err)
}

func suite(pattern, lab string, seed, count *int) (scenarios.SuiteSpec, error) {
	d, err := drill(seed)
	spec := scenarios.SuiteSpec{
		PlaySpec: scenarios.PlaySpec{Executable: d.Executable, Root: d.Root, Out: d.Out, Seed: d.Seed},
		Pattern:  pattern, Lab: lab, Report: os.Stderr, Prefix: called() + " ",
		Machines: scenarios.MachineSpec{Path: os.Getenv("PATH")},
	}
	if err == nil {
		spec.Machines.Root, spec.Machines.Cache, err = containerDirs()
		spec.PlaySpec.Cache = spec.Machines.Cache
	}
	if count != nil {
		spec.Count = *count
	}
	return spec, err
}

// Mutants plays operators who are wrong on purpose; scenarios have to find each out.
func (Scenario) Mutants(
	ctx context.Context,
	only *string, // these mutants alone, comma separated
	seed *int, // of all that is random; else a fresh one, which is printed
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	spec, err := suite("mutants", "", seed, nil)
	if err != nil {
		return ended(groundError(err), false)
	}
	var names []string
	if only != nil {
		names = strings.Split(*only, ",")
	}
	verdict, err := scenarios.RunMutants(ctx, spec, names)
	if errors.Is(err, scenarios.ErrScenario) {
		return mg.Fatal(2, err)
	}
	return judged(ctx, verdict, err)
}

// List lists scenarios: name, tier, suites, and what each is about.
func (Scenario) List(ctx context.Context) error {
	all, err := scenarios.All("", 0)
	if err != nil {
		return mg.Fatal(1, err)
	}
	fmt.Print(scenarios.ListText(all))
	return nil
}

// Check judges a saved run again, from its directory alone.
func (Scenario) Check(
	ctx context.Context,
	dir string, // directory of the run: .etcdrill/runs/latest
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	sum, err := scenarios.Check(ctx, dir)
	switch {
	case errors.Is(err, scenarios.ErrNoRun):
		return mg.Fatal(2, err)
	case err == nil:
		fmt.Print(sum.Text())
	case !errors.Is(err, scenarios.ErrDamaged):
		return mg.Fatal(5, err) // it cannot be read
	}
	return judged(ctx, sum.Verdict, err)
}

func drill(seed *int) (scenarios.DrillSpec, error) {
	spec := scenarios.DrillSpec{Report: os.Stderr}
	var err error
	if spec.Executable, err = os.Executable(); err != nil {
		return spec, err
	}
	if spec.Root, err = labRoot(); err != nil {
		return spec, err
	}
	if spec.Out, err = os.Getwd(); err != nil {
		return spec, err
	}
	spec.Seed, err = seedOf(seed)
	return spec, err
}

// seedOf is the seed that was given, or a fresh one of 63 bits.
func seedOf(given *int) (int64, error) {
	if given != nil {
		return int64(*given), nil
	}
	n, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64))
	if err != nil {
		return 0, fmt.Errorf("make a seed: %w", err)
	}
	return n.Int64(), nil
}

// judged picks the exit status of a play.
func judged(ctx context.Context, verdict scenarios.Verdict, err error) error {
	status := map[scenarios.Verdict]int{scenarios.Pass: 0, scenarios.Violation: 1, scenarios.Unknown: 4, scenarios.Infra: 5}
	said := fmt.Sprintf("the verdict is %s", verdict)
	if err != nil {
		said += fmt.Sprintf(": %v", err)
	}
	switch code, known := status[verdict]; {
	case ctx.Err() != nil:
		return mg.Fatal(130, "interrupted")
	case err != nil && (!known || code == 0):
		return mg.Fatal(5, said)
	case !known:
		return mg.Fatal(4, said)
	case code != 0:
		return mg.Fatal(code, said)
	}
	return nil
}

// atOnce is how many tests of a package run at once. On labs they wait for etcd
// most of the time, so more than there are processors.
const atOnce = "-parallel=6"

// Test runs the tests, but for the stories under PostgreSQL, which check tells.
func Test(ctx context.Context) error {
	defer untested(ctx)
	if err := needsGo("test"); err != nil {
		return err
	}
	if err := tool(ctx, "go", "test", atOnce, "-timeout=40m", "./..."); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "NOT TESTED here: the stories under PostgreSQL, which take a quarter of an hour; go tool mage check tells them")
	return nil
}

// untested says at the end of the tests what they passed over; go test hides
// what a package that passed has said.
func untested(ctx context.Context) {
	if _, err := container.Answers(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "NOT TESTED: everything on machines with systemd and SSH: %v\n", err)
	}
}

// Lint runs gofmt, go vet and staticcheck.
func Lint(ctx context.Context) error {
	if err := needsGo("lint"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return mg.Fatalf(1, "go env GOROOT: %v", err)
	}
	format := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(out)), "bin", "gofmt"), "-l", "magefile.go", "sop", "lab", "scenarios")
	format.Stderr = os.Stderr
	unformatted, err := format.Output()
	if err != nil {
		return mg.Fatalf(1, "gofmt: %v", err)
	}
	if len(unformatted) > 0 {
		return mg.Fatalf(1, "not as gofmt writes it:\n%s", unformatted)
	}
	for _, args := range [][]string{{"go", "vet", "./..."}, {"go", "vet", "-tags", "mage", "./..."}} {
		if err := tool(ctx, args...); err != nil {
			return err
		}
	}
	return linter(ctx, ".ci/staticcheck")
}

// needsGo says which targets a compiled binary alone cannot do.
func needsGo(target string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return mg.Fatalf(1, "%s is for work on etcdrill itself: it needs Go, and its source (%v)", target, err)
	}
	if _, err := os.Stat("magefile.go"); err != nil {
		return mg.Fatalf(1, "%s is for work on etcdrill itself: it needs Go, and its source; run it where magefile.go is", target)
	}
	return nil
}

// linter runs one of the linters, which are modules of their own.
func linter(ctx context.Context, script string) error {
	if _, err := os.Stat(script); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "NOT TESTED: there is no %s\n", script)
		return nil
	}
	return tool(ctx, script)
}

// Bench measures, and prints lines that benchstat reads.
func Bench(
	ctx context.Context,
	lab *string, // the kind of lab: embedded, or container for machines by SSH
	only *string, // these benchmarks alone, comma separated: LabUp,AddMember
	count *int, // how often each is measured (5)
	seed *int, // of the loads and labs; else a fresh one
	rate *int, // calls a second of all clients together (on machines 200; else as fast as they are answered)
) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	d, err := drill(seed)
	if err != nil {
		return ended(groundError(err), false)
	}
	spec := scenarios.BenchSpec{Executable: d.Executable, Root: d.Root, Out: d.Out, Seed: d.Seed, Report: os.Stderr, Lab: given(lab), Path: os.Getenv("PATH")}
	if spec.Machines, spec.Cache, err = containerDirs(); err != nil {
		return ended(groundError(err), false)
	}
	if only != nil {
		spec.Only = strings.Split(*only, ",")
	}
	if count != nil {
		spec.Count = *count
	}
	if rate != nil {
		spec.Rate = float64(*rate)
	}
	if err := scenarios.Bench(ctx, spec, os.Stdout); err != nil {
		switch {
		case ctx.Err() != nil:
			return mg.Fatal(130, "interrupted")
		case errors.Is(err, scenarios.ErrNoBenchmark):
			return mg.Fatal(2, err)
		case errors.Is(err, container.ErrNoDocker):
			return ended(groundError(err), false)
		}
		return mg.Fatal(1, err)
	}
	return nil
}

// Check is what CI runs: lint, tests with -race, the drill, the shortest scenarios.
func Check(ctx context.Context) error {
	if err := Lint(ctx); err != nil {
		return err
	}
	if err := linter(ctx, ".ci/vuln"); err != nil {
		return err
	}
	defer untested(ctx)
	// Members under the race detector are too slow to be etcd, and with it sop
	// samples what it else sweeps; so these are run as they are, and one after the
	// other: the sweeps would take the processors away from the members, and labs
	// the disk from PostgreSQL.
	if err := tool(ctx, "go", "test", "-race", atOnce, "-timeout=30m", "./sop/...", "./lab/..."); err != nil {
		return err
	}
	for _, args := range [][]string{{"./sop"}, {"./scenarios"}, {"./scenarios", "-run=^TestStory$", "-stories"}} {
		if err := tool(ctx, append([]string{"go", "test", atOnce, "-timeout=50m"}, args...)...); err != nil {
			return err
		}
	}
	if err := Rehearse(ctx, nil); err != nil {
		return err
	}
	return Scenario{}.Run(ctx, "smoke", nil, nil, nil, nil, nil, nil, nil)
}

// tool runs a command in front of the user; its failure is ours.
func tool(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 4 * time.Second // less than mage leaves
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			return mg.Fatalf(130, "%s: interrupted", strings.Join(args, " "))
		}
		return mg.Fatalf(1, "%s: %v", strings.Join(args, " "), err)
	}
	return nil
}
