package initrd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A draft is a file whose bytes are still coming in.
//
// Where the file system can do it (open(2), O_TMPFILE), a draft has no name: who is
// killed over it leaves nothing behind. Elsewhere, and for the moment in which one
// file takes the place of another, it has a provisional one.
type draft struct {
	handle
	dir   int    // the directory, by descriptor
	base  string // the name that it shall get
	temp  string // the name that it has; "" for none
	owned bool   // it belongs to whom it shall by itself
}

// newDraft begins a file that shall be called base in the directory dir. Until it is
// published it belongs to this process's user, mode 0600.
func newDraft(dir int, base string) (*draft, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return namedDraft(dir, base)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: base, Err: err}
	}
	return &draft{handle: handle(fd), dir: dir, base: base}, nil
}

// namedDraft is for a file system that has no files without a name, such as FAT.
func namedDraft(dir int, base string) (*draft, error) {
	d := &draft{dir: dir, base: base}
	var err error
	d.temp, err = provisional(dir, base, func(name string) error {
		fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		d.handle = handle(fd)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: base, Err: err}
	}
	return d, nil
}

// unverified begins every provisional name.
const unverified = ".pilotlight-unverified-"

// provisional makes something in a directory that shall be called base later, under a
// name that follows from base. So who is killed before it gets its real one finds the
// same name the next time and takes it away; nothing is searched for, and nothing that
// is not called exactly so is removed. Where a directory has the name, which is none of
// ours, the next name serves.
func provisional(dir int, base string, make func(name string) error) (string, error) {
	sum := sha256.Sum256([]byte(base))
	first := unverified + hex.EncodeToString(sum[:8])
	name := first
	for try := range 16 {
		err := make(name)
		if !errors.Is(err, unix.EEXIST) {
			return name, err
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			name = first + "-" + strconv.Itoa(try)
		}
	}
	return "", fmt.Errorf("%s and the names after it: %w", first, fs.ErrExist)
}

// Reset takes back what was written, so that a transfer can begin again.
func (d *draft) Reset() error {
	if err := d.Truncate(0); err != nil {
		return err
	}
	_, err := d.Seek(0, io.SeekStart)
	return err
}

// dress gives the draft its owner and its mode, in this order: chown(2) takes setuid
// and setgid away. The owner is seldom known to be there by itself: in a directory with
// setgid the group is that of the directory.
func (d *draft) dress(uid, gid int, mode fs.FileMode) error {
	if !d.owned {
		if err := unix.Fchown(int(d.handle), uid, gid); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if err := unix.Fchmod(int(d.handle), unixMode(mode)); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	return nil
}

// What a new name may take the place of.
type over int

const (
	nothing  over = iota // what is there stays: ErrExists
	anyFile              // whatever is no directory
	anything             // a directory too, with all that is in it
)

// sync waits until what the draft holds is on the disk.
func (d *draft) sync() error {
	if err := unix.Fdatasync(int(d.handle)); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: d.base, Err: err}
	}
	return nil
}

// publish gives the draft its name in one step, so that whoever opens the name finds
// the old file or the new one. Other names of the old file keep what they have. What
// it holds is on the disk before it has the name: a file that a power cut left empty
// would be taken for somebody's own at the next boot.
func (d *draft) publish(may over) error {
	if err := d.sync(); err != nil {
		return err
	}
	return d.name(may)
}

// name is publish for a draft that is on the disk already.
func (d *draft) name(may over) (err error) {
	if d.temp == "" {
		err = d.link(d.base)
		if err == nil || !errors.Is(err, unix.EEXIST) {
			return obstacle(d.dir, d.base, "link", err)
		}
		if may == nothing {
			return ErrExists
		}
		if d.temp, err = provisional(d.dir, d.base, d.link); err != nil {
			return &fs.PathError{Op: "link", Path: d.base, Err: err}
		}
	}
	if err := rename(d.dir, d.temp, d.base, may); err != nil {
		return err
	}
	d.temp = ""
	return nil
}

// link gives the file a name that nothing has.
func (d *draft) link(name string) error {
	err := unix.Linkat(int(d.handle), "", d.dir, name, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOENT) {
		// Without CAP_DAC_READ_SEARCH; linkat(2) names this way then.
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(d.handle)), d.dir, name, unix.AT_SYMLINK_FOLLOW)
	}
	return err
}

// discard closes the draft, and takes it away if it was not published.
func (d *draft) discard() {
	if d.temp != "" {
		// There is an error to tell already; the next try begins with this name.
		_ = unix.Unlinkat(d.dir, d.temp, 0)
	}
	d.Close()
}

// rename gives what is called temp its real name.
func rename(dir int, temp, base string, may over) error {
	var err error
	switch may {
	case nothing:
		err = unix.Renameat2(dir, temp, dir, base, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) {
			// A file system that cannot; a new link does not replace either.
			if err = unix.Linkat(dir, temp, dir, base, 0); err == nil {
				err = unix.Unlinkat(dir, temp, 0)
			}
		}
		if errors.Is(err, unix.EEXIST) {
			return ErrExists
		}
	default:
		err = unix.Renameat(dir, temp, dir, base)
		if may == anything && errors.Is(err, unix.EISDIR) {
			if err := removeAllAt(dir, base, 0); err != nil {
				return err
			}
			err = unix.Renameat(dir, temp, dir, base)
		}
	}
	return obstacle(dir, base, "rename", err)
}

// obstacle is the error of an operation on a name of a directory, with what is behind
// it where the kernel says only that it may not or cannot be.
func obstacle(dir int, base, op string, err error) error {
	if err == nil {
		return nil
	}
	for _, at := range []struct {
		name, what string
		flags      int
	}{{base, "it", unix.AT_SYMLINK_NOFOLLOW}, {"", "its directory", unix.AT_EMPTY_PATH}} {
		var st unix.Statx_t
		if unix.Statx(dir, at.name, at.flags, 0, &st) != nil {
			continue
		}
		switch {
		case errors.Is(err, unix.EPERM) && st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
			err = fmt.Errorf("%w: %s is immutable or append-only (chattr(1))", err, at.what)
		case errors.Is(err, unix.EBUSY) && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
			err = fmt.Errorf("%w: a file system is mounted there", err)
		default:
			continue
		}
		break
	}
	return &fs.PathError{Op: op, Path: base, Err: err}
}

// removeAllAt removes a directory with all that is in it, by descriptors alone: no name
// can be swapped for a link under it. Another file system that is mounted somewhere in
// it is not entered; it is an error.
func removeAllAt(dir int, base string, depth int) error {
	fault := func(err error) error { return &fs.PathError{Op: "remove", Path: base, Err: err} }
	if depth > maxDepth {
		return fault(fmt.Errorf("more than %d directories deep", maxDepth))
	}
	fd, err := unix.Openat2(dir, base, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		return fault(errors.New("a file system is mounted there"))
	}
	if err != nil {
		return fault(err)
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	for {
		entries, err := d.ReadDir(1024)
		if errors.Is(err, io.EOF) {
			return obstacle(dir, base, "remove", unix.Unlinkat(dir, base, unix.AT_REMOVEDIR))
		}
		if err != nil {
			return fault(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				err = removeAllAt(fd, e.Name(), depth+1)
			} else {
				err = obstacle(fd, e.Name(), "remove", unix.Unlinkat(fd, e.Name(), 0))
			}
			if err != nil {
				return err
			}
		}
	}
}

// maxDepth bounds how deep a directory that is removed may be: each level holds a
// descriptor.
const maxDepth = 256
