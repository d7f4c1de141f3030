package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main(os.Args)
	if len(os.Args) > 2 && os.Args[1] == "inside" {
		os.Exit(inside(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// inside is what this binary does as a process in a lab, or as a creator that
// is to be killed.
func inside(what string, args []string) int {
	ctx := context.Background()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch what {
	case "echo": // serves the address, one line that says so, sends back what comes
		l, err := net.Listen("tcp", args[0])
		if err != nil {
			return fail(err)
		}
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			if err != nil {
				return fail(err)
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	case "talk": // keeps a connection open and never ends
		c, err := net.Dial("tcp", args[0])
		if err != nil {
			return fail(err)
		}
		fmt.Println("talking")
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return fail(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				return fail(err)
			}
		}
	case "dial": // prints how a connection fails
		d := net.Dialer{Timeout: 5 * time.Second}
		network := "tcp"
		if len(args) > 1 {
			network = args[1]
		}
		c, err := d.Dial(network, args[0])
		if err != nil {
			return fail(err)
		}
		_ = c.Close()
		fmt.Println("connected")
		return 0
	case "deaf": // ignores what can be ignored
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		fmt.Println("deaf")
		select {}
	case "forbidden": // tries where no network namespaces are to be had
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
			return fail(err)
		}
		_, err := Up(ctx, Spec{Root: args[0], Hosts: hosts4})
		if !errors.Is(err, ErrNoUserNamespaces) {
			return fail(fmt.Errorf("up: %w", err))
		}
		fmt.Println(err)
		fmt.Print(Text(Doctor(ctx, args[0])))
		return 0
	case "front": // starts a process in a lab, and tells its PID when it has said something
		lab, err := OpenSocket(ctx, args[0])
		if err != nil {
			return fail(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		p, err := lab.Exec(ctx, Admin, args[1:], nil, "/", nil, w, w)
		if err != nil {
			return fail(err)
		}
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			return fail(err)
		}
		fmt.Print(line)
		fmt.Println(p.PID())
		_, _ = p.Wait()
		return 0
	case "up": // makes a lab, says where, and stays
		keep := args[2] == "keep"
		lab, err := Up(ctx, Spec{Root: args[0], Name: args[1], Hosts: args[3:], Keep: keep})
		if err != nil {
			return fail(err)
		}
		fmt.Println(lab.Info().PID, lab.Info().Dir)
		if keep {
			return 0
		}
		select {}
	}
	return fail(fmt.Errorf("unknown role %q", what))
}

var hosts4 = []string{"10.10.10.10", "10.10.10.11", "10.10.10.12", "10.10.10.13"}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// root gives a directory for labs that is short enough for a socket.
func root(t testing.TB) string {
	dir, err := os.MkdirTemp("", "lab")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func up(t testing.TB, s Spec) *Lab {
	t.Helper()
	if s.Root == "" {
		s.Root = root(t)
	}
	if s.Hosts == nil {
		s.Hosts = hosts4
	}
	ctx := deadline(t)
	lab, err := Up(ctx, s)
	require.NoError(t, err)
	t.Cleanup(func() {
		if said, err := os.ReadFile(filepath.Join(lab.Info().Dir, logName)); err == nil {
			require.NotContains(t, string(said), "DATA RACE")
			require.NotContains(t, string(said), "goroutine ")
		}
		require.NoError(t, lab.Down(context.Background()))
		require.NoDirExists(t, lab.Info().Dir)
	})
	return lab
}

func executable(t testing.TB) string {
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// run starts a role of this binary inside a lab and returns when it has said
// its first line, which it gives.
func run(t testing.TB, lab *Lab, at, what string, args ...string) (*Process, string) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	p, err := lab.Exec(deadline(t), at, append([]string{executable(t), "inside", what}, args...), nil, "/", nil, w, w)
	require.NoError(t, err)
	_ = w.Close()
	line, _ := bufio.NewReader(r).ReadString('\n')
	return p, line
}

// output runs a role to its end.
func output(t testing.TB, lab *Lab, at, what string, args ...string) (int, string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	p, err := lab.Exec(deadline(t), at, append([]string{executable(t), "inside", what}, args...), nil, "/", nil, file, file)
	require.NoError(t, err)
	status, err := p.Wait()
	require.NoError(t, err)
	said, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	return status, string(said)
}
