package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// A Topology is what the instances say of the cluster, each of itself.
type Topology struct {
	Leader   string // instance; empty when there is none
	Timeline int    // the leader's; 0 when it does not say
	// Replicas are the states of the others by instance: "streaming" where the
	// leader says so, else what they say themselves.
	Replicas map[string]string
	// Promotions is how many there were since the cluster was made.
	Promotions int
}

// A State is what Patroni said of one instance at one time.
type State struct {
	At       time.Time
	Instance string
	Role     string // primary, replica, ...
	State    string // running, starting, stopped, ...
	Timeline int
	Started  string    // when the postmaster was started, as Patroni writes it
	Seen     time.Time // when Patroni last heard of etcd; to the second
	// Problem says why there is no answer; the rest is empty then.
	Problem string
}

// A patroniReply is what Patroni's REST API says of its own instance, as far as
// it is needed.
type patroniReply struct {
	State       string
	Role        string
	Timeline    int
	Started     string `json:"postmaster_start_time"`
	Seen        int64  `json:"dcs_last_seen"`
	Replication []struct {
		Instance string `json:"application_name"`
		State    string
	}
}

const (
	// replyTimeout is how long Patroni may take to answer about itself.
	replyTimeout = 2 * time.Second
	// answersWithin is for how long it is asked again where the end of something
	// hangs on the answer: the machine may be busy with others.
	answersWithin = time.Minute
)

// get asks one machine's Patroni. Some answers come with status 503: they are
// answers all the same.
func (c *Cluster) get(ctx context.Context, i instance, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(i.Machine.Host(), strconv.Itoa(PatroniPort)) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: c.spec.Dial, DisableKeepAlives: true}}
	reply, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read %s (%s): %w", url, reply.Status, err)
	}
	return nil
}

// state asks for one instance.
func (c *Cluster) state(ctx context.Context, i instance) State {
	var r patroniReply
	err := c.get(ctx, i, "/patroni", &r)
	s := State{At: c.spec.Clock(), Instance: i.Name}
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Role, s.State, s.Timeline, s.Started = r.Role, r.State, r.Timeline, r.Started
	if r.Seen > 0 {
		s.Seen = time.Unix(r.Seen, 0)
	}
	return s
}

// leads says what keeps an instance from being a primary that takes writes.
func (c *Cluster) leads(ctx context.Context, i instance) error {
	s := c.state(ctx, i)
	switch {
	case s.Problem != "":
		return errors.New(s.Problem)
	case s.Role != "primary" || s.State != "running":
		return fmt.Errorf("%s is %s and %s, not a running primary", i.Name, s.Role, s.State)
	}
	return nil
}

// answered is topology once every instance has answered.
func (c *Cluster) answered(ctx context.Context) (t Topology, err error) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	err = await(ctx, lookEvery, func(ctx context.Context) error {
		t, err = c.topology(ctx)
		return err
	})
	return t, err
}

// topology asks each instance about itself. What Patroni says of the others
// stands in etcd and is as old as its last loop, ten seconds at worst.
func (c *Cluster) topology(ctx context.Context) (Topology, error) {
	replies := make([]patroniReply, len(c.instances))
	err := c.each(func(n int, i instance) error { return c.get(ctx, i, "/patroni", &replies[n]) })
	if err != nil {
		return Topology{}, err
	}
	t := Topology{Replicas: map[string]string{}}
	for n, r := range replies {
		name := c.instances[n].Name
		if r.Role != "primary" {
			if _, known := t.Replicas[name]; !known {
				t.Replicas[name] = r.State
			}
			continue
		}
		if t.Leader != "" {
			return t, fmt.Errorf("%s and %s both say that they are the primary", t.Leader, name)
		}
		t.Leader, t.Timeline = name, r.Timeline
		for _, replica := range r.Replication {
			t.Replicas[replica.Instance] = replica.State
		}
	}
	if t.Leader == "" {
		return t, nil
	}
	var promotions []json.RawMessage
	leader, err := c.instance(t.Leader)
	if err == nil {
		err = c.get(ctx, leader, "/history", &promotions)
	}
	t.Promotions = len(promotions)
	return t, err
}

func (t Topology) settled(instances int) error {
	switch {
	case t.Leader == "":
		return errors.New("no instance is the primary")
	case t.Timeline == 0:
		return fmt.Errorf("the timeline of %s is not known yet", t.Leader)
	case len(t.Replicas) != instances-1:
		return fmt.Errorf("there are %d replicas, %d are wanted", len(t.Replicas), instances-1)
	}
	for name, state := range t.Replicas {
		if state != "streaming" {
			return fmt.Errorf("replica %s is %s, not streaming", name, state)
		}
	}
	return nil
}
