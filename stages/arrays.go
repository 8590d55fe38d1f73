package stages

import "pilotlight/initrd"

// arrays are Ignition's storage.raid.
func arrays(in Input) ([]initrd.Step, error) { return nil, nil }
