package inventory

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kind is what a scalar is under YAML 1.1 with Ansible's own tags.
type kind int

const (
	text kind = iota
	null
	boolean
	integer
	float
	vault // !vault: encrypted, not ours to open
	other // no scalar, or a tag that means nothing here
)

// scalar is the value of one scalar node.
type scalar struct {
	kind   kind
	text   string // as written, without quotes
	bool   bool
	int    int64
	quoted bool   // text by quotes or by tag, not by its looks
	note   string // what may surprise in how it was read, else ""
}

// Vault stands in Host.Vars for a value that is encrypted with Ansible Vault.
type Vault struct{}

// Patterns of YAML 1.1 as PyYAML has them, which is what Ansible reads with.
var (
	intPattern   = regexp.MustCompile(`^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	floatPattern = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
)

// readScalar reads a node that is no alias.
func readScalar(n *yaml.Node) scalar {
	if n == nil {
		return scalar{kind: null}
	}
	if n.Kind != yaml.ScalarNode {
		return scalar{kind: other}
	}
	if n.Style&yaml.TaggedStyle != 0 {
		switch n.Tag {
		case "!vault", "!vault-encrypted":
			return scalar{kind: vault}
		case "!!str", "!unsafe", "!":
			return scalar{kind: text, text: n.Value, quoted: true}
		case "!!bool", "!!int", "!!float", "!!null":
			return readPlain(n.Value)
		}
		return scalar{kind: other, text: n.Value}
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return scalar{kind: text, text: n.Value, quoted: true}
	}
	return readPlain(n.Value)
}

func readPlain(s string) scalar {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return scalar{kind: null, text: s}
	}
	if b, ok := readBool(s); ok {
		return scalar{kind: boolean, text: s, bool: b}
	}
	if intPattern.MatchString(s) {
		if i, note, ok := readInt(s); ok {
			return scalar{kind: integer, text: s, int: i, note: note}
		}
		return scalar{kind: other, text: s, note: "the number is out of range"}
	}
	if floatPattern.MatchString(s) {
		return scalar{kind: float, text: s}
	}
	if strings.HasPrefix(s, "0o") {
		return scalar{kind: text, text: s, note: "0o is octal in YAML 1.2 only, to Ansible it is text"}
	}
	return scalar{kind: text, text: s}
}

// readBool knows the booleans of PyYAML. A single y or n is not one of them.
func readBool(s string) (value, ok bool) {
	switch s {
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true, true
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// readInt reads what matches intPattern; ok is false beyond 64 bits.
func readInt(s string) (i int64, note string, ok bool) {
	digits := strings.ReplaceAll(s, "_", "")
	sign := ""
	if rest := strings.TrimLeft(digits, "+-"); rest != digits {
		sign = strings.TrimPrefix(digits[:len(digits)-len(rest)], "+")
		digits = rest
	}
	var err error
	switch {
	case strings.Contains(digits, ":"):
		var total int64
		for part := range strings.SplitSeq(digits, ":") {
			n, err := strconv.ParseInt(part, 10, 64)
			if err != nil || total > (math.MaxInt64-n)/60 {
				return 0, "", false
			}
			total = total*60 + n
		}
		if sign == "-" {
			total = -total
		}
		return total, s + " counts in sixties in YAML 1.1 and is " + strconv.FormatInt(total, 10), true
	case strings.HasPrefix(digits, "0b"):
		i, err = strconv.ParseInt(sign+digits[2:], 2, 64)
	case strings.HasPrefix(digits, "0x"):
		i, err = strconv.ParseInt(sign+digits[2:], 16, 64)
	case len(digits) > 1 && digits[0] == '0':
		i, err = strconv.ParseInt(sign+digits, 8, 64)
		note = s + " is octal in YAML 1.1 and is " + strconv.FormatInt(i, 10)
	default:
		i, err = strconv.ParseInt(sign+digits, 10, 64)
	}
	return i, note, err == nil
}

// isTemplate says whether a value is a Jinja template.
func isTemplate(s string) bool {
	return strings.Contains(s, "{{") || strings.Contains(s, "{%")
}
