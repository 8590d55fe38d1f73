package stages

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_5/types"
	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// Etc wishes the configuration of the host.
//
//	entries       directories, files and links, parents first, hard links last
//	drop-ins      our tmpfiles.d and sysusers.d files
//	units         unit files, their drop-ins, masks, the preset file
//	fstab         what the initrd mounted in the new root, beside the root and /usr
//	credentials
//	sysusers      the users of the target's sysusers.d
//	              entries that belong to somebody by name: the name is known now;
//	              and hard links to them
//	tmpfiles
//	identity      presets and machine id, or the presets of the config's units
//
// Sysusers, tmpfiles and identity belong to an /etc that is generated. A config
// without our section is for an image that has one, and wants none of them.
//
// On a later boot all of this is wished again where /etc does not outlive a boot,
// and nothing of it where it does.
func Etc(in Input) ([]initrd.Step, error) {
	root := in.Facts.Root
	plain, named, err := entries(in.Config.Ignition.Storage, root)
	if err != nil {
		return nil, err
	}
	steps := plain
	etc := in.Config.Pilotlight.Etc
	steps = append(steps, dropins(root, "/etc/sysusers.d", etc.Sysusers)...)
	steps = append(steps, dropins(root, "/etc/tmpfiles.d", etc.Tmpfiles)...)
	units, preset, err := units(in.Config.Ignition.Systemd.Units, root)
	if err != nil {
		return nil, err
	}
	steps = append(steps, units...)
	mounted, err := lasting(in)
	if err != nil {
		return nil, err
	}
	if len(mounted) > 0 {
		steps = append(steps, initrd.Fstab{Root: root, Mounts: mounted})
	}
	for _, c := range etc.Credentials {
		steps = append(steps, initrd.Credential{Root: root, Name: c.Name, Contents: c.Contents, Encrypted: c.Encrypted, Scope: c.ScopeOrDefault()})
	}
	generated := in.Config.Pilotlight.Version != ""
	if generated {
		steps = append(steps, initrd.Sysusers{Root: root})
	}
	steps = append(steps, named...)
	if generated {
		id := in.Facts.MachineID
		if id == "" {
			id = machineID(in.Facts.Provision)
		}
		steps = append(steps, initrd.Tmpfiles{Root: root}, initrd.Identity{Root: root, ID: id})
		if len(preset) > 0 {
			steps = append(steps, initrd.Preset{Root: root, Units: preset})
		}
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

// entries turns Ignition's storage into steps: those whose owner is a number or
// root, and those whose owner is a name that somebody must know first.
func entries(s types.Storage, root string) (plain, named []initrd.Step, err error) {
	type entry struct {
		depth int
		step  initrd.Step
	}
	var first, last []entry
	later := map[string]bool{} // the paths of named
	add := func(p string, o initrd.Owner, s initrd.Step) {
		e := entry{depth(path.Clean(p)), s}
		if o.Named() {
			later[path.Clean(p)] = true
			last = append(last, e)
			return
		}
		first = append(first, e)
	}
	var hard []initrd.Link
	for _, d := range s.Directories {
		o := owner(d.Node)
		add(d.Path, o, initrd.Directory{Root: root, Path: d.Path, Overwrite: yes(d.Overwrite), Mode: mode(d.Mode), Owner: o})
	}
	for _, f := range s.Files {
		step := initrd.File{Root: root, Path: f.Path, Overwrite: yes(f.Overwrite), Mode: mode(f.Mode), Owner: owner(f.Node)}
		if f.Contents.Source != nil {
			r, err := config.Resource(f.Contents)
			if err != nil {
				return nil, nil, fmt.Errorf("file %s: %w", f.Path, err)
			}
			step.Contents = &r
		}
		for _, a := range f.Append {
			r, err := config.Resource(a)
			if err != nil {
				return nil, nil, fmt.Errorf("file %s: append: %w", f.Path, err)
			}
			step.Append = append(step.Append, r)
		}
		add(f.Path, step.Owner, step)
	}
	for _, l := range s.Links {
		step := initrd.Link{Root: root, Path: l.Path, Hard: yes(l.Hard), Overwrite: yes(l.Overwrite), Owner: owner(l.Node)}
		if l.Target != nil {
			step.Target = *l.Target
		}
		if step.Hard {
			hard = append(hard, step)
			continue
		}
		add(l.Path, step.Owner, step)
	}
	sorted := func(list []entry) (steps []initrd.Step) {
		slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.depth, b.depth) })
		for _, e := range list {
			steps = append(steps, e.step)
		}
		return steps
	}
	plain, named = sorted(first), sorted(last)
	for _, l := range hard {
		// Its target may lie deeper than itself, and may be another hard link.
		if later[path.Clean(l.Target)] {
			later[path.Clean(l.Path)] = true
			named = append(named, l)
		} else {
			plain = append(plain, l)
		}
	}
	return plain, named, nil
}

func yes(b *bool) bool { return b != nil && *b }

func owner(n types.Node) initrd.Owner {
	var o initrd.Owner
	if n.User.ID != nil {
		o.UID = *n.User.ID
	}
	if n.User.Name != nil {
		o.User = *n.User.Name
	}
	if n.Group.ID != nil {
		o.GID = *n.Group.ID
	}
	if n.Group.Name != nil {
		o.Group = *n.Group.Name
	}
	return o
}

// mode turns a mode of the config, which has setuid, setgid and sticky at their
// places in the C encoding, into Go's.
func mode(m *int) *fs.FileMode {
	if m == nil {
		return nil
	}
	f := fs.FileMode(*m & 0o777)
	for bit, flag := range map[int]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if *m&bit != 0 {
			f |= flag
		}
	}
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

// PresetFile is where the presets of a config's units go, under Ignition's name.
const PresetFile = "/etc/systemd/system-preset/20-ignition.preset"

// units turns Ignition's systemd.units into steps, and names those that are to be
// enabled or disabled.
func units(list []types.Unit, root string) (steps []initrd.Step, preset []string, err error) {
	const dir = "/etc/systemd/system"
	var lines []string
	write := func(p string, text *string) {
		steps = append(steps, textFile(root, p, *text))
	}
	for _, u := range list {
		switch file := path.Join(dir, u.Name); {
		case yes(u.Mask):
			steps = append(steps, initrd.Link{Root: root, Path: file, Target: "/dev/null", Overwrite: true})
		case u.Contents != nil && *u.Contents != "":
			write(file, u.Contents)
		}
		for _, d := range u.Dropins {
			if d.Contents != nil && *d.Contents != "" {
				write(path.Join(dir, u.Name+".d", d.Name), d.Contents)
			}
		}
		if u.Enabled != nil {
			lines = append(lines, presetLine(u.Name, *u.Enabled))
			preset = append(preset, u.Name)
		}
	}
	if len(lines) > 0 {
		text := strings.Join(lines, "")
		write(PresetFile, &text)
	}
	return steps, preset, nil
}

// presetLine is a line of systemd.preset(5). An instance is written as its
// template with the instance as argument.
func presetLine(unit string, enable bool) string {
	verb := "disable "
	if enable {
		verb = "enable "
	}
	name, instance, ok := strings.Cut(unit, "@")
	if !ok || strings.HasPrefix(instance, ".") {
		return verb + unit + "\n"
	}
	suffix := path.Ext(instance)
	return verb + name + "@" + suffix + " " + strings.TrimSuffix(instance, suffix) + "\n"
}

func textFile(root, p, text string) initrd.File {
	mode := fs.FileMode(0o644)
	inline := resource.NewSecret(text)
	return initrd.File{Root: root, Path: p, Contents: &resource.Resource{Inline: &inline}, Overwrite: true, Mode: &mode}
}
