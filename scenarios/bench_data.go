package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	benchData   = 1 << 30 // bytes that MigrateData moves
	dataPrefix  = "/etcdrill/data/"
	dataValue   = 1 << 20 // bytes; etcd takes 1.5 MiB at most
	dataFillers = 4
)

// migrateDataRound moves a cluster of three with a gibibyte in it, and then copies
// that three times over the same switch, from member to client: no move to three
// other hosts can do with less.
func migrateDataRound(ctx context.Context, b *bench) error {
	var copying time.Duration
	rows := func(context.Context, *stage) ([]row, error) {
		return []row{
			{command: "createCluster", check: func(ctx context.Context, s *stage, _ Outcome) error { return s.fillWith(ctx, benchData) }},
			{name: "MigrateData", command: toSpares, loaded: true, settled: true, quiet: 10 * time.Second,
				check: func(ctx context.Context, s *stage, _ Outcome) (err error) {
					copying, err = s.copyOut(ctx, 3, benchData)
					return err
				}},
		}, nil
	}
	sum, err := b.play(ctx, rows, RigSpec{})
	if err != nil {
		return err
	}
	p := sum.Procedures[1]
	r := measured(p)
	r.op = time.Duration(p.Seconds * float64(time.Second))
	r.metrics = append(r.metrics, metric{"copies-s", copying.Seconds()})
	if empty := b.seen["Migrate"]; len(empty) > 0 {
		var all []float64
		for _, e := range empty {
			all = append(all, e.op.Seconds())
		}
		r.metrics = append(r.metrics, metric{"times-copies", (p.Seconds - median(all)) / copying.Seconds()})
	}
	b.line(p.Name, r)
	return nil
}

// fillWith writes so many bytes that no two values share.
func (s *stage) fillWith(ctx context.Context, bytes int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var fillers sync.WaitGroup
	errs := make([]error, dataFillers)
	for i := range dataFillers {
		fillers.Go(func() {
			if errs[i] = s.fillPart(ctx, i, bytes/dataValue); errs[i] != nil {
				stop()
			}
		})
	}
	fillers.Wait()
	return errors.Join(errs...)
}

func (s *stage) fillPart(ctx context.Context, part, values int) error {
	etcd, err := s.rig.member(ctx, s.intended[part%len(s.intended)])
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	defer etcd.Close()
	seed := [32]byte{byte(part)}
	random := rand.NewChaCha8(seed)
	value := make([]byte, dataValue)
	for i := part; i < values; i += dataFillers {
		_, _ = random.Read(value) // it never fails
		if _, err := etcd.Put(ctx, fmt.Sprintf("%s%d", dataPrefix, i), string(value)); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}

// copyOut takes so many snapshots from a member to the client's host, one after the
// other, keeps none, and tells how long that took. They hold at least so many bytes.
func (s *stage) copyOut(ctx context.Context, times, least int) (time.Duration, error) {
	etcd, err := s.rig.member(ctx, s.intended[0])
	if err != nil {
		return 0, err
	}
	defer etcd.Close()
	saver, ok := etcd.(interface {
		Snapshot(ctx context.Context) (io.ReadCloser, error)
	})
	if !ok {
		return 0, fmt.Errorf("copy a snapshot: %T has none", etcd)
	}
	began := time.Now()
	for range times {
		from, err := saver.Snapshot(ctx)
		if err != nil {
			return 0, fmt.Errorf("copy a snapshot: %w", err)
		}
		n, err := io.Copy(io.Discard, from)
		if err = errors.Join(err, from.Close()); err != nil {
			return 0, fmt.Errorf("copy a snapshot: %w", err)
		}
		if n < int64(least) {
			return 0, fmt.Errorf("copy a snapshot: it has %d bytes, and the data %d", n, least)
		}
	}
	return time.Since(began), nil
}
