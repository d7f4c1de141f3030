package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etcdrill/etcdrill/sop"
)

// A runDir keeps what was seen in a run:
//
//	run.json          what run it is; there from the start
//	journal.jsonl     the journals of all operators, one after the other
//	history.jsonl     what the load's clients saw
//	events.jsonl      what a member says happened to the load's keys
//	summary.json      see Summary
//	evidence.json     what the members said in the end, and the rest that Check needs
//	operators/        what each operator said: <n>-<verb>.out and .err
//	members/          what each host's services said: <host>.log
//
// It lies beside the journals of real runs. Those who look there for a run that
// was cut off go by its first record, which here is createCluster's, and that
// one begins anew each time.
type runDir string

// makeRunDir makes .etcdrill/runs/<time> below a directory, and lets latest
// beside it be a link to it.
func makeRunDir(below string, now time.Time) (runDir, error) {
	runs := filepath.Join(below, ".etcdrill", "runs")
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return "", fmt.Errorf("make directory of the run: %w", err)
	}
	for {
		name := sop.RunStamp(now)
		dir := filepath.Join(runs, name)
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			now = now.Add(time.Millisecond)
			continue
		}
		if err != nil {
			return "", fmt.Errorf("make directory of the run: %w", err)
		}
		for _, sub := range []string{"operators", "members"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
				return "", fmt.Errorf("make directory of the run: %w", err)
			}
		}
		link := filepath.Join(dir, "latest")
		if err := os.Symlink(name, link); err != nil {
			return "", fmt.Errorf("link the latest run: %w", err)
		}
		if err := os.Rename(link, filepath.Join(runs, "latest")); err != nil {
			return "", fmt.Errorf("link the latest run: %w", err)
		}
		return runDir(dir), nil
	}
}

func (d runDir) path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// journal appends an operator's journal.
func (d runDir) journal(records []sop.Record) error {
	f, err := os.OpenFile(d.path(journalFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep journal: %w", err)
	}
	enc := json.NewEncoder(f)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return errors.Join(fmt.Errorf("keep journal: %w", err), f.Close())
		}
	}
	return f.Close()
}

// members keeps what the services of every host of the rig said.
func (d runDir) members(ctx context.Context, r *Rig) error {
	for _, name := range r.ground.Hosts() {
		to, err := os.Create(d.path("members", strings.ReplaceAll(name, ":", "_")+".log"))
		if err == nil {
			err = errors.Join(r.ground.Logs(ctx, name, to), to.Close())
		}
		if err != nil {
			return fmt.Errorf("keep logs of %s: %w", name, err)
		}
	}
	return nil
}
