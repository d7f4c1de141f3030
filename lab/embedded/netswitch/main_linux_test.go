package netswitch

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// TestMain gives a plain user what root has, in a user namespace of its own:
// network namespaces and packet sockets. Where that cannot be had, the tests
// that need it say so and are skipped.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 && !fuzzing() {
		if code, entered := inUserNamespace(); entered {
			os.Exit(code)
		}
	}
	goleak.VerifyTestMain(m)
}

// fuzzing reports a run that talks to its parent over inherited files, which
// another process in between would cut.
func fuzzing() bool {
	worker, fuzz := flag.Lookup("test.fuzzworker"), flag.Lookup("test.fuzz")
	return worker.Value.String() == "true" || fuzz.Value.String() != ""
}

// inUserNamespace runs this very test binary as root of a new user namespace.
func inUserNamespace() (code int, entered bool) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "no user namespace: %v\n", err)
		return 0, false
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintf(os.Stderr, "wait for tests in user namespace: %v\n", err)
		return 1, true
	}
	return cmd.ProcessState.ExitCode(), true
}
