package sop

// DestroyCluster takes the whole cluster down and sets its data aside. It
// honours etcd_clean and etcd_safeguard.
type DestroyCluster struct {
	Clean, Safeguard *bool // override the inventory, nil where they do not
	Stamp            string
}

// String implements Procedure.
func (p DestroyCluster) String() string { return "destroyCluster" + overrides(p.Clean, p.Safeguard) }

// Lossy says that data may be set aside.
func (p DestroyCluster) Lossy() {}

// Plan implements Procedure.
func (p DestroyCluster) Plan(v View) (Plan, error) {
	plan := Plan{NoCluster: true, Reached: []Safeguard{allReachable()}, Needs: []Safeguard{notKubeadm(), mayAdminister(), allReachable(), noForeignMembers()}}
	if len(v.hostsWithEtcd()) == 0 {
		plan.Stages = []Stage{{"forget the cluster", []Step{{Title: "forget the cluster's ID", Act: Remember{Forget: true}, Until: remembers(0)}}}}
		return plan.ifOpen(v), nil
	}
	if err := mayReplace(v, p.Clean, p.Safeguard); err != nil {
		return Plan{}, err
	}
	plan.Consent = v.consent("set aside", plan, p.String())
	plan.Stages = takeDown(v, p.Stamp)
	return plan.ifOpen(v), nil
}
