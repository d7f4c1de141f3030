package inventory

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// TestScalars has what PyYAML 6, which Ansible reads with, makes of each.
func TestScalars(t *testing.T) {
	for _, c := range []struct {
		in    string
		kind  kind
		value int64 // of integers, and 1 for true
	}{
		{"yes", boolean, 1},
		{"no", boolean, 0},
		{"on", boolean, 1},
		{"off", boolean, 0},
		{"y", text, 0},
		{"n", text, 0},
		{"Y", text, 0},
		{"N", text, 0},
		{"true", boolean, 1},
		{"True", boolean, 1},
		{"TRUE", boolean, 1},
		{"tRUE", text, 0},
		{"On", boolean, 1},
		{"oN", text, 0},
		{"~", null, 0},
		{"null", null, 0},
		{"Null", null, 0},
		{"nUll", text, 0},
		{"0", integer, 0},
		{"1", integer, 1},
		{"-1", integer, -1},
		{"+1", integer, 1},
		{"010", integer, 8},
		{"0o10", text, 0},
		{"08", text, 0},
		{"0x1F", integer, 31},
		{"0X1F", text, 0},
		{"0b101", integer, 5},
		{"1_000", integer, 1000},
		{"1:30", integer, 90},
		{"1:60", text, 0},
		{"190:20:30", integer, 685230},
		{"1.5", float, 0},
		{"1.", float, 0},
		{".5", float, 0},
		{"1e3", text, 0},
		{"1.0e+3", float, 0},
		{"1.0e3", text, 0},
		{".inf", float, 0},
		{"-.INF", float, 0},
		{".nan", float, 0},
		{"1.2.3", text, 0},
		{"10.10.10.10", text, 0},
		{"fd00::1", text, 0},
		{"2001:10:20:30:40:50:1:2", integer, 5602001869620062},
		{"1_0.5", float, 0},
		{"3.6", float, 0},
		{"+0x_1", integer, 1},
		{"0_", integer, 0},
		{"-010", integer, -8},
		{"190:20:30.15", float, 0},
		{"-0b1", integer, -1},
		{"2379", integer, 2379},
	} {
		s := readPlain(c.in)
		require.Equal(t, c.kind, s.kind, c.in)
		require.Equal(t, c.in, s.text)
		value := s.int
		if s.bool {
			value = 1
		}
		require.Equal(t, c.value, value, c.in)
	}
}

func TestQuotesAndTags(t *testing.T) {
	for in, want := range map[string]scalar{
		`"no"`:                {kind: text, text: "no", quoted: true},
		`'1'`:                 {kind: text, text: "1", quoted: true},
		`!!str 1`:             {kind: text, text: "1", quoted: true},
		`!unsafe "{{"`:        {kind: text, text: "{{", quoted: true},
		`!!bool "yes"`:        {kind: boolean, text: "yes", bool: true},
		`!!int "010"`:         {kind: integer, text: "010", int: 8, note: "010 is octal in YAML 1.1 and is 8"},
		`!vault abc`:          {kind: vault},
		`!mine abc`:           {kind: other, text: "abc"},
		`[ 1 ]`:               {kind: other},
		`{ a: 1 }`:            {kind: other},
		"|\n  yes\n":          {kind: text, text: "yes\n", quoted: true},
		`0o17`:                {kind: text, text: "0o17", note: "0o is octal in YAML 1.2 only, to Ansible it is text"},
		`9999999999999999999`: {kind: other, text: "9999999999999999999", note: "the number is out of range"},
	} {
		var doc yaml.Node
		require.NoError(t, yaml.Unmarshal([]byte(in), &doc))
		require.Equal(t, want, readScalar(doc.Content[0]), in)
	}
}
