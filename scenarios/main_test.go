package scenarios_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
)

func TestMain(m *testing.M) {
	embedded.Main(os.Args)
	play(os.Args)
	flag.Parse()
	for name, value := range container.Environment() {
		os.Setenv(name, value)
	}
	if err := manyLabs(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	status := m.Run()
	if err := scenarios.RemoveExecutable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// manyLabs lets more tests run at once than there are processors, unless the
// command line says how many: they spend their time waiting for etcd. Go begins
// with the last of them; so those that take longest stand in files whose names
// come last.
func manyLabs() error {
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if said {
		return nil
	}
	return flag.Set("test.parallel", "6")
}
