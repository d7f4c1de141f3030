package sop

import (
	"errors"
	"fmt"
)

// Falling is why a member does not answer whose process ends each time that
// systemd starts it.
type Falling struct {
	Host, Unit string
	State      string // of the unit, and how its process ended
	Failed     bool   // systemd has given up
	Err        error  // what the member's endpoint says
}

// Error names the command that tells more.
func (f *Falling) Error() string {
	what := "ends as soon as it is started"
	if f.Failed {
		what = "has ended"
	}
	return fmt.Sprintf("%s on %s %s (%s); why, it says there: journalctl -u %s -n 40", f.Unit, f.Host, what, f.State, f.Unit)
}

// Unwrap gives what the endpoint says.
func (f *Falling) Unwrap() error { return f.Err }

// comesUp holds when the member on a host answers and has published its name.
// One whose process ends instead is told as Falling.
func comesUp(name string) Condition {
	serves := All(answers(name), hasStarted(name))
	return func(v View) error {
		err := serves(v)
		if err == nil {
			return nil
		}
		facts, ferr := v.facts(name)
		if ferr != nil {
			return err
		}
		u := facts.Units[v.unit()]
		failed := u.Active == "failed"
		if !failed && u.Sub != "auto-restart" {
			return err
		}
		return &Falling{Host: name, Unit: v.unit(), State: u.Active + ", " + u.Sub + exitOf(u), Failed: failed, Err: err}
	}
}

// falls counts how often a process has ended while it was waited for.
type falls struct {
	n    int
	down bool // at the last look
}

// enoughFalls is when to stop waiting: one may be chance, as of a peer that was
// away for a moment.
const enoughFalls = 3

// hopeless takes what a look found, and reports whether to wait on is in vain.
func (f *falls) hopeless(why error) bool {
	var falling *Falling
	down := errors.As(why, &falling)
	if down && !f.down {
		f.n++
	}
	f.down = down
	return down && (falling.Failed || f.n >= enoughFalls)
}
