package sop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
)

// Two calls at once count once, and not while a host is asked as well.
func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(time.Now)
		call := func(after, took time.Duration) {
			go func() {
				time.Sleep(after)
				_ = m.Unary(t.Context(), "", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					time.Sleep(took)
					return nil
				})
			}()
		}
		call(0, 4*time.Second)
		call(time.Second, 5*time.Second)
		go func() {
			time.Sleep(2 * time.Second)
			done := m.atHost()
			time.Sleep(time.Second)
			done()
		}()
		time.Sleep(5*time.Second + time.Millisecond)
		require.Equal(t, 4*time.Second+time.Millisecond, m.take(), "so far, and a call is still under way")
		time.Sleep(5 * time.Second)
		require.Equal(t, time.Second-time.Millisecond, m.take())
		require.Zero(t, m.take())
		var none *Meter
		none.atHost()()
		require.Zero(t, none.take())
	})
}
