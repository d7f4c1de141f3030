package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/workload"
)

// The admin host is a machine like any other: what the operator keeps there is
// hurt by these.

// TearJournal cuts the last line of the operator's newest journal in two: the
// machine died while it was written.
func TearJournal() Fault {
	return beside{"torn journal", "the operator's journal ends in half a line", "fault.TearJournal()", func(g *Ground) error {
		all, err := filepath.Glob(filepath.Join(g.Beside, ".etcdrill", "runs", "*", "journal.jsonl"))
		if err != nil || len(all) == 0 {
			return errors.Join(err, errors.New("there is no journal"))
		}
		slices.Sort(all)
		newest := all[len(all)-1]
		content, err := os.ReadFile(newest)
		if err != nil {
			return err
		}
		whole := strings.TrimRight(string(content), "\n")
		last := whole[strings.LastIndex(whole, "\n")+1:]
		return os.Truncate(newest, int64(len(whole)-len(last)/2))
	}, nil}
}

// BlockJournal makes it impossible to keep a journal: a file stands where its
// directory would be.
func BlockJournal() Fault {
	return beside{"no journal", "no journal can be kept on the admin host", "fault.BlockJournal()", func(g *Ground) error {
		runs := filepath.Join(g.Beside, ".etcdrill", "runs")
		if err := os.Rename(runs, runs+".moved"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.WriteFile(runs, nil, 0o600)
	}, []string{".etcdrill/runs"}}
}

// ForgetJournal removes all that the admin host keeps: another admin host has
// none of it.
func ForgetJournal() Fault {
	return beside{"lost journal", "the admin host has lost all that it kept", "fault.ForgetJournal()", func(g *Ground) error {
		return os.RemoveAll(filepath.Join(g.Beside, ".etcdrill"))
	}, nil}
}

// RememberOther makes the admin host remember another cluster's ID: this is
// the wrong inventory.
func RememberOther(group string) Fault {
	return beside{"other cluster remembered", "the inventory remembers another cluster", fmt.Sprintf("fault.RememberOther(%q)", group), func(g *Ground) error {
		dir := filepath.Join(g.Beside, ".etcdrill")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "cluster-id."+group), []byte("abad1dea\n"), 0o600)
	}, []string{".etcdrill/cluster-id." + group}}
}

// LoseCA removes the keys of the cluster from the admin host.
func LoseCA() Fault {
	return beside{"lost CA", "the admin host has lost the CA", "fault.LoseCA()", func(g *Ground) error { return os.RemoveAll(string(g.PKI)) }, []string{"files"}}
}

// EditInventory replaces text in the inventory by hand.
func EditInventory(old, replacement string) Fault {
	return beside{"edited inventory", fmt.Sprintf("in the inventory %q becomes %q", old, replacement), fmt.Sprintf("fault.EditInventory(%q, %q)", old, replacement), func(g *Ground) error {
		path := filepath.Join(g.Beside, "pigsty.yml")
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(content), g.here(old)) {
			return fmt.Errorf("%q is not in the inventory", g.here(old))
		}
		return os.WriteFile(path, []byte(strings.Replace(string(content), g.here(old), g.here(replacement), 1)), 0o600)
	}, []string{"pigsty.yml"}}
}

type beside struct {
	kind, words, source string
	do                  func(g *Ground) error
	// kept are files and directories, from Beside, that are in the end as they
	// were.
	kept []string
}

func (b beside) String() string { return b.words }
func (b beside) Kind() string   { return b.kind }
func (b beside) Band() Band     { return Operator }
func (b beside) Roles() []Role  { return []Role{Admin} }

func (b beside) Probe(g *Ground) error {
	if g.Beside == "" {
		return unsupported(g, "the admin host's files cannot be reached")
	}
	return nil
}

func (b beside) Plan(_ context.Context, g *Ground) (Harm, error) {
	if len(b.kept) == 0 {
		return Harm{Passing: true, Do: func(context.Context) error { return b.do(g) }}, nil
	}
	copies := filepath.Join(g.Images, "beside")
	return Harm{
		Do: func(context.Context) error {
			for _, name := range b.kept {
				if err := copyTree(filepath.Join(g.Beside, name), filepath.Join(copies, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return b.do(g)
		},
		Undo: func(context.Context) error {
			for _, name := range b.kept {
				at := filepath.Join(g.Beside, name)
				if err := os.RemoveAll(at); err != nil {
					return err
				}
				if err := copyTree(filepath.Join(copies, name), at); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return nil
		}}, nil
}

// EnableAuth turns etcd's authentication on meanwhile, as a colleague may: the
// operator has no user. It is turned off again in the end.
func EnableAuth() Fault { return auth{} }

// The user of a lab's cluster while its authentication is on.
const (
	rootUser     = "root"
	rootPassword = "lab" // of a lab that is gone in a moment
)

type auth struct{}

func (auth) String() string      { return "authentication is turned on" }
func (auth) Kind() string        { return "auth" }
func (auth) Band() Band          { return Trust }
func (auth) Roles() []Role       { return []Role{Voters} }
func (auth) Probe(*Ground) error { return nil }

// authenticated is what it takes of a client.
type authenticated interface {
	UserAdd(ctx context.Context, name, password string) (*clientv3.AuthUserAddResponse, error)
	RoleAdd(ctx context.Context, name string) (*clientv3.AuthRoleAddResponse, error)
	UserGrantRole(ctx context.Context, user, role string) (*clientv3.AuthUserGrantRoleResponse, error)
	AuthEnable(ctx context.Context) (*clientv3.AuthEnableResponse, error)
}

func (auth) Plan(ctx context.Context, g *Ground) (Harm, error) {
	voters, err := g.Cast.Hosts(ctx, g, Voters)
	if err != nil {
		return Harm{}, err
	}
	return Harm{Hosts: voters,
		Do: func(ctx context.Context) error {
			c, err := g.Cast.Etcd(ctx, voters[0])
			if err != nil {
				return err
			}
			defer c.Close()
			a, ok := c.(authenticated)
			if !ok {
				return errors.New("this client cannot turn authentication on")
			}
			if _, err := a.UserAdd(ctx, rootUser, rootPassword); err != nil {
				return err
			}
			if _, err := a.UserGrantRole(ctx, "root", "root"); err != nil {
				if _, err := a.RoleAdd(ctx, "root"); err != nil {
					return err
				}
				if _, err := a.UserGrantRole(ctx, "root", "root"); err != nil {
					return err
				}
			}
			_, err = a.AuthEnable(ctx)
			return err
		},
		Undo: func(ctx context.Context) error {
			return g.Cast.As(ctx, voters[0], rootUser, rootPassword, func(ctx context.Context, c workload.Etcd) error {
				a, ok := c.(interface {
					AuthDisable(ctx context.Context) (*clientv3.AuthDisableResponse, error)
				})
				if !ok {
					return errors.New("this client cannot turn authentication off")
				}
				_, err := a.AuthDisable(ctx)
				return err
			})
		}}, nil
}
