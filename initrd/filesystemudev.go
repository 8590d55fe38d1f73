package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// noticed waits, where udev runs, until its database says of a device what is on it: its
// links in /dev/disk/by-uuid and by-label are made before that. It looks by itself when
// somebody closes the device who could write, several times while a mkfs is at work, and
// may then see what is there no longer; an event of our own comes after all those.
func (m *Machine) noticed(ctx context.Context, node string) error {
	if !m.Disks.UdevRuns() {
		return nil
	}
	want, err := m.Disks.Probed(node)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		return fmt.Errorf("stat %s: %w", node, err)
	}
	event := fmt.Sprintf("/sys/dev/block/%d:%d/uevent", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err := os.WriteFile(event, []byte("change"), 0); err != nil {
		return err
	}
	have, err := waitFor(ctx, m, "udev to notice what is on "+node, func() (disk.Superblock, error) {
		have, err := m.Disks.ByUdev(node)
		if err == nil && (have.Type != want.Type || have.Label != want.Label || have.UUID != want.UUID) {
			err = absentf("it has %s for it", have)
		}
		return have, err
	})
	if errors.Is(err, fs.ErrNotExist) && have.Type == "" {
		// There are devices that udev's rules do not look into.
		m.say("udev does not say what is on %s", node)
		return nil
	}
	return err
}
