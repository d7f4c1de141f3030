package scenarios_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/scenarios"
)

func TestMain(m *testing.M) {
	embedded.Main(os.Args)
	play(os.Args)
	status := m.Run()
	if err := scenarios.RemoveExecutable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}
