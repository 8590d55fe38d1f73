package stages

import (
	"path"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/initrd"
)

// arrays are Ignition's storage.raid. On a later boot those are put together again that the
// initrd needs; the host does that for the others.
func arrays(in Input) ([]initrd.Step, error) {
	var steps []initrd.Step
	for _, r := range in.Config.Ignition.Storage.Raid {
		a := array(r, in)
		if in.Facts.Boot == Later {
			if a.There = true; !needed(in, arrayPaths(a)) {
				continue
			}
		}
		steps = append(steps, a)
	}
	return steps, nil
}

func array(r types.Raid, in Input) initrd.Array {
	a := initrd.Array{Name: r.Name, Provision: in.Facts.Provision}
	if r.Level != nil {
		a.Level = *r.Level
	}
	if r.Spares != nil {
		a.Spares = *r.Spares
	}
	for _, d := range r.Devices {
		a.Devices = append(a.Devices, string(d))
	}
	for _, o := range r.Options {
		a.Options = append(a.Options, string(o))
	}
	return a
}

// arrayPaths are the paths by which a config may name an array.
func arrayPaths(a initrd.Array) []string {
	return []string{a.Device(), "/dev/disk/by-id/md-name-any:" + a.Name}
}

// volumePaths are the paths by which a config may name an unlocked volume.
func volumePaths(name string) []string {
	return []string{"/dev/mapper/" + name, "/dev/disk/by-id/dm-name-" + name}
}

// needed says whether a later boot needs a device in the initrd: something on it is mounted
// here, or is below a volume that is unlocked here.
func needed(in Input, paths []string) bool {
	if mountedFrom(in, paths) != "" {
		return true
	}
	for _, l := range in.Config.Ignition.Storage.Luks {
		if l.Device == nil || !slices.Contains(paths, *l.Device) {
			continue
		}
		if v, err := volume(l, in); err != nil || opened(v, in) {
			return true
		}
	}
	return false
}

// mountedFrom is where a later boot mounts, in the initrd, a device by one of those paths; "" for
// nowhere.
func mountedFrom(in Input, paths []string) string {
	for _, f := range in.Config.Ignition.Storage.Filesystems {
		if mountable(f) && slices.Contains(paths, f.Device) && (path.Clean(*f.Path) == "/" || in.Config.Pilotlight.Version != "") {
			return path.Clean(*f.Path)
		}
	}
	return ""
}
