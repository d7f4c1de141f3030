package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
)

// owner is who a file belongs to.
type owner struct {
	User  string `json:"user"`
	Group string `json:"group"`
}

// owners is the table of who owns what in a root. It stands beside the root,
// so that it is no file of the host, and is written whole at each change.
type owners struct {
	mu    sync.Mutex
	file  string
	table map[string]owner // by real path in the root
}

func ownersFile(root string) string { return root + ".owners.json" }

// openOwners reads the table of a root, or begins one.
func openOwners(root string) (*owners, error) {
	o, err := readOwners(root)
	if errors.Is(err, fs.ErrNotExist) {
		o.table["/"] = owner{"root", "root"}
		o.table["/home/dba"] = owner{"dba", "dba"}
		return o, o.save()
	}
	return o, err
}

func readOwners(root string) (*owners, error) {
	o := &owners{file: ownersFile(root), table: map[string]owner{}}
	data, err := os.ReadFile(o.file)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal(data, &o.table); err != nil {
		return o, fmt.Errorf("read %s: %w", o.file, err)
	}
	return o, nil
}

func (o *owners) save() error {
	data, err := json.MarshalIndent(o.table, "", "\t")
	if err != nil {
		return err
	}
	temp := o.file + ".new"
	if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, o.file)
}

// of says who owns a path: the nearest entry at or above it.
func (o *owners) of(real string) owner {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if who, ok := o.table[real]; ok {
			return who
		}
		if real == "/" {
			return owner{"root", "root"}
		}
		real = path.Dir(real)
	}
}

func (o *owners) set(real string, who owner) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old, ok := o.table[real]; ok && old == who {
		return nil
	}
	o.table[real] = who
	return o.save()
}

// forget drops the entries below a path, and its own when self.
func (o *owners) forget(real string, self bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	changed := false
	for p := range o.table {
		if strings.HasPrefix(p, real+"/") || self && p == real {
			delete(o.table, p)
			changed = true
		}
	}
	if changed {
		// A stale entry does no harm until the same path is made again, and
		// whoever makes it writes its owner then.
		_ = o.save()
	}
}

// move takes the entries of a path and of all below it along, and sets down
// whom the path itself belongs to when that was only known from above.
func (o *owners) move(from, to string) error {
	who := o.of(from)
	o.mu.Lock()
	defer o.mu.Unlock()
	for p, w := range o.table {
		if strings.HasPrefix(p, from+"/") {
			delete(o.table, p)
			o.table[to+strings.TrimPrefix(p, from)] = w
		}
	}
	delete(o.table, from)
	o.table[to] = who
	return o.save()
}
