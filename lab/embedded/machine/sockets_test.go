package machine

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What the kernel answers is what its tables say.
func TestListeningSockets(t *testing.T) {
	if err := askListening(new(strings.Builder), unix.AF_INET6); err != nil {
		t.Skip("this kernel cannot be asked for sockets:", err)
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("without %s: %v", address, err)
			continue
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String()) // neither end of which is listed
		require.NoError(t, err)
		defer c.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		mine := func(list string, err error) []string {
			require.NoError(t, err)
			var lines []string
			for line := range strings.Lines(list) {
				if strings.HasPrefix(line, port+" ") { // others come and go meanwhile
					lines = append(lines, line)
				}
			}
			slices.Sort(lines)
			return lines
		}
		require.Len(t, mine(listeningSockets()), 1)
		require.Equal(t, mine(listeningInTables()), mine(listeningSockets()))
	}
}
