package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop/pki"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// nowhere is a machine that cannot be reached.
type nowhere string

func (n nowhere) Host() string { return string(n) }
func (n nowhere) Exec(context.Context, io.Reader, io.Writer, ...string) error {
	return fmt.Errorf("machine %s is switched off", string(n))
}

func sketch(t *testing.T, generation int) *Cluster {
	t.Helper()
	ca, err := pki.NewCA(rand.Reader, time.Now())
	require.NoError(t, err)
	spec, err := Spec{Machines: []Machine{nowhere("10.10.10.21"), nowhere("10.10.10.22")}, VIP: netip.MustParsePrefix("10.10.10.2/24"),
		Endpoints: []string{"https://10.10.10.11:2379", "https://10.10.10.10:2379"}, CA: ca, Generation: generation,
		Random: rand.Reader, Clock: time.Now}.withDefaults()
	require.NoError(t, err)
	return &Cluster{spec: spec, instances: []instance{{"pg-test-1", spec.Machines[0]}, {"pg-test-2", spec.Machines[1]}}}
}

func TestFiles(t *testing.T) {
	for _, generation := range []int{3, 4} {
		c := sketch(t, generation)
		files, err := c.files(c.instances[0], pki.Pair{CertPEM: []byte("cert\n"), KeyPEM: []byte("key\n")}, secrets{"a", "b", "c"})
		require.NoError(t, err)
		var b bytes.Buffer
		for _, f := range files {
			switch {
			case f.link != "":
				fmt.Fprintf(&b, "%s -> %s\n", f.path, f.link)
			case f.content == nil:
				fmt.Fprintf(&b, "%s/ %s:%s %04o\n", f.path, f.owner, f.group, f.mode)
			default:
				fmt.Fprintf(&b, "%s %s:%s %04o\n", f.path, f.owner, f.group, f.mode)
				if filepath.Ext(f.path) == ".yml" && generation == 4 {
					fmt.Fprintf(&b, "%s\n", f.content)
				}
			}
		}
		golden := filepath.Join("testdata", fmt.Sprintf("pigsty%d.txt", generation))
		if *rewrite {
			require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String())

		last := files[len(files)-1]
		require.Contains(t, string(last.content), "etcd3:")
		l, err := listed(last.content, find(t, files, VIPManagerPath))
		require.NoError(t, err)
		voters := []string{"10.10.10.10:2379", "10.10.10.11:2379"}
		require.Equal(t, Listed{voters, voters}, l)
	}
}

func find(t *testing.T, files []file, path string) []byte {
	t.Helper()
	for _, f := range files {
		if f.path == path {
			return f.content
		}
	}
	t.Fatalf("%s is not among the files", path)
	return nil
}

func TestListed(t *testing.T) {
	l, err := listed([]byte("etcd3:\n  hosts: [b:2379, a:2379]\n"), []byte("dcs-endpoints: ['https://a:2379']\n"))
	require.NoError(t, err)
	require.Equal(t, Listed{[]string{"a:2379", "b:2379"}, []string{"a:2379"}}, l)
	for _, bad := range [][2]string{
		{"etcd3: {hosts: {a: b}}", "dcs-endpoints: []"},
		{"etcd3: {hosts: 'a:1'}", "dcs-endpoints: [nonsense]"},
		{"\tno", "dcs-endpoints: []"},
		{"etcd3: {hosts: 'a:1'}", "\tno"},
	} {
		_, err := listed([]byte(bad[0]), []byte(bad[1]))
		require.Error(t, err, "%q", bad)
	}
}

// What cannot be set up says what it was about.
func TestUpRefuses(t *testing.T) {
	good := sketch(t, 4).spec
	for says, spoil := range map[string]func(s *Spec){
		"no machines":                 func(s *Spec) { s.Machines = nil },
		"no IPv4 address":             func(s *Spec) { s.VIP = netip.Prefix{} },
		"no etcd endpoints":           func(s *Spec) { s.Endpoints = nil },
		"no CA":                       func(s *Spec) { s.CA = nil },
		"no layout of Pigsty 2":       func(s *Spec) { s.Generation = 2 },
		"no clock":                    func(s *Spec) { s.Clock = nil },
		"machine: ParseAddr":          func(s *Spec) { s.Machines = []Machine{nowhere("pg.example")} },
		"is not https://host:port":    func(s *Spec) { s.Endpoints = []string{"10.10.10.10:2379"} },
		"10.10.10.21 is switched off": func(s *Spec) {},
	} {
		spec := good
		spoil(&spec)
		_, err := Up(t.Context(), spec)
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "PRIVATE KEY")
	}
}
