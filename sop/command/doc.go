// Package command checks a whole command line before any of it is carried out.
//
// Mage reads a command line from left to right and runs each target as soon as
// it has read it. What is wrong further to the right comes out when the work is
// done: "createCluster -clean false" creates with clean=true and complains
// about false afterwards, and "addMember -plan HOST" adds a host named -plan.
// So the magefile asks Check first:
//
//	if err := command.Check(os.Args[1:], command.Targets()); err != nil {
//		fmt.Fprintln(os.Stderr, err)
//		os.Exit(2)
//	}
//
// Check accepts less than mage does, and what it accepts mage reads in the same
// way: a known target, its arguments, then its flags as -name=value, each of
// them once, and nothing after them. The targets are data, in Targets; a test
// holds them against the magefile.
package command
