package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcdrill/etcdrill/sop/host"
)

// A unit is a service as the service manager knows it. All of it is guarded
// by Machine.mu.
type unit struct {
	name string
	def  *definition // as of the last load

	active, sub string
	cmd         *exec.Cmd  // main process, nil when none
	program     string     // that the present run executes, for whoever asks who listens
	ready       *readiness // nil for a unit that does not notify
	notify      string     // path of its socket in the root
	since       time.Time
	exit        int
	run         int         // which run this is, so that what is late can be told
	timer       *time.Timer // of the present sub state
	begun       []time.Time // starts within the rate limit's interval

	quit     bool // a stop was asked for: no automatic restart
	again    bool // start once the process is gone
	timedOut bool // ended by the manager because it took too long

	starting *job   // whoever waits for the unit to be up
	stopping []*job // whoever waits for its process to be gone
}

// A job is something that systemctl waits for.
type job struct {
	done chan struct{}
	err  error // said, set before done is closed
}

func newJob() *job { return &job{done: make(chan struct{})} }

func (j *job) finish(err error) *job {
	j.err = err
	close(j.done)
	return j
}

// Exit statuses of systemd itself, for what goes wrong before the program.
const (
	exitChdir = 200
	exitExec  = 203
	exitUser  = 217
)

func (m *Machine) unit(name string) *unit {
	u := m.units[name]
	if u == nil {
		u = &unit{name: name, active: "inactive", sub: "dead"}
		m.units[name] = u
	}
	return u
}

func (m *Machine) load(u *unit) { u.def = m.root.definition(u.name) }

// show is what systemctl show tells. A unit that nothing was asked of yet is
// read from the disk and not kept.
func (m *Machine) show(name string) host.Unit {
	u := m.units[name]
	if u == nil {
		u = &unit{active: "inactive", sub: "dead"}
	}
	def, disk := u.def, m.root.definition(name)
	if def == nil {
		def = disk
	}
	shown := host.Unit{
		Load:    def.load,
		Active:  u.active,
		Sub:     u.sub,
		Enabled: m.root.enabled(name, disk),
		Since:   u.since,
		Exit:    u.exit,
		Path:    def.path,
		Env:     slices.Clone(def.env),
		Stale:   u.def != nil && !reflect.DeepEqual(u.def, disk),
	}
	if u.cmd != nil {
		shown.PID = u.cmd.Process.Pid
	}
	return shown
}

// systemctl does what systemctl does, waiting included.
func (m *Machine) systemctl(ctx context.Context, a host.Systemctl) error {
	m.mu.Lock()
	if !m.on {
		m.mu.Unlock()
		return m.unreachable()
	}
	j, err := m.request(a)
	m.mu.Unlock()
	if err != nil {
		return m.failure(a, err)
	}
	if j == nil || a.NoBlock {
		return nil
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		// The job goes on in the service manager, as it would when an
		// administrator interrupts systemctl.
		return fmt.Errorf("%s on %s: %w: %w", a, m.name, host.ErrUnknown, ctx.Err())
	}
	if errors.Is(j.err, host.ErrUnknown) {
		return fmt.Errorf("%s on %s: %w", a, m.name, j.err)
	}
	return m.failure(a, j.err)
}

// request takes what is asked for; the job, when there is one, is to be waited for.
func (m *Machine) request(a host.Systemctl) (*job, error) {
	if a.Verb == host.DaemonReload {
		m.reload()
		return nil, nil
	}
	if a.Unit == "" || strings.Contains(a.Unit, "/") || !strings.HasSuffix(a.Unit, ".service") {
		return nil, saidf("Failed to %s %s: a lab host knows only units whose name ends in .service.", a.Verb, a.Unit)
	}
	switch a.Verb {
	case host.Start, host.Restart:
		u := m.unit(a.Unit)
		if u.def == nil || u.def.load == "not-found" {
			m.load(u)
		}
		if err := loadable(a, u); err != nil {
			if u.active == "inactive" && u.def.load == "not-found" {
				delete(m.units, a.Unit)
			}
			return nil, err
		}
		if a.Verb == host.Restart {
			return m.restart(u), nil
		}
		return m.start(u), nil
	case host.Stop:
		u := m.unit(a.Unit)
		if u.def == nil {
			m.load(u)
		}
		if u.def.load == "not-found" && u.active == "inactive" {
			delete(m.units, a.Unit)
			return nil, saidf("Failed to stop %s: Unit %s not loaded.", a.Unit, a.Unit)
		}
		return m.stop(u), nil
	case host.ResetFailed:
		u := m.units[a.Unit]
		if u == nil {
			if m.root.definition(a.Unit).load == "not-found" {
				return nil, saidf("Failed to reset failed state of unit %s: Unit %s not loaded.", a.Unit, a.Unit)
			}
			return nil, nil
		}
		u.begun = nil
		if u.active == "failed" {
			u.active, u.sub = "inactive", "dead"
		}
		return nil, nil
	case host.Reload:
		return m.hup(a.Unit)
	case host.Enable, host.Disable, host.Mask, host.Unmask:
		err := m.unitFile(a.Verb, a.Unit)
		if err == nil {
			m.reload() // systemctl asks for it by itself after these
		}
		return nil, err
	}
	return nil, saidf("Unknown command verb '%s'.", a.Verb)
}

func loadable(a host.Systemctl, u *unit) error {
	why := ""
	switch u.def.load {
	case "loaded":
		return nil
	case "masked":
		why = "is masked"
	case "bad-setting":
		why = "has a bad unit file setting: " + u.def.problem
	default:
		why = "not found"
	}
	return saidf("Failed to %s %s: Unit %s %s.", a.Verb, a.Unit, a.Unit, why)
}

// reload reads the files of all units that were loaded before anew.
func (m *Machine) reload() {
	for _, u := range m.units {
		if u.def != nil {
			m.load(u)
		}
	}
}

// unitFile makes and removes the links that the verb stands for.
func (m *Machine) unitFile(verb host.Verb, name string) error {
	etc, err := m.root.resolve(unitDir, true)
	if err != nil {
		return err
	}
	at := m.root.path(path.Join(etc, name))
	def := m.root.definition(name)
	switch verb {
	case host.Mask:
		if m.root.link(path.Join(etc, name)) == "/dev/null" {
			return nil
		}
		err := os.Symlink("/dev/null", at)
		if errors.Is(err, fs.ErrExist) {
			return saidf("Failed to mask unit: File '%s' already exists.", path.Join(unitDir, name))
		}
		return m.inside(err)
	case host.Unmask:
		if m.root.link(path.Join(etc, name)) != "/dev/null" {
			return nil
		}
		return m.inside(os.Remove(at))
	case host.Enable:
		switch def.load {
		case "not-found":
			return saidf("Failed to enable unit: Unit file %s does not exist.", name)
		case "masked":
			return saidf("Failed to enable unit: Unit file %s is masked.", def.path)
		}
		for _, target := range def.wantedBy {
			wants := m.root.path(path.Join(etc, target+".wants"))
			if err := os.MkdirAll(wants, 0o755); err != nil {
				return m.inside(err)
			}
			err := os.Symlink(def.path, filepath.Join(wants, name))
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return m.inside(err)
			}
		}
		return nil
	case host.Disable:
		found := false
		for _, entry := range m.root.list(etc) {
			if !strings.HasSuffix(entry, ".target.wants") {
				continue
			}
			err := os.Remove(m.root.path(path.Join(etc, entry, name)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return m.inside(err)
			}
			found = found || err == nil
		}
		if !found && def.load == "not-found" {
			return saidf("Failed to disable unit: Unit file %s does not exist.", name)
		}
	}
	return nil
}

// start brings a unit up, or joins whoever is doing so already.
func (m *Machine) start(u *unit) *job {
	if u.active == "active" {
		return newJob().finish(nil)
	}
	if u.starting == nil {
		u.starting = newJob()
	}
	j := u.starting
	switch {
	case u.active == "deactivating":
		u.again = true
	case u.sub == "auto-restart" || u.active == "activating":
		// The next attempt, or the present one, will tell.
	default:
		m.launch(u)
	}
	return j
}

// stop takes a unit down and forbids to restart it.
func (m *Machine) stop(u *unit) *job {
	j := newJob()
	u.again = false
	m.cancelStart(u)
	switch {
	case u.sub == "auto-restart":
		m.quiet(u)
		u.active, u.sub = "inactive", "dead"
		m.note(u, "Stopped, the scheduled restart is called off.")
		return j.finish(nil)
	case u.cmd == nil:
		return j.finish(nil)
	}
	u.quit = true
	u.stopping = append(u.stopping, j)
	if u.active != "deactivating" {
		m.terminate(u)
	}
	return j
}

func (m *Machine) restart(u *unit) *job {
	if u.cmd != nil {
		m.stop(u)
		u.again = true
		u.starting = newJob()
		return u.starting
	}
	m.cancelStart(u)
	m.quiet(u) // of an automatic restart
	u.starting = newJob()
	j := u.starting
	m.launch(u)
	return j
}

// cancelStart tells whoever waits for the unit to be up that it will not.
func (m *Machine) cancelStart(u *unit) {
	if u.starting != nil {
		u.starting.finish(saidf("Job for %s canceled.", u.name))
		u.starting = nil
	}
}

// closeReady does away with the notify socket of a run that is over.
func (m *Machine) closeReady(u *unit) {
	if u.ready != nil {
		u.ready.close()
		u.ready = nil
	}
}

// quiet ends the timer of a sub state.
func (m *Machine) quiet(u *unit) {
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
}

// after does something when a sub state has lasted too long; 0 is for ever.
func (m *Machine) after(u *unit, d time.Duration, do func()) {
	m.quiet(u)
	if d <= 0 {
		return
	}
	run, sub := u.run, u.sub
	u.timer = time.AfterFunc(d, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.on && m.units[u.name] == u && u.run == run && u.sub == sub {
			do()
		}
	})
}

// terminate sends SIGTERM, and SIGKILL when that does not help in time.
func (m *Machine) terminate(u *unit) {
	u.active, u.sub = "deactivating", "stop-sigterm"
	_ = u.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already, which exited will tell
	_ = u.cmd.Process.Signal(syscall.SIGCONT) // a frozen process could not obey
	m.after(u, u.def.timeoutStop, func() {
		u.timedOut = true
		u.sub = "stop-sigkill"
		m.note(u, "State 'stop-sigterm' timed out. Killing.")
		_ = u.cmd.Process.Kill()
	})
}

// launch begins a run. What goes wrong is told through the state and the job.
func (m *Machine) launch(u *unit) {
	m.quiet(u)
	u.again, u.quit, u.timedOut = false, false, false
	if err := loadable(host.Systemctl{Verb: host.Start, Unit: u.name}, u); err != nil {
		m.dead(u, "resources", err) // masked since the last run
		return
	}
	now := m.config.Now()
	u.begun = slices.DeleteFunc(u.begun, func(t time.Time) bool { return now.Sub(t) > u.def.interval })
	if u.def.burst > 0 && u.def.interval > 0 && len(u.begun) >= u.def.burst {
		m.note(u, "Start request repeated too quickly.")
		m.dead(u, "start-limit-hit", nil)
		return
	}
	u.begun = append(u.begun, now)
	u.run++
	u.exit = 0
	cmd, status, err := m.prepare(u)
	if err != nil {
		m.note(u, err.Error())
		if status == noStatus {
			m.dead(u, "resources", nil)
			return
		}
		u.active, u.sub = "activating", "start"
		if u.def.kind == "simple" { // started, for systemd, as soon as it has forked
			m.up(u)
		}
		m.exited(u, status, false)
		return
	}
	if u.def.notify() {
		u.ready, err = m.listenReady(u.notify)
		if err != nil {
			m.note(u, err.Error())
			m.dead(u, "resources", nil)
			return
		}
	}
	log, err := os.OpenFile(m.Journal(u.name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err == nil {
		cmd.Stdout, cmd.Stderr = log, log
		err = m.config.Spawn(cmd)
		_ = log.Close() // the process has its own
	}
	if err != nil {
		m.note(u, "Failed to spawn: "+err.Error())
		m.closeReady(u)
		m.dead(u, "resources", nil)
		return
	}
	u.cmd, u.program, u.since = cmd, path.Base(u.def.exec[0]), now
	if u.def.notify() {
		u.active, u.sub = "activating", "start"
		m.after(u, u.def.timeoutStart, func() {
			u.timedOut = true
			m.note(u, "start operation timed out. Terminating.")
			m.terminate(u)
		})
		m.children.Add(1)
		go m.awaitReady(u, u.run, u.ready)
	} else {
		m.up(u)
	}
	m.children.Add(1)
	go m.await(u, u.run, cmd, u.ready)
}

// up marks a unit as running.
func (m *Machine) up(u *unit) {
	m.quiet(u)
	u.active, u.sub = "active", "running"
	m.note(u, "Started.")
	if u.starting != nil {
		u.starting.finish(nil)
		u.starting = nil
	}
}

// await reaps the main process of a run.
func (m *Machine) await(u *unit, run int, cmd *exec.Cmd, r *readiness) {
	defer m.children.Done()
	_ = cmd.Wait() // the process state says it all
	if r != nil {
		r.finish() // "ready, and now I end" is to be heard in that order
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[u.name] != u || u.run != run || u.cmd != cmd {
		return // the power is gone
	}
	u.cmd = nil
	if cmd.ProcessState == nil { // someone else has reaped it: a lab that ends
		m.exited(u, int(syscall.SIGKILL), true)
		return
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		m.exited(u, int(status.Signal()), true)
		return
	}
	m.exited(u, cmd.ProcessState.ExitCode(), false)
}

// exited judges how a main process ended. As in systemd, the signals that
// administrators stop things with are a clean end.
func (m *Machine) exited(u *unit, status int, signaled bool) {
	m.quiet(u)
	m.closeReady(u)
	u.exit, u.since = status, time.Time{}
	clean := !signaled && (status == 0 || u.def.ignoreFailure)
	if signaled {
		switch syscall.Signal(status) {
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE:
			clean = true
		}
		m.note(u, fmt.Sprintf("Main process exited, killed by signal %d.", status))
	} else {
		m.note(u, fmt.Sprintf("Main process exited with status %d.", status))
	}
	result := "success"
	switch {
	case u.timedOut:
		result = "timeout"
	case clean && u.sub == "start":
		result = "protocol" // it never said that it was ready
	case !clean && signaled:
		result = "signal"
	case !clean:
		result = "exit-code"
	}
	m.dead(u, result, nil)
}

// dead ends a run, with or without a process, and decides what comes next.
func (m *Machine) dead(u *unit, result string, why error) {
	m.quiet(u)
	for _, j := range u.stopping {
		j.finish(nil)
	}
	u.stopping = nil
	u.active, u.sub = "inactive", "dead"
	if result != "success" {
		u.active, u.sub = "failed", "failed"
		m.note(u, "Failed with result '"+result+"'.")
	}
	if u.again {
		m.launch(u)
		return
	}
	if u.starting != nil {
		if why == nil {
			why = jobFailure(u.name, result)
		}
		u.starting.finish(why)
		u.starting = nil
	}
	if u.quit || !u.def.restarts(result) {
		return
	}
	u.active, u.sub = "activating", "auto-restart"
	// A zero span would be no timer at all.
	m.after(u, max(u.def.restartDelay, time.Microsecond), func() {
		m.note(u, "Scheduled restart job.")
		m.launch(u)
	})
}

// restarts reads Restart=.
func (d *definition) restarts(result string) bool {
	if result == "start-limit-hit" || d.load != "loaded" {
		return false
	}
	switch d.restart {
	case "always":
		return true
	case "on-success":
		return result == "success"
	case "on-failure":
		return result != "success"
	case "on-abnormal":
		return result == "signal" || result == "timeout"
	}
	return false
}

// jobFailure is what systemctl start says of a unit that did not come up.
func jobFailure(name, result string) error {
	why := map[string]string{
		"exit-code": "failed because the control process exited with error code.",
		"signal":    "failed because a fatal signal was delivered to the control process.",
		"timeout":   "failed because a timeout was exceeded.",
		"protocol":  "failed because the service did not take the steps required by its unit configuration.",
		"resources": "failed because of unavailable resources or another system error.",
	}[result]
	if why == "" {
		why = "failed."
	}
	return saidf("Job for %s %s\nSee \"systemctl status %s\" and \"journalctl -xeu %s\" for details.", name, why, name, name)
}

// cut is the end of the power for a unit: no state is left, and nobody hears
// what came of what they had asked for.
func (m *Machine) cut(u *unit) {
	m.quiet(u)
	m.closeReady(u)
	lost := fmt.Errorf("%w: connection reset by peer", host.ErrUnknown)
	if u.starting != nil {
		u.starting.finish(lost)
		u.starting = nil
	}
	for _, j := range u.stopping {
		j.finish(lost)
	}
	u.stopping = nil
	if u.cmd != nil {
		_ = u.cmd.Process.Kill()
		u.cmd = nil // await still reaps it
	}
	u.again, u.quit = false, true
	u.active, u.sub, u.since = "inactive", "dead", time.Time{}
}

// note writes a line of the service manager's own into the unit's journal.
func (m *Machine) note(u *unit, text string) {
	m.journal.Lock()
	defer m.journal.Unlock()
	f, err := os.OpenFile(m.Journal(u.name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return // a journal that cannot be written stops no service
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fprintf(f, "%s %s systemd[1]: %s: %s\n", m.config.Now().UTC().Format(time.RFC3339Nano), m.name, u.name, text)
}
