package scenarios_test

import (
	"fmt"
	"net"
	"os"
	"os/signal"
)

// Words that make this test binary, run anew in a lab, something else.
const (
	playOccupy   = "etcdrill-test-occupy"   // ADDRESS: listen there until killed
	playOperator = "etcdrill-test-operator" // be an operator; see killed_test.go
)

// play plays a role and does not return, if the arguments name one.
func play(args []string) {
	if len(args) < 2 {
		return
	}
	switch args[1] {
	case playOccupy:
		l, err := net.Listen("tcp", args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer l.Close()
		os.Stdout.WriteString(".")
		never := make(chan os.Signal, 1)
		signal.Notify(never, os.Interrupt)
		<-never
		os.Exit(0)
	case playOperator:
		operate(args[2:])
	}
}
