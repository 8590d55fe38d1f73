package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/stages"
)

// show is the only printing there is.
type show struct {
	out, err io.Writer
	all      bool                             // name of a plan also what is so already, and each deed
	brush    func(colour, text string) string // that paint gave for many lines; nil to ask anew
}

// line prints what a verb is asked for.
func (s show) line(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// note prints what a person may want to know beside it.
func (s show) note(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) }

// json prints a value for a program.
func (s show) json(v any) error {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	return enc.Encode(v)
}

// end turns the end of a verb into an exit code, and says what went wrong.
func (s show) end(who string, err error) int {
	var m misuse
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errShown):
		return exitFailed
	case errors.As(err, &m):
		s.note("%s: %v", who, err)
		return exitMisuse
	}
	s.note("%s: %v", who, err)
	return exitFailed
}

func (s show) overview(list []verb) {
	s.line("pilotlight provisions a machine from its initrd.\n\nusage: pilotlight VERB [FLAGS] [ARGUMENTS]\n")
	for _, v := range list {
		if !v.hidden {
			s.line("  %-13s %s", v.name, v.short)
		}
	}
	s.line("\npilotlight VERB --help says more, with an example.\nExit codes: 0 done, 1 failed, 2 misuse.")
}

func (s show) help(v verb, flags *flag.FlagSet) {
	s.line("usage: pilotlight %s %s\n\n%s\n", v.name, v.usage, v.short)
	any := false
	flags.VisitAll(func(f *flag.Flag) {
		any = true
		name := "--" + f.Name
		if value, text := flag.UnquoteUsage(f); value != "" {
			s.line("  %-24s %s", name+" "+strings.ToUpper(value), text)
		} else {
			s.line("  %-24s %s", name, text)
		}
	})
	if any {
		s.line("")
	}
	s.line("%s", strings.Trim(v.long, "\n"))
}

// stage heads the lines of a stage, the i-th that is shown.
func (s show) stage(i int, of stages.Stage) {
	if i > 0 {
		s.line("")
	}
	s.line("%s: %s", of.Name, of.Doc)
}

// planned shows a step of a plan, or what became of it. One that is so already is
// silent, unless all are asked for.
func (s show) planned(o initrd.Outcome) {
	m := markOf(o)
	o = legible(o)
	paint := s.paint()
	line := func(text string) { s.line("  %s", paint(m.colour(), string(m)+" "+text)) }
	switch m {
	case fails:
		line(fmt.Sprintf("%s: %v", o.Wish, o.Err))
	case asItIs:
		if s.all {
			line(o.Wish)
		}
	case later:
		text := " (after an earlier step)"
		if o.Why != nil && s.all {
			text = fmt.Sprintf(" (after an earlier step: %v)", o.Why)
		}
		line(o.Wish + text)
	case cannot:
		line(fmt.Sprintf("%s (%v)", o.Wish, o.Why))
	default:
		line(o.Wish)
	}
	if o.Deed != "" && o.Err == nil && (s.all || !spoken(o.Wish, o.Deed)) {
		s.line("      %s", o.Deed)
	}
	if o.Err == nil {
		for _, what := range lost(o) {
			verb := "DESTROYS "
			if o.Changed {
				verb = "DESTROYED "
			}
			s.line("    %s", paint(destroys.colour(), verb+what))
		}
	}
}

// same counts the steps of a stage that are so already.
func (s show) same(n, of int) {
	switch {
	case of == 0:
		s.line("  nothing is asked for")
	case n == 1 && of == 1:
		s.line("  %s", s.paint()(asItIs.colour(), "= it is so already"))
	case n > 0 && n == of:
		s.line("  %s", s.paint()(asItIs.colour(), fmt.Sprintf("= all %d are so already", n)))
	case n > 0:
		s.line("  %s", s.paint()(asItIs.colour(), fmt.Sprintf("= %d more so already", n)))
	}
}

// summary ends a plan, or what was done.
func (s show) summary(t tally, mode initrd.Mode) {
	s.line("\n%s", t.summary(mode))
	if text := t.warning(mode); text != "" {
		s.line("%s", s.paint()(destroys.colour(), text))
	}
}

// paint colours text where a person reads it: on a terminal, unless NO_COLOR says not
// to (https://no-color.org).
func (s show) paint() func(colour, text string) string {
	if s.brush != nil {
		return s.brush
	}
	f, ok := s.out.(*os.File)
	if ok {
		info, err := f.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	if !ok {
		return func(_, text string) string { return text }
	}
	return func(colour, text string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }
}

// did is one line of what was done: those that changed nothing are silent, unless
// everything is asked for.
func (s show) did(stage string, o initrd.Outcome, all bool) {
	o = legible(o)
	switch {
	case o.State == initrd.So && all:
		s.line("pilotlight: %s: so already: %s (%s)", stage, o.Wish, short(o.Took))
	case o.Changed:
		s.line("pilotlight: %s: %s (%s)", stage, o.Deed, short(o.Took))
		for _, what := range lost(o) {
			s.line("pilotlight: %s: DESTROYED %s", stage, what)
		}
	case o.State == initrd.Moot:
		s.line("pilotlight: %s: warning: %v; so not: %s", stage, o.Why, o.Wish)
	}
}

// legible is an outcome of which each text is one line and fit for a terminal.
func legible(o initrd.Outcome) initrd.Outcome {
	o.Wish, o.Deed = printable(o.Wish), printable(o.Deed)
	o.Lost = slices.Clone(o.Lost)
	for i := range o.Lost {
		o.Lost[i] = printable(o.Lost[i])
	}
	return o
}

func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// tell is the progress of something that takes long.
func (s show) tell(line string) { s.note("pilotlight: %s", line) }

// faults prints a report, one line a fault.
func (s show) faults(name string, r config.Report) {
	for _, f := range r {
		prefix := name
		if f.Document != "" && f.Document != config.UserDocument {
			prefix = f.Document
		}
		if f.Severity == config.Warning {
			s.line("%s:%s: warning", prefix, f)
		} else {
			s.line("%s:%s", prefix, f)
		}
	}
}

// bytesTo writes bytes that are at hand.
func bytesTo(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// warnings prints a report where the output is something else.
func (s show) warnings(name string, r config.Report) {
	show{out: s.err, err: s.err}.faults(name, r)
}
