package command

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestAccepted(t *testing.T) {
	for _, line := range []string{
		"",
		"-l",
		"-h",
		"--help",
		"-h addMember",
		"-h lab:up",
		"-v status",
		"-t 5m status",
		"-t=5m status",
		"status",
		"status -json",
		"createCluster -clean=false -safeguard=true",
		"createCluster -clean",
		"createcluster -PLAN",
		"addMember 10.10.10.13",
		"addMember 10.10.10.13 -plan -waive=spare,clocks -reason=CHG-7 -inventory=patch",
		"addMember 10.10.10.13 -reason=CHG-7 -notAfter=17:30",
		"restart -notafter=2026-01-02T15:04:05+02:00",
		"addMember 10.10.10.13 -expect=0123456789ab",
		"destroyCluster -confirm=70be3109ff97a55c",
		"restart -soak=1m30s",
		"reloadConfig -only=etcd.conf,10.10.10.11 -restart",
		"snapshot /tmp/x.db -json",
		"lab:up -inventory=x.yml -hosts=10.10.10.20,10.10.10.21",
		"lint test",
		"rehearse",
	} {
		require.NoError(t, Check(strings.Fields(line), Targets()), line)
	}
}

func TestRefused(t *testing.T) {
	for line, want := range map[string]string{
		"addMembr 10.10.10.13":                    `did you mean addMember?`,
		"lab:upp":                                 `did you mean lab:up?`,
		"fly":                                     `-l lists the targets`,
		"-h nosuchthing":                          `unknown target`,
		"-plan addMember 10.10.10.13":             `a target's own flags stand after its name`,
		"-t":                                      `needs a duration`,
		"-t=soon status":                          `give a duration`,
		"-l=perhaps":                              `takes no value`,
		"-- status":                               `unknown option -`,
		"addMember":                               `HOST is missing`,
		"addMember -plan 10.10.10.13":             `HOST is missing before -plan`,
		"addMember 10.10.10.13 10.10.10.14":       `"10.10.10.14" is one argument too many`,
		"addMember 10.10.10.13 -plan extra":       `"extra" is one argument too many`,
		"addMember 10.10.10.13 --plan":            `write -plan, with one dash`,
		"addMember 10.10.10.13 -h":                `for help write: -h addMember`,
		"addMember 10.10.10.13 -plam":             `did you mean -plan?`,
		"addMember 10.10.10.13 -soak=1s":          `no flag -soak`,
		"addMember 10.10.10.13 -plan -plan":       `stands there twice`,
		"addMember 10.10.10.13 -waive":            `-waive=VALUE`,
		"addMember 10.10.10.13 -waive=":           `has no value`,
		"addMember 10.10.10.13 -waive=all":        `nothing waives all`,
		"addMember 10.10.10.13 -waive=spar":       `did you mean spare?`,
		"addMember 10.10.10.13 -waive=quorum":     `quorum is no safeguard that can be waived`,
		"addMember 10.10.10.13 -waive=disk,,disk": `an element is empty`,
		"addMember 10.10.10.13 -waive=disk,disk":  `disk stands there twice`,
		"addMember 10.10.10.13 -waive=disk":       `-waive needs -reason=TEXT beside it`,
		"addMember 10.10.10.13 -waive=disk -plan": `-waive needs -reason=TEXT beside it`,
		"addMember 10.10.10.13 -reason=":          `has no value`,
		"restart -notAfter=5pm":                   `give a time as HH:MM`,
		"restart -notAfter=25:00":                 `give a time as HH:MM`,
		"addMember 10.10.10.13 -inventory=keep":   `give one of edit, patch, none`,
		"addMember 10.10.10.13 -expect=xyz":       `12 hexadecimal digits`,
		"addMember 10.10.10.13 -plan=perhaps":     `give true or false`,
		"addMember 10.10.10.13 status":            `one procedure per call: status stands alone`,
		"lint createCluster":                      `one procedure per call: createCluster stands alone`,
		"createCluster lint":                      `one procedure per call: createCluster stands alone`,
		"createCluster -clean false":              `write -clean=false, as one word`,
		"createCluster -clean=no":                 `give true or false`,
		"createCluster destroyCluster":            `one procedure per call`,
		"restart -soak=fast":                      `give a duration`,
		"restart -soak=-1s":                       `not negative`,
		"status now":                              `one argument too many`,
		"lab:up -kind=podman":                     `give one of embedded, container`,
		"lab:up -hosts=node-1":                    `node-1 is no IP address`,
		"purgeHost":                               `HOST is missing`,
		"snapshot":                                `FILE is missing`,
		"lint -x":                                 `no flag -x`,
		"bench -count=0":                          `from 1`,
		"bench -only=LabDown":                     `LabDown is no benchmark`,
		"rehearse -seed=9223372036854775808":      `give a whole number`,
		"status -":                                `no flag -`,
		"status -=x":                              `no flag -`,
	} {
		err := Check(strings.Fields(line), Targets())
		require.ErrorIs(t, err, ErrUsage, line)
		require.ErrorContains(t, err, want, line)
	}
	// An unset variable is how a whole cluster was removed once.
	require.ErrorContains(t, Check([]string{"removeMember", ""}, Targets()), "HOST is empty")
	require.NoError(t, Check([]string{"migrate", "", "-plan"}, Targets()), "a list without hosts is for the procedure to refuse, with status 3")
	require.ErrorContains(t, Check([]string{"removeMember", "a\nb"}, Targets()), "control character")
	require.ErrorContains(t, Check([]string{"removeMember", "a", "-expect=\x1b"}, Targets()), "control character")
}

func TestCalledAndSet(t *testing.T) {
	c, ok := Called([]string{"-v", "addmember", "h", "-rehearse"}, Targets())
	require.True(t, ok)
	require.Equal(t, "addMember", c.Name)
	require.Equal(t, []string{"addMember", "H", "-waive=Disk", "-rehearse"}, Line([]string{"-t", "1s", "ADDMEMBER", "H", "-Waive=Disk", "-REHEARSE"}, Targets()))
	require.Nil(t, Line([]string{"-l"}, Targets()))
	for _, args := range [][]string{nil, {"-l"}, {"-h", "addMember"}} {
		_, ok := Called(args, Targets())
		require.False(t, ok)
	}
	require.True(t, Set([]string{"addMember", "h", "-rehearse"}, "rehearse"))
	require.True(t, Set([]string{"addMember", "h", "-Rehearse=1"}, "rehearse"))
	require.False(t, Set([]string{"addMember", "h", "-rehearse=false"}, "rehearse"))
	require.False(t, Set([]string{"addMember", "rehearse"}, "rehearse"))
}

func TestLinesFit(t *testing.T) {
	for _, target := range Targets() {
		err := Check([]string{target.Name, "-nosuchflag"}, Targets())
		require.Error(t, err)
		_, usage, ok := strings.Cut(err.Error(), "\n")
		require.True(t, ok)
		for line := range strings.SplitSeq(usage, "\n") {
			require.LessOrEqual(t, len(line), 80, line)
		}
	}
}

// TestMagefile holds the table against the magefile, which is what mage reads.
func TestMagefile(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../magefile.go", nil, parser.ParseComments)
	require.NoError(t, err)
	var found []Target
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !f.Name.IsExported() {
			continue
		}
		target := Target{Name: lowerFirst(f.Name.Name)}
		if f.Recv != nil {
			target.Name = strings.ToLower(f.Recv.List[0].Type.(*ast.Ident).Name) + ":" + target.Name
		}
		for _, p := range f.Type.Params.List {
			require.Len(t, p.Names, 1, "%s: each parameter on a line of its own", target.Name)
			name := p.Names[0].Name
			switch typ := p.Type.(type) {
			case *ast.SelectorExpr: // context.Context
			case *ast.Ident:
				require.Equal(t, "string", typ.Name, target.Name)
				target.Args = append(target.Args, strings.ToUpper(name))
			case *ast.StarExpr:
				target.Flags = append(target.Flags, Flag{Name: name, Type: typeName(typ.X)})
			}
		}
		found = append(found, target)
	}
	var table []Target
	for _, target := range Targets() {
		bare := Target{Name: target.Name, Args: target.Args}
		for _, f := range target.Flags {
			bare.Flags = append(bare.Flags, Flag{Name: f.Name, Type: f.Type})
		}
		table = append(table, bare)
	}
	byName := func(a, b Target) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(found, byName)
	slices.SortFunc(table, byName)
	require.Equal(t, table, found)
}

// TestWaivable holds the list against the safeguards: those that say what
// waiving them would risk.
func TestWaivable(t *testing.T) {
	paths, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	found := map[string]bool{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok || typeName(lit.Type) != "Safeguard" {
				return true
			}
			var name string
			var risk bool
			for _, e := range lit.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				if !ok {
					continue
				}
				switch kv.Key.(*ast.Ident).Name {
				case "Name":
					name, _ = strconv.Unquote(kv.Value.(*ast.BasicLit).Value)
				case "Risk":
					risk = true
				}
			}
			if risk {
				found[name] = true
			}
			return true
		})
	}
	var names []string
	for n := range found {
		names = append(names, n)
	}
	slices.Sort(names)
	require.Equal(t, names, Waivable(), "safeguards with a Risk, and those that -waive= takes")
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return typeName(e.X) + "." + e.Sel.Name
	}
	return ""
}

// lowerFirst names a target as mage does.
func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[n:]
}

// asMage reads a command line as mage's generated program does, and gives the
// calls that it would make; false when it would stop, at whatever point.
func asMage(args []string, targets []Target) (calls []string, ok bool) {
	for x := 0; x < len(args); {
		i := slices.IndexFunc(targets, func(t Target) bool { return strings.EqualFold(t.Name, args[x]) })
		if i < 0 {
			return calls, false
		}
		target := targets[i]
		x++
		if x+len(target.Args) > len(args) {
			return calls, false
		}
		call := target.Name
		for range target.Args {
			call += "|" + args[x]
			x++
		}
		values := map[string]string{}
		for len(target.Flags) > 0 && x < len(args) && strings.HasPrefix(args[x], "-") {
			name, value, given := strings.Cut(args[x][1:], "=")
			name = strings.ToLower(name)
			j := slices.IndexFunc(target.Flags, func(f Flag) bool { return strings.ToLower(f.Name) == name })
			if j < 0 {
				return calls, false
			}
			switch typ := target.Flags[j].Type; {
			case !given && typ != "bool":
				return calls, false
			case !given:
				value = "true"
			case typ == "bool":
				if _, err := strconv.ParseBool(value); err != nil {
					return calls, false
				}
			case typ == "int":
				if _, err := strconv.Atoi(value); err != nil {
					return calls, false
				}
			case typ == "time.Duration":
				if _, err := time.ParseDuration(value); err != nil {
					return calls, false
				}
			}
			values[name] = value
			x++
		}
		for _, f := range target.Flags {
			if v, ok := values[strings.ToLower(f.Name)]; ok {
				call += "|-" + f.Name + "=" + v
			}
		}
		calls = append(calls, call)
	}
	return calls, true
}

// FuzzCheck: what is accepted, mage reads to its end, with one call where the
// target stands alone; and nothing panics.
func FuzzCheck(f *testing.F) {
	for _, line := range []string{"addMember 10.10.10.13 -plan", "createCluster -clean false", "-t 5m status", "lint test", "restart -soak=1s -json", "-h x", "purgeHost  -plan"} {
		f.Add(line)
	}
	targets := Targets()
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		if err := Check(args, targets); err != nil {
			require.ErrorIs(t, err, ErrUsage)
			return
		}
		called, ok := Called(args, targets)
		if !ok {
			return // a list or a help
		}
		rest, _, err := skipMage(args)
		require.NoError(t, err)
		calls, ok := asMage(rest, targets)
		require.True(t, ok, "mage stops in the middle of %q", args)
		require.NotEmpty(t, calls)
		if called.Alone {
			require.Len(t, calls, 1)
		}
		for _, c := range calls {
			require.False(t, strings.Contains(c, "||"), "an empty argument in %q", c)
		}
	})
}
