package initrd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inUse asks the kernel whether anybody has a block device for himself: a mount, a swap
// area, a device made upon it, or one of those on another part of the same disk. Nothing
// is changed by asking.
func (m *Machine) inUse(node string) (string, error) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == nil {
		err := unix.Close(fd)
		letGo()
		return "", err
	}
	if !errors.Is(err, unix.EBUSY) {
		return "", fmt.Errorf("open %s: %w", node, err)
	}
	return m.holder(node)
}

// letGo returns when what was just closed is closed for all: a program that is being started
// has copies of all descriptors until it runs, and a device that was opened for one alone is
// as long not to be had by the next.
func letGo() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// holder finds words for who has a device.
func (m *Machine) holder(node string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", node, err)
	}
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	mounts, _, err := mountinfo()
	if err != nil {
		return "", err
	}
	for _, at := range mounts {
		if at.Major == major && at.Minor == minor {
			return "mounted at " + at.Where, nil
		}
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(swaps)) {
		name, _, _ := strings.Cut(line, " ")
		var s unix.Stat_t
		if strings.HasPrefix(name, "/") && unix.Stat(name, &s) == nil && s.Rdev == st.Rdev {
			return "used as swap", nil
		}
	}
	holders, err := filepath.Glob(fmt.Sprintf("/sys/dev/block/%d:%d/holders/*", major, minor))
	if err != nil {
		return "", err
	}
	for i := range holders {
		holders[i] = filepath.Base(holders[i])
	}
	if len(holders) > 0 {
		return "part of " + strings.Join(holders, ", "), nil
	}
	for _, at := range mounts {
		// The directory of a partition lies in that of its disk.
		disk, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/../dev", at.Major, at.Minor))
		if err == nil && strings.TrimSpace(string(disk)) == fmt.Sprintf("%d:%d", major, minor) {
			return "in use: a partition of it is mounted at " + at.Where, nil
		}
		// btrfs mounts by a device number of its own.
		var s unix.Stat_t
		if strings.HasPrefix(at.Source, "/") && unix.Stat(at.Source, &s) == nil && s.Rdev == st.Rdev {
			return "mounted at " + at.Where, nil
		}
	}
	return "in use", nil
}
