package scenarios_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container"
	"github.com/etcdrill/etcdrill/scenarios"
	"github.com/etcdrill/etcdrill/sop"
)

// Whatever is wrong with hosts, connections and operators, on real machines and
// by SSH: it is told in words that help, nothing is lost, and once it is mended
// the same command goes on to its end.
func TestFailures(t *testing.T) {
	t.Parallel()
	s := upSite(t, three, container.MachineSpec{Host: h10}, container.MachineSpec{Host: h11}, container.MachineSpec{Host: h12}, container.MachineSpec{Host: h13}, container.MachineSpec{Host: h14, Disk: 320 << 20})
	s.play(t, []part{
		{"no sudo", noSudo},
		{"as Pigsty leaves a host", asPigsty},
		{"wrong user", wrongUser},
		{"host key changed", hostKeyChanged},
		{"clock off", clockOff},
		{"port taken", portTaken},
		{"wrong CA", wrongCA},
		{"wrong CA on the newcomer", wrongCAOnNewcomer},
		{"interrupted", ctrlC},
		{"SSH cut in a write", cutInAWrite},
		{"disk full", diskFull},
		{"reboot before promotion", rebootBeforePromotion},
		{"nothing lost", nothingLost},
	})
}

// A site is a lab of machines with operators on this one.
type site struct {
	ctx        context.Context
	lab        *container.Lab
	executable string
	written    []string // keys that etcd has acknowledged
}

// upSite brings up machines, with an inventory that they stand for. They are taken
// down when the test has ended. Where there is no Docker the test is skipped,
// aloud.
func upSite(t *testing.T, inventory string, machines ...container.MachineSpec) *site {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // images may have to be made first
	t.Cleanup(cancel)
	root, cache := places(t)
	lab, err := container.Up(ctx, container.Spec{Root: root, Cache: cache, Inventory: []byte(inventory), Progress: t.Output(), Machines: machines})
	if errors.Is(err, container.ErrNoDocker) {
		t.Skipf("NOT TESTED: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Down(context.Background())) })
	return &site{ctx: ctx, lab: lab, executable: scenarios.Executable(t)}
}

// places are where labs of machines are, and what is kept for them: programs and
// images are made once for all tests.
func places(t *testing.T) (root, cache string) {
	t.Helper()
	base, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(base, "etcdrill", "containers"), filepath.Join(base, "etcdrill", "images")
}

// A part is some of what is done on a site. What comes after it begins where it
// ended.
type part struct {
	name string
	play func(t *testing.T, s *site)
}

// play plays parts in turn, up to the first that fails: where it stands then
// nothing can begin.
func (s *site) play(t *testing.T, parts []part) {
	t.Helper()
	for _, p := range parts {
		if !t.Run(p.name, func(t *testing.T) { p.play(t, s) }) {
			return
		}
	}
}

func (s *site) host(was string) string { return s.lab.Info().Host(was) }

func (s *site) machine(t *testing.T, was string) *container.Machine {
	t.Helper()
	m, err := s.lab.Machine(was)
	require.NoError(t, err)
	return m
}

// sh runs a script on a machine as root, past SSH.
func (s *site) sh(t *testing.T, was, script string) string {
	t.Helper()
	out, err := s.machine(t, was).Run(s.ctx, "/bin/sh", "-c", script)
	require.NoError(t, err)
	return strings.TrimSpace(out)
}

// etcdctl runs on a machine with the environment of a login there.
func (s *site) etcdctl(t *testing.T, was, args string) string {
	t.Helper()
	return s.sh(t, was, `bash -lc "etcdctl `+args+`"`)
}

// write puts a key that must be there in the end.
func (s *site) write(t *testing.T) {
	t.Helper()
	key := fmt.Sprintf("/kept/%d", len(s.written))
	require.Equal(t, "OK", s.etcdctl(t, h10, "put "+key+" "+key))
	s.written = append(s.written, key)
}

// members gives the hosts of voters, and of others with their lack, sorted.
func (s *site) members(t *testing.T) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(s.etcdctl(t, h10, "member list")) {
		f := strings.Split(strings.TrimSpace(line), ", ")
		host := strings.TrimSuffix(strings.TrimPrefix(f[3], "https://"), ":2380")
		if f[1] != "started" || f[5] != "false" {
			host += " pending"
		}
		all = append(all, host)
	}
	slices.Sort(all)
	return all
}

func (s *site) of(hosts ...string) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, s.host(h))
	}
	slices.Sort(all)
	return all
}

// An operation is an operator at work, as a process of its own.
type operation struct {
	cmd     *exec.Cmd
	said    bytes.Buffer
	state   string
	earlier []string
}

func (s *site) begin(t *testing.T, args ...string) *operation {
	t.Helper()
	inventory := s.lab.Info().Inventory
	home := filepath.Dir(inventory)
	o := &operation{state: filepath.Join(home, ".etcdrill")}
	o.earlier = o.runs(t)
	o.cmd = exec.CommandContext(s.ctx, s.executable, args...)
	o.cmd.Dir = home
	o.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HOME=" + home, "INVENTORY=" + inventory, "CLUSTER=etcd", "ETCDRILL_CALLED=etcdrill"}
	o.cmd.Stdout, o.cmd.Stderr = &o.said, &o.said
	require.NoError(t, o.cmd.Start())
	return o
}

// end waits for an operator's end. What it said is given as one line: its own
// are as wide as a terminal.
func (o *operation) end(t *testing.T) (status int, said string) {
	t.Helper()
	err := o.cmd.Wait()
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		require.NoError(t, err)
	}
	t.Logf("%v: %v\n%s", o.cmd.Args[1:], o.cmd.ProcessState, o.said.String())
	return o.cmd.ProcessState.ExitCode(), strings.Join(strings.Fields(o.said.String()), " ")
}

func (o *operation) runs(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(o.state, "runs", "2*", "journal.jsonl"))
	require.NoError(t, err)
	return all
}

// records are what the operator has written down so far.
func (o *operation) records(t *testing.T) []sop.Record {
	t.Helper()
	for _, path := range o.runs(t) {
		if slices.Contains(o.earlier, path) {
			continue
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		records, _ := sop.ReadJournal(f) // its last line may be half there
		return records
	}
	return nil
}

// await waits until the operator has come to a step.
func (o *operation) await(t *testing.T, state sop.State, title string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(o.records(t), func(r sop.Record) bool { return r.State == state && r.Title == title })
	}, 3*time.Minute, 10*time.Millisecond, "%s of %q", state, title)
}

// fails runs an operator who must end with a status and words.
func (s *site) fails(t *testing.T, status int, words []string, args ...string) {
	t.Helper()
	got, said := s.begin(t, args...).end(t)
	require.Equal(t, status, got)
	for _, w := range words {
		require.Contains(t, said, w)
	}
	require.Contains(t, said, "Go on: ")
	require.Contains(t, said, "etcdrill "+args[0])
}

// refuses is fails, with nothing changed on any host, in the cluster, or beside
// the inventory.
func (s *site) refuses(t *testing.T, words []string, args ...string) {
	t.Helper()
	before := s.standing(t)
	s.fails(t, 3, append(words, "Safe to walk away: nothing was changed"), args...)
	require.Equal(t, before, s.standing(t))
}

func (s *site) succeeds(t *testing.T, args ...string) {
	t.Helper()
	status, said := s.begin(t, args...).end(t)
	require.Zero(t, status)
	require.Contains(t, said, "Safe to walk away: the goal is reached.")
}

// standing is all that a refusal must leave as it was.
func (s *site) standing(t *testing.T) map[string]string {
	t.Helper()
	const look = `find /etc/etcd /etc/systemd/system /etc/profile.d /data /etc/passwd -xdev ! -path '*/member/*' ! -name '.etcdrill-filler' -printf '%p %u:%g %m\n' 2>/dev/null | sort
find /etc/etcd /etc/systemd/system /etc/profile.d -xdev -type f -exec sha256sum {} + 2>/dev/null | sort
systemctl show etcd -p ActiveState,MainPID,UnitFileState
ls /run/etcdrill.lock 2>&1; true`
	all := map[string]string{}
	for _, m := range s.lab.Machines() {
		out, err := m.Run(s.ctx, "/bin/sh", "-c", look)
		require.NoError(t, err)
		all[m.Host()] = out
	}
	if len(s.written) > 0 {
		all["members"] = s.etcdctl(t, h10, "member list")
		all["keys"] = s.etcdctl(t, h10, "get / --prefix --keys-only")
	}
	inventory, err := os.ReadFile(s.lab.Info().Inventory)
	require.NoError(t, err)
	all["inventory"] = string(inventory)
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(s.lab.Info().Inventory), "files", "pki", "*", "*"))
	all["pki"] = strings.Join(files, "\n")
	return all
}

// program puts a program on a machine in front of the system's own.
func (s *site) program(t *testing.T, was, name, script string) (remove func()) {
	t.Helper()
	path := "/usr/local/bin/" + name
	s.sh(t, was, fmt.Sprintf("cat >%s <<'END'\n#!/bin/sh\n%s\nEND\nchmod 755 %s", path, script, path))
	return func() { s.sh(t, was, "rm "+path) }
}

// --- what goes wrong ---

// One host of three does not let its admin become root: nothing is begun.
func noSudo(t *testing.T, s *site) {
	s.sh(t, h12, "mv /etc/sudoers.d/dba /var/tmp/dba")
	s.refuses(t, []string{"refused by safeguard unreachable on " + s.host(h12), "sudo wants a password, and none is ever given", "NOPASSWD: ALL"}, "createCluster")
	s.sh(t, h12, "mv /var/tmp/dba /etc/sudoers.d/dba")
	s.succeeds(t, "createCluster")
	s.write(t)
	require.Equal(t, s.of(h10, h11, h12), s.members(t))
}

// What a user of Pigsty finds on a member: paths, owners, modes, and the aliases
// in a login shell, by ssh.
func asPigsty(t *testing.T, s *site) {
	require.Equal(t, strings.TrimSpace(`
/data/etcd etcd:etcd 700
/etc/etcd etcd:etcd 750
/etc/etcd/ca.crt etcd:etcd 644
/etc/etcd/etcd.conf etcd:etcd 644
/etc/etcd/server.crt etcd:etcd 644
/etc/etcd/server.key etcd:etcd 600
/etc/profile.d/etcdctl.sh root:root 644
/etc/systemd/system/etcd.service root:root 644
/var/lib/etcd etcd:etcd 770`), s.sh(t, h10, "stat -c '%n %U:%G %a' /data/etcd /etc/etcd /etc/etcd/* /etc/profile.d/etcdctl.sh /etc/systemd/system/etcd.service /var/lib/etcd"))
	require.Equal(t, "enabled\nactive\n/etc/systemd/system/etcd.service\netcd", s.sh(t, h10, "systemctl is-enabled etcd; systemctl is-active etcd; systemctl show etcd -P FragmentPath; systemctl show etcd -P User"))
	require.Equal(t, "etcd /usr/bin/etcd --config-file /etc/etcd/etcd.conf", s.sh(t, h10, "ps -o user=,args= -p $(systemctl show etcd -P MainPID) | tr -s ' '"))
	i := s.lab.Info()
	login := exec.CommandContext(s.ctx, "ssh", "-F", i.SSHConfig, "-tt", "root@"+s.host(h10))
	login.Stdin = strings.NewReader("stty -echo; em list; exit\n")
	out, err := login.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, h := range s.of(h10, h11, h12) {
		require.Contains(t, string(out), "started, etcd-", "em is an alias of a login shell")
		require.Contains(t, string(out), "https://"+h+":2380")
	}
}

// The inventory names a user that no host knows.
func wrongUser(t *testing.T, s *site) {
	path := s.lab.Info().Inventory
	was, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, bytes.Replace(was, []byte("ansible_user: dba"), []byte("ansible_user: stranger"), 1), 0o600))
	s.refuses(t, []string{"refused by safeguard reachable on " + s.host(h13), "Permission denied (publickey", "check ansible_user", "By hand: ssh -l stranger"}, "addMember", s.host(h13))
	require.NoError(t, os.WriteFile(path, was, 0o600))
}

func hostKeyChanged(t *testing.T, s *site) {
	require.NoError(t, s.machine(t, h13).Rekey(s.ctx))
	s.refuses(t, []string{"refused by safeguard reachable on " + s.host(h13), "REMOTE HOST IDENTIFICATION HAS CHANGED", "find out why before anything else", "ssh-keygen -R " + s.host(h13)}, "addMember", s.host(h13))
	// Its administrator tells the new key.
	key := s.sh(t, h13, "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub")
	known := s.lab.Info().KnownHosts
	out, err := exec.CommandContext(s.ctx, "ssh-keygen", "-f", known, "-R", s.host(h13)).CombinedOutput()
	require.NoError(t, err, string(out))
	f, err := os.OpenFile(known, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintf(f, "%s %s\n", s.host(h13), key)
	require.NoError(t, errors.Join(err, f.Close()))
}

// Containers share the kernel's clock, so a machine only tells another time here
// than it has.
func clockOff(t *testing.T, s *site) {
	t.Log("NOT TESTED: a member that itself lives by a clock that is off; containers share the kernel's, time namespaces leave the wall clock alone, and etcd reads it past any preloaded library; so here a host only tells another time")
	remove := s.program(t, h13, "date", `exec /usr/bin/date -d "@$(($(/usr/bin/date +%s) + 3600))" "$@"`)
	s.refuses(t, []string{"refused by safeguard clocks on " + s.host(h13), "its clock is 59m5", "set up time synchronisation", "timedatectl"}, "addMember", s.host(h13))
	remove()
}

func portTaken(t *testing.T, s *site) {
	s.sh(t, h13, "systemd-run -q --unit=other systemd-socket-activate --accept --inetd -l 2379 /bin/cat; until ss -Hltn 'sport = :2379' | grep -q .; do sleep 0.05; done")
	s.refuses(t, []string{"refused by safeguard blank-host on " + s.host(h13), "port 2379 is taken by systemd-socket-", "address already in use", "free ports", "ss -ltnp", "stop what listens there"}, "addMember", s.host(h13))
	s.sh(t, h13, "systemctl stop other")
}

// A member got the CA of another site; it still runs with the one it began with.
func wrongCA(t *testing.T, s *site) {
	s.sh(t, h11, `cp -a /etc/etcd/ca.crt /var/tmp/ca.crt
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -out /etc/etcd/ca.crt -subj /CN=pigsty-ca -days 30 2>/dev/null`)
	s.refuses(t, []string{"refused by safeguard certificates on " + s.host(h11), "the CA here is", "compare /etc/etcd/ca.crt and /etc/etcd/server.crt there", "openssl x509 -in"}, "addMember", s.host(h13))
	s.sh(t, h11, "cp -a /var/tmp/ca.crt /etc/etcd/ca.crt")
}

// Something on the newcomer puts another site's CA in the place of ours, each time
// that etcd starts. It is found out at once, and only the newcomer is stopped.
func wrongCAOnNewcomer(t *testing.T, s *site) {
	s.sh(t, h13, `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -out /var/tmp/ca.crt -subj /CN=pigsty-ca -days 30 2>/dev/null
mkdir -p /etc/systemd/system/etcd.service.d
printf '[Service]\nExecStartPre=+/bin/cp /var/tmp/ca.crt /etc/etcd/ca.crt\n' >/etc/systemd/system/etcd.service.d/ca.conf`)
	s.fails(t, 1, []string{"wait until it answers", "etcd.service on " + s.host(h13) + " ends as soon as it is started", "journalctl -u etcd.service",
		"Safe to walk away: 3 of 3 voters answer; a learner is pending", "Pending: write ca.crt on " + s.host(h13), "Give up: ", "etcdrill removeMember " + s.host(h13)}, "addMember", s.host(h13))
	require.Contains(t, s.sh(t, h13, "journalctl -u etcd.service -n 40 --no-pager"), "x509: certificate signed by unknown authority", "the hint leads to the cause")
	s.write(t)
	s.sh(t, h13, "rm /etc/systemd/system/etcd.service.d/ca.conf && systemctl daemon-reload")
	s.succeeds(t, "addMember", s.host(h13))
	require.Equal(t, s.of(h10, h11, h12, h13), s.members(t))
	s.succeeds(t, "removeMember", s.host(h13))
	require.Equal(t, s.of(h10, h11, h12), s.members(t))
}

// Ctrl-C once the newcomer is a learner. The run of the same command after it
// also passes all that was mended before.
func ctrlC(t *testing.T, s *site) {
	o := s.begin(t, "addMember", s.host(h13))
	o.await(t, sop.Recorded, "write server.key")
	require.NoError(t, o.cmd.Process.Signal(syscall.SIGINT))
	status, said := o.end(t)
	require.Equal(t, 130, status)
	for _, w := range []string{"interrupt: stopping before the next change", "interrupted: it stopped before the next change",
		"Safe to walk away: 3 of 3 voters answer; a learner is pending", "Pending: ", "Go on: ", "etcdrill addMember " + s.host(h13), "Give up: ", "etcdrill removeMember " + s.host(h13)} {
		require.Contains(t, said, w)
	}
	records := o.records(t)
	last := slices.IndexFunc(records, func(r sop.Record) bool { return r.State == sop.Recorded && r.Title == "start etcd" })
	require.Negative(t, last, "it went on to the start")
	require.Equal(t, append(s.of(h10, h11, h12), s.host(h13)+" pending"), s.members(t))
	s.write(t)
	s.succeeds(t, "addMember", s.host(h13))
	require.Equal(t, s.of(h10, h11, h12, h13), s.members(t))
}

// The connection is lost while a file is on its way to its place.
func cutInAWrite(t *testing.T, s *site) {
	const conf = "sha256sum /etc/etcd/etcd.conf"
	before := s.sh(t, h10, conf)
	remove := s.program(t, h10, "sync", `case "$*" in */.etcd.conf.new-*)
	echo $PPID $$ >/run/held.new && mv /run/held.new /run/held
	while :; do sleep 1; done ;;
esac
exec /usr/bin/sync "$@"`)
	o := s.begin(t, "removeMember", s.host(h13))
	require.Eventually(t, func() bool {
		_, err := s.machine(t, h10).Run(s.ctx, "test", "-e", "/run/held")
		return err == nil
	}, 3*time.Minute, 100*time.Millisecond, "a write of etcd.conf")
	require.NoError(t, s.machine(t, h10).Block(s.ctx, container.Block{Port: 22, Reject: true}))
	s.sh(t, h10, "kill -KILL $(cat /run/held) $(pgrep -u dba)")
	status, said := o.end(t)
	require.Equal(t, 4, status, "a write that nobody has heard of")
	for _, w := range []string{"outcome unknown: write /etc/etcd/etcd.conf on " + s.host(h10), "NOT safe to walk away: a change was sent", "host unreachable: " + s.host(h10), "Connection refused", "nothing listens there for ssh", "Go on: ", "etcdrill removeMember " + s.host(h13)} {
		require.Contains(t, said, w)
	}
	require.Equal(t, before, s.sh(t, h10, conf), "the file is the old one, whole")
	require.Equal(t, s.of(h10, h11, h12, h13), s.members(t), "references come before the removal")
	s.write(t)
	require.NoError(t, s.machine(t, h10).Unblock(s.ctx))
	remove()
	s.succeeds(t, "removeMember", s.host(h13))
	require.Equal(t, s.of(h10, h11, h12), s.members(t))
	require.NotEqual(t, before, s.sh(t, h10, conf))
	require.Empty(t, s.sh(t, h10, "find /etc -name '.*.new-*'"), "what was cut off is swept")
}

// A full disk is seen before anything is changed. One that fills up later stops
// the newcomer alone, and it goes on when there is room.
func diskFull(t *testing.T, s *site) {
	spare := s.machine(t, h14)
	require.NoError(t, spare.Fill(s.ctx, 1<<20))
	s.refuses(t, []string{"refused by safeguard disk on " + s.host(h14), "1.0 MiB are free for /data/etcd", "two segments of the log", "make room there", "df -h"}, "addMember", s.host(h14))
	// As if it had filled up right after that look.
	s.fails(t, 1, []string{"wait until it answers", "etcd.service on " + s.host(h14) + " ends as soon as it is started", "exit status", "journalctl -u etcd.service",
		"Safe to walk away: 3 of 3 voters answer; a learner is pending", "Give up: ", "etcdrill removeMember " + s.host(h14)}, "addMember", s.host(h14), "-waive=disk", "-reason=trial")
	require.Contains(t, s.sh(t, h14, "journalctl -u etcd.service -n 40 --no-pager"), "no space left on device", "the hint leads to the cause")
	s.write(t)
	require.NoError(t, spare.Free(s.ctx))
	s.succeeds(t, "addMember", s.host(h14))
	require.Equal(t, s.of(h10, h11, h12, h14), s.members(t))
}

// The newcomer reboots after its etcd was started and before it is a voter. The
// operator may see it through, or stop with words; then the next one does.
func rebootBeforePromotion(t *testing.T, s *site) {
	o := s.begin(t, "addMember", s.host(h13))
	o.await(t, sop.Done, "start etcd")
	require.NoError(t, o.cmd.Process.Signal(syscall.SIGSTOP))
	require.False(t, slices.ContainsFunc(o.records(t), func(r sop.Record) bool { return r.State == sop.Recorded && r.Title == "promote to voter" }), "it was held in time")
	require.NoError(t, s.machine(t, h13).Reboot(s.ctx))
	require.NoError(t, o.cmd.Process.Signal(syscall.SIGCONT))
	status, said := o.end(t)
	if status != 0 {
		require.Equal(t, 1, status)
		require.Contains(t, said, "Go on: ")
		require.Contains(t, said, "Give up: ")
		s.succeeds(t, "addMember", s.host(h13))
	}
	require.Equal(t, s.of(h10, h11, h12, h13, h14), s.members(t))
	require.Equal(t, "enabled\nactive", s.sh(t, h13, "systemctl is-enabled etcd; systemctl is-active etcd"))
	s.write(t)
}

// Every write that was acknowledged on the way is there, on every member.
func nothingLost(t *testing.T, s *site) {
	for _, h := range []string{h10, h11, h12, h13, h14} {
		got := s.sh(t, h, `bash -lc "ETCDCTL_ENDPOINTS=https://`+s.host(h)+`:2379 etcdctl get /kept/ --prefix --print-value-only"`)
		require.Equal(t, strings.Join(s.written, "\n"), got, h)
	}
	require.Equal(t, "0", s.etcdctl(t, h10, "get /etcdrill/ --prefix --count-only -w fields | sed -n 's/.*Count. : //p'"), "no operator's lock is left")
}
