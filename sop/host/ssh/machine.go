package ssh

import (
	"bytes"
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/etcdrill/etcdrill/sop/host"
)

//go:embed prelude.sh
var preludeScript string

//go:embed look.sh
var lookScript string

//go:embed act.sh
var actScript string

// A Machine is a real host. It is a host.Host and a host.Connector.
type Machine struct {
	link *link

	mu       sync.Mutex
	programs programs // that have told their version
}

var (
	_ host.Host      = (*Machine)(nil)
	_ host.Sequencer = (*Machine)(nil)
	_ host.Connector = (*Machine)(nil)
)

// Name implements host.Host.
func (m *Machine) Name() string { return m.link.spec.Name }

// Connect implements host.Connector: it makes the connection and a session, if
// that was never tried, with the patience of ctx. Whether it comes about is for
// Look to say.
func (m *Machine) Connect(ctx context.Context) {
	if m.link.tried() {
		return
	}
	if s, err := m.link.acquire(ctx); err == nil {
		m.link.release(s)
	}
}

// Look implements host.Host.
func (m *Machine) Look(ctx context.Context, q host.Question) (host.Facts, error) {
	m.mu.Lock()
	known := maps.Clone(m.programs)
	m.mu.Unlock()
	if known == nil {
		known = programs{}
	}
	script, err := question(q, known)
	if err != nil {
		return host.Facts{}, fmt.Errorf("look at %s: %w", m.Name(), err)
	}
	for try := 0; ; try++ {
		s, err := m.link.acquire(ctx)
		if err != nil {
			return host.Facts{}, err
		}
		r, err := s.run(ctx, script, nil)
		m.link.release(s)
		switch {
		case errors.Is(err, errCut) && try < 3 && ctx.Err() == nil:
			continue // nothing was changed, so it may be asked once more
		case err != nil && ctx.Err() != nil:
			return host.Facts{}, &Unreachable{Host: m.Name(), Said: "it did not answer in time (" + ctx.Err().Error() + ")"}
		case err != nil:
			return host.Facts{}, unreachable(m.link.spec, err.Error())
		case r.status != 0:
			return host.Facts{}, fmt.Errorf("look at %s: the script ended with status %d: %s", m.Name(), r.status, r.said)
		}
		facts, err := answer(q, r.out, known)
		if errors.Is(err, errChanged) && try < 3 {
			continue
		}
		if err != nil {
			return host.Facts{}, fmt.Errorf("look at %s: %w", m.Name(), err)
		}
		m.mu.Lock()
		m.programs = known
		m.mu.Unlock()
		return facts, nil
	}
}

// errReadOnly is why a read-only Client changes nothing.
var errReadOnly = errors.New("this connection is for looking only")

// Statuses of scripts that are no failures.
const (
	statusClaimed = 75
	statusSend    = 3
)

// Do implements host.Host.
func (m *Machine) Do(ctx context.Context, a host.Act) error {
	if m.link.client.config.ReadOnly {
		return fmt.Errorf("%s on %s: %w", a, m.Name(), errReadOnly)
	}
	switch p := a.(type) {
	case host.PutProgram:
		return m.putProgram(ctx, p)
	case host.PutFile:
		return m.putFile(ctx, p)
	}
	script, err := scriptOf(a)
	if errors.Is(err, errNoAct) {
		return fmt.Errorf("act %T on %s: %w", a, m.Name(), err)
	}
	if err != nil {
		return m.failure(a, reply{}, err, 0)
	}
	_, err = m.change(ctx, a, preludeScript+actScript+script, nil)
	return err
}

// DoAll implements host.Sequencer: acts go as one script, which tells of each
// that it was made. Those that are more than a script go by themselves.
func (m *Machine) DoAll(ctx context.Context, all []host.Act) (int, error) {
	if m.link.client.config.ReadOnly {
		return 0, fmt.Errorf("%d changes on %s: %w", len(all), m.Name(), errReadOnly)
	}
	n, whole := 0, preludeScript+actScript
	for ; n < len(all); n++ {
		script, err := scriptOf(all[n])
		if err != nil {
			break
		}
		whole += "(\n" + script + "\n) || exit\necho " + saysMade + "\n"
	}
	if n > 0 {
		s, err := m.link.acquire(ctx)
		if err != nil {
			return 0, err
		}
		r, err := s.run(ctx, "exec </dev/null\n"+whole, nil)
		m.link.release(s)
		if err != nil || r.status != 0 {
			done := bytes.Count(r.out, []byte(saysMade+"\n"))
			_, err = m.verdict(all[done], r, s.uid, err)
			return done, err
		}
	}
	if n == len(all) {
		return n, nil
	}
	if err := m.Do(ctx, all[n]); err != nil {
		return n, err
	}
	more, err := m.DoAll(ctx, all[n+1:])
	return n + 1 + more, err
}

// saysMade is what a script of several acts says after each.
const saysMade = "@etcdrill made"

// change runs the script of an act.
func (m *Machine) change(ctx context.Context, a host.Act, script string, data *program) (int, error) {
	s, err := m.link.acquire(ctx)
	if err != nil {
		return 0, err
	}
	var r reply
	if data == nil {
		r, err = s.run(ctx, "exec </dev/null\n"+script, nil)
	} else {
		r, err = s.run(ctx, script, data)
	}
	m.link.release(s)
	if data != nil && data.err != nil {
		// It is our own file that could not be read; the host has thrown away
		// what it had.
		return 0, m.failure(a, reply{}, data.err, s.uid)
	}
	return m.verdict(a, r, s.uid, err)
}

// verdict is what came of an act whose script was run.
func (m *Machine) verdict(a host.Act, r reply, uid int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %s on %s: %w", host.ErrUnknown, a, m.Name(), err)
	case r.status == 0:
		return 0, nil
	case r.status == statusClaimed:
		return r.status, m.failure(a, reply{}, fmt.Errorf("%w: %s", host.ErrClaimed, r.said), uid)
	}
	return r.status, m.failure(a, r, nil, uid)
}

// failure dresses up what a host said.
func (m *Machine) failure(a host.Act, r reply, err error, uid int) error {
	f := &host.Failure{Host: m.Name(), Act: a.String(), Output: r.said, Err: err, Command: m.link.spec.byHand(strings.Join(a.Commands(), " && "))}
	switch {
	case err == nil && r.said == "":
		f.Err = fmt.Errorf("it ended with status %d", r.status)
	case err == nil && uid != 0 && strings.Contains(r.said, "ermission denied"):
		f.Err = errors.New("it was tried without root's rights: set ansible_become: true")
	}
	return f
}
