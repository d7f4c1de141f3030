package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
)

// DialFunc opens a connection to "address:port".
type DialFunc = func(ctx context.Context, address string) (net.Conn, error)

// Cut drops everything between two roles, both ways.
func Cut(from, to Role) Fault {
	return links{kind: "cut", from: from, to: to, both: true, rule: netswitch.Rule{Cut: true}}
}

// CutOneWay drops everything that one role sends to another, and nothing of
// what comes back.
func CutOneWay(from, to Role) Fault {
	return links{kind: "one-way cut", from: from, to: to, rule: netswitch.Rule{Cut: true}}
}

// Degrade makes the links between two roles bad, both ways: delay, jitter,
// loss, duplication, reordering, rate.
func Degrade(from, to Role, rule netswitch.Rule) Fault {
	return links{kind: degradation(rule), from: from, to: to, both: true, rule: rule}
}

// Isolate cuts a role off from every other host but the operator's, which goes
// on seeing it, as an operator on the wrong side of a partition does.
func Isolate(who Role) Fault {
	return links{kind: "isolation", from: who, to: "", both: true, rule: netswitch.Rule{Cut: true}}
}

// Firewall closes the peer port of a role's hosts and nothing else: clients
// and SSH come through.
func Firewall(who Role, port int) Fault {
	return links{kind: "firewall", from: who, to: "", both: true, rule: netswitch.Rule{Cut: true, Ports: []int{port}}}
}

// degradation names what a rule does, without its measures.
func degradation(r netswitch.Rule) string {
	var words []string
	for _, w := range []struct {
		on   bool
		name string
	}{
		{r.Cut, "cut"}, {r.Delay > 0 || r.Jitter > 0, "delay"}, {r.Loss > 0, "loss"},
		{r.Duplicate > 0, "duplication"}, {r.Reorder > 0, "reordering"}, {r.Rate > 0, "rate"},
	} {
		if w.on {
			words = append(words, w.name)
		}
	}
	return strings.Join(words, " and ")
}

// links is a fault of directed links. An empty to is all other members.
type links struct {
	kind     string
	from, to Role
	both     bool
	rule     netswitch.Rule
}

func (l links) String() string {
	switch {
	case l.kind == "firewall":
		return fmt.Sprintf("firewall closes port %d of %s", l.rule.Ports[0], l.from)
	case l.to == "":
		return fmt.Sprintf("%s isolated from the other members", l.from)
	case !l.both:
		return fmt.Sprintf("%s from %s to %s", l.rule, l.from, l.to)
	}
	return fmt.Sprintf("%s between %s and %s", l.rule, l.from, l.to)
}

func (l links) Kind() string { return l.kind }
func (l links) Band() Band   { return Network }

func (l links) Roles() []Role {
	if l.to == "" {
		return []Role{l.from}
	}
	return []Role{l.from, l.to}
}

func (l links) Probe(g *Ground) error {
	_, err := needs[Links](g, "hurt a link")
	if c, ok := g.Lab.(Choosy); ok {
		err = errors.Join(err, c.BearsLink(l.from, l.to, l.rule))
	}
	for _, r := range l.Roles() {
		err = errors.Join(err, r.Check())
	}
	if l.rule.Zero() {
		err = errors.Join(err, errors.New("a rule that does nothing is no fault"))
	}
	return errors.Join(err, l.rule.Validate())
}

func (l links) Plan(ctx context.Context, g *Ground) (Harm, error) {
	from, err := g.Cast.Hosts(ctx, g, l.from)
	if err != nil {
		return Harm{}, err
	}
	to := l.to
	if to == "" {
		to = Everyone
	}
	others, err := g.Cast.Hosts(ctx, g, to)
	if err != nil {
		return Harm{}, err
	}
	var pairs []netswitch.Link
	for _, a := range from {
		for _, b := range others {
			within := l.from != l.to && slices.Contains(from, b) && slices.Contains(others, a)
			if a == b || within {
				continue // the links among those who are on both sides are healthy
			}
			pairs = append(pairs, netswitch.Link{From: a, To: b})
			if l.both {
				pairs = append(pairs, netswitch.Link{From: b, To: a})
			}
		}
	}
	h, err := onLinks(ctx, g, pairs, l.rule)
	if l.to == "" {
		h.Hosts = sorted(from) // the others are well
	}
	return h, err
}

// onLinks sets one rule on links. It bit when the counters of one of them say
// that a frame was hurt since.
func onLinks(ctx context.Context, g *Ground, pairs []netswitch.Link, rule netswitch.Rule) (Harm, error) {
	lab := g.Lab.(Links)
	pairs = slices.Clone(pairs)
	slices.SortFunc(pairs, func(a, b netswitch.Link) int { return strings.Compare(a.String(), b.String()) })
	pairs = slices.Compact(pairs)
	if len(pairs) == 0 {
		return Harm{}, fmt.Errorf("%w: there is no link between them", ErrNoRole)
	}
	before, err := lab.Counters(ctx)
	if err != nil {
		return Harm{}, err
	}
	var hosts []string
	for _, p := range pairs {
		hosts = append(hosts, p.From, p.To)
	}
	return Harm{Hosts: sorted(hosts), Remedy: Remedy{Links: pairs},
		Do: func(ctx context.Context) error {
			for _, p := range pairs {
				if err := lab.Link(ctx, p.From, p.To, rule); err != nil {
					return err
				}
			}
			return nil
		},
		Bit: func(ctx context.Context) error {
			after, err := lab.Counters(ctx)
			if err != nil {
				return err
			}
			for _, p := range pairs {
				if after[p].Hits() > before[p].Hits() {
					return nil
				}
			}
			return fmt.Errorf("no frame met it on %s", strconv.Itoa(len(pairs))+" links")
		}}, nil
}

// Ring lets every voter see a majority, and no two the same: each sees itself
// and its nearest neighbours. It takes four voters.
func Ring() Fault { return shape{"ring"} }

// Bridge parts the voters into two halves that see each other only through one
// that sees all.
func Bridge() Fault { return shape{"bridge"} }

type shape struct{ kind string }

func (s shape) String() string        { return s.kind + " of voters" }
func (s shape) Kind() string          { return s.kind }
func (s shape) Band() Band            { return Network }
func (s shape) Roles() []Role         { return []Role{Voters} }
func (s shape) Probe(g *Ground) error { _, err := needs[Links](g, "hurt a link"); return err }

func (s shape) Plan(ctx context.Context, g *Ground) (Harm, error) {
	voters, err := g.Cast.Hosts(ctx, g, Voters)
	if err != nil {
		return Harm{}, err
	}
	voters = slices.Clone(voters)
	g.Random.Shuffle(len(voters), func(i, j int) { voters[i], voters[j] = voters[j], voters[i] })
	sees := bridged
	least := 3
	if s.kind == "ring" {
		sees, least = ringed, 4
	}
	if len(voters) < least {
		return Harm{}, fmt.Errorf("%w: a %s takes %d voters, there are %d", ErrNoRole, s.kind, least, len(voters))
	}
	var pairs []netswitch.Link
	for i := range voters {
		for j := range voters {
			if i != j && !sees(len(voters), i, j) {
				pairs = append(pairs, netswitch.Link{From: voters[i], To: voters[j]})
			}
		}
	}
	return onLinks(ctx, g, pairs, netswitch.Rule{Cut: true})
}

// bridged: the first voter sees all, the others their own half.
func bridged(n, i, j int) bool {
	half := (n - 1) / 2
	return i == 0 || j == 0 || (i <= half) == (j <= half)
}

// ringed: a voter sees as many neighbours as make a majority with itself.
func ringed(n, i, j int) bool {
	others := n / 2 // of a majority, without itself
	right, left := (others+1)/2, (others+1)/2
	away := (j - i + n) % n
	return away <= right || n-away <= left
}

// Blackhole makes the connections from the operator to a role's hosts silent
// rather than refused.
func Blackhole(who Role) Fault { return Cut(Admin, who) }

// Slow is the rule of a link over a long way.
func Slow(delay, jitter time.Duration) netswitch.Rule {
	return netswitch.Rule{Delay: delay, Jitter: jitter}
}
