package embedded

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peek gives the PID of a child that has ended and was not waited for yet,
// and leaves it so. 0 means that there is none.
func peek() (int, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		break
	}
	// struct siginfo: three ints, then a union that is aligned as a pointer and
	// begins with the PID.
	word := unsafe.Sizeof(uintptr(0))
	at := (3*unsafe.Sizeof(int32(0)) + word - 1) / word * word
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), at))), nil
}
