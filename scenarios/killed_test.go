package scenarios_test

func operate(args []string) {}
