package sop

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/host"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A wire is a host that takes several changes at once, and loses one answer.
type wire struct {
	host.Host
	cut  func(n int) (made int, lost bool) // of n changes
	sent func(n int)
}

func (w wire) DoAll(ctx context.Context, all []host.Act) (int, error) {
	w.sent(len(all))
	made, lost := w.cut(len(all))
	if !lost {
		made = len(all)
	}
	for i, a := range all[:made] {
		if err := w.Do(ctx, a); err != nil {
			return i, err
		}
	}
	if lost {
		return 0, fmt.Errorf("%w: connection lost", host.ErrUnknown)
	}
	return made, nil
}

// wired puts the hosts of an operator behind wires.
func (op *operator) wired(cut func(n int) (int, bool)) (sent *[]int) {
	sent = &[]int{}
	hosts := op.Site.Hosts
	op.Site.Hosts = func(spec inventory.Host) (host.Host, error) {
		h, err := hosts(spec)
		return wire{h, cut, func(n int) {
			op.mu.Lock()
			defer op.mu.Unlock()
			*sent = append(*sent, n)
		}}, err
	}
	return sent
}

// A newcomer's files go to it in one go, and so does all else that needs no look
// in between. What is there already is left out.
func TestTogether(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		for _, n := range []int{3, 4} {
			op := g.operator()
			sent := op.wired(func(int) (int, bool) { return 0, false })
			_, err := op.do(AddMember{Host: hosts[n]})
			require.NoError(g.t, err, op.story())
			slices.Sort(*sent)
			// The newcomer's own reference, its start, its drop-in, two references of
			// each of the others, its files.
			want := []int{1, 2, 2, 2, 2, 2, 10}
			if n == 4 {
				want = slices.Insert(want, 1, 2)
			}
			require.Equal(g.t, want, *sent, op.story())
		}
		require.Equal(g.t, votersText(1, 2, 3, 4, 5), g.roles())
	})
}

// The connection is lost while several changes are made, after each of them: the
// run looks how far they came and goes on.
func TestTogetherCut(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		const most = 10 // changes at once
		for made := range most + 1 {
			cut := g.clone(filepath.Join(scratch(g.t), fmt.Sprint(made)))
			op := cut.operator()
			once := false
			op.wired(func(n int) (int, bool) {
				if once || n < most {
					return 0, false
				}
				once = true
				return made, true
			})
			_, err := op.do(AddMember{Host: hosts[3]})
			require.True(g.t, once)
			if made == 0 {
				// Nothing came of it in time, so nobody knows whether it will.
				require.ErrorIs(g.t, err, ErrUndecided)
				require.ErrorContains(g.t, err, "make /etc/etcd")
				cut.must(AddMember{Host: hosts[3]})
			} else {
				require.NoError(g.t, err, op.story())
				for i, r := range op.records {
					if r.State == Recorded {
						require.Equal(g.t, Answered, nextOf(op.records[i:]).State, op.story())
					}
				}
			}
			require.Equal(g.t, votersText(1, 2, 3, 4), cut.roles())
		}
	})
}

// A change that fails is named, with its own words; those after it are not made,
// and the journal says so.
func TestTogetherFails(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		full := errors.New("No space left on device")
		g.w.peril = func(where, what string) fault {
			if what == "write /etc/etcd/server.crt" {
				return fault{err: full}
			}
			return fault{}
		}
		op := g.operator()
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorIs(g.t, err, full)
		require.ErrorContains(g.t, err, "write server.crt: ")
		said := map[string]string{}
		for _, r := range op.records {
			if r.State == Answered {
				said[r.Title] = r.Detail
			}
		}
		require.Empty(g.t, said["write server.key"])
		require.Contains(g.t, said["write server.crt"], full.Error())
		require.Equal(g.t, "not made, since write server.crt failed", said["write etcd.conf"])
		require.False(g.t, slices.ContainsFunc(g.w.sent, func(s string) bool { return strings.HasPrefix(s, "write /etc/etcd/etcd.conf on "+hosts[3]) }))
		g.w.peril = nil
		g.must(AddMember{Host: hosts[3]})
		require.Equal(g.t, votersText(1, 2, 3, 4), g.roles())
	})
}

// When all were made, and the journal takes no word of it, the run ends.
func TestTogetherUntold(t *testing.T) {
	bubble(t, 3, func(g *ground) {
		g.up()
		op := g.operator()
		op.on = func(r Record) {
			if r.Title == "enable the unit" && r.State == Answered {
				op.Runner.Journal = JournalFunc(func(Record) error { return errors.New("No space left on device") })
			}
		}
		_, err := op.do(AddMember{Host: hosts[3]})
		require.ErrorContains(g.t, err, "start etcd: No space left on device")
		g.must(AddMember{Host: hosts[3]})
	})
}
