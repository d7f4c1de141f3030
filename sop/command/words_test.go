package command

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuoted(t *testing.T) {
	require.Equal(t, "addMember 10.10.10.13 -waive=votes,spare -reason='it is time'",
		Quoted("addMember", "10.10.10.13", "-waive=votes,spare", "-reason=it is time"))
	words := []string{"a b", "-x=it's", "-x=", "=y", "-a b=c", "$HOME", "", "a=b", "-é=ü", "-n=a\nb"}
	out, err := exec.Command("sh", "-c", "printf '%s\\0' "+Quoted(words...)).Output()
	require.NoError(t, err)
	require.Equal(t, words, strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"))
}

func TestLasting(t *testing.T) {
	require.Equal(t, []string{"addMember", "h", "-waive=votes", "-planned=1"},
		Lasting([]string{"addMember", "h", "-plan", "-waive=votes", "-Confirm=cafe", "-expect=1", "-notAfter=17:00", "-planned=1", "-plan=true"}))
}
