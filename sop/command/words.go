package command

import (
	"slices"
	"strings"

	"github.com/etcdrill/etcdrill/sop/host/ssh"
)

// Quoted writes words so that they can be pasted into a shell, which takes them
// literally. Of an option it quotes the value alone.
func Quoted(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if name, value, ok := strings.Cut(w, "="); ok && strings.HasPrefix(name, "-") && value != "" && ssh.Quote(name) == name {
			quoted[i] = name + "=" + ssh.Quote(value)
			continue
		}
		quoted[i] = ssh.Quote(w)
	}
	return strings.Join(quoted, " ")
}

// Lasting leaves out of a command line what holds for this one call: consent, the
// hash of a reviewed plan, the time after which nothing begins, and -plan.
func Lasting(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		name, _, _ := strings.Cut(strings.ToLower(a), "=")
		return name == "-confirm" || name == "-expect" || name == "-notafter" || name == "-plan"
	})
}
