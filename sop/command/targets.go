package command

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop"
)

// A Target is one thing that can be called, with what follows its name.
type Target struct {
	Name  string   // as it is typed: "addMember", "lab:up"
	Args  []string // names of the positional arguments: "HOST"
	Flags []Flag   // in the order of the magefile's parameters
	// Alone marks a target that nothing may stand beside: one that acts on a
	// cluster.
	Alone bool
	// Site marks a target that reads the inventory and speaks to its hosts.
	Site bool
	// Lists marks one whose argument is a list: an empty one is a list too, and
	// the procedure refuses it.
	Lists bool
}

// A Flag is an option, typed -name=value.
type Flag struct {
	Name string
	Type string // of the magefile's parameter: "string", "int", "bool" or "time.Duration"
	// Check says what is wrong with a value; nil takes any that is not empty.
	Check func(value string) error
	// Beside names a flag that has to stand beside this one; empty for none.
	Beside string
}

func boolean(name string) Flag {
	return Flag{Name: name, Type: "bool", Check: func(v string) error {
		if _, err := strconv.ParseBool(v); err != nil {
			return errors.New("give true or false")
		}
		return nil
	}}
}

func duration(name string) Flag {
	return Flag{Name: name, Type: "time.Duration", Check: func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return errors.New("give a duration, such as 10s or 1m30s")
		}
		if d < 0 {
			return errors.New("a duration is not negative")
		}
		return nil
	}}
}

func whole(name string) Flag {
	return Flag{Name: name, Type: "int", Check: func(v string) error {
		if _, err := strconv.Atoi(v); err != nil {
			return fmt.Errorf("give a whole number from %d to %d", math.MinInt, math.MaxInt)
		}
		return nil
	}}
}

func positive(name string) Flag {
	return Flag{Name: name, Type: "int", Check: func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n < 1 {
			return errors.New("give a whole number from 1")
		}
		return nil
	}}
}

func size(name string) Flag {
	return Flag{Name: name, Type: "string", Check: func(v string) error {
		_, err := sop.ParseBytes(v)
		return err
	}}
}

func natural(name string) Flag {
	return Flag{Name: name, Type: "int", Check: func(v string) error {
		if n, err := strconv.Atoi(v); err != nil || n < 0 {
			return errors.New("give a whole number from 0")
		}
		return nil
	}}
}

func text(name string) Flag { return Flag{Name: name, Type: "string"} }

func choice(name string, of ...string) Flag {
	return Flag{Name: name, Type: "string", Check: func(v string) error {
		if !slices.Contains(of, v) {
			return fmt.Errorf("give one of %s", strings.Join(of, ", "))
		}
		return nil
	}}
}

// each checks every element of a comma-separated list, none of which is empty
// or given twice.
func each(name string, check func(element string) error) Flag {
	return Flag{Name: name, Type: "string", Check: func(v string) error {
		var seen []string
		for _, e := range strings.Split(v, ",") {
			switch {
			case e == "":
				return errors.New("an element is empty")
			case slices.Contains(seen, e):
				return fmt.Errorf("%s stands there twice", e)
			}
			seen = append(seen, e)
			if err := check(e); err != nil {
				return err
			}
		}
		return nil
	}}
}

// waivable takes the name of a safeguard, alone or with the one host that it is
// waived for: references-reachable:10.10.10.9.
func waivable(element string) error {
	name, host, forHost := strings.Cut(element, ":")
	if slices.Contains(Waivable(), name) {
		if forHost && host == "" {
			return fmt.Errorf("%s waives for no host", element)
		}
		return nil
	}
	if name == "all" {
		return errors.New("nothing waives all safeguards; name them one by one")
	}
	hint := ""
	if near, ok := nearest(name, Waivable()); ok {
		hint = fmt.Sprintf("; did you mean %s?", near)
	}
	return fmt.Errorf("%s is no safeguard that can be waived%s", name, hint)
}

func address(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		return fmt.Errorf("%s is no IP address", s)
	}
	return nil
}

func benchmark(name string) error {
	all := []string{"LabUp", "LabThroughput", "LabRecording", "CreateCluster", "AddMember", "RemoveFollower", "ReloadRestart", "RollingRestart", "RemoveLeader", "Migrate", "MigrateData", "Upgrade", "Drill"}
	if slices.Contains(all, name) {
		return nil
	}
	return fmt.Errorf("%s is no benchmark; there are %s", name, strings.Join(all, ", "))
}

func beside(f Flag, other string) Flag {
	f.Beside = other
	return f
}

// moment takes what sop.ParseMoment reads.
func moment(v string) error {
	_, err := sop.ParseMoment(v, time.Time{})
	return err
}

func anyElement(string) error { return nil }

func digest(v string) error {
	if len(v) != 12 || strings.Trim(v, "0123456789abcdef") != "" {
		return errors.New("give the plan's hash as -plan prints it, 12 hexadecimal digits")
	}
	return nil
}

// Waivable are the safeguards that can be passed over: those that say what
// that would risk.
func Waivable() []string {
	return []string{
		"certificates",
		"client-reaches",
		"clients-reachable",
		"clients-renewed",
		"clients-trust",
		"clocks",
		"data-quorum",
		"defrag-version",
		"disk",
		"env-credentials",
		"inventory-agrees",
		"living-quorum",
		"log-applied",
		"no-member",
		"no-proxy",
		"own-data",
		"postgres-sound",
		"quota-headroom",
		"references-editable",
		"references-reachable",
		"remembered-cluster",
		"settings-known",
		"snapshot-cluster",
		"sound-release",
		"spare",
		"stale-clients",
		"survivors",
		"unfenced",
		"unknown-clients",
		"unreachable",
		"versions",
		"vip-manager-version",
		"voters-answer",
		"wanted-version",
	}
}

// procedure gives a target with the flags that every procedure takes, and its
// own before them.
func procedure(name string, args []string, own ...Flag) Target {
	return Target{Name: name, Args: args, Alone: true, Site: true, Flags: append(own,
		boolean("plan"), boolean("rehearse"), boolean("tunnel"), beside(each("waive", waivable), "reason"), text("reason"), boolean("json"),
		Flag{Name: "expect", Type: "string", Check: digest}, Flag{Name: "notAfter", Type: "string", Check: moment})}
}

func listing(t Target) Target {
	t.Lists = true
	return t
}

func (t Target) with(more ...Flag) Target {
	t.Flags = append(t.Flags, more...)
	return t
}

// Targets are all targets, in the order of the magefile.
func Targets() []Target {
	confirm := text("confirm")
	data := beside(text("snapshot"), "rehearse")
	soak := duration("soak")
	edit := choice("inventory", "edit", "patch", "none")
	host := []string{"HOST"}
	clean, safeguard := boolean("clean"), boolean("safeguard")
	return []Target{
		procedure("createCluster", nil, clean, safeguard).with(confirm),
		procedure("destroyCluster", nil, clean, safeguard).with(confirm),
		procedure("purgeCluster", nil).with(confirm),
		procedure("purgeHost", host).with(confirm),
		procedure("clientEnv", nil, boolean("install"), boolean("check")),
		procedure("reloadConfig", nil, each("only", anyElement), boolean("restart"), boolean("vips")).with(soak, data),
		procedure("addMember", host).with(edit, data),
		procedure("removeMember", host).with(edit, data),
		procedure("replaceMember", []string{"OLD", "NEW"}).with(edit, data),
		listing(procedure("migrate", []string{"HOSTS"}, choice("stale", "wait", "refuse", "ignore")).with(edit, data)),
		procedure("restart", nil).with(soak, data),
		procedure("upgrade", []string{"VERSION"}, boolean("downgrade")).with(soak, data),
		procedure("moveLeader", nil, text("to")).with(data),
		procedure("defrag", nil, size("least")).with(soak, data),
		procedure("compact", nil, positive("revision"), natural("keep")).with(data),
		{Name: "alarm:list", Flags: []Flag{boolean("tunnel"), boolean("json")}, Alone: true, Site: true},
		procedure("alarm:disarm", nil).with(data),
		procedure("rotateCerts", nil, choice("ca", sop.Strides()...), beside(boolean("clients"), "ca")).with(soak, data),
		procedure("enableAuth", nil).with(data),
		procedure("snapshot", []string{"FILE"}, boolean("survivors")),
		procedure("restore", []string{"FILE"}, boolean("again")).with(confirm),
		{Name: "status", Flags: []Flag{boolean("tunnel"), boolean("json")}, Alone: true, Site: true},
		{Name: "sudoers", Flags: []Flag{text("user")}, Alone: true},
		{Name: "rehearse", Flags: []Flag{whole("seed")}, Alone: true},
		{Name: "lab:up", Flags: []Flag{choice("kind", "embedded", "container"), text("inventory"), each("hosts", address), text("name"), each("etcd", anyElement)}, Alone: true},
		{Name: "lab:down", Flags: []Flag{text("name")}, Alone: true},
		{Name: "lab:list"},
		{Name: "lab:doctor"},
		{Name: "lab:heal"},
		{Name: "scenario:run", Args: []string{"PATTERN"}, Flags: []Flag{choice("lab", "embedded", "container"), whole("seed"), positive("count"), duration("walk"), text("mutant"), text("junit"), boolean("shrink")}, Alone: true},
		{Name: "scenario:mutants", Flags: []Flag{each("only", anyElement), whole("seed")}, Alone: true},
		{Name: "scenario:list"},
		{Name: "scenario:check", Args: []string{"DIR"}},
		{Name: "test"},
		{Name: "lint"},
		{Name: "bench", Flags: []Flag{choice("lab", "embedded", "container"), each("only", benchmark), positive("count"), whole("seed"), positive("rate")}},
		{Name: "check"},
	}
}
