package scenarios

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

// The users of a lab whose cluster is to ask for them, before it does.
const (
	rootUser     = "root"
	loadUser     = "load"     // the clients of the load
	postgresUser = "postgres" // Patroni and vip-manager
	labPassword  = "lab"      // of a lab that is gone in a moment
)

// keeper is what it takes of a client to make users.
type keeper interface {
	UserAdd(ctx context.Context, name, password string) (*clientv3.AuthUserAddResponse, error)
	RoleAdd(ctx context.Context, name string) (*clientv3.AuthRoleAddResponse, error)
	RoleGrantPermission(ctx context.Context, name, key, rangeEnd string, permission clientv3.PermissionType) (*clientv3.AuthRoleGrantPermissionResponse, error)
	UserGrantRole(ctx context.Context, user, role string) (*clientv3.AuthUserGrantRoleResponse, error)
}

// usersRows have all who use a cluster be able to log in, before it asks anybody.
func usersRows() []row {
	return []row{
		{name: "users, before anybody is asked", check: func(ctx context.Context, s *stage, _ Outcome) error { return s.usersReady(ctx) }},
		{command: "clientEnv -install=true", name: "clientEnv, with a user for etcdctl"},
	}
}

// usersReady has all be ready for a cluster that asks for users: operators have
// root's password, and so has etcdctl on the members, whose environment is to be
// written anew; the clients of the load are users who may write their keys.
func (s *stage) usersReady(ctx context.Context) error {
	s.rig.Password, s.user = labPassword, loadUser
	if s.env == nil {
		s.env = map[string]string{}
	}
	s.env["ETCDCTL_USER"], s.env["ETCDCTL_PASSWORD"] = rootUser, labPassword
	for _, h := range s.intended {
		f := config.PassFile()
		for _, a := range []host.Act{
			host.WriteFile{Path: f.Path, Content: []byte(labPassword), Owner: f.Owner, Group: f.Group, Mode: f.Mode, Secret: true},
			host.RemoveFile{Path: config.EnvPath},
		} {
			if err := s.rig.ground.Host(h).Do(ctx, a); err != nil {
				return fmt.Errorf("give etcdctl on %s a user: %w", h, err)
			}
		}
	}
	if err := errors.Join(s.mayWrite(ctx, loadUser, loadPrefix), s.mayWrite(ctx, postgresUser, "/pg/")); err != nil {
		return fmt.Errorf("make users: %w", err)
	}
	return nil
}

// mayWrite makes a user who may read and write the keys below a prefix.
func (s *stage) mayWrite(ctx context.Context, user, prefix string) error {
	etcd, err := s.rig.member(ctx, s.intended[0])
	if err != nil {
		return err
	}
	defer etcd.Close()
	k, ok := etcd.(keeper)
	if !ok {
		return errors.New("this client cannot make users")
	}
	if _, err := k.UserAdd(ctx, user, labPassword); err != nil {
		return err
	}
	if _, err := k.RoleAdd(ctx, user); err != nil {
		return err
	}
	if _, err := k.RoleGrantPermission(ctx, user, prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
		return err
	}
	_, err = k.UserGrantRole(ctx, user, user)
	return err
}

// asksForUsers inspects that every member refuses whoever does not log in, and
// asksNobody that every member answers him.
func asksForUsers() Inspection {
	return Inspection{"asks-for-users", func(ctx context.Context, s *stage) error { return s.withoutUser(ctx, rpctypes.ErrUserEmpty) }}
}

func asksNobody() Inspection {
	return Inspection{"asks-nobody", func(ctx context.Context, s *stage) error { return s.withoutUser(ctx, nil) }}
}

// withoutUser asks every member as nobody, and wants this answer.
func (s *stage) withoutUser(ctx context.Context, want error) error {
	dial, err := s.rig.dialAs(embedded.Client, "", "")
	if err != nil {
		return err
	}
	for _, h := range s.intended {
		etcd, err := s.rig.memberBy(ctx, dial, h)
		if err != nil {
			return err
		}
		_, err = etcd.Get(ctx, loadPrefix)
		etcd.Close()
		if !errors.Is(err, want) {
			return fmt.Errorf("whoever asks the member on %s without a user gets %v, and is to get %v", h, err, want)
		}
	}
	return nil
}
