package netswitch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// receiveBuffer is asked for each port, in bytes. The default of some 200 KiB
// overflows after three superframes.
const receiveBuffer = 16 << 20

// OpenPort opens a packet socket on an interface of the calling thread's
// network namespace and returns it as a Wire. The socket stays in that
// namespace, whichever thread uses it later. While the interface is part of a
// bridge its frames take both ways: it should be taken off at once. It may be
// down; it carries frames once it is up. Needs CAP_NET_RAW in the namespace.
func OpenPort(ifname string) (Wire, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", ifname, err)
	}
	// Protocol 0 receives nothing until bind: no frame of another interface
	// gets in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket for %s: %w", ifname, err)
	}
	if err := setUp(fd, ifi.Index); err != nil {
		return nil, errors.Join(fmt.Errorf("set up packet socket for %s: %w", ifname, err), unix.Close(fd))
	}
	return &packetSocket{file: os.NewFile(uintptr(fd), "packet:"+ifname)}, nil
}

func setUp(fd, ifindex int) error {
	for _, o := range []struct {
		name          string
		option, value int
	}{
		// What the lab's kernel or bridge sends to the host does not come from
		// the host. (The socket's own frames never come back to it.)
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.option, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	// Older kernels allow the first to real root only; then the system's
	// maximum has to do, and Overruns tells if it did not.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: ifindex}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// packetSocket is a Wire on an AF_PACKET socket.
type packetSocket struct {
	file *os.File // non-blocking, so that Close wakes a reader

	mu      sync.Mutex
	dropped uint64
}

func (p *packetSocket) ReadFrame(buf []byte) (int, error) {
	for {
		n, err := p.file.Read(buf)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.ENETDOWN):
			// Told once when the interface goes down; it may come up again.
		case errors.Is(err, unix.EINVAL):
			// A kind of superframe for which there is no virtio-net header.
		default:
			return 0, err
		}
	}
}

func (p *packetSocket) WriteFrame(frame []byte) error {
	_, err := p.file.Write(frame)
	return err
}

// Overruns is how many frames found the socket's buffer full.
func (p *packetSocket) Overruns() (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return p.dropped, err
	}
	var stats *unix.TpacketStats
	var statsErr error
	if err := raw.Control(func(fd uintptr) {
		stats, statsErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		return p.dropped, err
	}
	if statsErr != nil {
		return p.dropped, fmt.Errorf("read packet statistics: %w", statsErr)
	}
	p.dropped += uint64(stats.Drops) // the kernel counts from zero after each look
	return p.dropped, nil
}

func (p *packetSocket) Close() error { return p.file.Close() }
