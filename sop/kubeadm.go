package sop

import (
	"fmt"
	"slices"
)

// Where kubeadm has etcd: as a static pod, with its data in a directory that
// others use too.
const (
	kubeadmManifest = "/etc/kubernetes/manifests/etcd.yaml"
	kubeadmDataDir  = "/var/lib/etcd"
	kubeletUnit     = "kubelet.service"
)

// notKubeadm: no etcd on the hosts that this is about is a pod of kubeadm, which
// makes, names and removes its members itself, and keeps their certificates.
func notKubeadm() Safeguard {
	return Safeguard{Name: "no-kubeadm", Show: "ls " + kubeadmManifest,
		Holds: func(v View) error {
			refuse := func(name, found string) error {
				return &Refusal{Host: name, Found: "its etcd is kubeadm's: " + found, Needed: "an etcd that is a service of systemd",
					Hint: "kubeadm join --control-plane adds a member, kubeadm reset on the host removes it, and a dead one goes with: etcdctl member remove ID. status and snapshot can be used"}
			}
			var hidden error
			for _, h := range v.Hosts {
				if !h.Reachable() || !v.concernsEtcd(h.Name) {
					continue
				}
				spec := v.Spec(h.Name)
				dir, unit := h.Facts.Dirs[spec.DataDir], h.Facts.Units[v.unit()]
				switch kubelet := h.Facts.Units[kubeletUnit]; {
				case v.hiddenOn(h.Name, kubeadmManifest) != nil:
					hidden = v.hiddenOn(h.Name, kubeadmManifest)
				case h.Facts.Files[kubeadmManifest].Exists:
					return refuse(h.Name, kubeadmManifest+" is there")
				case spec.DataDir == kubeadmDataDir && kubelet.Load == "loaded" && dir.WAL && !unit.Runs():
					return refuse(h.Name, fmt.Sprintf("%s is there, %s does not run, and data of a member is in %s", kubeletUnit, v.unit(), spec.DataDir))
				}
			}
			return hidden
		}}
}

// concernsEtcd reports whether a host is, was or is to be a member's.
func (v View) concernsEtcd(name string) bool {
	_, wanted := v.Wanted.Host(name)
	return wanted || v.comes(name) || slices.ContainsFunc(v.Members, func(m Member) bool { return v.HostOf(m) == name })
}
