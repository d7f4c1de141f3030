package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"

	"github.com/etcdrill/etcdrill/lab/container/image"
)

// Environment is what testcontainers has to find in the environment of this
// process before it is first used; it reads it once. Its reaper is switched off:
// it would end labs whose creator has gone, which is what labs are kept for, and
// needs an image that a machine without registry cannot have. Heal does its work.
func Environment() map[string]string {
	return map[string]string{"TESTCONTAINERS_RYUK_DISABLED": "true"}
}

var (
	// ErrNoDocker says that no Docker engine answers. The text has the remedy.
	ErrNoDocker = errors.New("no Docker engine answers: labs of containers need one; " +
		"start it (systemctl start docker), let this user use it (usermod -aG docker USER, and log in again), " +
		"or name one elsewhere with DOCKER_HOST=tcp://HOST:PORT; lab:up without -kind needs none")
	// ErrExists says that a lab of this name is there already.
	ErrExists = errors.New("lab is there already")
	// ErrGone says that a lab's machines are gone.
	ErrGone = errors.New("lab is gone")
	// ErrElsewhere says that a lab is with another engine than the one that
	// answers.
	ErrElsewhere = errors.New("lab is with another Docker engine")
)

// engine is a Docker engine.
type engine struct {
	provider *testcontainers.DockerProvider
	docker   client.APIClient
	id       string // its own, wherever it is reached from
	unified  bool   // it has cgroup v2
	memory   int64  // bytes, of its host
}

// connect finds the engine as testcontainers does: DOCKER_HOST, the docker
// command's context, the usual sockets.
func connect(ctx context.Context) (engine, error) {
	if !testcontainers.ReadConfig().Config.RyukDisabled {
		return engine{}, errors.New("the reaper of testcontainers is on, and would end labs that are kept: set what container.Environment gives, before anything else")
	}
	p, err := testcontainers.NewDockerProvider(testcontainers.WithLogger(silent{}))
	if err != nil {
		return engine{}, fmt.Errorf("%w (%w)", ErrNoDocker, err)
	}
	e := engine{provider: p, docker: p.Client()}
	if _, err := e.docker.Ping(ctx, client.PingOptions{}); err != nil {
		return engine{}, errors.Join(fmt.Errorf("%w (%w)", ErrNoDocker, err), e.close())
	}
	r, err := e.docker.Info(ctx, client.InfoOptions{})
	if err != nil {
		return engine{}, errors.Join(fmt.Errorf("ask the Docker engine about itself: %w", err), e.close())
	}
	if r.Info.OSType != "linux" {
		return engine{}, errors.Join(fmt.Errorf("the Docker engine runs %s containers; labs are of Linux machines", r.Info.OSType), e.close())
	}
	// The ID alone may be that of a machine that this one was copied from.
	e.id = strings.Join([]string{r.Info.ID, r.Info.Name, r.Info.DockerRootDir}, " ")
	e.unified, e.memory = r.Info.CgroupVersion == "2", r.Info.MemTotal
	return e, nil
}

func (e engine) close() error { return e.provider.Close() }

func (e engine) maker(cache string, log io.Writer) image.Maker {
	return image.Maker{Builder: e.provider, Docker: e.docker, Cache: cache, Log: log}
}

// init takes testcontainers' voice away, which greets on stderr, once and before
// anybody can use it.
func init() { tclog.SetDefault(silent{}) }

// silent is a logger of testcontainers that keeps its tale to itself.
type silent struct{}

func (silent) Printf(string, ...any) {}

// Answers gives the address of the Docker engine that labs are made with; it is
// the first that answers, which need not be the one that DOCKER_HOST names. Else
// it gives ErrNoDocker, or what is wrong with it.
func Answers(ctx context.Context) (engine string, err error) {
	e, err := connect(ctx)
	if err != nil {
		return "", err
	}
	return e.docker.DaemonHost(), e.close()
}

// has says why an engine cannot tell anything about a lab.
func (e engine) has(i Info) error {
	if i.EngineID == e.id {
		return nil
	}
	return fmt.Errorf("%w: lab %s is with the one at %s, and %s answers: set DOCKER_HOST", ErrElsewhere, i.Name, i.Engine, e.docker.DaemonHost())
}
