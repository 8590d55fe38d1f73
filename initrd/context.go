package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// context reads the SELinux context of the last component itself, the attribute
// security.selinux of xattr(7), and where it lies when links above it are followed.
func (t *tree) context(name string) (Labelled, error) {
	fault := func(op string, err error) (Labelled, error) {
		return Labelled{}, &fs.PathError{Op: op, Path: path.Join(t.root, name), Err: err}
	}
	fd, err := t.open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return fault("stat", fs.ErrNotExist)
	}
	if err != nil {
		return Labelled{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault("stat", err)
	}
	l := Labelled{Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	if l.Path, err = t.pathOf(fd); err != nil {
		return fault("readlink", err)
	}
	if l.Context, err = contextOf(unix.Getxattr, nameOf(fd)); err != nil {
		return fault("getxattr", err)
	}
	if l.Context != "" {
		return l, nil
	}
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return fault("statfs", err)
	}
	l.ReadOnly = fsys.Flags&unix.ST_RDONLY != 0
	return l, nil
}

// contextOf reads the attribute by one of the system calls for that; "" where there is none,
// or no file system that has them.
func contextOf(get func(string, string, []byte) (int, error), name string) (string, error) {
	buf := make([]byte, 4096) // more than any context has
	n, err := get(name, "security.selinux", buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(buf[:n]), "\x00"), nil
}

// nameOf is a name for what a descriptor is of, for system calls that take no descriptor of
// the kind O_PATH (proc_pid_fd(5)).
func nameOf(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// bare lists what has no context in a directory, and is not on another file system.
func (t *tree) bare(name string) ([]string, error) {
	fd, err := t.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	at, err := t.pathOf(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	var list []string
	err = bareBelow(fd, at, 0, func(p string) { list = append(list, p) })
	return list, err
}

// bareBelow walks by descriptors alone, and closes the one that it is given.
func bareBelow(fd int, at string, depth int, found func(string)) error {
	d := os.NewFile(uintptr(fd), at)
	defer d.Close()
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", at, maxDepth)
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		context, err := contextOf(unix.Lgetxattr, nameOf(fd)+"/"+e.Name())
		switch {
		case errors.Is(err, unix.ENOENT): // gone since
		case err != nil:
			return &fs.PathError{Op: "getxattr", Path: path.Join(at, e.Name()), Err: err}
		case context == "":
			found(path.Join(at, e.Name()))
		case e.IsDir():
			sub, err := unix.Openat2(fd, e.Name(), &unix.OpenHow{
				Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
				Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
			})
			if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return &fs.PathError{Op: "open", Path: path.Join(at, e.Name()), Err: err}
			}
			if err := bareBelow(sub, path.Join(at, e.Name()), depth+1, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// pathOf is the path that something in the tree has, as the tree sees it.
func (t *tree) pathOf(fd int) (string, error) {
	here, err := linkOf(fd)
	if err != nil {
		return "", err
	}
	root, err := linkOf(t.fd)
	if err != nil {
		return "", err
	}
	return path.Join("/", strings.TrimPrefix(here, root)), nil
}

// linkOf reads where a descriptor leads (proc_pid_fd(5)).
func linkOf(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(nameOf(fd), buf)
	return string(buf[:n]), err
}
