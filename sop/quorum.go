package sop

// Votes counts the voters of a cluster and how many of them are dead. A voter
// that does not answer counts as dead: it may be alive, but nobody can say so.
//
// Nothing here asks etcd for leave: the server's own checks change from
// release to release, and a promotion passes them with the newcomer dead.
type Votes struct {
	Voters int
	Dead   int
}

// A Verdict is the arithmetic's answer to a change of membership.
type Verdict int

// The answers, from the best to the worst.
const (
	Allowed  Verdict = iota // and a member can be lost afterwards
	NoSpare                 // quorum is kept, but nothing may fail afterwards
	NoQuorum                // the change would cost the cluster its quorum, or cannot be committed
)

// String gives the verdict in one word.
func (v Verdict) String() string {
	return [...]string{"allowed", "no-spare", "no-quorum"}[v]
}

// Quorum is the number of voters that must agree: a majority of n.
func Quorum(n int) int { return n/2 + 1 }

// Alive is the number of voters that answer.
func (v Votes) Alive() int { return v.Voters - v.Dead }

// HasQuorum reports whether the living voters can commit anything.
func (v Votes) HasQuorum() bool { return v.Voters > 0 && v.Alive() >= Quorum(v.Voters) }

// Spare is how many more voters may fail before the quorum is lost; it is
// negative when it is lost already.
func (v Votes) Spare() int { return v.Alive() - Quorum(v.Voters) }

// Promote judges the promotion of one learner to voter, with the newcomer
// counted as dead, since that is how it may turn out in the next moment. From
// one voter to two that can never hold; it is the only way out of a cluster
// of one, so it is answered with NoSpare instead.
func (v Votes) Promote() Verdict {
	switch {
	case v.Voters == 1 && v.Dead == 0:
		return NoSpare
	case v.Alive() < Quorum(v.Voters+1):
		return NoQuorum
	}
	// With the newcomer alive, as it was just seen to be.
	if v.Alive()+1-Quorum(v.Voters+1) < 1 {
		return NoSpare
	}
	return Allowed
}

// RemoveDead judges the removal of a voter that does not answer. It lowers
// nothing; it only has to be committed by those who are left.
func (v Votes) RemoveDead() Verdict {
	switch {
	case v.Dead < 1 || v.Voters < 2 || !v.HasQuorum():
		return NoQuorum
	case (Votes{Voters: v.Voters - 1, Dead: v.Dead - 1}).Spare() < 1:
		return NoSpare
	}
	return Allowed
}

// RemoveLiving judges the removal of a voter that answers.
func (v Votes) RemoveLiving() Verdict {
	after := Votes{Voters: v.Voters - 1, Dead: v.Dead}
	switch {
	case v.Alive() < 1 || v.Voters < 2 || !v.HasQuorum() || !after.HasQuorum():
		return NoQuorum
	case after.Spare() < 1:
		return NoSpare
	}
	return Allowed
}

// Restart judges taking one living voter away for a while: the others must be
// a quorum without it. A cluster that is too small for that is unavailable
// until the voter is back, which is told as NoSpare.
func (v Votes) Restart() Verdict {
	without := Votes{Voters: v.Voters, Dead: v.Dead + 1}
	switch {
	case without.HasQuorum():
		return Allowed
	case v.Dead == 0 && v.Voters <= 2:
		return NoSpare
	}
	return NoQuorum
}
