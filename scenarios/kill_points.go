package scenarios

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/sop"
)

// KillPoints are for those who hurt operators. What it gives kills this process by
// SIGKILL at the point with the number at, and adds a line of JSON to the file at path
// for each point that it comes to. Either may be empty; where both are, it gives nil.
// What cannot be written is told.
func KillPoints(at, path string, tell io.Writer) (func(sop.Point), error) {
	if at == "" && path == "" {
		return nil, nil
	}
	n := 0
	if at != "" {
		var err error
		if n, err = strconv.Atoi(at); err != nil {
			return nil, fmt.Errorf("kill point: %w", err)
		}
	}
	out := io.Discard
	if path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("write down kill points: %w", err)
		}
		out = f
	}
	lines := json.NewEncoder(out)
	return func(p sop.Point) {
		if err := lines.Encode(p); err != nil {
			fmt.Fprintf(tell, "write down kill points: %v\n", err)
		}
		if p.N == n {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {} // it is on its way
		}
	}, nil
}
