package scenarios

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop"
)

// columns is how wide the report is.
const columns = 80

// Text is the summary for a terminal: 80 columns, plain ASCII.
func (s *Summary) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-32s %-9s %6s %7s %7s %7s %5s\n", "PROCEDURE", "VERDICT", "S", "GAP ms", "QUIET", "ACKED", "LOST")
	for _, p := range s.Procedures {
		fmt.Fprintf(&b, "%-32s %-9s ", clip(p.Name, 32), p.Verdict)
		switch {
		case p.Verdict == Skipped:
			fmt.Fprintf(&b, "%6s %7s %7s %7s %5s\n", "-", "-", "-", "-", "-")
		case !p.UnderLoad:
			fmt.Fprintf(&b, "%6.1f %7s %7s %7s %5s\n", p.Seconds, "-", "-", "-", "-")
		default:
			fmt.Fprintf(&b, "%6.1f %7.0f %7.0f %7d %5d\n", p.Seconds, p.MaxWriteGapMS, p.QuietGapMS, p.AckedWrites, p.LostWrites)
		}
	}
	for _, p := range s.Procedures {
		if p.UnderLoad && len(s.Procedures) <= fewProcedures {
			b.WriteString(p.steps())
		}
	}
	b.WriteString("\n")
	fmt.Fprintf(&b, "%s: %d acknowledged writes, %d lost", s.Verdict, s.AckedWrites, s.LostWrites)
	if slices.ContainsFunc(s.Procedures, func(p Procedure) bool { return p.UnderLoad }) {
		fmt.Fprintf(&b, ", longest gap between two %.0f ms\n", s.MaxWriteGapMS)
	} else {
		b.WriteString("; no procedure ran under load\n")
	}
	for _, f := range s.Checks {
		fmt.Fprintf(&b, "  %-20s %s\n", f.Checker, f.Verdict)
	}
	b.WriteString(s.Database.text())
	b.WriteString(s.where())
	if s.Verdict != Pass {
		b.WriteString(s.trouble())
	}
	for _, e := range s.Expect {
		b.WriteString(fold("expect: ", e))
	}
	for _, u := range s.Unknown {
		b.WriteString(fold("not seen: ", u))
	}
	fmt.Fprintf(&b, "etcd %s, seed %d\n%s\n", s.EtcdVersion, s.Seed, s.Dir)
	return b.String()
}

// text tells what became of PostgreSQL.
func (d *Database) text() string {
	if d == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-32s %7s %7s %7s %9s\n", "POSTGRESQL DURING", "GAP ms", "QUIET", "ROWS", "NO VIP ms")
	for _, p := range d.Procedures {
		fmt.Fprintf(&b, "%-32s %7.0f %7.0f %7d %9.1f\n", clip(p.Name, 32), p.MaxWriteGapMS, p.QuietGapMS, p.AckedRows, p.VIPGoneMS)
	}
	b.WriteString(fold("", fmt.Sprintf("primary %s on timeline %d: %d acknowledged rows, %d lost, longest gap %.0f ms; the VIP was gone %d times, for %.1f ms in all, and on two machines for %.1f ms",
		d.Primary, d.Timeline, d.AckedRows, d.LostRows, d.MaxWriteGapMS, d.VIPGoneTimes, d.VIPGoneMS, d.VIPTwiceMS)))
	return b.String()
}

// fewProcedures are as many as are told step by step: those of a rehearsal.
const fewProcedures = 2

// steps tells a procedure step by step.
func (p *Procedure) steps() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-38s %-16s %6s %7s %7s\n", clip("STEP of "+p.Name, 38), "HOST", "S", "GAP ms", "ACKED")
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-38s %-16s %6.2f %7.0f %7d\n", clip(s.Title, 38), clip(s.Host, 16), s.Seconds, s.MaxWriteGapMS, s.AckedWrites)
	}
	return b.String()
}

// where tells where the time went.
func (s *Summary) where() string {
	t, total := s.Time, s.Time.total()
	if total == 0 {
		return ""
	}
	var operators Spent
	for _, p := range s.Procedures {
		operators = operators.plus(p.Spent)
	}
	share := func(part float64) float64 { return 100 * part / total }
	return fold("", fmt.Sprintf("%.1f s in all: waiting for etcd %.1f s (%.0f%%), for its HealthInterval %.1f s (%.0f%%), a second between two looks %.1f s (%.0f%%), load alone %.1f s (%.0f%%), ours %.1f s (%.0f%%): procedures %.1f s, for which processors worked %.1f s, lab and proofs %.1f s",
		total, t.Etcd, share(t.Etcd), t.Health, share(t.Health), t.Watch, share(t.Watch), t.Quiet, share(t.Quiet), t.Own, share(t.Own), operators.Own, operators.CPU, t.Own-operators.Own))
}

// trouble tells why it did not pass, and where to look.
func (s *Summary) trouble() string {
	var b strings.Builder
	for _, r := range s.Reasons {
		b.WriteString(fold("! ", r))
	}
	for _, p := range s.Procedures {
		if p.Verdict != Pass && p.Verdict != Skipped && p.Output != "" {
			b.WriteString("look at what the operator said, and at what the members say:\n")
			fmt.Fprintf(&b, "  less %s/%s.err\n", s.Dir, p.Output)
			break
		}
	}
	fmt.Fprintf(&b, "  less %s/members/*.log\n", s.Dir)
	return b.String()
}

func clip(s string, n int) string {
	s = sop.Plain(s, true)
	if len(s) > n {
		return s[:n-2] + ".."
	}
	return s
}

// fold breaks a text between words.
func fold(head, s string) string {
	var b strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(sop.Plain(s, true)), "\n") {
		line := head
		if i > 0 {
			line = "  "
		}
		empty := true
		for _, word := range strings.Fields(part) {
			if !empty && len(line)+1+len(word) > columns {
				b.WriteString(strings.TrimRight(line, " ") + "\n")
				line, empty = "  ", true
			}
			if !empty {
				line += " "
			}
			line, empty = line+word, false
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
