package initrd

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// Gone wishes that there be nothing at a path. What is a directory must be empty.
type Gone struct {
	Root string
	Path string
}

func (g Gone) String() string { return "nothing at " + g.Path }

// Touches is the path in the target.
func (g Gone) Touches() []string { return []string{path.Join("/", g.Root, g.Path)} }

// Resolve looks whether something is there.
func (g Gone) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(g.Root, g.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return So, nil, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	return NotSo, remove{Gone: g, dir: entry.Mode.IsDir()}, nil
}

type remove struct {
	Gone
	dir bool
}

func (r remove) String() string { return "remove " + r.Path }

// Effect tells a directory from what is only one file.
func (r remove) Effect() (Effect, []string) { return before{there: true, dir: r.dir}.replaced(r.Path) }

func (r remove) do(_ context.Context, m *Machine) error {
	t, err := m.tree(r.Root)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(r.Path, false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	flags := 0
	if r.dir {
		flags = unix.AT_REMOVEDIR
	}
	return obstacle(dir, base, "remove", unix.Unlinkat(dir, base, flags))
}
