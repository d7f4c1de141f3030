// Package host says what a procedure asks of a machine.
//
// A procedure knows two things of a machine: it can be looked at, and it can
// be asked for one change at a time.
//
//	facts, err := h.Look(ctx, host.Question{Units: []string{"etcd.service"}})
//	err = h.Do(ctx, host.Systemctl{Verb: host.Start, Unit: "etcd.service"})
//
// A question is answered in one round trip and changes nothing. An act is a
// value, so that the plan that is shown, the journal that is kept and the
// change that is made are all read off the same thing: its Commands are what
// an administrator would type.
//
// Real machines are reached over SSH, lab machines through the lab's
// supervisor. A procedure cannot tell which one it talks to, and nothing in
// this package lets it ask.
//
// Every act may be asked for again: what is so already is not an error.
package host
