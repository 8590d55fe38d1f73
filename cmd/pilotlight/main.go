package main

import (
	"os"
	"runtime/debug"
)

func main() {
	// A run lasts for a moment and holds little: collecting seldom saves a quarter of the time
	// of a large config, and a file that is fetched is never held as a whole.
	debug.SetGCPercent(400)
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
