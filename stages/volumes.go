package stages

import "pilotlight/initrd"

// volumes are Ignition's storage.luks.
func volumes(in Input) ([]initrd.Step, error) { return nil, nil }
