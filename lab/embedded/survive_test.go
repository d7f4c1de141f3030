package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
)

var (
	rounds = flag.Int("rounds", 10, "how many labs to kill")
	seed   = flag.Uint64("seed", 0, "of the moments at which labs are killed; 0 takes one from the clock")
)

// plainUser is a user that exists nowhere, so that nothing else is his.
const plainUser = 64087

// TestSurvivesKills kills labs at random moments, while they come up, run and
// are at work, and demands that the next one comes up at once and that nothing
// stays behind.
func TestSurvivesKills(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano()) >> 1
	}
	t.Logf("uid %d, rerun with -rounds=%d -seed=%d", os.Getuid(), *rounds, s)
	random := rand.New(rand.NewPCG(s, 0))
	dir := root(t)
	before := ground(t)
	struck := map[string]int{}
	for i := range *rounds {
		ways := []struct {
			name   string
			strike func(*testing.T, *rand.Rand, string)
		}{
			{"supervisor at work", killAtWork},
			{"supervisor coming up", killComingUp},
			{"creator", killCreator},
		}
		way := ways[random.IntN(len(ways))]
		struck[way.name]++
		ok := t.Run(fmt.Sprintf("%d %s", i, way.name), func(t *testing.T) {
			way.strike(t, random, dir)
			if random.IntN(2) == 0 {
				_, err := Heal(deadline(t), dir)
				require.NoError(t, err)
			}
			again(t, dir)
			_, err := Heal(deadline(t), dir)
			require.NoError(t, err)
			nothingLeft(t, dir)
		})
		if !ok {
			break
		}
	}
	t.Logf("killed: %v", struck)
	require.Equal(t, before, ground(t), "interfaces and mounts of this machine")
}

// TestSurvivesKillsAsPlainUser is the same without privileges.
func TestSurvivesKillsAsPlainUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("this is a plain user already; the pass as root was not run")
	}
	dir := root(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "embedded.test")
	copyFile(t, executable(t), binary)
	temp := filepath.Join(dir, "t")
	require.NoError(t, os.Mkdir(temp, 0o755))
	require.NoError(t, os.Chown(temp, plainUser, plainUser))
	cmd := exec.Command(binary, "-test.v", "-test.run=^TestSurvivesKills$",
		"-rounds="+strconv.Itoa(*rounds), "-seed="+strconv.FormatUint(*seed, 10))
	cmd.Dir = temp
	cmd.Env = []string{"TMPDIR=" + temp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser, NoSetGroups: true}}
	said, err := cmd.CombinedOutput()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		loud := "NOT TESTED AS A PLAIN USER: " + err.Error()
		fmt.Fprintln(os.Stderr, loud)
		t.Skip(loud)
	}
	for line := range strings.Lines(string(said)) {
		if strings.Contains(line, "seed=") || strings.Contains(line, "killed:") {
			t.Log(strings.TrimSpace(line))
		}
	}
	require.NoError(t, err, "%s", said)
	require.Contains(t, string(said), "--- PASS: TestSurvivesKills")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

// moment lets a random time pass. It is no wait for anything: it picks where
// the blow falls.
func moment(random *rand.Rand, most time.Duration) {
	<-time.After(time.Duration(random.Int64N(int64(most))))
}

// killAtWork kills the supervisor of a lab in which connections are open, links
// are hurt and processes do not listen to signals.
func killAtWork(t *testing.T, random *rand.Rand, dir string) {
	lab, err := Up(deadline(t), Spec{Root: dir, Name: "x", Hosts: hosts4})
	require.NoError(t, err)
	pid := lab.Info().PID
	busy := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	hurt, off := random.IntN(2) == 0, random.IntN(3) == 0
	go func() {
		defer close(busy)
		self, _ := os.Executable()
		start := func(at string, args ...string) {
			r, w, err := os.Pipe()
			if err != nil {
				return
			}
			defer r.Close()
			_, err = lab.Exec(ctx, at, append([]string{self, "inside"}, args...), nil, "/", nil, w, w)
			_ = w.Close()
			if err == nil {
				_, _ = bufio.NewReader(r).ReadString('\n')
			}
		}
		start("10.10.10.11", "echo", "10.10.10.11:7")
		start("10.10.10.10", "talk", "10.10.10.11:7")
		start(Client, "talk", "10.10.10.11:7")
		start(Admin, "deaf")
		if hurt {
			_ = lab.Link(ctx, "10.10.10.10", "10.10.10.11", netswitch.Rule{Cut: true})
		}
		if off {
			_ = lab.Power(ctx, "10.10.10.11", false)
		}
	}()
	moment(random, 60*time.Millisecond)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	<-busy
	cancel()
}

// killComingUp kills the supervisor before its lab is up.
func killComingUp(t *testing.T, random *rand.Rand, dir string) {
	result := make(chan error, 1)
	go func() {
		lab, err := Up(context.Background(), Spec{Root: dir, Name: "x", Hosts: hosts4})
		if err == nil { // the blow came too late for that
			err = lab.Down(context.Background())
		}
		result <- err
	}()
	ctx := deadline(t)
	pid := 0
	for pid == 0 && ctx.Err() == nil {
		for _, p := range processes(t, dir) {
			if strings.HasPrefix(p.command, supervisorRole+" ") {
				pid = p.pid
			}
		}
		if len(result) > 0 {
			break
		}
		_ = pause(ctx)
	}
	moment(random, 40*time.Millisecond)
	if pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	select {
	case <-result: // an error or not: both are right
	case <-ctx.Done():
		require.NoError(t, ctx.Err())
	}
}

// killCreator kills the process that makes a lab, before or after it is up.
func killCreator(t *testing.T, random *rand.Rand, dir string) {
	keep := "end"
	if random.IntN(2) == 0 {
		keep = "keep"
	}
	cmd := exec.Command(executable(t), append([]string{"inside", "up", dir, "x", keep}, hosts4...)...)
	require.NoError(t, cmd.Start())
	moment(random, 120*time.Millisecond)
	require.NoError(t, ignoreDone(cmd.Process.Kill()))
	_ = cmd.Wait()
	// One that was told to stay stays, if it was up; else it ends by itself.
	ctx := deadline(t)
	for ctx.Err() == nil {
		lab, err := Open(ctx, filepath.Join(dir, "x"))
		if err == nil && keep == "keep" {
			if err := lab.Down(ctx); err == nil {
				return
			}
		}
		if err != nil && len(processes(t, dir)) == 0 {
			return
		}
		_ = pause(ctx)
	}
	require.NoError(t, ctx.Err())
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// again brings a lab of the same name up and looks whether it works.
func again(t *testing.T, dir string) {
	lab, err := Up(deadline(t), Spec{Root: dir, Name: "x", Hosts: hosts4})
	require.NoError(t, err)
	_, line := run(t, lab, "10.10.10.12", "echo", "10.10.10.12:7")
	require.Equal(t, "listening\n", line)
	conn, err := lab.DialContext(Client)(deadline(t), "10.10.10.12:7")
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("ping"))
	require.NoError(t, err)
	got := make([]byte, 4)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "ping", string(got))
	require.NoError(t, lab.Down(deadline(t)))
}

// nothingLeft demands that there is neither file nor process below a
// directory. Processes that were killed may need a moment to be gone.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, ".lock", e.Name(), "left in the directory of labs")
	}
	ctx := deadline(t)
	for {
		left := processes(t, dir)
		if len(left) == 0 {
			return
		}
		require.NoError(t, pause(ctx), "processes left: %v", left)
	}
}

type process struct {
	pid     int
	command string
}

// processes finds the processes, zombies apart, that name a directory on their
// command line, or work in it, or have anything in it open.
func processes(t *testing.T, dir string) []process {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil || strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " Z") {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		line := string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		ours := strings.Contains(line, dir+" ") || strings.Contains(line, dir+"/")
		links := []string{filepath.Join(proc, "cwd"), filepath.Join(proc, "root")}
		fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
		for _, fd := range fds {
			links = append(links, filepath.Join(proc, "fd", fd.Name()))
		}
		for _, link := range links {
			target, err := os.Readlink(link)
			ours = ours || err == nil && strings.HasPrefix(target, dir+"/")
		}
		if ours {
			found = append(found, process{pid, line})
		}
	}
	return found
}

// ground is what a lab must not change on this machine: interfaces that look
// like a lab's, and mounts.
func ground(t *testing.T) []string {
	t.Helper()
	var all []string
	interfaces, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "port") || i.Name == bridgeName || i.Index >= ethIndex && i.Name == ethName {
			all = append(all, i.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " - proc ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}
