package vm_test

import (
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// filed tells which of the file systems are there by the names that udev gives them, and what
// is in one of them.
const filed = `[Unit]
Description=Proof that the file systems are there
RequiresMountsFor=/srv/data /srv/data/fat
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'mkdir -p /etc/check; \
  for d in by-label/kept\\\\x20here by-label/FAT by-uuid/a1b2c3d4-e5f6-4a7b-8c9d-0123456789ab by-uuid/0BAD-CAFE; do readlink -e /dev/disk/$$d >/dev/null; done; \
  cat /srv/data/hello >/etc/check/hello; echo more >>/srv/data/hello; cat /srv/data/fat/text >/etc/check/text'
[Install]
WantedBy=multi-user.target
`

// TestFilesystems makes file systems under a real udev, one of them of FAT and one of them
// over another, and mounts them on the first boot and on a later one. What was written to them
// is there then.
func TestFilesystems(t *testing.T) {
	t.Parallel()
	c := stage.UserConfig()
	c["ignition"].(map[string]any)["version"] = "3.5.0"
	storage := c["storage"].(map[string]any)
	storage["filesystems"] = []any{
		map[string]any{"device": "/dev/disk/by-id/virtio-fat", "path": "/srv/data/fat", "format": "vfat", "label": "FAT", "uuid": "0bad-cafe"},
		map[string]any{
			"device": "/dev/disk/by-id/virtio-data", "path": "/srv/data", "format": "ext4", "wipeFilesystem": true,
			"label": "kept here", "uuid": "A1B2C3D4-E5F6-4A7B-8C9D-0123456789AB", "mountOptions": []string{"noatime"},
		},
	}
	for path, text := range map[string]string{"/srv/data/hello": "hello\n", "/srv/data/fat/text": "text\n"} {
		storage["files"] = append(storage["files"].([]any), map[string]any{
			"path": path, "contents": map[string]any{"source": "data:," + strings.ReplaceAll(text, "\n", "%0A")},
		})
	}
	c["systemd"] = map[string]any{"units": []any{map[string]any{"name": "filed.service", "enabled": true, "contents": filed}}}
	g := guest(t)
	g.Disks = append(g.Disks, lab.Disk{Serial: "data", Base: occupied(t), Size: 2 << 30}, lab.Disk{Serial: "fat", Size: 64 << 20})
	want := lab.Expected{
		State: "running", NoFailed: true, Mounts: map[string]string{"/srv/data": "ext4", "/srv/data/fat": "vfat"},
		EtcDigests: map[string]string{"/etc/check/hello": scene.Sum("hello\n"), "/etc/check/text": scene.Sum("text\n")},
	}
	_, report := up(t, boot(t, g, local(t, c, "pilotlight.onfailure", "poweroff"), "file systems are made"), want, "first")
	made := 0
	for _, change := range changes(report) {
		if strings.Contains(change, "ext4 (label \"kept here\"") || strings.Contains(change, "vfat (label \"FAT\"") {
			made++
		}
	}
	if made != 2 {
		t.Errorf("%q", changes(report))
	}
	want.EtcDigests["/etc/check/hello"] = scene.Sum("hello\nmore\n")
	_, report = up(t, boot(t, g, local(t, c, "pilotlight.onfailure", "poweroff"), "file systems are kept"), want, "later")
	for _, change := range changes(report) {
		if strings.HasPrefix(change, "disks: ") {
			t.Errorf("made once more: %s", change)
		}
	}
}
