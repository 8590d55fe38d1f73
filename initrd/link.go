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
	} else if entry.Mode&fs.ModeSymlink != 0 && entry.Target == l.Target {
		uid, gid, err := look.Owner(l.Root, l.Owner)
		return dressing(entry.UID == uid && entry.GID == gid, err, makeLink{Link: l, keep: true})
	}
	switch {
	case same:
		return So, nil, nil
	case !l.Overwrite:
		return unresolved, nil, fmt.Errorf("%s: %w", l.Path, ErrExists)
	}
	return NotSo, makeLink{Link: l}, nil
}

type makeLink struct {
	Link
	keep bool // it leads to the right place; only the owner is not right
}

func (l makeLink) String() string {
	if l.keep {
		return "set owner of " + l.Path
	}
	return "link " + l.Path + " to " + l.Target
}

func (l makeLink) do(_ context.Context, m *Machine) error {
	t, err := m.tree(l.Root)
	if err != nil {
		return err
	}
	dir, base, err := t.parent(l.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	temp := base
	if !l.keep {
		temp = unverified + temporary()
		if l.Hard {
			err = l.hard(t, dir, temp)
		} else {
			err = unix.Symlinkat(l.Target, dir, temp)
		}
		if err != nil {
			return &fs.PathError{Op: "link", Path: l.Path, Err: err}
		}
	}
	if !l.Hard {
		uid, gid, err := m.owner(l.Root, l.Owner)
		if err == nil && (uid != 0 || gid != 0 || m.uid != 0 || l.keep) {
			err = unix.Fchownat(dir, temp, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			if !l.keep {
				_ = unix.Unlinkat(dir, temp, 0)
			}
			return fmt.Errorf("owner of %s: %w", l.Path, err)
		}
	}
	if l.keep {
		return nil
	}
	if err := m.replace(dir, temp, base, l.Overwrite); err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return err
	}
	return nil
}

func (l makeLink) hard(t *tree, dir int, temp string) error {
	from, name, err := t.parent(l.Target, false)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, name, dir, temp, 0)
}
