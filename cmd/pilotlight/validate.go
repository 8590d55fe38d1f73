package main

import (
	"errors"
	"flag"
	"slices"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/stages"
)

func validateVerb() verb {
	return verb{
		name: "validate", usage: "[--strict] [--json] FILE", short: "say everything that is wrong with a config",
		long: `FILE is a config, or "-" for standard input. What it pulls in is not fetched.
One line a fault: file:line:column: path: what is wrong (hint). Warnings say so and
do not count; with --strict unknown and duplicate keys in Ignition's part do.

example: pilotlight validate web.ign`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			strict := f.Bool("strict", false, "unknown and duplicate keys in Ignition's part are faults")
			asJSON := f.Bool("json", false, "print JSON")
			return func(c *call) error {
				name, err := c.one("FILE")
				if err != nil {
					return err
				}
				raw, err := c.read(name)
				if err != nil {
					return err
				}
				parsed, report := config.Parse(raw, config.Options{Strict: *strict})
				if !report.Fatal() {
					report = append(report, unwanted(raw, parsed)...)
				}
				if *asJSON {
					if report == nil {
						report = config.Report{}
					}
					if err := c.show.json(map[string]any{"file": name, "valid": !report.Fatal(), "faults": report}); err != nil {
						return err
					}
				} else {
					c.show.faults(name, report)
				}
				if report.Fatal() {
					return errShown
				}
				return nil
			}
		},
	}
}

// unwanted are the faults that show only when the stages say what they want. A config
// that pulls in others, or partitions by files that are elsewhere, is not whole here:
// plan has it whole.
func unwanted(raw []byte, c config.Config) config.Report {
	pulls := c.Ignition.Ignition.Config
	if len(pulls.Merge) > 0 || pulls.Replace.Source != nil ||
		slices.ContainsFunc(wholes(&c), func(r *resource.Resource) bool { return r.Remote() }) {
		return nil
	}
	in := stages.Input{Config: c, Facts: stages.Facts{Boot: stages.First, Root: initrd.BootRoot, Placed: true}}
	var report config.Report
	told := map[string]bool{}
	for _, s := range stages.All {
		_, err := s.Want(in)
		var fault *stages.Error
		if err == nil || told[err.Error()] {
			continue
		}
		told[err.Error()] = true
		f := config.Fault{Severity: config.Error, Path: "$.pilotlight", Message: err.Error()}
		if errors.As(err, &fault) {
			f.Message = fault.Err.Error()
			list, key := fault.Entry()
			if at, ok := config.Find([]config.Document{{Bytes: raw}}, list, key, fault.Name); ok {
				f.Line, f.Column, f.Path = at.Line, at.Column, at.Path
			}
		}
		report = append(report, f)
	}
	return report
}

func wrapVerb() verb {
	return verb{
		name: "wrap", usage: "[--output FILE] FILE", short: "put the pilotlight section where other tools leave it alone",
		long: `matchbox and Butane parse and rewrite a config, and drop keys that they do not know.
The wrapped form means the same: the section travels in a child, as a data: URL under
ignition.config.merge.

example: pilotlight wrap web.ign > /var/lib/matchbox/ignition/web.ign`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			output := f.String("output", "-", "`file` to write, - for standard output")
			return func(c *call) error {
				name, err := c.one("FILE")
				if err != nil {
					return err
				}
				raw, err := c.read(name)
				if err != nil {
					return err
				}
				if _, report := config.Parse(raw, config.Options{}); report.Fatal() {
					c.show.faults(name, report)
					return errShown
				}
				wrapped, err := config.Wrap(raw)
				if err != nil {
					return err
				}
				return c.writeTo(*output, 0o644, bytesTo(wrapped))
			}
		},
	}
}
