package pki

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// handshake connects two sides over a real loopback connection, has the
// server greet the client, and gives the error of either.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		side := tls.Server(conn, server)
		err = side.Handshake()
		if err == nil {
			_, err = side.Write([]byte("hello"))
		}
		done <- errors.Join(err, side.Close())
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	side := tls.Client(conn, client)
	greeting, clientErr := io.ReadAll(side)
	if clientErr == nil {
		require.Equal(t, "hello", string(greeting))
	}
	conn.Close()
	return <-done, clientErr
}

func config(t *testing.T, ca *CA, pair Pair, serverName string) *tls.Config {
	t.Helper()
	c, err := TLSConfig(ca.CertPEM, pair.CertPEM, pair.KeyPEM)
	require.NoError(t, err)
	c.ServerName = serverName
	return c
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	ca, err := NewCA(rand.Reader, now)
	require.NoError(t, err)
	make := func(ca *CA, now time.Time, leaf Leaf) Pair {
		pair, err := ca.Issue(rand.Reader, now, leaf)
		require.NoError(t, err)
		return pair
	}
	one := make(ca, now, Leaf{Name: "etcd-1", Host: "10.10.10.10"})
	two := make(ca, now, Leaf{Name: "etcd-2", Host: "10.10.10.11"})

	t.Run("both ways", func(t *testing.T) {
		for _, at := range []string{"10.10.10.10", "127.0.0.1", "localhost", "etcd-1"} {
			serverErr, clientErr := handshake(t, config(t, ca, one, ""), config(t, ca, two, at))
			require.NoError(t, serverErr)
			require.NoError(t, clientErr)
		}
		serverErr, clientErr := handshake(t, config(t, ca, two, ""), config(t, ca, one, "10.10.10.11"))
		require.NoError(t, serverErr)
		require.NoError(t, clientErr)
	})
	t.Run("address not in the certificate", func(t *testing.T) {
		_, clientErr := handshake(t, config(t, ca, one, ""), config(t, ca, two, "10.10.10.12"))
		require.ErrorContains(t, clientErr, "certificate is valid for")
	})
	t.Run("another CA", func(t *testing.T) {
		// It has the same name, as a second run of a playbook makes it.
		other, err := NewCA(rand.Reader, now)
		require.NoError(t, err)
		stranger := make(other, now, Leaf{Name: "etcd-2", Host: "10.10.10.11"})
		_, clientErr := handshake(t, config(t, ca, one, ""), config(t, other, stranger, "10.10.10.10"))
		require.ErrorContains(t, clientErr, "certificate signed by unknown authority")
		trusting := config(t, ca, one, "10.10.10.10")
		trusting.Certificates = config(t, other, stranger, "").Certificates
		// The stranger is told by name only that it is not known.
		serverErr, clientErr := handshake(t, config(t, ca, one, ""), trusting)
		require.ErrorContains(t, serverErr, "certificate signed by unknown authority")
		require.Error(t, clientErr)
	})
	t.Run("no certificate", func(t *testing.T) {
		bare := config(t, ca, two, "10.10.10.10")
		bare.Certificates = nil
		serverErr, clientErr := handshake(t, config(t, ca, one, ""), bare)
		require.ErrorContains(t, serverErr, "client didn't provide a certificate")
		require.Error(t, clientErr)
	})
	t.Run("expired", func(t *testing.T) {
		early, err := NewCA(rand.Reader, now.Add(-48*time.Hour))
		require.NoError(t, err)
		old := make(early, now.Add(-48*time.Hour), Leaf{Name: "etcd-1", Host: "10.10.10.10", Validity: time.Hour})
		fresh := make(early, now, Leaf{Name: "etcd-2", Host: "10.10.10.11"})
		_, clientErr := handshake(t, config(t, early, old, ""), config(t, early, fresh, "10.10.10.10"))
		require.ErrorContains(t, clientErr, "certificate has expired")
		require.ErrorIs(t, CheckLeaf(old, early.CertPEM, "10.10.10.10", now, 0), ErrExpired)
		serverErr, _ := handshake(t, config(t, early, fresh, ""), config(t, early, old, "10.10.10.11"))
		require.ErrorContains(t, serverErr, "certificate has expired")
	})
}

func TestTLSConfigRefuses(t *testing.T) {
	ca := newCA(t)
	a, b := issue(t, ca, Leaf{Name: "a", Host: "10.0.0.1"}), issue(t, ca, Leaf{Name: "b", Host: "10.0.0.2"})
	_, err := TLSConfig(ca.CertPEM, a.CertPEM, b.KeyPEM)
	require.ErrorIs(t, err, ErrKeyMismatch)
	for why, in := range map[string][3][]byte{
		"CA: there":          {nil, a.CertPEM, a.KeyPEM},
		"certificate: there": {ca.CertPEM, nil, a.KeyPEM},
		"private key: there": {ca.CertPEM, a.CertPEM, nil},
	} {
		_, err := TLSConfig(in[0], in[1], in[2])
		require.ErrorContains(t, err, why)
	}
}
