package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Exec runs a command as root, past SSH, to its end: stdin is given to it as it
// comes, where there is any, and what it writes to stdout is passed on at once. A
// status other than zero is an error that has what it wrote to stderr.
//
// When ctx ends, Exec returns; the command itself goes on until it finds that
// its streams are gone. One that would not is written so that it ends with its
// standard input.
func (m *Machine) Exec(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
	return m.wrong(strings.Join(argv, " "), m.exec(ctx, stdin, stdout, argv))
}

func (m *Machine) exec(ctx context.Context, stdin io.Reader, stdout io.Writer, argv []string) error {
	x, err := m.docker().ExecCreate(ctx, m.info.Container,
		client.ExecCreateOptions{Cmd: argv, AttachStdin: stdin != nil, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return err
	}
	a, err := m.docker().ExecAttach(ctx, x.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer a.Close()
	// The connection knows nothing of ctx.
	stop := context.AfterFunc(ctx, func() { _ = a.Conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if stdin != nil {
		go func() {
			// A command that ends early breaks this off, and says why itself.
			_, _ = io.Copy(a.Conn, stdin)
			_ = a.CloseWrite()
		}()
	}
	var errs bytes.Buffer
	if _, err := stdcopy.StdCopy(stdout, &errs, a.Reader); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return err
	}
	end, err := m.docker().ExecInspect(ctx, x.ID, client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	if end.ExitCode != 0 {
		return fmt.Errorf("status %d: %s", end.ExitCode, strings.TrimSpace(errs.String()))
	}
	return nil
}
