package main

import (
	"errors"
	"flag"
	"strings"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/providers"
)

func detectVerb() verb {
	return verb{
		name: "detect", usage: "[--json] [--media]", short: "say which platform this machine is on",
		long: `By what the firmware says, and with --media by the labels of drives: no address is
asked. The name is on standard output; why, and what was looked at, beside it on
standard error, or all of it in the JSON. Exit 1 where no single platform is known.

example: pilotlight detect
example: pilotlight detect --json --media`,
		prepare: func(f *flag.FlagSet) func(*call) error {
			asJSON := f.Bool("json", false, "print JSON")
			media := f.Bool("media", false, "look at the labels of drives too, as pilotlight.media=yes allows a boot to")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				d, err := providers.Detect(c.ctx, newOutward(&initrd.Network{}, config.Knobs{}, c.show.tell), *media)
				return detected(c.show, d, err, *asJSON)
			}
		},
	}
}

// detected shows what was found, and err if nothing was.
func detected(s show, d providers.Detection, err error, asJSON bool) error {
	if asJSON && len(d.Seen) > 0 {
		if err := s.json(detectionJSON(d, err)); err != nil {
			return err
		}
		if err != nil {
			return errShown
		}
		return nil
	}
	if err != nil && !errors.As(err, new(*providers.DetectError)) {
		return err
	}
	if err == nil {
		s.line("%s", d.Platform.Name)
		s.note("because   %s", d.Why)
	}
	for _, seen := range d.Seen {
		s.note("looked at %s", seen)
	}
	for _, drive := range d.Drives {
		s.note("drive     %s", drive)
	}
	if len(d.Fits) > 0 {
		s.note("fits      %s", strings.Join(d.Fits, ", "))
	}
	return err
}

// detectionJSON is d for a program: lists are never null, the platform is where there
// is no single one.
func detectionJSON(d providers.Detection, err error) any {
	type answer struct {
		Platform *string           `json:"platform"`
		Docs     string            `json:"docs,omitempty"`
		Why      string            `json:"why,omitempty"`
		Error    string            `json:"error,omitempty"`
		Seen     []providers.Sight `json:"seen"`
		Fits     []string          `json:"fits"`
		Drives   []providers.Drive `json:"drives,omitempty"`
	}
	a := answer{Seen: d.Seen, Fits: append([]string{}, d.Fits...), Drives: d.Drives}
	if err != nil {
		a.Error = err.Error()
		return a
	}
	a.Platform, a.Docs, a.Why = &d.Platform.Name, d.Platform.Docs, d.Why
	return a
}
