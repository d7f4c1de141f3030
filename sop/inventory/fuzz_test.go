package inventory

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// seeds are the inventories in testdata, transcripts included.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var all [][]byte
	files, err := filepath.Glob("testdata/*.yml")
	require.NoError(f, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(f, err)
		all = append(all, content, bytes.ReplaceAll(content, []byte("\n"), []byte("\r\n")), bytes.TrimRight(content, "\n"))
	}
	transcripts, err := filepath.Glob("testdata/*.txt")
	require.NoError(f, err)
	for _, file := range transcripts {
		content, err := os.ReadFile(file)
		require.NoError(f, err)
		for part := range strings.SplitSeq(string(content), "\n----\n") {
			for _, cmd := range []string{"lint", "group", "add ", "remove ", "parse"} {
				if i := strings.LastIndex(part, "\n"+cmd); i >= 0 {
					_, input, _ := strings.Cut(part[i+1:], "\n")
					all = append(all, []byte(input))
					break
				}
			}
		}
	}
	return all
}

// FuzzParse: whatever is read, reading and checking it never panics and always
// says the same.
func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		v, err := Parse("x.yml", content)
		if err != nil {
			return
		}
		again, err := Parse("x.yml", v.Bytes())
		require.NoError(t, err)
		for _, name := range append(v.Groups(), "etcd", "nope") {
			found := v.Lint(name)
			require.Equal(t, found, again.Lint(name))
			require.True(t, slices.IsSortedFunc(found, func(a, b Finding) int { return a.Line - b.Line }))
			if g, err := v.Group(name); err == nil {
				for _, h := range g.Hosts {
					_, ok := g.Host(h.Name)
					require.True(t, ok)
					require.Less(t, h.Seq, g.NextSeq())
				}
			}
		}
		if name, err := v.Choose(""); err == nil {
			require.Contains(t, v.Groups(), name)
		}
	})
}

// FuzzEdit: adding a host and removing it again gives the same bytes, and
// neither an addition nor a removal touches another host or a variable.
func FuzzEdit(f *testing.F) {
	for i, s := range seeds(f) {
		f.Add(s, []string{"10.9.9.9", "fd00::99", "10.10.10.13"}[i%3], 40+i)
	}
	f.Fuzz(func(t *testing.T, content []byte, host string, seq int) {
		v, err := Parse("x.yml", content)
		if err != nil {
			return
		}
		for _, name := range append(v.Groups(), "etcd") {
			checkAdd(t, v, content, name, host, seq)
			g, err := v.Group(name)
			if err != nil || len(g.Hosts) == 0 {
				continue
			}
			gone := g.Hosts[seq&0xff%len(g.Hosts)].Name
			if after, err := RemoveHost(content, name, gone); err == nil {
				now, err := Parse("x.yml", after)
				require.NoError(t, err)
				g, err := now.Group(name)
				require.NoError(t, err)
				_, ok := g.Host(gone)
				require.False(t, ok)
				requireSameBut(t, v, now, gone)
			}
		}
	})
}

func checkAdd(t *testing.T, v *Inventory, content []byte, name, host string, seq int) {
	before := bytes.Clone(content)
	after, err := AddHost(content, name, host, seq)
	require.Equal(t, before, content, "the input was written to")
	if err != nil || bytes.Equal(after, content) {
		return
	}
	now, err := Parse("x.yml", after)
	require.NoError(t, err)
	g, err := now.Group(name)
	require.NoError(t, err)
	h, ok := g.Host(host)
	require.True(t, ok)
	require.Equal(t, seq, h.Seq)
	requireSameBut(t, v, now, host)

	same, err := AddHost(after, name, host, seq)
	require.NoError(t, err)
	require.Equal(t, string(after), string(same))

	if old, err := v.Group(name); err == nil && len(old.Hosts) == 0 {
		_, err := RemoveHost(after, name, host)
		require.ErrorIs(t, err, ErrLastHost)
		return
	}
	back, err := RemoveHost(after, name, host)
	require.NoError(t, err)
	if bytes.Count(after, []byte("#")) >= bytes.Count(content, []byte("#")) { // else it was put back from a comment
		require.Equal(t, string(content), string(back))
	}
}

// requireSameBut compares all that two inventories say, but for one host.
func requireSameBut(t *testing.T, a, b *Inventory, host string) {
	t.Helper()
	require.Equal(t, a.order, b.order)
	for _, name := range a.order {
		require.Equal(t, a.groups[name].parents, b.groups[name].parents)
		require.Equal(t, plainVars(a.groupVars(name)), plainVars(b.groupVars(name)))
		require.Equal(t, others(a, name, host), others(b, name, host))
	}
}

func plainVars(x values) map[string]any {
	m := map[string]any{}
	for k, v := range x {
		budget := 1000
		m[k] = plain(v.value, 0, &budget)
	}
	return m
}

func others(v *Inventory, group, host string) []Host {
	g, err := v.Group(group)
	if err != nil {
		return nil
	}
	var hosts []Host
	for _, h := range g.Hosts {
		if !sameHost(h.Name, host) {
			h.Line = 0
			hosts = append(hosts, h)
		}
	}
	return hosts
}
