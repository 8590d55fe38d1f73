// Command bench is `make bench`: claims of size and speed, each beside a floor that
// is measured in the same run, as a ratio. It is no test: it judges nothing.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pilotlight/tests/lab"
)

// rounds is how often each thing is timed; the median counts.
const rounds = 21

func main() {
	if err := bench(); err != nil {
		fmt.Fprintln(os.Stderr, "make bench:", err)
		os.Exit(1)
	}
}

func bench() error {
	repository, err := lab.FindRepository()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "pilotlight-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program, empty := filepath.Join(work, "pilotlight"), filepath.Join(work, "empty")
	source := filepath.Join(work, "empty.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return err
	}
	for _, b := range [][2]string{{program, "./cmd/pilotlight"}, {empty, source}} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", b[0], b[1])
		cmd.Dir = repository
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	fmt.Printf("%-34s %8.2f MB\n", "the program, stripped", float64(info.Size())/1e6)

	floor, err := median(func() *exec.Cmd { return exec.Command(empty) })
	if err != nil {
		return err
	}
	fmt.Printf("%-34s %8.2f ms\n", "floor: an empty static Go program", ms(floor))

	one := filepath.Join(work, "one.ign")
	if err := os.WriteFile(one, []byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/motd","overwrite":true,"contents":{"source":"data:,hello"}}]}}`), 0o600); err != nil {
		return err
	}
	many := filepath.Join(work, "many.ign")
	if err := os.WriteFile(many, []byte(config(1000)), 0o600); err != nil {
		return err
	}
	n := 0
	fresh := func(file string) func() *exec.Cmd {
		return func() *exec.Cmd {
			n++
			root := filepath.Join(work, fmt.Sprint("root", n))
			if err := os.Mkdir(root, 0o755); err != nil {
				fmt.Fprintln(os.Stderr, err) // the run then fails, and says so
			}
			return exec.Command(program, "apply", "--config", file, "--root", root)
		}
	}
	for _, c := range []struct {
		what string
		cmd  func() *exec.Cmd
	}{
		{"start (version)", func() *exec.Cmd { return exec.Command(program, "version") }},
		{"validate a config of one file", func() *exec.Cmd { return exec.Command(program, "validate", one) }},
		{"apply a config of one file", fresh(one)},
		{"apply a config of 1,000 files", fresh(many)},
	} {
		took, err := median(c.cmd)
		if err != nil {
			return err
		}
		fmt.Printf("%-34s %8.2f ms   %6.1f x the floor\n", c.what, ms(took), float64(took)/float64(floor))
	}
	return nil
}

// config has n files of a few hundred bytes.
func config(n int) string {
	var files []string
	for i := range n {
		files = append(files, fmt.Sprintf(`{"path":"/etc/many/%04d","contents":{"source":"data:,%s"}}`, i, strings.Repeat("x", 300)))
	}
	return `{"ignition":{"version":"3.4.0"},"storage":{"files":[` + strings.Join(files, ",") + `]}}`
}

func median(cmd func() *exec.Cmd) (time.Duration, error) {
	var all []time.Duration
	for range rounds {
		c := cmd()
		begin := time.Now()
		if out, err := c.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out)
		}
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
