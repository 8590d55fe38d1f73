package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// Tables that sfdisk and sgdisk made, on image files and, for the sector size that a
// file cannot have, on loop devices: these tests need root, util-linux and gdisk. The
// tools are asked what they see, and ReadTable must see the same.

func run(t *testing.T, input string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

func newImage(t *testing.T, bytes int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, bytes); err != nil {
		t.Fatal(err)
	}
	return file
}

// attach makes a loop device of a file and takes it down after the test.
func attach(t *testing.T, file string, sector int) string {
	t.Helper()
	node := strings.TrimSpace(run(t, "", "losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), file))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", node).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", node, err, out)
		}
	})
	return node
}

const sfdiskScript = `label: gpt
label-id: 00112233-4455-6677-8899-AABBCCDDEEFF
size=1MiB, type=uefi, uuid=11111111-2222-3333-4444-555555555555, name="EFI system"
size=2MiB, type=2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5, uuid=A1A2A3A4-B1B2-C1C2-D1D2-E1E2E3E4E5E6, name="Wurzel ß 🦊", attrs="GUID:60,63 RequiredPartition"
size=1MiB, type=7B3D8C52-0D2B-4B1E-9A57-7C1A5F0B6E11, uuid=B1A2A3A4-B1B2-C1C2-D1D2-E1E2E3E4E5E6
`

// bySfdisk is the table at path as sfdisk sees it.
func bySfdisk(t *testing.T, path string) *Table {
	t.Helper()
	var out struct {
		PartitionTable struct {
			ID                string
			FirstLBA, LastLBA uint64
			SectorSize        int
			Partitions        []struct {
				Node, Type, UUID, Name, Attrs string
				Start, Size                   uint64
			}
		}
	}
	text := run(t, "", "sfdisk", "--json", path)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	pt := out.PartitionTable
	table := &Table{GUID: mustGUID(t, pt.ID), SectorSize: pt.SectorSize, FirstUsable: pt.FirstLBA, LastUsable: pt.LastLBA}
	for _, p := range pt.Partitions {
		number, err := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(p.Node, path), "p"))
		if err != nil {
			t.Fatalf("%s: %v", p.Node, err)
		}
		var flags uint64
		for _, word := range strings.Fields(p.Attrs) {
			bits, ok := strings.CutPrefix(word, "GUID:")
			if word == "RequiredPartition" {
				bits, ok = "0", true
			}
			for _, bit := range strings.Split(bits, ",") {
				n, err := strconv.Atoi(bit)
				if !ok || err != nil {
					t.Fatalf("attributes %q", p.Attrs)
				}
				flags |= 1 << n
			}
		}
		table.Partitions = append(table.Partitions, Partition{Number: number, Type: mustGUID(t, p.Type), UUID: mustGUID(t, p.UUID),
			Name: p.Name, First: p.Start, Last: p.Start + p.Size - 1, Flags: flags})
	}
	return table
}

func readFile(t *testing.T, path string, size int64, sector int) (*Table, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return ReadTable(f, size, sector)
}

func TestReadTableOfTools(t *testing.T) {
	const size = 16 << 20
	esp, verity := TypeESP().String(), "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
	sfdisk := func(script string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			run(t, script, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path)
		}
	}
	sgdisk := func(args ...string) func(*testing.T, string) {
		return func(t *testing.T, path string) { run(t, "", "sgdisk", append(args, path)...) }
	}
	for _, test := range []struct {
		name   string
		sector int
		make   func(*testing.T, string)
		slots  int
		parts  int
	}{
		{"sfdisk", 512, sfdisk(sfdiskScript), 128, 3},
		{"sfdisk", 4096, sfdisk(sfdiskScript), 128, 3},
		{"sfdisk with a short table", 512, sfdisk("label: gpt\ntable-length: 4\nsize=1MiB\n"), 4, 1},
		{"sfdisk with a long table", 512, sfdisk("label: gpt\ntable-length: 1024\nsize=1MiB\n"), 1024, 1},
		{"sfdisk, no partition", 512, sfdisk("label: gpt\n"), 128, 0},
		{"sgdisk", 512, sgdisk("--disk-guid=00112233-4455-6677-8899-AABBCCDDEEFF", "--new=1:0:+1M", "--typecode=1:"+esp, "--change-name=1:EFI system",
			"--new=9:0:+2M", "--typecode=9:"+verity, "--attributes=9:set:60", "--attributes=9:set:63", "--change-name=9:Würzel"), 128, 2},
		{"sgdisk", 4096, sgdisk("--new=1:0:+1M", "--typecode=1:"+esp, "--new=9:0:+2M", "--typecode=9:"+verity, "--attributes=9:set:59"), 128, 2},
		{"sgdisk with a long table", 512, sgdisk("--resize-table=2048", "--new=2000:0:+1M"), 2048, 1},
		{"sgdisk with a hybrid MBR", 512, sgdisk("--new=1:0:+1M", "--new=2:0:+1M", "--hybrid=1"), 128, 2},
	} {
		t.Run(fmt.Sprintf("%s, %d bytes a sector", test.name, test.sector), func(t *testing.T) {
			file := newImage(t, size)
			path := file
			if test.sector != 512 {
				path = attach(t, file, test.sector)
			}
			test.make(t, path)
			want := bySfdisk(t, path)
			if len(want.Partitions) != test.parts {
				t.Fatalf("sfdisk sees %+v", want)
			}
			last := uint64(size/test.sector - 1)
			want.SectorSize, want.Slots, want.Alternate = test.sector, test.slots, last
			got, err := readFile(t, path, size, test.sector)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
			}

			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, test.sector), int64(test.sector)); err != nil {
				t.Fatal(err)
			}
			want.Used, want.Alternate = Backup, 1
			got, err = readFile(t, path, size, test.sector)
			if err != nil || !errors.Is(got.Damage, noSignature) {
				t.Fatalf("without a primary header: %+v, %v", got, err)
			}
			want.Damage = got.Damage
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("backup:\n got %+v\nwant %+v", got, want)
			}
			if _, err := f.WriteAt(make([]byte, test.sector), int64(last)*int64(test.sector)); err != nil {
				t.Fatal(err)
			}
			if got, err = readFile(t, path, size, test.sector); !errors.Is(err, ErrNoTable) {
				t.Fatalf("without either header: %+v, %v", got, err)
			}
		})
	}
}

// What other tools leave on a disk is told apart.
func TestReadTableOfOthers(t *testing.T) {
	const size = 16 << 20
	file := newImage(t, size)
	if _, err := readFile(t, file, size, 512); !errors.Is(err, ErrNoTable) {
		t.Errorf("empty: %v", err)
	}
	run(t, "label: dos\nsize=1MiB, type=83\n", "sfdisk", "--quiet", file)
	if _, err := readFile(t, file, size, 512); !errors.Is(err, ErrMBR) {
		t.Errorf("MBR label: %v", err)
	}
	run(t, sfdiskScript, "sfdisk", "--quiet", file)
	if _, err := readFile(t, file, size, 4096); !errors.Is(err, ErrSectorSize) {
		t.Errorf("on a disk of 4096-byte sectors: %v", err)
	}
	// A new MBR label that leaves the GPT's headers where they are hides them.
	run(t, "label: dos\nsize=1MiB, type=83\n", "sfdisk", "--quiet", "--wipe", "never", file)
	if _, err := readFile(t, file, size, 512); !errors.Is(err, ErrMBR) {
		t.Errorf("MBR label over a GPT: %v", err)
	}
	run(t, sfdiskScript, "sfdisk", "--quiet", file)
	run(t, "", "wipefs", "--all", "--force", "--quiet", file)
	if _, err := readFile(t, file, size, 512); !errors.Is(err, ErrNoTable) {
		t.Errorf("wiped by wipefs: %v", err)
	}
	run(t, sfdiskScript, "sfdisk", "--quiet", file)
	run(t, "", "sgdisk", "--zap-all", file)
	if _, err := readFile(t, file, size, 512); !errors.Is(err, ErrNoTable) {
		t.Errorf("zapped by sgdisk: %v", err)
	}
}

// The whole way on the real machine: sysfs, device nodes and what the kernel knows of
// partitions, on a loop device with 4096-byte sectors.
func TestMachine(t *testing.T) {
	const size = 16 << 20
	node := attach(t, newImage(t, size), 4096)
	name := filepath.Base(node)
	run(t, sfdiskScript, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", node)
	s := Machine()

	d, err := s.Resolve(node)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(node, link); err != nil {
		t.Fatal(err)
	}
	if linked, err := s.Resolve(link); err != nil || !reflect.DeepEqual(linked, d) {
		t.Errorf("by a link: %+v, %v", linked, err)
	}
	if d.Node != node || d.Name != name || d.Major != 7 || d.Size != size || d.SectorSize != 4096 || d.Transport != "loop" || d.ReadOnly {
		t.Errorf("%+v", d)
	}
	disks, err := s.Disks()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, other := range disks {
		seen = seen || reflect.DeepEqual(other, d)
	}
	if !seen {
		t.Errorf("%+v is not among %+v", d, disks)
	}

	table, err := s.Table(d)
	if err != nil || len(table.Partitions) != 3 {
		t.Fatalf("%+v, %v", table, err)
	}
	for _, p := range table.Partitions {
		if p.Node != "" {
			t.Errorf("a node before the kernel was told: %+v", p)
		}
	}

	run(t, "", "partx", "--add", "--sector-size", "4096", node)
	defer run(t, "", "partx", "--delete", node)
	state := mustGUID(t, "b1a2a3a4-b1b2-c1c2-d1d2-e1e2e3e4e5e6")
	found, err := s.PartitionByUUID(state)
	var se *ScanError
	if err != nil && !errors.As(err, &se) { // another disk of this machine may be a wreck
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Disk.Node != node || found[0].Partition.Number != 3 || found[0].Partition.Node != node+"p3" {
		t.Fatalf("%+v, %v", found, err)
	}
	owner, number, err := s.Owner(node + "p3")
	if err != nil || number != 3 || owner.Node != node {
		t.Errorf("owner of %sp3: %+v, %d, %v", node, owner, number, err)
	}
	var pe *PartitionError
	if _, err := s.Resolve(node + "p3"); !errors.As(err, &pe) || err.Error() != node+"p3 is partition 3 of "+node+", not a whole disk" {
		t.Errorf("a partition for a disk: %v", err)
	}
}

func TestMachineWithoutMedium(t *testing.T) {
	file := newImage(t, 1<<20)
	node := strings.TrimSpace(run(t, "", "losetup", "--find", "--show", file))
	if _, err := Machine().Resolve(node); err != nil {
		t.Errorf("attached: %v", err)
	}
	run(t, "", "losetup", "--detach", node)
	var le *LookError
	if d, err := Machine().Resolve(node); !errors.As(err, &le) || !strings.Contains(err.Error(), "not a disk, or no medium in it") {
		t.Errorf("detached: %+v, %v", d, err)
	}
	if d, err := Machine().Resolve("/dev/null"); !errors.As(err, &le) || !strings.Contains(err.Error(), "not a block device that the kernel knows") {
		t.Errorf("/dev/null: %+v, %v", d, err)
	}
}
