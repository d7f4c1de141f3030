package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/sop"
)

// A Command is an operator who is a process of its own, on the rig's admin
// host.
type Command struct {
	Args []string          // target, arguments, flags
	Env  map[string]string // beside what every operator gets
	Kill *Kill             // how it dies; nil lets it live
	// Out is the path of its streams without ".out" and ".err", which stay.
	Out string
	// Moments is called at each moment of the run, while the operator waits.
	Moments func(ctx context.Context, o *Held, m Moment)
	// Inventory is another copy of the rig's inventory, of another admin host;
	// empty is the rig's own.
	Inventory string
}

// Held is an operator that waits at a gate. It implements fault.Handle.
type Held struct {
	rig     *Rig
	process process
	out     string
	lose    bool
	others  int
}

// Signal sends a signal to the operator's process alone.
func (h *Held) Signal(sig os.Signal) error { return h.process.Signal(sig) }

// LoseReply has the reply to the operator's next change of members be lost.
func (h *Held) LoseReply() { h.lose = true }

// Another runs a second operator to its end, on another admin host where the
// first word is ELSEWHERE.
func (h *Held) Another(ctx context.Context, args []string) (status int, said string, err error) {
	h.others++
	c := Command{Out: fmt.Sprintf("%s-second-%d", h.out, h.others)}
	for _, w := range args {
		c.Args = append(c.Args, h.rig.ground.Here(w))
	}
	away := len(args) > 1 && args[0]+" " == elsewhere
	if away {
		c.Args, c.Inventory = c.Args[1:], h.rig.elsewhere()
		if err := h.rig.goElsewhere(); err != nil {
			return 0, "", err
		}
	}
	o, err := h.rig.Command(ctx, c)
	if away && err == nil {
		err = h.rig.comeBack()
	}
	return o.Status, o.Stdout + o.Stderr, err
}

// A Kill is the death of an operator by SIGKILL.
type Kill struct {
	// Point is the number of the kill point at which it kills itself. With 0
	// it is killed from outside, as soon as its journal has a record of this
	// step in this state.
	Point int
	Title string
	State sop.State
}

// An Outcome is what became of an operator.
type Outcome struct {
	Status         int // exit status; 128+9 for one that was killed
	Stdout, Stderr string
	Journal        []sop.Record // empty for a target that keeps none
	Began, Ended   time.Time
	Killed         bool
	CPU            time.Duration // that the processors worked for it
}

const (
	// followEvery is the pause between two looks at a journal.
	followEvery = 2 * time.Millisecond
	// grace is how long an operator has to stop when its caller gives up; mage
	// leaves 5 s after Ctrl-C.
	grace = 4 * time.Second
)

// ErrNoExecutable says that a rig has no binary for operators to be.
var ErrNoExecutable = errors.New("rig has no executable for operators")

// Command runs an operator to its end. When ctx ends it is asked to stop, as by
// Ctrl-C, and killed when it does not. The error is about the operator's
// surroundings; how it ended is the outcome's.
func (r *Rig) Command(ctx context.Context, c Command) (Outcome, error) {
	if r.Executable == "" {
		return Outcome{}, ErrNoExecutable
	}
	stdout, err := os.Create(c.Out + ".out")
	if err != nil {
		return Outcome{}, fmt.Errorf("keep what the operator says: %w", err)
	}
	defer stdout.Close()
	stderr, err := os.Create(c.Out + ".err")
	if err != nil {
		return Outcome{}, fmt.Errorf("keep what the operator says: %w", err)
	}
	defer stderr.Close()

	var gate *gatehouse
	if c.Moments != nil {
		if gate, err = openGatehouse(r.ground.Dir()); err != nil {
			return Outcome{}, err
		}
		defer gate.close()
		env := map[string]string{"ETCDRILL_GATE": gate.path}
		maps.Copy(env, c.Env)
		c.Env = env
	}
	if c.Inventory == "" {
		c.Inventory = r.Inventory()
	}
	earlier := runsIn(c.state())
	o := Outcome{Began: time.Now()}
	p, err := r.ground.Operate(ctx, append([]string{r.Executable}, c.Args...), r.environment(c), filepath.Dir(c.Inventory), stdout, stderr)
	if err != nil {
		return o, fmt.Errorf("start operator %v: %w", c.Args, err)
	}
	attended := make(chan error, 1)
	if gate != nil {
		held := &Held{rig: r, process: p, out: c.Out}
		go func() {
			attended <- gate.attend(func(m Moment) verdict {
				held.lose = false
				c.Moments(ctx, held, m)
				return verdict{Lose: held.lose}
			})
		}()
	}
	o.Status, err = r.attend(ctx, p, c, earlier)
	o.Ended, o.CPU = time.Now(), p.CPU()
	if gate != nil {
		gate.close()
		err = errors.Join(err, <-attended)
	}
	if err != nil {
		return o, fmt.Errorf("operator %v: %w", c.Args, err)
	}
	o.Killed = o.Status == 128+int(syscall.SIGKILL)
	if err := o.read(c.Out); err != nil {
		return o, err
	}
	if run, ok := newRunIn(c.state(), earlier); ok {
		o.Journal, err = readJournal(run)
	}
	return o, err
}

// state is where the operator keeps its journals.
func (c Command) state() string { return filepath.Join(filepath.Dir(c.Inventory), ".etcdrill") }

// environment is all that an operator gets: nothing of this process's own, so
// that a rehearsal does not depend on who runs it.
func (r *Rig) environment(c Command) []string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
		"HOME":      filepath.Dir(c.Inventory),
		"INVENTORY": c.Inventory, "CLUSTER": r.Group,
		"ETCDRILL_CALLED": "etcdrill",
	}
	maps.Copy(env, r.ground.Surroundings())
	maps.Copy(env, c.Env)
	if c.Kill != nil && c.Kill.Point > 0 {
		env["ETCDRILL_KILL"] = fmt.Sprint(c.Kill.Point)
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// attend waits for an operator's end, and brings it about where that is asked
// for.
func (r *Rig) attend(ctx context.Context, p process, c Command, earlier []string) (int, error) {
	var look <-chan time.Time
	if c.Kill != nil && c.Kill.Point == 0 {
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		look = tick.C
	}
	stop, deadline := ctx.Done(), make(<-chan time.Time)
	for {
		var err error
		select {
		case <-p.Done():
			return p.Wait()
		case <-look:
			if c.reached(earlier) {
				look, err = nil, p.Signal(syscall.SIGKILL)
			}
		case <-stop:
			t := time.NewTimer(grace)
			defer t.Stop()
			stop, deadline, err = nil, t.C, p.Signal(syscall.SIGTERM)
		case <-deadline:
			deadline, err = nil, p.Signal(syscall.SIGKILL)
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 0, err
		}
	}
}

// reached reports whether the journal of the run under way has come to where
// its operator is to die.
func (c Command) reached(earlier []string) bool {
	k := c.Kill
	run, ok := newRunIn(c.state(), earlier)
	if !ok {
		return false
	}
	records, err := readJournal(run)
	return err == nil && slices.ContainsFunc(records, func(rec sop.Record) bool {
		return rec.Step > 0 && rec.Title == k.Title && rec.State == k.State
	})
}

func (o *Outcome) read(out string) error {
	for suffix, to := range map[string]*string{".out": &o.Stdout, ".err": &o.Stderr} {
		b, err := os.ReadFile(out + suffix)
		if err != nil {
			return fmt.Errorf("read what the operator said: %w", err)
		}
		*to = string(b)
	}
	return nil
}

// runsIn are the journals of the operators' runs, by time.
func runsIn(state string) []string {
	all, err := filepath.Glob(filepath.Join(state, "runs", "*", "journal.jsonl"))
	if err != nil {
		return nil // the pattern is a constant
	}
	return slices.DeleteFunc(all, func(name string) bool {
		info, err := os.Lstat(filepath.Dir(name))
		return err != nil || !info.IsDir() // latest is a link to one of the others
	})
}

// newRunIn is the first that is not among the earlier ones: another operator may
// have come after it.
func newRunIn(state string, earlier []string) (string, bool) {
	for _, run := range runsIn(state) {
		if !slices.Contains(earlier, run) {
			return run, true
		}
	}
	return "", false
}

func readJournal(path string) ([]sop.Record, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close()
	return sop.ReadJournal(f)
}
