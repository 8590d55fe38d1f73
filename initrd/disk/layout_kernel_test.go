package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// TestKnown is what the kernel has of a disk, and of a multipath device, whose
// partitions are devices upon it.
func TestKnown(t *testing.T) {
	f := newFake(t)
	f.add("vda", "virtio0/block", "254:0", 1<<30, nil)
	f.partition("vda", "vda2", 2, 2048, 4096)
	f.file("devices/virtio0/block/vda/vda2/dev", "254:2\n")
	f.file("devices/virtio0/block/vda/vda2/holders/dm-9/x", "")
	f.add("dm-0", "virtual/block", "252:0", 1<<30, map[string]string{"dm/name": "mpatha\n", "dm/uuid": "mpath-36001\n",
		"holders/dm-1/x": "", "holders/dm-2/x": "", "slaves/sda/x": ""})
	for name, attributes := range map[string]map[string]string{
		"dm-1": {"dm/name": "mpatha-part1\n", "dm/uuid": "part1-mpath-36001\n", "holders/md0/x": "", "dev": "252:1\n"},
		"dm-2": {"dm/name": "vg-lv\n", "dm/uuid": "LVM-abc\n"},
	} {
		f.add(name, "virtual/block", "252:2", 8<<20, attributes)
	}
	s := f.system()
	s.Stacked = true
	for _, c := range []struct {
		name   string
		mapped bool
		want   []Known
	}{
		{"vda", false, []Known{{Number: 2, Name: "vda2", Node: f.dev + "/vda2", Major: 254, Minor: 2, Start: 2048, Length: 4096, Holders: []string{"dm-9"}}}},
		{"dm-0", true, []Known{{Number: 1, Name: "dm-1", Node: f.dev + "/dm-1", Major: 252, Minor: 1, Length: 8 << 20 / 512, Holders: []string{"md0"}, Mapped: true}}},
	} {
		d, err := s.Resolve(f.dev + "/" + c.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Known(d)
		if err != nil || !reflect.DeepEqual(got, c.want) || s.Mapped(d) != c.mapped {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
}

func TestKnownIs(t *testing.T) {
	p := Partition{Number: 2, First: 256, Last: 511}
	k := Known{Number: 2, Start: 2048, Length: 2048}
	for name, c := range map[string]struct {
		change func(*Known)
		want   bool
	}{
		"it":                                     {func(*Known) {}, true},
		"another start":                          {func(k *Known) { k.Start++ }, false},
		"another size":                           {func(k *Known) { k.Length++ }, false},
		"another one":                            {func(k *Known) { k.Number++ }, false},
		"a mapped one, whose start is not known": {func(k *Known) { k.Start, k.Mapped = 0, true }, true},
	} {
		k := k
		c.change(&k)
		if k.Is(p, 4096) != c.want {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

// TestNoticed follows a partition from the kernel's word to udev's.
func TestNoticed(t *testing.T) {
	f := newFake(t)
	s := f.system()
	uuid := GUID{0xab}
	// A device node that is there on every machine stands for the partition.
	node := filepath.Join(f.dev, "vda1")
	k := Known{Number: 1, Node: node, Major: 254, Minor: 1}
	missing := func(what string) {
		t.Helper()
		if err := s.Noticed(k, uuid); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s is missing, and it says %v", what, err)
		}
	}
	missing("vda1")
	f.node("vda1")
	if err := s.Noticed(k, uuid); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is there: %v", err)
	}
	k.Node = attach(t, newImage(t, 1<<20), 512)
	if err := s.Noticed(k, uuid); err != nil {
		t.Errorf("without udev: %v", err)
	}
	if s.Udev() {
		t.Error("udev runs")
	}
	f.run["udev/control"] = &fstest.MapFile{}
	missing(`ID_PART_ENTRY_UUID is "", and not yet ab000000-`)
	f.udev("254:1", "E:ID_PART_ENTRY_UUID=cd000000-0000-0000-0000-000000000000")
	missing(`ID_PART_ENTRY_UUID is "cd000000-0000-0000-0000-000000000000", and not yet`)
	f.udev("254:1", "E:ID_PART_ENTRY_UUID="+uuid.String())
	missing("by-partuuid/" + uuid.String())
	f.devLink("disk/by-partuuid/"+uuid.String(), "../../vda1")
	if err := s.Noticed(k, uuid); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(f.dev, "disk/by-partuuid", uuid.String())); err != nil {
		t.Fatal(err)
	}
	missing("by-partuuid/" + uuid.String())
}
