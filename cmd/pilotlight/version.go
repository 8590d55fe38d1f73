package main

import (
	"flag"
	"runtime"
	"runtime/debug"
)

// release is set by the Makefile from git.
var release string

// version is the release, or what the Go toolchain knows of the build.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func versionVerb() verb {
	return verb{
		name: "version", usage: "[--json]", short: "say which version this is",
		long: "example: pilotlight version --json",
		prepare: func(f *flag.FlagSet) func(*call) error {
			asJSON := f.Bool("json", false, "print JSON")
			return func(c *call) error {
				if err := c.none(); err != nil {
					return err
				}
				if *asJSON {
					return c.show.json(map[string]string{
						"version": version(), "go": runtime.Version(), "arch": runtime.GOARCH,
						"ignition": "3.5.0", "section": "1",
					})
				}
				c.show.line("pilotlight %s (Ignition spec 3.0.0 to 3.5.0, %s, %s)", version(), runtime.Version(), runtime.GOARCH)
				return nil
			}
		},
	}
}
