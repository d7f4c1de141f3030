package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connect connects a non-blocking TCP socket, whatever namespace it is of,
// and makes a net.Conn of it. It owns the file.
func connect(ctx context.Context, socket *os.File, to netip.AddrPort) (net.Conn, error) {
	defer socket.Close()
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port())}
	if to.Addr().Is4() {
		sa.(*unix.SockaddrInet4).Addr = to.Addr().As4()
	} else {
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	begun := false
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), sa)
			if errors.Is(failed, unix.EINPROGRESS) {
				failed = nil
				return false
			}
			return true
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = err
			return true
		case code != 0:
			failed = unix.Errno(code)
			return true
		}
		// A socket that is not yet connected may be reported as writable once.
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return conn, nil
}
