// Package script_test holds the program from outside: arguments and files in,
// standard output, standard error, exit code and files out. Each file of testdata is
// a script in the language of testscript
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript), with the files
// that it begins with. Scripts that write below a root need to run as root, since
// what they write belongs to it.
//
// Beside testscript's own there are these commands:
//
//	exits CODE PROGRAM ARG...     run a program that ends with that exit code
//	serve NAME [FLAG...] DIR      run pilotlight serve until the script ends; its address is
//	                              then $NAME, and its log the file NAME.log
//	is MODE UID:GID FILE...       compare type, mode and owner, as in is -rw-r--r-- 0:0 FILE
//	leads FILE TARGET             compare where a symbolic link leads
//	tree DIR FILE                 write what lies below DIR to FILE: type, mode, owner, content
//	cpio FILE                     print what is in an archive, a line each
package script_test

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/u-root/u-root/pkg/cpio"
)

// repository is where go.mod lies.
const repository = "../.."

func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "pilotlight"), "./cmd/pilotlight")
	build.Dir = repository
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, face := range []string{"ignition", "ignition-apply", "ignition-validate", "ignition-rmcfg"} {
		if err := os.Symlink("pilotlight", filepath.Join(bin, face)); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "serve": serve, "is": is, "leads": leads, "tree": tree, "cpio": list,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func usage(ts *testscript.TestScript, neg bool, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "serve NAME [FLAG...] DIR")
	cmd := exec.Command(ts.Getenv("PATH")[:strings.Index(ts.Getenv("PATH"), ":")]+"/pilotlight",
		append([]string{"serve", "--listen", "127.0.0.1:0"}, args[1:]...)...)
	cmd.Dir = ts.Getenv("WORK")
	log, err := os.Create(ts.MkAbs(args[0] + ".log"))
	ts.Check(err)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		ts.Check(cmd.Process.Signal(os.Interrupt))
		ts.Check(cmd.Wait())
		ts.Check(log.Close())
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		ts.Fatalf("pilotlight serve said %q", line)
	}
	ts.Setenv(args[0], address)
}

// look describes a file as is and tree show it.
func look(name string) (string, fs.FileInfo, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return "", nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid), info, nil
}

func is(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 3, "is MODE UID:GID FILE...")
	for _, name := range args[2:] {
		got, _, err := look(ts.MkAbs(name))
		ts.Check(err)
		if want := args[0] + " " + args[1]; got != want {
			ts.Fatalf("%s is %s, want %s", name, got, want)
		}
	}
}

func leads(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "leads FILE TARGET")
	got, err := os.Readlink(ts.MkAbs(args[0]))
	ts.Check(err)
	if got != args[1] {
		ts.Fatalf("%s leads to %s, want %s", args[0], got, args[1])
	}
}

func tree(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "tree DIR FILE")
	root := ts.MkAbs(args[0])
	var b strings.Builder
	ts.Check(filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		text, info, err := look(name)
		if err != nil {
			return err
		}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + target
		}
		fmt.Fprintf(&b, "%s: %s\n", strings.TrimPrefix(name, root), text)
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
}

func list(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "cpio FILE")
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	records := cpio.Newc.Reader(f)
	for {
		r, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return
		}
		ts.Check(err)
		text := fmt.Sprintf("%o %d:%d %s", r.Mode, r.UID, r.GID, r.Name)
		if r.Mode&cpio.S_IFMT == cpio.S_IFLNK {
			target, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
			ts.Check(err)
			text += " -> " + string(target)
		}
		_, err = fmt.Fprintln(ts.Stdout(), text)
		ts.Check(err)
	}
}
