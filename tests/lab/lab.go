// Package lab builds the things that a guest boots, and runs guests.
//
// It is the laboratory that the whole-path demonstration and the virtual machine tests share. Nothing in it knows what the engine
// does: it hands over hardware, firmware, disks and channels, and brings back what was seen.
//
//	Prepare ── Debian packages on this machine
//	Cache.Tree ── a Debian tree (mmdebstrap)                           about 40 s, then cached
//	    └── Cache.Usr ── its /usr as erofs, with witness and factory   about 3 s, then cached
//	            └── Cache.Image ── ESP + usr + usr-verity (repart)     about 2 s, cached by UKI
//	                    └── Guest ── overlay, TPM state, UEFI variables: what outlives a boot
//	                            └── Guest.Boot ── one power-on to one power-off → Outcome, Facts
//
// A disk made by Cache.Image, with room behind the partitions for what a first boot makes:
//
//	1 MiB          esp          vfat, /EFI/BOOT/BOOTX64.EFI is the UKI
//	               usr          erofs, Label=usr, UUID = first half of the root hash
//	               usr-verity   hash tree, UUID = second half of the root hash
//	               (free)
//
// In stage 2 of such a guest, lab-witness.service gathers [Facts], writes them as one line of JSON on the second serial port and
// powers off. [Compare] sets what it saw beside what was wanted.
//
// Everything that is slow lies under the repository's ignored folder .cache/lab, keyed by a hash of its recipe, built beside its
// place and renamed into it, under a lock. Removing the folder is always safe while nothing runs.
//
// The lab needs root (a chroot, device nodes, file owners): [Elevate] goes through sudo. QEMU emulates (TCG) unless a kernel has been seen
// to boot under KVM on this machine; the environment variable PILOTLIGHT_ACCEL=kvm or tcg overrules.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Log prints short lines, each with the seconds since the log was made. A nil Log is silent. It may be used from several goroutines.
type Log struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

// NewLog starts a log on w.
func NewLog(w io.Writer) *Log { return &Log{w: w, start: time.Now()} }

// Printf prints one line. A line break at the end is not needed.
func (l *Log) Printf(format string, args ...any) {
	if l == nil {
		return
	}
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%6.1fs  %s\n", time.Since(l.start).Seconds(), text)
}

// ProgramError says that an external program did not do what it was started for.
type ProgramError struct {
	Program string // what was run, without its arguments
	Err     error  // as os/exec has it
	Stderr  string // the last lines of its standard error
}

func (e *ProgramError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Program, e.Err, e.Stderr)
}

func (e *ProgramError) Unwrap() error { return e.Err }

// tailLimit is how much of a program's standard error is kept for the error.
const tailLimit = 2000

// output runs cmd and gives its standard output. The error is a *ProgramError that calls the program name.
func output(cmd *exec.Cmd, name string) ([]byte, error) {
	var out bytes.Buffer
	tail := &tail{limit: tailLimit}
	cmd.Stdout, cmd.Stderr = &out, tail
	// A grandchild that keeps the pipe open must not keep us waiting once the program itself has ended.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return nil, &ProgramError{Program: name, Err: err, Stderr: tail.String()}
	}
	return out.Bytes(), nil
}

// run is output for those who want no output.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(exec.CommandContext(ctx, name, args...), name)
	return err
}

// tail keeps the last bytes that were written to it.
type tail struct {
	limit int
	buf   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.limit; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.buf)) }

// ErrNoRepository is what FindRepository gives outside of a checkout.
var ErrNoRepository = errors.New("not inside a checkout of pilotlight: no go.mod with its name in this folder or above")

// FindRepository gives the top folder of the checkout that the working directory lies in.
func FindRepository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module pilotlight\n")) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", ErrNoRepository
		}
		dir = parent
	}
}

// GoBuild builds the main package pkg (a path within the repository, such as ./cmd/pilotlight) as a small static program for the
// guests' architecture, linux/amd64, and writes it to out. The same sources give the same bytes wherever the checkout lies.
func GoBuild(ctx context.Context, repository, pkg, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	// The date of the commit, as the toolchain would note it: the date before which no certificate can have been checked.
	date, err := output(exec.CommandContext(ctx, "git", "-C", repository, "log", "-1", "--format=%ct"), "git log")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=nethttpomithttp2", "-buildvcs=false", "-ldflags=-s -w -funcalign=16 -buildid= -X main.sourceDate="+strings.TrimSpace(string(date)), "-o", out, pkg)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if os.Getenv("SUDO_UID") != "" {
		// Root's files in the build cache of the one who called sudo would break that one's next build.
		cmd.Env = append(cmd.Env, "GOCACHE="+filepath.Join(repository, ".cache", "go-build"))
	}
	_, err = output(cmd, "go build "+pkg)
	return err
}
