package stages

import (
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"pilotlight/initrd"
)

// Mounted wishes what [Root] mounts, in a root that somebody else has mounted and made
// such that it can be written.
func Mounted(in Input) ([]initrd.Step, error) {
	steps, err := Root(in)
	return slices.DeleteFunc(steps, func(s initrd.Step) bool {
		_, ok := s.(initrd.Writable)
		return ok
	}), err
}

// mountable says whether a file system is one that is mounted while the config is
// carried out: it has a place, and a format that can be.
func mountable(f types.Filesystem) bool {
	if f.Path == nil || *f.Path == "" || f.Format == nil {
		return false
	}
	return !slices.Contains([]string{"", "none", "swap"}, *f.Format)
}
