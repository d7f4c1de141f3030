package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdrill/etcdrill/lab/embedded/baddisk"
	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
	"github.com/etcdrill/etcdrill/sop/host"
)

// The control protocol: one request per connection, each way a length of four
// bytes and JSON. File descriptors travel with the length.

type op string

const (
	opInfo   op = "info"
	opLook   op = "look"
	opDo     op = "do"
	opFetch  op = "fetch"
	opExec   op = "exec"
	opSocket op = "socket"
	opPower  op = "power"
	opSignal op = "signal"
	opLink   op = "link"
	opHeal   op = "heal"
	opDown   op = "down"

	opInstall  op = "install"
	opCounters op = "counters"
	opClock    op = "clock"
	opDisk     op = "disk"
)

type request struct {
	Op       op
	At       string          `json:",omitempty"` // the host it is about; the sender for a link
	To       string          `json:",omitempty"`
	Question *host.Question  `json:",omitempty"`
	Act      json.RawMessage `json:",omitempty"`
	Path     string          `json:",omitempty"` // of what to execute
	Argv     []string        `json:",omitempty"`
	Env      []string        `json:",omitempty"`
	Dir      string          `json:",omitempty"`
	V6       bool            `json:",omitempty"`
	On       bool            `json:",omitempty"`
	Signal   syscall.Signal  `json:",omitempty"`
	Rule     *netswitch.Rule `json:",omitempty"`
	Keep     bool            `json:",omitempty"` // down: keep the directory
	Version  string          `json:",omitempty"`
	Offset   time.Duration   `json:",omitempty"` // clock: how far off
	Disk     *baddisk.Fault  `json:",omitempty"` // disk: what ails it; nil asks for the counts alone
}

type reply struct {
	Error *wireError    `json:",omitempty"`
	Info  *Info         `json:",omitempty"`
	Facts *host.Facts   `json:",omitempty"`
	PID   int           `json:",omitempty"` // as the machine outside the lab counts
	Exit  *int          `json:",omitempty"`
	CPU   time.Duration `json:",omitempty"` // that the process had, when it has ended
	Done  []string      `json:",omitempty"`

	Counters map[netswitch.Link]netswitch.Counter `json:",omitempty"`
	Counts   *baddisk.Counts                      `json:",omitempty"`
}

// maxFrame bounds one request or reply; the largest holds a file's content.
const maxFrame = 64 << 20

func send(c *net.UnixConn, v any, fds ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	frame := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = c.Write(frame[n:])
	}
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// receive reads one message; the caller owns the files.
func receive(c *net.UnixConn, v any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	head := make([]byte, 4)
	oob := make([]byte, unix.CmsgSpace(8*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head, oob)
	if err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	if oobn > 0 {
		if files, err = rights(oob[:oobn]); err != nil {
			return files, err
		}
	}
	if n == 0 {
		return files, io.EOF
	}
	if _, err = io.ReadFull(c, head[n:]); err != nil {
		return files, fmt.Errorf("receive message: %w", err)
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxFrame {
		return files, fmt.Errorf("receive message: %d bytes are too many", size)
	}
	body := make([]byte, size)
	if _, err = io.ReadFull(c, body); err != nil {
		return files, fmt.Errorf("receive message: %w", err)
	}
	if err = json.Unmarshal(body, v); err != nil {
		return files, fmt.Errorf("read message: %w", err)
	}
	return files, nil
}

func rights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read file descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// A wireError is an error that keeps, across the socket, what a caller acts on.
type wireError struct {
	Text    string
	Kind    string        `json:",omitempty"`
	Failure *host.Failure `json:",omitempty"` // its Err is in Text and Kind
}

// errorKinds are the sentinels that survive the socket.
var errorKinds = map[string]error{
	"unreachable": host.ErrUnreachable,
	"unknown":     host.ErrUnknown,
	"claimed":     host.ErrClaimed,
	"no-host":     ErrNoHost,
	"off":         ErrPoweredOff,
	"not-exist":   os.ErrNotExist,
	"permission":  os.ErrPermission,
	"unsupported": errors.ErrUnsupported,
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{}
	for kind, sentinel := range errorKinds {
		if errors.Is(err, sentinel) {
			w.Kind = kind
		}
	}
	var failure *host.Failure
	if errors.As(err, &failure) {
		w.Failure = &host.Failure{Host: failure.Host, Act: failure.Act, Output: failure.Output}
		err = failure.Err
	}
	if err != nil {
		w.Text = err.Error()
	}
	return w
}

func (w *wireError) err() error {
	if w == nil {
		return nil
	}
	inner := error(&remoteError{text: w.Text, sentinel: errorKinds[w.Kind]})
	if w.Failure == nil {
		return inner
	}
	f := *w.Failure
	if w.Text != "" || w.Kind != "" {
		f.Err = inner
	}
	return &f
}

// A remoteError is an error of the supervisor, in its own words.
type remoteError struct {
	text     string
	sentinel error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.sentinel }
