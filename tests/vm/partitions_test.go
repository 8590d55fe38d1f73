package vm_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// laidOut are the partitions of a disk, in the order of the disk: label, UUID, where it
// starts and how large it is, in MiB.
func laidOut(f lab.Facts, serial string) (list []string) {
	disk := ""
	for _, b := range f.Blocks {
		if b.Type == "disk" && b.Serial == serial {
			disk = b.Name
		}
	}
	for _, b := range f.Blocks {
		if b.Type == "part" && b.Parent == disk {
			list = append(list, fmt.Sprintf("%s %s %d+%d", b.PartLabel, b.PartUUID, b.Start>>11, b.Size>>20))
		}
	}
	return list
}

// TestPartitions lays out three disks side by side, with a kernel that reads GPTs and with
// udev: an empty one, one that has grown and has somebody's partition, and the one that
// the record lies on. The plug is pulled when the first of them is done. No partition is
// made twice, none is lost, and the next boot does nothing.
func TestPartitions(t *testing.T) {
	t.Parallel()
	const fixed = "b1a2a3a4-b1b2-41c2-91d2-e1e2e3e4e5e6"
	c := stage.UserConfig()
	disk := func(serial string, more map[string]any, partitions ...map[string]any) map[string]any {
		entry := map[string]any{"device": "/dev/disk/by-id/virtio-" + serial, "partitions": partitions}
		for k, v := range more {
			entry[k] = v
		}
		return entry
	}
	c["storage"].(map[string]any)["disks"] = []any{
		disk("new", map[string]any{"wipeTable": true}, map[string]any{"label": "rest"}, map[string]any{"number": 1, "label": "one", "sizeMiB": 64, "guid": fixed}),
		disk("data", nil, map[string]any{"number": 1, "label": "somebody"}, map[string]any{"label": "added"}),
		disk(scene.Serial, nil, map[string]any{"label": "extra", "sizeMiB": 32}),
	}
	g := guest(t)
	g.Disks = append(g.Disks, lab.Disk{Serial: "new", Size: 256 << 20}, lab.Disk{Serial: "data", Base: occupied(t), Size: 2 << 30})

	cut := local(t, c, "pilotlight.onfailure", "poweroff")
	cut.Cut = regexp.MustCompile(`disks: .*partition table`)
	boot(t, g, cut, "the plug is pulled while disks are partitioned")
	out := boot(t, g, local(t, c, "pilotlight.onfailure", "poweroff"), "the rest is partitioned")
	facts, report := up(t, out, lab.Expected{State: "running", NoFailed: true}, "interrupted")
	for serial, want := range map[string][]string{
		"new":        {"one " + fixed + " 1+64", "rest * 65+190"},
		"data":       {"somebody * 1+64", "added * 65+1982"},
		scene.Serial: {"esp *", "usr *", "usr-verity *", "*", "*", "extra *+32"},
	} {
		got := laidOut(facts, serial)
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", serial, got, want)
			continue
		}
		for i := range want {
			pattern := "^" + strings.ReplaceAll(strings.ReplaceAll(want[i], "+", `\+`), "*", ".*") + "$"
			if !regexp.MustCompile(pattern).MatchString(got[i]) {
				t.Errorf("%s: %q, want %q", serial, got[i], want[i])
			}
		}
	}
	for _, s := range report.Stages {
		for _, step := range s.Steps {
			if s.Name == "disks" {
				t.Logf("%s: %s: changed %v in %v", step.Wish, step.Deed, step.Changed, step.Took)
			}
		}
	}

	before := fmt.Sprint(laidOut(facts, "new"), laidOut(facts, "data"), laidOut(facts, scene.Serial))
	out = boot(t, g, local(t, c, "pilotlight.onfailure", "poweroff"), "a later boot")
	facts, report = up(t, out, lab.Expected{State: "running", NoFailed: true}, "later")
	if after := fmt.Sprint(laidOut(facts, "new"), laidOut(facts, "data"), laidOut(facts, scene.Serial)); after != before {
		t.Errorf("%s, and it was %s", after, before)
	}
	for _, change := range changes(report) {
		if strings.HasPrefix(change, "disks:") {
			t.Error(change)
		}
	}
}
