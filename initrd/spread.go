package initrd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// Spread wishes that the partition table of a disk spans the disk. An image that
// was written to a larger disk has a table that ends where the image ended, and
// systemd-repart finds no free space behind it.
type Spread struct {
	On Selector
	Of string // the entry of the config's list repart that asks for it
}

func (s Spread) String() string { return fmt.Sprintf("partition table spans %s", s.On) }

// Touches is the disks.
func (s Spread) Touches() []string { return []string{"disks"} }

// Resolve compares where the backup of the table is with where the disk ends. A
// disk without a table has none to spread.
func (s Spread) Resolve(look Look) (State, Act, error) {
	d, err := look.Disk(s.On)
	if err != nil {
		return unresolved, nil, err
	}
	spans, err := spans(look, d)
	if err != nil {
		return unresolved, nil, err
	}
	if spans {
		return So, nil, nil
	}
	return NotSo, spread{s, d}, nil
}

// spans says whether the table of a disk, if it has one, reaches its end.
func spans(look Look, d disk.Disk) (bool, error) {
	table, err := look.Table(d)
	if errors.Is(err, disk.ErrNoTable) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return table.Used == disk.Primary && table.Alternate == table.Last(d.Size), nil
}

type spread struct {
	Spread
	disk disk.Disk
}

func (s spread) String() string {
	return "move the end of the partition table to the end of " + s.disk.Node
}

// Effect is that the table is written anew; no data is lost.
func (s spread) Effect() (Effect, []string) { return Changes, nil }

func (s spread) do(_ context.Context, _ *Machine) error {
	f, err := os.OpenFile(s.disk.Node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// udev and others keep their hands off while the lock is held (BSD lock on the
	// node of the whole disk).
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", s.disk.Node, err)
	}
	return disk.Spread(f, s.disk.Size, s.disk.SectorSize, f.Sync)
}
