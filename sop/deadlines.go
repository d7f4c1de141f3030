package sop

import (
	"errors"
	"time"
)

// Patience names how long something may take. The zero Patience is Brief.
type Patience int

// The rows of the table of deadlines.
const (
	Brief      Patience = iota // a change that is there as soon as it was made
	Looking                    // one member, asked once
	Calling                    // one membership call
	Acting                     // one change on one host; mage leaves 5 s after Ctrl-C
	Electing                   // a leader that every voter agrees on
	Starting                   // a process that starts and answers
	Settling                   // etcd's HealthInterval, after the last start or change
	CatchUp                    // a learner that receives the whole database
	Installing                 // a package or a binary on its way to a host
	Saving                     // a snapshot on its way to the admin host
	Rewriting                  // a database that its member writes anew, or compacts
	Expiring                   // a lock whose holder is gone
	Connecting                 // the first connection to a host, by way of others maybe
	Following                  // clients that are to follow the members to other hosts
	Inspecting                 // one host, asked once: programs have to run there
	patiences                  // how many there are
)

// Deadlines is the one table of deadlines.
type Deadlines [patiences]time.Duration

// StandardDeadlines are those of production. Calling and Acting stay below the
// 5 s that mage leaves between Ctrl-C and the end.
func StandardDeadlines() Deadlines {
	return Deadlines{
		Brief:      10 * time.Second,
		Looking:    2 * time.Second,
		Calling:    4 * time.Second,
		Acting:     4 * time.Second,
		Electing:   30 * time.Second,
		Starting:   2 * time.Minute,
		Settling:   30 * time.Second,
		CatchUp:    30 * time.Minute,
		Installing: 10 * time.Minute,
		Saving:     30 * time.Minute,
		Rewriting:  30 * time.Minute,
		Expiring:   15 * time.Second,
		Connecting: 12 * time.Second,
		Following:  15 * time.Minute,
		Inspecting: 8 * time.Second,
	}
}

// HealthInterval is how long voters must have been connected before etcd lets
// the membership change (etcdserver.HealthInterval, a constant of the server).
const HealthInterval = 5 * time.Second

// LockTTL is how long the lock of a dead operator outlives it.
const LockTTL = 10 * time.Second

// Soak is the pause between the members of a rolling procedure in production:
// Patroni's loop_wait.
const Soak = 10 * time.Second

// ParseMoment reads a moment of the near future: RFC 3339, or HH:MM of the day of
// now, where now's zone is meant.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return time.Time{}, errors.New("give a time as HH:MM, which is today, or as in 2006-01-02T15:04:05+02:00")
	}
	return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location()), nil
}
