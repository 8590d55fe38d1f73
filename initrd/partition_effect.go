package initrd

import (
	"fmt"
	"slices"
	"strings"

	"pilotlight/initrd/disk"
)

func (a layout) String() string {
	switch {
	case !a.write && len(a.stale)+len(a.missing) > 0:
		return "tell the kernel of the partitions of " + a.disk.Node
	case !a.write: // the run that wrote it ended before it could say so
		return "note that " + a.disk.Node + " is partitioned"
	}
	var parts []string
	for _, c := range a.changes {
		switch c.Deed {
		case disk.Make:
			parts = append(parts, "make "+a.measured(c.New))
		case disk.Remove:
			parts = append(parts, "delete "+c.Old.Title())
		case disk.Replace:
			parts = append(parts, "delete "+c.Old.Title(), "make "+a.measured(c.New))
		case disk.Resize:
			parts = append(parts, "resize "+a.measured(c.New))
		}
	}
	text := "change the partition table of "
	switch {
	case a.wipe && a.now == nil:
		return "WIPE the partition table of " + a.disk.Node
	case a.wipe && (a.was != nil || a.loses != ""):
		text = "WIPE the partition table of "
	case a.was == nil:
		text = "make a partition table on "
	case len(parts) == 0:
		return "restore the partition table of " + a.disk.Node + " from its backup"
	}
	return text + a.disk.Node + ": " + strings.Join(parts, ", ")
}

// measured says where a partition is.
func (a layout) measured(p disk.Partition) string {
	per := float64(1<<20) / float64(a.disk.SectorSize)
	return fmt.Sprintf("%s of %.4g MiB at %.4g MiB", p.Title(), float64(p.Sectors())/per, float64(p.First)/per)
}

// Effect names the partitions that are lost. What lies in them stays on the disk, and
// nobody finds it any more.
func (a layout) Effect() (Effect, []string) {
	if !a.write {
		return Makes, nil
	}
	var lost []string
	switch {
	case a.wipe && a.loses != "":
		lost = append(lost, a.loses)
	case a.wipe && a.was != nil:
		lost = append(lost, fmt.Sprintf("the partition table of %s with %s", a.disk.Node, count(len(a.was.Partitions), "partition")))
	}
	for _, c := range a.changes {
		switch {
		case c.Deed == disk.Remove || c.Deed == disk.Replace:
			lost = append(lost, c.Old.Title()+" of "+a.disk.Node)
		case c.Deed == disk.Resize && c.New.Last < c.Old.Last:
			lost = append(lost, fmt.Sprintf("the last %d sectors of %s of %s", c.Old.Last-c.New.Last, c.Old.Title(), a.disk.Node))
		}
	}
	if len(lost) > 0 {
		return Destroys, lost
	}
	if a.was == nil {
		return Makes, nil
	}
	return Changes, nil
}

// resized gives the change that makes a partition of the kernel longer or shorter where
// it is. Nothing happens to those who have it open.
func (a layout) resized(k disk.Known) (disk.Partition, bool) {
	i := slices.IndexFunc(a.changes, func(c disk.Change) bool {
		return c.Deed == disk.Resize && !k.Mapped && k.Is(c.Old, a.disk.SectorSize)
	})
	if i < 0 {
		return disk.Partition{}, false
	}
	return a.changes[i].New, true
}
