// Package disk looks at disks and their partition tables. It opens nothing for
// writing, runs no program, and needs no udev: disks come from sysfs, tables are read
// from the disks themselves, so that a partition can be found before its link in
// /dev/disk is made. What udev knows is used for what sysfs lacks.
//
// Four questions are answered:
//
//	which disks are there      System.Disks, System.Resolve, Select
//	what is on this one        System.Table, ReadTable
//	where is this partition    System.PartitionByUUID, System.PartitionsByType, Only
//	where did we boot from     BootPartition, System.BootDisk
//
// A disk is what stands for a medium of its own: no partition, no optical drive, no
// RAM disk, no empty drive, no loop device without a file, no boot area of an eMMC,
// no hidden path of an NVMe. Devices made upon others (device-mapper, MD, bcache) count
// only with System.Stacked, or when they are named by path.
//
// Identity is for telling disks apart before one of them is overwritten. So Select
// takes exactly one disk or none; what a disk does not say of itself is "" and matches
// nothing; and whoever cannot be looked at is an error, since it might have been a
// second match.
//
// The type System is where the machine comes in. Machine gives the real one; a test
// gives a map of files for sysfs and a function that opens images.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Disk is a whole disk and how it can be told from others.
type Disk struct {
	Node string // /dev/vda
	Name string // vda, the kernel's name

	Major, Minor int
	Size         int64 // in bytes
	SectorSize   int   // logical, in bytes: the unit of its partition table

	// Serial, WWN and Model are what the device, or else udev, says, without the
	// spaces around it; "" where neither says anything. WWN has the form of lsblk(8)
	// and udev's ID_WWN_WITH_EXTENSION: 0x5000c500a1b2c3d4, eui.0025388b710116a1.
	Serial, WWN, Model string

	// Transport has the words of lsblk(8)'s TRAN: nvme, sata, ata, usb, sas, spi, fc,
	// iscsi, virtio (virtio-scsi too), mmc; and xen, loop, scsi (a SCSI host that is
	// none of these, as under Hyper-V). "" for anything else.
	Transport string

	Removable, ReadOnly bool

	Holders []string // the kernel's names of devices made upon the whole disk: dm-0, md127
	Links   []string // the links /dev/disk/by-*/* that point here; none without udev
}

// String gives node, size and identity in one line, for messages. What the device
// says of itself is quoted.
func (d Disk) String() string {
	words := []string{formatSize(d.Size)}
	if d.Transport != "" {
		words = append(words, d.Transport)
	}
	for _, w := range [...][2]string{{"serial", d.Serial}, {"wwn", d.WWN}, {"model", d.Model}} {
		if w[1] != "" {
			words = append(words, w[0]+" "+strconv.Quote(w[1]))
		}
	}
	return d.Node + " (" + strings.Join(words, ", ") + ")"
}

// ReaderAtCloser is an open disk.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// A System is where disks are looked for. All fields but Stacked and Open must be set.
type System struct {
	Sys fs.FS  // sysfs
	Run fs.FS  // /run, for udev's database in udev/data
	Dev string // the directory of device nodes, as an absolute path

	// Open opens a disk for reading; nil opens the node, which must be a block device.
	Open func(node string) (ReaderAtCloser, error)

	// Stacked makes Disks, and all that looks through it, see device-mapper, MD and
	// bcache devices too.
	Stacked bool
}

// Machine is the machine that we run on.
func Machine() System {
	return System{Sys: os.DirFS("/sys"), Run: os.DirFS("/run"), Dev: "/dev"}
}

// A LookError says what could not be looked at, and why.
type LookError struct {
	Path string // a file of sysfs or /run, a device node or a link
	Err  error
}

func (e *LookError) Error() string { return "look at " + e.Path + ": " + e.Err.Error() }
func (e *LookError) Unwrap() error { return e.Err }

// lookError drops the path that an error of package fs has of its own, which is
// relative to a root that the reader does not see.
func lookError(path string, err error) *LookError {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &LookError{Path: path, Err: err}
}

// Disks gives every disk, by name. It fails with a *LookError if sysfs does not say
// what it says of every disk; a disk that is pulled out meanwhile is left out.
func (s System) Disks() ([]Disk, error) {
	names, err := s.list("block")
	if err != nil {
		return nil, err
	}
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	var disks []Disk
	for _, name := range names {
		d, k, err := s.disk(name, links)
		if err != nil {
			if _, gone := fs.Stat(s.Sys, "block/"+name); errors.Is(gone, fs.ErrNotExist) {
				continue
			}
			return nil, err
		}
		if k == kindDisk || k == kindStacked && s.Stacked {
			disks = append(disks, d)
		}
	}
	return disks, nil
}

// kind is what a directory in /sys/block stands for.
type kind int

const (
	kindNone kind = iota // nothing that could hold an operating system's data, or nothing at all
	kindDisk
	kindStacked
)

func (s System) disk(name string, links map[string][]string) (Disk, kind, error) {
	dir := "block/" + name
	// The boot and replay-protected areas of an eMMC are disks to the kernel, with the
	// serial of the card itself.
	area := numbered(name, "mmcblk") && strings.ContainsAny(name[len("mmcblk"):], "bgr")
	if area || numbered(name, "ram") || numbered(name, "zram") || numbered(name, "sr") ||
		numbered(name, "fd") || numbered(name, "mtdblock") {
		return Disk{}, kindNone, nil
	}
	hidden, err := s.flag(dir + "/hidden")
	if err != nil || hidden {
		return Disk{}, kindNone, err
	}
	blocks, err := s.number(dir + "/size")
	if err != nil || blocks == 0 {
		return Disk{}, kindNone, err
	}
	loop := numbered(name, "loop")
	if loop && !s.exists(dir+"/loop/backing_file") {
		return Disk{}, kindNone, nil
	}

	d := Disk{Name: name, Node: s.node(name)}
	d.Links = links[d.Node]
	if blocks > 1<<63/512-1 {
		return Disk{}, kindNone, &LookError{"/sys/" + dir + "/size", fmt.Errorf("%d sectors", blocks)}
	}
	d.Size = int64(blocks) * 512 // sysfs counts in 512 bytes whatever the sector size is
	if d.Major, d.Minor, err = s.deviceNumber(dir + "/dev"); err != nil {
		return Disk{}, kindNone, err
	}
	sectorSize, err := s.number(dir + "/queue/logical_block_size")
	if err != nil {
		return Disk{}, kindNone, err
	}
	d.SectorSize = int(sectorSize)
	if d.ReadOnly, err = s.flag(dir + "/ro"); err != nil {
		return Disk{}, kindNone, err
	}
	if d.Removable, err = s.flag(dir + "/removable"); err != nil {
		return Disk{}, kindNone, err
	}
	if d.Holders, err = s.list(dir + "/holders"); err != nil {
		return Disk{}, kindNone, err
	}
	below, err := s.list(dir + "/slaves")
	if err != nil {
		return Disk{}, kindNone, err
	}
	if len(below) > 0 || numbered(name, "dm-") || s.exists(dir+"/md") {
		return d, kindStacked, nil
	}
	if err := s.identify(&d); err != nil {
		return Disk{}, kindNone, err
	}
	return d, kindDisk, nil
}

// numbered says whether name is prefix and then a digit: sr0 is numbered sr, srx is not.
func numbered(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

// node is where devtmpfs puts a device: the kernel writes ! for / in its names.
func (s System) node(name string) string {
	return s.Dev + "/" + strings.ReplaceAll(name, "!", "/")
}

// links gives the links in /dev/disk/by-*, by the node that they point to. The links
// themselves count, not udev's database: where two disks claim one, udev decides.
func (s System) links() (map[string][]string, error) {
	links := make(map[string][]string)
	top := filepath.Join(s.Dev, "disk")
	all, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, lookError(top, err)
	}
	for _, by := range all {
		dir := filepath.Join(top, by.Name())
		if !strings.HasPrefix(by.Name(), "by-") {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, lookError(dir, err)
		}
		for _, e := range entries {
			link := filepath.Join(dir, e.Name())
			target, err := os.Readlink(link)
			if err != nil {
				continue // udev has taken it away, or it is no link
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(dir, target)
			}
			links[target] = append(links[target], link)
		}
	}
	return links, nil
}

// open opens a disk for reading. Closing it wakes nobody: udev watches for disks that
// were open for writing.
func (s System) open(node string) (ReaderAtCloser, error) {
	if s.Open != nil {
		return s.Open(node)
	}
	f, err := os.Open(node)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		err = errors.New("not a block device")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// maxAttribute is more than sysfs gives for any attribute that is read here.
const maxAttribute = 64 << 10

// raw reads a file of sysfs.
func (s System) raw(file string) ([]byte, error) {
	f, err := s.Sys.Open(file)
	if err != nil {
		return nil, lookError("/sys/"+file, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAttribute))
	if err != nil {
		return nil, lookError("/sys/"+file, err)
	}
	return data, nil
}

// number reads an attribute that holds one decimal number.
func (s System) number(file string) (uint64, error) {
	data, err := s.raw(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, &LookError{"/sys/" + file, err}
	}
	return n, nil
}

// flag reads an attribute that is 0 or 1; a kernel that does not have it says 0.
func (s System) flag(file string) (bool, error) {
	n, err := s.number(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return n != 0, err
}

// optional reads what a device may say of itself: nil where it has no such attribute,
// or has it and answers that it does not know.
func (s System) optional(file string) ([]byte, error) {
	data, err := s.raw(file)
	for _, none := range [...]error{fs.ErrNotExist, unix.ENXIO, unix.EINVAL, unix.ENODATA, unix.EOPNOTSUPP} {
		if errors.Is(err, none) {
			return nil, nil
		}
	}
	return data, err
}

// text is optional without the spaces and zeros around it.
func (s System) text(file string) (string, error) {
	data, err := s.optional(file)
	return trim(data), err
}

func trim(data []byte) string { return strings.Trim(string(data), " \t\n\x00") }

func (s System) exists(file string) bool {
	_, err := fs.Stat(s.Sys, file)
	return err == nil
}

// list gives the names in a directory, in order; none if it is not there.
func (s System) list(dir string) ([]string, error) {
	entries, err := fs.ReadDir(s.Sys, dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && dir != "block" {
			return nil, nil
		}
		return nil, lookError("/sys/"+dir, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

func (s System) deviceNumber(file string) (major, minor int, err error) {
	data, err := s.raw(file)
	if err != nil {
		return 0, 0, err
	}
	first, second, _ := strings.Cut(trim(data), ":")
	if major, err = strconv.Atoi(first); err == nil {
		minor, err = strconv.Atoi(second)
	}
	if err != nil {
		return 0, 0, &LookError{"/sys/" + file, err}
	}
	return major, minor, nil
}

// canonical gives the place of a file of sysfs in its tree of devices.
func (s System) canonical(file string) (string, error) {
	info, err := fs.Lstat(s.Sys, file)
	if err != nil {
		return "", lookError("/sys/"+file, err)
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return file, nil
	}
	target, err := fs.ReadLink(s.Sys, file)
	if err != nil {
		return "", lookError("/sys/"+file, err)
	}
	place := path.Join(path.Dir(file), target)
	if !fs.ValidPath(place) {
		return "", &LookError{"/sys/" + file, fmt.Errorf("link to %s leaves sysfs", target)}
	}
	return place, nil
}
