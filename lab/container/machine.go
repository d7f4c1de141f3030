package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/etcdrill/etcdrill/lab/container/image"
)

// A Machine is one machine of a lab, and what can be done to it from outside.
type Machine struct {
	lab  *Lab
	info MachineInfo
}

// Host is the machine's name in the lab's inventory, which is its address.
func (m *Machine) Host() string { return m.info.Host }

// Info describes the machine.
func (m *Machine) Info() MachineInfo { return m.info }

func (m *Machine) docker() client.APIClient { return m.lab.engine.docker }

// wrong wraps an error with the machine's name.
func (m *Machine) wrong(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s on machine %s: %w", what, m.info.Host, err)
}

// Run runs a command as root, past SSH, and gives what it said on stdout. A
// status other than zero is an error that has all that it said.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := m.run(ctx, argv)
	return out, m.wrong(strings.Join(argv, " "), err)
}

func (m *Machine) run(ctx context.Context, argv []string) (string, error) {
	x, err := m.docker().ExecCreate(ctx, m.info.Container, client.ExecCreateOptions{Cmd: argv, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return "", err
	}
	a, err := m.docker().ExecAttach(ctx, x.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", err
	}
	defer a.Close()
	// The connection knows nothing of ctx.
	stop := context.AfterFunc(ctx, func() { _ = a.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, a.Reader); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", err
	}
	end, err := m.docker().ExecInspect(ctx, x.ID, client.ExecInspectOptions{})
	if err != nil {
		return "", err
	}
	if end.ExitCode != 0 {
		return out.String(), fmt.Errorf("status %d: %s", end.ExitCode, strings.TrimSpace(out.String()+errs.String()))
	}
	return out.String(), nil
}

// AwaitUp waits until the machine has booted and sshd listens. A unit that
// failed is told, and is no error: who hurts machines may expect it.
func (m *Machine) AwaitUp(ctx context.Context) error {
	// systemd has its socket some time after it has begun; --wait waits for the
	// rest of the boot. Its status says how the system is, which is no matter.
	const wait = `until [ -S /run/systemd/private ]; do sleep 0.05; done
systemctl is-system-running --wait >/dev/null
until ss -Hltn 'sport = :22' | grep -q .; do sleep 0.05; done`
	_, err := m.run(ctx, []string{"/bin/sh", "-c", wait})
	if err == nil {
		return nil
	}
	if said := m.said(ctx); said != "" {
		err = fmt.Errorf("%w; its console says: %s", err, said)
	}
	return m.wrong("wait for the boot", err)
}

// said is the end of what the machine wrote on its console.
func (m *Machine) said(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	r, err := m.docker().ContainerLogs(ctx, m.info.Container, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "10"})
	if err != nil {
		return ""
	}
	defer r.Close()
	var b bytes.Buffer
	_, _ = stdcopy.StdCopy(&b, &b, r)
	return strings.TrimSpace(b.String())
}

// Signal sends a signal, by name, to all processes of a systemd unit: KILL is a
// crash, STOP a hang, CONT its end.
func (m *Machine) Signal(ctx context.Context, unit, signal string) error {
	_, err := m.run(ctx, []string{"systemctl", "kill", "--signal=" + signal, "--kill-whom=all", unit})
	return m.wrong("send "+signal+" to "+unit, err)
}

// Power takes the machine's power away, which is a crash of all of it, or gives
// it back and waits for the boot. What was in memory is gone: /run, /tmp, and
// /data where it is a disk of its own.
func (m *Machine) Power(ctx context.Context, on bool) error {
	if on {
		if _, err := m.docker().ContainerStart(ctx, m.info.Container, client.ContainerStartOptions{}); err != nil {
			return m.wrong("power on", err)
		}
		return m.AwaitUp(ctx)
	}
	now := 0
	_, err := m.docker().ContainerStop(ctx, m.info.Container, client.ContainerStopOptions{Signal: "SIGKILL", Timeout: &now})
	return m.wrong("power off", err)
}

// Reboot shuts the machine down as an administrator would, and waits until it is
// back. It has another boot ID afterwards.
func (m *Machine) Reboot(ctx context.Context) error {
	patience := 30 // seconds, then by force
	if _, err := m.docker().ContainerRestart(ctx, m.info.Container, client.ContainerRestartOptions{Timeout: &patience}); err != nil {
		return m.wrong("reboot", err)
	}
	return m.AwaitUp(ctx)
}

// Pause stops all processes where they are, as a hypervisor does that moves a
// machine; its connections stay open and nothing answers.
func (m *Machine) Pause(ctx context.Context) error {
	_, err := m.docker().ContainerPause(ctx, m.info.Container, client.ContainerPauseOptions{})
	return m.wrong("pause", err)
}

// Unpause ends Pause.
func (m *Machine) Unpause(ctx context.Context) error {
	_, err := m.docker().ContainerUnpause(ctx, m.info.Container, client.ContainerUnpauseOptions{})
	return m.wrong("unpause", err)
}

// Disconnect unplugs the machine's network cable.
func (m *Machine) Disconnect(ctx context.Context) error {
	_, err := m.docker().NetworkDisconnect(ctx, m.lab.info.Network, client.NetworkDisconnectOptions{Container: m.info.Container})
	return m.wrong("disconnect", err)
}

// Connect ends Disconnect; the address is the same.
func (m *Machine) Connect(ctx context.Context) error {
	_, err := m.docker().NetworkConnect(ctx, m.lab.info.Network, client.NetworkConnectOptions{
		Container: m.info.Container, EndpointConfig: endpoint(netip.MustParseAddr(m.info.Host))})
	if err == nil && m.running(ctx) {
		_, err = m.run(ctx, []string{"ip", "route", "del", "default"}) // as boot does
	}
	return m.wrong("connect", err)
}

func (m *Machine) running(ctx context.Context) bool {
	r, err := m.docker().ContainerInspect(ctx, m.info.Container, client.ContainerInspectOptions{})
	return err == nil && r.Container.State != nil && r.Container.State.Running && !r.Container.State.Paused
}

// A Block is what a machine's packet filter is to stop.
type Block struct {
	Port   int    // TCP port of this machine; 0 is all traffic
	Peer   string // only from and to this machine or address; empty is everybody
	Reject bool   // answer that it is closed; else stay silent
}

// table is the nftables table that all blocks are in.
const table = "etcdrill"

// Block lets the packet filter inside the machine stop traffic, established
// connections included. Loopback is not touched. Blocks add up until Unblock.
func (m *Machine) Block(ctx context.Context, b Block) error {
	verdict := "drop"
	if b.Reject {
		verdict = "reject with tcp reset"
		if b.Port == 0 {
			verdict = "reject"
		}
	}
	var rules strings.Builder
	fmt.Fprintf(&rules, "add table inet %s\n", table)
	for _, side := range []struct{ chain, hook, iface, addr, port string }{
		{"in", "input", "iifname", "saddr", "dport"},
		{"out", "output", "oifname", "daddr", "sport"},
	} {
		if b.Reject && side.chain == "out" {
			break // it would stop our own answer
		}
		fmt.Fprintf(&rules, "add chain inet %s %s { type filter hook %s priority 0; policy accept; }\n", table, side.chain, side.hook)
		fmt.Fprintf(&rules, "add rule inet %s %s %s != lo", table, side.chain, side.iface)
		if b.Peer != "" {
			peer := b.Peer
			if other, err := m.lab.Machine(peer); err == nil {
				peer = other.info.Host
			}
			if _, err := netip.ParseAddr(peer); err != nil {
				return m.wrong("block "+b.Peer, err)
			}
			fmt.Fprintf(&rules, " ip %s %s", side.addr, peer)
		}
		if b.Port != 0 {
			fmt.Fprintf(&rules, " tcp %s %d", side.port, b.Port)
		}
		fmt.Fprintf(&rules, " counter %s\n", verdict)
	}
	_, err := m.run(ctx, []string{"/bin/sh", "-c", "nft -f - <<'END'\n" + rules.String() + "END\n"})
	return m.wrong("block traffic", err)
}

// Unblock ends all blocks.
func (m *Machine) Unblock(ctx context.Context) error {
	_, err := m.run(ctx, []string{"/bin/sh", "-c", fmt.Sprintf("nft add table inet %[1]s && nft delete table inet %[1]s", table)})
	return m.wrong("unblock traffic", err)
}

// A Drop is traffic that a machine's packet filter is to lose on its way in.
type Drop struct {
	From  string // machine or address that it comes from
	Ports []int  // TCP ports, of either side; none is all traffic
}

// Lose has the packet filter inside the machine drop what comes from others, and
// nothing else: what it stopped before goes through again, that of Block too.
func (m *Machine) Lose(ctx context.Context, drops ...Drop) error {
	var rules strings.Builder
	// One transaction: there is no moment in between.
	fmt.Fprintf(&rules, "add table inet %[1]s\ndelete table inet %[1]s\n", table)
	if len(drops) > 0 {
		fmt.Fprintf(&rules, "add table inet %[1]s\nadd chain inet %[1]s in { type filter hook input priority 0; policy accept; }\n", table)
	}
	for _, d := range drops {
		matches := []string{""}
		if len(d.Ports) > 0 {
			ports := strings.Trim(strings.ReplaceAll(fmt.Sprint(d.Ports), " ", ", "), "[]")
			matches = []string{fmt.Sprintf(" tcp dport { %s }", ports), fmt.Sprintf(" tcp sport { %s }", ports)}
		}
		for _, match := range matches {
			fmt.Fprintf(&rules, "add rule inet %s in ip saddr %s%s counter drop\n", table, d.From, match)
		}
	}
	_, err := m.run(ctx, []string{"/bin/sh", "-c", "nft -f - <<'END'\n" + rules.String() + "END\n"})
	return m.wrong("lose traffic", err)
}

var dropped = regexp.MustCompile(`ip saddr (\S+) .*counter packets (\d+) `)

// Lost counts the packets that were dropped since Lose, by where they came from.
func (m *Machine) Lost(ctx context.Context) (map[string]int64, error) {
	out, err := m.run(ctx, []string{"/bin/sh", "-c", fmt.Sprintf("nft list table inet %s 2>/dev/null || true", table)})
	if err != nil {
		return nil, m.wrong("count lost traffic", err)
	}
	lost := map[string]int64{}
	for _, found := range dropped.FindAllStringSubmatch(out, -1) {
		n, err := strconv.ParseInt(found[2], 10, 64)
		if err != nil {
			return nil, m.wrong("count lost traffic", err)
		}
		lost[found[1]] += n
	}
	return lost, nil
}

// Limits bound what a machine may use.
type Limits struct {
	CPUs   float64 // processors, parts of one too; 0 is no limit
	Memory int64   // bytes; beyond it the kernel kills processes of the machine; 0 is no limit
}

// Limit sets the limits of the machine; zero Limits take them away.
func (m *Machine) Limit(ctx context.Context, l Limits) error {
	const period = 100_000 // microseconds
	// An engine does not take a limit of memory away again; all that there is, is
	// none. Swap counts in, and has to be said, or the kernel refuses.
	r := container.Resources{CPUPeriod: period, CPUQuota: -1, Memory: m.lab.engine.memory, MemorySwap: m.lab.engine.memory}
	if l.CPUs > 0 {
		r.CPUQuota = int64(l.CPUs * period)
	}
	if l.Memory > 0 {
		r.Memory, r.MemorySwap = l.Memory, l.Memory
	}
	_, err := m.docker().ContainerUpdate(ctx, m.info.Container, client.ContainerUpdateOptions{Resources: &r})
	return m.wrong("limit", err)
}

// filler takes the room that Fill leaves nobody.
const filler = "/data/.etcdrill-filler"

// Fill takes all room on /data but so many bytes. The machine must have been
// ordered with a Disk; one without gives errors.ErrUnsupported, since its room is
// that of the engine's host.
func (m *Machine) Fill(ctx context.Context, leave int64) error {
	if m.info.Disk == 0 {
		return m.wrong("fill /data", fmt.Errorf("%w: it is the disk of the engine's host; order the machine with Disk", errors.ErrUnsupported))
	}
	_, err := m.run(ctx, []string{"/bin/sh", "-c", fmt.Sprintf(
		`set -e; free=$(df --output=avail -B1 /data | tail -1); want=$((free - %d)); if [ "$want" -gt 0 ]; then dd if=/dev/zero of=%s bs=1M iflag=count_bytes count="$want" oflag=append conv=notrunc status=none; fi`, leave, filler)})
	return m.wrong("fill /data", err)
}

// Free ends Fill.
func (m *Machine) Free(ctx context.Context) error {
	_, err := m.run(ctx, []string{"rm", "-f", filler})
	return m.wrong("free /data", err)
}

// SkewClock would set the machine's clock off. It always gives
// errors.ErrUnsupported: containers share the clock of the engine's kernel.
func (m *Machine) SkewClock(context.Context, time.Duration) error {
	return m.wrong("set the clock off", fmt.Errorf("%w: a container's clock is that of the engine's kernel", errors.ErrUnsupported))
}

// Rekey gives the machine another SSH host key, as a host that was installed
// anew has. The lab's known_hosts still has the old one.
func (m *Machine) Rekey(ctx context.Context) error {
	key, err := newKey(m.info.Host)
	if err != nil {
		return err
	}
	err = m.put(ctx, "/etc/ssh",
		entry{"ssh_host_ed25519_key", 0o600, key.private},
		entry{"ssh_host_ed25519_key.pub", 0o644, []byte(key.public + "\n")})
	if err == nil {
		_, err = m.run(ctx, []string{"systemctl", "restart", "ssh.service"}) // which keeps its sessions
	}
	return m.wrong("change the host key", err)
}

// Programs gives a directory on this machine that has etcd, etcdctl and etcdutl of
// a version, as the lab's machines can run them. They are built if they are not in
// the cache, of which log hears, if there is one.
func (l *Lab) Programs(ctx context.Context, version string, log io.Writer) (string, error) {
	arch, err := image.Arch(ctx, l.engine.docker)
	if err != nil {
		return "", err
	}
	return image.Etcd(ctx, l.info.Cache, version, arch, log)
}

// Install puts another version of etcd on the machine, as its package manager
// would: what runs goes on with the old one. It is built if it is not in the
// cache.
func (m *Machine) Install(ctx context.Context, version string) error {
	bin, err := m.lab.Programs(ctx, version, nil)
	if err != nil {
		return err
	}
	var entries []entry
	for _, name := range []string{"etcd", "etcdctl", "etcdutl"} {
		b, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return fmt.Errorf("install etcd %s: %w", version, err)
		}
		entries = append(entries, entry{name, 0o755, b})
	}
	return m.wrong("install etcd "+version, m.put(ctx, "/usr/bin", entries...))
}

// entry is a file to be copied in.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// put copies files into a directory of the machine, owned by root.
func (m *Machine) put(ctx context.Context, dir string, all ...entry) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Now()}); err != nil {
			return err
		}
		if _, err := w.Write(e.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := m.docker().CopyToContainer(ctx, m.info.Container, client.CopyToContainerOptions{DestinationPath: dir, Content: &b})
	return err
}

// Heal ends all faults of the machine that it finds, and says which there were.
// A machine that is switched off stays so.
func (m *Machine) Heal(ctx context.Context) ([]string, error) {
	r, err := m.docker().ContainerInspect(ctx, m.info.Container, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil, m.wrong("heal", ErrGone)
	}
	if err != nil {
		return nil, m.wrong("heal", err)
	}
	var did []string
	mend := func(what string, how func(context.Context) error) error {
		err := how(ctx)
		if err == nil {
			did = append(did, m.info.Host+": "+what)
		}
		return err
	}
	c := r.Container
	if c.State != nil && c.State.Paused {
		if err := mend("unpaused", m.Unpause); err != nil {
			return did, err
		}
	}
	if c.NetworkSettings != nil && c.NetworkSettings.Networks[m.lab.info.Network] == nil {
		if err := mend("connected", m.Connect); err != nil {
			return did, err
		}
	}
	if h := c.HostConfig; h != nil && (h.CPUQuota > 0 || h.Memory > 0 && h.Memory < m.lab.engine.memory) {
		if err := mend("limits taken away", func(ctx context.Context) error { return m.Limit(ctx, Limits{}) }); err != nil {
			return did, err
		}
	}
	if c.State == nil || !c.State.Running {
		return did, nil
	}
	found, err := m.run(ctx, []string{"/bin/sh", "-c",
		fmt.Sprintf("nft list table inet %s >/dev/null 2>&1 && echo blocks; test -e %s && echo filler; true", table, filler)})
	if err != nil {
		return did, m.wrong("heal", err)
	}
	if strings.Contains(found, "blocks") {
		if err := mend("traffic unblocked", m.Unblock); err != nil {
			return did, err
		}
	}
	if strings.Contains(found, "filler") {
		if err := mend("/data freed", m.Free); err != nil {
			return did, err
		}
	}
	return did, nil
}
