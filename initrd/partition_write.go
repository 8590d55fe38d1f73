package initrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// do carries the wish out as things stand when the disk is locked (BSD lock on the node
// of the whole disk, which udev and systemd-repart know too).
//
//	lock for writing ─ the kernel forgets what goes ─ write
//	lock for reading ─ the kernel learns what comes ─ wait for nodes and links ─ receipt
//
// The second lock is shared with udev's workers, which look at the new partitions under
// such a one. But udevd, which notices that somebody has written, does not get the lock
// that it needs to have the kernel read the whole table again, so that no partition
// vanishes and comes back under the next step.
func (a layout) do(ctx context.Context, m *Machine) error {
	lock, err := m.lockDisk(ctx, a.disk.Node)
	if err != nil {
		return err
	}
	defer lock.Close()
	again, err := a.plan(m.Look(ctx), a.disk)
	if err != nil || again == nil {
		return err
	}
	return again.carryOut(ctx, m, lock)
}

func (a layout) carryOut(ctx context.Context, m *Machine, lock *os.File) error {
	mapped := m.Disks.Mapped(a.disk)
	if mapped && !m.Disks.Udev() {
		return fmt.Errorf("%s is a device-mapper device, whose partitions are made by udev's rules for kpartx, and no udevd runs", a.disk.Node)
	}
	for _, k := range a.stale {
		if _, ok := a.resized(k); !ok && a.write && k.Node == m.memory.Place.Node {
			return fmt.Errorf("partition %d of %s cannot be changed: the record of this machine is on it", k.Number, a.disk.Node)
		}
	}
	if a.once() && a.write && a.now != nil {
		if err := m.Keep(a.written(a.now)); err != nil {
			return err
		}
	}
	for _, k := range a.stale {
		if _, ok := a.resized(k); ok || k.Mapped {
			continue
		}
		if err := m.forgetPartition(ctx, lock, k); err != nil {
			return err
		}
	}
	if err := a.store(lock); err != nil {
		return err
	}
	if err := a.announce(lock, mapped); err != nil {
		return err
	}
	for _, p := range a.missing {
		if err := a.await(ctx, m, p); err != nil {
			return err
		}
	}
	if !a.once() {
		return nil
	}
	return m.Keep(a.receipt())
}

// lockDisk opens a disk and locks it for writing.
func (m *Machine) lockDisk(ctx context.Context, node string) (*os.File, error) {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	_, err = waitFor(ctx, m, "the lock on "+node, func() (struct{}, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return struct{}{}, absentf("somebody else has it")
		}
		return struct{}{}, err
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// store writes the table, if there is something to write, and then locks the disk for
// reading. The file that it is written through is closed after that and before the
// kernel is told: so udevd has noticed the writing before it hears of partitions.
func (a layout) store(lock *os.File) (err error) {
	share := func() error {
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
			return fmt.Errorf("lock %s for reading: %w", a.disk.Node, err)
		}
		return nil
	}
	if !a.write {
		return share()
	}
	f, err := os.OpenFile(a.disk.Node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	d := disk.Device{RW: f, Size: a.disk.Size, SectorSize: a.disk.SectorSize, Sync: f.Sync}
	write := disk.WriteTable
	if a.wipe {
		write = disk.WipeTable
	}
	if err := write(d, a.now); err != nil {
		return err
	}
	return share()
}

// announce tells the kernel, partition by partition, so that others of the same disk may
// be in use. Those of a device-mapper device are made by udev when it hears of a change.
func (a layout) announce(lock *os.File, mapped bool) error {
	if mapped {
		name := "/sys/block/" + a.disk.Name + "/uevent"
		if err := os.WriteFile(name, []byte("change"), 0); err != nil {
			return err
		}
		return nil
	}
	longer := map[int]bool{}
	for _, k := range a.stale {
		p, ok := a.resized(k)
		if !ok {
			continue
		}
		longer[p.Number] = true
		if err := tellKernel(lock, unix.BLKPG_RESIZE_PARTITION, p, a.disk.SectorSize); err != nil {
			return fmt.Errorf("resize %s for the kernel: %w", p.Title(), err)
		}
	}
	for _, p := range a.missing {
		if longer[p.Number] {
			continue
		}
		if err := tellKernel(lock, unix.BLKPG_ADD_PARTITION, p, a.disk.SectorSize); err != nil {
			return fmt.Errorf("tell the kernel of %s: %w", p.Title(), err)
		}
	}
	return nil
}

// forgetPartition has the kernel forget a partition. A worker of udev's may have it open
// for a moment.
func (m *Machine) forgetPartition(ctx context.Context, disk *os.File, k disk.Known) error {
	what := fmt.Sprintf("the kernel to forget %s", k.Node)
	_, err := waitFor(ctx, m, what, func() (struct{}, error) {
		err := blkpg(disk, unix.BLKPG_DEL_PARTITION, unix.BlkpgPartition{Pno: int32(k.Number)})
		switch {
		case errors.Is(err, unix.EBUSY):
			return struct{}{}, absentf("it is in use")
		case errors.Is(err, unix.ENXIO):
			return struct{}{}, nil // it is gone
		}
		return struct{}{}, err
	})
	return err
}

func tellKernel(disk *os.File, op int32, p disk.Partition, sectorSize int) error {
	return blkpg(disk, op, unix.BlkpgPartition{
		Pno: int32(p.Number), Start: int64(p.First) * int64(sectorSize), Length: int64(p.Sectors()) * int64(sectorSize),
	})
}

// blkpg is BLKPG of ioctl_blkpg (linux/blkpg.h): bytes, whatever the sector size is.
func blkpg(disk *os.File, op int32, p unix.BlkpgPartition) error {
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}

// await waits for a partition to be there, for the kernel and for udev.
func (a layout) await(ctx context.Context, m *Machine, p disk.Partition) error {
	_, err := waitFor(ctx, m, fmt.Sprintf("%s of %s", p.Title(), a.disk.Node), func() (struct{}, error) {
		d := a.disk
		if m.Disks.Mapped(d) { // whose partitions are upon it
			var err error
			if d, err = m.Disks.Resolve(d.Node); err != nil {
				return struct{}{}, err
			}
		}
		known, err := m.Disks.Known(d)
		if err != nil {
			return struct{}{}, err
		}
		i := slices.IndexFunc(known, func(k disk.Known) bool { return k.Is(p, d.SectorSize) })
		if i < 0 {
			return struct{}{}, absentf("the kernel does not have it")
		}
		return struct{}{}, m.Disks.Noticed(known[i], p.UUID)
	})
	return err
}
