package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/etcdrill/etcdrill/sop/host"
)

// scriptOf writes the script of an act, but for what every such script begins
// with. What an act writes is in the script, and the script goes through standard
// input.
func scriptOf(a host.Act) (string, error) {
	words, err := callOf(a)
	if err != nil {
		return "", err
	}
	var before string
	switch a := a.(type) {
	case host.WriteFile:
		before = "content=" + Quote(base64.StdEncoding.EncodeToString(a.Content)) + "\n"
	case host.ReplayLog:
		before = "record=" + Quote(base64.StdEncoding.EncodeToString(a.Record)) + "\nconf=" + Quote(base64.StdEncoding.EncodeToString([]byte(a.Config("data")))) +
			"\nserves=" + Quote(host.Serves) + "\n"
	case host.Note:
		before = "line=" + Quote(strings.Join(strings.Fields(a.Line), " ")) + "\n"
	}
	for _, w := range words {
		if strings.ContainsRune(w, 0) {
			return "", errors.New("a NUL is in it")
		}
	}
	if strings.ContainsRune(before, 0) {
		return "", errors.New("a NUL is in it")
	}
	return before + quoteAll(words...), nil
}

// callOf gives the function of act.sh that makes a change, and its arguments.
func callOf(a host.Act) ([]string, error) {
	switch a := a.(type) {
	case host.WriteFile:
		return []string{"write_file", a.Path, or(a.Owner, "root"), or(a.Group, "root"), octal(a.Mode.Perm())}, absolute(a.Path)
	case host.RemoveFile:
		return []string{"remove_file", a.Path}, absolute(a.Path)
	case host.MakeDir:
		return []string{"make_dir", a.Path, or(a.Owner, "root"), or(a.Group, "root"), octal(a.Mode.Perm())}, absolute(a.Path)
	case host.Systemctl:
		return systemctl(a)
	case host.SetAside:
		if a.Stamp == "" || strings.ContainsAny(a.Stamp, "/\n") {
			return nil, fmt.Errorf("stamp %q is no part of a file name", a.Stamp)
		}
		return []string{"set_aside", a.Path, a.Stamp}, absolute(a.Path)
	case host.Delete:
		return []string{"delete_in", a.Path}, deep(a.Path)
	case host.Claim:
		if a.Token == "" || strings.ContainsAny(a.Token, "\n") {
			return nil, fmt.Errorf("token %q cannot be kept in a lock", a.Token)
		}
		owner := strings.ReplaceAll(a.Owner, "\n", " ")
		return append([]string{"claim", host.LockPath, a.Token, owner}, a.Supersedes...), nil
	case host.Release:
		return []string{"release", host.LockPath, a.Token}, nil
	case host.CopyProgram:
		return []string{"copy_program", a.From, a.Path}, errors.Join(absolute(a.From), absolute(a.Path))
	case host.InstallPackage:
		for _, w := range []string{a.Package, a.Version} {
			if strings.HasPrefix(w, "-") || strings.ContainsAny(w, " \n/=") {
				return nil, fmt.Errorf("%q is no name or version of a package", w)
			}
		}
		if a.Package == "" {
			return nil, errors.New("no package is named")
		}
		return []string{"install_package", a.Package, a.Version}, nil
	case host.RestoreData:
		for _, w := range []string{a.Name, a.PeerURL, a.Initial, a.Token, a.Owner, a.Group} {
			if w == "" || strings.HasPrefix(w, "-") || strings.ContainsAny(w, " \n") {
				return nil, fmt.Errorf("%q cannot be given to etcdutl", w)
			}
		}
		paths := []string{a.Program, a.Snapshot, a.Work, a.DataDir}
		if a.WALDir != "" {
			paths = append(paths, a.WALWork, a.WALDir)
		}
		var bad []error
		for _, p := range paths {
			bad = append(bad, absolute(p))
		}
		return append([]string{"restore_data", a.Program, a.Work, a.WALWork, a.DataDir, a.WALDir, a.Owner, a.Group}, a.Args(restoredData, "")...), errors.Join(bad...)
	case host.ReplayLog:
		if a.Segment == "" || strings.ContainsAny(a.Segment, "/\n") || a.Offset < 0 {
			return nil, fmt.Errorf("%q at %d is no place in a log", a.Segment, a.Offset)
		}
		paths := []string{a.Program, a.DataDir, a.Work, a.Path}
		if a.WALDir != "" {
			paths = append(paths, a.WALDir)
		}
		var bad []error
		for _, p := range paths {
			bad = append(bad, absolute(p))
		}
		return []string{"replay_log", a.Program, a.DataDir, a.WALDir, a.Work, a.Segment, strconv.FormatInt(a.Offset, 10), a.Path}, errors.Join(bad...)
	case host.AddUser:
		if a.Name == "" || strings.ContainsAny(a.Name, ":\n/ ") || strings.HasPrefix(a.Name, "-") {
			return nil, fmt.Errorf("useradd: invalid user name '%s'", a.Name)
		}
		return []string{"add_user", a.Name, a.Home}, nil
	case host.Note:
		return []string{"note"}, nil
	}
	return nil, errNoAct
}

// restoredData stands for the directory that restore_data makes: its script alone
// knows the name.
const restoredData = "@DATA@"

// errNoAct says that an act is not one of the set.
var errNoAct = errors.New("not one of the set")

func systemctl(a host.Systemctl) ([]string, error) {
	switch a.Verb {
	case host.Start, host.Stop, host.Restart, host.Reload, host.Enable, host.Disable, host.Mask, host.Unmask, host.ResetFailed:
		if a.Unit == "" || strings.HasPrefix(a.Unit, "-") {
			return nil, fmt.Errorf("systemctl %s of unit %q", a.Verb, a.Unit)
		}
	case host.DaemonReload:
		return []string{"unit", string(a.Verb), ""}, nil
	default:
		return nil, fmt.Errorf("systemctl has no verb %q here", a.Verb)
	}
	words := []string{"unit", string(a.Verb), a.Unit}
	if a.NoBlock {
		words = append(words, "--no-block")
	}
	return words, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func octal[T ~uint32](mode T) string { return fmt.Sprintf("%04o", uint32(mode)) }

func absolute(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%s is not an absolute path", name)
	}
	return nil
}

// deep refuses to delete what is too near to the root of a host.
func deep(name string) error {
	if err := absolute(name); err != nil {
		return err
	}
	if strings.Count(path.Clean(name), "/") < 2 {
		return fmt.Errorf("%s is less than two levels deep", name)
	}
	return nil
}

// A program is a file of the admin host on its way. It remembers whether it was
// its own reading that failed.
type program struct {
	from io.Reader
	left int64
	err  error
}

// Read implements io.Reader. It gives just as many bytes as were announced.
func (p *program) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.from.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if err == io.EOF && p.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		p.err = fmt.Errorf("read the program: %w", err)
		return n, p.err
	}
	return n, nil
}

// putProgram sends a program, unless the host has it already.
func (m *Machine) putProgram(ctx context.Context, a host.PutProgram) error {
	return m.put(ctx, a, "program", a.From, a.Path, a.SHA256)
}

// putFile sends a file, unless the host has one of that name already.
func (m *Machine) putFile(ctx context.Context, a host.PutFile) error {
	return m.put(ctx, a, "file", a.From, a.Path, a.SHA256)
}

// put sends what is there for an act, by the functions have_KIND and put_KIND of
// act.sh.
func (m *Machine) put(ctx context.Context, a host.Act, kind, from, to, sha string) error {
	want := strings.ToLower(sha)
	if err := errors.Join(absolute(from), absolute(to)); err != nil {
		return m.failure(a, reply{}, err, 0)
	}
	f, err := os.Open(from)
	if err != nil {
		return m.failure(a, reply{}, err, 0)
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return m.failure(a, reply{}, err, 0)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return m.failure(a, reply{}, fmt.Errorf("%s: its sha256 is %s, and not %s", from, got, want), 0)
	}
	status, err := m.change(ctx, a, preludeScript+actScript+quoteAll("have_"+kind, to, want), nil)
	if status != statusSend {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return m.failure(a, reply{}, err, 0)
	}
	script := preludeScript + actScript + quoteAll("put_"+kind, to, strconv.FormatInt(size, 10), want)
	_, err = m.change(ctx, a, script, &program{from: f, left: size})
	return err
}

// lines splits what a script answered into its words.
func lines(out []byte) [][]byte {
	return bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
}
