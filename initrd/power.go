package initrd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Reboot restarts the machine at once, after the disks have what was written.
// It returns only if the kernel refuses.
func Reboot() error { return power(unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff switches the machine off at once, after the disks have what was
// written. It returns only if the kernel refuses.
func PowerOff() error { return power(unix.LINUX_REBOOT_CMD_POWER_OFF) }

func power(cmd int) error {
	unix.Sync()
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("reboot(2): %w", err)
	}
	return nil
}

// Counted says whether the boot loader counts this boot, so that a reboot leads
// somewhere else in the end (systemd-bless-boot.service(8)).
func Counted() (bool, error) {
	_, err := os.Stat(efivars + "/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Endings are the signals that ask this program to end in good order.
func Endings() []os.Signal { return []os.Signal{os.Interrupt, unix.SIGTERM} }
