// Command count is `make test`: it installs what the tests need, and runs go test
// with the arguments that it is given, once for each part between "--" words. It
// shows what failed and what each package took, and ends with one line of counts. A
// skipped test counts as a failure: nothing is skipped here.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"pilotlight/tests/lab"
)

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
}

type counts struct{ passed, failed, skipped int }

func main() {
	ctx := context.Background()
	elevated, code, err := lab.Elevate(ctx)
	if elevated {
		os.Exit(code)
	}
	if err == nil {
		err = lab.Prepare(ctx, lab.NewLog(os.Stdout))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make test:", err)
		os.Exit(1)
	}
	var c counts
	broken := false
	for part := range slices.Values(split(os.Args[1:])) {
		if err := c.run(part); err != nil {
			fmt.Fprintln(os.Stderr, err)
			broken = true
		}
	}
	if broken && c.failed == 0 {
		c.failed = 1 // it did not build, or did not run
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	if c.failed > 0 || c.skipped > 0 || c.passed == 0 {
		os.Exit(1)
	}
}

func split(args []string) [][]string {
	var parts [][]string
	var part []string
	for _, a := range args {
		if a == "--" {
			parts, part = append(parts, part), nil
			continue
		}
		part = append(part, a)
	}
	return append(parts, part)
}

func (c *counts) run(args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := map[string][]string{} // by package and test, until it passes
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		c.take(e, said)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return cmd.Wait()
}

func (c *counts) take(e event, said map[string][]string) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "guest ") || strings.HasPrefix(strings.TrimSpace(e.Output), "progress: ") {
			fmt.Print(e.Output) // long work says that it goes on
		}
		said[key] = append(said[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			if e.Action == "skip" {
				return // a package without tests
			}
			fmt.Printf("%-5s %s %.1f s\n", e.Action, e.Package, e.Elapsed)
			if e.Action == "fail" {
				fmt.Print(strings.Join(said[key], ""))
			}
			return
		}
		switch e.Action {
		case "pass":
			c.passed++
		case "fail":
			c.failed++
			fmt.Print(strings.Join(said[key], ""))
		case "skip":
			c.skipped++
			fmt.Print(strings.Join(said[key], ""))
		}
		delete(said, key)
	}
}
