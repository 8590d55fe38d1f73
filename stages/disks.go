package stages

import "pilotlight/initrd"

// Disks wishes what Ignition's storage says of disks: partitions, RAID arrays upon
// them, encrypted volumes upon those, and file systems on any of them. What has nothing
// to do with each other is made side by side.
//
// On a later boot nothing of it is made; encrypted volumes are unlocked again.
func Disks(in Input) ([]initrd.Step, error) {
	parts := []func(Input) ([]initrd.Step, error){partitions, arrays, volumes, filesystems}
	var steps []initrd.Step
	for _, part := range parts {
		list, err := part(in)
		if err != nil {
			return nil, err
		}
		steps = append(steps, list...)
	}
	return steps, nil
}
