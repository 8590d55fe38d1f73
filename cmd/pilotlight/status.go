package main

import (
	"flag"

	"pilotlight/initrd"
)

func statusVerb() verb {
	return verb{
		name: "status", usage: "[--json]", short: "say what provisioning did in this boot",
		long: `It reads /run/pilotlight/report.json. Exit 1 when the boot's provisioning failed, or
there was none.

example: pilotlight status`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			asJSON := f.Bool("json", false, "print JSON")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				m, err := initrd.NewMachine(runDir, nil)
				if err != nil {
					return err
				}
				r, err := m.Report()
				if err != nil {
					return err
				}
				if *asJSON {
					err = c.show.json(r)
				} else {
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
