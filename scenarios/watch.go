package scenarios

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/lab/workload"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// A Watch looks at a moment of the procedure, while the operator waits: what
// must be so then, and would not show in the end.
type Watch struct {
	Name string
	At   At // each time it comes
	// Always has it looked at while a strike is felt as well: it is what the
	// operator has to find out by itself.
	Always bool
	Look   func(ctx context.Context, s *stage, m Moment, subject string) error
}

// watches are those of each procedure; they stand in every scenario of it, so
// that whatever strikes, the order is kept.
func watches(verb string) []Watch {
	switch verb {
	case "addMember":
		return []Watch{
			{Name: "announced-with-a-snapshot", At: before("add as learner"), Look: snapshotThere},
			{Name: "learner-not-listed", At: before("promote to voter"), Look: notInReferences},
			{Name: "one-learner-at-most", At: answered("add as learner"), Look: oneLearner},
			{Name: "votes-before-references", At: before("refresh"), Look: votesNow, Always: true},
			{Name: "learner-answers", At: before("promote to voter"), Look: learnerAnswers, Always: true},
		}
	case "removeMember":
		return []Watch{
			{Name: "runs-until-removed", At: before("remove member"), Look: runsStill},
			{Name: "references-first", At: before("remove member"), Look: notInReferences},
			{Name: "leader-handed-over", At: before("remove member"), Look: doesNotLead},
		}
	case "migrate", "replaceMember":
		return []Watch{
			{Name: "announced-with-a-snapshot", At: before("add as learner"), Look: snapshotThere},
			{Name: "told-of-two-living-voters", At: before("remove member"), Look: toldOfVoters},
			{Name: "no-learner-told-of", At: before("promote to voter"), Look: toldOfVoters, Always: true},
			{Name: "told-of-two-living-voters-afterwards", At: answered("remove member"), Look: toldOfVoters},
			{Name: "enough-to-spare", At: answered("remove member"), Look: enoughVoters},
		}
	case "upgrade":
		return []Watch{
			{Name: "upgraded-with-a-snapshot", At: before("restart etcd"), Look: snapshotThere},
			{Name: "others-answer", At: before("restart etcd"), Look: allAnswer},
			{Name: "followers-first", At: before("restart etcd"), Look: hostDoesNotLead},
		}
	case "defrag":
		return []Watch{
			{Name: "others-answer", At: before("defragment"), Look: allAnswer},
			{Name: "no-leader-is-defragmented", At: before("defragment"), Look: hostDoesNotLead},
		}
	case "restart", "reloadConfig":
		return []Watch{
			{Name: "others-answer", At: before("restart etcd"), Look: allAnswer},
			{Name: "restarted-answer", At: before("restart etcd"), Look: restartedAnswer(), Always: true},
			{Name: "followers-first", At: before("restart etcd"), Look: hostDoesNotLead},
		}
	}
	return nil
}

// watched looks at a moment with all watches of the procedure.
func (k *striker) watched(ctx context.Context, m Moment) {
	for _, w := range k.watches {
		if !w.At.is(m) {
			continue
		}
		// Where a strike is felt, what it brought about is not the operator's
		// doing.
		if k.hurt() && !w.Always {
			continue
		}
		if err := w.Look(ctx, k.stage, m, k.subject); err != nil && k.verdict == Pass {
			k.verdict, k.reason = Violation, fmt.Sprintf("%s, %s: %v", w.Name, m, err)
			if ctx.Err() != nil {
				k.verdict = Unknown
			}
		}
	}
	if m.State == Scanned && k.verdict == Pass {
		k.verdict, k.reason = Violation, "the operator had a member hash the key space at revision 0, which stops writes while it scans"
	}
}

// hurt reports whether a strike is felt now.
func (k *striker) hurt() bool {
	return slices.ContainsFunc(k.strikes, func(p *pending) bool { return p.struck && (!p.dead || p.passingNow) })
}

func snapshotThere(_ context.Context, s *stage, _ Moment, _ string) error {
	for _, dir := range []string{s.rig.State(), filepath.Join(s.rig.ground.Dir(), "elsewhere", ".etcdrill")} {
		all, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.db"))
		if err != nil {
			return err
		}
		if len(all) > 0 {
			return nil
		}
	}
	return errors.New("no snapshot was saved before a change of members")
}

// notInReferences: no client's file names the subject.
func notInReferences(ctx context.Context, s *stage, _ Moment, subject string) error {
	url, err := s.rig.clientURL(subject)
	if err != nil {
		return err
	}
	for _, name := range s.rig.ground.Hosts() {
		content, _, err := s.rig.ground.Read(ctx, name, config.EnvPath)
		if err != nil || name == subject {
			continue // there is none
		}
		env, err := config.ParseClientEnv(content)
		if err != nil {
			return err
		}
		if slices.Contains(env.Endpoints, url) {
			return fmt.Errorf("clients on %s are told of %s", name, url)
		}
	}
	return nil
}

// votesNow: clients are told of a newcomer once it is a voter.
func votesNow(ctx context.Context, s *stage, _ Moment, subject string) error {
	m, ok, err := s.member(ctx, subject)
	if err != nil {
		return nil // nobody can say
	}
	if !ok || m.IsLearner {
		return fmt.Errorf("clients are about to be told of %s, which has no vote", subject)
	}
	return nil
}

// member finds the entry of a host in the list that a quorum confirms.
func (s *stage) member(ctx context.Context, name string) (*pb.Member, bool, error) {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return nil, false, err
	}
	peer, err := s.rig.peerURL(name)
	if err != nil {
		return nil, false, err
	}
	for _, h := range s.intended {
		url, uerr := s.rig.clientURL(h)
		if uerr != nil {
			return nil, false, uerr
		}
		var r *clientv3.MemberListResponse
		if r, err = memberList(ctx, dial, url); err != nil {
			continue
		}
		for _, m := range r.Members {
			if slices.Contains(m.PeerURLs, peer) {
				return m, true, nil
			}
		}
		return nil, false, nil
	}
	return nil, false, err
}

func memberList(ctx context.Context, dial workload.Dial, url string) (*clientv3.MemberListResponse, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	etcd, err := dial(ctx, url)
	if err != nil {
		return nil, err
	}
	defer etcd.Close()
	return etcd.MemberList(ctx)
}

// oneLearner: the newcomer was announced as a learner, and there is no other
// member without a name or a vote.
func oneLearner(ctx context.Context, s *stage, _ Moment, subject string) error {
	peer, err := s.rig.peerURL(subject)
	if err != nil {
		return err
	}
	etcd, err := s.rig.member(ctx, s.intended[0])
	if err != nil {
		return err
	}
	defer etcd.Close()
	r, err := etcd.MemberList(ctx)
	if err != nil {
		return nil // whether it answers is for others to say
	}
	for _, m := range r.Members {
		if slices.Contains(m.PeerURLs, peer) {
			if !m.IsLearner {
				return fmt.Errorf("%s was announced as a voter", subject)
			}
		} else if m.IsLearner || m.Name == "" {
			return fmt.Errorf("member %x is pending beside it", m.ID)
		}
	}
	return nil
}

// learnerAnswers: nobody is given a vote who does not answer. etcd itself
// promotes a learner that was stopped once it had caught up.
func learnerAnswers(ctx context.Context, s *stage, _ Moment, subject string) error {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	if _, err := s.status(ctx, dial, subject); err != nil {
		return fmt.Errorf("the learner on %s, which is about to be promoted, does not answer: %w", subject, err)
	}
	return nil
}

// runsStill: the member that is to go runs with its data until it is off the
// list.
func runsStill(ctx context.Context, s *stage, _ Moment, subject string) error {
	f, err := s.rig.ground.Host(subject).Look(ctx, host.Question{Units: []string{config.UnitName}, Dirs: []string{config.DefaultDataDir}})
	if errors.Is(err, host.ErrUnreachable) {
		return nil
	}
	if err != nil {
		return err
	}
	if !f.Dirs[config.DefaultDataDir].WAL {
		return fmt.Errorf("the data of %s was moved away before it was removed from the cluster", subject)
	}
	if !f.Units[config.UnitName].Runs() {
		return fmt.Errorf("etcd on %s was stopped before it was removed from the cluster", subject)
	}
	return nil
}

func doesNotLead(ctx context.Context, s *stage, _ Moment, subject string) error {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	leads, _, err := s.role(ctx, dial, subject)
	if err == nil && leads {
		return fmt.Errorf("%s leads, and is about to go", subject)
	}
	return nil
}

func hostDoesNotLead(ctx context.Context, s *stage, m Moment, _ string) error {
	return doesNotLead(ctx, s, m, m.Host)
}

// allAnswer: nothing is restarted while a member does not answer yet.
func allAnswer(ctx context.Context, s *stage, _ Moment, _ string) error {
	return s.answer(ctx, s.intended)
}

// answer: these members answer and follow a leader.
func (s *stage) answer(ctx context.Context, hosts []string) error {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if leader, err := s.follows(ctx, dial, h); err != nil || leader == 0 {
			return fmt.Errorf("the member on %s does not answer, and the next is about to be restarted: %v", h, err)
		}
	}
	return nil
}

// restartedAnswer: the next member is not restarted before those answer that were,
// however long whatever struck them keeps them from it.
func restartedAnswer() func(ctx context.Context, s *stage, m Moment, subject string) error {
	var restarted []string
	return func(ctx context.Context, s *stage, m Moment, _ string) error {
		restarted = slices.DeleteFunc(restarted, func(h string) bool { return h == m.Host })
		if err := s.answer(ctx, restarted); err != nil {
			return err
		}
		restarted = append(restarted, m.Host)
		return nil
	}
}

// toldOfVoters: every file on every host that tells etcdctl's endpoints names two
// voters that answer, or all of them where there are fewer, and no learner.
func toldOfVoters(ctx context.Context, s *stage, _ Moment, _ string) error {
	voters, learners, err := s.answeringMembers(ctx)
	if err != nil || len(voters) == 0 {
		return nil // nobody can say
	}
	for _, name := range s.rig.ground.Hosts() {
		content, _, err := s.rig.ground.Read(ctx, name, config.EnvPath)
		if err != nil {
			continue // there is none
		}
		env, err := config.ParseClientEnv(content)
		if err != nil {
			return err
		}
		living := 0
		for _, u := range env.Endpoints {
			if slices.Contains(learners, u) {
				return fmt.Errorf("clients on %s are told of %s, which has no vote", name, u)
			}
			if slices.Contains(voters, u) {
				living++
			}
		}
		if slices.Contains(s.left, name) {
			continue // of an earlier command
		}
		if least := min(2, len(voters), len(s.intended)); living < least {
			return fmt.Errorf("clients on %s are told of %v, %d of which vote and answer", name, env.Endpoints, living)
		}
	}
	return nil
}

// enoughVoters: no fewer voters than before or wanted, whichever is less, and no
// more than are sensible.
func enoughVoters(ctx context.Context, s *stage, _ Moment, _ string) error {
	voters, _, err := s.answeringMembers(ctx)
	const most = 7
	if err != nil || len(voters) == 0 {
		return nil // nobody can say
	}
	if len(voters) < min(len(s.intended), 3) || len(voters) > most {
		return fmt.Errorf("%d voters answer, there were %d", len(voters), len(s.intended))
	}
	return nil
}

// answeringMembers are the client URLs of the members that a quorum lists and
// that answer: those who vote, and the learners.
func (s *stage) answeringMembers(ctx context.Context) (voters, learners []string, err error) {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range s.rig.ground.Hosts() {
		url, uerr := s.rig.clientURL(name)
		if uerr != nil {
			return nil, nil, uerr
		}
		var r *clientv3.MemberListResponse
		if r, err = memberList(ctx, dial, url); err != nil {
			continue
		}
		for _, m := range r.Members {
			for _, u := range m.ClientURLs {
				switch {
				case m.IsLearner:
					learners = append(learners, u)
				case answersAt(ctx, dial, u):
					voters = append(voters, u)
				}
			}
		}
		return voters, learners, nil
	}
	return nil, nil, err
}

func answersAt(ctx context.Context, dial workload.Dial, url string) bool {
	_, err := statusOf(ctx, dial, url)
	return err == nil
}

// --- what is looked at in the end, of every scenario that has members ---

// standing checks look at every member's host.
func standing() []Inspection {
	return []Inspection{
		{"starts-at-boot", startsAtBoot},
		{"same-quota", sameQuota},
		{"no-drop-in", noDropIn},
		{"data-kept", dataKept},
	}
}

// noAlarm: no member knows of an alarm.
func noAlarm(ctx context.Context, s *stage) error {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	for _, h := range s.intended {
		r, err := s.status(ctx, dial, h)
		if err != nil {
			return fmt.Errorf("ask %s: %w", h, err)
		}
		for _, e := range r.Errors {
			if strings.Contains(e, "alarm:") {
				return fmt.Errorf("%s says: %s", h, e)
			}
		}
	}
	return nil
}

func startsAtBoot(ctx context.Context, s *stage) error {
	for _, h := range s.intended {
		f, err := s.rig.ground.Host(h).Look(ctx, host.Question{Units: []string{config.UnitName}})
		if err != nil {
			return err
		}
		if e := f.Units[config.UnitName].Enabled; e != "enabled" {
			return fmt.Errorf("%s is %q on %s: it would not come back after a reboot", config.UnitName, e, h)
		}
	}
	return nil
}

func sameQuota(ctx context.Context, s *stage) error {
	quotas := map[int64][]string{}
	for _, h := range s.intended {
		content, _, err := s.rig.ground.Read(ctx, h, config.ConfPath)
		if err != nil {
			return err
		}
		c, err := config.ParseMember(content)
		if err != nil {
			return err
		}
		quotas[c.QuotaBytes] = append(quotas[c.QuotaBytes], h)
	}
	if len(quotas) > 1 {
		return fmt.Errorf("the members' quotas differ, in bytes: %v", quotas)
	}
	return nil
}

func noDropIn(ctx context.Context, s *stage) error {
	for _, h := range s.intended {
		if found, err := s.rig.ground.Glob(ctx, h, config.JoinDropInPath); err != nil || len(found) > 0 {
			return errors.Join(err, fmt.Errorf("%s is left on %s", config.JoinDropInPath, h))
		}
	}
	return nil
}

// dataKept: on a host that was a member and is none any more, the data was set
// aside and not deleted.
func dataKept(ctx context.Context, s *stage) error {
	for _, h := range s.left {
		aside, err := s.rig.ground.Glob(ctx, h, filepath.Join(config.DefaultDataDir, host.AsidePrefix+"*", "*"))
		if err != nil {
			return err
		}
		data, err := s.rig.ground.Glob(ctx, h, filepath.Join(config.DefaultDataDir, "member"))
		if err != nil {
			return err
		}
		if len(aside) == 0 && len(data) == 0 {
			return fmt.Errorf("the data of the former member on %s is gone", h)
		}
	}
	return nil
}

// plainVerb is the target of a command line.
func plainVerb(line string) string {
	verb, _, _ := strings.Cut(line, " ")
	return verb
}
