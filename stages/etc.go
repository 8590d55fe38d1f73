package stages

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"pilotlight/config"
	"pilotlight/initrd"
)

// Etc wishes the configuration of the host.
//
//	passwd        the config's groups and users
//	entries       directories, files and links, parents first, hard links last
//	drop-ins      our tmpfiles.d and sysusers.d files
//	units         unit files, their drop-ins, masks, the preset file; what is not enabled
//	fstab         what the initrd mounted in the new root, beside the root and /usr
//	credentials
//
// So it is for an image that has an /etc, which a config without our section is for: it
// is Ignition's order. Where /etc is generated, it is this one:
//
//	entries       save those that must find the users made; drop-ins, units, fstab and
//	credentials   as above
//	sysusers      the users of the target's sysusers.d: the config's own may be in their
//	passwd        groups, and must not get their numbers
//	              entries that belong to somebody by name, that lie where homes are, or
//	              below such a one; and hard links to them
//	tmpfiles
//	identity      presets and machine id, or the presets of the config's units
//
// On a later boot all of this is wished again where /etc does not outlive a boot,
// and nothing of it where it does.
func Etc(in Input) ([]initrd.Step, error) {
	root := in.Facts.Root
	generated := in.Config.Pilotlight.Version != ""
	passwd := accounts(in)
	var dirs []string
	if len(passwd) > 0 {
		dirs = homes(in.Config.Ignition.Passwd)
	}
	plain, after, err := entries(in.Config.Ignition.Storage, root, func(p string, o initrd.Owner) bool {
		return generated && (o.Named() || within(p, dirs))
	})
	if err != nil {
		return nil, err
	}
	var steps []initrd.Step
	if !generated {
		steps = append(steps, passwd...)
	}
	steps = append(steps, plain...)
	etc := in.Config.Pilotlight.Etc
	steps = append(steps, dropins(root, "/etc/sysusers.d", etc.Sysusers)...)
	steps = append(steps, dropins(root, "/etc/tmpfiles.d", etc.Tmpfiles)...)
	units, enabled := units(in.Config.Ignition.Systemd.Units, root)
	steps = append(steps, units...)
	mounted, err := lasting(in)
	if err != nil {
		return nil, err
	}
	if len(mounted) > 0 {
		steps = append(steps, initrd.Fstab{Root: root, Mounts: mounted})
	}
	keys, err := volumeFiles(in)
	if err != nil {
		return nil, err
	}
	steps = append(steps, keys...)
	for _, c := range etc.Credentials {
		steps = append(steps, initrd.Credential{Root: root, Name: c.Name, Contents: c.Contents, Encrypted: c.Encrypted, Scope: c.ScopeOrDefault()})
	}
	if generated {
		steps = append(steps, initrd.Sysusers{Root: root})
		steps = append(steps, passwd...)
		steps = append(steps, after...)
		id := in.Facts.MachineID
		if id == "" {
			id = machineID(in.Facts.Provision)
		}
		steps = append(steps, initrd.Tmpfiles{Root: root}, initrd.Identity{Root: root, ID: id})
		if len(enabled) > 0 {
			steps = append(steps, initrd.Preset{Root: root, Units: enabled})
		}
	}
	steps = append(steps, result(in)...)
	if steps, err = relabel(in, steps); err != nil {
		return nil, err
	}
	if in.Facts.Boot == Later {
		for i := range steps {
			// What is handed over in /run is gone with every boot.
			if _, ok := steps[i].(initrd.Credential); !ok {
				steps[i] = initrd.MadeAnew{Root: root, Step: steps[i]}
			}
		}
	}
	return steps, nil
}

// machineID derives the machine id from the provision id, so that an /etc which is
// made anew at each boot is still that of one machine (machine-id(5): a version 4
// UUID without dashes).
func machineID(provision string) string {
	sum := sha256.Sum256([]byte("pilotlight machine-id " + provision))
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id)
}

// entries turns Ignition's storage into steps, parents first and hard links last: those
// that can be made at once, and those for which, by path and owner, something else is
// made before. What is below one of the latter is one too: a directory that replaces
// what is there would take it along.
func entries(s types.Storage, root string, waits func(p string, o initrd.Owner) bool) (first, last []initrd.Step, err error) {
	type entry struct {
		path  string
		owner initrd.Owner
		step  initrd.Step
	}
	var all []entry
	var hard []initrd.Link
	for _, d := range s.Directories {
		o := owner(d.Node)
		all = append(all, entry{d.Path, o, initrd.Directory{Root: root, Path: d.Path, Overwrite: yes(d.Overwrite), Mode: mode(d.Mode), Owner: o}})
	}
	for _, f := range s.Files {
		step, err := file(f, root)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, entry{f.Path, step.Owner, step})
	}
	for _, l := range s.Links {
		step := initrd.Link{Root: root, Path: l.Path, Target: said(l.Target), Hard: yes(l.Hard), Overwrite: yes(l.Overwrite), Owner: owner(l.Node)}
		if step.Hard {
			hard = append(hard, step)
			continue
		}
		all = append(all, entry{l.Path, step.Owner, step})
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(depth(path.Clean(a.path)), depth(path.Clean(b.path))) })
	var later []string // the paths of last
	for _, e := range all {
		if p := path.Clean(e.path); waits(p, e.owner) || within(p, later) {
			later = append(later, p)
			last = append(last, e.step)
			continue
		}
		first = append(first, e.step)
	}
	for _, l := range hard {
		// Its target may lie deeper than itself, and may be another hard link.
		if p := path.Clean(l.Path); within(path.Clean(l.Target), later) || within(p, later) || waits(p, initrd.Owner{}) {
			later = append(later, p)
			last = append(last, l)
			continue
		}
		first = append(first, l)
	}
	return first, last, nil
}

func file(f types.File, root string) (initrd.File, error) {
	step := initrd.File{Root: root, Path: f.Path, Overwrite: yes(f.Overwrite), Mode: mode(f.Mode), Owner: owner(f.Node)}
	if f.Contents.Source != nil {
		r, err := config.Resource(f.Contents)
		if err != nil {
			return initrd.File{}, fmt.Errorf("file %s: %w", f.Path, err)
		}
		step.Contents = &r
	}
	for _, a := range f.Append {
		r, err := config.Resource(a)
		if err != nil {
			return initrd.File{}, fmt.Errorf("file %s: append: %w", f.Path, err)
		}
		step.Append = append(step.Append, r)
	}
	return step, nil
}

func yes(b *bool) bool { return b != nil && *b }

// owner is that of the config. The number is asked before the name; where there is
// neither, what is there keeps its own.
func owner(n types.Node) initrd.Owner {
	o := initrd.Owner{User: said(n.User.Name), Group: said(n.Group.Name)}
	if n.User.ID != nil {
		o.UID, o.User = *n.User.ID, ""
	}
	if n.Group.ID != nil {
		o.GID, o.Group = *n.Group.ID, ""
	}
	o.AnyUID = n.User.ID == nil && o.User == ""
	o.AnyGID = n.Group.ID == nil && o.Group == ""
	return o
}

// mode gives the permissions of the config. Setuid, setgid and sticky are left out:
// Ignition has them in no spec before 3.6, and the library warns of them.
func mode(m *int) *fs.FileMode {
	if m == nil {
		return nil
	}
	f := fs.FileMode(*m & 0o777)
	return &f
}

// dropins are files of ours: the config is their only owner.
func dropins(root, dir string, list []config.Dropin) []initrd.Step {
	mode := fs.FileMode(0o644)
	var steps []initrd.Step
	for _, d := range list {
		steps = append(steps, initrd.File{Root: root, Path: path.Join(dir, d.Name), Contents: &d.Contents, Overwrite: true, Mode: &mode})
	}
	return steps
}
