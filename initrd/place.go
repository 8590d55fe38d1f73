package initrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// Identify is what a disk is known by.
type Identify struct {
	GPT    string `json:"gpt"`              // the disk GUID
	Serial string `json:"serial,omitempty"` // the drive's own, where it has one
	WWN    string `json:"wwn,omitempty"`
}

// A Place is where a record can lie. The zero value is none: a diskless machine.
type Place struct {
	Node string
	Disk Identify
	Kind string // "ESP", "XBOOTLDR" or "state partition"
}

func (p Place) String() string {
	if p.Node == "" {
		return "nowhere"
	}
	return p.Kind + " " + p.Node
}

// same compares what both know.
func (d Identify) same(o Identify) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return d.GPT == o.GPT && !differ(d.Serial, o.Serial) && !differ(d.WWN, o.WWN)
}

// places finds where the record can lie, the best place first: on XBOOTLDR or the ESP
// of the disk that we were started from; else on the one partition of our own type.
func (m *Machine) places(ctx context.Context) ([]Place, error) {
	boot, err := bootPartition()
	if err == nil {
		what := fmt.Sprintf("the boot partition (UUID %s)", boot)
		found, err := waitFor(ctx, m, what, func() ([]disk.Found, error) { return m.partitions(boot) })
		if err != nil {
			return nil, err
		}
		one, err := disk.Only(what, found)
		if err != nil {
			return nil, err
		}
		return m.bootPlaces(one)
	}
	if !errors.Is(err, disk.ErrNotSet) {
		return nil, err
	}
	// Without the firmware's word no single device can be waited for: only for udev
	// to be done with what the kernel found.
	if _, err := m.Look(ctx).Ask(Query{Program: "udevadm", Args: []string{"settle", "--timeout=60"}}); err != nil {
		return nil, err
	}
	found, err := m.Disks.PartitionsByType(disk.TypeState())
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, nil
	}
	one, err := disk.Only("state partition", found)
	if err != nil {
		return nil, err
	}
	id, err := m.identify(one)
	return []Place{{Node: one.Partition.Node, Disk: id, Kind: "state partition"}}, err
}

// bootPlaces are those on the boot disk. XBOOTLDR first: where there is one, the ESP
// is small. But it may be younger than a record on the ESP.
func (m *Machine) bootPlaces(boot disk.Found) ([]Place, error) {
	table, err := m.Disks.Table(boot.Disk)
	if err != nil {
		return nil, err
	}
	id, err := m.identify(boot)
	if err != nil {
		return nil, err
	}
	var list []Place
	for _, p := range table.Partitions {
		if p.Type == disk.TypeXBOOTLDR() && p.Node != "" {
			list = append(list, Place{Node: p.Node, Disk: id, Kind: "XBOOTLDR"})
		}
	}
	if boot.Partition.Type != disk.TypeXBOOTLDR() {
		return append(list, Place{Node: boot.Partition.Node, Disk: id, Kind: "ESP"}), nil
	}
	for _, p := range table.Partitions {
		if p.Type == disk.TypeESP() && p.Node != "" {
			list = append(list, Place{Node: p.Node, Disk: id, Kind: "ESP"})
		}
	}
	return list, nil
}

func (m *Machine) identify(f disk.Found) (Identify, error) {
	table, err := m.Disks.Table(f.Disk)
	if err != nil {
		return Identify{}, err
	}
	return Identify{GPT: table.GUID.String(), Serial: f.Disk.Serial, WWN: f.Disk.WWN}, nil
}

// at mounts the place, privately and only for as long as do runs, and gives it
// our directory there.
func (m *Machine) at(p Place, write bool, do func(dir string) error) (err error) {
	point, err := os.MkdirTemp(m.Run, "place-")
	if err != nil {
		return err
	}
	defer os.Remove(point)
	// No links: what lies there may lead anywhere.
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSYMFOLLOW)
	if !write {
		flags |= unix.MS_RDONLY
	}
	types := []string{"vfat"}
	if p.Kind != "ESP" {
		types = append(types, "ext4", "btrfs", "xfs")
	}
	for _, t := range types {
		options := ""
		if t == "vfat" {
			options = "umask=0077"
		}
		refused := unix.Mount(p.Node, point, t, flags, options)
		if refused == nil {
			err = nil
			break
		}
		if err == nil {
			err = fmt.Errorf("mount %s as %s: %w", p.Node, t, refused)
		} else {
			err = fmt.Errorf("%w, as %s: %w", err, t, refused)
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Unmount(point, 0); err == nil && uerr != nil {
			err = fmt.Errorf("unmount %s: %w", p.Node, uerr)
		}
	}()
	return do(filepath.Join(point, "pilotlight"))
}
