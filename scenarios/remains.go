package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdrill/etcdrill/lab/embedded"
	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/config"
	"github.com/etcdrill/etcdrill/sop/host"
)

var (
	anyToken = regexp.MustCompile(`etcd-(?:restore-)?\d{8}T\d{6}Z-[0-9a-f]{16}`)
	anyAside = regexp.MustCompile(`\.removed-\d{8}T\d{6}Z`)
)

// Remains is what is left of a procedure, without what differs from one time to
// the next: IDs, keys, moments, and who leads. Two operators who came to the same
// end have left the same.
func (r *Rig) Remains(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	o := r.Operator("remains")
	defer o.Site.Close()
	v, err := o.Site.Observe(ctx, sop.Scope{AllHosts: true})
	if err != nil {
		return nil, err
	}
	for _, m := range v.Members {
		all["member "+v.HostOf(m)] = fmt.Sprintln(m.Name, m.PeerURLs, m.ClientURLs, m.Learner)
	}
	all["one cluster"] = fmt.Sprint(v.Admin.ClusterID == v.ClusterID())
	all["debts"] = strings.Join(v.Admin.Debts, " ")
	for _, name := range r.ground.Hosts() {
		if err := r.remainsOf(ctx, name, all); err != nil {
			return nil, fmt.Errorf("what is left on %s: %w", name, err)
		}
	}
	content, err := os.ReadFile(r.Inventory())
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(content), "\n") // the first line names the lab
	all["inventory"] = rest
	dir := filepath.Dir(r.Inventory())
	err = filepath.WalkDir(filepath.Join(dir, "files"), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all["admin:"+strings.TrimPrefix(path, dir)] = info.Mode().String()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if v.Exists() {
		err = r.noKeysOfOperators(ctx, v.VoterURLs())
	}
	return all, err
}

// remainsOf adds what is left on one host.
func (r *Rig) remainsOf(ctx context.Context, name string, all map[string]string) error {
	f, err := r.ground.Host(name).Look(ctx, host.Question{Units: []string{config.UnitName}})
	if err != nil {
		return err
	}
	u := f.Units[config.UnitName]
	all["unit "+name] = fmt.Sprintln(u.Load, u.Active, u.Sub, u.Enabled, u.Stale)
	prints, err := r.ground.Fingerprint(ctx, name)
	if err != nil {
		return err
	}
	for path, print := range prints {
		if rest, in := strings.CutPrefix(path, config.DefaultDataDir+"/"); in {
			if strings.Contains(rest, "/") {
				continue // data
			}
			path = anyAside.ReplaceAllString(path, ".removed")
		}
		left := print[:strings.LastIndex(print, " ")+1] // mode and owner
		switch filepath.Dir(path) {
		case config.ConfDir, filepath.Dir(config.EnvPath):
			content, _, err := r.ground.Read(ctx, name, path)
			if err != nil {
				return err
			}
			switch path {
			case config.CAPath, config.ServerCertPath, config.ServerKeyPath:
			default:
				left += anyToken.ReplaceAllString(string(content), "TOKEN")
			}
		default:
			left = print
		}
		all[name+":"+path] = left
	}
	return nil
}

// noKeysOfOperators waits until no operator's key is in the cluster: where a
// rerun had nothing to do, the lock of the dead runs out.
func (r *Rig) noKeysOfOperators(ctx context.Context, voters []string) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	dial, err := r.Dial(embedded.Client)
	if err != nil {
		return err
	}
	etcd, err := dial(ctx, voters[0])
	if err != nil {
		return err
	}
	defer etcd.Close()
	for {
		held, err := etcd.Get(ctx, sop.LockKey, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && held.Count == 0 {
			return nil
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("the lock of an operator stays at %s", sop.LockKey), err)
		}
	}
}
