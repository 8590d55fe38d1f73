package initrd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMountPointIsMade(t *testing.T) {
	m, root := testMachine(t)
	settle(t, m, MountPoint{Root: root, Path: "/a/b/c"})
	for _, dir := range []string{"a", "a/b", "a/b/c"} {
		if info, err := os.Stat(filepath.Join(root, dir)); err != nil || info.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s: %v %v", dir, info, err)
		}
	}
	// What is there already stays as it is.
	if err := os.Chmod(filepath.Join(root, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	settle(t, m, MountPoint{Root: root, Path: "/a/b"})
	if info, err := os.Stat(filepath.Join(root, "a/b")); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v %v", info, err)
	}
}

// TestMountPointBehindALink is refused: mount(8) would follow the link out of the target.
func TestMountPointBehindALink(t *testing.T) {
	for name, target := range map[string]string{"absolute": "/", "within": "elsewhere", "to nothing": "missing"} {
		m, root := testMachine(t)
		if err := errors.Join(os.Mkdir(filepath.Join(root, "elsewhere"), 0o755), os.Symlink(target, filepath.Join(root, "link")),
			os.WriteFile(filepath.Join(root, "file"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for path, says := range map[string]string{"/link": "/link is a symbolic link", "/link/below": "/link is a symbolic link", "/file/below": "/file is a regular file"} {
			_, err := apply(t, m, MountPoint{Root: root, Path: path})
			if err == nil || !strings.Contains(err.Error(), says+", and nothing can be mounted below it") {
				t.Errorf("%s, %s: %v", name, path, err)
			}
		}
	}
}

// TestMountKnowsWhatIsMounted of each file system that this kernel mounts: btrfs has a
// number of its own, and a device may have two names.
func TestMountKnowsWhatIsMounted(t *testing.T) {
	for _, c := range formats()[:3] {
		t.Run(c.format, func(t *testing.T) {
			node, _ := loopDevice(t, c.mib)
			other, _ := loopDevice(t, 16)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(node, link); err != nil {
				t.Fatal(err)
			}
			m, root := testMachine(t)
			where := filepath.Join(root, "at")
			wish := Mount{What: Source{Path: link, Named: true}, Where: where, Type: c.format, Options: []string{"noatime"}}
			mustApply(t, m, Filesystem{Device: link, Format: c.format}, MountPoint{Root: root, Path: "/at"}, wish)
			t.Cleanup(func() { tool(t, "", "umount", where) })
			at, err := m.Look(t.Context()).Mounted(where)
			if err != nil || at.Type != c.format || !strings.Contains(tool(t, "", "findmnt", "-n", "-o", "OPTIONS", where), "noatime") {
				t.Errorf("%+v %v", at, err)
			}
			if out := mustApply(t, m, wish, Mount{What: Source{Path: node}, Where: where}); out[0].State != So || out[1].State != So {
				t.Errorf("%v %v", out[0].State, out[1].State)
			}
			_, err = apply(t, m, Mount{What: Source{Path: other, Named: true}, Where: where})
			if err == nil || !strings.Contains(err.Error(), "is mounted at "+where+", and "+other+" was asked for") {
				t.Errorf("error %v", err)
			}
		})
	}
}
