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
	Overwrite bool         // what is there is removed first, also a directory with all in it: once, see emptied
	Mode      *fs.FileMode // nil: 0755 for a new one, left alone for one that exists
	Owner     Owner
}

func (d Directory) String() string { return "directory " + d.Path }

// Touches is the path in the target, and what tells its owner.
func (d Directory) Touches() []string {
	return append([]string{path.Join("/", d.Root, d.Path)}, d.Owner.reads(d.Root, d.Path)...)
}

// emptied is the receipt which says that what was there is gone. Without one, what a later
// step, or the system since, put into the directory would go too. What does not outlive
// the boot may be there again at the next.
func (d Directory) emptied(look Look) (Receipt, error) {
	r := Receipt{Name: "emptied:" + path.Join("/", d.Root, d.Path), Scope: ScopeProvision}
	volatile, err := look.Volatile(d.Root, d.Path)
	if volatile {
		r.Scope = ScopeBoot
	}
	return r, err
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
		return NotSo, makeDirectory{Directory: d, was: was(entry)}, nil
	}
	if d.Overwrite {
		receipt, err := d.emptied(look)
		if err != nil {
			return unresolved, nil, err
		}
		if look.Done(receipt) {
			return d.dressed(look, entry)
		}
		names, err := look.Names(d.Root, d.Path)
		if err != nil {
			return unresolved, nil, err
		}
		return NotSo, makeDirectory{Directory: d, was: before{there: true, dir: len(names) > 0}, anew: true}, nil
	}
	return d.dressed(look, entry)
}

func (d Directory) dressed(look Look, entry Entry) (State, Act, error) {
	uid, gid, err := look.Owner(d.Root, d.Owner)
	uid, gid = d.Owner.over(entry, uid, gid)
	ok := entry.UID == uid && entry.GID == gid && (d.Mode == nil || entry.Mode&permissions == *d.Mode)
	return dressing(ok, err, makeDirectory{Directory: d, was: before{there: true}})
}

type makeDirectory struct {
	Directory
	was  before
	anew bool // a directory is there, and makes room for a new one
}

// Effect tells what has the name.
func (d makeDirectory) Effect() (Effect, []string) { return d.was.replaced(d.Path) }

func (d makeDirectory) String() string {
	if d.anew {
		return "make " + d.Path + " anew"
	}
	return "make " + d.Path
}

func (d makeDirectory) do(ctx context.Context, m *Machine) error {
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
	if d.anew {
		if err := removeAllAt(dir, base, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err = unix.Mkdirat(dir, base, 0o700)
	if errors.Is(err, unix.EEXIST) && d.Overwrite {
		// What is no directory makes room for one; a directory refuses.
		if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.EISDIR) {
			return obstacle(dir, base, "remove", err)
		}
		err = unix.Mkdirat(dir, base, 0o700)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return obstacle(dir, base, "mkdir", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: d.Path, Err: err}
	}
	// In a directory with setgid a new one is of its group, and has setgid too.
	uid, gid = d.Owner.over(Entry{UID: int(st.Uid), GID: int(st.Gid)}, uid, gid)
	mode := d.Mode
	if err == nil && mode == nil {
		usual := 0o755 | permissionsOf(st.Mode)&fs.ModeSetgid
		mode = &usual
	}
	if err := dress(dir, base, unix.S_IFDIR, uid, gid, mode); err != nil {
		return err
	}
	if !d.Overwrite {
		return nil
	}
	// From here on it is the config's own.
	receipt, err := d.emptied(m.Look(ctx))
	if err != nil {
		return err
	}
	return m.Keep(receipt)
}
