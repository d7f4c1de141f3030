package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/sop"
)

// What a procedure of maintenance is about, a fresh cluster does not have: a past
// to discard, an alarm, clients who log in, a CA on its way out. So the twin is
// given it first, as far as that can be, and the report says what it is not.

// pastOfTwin is how many revisions at most a twin is given to discard.
const pastOfTwin = 1000

// maintains notes what the twin has to be given.
func (t *twin) maintains(revision int64) error {
	switch t.args[0] {
	case "compact":
		return t.compacts(revision)
	case "defrag":
		t.unknown = append(t.unknown, "how much of a database is in use on each of production's members: those of the twin are all alike")
	case "alarm:disarm":
		t.alarms = slices.DeleteFunc(slices.Clone(t.alarms), func(a sop.AlarmStatus) bool { return !slices.Contains(t.members, a.Host) })
	case "rotateCerts":
		if strideOf(t.args) != "" {
			t.unknown = append(t.unknown, "whether production's other clients trust another CA, and have certificates of it: in the twin they do, and unknown-clients is passed over")
		}
	case "enableAuth":
		t.unknown = append(t.unknown, "whether production's clients and etcdctl log in, and with the right password: in the twin they do; -plan looks at their files")
	}
	return nil
}

// compacts has as many revisions made and discarded as production would discard,
// but for a limit: numbers are others in the twin, and a restore keeps no past.
func (t *twin) compacts(revision int64) error {
	discards := int64(pastOfTwin)
	for _, w := range t.args[1:] {
		name, value, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "revision" && revision > 0 && n > revision:
			return fmt.Errorf("production's newest revision is %d, and %d is yet to come", revision, n)
		case name == "revision":
			discards = n
		case name == "keep" && revision > 0:
			discards = revision - n
		}
	}
	t.past = int(min(max(discards, 1), pastOfTwin))
	t.unknown = append(t.unknown, fmt.Sprintf("how long it takes to discard production's past: the twin is given one of %s, and keeps all after that", counted(t.past, "revision")))
	return nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// readied are the rows before the procedure; they may change its own.
func (t *twin) readied(s *stage, procedure *row) []row {
	switch {
	case t.args[0] == "compact":
		var to int64
		procedure.say = func() []string {
			words := slices.DeleteFunc(slices.Clone(t.args), func(w string) bool { return strings.HasPrefix(w, "-revision=") || strings.HasPrefix(w, "-keep=") })
			return append(words, fmt.Sprintf("-revision=%d", to))
		}
		procedure.args = nil
		return []row{{name: "a past to discard", check: func(ctx context.Context, s *stage, _ Outcome) (err error) {
			to, err = s.makePast(ctx, t.past)
			return err
		}}}
	case t.args[0] == "rotateCerts" && strideOf(t.args) != "":
		procedure.args = waivingToo(t.args, "unknown-clients")
		trust, sign := row{command: "rotateCerts -ca=trust"}, row{command: "rotateCerts -ca=sign -waive=unknown-clients -reason=rehearsal"}
		switch strideOf(t.args) {
		case sop.Sign, sop.Abandon:
			return []row{trust}
		case sop.Retire:
			return []row{trust, sign}
		}
	case t.args[0] == "alarm:disarm":
		procedure.begin = func(ctx context.Context, _ []string) error { // the load writes by then
			for _, a := range t.alarms {
				if err := s.raise(ctx, a); err != nil {
					return fmt.Errorf("raise %s of the member on %s: %w", a.Kind, a.Host, err)
				}
			}
			return nil
		}
	case t.args[0] == "enableAuth":
		return usersRows()
	}
	return nil
}

// strideOf is the stride of a rotation of the CA; empty for what is none.
func strideOf(args []string) sop.Stride {
	for _, w := range args[1:] {
		if name, value, _ := strings.Cut(strings.TrimLeft(w, "-"), "="); name == "ca" {
			return sop.Stride(value)
		}
	}
	return ""
}

// makePast writes one key so many times, and gives the last revision.
func (s *stage) makePast(ctx context.Context, n int) (revision int64, err error) {
	etcd, err := s.rig.member(ctx, s.intended[0])
	if err != nil {
		return 0, err
	}
	defer etcd.Close()
	for i := range n {
		r, err := etcd.Put(ctx, "/etcdrill/past", fmt.Sprintf("%d %s", i, strings.Repeat("x", 200)))
		if err != nil {
			return 0, fmt.Errorf("make a past: %w", err)
		}
		revision = r.Header.Revision
	}
	return revision, nil
}

// raise raises an alarm as the member on its host would.
func (s *stage) raise(ctx context.Context, a sop.AlarmStatus) error {
	dial, err := s.rig.Dial(embedded.Client)
	if err != nil {
		return err
	}
	etcd, err := s.rig.memberBy(ctx, dial, a.Host)
	if err != nil {
		return err
	}
	defer etcd.Close()
	c, ok := etcd.(interface{ ActiveConnection() *grpc.ClientConn })
	if !ok {
		return errors.New("this client cannot raise an alarm")
	}
	kind, known := pb.AlarmType_value[a.Kind]
	if !known {
		return errors.New("nobody knows such an alarm")
	}
	r, err := s.status(ctx, dial, a.Host)
	if err != nil {
		return err
	}
	_, err = pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx,
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: r.Header.MemberId, Alarm: pb.AlarmType(kind)})
	return err
}
