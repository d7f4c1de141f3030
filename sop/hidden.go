package sop

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/host"
)

// status and -plan do without root, and root alone may see some of what
// conditions ask about. What could not be seen is neither so nor not so: it is
// told as not known, and a run looks at it before it changes anything.

// A Hidden is an answer that needs rights which the look did not have.
type Hidden struct {
	Host string
	Path string // what could not be seen
}

// Error gives both.
func (h *Hidden) Error() string {
	return fmt.Sprintf("%s on %s is not known without root", h.Path, h.Host)
}

func isHidden(err error) bool {
	var h *Hidden
	return errors.As(err, &h)
}

// lacksRights reads the problem that a host tells of a file or a directory.
func lacksRights(problem string) bool {
	return strings.Contains(strings.ToLower(problem), "permission denied")
}

// hiddenIn gives the first of some paths that could not be seen; nil when all
// could, or were not asked for.
func hiddenIn(name string, facts host.Facts, paths ...string) error {
	for _, p := range paths {
		sum, summed := facts.Sums[p]
		f := facts.Files[p]
		if lacksRights(f.Problem) || lacksRights(facts.Dirs[p].Problem) || summed && sum == "" && f.Problem == "" {
			return &Hidden{Host: name, Path: p}
		}
	}
	return nil
}

// hidden lists all that could not be seen on a host.
func (h HostView) hidden() []string {
	var all []string
	for p, f := range h.Facts.Files {
		if lacksRights(f.Problem) {
			all = append(all, p)
		}
	}
	for p, d := range h.Facts.Dirs {
		if lacksRights(d.Problem) {
			all = append(all, p)
		}
	}
	for p, sum := range h.Facts.Sums {
		if sum == "" {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// unknown tells what of a View is not known for lack of rights, one line a host.
func (v View) unknown() []string {
	var all []string
	for _, h := range v.Hosts {
		if paths := h.hidden(); len(paths) > 0 {
			all = append(all, fmt.Sprintf("not known without root on %s: %s", h.Name, strings.Join(paths, ", ")))
		}
	}
	return all
}
