package trace_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"pilotlight/tests/lab"
)

// TestMain runs as root, on a machine that has strace(1).
func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx := context.Background()
		elevated, code, err := lab.Elevate(ctx)
		if elevated {
			return code
		}
		if err == nil {
			err = lab.Prepare(ctx, lab.NewLog(os.Stdout))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "tests/trace:", err)
			return 1
		}
		return m.Run()
	}())
}
