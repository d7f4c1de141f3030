package postgres

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// As iproute2 6.15 on Debian 13 prints them.
const (
	added   = `[2026-11-26T11:18:09.904516] 9: eth0    inet 172.29.77.100/24 scope global secondary eth0\       valid_lft forever preferred_lft forever`
	deleted = `[2026-11-26T11:18:09.777454] Deleted 13: eth0    inet 172.29.77.100/24 scope global secondary eth0\       valid_lft forever preferred_lft forever`
)

func TestParseChange(t *testing.T) {
	vip := netip.MustParseAddr("172.29.77.100")
	c, ok, err := parseChange(added)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, addressChange{time.Date(2026, 11, 26, 11, 18, 9, 904516000, time.UTC), vip, false}, c)
	c, ok, err = parseChange(deleted)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, addressChange{time.Date(2026, 11, 26, 11, 18, 9, 777454000, time.UTC), vip, true}, c)

	for _, other := range []string{"", "Timestamp: whatever", `[2026-11-26T11:18:09.904516] 2: eth0: <BROADCAST,UP> mtu 1500`, `9: eth0    inet 172.29.77.100/24`} {
		_, ok, err := parseChange(other)
		require.NoError(t, err, other)
		require.False(t, ok, other)
	}
	for _, broken := range []string{
		`[yesterday] 9: eth0    inet 172.29.77.100/24 scope global`,
		`[2026-11-26T11:18:09.904516] 9: eth0    inet 172.29.77/24 scope global`,
	} {
		_, _, err := parseChange(broken)
		require.ErrorContains(t, err, "monitor of addresses", broken)
	}
}

func FuzzParseChange(f *testing.F) {
	f.Add(added)
	f.Add(deleted)
	f.Add(`[2026-11-26T11:18:09] Deleted 1: lo inet6 ::1/128 scope host`)
	f.Fuzz(func(t *testing.T, line string) {
		c, ok, err := parseChange(line)
		if ok && (err != nil || c.at.IsZero() || !c.address.IsValid()) {
			t.Fatalf("%q: %+v, %v", line, c, err)
		}
	})
}

// What a machine reports comes in pieces of any size.
func TestHoldings(t *testing.T) {
	vip := netip.MustParseAddr("172.29.77.100")
	from := time.Date(2026, 11, 26, 11, 18, 0, 0, time.UTC)
	until := from.Add(time.Minute)
	gone, back := from.Add(9777454*time.Microsecond), from.Add(9904516*time.Microsecond)
	said := deleted + "\n" + deleted + "\n" + `[2026-11-26T11:18:09.800000] 9: eth0    inet 172.29.77.10/24 scope global eth0` + "\n" + added + "\n" + added + "\n"
	for size := 1; size <= len(said); size *= 3 {
		x := &ear{vip: vip, from: from, held: true, said: make(chan struct{}, 1), instance: instance{Name: "pg-1"}}
		for rest := said; rest != ""; {
			n := min(size, len(rest))
			_, err := x.Write([]byte(rest[:n]))
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.NoError(t, x.trouble())
		require.Equal(t, []Holding{{"pg-1", from, gone}, {"pg-1", back, until}}, x.holdings(until))
		x.held = false
		require.Equal(t, []Holding{{"pg-1", back, until}}, x.holdings(until))
	}
	x := &ear{vip: vip, from: from, said: make(chan struct{}, 1)}
	_, err := x.Write([]byte("[soon] 9: eth0    inet 172.29.77.100/24 scope global\n"))
	require.NoError(t, err)
	require.Error(t, x.trouble(), "what cannot be read is not passed over")
}
