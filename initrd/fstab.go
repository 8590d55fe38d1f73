package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"pilotlight/config/resource"
)

// Fstab wishes that the target's /etc/fstab (fstab(5)) has an entry for each of the
// mounts. Without one, systemd of stage 2 takes what the initrd mounted for a
// stranger's that is bound to its device, and unmounts it when udev starts anew.
//
// An entry for a mount point that is there already is somebody's decision and is
// left alone.
type Fstab struct {
	Root   string
	Mounts []Mount // Where as this system sees it, below Root
}

func (f Fstab) String() string {
	var where []string
	for _, m := range f.Mounts {
		where = append(where, f.at(m))
	}
	return "entries in /etc/fstab for " + strings.Join(where, ", ")
}

// at is a mount point as the target sees it.
func (f Fstab) at(m Mount) string {
	return path.Join("/", strings.TrimPrefix(m.Where, path.Join("/", f.Root)))
}

// Touches is the file, and the disks that the entries speak of.
func (f Fstab) Touches() []string { return []string{path.Join("/", f.Root, "etc/fstab"), "disks"} }

// fstabLimit bounds the file, in bytes.
const fstabLimit = 1 << 20

// Resolve reads the file.
func (f Fstab) Resolve(look Look) (State, Act, error) {
	data, err := readFile(look, f.Root, "/etc/fstab", fstabLimit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unresolved, nil, err
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && !strings.HasPrefix(fields[0], "#") {
			there[filepath.Clean(unescape(fields[1]))] = true
		}
	}
	text := string(data)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	missing := 0
	for _, m := range f.Mounts {
		if there[f.at(m)] {
			continue
		}
		what, err := m.What.stable(look)
		if errors.Is(err, fs.ErrNotExist) {
			return After, nil, err
		}
		if err != nil {
			return unresolved, nil, err
		}
		kind, options := m.Type, strings.Join(m.Options, ",")
		if kind == "" {
			kind = "auto"
		}
		if options == "" {
			options = "defaults"
		}
		pass := 0
		if m.Check {
			pass = 2
		}
		text += fmt.Sprintf("%s %s %s %s 0 %d\n", escape(what), escape(f.at(m)), kind, escape(options), pass)
		missing++
	}
	if missing == 0 {
		return So, nil, nil
	}
	return NotSo, fstab{f, text, missing, before{there: err == nil}}, nil
}

// stable names a source so that it is found at every boot.
func (s Source) stable(look Look) (string, error) {
	if s.Bare != "" {
		return s.Bare, nil
	}
	if s.Path != "" {
		return s.Path, nil
	}
	p, err := s.partition(look)
	return "PARTUUID=" + p.UUID.String(), err
}

type fstab struct {
	Fstab
	text    string
	missing int
	was     before
}

// Effect tells whether there is a file.
func (f fstab) Effect() (Effect, []string) { return f.was.replaced("/etc/fstab") }

func (f fstab) String() string {
	return fmt.Sprintf("write /etc/fstab, with %d more entries", f.missing)
}

func (f fstab) do(ctx context.Context, m *Machine) error {
	mode := fs.FileMode(0o644)
	text := resource.NewSecret(f.text)
	file := File{Root: f.Root, Path: "/etc/fstab", Contents: &resource.Resource{Inline: &text}, Overwrite: true, Mode: &mode}
	return writeFile{File: file}.do(ctx, m)
}
