package sop

import (
	"fmt"
	"path"
	"time"

	"github.com/etcdrill/etcdrill/sop/inventory"
)

// A member serves once it has published its name, which is to say once it has
// applied the entry by which it does (etcdserver.publishV3). A learner proposes
// that entry as soon as it hears of a leader, by the same message that makes the
// leader find out that the learner needs a snapshot. If the entry is applied by
// the leader before the snapshot is made, it comes to the learner within it, and
// the learner, which never applies it by itself, waits for it in vain until etcd's
// ReqTimeout: five seconds and two election timeouts. Then it proposes another. A
// process that is started again does so at once, and needs no snapshot any more.
// Until it serves, a signal ends etcd at once, as a crash would: it has no vote yet,
// and what it has written is safe.

const (
	// publishing is how long a learner may take from its start to serving before
	// it is looked at why it does not.
	publishing = time.Second
	// fedAtOnce is how large a database may be for a snapshot of it to be taken in
	// within that time. A larger one takes its time, and loses little by this.
	fedAtOnce = 128 << 20
)

// snapFiles are what a member writes when it has received a snapshot whole. Of
// its own accord it does not in its first seconds.
func snapFiles(h inventory.Host) string { return path.Join(h.DataDir, "member/snap/*.snap") }

// waitsInVain holds when the learner on a host does not serve although its name
// is published and it was fed by a snapshot: when nothing is wrong with it but
// that the two came together. One that is being stopped for it is not over it; one
// that failed is another matter.
func waitsInVain(name string) Condition {
	return func(v View) error {
		m, ok := v.At(name)
		leader, led := v.Leader()
		switch {
		case !ok || !m.Learner || !m.Started():
			return fmt.Errorf("on %s is no learner that has published its name", name)
		case v.LookOf(m.ID).Answers():
			return fmt.Errorf("the learner on %s serves", name)
		case !led || v.LookOf(leader.ID).DBSize > fedAtOnce:
			return fmt.Errorf("the database may be too large for the learner on %s to have it by now", name)
		}
		facts, err := v.facts(name)
		if err != nil {
			return err
		}
		if len(facts.Globs[snapFiles(v.Spec(name))]) == 0 {
			return fmt.Errorf("the learner on %s has received no snapshot", name)
		}
		up, runs := v.uptime(name)
		switch active := facts.Units[v.unit()].Active; {
		case active == "failed":
			return fmt.Errorf("etcd on %s has failed", name)
		case active != "deactivating" && (!runs || up < publishing):
			return fmt.Errorf("etcd on %s was started just now", name)
		}
		return nil
	}
}

// publishes holds when nothing keeps the member on a host from publishing its name,
// or when it has.
func publishes(name string) Condition {
	return func(v View) error {
		if waitsInVain(name)(v) == nil {
			return fmt.Errorf("the learner on %s waits for the entry that publishes its name, which came to it within its snapshot", name)
		}
		return nil
	}
}
