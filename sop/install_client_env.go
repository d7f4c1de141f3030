package sop

import (
	"github.com/etcdrill/etcdrill/sop/config"
)

// InstallClientEnv writes etcdctl's environment on every host that is to have
// it: members and infra hosts. A file that names this cluster already is
// edited, any other is written anew.
type InstallClientEnv struct{}

// String implements Procedure.
func (p InstallClientEnv) String() string { return "clientEnv -install" }

// Plan implements Procedure.
func (p InstallClientEnv) Plan(v View) (Plan, error) {
	if len(v.LivingVoters()) == 0 {
		return Plan{}, refuse("voters-answer", "", "look at it with: status", "no voter answers, so there are no endpoints to install")
	}
	var steps []Step
	for _, name := range v.envHosts() {
		write, edit := Install{Host: name, File: EnvFile}, Refresh{Host: name, File: EnvFile}
		h, _ := v.Host(name)
		f := h.Facts.Files[config.EnvPath]
		if f.Exists && v.meets(name, EnvFile, f.Content) {
			steps = append(steps, Step{Title: "refresh etcdctl.sh", Host: name, Act: edit, Until: isFresh(edit)})
			continue
		}
		steps = append(steps, Step{Title: "write etcdctl.sh", Host: name, Act: write, Until: inPlace(write)})
	}
	return Plan{
		Needs:  append([]Safeguard{inventorySound(), mayAdminister(), quorate(), oneCluster(), sameCluster(), inventoryAgrees()}, hostsReachable(v.envHosts())...),
		Stages: []Stage{{"install etcdctl's environment", steps}},
	}.ifOpen(v), nil
}
