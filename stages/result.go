package stages

import (
	"cmp"
	"slices"

	"pilotlight/config"
	"pilotlight/initrd"
)

// result wishes Ignition's result file, which a boot alone leaves. A config with our
// section is of a machine that has a record instead.
func result(in Input) []initrd.Step {
	if !in.Facts.Result || in.Config.Pilotlight.Version != "" {
		return nil
	}
	return []initrd.Step{initrd.Result{
		Root: in.Facts.Root, Path: cmp.Or(in.Facts.ResultFile, initrd.ResultFile), BootID: in.Facts.BootID,
		User: slices.ContainsFunc(in.Documents, func(d initrd.Document) bool { return d.Name == config.UserDocument }),
	}}
}
