package scenarios_test

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
)

// needsNoLoader looks at the binary that users have: it needs nothing of the
// machine that it runs on.
func needsNoLoader(t *testing.T, binary string) {
	t.Helper()
	file, err := elf.Open(binary)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	for _, p := range file.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type, "it wants a dynamic loader")
	}
}

// TestMage plays the scripts in testdata/mage with the compiled magefile: what
// a user types, sees, and gets as exit status.
//
// A script's own commands are
//
//	ends STATUS etcdrill ARGUMENT...
//	interrupted TEXT etcdrill ARGUMENT...
//	orphaned TEXT etcdrill ARGUMENT...
//	from-file VARIABLE FILE
//
// The first runs a command and demands its exit status; the second sends it
// SIGTERM once it has said TEXT, and demands status 130; the third kills the
// shell that it was started from instead; and the last sets a variable of the
// environment to what is in a file.
func TestMage(t *testing.T) {
	t.Parallel()
	binary := executable(t)
	needsNoLoader(t, binary)
	// Scripts play terminals that hang up; under nohup, what this process starts
	// would be meant to outlive them.
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangUps) })
	// Paths of sockets are short.
	root, err := os.MkdirTemp("", "mage")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(root)) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/mage",
		Condition: func(cond string) (bool, error) {
			if cond != "docker" {
				return false, fmt.Errorf("unknown condition %s", cond)
			}
			_, err := container.Answers(t.Context())
			return err == nil, nil
		},
		WorkdirRoot:   root,
		UpdateScripts: false,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("ETCDRILL", binary)
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			// A script that failed leaves its lab.
			e.Defer(func() {
				down := exec.Command(binary, "lab:down")
				down.Env = append(os.Environ(), "HOME="+e.WorkDir, "TMPDIR="+e.Getenv("TMPDIR"))
				if out, err := down.CombinedOutput(); err != nil {
					t.Errorf("lab:down: %v\n%s", err, out)
				}
			})
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ends":        ends,
			"interrupted": interrupted,
			"orphaned":    orphaned,
			"from-file": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
			},
		},
	})
}

func ends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ends STATUS COMMAND ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}

// interrupted sends SIGTERM to the command.
func interrupted(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupted TEXT COMMAND ARGUMENT...")
	}
	c := commandOf(ts, args[1:])
	hurt(ts, c, args[0], syscall.SIGTERM)
	if got := c.ProcessState.ExitCode(); got != 130 {
		ts.Fatalf("exit status %d, not 130", got)
	}
}

// orphaned kills the shell that started the command.
func orphaned(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: orphaned TEXT COMMAND ARGUMENT...")
	}
	hurt(ts, commandOf(ts, append([]string{"sh", "-c", `"$@" & wait`, "sh"}, args[1:]...)), args[0], syscall.SIGKILL)
}

func commandOf(ts *testscript.TestScript, args []string) *exec.Cmd {
	c := exec.Command(args[0], args[1:]...)
	if args[0] == "etcdrill" {
		first, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
		c = exec.Command(filepath.Join(first, args[0]), args[1:]...)
	}
	c.Dir = ts.MkAbs(".")
	c.Env = os.Environ()
	for _, name := range []string{"HOME", "INVENTORY", "PATH", "TMPDIR"} {
		c.Env = append(c.Env, name+"="+ts.Getenv(name))
	}
	return c
}

// hurt sends a signal to a command once it has said something, and waits until
// nobody is left who could say more. What was said is left as if by exec.
func hurt(ts *testscript.TestScript, c *exec.Cmd, text string, sig os.Signal) {
	said, err := c.StderrPipe()
	ts.Check(err)
	ts.Check(c.Start())
	var all strings.Builder
	lines := bufio.NewScanner(said)
	for sent := false; lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), text) {
			sent = true
			ts.Check(c.Process.Signal(sig))
		}
	}
	_ = c.Wait() // how it ended is for the caller to look at
	ts.Check(os.WriteFile(ts.MkAbs("said"), []byte(all.String()), 0o600))
	ts.Check(ts.Exec("sh", "-c", "cat said >&2"))
}
