package initrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// makeFilesystem wipes what is there and runs mkfs. Whoever is killed in between leaves a
// device on which [disk.Probe] finds nothing, or something unfinished, and both are made
// anew: first all signatures go, and the new one is complete only when all is.
//
//	ext4   mke2fs writes the superblock after all else is on the disk
//	xfs    sb_inprogress is set until all is on the disk; the kernel refuses that too
//	btrfs  the magic is another one until all is on the disk
//	swap   there is nothing but the header, and no part of it is enough
//	vfat   the boot sector comes first: a mark of ours stands in the last sector until all
//	       is on the disk, where mkfs.fat writes nothing
//
// So no record is needed to tell, and a machine without a place for one is as safe. What
// is wiped by the config's word is an event: the receipt is left when the new file system
// is there, since until then nobody can have put anything into it.
type makeFilesystem struct {
	Filesystem
	node string
	have disk.Superblock
	lost string // what is erased, "" for nothing
}

func (a makeFilesystem) String() string {
	text := fmt.Sprintf("make %s on %s", a.wanted(), a.node)
	if a.kind() == "" {
		text = "wipe " + a.node
	}
	if a.lost != "" {
		text += ", ERASING " + a.lost
	}
	return text
}

// Effect is what is lost.
func (a makeFilesystem) Effect() (Effect, []string) {
	if a.lost != "" {
		return Destroys, []string{a.lost + " on " + a.node}
	}
	return Makes, nil
}

// argv is the call of mkfs, as Ignition has it: the config's options first.
func (a makeFilesystem) argv() ([]string, error) {
	var program, force, uuid, label string
	prefix := ""
	switch a.Format {
	case "ext4":
		program, force, uuid, label = "mkfs.ext4", "-F", "-U", "-L"
	case "btrfs":
		program, force, uuid, label = "mkfs.btrfs", "--force", "-U", "-L"
	case "xfs":
		program, force, uuid, label, prefix = "mkfs.xfs", "-f", "-m", "-L", "uuid="
	case "swap":
		program, force, uuid, label = "mkswap", "-f", "-U", "-L"
	case "vfat":
		program, uuid, label = "mkfs.vfat", "-i", "-n" // it asks nobody
	default:
		return nil, fmt.Errorf("no file system is called %q", a.Format)
	}
	argv := append([]string{program}, a.Options...)
	if force != "" {
		argv = append(argv, force)
	}
	if a.UUID != nil {
		argv = append(argv, uuid, prefix+canonicalUUID(a.Format, *a.UUID))
	}
	if a.Label != nil {
		argv = append(argv, label, *a.Label)
	}
	return append(argv, a.node), nil
}

func (a makeFilesystem) do(ctx context.Context, m *Machine) error {
	// Two entries may name one device in two ways.
	leave, err := m.occupy(a.node)
	if err != nil {
		return err
	}
	defer leave()
	// Held open over all of it: udev looks at a device when somebody closes it who could
	// write, and the last to close it is this.
	f, err := os.OpenFile(a.node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	marked, err := a.wipe(ctx, m, f)
	if err != nil {
		return err
	}
	letGo()
	if a.kind() != "" {
		argv, err := a.argv()
		if err != nil {
			return err
		}
		if _, _, err := m.run(ctx, Program{Argv: argv}); err != nil {
			return err
		}
	}
	if err := onDisk(f); err != nil {
		return err
	}
	if marked {
		if err := a.unmark(f); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if a.Wipe {
		if err := m.Keep(a.receipt(ScopeProvision)); err != nil {
			return err
		}
	}
	m.leave(a.receipt(ScopeBoot))
	return m.noticed(ctx, a.node)
}

// What is zeroed at either end of a device, in bytes: all that disk.Probe looks for lies
// in there.
const (
	wipedHead = 5 << 20
	wipedTail = 1 << 20
)

// wipe takes away all signatures, and sets the mark where one is needed.
func (a makeFilesystem) wipe(ctx context.Context, m *Machine, f *os.File) (marked bool, err error) {
	claim, err := unix.Open(a.node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open for itself alone", Path: a.node, Err: err}
	}
	defer unix.Close(claim)
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	// The mark comes before the end of what it speaks of.
	if a.Format == "vfat" && size >= 64<<10 {
		if _, err := f.WriteAt(disk.Mark(a.Format), disk.MarkOffset(size)); err != nil {
			return false, err
		}
		marked = true
	}
	head := min(size, wipedHead)
	tail := max(head, size-wipedTail)
	end := size
	if marked {
		end = disk.MarkOffset(size)
	}
	if err := zero(f, 0, min(head, end)); err != nil {
		return false, err
	}
	if err := zero(f, tail, end); err != nil {
		return false, err
	}
	if err := onDisk(f); err != nil {
		return false, err
	}
	left, err := disk.Probe(f, size)
	if err != nil {
		return false, err
	}
	if left != (disk.Superblock{}) && !left.Unfinished {
		return false, fmt.Errorf("%s is still on %s after wiping", left, a.node)
	}
	if a.have.Table == "" {
		return marked, nil
	}
	// The kernel shall not know the partitions any longer that were in the table. udev may be
	// looking at one.
	_, err = waitFor(ctx, m, "the partitions of "+a.node+" to be let go", func() (struct{}, error) {
		err := unix.IoctlSetInt(claim, unix.BLKRRPART, 0)
		switch {
		case errors.Is(err, unix.EBUSY):
			err = absentf("%v", err)
		case errors.Is(err, unix.EINVAL): // of what has none
			err = nil
		}
		return struct{}{}, err
	})
	return marked, err
}

// unmark takes the mark away: from here on the file system is whole.
func (a makeFilesystem) unmark(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, disk.MarkSize), disk.MarkOffset(size)); err != nil {
		return err
	}
	return onDisk(f)
}

// zero writes zeros from one offset up to another.
func zero(f *os.File, from, to int64) error {
	zeros := make([]byte, 1<<20)
	for from < to {
		n, err := f.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// onDisk waits until all that was written to a device is on it, whoever wrote it.
func onDisk(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// occupy notes that a deed of this process is at work on a device.
func (m *Machine) occupy(node string) (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.occupied[node] {
		return nil, fmt.Errorf("another entry of the config is about %s too", node)
	}
	if m.occupied == nil {
		m.occupied = map[string]bool{}
	}
	m.occupied[node] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.occupied, node)
	}, nil
}
