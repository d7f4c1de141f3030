package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
)

// List gives the labs below a directory, by name, dead ones included. It asks the
// engine only if there is one that it could ask about.
func List(ctx context.Context, root string) ([]Info, error) {
	dirs, err := labDirs(root)
	if err != nil || len(dirs) == 0 {
		return nil, err
	}
	e, err := connect(ctx)
	if err == nil {
		defer e.close()
	}
	var all []Info
	for _, dir := range dirs {
		i, broken := Describe(dir)
		if broken != nil {
			i = Info{Name: filepath.Base(dir), Dir: dir}
		}
		switch {
		case err != nil:
			i.State = "no engine answers"
		case broken != nil:
			i.State = "dead"
		case e.has(i) != nil:
			i.State = "with the engine at " + i.Engine
		default:
			there, err := (&Lab{engine: e, info: i}).containers(ctx)
			if err != nil {
				return nil, err
			}
			i.State = state(i, there)
		}
		all = append(all, i)
	}
	return all, nil
}

func state(i Info, there []container.Summary) string {
	running := 0
	for _, c := range there {
		if c.Labels[labelMachine] != "" && c.State == container.StateRunning {
			running++
		}
	}
	switch {
	case len(there) == 0:
		return "dead"
	case running < len(i.Machines):
		return fmt.Sprintf("%d of %d machines run", running, len(i.Machines))
	}
	return "up"
}

// Down ends the lab and removes all that is left of it, but for images. One that
// is over already is no error.
func (l *Lab) Down(ctx context.Context) error {
	err := l.engine.remove(ctx, labelRoot+"="+l.info.Root, labelLab+"="+l.info.Name)
	if err != nil {
		// The directory stays, so that it can be tried again.
		return fmt.Errorf("end lab %s: %w", l.info.Name, err)
	}
	if err := os.RemoveAll(l.info.Dir); err != nil {
		return fmt.Errorf("end lab %s: %w", l.info.Name, err)
	}
	l.owner.end()
	return l.engine.close()
}

// Discard removes all that is left of a lab, whatever became of it. ErrElsewhere
// says that another engine has its machines, and that nothing was removed.
func Discard(ctx context.Context, dir string) error {
	i, err := Describe(dir)
	broken := err != nil
	if broken {
		lock, id, err := lockRoot(filepath.Dir(dir))
		if err != nil {
			return err
		}
		_ = lock.Close()
		i = Info{Name: filepath.Base(dir), Dir: dir, Root: id}
	}
	e, err := connect(ctx)
	if err != nil {
		return err
	}
	if !broken {
		if err := e.has(i); err != nil {
			return errors.Join(err, e.close())
		}
	}
	return (&Lab{engine: e, info: i}).Down(ctx)
}

// remove removes all containers, networks and volumes that bear some labels.
func (e engine) remove(ctx context.Context, labels ...string) error {
	there, err := e.labelled(ctx, labels...)
	if err != nil {
		return err
	}
	err = each(there, func(c container.Summary) error {
		// One that is paused cannot be killed everywhere.
		if c.State == container.StatePaused {
			if _, err := e.docker.ContainerUnpause(ctx, c.ID, client.ContainerUnpauseOptions{}); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("unpause container %s: %w", nameOf(c), err)
			}
		}
		_, err := e.docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove container %s: %w", nameOf(c), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	names, err := e.networks(ctx, labels...)
	if err != nil {
		return err
	}
	if err := each(names, func(n string) error { return e.removeNetwork(ctx, n) }); err != nil {
		return err
	}
	// They went with their containers, but for one that somebody else removed.
	left, err := e.volumes(ctx, labels...)
	if err != nil {
		return err
	}
	return each(left, func(v volume.Volume) error {
		if _, err := e.docker.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove volume %s: %w", v.Name, err)
		}
		return nil
	})
}

// volumes lists volumes that have all of some labels.
func (e engine) volumes(ctx context.Context, labels ...string) ([]volume.Volume, error) {
	r, err := e.docker.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", labels...)})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	return r.Items, nil
}

func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return c.ID
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// networks lists networks that have all of some labels.
func (e engine) networks(ctx context.Context, labels ...string) ([]string, error) {
	r, err := e.docker.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("label", labels...)})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	var names []string
	for _, n := range r.Items {
		names = append(names, n.Name)
	}
	return names, nil
}

// Heal removes what dead labs below a directory left, containers and networks
// whose lab is gone included, and ends the faults of living ones. It says what it
// did, one line each. Without labs it needs no engine.
func Heal(ctx context.Context, root string) ([]string, error) {
	if _, err := os.Lstat(root); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	e, err := connect(ctx)
	if err != nil {
		if dirs, listed := labDirs(root); listed == nil && len(dirs) == 0 && errors.Is(err, ErrNoDocker) {
			return nil, nil
		}
		return nil, err
	}
	defer e.close()
	did, living, err := e.bury(ctx, root)
	errs := []error{err}
	for _, l := range living {
		for _, m := range l.Machines() {
			mended, err := m.Heal(ctx)
			for _, s := range mended {
				did = append(did, "lab "+l.info.Name+": "+s)
			}
			errs = append(errs, err)
		}
	}
	return did, errors.Join(errs...)
}

// bury removes dead labs, and gives the living ones.
func (e engine) bury(ctx context.Context, root string) (did []string, living []*Lab, err error) {
	// Held all the while, so that no lab is made under a name that is removed.
	lock, id, err := lockRoot(root)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	dirs, err := labDirs(root)
	if err != nil {
		return nil, nil, err
	}
	var names []string // of labs that live
	var errs []error
	end := func(name, why string) {
		if err := e.remove(ctx, labelRoot+"="+id, labelLab+"="+name); err != nil {
			errs = append(errs, fmt.Errorf("heal lab %s: %w", name, err))
			names = append(names, name) // its directory stays for another try
			return
		}
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			errs = append(errs, fmt.Errorf("heal lab %s: %w", name, err))
			return
		}
		did = append(did, "removed lab "+name+": "+why)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		info, broken := Describe(dir)
		if broken == nil {
			if err := e.has(info); err != nil {
				did = append(did, "left as it is: "+err.Error())
				names = append(names, name)
				continue
			}
		}
		if orphaned(dir, info) {
			end(name, "its creator is gone")
			continue
		}
		names = append(names, name)
		if broken != nil {
			continue // it is just being made
		}
		if _, err := os.Stat(filepath.Join(dir, completeName)); err != nil {
			continue
		}
		l := &Lab{engine: e, info: info}
		there, err := l.containers(ctx)
		switch {
		case err != nil:
			errs = append(errs, err)
		case len(there) == 0:
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
			end(name, "its machines are gone")
		default:
			living = append(living, l)
		}
	}
	// What lost its directory.
	strays := map[string]bool{}
	there, err := e.labelled(ctx, labelRoot+"="+id)
	if err != nil {
		return did, living, errors.Join(append(errs, err)...)
	}
	for _, c := range there {
		strays[c.Labels[labelLab]] = true
	}
	r, err := e.docker.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("label", labelRoot+"="+id)})
	if err != nil {
		return did, living, errors.Join(append(errs, fmt.Errorf("list networks: %w", err))...)
	}
	for _, n := range r.Items {
		strays[n.Labels[labelLab]] = true
	}
	volumes, err := e.volumes(ctx, labelRoot+"="+id)
	if err != nil {
		return did, living, errors.Join(append(errs, err)...)
	}
	for _, v := range volumes {
		strays[v.Labels[labelLab]] = true
	}
	for name := range strays {
		if name != "" && !slices.Contains(names, name) {
			end(name, "its directory is gone")
		}
	}
	return did, living, errors.Join(errs...)
}
