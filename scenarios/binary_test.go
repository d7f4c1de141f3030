package scenarios

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var binary = flag.String("etcdrill", "", "the etcdrill binary for operators; compiled when empty")

// compiledIn is the directory of the compiled binary; empty when there is none.
var compiledIn string

// compiled is the etcdrill binary that users have, as the README says: one that
// needs nothing of the machine that it runs on. It is compiled once for all tests.
var compiled = sync.OnceValues(func() (string, error) {
	if *binary != "" {
		return filepath.Abs(*binary)
	}
	dir, err := os.MkdirTemp("", "etcdrill")
	if err != nil {
		return "", err
	}
	compiledIn = dir
	path := filepath.Join(dir, "etcdrill")
	cmd := exec.Command("go", "tool", "mage", "-compile", path)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return path, cmd.Run()
})

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := compiled()
	require.NoError(t, err, "compile etcdrill")
	return path
}

// Executable gives the binary to the tests outside of the package.
func Executable(t *testing.T) string { return testBinary(t) }

// RemoveExecutable removes what was compiled; TestMain calls it.
func RemoveExecutable() error {
	if compiledIn == "" {
		return nil
	}
	return os.RemoveAll(compiledIn)
}
