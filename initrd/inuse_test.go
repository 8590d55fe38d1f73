package initrd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInUseSaysByWhom a device is held that must not be written to.
func TestInUseSaysByWhom(t *testing.T) {
	m, dir := testMachine(t)
	says := func(node, want string) {
		t.Helper()
		if got, err := m.inUse(node); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	node, _ := loopDevice(t, 128)
	says(node, "")
	for _, format := range []string{"ext4", "btrfs"} {
		mustApply(t, m, Filesystem{Device: node, Format: format, Wipe: true})
		tool(t, "", "mount", node, dir)
		says(node, "mounted at "+dir)
		tool(t, "", "umount", dir)
		says(node, "")
	}
	tool(t, "", "mkswap", "--force", "-q", node)
	tool(t, "", "swapon", node)
	says(node, "used as swap")
	tool(t, "", "swapoff", node)
	says(node, "")
	claim, err := os.OpenFile(node, os.O_RDONLY|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	says(node, "in use")
	if err := claim.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.inUse(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "none: no such file") {
		t.Errorf("error %v", err)
	}
}

// TestInUseByAPartition of the device.
func TestInUseByAPartition(t *testing.T) {
	m, dir := testMachine(t)
	node, _ := loopDevice(t, 64)
	tool(t, "", "sgdisk", "--new=1:0:0", node)
	tool(t, "", "partx", "--add", "--nr", "1", node)
	t.Cleanup(func() { tool(t, "", "partx", "--delete", "--nr", "1", node) })
	tool(t, "", "mkfs.ext4", "-q", node+"p1")
	tool(t, "", "mount", node+"p1", dir)
	got, err := m.inUse(node)
	tool(t, "", "umount", dir)
	if want := "in use: a partition of it is mounted at " + dir; err != nil || got != want {
		t.Errorf("%q %v, want %q", got, err, want)
	}
}
