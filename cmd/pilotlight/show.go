package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"pilotlight/config"
	"pilotlight/initrd"
)

// show is the only printing there is.
type show struct{ out, err io.Writer }

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

// stage heads the lines of a stage.
func (s show) stage(name, doc string) { s.line("%s: %s", name, doc) }

// planned is one line of a plan.
func (s show) planned(o initrd.Outcome) {
	switch {
	case o.Err != nil:
		s.line("  ! %s: %v", o.Wish, o.Err)
	case o.State == initrd.So:
		s.line("  = %s", o.Wish)
	case o.State == initrd.After:
		s.line("  > %s (after an earlier step)", o.Wish)
	case o.State == initrd.Moot:
		s.line("  ~ %s (%v)", o.Wish, o.Why)
	default:
		s.line("  + %s", o.Wish)
		if o.Deed != "" && o.Deed != o.Wish {
			s.line("      %s", o.Deed)
		}
	}
}

// did is one line of what was done: those that changed nothing are silent, unless
// everything is asked for.
func (s show) did(stage string, o initrd.Outcome, all bool) {
	switch {
	case o.State == initrd.So && all:
		s.line("pilotlight: %s: so already: %s (%s)", stage, o.Wish, short(o.Took))
	case o.Changed:
		s.line("pilotlight: %s: %s (%s)", stage, o.Deed, short(o.Took))
	case o.State == initrd.Moot:
		s.line("pilotlight: %s: warning: %v; so not: %s", stage, o.Why, o.Wish)
	}
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

// status prints a report for people.
func (s show) status(r initrd.Report) {
	if len(r.Stages) == 0 && r.Failure == nil {
		s.line("nothing was provisioned in this boot")
		return
	}
	s.line("state     %s (%s boot)", r.State, r.Boot)
	s.line("platform  %s", r.Platform)
	s.line("config    sha256 %s", r.Config)
	for _, d := range r.Documents {
		s.line("          %-12s %s", d.Name, d.Source)
	}
	s.line("record    %s, provision %s", r.Record, r.Provision)
	for _, stage := range r.Stages {
		changed := 0
		for _, step := range stage.Steps {
			if step.Changed {
				changed++
			}
		}
		s.line("%-9s %6.2f s, %d of %d steps changed something", stage.Name, stage.Took, changed, len(stage.Steps))
	}
	for _, w := range r.Warnings {
		s.line("warning   %s", w)
	}
	if r.Failure != nil {
		for _, line := range r.Failure.Lines() {
			s.line("%s", line)
		}
	}
}
