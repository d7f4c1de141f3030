package patroni

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Member is one instance's word about itself.
type Member struct {
	State    string // running, streaming, starting, stopped, ...
	Role     string // primary, replica, standby_leader
	Timeline int    // 0 when it does not say
	Version  string // of Patroni
	Scope    string // the PostgreSQL cluster's name
	Name     string // its own name; "" from old versions
	// LastSeen is when it last heard from etcd, by its host's clock, in whole
	// seconds; zero when it does not say.
	LastSeen time.Time
	Paused   bool // maintenance mode
	// Unlocked: nobody holds the leader key.
	Unlocked bool
	// Failsafe: etcd cannot be reached, and the instances keep each other up.
	Failsafe bool
	// Pending are the parameters that wait for a restart of PostgreSQL, sorted;
	// "unknown" where the version does not name them.
	Pending []string
}

// ErrReply says that a reply is none of Patroni's.
var ErrReply = errors.New("not a reply of Patroni")

// ParseMember reads GET /patroni.
func ParseMember(body []byte) (Member, error) {
	var r struct {
		State    string                     `json:"state"`
		Role     string                     `json:"role"`
		Timeline *int                       `json:"timeline"`
		LastSeen *float64                   `json:"dcs_last_seen"`
		Pause    bool                       `json:"pause"`
		Unlocked bool                       `json:"cluster_unlocked"`
		Failsafe bool                       `json:"failsafe_mode_is_active"`
		Pending  bool                       `json:"pending_restart"`
		Reason   map[string]json.RawMessage `json:"pending_restart_reason"`
		Patroni  *struct {
			Version string `json:"version"`
			Scope   string `json:"scope"`
			Name    string `json:"name"`
		} `json:"patroni"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return Member{}, fmt.Errorf("%w: %w", ErrReply, err)
	}
	if r.State == "" || r.Role == "" || r.Patroni == nil || r.Patroni.Scope == "" {
		return Member{}, fmt.Errorf("%w: it lacks one of state, role, patroni.scope", ErrReply)
	}
	m := Member{State: r.State, Role: role(r.Role), Version: r.Patroni.Version, Scope: r.Patroni.Scope, Name: r.Patroni.Name,
		Paused: r.Pause, Unlocked: r.Unlocked, Failsafe: r.Failsafe}
	if r.Timeline != nil {
		if m.Timeline = *r.Timeline; m.Timeline < 0 {
			return Member{}, fmt.Errorf("%w: timeline %d", ErrReply, m.Timeline)
		}
	}
	if r.LastSeen != nil {
		const most = 1 << 40
		if *r.LastSeen < 0 || *r.LastSeen > most {
			return Member{}, fmt.Errorf("%w: dcs_last_seen %v", ErrReply, *r.LastSeen)
		}
		if *r.LastSeen > 0 {
			m.LastSeen = time.Unix(int64(*r.LastSeen), 0)
		}
	}
	for name := range r.Reason {
		m.Pending = append(m.Pending, name)
	}
	slices.Sort(m.Pending)
	if r.Pending && len(m.Pending) == 0 {
		m.Pending = []string{"unknown"}
	}
	return m, nil
}

// role gives a role its present name.
func role(s string) string {
	if s = strings.ToLower(s); s == "master" {
		return "primary"
	}
	return s
}

// Leads reports whether the instance takes itself for the one that leads.
func (m Member) Leads() bool { return m.Role == "primary" || m.Role == "standby_leader" }

// Runs reports whether its PostgreSQL serves.
func (m Member) Runs() bool { return m.State == "running" || m.State == "streaming" }

// Fresh reports whether it heard from etcd in the last d, by its own clock. One
// that does not tell is taken for fresh: it is too old to be asked.
func (m Member) Fresh(clock time.Time, d time.Duration) bool {
	return m.LastSeen.IsZero() || clock.Sub(m.LastSeen) <= d
}

// A Cluster is what one instance has read in etcd about all of them.
type Cluster struct {
	Leader   string // name; "" when there is none
	Timeline int    // the leader's; 0 when it is not told
	Members  []Listed
	Paused   bool
}

// A Listed is one instance of a Cluster.
type Listed struct {
	Name     string
	Role     string // leader, standby_leader, replica, sync_standby, quorum_standby
	State    string
	Host     string // of PostgreSQL; "" when it is not told
	Timeline int
}

// ParseCluster reads GET /cluster.
func ParseCluster(body []byte) (Cluster, error) {
	var r struct {
		Members []struct {
			Name     string          `json:"name"`
			Role     string          `json:"role"`
			State    string          `json:"state"`
			Host     string          `json:"host"`
			Timeline json.RawMessage `json:"timeline"` // a number, or "unknown"
		} `json:"members"`
		Pause bool `json:"pause"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return Cluster{}, fmt.Errorf("%w: %w", ErrReply, err)
	}
	if r.Members == nil {
		return Cluster{}, fmt.Errorf("%w: it lacks members", ErrReply)
	}
	c := Cluster{Paused: r.Pause}
	for _, m := range r.Members {
		if m.Name == "" || m.Role == "" {
			return Cluster{}, fmt.Errorf("%w: a member without name or role", ErrReply)
		}
		l := Listed{Name: m.Name, Role: m.Role, State: m.State, Host: m.Host}
		if json.Unmarshal(m.Timeline, &l.Timeline) != nil || l.Timeline < 0 {
			l.Timeline = 0
		}
		if l.Role == "leader" || l.Role == "standby_leader" || l.Role == "master" {
			if c.Leader != "" {
				return Cluster{}, fmt.Errorf("%w: two leaders, %s and %s", ErrReply, c.Leader, l.Name)
			}
			c.Leader, c.Timeline = l.Name, l.Timeline
		}
		c.Members = append(c.Members, l)
	}
	return c, nil
}
