package disk

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

const grownSize = 256 << 20

// grown makes a table with sfdisk on a small disk that grows afterwards. It gives the image and a device upon it.
func grown(t *testing.T, sector int) (image string, device *os.File) {
	t.Helper()
	image = newImage(t, 64<<20)
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "label: gpt\nsize=8M, type=L, name=one\nsize=16M, type=U, name=two\n", "sfdisk", "--quiet", "--no-reread", attach(t, image, sector))
	if err := os.Truncate(image, grownSize); err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(attach(t, image, sector), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return image, device
}

func TestSpread(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			_, f := grown(t, sector)
			before, err := ReadTable(f, grownSize, sector)
			if err != nil {
				t.Fatal(err)
			}
			if err := Spread(f, grownSize, sector, f.Sync); err != nil {
				t.Fatal(err)
			}
			after, err := ReadTable(f, grownSize, sector)
			if err != nil {
				t.Fatal(err)
			}
			if after.Alternate != after.Last(grownSize) || after.LastUsable <= before.LastUsable || after.GUID != before.GUID || len(after.Partitions) != 2 {
				t.Fatalf("%+v", after)
			}
			for i, b := range before.Partitions {
				if a := after.Partitions[i]; a.First != b.First || a.Last != b.Last || a.UUID != b.UUID || a.Name != b.Name {
					t.Errorf("partition changed: %+v, was %+v", a, b)
				}
			}
			// sfdisk is the judge.
			if out := run(t, "", "sfdisk", "--verify", f.Name()); !strings.Contains(out, "No errors detected") {
				t.Error(out)
			}
			// The backup stands alone.
			if _, err := f.WriteAt(make([]byte, sector), int64(sector)); err != nil {
				t.Fatal(err)
			}
			if backup, err := ReadTable(f, grownSize, sector); err != nil || backup.Used != Backup || len(backup.Partitions) != 2 {
				t.Errorf("backup %+v %v", backup, err)
			}
			if err := Spread(f, grownSize, sector, f.Sync); !errors.Is(err, ErrDamaged) {
				t.Errorf("a damaged primary: %v", err)
			}
		})
	}
}

// cutShort lets so many writes through, and then none.
type cutShort struct {
	*os.File
	writes int
}

var errPowerCut = errors.New("power cut")

func (c *cutShort) WriteAt(p []byte, off int64) (int, error) {
	if c.writes == 0 {
		return 0, errPowerCut
	}
	c.writes--
	return c.File.WriteAt(p, off)
}

func TestSpreadSurvivesAPowerCut(t *testing.T) {
	for n := range 4 {
		_, f := grown(t, 512)
		if err := Spread(&cutShort{f, n}, grownSize, 512, f.Sync); !errors.Is(err, errPowerCut) {
			t.Fatalf("after %d writes: %v", n, err)
		}
		table, err := ReadTable(f, grownSize, 512)
		if err != nil || table.Used != Primary || len(table.Partitions) != 2 {
			t.Fatalf("after %d writes: %+v %v", n, table, err)
		}
		if err := Spread(f, grownSize, 512, f.Sync); err != nil {
			t.Errorf("again after %d writes: %v", n, err)
		}
	}
}

func TestSpreadOfATableThatSpansIsNothing(t *testing.T) {
	_, f := grown(t, 512)
	if err := Spread(f, 64<<20, 512, func() error { return errPowerCut }); err != nil {
		t.Error(err)
	}
}
