package sop

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Who was here, why, and until when it was allowed.

// because is what follows a record that a reason was given for.
func (r *Runner) because() string {
	if r.Reason == "" {
		return ""
	}
	return fmt.Sprintf(", reason: %s", r.Reason)
}

// noteOn leaves a line in the journal of a host before the first change there in
// this run, for those who ask later. It comes once nothing refuses that change
// any more, and is none of the steps: it has no kill point, and that it cannot
// be written is said and stops nothing.
func (r *Runner) noteOn(ctx context.Context, p Procedure, a Act, v View) error {
	name := touches(a)
	if name == "" || !r.note(name) {
		return nil
	}
	self := r.Site.Self
	line := fmt.Sprintf("%s by %s on %s, run %s, plan %s%s", p, self.User, self.Host, r.Run, r.digest, r.because())
	own, stop := context.WithTimeout(context.WithoutCancel(ctx), r.Site.Deadlines[Looking])
	defer stop()
	if err := r.Site.onHost(own, name, host.Note{Line: line}, v); err != nil {
		return r.record(Record{Procedure: p.String(), State: Warned, Host: name, Detail: "no line could be left in the host's journal: " + err.Error()})
	}
	return nil
}

// timely holds until the time after which no change is to begin.
func (r *Runner) timely() error {
	now := r.Site.Now()
	if r.NotAfter.IsZero() || now.Before(r.NotAfter) {
		return nil
	}
	const format = "15:04:05 MST"
	return refuse("not-after", "", "run the same command again when there is time, with a later -notAfter or without",
		"it is %s, and no change is to begin after %s", now.Format(format), r.NotAfter.In(now.Location()).Format(format))
}

// untilThen shortens a wait that no change of ours has caused: what follows it
// would not be begun.
func (r *Runner) untilThen(patience time.Duration) time.Duration {
	if r.NotAfter.IsZero() {
		return patience
	}
	return max(0, min(patience, r.NotAfter.Sub(r.Site.Now())))
}
