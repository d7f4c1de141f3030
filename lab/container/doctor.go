package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/etcdrill/etcdrill/lab/container/image"
)

// A Check is one thing that a lab of containers needs, tried.
type Check struct {
	Name   string
	OK     bool
	Needed bool   // without it there is no lab
	Detail string // what was seen, or why it failed
	Fix    string // what to do, empty when all is well
}

// Doctor tries what a lab of containers is made of, and says for each whether it
// works here and what to do when it does not. It makes no image: where there is
// one, a whole lab is tried, else what an image would be made from is looked at.
func Doctor(ctx context.Context, root, cache string) []Check {
	var all []Check
	add := func(name string, fix string, detail string, err error) bool {
		c := Check{Name: name, OK: err == nil, Needed: true, Detail: detail}
		if err != nil {
			c.Detail, c.Fix = err.Error(), fix
		}
		all = append(all, c)
		return err == nil
	}
	e, err := connect(ctx)
	if !add("Docker engine", "see above; without one there is the embedded lab", "", err) {
		return all
	}
	defer e.close()
	groups := "cgroup v1"
	if e.unified {
		groups = "cgroup v2"
	}
	v, err := e.docker.ServerVersion(ctx, client.ServerVersionOptions{})
	all[0].Detail = fmt.Sprintf("%s at %s, %s", v.Version, e.docker.DaemonHost(), groups)
	if !add("engine's version", "see above", v.Os+"/"+v.Arch, err) {
		return all
	}
	ssh, err := exec.LookPath("ssh")
	add("ssh", "install openssh-client: machines are reached by it", ssh, err)

	ref, err := image.Ref(image.Machine, image.DefaultEtcd, v.Arch)
	there := false
	if err == nil {
		there, err = image.Have(ctx, e.docker, ref)
	}
	if !add("image of a machine", "see above", ref+" is there", err) {
		return all
	}
	if !there {
		c := &all[len(all)-1]
		c.OK, c.Needed, c.Detail = false, false, ref+" is not there; the first lab makes it, which takes some minutes"
		c.Fix = "nothing needs doing, if what follows is well"
		gocmd, err := exec.LookPath("go")
		add("go, to build etcd", "install Go, or docker load the image where it was made", gocmd, err)
		add("Debian, to build on", "let the engine reach a registry, or run lab:up once as root on Debian", image.Base, tryBase(ctx, e))
		return all
	}
	began := time.Now()
	detail, err := tryLab(ctx, root, cache)
	add("a whole lab of machines", "report this with what is said above",
		fmt.Sprintf("%s, all in %v", detail, time.Since(began).Round(100*time.Millisecond)), err)
	return all
}

// tryBase says whether the image that ours begins with is there, or may be made.
// Whether a registry has it is only known by asking for all of it.
func tryBase(ctx context.Context, e engine) error {
	_, err := e.docker.ImageInspect(ctx, image.Base)
	if err == nil || !errdefs.IsNotFound(err) {
		return err
	}
	if _, err := exec.LookPath("apt-get"); err == nil && os.Geteuid() == 0 {
		return nil
	}
	return errors.New("it is not there: a registry has to give it, since this user cannot make it by debootstrap")
}

// tryLab makes a lab of one machine, reaches it and ends it.
func tryLab(ctx context.Context, root, cache string) (detail string, err error) {
	began := time.Now()
	lab, err := Up(ctx, Spec{
		Root: root, Cache: cache, Machines: []MachineSpec{{Host: "10.10.10.10"}},
		Inventory: []byte("etcd: { hosts: { 10.10.10.10: { etcd_seq: 1 } } }\n"),
	})
	if err != nil {
		return "", err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	defer func() { err = errors.Join(err, lab.Down(end)) }()
	i := lab.Info()
	detail = fmt.Sprintf("1 machine up in %v", time.Since(began).Round(100*time.Millisecond))
	if i.Gate != "" {
		detail += " behind the gate " + i.Gate
	}
	out, err := exec.CommandContext(ctx, "ssh", "-F", i.SSHConfig, "-o", "BatchMode=yes", i.Hosts[0], "sudo", "-n", "systemctl", "is-system-running").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ssh and sudo: %w: %s", err, out)
	}
	return detail + ", reached by ssh, root by sudo", nil
}
