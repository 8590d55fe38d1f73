package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// memory is a disk that loses its power after so many writes, in the midst of the next
// one if torn is not 0.
type memory struct {
	data   []byte
	writes int // that are let through; -1: all
	torn   int // bytes of the next one
	synced bool
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.writes == 0 {
		copy(m.data[off:], p[:min(m.torn, len(p))])
		return 0, errPowerCut
	}
	m.writes--
	m.synced = false
	return copy(m.data[off:], p), nil
}

func (m *memory) device(sector int) Device {
	return Device{RW: m, Size: int64(len(m.data)), SectorSize: sector, Sync: func() error { m.synced = true; return nil }}
}

// seen is the table of a disk in our eyes.
func seen(r io.ReaderAt, size int64, sector int) string {
	t, err := ReadTable(r, size, sector)
	switch {
	case errors.Is(err, ErrNoTable):
		return "none"
	case errors.Is(err, ErrMBR):
		return "MBR"
	case err != nil:
		return err.Error()
	}
	return t.GUID.String() + " " + geometry(t, nil)
}

// judged is the table of an image in the eyes of sfdisk, or of sgdisk.
func judged(t *testing.T, image string) (sfdisk, sgdisk string) {
	t.Helper()
	out, err := exec.Command("sfdisk", "--json", image).Output()
	switch {
	case err != nil:
		sfdisk = "none"
	case regexp.MustCompile(`"label": *"dos"`).Match(out):
		sfdisk = "MBR"
		if regexp.MustCompile(`"type": *"ee"`).Match(out) {
			sfdisk = "none" // a protective MBR that protects nothing
		}
	default:
		table := bySfdisk(t, image)
		sfdisk = table.GUID.String() + " " + geometry(table, nil)
	}
	out, err = exec.Command("sgdisk", "--print", image).CombinedOutput()
	if err != nil {
		return sfdisk, fmt.Sprintf("sgdisk: %v: %s", err, out)
	}
	if bytes.Contains(out, []byte("Creating new GPT")) {
		return sfdisk, "none"
	}
	guid := regexp.MustCompile(`identifier \(GUID\): (\S+)`).FindSubmatch(out)
	sgdisk = strings.ToLower(string(guid[1]))
	for _, row := range regexp.MustCompile(`(?m)^ +(\d+) +(\d+) +(\d+) `).FindAllSubmatch(out, -1) {
		sgdisk += fmt.Sprintf(" %s:%s-%s", row[1], row[2], row[3])
	}
	return sfdisk, sgdisk
}

// TestPowerCuts cuts the power after every single write, and in the midst of each: what
// is then on the disk is the old table or the new one, for us, for sfdisk and for sgdisk.
func TestPowerCuts(t *testing.T) {
	const size = 8 << 20
	small := func(guid GUID, parts ...Partition) *Table {
		table, err := NewTable(size, 512, guid)
		if err != nil {
			t.Fatal(err)
		}
		table.Partitions = parts
		return table
	}
	part := func(n int, first, last uint64) Partition {
		return Partition{Number: n, Name: fmt.Sprint("p", n), Type: listed("linux-generic"), UUID: GUID{9, byte(n)}, First: first, Last: last}
	}
	old := small(GUID{1}, part(1, 2048, 4095), part(2, 4096, 8191))
	// What is read of a disk is written again, so the old table is not made by us.
	sgdisk := func(args ...string) func(*testing.T, string) {
		return func(t *testing.T, image string) {
			run(t, "", "sgdisk", append(append([]string{"--disk-guid=" + GUID{1}.String(), "--new=1:2048:4095", "--new=2:4096:8191"}, args...), image)...)
		}
	}
	for _, c := range []struct {
		name  string
		make  func(*testing.T, string)
		write func(Device) error
		mbr   bool // sgdisk refuses to choose between an MBR's partitions and half of a GPT
	}{
		{"the first table", func(*testing.T, string) {}, func(d Device) error { return WriteTable(d, old) }, false},
		{"the first table over a file system", func(t *testing.T, image string) { run(t, "", "mkfs.ext4", "-q", image) }, func(d Device) error { return WriteTable(d, old) }, false},
		{"a partition more, one less", sgdisk(), func(d Device) error {
			table, err := ReadTable(d.RW, d.Size, d.SectorSize)
			if err != nil {
				return err
			}
			table.Partitions = []Partition{table.Partitions[0], part(3, 8192, 9000)}
			return WriteTable(d, table)
		}, false},
		{"another table", sgdisk(), func(d Device) error { return WipeTable(d, small(GUID{2}, part(1, 2048, 9000))) }, false},
		{"another table for a hybrid one", sgdisk("--hybrid=1"), func(d Device) error { return WipeTable(d, small(GUID{2}, part(1, 2048, 9000))) }, true},
		{"no table any more", sgdisk(), func(d Device) error { return WipeTable(d, nil) }, true},
		{"a table for an MBR label", func(t *testing.T, image string) { run(t, "label: dos\nsize=1M\n", "sfdisk", "--quiet", image) },
			func(d Device) error { return WipeTable(d, small(GUID{2}, part(1, 2048, 9000))) }, true},
		{"entries far from the header", sgdisk("--move-main-table=1000"), func(d Device) error {
			table, err := ReadTable(d.RW, d.Size, d.SectorSize)
			if err != nil {
				return err
			}
			table.Partitions = table.Partitions[:1]
			return WriteTable(d, table)
		}, false},
		{"a damaged primary copy", func(t *testing.T, image string) {
			sgdisk()(t, image)
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("spoilt"), 2*512)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}, func(d Device) error {
			table, err := ReadTable(d.RW, d.Size, d.SectorSize)
			if err != nil {
				return err
			}
			return WriteTable(d, table)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := newImage(t, size)
			c.make(t, image)
			before, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			state := func(data []byte) [3]string {
				if err := os.WriteFile(image, data, 0o600); err != nil {
					t.Fatal(err)
				}
				sfdisk, sgdisk := judged(t, image)
				return [3]string{seen(bytes.NewReader(data), size, 512), sfdisk, sgdisk}
			}
			whole := &memory{data: bytes.Clone(before), writes: -1}
			if err := c.write(whole.device(512)); err != nil {
				t.Fatal(err)
			}
			if !whole.synced {
				t.Error("the last write was not waited for")
			}
			first, last := state(before), state(whole.data)
			count := -1 - whole.writes
			if count < 2 {
				t.Fatalf("%d writes", count)
			}
			for n := range count {
				for _, torn := range []int{0, 512, 600} {
					m := &memory{data: bytes.Clone(before), writes: n, torn: torn}
					if err := c.write(m.device(512)); !errors.Is(err, errPowerCut) {
						t.Fatalf("after %d writes: %v", n, err)
					}
					got := state(m.data)
					for i, judge := range []string{"we", "sfdisk", "sgdisk"} {
						if judge == "sgdisk" && c.mbr {
							continue
						}
						if got[i] != first[i] && got[i] != last[i] {
							t.Errorf("after %d writes and %d bytes %s see %s\nit was      %s\nit shall be %s", n, torn, judge, got[i], first[i], last[i])
						}
					}
					// And once more, to the end.
					m.writes = -1
					if err := c.write(m.device(512)); err != nil {
						t.Fatalf("again after %d writes and %d bytes: %v", n, torn, err)
					}
					if ours := seen(m, size, 512); ours != last[0] && c.name != "a damaged primary copy" {
						t.Errorf("again after %d writes and %d bytes: %s", n, torn, ours)
					}
				}
			}
			verified := state(whole.data)
			if verified[0] != "none" {
				verify(t, image)
			}
		})
	}
}

// TestWriteTableKeeps what a Table does not hold.
func TestWriteTableKeeps(t *testing.T) {
	image := newImage(t, 16<<20)
	run(t, "label: gpt\ntable-length: 1024\nsize=1MiB, name=\"one\"\nsize=2MiB, name=\"Würzel 🦊\", attrs=\"GUID:60 RequiredPartition\"\n", "sfdisk", "--quiet", image)
	f := openDevice(t, image, 16<<20, 512)
	code := bytes.Repeat([]byte("boot code "), 44)
	if _, err := f.RW.WriteAt(code, 0); err != nil {
		t.Fatal(err)
	}
	before := bySfdisk(t, image)
	table, err := ReadTable(f.RW, f.Size, f.SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	table.Partitions = append(table.Partitions, Partition{Number: 1000, Name: "far", Type: TypeESP(), UUID: GUID{5}, First: 20000, Last: 20007})
	if err := WriteTable(f, table); err != nil {
		t.Fatal(err)
	}
	verify(t, image)
	after := bySfdisk(t, image)
	if n := len(after.Partitions); n != 3 || after.GUID != before.GUID || fmt.Sprint(after.Partitions[:2]) != fmt.Sprint(before.Partitions) || after.Partitions[2].Number != 1000 {
		t.Errorf("%+v\nwas %+v", after, before)
	}
	got := make([]byte, len(code))
	if _, err := f.RW.ReadAt(got, 0); err != nil || !bytes.Equal(got, code) {
		t.Errorf("the boot code is %q, %v", got, err)
	}
	// A wiped disk has none.
	fresh, err := NewTable(f.Size, 512, GUID{8})
	if err != nil {
		t.Fatal(err)
	}
	if err := WipeTable(f, fresh); err != nil {
		t.Fatal(err)
	}
	if _, err := f.RW.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, len(code))) {
		t.Errorf("the boot code is %q, %v", got, err)
	}
	verify(t, image)
}

// TestWipeFindsABackupInTheMiddle of a disk that has grown.
func TestWipeFindsABackupInTheMiddle(t *testing.T) {
	_, f := grown(t, 512)
	d := Device{RW: f, Size: grownSize, SectorSize: 512, Sync: f.Sync}
	fresh, err := NewTable(grownSize, 512, GUID{8})
	if err != nil {
		t.Fatal(err)
	}
	if err := WipeTable(d, fresh); err != nil {
		t.Fatal(err)
	}
	stray := make([]byte, 512)
	if _, err := f.ReadAt(stray, 64<<20-512); err != nil || !bytes.Equal(stray, make([]byte, 512)) {
		t.Errorf("the old backup is still there: %q %v", stray[:8], err)
	}
	verify(t, f.Name())
}

func TestWritingTablesThatCannotBe(t *testing.T) {
	m := &memory{data: make([]byte, 8<<20), writes: -1}
	table, err := NewTable(8<<20, 512, GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	p := Partition{Number: 1, Type: TypeESP(), First: 2048, Last: 4000}
	for want, change := range map[string]func(*Table){
		"leave no room for the table itself": func(t *Table) { t.LastUsable++ },
		"cannot be in a table of 128 entries": func(t *Table) {
			t.Partitions = []Partition{p, p}
		},
		"a label has at most 36 characters": func(t *Table) {
			long := p
			long.Name = strings.Repeat("x", 37)
			t.Partitions = []Partition{long}
		},
	} {
		bad := *table
		change(&bad)
		var te *TableError
		if err := WriteTable(m.device(512), &bad); !errors.As(err, &te) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if slices.ContainsFunc(m.data, func(b byte) bool { return b != 0 }) {
		t.Error("something was written")
	}
	if _, err := NewTable(30000, 512, GUID{1}); err == nil || !strings.Contains(err.Error(), "30000 bytes are too few") {
		t.Error(err)
	}
	failed := errors.New("no power")
	d := m.device(512)
	d.Sync = func() error { return failed }
	if err := WriteTable(d, table); !errors.Is(err, failed) {
		t.Error(err)
	}
}
