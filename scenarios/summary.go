package scenarios

import (
	"fmt"
	"path/filepath"
	"time"
)

// A Verdict is how a procedure, or a whole run, ended.
type Verdict string

// The verdicts. Only pass is a pass: what could not be decided has not passed.
const (
	Pass      Verdict = "pass"
	Violation Verdict = "violation" // a promise was broken
	Unknown   Verdict = "unknown"   // nobody can tell, or it was interrupted
	Infra     Verdict = "infra"     // the lab failed, and nothing was learnt
	Skipped   Verdict = "skipped"   // not played, because of what came before
)

// worse gives the verdict of two taken together.
func worse(a, b Verdict) Verdict {
	for _, v := range []Verdict{Violation, Infra, Unknown, Skipped} {
		if a == v || b == v {
			return v
		}
	}
	return Pass
}

// A Summary is what a run came to. Durations are in seconds, gaps in
// milliseconds.
type Summary struct {
	Verdict       Verdict     `json:"verdict"`
	Seed          int64       `json:"seed"`
	EtcdVersion   string      `json:"etcd_version"`
	AckedWrites   int         `json:"acked_writes"`
	LostWrites    int         `json:"lost_writes"`
	MaxWriteGapMS float64     `json:"max_write_gap_ms"`
	Procedures    []Procedure `json:"procedures"`

	Name    string    `json:"name"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Time    Spent     `json:"time"` // of all of it
	Checks  []Finding `json:"checks"`
	// Reasons say why it did not pass. Blamed are the same, each with what it did
	// to the verdict and, where it was one, the checker that found it.
	Reasons []string  `json:"reasons,omitempty"`
	Blamed  []Finding `json:"blamed,omitempty"`
	// Expect is what it lets one expect of production.
	Expect []string `json:"expect,omitempty"`
	// Unknown is what this lab cannot know of production.
	Unknown []string `json:"unknown"`
	Dir     string   `json:"dir"`
	// Database is what became of a PostgreSQL cluster; nil where there was none.
	Database *Database `json:"database,omitempty"`
}

// A Database is a PostgreSQL cluster whose etcd was worked on.
type Database struct {
	Primary       string           `json:"primary"` // instance, in the end
	Timeline      int              `json:"timeline"`
	AckedRows     int              `json:"acked_rows"`
	LostRows      int              `json:"lost_rows"` // on the primary
	MaxWriteGapMS float64          `json:"max_write_gap_ms"`
	VIPGoneMS     float64          `json:"vip_gone_ms"` // on no machine, in all
	VIPGoneTimes  int              `json:"vip_gone_times"`
	VIPTwiceMS    float64          `json:"vip_twice_ms"` // on two machines
	Procedures    []DatabaseImpact `json:"procedures"`
}

// A DatabaseImpact is what PostgreSQL's clients saw of one procedure.
type DatabaseImpact struct {
	Name          string  `json:"name"`
	MaxWriteGapMS float64 `json:"max_write_gap_ms"`
	QuietGapMS    float64 `json:"quiet_gap_ms"`
	AckedRows     int     `json:"acked_rows"`
	VIPGoneMS     float64 `json:"vip_gone_ms"`
}

// A Procedure is one operator in a Summary.
type Procedure struct {
	Name          string  `json:"name"`
	Verdict       Verdict `json:"verdict"`
	Seconds       float64 `json:"seconds"`
	Steps         []Step  `json:"steps"` // those that were not skipped
	Command       string  `json:"command"`
	Reason        string  `json:"reason,omitempty"`
	Status        int     `json:"status"` // exit status
	Killed        bool    `json:"killed,omitempty"`
	Output        string  `json:"output,omitempty"` // what it said: Output.out, Output.err
	UnderLoad     bool    `json:"under_load"`       // without a load there are no gaps
	MaxWriteGapMS float64 `json:"max_write_gap_ms"`
	// QuietGapMS is the same measure over a quiet window just before.
	QuietGapMS   float64 `json:"quiet_gap_ms"`
	QuietSeconds float64 `json:"quiet_seconds"`
	// SlowestClientGapMS is the longest gap of any one client.
	SlowestClientGapMS float64 `json:"slowest_client_gap_ms"`
	AckedWrites        int     `json:"acked_writes"`
	LostWrites         int     `json:"lost_writes"`
	FirstWriteSeconds  float64 `json:"first_write_seconds,omitempty"` // from its start to the load's first write
	Spent
}

// A Step is one step of an operator.
type Step struct {
	Title         string  `json:"title"`
	Host          string  `json:"host"`
	Seconds       float64 `json:"seconds"`
	MaxWriteGapMS float64 `json:"max_write_gap_ms"`
	AckedWrites   int     `json:"acked_writes"`
	State         string  `json:"state"` // the last that the journal says of it
}

// Spent is where time went.
type Spent struct {
	// Etcd is the time that was spent waiting for etcd: members that start,
	// stop, elect or catch up.
	Etcd float64 `json:"etcd_wait_seconds"`
	// Health is the time that etcd's HealthInterval was waited out.
	Health float64 `json:"health_wait_seconds"`
	// Watch is the time between the two looks that tell whether the cluster is
	// at rest.
	Watch float64 `json:"watch_seconds"`
	// Quiet is the time in which the load ran alone, to be measured against.
	Quiet float64 `json:"quiet_wait_seconds"`
	// Own is the rest: ours.
	Own float64 `json:"own_seconds"`
	// CPU is how long processors worked for the operators, most of it in Own. The
	// rest of Own they waited, for a disk or for processors that the load and the
	// members had.
	CPU float64 `json:"cpu_seconds"`
}

func (s Spent) total() float64 { return s.Etcd + s.Health + s.Watch + s.Quiet + s.Own }

func (s Spent) plus(o Spent) Spent {
	return Spent{s.Etcd + o.Etcd, s.Health + o.Health, s.Watch + o.Watch, s.Quiet + o.Quiet, s.Own + o.Own, s.CPU + o.CPU}
}

// A Finding is what one checker found.
type Finding struct {
	Checker string  `json:"checker,omitempty"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
}

// blame makes a summary fail, and says why.
func (s *Summary) blame(v Verdict, format string, args ...any) {
	s.blamed(Finding{Verdict: v, Reason: fmt.Sprintf(format, args...)})
}

// blamed is blame for what a checker found.
func (s *Summary) blamed(f Finding) {
	s.Verdict = worse(s.Verdict, f.Verdict)
	s.Blamed = append(s.Blamed, f)
	if f.Checker != "" {
		f.Reason = f.Checker + ": " + f.Reason
	}
	s.Reasons = append(s.Reasons, f.Reason)
}

// write puts the summary into its directory.
func (s *Summary) write() error {
	return writeJSON(filepath.Join(s.Dir, summaryFile), s)
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

// millis keeps tenths.
func millis(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}
