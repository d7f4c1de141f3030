package workload

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Etcd is what loads and checkers ask of one member. A *clientv3.Client with
// one endpoint is one.
type Etcd interface {
	Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error)
	Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error)
	Txn(ctx context.Context) clientv3.Txn
	Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error)
	KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseKeepAliveResponse, error)
	Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error)
	Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan
	RequestProgress(ctx context.Context) error
	Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error)
	Status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error)
	HashKV(ctx context.Context, endpoint string, rev int64) (*clientv3.HashKVResponse, error)
	MemberList(ctx context.Context, opts ...clientv3.OpOption) (*clientv3.MemberListResponse, error)
	Close() error
}

// A Dial connects to the member at one endpoint, and to no other.
type Dial func(ctx context.Context, endpoint string) (Etcd, error)

// Fixed gives the same endpoints each time they are asked for.
func Fixed(endpoints ...string) func() []string {
	return func() []string { return endpoints }
}

const (
	// A refused connection is tried again after connectBackoff at first and
	// connectBackoffMax at most; gRPC's own second would be measured as a gap
	// of etcd's.
	connectBackoff    = 10 * time.Millisecond
	connectBackoffMax = 20 * time.Millisecond
	// connectTimeout ends an attempt to connect to a host that is silent.
	connectTimeout = time.Second
	// loginTimeout ends a login. One that is given up costs etcd as much as any,
	// a twentieth of a second of a processor and more, and the next try is one
	// more: who is as impatient as with a call keeps a busy member from ever
	// letting anybody in.
	loginTimeout = 5 * time.Second
)

// A Dialer makes clients that tell a failure at once: one attempt for each
// call, no waiting for a connection that was refused, no second of backoff.
type Dialer struct {
	TLS      *tls.Config // nil for plain http endpoints
	User     string      // empty where the cluster has no auth
	Password string
	// Connect opens the connection where the network is not this process's
	// own, as in a lab; nil for the usual way. It gets "host:port".
	Connect func(ctx context.Context, address string) (net.Conn, error)
}

// Dial is a Dial. It blocks only where there is a user to authenticate, and then
// maybe longer than its context lasts.
func (d Dialer) Dial(ctx context.Context, endpoint string) (Etcd, error) {
	options := []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(failFast),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectBackoff, Multiplier: 1.5, Jitter: 0.2, MaxDelay: connectBackoffMax},
			MinConnectTimeout: connectTimeout,
		}),
	}
	if d.Connect != nil {
		options = append(options, grpc.WithContextDialer(d.Connect))
	}
	// clientv3 authenticates inside New and takes no context for that alone:
	// one in the config would end the client with it.
	within := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		within = max(time.Until(deadline), time.Millisecond)
	}
	tries := uint(1) // "retries" counts the first
	if d.User != "" {
		within = max(within, loginTimeout)
		tries = 2 // one to be told that the login has to be made anew
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:       []string{endpoint},
		TLS:             d.TLS,
		Username:        d.User,
		Password:        d.Password,
		DialTimeout:     within,
		DialOptions:     options,
		MaxUnaryRetries: tries,
		Logger:          zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	return c, nil
}

// failFast undoes the wait-for-ready that clientv3 sets on each call: a
// refused connection is to fail the call, not to hold it to its deadline.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}
