package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Known is a partition as the kernel has it, whatever a table says.
type Known struct {
	Number        int
	Name, Node    string // vda3, /dev/vda3
	Major, Minor  int
	Start, Length uint64 // in 512 bytes; of a Mapped one the start is not known
	Holders       []string
	Mapped        bool // a device-mapper device that stands for the partition of another one
}

// Is says whether it lies where p does in a table with sectors of that size.
func (k Known) Is(p Partition, sectorSize int) bool {
	per := uint64(sectorSize / 512)
	return k.Number == p.Number && (k.Mapped || k.Start == p.First*per) && k.Length == p.Sectors()*per
}

// Known gives the partitions of a disk. Those of a device-mapper device are devices
// upon it, which kpartx(8) made: their UUID is partN- and that of the disk.
func (s System) Known(d Disk) ([]Known, error) {
	list, err := s.partitions(d.Name)
	if err != nil {
		return nil, err
	}
	var known []Known
	for _, p := range list {
		dir := "block/" + d.Name + "/" + p.name
		k := Known{Number: p.number, Name: p.name, Node: s.node(p.name), Start: p.start, Length: p.length}
		if k.Major, k.Minor, err = s.deviceNumber(dir + "/dev"); err != nil {
			return nil, err
		}
		if k.Holders, err = s.list(dir + "/holders"); err != nil {
			return nil, err
		}
		known = append(known, k)
	}
	if !s.Mapped(d) {
		return known, nil
	}
	for _, name := range d.Holders {
		number, ok, err := s.partOf(name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		k := Known{Number: number, Name: name, Node: s.node(name), Mapped: true}
		if k.Length, err = s.number("block/" + name + "/size"); err != nil {
			return nil, err
		}
		if k.Major, k.Minor, err = s.deviceNumber("block/" + name + "/dev"); err != nil {
			return nil, err
		}
		if k.Holders, err = s.list("block/" + name + "/holders"); err != nil {
			return nil, err
		}
		known = append(known, k)
	}
	return known, nil
}

// partOf gives the number of the partition that a device-mapper device stands for.
func (s System) partOf(name string) (number int, ok bool, err error) {
	data, err := s.optional("block/" + name + "/dm/uuid")
	if err != nil {
		return 0, false, err
	}
	rest, isPart := strings.CutPrefix(trim(data), "part")
	digits, _, dash := strings.Cut(rest, "-")
	if number, err = strconv.Atoi(digits); !isPart || !dash || err != nil {
		return 0, false, nil
	}
	return number, true, nil
}

// Mapped says whether a disk is a device-mapper device, as a multipath one is. The
// kernel knows no partitions of those: kpartx(8), which udev starts, makes devices upon
// them.
func (s System) Mapped(d Disk) bool { return s.exists("block/" + d.Name + "/dm") }

// Udev says whether udevd runs. It makes its socket before anything else.
func (s System) Udev() bool {
	_, err := fs.Stat(s.Run, "udev/control")
	return err == nil
}

// Noticed says what is still missing of a partition that the kernel was told of: its
// node and, where udevd runs, that udev has read the partition's UUID from the table and
// made its link. nil means that nothing is.
func (s System) Noticed(k Known, uuid GUID) error {
	info, err := os.Stat(k.Node)
	if err != nil {
		return lookError(k.Node, err)
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		return &LookError{k.Node, errors.New("not a block device")}
	}
	if !s.Udev() {
		return nil
	}
	props, err := s.udev(k.Major, k.Minor)
	if err != nil {
		return err
	}
	file := fmt.Sprintf("/run/udev/data/b%d:%d", k.Major, k.Minor)
	if props["ID_PART_ENTRY_UUID"] != uuid.String() {
		return &LookError{file, fmt.Errorf("ID_PART_ENTRY_UUID is %q, and not yet %s: %w", props["ID_PART_ENTRY_UUID"], uuid, fs.ErrNotExist)}
	}
	// The link leads elsewhere where another disk, such as a copy of this one, claims it
	// too: then udev has decided, and there is nothing to wait for.
	link := filepath.Join(s.Dev, "disk/by-partuuid", uuid.String())
	if _, err := os.Readlink(link); err != nil {
		return lookError(link, err)
	}
	return nil
}
