package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// Link wishes a symbolic or hard link. It is Ignition's storage.links.
type Link struct {
	Root      string
	Path      string
	Target    string // of a hard link: a path in the target root
	Hard      bool
	Overwrite bool
	Owner     Owner // of the symbolic link itself
}

func (l Link) String() string {
	if l.Hard {
		return "hard link " + l.Path + " to " + l.Target
	}
	return "link " + l.Path + " to " + l.Target
}

// Touches is the path in the target, and what tells its owner; for a hard link its
// target too.
func (l Link) Touches() []string {
	names := append([]string{path.Join("/", l.Root, l.Path)}, l.Owner.reads(l.Root, l.Path)...)
	if l.Hard {
		names = append(names, path.Join("/", l.Root, l.Target))
	}
	return names
}

// Resolve compares where the link leads, and of a symbolic link the owner.
func (l Link) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(l.Root, l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, makeLink{Link: l}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	same := false
	if l.Hard {
		target, err := look.Stat(l.Root, l.Target)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return unresolved, nil, err
		default:
			same = target.Dev == entry.Dev && target.Ino == entry.Ino
		}
	} else if entry.Mode&fs.ModeSymlink != 0 && path.Clean(entry.Target) == path.Clean(l.Target) {
		uid, gid, err := look.Owner(l.Root, l.Owner)
		uid, gid = l.Owner.over(entry, uid, gid)
		return dressing(entry.UID == uid && entry.GID == gid, err, makeLink{Link: l, was: was(entry), keep: true})
	}
	switch {
	case same:
		return So, nil, nil
	case !l.Overwrite:
		return unresolved, nil, fmt.Errorf("%s: %w", l.Path, ErrExists)
	}
	return NotSo, makeLink{Link: l, was: was(entry)}, nil
}

type makeLink struct {
	Link
	was  before
	keep bool // it leads to the right place; only the owner is not right
}

// Effect tells what has the name.
func (l makeLink) Effect() (Effect, []string) { return l.was.replaced(l.Path) }

func (l makeLink) String() string {
	if l.keep {
		return "set owner of " + l.Path
	}
	return "link " + l.Path + " to " + l.Target
}

// do makes the link anew even if only its owner is not right: a symbolic link too can
// have another name somewhere.
func (l makeLink) do(_ context.Context, m *Machine) error {
	t, err := m.tree(l.Root)
	if err != nil {
		return err
	}
	uid, gid, err := m.owner(l.Root, l.Owner)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(l.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	temp, err := provisional(dir, base, func(name string) error {
		if l.Hard {
			return l.hard(t, dir, name)
		}
		return unix.Symlinkat(l.Target, dir, name)
	})
	if err != nil {
		return &fs.PathError{Op: "link", Path: l.Path, Err: err}
	}
	// After a rename there is nothing of that name, but where both names led to one
	// file already: then rename(2) does nothing.
	defer unix.Unlinkat(dir, temp, 0)
	if !l.Hard {
		if err := unix.Fchownat(dir, temp, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("owner of %s: %w", l.Path, err)
		}
	}
	may := nothing
	switch {
	case l.Overwrite:
		may = anything
	case l.keep:
		may = anyFile
	}
	return rename(dir, temp, base, may)
}

func (l makeLink) hard(t *tree, dir int, name string) error {
	from, target, err := t.parent(l.Target, false)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	err = unix.Linkat(from, target, dir, name, 0)
	switch {
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: %s is on another file system, and a hard link cannot lead there", err, l.Target)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %s cannot have another name: it is a directory, or immutable", err, l.Target)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: there is no %s", err, l.Target)
	}
	return err
}
