// Package sop holds etcd's standard operating procedures.
//
// One idea carries it: observe, plan, guard, do, until, record.
//
//   - A View is one look at a cluster: what its members say, each asked on its
//     own, what is on its hosts, and what the inventory wants.
//   - A Procedure turns a View into a Plan. That is a pure function: it reads
//     nothing but the View, and an empty Plan means that the goal is reached.
//   - A Plan is a list of stages, and a stage a list of steps. A Step makes at
//     most one change in one place. Its Act is a value, so that the plan that
//     is shown, the journal that is kept, and the change that is made are all
//     read off the same thing.
//   - A Condition is a question to a View; its error is the answer in words.
//     Safeguards, waits and skips are all Conditions.
//   - A Runner looks afresh before each step, skips the step when its Until
//     holds already, refuses when a safeguard does not hold, writes the act to
//     the Journal, does it, and looks until the step's Until holds. After the
//     last step it plans again and demands an empty plan.
//
// There is no undo. A run that is killed leaves a state from which the same
// command plans the rest; a change that cannot be finished is given up by
// another procedure (an add by RemoveMember).
//
// # What every procedure promises
//
// One membership change at a time. Newcomers join as learners and are promoted
// only when they answer now and have caught up in absolute terms. The leader is
// handed over before it is stopped or removed. Members are matched by peer URL
// and ID, never by name. A membership call that timed out is unknown until the
// member list says which. Data is set aside, not deleted. A refusal changes
// nothing.
//
// # Who else has to know
//
// Clients have lists of the members, and each kind has its own way to be told:
// see references.go. A refreshment is computed like the rest of a plan, from a
// View, and its steps are steps like any other: the remedy for a client that
// does not stand a change is a step too, with a condition of its own.
//
// # How to write one
//
// Give it a file verb_noun.go and a struct with its parameters; let Plan read
// as a table of contents; take acts from act.go, conditions from
// conditions.go and safeguards from safeguards.go; write its plans down as
// transcripts in testdata/plan.
package sop
