package machine

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// listeningSockets lists port and inode of every listening TCP socket in the
// network namespace of the calling thread, one a line. The kernel is asked for
// these alone where it can be: its tables as text cost a walk through the
// connections of all namespaces.
func listeningSockets() (string, error) {
	var out strings.Builder
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := askListening(&out, family); err != nil {
			return listeningInTables()
		}
	}
	return out.String(), nil
}

// The layout of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56
	diagStatesAt     = 4
	diagPortAt       = 4
	diagInodeAt      = 68
	tcpListen        = 10
)

// askListening asks the kernel for the listening TCP sockets of a family.
func askListening(out *strings.Builder, family uint8) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := make([]byte, unix.NLMSG_HDRLEN+diagRequestSize)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := request[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[diagStatesAt:], 1<<tcpListen)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 32<<10) // the most that the kernel puts into one answer
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("read answer about sockets: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case m.Header.Type != sockDiagByFamily || len(m.Data) < diagInodeAt+4:
				return fmt.Errorf("read answer about sockets: message of type %d", m.Header.Type)
			}
			fmt.Fprintf(out, "%d %d\n", binary.BigEndian.Uint16(m.Data[diagPortAt:]), binary.NativeEndian.Uint32(m.Data[diagInodeAt:]))
		}
	}
}

// listeningInTables is listeningSockets for a kernel that cannot be asked.
func listeningInTables() (string, error) {
	tables, err := socketTables()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(tables) {
		f := strings.Fields(line)
		const local, state, inode = 1, 3, 9
		if len(f) <= inode || f[state] != "0A" {
			continue
		}
		_, hex, _ := strings.Cut(f[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return "", fmt.Errorf("read socket %q: %w", f[local], err)
		}
		fmt.Fprintf(&out, "%d %s\n", port, f[inode])
	}
	return out.String(), nil
}
