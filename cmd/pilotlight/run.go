// Command pilotlight provisions a machine from its initrd.
//
// A file here is a verb. A verb reads its arguments, puts the other rooms
// together, and shows what came out; show.go is the only printing there is.
// Exit codes: 0 done, 1 failed, 2 misuse.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"pilotlight/initrd"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitMisuse = 2
)

// A verb is one thing that the program does.
type verb struct {
	name    string // one word or two
	usage   string // of the arguments
	short   string // what it does, in one line
	long    string // what else is worth knowing, and an example
	hidden  bool   // run by units, not by people
	prepare func(*flag.FlagSet) func(*call) error
}

// A call is one run of a verb.
type call struct {
	ctx  context.Context
	args []string
	in   io.Reader
	show show
}

// verbs are in the order in which help shows them.
func verbs() []verb {
	return []verb{
		validateVerb(), planVerb(), applyVerb(), fetchVerb(), predictVerb(), wrapVerb(),
		detectVerb(), statusVerb(), serveVerb(), addonVerb(), buildVerb(), ukiVerb(),
		completionVerb(), manVerb(), versionVerb(), bootVerb(),
	}
}

// misuse is a fault of how the program was called.
type misuse struct{ text string }

func (m misuse) Error() string { return m.text }

func misused(format string, args ...any) error { return misuse{fmt.Sprintf(format, args...)} }

// errShown is a failure that the verb has already told in full.
var errShown = errors.New("already told")

// run is the program from outside.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), initrd.Endings()...)
	defer stop()
	s := show{out: out, err: errOut}
	if filepath.Base(args[0]) == "pilotlight-generator" {
		return s.end("pilotlight-generator", generator(args[1:]))
	}
	if do := faces(filepath.Base(args[0])); do != nil {
		return do(ctx, args[1:], in, s)
	}
	if len(args) < 2 || args[1] == "help" || args[1] == "--help" || args[1] == "-h" {
		s.overview(verbs())
		if len(args) < 2 {
			return exitMisuse
		}
		return exitDone
	}
	name := args[1]
	if name == "--version" {
		name = "version"
	}
	for _, v := range verbs() {
		// A verb is one word or two.
		words := strings.Fields(v.name)
		if given := append([]string{name}, args[2:]...); len(given) >= len(words) && slices.Equal(given[:len(words)], words) {
			return v.call(&call{ctx: ctx, args: given[len(words):], in: in, show: s})
		}
	}
	return s.end("pilotlight", misused("there is no verb %q%s; see pilotlight --help", name, meant(name)))
}

func (v verb) call(c *call) int {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	do := v.prepare(flags)
	switch err := flags.Parse(c.args); {
	case errors.Is(err, flag.ErrHelp):
		c.show.help(v, flags)
		return exitDone
	case err != nil:
		return c.show.end("pilotlight "+v.name, misused("%v; see pilotlight %s --help", err, v.name))
	}
	c.args = flags.Args()
	return c.show.end("pilotlight "+v.name, do(c))
}

// meant suggests a verb for one that was mistyped.
func meant(name string) string {
	for _, v := range verbs() {
		if !v.hidden && len(name) > 2 && (strings.HasPrefix(v.name, name[:3]) || strings.HasPrefix(name, v.name)) {
			return fmt.Sprintf(" (did you mean %q?)", v.name)
		}
	}
	return ""
}

// one takes the single argument that a verb wants.
func (c *call) one(what string) (string, error) {
	if len(c.args) != 1 {
		return "", misused("give one %s, not %d", what, len(c.args))
	}
	return c.args[0], nil
}

// none refuses arguments.
func (c *call) none() error {
	if len(c.args) > 0 {
		return misused("argument %q is one too many", c.args[0])
	}
	return nil
}

// isDirectory holds that something is one.
func isDirectory(name string) error {
	info, err := os.Stat(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory", name)
	}
	return err
}

// read reads a file, or standard input for "-".
func (c *call) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.in)
	}
	return os.ReadFile(name)
}

// writeTo writes to a file in one step, or to standard output for "-". What is there
// and is no regular file, such as /dev/null or a pipe, is written to and not replaced.
func (c *call) writeTo(name string, mode fs.FileMode, write func(io.Writer) error) error {
	if name == "-" {
		return write(c.show.out)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer f.Close()
	err = write(f)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Close())
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
