package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestData plays the transcripts in testdata. `go test -rewrite` writes them.
func TestData(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			datadriven.RunTest(t, file, play)
		})
	}
}

func play(t *testing.T, d *datadriven.TestData) string {
	content := []byte(d.Input)
	if d.HasArg("file") {
		var name string
		d.ScanArgs(t, "file", &name)
		var err error
		content, err = os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
	}
	var group, host string
	seq := 0
	d.MaybeScanArgs(t, "group", &group)
	d.MaybeScanArgs(t, "host", &host)
	d.MaybeScanArgs(t, "seq", &seq)
	if group == "" {
		group = "etcd"
	}

	var after []byte
	var err error
	switch d.Cmd {
	case "parse":
		if _, err = Parse("x.yml", content); err == nil {
			return "ok"
		}
		return "error: " + err.Error()
	case "lint":
		v, err := Parse("x.yml", content)
		if err != nil {
			return "error: " + err.Error()
		}
		var b strings.Builder
		for _, f := range v.Lint(group) {
			fmt.Fprintln(&b, f)
		}
		if b.Len() == 0 {
			return "nothing to say"
		}
		return b.String()
	case "group":
		v, err := Parse("x.yml", content)
		require.NoError(t, err)
		g, err := v.Group(group)
		if err != nil {
			return "error: " + err.Error()
		}
		return show(v, g)
	case "add":
		after, err = AddHost(content, group, host, seq)
	case "remove":
		after, err = RemoveHost(content, group, host)
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	if err != nil {
		return "error: " + err.Error()
	}
	if diff := Diff("x.yml", content, after); diff != "" {
		return strings.ReplaceAll(diff, "\r", "<CR>")
	}
	return "no change"
}

func show(v *Inventory, g *Group) string {
	var b strings.Builder
	fmt.Fprintf(&b, "groups=%v lab=%q\n", v.Groups(), v.Lab)
	fmt.Fprintf(&b, "%s: cluster=%s clean=%t safeguard=%t ports=%d,%d data=%s wal=%s election=%d heartbeat=%d quota=%d\n",
		g.Name, g.Cluster, g.Clean, g.Safeguard, g.ClientPort, g.PeerPort, g.DataDir, g.WALDir, g.ElectionMs, g.HeartbeatMs, g.QuotaBytes)
	fmt.Fprintf(&b, "password=%q version=%q validity=%s package=%s binary=%s unit=%s infra=%v admin=%q next=%d\n",
		g.RootPassword, g.Version, g.CertValidity, g.Package, g.Binary, g.Unit, g.InfraHosts, g.AdminHost, g.NextSeq())
	for _, h := range g.Hosts {
		fmt.Fprintf(&b, "line %d: %s %s %s seq=%d,%t data=%s wal=%s ssh=%s@%s:%d key=%q become=%t,%s over %s\n", h.Line, g.MemberName(h),
			g.PeerURL(h), g.ClientURL(h), h.Seq, h.HasSeq, h.DataDir, h.WALDir, h.SSHUser, h.Addr, h.SSHPort, h.SSHKey, h.Become, h.BecomeUser, h.Connection)
	}
	return b.String()
}
