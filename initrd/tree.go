package initrd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A tree is a directory that paths are resolved inside of, as if it were "/".
// Neither "..", nor a symbolic link, nor a race between looking and writing leads
// out of it: every name is resolved by the kernel with RESOLVE_IN_ROOT
// (openat2(2), Linux 5.6), and every write happens by a descriptor of the
// directory that was resolved. No directory is held open from one deed to the next:
// what an earlier deed, or somebody else, put in its place counts.
//
// What is looked at between two deeds is one state of the machine, so the directories
// that were resolved for looking are kept from the one to the other.
type tree struct {
	fd   int
	root string

	mu   sync.Mutex
	seen map[string]int // directories by path; -1 for what is none
}

func openTree(root string) (*tree, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	return &tree{fd: fd, root: root}, nil
}

func (t *tree) Close() error {
	t.anew()
	return unix.Close(t.fd)
}

// anew forgets what was resolved for looking.
func (t *tree) anew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, fd := range t.seen {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	clear(t.seen)
}

// directory resolves one for looking; -1 where there is none. The lock is held.
func (t *tree) directory(dir string) (int, error) {
	if fd, ok := t.seen[dir]; ok {
		return fd, nil
	}
	fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		fd, err = -1, nil
	}
	if err != nil {
		return -1, err
	}
	if t.seen == nil {
		t.seen = map[string]int{}
	}
	// A look at many directories must not use up the descriptors.
	if len(t.seen) >= 64 {
		for other, fd := range t.seen {
			if fd >= 0 {
				unix.Close(fd)
			}
			delete(t.seen, other)
			break
		}
	}
	t.seen[dir] = fd
	return fd, nil
}

// open opens name with every symbolic link resolved inside the tree.
func (t *tree) open(name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	// EAGAIN is the kernel's word for "the tree was changed under the walk, and I
	// cannot be sure that we stayed inside".
	for try := 0; ; try++ {
		fd, err := unix.Openat2(t.fd, inside(name), &how)
		if errors.Is(err, unix.EAGAIN) && try < 16 || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: path.Join(t.root, name), Err: err}
		}
		return fd, nil
	}
}

// inside turns an absolute path of the target system into one for openat2.
func inside(name string) string {
	if rel := strings.TrimPrefix(path.Clean("/"+name), "/"); rel != "" {
		return rel
	}
	return "."
}

// parent opens the directory that holds name and gives the last component. With
// make, missing directories are made, 0755 and owned by root, as Ignition does.
func (t *tree) parent(name string, make bool) (int, string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return -1, "", fmt.Errorf("%s is the root directory itself", path.Join(t.root, name))
	}
	fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !make || !errors.Is(err, unix.ENOENT) {
		return fd, base, err
	}
	if err := t.makeAll(path.Clean(dir)); err != nil {
		return -1, "", err
	}
	fd, err = t.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return fd, base, err
}

// makeAll makes dir and what is missing above it.
func (t *tree) makeAll(dir string) error {
	if dir == "/" || dir == "." {
		return nil
	}
	if fd, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return unix.Close(fd)
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := t.makeAll(path.Dir(dir)); err != nil {
		return err
	}
	fd, base, err := t.parent(dir, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Mkdirat(fd, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		// A symbolic link that dangles is found by the open of the caller.
		return nil
	}
	if err == nil {
		err = chmodDirectory(fd, base, 0o755)
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: path.Join(t.root, dir), Err: err}
	}
	return nil
}

// chmodDirectory gives a directory that was just made its mode, which must not
// depend on the umask.
func chmodDirectory(dir int, base string, mode uint32) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}

// stat describes the last component itself.
func (t *tree) stat(name string) (Entry, error) {
	fault := func(err error) (Entry, error) {
		return Entry{}, &fs.PathError{Op: "stat", Path: path.Join(t.root, name), Err: err}
	}
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		e, err := entryOf(t.fd)
		if err != nil {
			return fault(err)
		}
		return e, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fd, err := t.directory(dir)
	if err != nil {
		return Entry{}, err
	}
	if fd < 0 {
		return fault(fs.ErrNotExist)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fault(err)
	}
	e, err := entry(st, fd, base)
	if err != nil {
		return fault(err)
	}
	return e, nil
}

// entryOf describes what a descriptor is of.
func entryOf(fd int) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Entry{}, err
	}
	return entry(st, fd, "")
}

// entry is what a stat says. Where it is of a symbolic link, that is read by a directory and
// its name in there, or by a descriptor of its own and "".
func entry(st unix.Stat_t, at int, name string) (Entry, error) {
	e := Entry{
		Mode: permissionsOf(st.Mode), UID: int(st.Uid), GID: int(st.Gid),
		Size: st.Size, Dev: st.Dev, Ino: st.Ino, Rdev: st.Rdev, Changed: st.Ctim.Nano(),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Mode |= fs.ModeDir
	case unix.S_IFLNK:
		e.Mode |= fs.ModeSymlink
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(at, name, buf)
		if err != nil {
			return Entry{}, fmt.Errorf("readlink: %w", err)
		}
		e.Target = string(buf[:n])
	case unix.S_IFBLK:
		e.Mode |= fs.ModeDevice
	case unix.S_IFCHR:
		e.Mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFIFO:
		e.Mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		e.Mode |= fs.ModeSocket
	}
	return e, nil
}

// read opens a regular file whose last component is no symbolic link.
func (t *tree) read(name string) (handle, error) {
	// O_NONBLOCK: a FIFO that somebody put there must not hold up a boot.
	fd, err := t.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w: a link stands in the file's place, or links lead in a circle", err)
	}
	if err != nil {
		return -1, err
	}
	h := handle(fd)
	if _, err := h.regular(); err != nil {
		h.Close()
		return -1, &fs.PathError{Op: "open", Path: path.Join(t.root, name), Err: err}
	}
	return h, nil
}

// readAll reads a small file, following symbolic links inside the tree. At most
// limit bytes: a longer one is an error.
func (t *tree) readAll(name string, limit int64) ([]byte, error) {
	fd, err := t.open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	h := handle(fd)
	defer h.Close()
	if _, err := h.regular(); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path.Join(t.root, name), Err: err}
	}
	return readBounded(h, path.Join(t.root, name), limit)
}

// errTooLong is the fault of a file that is not read to its end: it may be sparse, and
// larger than any disk or memory.
var errTooLong = errors.New("the file is too long")

// readBounded reads to the end, and fails where that is further than limit bytes away.
func readBounded(in io.Reader, shown string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", errTooLong, limit)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: shown, Err: err}
	}
	return data, nil
}

// unixMode gives the permission bits in the kernel's encoding.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// permissionsOf is the other way round.
func permissionsOf(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	if bits&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if bits&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if bits&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// permissions are the bits that chmod sets.
const permissions = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// volatile says whether name lies on a file system that is gone at the next boot.
func (t *tree) volatile(name string) (bool, error) {
	fd, err := t.open(name, unix.O_PATH, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: path.Join(t.root, name), Err: err}
	}
	switch st.Type {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return true, nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return overlayVolatile(path.Join(t.root, name))
	}
	return false, nil
}

// overlayVolatile looks where the upper layer of the overlay at name lies. An
// overlay without an upper layer is read-only, so nothing of ours is in it.
func overlayVolatile(name string) (bool, error) {
	m, options, err := mountOf(name)
	if err != nil {
		return false, err
	}
	for _, o := range strings.Split(options, ",") {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			var st unix.Statfs_t
			if err := unix.Statfs(upper, &st); err != nil {
				return false, fmt.Errorf("upper layer %s of the overlay on %s: %w", upper, m.Where, err)
			}
			return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC, nil
		}
	}
	return false, nil
}

// mountOf finds the mount that holds name, with its super options.
func mountOf(name string) (Mounted, string, error) {
	mounts, options, err := mountinfo()
	if err != nil {
		return Mounted{}, "", err
	}
	best := -1
	for i, m := range mounts {
		if m.Where == name || m.Where == "/" || strings.HasPrefix(name, m.Where+"/") {
			if best < 0 || len(m.Where) >= len(mounts[best].Where) {
				best = i
			}
		}
	}
	if best < 0 {
		return Mounted{}, "", fmt.Errorf("no mount holds %s", name)
	}
	return mounts[best], options[best], nil
}

// mountinfo reads /proc/self/mountinfo: mounts in mount order, with their super options.
func mountinfo() ([]Mounted, []string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return parseMountinfo(f)
}

// parseMountinfo reads the format of proc_pid_mountinfo(5).
func parseMountinfo(r io.Reader) (mounts []Mounted, options []string, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		sep := -1
		for i, f := range fields {
			if f == "-" {
				sep = i
				break
			}
		}
		if sep < 6 || len(fields) < sep+4 {
			return nil, nil, fmt.Errorf("mountinfo: %q is not a mount", lines.Text())
		}
		major, minor, _ := strings.Cut(fields[2], ":")
		maj, err1 := strconv.ParseUint(major, 10, 32)
		min, err2 := strconv.ParseUint(minor, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, nil, fmt.Errorf("mountinfo: device of %s: %w", fields[4], err)
		}
		mounts = append(mounts, Mounted{
			Where: unescape(fields[4]), Type: fields[sep+1], Source: unescape(fields[sep+2]),
			Major: uint32(maj), Minor: uint32(min),
			ReadOnly: has(strings.Split(fields[5], ","), "ro") || has(strings.Split(fields[sep+3], ","), "ro"),
		})
		options = append(options, fields[sep+3])
	}
	return mounts, options, lines.Err()
}

// escape is what fstab(5) asks for, and unescape undoes.
func escape(s string) string {
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(s)
}

// unescape undoes mountinfo's octal escapes for space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
