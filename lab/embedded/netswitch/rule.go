package netswitch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxHold bounds Delay and Jitter. A frame held for longer than any TCP
// connection lives is a cut, and should be written as one.
const maxHold = time.Hour

// Rule is what a directed link does to the frames it carries. The zero Rule
// does nothing.
type Rule struct {
	// Cut drops everything; the other fields do not matter then, except Ports.
	Cut bool

	// Delay holds every frame for this long, and Jitter for a random time
	// between zero and itself more. Delay is thus the least that a frame
	// waits. Neither changes the order of frames.
	Delay, Jitter time.Duration

	// Loss, Duplicate and Reorder are probabilities per frame, from 0 to 1.
	Loss, Duplicate, Reorder float64

	// Rate bounds the link, in bytes of Ethernet frames per second; 0 is
	// unbounded. A queue of a tenth of a second, 32 KiB at least, waits before
	// it; what finds the queue full is dropped.
	Rate int64

	// Ports nbetweens the rule to TCP segments from or to one of these ports.
	// Empty means every frame.
	Ports []int
}

// Zero reports whether the rule does nothing.
func (r Rule) Zero() bool {
	return !r.Cut && r.Delay == 0 && r.Jitter == 0 &&
		r.Loss == 0 && r.Duplicate == 0 && r.Reorder == 0 && r.Rate == 0
}

// Equal reports whether both rules say the same. The order of Ports does not
// matter.
func (r Rule) Equal(o Rule) bool {
	a, b := r.normal(), o.normal()
	return a.Cut == b.Cut && a.Delay == b.Delay && a.Jitter == b.Jitter &&
		a.Loss == b.Loss && a.Duplicate == b.Duplicate && a.Reorder == b.Reorder &&
		a.Rate == b.Rate && slices.Equal(a.Ports, b.Ports)
}

// Validate reports all that is wrong with the rule, joined.
func (r Rule) Validate() error {
	var faults []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"delay", r.Delay}, {"jitter", r.Jitter}} {
		if d.value < 0 || d.value > maxHold {
			faults = append(faults, fmt.Errorf("%s %v is not between 0 and %v", d.name, d.value, maxHold))
		}
	}
	for _, p := range []struct {
		name  string
		value float64
	}{{"loss", r.Loss}, {"duplicate", r.Duplicate}, {"reorder", r.Reorder}} {
		// Written so that NaN is refused too.
		if !(p.value >= 0 && p.value <= 1) {
			faults = append(faults, fmt.Errorf("%s %v is not a probability between 0 and 1", p.name, p.value))
		}
	}
	if r.Rate < 0 {
		faults = append(faults, fmt.Errorf("rate %d is negative", r.Rate))
	}
	for _, port := range r.Ports {
		if port < 1 || port > 65535 {
			faults = append(faults, fmt.Errorf("port %d is not between 1 and 65535", port))
		}
	}
	if len(r.Ports) > 0 && r.Zero() {
		faults = append(faults, errors.New("ports are given but nothing to do to them"))
	}
	return errors.Join(faults...)
}

// String says the rule in one line: "delay 50ms, loss 10%, ports 2379 2380".
// The zero rule is "healthy".
func (r Rule) String() string {
	if r.Zero() {
		return "healthy"
	}
	var words []string
	percent := func(name string, p float64) {
		if p != 0 {
			words = append(words, fmt.Sprintf("%s %s%%", name, strconv.FormatFloat(p*100, 'g', 6, 64)))
		}
	}
	switch {
	case r.Cut:
		words = append(words, "cut")
	default:
		if r.Delay != 0 {
			words = append(words, "delay "+r.Delay.String())
		}
		if r.Jitter != 0 {
			words = append(words, "jitter "+r.Jitter.String())
		}
		percent("loss", r.Loss)
		percent("duplicate", r.Duplicate)
		percent("reorder", r.Reorder)
		if r.Rate != 0 {
			words = append(words, fmt.Sprintf("rate %d B/s", r.Rate))
		}
	}
	if len(r.Ports) > 0 {
		ports := make([]string, len(r.Ports))
		for i, p := range r.Ports {
			ports[i] = strconv.Itoa(p)
		}
		words = append(words, "ports "+strings.Join(ports, " "))
	}
	return strings.Join(words, ", ")
}

// normal is the rule with sorted ports of its own, each once.
func (r Rule) normal() Rule {
	r.Ports = slices.Clone(r.Ports)
	slices.Sort(r.Ports)
	r.Ports = slices.Compact(r.Ports)
	return r
}

// sees reports whether the rule is about such a frame at all.
func (r Rule) sees(h header) bool {
	if len(r.Ports) == 0 {
		return true
	}
	return h.tcp && (slices.Contains(r.Ports, int(h.srcPort)) || slices.Contains(r.Ports, int(h.dstPort)))
}

// writtenRule is Rule as JSON: durations are strings such as "50ms", and what
// is zero is left out.
type writtenRule struct {
	Cut       bool    `json:"cut,omitempty"`
	Delay     string  `json:"delay,omitempty"`
	Jitter    string  `json:"jitter,omitempty"`
	Loss      float64 `json:"loss,omitempty"`
	Duplicate float64 `json:"duplicate,omitempty"`
	Reorder   float64 `json:"reorder,omitempty"`
	Rate      int64   `json:"rate,omitempty"`
	Ports     []int   `json:"ports,omitempty"`
}

// MarshalJSON writes durations as strings and leaves out what is zero.
func (r Rule) MarshalJSON() ([]byte, error) {
	w := writtenRule{
		Cut: r.Cut, Loss: r.Loss, Duplicate: r.Duplicate, Reorder: r.Reorder,
		Rate: r.Rate, Ports: r.Ports,
	}
	if r.Delay != 0 {
		w.Delay = r.Delay.String()
	}
	if r.Jitter != 0 {
		w.Jitter = r.Jitter.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes. An unknown key is an error: a
// fault with a misspelt key would be no fault. The rule is not validated.
func (r *Rule) UnmarshalJSON(data []byte) error {
	var w writtenRule
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return fmt.Errorf("read rule: %w", err)
	}
	read := Rule{
		Cut: w.Cut, Loss: w.Loss, Duplicate: w.Duplicate, Reorder: w.Reorder,
		Rate: w.Rate, Ports: w.Ports,
	}
	for _, d := range []struct {
		name string
		text string
		to   *time.Duration
	}{{"delay", w.Delay, &read.Delay}, {"jitter", w.Jitter, &read.Jitter}} {
		if d.text == "" {
			continue
		}
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return fmt.Errorf("read rule: %s: %w", d.name, err)
		}
		*d.to = v
	}
	*r = read
	return nil
}

// arrow stands between the two names of a written link.
const arrow = "->"

// Link names a directed link by the names of its two ports.
type Link struct {
	From, To string
}

// String is "from->to".
func (l Link) String() string { return l.From + arrow + l.To }

// MarshalText makes a Link a key of a JSON object.
func (l Link) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (l *Link) UnmarshalText(text []byte) error {
	from, to, ok := strings.Cut(string(text), arrow)
	if !ok {
		return fmt.Errorf("link %q is not written as from%sto", text, arrow)
	}
	read := Link{From: from, To: to}
	if err := read.validate(); err != nil {
		return err
	}
	*l = read
	return nil
}

func (l Link) validate() error {
	for _, name := range []string{l.From, l.To} {
		if err := validateName(name); err != nil {
			return err
		}
	}
	if l.From == l.To {
		return fmt.Errorf("link from %s leads to itself", l.From)
	}
	return nil
}

func validateName(name string) error {
	if name == "" {
		return errors.New("a port has no name")
	}
	if strings.Contains(name, arrow) {
		return fmt.Errorf("port name %q contains %q", name, arrow)
	}
	return nil
}

// Counter is what happened on a directed link since the switch was made, in
// frames as a wire would carry them (a 64 KiB superframe counts as its
// segments). A duplicate that arrives counts as a frame of its own.
type Counter struct {
	Frames int64 `json:"frames"` // passed to the receiving port
	Bytes  int64 `json:"bytes"`  // of these frames, Ethernet headers included

	Cut     int64 `json:"cut"`     // dropped by Cut
	Lost    int64 `json:"lost"`    // dropped by Loss
	Limited int64 `json:"limited"` // dropped because the queue of Rate, or the 32 MiB that a link holds, was full

	Delayed    int64 `json:"delayed"`    // held for any time, by Delay, Jitter, Rate or Reorder
	Duplicated int64 `json:"duplicated"` // copies made
	Reordered  int64 `json:"reordered"`  // came out after a frame that had gone in later

	Refused int64 `json:"refused"` // the receiving port would not take it: removed, down, too long
}

// Hits is how often a fault did something to a frame. At zero, it never bit.
func (c Counter) Hits() int64 {
	return c.Cut + c.Lost + c.Limited + c.Delayed + c.Duplicated + c.Reordered
}
