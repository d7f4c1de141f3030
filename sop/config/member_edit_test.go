package config

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func ptr[T any](v T) *T { return &v }

func five() []Peer {
	return []Peer{
		{"etcd-4", "https://10.10.10.13:2380"},
		{"etcd-1", "https://10.10.10.10:2380"},
		{"etcd-2", "https://10.10.10.11:2380"},
		{"etcd-3", "https://10.10.10.12:2380"},
	}
}

const fiveText = "etcd-1=https://10.10.10.10:2380,etcd-2=https://10.10.10.11:2380,etcd-3=https://10.10.10.12:2380,etcd-4=https://10.10.10.13:2380"

func TestEditMemberChangesNothingElse(t *testing.T) {
	for _, name := range []string{"pigsty-2.0.conf", "pigsty-2.7.conf", "pigsty-3.3.conf", "pigsty-4.5.conf"} {
		before := fixture(t, name)
		for _, content := range [][]byte{before, bytes.ReplaceAll(before, []byte("\n"), []byte("\r\n")), append([]byte("\ufeff"), before...)} {
			after, err := EditMember(content, MemberEdit{Initial: ptr(five()), State: ptr(StateExisting), Token: ptr("fresh")})
			require.NoError(t, err)
			want := strings.ReplaceAll(string(content), `token: "etcd"`, `token: "fresh"`)
			want = strings.ReplaceAll(want, `state: "new"`, `state: "existing"`)
			want = strings.ReplaceAll(want, "10.10.10.12:2380\"", "10.10.10.12:2380,etcd-4=https://10.10.10.13:2380\"")
			require.Equal(t, want, string(after))

			m, err := ParseMember(before)
			require.NoError(t, err)
			back, err := EditMember(after, MemberEdit{Initial: &m.Initial, State: &m.State, Token: &m.Token})
			require.NoError(t, err)
			require.Equal(t, string(content), string(back))
		}
	}
}

func TestEditMemberThatChangesNothingReturnsTheSame(t *testing.T) {
	before := fixture(t, "pigsty-4.5.conf")
	peers := five()[:0:0]
	for _, p := range []int{3, 1, 2} {
		peers = append(peers, five()[p])
	}
	after, err := EditMember(before, MemberEdit{Initial: &peers, State: ptr(StateNew), Quota: ptr(int64(8 << 30)), CompactionMode: ptr("periodic")})
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))

	before = []byte("initial-cluster: b=http://10.0.0.2:1, a=http://10.0.0.1:1\n")
	after, err = EditMember(before, MemberEdit{Initial: &[]Peer{{"a", "http://10.0.0.1:1"}, {"b", "http://10.0.0.2:1"}}})
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "the order of initial-cluster means nothing")
}

func TestEditMemberAddsAMissingKeyWherePigstyHasIt(t *testing.T) {
	before := fixture(t, "pigsty-2.0.conf")
	after, err := EditMember(before, MemberEdit{Quota: ptr(int64(8 << 30)), CompactionMode: ptr("periodic"), CompactionRetention: ptr("24h")})
	require.NoError(t, err)
	golden(t, "pigsty-2.0-with-quota.golden.conf", after)
	cfg, err := read(t, after)
	require.NoError(t, err)
	require.Equal(t, int64(8<<30), cfg.QuotaBackendBytes)
	require.Equal(t, "24h", cfg.AutoCompactionRetention)

	for content, want := range map[string]string{
		"name: a\ndata-dir: /d":           "name: a\ndata-dir: /d\ninitial-cluster-state: \"existing\"",
		"name: a\r\n":                     "name: a\r\ninitial-cluster-state: \"existing\"\r\n",
		"name: a # me\nlogger: zap\n":     "name: a # me\ninitial-cluster-state: \"existing\"\nlogger: zap\n",
		"logger: zap":                     "logger: zap\ninitial-cluster-state: \"existing\"\n",
		"name: >-\n  a\n  b\nlogger: z\n": "name: >-\n  a\n  b\nlogger: z\ninitial-cluster-state: \"existing\"\n",
		"  name: a\n  logger: zap\n":      "  name: a\n  initial-cluster-state: \"existing\"\n  logger: zap\n",
	} {
		after, err := EditMember([]byte(content), MemberEdit{State: ptr(StateExisting)})
		require.NoError(t, err, "%q", content)
		require.Equal(t, want, string(after))
	}
}

func TestEditMemberKeepsTheQuoting(t *testing.T) {
	edit := MemberEdit{Initial: ptr(five())}
	for before, want := range map[string]string{
		"initial-cluster: a=http://h:1 # c\n":                                               "initial-cluster: " + fiveText + " # c\n",
		"initial-cluster: 'a=http://h:1'\n":                                                 "initial-cluster: '" + fiveText + "'\n",
		"initial-cluster:   \"a=http://h:1\"\t# \"c\"\n":                                    "initial-cluster:   \"" + fiveText + "\"\t# \"c\"\n",
		"\"initial-cluster\": \"a=http://h:1,\n  b=http://i:1\"":                            "\"initial-cluster\": \"" + fiveText + "\"",
		"{name: é, initial-cluster: a=http://h:1}":                                          "{name: é, initial-cluster: \"" + fiveText + "\"}",
		"# é\n\"name\": \"é\" #\nx: {initial-cluster: no}\ninitial-cluster: a=http://h:1\n": "# é\n\"name\": \"é\" #\nx: {initial-cluster: no}\ninitial-cluster: " + fiveText + "\n",
		"\ufeffinitial-cluster: 'a=http://h:1'\n":                                           "\ufeffinitial-cluster: '" + fiveText + "'\n",
	} {
		after, err := EditMember([]byte(before), edit)
		require.NoError(t, err, "%q", before)
		require.Equal(t, want, string(after))
	}
}

func TestEditMemberRefuses(t *testing.T) {
	edit := MemberEdit{Initial: ptr(five()), State: ptr(StateExisting)}
	for content, why := range map[string]string{
		"initial-cluster: >-\n  a=http://h:1\n":                          "block of text",
		"initial-cluster: a=http://h:1,\n  b=http://i:1\n":               "several lines",
		"x: &a a=http://h:1\ninitial-cluster: *a\n":                      "no single value",
		"initial-cluster: &a a=http://h:1\nx: *a\n":                      "anchor",
		"initial-cluster: !!str a=http://h:1\n":                          "tag",
		"initial-cluster: a=http://h:1\ninitial-cluster: a=http://h:2\n": "stands there 2 times",
		"{name: a}\n":        "not added to a mapping in brackets",
		"initial-cluster:\n": "has no value",
		"logger: a\n...\n":   "cannot be edited automatically",
		"- name: a\n":        "not a YAML mapping",
	} {
		after, err := EditMember([]byte(content), edit)
		require.ErrorContains(t, err, why, "%q gave %q", content, after)
		require.Nil(t, after)
	}
	good := fixture(t, "pigsty-4.5.conf")
	for why, e := range map[string]MemberEdit{
		"has no name":                    {Initial: &[]Peer{{"", "https://10.10.10.13:2380"}}},
		"no valid host":                  {Initial: &[]Peer{{"a", "https://10.10.10.13\":2380"}}},
		"is no URL":                      {Initial: &[]Peer{{"a", "10.10.10.13:2380"}}},
		"initial-cluster must not be":    {Initial: &[]Peer{}},
		"new or existing is expected":    {State: ptr("old")},
		"token must not be empty":        {Token: ptr("")},
		"above zero":                     {Quota: ptr(int64(0))},
		"periodic or revision":           {CompactionMode: ptr("never")},
		"auto-compaction-retention must": {CompactionRetention: ptr("")},
	} {
		_, err := EditMember(good, e)
		require.ErrorContains(t, err, why)
	}
}

// The last look at an edit stands behind all others: it is given texts here
// that a bug in the finding of places might make.
func TestCheckCatchesABadEdit(t *testing.T) {
	d, err := parseDocument([]byte("name: a\ninitial-cluster-state: new\nlog-outputs: [x]\n"))
	require.NoError(t, err)
	existing := scalar{text: StateExisting}
	for edited, why := range map[string]string{
		"name: a\ninitial-cluster-state: existing\nlog-outputs: [x]\n":                             "",
		"name: a\ninitial-cluster-state: exist\nlog-outputs: [x]\n":                                "would not be read back",
		"name: a\nlog-outputs: [x]\n":                                                              "would not be read back",
		"name: a\ninitial-cluster-state: existing\ninitial-cluster-state: new\nlog-outputs: [x]\n": "would not be read back",
		"name: a\ninitial-cluster-state: new\ninitial-cluster-state: existing\nlog-outputs: [x]\n": "would not be read back",
		"name: b\ninitial-cluster-state: existing\nlog-outputs: [x]\n":                             "other keys would change",
		"name: a\ninitial-cluster-state: existing\nlog-outputs: [x, y]\n":                          "other keys would change",
		"name: a\ninitial-cluster-state: existing\n":                                               "other keys would change",
		"name: a\ninitial-cluster-state: existing\nlog-outputs: [x\n":                              "would be not valid YAML",
	} {
		err := d.check([]byte(edited), existing.is, keyState)
		if why == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, why)
	}
}

// FuzzEditMember edits what the fuzzer invents: nothing may panic, what is
// edited must say what was asked for, and the way back must lead to the bytes
// that were there.
func FuzzEditMember(f *testing.F) {
	for _, name := range []string{"pigsty-2.0.conf", "pigsty-4.5.conf", "by-hand.conf"} {
		f.Add(fixture(f, name))
		f.Add(bytes.ReplaceAll(fixture(f, name), []byte("\n"), []byte("\r\n")))
	}
	f.Add([]byte("{name: a, initial-cluster: 'a=http://h:1', initial-cluster-state: new}"))
	f.Add([]byte("a: &x [*x]\ninitial-cluster: a=http://h:1\n? b\n: c\n"))
	one, two := []Peer{{"m", "https://10.0.0.1:2380"}}, []Peer{{"m", "https://10.0.0.1:2380"}, {"n", "https://[fd00::2]:2380"}}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := ParseMember(content)
		if err != nil {
			return
		}
		_ = m.Check()
		m.Render()
		first, err := EditMember(content, MemberEdit{Initial: &two, State: ptr(StateExisting), Quota: ptr(int64(1 << 33))})
		if err != nil {
			return
		}
		got, err := ParseMember(first)
		require.NoError(t, err)
		require.True(t, samePeers(got.Initial, two))
		require.Equal(t, StateExisting, got.State)
		require.Equal(t, int64(1<<33), got.QuotaBytes)

		second, err := EditMember(first, MemberEdit{Initial: &one})
		require.NoError(t, err)
		back, err := EditMember(second, MemberEdit{Initial: &two})
		require.NoError(t, err)
		if !samePeers(m.Initial, two) {
			require.Equal(t, string(first), string(back))
		}

		// All the way back, unless a key was added, the value was written in a
		// way that only a person would, or it was one that an edit refuses.
		if m.State == "" || m.QuotaBytes == 0 || !plainly(content, m) {
			return
		}
		undone, err := EditMember(first, MemberEdit{Initial: &m.Initial, State: &m.State, Quota: &m.QuotaBytes})
		if err != nil {
			return
		}
		require.Equal(t, string(content), string(undone))
	})
}

// plainly reports whether the values stand in content as an edit writes them.
func plainly(content []byte, m Member) bool {
	d, err := parseDocument(content)
	if err != nil {
		return false
	}
	for _, v := range []struct {
		key   string
		value scalar
	}{
		{keyInitial, scalar{text: formatInitial(m.Initial)}},
		{keyState, scalar{text: m.State}},
	} {
		p, found := d.find(v.key)
		if !found {
			return false
		}
		start, end, err := d.span(p.value)
		if err != nil || string(content[start:end]) != v.value.write(p.value.Style, p.flow) {
			return false
		}
	}
	// A decimal number without signs or underscores.
	p, _ := d.find(keyQuota)
	return !strings.ContainsAny(p.value.Value, "_+xXoObBeE.") && !strings.HasPrefix(p.value.Value, "0")
}
