package stages

import (
	"path"

	"pilotlight/initrd"
)

// Report wishes what ends a boot: nothing of the initrd's network is left for
// stage 2 to find, and the record says complete, with the kept copy beside it.
func Report(in Input) ([]initrd.Step, error) {
	var steps []initrd.Step
	for _, d := range in.Config.Pilotlight.Network {
		steps = append(steps, initrd.Gone{Root: "/", Path: path.Join(initrd.NetworkDir, d.Name)})
	}
	return append(steps, initrd.Recorded{
		State: initrd.Complete, Provision: in.Facts.Provision, Platform: in.Facts.Platform, Config: in.Facts.Digest,
		Form: string(in.Config.Pilotlight.Policy.KeepOrDefault()), Documents: in.Facts.Packed,
	}), nil
}
