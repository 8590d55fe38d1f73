package disk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

// randomTable has partitions at aligned and at odd places, with gaps.
func randomTable(t *testing.T, r *rand.Rand, size int64, sector int) *Table {
	t.Helper()
	table, err := NewTable(size, sector, randomGUID(r))
	if err != nil {
		t.Fatal(err)
	}
	at := table.FirstUsable
	step := uint64(1)
	if r.IntN(4) > 0 { // mostly aligned, to some power of two
		step = uint64(mib/sector) >> r.IntN(4)
	}
	number := 0
	for range r.IntN(6) {
		first := (at + uint64(r.IntN(12<<20/sector))) / step * step
		if first < at {
			first += step
		}
		last := first + uint64(r.IntN(12<<20/sector)) + 1
		if r.IntN(3) == 0 {
			last = (last+step-1)/step*step - 1
		}
		if last > table.LastUsable || last < first {
			break
		}
		number += 1 + r.IntN(2)
		table.Partitions = append(table.Partitions, Partition{Number: number, First: first, Last: last, Type: listed("linux-generic"), UUID: randomGUID(r), Name: fmt.Sprintf("old%d", number)})
		at = last + 1
	}
	// Numbers are in no order of places.
	r.Shuffle(len(table.Partitions), func(i, j int) {
		p := table.Partitions
		p[i].Number, p[j].Number = p[j].Number, p[i].Number
	})
	slices.SortFunc(table.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	return table
}

func randomGUID(r *rand.Rand) (g GUID) {
	for i := range g {
		g[i] = byte(r.Uint32())
	}
	return g
}

// randomWanted is mostly about what the table has, and mostly possible.
func randomWanted(r *rand.Rand, table *Table, size int64) []Wanted {
	var list []Wanted
	absent := r.IntN(3) == 0
	used := map[int]bool{}
	megabytes := int(size >> 20)
	for i := range 1 + r.IntN(4) {
		w := Wanted{Number: 1 + r.IntN(8), WipeEntry: r.IntN(2) == 0, Resize: r.IntN(3) == 0}
		if !absent && r.IntN(4) == 0 {
			w.Number = 0
		}
		if w.Number != 0 && used[w.Number] {
			continue
		}
		used[w.Number] = true
		if absent && r.IntN(3) == 0 {
			w.Absent = true
			w.WipeEntry = r.IntN(4) > 0
			list = append(list, w)
			continue
		}
		if w.Number == 0 || r.IntN(2) == 0 {
			w.Label = ptr(fmt.Sprintf("new%d", i))
		}
		if r.IntN(4) == 0 {
			w.UUID = randomGUID(r)
		}
		if r.IntN(4) == 0 {
			w.Type = TypeESP()
		}
		switch r.IntN(3) {
		case 0:
			w.StartMiB = ptr(0)
		case 1:
			w.StartMiB = ptr(1 + r.IntN(megabytes))
		}
		switch r.IntN(3) {
		case 0:
			w.SizeMiB = ptr(0)
		case 1:
			w.SizeMiB = ptr(1 + r.IntN(megabytes/4))
		}
		at := slices.IndexFunc(table.Partitions, func(p Partition) bool { return p.Number == w.Number })
		if at >= 0 && !w.WipeEntry && r.IntN(4) > 0 { // what is there
			have := table.Partitions[at]
			w.UUID, w.Type = GUID{}, GUID{}
			if w.Label != nil {
				w.Label = &have.Name
			}
			per := uint64(mib / table.SectorSize)
			if w.StartMiB != nil && have.First%per == 0 {
				w.StartMiB = ptr(int(have.First / per))
			}
			if w.SizeMiB != nil && have.Sectors()%per == 0 && r.IntN(2) == 0 {
				w.SizeMiB = ptr(int(have.Sectors() / per))
			}
		}
		list = append(list, w)
	}
	return list
}

func describe(wanted []Wanted) string {
	var b strings.Builder
	number := func(n *int) string {
		if n == nil {
			return "-"
		}
		return strconv.Itoa(*n)
	}
	for _, w := range wanted {
		fmt.Fprintf(&b, "%v start %s size %s wipe %v resize %v absent %v uuid %v type %v\n", w, number(w.StartMiB), number(w.SizeMiB), w.WipeEntry, w.Resize, w.Absent, !w.UUID.IsZero(), !w.Type.IsZero())
	}
	return b.String()
}
