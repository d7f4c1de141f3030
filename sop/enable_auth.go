package sop

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdrill/etcdrill/sop/config"
)

// EnableAuth makes etcd's root user and has the cluster ask everybody for a user
// from then on.
//
// From that moment a client that does not log in is cut off, with no warning. So
// it is refused while any client that is known has no user and password in its
// file, or one that etcd does not have, or that may not do what the client does.
// What nobody can try before is whether the passwords are right; that is the first
// thing that is looked at afterwards.
type EnableAuth struct{}

// rootName is etcd's own name for the user, and the role, that may do all.
const rootName = "root"

// String implements Procedure.
func (p EnableAuth) String() string { return "enableAuth" }

// Asks has looks ask for users and roles. etcd answers that by way of its log, as
// it does a login: nothing that it holds is changed by it.
func (p EnableAuth) Asks(s *Scope) { s.Auth = true }

// Lossy has the first look ask who depends on the cluster.
func (p EnableAuth) Lossy() {}

// Plan implements Procedure.
func (p EnableAuth) Plan(v View) (Plan, error) {
	if !v.Exists() {
		return Plan{}, v.nobody("look at it with: status")
	}
	changing := []Safeguard{quorate(), oneCluster(), everyVoterAnswers(), rootPassword(), clientCredentials()}
	before := func(done Condition) Condition { return either(func(v View) error { return v.authOn() }, done) }
	step := func(title string, do AuthVerb, done Condition, more ...Safeguard) Step {
		return Step{Title: title, Act: ChangeAuth{do}, Until: before(done), Patience: Electing, Etcd: true, Needs: append(slices.Clone(changing), more...)}
	}
	plan := Plan{
		Needs: slices.Concat(clusterNeeds(), []Safeguard{everyVoterAnswers(), rootPassword(), authVersion(), clientCredentials(), envCredentials()}),
		Stages: []Stage{
			{"make root", []Step{
				step("add role root", AddRootRole, hasRole(rootName)),
				step("remove a user root whose password nobody can tell", DropRootUser, lacksUser(rootName)),
				step("add user root", AddRootUser, knowsUser(rootName)),
				step("grant root its role", GrantRoot, knowsUser(rootName, rootName)),
			}},
			{"have everybody log in", []Step{
				{Title: "enable authentication", Act: ChangeAuth{TurnOn}, Until: func(v View) error { return v.authOn() }, Patience: Electing, Etcd: true,
					Needs: append(slices.Clone(changing), envCredentials())},
				{Title: "wait until all clients get in", Until: All(weGetIn, clientsGetIn), Patience: Electing, Etcd: true},
			}},
		},
		Warnings: p.others(v),
	}
	return plan.ifOpen(v), nil
}

// others tells of clients that no file tells of.
func (p EnableAuth) others(v View) []string {
	if v.authOn() == nil {
		return nil
	}
	all := []string{"what connects and is in no file that is known here is cut off unless it logs in; the way back is: etcdctl --user=root auth disable"}
	for _, m := range v.LivingVoters() {
		if w := v.LookOf(m.ID).Watches; w != nil && w.Open > 0 {
			all = append(all, fmt.Sprintf("%s has %d open watches; etcd does not tell whose", v.HostOf(m), w.Open))
		}
	}
	slices.Sort(all[1:])
	return all
}

// An AuthState is what etcd knows of users.
type AuthState struct {
	On    bool
	Users map[string][]string             // roles, by user
	Roles map[string][]*authpb.Permission // by role
	// Logins are the clients whose login was tried, with what came of it: empty
	// when they got in.
	Logins map[string]string
}

// auth is what a living voter told of users; nil when none was asked, or told.
func (v View) auth() *AuthState {
	for _, l := range v.Looks {
		if l.Auth != nil {
			return l.Auth
		}
	}
	return nil
}

// authOn holds when the cluster asks everybody for a user.
func (v View) authOn() error {
	switch a := v.auth(); {
	case a == nil:
		return fmt.Errorf("whether authentication is on is not known")
	case !a.On:
		return fmt.Errorf("authentication is off")
	}
	return nil
}

func hasRole(name string) Condition {
	return func(v View) error {
		if a := v.auth(); a == nil || a.Roles[name] == nil {
			return fmt.Errorf("there is no role %s", name)
		}
		return nil
	}
}

func knowsUser(name string, roles ...string) Condition {
	return func(v View) error {
		a := v.auth()
		if a == nil || a.Users[name] == nil {
			return fmt.Errorf("there is no user %s", name)
		}
		for _, r := range roles {
			if !slices.Contains(a.Users[name], r) {
				return fmt.Errorf("user %s has no role %s", name, r)
			}
		}
		return nil
	}
}

func lacksUser(name string) Condition {
	return func(v View) error {
		if a := v.auth(); a == nil || a.Users[name] != nil {
			return fmt.Errorf("there is a user %s", name)
		}
		return nil
	}
}

// weGetIn holds when every voter takes us for root.
func weGetIn(v View) error {
	for _, l := range v.Looks {
		if l.Denied != "" {
			return fmt.Errorf("%s does not take us for root: %s", l.Host, l.Denied)
		}
	}
	return v.authOn()
}

// clientsGetIn holds when every known client's user and password are taken.
func clientsGetIn(v View) error {
	a := v.auth()
	if a == nil {
		return v.authOn()
	}
	for _, c := range v.clientLogins() {
		switch problem, tried := a.Logins[c.key()]; {
		case !tried:
			return fmt.Errorf("whether user %s of %s on %s gets in was not tried", c.User, c.Path, c.Host)
		case problem != "":
			return fmt.Errorf("user %s does not get in with the password in %s on %s: %s; correct one of the two (etcdctl --user=root user passwd %s), or go back: etcdctl --user=root auth disable", c.User, c.Path, c.Host, problem, c.User)
		}
	}
	return nil
}

// A clientLogin is how a client would log in, by its file.
type clientLogin struct {
	Host, Path     string
	User, password string
	Prefix         string // keys that it works with
	Writes         bool
}

func (c clientLogin) key() string { return c.Host + ":" + c.Path }

// clientLogins are those of every client whose file names this cluster.
func (v View) clientLogins() []clientLogin {
	var all []clientLogin
	for _, pg := range v.Wanted.Postgres {
		for _, f := range []File{PatroniConf, VIPConf} {
			a := Refresh{Host: pg.Host, File: f}
			if s, _ := v.standingOf(a); s != editable && s != stubborn {
				continue
			}
			c := clientLogin{Host: pg.Host, Path: a.path()}
			content := v.hostView(pg.Host).Facts.Files[a.path()].Content
			if f == PatroniConf {
				p, _ := config.ParsePatroni(content) // what cannot be read has no user
				c.User, c.password, c.Prefix, c.Writes = p.User, p.Password, p.Prefix(), true
			} else {
				m, _ := config.ParseVIPManager(content)
				c.User, c.password, c.Prefix = m.User, m.Password, m.TriggerKey
			}
			all = append(all, c)
		}
	}
	return all
}

// clientCredentials: every client that is known will get in.
func clientCredentials() Safeguard {
	return Safeguard{Name: "client-credentials", Show: "etcdctl user list; etcdctl role list",
		Holds: func(v View) error {
			for _, name := range v.referenceHosts() {
				if h, ok := v.Host(name); !ok || !h.Reachable() {
					return &Refusal{Host: name, Found: name + " cannot be reached, so whether its clients log in is not known: " + h.Problem, Needed: "a look at every host with clients"}
				}
			}
			a := v.auth()
			for _, c := range v.clientLogins() {
				if err := c.check(a); err != nil {
					return err
				}
			}
			return nil
		}}
}

func (c clientLogin) check(a *AuthState) error {
	wants := "read"
	if c.Writes {
		wants = "readwrite"
	}
	hint := fmt.Sprintf("etcdctl user add %[1]s; etcdctl role add %[1]s; etcdctl role grant-permission --prefix=true %[1]s %[2]s %[3]s; etcdctl user grant-role %[1]s %[1]s", orNone(c.User), wants, c.Prefix)
	lacks := func(format string, args ...any) error {
		return &Refusal{Host: c.Host, Found: fmt.Sprintf(format, args...), Needed: "a client that logs in, as a user who may do what it does", Hint: hint}
	}
	switch {
	case c.User == "" || c.password == "":
		return &Refusal{Host: c.Host, Found: c.Path + " has no user and password", Needed: "a client that logs in", Hint: "give it both, and let its program read them; where authentication is off they do no harm"}
	case a == nil:
		return lacks("whether etcd has user %s is not known", c.User)
	case a.Users[c.User] == nil:
		return lacks("etcd has no user %s, whom %s names", c.User, c.Path)
	case !a.may(c.User, c.Prefix, c.Writes):
		return lacks("user %s, whom %s names, has no permission to %s %s", c.User, c.Path, wants, c.Prefix)
	}
	return nil
}

// may reports whether a user may read, or read and write, all keys below a prefix.
func (a *AuthState) may(user, prefix string, write bool) bool {
	var reads, writes bool
	for _, role := range a.Users[user] {
		if role == rootName {
			return true
		}
		for _, p := range a.Roles[role] {
			if !covers(p, prefix) {
				continue
			}
			reads = reads || p.PermType != authpb.WRITE
			writes = writes || p.PermType != authpb.READ
		}
	}
	return reads && (writes || !write)
}

// covers reports whether a permission is for all keys that begin with a prefix.
func covers(p *authpb.Permission, prefix string) bool {
	from, to := string(p.Key), string(p.RangeEnd)
	return from <= prefix && (to == "\x00" || to > prefix && !strings.HasPrefix(to, prefix)) || from == prefix && to == ""
}

// envCredentials: etcdctl on hosts has a user.
func envCredentials() Safeguard {
	return Safeguard{Name: "env-credentials", Show: "grep ETCDCTL_USER " + config.EnvPath,
		Risk: "etcdctl on that host has to be told a user each time, and what calls it by itself fails",
		Holds: func(v View) error {
			for _, name := range v.envHosts() {
				f := v.hostView(name).Facts.Files[config.EnvPath]
				if env, err := config.ParseClientEnv(f.Content); f.Exists && (err != nil || env.UserFile == "") {
					return &Refusal{Host: name, Found: config.EnvPath + " gives etcdctl no user", Needed: "ETCDCTL_USER there",
						Hint: fmt.Sprintf("put root's password into %s there (root:etcd 0640), remove %s, then clientEnv -install", config.PassPath, config.EnvPath)}
				}
			}
			return nil
		}}
}

// rootPassword: there is one for root, and it is here.
func rootPassword() Safeguard {
	return Safeguard{Name: "root-password", Show: "env | grep -c ETCDCTL_PASSWORD",
		Holds: func(v View) error {
			if v.Admin.User == rootName {
				return nil
			}
			return &Refusal{Found: "no password for etcd's root user was given", Needed: "a password for root",
				Hint: "set ETCDCTL_USER=root and ETCDCTL_PASSWORD, or etcd_root_password in the inventory"}
		}}
}

// authVersion: no member tells its list to root alone, which Patroni has to read.
func authVersion() Safeguard {
	return Safeguard{Name: "auth-version", Show: "etcdctl endpoint status --cluster -w table",
		Holds: func(v View) error {
			for _, l := range v.Looks {
				if slices.Contains([]string{"3.6.9", "3.5.28"}, l.Version) && len(v.Wanted.Postgres) > 0 {
					return &Refusal{Host: l.Host, Found: "etcd " + l.Version + " tells its member list to root alone (etcd#21516), and Patroni has to read it", Needed: "another patch version",
						Hint: "upgrade first"}
				}
			}
			return nil
		}}
}

// An AuthVerb is one change of what etcd knows of users.
type AuthVerb string

// The changes.
const (
	AddRootRole  AuthVerb = "add role root"
	DropRootUser AuthVerb = "remove user root"
	AddRootUser  AuthVerb = "add user root"
	GrantRoot    AuthVerb = "grant role root to user root"
	TurnOn       AuthVerb = "enable authentication"
)

// ChangeAuth changes what etcd knows of users. The password is not part of it.
type ChangeAuth struct{ Verb AuthVerb }

func (a ChangeAuth) String() string { return string(a.Verb) }

// ByHand implements Act.
func (a ChangeAuth) ByHand(View) []string {
	return []string{map[AuthVerb]string{
		AddRootRole: "etcdctl role add root", DropRootUser: "etcdctl user delete root", AddRootUser: "etcdctl user add root   # asks for the password",
		GrantRoot: "etcdctl user grant-role root root", TurnOn: "etcdctl auth enable",
	}[a.Verb]}
}

func (s *Site) changeAuth(ctx context.Context, a ChangeAuth, v View) (string, error) {
	c, err := s.voterFor(ctx, v, 0)
	if err != nil {
		return "", err
	}
	auth := c.Auth()
	switch a.Verb {
	case AddRootRole:
		_, err = auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: rootName})
	case DropRootUser:
		_, err = auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: rootName})
	case AddRootUser:
		_, err = auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: rootName, Password: s.Password, Options: &authpb.UserAddOptions{}})
	case GrantRoot:
		_, err = auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: rootName, Role: rootName})
	case TurnOn:
		_, err = auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
		s.forgetConns() // they came without a user
	}
	return "", rpctypes.Error(err)
}

// forgetConns closes the connections, so that the next ones log in.
func (s *Site) forgetConns() {
	s.mu.Lock()
	old := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nothing is written through them any more
	}
}

// authOf asks a voter for users and roles, and where authentication is on whether
// the clients get in. It is nil where the voter does not tell.
func (s *Site) authOf(ctx context.Context, c Etcd) *AuthState {
	auth := c.Auth()
	st, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if err != nil {
		return nil
	}
	a := &AuthState{On: st.Enabled, Users: map[string][]string{}, Roles: map[string][]*authpb.Permission{}, Logins: map[string]string{}}
	users, err := auth.UserList(ctx, &pb.AuthUserListRequest{})
	if err != nil {
		return nil
	}
	for _, name := range users.Users {
		u, err := auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: name})
		if err != nil {
			return nil
		}
		a.Users[name] = append([]string{}, u.Roles...)
	}
	roles, err := auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	if err != nil {
		return nil
	}
	for _, name := range roles.Roles {
		r, err := auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: name})
		if err != nil {
			return nil
		}
		a.Roles[name] = append([]*authpb.Permission{}, r.Perm...)
	}
	if !a.On {
		return a
	}
	s.mu.Lock()
	last := s.lastView
	s.mu.Unlock()
	for _, l := range last.clientLogins() {
		a.Logins[l.key()] = ""
		if _, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: l.User, Password: l.password}); err != nil {
			a.Logins[l.key()] = rpctypes.Error(err).Error()
		}
	}
	return a
}
