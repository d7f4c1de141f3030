package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdrill/etcdrill/sop"
)

// Applied is the moment at which a change of members was made and its reply has
// come, of which the operator knows nothing yet.
const Applied sop.State = "applied"

// Scanned is the moment before a member is asked for a hash at revision 0,
// which no procedure has a reason to do.
const Scanned sop.State = "scanned"

// A Moment is a place in an operator's run: a kill point, or a record of its
// journal.
type Moment struct {
	N     int       `json:"n"` // counts from 1 through the run
	Step  int       `json:"step,omitempty"`
	Title string    `json:"title,omitempty"` // of the step
	Host  string    `json:"host,omitempty"`
	State sop.State `json:"state"`
}

// String is the moment as people say it: "recorded: promote to voter".
func (m Moment) String() string {
	at := ""
	if m.Host != "" {
		at = " on " + m.Host
	}
	return fmt.Sprintf("%s: %s%s", m.State, m.Title, at)
}

// verdict is what the other side of a gate answers.
type verdict struct {
	// Lose has the operator not hear the reply to its next change of members.
	Lose bool `json:"lose,omitempty"`
}

// A Gate stops an operator at every moment of its run until whoever plays it
// lets it go on. It is the operator's side. A nil Gate stops nobody.
//
// When the other side is gone the operator dies: it was started to be hurt, and
// must not go on unwatched.
type Gate struct {
	mu   sync.Mutex
	conn net.Conn
	enc  *json.Encoder
	dec  *json.Decoder
	n    int
	last Moment // of the step under way
	lose atomic.Bool
}

// EnterGate connects to the gate behind a unix socket.
func EnterGate(socket string) (*Gate, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("come to the gate: %w", err)
	}
	return &Gate{conn: conn, enc: json.NewEncoder(conn), dec: json.NewDecoder(conn)}, nil
}

// wait tells where the operator is, and waits to be let go.
func (g *Gate) wait(m Moment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	m.N = g.n
	var v verdict
	err := g.enc.Encode(m)
	if err == nil {
		err = g.dec.Decode(&v)
	}
	if err != nil {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // it is on its way
	}
	if v.Lose {
		g.lose.Store(true)
	}
	g.last = m
}

// Point is for sop.Runner's Point.
func (g *Gate) Point(p sop.Point) {
	if g != nil {
		g.wait(Moment{Step: p.Step, Title: p.Title, Host: p.Host, State: p.State})
	}
}

// Append implements sop.Journal. What is a kill point already is passed over, and
// what is of no step but for safeguards that are waited for.
func (g *Gate) Append(r sop.Record) error {
	waits := r.State == sop.Waiting && r.Title != ""
	if g == nil || r.State == sop.Recorded || r.State == sop.Answered || r.Step == 0 && !waits {
		return nil
	}
	g.wait(Moment{Step: r.Step, Title: r.Title, Host: r.Host, State: r.State})
	return nil
}

// Unary is a gRPC interceptor that stops the operator between a change of
// members and its reply, and loses the reply where it was told to.
func (g *Gate) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if r, ok := req.(*pb.HashKVRequest); ok && g != nil && r.Revision == 0 {
		g.wait(Moment{State: Scanned})
	}
	err := call(ctx, method, req, reply, cc, opts...)
	if g == nil || !changesMembers(method) {
		return err
	}
	g.mu.Lock()
	m := g.last
	g.mu.Unlock()
	g.wait(Moment{Step: m.Step, Title: m.Title, Host: m.Host, State: Applied})
	if err == nil && g.lose.CompareAndSwap(true, false) {
		return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	}
	return err
}

// changes are the calls that change the members, or what they hold, by the titles
// of the steps that make them.
func changes() map[string]string {
	return map[string]string{
		"add as learner": "/MemberAdd", "promote to voter": "/MemberPromote", "remove member": "/MemberRemove",
		"hand over the leadership": "/MoveLeader", "defragment": "/Defragment", "compact": "/Compact",
	}
}

// changesMembers reports whether a call is one of the changes.
func changesMembers(method string) bool {
	for _, name := range changes() {
		if strings.HasSuffix(method, name) {
			return true
		}
	}
	return false
}

// --- the other side ---

// A gatehouse is where one operator comes by.
type gatehouse struct {
	listener *net.UnixListener
	path     string
}

// openGatehouse listens in a directory whose path is short.
func openGatehouse(dir string) (*gatehouse, error) {
	f, err := os.CreateTemp(dir, "gate")
	if err != nil {
		return nil, fmt.Errorf("open a gate: %w", err)
	}
	path := f.Name()
	if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
		return nil, fmt.Errorf("open a gate: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open a gate: %w", err)
	}
	return &gatehouse{l, filepath.Clean(path)}, nil
}

// attend calls f for each moment of the operator that comes, and lets it go on
// with what f says. It ends with the operator, or when the gate is closed.
func (g *gatehouse) attend(f func(m Moment) verdict) error {
	conn, err := g.listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		return nil // nobody came
	}
	if err != nil {
		return fmt.Errorf("wait at the gate: %w", err)
	}
	defer conn.Close()
	enc, dec := json.NewEncoder(conn), json.NewDecoder(conn)
	for {
		var m Moment
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) {
				return nil // it has ended
			}
			return fmt.Errorf("hear the operator at the gate: %w", err)
		}
		if err := enc.Encode(f(m)); err != nil {
			return nil // it was killed meanwhile
		}
	}
}

func (g *gatehouse) close() { _ = g.listener.Close() }
