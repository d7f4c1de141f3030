package ssh

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// loop is the shell that waits for scripts. It is one line without single
// quotes, backslashes and exclamation marks, so that every login shell passes it
// on as it is, csh and fish too; and it never changes, so that sudoers can name
// it. A script that did not arrive whole is not begun.
const loop = `trap "" HUP; export LC_ALL=C; exec 3>&1; echo; echo "@etcdrill ready $(id -u)"; ` +
	`while read -r n; do s=$(head -c "$n"); test "${#s}" = "$n" || exit 9; echo "@etcdrill begin"; ` +
	`e=$( (eval "$s") 2>&1 >&3 3>&-); r=$?; echo "@etcdrill end $r $(printf %s "$e" | base64 -w 0)"; done`

// SudoCommand is what sudo is asked to run, as words, for those who want to
// allow nothing else. What that shell is told to do then is not in it: whoever
// may run it is root.
func SudoCommand() []string { return []string{"/bin/sh", "-c", loop} }

// command is what the login shell of a host is given to run.
func (s Spec) command(readOnly bool) string {
	if !s.Become || readOnly {
		return "exec " + quoteAll(SudoCommand()...)
	}
	// Quoted within quotes: $0 is the loop.
	sudo, same := "sudo -n", `test "$(id -u)" = 0`
	if s.As != "" {
		sudo += " -u " + Quote(s.As)
		same = `test "$(id -un)" = ` + Quote(s.As)
	}
	return "exec /bin/sh -c " + Quote(same+` && exec /bin/sh -c "$0"; exec `+sudo+` /bin/sh -c "$0"`) + " " + Quote(loop)
}

// A session is a shell on a host that takes one script after another. One caller
// at a time has it.
type session struct {
	link    *link
	process *process
	in, out *os.File
	lines   *bufio.Reader // of out
	uid     int           // of the shell
	spent   bool          // it cannot be used again
}

// quit gives a session up. A script that runs is not ended by it: what was begun
// on a host is better done to its end, here as over ssh.
func (s *session) quit() {
	_, _ = s.in.Close(), s.out.Close() // they may be closed already
	if !s.link.spec.Local {
		s.process.signal(syscall.SIGKILL)
	}
}

// open starts a session and waits until it is ready for scripts.
func (l *link) open(ctx context.Context, a *attempt) (*session, error) {
	command := l.spec.command(l.client.config.ReadOnly && !l.client.config.Root)
	var cmd *exec.Cmd
	if l.spec.Local {
		cmd = exec.Command(l.client.config.Shell, "-c", command)
	} else {
		cmd = exec.Command(l.client.config.Program, append(clientArgs(l.spec, a.socket), command)...)
	}
	s, err := l.begin(cmd)
	if err != nil {
		return nil, &Unreachable{Host: l.spec.Name, Said: err.Error()}
	}
	stop := context.AfterFunc(ctx, s.quit)
	// What a login shell says first is not for us, unless it is its last word.
	var before tail
	for {
		line, err := s.lines.ReadString('\n')
		if uid, ok := strings.CutPrefix(strings.TrimSpace(line), "@etcdrill ready "); ok {
			if s.uid, err = strconv.Atoi(uid); err == nil {
				if !stop() {
					break // killed meanwhile
				}
				return s, nil
			}
		}
		_, _ = before.Write([]byte(line))
		if err != nil {
			break
		}
	}
	stop()
	s.quit()
	if err := ctx.Err(); err != nil {
		return nil, &Unreachable{Host: l.spec.Name, Said: "no shell answered in time (" + err.Error() + ")"}
	}
	<-s.process.done
	said := s.process.stderr.String()
	if a != nil && !a.master.alive() {
		said = strings.TrimSpace(a.master.stderr.String() + "\n" + said)
	}
	if said == "" {
		said = before.String()
	}
	if said == "" {
		said = fmt.Sprintf("the shell ended with status %d before it was ready", s.process.status())
	}
	return nil, unreachable(l.spec, said)
}

// begin starts the process of a session.
func (l *link) begin(cmd *exec.Cmd) (*session, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	defer theirOut.Close()
	cmd.Stdin, cmd.Stdout = theirIn, theirOut
	signal := syscall.SIGKILL
	if l.spec.Local {
		signal = 0 // it ends with its input
	}
	p, err := l.client.start(cmd, signal)
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	s := &session{link: l, process: p, in: in, out: out, lines: bufio.NewReader(out)}
	context.AfterFunc(l.client.ctx, func() {
		s.quit()
		p.signal(syscall.SIGKILL)
	})
	return s, nil
}

// A reply is what a script came to.
type reply struct {
	out    []byte // its lines on standard output
	said   string // standard error
	status int
}

// errCut says that a session ended before the second mark.
var errCut = errors.New("connection lost")

// run runs one script, with data on its standard input. An error says that it is
// not known what of it was done.
func (s *session) run(ctx context.Context, script string, data io.Reader) (reply, error) {
	var out bytes.Buffer
	r, err := s.runInto(ctx, script, data, &out)
	r.out = out.Bytes()
	return r, err
}

// runInto is run with the lines of the script going elsewhere, one at a time.
func (s *session) runInto(ctx context.Context, script string, data io.Reader, out io.Writer) (reply, error) {
	stop := context.AfterFunc(ctx, s.quit)
	s.link.count()
	written := make(chan error, 1)
	go func() {
		// A shell leaves out newlines at the end, which its count would miss.
		script := strings.TrimRight(script, "\n")
		_, err := fmt.Fprintf(s.in, "%d\n%s", len(script), script)
		if err == nil && data != nil {
			_, err = io.Copy(s.in, data)
		}
		if err != nil {
			_ = s.in.Close() // the host is not to wait for the rest
		}
		written <- err
	}()
	r, err := s.read(out)
	if err != nil || r.status != 0 && data != nil {
		s.spent = true // data that was not taken would be read as the next script
		s.quit()
	}
	if werr := <-written; werr != nil {
		s.spent = true
		if err == nil && r.status == 0 {
			err = werr
		}
	}
	if !stop() {
		s.spent = true
	}
	switch cerr := ctx.Err(); {
	case err == nil:
		return r, nil
	case cerr != nil:
		return reply{}, cerr
	}
	s.quit()
	<-s.process.done
	if said := s.process.stderr.String(); said != "" {
		return reply{}, fmt.Errorf("%w: %s", errCut, said)
	}
	return reply{}, errCut
}

func (s *session) read(out io.Writer) (reply, error) {
	var r reply
	begun := false
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return r, err
		}
		if end, ok := strings.CutPrefix(line, "@etcdrill end "); ok && begun {
			status, said, _ := strings.Cut(strings.TrimSpace(end), " ")
			if r.status, err = strconv.Atoi(status); err != nil {
				return r, fmt.Errorf("end of a script: %w", err)
			}
			b, err := base64.StdEncoding.DecodeString(said)
			if err != nil {
				return r, fmt.Errorf("end of a script: %w", err)
			}
			r.said = strings.TrimSpace(string(b))
			return r, nil
		}
		if !begun {
			begun = strings.TrimSpace(line) == "@etcdrill begin"
			continue
		}
		if _, err := io.WriteString(out, line); err != nil {
			return r, err
		}
	}
}
