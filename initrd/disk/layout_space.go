package disk

import (
	"errors"
	"fmt"
	"slices"
)

// space is a table as places are looked for in it: which sectors are usable, which are
// taken, and where a partition may begin.
type space struct {
	first, last uint64 // usable, inclusive
	align       uint64 // in sectors; a power of two
	taken       []Partition
}

// A stretch is sectors, both inclusive.
type stretch struct{ first, last uint64 }

func (s stretch) sectors() uint64 { return s.last - s.first + 1 }

func newSpace(t *Table, sectors uint64) *space {
	return &space{first: t.FirstUsable, last: t.LastUsable, align: alignment(t, sectors), taken: slices.Clone(t.Partitions)}
}

// alignment is what the partitions of a table have in common, at most 1 MiB, which is
// also what a table without partitions has. On a disk of 320 GiB of 512-byte sectors,
// or as many larger ones, it is at least 8 sectors: such disks have blocks of 4 KiB
// inside. These are the rules of sgdisk(8), so that a config that was written for it
// finds its partitions where they were.
func alignment(t *Table, sectors uint64) uint64 {
	const large, least = 671088640, 8
	align := uint64(mib / t.SectorSize)
	for _, p := range t.Partitions {
		for p.First%align != 0 {
			align /= 2
		}
	}
	if align < least && sectors >= large {
		return least
	}
	return align
}

// free gives the stretches that no partition takes, in order.
func (s *space) free() []stretch {
	taken := slices.Clone(s.taken)
	slices.SortFunc(taken, func(a, b Partition) int {
		if a.First < b.First {
			return -1
		}
		return 1
	})
	var list []stretch
	next := s.first
	for _, p := range taken {
		if p.First > next {
			if end := min(p.First-1, s.last); end >= next {
				list = append(list, stretch{next, end})
			}
		}
		next = max(next, p.Last+1)
	}
	if next <= s.last {
		list = append(list, stretch{next, s.last})
	}
	return list
}

// largest gives the largest free stretch, the first one of several, from the first
// sector on where a partition may begin; ok is false when nothing is free. Where
// no sector of it is aligned it begins unaligned.
func (s *space) largest() (l stretch, ok bool) {
	for _, f := range s.free() {
		if !ok || f.sectors() > l.sectors() {
			l, ok = f, true
		}
	}
	if up := (l.first + s.align - 1) / s.align * s.align; ok && up <= l.last {
		l.first = up
	}
	return l, ok
}

// around gives the free stretch that a sector lies in.
func (s *space) around(sector uint64) (stretch, bool) {
	for _, f := range s.free() {
		if f.first <= sector && sector <= f.last {
			return f, true
		}
	}
	return stretch{}, false
}

// at gives the partition that a sector lies in.
func (s *space) at(sector uint64) (Partition, bool) {
	for _, p := range s.taken {
		if p.First <= sector && sector <= p.Last {
			return p, true
		}
	}
	return Partition{}, false
}

func (s *space) numbered(n int) (Partition, bool) {
	if i := slices.IndexFunc(s.taken, func(p Partition) bool { return p.Number == n }); i >= 0 {
		return s.taken[i], true
	}
	return Partition{}, false
}

func (s *space) remove(n int) {
	s.taken = slices.DeleteFunc(s.taken, func(p Partition) bool { return p.Number == n })
}

// next is the first number that no partition has.
func (s *space) next() int {
	for n := 1; ; n++ {
		if _, taken := s.numbered(n); !taken {
			return n
		}
	}
}

// make takes the sectors for a partition. nil and 0 mean the largest free block: where
// it begins, and where it ends.
func (s *space) make(number, slots int, start, size *uint64) (Partition, error) {
	if number == 0 {
		number = s.next()
	}
	if number > slots {
		return Partition{}, fmt.Errorf("the table has room for %d partitions", slots)
	}
	largest, ok := s.largest()
	if !ok {
		return Partition{}, errors.New("there is no free sector left")
	}
	p := Partition{Number: number, First: largest.first, Last: largest.last}
	if start != nil && *start != 0 {
		p.First = *start
	}
	inside, free := s.around(p.First)
	if !free {
		if o, taken := s.at(p.First); taken {
			return Partition{}, fmt.Errorf("its first sector, %d, lies in %s", p.First, o.Title())
		}
		return Partition{}, fmt.Errorf("its first sector, %d, is outside of the usable ones, %d to %d", p.First, s.first, s.last)
	}
	if size != nil && *size != 0 {
		p.Last = p.First + *size - 1
	} else if p.First > p.Last || p.Last > inside.last {
		return Partition{}, fmt.Errorf("size 0 is up to the end of the largest free block, sectors %d to %d, and its first sector, %d, is not in that", largest.first, largest.last, p.First)
	}
	if p.Last > inside.last {
		return Partition{}, fmt.Errorf("%d sectors from %d on do not fit: from there on %d are free", p.Sectors(), p.First, inside.last-p.First+1)
	}
	s.taken = append(s.taken, p)
	return p, nil
}
