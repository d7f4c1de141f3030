package scenarios_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/etcdrill/etcdrill/sop"
	"github.com/etcdrill/etcdrill/sop/command"
	"github.com/etcdrill/etcdrill/sop/inventory"
)

// The rules of the house. Each stands here with its reason; an exception stands
// in its list with a reason of its own, and has to go when it is not needed any
// more.

const (
	module = "github.com/etcdrill/etcdrill"
	house  = ".." // the root of the repository
)

// --- imports go one way ---

// A border keeps packages below one path from importing others.
type border struct {
	from  string   // these packages and those below them, as paths in the module
	never []string // import paths; those below them too
	but   []string // ... except for these
	why   string
	tests bool // tests may: they hold what we do against the real thing
}

func borders() []border {
	const server, mage = "go.etcd.io/etcd/server/v3", "github.com/magefile/mage"
	lab, scenarios := module+"/lab", module+"/scenarios"
	return []border{
		{"sop", []string{lab, scenarios}, nil,
			"a procedure cannot tell a lab from production: that is why a rehearsal proves anything", false},
		{"sop", []string{server}, nil,
			"procedures look at etcd from outside, as an administrator does, and must work with every version of it", true},
		{"sop", []string{mage}, nil,
			"procedures are called by tests, labs and other programs too; only the magefile knows how it was called", false},
		{"sop", []string{"testing"}, nil,
			"what runs on production carries no test code", true},
		{"sop/inventory", []string{module + "/sop"}, nil, "the inventory is a noun: labs use it, and it knows no procedure", false},
		{"sop/host", []string{module + "/sop"}, []string{module + "/sop/host", module + "/sop/inventory"}, "a host is a noun: labs implement it, and it knows no procedure", false},
		{"sop/config", []string{module + "/sop"}, []string{module + "/sop/inventory"}, "files are nouns: labs use them, and they know no procedure", false},
		{"sop/pki", []string{module + "/sop"}, nil, "certificates are nouns: labs use them, and they know no procedure", false},
		{"lab", []string{module + "/sop"}, []string{module + "/sop/host", module + "/sop/inventory", module + "/sop/config", module + "/sop/pki"},
			"a lab knows no procedure: one that did could be kind to it", false},
		{"lab", []string{scenarios}, nil, "a lab is hurt by scenarios and does not know which", false},
		{"lab", []string{mage}, nil, "labs are made by tests too; only the magefile knows how it was called", false},
		{"lab", []string{"testing"}, nil, "lab:up and rehearse are commands, not tests; tests and commands share one lab", true},
		{"scenarios", []string{mage}, nil, "scenarios are played by tests too; only the magefile knows how it was called", false},
		{"scenarios", []string{"testing"}, nil, "rehearse is a command, not a test; both play the same scenarios", true},
	}
}

func (b border) forbids(imported string) bool {
	return within(imported, b.never) && !within(imported, b.but)
}

func within(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") })
}

func TestImportsGoOneWay(t *testing.T) {
	v := violations{}
	for _, f := range sources(t) {
		for _, b := range borders() {
			if !within(f.dir, []string{b.from}) || f.test && b.tests {
				continue
			}
			for _, imp := range f.ast.Imports {
				p := unquote(imp.Path)
				if p == module+"/"+f.dir { // the tests of a package
					continue
				}
				if b.forbids(p) {
					v.add(f, imp, "%s imports %s: %s", b.from, p, b.why)
				}
			}
		}
	}
	v.report(t)
}

// What others import counts as well.
func TestDependenciesGoOneWay(t *testing.T) {
	const besides = "its own helpers for tests are in the package that makes containers; nothing of ours can reach them"
	excused := exceptions{
		"lab: github.com/testcontainers/testcontainers-go imports testing":           besides,
		"lab: github.com/testcontainers/testcontainers-go/log imports testing":       besides,
		"scenarios: github.com/testcontainers/testcontainers-go imports testing":     besides,
		"scenarios: github.com/testcontainers/testcontainers-go/log imports testing": besides,
	}
	for _, b := range borders() {
		var v violations
		for p, importers := range dependencies(t, "./"+b.from+"/...") {
			if within(p, []string{module}) || !b.forbids(p) {
				continue
			}
			for _, by := range importers {
				if !excused.use(b.from + ": " + by + " imports " + p) {
					v = append(v, fmt.Sprintf("%s depends on %s, by %s: %s (go list -deps ./%s/...)", b.from, p, by, b.why, b.from))
				}
			}
		}
		v.report(t)
	}
	excused.allUsed(t)
}

// dependencies are all packages that some packages depend on, and who of them
// imports each.
func dependencies(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", pattern)
	cmd.Dir = house
	out, err := cmd.Output()
	require.NoError(t, err, "go list -deps %s", pattern)
	importers := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		for _, imported := range words[1:] {
			importers[imported] = append(importers[imported], words[0])
		}
	}
	return importers
}

// --- the magefile alone reads arguments and environment ---

func TestOnlyTheMagefileReadsArgumentsAndEnvironment(t *testing.T) {
	const why = "what a package does is said by its caller, so that a lab, a test and a command can say different things in one process"
	banned := map[string]string{
		"os.Args": why, "os.Getenv": why, "os.LookupEnv": why, "os.Environ": why, "os.ExpandEnv": why, "os.Setenv": why, "os.Unsetenv": why,
		"os.UserHomeDir": why, "os.UserCacheDir": why, "os.UserConfigDir": why,
		"os.Exit":   "exit statuses are a promise to scripts, and are chosen in one place",
		"log.Fatal": "it exits", "log.Fatalf": "it exits", "log.Fatalln": "it exits",
	}
	excused := exceptions{
		"lab/embedded/lab.go os.Exit":            "Main is the whole program of a process that the lab started from this binary",
		"lab/embedded/supervisor.go os.Exit":     "the supervisor is a process of its own, and this is its end",
		"lab/embedded/machine/member.go os.Exit": "MemberMain is the whole program of a member's process",
	}
	v := violations{}
	for _, f := range sources(t) {
		if f.test || f.path == "magefile.go" { // a test is a program of its own
			continue
		}
		for _, imp := range f.ast.Imports {
			if p := unquote(imp.Path); p == "flag" {
				v.add(f, imp, "imports flag: %s", why)
			}
		}
		f.uses(func(n ast.Node, name string) {
			if reason := banned[name]; reason != "" && !excused.use(f.path+" "+name) {
				v.add(f, n, "%s: %s", name, reason)
			}
		})
	}
	v.report(t)
	excused.allUsed(t)
}

// --- clocks and seeds are passed in ---

func TestClocksAndSeedsArePassedIn(t *testing.T) {
	const clock = "a procedure is told what time it is: it runs under a fake clock in tests, and a rerun must be able to say when it began"
	const seed = "everything random comes from one seed that is printed, or the run cannot be played again"
	v := violations{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		inSOP := within(f.dir, []string{"sop"})
		if inSOP {
			for _, imp := range f.ast.Imports {
				if p := unquote(imp.Path); p == "crypto/rand" || p == "math/rand" || p == "math/rand/v2" {
					v.add(f, imp, "imports %s: a source of randomness is handed to procedures", p)
				}
			}
		}
		f.uses(func(n ast.Node, name string) {
			switch pkg, what, _ := strings.Cut(name, "."); {
			case inSOP && (name == "time.Now" || name == "time.Since" || name == "time.Until"):
				v.add(f, n, "%s: %s", name, clock)
			case (pkg == "math/rand" || pkg == "math/rand/v2") && !slices.Contains([]string{"New", "NewPCG", "NewChaCha8", "Rand", "Source", "PCG", "ChaCha8"}, what):
				v.add(f, n, "%s: %s", name, seed)
			}
		})
	}
	v.report(t)
}

func TestNothingSleeps(t *testing.T) {
	excused := exceptions{}
	v := violations{}
	for _, files := range packages(t) {
		fake := slices.ContainsFunc(files, func(f source) bool {
			return f.test && slices.ContainsFunc(f.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
		})
		for _, f := range files {
			if f.test && fake {
				continue // the clock is synctest's: nobody waits
			}
			f.uses(func(n ast.Node, name string) {
				if name == "time.Sleep" && !excused.use(f.path) {
					v.add(f, n, "time.Sleep: a wait ends when what it waits for is so, or when its context ends")
				}
			})
		}
	}
	v.report(t)
	excused.allUsed(t)
}

// --- names and documentation ---

func TestNoPackageIsADrawer(t *testing.T) {
	drawers := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "lib", "base", "tools", "internal", "types", "models"}
	v := violations{}
	for dir, files := range packages(t) {
		for _, name := range []string{path.Base(dir), files[0].ast.Name.Name} {
			if slices.Contains(drawers, strings.TrimSuffix(name, "_test")) {
				v.add(files[0], files[0].ast.Name, "package %s: a package is named for what it is about; a drawer takes in anything", name)
			}
		}
	}
	v.report(t)
}

func TestEveryPackageTeaches(t *testing.T) {
	const least = 4 // lines
	v := violations{}
	for dir, files := range packages(t) {
		files = slices.DeleteFunc(slices.Clone(files), func(f source) bool { return f.test })
		if len(files) == 0 {
			continue
		}
		taught := 0
		for _, f := range files {
			switch {
			case f.ast.Doc == nil:
			case path.Base(f.path) == "doc.go", len(files) == 1: // one file needs no second to explain it
				taught = len(strings.Split(strings.TrimSpace(f.ast.Doc.Text()), "\n"))
			default:
				v.add(f, f.ast.Name, "a package comment outside of doc.go: there is one place where a package is explained")
			}
		}
		if taught < least {
			v = append(v, fmt.Sprintf("%s: doc.go tells %d lines, at least %d are wanted: a reader begins there", dir, taught, least))
		}
	}
	v.report(t)
}

func TestExportedIdentifiersAreDocumented(t *testing.T) {
	plain := []string{"String", "Error", "Is", "Unwrap"} // the interface documents them
	v := violations{}
	for _, f := range sources(t) {
		if f.test || f.dir == "." { // mage reads the magefile's own
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !slices.Contains(plain, d.Name.Name) {
					v.add(f, d, "%s has no doc comment", d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
							v.add(f, s, "type %s has no doc comment", s.Name.Name)
						}
					case *ast.ValueSpec:
						if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
							v.add(f, s, "%s has no doc comment", s.Names[0].Name)
						}
					}
				}
			}
		}
	}
	v.report(t)
}

func exportedReceiver(d *ast.FuncDecl) bool {
	name := receiver(d)
	return name == "" || ast.IsExported(name)
}

// receiver is the name of a method's type; empty for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	x := d.Recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		case *ast.Ident:
			return y.Name
		default:
			return ""
		}
	}
}

// --- no state outside of values ---

func TestNoPackageVariables(t *testing.T) {
	excused := exceptions{
		"lab/container/image modules": "a table: the modules of etcd, linked in",
		"lab/container/image source":  "a table: what images are made of, linked in",
		"lab/embedded errorKinds":     "a table: the sentinels that survive the socket",
		"sop meanings":                "a table: etcd's own errors, explained",
		"sop shows":                   "a table: the commands that show what a plan refuses for",
		"sop/config keyOrder":         "a table: the order of keys in etcd.conf",
		"sop/inventory Variables":     "a table: every variable that is known",

		"sop/host/ssh preludeScript": "a script, which embed can only put into a variable",
		"sop/host/ssh lookScript":    "a script, which embed can only put into a variable",
		"sop/host/ssh actScript":     "a script, which embed can only put into a variable",
	}
	v := violations{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				s := s.(*ast.ValueSpec)
				for i, name := range s.Names {
					if name.Name == "_" || i < len(s.Values) && constantLike(name.Name, s.Values[i]) || excused.use(f.dir+" "+name.Name) {
						continue
					}
					v.add(f, s, "package variable %s: two labs and a test share one process, so state lives in values; sentinels and tables of constants are excused", name.Name)
				}
			}
		}
	}
	v.report(t)
	excused.allUsed(t)
}

// constantLike holds for sentinel errors and compiled patterns, which Go cannot
// write as constants.
func constantLike(name string, value ast.Expr) bool {
	call, ok := value.(*ast.CallExpr)
	if !ok {
		return false
	}
	switch selector(call.Fun) {
	case "errors.New", "fmt.Errorf":
		return strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err")
	case "regexp.MustCompile":
		return true
	}
	return false
}

// --- one procedure per file ---

func TestOneProcedurePerFile(t *testing.T) {
	excused := exceptions{
		"Snapshot save_snapshot.go": "the verb of the file is the verb of the procedure",
	}
	v := violations{}
	found := 0
	for _, f := range sources(t) {
		if f.test || f.dir != "sop" {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "Plan" || !takesView(fn) {
				continue
			}
			found++
			name, file := receiver(fn), path.Base(f.path)
			if want := snake(name) + ".go"; file != want && !excused.use(name+" "+file) {
				v.add(f, fn, "procedure %s belongs into %s: who looks for a procedure finds it by its name", name, want)
			}
		}
	}
	require.Greater(t, found, 5, "procedures were found at all")
	v.report(t)
	excused.allUsed(t)
}

func takesView(fn *ast.FuncDecl) bool {
	p := fn.Type.Params.List
	if fn.Recv == nil || len(p) != 1 {
		return false
	}
	id, ok := p[0].Type.(*ast.Ident)
	return ok && id.Name == "View"
}

func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// --- the repository speaks of the project alone ---

// The names below are put together from pieces, or this file would break its
// own rule.
func TestTheRepositorySpeaksOfTheProjectAlone(t *testing.T) {
	const (
		place  = "the repository is cloned to other machines"
		mirror = "where modules, packages and images come from is set on the machine that builds, and differs"
		paper  = "who reads this has the repository and nothing else"
	)
	banned := map[string]string{
		"/wo" + "rk/main": place, "/wo" + "rk/shared": place, "/ro" + "ot/": place, "/home" + "/runner": place, "/tmp/" + "brief": place,
		"proxy.gol" + "ang": mirror, "sum.gol" + "ang": mirror, "gopro" + "xy.": mirror, "deb.deb" + "ian": mirror, "security.deb" + "ian": mirror,
		"archive.ubu" + "ntu": mirror, "docker" + ".io": mirror, "gh" + "cr.io": mirror, "quay" + ".io": mirror, "registry.k" + "8s": mirror,
		"DESIGN" + ".md": paper, "facts" + "/": paper, "hazards" + ".md": paper, "the bri" + "ef": paper, "issue" + " 2": paper,
	}
	for _, h := range ownMirrors(t) {
		banned[h] = mirror
	}
	v := violations{}
	for _, name := range tracked(t) {
		b, err := os.ReadFile(filepath.Join(house, name))
		require.NoError(t, err)
		for i, line := range strings.Split(string(b), "\n") {
			for word, why := range banned {
				if strings.Contains(line, word) {
					v = append(v, fmt.Sprintf("%s:%d: %q: %s", name, i+1, word, why))
				}
			}
		}
	}
	v.report(t)
}

// ownMirrors are the hosts that this machine fetches modules and packages from.
func ownMirrors(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOPROXY", "GOSUMDB").Output()
	require.NoError(t, err)
	text := strings.NewReplacer(",", " ", "|", " ").Replace(string(out))
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil { // not every machine has apt, or lets one look
				text += " " + string(b)
			}
		}
	}
	var hosts []string
	for _, word := range strings.Fields(text) {
		if u, err := url.Parse(word); err == nil && strings.Contains(u.Hostname(), ".") {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

func TestTopLevel(t *testing.T) {
	known := []string{
		".ci", ".gitattributes", ".github", ".gitignore", "LICENSE", "README.md", "README.zh.md",
		"go.mod", "go.sum", "lab", "magefile.go", "scenarios", "sop",
	}
	for _, name := range tracked(t) {
		top, _, _ := strings.Cut(name, "/")
		require.Contains(t, known, top, "%s: the top level is the first page that a newcomer reads", name)
	}
}

// --- the README keeps up ---

// cannotWaive is what the README says of a safeguard that cannot be waived.
const cannotWaive = "no"

func TestReadmeNamesEverySafeguard(t *testing.T) {
	readme := readFile(t, "README.md")
	told := map[string]string{} // name to what waiving it risks
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_-]+)` \\| .+ \\| (.+) \\|$").FindAllStringSubmatch(between(t, readme, "safeguards"), -1) {
		told[row[1]] = row[2]
	}
	names := safeguards(t)
	require.Greater(t, len(names), 20, "safeguards were found at all")
	for _, name := range names {
		risk, ok := told[name]
		waivable := slices.Contains(command.Waivable(), name)
		switch {
		case !ok:
			t.Errorf("README.md: the table of safeguards has no row for %s", name)
		case waivable && risk == cannotWaive:
			t.Errorf("README.md: %s can be waived", name)
		case !waivable && risk != cannotWaive:
			t.Errorf("README.md: %s cannot be waived", name)
		}
	}
	for name := range told {
		if !slices.Contains(names, name) {
			t.Errorf("README.md: there is no safeguard %s", name)
		}
	}
}

// safeguards are the names that a refusal can bear: those of Safeguards and
// Refusals, and the first arguments of refuse.
func safeguards(t *testing.T) []string {
	t.Helper()
	names := map[string]bool{}
	text := func(x ast.Expr) {
		if l, ok := x.(*ast.BasicLit); ok && l.Kind == token.STRING {
			names[strings.Trim(l.Value, "`\"")] = true
		}
	}
	for _, f := range sources(t) {
		if f.test || f.dir != "sop" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "refuse" && len(n.Args) > 0 {
					text(n.Args[0])
				}
			case *ast.CompositeLit:
				id, ok := n.Type.(*ast.Ident)
				if !ok {
					break
				}
				for _, e := range n.Elts {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok {
						continue
					}
					if key := kv.Key.(*ast.Ident).Name; id.Name == "Safeguard" && key == "Name" || id.Name == "Refusal" && key == "Safeguard" {
						text(kv.Value)
					}
				}
			case *ast.ValueSpec:
				if n.Names[0].Name == "consentName" {
					text(n.Values[0])
				}
			}
			return true
		})
	}
	return slices.Sorted(maps.Keys(names))
}

func TestReadmeNamesEveryTarget(t *testing.T) {
	readme := readFile(t, "README.md")
	for _, target := range command.Targets() {
		call := strings.Join(append([]string{target.Name}, target.Args...), " ")
		if !strings.Contains(readme, "| `"+call+"` |") {
			t.Errorf("README.md: the table of targets has no row for %s", call)
		}
		for _, f := range target.Flags {
			row := "(?m)^\\| `-" + f.Name + "[=`].*\\| .*(`" + target.Name + "`|every procedure).* \\|"
			if !regexp.MustCompile(row).MatchString(readme) {
				t.Errorf("README.md: the table of options has no row for -%s of %s", f.Name, target.Name)
			}
		}
	}
}

var rewriteReadme = flag.Bool("readme", false, "write the tables that are made from code into README.md")

// Two tables of the README are made from code: go test ./scenarios -run Tables -readme
func TestReadmeTables(t *testing.T) {
	for name, table := range map[string]string{"variables": inventory.Reference(), "votes": votesTable()} {
		readme := readFile(t, "README.md")
		told := between(t, readme, name)
		if *rewriteReadme {
			mark := "<!-- " + name + " -->\n"
			b := []byte(strings.Replace(readme, mark+told, mark+table, 1))
			require.NoError(t, os.WriteFile(filepath.Join(house, "README.md"), b, 0o644))
			continue
		}
		require.Equal(t, table, told, "README.md: the table of %s is made from code: go test ./scenarios -run Tables -readme", name)
	}
}

// votesTable is the arithmetic of sop.Votes for the sizes that there are.
func votesTable() string {
	const answer, spare = "`voters-answer`", "`spare`"
	cell := func(possible bool, v sop.Verdict, noSpare string, waivers ...string) string {
		waivers = slices.DeleteFunc(waivers, func(w string) bool { return w == "" })
		switch {
		case !possible:
			return "-"
		case v == sop.NoQuorum:
			return "no"
		case len(waivers) > 0:
			return "waiver " + strings.Join(waivers, ", ")
		case v == sop.NoSpare:
			return noSpare
		}
		return "yes"
	}
	when := func(holds bool, s string) string {
		if holds {
			return s
		}
		return ""
	}
	var b strings.Builder
	b.WriteString("| voters | of them dead | promote one more | remove a dead one | remove a living one | restart a living one |\n|---|---|---|---|---|---|\n")
	for voters := 1; voters <= 5; voters++ {
		for dead := 0; dead <= voters-sop.Quorum(voters)+1 && dead < voters; dead++ {
			n := sop.Votes{Voters: voters, Dead: dead}
			fmt.Fprintf(&b, "| %d | %d | %s | %s | %s | %s |\n", voters, dead,
				cell(true, n.Promote(), "yes, with a warning", when(dead > 0, answer)),
				cell(dead > 0, n.RemoveDead(), "yes", when(dead > 1, answer)),
				cell(true, n.RemoveLiving(), "", when(dead > 0, answer), when(n.RemoveLiving() == sop.NoSpare, spare)),
				cell(true, n.Restart(), "yes, without writes meanwhile", when(dead > 0, answer)))
		}
	}
	return b.String()
}

// between gives what stands between the markers <!-- name --> and <!-- /name -->.
func between(t *testing.T, text, name string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, "<!-- "+name+" -->\n")
	require.True(t, ok, "marker %s", name)
	text, _, ok = strings.Cut(text, "<!-- /"+name+" -->\n")
	require.True(t, ok, "marker /%s", name)
	return text
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(house, name))
	require.NoError(t, err)
	return string(b)
}

// --- what the rules look at ---

// A source is one Go file of the module.
type source struct {
	path string // from the root, with slashes
	dir  string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// sources parses every Go file of the module, whatever its build tags.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, name := range tracked(t) {
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			continue
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, filepath.Join(house, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		all = append(all, source{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), ast: parsed, fset: fset})
	}
	require.Greater(t, len(all), 50, "Go files were found at all")
	return all
}

// packages groups the sources by directory.
func packages(t *testing.T) map[string][]source {
	t.Helper()
	dirs := map[string][]source{}
	for _, f := range sources(t) {
		dirs[f.dir] = append(dirs[f.dir], f)
	}
	return dirs
}

// tracked are the files that are in git, or would be after `git add .`; outside
// of a clone, all files.
func tracked(t *testing.T) []string {
	t.Helper()
	var names []string
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
	cmd.Dir = house
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		names = strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	} else {
		err := filepath.WalkDir(house, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == ".git" || d.Name() == ".etcdrill"):
				return fs.SkipDir
			case d.Type().IsRegular():
				rel, err := filepath.Rel(house, p)
				names = append(names, filepath.ToSlash(rel))
				return err
			}
			return nil
		})
		require.NoError(t, err)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		fi, err := os.Lstat(filepath.Join(house, name))
		return err != nil || !fi.Mode().IsRegular() // deleted, and not yet in git
	})
}

// uses calls found for every name of another package that f mentions, as
// "os.Exit" or "math/rand/v2.IntN", by import path.
func (f source) uses(found func(n ast.Node, name string)) {
	imported := map[string]string{}
	for _, imp := range f.ast.Imports {
		p := unquote(imp.Path)
		name := path.Base(p)
		if regexp.MustCompile(`^v[0-9]+$`).MatchString(name) {
			name = path.Base(path.Dir(p))
		}
		if imp.Name != nil {
			name = imp.Name.Name
		}
		imported[name] = p
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok && imported[id.Name] != "" {
				found(n, imported[id.Name]+"."+s.Sel.Name)
			}
		}
		return true
	})
}

func selector(x ast.Expr) string {
	if s, ok := x.(*ast.SelectorExpr); ok {
		if id, ok := s.X.(*ast.Ident); ok {
			return id.Name + "." + s.Sel.Name
		}
	}
	return ""
}

func unquote(l *ast.BasicLit) string {
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		return l.Value
	}
	return s
}

// violations are lines that tell where a rule is broken, how, and why it is one.
type violations []string

func (v *violations) add(f source, n ast.Node, format string, args ...any) {
	*v = append(*v, fmt.Sprintf("%s:%d: %s", f.path, f.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)))
}

func (v violations) report(t *testing.T) {
	t.Helper()
	slices.Sort(v)
	for _, line := range slices.Compact(v) {
		t.Error(line)
	}
}

// exceptions name what is excused, and why.
type exceptions map[string]string

// use reports whether something is excused, and notes that the excuse is needed.
func (e exceptions) use(what string) bool {
	if _, ok := e[what]; !ok {
		return false
	}
	e[what] = ""
	return true
}

func (e exceptions) allUsed(t *testing.T) {
	t.Helper()
	for what, reason := range e {
		if reason != "" {
			t.Errorf("nothing needs the exception for %q any more: take it out", what)
		}
	}
}
