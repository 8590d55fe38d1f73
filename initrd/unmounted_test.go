package initrd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnmounted(t *testing.T) {
	m, root := testMachine(t)
	where := filepath.Join(root, "srv")
	if err := os.Mkdir(where, 0o755); err != nil {
		t.Fatal(err)
	}
	settle(t, m, Unmounted{where})
	for range 2 {
		if err := unix.Mount("lab", where, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(where, unix.MNT_DETACH) })
	}
	// What the machine has open there must not hold it.
	settle(t, m, File{Root: where, Path: "/f", Contents: inline("x")})

	// Only the topmost goes: that another one was below it is told.
	if _, err := apply(t, m, Unmounted{where}); !errors.Is(err, ErrStillNotSo) {
		t.Errorf("two mounts, one over the other: %v", err)
	}
	busy, err := os.Open(where)
	if err != nil {
		t.Fatal(err)
	}
	_, err = apply(t, m, Unmounted{where})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), where) {
		t.Errorf("in use: %v", err)
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	settle(t, m, Unmounted{where})
	if _, err := m.Look(t.Context()).Mounted(where); err == nil {
		t.Error("it is mounted still")
	}
}
