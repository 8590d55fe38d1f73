package main

import (
	"flag"

	"pilotlight/initrd"
)

func statusVerb() verb {
	return verb{
		name: "status", usage: "[--json | --svg FILE]", short: "say what provisioning did in this boot",
		long: `It reads /run/pilotlight/report.json. Exit 1 when the boot's provisioning failed, or
there was none. --svg draws when each stage ran and how long its steps took, as a picture
that needs nothing but itself.

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
					err = c.writeTo(*svg, 0o644, bytesTo(timeline(r)))
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
