package stages

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// PresetFile is where the presets of a config's units go, under Ignition's name.
const PresetFile = "/etc/systemd/system-preset/20-ignition.preset"

// unitDir is where units of a config go.
const unitDir = "/etc/systemd/system"

// units turns Ignition's systemd.units into steps, and names those that are to be
// enabled: PID 1 does that on its first boot, by the preset file, or where it will not,
// the presets are applied here.
//
// A unit whose contents are empty is not written; a drop-in that is there and empty is:
// it hides one of the same name in /usr. A unit that is masked is nothing else.
func units(list []types.Unit, root string) (steps []initrd.Step, enabled []string) {
	var disabled []string
	for _, u := range list {
		for _, d := range u.Dropins {
			if d.Contents != nil {
				steps = append(steps, textFile(root, path.Join(unitDir, u.Name+".d", d.Name), *d.Contents))
			}
		}
		switch file := path.Join(unitDir, u.Name); {
		case yes(u.Mask):
			steps = append(steps, initrd.Link{Root: root, Path: file, Target: "/dev/null", Overwrite: true})
		case said(u.Contents) != "":
			steps = append(steps, textFile(root, file, *u.Contents))
		case no(u.Mask):
			steps = append(steps, initrd.Unmasked{Root: root, Unit: u.Name})
		}
		switch {
		case yes(u.Enabled):
			enabled = append(enabled, u.Name)
		case no(u.Enabled):
			disabled = append(disabled, u.Name)
		}
	}
	if text := presets(enabled, "enable ") + presets(disabled, "disable "); text != "" {
		steps = append(steps, textFile(root, PresetFile, text))
	}
	for _, u := range disabled {
		steps = append(steps, initrd.Disabled{Root: root, Unit: u})
	}
	return steps, enabled
}

// presets are lines of systemd.preset(5). Instances are arguments of their template, all
// in one line: PID 1 asks for a template's presets, and takes the first line alone.
func presets(units []string, verb string) string {
	type line struct {
		unit      string
		instances []string
	}
	var lines []line
	for _, u := range units {
		unit, instance := initrd.TemplateOf(u)
		i := slices.IndexFunc(lines, func(l line) bool { return l.unit == unit })
		if i < 0 {
			i = len(lines)
			lines = append(lines, line{unit: unit})
		}
		if instance != "" {
			lines[i].instances = append(lines[i].instances, instance)
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.unit, b.unit) })
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(strings.Join(append([]string{verb + l.unit}, l.instances...), " ") + "\n")
	}
	return text.String()
}

func textFile(root, p, text string) initrd.File {
	mode := fs.FileMode(0o644)
	inline := resource.NewSecret(text)
	return initrd.File{Root: root, Path: p, Contents: &resource.Resource{Inline: &inline}, Overwrite: true, Mode: &mode}
}
