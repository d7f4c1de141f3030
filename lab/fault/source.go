package fault

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
)

// Source gives a fault as Go source, for rows that are printed.

func (r Role) source() string {
	if slices.Contains(Roles(), r) {
		if r == Admin {
			return "fault.Admin"
		}
		return "fault." + strings.ToUpper(string(r[:1])) + string(r[1:])
	}
	return fmt.Sprintf("%q", string(r))
}

func ruleSource(r netswitch.Rule) string {
	s := fmt.Sprintf("%#v", r)
	return strings.ReplaceAll(s, "[]int(nil)", "nil")
}

func (k kill) Source() string {
	if k.down {
		return fmt.Sprintf("fault.Crash(%s)", k.who.source())
	}
	return fmt.Sprintf("fault.Kill(%s)", k.who.source())
}

func (p pause) Source() string    { return fmt.Sprintf("fault.Pause(%s)", p.who.source()) }
func (p powerOff) Source() string { return fmt.Sprintf("fault.PowerOff(%s)", p.who.source()) }
func (c cycle) Source() string    { return fmt.Sprintf("fault.PowerCycle(%s)", c.off.who.source()) }

func (c crashAt) Source() string {
	return fmt.Sprintf("fault.CrashAt(%s, %q)", c.who.source(), string(c.point))
}

func (v visit) Source() string {
	return fmt.Sprintf("fault.Visit(%s, %d)", v.off.who.source(), v.d)
}

func (o operator) Source() string { return o.source }

func (l links) Source() string {
	switch l.kind {
	case "cut":
		return fmt.Sprintf("fault.Cut(%s, %s)", l.from.source(), l.to.source())
	case "one-way cut":
		return fmt.Sprintf("fault.CutOneWay(%s, %s)", l.from.source(), l.to.source())
	case "isolation":
		return fmt.Sprintf("fault.Isolate(%s)", l.from.source())
	case "firewall":
		return fmt.Sprintf("fault.Firewall(%s, %d)", l.from.source(), l.rule.Ports[0])
	}
	return fmt.Sprintf("fault.Degrade(%s, %s, %s)", l.from.source(), l.to.source(), ruleSource(l.rule))
}

func (s shape) Source() string {
	if s.kind == "ring" {
		return "fault.Ring()"
	}
	return "fault.Bridge()"
}

func (d damage) Source() string {
	verb, file := "Flip", "fault.WAL"
	if d.how == "truncate" {
		verb = "Truncate"
	}
	if d.file == Backend {
		file = "fault.Backend"
	}
	return fmt.Sprintf("fault.%s(%s, %s)", verb, d.who.source(), file)
}

func (i image) Source() string {
	if i.back {
		return fmt.Sprintf("fault.RestoreImage(%s)", i.who.source())
	}
	return fmt.Sprintf("fault.TakeImage(%s)", i.who.source())
}

func (s stale) Source() string {
	return fmt.Sprintf("fault.Stale(%s, %s)", s.who.source(), s.from.source())
}
func (c corrupt) Source() string { return fmt.Sprintf("fault.Corrupt(%s)", c.who.source()) }
func (r revive) Source() string  { return fmt.Sprintf("fault.Revive(%s)", r.who.source()) }
func (f foreign) Source() string { return fmt.Sprintf("fault.Foreign(%s)", f.who.source()) }
func (e edit) Source() string {
	return fmt.Sprintf("fault.Edit(%s, %q, %q, %q)", e.who.source(), e.path, e.old, e.new)
}
func (l lead) Source() string       { return fmt.Sprintf("fault.Lead(%s)", l.who.source()) }
func (compaction) Source() string   { return "fault.Compact()" }
func (w waste) Source() string      { return fmt.Sprintf("fault.Waste(%d)", w.mebibytes) }
func (fillQuota) Source() string    { return "fault.FillQuota()" }
func (awaitedAlarm) Source() string { return "fault.AwaitAlarm()" }
func (s smallQuota) Source() string {
	return fmt.Sprintf("fault.SmallQuota(%s, %d)", s.who.source(), s.bytes)
}

func (a ailing) Source() string {
	if a.fault.Full {
		return fmt.Sprintf("fault.DiskFull(%s)", a.who.source())
	}
	return fmt.Sprintf("fault.SlowSync(%s, %d)", a.who.source(), a.fault.SyncDelay)
}
func (p powerLoss) Source() string { return fmt.Sprintf("fault.PowerLoss(%s)", p.off.who.source()) }

func (t trust) Source() string {
	if t.kind == "wrong CA" {
		return fmt.Sprintf("fault.WrongCA(%s)", t.who.source())
	}
	return fmt.Sprintf("fault.Expired(%s)", t.who.source())
}

func (c clock) Source() string {
	return fmt.Sprintf("fault.ClockOff(%s, %d)", c.who.source(), c.offset)
}
func (b beside) Source() string { return b.source }
func (auth) Source() string     { return "fault.EnableAuth()" }
