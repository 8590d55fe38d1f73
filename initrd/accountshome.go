package initrd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A homeDeed is one thing that is done to the files of a user. Each can be done again
// after it was done in part.
type homeDeed struct {
	What   string      `json:"what"` // make, spool, move, give, dress, remove
	Path   string      `json:"path"`
	To     string      `json:"to,omitempty"`   // of move; of make: the home as passwd has it
	Skel   string      `json:"skel,omitempty"` // of make
	UID    int         `json:"uid"`            // the owner that is wished; -1 to leave it
	GID    int         `json:"gid"`
	WasUID int         `json:"wasUID"` // of give and move: what belongs to it changes
	WasGID int         `json:"wasGID"`
	Mode   fs.FileMode `json:"mode,omitempty"`
	Single bool        `json:"single,omitempty"` // of give: this file alone
	Lost   string      `json:"-"`                // of remove: what that is, for people
}

func (t *tree) home(d homeDeed) error {
	switch d.What {
	case "make":
		return t.makeHome(d)
	case "spool":
		err := t.place(d.Path, "", d.UID, d.GID, d.Mode, nothing)
		if errors.Is(err, ErrExists) {
			return nil
		}
		return err
	case "move":
		return t.moveHome(d)
	case "give":
		return t.at(d.Path, func(dir int, base string) error { return give(dir, base, d, 0) })
	case "dress":
		return t.at(d.Path, func(dir int, base string) error { return dress(dir, base, unix.S_IFDIR, d.UID, d.GID, &d.Mode) })
	case "remove":
		return t.at(d.Path, func(dir int, base string) error {
			err := unix.Unlinkat(dir, base, 0)
			if errors.Is(err, unix.EISDIR) {
				return removeAllAt(dir, base, 0)
			}
			if errors.Is(err, unix.ENOENT) {
				return nil
			}
			return obstacle(dir, base, "remove", err)
		})
	}
	return fmt.Errorf("%s knows of a deed %q, which this program does not", journalFile, d.What)
}

// at does something to a name of a directory, if the directory is there.
func (t *tree) at(name string, do func(dir int, base string) error) error {
	dir, base, err := t.parent(name, false)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return do(dir, base)
}

// makeHome makes a home directory with a copy of the skeleton in it. It has another
// name until it is whole: half a home would be taken for one. A skeleton that is not
// there is an empty one, as useradd(8) has it.
func (t *tree) makeHome(d homeDeed) error {
	dir, base, err := t.parent(d.Path, true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return fmt.Errorf("the home %s is a link that leads nowhere", d.Path)
	case err == nil:
		return nil
	case !errors.Is(err, unix.ENOENT):
		return &fs.PathError{Op: "stat", Path: d.Path, Err: err}
	}
	skel, err := t.open(d.Skel, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		skel = -1
	case err != nil:
		return err
	default:
		defer unix.Close(skel)
	}
	c := copying{owner: func(*unix.Stat_t) (int, int) { return d.UID, d.GID }, from: d.Skel, to: d.To}
	return whole(dir, base, func(name string) error {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return &fs.PathError{Op: "mkdir", Path: d.Path, Err: err}
		}
		if skel >= 0 {
			in, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return &fs.PathError{Op: "open", Path: d.Path, Err: err}
			}
			defer unix.Close(in)
			if err := c.all(skel, in, 0); err != nil {
				return err
			}
		}
		return dress(dir, name, unix.S_IFDIR, d.UID, d.GID, &d.Mode)
	})
}

// whole makes a directory under a provisional name, waits until it is on the disk, and
// gives it its own. What a run that was cut short left of it is removed first.
func whole(dir int, base string, make func(name string) error) error {
	name := provisionalName(base)
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		if err := removeAllAt(dir, name, 0); err != nil {
			return err
		}
	}
	if err := make(name); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: base, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &fs.PathError{Op: "sync", Path: base, Err: err}
	}
	if err := rename(dir, name, base, nothing); err != nil {
		return err
	}
	return syncAt(dir, ".")
}

// provisionalName is the name of a directory that is not whole.
func provisionalName(base string) string { return unverified + "dir-" + hashOf(base)[:16] }

// moveHome gives a home another name, with what belongs to its user. On another file
// system it is copied; the old one is removed when the copy is whole.
func (t *tree) moveHome(d homeDeed) error {
	from, old, err := t.parent(d.Path, false)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, base, err := t.parent(d.To, false)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	give := func() error {
		return give(to, base, homeDeed{UID: d.UID, GID: d.GID, WasUID: d.WasUID, WasGID: d.WasGID}, 0)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(to, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		if err := give(); err != nil {
			return err
		}
		return removeIfThere(from, old)
	}
	err = unix.Renameat(from, old, to, base)
	switch {
	case err == nil:
		return give()
	case !errors.Is(err, unix.EXDEV):
		return obstacle(from, old, "rename", err)
	}
	c := copying{from: d.Path, to: d.To, owner: func(st *unix.Stat_t) (int, int) { return d.owner(st) }}
	err = whole(to, base, func(name string) error { return c.one(from, old, to, name, 0) })
	if err != nil {
		return err
	}
	return removeIfThere(from, old)
}

func removeIfThere(dir int, base string) error {
	err := removeAllAt(dir, base, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// owner is the one that a file has after it was given away: who had neither the old
// user nor the old group keeps his.
func (d homeDeed) owner(st *unix.Stat_t) (uid, gid int) {
	uid, gid = int(st.Uid), int(st.Gid)
	if uid == d.WasUID && d.UID >= 0 {
		uid = d.UID
	}
	if gid == d.WasGID && d.GID >= 0 {
		gid = d.GID
	}
	return uid, gid
}

// give changes the owner of a directory and of all in it. No link is followed.
func give(dir int, base string, d homeDeed, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &fs.PathError{Op: "stat", Path: base, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && !d.Single {
		err := eachName(dir, base, depth, func(in int, name string) error { return give(in, name, d, depth+1) })
		if err != nil {
			return err
		}
	}
	if uid, gid := d.owner(&st); uid != int(st.Uid) || gid != int(st.Gid) {
		return obstacle(dir, base, "chown", unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
	}
	return nil
}

// eachName does something to each name in a directory.
func eachName(dir int, base string, depth int, do func(in int, name string) error) error {
	if depth > maxDepth {
		return &fs.PathError{Op: "read", Path: base, Err: fmt.Errorf("more than %d directories deep", maxDepth)}
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: base, Err: err}
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := do(fd, name); err != nil {
			return err
		}
	}
	return nil
}

// copying copies a tree. What is in it keeps mode and times, and gets its owner. Links
// of the old place into itself lead into the new one.
type copying struct {
	owner    func(*unix.Stat_t) (uid, gid int)
	from, to string
}

// all copies what is in one directory into another.
func (c copying) all(from, to, depth int) error {
	return eachName(from, ".", depth, func(in int, name string) error { return c.one(in, name, to, name, depth+1) })
}

func (c copying) one(from int, name string, to int, as string, depth int) error {
	fault := func(op string, err error) error {
		return &fs.PathError{Op: op, Path: path.Join(c.from, name), Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fault("stat", err)
	}
	uid, gid := c.owner(&st)
	mode := permissionsOf(st.Mode)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := linkTarget(from, name)
		if err != nil {
			return fault("readlink", err)
		}
		if rest, ok := strings.CutPrefix(target, c.from); ok && (rest == "" || rest[0] == '/') {
			target = c.to + rest
		}
		if err := unix.Symlinkat(target, to, as); err != nil {
			return fault("symlink", err)
		}
		if err := unix.Fchownat(to, as, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fault("chown", err)
		}
	case unix.S_IFDIR:
		in, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault("open", err)
		}
		defer unix.Close(in)
		if err := unix.Mkdirat(to, as, 0o700); err != nil {
			return fault("mkdir", err)
		}
		out, err := unix.Openat(to, as, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault("open", err)
		}
		defer unix.Close(out)
		if err := c.all(in, out, depth); err != nil {
			return err
		}
		if err := dress(to, as, unix.S_IFDIR, uid, gid, &mode); err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := copyFile(from, name, to, as, uid, gid, mode); err != nil {
			return fault("copy", err)
		}
	default:
		if err := unix.Mknodat(to, as, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
			return fault("mknod", err)
		}
		if err := errors.Join(unix.Fchownat(to, as, uid, gid, unix.AT_SYMLINK_NOFOLLOW), unix.Fchmodat(to, as, unixMode(mode), 0)); err != nil {
			return fault("chown", err)
		}
	}
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(to, as, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

func linkTarget(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	return string(buf[:max(n, 0)]), err
}

func copyFile(from int, name string, to int, as string, uid, gid int, mode fs.FileMode) error {
	in, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := unix.Openat(to, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	if _, err := io.Copy(handle(out), handle(in)); err != nil {
		return err
	}
	// In this order: chown(2) takes setuid and setgid away.
	return errors.Join(unix.Fchown(out, uid, gid), unix.Fchmod(out, unixMode(mode)))
}
