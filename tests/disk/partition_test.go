package disk_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

func TestPartitions(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			node := loopDisk(t, 128<<20, sector)
			m := aMachine(t)
			uuid, err := disk.ParseGUID("b1a2a3a4-b1b2-c1c2-d1d2-e1e2e3e4e5e6")
			if err != nil {
				t.Fatal(err)
			}
			l := initrd.Layout{Device: node, Partitions: []disk.Wanted{
				{Label: of("rest")},
				{Number: 1, Label: of("esp"), SizeMiB: of(16), Type: disk.TypeESP()},
				{Number: 3, Label: of("Würzel"), StartMiB: of(40), SizeMiB: of(20), UUID: uuid},
			}}
			got, err := partition(t, m, l)
			if err != nil || !got.Changed || got.Effect != initrd.Makes {
				t.Fatalf("%+v %v", got, err)
			}
			soundTable(t, node, sector)
			per := 1 << 20 / sector
			last := 128*per - 1 - 16384/sector - 1
			for _, want := range []string{
				fmt.Sprintf("p1 start %d size %d type C12A7328-F81F-11D2-BA4B-00A0C93EC93B name \"esp\"\n", per, 16*per),
				fmt.Sprintf("p3 start %d size %d type 0FC63DAF-8483-4772-8E79-3D69D8477DE4 name \"Würzel\"\n", 40*per, 20*per),
				fmt.Sprintf("p2 start %d size %d type 0FC63DAF-8483-4772-8E79-3D69D8477DE4 name \"rest\"\n", 60*per, last-60*per+1),
			} {
				if have := table(t, node); !strings.Contains(have, want) {
					t.Errorf("%s lacks %s", have, want)
				}
			}
			if out := tool(t, "sgdisk", "--info=3", node); !strings.Contains(out, "B1A2A3A4-B1B2-C1C2-D1D2-E1E2E3E4E5E6") {
				t.Error(out)
			}

			// What was made once is there, for this machine.
			again, err := partition(t, m, l)
			if err != nil || again.State != initrd.So {
				t.Errorf("a second time: %+v %v", again, err)
			}
			// A machine that knows of nothing gives another one the next free number, as
			// Ignition does.
			if got, err := partition(t, aMachine(t), l); err != nil || got.Deed != fmt.Sprintf(`change the partition table of %s: make partition "rest" of 23 MiB at 17 MiB`, node) &&
				got.Deed != fmt.Sprintf(`change the partition table of %s: make partition 4 "rest" of 23 MiB at 17 MiB`, node) {
				t.Errorf("without a record: %+v %v", got, err)
			}
			soundTable(t, node, sector)
		})
	}
}

// mounted makes a file system on a partition and mounts it for the time of the test.
func mounted(t *testing.T, node string) {
	t.Helper()
	tool(t, "mkfs.ext4", "-q", node)
	dir := t.TempDir()
	if err := unix.Mount(node, dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestPartitionsBesideOneInUse changes everything beside a mounted partition, and
// nothing of it.
func TestPartitionsBesideOneInUse(t *testing.T) {
	node := loopDisk(t, 128<<20, 512)
	m := aMachine(t)
	base := []disk.Wanted{{Number: 1, Label: of("used"), SizeMiB: of(16)}, {Number: 2, Label: of("two"), SizeMiB: of(16)}, {Number: 3, Label: of("three"), SizeMiB: of(16)}}
	if _, err := partition(t, m, initrd.Layout{Device: node, Partitions: base}); err != nil {
		t.Fatal(err)
	}
	mounted(t, node+"p1")
	before := table(t, node)
	inUse := "partition 1 of " + node + " is in use, and cannot be changed: mounted at "
	for _, c := range []struct {
		name string
		l    initrd.Layout
		want string
	}{
		{"wiping the table", initrd.Layout{WipeTable: true, Partitions: base}, "cannot be wiped: partition 1 is in use: mounted at "},
		{"wiping it, and nothing instead", initrd.Layout{WipeTable: true}, "cannot be wiped: partition 1 is in use: mounted at "},
		{"deleting", initrd.Layout{Partitions: []disk.Wanted{{Number: 1, Absent: true, WipeEntry: true}}}, inUse},
		{"replacing", initrd.Layout{Partitions: []disk.Wanted{{Number: 1, Label: of("new"), WipeEntry: true}}}, inUse},
		{"a new label alone", initrd.Layout{Partitions: []disk.Wanted{{Number: 1, Label: of("new"), StartMiB: of(1), SizeMiB: of(16), WipeEntry: true}}}, inUse},
		{"shrinking", initrd.Layout{Partitions: []disk.Wanted{{Number: 1, SizeMiB: of(8), Resize: true}}}, inUse},
	} {
		c.l.Device = node
		if _, err := partition(t, m, c.l); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if after := table(t, node); after != before {
			t.Fatalf("%s changed the table: %s", c.name, after)
		}
	}
	got, err := partition(t, m, initrd.Layout{Device: node, Partitions: []disk.Wanted{
		{Number: 1, Label: of("used"), SizeMiB: of(16)},
		{Number: 2, Absent: true, WipeEntry: true},
		{Number: 3, SizeMiB: of(24), Resize: true},
		{Number: 5, Label: of("five")},
	}})
	want := []string{`partition 2 "two" of ` + node}
	if err != nil || !got.Changed || got.Effect != initrd.Destroys || !slices.Equal(got.Lost, want) {
		t.Fatalf("%+v %v", got, err)
	}
	soundTable(t, node, 512)
	if got := nodes(t, node); len(got) != 3 || got["3"] != fmt.Sprintf("%d %d", 33*2048, 24*2048) {
		t.Errorf("%v", got)
	}
	// The file system that was there is found again, and nothing was written to it.
	if out := tool(t, "blkid", "--probe", node+"p1"); !strings.Contains(out, "ext4") {
		t.Error(out)
	}
}

// TestADiskInUse is one that has a file system on the whole of it.
func TestADiskInUse(t *testing.T) {
	node := loopDisk(t, 64<<20, 512)
	mounted(t, node)
	_, err := partition(t, aMachine(t), initrd.Layout{Device: node, WipeTable: true, Partitions: []disk.Wanted{{Number: 1}}})
	if err == nil || !strings.Contains(err.Error(), node+" itself is in use, and cannot be partitioned: mounted at ") {
		t.Error(err)
	}
}

// TestOldTables are what can be on a disk beforehand.
func TestOldTables(t *testing.T) {
	want := []disk.Wanted{{Number: 1, Label: of("one"), SizeMiB: of(8)}}
	for _, c := range []struct {
		name    string
		make    func(t *testing.T, node string)
		refused string // without wipeTable; "" where the table is kept, or there is none
		loses   string // with wipeTable
	}{
		{"nothing", func(*testing.T, string) {}, "", ""},
		{"a file system", func(t *testing.T, node string) { tool(t, "mkfs.ext4", "-q", node) }, "", ""},
		{"a boot sector", func(t *testing.T, node string) { tool(t, "mkfs.vfat", node) },
			"no partition table, but a boot sector: nothing is changed there unless wipeTable is true", "the boot sector of DISK"},
		{"an MBR label", func(t *testing.T, node string) { sfdisk(t, node, "label: dos\nsize=8M\n") },
			"an MBR label, not a GPT: nothing is changed there unless wipeTable is true", "the MBR partition table of DISK"},
		{"a GPT", func(t *testing.T, node string) {
			tool(t, "sgdisk", "--new=1:0:+8M", "--change-name=1:one", "--new=2:0:0", node)
		}, "", "the partition table of DISK with 2 partitions"},
		{"a hybrid one", func(t *testing.T, node string) {
			tool(t, "sgdisk", "--new=1:0:+8M", "--change-name=1:one", "--new=2:0:+8M", "--hybrid=1", node)
		}, "", "the partition table of DISK with 2 partitions"},
		{"two damaged copies", func(t *testing.T, node string) {
			tool(t, "sgdisk", "--new=1:0:+8M", node)
			spoil(t, node, 2*512+1)
			spoil(t, node, 64<<20-512*33+1)
		}, "damaged GPT", "what is left of a partition table on DISK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := loopDisk(t, 64<<20, 512)
			c.make(t, node)
			_, err := partition(t, aMachine(t), initrd.Layout{Device: node, Partitions: want})
			if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("%v", err)
			}
			if c.refused != "" && len(nodes(t, node)) > 0 {
				t.Errorf("the kernel has %v", nodes(t, node))
			}
			node = loopDisk(t, 64<<20, 512)
			c.make(t, node)
			got, err := partition(t, aMachine(t), initrd.Layout{Device: node, WipeTable: true, Partitions: want})
			lost := strings.ReplaceAll(strings.Join(got.Lost, ", "), node, "DISK")
			if err != nil || !got.Changed || lost != c.loses || (got.Effect == initrd.Destroys) != (c.loses != "") {
				t.Errorf("%+v %v", got, err)
			}
			soundTable(t, node, 512)
			if now := nodes(t, node); len(now) != 1 {
				t.Errorf("%v", now)
			}
			// And then nothing instead of it.
			got, err = partition(t, aMachine(t), initrd.Layout{Device: node, WipeTable: true})
			if err != nil || !got.Changed || !strings.HasPrefix(got.Deed, "WIPE") {
				t.Errorf("%+v %v", got, err)
			}
			out, err := exec.Command("blkid", "--probe", node).CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 || len(nodes(t, node)) > 0 { // 2: nothing was found
				t.Errorf("%s %v %v", out, err, nodes(t, node))
			}
		})
	}
}

func sfdisk(t *testing.T, node, script string) {
	t.Helper()
	cmd := exec.Command("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", node)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
}

func spoil(t *testing.T, node string, at int64) {
	t.Helper()
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0xff, 0xee}, at)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestADamagedPrimaryCopyIsRestored: its partitions are there, and the kernel would not
// have them.
func TestADamagedPrimaryCopyIsRestored(t *testing.T) {
	node := loopDisk(t, 64<<20, 512)
	tool(t, "sgdisk", "--new=1:0:+8M", "--change-name=1:one", "--new=2:0:0", "--attributes=2:set:60", node)
	before := table(t, node)
	info := tool(t, "sgdisk", "--info=2", node)
	spoil(t, node, 512)
	got, err := partition(t, aMachine(t), initrd.Layout{Device: node, Partitions: []disk.Wanted{{Number: 1, Label: of("one")}}})
	if err != nil || got.Deed != "restore the partition table of "+node+" from its backup" || got.Effect != initrd.Changes {
		t.Fatalf("%+v %v", got, err)
	}
	soundTable(t, node, 512)
	if after := table(t, node); after != before || tool(t, "sgdisk", "--info=2", node) != info {
		t.Errorf("%s, and it was %s", after, before)
	}
}

// TestTheLockIsWaitedFor: whoever holds it may be in the midst of writing.
func TestTheLockIsWaitedFor(t *testing.T) {
	node := loopDisk(t, 64<<20, 512)
	f, err := os.Open(node)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	m := aMachine(t)
	m.Wait = 100 * time.Millisecond
	l := initrd.Layout{Device: node, Partitions: []disk.Wanted{{Number: 1}}}
	if _, err := partition(t, m, l); err == nil || !strings.Contains(err.Error(), "the lock on "+node+": somebody else has it") {
		t.Errorf("%v", err)
	}
	if _, err := exec.Command("sgdisk", "--info=1", node).Output(); err != nil || len(nodes(t, node)) > 0 {
		t.Errorf("something was done: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if got, err := partition(t, m, l); err != nil || !got.Changed {
		t.Errorf("%+v %v", got, err)
	}
}

// TestADiskThatIsNotThere is waited for, and says so.
func TestADiskThatIsNotThere(t *testing.T) {
	m := aMachine(t)
	m.Wait = 50 * time.Millisecond
	steps := []initrd.Step{initrd.Layout{Device: "/dev/disk/by-id/none", Partitions: []disk.Wanted{{Number: 1}}}}
	if got, err := initrd.Run(t.Context(), m, steps, initrd.Plan, nil); err != nil || got[0].State != initrd.After {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := initrd.Run(t.Context(), m, steps, initrd.Apply, nil); !errors.Is(err, initrd.ErrStillAfter) || !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestDisksSideBySide has several, and two entries for one of them, by two names: both are
// carried out, one after the other.
func TestDisksSideBySide(t *testing.T) {
	var steps []initrd.Step
	var disks []string
	for range 2 {
		node := loopDisk(t, 64<<20, 512)
		disks = append(disks, node)
		steps = append(steps, initrd.Layout{Device: node, Partitions: []disk.Wanted{{Number: 1, SizeMiB: of(8)}, {Label: of("next")}}})
	}
	node := loopDisk(t, 64<<20, 512)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(node, link); err != nil {
		t.Fatal(err)
	}
	disks = append(disks, node)
	for i, device := range []string{node, link} {
		steps = append(steps, initrd.Layout{Device: device, Partitions: []disk.Wanted{{Number: i + 1, SizeMiB: of(8)}}})
	}
	if _, err := initrd.Run(t.Context(), aMachine(t), steps, initrd.Apply, nil); err != nil {
		t.Fatal(err)
	}
	for _, node := range disks {
		soundTable(t, node, 512)
		if got := nodes(t, node); len(got) != 2 {
			t.Errorf("%s: %v", node, got)
		}
	}
}
