package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Settings are the names of all settings in a member's configuration, as etcd's
// own options are called: "quota-backend-bytes". Those of YAML's sections are
// left out.
func Settings(form Form, content []byte) ([]string, error) {
	if form == Env {
		var names []string
		for _, a := range assignments(content) {
			if rest, ok := strings.CutPrefix(a.name, "ETCD_"); ok {
				names = append(names, strings.ToLower(strings.ReplaceAll(rest, "_", "-")))
			}
		}
		return names, nil
	}
	var all map[string]any
	if err := yaml.Unmarshal(content, &all); err != nil {
		return nil, fmt.Errorf("read etcd.conf: %w", err)
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// Nowhere is a data directory that there cannot be. An etcd that is started with
// it reads all of its configuration, and ends before it touches anything.
const Nowhere = "/dev/null/etcdrill"

// Rehearsed makes a configuration of a member's own for an etcd that is only to
// say whether it takes it: without a data directory, and without a log of its
// own. In the form of variables they are given one by one.
func Rehearsed(form Form, content []byte) (file []byte, env []string, err error) {
	if form == Env {
		for _, a := range assignments(content) {
			if a.name != variable(keyDataDir) && !strings.HasPrefix(a.name, "ETCD_LOG_OUTPUTS") && !strings.HasPrefix(a.name, "ETCD_ENABLE_LOG_ROTATION") {
				env = append(env, a.name+"="+a.value)
			}
		}
		return nil, append(env, variable(keyDataDir)+"="+Nowhere), nil
	}
	all := map[string]any{}
	if err := yaml.Unmarshal(content, &all); err != nil {
		return nil, nil, fmt.Errorf("read etcd.conf: %w", err)
	}
	all[keyDataDir] = Nowhere
	delete(all, "log-outputs")
	delete(all, "enable-log-rotation")
	file, err = yaml.Marshal(all)
	return file, nil, err
}

// Gone are the settings that an etcd of a minor version knows no more, of those
// that the one before it knew, each with what takes its place; empty for
// nothing. As an option on the command line each ends the process at once; in a
// file or in the environment it is passed over without a word.
func Gone(minor string) map[string]string {
	switch minor {
	case "3.6":
		return map[string]string{
			"enable-v2": "", "experimental-enable-v2v3": "",
			"proxy": "", "proxy-dial-timeout": "", "proxy-failure-wait": "", "proxy-read-timeout": "", "proxy-refresh-interval": "", "proxy-write-timeout": "",
		}
	case "3.7":
		gone := map[string]string{
			"experimental-compact-hash-check-enabled":        "feature-gates: CompactHashCheck=true",
			"experimental-enable-lease-checkpoint":           "feature-gates: LeaseCheckpoint=true",
			"experimental-enable-lease-checkpoint-persist":   "feature-gates: LeaseCheckpointPersist=true",
			"experimental-initial-corrupt-check":             "feature-gates: InitialCorruptCheck=true",
			"experimental-stop-grpc-service-on-defrag":       "feature-gates: StopGRPCServiceOnDefrag=true",
			"experimental-txn-mode-write-with-shared-buffer": "feature-gates: TxnModeWriteWithSharedBuffer=true",
		}
		for _, name := range []string{
			"bootstrap-defrag-threshold-megabytes", "compact-hash-check-time", "compaction-batch-limit", "compaction-sleep-interval", "corrupt-check-time",
			"distributed-tracing-address", "distributed-tracing-instance-id", "distributed-tracing-sampling-rate", "distributed-tracing-service-name",
			"downgrade-check-time", "enable-distributed-tracing", "memory-mlock", "peer-skip-client-san-verification", "snapshot-catchup-entries",
			"warning-apply-duration", "warning-unary-request-duration", "watch-progress-notify-interval",
		} {
			gone["experimental-"+name] = name
		}
		return gone
	}
	return nil
}
