package host

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The lines are of a kernel's own table: a listener, two callers, one of them by
// way of IPv6, one that is leaving, and a connection of the host's own.
const socketTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A0A0A0A:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4012 1 0000000000000000 100 0 0 10 0
   1: 0A0A0A0A:094B 0D0A0A0A:C350 01 00000000:00000000 00:00000000 00000000     0        0 4013 1 0000000000000000 20 4 30 10 -1
   2: 0A0A0A0A:094B 0E0A0A0A:C351 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000
   3: 0A0A0A0A:C352 0B0A0A0A:094B 01 00000000:00000000 00:00000000 00000000     0        0 4014 1 0000000000000000 20 4 30 10 -1
   4: 0000000000000000FFFF00000A0A0A0A:094B 0000000000000000FFFF00000F0A0A0A:C353 01 00000000:00000000 00:00000000 00000000 0 0 4015 1 0 20 4 30 10 -1
   5: B80D01200000000000000000010A0000:094B B80D0120000000000000000002000000:C354 01 00000000:00000000 00:00000000 00000000 0 0 4016 1 0 20 4 30 10 -1
`

func TestCallers(t *testing.T) {
	found, err := CallersIn(socketTable, []int{2379})
	require.NoError(t, err)
	require.Equal(t, map[int][]string{2379: {"10.10.10.13:50000", "10.10.10.15:50003", "[2001:db8::2]:50004"}}, found)

	found, err = CallersIn(socketTable, []int{2380})
	require.NoError(t, err)
	require.Empty(t, found)

	_, err = CallersIn("0: 0A0A0A0A:094B nonsense 01\n", []int{2379})
	require.Error(t, err)
}
