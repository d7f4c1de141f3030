package scenarios_test

import (
	"os"
	"testing"

	"github.com/etcdrill/etcdrill/lab/embedded"
)

func TestMain(m *testing.M) {
	embedded.Main(os.Args)
	play(os.Args)
	os.Exit(m.Run())
}
