package sop

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// An Access is how members are reached, and as whom.
type Access struct {
	// TLS finds the identity that members are shown. It is asked at each call until
	// it has one, since createCluster makes the CA.
	TLS func() (*tls.Config, error)
	// User and Password are for a cluster that has authentication on. One that has
	// it off is told of neither.
	User, Password string
	Way            Way // nil is this machine's own network
	Options        []grpc.DialOption
}

// Dialer reaches members, each on its own.
func (a Access) Dialer() Dialer {
	identity := a.identity()
	return func(ctx context.Context, endpoint string) (Etcd, error) {
		var config *tls.Config
		if !strings.HasPrefix(endpoint, "http://") { // a cluster without TLS asks for no certificate
			var err error
			if config, err = identity(); err != nil {
				return nil, err
			}
		}
		settings := clientv3.Config{TLS: config, DialTimeout: 2 * time.Second, DialOptions: append(slices.Clone(a.Options),
			// A member that comes back is noticed soon: what waits for it is each
			// step that restarts one. The standard is to look away for up to two
			// minutes. One that starts listens some time before it answers.
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second,
				Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}}),
		)}
		c, err := DialMember(settings, endpoint, a.Way)
		if err != nil || a.Password == "" {
			return c, err
		}
		asks, err := asksForUser(ctx, c)
		switch {
		case err != nil:
			return nil, errors.Join(err, c.Close())
		case !asks:
			return c, nil
		}
		_ = c.Close() // nothing was written through it
		settings.Username, settings.Password = a.User, a.Password
		return DialMember(settings, endpoint, a.Way)
	}
}

// identity asks for the identity until there is one, one caller at a time.
func (a Access) identity() func() (*tls.Config, error) {
	var mu sync.Mutex
	var known *tls.Config
	return func() (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if known != nil {
			return known, nil
		}
		config, err := a.TLS()
		if err == nil {
			known = config
		}
		return config, err
	}
}

// asksForUser reports whether a member serves nobody without a user.
func asksForUser(ctx context.Context, c Etcd) (bool, error) {
	// Upstream's client waits for a member that is not there; this call does not.
	if _, err := c.Status(ctx); unheard(err) {
		return false, err
	}
	_, err := c.KV().Get(ctx, "\x00", clientv3.WithSerializable(), clientv3.WithKeysOnly())
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrInvalidAuthToken):
		return true, nil
	}
	return false, err
}

// unheard reports whether a call has not come as far as a member.
func unheard(err error) bool {
	var said rpctypes.EtcdError
	return err != nil && !errors.As(err, &said) && status.Code(err) == codes.Unavailable
}
