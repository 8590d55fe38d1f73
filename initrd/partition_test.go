package initrd

import (
	"fmt"
	"slices"
	"testing"

	"pilotlight/initrd/disk"
)

// TestLayoutsOfDisksAreSideBySide, and who needs a partition waits for all of them, under
// whatever name.
func TestLayoutsOfDisksAreSideBySide(t *testing.T) {
	waits := conflicts([]Step{
		Layout{Device: "/dev/vda"}, Layout{Device: "/dev/disk/by-id/b"}, reader{PartitionsDir}, reader{PartitionsDir}, Layout{Device: "/dev/vda"},
	})
	want := [][]int{nil, nil, {0, 1}, {0, 1}, {0, 2, 3}}
	for i := range want {
		slices.Sort(waits[i])
		if !slices.Equal(waits[i], want[i]) {
			t.Errorf("step %d waits for %v, want %v", i, waits[i], want[i])
		}
	}
	if !(Layout{}).Lingers() {
		t.Error("it does not linger")
	}
}

// reader reads one name.
type reader struct{ name string }

func (r reader) String() string                   { return "read " + r.name }
func (r reader) Touches() []string                { return nil }
func (r reader) Reads() []string                  { return []string{r.name} }
func (r reader) Resolve(Look) (State, Act, error) { return So, nil, nil }

// TestLayoutSaysWhatIsLost in words.
func TestLayoutSaysWhatIsLost(t *testing.T) {
	part := func(n int, name string, first, size uint64) disk.Partition {
		return disk.Partition{Number: n, Name: name, First: first * 2048, Last: (first+size)*2048 - 1}
	}
	root, data := part(1, "root", 1, 8), part(2, "", 9, 8)
	was := &disk.Table{Partitions: []disk.Partition{root, data}}
	d := disk.Disk{Node: "/dev/vda", SectorSize: 512}
	for _, c := range []struct {
		act    layout
		text   string
		effect Effect
		lost   []string
	}{
		{layout{write: true, now: was, changes: []disk.Change{{Deed: disk.Make, New: root}, {Deed: disk.Make, New: data}}},
			`make a partition table on /dev/vda: make partition 1 "root" of 8 MiB at 1 MiB, make partition 2 of 8 MiB at 9 MiB`, Makes, nil},
		{layout{write: true, was: was, changes: []disk.Change{{Deed: disk.Make, New: part(3, "x", 17, 1)}}},
			`change the partition table of /dev/vda: make partition 3 "x" of 1 MiB at 17 MiB`, Changes, nil},
		{layout{write: true, was: was, changes: []disk.Change{{Deed: disk.Resize, Old: data, New: part(2, "", 9, 12)}}},
			`change the partition table of /dev/vda: resize partition 2 of 12 MiB at 9 MiB`, Changes, nil},
		{layout{write: true, was: was, changes: []disk.Change{{Deed: disk.Resize, Old: data, New: part(2, "", 9, 4)}}},
			`change the partition table of /dev/vda: resize partition 2 of 4 MiB at 9 MiB`, Destroys, []string{"the last 8192 sectors of partition 2 of /dev/vda"}},
		{layout{write: true, was: was, changes: []disk.Change{{Deed: disk.Remove, Old: data}, {Deed: disk.Replace, Old: root, New: part(1, "usr", 1, 8)}}},
			`change the partition table of /dev/vda: delete partition 2, delete partition 1 "root", make partition 1 "usr" of 8 MiB at 1 MiB`,
			Destroys, []string{"partition 2 of /dev/vda", `partition 1 "root" of /dev/vda`}},
		{layout{write: true, wipe: true, was: was, now: was, changes: []disk.Change{{Deed: disk.Make, New: root}}},
			`WIPE the partition table of /dev/vda: make partition 1 "root" of 8 MiB at 1 MiB`, Destroys, []string{"the partition table of /dev/vda with 2 partitions"}},
		{layout{write: true, wipe: true, loses: "the MBR partition table of /dev/vda"},
			"WIPE the partition table of /dev/vda", Destroys, []string{"the MBR partition table of /dev/vda"}},
		{layout{write: true, was: was}, "restore the partition table of /dev/vda from its backup", Changes, nil},
		{layout{}, "note that /dev/vda is partitioned", Makes, nil},
		{layout{missing: []disk.Partition{root}}, "tell the kernel of the partitions of /dev/vda", Makes, nil},
	} {
		c.act.disk = d
		effect, lost := c.act.Effect()
		if text := c.act.String(); text != c.text || effect != c.effect || !slices.Equal(lost, c.lost) {
			t.Errorf("%s\n%s, which %s %q", c.text, text, effect, lost)
		}
	}
}

// TestTheReceiptIsOfTheWish: another wish, another disk or another provision id has another one.
func TestTheReceiptIsOfTheWish(t *testing.T) {
	label := "one"
	wishes := []Layout{
		{Device: "/dev/vda", Provision: "p", Partitions: []disk.Wanted{{Label: &label}}},
		{Device: "/dev/vdb", Provision: "p", Partitions: []disk.Wanted{{Label: &label}}},
		{Device: "/dev/vda", Provision: "q", Partitions: []disk.Wanted{{Label: &label}}},
		{Device: "/dev/vda", Provision: "p", Partitions: []disk.Wanted{{Label: &label, Number: 1}}},
		{Device: "/dev/vda", Provision: "p", Partitions: []disk.Wanted{{Label: &label}}, WipeTable: true},
	}
	seen := map[string]int{}
	for i, l := range wishes {
		name := l.receipt().Name
		if j, twice := seen[name]; twice {
			t.Errorf("%d and %d have the same receipt", i, j)
		}
		seen[name] = i
		same := label
		l.Partitions = []disk.Wanted{{Label: &same, Number: l.Partitions[0].Number}}
		if l.receipt().Name != name || l.receipt().Scope != ScopeProvision {
			t.Errorf("%d: %v", i, l.receipt())
		}
	}
	table := &disk.Table{Partitions: []disk.Partition{{Number: 1, Name: "a"}}}
	other := &disk.Table{Partitions: []disk.Partition{{Number: 1, Name: "b"}}}
	if a, b := wishes[0].written(table), wishes[0].written(other); a == b || a == wishes[0].receipt() {
		t.Errorf("%v %v", a, b)
	}
}

// TestADiskInUseHasAHint for who names one path of a multipath device.
func TestADiskInUseHasAHint(t *testing.T) {
	a := layout{disk: disk.Disk{Node: "/dev/sda"}}
	for use, want := range map[string]string{
		"mounted at /x": "/dev/sda itself is in use, and cannot be partitioned: mounted at /x",
		"part of dm-0":  "/dev/sda itself is in use, and cannot be partitioned: part of dm-0; where that is a multipath device, it is the disk to name",
	} {
		if got := fmt.Sprint(a.direct(use)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
