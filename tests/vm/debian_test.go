package vm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// inDebian are a root that Debian's dracut, with its own module for Ignition, made an initrd for: the one file that the
// package brings as Ignition is our program.
func inDebian(t *testing.T) (lab.Guest, func(config map[string]any, args ...string) lab.Boot) {
	t.Helper()
	tree, err := stage.Cache.Ignition(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := stage.Cache.IgnitionInitrd(t.Context(), tree, stage.Binary)
	if err != nil {
		t.Fatal(err)
	}
	root, err := stage.Cache.PlainRoot(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := tree.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	g := guest(t)
	g.UEFI, g.TPM = false, false
	g.Disks = []lab.Disk{{Serial: scene.Serial, Base: root}, {Serial: "data", Size: 1 << 30}}
	return g, func(config map[string]any, args ...string) lab.Boot {
		file := filepath.Join(t.TempDir(), "config.ign")
		data, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		line := append([]string{scene.Cmdline, "systemd.show_status=yes rw root=LABEL=" + lab.RootLabel}, args...)
		return lab.Boot{Kernel: kernel, Initrd: initrd, Append: strings.Join(line, " "), FwCfg: map[string]string{"opt/com.coreos/config": file}}
	}
}

// theirs is a config as Butane writes it for Ignition: a partition with a file system, a user with a key, files of that user
// and on that file system, a unit that holds all of it.
func theirs() map[string]any {
	return map[string]any{
		"ignition": map[string]any{"version": "3.3.0"},
		"passwd": map[string]any{"users": []any{map[string]any{
			"name": "demo", "uid": 1234, "shell": "/bin/sh", "passwordHash": "$6$" + scene.Secret, "sshAuthorizedKeys": []any{"ssh-ed25519 AAAA demo"},
		}}},
		"storage": map[string]any{
			"disks": []any{map[string]any{"device": "/dev/disk/by-id/virtio-data", "wipeTable": true, "partitions": []any{
				map[string]any{"number": 1, "label": "data", "sizeMiB": 256}, map[string]any{"label": "fat", "sizeMiB": 64},
			}}},
			"filesystems": []any{map[string]any{"device": "/dev/disk/by-partlabel/data", "format": "ext4", "label": "data", "path": "/srv/data", "wipeFilesystem": true},
				map[string]any{"device": "/dev/disk/by-partlabel/fat", "format": "vfat", "label": "FAT"}},
			"files": []any{
				map[string]any{"path": "/etc/demo/secret", "mode": 0o600, "contents": map[string]any{"source": "data:," + scene.Secret + "%0A"}},
				map[string]any{"path": "/etc/demo/owned", "user": map[string]any{"name": "demo"}, "contents": map[string]any{"source": ""}},
				map[string]any{"path": "/srv/data/on-data", "contents": map[string]any{"source": "data:,x"}},
			},
			"links": []any{map[string]any{"path": "/etc/demo/link", "target": "secret"}},
		},
		"systemd": map[string]any{"units": []any{
			map[string]any{"name": "srv-data.mount", "enabled": true, "contents": "[Mount]\nWhat=/dev/disk/by-label/data\nWhere=/srv/data\nType=ext4\n[Install]\nRequiredBy=local-fs.target\n"},
			map[string]any{"name": "demo.service", "enabled": true, "contents": "[Unit]\nRequiresMountsFor=/srv/data\nAssertPathExists=/srv/data/on-data\n" +
				"[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=demo\nExecStart=/usr/bin/grep -rqx \"ssh-ed25519 AAAA demo\" /home/demo/.ssh\n[Install]\nWantedBy=multi-user.target\n"},
		}},
	}
}

const firstBoot = "ignition.firstboot=1 ignition.platform.id=qemu"

// TestDebian is a distribution that has Ignition, and gets our program in the place of Ignition's: its module, its
// generator, its units and their order are as they were.
func TestDebian(t *testing.T) {
	t.Parallel()
	g, by := inDebian(t)

	// Debian has no way to change kernel arguments: nothing after that stage begins.
	config := theirs()
	config["kernelArguments"] = map[string]any{"shouldExist": []any{"audit=1"}}
	// What Ignition's units tell is for the journal, which nobody reads here.
	b := by(config, firstBoot, "systemd.journald.forward_to_console=1")
	b.Until = regexp.MustCompile(`Reached target .*emergency\.target`)
	out := boot(t, g, b, "kernel arguments that nobody can change")
	if _, ok := out.Seen(regexp.MustCompile(`ignition\[[0-9]+\]: CRITICAL: kargs: kernel arguments with audit=1: ignition-kargs-helper: exit 1`)); !ok {
		t.Errorf("nothing says why\n%s", tail(out))
	}
	if l, ok := out.Seen(regexp.MustCompile(`Starting .*ignition-disks\.service`)); ok {
		t.Errorf("and yet: %s", l.Text)
	}
	silent(t, out)

	out = boot(t, g, by(theirs(), firstBoot), "first boot")
	silent(t, out)
	first := inUse(t, out)
	if n := first.InitrdLines("ignition-files.service"); n == 0 {
		t.Error("the journal has nothing of the stage files")
	}
	for _, e := range first.Journal {
		if strings.Contains(e.Message, "CRITICAL") || strings.Contains(e.Message, scene.Secret) {
			t.Errorf("the journal has a fatal problem, or a secret: %+v", e)
		}
	}
	result, ok := first.EtcFile("/etc/.ignition-result.json")
	if !ok || result.Mode != "0600" || result.UID != "0" || result.Size == 0 {
		t.Errorf("result file: %+v", result)
	}
	if f, _ := first.EtcFile("/etc/demo/owned"); f.UID != "1234" {
		t.Errorf("a file of the user: %+v", f)
	}
	part, ok := first.Partition("data")
	if !ok || part.Size != 256<<20 || part.FSType != "ext4" || part.Label != "data" {
		t.Errorf("partition: %+v", part)
	}

	if fat, ok := first.Partition("fat"); !ok || fat.FSType != "vfat" || fat.Label != "FAT" {
		t.Errorf("partition: %+v", fat)
	}

	// Without ignition.firstboot the module starts nothing of it.
	out = boot(t, g, by(theirs()), "second boot")
	second := inUse(t, out)
	if f, _ := second.EtcFile("/etc/.ignition-result.json"); f.SHA256 != result.SHA256 {
		t.Errorf("result file: %+v, was %+v", f, result)
	}
	if p, _ := second.Partition("data"); p.PartUUID != part.PartUUID || p.UUID != part.UUID {
		t.Errorf("partition: %+v, was %+v", p, part)
	}
	if l, ok := out.Seen(regexp.MustCompile(`Starting .*ignition-[a-z-]+\.service`)); ok {
		t.Errorf("the second boot: %s", l.Text)
	}
}

// inUse holds a guest that came up against what theirs asks for.
func inUse(t *testing.T, out lab.Outcome) lab.Facts {
	t.Helper()
	facts, err := out.Facts()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out))
	}
	checks := lab.Compare(facts, lab.Expected{
		State: "running", NoFailed: true, Mounts: map[string]string{"/": "ext4", "/srv/data": "ext4"},
		EtcDigests: map[string]string{"/etc/demo/secret": scene.Sum(scene.Secret + "\n")}, ActiveUnits: []string{"demo.service", "srv-data.mount"},
	})
	for _, c := range checks.Wrong() {
		t.Error(c)
	}
	if f, _ := facts.EtcFile("/etc/demo/secret"); f.Mode != "0600" {
		t.Errorf("/etc/demo/secret: %+v", f)
	}
	return facts
}
