package trace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// readOnly makes every mount read-only, in mounts of its own, but for one directory, which becomes a mount. Its arguments: that
// directory, then a program with its arguments. The mounts below others come first: what hides nothing can still be changed.
const readOnly = `own=$1; shift
mount --make-rprivate /
mount --bind "$own" "$own"
tac /proc/self/mountinfo | while read -r _ _ _ _ at _; do
	at=$(printf %b "$at")
	[ "$at" = "$own" ] || mount -o remount,bind,ro "$at"
done
exec "$@"`

// A Run is a program that is traced.
type Run struct {
	Own     string // the one directory that it can write to: its TMPDIR; absolute, without links
	Servers []string
	Begin   string // where the log begins: the end of the path of the program, "" for from the start
	// Writable leaves the mounts as they are, for a program that makes mounts of its own.
	Writable bool
}

// Do runs a program to its end and gives what it said and did. That the program failed is the error, beside the log. It needs root.
func (r Run) Do(ctx context.Context, argv ...string) (stdout string, l Log, err error) {
	file := filepath.Join(r.Own, "strace.log")
	args := []string{"-f", "-y", "-qq", "-s", "256", "-o", file, "-e", "signal=none", "-e", "trace=" + traced, "--"}
	args = append(args, argv...)
	cmd := exec.CommandContext(ctx, "strace", args...)
	if !r.Writable {
		cmd = exec.CommandContext(ctx, "unshare", append([]string{"--mount", "sh", "-ec", readOnly, "sh", r.Own, "strace"}, args...)...)
	}
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.Env = append(os.Environ(), "TMPDIR="+r.Own)
	failed := cmd.Run()
	if failed != nil {
		failed = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), failed, said.String())
	}
	in, err := os.Open(file)
	if err != nil {
		return out.String(), Log{}, fmt.Errorf("%w (%v)", err, failed)
	}
	defer in.Close()
	l, err = Read(in, r.Begin)
	l.Own, l.Servers = r.Own, r.Servers
	if err != nil {
		return out.String(), l, fmt.Errorf("%w (%v)", err, failed)
	}
	return out.String(), l, failed
}
