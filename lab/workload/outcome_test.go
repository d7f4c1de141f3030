package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A certificate of another authority: nothing was sent, and the words are
// gRPC's own.
func TestHandshakeThatFails(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	etcd, err := Dialer{TLS: &tls.Config{RootCAs: x509.NewCertPool()}}.Dial(t.Context(), server.URL)
	require.NoError(t, err)
	defer etcd.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = etcd.Put(ctx, "k", "v")
	require.ErrorContains(t, err, "certificate signed by unknown authority")
	require.Equal(t, verdict{Fail, false}, judge(err))
}

func TestJudge(t *testing.T) {
	// as the client library hands it on
	from := func(err error) error { return rpctypes.Error(err) }
	for _, row := range []struct {
		err  error
		want verdict
	}{
		{nil, verdict{OK, true}},
		{from(rpctypes.ErrGRPCRequestTooManyRequests), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCRequestTooLarge), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCPermissionDenied), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCInvalidAuthToken), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCAuthOldRevision), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCUserEmpty), verdict{Fail, true}},
		{from(rpctypes.ErrGRPCNotSupportedForLearner), verdict{Fail, true}},
		{status.Error(codes.Unknown, "raft proposal dropped"), verdict{Fail, true}},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`), verdict{Fail, false}},
		{status.Error(codes.Unavailable, `last connection error: connection error: desc = "transport: authentication handshake failed: EOF"`), verdict{Fail, false}},

		// etcd answered, and that says nothing of the write
		{from(rpctypes.ErrGRPCNoSpace), verdict{Unknown, true}}, // applied by one and refused by another
		{from(rpctypes.ErrGRPCTimeout), verdict{Unknown, true}},
		{from(rpctypes.ErrGRPCTimeoutDueToLeaderFail), verdict{Unknown, true}},
		{from(rpctypes.ErrGRPCTimeoutDueToConnectionLost), verdict{Unknown, true}},
		{from(rpctypes.ErrGRPCLeaderChanged), verdict{Unknown, true}},
		{from(rpctypes.ErrGRPCStopped), verdict{Unknown, true}},
		{from(rpctypes.ErrGRPCNoLeader), verdict{Unknown, true}},

		// nothing was heard
		{context.DeadlineExceeded, verdict{Unknown, false}},
		{context.Canceled, verdict{Unknown, false}},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), verdict{Unknown, false}},
		{status.Error(codes.Unavailable, "transport is closing"), verdict{Unknown, false}},
		{status.Error(codes.Internal, "stream terminated by RST_STREAM"), verdict{Unknown, false}},
		{errors.New("transport: Error while dialing"), verdict{Unknown, false}}, // by whom, one cannot tell
	} {
		require.Equal(t, row.want, judge(row.err), "%v", row.err)
	}
}
