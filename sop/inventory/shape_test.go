package inventory

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzShape makes inventories in all the ways that people write them, which
// bytes changed at random seldom are, and edits those.
func FuzzShape(f *testing.F) {
	for i := range uint64(200) {
		f.Add(i)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		w := writer{Rand: rand.New(rand.NewPCG(seed, 0))}
		content := []byte(w.inventory())
		v, err := Parse("x.yml", content)
		require.NoError(t, err, "%s", content)
		g, err := v.Group("etcd")
		require.NoError(t, err)

		// An inventory of ordinary shape is never one to edit by hand.
		_, err = AddHost(content, "etcd", "10.0.0.99", 99)
		require.NoError(t, err, "%s", content)
		checkAdd(t, v, content, "etcd", "10.0.0.99", 99)
		checkAdd(t, v, content, "etcd", "fd00::99", 98)
		checkAdd(t, v, content, "etcd", "10.0.0.50", 97) // where one is commented out
		for _, h := range g.Hosts {
			after, err := RemoveHost(content, "etcd", h.Name)
			if len(g.Hosts) == 1 {
				require.ErrorIs(t, err, ErrLastHost)
				continue
			}
			require.NoError(t, err, "%s in\n%s", h.Name, content)
			now, err := Parse("x.yml", after)
			require.NoError(t, err)
			_, there := mustGroup(t, now).Host(h.Name)
			require.False(t, there)
			requireSameBut(t, v, now, h.Name)
			requireComments(t, content, after, h.Name)
		}
	})
}

func mustGroup(t *testing.T, v *Inventory) *Group {
	g, err := v.Group("etcd")
	require.NoError(t, err)
	return g
}

// requireComments: every comment but the removed host's own is still there.
func requireComments(t *testing.T, before, after []byte, host string) {
	t.Helper()
	for word := range strings.FieldsSeq(string(before)) {
		if strings.HasPrefix(word, "C:") && word != "C:"+host {
			require.Contains(t, string(after), word, "removing %s from\n%s", host, before)
		}
	}
}

// writer writes an inventory as chance has it. Comments about a host are C:HOST.
type writer struct{ *rand.Rand }

func (w writer) pick(s ...string) string { return s[w.IntN(len(s))] }

func (w writer) inventory() string {
	n := 1 + w.IntN(4)
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = w.pick(fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("'10.0.0.%d'", i+1), fmt.Sprintf(`"fd00::%d"`, i+1))
	}
	step := w.pick("  ", "    ")
	other := "pg:\n" + step + "hosts: { 10.0.0.1: { pg_seq: 1 } }\n"
	vars := w.pick("", "vars: { etcd_cluster: etcd }", "vars:\n"+step+"etcd_cluster: etcd # C:cluster")
	var s string
	switch w.IntN(3) {
	case 0: // everything on a line
		inner := "{ hosts: " + w.flowLine(hosts) + " }"
		s = "etcd: " + inner + w.pick("", " # C:etcd") + "\n" + other
	case 1:
		s = "etcd:\n" + indent(step, "hosts:"+w.pick("", " # C:hosts")+"\n"+w.block(hosts, step)+vars) + "\n" + other
	default:
		s = "etcd:\n" + indent(step, "hosts: "+w.flowLines(hosts)+w.pick("", " # C:hosts")+"\n"+vars) + "\n" + other
	}
	if w.IntN(2) == 0 { // our group last
		i := strings.Index(s, "pg:\n")
		s = other + s[:i]
	}
	if w.IntN(2) == 0 {
		s = "all:\n  children:\n" + indent("    ", s)
	}
	s = w.pick("", "---\n", "# C:head\n", "\ufeff") + s
	// Without a last newline a block of text would have another value.
	if short := strings.TrimRight(s, "\n"); w.IntN(3) == 0 && !strings.HasSuffix(short, "# no comment") {
		s = short
	}
	if w.IntN(3) == 0 {
		s = strings.ReplaceAll(s, "\n", "\r\n")
	}
	return s
}

// indent moves every line but empty ones to the right.
func indent(by, s string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		if strings.TrimSpace(l) != "" {
			b.WriteString(by)
		}
		b.WriteString(l)
	}
	return b.String()
}

func (w writer) value(seq int) string {
	return fmt.Sprintf(w.pick("{ etcd_seq: %d }", "{etcd_seq: %d}", "{ etcd_seq: %d , note: \"a, } b\" }", "{ note: it's, etcd_seq: %d, }", "{ l: [ 1, { a: ']' } ], etcd_seq: %d }"), seq)
}

func name(host string) string { return strings.Trim(host, `'"`) }

func (w writer) flowLine(hosts []string) string {
	var parts []string
	for i, h := range hosts {
		parts = append(parts, h+": "+w.value(i+1))
	}
	return w.pick("{ ", "{") + strings.Join(parts, w.pick(", ", ",", " , ")) + w.pick(" }", "}", ", }", ",}")
}

func (w writer) flowLines(hosts []string) string {
	var b strings.Builder
	b.WriteString("{" + w.pick("", " # C:open") + "\n")
	gap := w.pick("  ", "    ")
	for i, h := range hosts {
		if w.IntN(4) == 0 {
			b.WriteString(w.pick("\n", gap+"# C:before"+fmt.Sprint(i)+"\n", gap+"#10.0.0.50: { etcd_seq: 50 }\n", gap+"# 10.0.0.50: { etcd_seq: 50 },\n"))
		}
		b.WriteString(gap + h + ": " + w.value(i+1))
		if i < len(hosts)-1 {
			b.WriteString(w.pick(",", " ,"))
		} else {
			b.WriteString(w.pick(",", ""))
			if w.IntN(4) == 0 {
				b.WriteString(" }")
				return b.String()
			}
		}
		b.WriteString(w.pick("", " # C:"+name(h)) + "\n")
	}
	b.WriteString(w.pick("", "# C:end\n", gap+"#10.0.0.50: { etcd_seq: 50 }\n", gap+"# 10.0.0.50: { etcd_seq: 50 } # lent\n") + w.pick("", " ") + "}")
	return b.String()
}

func (w writer) block(hosts []string, step string) string {
	var b strings.Builder
	for i, h := range hosts {
		if w.IntN(4) == 0 {
			b.WriteString(w.pick("\n", step+"# C:before"+fmt.Sprint(i)+"\n", "#10.0.0.50: { etcd_seq: 50 }\n", step+"# 10.0.0.50:\n"+step+"#   etcd_seq: 50\n"))
		}
		b.WriteString(step + h + ":")
		c := w.pick("", " # C:"+name(h))
		switch w.IntN(4) {
		case 0:
			fmt.Fprintf(&b, "%s\n%[2]s%[2]setcd_seq: %[3]d\n", c, step, i+1)
		case 1:
			fmt.Fprintf(&b, "\n%[1]s%[1]setcd_seq: %[2]d%[3]s\n%[1]s%[1]stext: |\n%[1]s%[1]s 10.0.0.7: { etcd_seq: 7 }\n\n%[1]s%[1]s  # no comment\n", step, i+1, c)
		case 2:
			fmt.Fprintf(&b, " {\n%[1]s%[1]setcd_seq: %[2]d\n%[1]s}%[3]s\n", step, i+1, c)
		default:
			b.WriteString(" " + w.value(i+1) + c + "\n")
		}
	}
	b.WriteString(w.pick("", "\n", "# C:end\n", step+"#10.0.0.50: { etcd_seq: 50 } # lent\n"))
	return b.String()
}
