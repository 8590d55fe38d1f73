package disk

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
)

const mib = 1 << 20

// Wanted is what a config says of one partition: an entry of Ignition's
// storage.disks[].partitions, in the words of its specification. What is not said is
// nil, or the zero GUID.
type Wanted struct {
	Number   int // 0: the next free one
	Label    *string
	StartMiB *int // 0: where the largest free block begins
	SizeMiB  *int // 0: up to the end of the largest free block
	Type     GUID // Linux file system data when one is made and nothing is said
	UUID     GUID // a random one when one is made and nothing is said

	Absent    bool // shouldExist: false
	WipeEntry bool // what is there may be deleted
	Resize    bool // what is there may get another size, if nothing else differs
}

func (w Wanted) String() string {
	label := ""
	if w.Label != nil {
		label = *w.Label
	}
	return title(w.Number, label)
}

// title names a partition in messages: partition 3 "var".
func title(number int, label string) string {
	text := "partition"
	if number != 0 {
		text += " " + strconv.Itoa(number)
	}
	if label != "" {
		text += " " + strconv.Quote(label)
	}
	return text
}

// Title names the partition in messages, by number and label.
func (p Partition) Title() string { return title(p.Number, p.Name) }

// A LayoutError says which partition of a config cannot be had, and why.
type LayoutError struct {
	Partition string // as Wanted.String has it
	Err       error
}

func (e *LayoutError) Error() string { return e.Partition + ": " + e.Err.Error() }
func (e *LayoutError) Unwrap() error { return e.Err }

// A Deed is what a Change does.
type Deed int

// The deeds of a Change.
const (
	Make    Deed = iota // a partition that was not there: New
	Remove              // Old
	Replace             // Old by New, which has its number and nothing else of it
	Resize              // Old becomes New, which differs only in where it ends
)

// A Change is one partition that is not as it is wanted.
type Change struct {
	Deed     Deed
	Old, New Partition
}

// A Layout is what a table becomes.
type Layout struct {
	Table   *Table   // as it shall be
	Changes []Change // how it gets there; none: the table is as it is wanted
}

// Arrange computes what the partitions that a config wants come to on a disk of size
// bytes with the table t, by the rules of Ignition (operator notes, "Partition Reuse
// Semantics"); t is not changed. Places are chosen as sgdisk(8) chooses them, so that
// the same config gives the same partitions:
//
//	start not said   of an existing partition without WipeEntry: as it is
//	start 0          the first aligned sector of the largest free block
//	size 0           up to the end of the largest free block, wherever the start is
//	number 0         the first free one, after all partitions that have a number
//
// What 0 means for a partition that is there is what it would get if all partitions of
// the config were deleted and made again. A table that was made when the disk was
// smaller is first made to span it (see Spread).
//
// A table that is damaged in its primary copy alone is given back as it is: writing it
// mends that.
//
// random gives the UUIDs that the config does not say. It fails with a *LayoutError
// for the first partition that differs and may not be changed, or for which there is
// no room.
func Arrange(t *Table, size int64, wanted []Wanted, random func() (GUID, error)) (*Layout, error) {
	sorted := slices.Clone(wanted)
	slices.SortStableFunc(sorted, func(a, b Wanted) int {
		if (a.Number == 0) == (b.Number == 0) {
			return 0
		}
		if b.Number == 0 {
			return -1
		}
		return 1
	})
	a := arrangement{table: t.spanning(size), sectors: uint64(size) / uint64(t.SectorSize), random: random}
	for _, w := range sorted {
		p, err := a.place(w)
		if err == nil {
			err = p.presentable(t.Partitions)
		}
		if err != nil {
			return nil, &LayoutError{w.String(), err}
		}
		a.wanted = append(a.wanted, p)
	}
	if err := a.rehearse(); err != nil {
		return nil, err
	}
	if err := a.decide(); err != nil {
		return nil, err
	}
	if len(a.changes) == 0 {
		return &Layout{Table: t}, nil
	}
	if err := a.table.sound(); err != nil {
		return nil, err
	}
	return &Layout{Table: a.table, Changes: a.changes}, nil
}

// spanning is a copy of the table as it is when it spans the disk.
func (t *Table) spanning(size int64) *Table {
	c := *t
	c.Partitions = slices.Clone(t.Partitions)
	if last := t.Last(size); t.Used == Primary && t.Alternate != last {
		c.LastUsable += last - t.Alternate // of unsigned numbers, also where the disk has shrunk
		c.Alternate = last
	}
	return &c
}

// NewTable is an empty table for a disk of size bytes: 128 entries, as everybody makes it.
func NewTable(size int64, sectorSize int, guid GUID) (*Table, error) {
	const slots = 128
	area := uint64((slots*minEntrySize + sectorSize - 1) / sectorSize)
	sectors := uint64(size) / uint64(sectorSize)
	if sectors < 2*area+4 {
		return nil, &TableError{Err: fmt.Errorf("%d bytes are too few for one", size)}
	}
	return &Table{
		GUID: guid, SectorSize: sectorSize, Slots: slots, Alternate: sectors - 1,
		FirstUsable: 2 + area, LastUsable: sectors - area - 2,
	}, nil
}

// sound says whether the partitions lie where they may and do not overlap. No table
// that does not hold that is written, though one can be read.
func (t *Table) sound() error {
	for i, p := range t.Partitions {
		if p.First < t.FirstUsable || p.Last > t.LastUsable || p.First > p.Last {
			return &TableError{Err: fmt.Errorf("%s, in sectors %d to %d, leaves the usable ones, %d to %d", p.Title(), p.First, p.Last, t.FirstUsable, t.LastUsable)}
		}
		for _, o := range t.Partitions[:i] {
			if p.First <= o.Last && o.First <= p.Last {
				return &TableError{Err: fmt.Errorf("%s and %s overlap", o.Title(), p.Title())}
			}
		}
	}
	return nil
}

// placed is a Wanted in sectors. A start or size that was 0 is replaced by what it
// comes to, once that is known.
type placed struct {
	Wanted
	start, size *uint64
}

// arrangement is the work of Arrange.
type arrangement struct {
	table   *Table
	sectors uint64
	wanted  []placed
	random  func() (GUID, error)
	changes []Change
}

// place turns MiB into sectors.
func (a *arrangement) place(w Wanted) (placed, error) {
	p := placed{Wanted: w}
	if w.Label != nil && len(utf16.Encode([]rune(*w.Label))) > nameUnits {
		return p, fmt.Errorf("a label has at most %d characters", nameUnits)
	}
	if w.Number < 0 || w.Number > a.table.Slots {
		return p, fmt.Errorf("the table has room for %d partitions", a.table.Slots)
	}
	per := uint64(mib / a.table.SectorSize)
	for _, n := range []struct {
		mib *int
		to  **uint64
	}{{w.StartMiB, &p.start}, {w.SizeMiB, &p.size}} {
		if n.mib == nil {
			continue
		}
		if *n.mib < 0 || uint64(*n.mib) > a.sectors/per+1 {
			return p, fmt.Errorf("%d MiB, on a disk of %d MiB", *n.mib, a.sectors/per)
		}
		sectors := uint64(*n.mib) * per
		*n.to = &sectors
	}
	return p, nil
}

// presentable tells faults that need no look at free space, so that they are told as
// what they are and not as want of room.
func (p placed) presentable(there []Partition) error {
	i := slices.IndexFunc(there, func(o Partition) bool { return p.Number != 0 && o.Number == p.Number })
	if i < 0 || p.WipeEntry {
		return nil
	}
	if p.Absent {
		return fmt.Errorf("it is there, shall not be, and wipePartitionEntry is not true")
	}
	said := p
	if said.start != nil && *said.start == 0 {
		said.start = nil
	}
	if said.size != nil && *said.size == 0 || p.Resize {
		said.size = nil
	}
	return said.matches(there[i])
}

// differs says what a partition that is there does not have of what is wanted.
func (p placed) differs(have Partition) error {
	switch {
	case p.start != nil && *p.start != have.First:
		return fmt.Errorf("it begins at sector %d, and sector %d is wanted", have.First, *p.start)
	case !p.UUID.IsZero() && p.UUID != have.UUID:
		return fmt.Errorf("its UUID is %s, and %s is wanted", have.UUID, p.UUID)
	case !p.Type.IsZero() && p.Type != have.Type:
		return fmt.Errorf("its type is %s, and %s is wanted", have.Type, p.Type)
	case p.Label != nil && *p.Label != have.Name:
		return fmt.Errorf("its label is %q, and %q is wanted", have.Name, *p.Label)
	}
	return nil
}

func (p placed) matches(have Partition) error {
	if err := p.differs(have); err != nil {
		return err
	}
	if p.size != nil && *p.size != have.Sectors() {
		return fmt.Errorf("it has %d sectors, and %d are wanted", have.Sectors(), *p.size)
	}
	return nil
}

// rehearse deletes and makes all that is wanted, to find out what 0 means.
func (a *arrangement) rehearse() error {
	s := newSpace(a.table, a.sectors)
	for _, p := range a.wanted {
		s.remove(p.Number)
	}
	for i, p := range a.wanted {
		if p.Absent {
			continue
		}
		start, size := p.start, p.size
		if have, ok := newSpace(a.table, a.sectors).numbered(p.Number); ok && !p.WipeEntry {
			if first := have.First; start == nil {
				start = &first
			}
			if n := have.Sectors(); size == nil {
				size = &n
			}
		}
		made, err := s.make(p.Number, a.table.Slots, start, size)
		if err != nil {
			return &LayoutError{p.String(), err}
		}
		if p.Label != nil {
			s.taken[len(s.taken)-1].Name = *p.Label
		}
		if p.Number == 0 || !zero(p.start) && !zero(p.size) {
			continue
		}
		if first := made.First; p.start != nil {
			a.wanted[i].start = &first
		}
		if n := made.Sectors(); p.size != nil {
			a.wanted[i].size = &n
		}
	}
	return nil
}

func zero(n *uint64) bool { return n != nil && *n == 0 }

// decide goes through the table of the operator notes, and then does what it decided:
// first all deletions, then what is made, in order.
func (a *arrangement) decide() error {
	before := newSpace(a.table, a.sectors)
	after := newSpace(a.table, a.sectors)
	type pending struct {
		placed
		change Change
	}
	var list []pending
	for _, p := range a.wanted {
		have, there := before.numbered(p.Number)
		var change Change
		switch {
		case !there && p.Absent:
			continue
		case !there:
			change = Change{Deed: Make}
		case p.Absent:
			// That it may be wiped was seen by presentable.
			change = Change{Deed: Remove, Old: have}
		case p.matches(have) == nil:
			continue
		case p.WipeEntry:
			change = Change{Deed: Replace, Old: have}
		case p.Resize && p.differs(have) == nil:
			change = Change{Deed: Resize, Old: have}
		default:
			return &LayoutError{p.String(), p.matches(have)}
		}
		if there {
			after.remove(p.Number)
		}
		list = append(list, pending{p, change})
	}
	for _, p := range list {
		if p.change.Deed != Remove {
			start := p.start
			if p.change.Deed == Resize {
				start = &p.change.Old.First
			}
			made, err := after.make(p.Number, a.table.Slots, start, p.size)
			if err != nil {
				return &LayoutError{p.String(), err}
			}
			if p.change.New, err = a.entry(p.Wanted, made, p.change); err != nil {
				return &LayoutError{p.String(), err}
			}
			after.taken[len(after.taken)-1] = p.change.New
		}
		a.changes = append(a.changes, p.change)
	}
	a.table.Partitions = after.taken
	slices.SortFunc(a.table.Partitions, func(x, y Partition) int { return x.Number - y.Number })
	return nil
}

// entry fills in what a partition has beside its place.
func (a *arrangement) entry(want Wanted, made Partition, c Change) (Partition, error) {
	if c.Deed == Resize {
		p := c.Old
		p.Last = made.Last
		return p, nil
	}
	p := Partition{Number: made.Number, First: made.First, Last: made.Last, Type: want.Type, UUID: want.UUID}
	if p.Type.IsZero() {
		p.Type = listed("linux-generic")
	}
	if want.Label != nil {
		p.Name = *want.Label
	}
	var err error
	if p.UUID.IsZero() {
		p.UUID, err = a.random()
	}
	return p, err
}
