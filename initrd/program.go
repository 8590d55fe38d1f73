package initrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Program is one run of a program: the whole of what it is given.
type Program struct {
	Argv  []string
	Env   []string // beside PATH; nothing else is passed on
	Stdin []byte
	OK    []int // exit codes that are a success beside 0
	Quiet bool  // what it says may quote the contents of files, which are secret
	// Chroot, where not "", is the root directory that it sees; the program is then a path in it.
	Chroot string
}

// A ProgramError says how a program failed. Stderr is bounded.
type ProgramError struct {
	Name   string
	Code   int // -1 when it did not exit by itself
	Stderr string
	Err    error // where it could not be started
}

func (e *ProgramError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	text := fmt.Sprintf("%s: exit %d", e.Name, e.Code)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *ProgramError) Unwrap() error { return e.Err }

// find looks a program up in the machine's directories.
func (m *Machine) find(name string) (string, error) {
	if other := m.Instead[name]; filepath.IsAbs(other) {
		info, err := os.Stat(other)
		if err == nil && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0) {
			err = &fs.PathError{Op: "exec", Path: other, Err: fs.ErrPermission}
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", exec.ErrNotFound, err)
		}
		return other, err
	} else if other != "" {
		name = other
	}
	for _, dir := range m.Programs {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%w: %s is in none of %s", exec.ErrNotFound, name, strings.Join(m.Programs, ", "))
}

// run runs a program to its end and gives its standard output and what it said
// on standard error.
func (m *Machine) run(ctx context.Context, p Program) (stdout []byte, stderr string, err error) {
	name := p.Argv[0]
	file := name
	if p.Chroot == "" {
		if file, err = m.find(name); err != nil {
			return nil, "", &ProgramError{Name: name, Err: err}
		}
	}
	var out, bad bounded
	out.limit, bad.limit = 64<<20, 64<<10
	cmd := exec.CommandContext(ctx, file, p.Argv[1:]...)
	cmd.Args[0] = name
	cmd.Env = append([]string{"PATH=" + strings.Join(m.Programs, ":"), "LC_ALL=C"}, p.Env...)
	if p.Chroot != "" {
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: p.Chroot}, "/"
	}
	cmd.Stdin = bytes.NewReader(p.Stdin)
	cmd.Stdout, cmd.Stderr = &out, &bad
	cmd.WaitDelay = 5 * time.Second
	// Asked to end before it is killed: mkfs and repart then clean up.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }

	done := make(chan struct{})
	go m.heartbeat(name, done)
	err = cmd.Run()
	close(done)

	text := tidy(bad.String())
	if p.Quiet {
		text = unquoted(text)
	}
	var exit *exec.ExitError
	switch {
	case err == nil && out.over:
		return nil, text, &ProgramError{Name: name, Err: fmt.Errorf("printed more than %d bytes", out.limit)}
	case err == nil:
		return out.Bytes(), text, nil
	case ctx.Err() != nil:
		return nil, text, &ProgramError{Name: name, Err: context.Cause(ctx)}
	case errors.As(err, &exit) && slices.Contains(p.OK, exit.ExitCode()):
		return out.Bytes(), text, nil
	case errors.As(err, &exit):
		return nil, text, &ProgramError{Name: name, Code: exit.ExitCode(), Stderr: text}
	}
	return nil, text, &ProgramError{Name: name, Err: err}
}

// heartbeat says every ten seconds that a program still runs.
func (m *Machine) heartbeat(name string, done <-chan struct{}) {
	begin := time.Now()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			m.say("%s runs since %d s", name, int(time.Since(begin).Seconds()))
		}
	}
}

// tidy makes what a program said fit for one line of an error.
func tidy(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if n := len(lines); n > 4 {
		lines = lines[n-4:]
	}
	return strings.Join(lines, "; ")
}

// unquoted takes the words between quotation marks out of what a program said.
func unquoted(text string) string {
	var b strings.Builder
	var open rune
	for _, r := range text {
		switch {
		case open == 0 && (r == '\'' || r == '"'):
			open = r
			b.WriteRune(r)
			b.WriteRune('…')
		case r == open:
			open = 0
			b.WriteRune(r)
		case open == 0:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// bounded keeps the first limit bytes and notes whether there were more.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room < len(p) {
		b.over = true
		b.Buffer.Write(p[:max(room, 0)])
	} else {
		b.Buffer.Write(p)
	}
	return len(p), nil
}

// secretFile hands text to a program that takes a path: a file that only root can
// read, in memory, for as long as the program runs.
func (m *Machine) secretFile(prefix, text string) (name string, remove func() error, err error) {
	f, err := os.CreateTemp(m.Run, prefix)
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.Remove(f.Name()) }
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return f.Name(), remove, nil
}
