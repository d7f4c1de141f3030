package scenarios

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/lab/container/postgres"
	"github.com/etcdrill/etcdrill/lab/workload"
)

// What the report says of PostgreSQL: an address that was away for 30 ms, half
// of it in a procedure, and on two machines for 2 ms.
func TestDatabaseAccount(t *testing.T) {
	at := func(ms int) time.Time {
		return time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
	}
	e := postgres.Evidence{
		Instances: []string{"pg-test-1", "pg-test-2"}, Began: at(0), Ended: at(3000), From: at(0), To: at(3000),
		After: postgres.Topology{Leader: "pg-test-1", Timeline: 4},
		Holdings: []postgres.Holding{
			{Instance: "pg-test-1", From: at(0), To: at(1985)}, {Instance: "pg-test-1", From: at(2015), To: at(3000)},
			{Instance: "pg-test-2", From: at(2500), To: at(2502)},
		},
		Rows: map[string][]int64{"pg-test-1": nil},
	}
	for n := range 31 {
		if n == 12 || n == 13 {
			continue // nothing from 1100 to 1400
		}
		w := postgres.Write{ID: int64(n), Return: at(100 * n), Outcome: workload.OK, Instance: "pg-test-1"}
		e.Writes = append(e.Writes, w)
		if n != 30 { // the last was lost
			e.Rows["pg-test-1"] = append(e.Rows["pg-test-1"], w.ID)
		}
	}
	d := account(e, []played{
		{row: row{name: "addMember"}, outcome: Outcome{Began: at(1000), Ended: at(2000)}, quiet: window{at(0), at(1000)}},
		{row: row{name: "never played"}},
	})
	require.Equal(t, &Database{
		Primary: "pg-test-1", Timeline: 4, AckedRows: 29, LostRows: 1, MaxWriteGapMS: 300, VIPGoneMS: 30, VIPGoneTimes: 1, VIPTwiceMS: 2,
		Procedures: []DatabaseImpact{{Name: "addMember", MaxWriteGapMS: 300, QuietGapMS: 100, AckedRows: 9, VIPGoneMS: 15}},
	}, d)

	sum := Summary{Verdict: Violation, Database: d}
	for line := range strings.Lines(sum.Text()) {
		require.LessOrEqual(t, len(line), columns+1, line)
	}
	require.Contains(t, sum.Text(), "addMember                            300     100       9      15.0")
	require.Contains(t, strings.Join(strings.Fields(sum.Text()), " "),
		"primary pg-test-1 on timeline 4: 29 acknowledged rows, 1 lost, longest gap 300 ms; the VIP was gone 1 times, for 30.0 ms in all, and on two machines for 2.0 ms")
	require.NotContains(t, (&Summary{}).Text(), "POSTGRESQL", "where there was none")

	delete(e.Rows, "pg-test-1")
	require.Zero(t, account(e, nil).LostRows, "rows that nobody looked for are not told as lost")
}

func TestVIPOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	require.NoError(t, os.WriteFile(path, []byte(storyInventory), 0o600))
	vip, err := vipOf(path)
	require.NoError(t, err)
	require.Equal(t, netip.MustParsePrefix("10.10.10.2/24"), vip)
	require.NoError(t, os.WriteFile(path, []byte("all: {}\n"), 0o600))
	_, err = vipOf(path)
	require.ErrorContains(t, err, "pg_vip_address")
}
