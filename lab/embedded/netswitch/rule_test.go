package netswitch

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRuleWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule Rule
		text string
		json string
	}{
		{Rule{}, "healthy", `{}`},
		{Rule{Cut: true}, "cut", `{"cut":true}`},
		{Rule{Cut: true, Ports: []int{2380}}, "cut, ports 2380", `{"cut":true,"ports":[2380]}`},
		{
			Rule{Delay: 50 * time.Millisecond, Jitter: 1500 * time.Microsecond, Loss: 0.07, Duplicate: 0.001, Reorder: 1, Rate: 125000, Ports: []int{2379, 2380}},
			"delay 50ms, jitter 1.5ms, loss 7%, duplicate 0.1%, reorder 100%, rate 125000 B/s, ports 2379 2380",
			`{"delay":"50ms","jitter":"1.5ms","loss":0.07,"duplicate":0.001,"reorder":1,"rate":125000,"ports":[2379,2380]}`,
		},
	} {
		require.Equal(t, c.text, c.rule.String())
		data, err := json.Marshal(c.rule)
		require.NoError(t, err)
		require.JSONEq(t, c.json, string(data))
		var back Rule
		require.NoError(t, json.Unmarshal(data, &back))
		require.Equal(t, c.rule, back)
		require.NoError(t, c.rule.Validate())
	}
}

func TestRuleRefusesToBeMisread(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"dealy":"5ms"}`, `{"delay":5}`, `{"delay":"5"}`, `{"jitter":"x"}`, `[]`, `{"loss":"1"}`} {
		r := Rule{Cut: true}
		require.Error(t, json.Unmarshal([]byte(text), &r), text)
		require.Equal(t, Rule{Cut: true}, r, "left as it was")
	}
}

func TestRuleValidate(t *testing.T) {
	t.Parallel()
	bad := Rule{Delay: -1, Jitter: 2 * time.Hour, Loss: math.NaN(), Duplicate: 1.1, Reorder: -0.1, Rate: -1, Ports: []int{0, 65536}}
	require.EqualError(t, bad.Validate(), `delay -1ns is not between 0 and 1h0m0s
jitter 2h0m0s is not between 0 and 1h0m0s
loss NaN is not a probability between 0 and 1
duplicate 1.1 is not a probability between 0 and 1
reorder -0.1 is not a probability between 0 and 1
rate -1 is negative
port 0 is not between 1 and 65535
port 65536 is not between 1 and 65535`)
	require.EqualError(t, Rule{Ports: []int{2380}}.Validate(), "ports are given but nothing to do to them")
}

func TestRuleEqual(t *testing.T) {
	t.Parallel()
	require.True(t, Rule{Cut: true, Ports: []int{2, 1, 2}}.Equal(Rule{Cut: true, Ports: []int{1, 2}}))
	all := []Rule{
		{}, {Cut: true}, {Delay: 1}, {Jitter: 1}, {Loss: 1}, {Duplicate: 1}, {Reorder: 1}, {Rate: 1}, {Cut: true, Ports: []int{1}},
	}
	for i, a := range all {
		require.Equal(t, i == 0, a.Zero())
		for j, b := range all {
			require.Equal(t, i == j, a.Equal(b), "%v and %v", a, b)
		}
	}
}

func TestLinkAsKey(t *testing.T) {
	t.Parallel()
	rules := map[Link]Rule{{"etcd-1", "etcd-2"}: {Cut: true}, {"etcd-2", "etcd-1"}: {Loss: 0.5}}
	data, err := json.Marshal(rules)
	require.NoError(t, err)
	require.JSONEq(t, `{"etcd-1->etcd-2":{"cut":true},"etcd-2->etcd-1":{"loss":0.5}}`, string(data))
	var back map[Link]Rule
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, rules, back)

	for _, text := range []string{"", "a", "->", "a->", "->b", "a->a", "a->b->c"} {
		var l Link
		require.Error(t, l.UnmarshalText([]byte(text)), text)
	}
}
