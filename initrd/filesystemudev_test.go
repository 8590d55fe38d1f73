package initrd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// udevOf puts a database of udev in place of the machine's, and gives the file of a device.
func udevOf(t *testing.T, m *Machine, node string) (entry string) {
	t.Helper()
	run := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(run, "udev/data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(run, "udev/control"), "")
	m.Disks.Run = os.DirFS(run)
	return filepath.Join(run, fmt.Sprintf("udev/data/b%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
}

// TestFilesystemWaitsForUdev until its database says what is there.
func TestFilesystemWaitsForUdev(t *testing.T) {
	const id = "a1b2c3d4-e5f6-4a7b-8c9d-0123456789ab"
	node, _ := loopDevice(t, 16)
	m, _ := testMachine(t)
	entry := udevOf(t, m, node)
	write(t, entry, "I:1\n")
	// Whoever asks the second time finds that udev has noticed.
	var asked sync.Once
	m.Tell = func(string) {}
	go func() {
		for {
			if s, err := m.Disks.Probed(node); err != nil || s.Type == "ext4" {
				asked.Do(func() { write(t, entry, "E:ID_FS_TYPE=ext4\nE:ID_FS_UUID="+id+"\nE:ID_FS_LABEL_ENC=a\\x20b\n") })
				return
			}
		}
	}()
	mustApply(t, m, Filesystem{Device: node, Format: "ext4", UUID: word(id), Label: word("a b")})
	if got, err := m.Disks.ByUdev(node); err != nil || got.UUID != id || got.Label != "a b" {
		t.Errorf("it did not wait: %+v %v", got, err)
	}
}

// TestUdevThatDoesNotNotice is an error where it says something else, since links lead to
// what is there no longer; and not where it says nothing, since it does not look into
// each device.
func TestUdevThatDoesNotNotice(t *testing.T) {
	node, _ := loopDevice(t, 16)
	m, _ := testMachine(t)
	m.Wait = 0
	var told []string
	m.Tell = func(s string) { told = append(told, s) }
	entry := udevOf(t, m, node)
	mustApply(t, m, Filesystem{Device: node, Format: "ext4"})
	if len(told) != 1 || told[0] != "udev does not say what is on "+node {
		t.Errorf("%q", told)
	}
	write(t, entry, "E:ID_FS_TYPE=vfat\n")
	_, err := apply(t, m, Filesystem{Device: node, Format: "ext4", Wipe: true})
	if err == nil || !strings.Contains(err.Error(), "udev to notice what is on "+node+": it has vfat for it") {
		t.Errorf("error %v", err)
	}
}

// TestUdevsOldWord is no reason to refuse a device: it may have to catch up first.
func TestUdevsOldWord(t *testing.T) {
	node, _ := loopDevice(t, 16)
	m, _ := testMachine(t)
	m.Wait = 0
	entry := udevOf(t, m, node)
	write(t, entry, "E:ID_FS_TYPE=exotic\n")
	program(t, m, "udevadm", "exit 0")
	_, err := apply(t, m, Filesystem{Device: node, Format: "ext4"})
	if err == nil || !strings.Contains(err.Error(), node+" has exotic, and ext4 was asked for") {
		t.Errorf("error %v", err)
	}
	program(t, m, "udevadm", `test "$1" = settle && : > `+entry)
	mustApply(t, m, Filesystem{Device: node, Format: "ext4"})
}
