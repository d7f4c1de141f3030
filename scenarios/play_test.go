package scenarios_test

import (
	"fmt"
	"net"
	"os"
	"os/signal"
)

// playOccupy makes this test binary, run anew in a lab, a program that listens
// on the address that follows, until it is killed.
const playOccupy = "etcdrill-test-occupy"

// play plays a role and does not return, if the arguments name one.
func play(args []string) {
	if len(args) < 3 || args[1] != playOccupy {
		return
	}
	l, err := net.Listen("tcp", args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer l.Close()
	fmt.Print(".") // whoever started it waits for this
	never := make(chan os.Signal, 1)
	signal.Notify(never, os.Interrupt)
	<-never
}
