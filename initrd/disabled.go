package initrd

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Disabled wishes that a unit is not enabled in the target's /etc. It is enabled: false of
// Ignition's systemd.units: a preset alone would not do, since PID 1 only enables by
// presets on its first boot.
//
// Like systemctl(1) disable it removes the links that systemd.unit(5) knows: those in the
// directories of other units, those under other names, and for a template those of its
// instances; and with them those of the units that [Install] names in Also=. It looks for
// them itself, so that a second run finds nothing to do, and a target needs no systemctl.
type Disabled struct {
	Root string
	Unit string
}

// unitDirs are where units are, the administrator's first.
var unitDirs = [...]string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitFileLimit bounds what is read of a unit file.
const unitFileLimit = 1 << 20

func (d Disabled) String() string { return "unit " + d.Unit + " not enabled" }

// Touches is the target's unit configuration.
func (d Disabled) Touches() []string { return []string{path.Join("/", d.Root, unitDirs[0])} }

// Resolve looks for links.
func (d Disabled) Resolve(look Look) (State, Act, error) {
	units, err := d.units(look)
	if err != nil {
		return unresolved, nil, err
	}
	links, err := enabling(look, d.Root, units)
	if err != nil {
		return unresolved, nil, err
	}
	if len(links) == 0 {
		return So, nil, nil
	}
	return NotSo, disable{d, links}, nil
}

// units are the unit and what its Also= lines name, and theirs.
func (d Disabled) units(look Look) ([]string, error) {
	units := []string{d.Unit}
	for i := 0; i < len(units) && i < 64; i++ {
		file, _ := TemplateOf(units[i])
		for _, name := range []string{units[i], file} {
			also, err := alsoOf(look, d.Root, name)
			if err != nil {
				return nil, err
			}
			for _, u := range also {
				if !slices.Contains(units, u) {
					units = append(units, u)
				}
			}
		}
	}
	return units, nil
}

// TemplateOf splits the name of an instance (systemd.unit(5)) into its template and what
// stands for %i: a@.service and b of a@b.service. Any other name comes back as it is.
func TemplateOf(unit string) (name, instance string) {
	before, after, ok := strings.Cut(unit, "@")
	if !ok {
		return unit, ""
	}
	return before + "@" + path.Ext(after), strings.TrimSuffix(after, path.Ext(after))
}

// alsoOf reads the Also= lines of the first file that a unit has. One that is masked, or
// that is no file, has none.
func alsoOf(look Look, root, unit string) (also []string, err error) {
	for _, dir := range unitDirs {
		f, err := followedUnit(look, root, path.Join(dir, unit))
		if err != nil {
			return nil, err
		}
		if !f.there {
			continue
		}
		in := ""
		for line := range strings.Lines(f.text) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				in = line
			}
			if k, v, ok := strings.Cut(line, "="); ok && in == "[Install]" && strings.TrimSpace(k) == "Also" {
				also = append(also, strings.Fields(v)...)
			}
		}
		return also, nil
	}
	return nil, nil
}

// followedUnit reads a unit file, following links. What is no regular file is one
// without lines.
func followedUnit(look Look, root, name string) (followedFile, error) {
	for range 16 {
		e, err := look.Stat(root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return followedFile{}, nil
		case err != nil:
			return followedFile{}, err
		case e.Mode.IsRegular():
			text, err := readFile(look, root, name, unitFileLimit)
			return followedFile{name, string(text), true}, err
		case e.Mode&fs.ModeSymlink == 0 || e.Target == "/dev/null":
			return followedFile{path: name, there: true}, nil
		}
		if name = path.Join(path.Dir(name), e.Target); path.IsAbs(e.Target) {
			name = path.Clean(e.Target)
		}
	}
	return followedFile{path: name, there: true}, nil
}

// enabling lists the links in /etc that enable one of these units.
func enabling(look Look, root string, units []string) (links []string, err error) {
	names, err := look.Names(root, unitDirs[0])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	of := func(name string) bool {
		template, instance := TemplateOf(name)
		return slices.Contains(units, name) || instance != "" && slices.Contains(units, template)
	}
	for _, name := range names {
		at := path.Join(unitDirs[0], name)
		switch path.Ext(name) {
		case ".wants", ".requires", ".upholds":
			inside, err := look.Names(root, at)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, unit := range inside {
				e, err := look.Stat(root, path.Join(at, unit))
				if err != nil {
					return nil, err
				}
				if e.Mode&fs.ModeSymlink != 0 && (of(unit) || of(path.Base(e.Target))) {
					links = append(links, path.Join(at, unit))
				}
			}
			continue
		}
		e, err := look.Stat(root, at)
		if err != nil {
			return nil, err
		}
		// Another name of the unit. A link of its own name says where the unit is.
		if e.Mode&fs.ModeSymlink != 0 && !of(name) && of(path.Base(e.Target)) {
			links = append(links, at)
		}
	}
	return links, nil
}

type disable struct {
	Disabled
	links []string
}

func (d disable) String() string { return "remove " + strings.Join(d.links, ", ") }

// Effect: the links are no more than a setting.
func (d disable) Effect() (Effect, []string) { return Changes, nil }

func (d disable) do(_ context.Context, m *Machine) error {
	t, err := m.tree(d.Root)
	if err != nil {
		return err
	}
	for _, link := range d.links {
		err := t.at(link, func(dir int, base string) error {
			err := unix.Unlinkat(dir, base, 0)
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return obstacle(dir, base, "remove", err)
		})
		if err != nil {
			return err
		}
		if path.Dir(link) == unitDirs[0] {
			continue
		}
		// A directory that held nothing else goes too.
		err = t.at(path.Dir(link), func(dir int, base string) error {
			err := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
			if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
				return nil
			}
			return obstacle(dir, base, "remove", err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
