package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// MemberName is argv[0] of a process that is to call MemberMain first thing.
const MemberName = "etcdrill-member"

// MemberMain is the main function of a process on a machine: mostly a member,
// which changes its root and runs etcd there. It takes the arguments after
// argv[0], as Machine writes them, and does not return.
func MemberMain(args []string) {
	if len(args) > 0 && args[0] == MemberName {
		args = args[1:]
	}
	if len(args) != 1 {
		die(2, errors.New("to be executed by a lab machine only"))
	}
	var t task
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		die(2, fmt.Errorf("read task: %w", err))
	}
	switch t.Role {
	case roleSockets, roleAddrs, roleTables:
		look := map[string]func() (string, error){roleSockets: listeningSockets, roleAddrs: interfaceAddrs, roleTables: socketTables}[t.Role]
		table, err := look()
		if err != nil {
			die(1, err)
		}
		fmt.Print(table)
		os.Exit(0)
	case roleListen:
		occupy(t)
	}
	// Only now, in the process itself: a binary that is not static could not
	// be executed with its root changed already.
	if err := syscall.Chroot(t.Root); err != nil {
		die(1, fmt.Errorf("chroot to %s: %w", t.Root, err))
	}
	if err := syscall.Chdir(t.Dir); err != nil {
		die(exitChdir, fmt.Errorf("chdir to %s: %w", t.Dir, err))
	}
	switch t.Role {
	case roleEtcd:
		serve(t)
	case roleEtcdutl:
		said, err := utility(t.Args)
		if err != nil {
			die(1, err)
		}
		fmt.Print(said)
		os.Exit(0)
	case roleIdle:
		idle(t)
	case roleExec:
		err := syscall.Exec(t.Args[0], t.Args, t.Env)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: it, or the dynamic loader that it wants: a lab host runs statically linked programs only", err)
		}
		die(exitExec, fmt.Errorf("execute %s: %w", t.Args[0], err))
	}
	die(2, fmt.Errorf("unknown role %q", t.Role))
}

func die(status int, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", MemberName, err)
	os.Exit(status)
}

// serve is etcd's own main function, as far as it concerns a server that is
// configured by a file: the same order of events, the same exit statuses.
func serve(t task) {
	file := ""
	for i, arg := range t.Args[1:] {
		name, value, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case arg == "--version":
			fmt.Printf("etcd Version: %s\n", version.Version)
			os.Exit(0)
		case name == "config-file" && given:
			file = value
		case name == "config-file" && i+2 < len(t.Args):
			file = t.Args[i+2]
		}
	}
	if file == "" {
		var err error
		if file, err = gathered(t); err != nil {
			die(1, fmt.Errorf("gather the configuration: %w", err))
		}
	}
	cfg, err := embed.ConfigFromFile(file)
	if err != nil {
		die(1, fmt.Errorf("failed to verify flags: %w", err))
	}
	cfg.SetupGlobalLoggers()
	if cfg.Dir == "" {
		cfg.Dir = cfg.Name + ".etcd"
	}
	if _, err := os.ReadDir(cfg.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		die(1, fmt.Errorf("failed to list data directory: %w", err))
	}
	if cfg.WarningUnaryRequestDuration == 0 {
		cfg.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		die(1, fmt.Errorf("failed to start: %w", err))
	}
	// Until it is ready, SIGTERM simply ends a real etcd, and so this one.
	select {
	case <-e.Server.ReadyNotify():
	case <-e.Server.StopNotify():
	}
	var interrupted sync.Mutex
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		sig := <-signals
		interrupted.Lock() // for good: the end is by this signal
		cfg.GetLogger().Info("received signal; shutting down", zap.Stringer("signal", sig))
		e.Close()
		fall(sig.(syscall.Signal))
	}()
	if err := ready(t.Notify); err != nil {
		cfg.GetLogger().Error("failed to notify systemd for readiness", zap.Error(err))
	}
	select {
	case err := <-e.Err():
		die(1, fmt.Errorf("listener failed: %w", err))
	case <-e.Server.StopNotify():
	}
	// A server that was removed from its cluster stops by itself, and that is
	// status 0.
	interrupted.Lock()
	os.Exit(0)
}

// fall ends this process by a signal.
func fall(sig syscall.Signal) {
	signal.Reset(sig)
	_ = syscall.Kill(os.Getpid(), sig)
	select {}
}

// ready tells the service manager that the service is up.
func ready(socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}

func idle(t task) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	tell, brief, stubborn := true, false, false
	for _, arg := range t.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--status":
			status, err := strconv.Atoi(value)
			if err != nil {
				die(2, err)
			}
			os.Exit(status)
		case "--unready":
			tell = false
		case "--brief":
			brief = true
		case "--stubborn":
			stubborn = true
		}
	}
	if tell {
		if err := ready(t.Notify); err != nil {
			die(1, err)
		}
	}
	if brief {
		os.Exit(0)
	}
	for sig := range signals {
		switch {
		case sig == syscall.SIGHUP:
			fmt.Println(IdleReloaded)
		case !stubborn:
			fall(syscall.SIGTERM)
		}
	}
}

func occupy(t task) {
	l, err := net.Listen("tcp", ":"+t.Args[1])
	if err != nil {
		die(1, err)
	}
	fmt.Print(listening)
	for {
		conn, err := l.Accept()
		if err != nil {
			die(1, err)
		}
		_ = conn.Close()
	}
}
