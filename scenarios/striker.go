package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcdrill/etcdrill/lab/check"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/fault"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// A striker brings the strikes of a row about.
type striker struct {
	ground  *fault.Ground
	strikes []*pending
	watches []Watch
	stage   *stage
	subject string
	byLot   bool // a strike may never come to pass, never bite, or find nobody

	mu      sync.Mutex
	counted map[string]int // how often a moment came: by state and title
	visited []Moment
	verdict Verdict // of what the strikes themselves brought to light
	reason  string
}

// pending is a strike and what has become of it.
type pending struct {
	Strike
	wound  *fault.Wound
	over   time.Time // when it was of no more consequence: the host's member is another, or none
	at     Moment    // when it struck
	struck bool
	dead   bool // healed, or over
	timer  *time.Timer
	bit    error
	role   string
	// passingNow is set once a strike without a remedy has struck: what it did
	// may be felt for a while.
	passingNow bool
}

// newStriker makes a ground on the stage. The seed decides who is struck.
func (s *stage) newStriker(strikes []Strike, subject string, seed int64) (*striker, error) {
	subject = s.rig.ground.Here(subject)
	k := &striker{counted: map[string]int{}, verdict: Pass, stage: s, subject: subject}
	for _, st := range strikes {
		k.strikes = append(k.strikes, &pending{Strike: st})
	}
	journal, err := fault.OpenJournal(filepath.Join(s.rig.ground.Dir(), fault.JournalName))
	if err != nil {
		return nil, err
	}
	k.ground = &fault.Ground{
		Lab: s.rig.ground, Kind: s.rig.ground.Kind(), Here: s.rig.ground.Here, Journal: journal, Random: rand.New(rand.NewPCG(uint64(seed), 1)),
		Clients: s.restarted(), PKI: s.rig.pki(), Beside: filepath.Dir(s.rig.Inventory()), Images: s.dir.path("kept"),
		Cast: fault.Troupe{
			// The identity is there once the cluster was created.
			Dial: func(ctx context.Context, endpoint string) (workload.Etcd, error) {
				dial, err := s.rig.Dial(embedded.Client)
				if err != nil {
					return nil, err
				}
				return dial(ctx, endpoint)
			},
			Login: func(ctx context.Context, endpoint, user, password string) (workload.Etcd, error) {
				config, err := s.rig.TLS()
				if err != nil {
					return nil, err
				}
				return workload.Dialer{TLS: config, User: user, Password: password, Connect: s.rig.ground.Connect(embedded.Client)}.Dial(ctx, endpoint)
			},
			URL: s.rig.clientURL, Members: func() []string { return s.intended }, Subject: subject,
			Hands: [2]string{embedded.Admin, embedded.Client},
		},
	}
	return k, nil
}

// probe says why a strike cannot be suffered here.
func (k *striker) probe() error {
	for _, p := range k.strikes {
		if err := p.Fault.Probe(k.ground); err != nil {
			return fmt.Errorf("%s: %w", p.Fault, err)
		}
	}
	return nil
}

// begin strikes what comes before the procedure.
func (k *striker) begin(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.strikes {
		if p.At == (At{}) {
			if err := k.strike(ctx, p, Moment{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// moment is called while the operator waits.
func (k *striker) moment(ctx context.Context, o *Held, m Moment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.visited = append(k.visited, m)
	k.watched(ctx, m)
	k.ground.Operator, k.ground.Target = o, m.Host
	defer func() { k.ground.Operator, k.ground.Target = nil, "" }()
	came := map[At]int{}
	for _, p := range k.strikes {
		for _, at := range []At{p.At, p.Until} {
			if at.Step != "" && at.is(m) {
				came[At{Step: at.Step, State: at.State}]++
			}
		}
	}
	for at := range came {
		k.counted[string(at.State)+" "+at.Step]++
	}
	now := func(at At) bool {
		return at.Step != "" && at.is(m) && k.counted[string(at.State)+" "+at.Step] == max(at.Nth, 1)
	}
	for _, p := range k.strikes {
		if p.struck && !p.dead && now(p.Until) {
			k.note(k.heal(ctx, p))
		}
	}
	for _, p := range k.strikes {
		if !p.struck && now(p.At) {
			k.note(k.strike(ctx, p, m))
		}
	}
}

// note keeps the first failure of a strike.
func (k *striker) note(err error) {
	if err == nil || k.verdict != Pass {
		return
	}
	k.verdict, k.reason = strikeVerdict(err), err.Error()
}

func (k *striker) strike(ctx context.Context, p *pending, m Moment) error {
	p.at, p.struck = m, true
	var roles []string
	for _, r := range p.Fault.Roles() {
		roles = append(roles, string(r))
	}
	p.role = strings.Join(roles, ", ")
	var err error
	p.wound, err = fault.Strike(ctx, k.ground, p.Fault)
	if k.byLot && errors.Is(err, fault.ErrNoRole) {
		p.struck, p.dead = false, true
		return nil
	}
	p.passingNow = p.Fault.Band() != fault.Operator
	if err != nil {
		p.dead = true
		return err
	}
	if p.For > 0 {
		p.timer = time.AfterFunc(p.For, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if !p.dead {
				k.note(k.heal(context.WithoutCancel(ctx), p))
			}
		})
	}
	return nil
}

// heal asks first whether it bit: what is healed cannot be felt any more.
func (k *striker) heal(ctx context.Context, p *pending) error {
	p.dead = true
	p.bit = p.wound.Bit(ctx)
	return p.wound.Heal(ctx)
}

// end heals all that does not stay, and with it all that stays where that is
// asked for.
func (k *striker) end(ctx context.Context, all bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, p := range k.strikes {
		if !p.struck && p.At == afterwards() {
			errs = append(errs, k.strike(ctx, p, Moment{}))
		}
	}
	for _, p := range slices.Backward(k.strikes) { // a member can be started again once its host has power
		if p.wound != nil && slices.Contains(p.wound.Hosts, k.subject) && p.over.IsZero() {
			p.over = time.Now()
		}
		if p.struck && !p.dead && (all || !p.Stays) {
			errs = append(errs, k.heal(ctx, p))
		}
	}
	return errors.Join(errs...)
}

// account judges the strikes: one that never struck, or never bit, proves
// nothing.
func (k *striker) account() (Verdict, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch k.verdict {
	case Pass:
	case Violation:
		return Pass, "" // it was told when the operator ended
	default:
		return k.verdict, k.reason
	}
	for _, p := range k.strikes {
		switch {
		case k.byLot, p.Perhaps && !p.struck:
		case !p.struck:
			return Unknown, fmt.Sprintf("%s never struck: there was no moment %s; there were %s", p.Fault, p.At, k.moments())
		case p.bit != nil:
			return Unknown, p.bit.Error()
		}
	}
	return Pass, ""
}

// broken is what the strikes and watches themselves brought to light.
func (k *striker) broken() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.verdict != Violation {
		return nil
	}
	return fmt.Errorf("%w: %s", fault.ErrBroken, k.reason)
}

// moments are the titles of the steps that came, each once.
func (k *striker) moments() string {
	var titles []string
	seen := map[string]bool{}
	for _, m := range k.visited {
		if m.Title != "" && !seen[m.Title] {
			seen[m.Title] = true
			titles = append(titles, m.Title)
		}
	}
	if len(titles) == 0 {
		return "none"
	}
	return strings.Join(titles, ", ")
}

// faults are the strikes as judges of operators read them.
func (k *striker) faults() (all []check.Fault, others bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.strikes {
		if p.wound == nil {
			continue
		}
		kind := p.Fault.Kind()
		injected, mended := p.wound.Gone()
		damage := strings.HasPrefix(kind, "truncate") || strings.HasPrefix(kind, "flip") || kind == "corruption"
		if damage {
			mended = p.over
		}
		others = others || kind == "operator second" || kind == "operator overtaken"
		all = append(all, check.Fault{Name: p.Fault.String(), Hosts: p.wound.Hosts, Injected: injected, Healed: mended,
			Kills: slices.Contains([]string{"crash", "kill", "power", "power cycle", "power loss", "pause", "isolation", "crash point"}, kind) || damage})
	}
	return all, others
}

// close closes the journal of faults.
func (k *striker) close() error { return k.ground.Journal.Close() }

// recovered waits until every member that is to be there answers, all agree on a
// leader, and each hears from a quorum.
func (s *stage) recovered(ctx context.Context) error {
	const within = 60 * time.Second
	ctx, stop := context.WithTimeout(ctx, within)
	defer stop()
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	last := errors.New("nobody was asked")
	for {
		err := s.well(ctx, dial)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // else it tells of whoever was being asked when time was up
			last = err
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("not well again within %v of the last remedy: %w", within, last)
		}
	}
}

// well says which members do not answer, do not hear from a quorum, or follow
// another leader.
func (s *stage) well(ctx context.Context, dial workload.Dial) error {
	var ill []string
	leaders := map[uint64]bool{}
	for _, h := range s.intended {
		leader, err := s.follows(ctx, dial, h)
		if err == nil {
			leaders[leader] = true
			err = s.hearsQuorum(ctx, dial, h)
		}
		if err != nil {
			ill = append(ill, fmt.Sprintf("the member on %s: %v", h, err))
		}
	}
	switch {
	case len(ill) > 0:
		return errors.New(strings.Join(ill, "; "))
	case len(leaders) != 1 || leaders[0]:
		return errors.New("the members do not agree on a leader")
	}
	return nil
}

// hearsQuorum asks the member on a host for the list that a quorum confirms.
func (s *stage) hearsQuorum(ctx context.Context, dial workload.Dial, name string) error {
	url, err := s.rig.clientURL(name)
	if err != nil {
		return err
	}
	_, err = memberList(ctx, dial, url)
	return err
}

// subjectOf is the host that a command line is about.
func subjectOf(args []string) string {
	if len(args) < 2 {
		return ""
	}
	switch args[0] {
	case "addMember", "removeMember", "purgeHost":
		return args[1]
	case "replaceMember":
		if len(args) > 2 {
			return args[2]
		}
	case "migrate": // the first newcomer
		first, _, _ := strings.Cut(args[1], ",")
		return first
	}
	return ""
}

// strikeVerdict is the verdict of what a strike failed with.
func strikeVerdict(err error) Verdict {
	switch {
	case errors.Is(err, fault.ErrBroken):
		return Violation
	case errors.Is(err, errors.ErrUnsupported):
		return Skipped
	}
	return Infra
}

// about says who the procedure is about, once that is known.
func (k *striker) about(subject string) {
	if t, ok := k.ground.Cast.(fault.Troupe); ok {
		t.Subject = subject
		k.ground.Cast, k.subject = t, subject
	}
}

// felt are the hosts of the strikes that are felt still.
func (k *striker) felt() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var hosts []string
	for _, p := range k.strikes {
		if p.wound != nil && !p.dead {
			hosts = append(hosts, p.wound.Hosts...)
		}
	}
	return hosts
}

// healed are the hosts of the strikes that had a remedy and got it, or that
// mend by themselves.
func (k *striker) healed() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var hosts []string
	for _, p := range k.strikes {
		if p.wound != nil && p.dead && (!p.wound.Passing() || p.wound.Returns()) {
			hosts = append(hosts, p.wound.Hosts...)
		}
	}
	return hosts
}
