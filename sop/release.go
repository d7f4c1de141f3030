package sop

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// A release is a version of etcd: 3.6.16.
type release struct{ major, minor, patch int }

// releaseForm is how a release is written. What is before one, 3.7.0-rc.1, is no
// release.
const releaseForm = `^([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})$`

func parseRelease(text string) (release, error) {
	parts := regexp.MustCompile(releaseForm).FindStringSubmatch(text)
	if parts == nil {
		return release{}, fmt.Errorf("%q is no release of etcd", text)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(parts[i+1]) // digits, by the form
	}
	return release{n[0], n[1], n[2]}, nil
}

// String is the release as it is written.
func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r.major, r.minor, r.patch) }

// line is the minor version that the release is of: "3.6".
func (r release) line() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

func (r release) compare(o release) int {
	return cmp.Or(cmp.Compare(r.major, o.major), cmp.Compare(r.minor, o.minor), cmp.Compare(r.patch, o.patch))
}

// steps is how many minor versions o is above r.
func (r release) steps(o release) int { return (o.major-r.major)*1000 + o.minor - r.minor }

// newest is the newest release of a minor version that etcdrill was tried with;
// false for a minor version that it does not know.
func newest(line string) (release, bool) {
	switch line {
	case "3.5":
		return release{3, 5, 35}, true
	case "3.6":
		return release{3, 6, 16}, true
	case "3.7":
		return release{3, 7, 3}, true
	}
	return release{}, false
}

// ripe is the release of a minor version that every member must have reached
// before the first goes to the next one, by etcd's own upgrade guides: the fixes
// of what the next one does not bear are in it.
func ripe(line string) release {
	switch line {
	case "3.5":
		return release{3, 5, 32}
	case "3.6":
		return release{3, 6, 11}
	}
	return release{}
}

// next is where to go first on the way from one release to another that is of a
// later minor version.
func (r release) next() release {
	if r.compare(ripe(r.line())) < 0 {
		to, _ := newest(r.line())
		return to
	}
	to, _ := newest(release{r.major, r.minor + 1, 0}.line())
	return to
}

// listsForRoot are the releases that tell the member list to etcd's root user
// alone once authentication is on (etcd#21516).
func listsForRoot(r release) bool {
	return r == release{3, 5, 28} || r == release{3, 6, 9}
}
