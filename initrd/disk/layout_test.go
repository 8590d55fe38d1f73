package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const layoutSize = 64 << 20

var errNoGUID = errors.New("no UUID is to be had")

// laidOut is a table of 64 MiB with three partitions: 1 "one" at 1 MiB, 8 MiB long; 2 "two"
// at 9 MiB, 8 MiB long; 5 "five" at 40 MiB, 4 MiB long.
func laidOut(t *testing.T) *Table {
	t.Helper()
	table, err := NewTable(layoutSize, 512, GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		number, start, size int
		name                string
	}{{1, 1, 8, "one"}, {2, 9, 8, "two"}, {5, 40, 4, "five"}} {
		first := uint64(p.start) * 2048
		table.Partitions = append(table.Partitions, Partition{Number: p.number, Name: p.name, Type: listed("linux-generic"), UUID: GUID{9, byte(p.number)},
			First: first, Last: first + uint64(p.size)*2048 - 1, Flags: FlagNoAuto})
	}
	return table
}

// told is a layout in words: its changes, with places in MiB.
func told(l *Layout) string {
	var list []string
	place := func(p Partition) string {
		return fmt.Sprintf("%s %.5g+%.5g", p.Title(), float64(p.First)/2048, float64(p.Sectors())/2048)
	}
	for _, c := range l.Changes {
		switch c.Deed {
		case Make:
			list = append(list, "make "+place(c.New))
		case Remove:
			list = append(list, "remove "+place(c.Old))
		case Replace:
			list = append(list, "replace "+place(c.Old)+" by "+place(c.New))
		case Resize:
			list = append(list, "resize "+place(c.Old)+" to "+place(c.New))
		}
	}
	return strings.Join(list, ", ")
}

// TestReuse is the table of the operator notes, cell by cell, with all that can differ.
func TestReuse(t *testing.T) {
	type w = Wanted
	other := GUID{0x42}
	for _, c := range []struct {
		name   string
		wanted []Wanted
		want   string // what is done, or the error
	}{
		{"not there, shall not be", []w{{Number: 3, Absent: true}}, ""},
		{"not there, shall not be, may be wiped", []w{{Number: 3, Absent: true, WipeEntry: true}}, ""},
		{"not there, shall be", []w{{Number: 3, SizeMiB: ptr(2)}}, "make partition 3 17+2"},
		{"not there, shall be, may be wiped", []w{{Number: 3, SizeMiB: ptr(2), WipeEntry: true}}, "make partition 3 17+2"},
		{"there, shall not be", []w{{Number: 2, Absent: true}}, "partition 2: it is there, shall not be, and wipePartitionEntry is not true"},
		{"there, shall not be, may be wiped", []w{{Number: 2, Absent: true, WipeEntry: true}}, `remove partition 2 "two" 9+8`},

		{"there, nothing said", []w{{Number: 2}}, ""},
		{"there, all said", []w{{Number: 2, Label: ptr("two"), StartMiB: ptr(9), SizeMiB: ptr(8), Type: listed("linux-generic"), UUID: GUID{9, 2}}}, ""},
		{"another label", []w{{Number: 2, Label: ptr("zwei")}}, `partition 2 "zwei": its label is "two", and "zwei" is wanted`},
		{"no label", []w{{Number: 2, Label: ptr("")}}, `partition 2: its label is "two", and "" is wanted`},
		{"another start", []w{{Number: 2, StartMiB: ptr(10)}}, "partition 2: it begins at sector 18432, and sector 20480 is wanted"},
		{"another size", []w{{Number: 2, SizeMiB: ptr(9)}}, "partition 2: it has 16384 sectors, and 18432 are wanted"},
		{"another UUID", []w{{Number: 2, UUID: other}}, "partition 2: its UUID is 09020000-0000-0000-0000-000000000000, and 42000000-0000-0000-0000-000000000000 is wanted"},
		{"another type", []w{{Number: 2, Type: other}}, "partition 2: its type is 0fc63daf-8483-4772-8e79-3d69d8477de4, and 42000000-0000-0000-0000-000000000000 is wanted"},
		{"not the end of the largest block", []w{{Number: 2, SizeMiB: ptr(0)}}, "partition 2: it has 16384 sectors, and 63488 are wanted"},
		{"the start of the largest block", []w{{Number: 2, StartMiB: ptr(0), SizeMiB: ptr(8)}}, ""},
		{"not the start of the largest block", []w{{Number: 1, StartMiB: ptr(0), SizeMiB: ptr(8)}}, "partition 1: it begins at sector 2048, and sector 34816 is wanted"},
		{"not in the largest block", []w{{Number: 5, SizeMiB: ptr(0)}}, ""},

		{"resized", []w{{Number: 2, SizeMiB: ptr(12), Resize: true}}, `resize partition 2 "two" 9+8 to partition 2 "two" 9+12`},
		{"shrunk", []w{{Number: 2, SizeMiB: ptr(3), Resize: true}}, `resize partition 2 "two" 9+8 to partition 2 "two" 9+3`},
		{"resized to the end of the block", []w{{Number: 2, SizeMiB: ptr(0), Resize: true}}, `resize partition 2 "two" 9+8 to partition 2 "two" 9+31`},
		{"not to be resized over another", []w{{Number: 1, SizeMiB: ptr(9), Resize: true}}, "partition 1: 18432 sectors from 2048 on do not fit: from there on 16384 are free"},
		{"resized, and another label", []w{{Number: 2, Label: ptr("zwei"), SizeMiB: ptr(12), Resize: true}}, `partition 2 "zwei": its label is "two", and "zwei" is wanted`},
		{"resized, and another start", []w{{Number: 2, StartMiB: ptr(10), SizeMiB: ptr(12), Resize: true}}, "partition 2: it begins at sector 18432, and sector 20480 is wanted"},

		{"may be wiped, and matches", []w{{Number: 2, Label: ptr("two"), WipeEntry: true}}, ""},
		{"may be wiped, and another label", []w{{Number: 2, Label: ptr("zwei"), StartMiB: ptr(9), SizeMiB: ptr(8), WipeEntry: true}}, `replace partition 2 "two" 9+8 by partition 2 "zwei" 9+8`},
		{"may be wiped, and nothing said of its place", []w{{Number: 1, Label: ptr("eins"), WipeEntry: true}}, `replace partition 1 "one" 1+8 by partition 1 "eins" 17+23`},
		{"may be wiped and resized: wiping wins", []w{{Number: 2, SizeMiB: ptr(12), WipeEntry: true, Resize: true}}, `replace partition 2 "two" 9+8 by partition 2 9+12`},

		{"the next free numbers", []w{{Label: ptr("a"), SizeMiB: ptr(1)}, {Label: ptr("b"), SizeMiB: ptr(1)}, {Label: ptr("c"), SizeMiB: ptr(1)}},
			`make partition 3 "a" 17+1, make partition 4 "b" 18+1, make partition 6 "c" 19+1`},
		{"numbers come first", []w{{Label: ptr("a"), SizeMiB: ptr(1)}, {Number: 3, SizeMiB: ptr(1)}}, `make partition 3 17+1, make partition 4 "a" 18+1`},
		{"the number of one that goes", []w{{Number: 2, Label: ptr("x"), SizeMiB: ptr(1), WipeEntry: true}, {Label: ptr("a"), SizeMiB: ptr(1)}},
			`replace partition 2 "two" 9+8 by partition 2 "x" 9+1, make partition 3 "a" 10+1`},
		{"the largest block, twice", []w{{Number: 3}, {Number: 4}}, "make partition 3 17+23, make partition 4 44+19.984"},
		{"not even the last block", []w{{Number: 3}, {Number: 4}, {Number: 6}}, "make partition 3 17+23, make partition 4 44+19.984, make partition 6 0.016602+0.9834"},
		{"no block at all", []w{{Number: 3}, {Number: 4}, {Number: 6}, {Number: 7}}, "partition 7: there is no free sector left"},
		{"a start in another partition", []w{{Number: 3, StartMiB: ptr(12)}}, `partition 3: its first sector, 24576, lies in partition 2 "two"`},
		{"a start behind the disk", []w{{Number: 3, StartMiB: ptr(64)}}, "partition 3: its first sector, 131072, is outside of the usable ones, 34 to 131038"},
		{"a start far behind the disk", []w{{Number: 3, StartMiB: ptr(1 << 40)}}, "partition 3: 1099511627776 MiB, on a disk of 64 MiB"},
		{"a size of less than nothing", []w{{Number: 3, SizeMiB: ptr(-1)}}, "partition 3: -1 MiB, on a disk of 64 MiB"},
		{"up to the end of a block it is not in", []w{{Number: 3, StartMiB: ptr(50)}}, "partition 3: size 0 is up to the end of the largest free block, sectors 34816 to 81919, and its first sector, 102400, is not in that"},
		{"too large", []w{{Number: 3, SizeMiB: ptr(24)}}, "partition 3: 49152 sectors from 34816 on do not fit: from there on 47104 are free"},
		{"a number too large", []w{{Number: 129}}, "partition 129: the table has room for 128 partitions"},
		{"a label too long", []w{{Number: 3, Label: ptr(strings.Repeat("ä", 37))}}, `a label has at most 36 characters`},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := laidOut(t)
			n := byte(0)
			l, err := Arrange(table, layoutSize, c.wanted, func() (GUID, error) { n++; return GUID{7, n}, nil })
			text := ""
			if err != nil {
				text = err.Error()
				if e := (*LayoutError)(nil); !errors.As(err, &e) {
					t.Errorf("%T", err)
				}
			} else {
				text = told(l)
			}
			if text != c.want && (err == nil || !strings.Contains(text, c.want)) {
				t.Errorf("%s\nwant %s", text, c.want)
			}
			if before := laidOut(t); geometry(table, nil) != geometry(before, nil) {
				t.Error("the table that was given is changed")
			}
			if err == nil {
				settled(t, l.Table, layoutSize, c.wanted, c.name)
			}
		})
	}
}

// TestEntries are what a partition has beside its place.
func TestEntries(t *testing.T) {
	fixed := GUID{3}
	l, err := Arrange(laidOut(t), layoutSize, []Wanted{
		{Number: 1, Label: ptr("eins"), WipeEntry: true, StartMiB: ptr(1), SizeMiB: ptr(8)},
		{Number: 2, SizeMiB: ptr(12), Resize: true},
		{Number: 3, Label: ptr("new"), SizeMiB: ptr(1), Type: TypeESP(), UUID: fixed},
	}, func() (GUID, error) { return GUID{7}, nil })
	if err != nil {
		t.Fatal(err)
	}
	linux := listed("linux-generic")
	want := []Partition{
		// Nothing of the old one: not its UUID, and not its attributes.
		{Number: 1, Name: "eins", Type: linux, UUID: GUID{7}, First: 2048, Last: 9*2048 - 1},
		{Number: 2, Name: "two", Type: linux, UUID: GUID{9, 2}, First: 9 * 2048, Last: 21*2048 - 1, Flags: FlagNoAuto},
		{Number: 3, Name: "new", Type: TypeESP(), UUID: fixed, First: 44 * 2048, Last: 45*2048 - 1},
	}
	if got := l.Table.Partitions[:3]; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if _, err := Arrange(laidOut(t), layoutSize, []Wanted{{Number: 3}}, func() (GUID, error) { return GUID{}, errNoGUID }); !errors.Is(err, errNoGUID) {
		t.Error(err)
	}
}

// TestAfterwards is what is asked of a disk on which it was done already.
func TestAfterwards(t *testing.T) {
	table := laidOut(t)
	for _, c := range []struct {
		name string
		w    Wanted
		want string
	}{
		{"by its label", Wanted{Label: ptr("two")}, ""},
		{"by its label, of another type", Wanted{Label: ptr("two"), Type: TypeESP()}, `make partition 3 "two" 17+23`},
		{"gone since", Wanted{Label: ptr("gone"), SizeMiB: ptr(1)}, `make partition 3 "gone" 17+1`},
		{"where it is", Wanted{Number: 1, StartMiB: ptr(0), SizeMiB: ptr(0), WipeEntry: true}, ""},
		{"never wiped again", Wanted{Number: 1, Label: ptr("eins"), WipeEntry: true}, `partition 1 "eins": its label is "one", and "eins" is wanted`},
		{"never deleted again", Wanted{Number: 1, Absent: true, WipeEntry: true}, "partition 1: it is there, shall not be, and wipePartitionEntry is not true"},
		{"too small", Wanted{Number: 1, SizeMiB: ptr(9), WipeEntry: true}, "partition 1: it has 16384 sectors, and 18432 are wanted"},
	} {
		l, err := Arrange(table, layoutSize, Afterwards(table, []Wanted{c.w}), func() (GUID, error) { return GUID{7}, nil })
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			text = told(l)
		}
		if text != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, text, c.want)
		}
	}
}

// TestOnce: a partition that fills what is left before the first megabyte begins
// unaligned, and what "the largest free block" was is not to be told any more.
func TestOnce(t *testing.T) {
	table, err := NewTable(layoutSize, 512, GUID{1})
	if err != nil {
		t.Fatal(err)
	}
	wanted := []Wanted{{Number: 1, StartMiB: ptr(0), SizeMiB: ptr(0)}, {Number: 3, StartMiB: ptr(0)}}
	l, err := Arrange(table, layoutSize, wanted, func() (GUID, error) { return GUID{7}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Arrange(l.Table, layoutSize, wanted, nil); err == nil || !Once(wanted) {
		t.Errorf("%v, though it could be asked again", told(l))
	}
	settled(t, l.Table, layoutSize, wanted, "afterwards")
	for name, w := range map[string]Wanted{"next": {Label: ptr("a")}, "wipe": {Number: 1, WipeEntry: true}, "start": {Number: 1, StartMiB: ptr(0)}, "size": {Number: 1, SizeMiB: ptr(0)}} {
		if !Once([]Wanted{{Number: 5}, w}) {
			t.Errorf("%s is a state", name)
		}
	}
	if Once([]Wanted{{Number: 1, StartMiB: ptr(1), SizeMiB: ptr(1), Resize: true}, {Number: 2, Absent: true}}) {
		t.Error("what is there, or is not, is no event")
	}
}

// TestAlignment is what the existing partitions have in common.
func TestAlignment(t *testing.T) {
	const large = 400 << 30
	for _, c := range []struct {
		sector int
		size   int64
		starts []uint64
		want   uint64
	}{
		{512, layoutSize, nil, 2048},
		{4096, layoutSize, nil, 256},
		{512, layoutSize, []uint64{4096, 2048}, 2048},
		{512, layoutSize, []uint64{4096, 63}, 1},
		{512, layoutSize, []uint64{1024 * 3, 2048}, 1024},
		{512, large, []uint64{63}, 8},
		{512, large, []uint64{2048 + 64}, 64},
		{4096, layoutSize, []uint64{6}, 2},
	} {
		table, err := NewTable(c.size, c.sector, GUID{1})
		if err != nil {
			t.Fatal(err)
		}
		for i, start := range c.starts {
			table.Partitions = append(table.Partitions, Partition{Number: i + 1, First: start, Last: start})
		}
		if got := alignment(table, uint64(c.size)/uint64(c.sector)); got != c.want {
			t.Errorf("%d bytes, %v: %d, want %d", c.sector, c.starts, got, c.want)
		}
	}
}

// TestArrangeOnAGrownDisk uses the space behind the old end.
func TestArrangeOnAGrownDisk(t *testing.T) {
	l, err := Arrange(laidOut(t), 4*layoutSize, []Wanted{{Number: 5, SizeMiB: ptr(0), Resize: true}}, func() (GUID, error) { return GUID{}, errNoGUID })
	if want := `resize partition 5 "five" 40+4 to partition 5 "five" 40+215.98`; err != nil || told(l) != want {
		t.Fatalf("%v %v", l, err)
	}
	if l.Table.Alternate != l.Table.Last(4*layoutSize) {
		t.Errorf("%+v", l.Table)
	}
}

// TestTablesThatAreNotSoundAreNotWritten: the ones that can be read need not be.
func TestTablesThatAreNotSoundAreNotWritten(t *testing.T) {
	table := laidOut(t)
	table.Partitions[1].First -= 100
	_, err := Arrange(table, layoutSize, []Wanted{{Number: 3, SizeMiB: ptr(1)}}, func() (GUID, error) { return GUID{7}, nil })
	var te *TableError
	if !errors.As(err, &te) || !strings.Contains(err.Error(), `partition 1 "one" and partition 2 "two" overlap`) {
		t.Error(err)
	}
	// Where nothing is to be written, it is let be.
	if l, err := Arrange(table, layoutSize, []Wanted{{Number: 5}}, nil); err != nil || len(l.Changes) > 0 {
		t.Error(l, err)
	}
	table = laidOut(t)
	table.Partitions[2].Last = table.LastUsable + 1
	if _, err = Arrange(table, layoutSize, []Wanted{{Number: 3, SizeMiB: ptr(1)}}, func() (GUID, error) { return GUID{7}, nil }); err == nil || !strings.Contains(err.Error(), "leaves the usable ones") {
		t.Error(err)
	}
}

// FuzzArrange holds of any table and any wish: what comes out is sound, has what is
// wanted, touches nothing else, and is settled.
func FuzzArrange(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, large bool) {
		sector := 512
		if large {
			sector = 4096
		}
		r := rand.New(rand.NewPCG(seed, 2))
		table := randomTable(t, r, layoutSize, sector)
		wanted := randomWanted(r, table, layoutSize)
		l, err := Arrange(table, layoutSize, wanted, func() (GUID, error) { return randomGUID(r), nil })
		if err != nil {
			return
		}
		if err := l.Table.sound(); err != nil {
			t.Fatal(err)
		}
		settled(t, l.Table, layoutSize, wanted, "")
		changed := map[int]bool{}
		for _, c := range l.Changes {
			changed[max(c.Old.Number, c.New.Number)] = true // where both are there they are the same
		}
		for _, p := range table.Partitions {
			if changed[p.Number] {
				continue
			}
			if !slices.ContainsFunc(l.Table.Partitions, func(q Partition) bool { return fmt.Sprintf("%+v", p) == fmt.Sprintf("%+v", q) }) {
				t.Errorf("%s is not as it was", p.Title())
			}
		}
		for _, p := range l.Table.Partitions {
			if changed[p.Number] && !slices.ContainsFunc(wanted, func(w Wanted) bool { return w.Number == p.Number || w.Number == 0 }) {
				t.Errorf("%s was not wanted", p.Title())
			}
		}
	})
}
