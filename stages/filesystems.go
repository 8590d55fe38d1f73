package stages

import (
	"fmt"
	"path"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/initrd"
)

// filesystems are Ignition's storage.filesystems; on the first boot alone. Where they are
// mounted is a matter of [Root].
func filesystems(in Input) ([]initrd.Step, error) {
	if in.Facts.Boot == Later {
		return nil, nil
	}
	var steps []initrd.Step
	for _, f := range in.Config.Ignition.Storage.Filesystems {
		if f.Format == nil {
			continue // only known by its device, to be merged with
		}
		step := filesystem(f, in.Facts.Provision)
		if step.Wipe && !in.mayLose() {
			return nil, &Error{"storage.filesystems", f.Device, fmt.Errorf("wipeFilesystem is true, and without a record every boot of this machine is a first boot: " +
				"say policy.disks: wipe if each boot shall wipe it")}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func filesystem(f types.Filesystem, provision string) initrd.Filesystem {
	step := initrd.Filesystem{
		Device: f.Device, Format: *f.Format, Wipe: yes(f.WipeFilesystem), Label: f.Label, UUID: f.UUID, Provision: provision,
	}
	for _, o := range f.Options {
		step.Options = append(step.Options, string(o))
	}
	return step
}

// mountedHere are the file systems of Ignition's part that a boot mounts, by mount point.
//
// On the first boot these are all that have a path, so that files can be written into them;
// as with Ignition, it is for units of the config to mount them in the host. With our section
// they are mounted at every boot, and the host is told of them. A root that nobody else names
// is mounted at every boot.
func mountedHere(in Input) (map[string]initrd.Mount, error) {
	ours := in.Config.Pilotlight.Version != ""
	wishes := map[string]initrd.Mount{}
	for _, f := range in.Config.Ignition.Storage.Filesystems {
		if !mountable(f) {
			continue
		}
		where := path.Clean(*f.Path)
		if in.Facts.Boot == Later && where != "/" && (!ours || byHost(in, f.Device)) {
			continue
		}
		if other, ok := wishes[where]; ok {
			return nil, &Error{"storage.filesystems", f.Device, fmt.Errorf("%s is mounted at %s too", other.What, where)}
		}
		m := initrd.Mount{What: initrd.Source{Path: f.Device, Named: true}, Type: *f.Format, Check: ours}
		for _, o := range f.MountOptions {
			m.Options = append(m.Options, string(o))
		}
		wishes[where] = m
	}
	return wishes, nil
}
