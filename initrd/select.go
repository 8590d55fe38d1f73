package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"pilotlight/initrd/disk"
)

// Choose finds the one disk that a selector means.
func (m *Machine) Choose(s Selector) (disk.Disk, error) {
	switch s.Device {
	case "":
		disks, err := m.Disks.Disks()
		if err != nil {
			return disk.Disk{}, err
		}
		return disk.Select(disks, s.Match)
	case "boot":
		return m.bootDisk()
	}
	return m.Disks.Resolve(s.Device)
}

// bootDisk is the disk that holds the partition the firmware started us from.
func (m *Machine) bootDisk() (disk.Disk, error) {
	found, err := m.Disks.BootDisk()
	if err != nil {
		return disk.Disk{}, fmt.Errorf("boot disk: %w", err)
	}
	return found.Disk, nil
}

// efivars is where the kernel shows the firmware's variables.
const efivars = "/sys/firmware/efi/efivars"

// bootPartition is the boot loader's word for where it came from.
func bootPartition() (disk.GUID, error) { return disk.BootPartition(os.DirFS(efivars)) }

// partitions finds a partition by its UUID. That another disk's table is damaged
// does not matter once it is found.
func (m *Machine) partitions(uuid disk.GUID) ([]disk.Found, error) {
	found, err := m.Disks.PartitionByUUID(uuid)
	var scan *disk.ScanError
	if errors.As(err, &scan) && scan.DamagedOnly() && len(found) > 0 {
		err = nil
	}
	if err == nil && (len(found) == 0 || found[0].Partition.Node == "") {
		err = absentf("no disk has it")
	}
	return found, err
}

// absent says in its own words that something is not there. It is fs.ErrNotExist,
// whose text speaks of a file, where none was meant.
type absent string

func absentf(format string, args ...any) error { return absent(fmt.Sprintf(format, args...)) }

func (a absent) Error() string        { return string(a) }
func (a absent) Is(target error) bool { return target == fs.ErrNotExist }

// quiet is how long udev must have had nothing to do before what is not there is
// taken for what will not come.
const quiet = 30 * time.Second

// waitFor asks again and again, in steps that grow to half a second, until there
// is an answer, for as long as the machine waits for devices, or until udev has been
// quiet for half a minute. A progress line comes every ten seconds.
func waitFor[T any](ctx context.Context, m *Machine, what string, ask func() (T, error)) (T, error) {
	begin, told, busy := time.Now(), time.Now(), time.Now()
	pause := 10 * time.Millisecond
	for {
		v, err := ask()
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return v, err
		}
		// udev keeps this file as long as events are on their way (udevadm settle looks at it too).
		if _, err := os.Stat("/run/udev/queue"); err == nil {
			busy = time.Now()
		}
		if time.Since(begin) > m.Wait || time.Since(busy) > quiet {
			return v, fmt.Errorf("waited %d s for %s: %w", int(time.Since(begin).Seconds()), what, err)
		}
		if time.Since(told) >= 10*time.Second {
			m.say("waiting for %s since %d s", what, int(time.Since(begin).Seconds()))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return v, fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-time.After(pause):
		}
		pause = min(pause*2, 500*time.Millisecond)
	}
}
