package main

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pilotlight/initrd"
)

func statusVerb() verb {
	return verb{
		name: "status", usage: "[--json | --svg FILE]", short: "say what provisioning did in this boot",
		long: `In the running system and in the shell of an initrd. A failure comes first, with what
to do about it. Exit 1 when the boot's provisioning failed or is not complete, or there
was none. --json is /run/pilotlight/report.json as it is. --svg draws when what ran, step
by step, beside the rest of the boot as systemd tells it; the picture needs nothing but
itself.

example: pilotlight status
example: pilotlight status --svg boot.svg`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			asJSON := f.Bool("json", false, "print JSON")
			svg := f.String("svg", "", "draw the boot's timeline into a `file`, - for standard output")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				if *asJSON && *svg != "" {
					return misused("--json and --svg exclude each other")
				}
				m, err := initrd.NewMachine(runDir, nil)
				if err != nil {
					return err
				}
				r, err := m.Report()
				if err != nil {
					return err
				}
				switch {
				case *svg != "":
					err = c.writeTo(*svg, 0o644, bytesTo(timeline(r, whole(c, m, r))))
				case *asJSON:
					err = c.show.json(r)
				default:
					c.show.status(r)
				}
				if err == nil && r.State != "complete" {
					return errShown
				}
				return err
			}
		},
	}
}

// whole is the timeline of the whole boot, as far as it is known: what PID 1 says now,
// and the units of the initrd that it has forgotten since. Nil where nothing is known,
// which the picture says.
func whole(c *call, m *initrd.Machine, r initrd.Report) *initrd.Timeline {
	t, err := m.Timeline(c.ctx)
	if err != nil {
		return r.Initrd // without systemd, or where it does not answer
	}
	if r.Initrd != nil {
		t.Units = append(t.Units, slices.DeleteFunc(slices.Clone(r.Initrd.Units), func(u initrd.TimedUnit) bool {
			return slices.ContainsFunc(t.Units, func(known initrd.TimedUnit) bool { return known.Name == u.Name && known.At == u.At })
		})...)
	}
	return &t
}

// status prints a report for somebody in front of a console who has no time: how it
// stands, what is wrong, what was made, where the time went.
func (s show) status(r initrd.Report) {
	if len(r.Stages) == 0 && r.Failure == nil {
		s.line("nothing was provisioned in this boot")
		return
	}
	paint := s.paint()
	colour := makes.colour()
	if r.State != "complete" {
		colour = fails.colour()
	}
	s.line("%s", paint(colour, headline(r)))
	if r.Failure != nil {
		for _, line := range r.Failure.Lines() {
			s.line("%s", paint(fails.colour(), line))
		}
	}
	for _, f := range facts(r) {
		s.line("%-9s %s", f.name, f.text)
	}
	if len(r.Stages) > 0 {
		s.line("")
	}
	for _, stage := range r.Stages {
		changed := 0
		for _, step := range stage.Steps {
			if step.Changed {
				changed++
			}
		}
		s.line("%-9s %7.2f s  from %6.2f s  %d of %d steps changed something", stage.Name, stage.Took, stage.At, changed, len(stage.Steps))
	}
	for _, w := range r.Warnings {
		s.line("%s", paint(cannot.colour(), "warning   "+w))
	}
	for _, stage := range r.Stages {
		for _, step := range stage.Steps {
			if step.State == initrd.Moot.String() {
				s.line("%s", paint(cannot.colour(), "warning   "+step.Why+"; so not: "+step.Wish))
			}
		}
	}
}

// facts are what a boot was told and what it made, a line each. The name of a line is
// "" where it is that of the line before.
func facts(r initrd.Report) []described {
	var list []described
	last := ""
	add := func(name, format string, args ...any) {
		d := described{name, fmt.Sprintf(format, args...)}
		if name == last {
			d.name = ""
		}
		last = name
		list = append(list, d)
	}
	if r.Platform != "" {
		add("platform", "%s", r.Platform)
	}
	if r.Config != "" {
		add("config", "sha256 %s", r.Config)
	}
	for _, d := range r.Documents {
		add("config", "%-10s %.16s…  %s", d.Name, d.SHA256, d.Source)
	}
	if r.PCR != nil {
		banks := slices.Sorted(maps.Keys(r.PCR.Banks))
		if slices.Contains(banks, "sha256") {
			banks = []string{"sha256"} // the one that everybody seals to; --json has all
		}
		for _, bank := range banks {
			add("measured", "PCR %d, %s %s", r.PCR.Index, bank, r.PCR.Banks[bank])
		}
	}
	if r.Record != "" {
		add("record", "%s", r.Record)
	}
	if r.Provision != "" {
		add("record", "provision %s", r.Provision)
	}
	var files, units, directories, links int
	for _, stage := range r.Stages {
		for _, step := range stage.Steps {
			if step.Error != "" {
				for _, what := range step.Lost {
					add("DESTROYED", "perhaps, since the step failed: %s", what)
				}
			}
			if !step.Changed && step.State != initrd.So.String() {
				continue
			}
			switch noun := nounOf(step.Wish); noun {
			case "disk":
				if step.Changed {
					add(noun, "%s", step.Deed)
				}
			case "verity", "luks", "mount":
				add(noun, "%s", step.Wish)
			case "file":
				files++
				if strings.Contains(step.Wish, " /etc/systemd/system/") {
					units++
				}
			case "directory":
				directories++
			case "link":
				links++
			}
			for _, what := range step.Lost {
				add("DESTROYED", "%s", what)
			}
		}
	}
	if files+directories+links > 0 {
		add("etc", "%d files (%d of units), %d directories, %d links", files, units, directories, links)
	}
	return list
}

// nounOf is what a wish is about, by how it is said; "" for what a status does not tell.
func nounOf(wish string) string {
	for _, n := range []struct{ noun, begins, holds string }{
		{"file", "file ", ""},
		{"directory", "directory ", ""},
		{"link", "link ", ""},
		{"link", "hard link ", ""},
		{"disk", "partitions ", ""},
		{"disk", "partition table ", ""},
		{"verity", "/dev/mapper/", " open with root hash "},
		{"luks", "/dev/mapper/", " unlocked, on "},
		{"mount", "", " mounted at "},
	} {
		if strings.HasPrefix(wish, n.begins) && strings.Contains(wish, n.holds) {
			return n.noun
		}
	}
	return ""
}

// headline is how a boot stands, which one it is, and how long it took.
func headline(r initrd.Report) string {
	text := r.State
	if r.Failure != nil {
		text += " in " + r.Failure.Stage
	}
	if r.Boot != "" {
		text += ", " + r.Boot + " boot"
	}
	total, end := 0.0, 0.0
	for _, s := range r.Stages {
		total += max(s.Took, 0)
		end = max(end, s.At+max(s.Took, 0))
	}
	if len(r.Stages) > 0 {
		text += fmt.Sprintf(", %s in pilotlight, until %.1f s after the kernel started", short(span(total)), end)
	}
	return text
}
