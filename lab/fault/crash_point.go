package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Point is a place in etcd's own code, a gofail point of it, at which a member
// can be made to crash.
type Point string

// The points at which members crash here. etcd has more of them.
const (
	BeforeSave   Point = "raftBeforeSave"           // what raft wants kept is on its way, and nothing of it is in the log
	AfterSave    Point = "raftAfterSave"            // it is in the log, and nothing of it was applied
	BeforeSync   Point = "walBeforeSync"            // it was written to the log, which was not synced
	BeforeApply  Point = "beforeApplyOneConfChange" // a change of members is committed, and about to be applied
	BeforeCommit Point = "beforeCommit"             // what was applied is about to go to the backend's disk
	MidCommit    Point = "commitAfterPreCommitHook" // so is how far that is, and neither has gone
)

// Points are all of them.
func Points() []Point {
	return []Point{BeforeSave, AfterSave, BeforeSync, BeforeApply, BeforeCommit, MidCommit}
}

// PointsAddress is where a member that was built with gofail points listens for
// who arms one: on its own host alone. PointsEnvironment has it do so.
const (
	PointsAddress     = "127.0.0.1:22381"
	PointsEnvironment = "GOFAIL_HTTP=" + PointsAddress
)

// CrashAt has the etcd of a role's hosts crash as soon as it comes to a point:
// not when it is told so, but in the middle of what it does then. systemd starts
// it again. The members have to be built with their points.
func CrashAt(who Role, p Point) Fault { return crashAt{who, p} }

type crashAt struct {
	who   Role
	point Point
}

func (c crashAt) String() string { return fmt.Sprintf("crash %s at %s", c.who, c.point) }
func (c crashAt) Kind() string   { return "crash point" }
func (c crashAt) Band() Band     { return Process }
func (c crashAt) Roles() []Role  { return []Role{c.who} }

func (c crashAt) Probe(g *Ground) error {
	_, dials := needs[Dialer](g, "reach a member from its own host")
	_, reads := needs[Files](g, "reach a host's files from outside")
	err := errors.Join(dials, reads, c.who.Check())
	if !slices.Contains(Points(), c.point) {
		err = errors.Join(err, fmt.Errorf("%q is none of the points %v", c.point, Points()))
	}
	if err == nil && !g.Points {
		err = unsupported(g, "its members were built without gofail points")
	}
	return err
}

func (c crashAt) Plan(ctx context.Context, g *Ground) (Harm, error) {
	hosts, err := g.Cast.Hosts(ctx, g, c.who)
	if err != nil {
		return Harm{}, err
	}
	h := Harm{Hosts: hosts, Returns: true}
	for _, name := range hosts {
		h.Remedy.Points = append(h.Remedy.Points, Armed{name, c.point})
	}
	said := map[string]int{} // how long the log of a host was before
	h.Do = func(ctx context.Context) error {
		for _, name := range hosts {
			log, err := logged(g.Lab.(Files), name)
			if err != nil {
				return err
			}
			said[name] = len(log)
			if err := pointed(ctx, g.Lab.(Dialer), name, c.point, http.MethodPut, fmt.Sprintf("panic(%q)", string(c.point))); err != nil {
				return err
			}
		}
		return nil
	}
	h.Bit = func(context.Context) error {
		for _, name := range hosts {
			log, err := logged(g.Lab.(Files), name)
			if err != nil {
				return err
			}
			if !strings.Contains(log[min(said[name], len(log)):], "failpoint panic: "+string(c.point)) {
				return fmt.Errorf("etcd on %s did not come to %s", name, c.point)
			}
		}
		return nil
	}
	return h, nil
}

// logged is all that a host's unit of etcd said, and was said of it.
func logged(lab Files, name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(lab.Root(name), "var", "log", "journal-"+memberUnit+".log"))
	if err != nil {
		return "", fmt.Errorf("read what etcd on %s said: %w", name, err)
	}
	return string(content), nil
}

// Gone tells for how long the members that a wound took away, and that come back
// by themselves, were gone: from when the first of them ended to when the last
// had started again, which is zero where one has not. Where the lab does not tell,
// it is the time of the wound itself.
func (w *Wound) Gone() (from, to time.Time) {
	from, to = w.Struck, w.Mended
	lab, ok := w.ground.Lab.(Files)
	if !w.harm.Returns || !ok {
		return from, to
	}
	var ended, started time.Time
	for _, name := range w.Hosts {
		log, err := logged(lab, name)
		if err != nil {
			return from, to
		}
		exited := w.Struck // whoever loses its power says nothing of it
		if at := saidAfter(log, memberUnit+": Main process exited", w.Struck); w.Fault.Kind() == (crashAt{}).Kind() && !at.IsZero() {
			exited = at
		}
		if ended.IsZero() || exited.Before(ended) {
			ended = exited
		}
		back := saidAfter(log, memberUnit+": Started.", exited)
		if back.IsZero() {
			return ended, time.Time{}
		}
		if back.After(started) {
			started = back
		}
	}
	return ended, started
}

// saidAfter is when a host's service manager first said something after a moment;
// zero where it did not.
func saidAfter(log, text string, after time.Time) time.Time {
	for line := range strings.Lines(log) {
		when, rest, _ := strings.Cut(line, " ")
		if !strings.Contains(rest, text) {
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, when); err == nil && at.After(after) {
			return at
		}
	}
	return time.Time{}
}

// Armed is a point of a host's member that is armed.
type Armed struct {
	Host  string
	Point Point
}

// disarm takes an armed point back. One of a member that has crashed there, or
// ended, is armed no more.
func (a Armed) disarm(ctx context.Context, lab Dialer) error {
	err := pointed(ctx, lab, a.Host, a.Point, http.MethodDelete, "")
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, errNotArmed) {
		return nil
	}
	return err
}

// errNotArmed is what a member says of a point that it was to forget.
var errNotArmed = errors.New("it is not armed")

// pointed asks the member on a host for something about one of its points.
func pointed(ctx context.Context, lab Dialer, name string, p Point, method, body string) error {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	dial := lab.DialContext(name)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+PointsAddress+"/"+string(p), strings.NewReader(body))
	if err != nil {
		return err
	}
	reply, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return fmt.Errorf("point %s of the member on %s: %w", p, name, err)
	}
	defer reply.Body.Close()
	said, err := io.ReadAll(io.LimitReader(reply.Body, 1<<10))
	switch {
	case err != nil:
		return fmt.Errorf("point %s of the member on %s: %w", p, name, err)
	case method == http.MethodDelete && reply.StatusCode == http.StatusBadRequest:
		return errNotArmed
	case reply.StatusCode != http.StatusNoContent:
		return fmt.Errorf("point %s of the member on %s: %s: %s", p, name, reply.Status, strings.TrimSpace(string(said)))
	}
	return nil
}
