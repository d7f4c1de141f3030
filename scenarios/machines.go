package scenarios

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/pki"
)

// machines are a lab of containers as plays use it: operators who reach it by
// SSH from this machine, and clients beside them. Its stage has no rig, and
// keeps the account.
type machines struct {
	stage      *stage
	lab        *container.Lab
	dial       workload.Dial
	executable string // the etcdrill binary that operators are
	path       string // PATH of the operators, who need ssh; empty for the usual directories
}

const machinesGroup = "etcd" // group of their inventories

// leader asks the members, each on its own, until one of them leads.
func (m *machines) leader(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		var last error
		for _, h := range m.stage.intended {
			leads, err := m.leads(ctx, Endpoints(h)[0])
			if leads {
				return h, nil
			}
			last = cmp.Or(err, last)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return "", errors.Join(errors.New("no member says that it leads"), last)
		}
	}
}

func (m *machines) leads(ctx context.Context, url string) (bool, error) {
	r, err := m.status(ctx, url)
	return err == nil && r.Leader == r.Header.MemberId, err
}

// status asks one member about itself.
func (m *machines) status(ctx context.Context, url string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	etcd, err := m.dial(ctx, url)
	if err != nil {
		return nil, err
	}
	defer etcd.Close()
	return etcd.Status(ctx, url)
}

// evidence is what the checkers go by.
func (m *machines) evidence(ctx context.Context) (check.Evidence, error) {
	s := m.stage
	q := check.Query{Dial: m.dial, History: s.history, Log: true, Hash: true, Endpoints: Endpoints(s.intended...)}
	for _, h := range s.intended {
		q.Intended = append(q.Intended, "https://"+net.JoinHostPort(h, "2380"))
	}
	return check.Collect(ctx, q)
}

func (m *machines) pki() pki.Dir {
	return pki.Dir(filepath.Join(filepath.Dir(m.lab.Info().Inventory), "files", "pki"))
}

// operate runs an operator to its end, as a process of its own that reaches the
// machines by SSH. Once a step of the title after is done, he is interrupted, as by
// Ctrl-C; with none he is left in peace. The error is about its surroundings; how
// it ended is the outcome's.
func (m *machines) operate(ctx context.Context, name string, args []string, after string) (o Outcome, err error) {
	inventory := m.lab.Info().Inventory
	home := filepath.Dir(inventory)
	state := filepath.Join(home, ".etcdrill")
	out := m.stage.dir.path("operators", name)
	cmd := exec.CommandContext(ctx, m.executable, args...)
	cmd.Dir = home
	// All that an operator gets: nothing of this process's own.
	cmd.Env = []string{
		"PATH=" + cmp.Or(m.path, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), "LANG=C.UTF-8", "HOME=" + home,
		"INVENTORY=" + inventory, "CLUSTER=" + machinesGroup, "ETCDRILL_CALLED=etcdrill",
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	earlier := runsIn(state)
	o.Began = time.Now()
	if err := cmd.Start(); err != nil {
		return o, fmt.Errorf("operator %v: %w", args, err)
	}
	var watching sync.WaitGroup
	attending, left := context.WithCancel(ctx)
	if after != "" {
		watched := Command{Inventory: inventory, Kill: &Kill{Title: after, State: sop.Done}}
		watching.Go(func() {
			for pause(attending, followEvery) == nil {
				if watched.reached(earlier) {
					_ = cmd.Process.Signal(os.Interrupt) // how it ended tells whether it was heard
					return
				}
			}
		})
	}
	err = cmd.Wait()
	left()
	watching.Wait()
	o.Ended, o.Stdout, o.Stderr = time.Now(), stdout.String(), stderr.String()
	for suffix, said := range map[string][]byte{".out": stdout.Bytes(), ".err": stderr.Bytes()} {
		if err := os.WriteFile(out+suffix, said, 0o644); err != nil {
			return o, fmt.Errorf("keep what the operator said: %w", err)
		}
	}
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return o, fmt.Errorf("operator %v: %w", args, err)
	}
	o.Status = cmd.ProcessState.ExitCode()
	if run, ok := newRunIn(state, earlier); ok {
		if o.Journal, err = readJournal(run); err != nil {
			return o, err
		}
	}
	return o, nil
}

// keepLogs keeps what the services of every machine said. A machine that does
// not tell is named in its place.
func (m *machines) keepLogs(ctx context.Context) {
	for _, one := range m.lab.Machines() {
		var b bytes.Buffer
		err := one.Exec(ctx, nil, &b, "sh", "-c", `journalctl --no-pager -o short-iso-precise -u etcd -u patroni -u vip-manager; cat /pg/log/patroni/*.log 2>/dev/null || true`)
		if err != nil {
			fmt.Fprintf(&b, "\nnot all of it: %v\n", err)
		}
		if err := os.WriteFile(m.stage.dir.path("members", one.Host()+".log"), b.Bytes(), 0o644); err != nil {
			m.stage.summary.blame(Infra, "keep the logs of %s: %v", one.Host(), err)
		}
	}
}
