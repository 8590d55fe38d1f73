package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// Directory wishes a directory. It is Ignition's storage.directories.
type Directory struct {
	Root      string
	Path      string
	Overwrite bool         // what is not a directory may be replaced by one
	Mode      *fs.FileMode // nil: 0755 for a new one, left alone for one that exists
	Owner     Owner
}

func (d Directory) String() string { return "directory " + d.Path }

// Touches is the path in the target, and what tells its owner.
func (d Directory) Touches() []string {
	return append([]string{path.Join("/", d.Root, d.Path)}, d.Owner.reads(d.Root, d.Path)...)
}

// Resolve compares type, owner and mode.
func (d Directory) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(d.Root, d.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return NotSo, makeDirectory{Directory: d}, nil
	case err != nil:
		return unresolved, nil, err
	case !entry.Mode.IsDir() && !d.Overwrite:
		return unresolved, nil, fmt.Errorf("%s is a %s: %w", d.Path, typeOf(entry.Mode), ErrExists)
	case !entry.Mode.IsDir():
		return NotSo, makeDirectory{d, true}, nil
	}
	ok, err := File{Root: d.Root, Mode: d.Mode, Owner: d.Owner}.dressed(look, entry)
	return dressing(ok, err, makeDirectory{d, true})
}

type makeDirectory struct {
	Directory
	there bool
}

// Effect tells whether something has the name.
func (d makeDirectory) Effect() (Effect, []string) { return before{there: d.there}.replaced(d.Path) }

func (d makeDirectory) String() string { return "make " + d.Path }

func (d makeDirectory) do(_ context.Context, m *Machine) error {
	t, err := m.tree(d.Root)
	if err != nil {
		return err
	}
	uid, gid, err := m.owner(d.Root, d.Owner)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(d.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Mkdirat(dir, base, 0o700)
	if errors.Is(err, unix.EEXIST) && d.Overwrite {
		// What is no directory makes room for one; a directory refuses.
		if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.EISDIR) {
			return obstacle(dir, base, "remove", err)
		}
		err = unix.Mkdirat(dir, base, 0o700)
	}
	mode := d.Mode
	switch {
	case err == nil && mode == nil:
		usual := fs.FileMode(0o755)
		mode = &usual
	case err != nil && !errors.Is(err, unix.EEXIST):
		return obstacle(dir, base, "mkdir", err)
	}
	return dress(dir, base, unix.S_IFDIR, uid, gid, mode)
}
