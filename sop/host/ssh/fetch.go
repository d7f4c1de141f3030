package ssh

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/etcdrill/etcdrill/sop/host"
)

// Fetch implements host.Host. The file comes compressed, in lines of base64: most
// of a log that was begun lately is zeros.
func (m *Machine) Fetch(ctx context.Context, path string, w io.Writer) error {
	failed := func(err error) error { return fmt.Errorf("fetch %s from %s: %w", path, m.Name(), err) }
	if err := absolute(path); err != nil {
		return failed(err)
	}
	s, err := m.link.acquire(ctx)
	if err != nil {
		return err
	}
	in, out := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(w, in)
		_ = in.CloseWithError(err) // it is told to whoever still writes
		unpacked <- err
	}()
	r, err := s.runInto(ctx, "exec </dev/null\n"+preludeScript+lookScript+quoteAll("fetch", path), nil, &packed{to: out})
	m.link.release(s)
	switch {
	case err == nil && r.status != 0:
		err = fmt.Errorf("the script ended with status %d: %s", r.status, r.said)
	case err != nil && ctx.Err() != nil:
		err = &Unreachable{Host: m.Name(), Said: "it did not send all in time (" + ctx.Err().Error() + ")"}
	case err != nil:
		err = unreachable(m.link.spec, err.Error())
	}
	_ = out.CloseWithError(err) // nil is the end of the file
	why := <-unpacked
	switch {
	case err == nil && why != nil:
		return failed(why)
	case err == nil || errors.Is(err, host.ErrUnreachable):
		return err
	}
	return failed(err)
}

// packed takes the lines of fetch, and gives on what they mean.
type packed struct {
	to     io.Writer
	failed bool
}

// Write takes one line. What cannot be given on is thrown away: the reader knows
// why, and the script goes on to its end.
func (p *packed) Write(line []byte) (int, error) {
	b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line)))
	if err == nil && len(b) > 0 && !p.failed {
		_, err = p.to.Write(b)
	}
	p.failed = p.failed || err != nil
	return len(line), nil
}

// unpack writes what fetch has sent.
func unpack(w io.Writer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}
