package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// MountPoint wishes a directory that something can be mounted at, by Ignition's rule: each
// part of the path is a directory, and none of them a link, which mount(8) would follow out
// of the target. What is missing is made with mode 0755.
type MountPoint struct {
	Root   string
	Path   string // absolute, in the target
	Device string // what is to be mounted there, as the config names it
}

func (p MountPoint) String() string { return "mount point " + p.Path }

// Touches is the path in the target.
func (p MountPoint) Touches() []string { return []string{path.Join("/", p.Root, p.Path)} }

// Resolve looks at each part of the path.
func (p MountPoint) Resolve(look Look) (State, Act, error) {
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path.Clean(p.Path), "/"), "/") {
		at = path.Join(at, part)
		entry, err := look.Stat(p.Root, at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return NotSo, makeMountPoint{p}, nil
		case err != nil:
			return unresolved, nil, err
		case !entry.Mode.IsDir():
			return unresolved, nil, fmt.Errorf("%s is a %s, and nothing can be mounted below it", at, typeOf(entry.Mode))
		}
	}
	return So, nil, nil
}

type makeMountPoint struct{ MountPoint }

func (p makeMountPoint) String() string { return "make " + p.Path }

func (p makeMountPoint) do(_ context.Context, m *Machine) error {
	t, err := m.tree(p.Root)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(p.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, base, 0o700); err != nil {
		return obstacle(dir, base, "mkdir", err)
	}
	mode := fs.FileMode(0o755)
	return dress(dir, base, unix.S_IFDIR, 0, 0, &mode)
}
