package initrd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// A Drive is a file system with a label, of the kinds that removable media have. The
// label is read from the device itself, so that it is there before udev's links are.
type Drive struct {
	Node   string   // /dev/sr0
	Type   string   // vfat or iso9660, as mount(8) calls them
	Labels []string // as they are written there; vfat may have two
}

// Drives gives those of all disks, optical drives and partitions, by node, when udev
// is done with what it knows of by now. It fails where one cannot be read: its label
// might have been the one that is looked for. An empty drive has none.
func Drives(ctx context.Context) ([]Drive, error) {
	// Without udev, as in a container, there is nobody to wait for.
	if _, err := os.Stat("/run/udev/control"); err == nil {
		m := &Machine{Programs: []string{"/usr/bin", "/bin"}}
		if _, _, err := m.run(ctx, Program{Argv: []string{"udevadm", "settle", "--timeout=30"}}); err != nil {
			return nil, err
		}
	}
	return drives(disk.Machine())
}

func drives(s disk.System) ([]Drive, error) {
	entries, err := fs.ReadDir(s.Sys, "class/block")
	if err != nil {
		return nil, fmt.Errorf("drives: %w", err)
	}
	var list []Drive
	for _, e := range entries {
		readable, err := couldHold(s.Sys, e.Name())
		if err == nil && readable {
			d := Drive{Node: s.Dev + "/" + strings.ReplaceAll(e.Name(), "!", "/")}
			if err = d.read(s); err == nil && d.Type != "" && len(d.Labels) > 0 {
				list = append(list, d)
			}
		}
		if _, gone := fs.Stat(s.Sys, "class/block/"+e.Name()); errors.Is(gone, fs.ErrNotExist) {
			continue // pulled out meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("drives: %s: %w", e.Name(), err)
		}
	}
	return list, nil
}

// couldHold says whether a block device could be a medium: what has a size, and is not
// made of memory or of other devices.
func couldHold(sys fs.FS, name string) (bool, error) {
	for _, no := range [...]string{"ram", "zram", "fd", "dm-", "md", "mtdblock"} {
		rest, ok := strings.CutPrefix(name, no)
		if ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
			return false, nil
		}
	}
	for file, no := range map[string]string{"size": "0", "hidden": "1"} {
		data, err := fs.ReadFile(sys, "class/block/"+name+"/"+file)
		if file == "hidden" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || strings.TrimSpace(string(data)) == no {
			return false, err
		}
	}
	return true, nil
}

// read finds out what is on a device.
func (d *Drive) read(s disk.System) error {
	open := s.Open
	if open == nil {
		open = func(node string) (disk.ReaderAtCloser, error) {
			// A drive whose tray is open must not be waited for.
			return os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
		}
	}
	f, err := open(d.Node)
	if errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if label, ok, err := isoLabel(f); err != nil || ok {
		d.Type, d.Labels = "iso9660", named(label)
		return err
	}
	labels, ok, err := fatLabels(f)
	if ok {
		d.Type, d.Labels = "vfat", named(labels...)
	}
	return err
}

// named drops what is no name, and what is there twice.
func named(labels ...string) []string {
	slices.Sort(labels)
	return slices.DeleteFunc(slices.Compact(labels), func(l string) bool { return l == "" || l == "NO NAME" })
}

// at reads n bytes; nil where the device ends before, or has no medium.
func at(f io.ReaderAt, offset int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, offset)
	switch {
	case got == n:
		return b, nil
	case errors.Is(err, io.EOF), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENXIO):
		return nil, nil
	}
	return nil, err
}

// isoLabel reads the primary volume descriptor (ECMA-119, section 8.4), the first of
// a list that begins in sector 16.
func isoLabel(f io.ReaderAt) (string, bool, error) {
	const sector, first, most = 2048, 16, 16
	for i := range int64(most) {
		b, err := at(f, (first+i)*sector, 72)
		if err != nil || b == nil || string(b[1:6]) != "CD001" || b[0] == 255 {
			return "", false, err
		}
		if b[0] == 1 {
			return padded(b[40:72]), true, nil
		}
	}
	return "", false, nil
}

// fatLabels reads the label in the boot sector and the one in the root directory, of
// which tools change now one, now the other, now both. The format is Microsoft's "FAT:
// General Overview of On-Disk Format", which ECMA-107 is the older half of.
func fatLabels(f io.ReaderAt) (labels []string, ok bool, err error) {
	b, err := at(f, 0, 512)
	if err != nil || b == nil {
		return nil, false, err
	}
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	long := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	sector, cluster, reserved, fats, entries := word(11), int64(b[13]), word(14), int64(b[16]), word(17)
	power := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if word(510) != 0xaa55 || b[0] != 0xeb && b[0] != 0xe9 || !power(sector) || sector < 512 || sector > 4096 ||
		!power(cluster) || reserved == 0 || fats != 1 && fats != 2 || b[21] < 0xf0 {
		return nil, false, nil
	}
	size, signature := word(22), 38
	root, length := (reserved+fats*size)*sector, entries*32
	if size == 0 { // FAT32: the root directory is a chain of clusters; its first one is enough
		signature = 66
		root = (reserved+fats*long(36))*sector + (long(44)-2)*cluster*sector
		length = cluster * sector
	}
	if b[signature] == 0x29 {
		labels = append(labels, padded(b[signature+5:signature+16]))
	}
	if root <= 0 {
		return labels, true, nil
	}
	dir, err := at(f, root, int(min(length, 64<<10)))
	if err != nil {
		return nil, false, err
	}
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		const volume, dirOrVolume, longName, deleted = 0x08, 0x18, 0x0f, 0xe5
		if a := dir[11]; a&dirOrVolume == volume && a&longName != longName && dir[0] != deleted {
			labels = append(labels, padded(dir[:11]))
			break
		}
	}
	return labels, true, nil
}

func padded(b []byte) string { return string(bytes.TrimRight(b, " \x00")) }

// OpenDrive mounts a drive for as long as use runs: read-only, nosuid, nodev, noexec,
// and at no path at all (fsmount(2), Linux 5.2), so that nobody else sees it and a
// crash leaves nothing behind. What use is given opens regular files alone, and
// follows no symbolic link.
func OpenDrive(d Drive, use func(root fs.FS) error) error {
	fail := func(what string, err error) error {
		return fmt.Errorf("mount %s as %s: %s: %w", d.Node, d.Type, what, err)
	}
	sb, err := unix.Fsopen(d.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail("file system", err)
	}
	defer unix.Close(sb)
	if err := unix.FsconfigSetString(sb, "source", d.Node); err != nil {
		return fail("source", err)
	}
	if err := unix.FsconfigSetFlag(sb, "ro"); err != nil {
		return fail("read-only", err)
	}
	if err := unix.FsconfigCreate(sb); err != nil {
		return fail("superblock", err)
	}
	root, err := unix.Fsmount(sb, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fail("mount", err)
	}
	// The last descriptor is the mount.
	defer unix.Close(root)
	return use(regularFiles(root))
}

// regularFiles is the directory of a descriptor as a file system that has regular
// files alone.
type regularFiles int

func (dir regularFiles) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	fd, err := unix.Openat2(int(dir), name, &unix.OpenHow{
		// A FIFO must not be waited for.
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.ELOOP) {
		return fail(errors.New("a symbolic link, which is not followed here"))
	}
	if err != nil {
		return fail(err)
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return fail(err)
	}
	return f, nil
}
