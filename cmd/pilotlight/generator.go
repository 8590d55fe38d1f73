package main

import (
	"os"
	"path/filepath"
	"strings"

	"pilotlight/initrd/units"
)

// generator is what systemd runs before it loads units (systemd.generator(7)). It
// does nothing outside an initrd.
func generator(dirs []string) error {
	if len(dirs) != 3 {
		return misused("a generator is given three directories, not %d", len(dirs))
	}
	if os.Getenv("SYSTEMD_IN_INITRD") != "1" {
		return nil
	}
	// systemd's own generators can be told another command line, and so can this one.
	cmdline := os.Getenv("SYSTEMD_PROC_CMDLINE")
	if cmdline == "" {
		data, err := os.ReadFile("/proc/cmdline")
		if err != nil {
			return err
		}
		cmdline = string(data)
	}
	normal, early := units.Generated(units.ParseArgs(strings.Fields(cmdline)))
	for i, list := range [][]units.File{normal, early} {
		for _, f := range list {
			name := filepath.Join(dirs[i], f.Path)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, f.Data, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
