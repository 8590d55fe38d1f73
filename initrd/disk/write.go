package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// nameUnits is how many UTF-16 units an entry has for its name.
const nameUnits = 36

// A Device is a disk that is written.
type Device struct {
	RW interface {
		io.ReaderAt
		io.WriterAt
	}
	Size       int64 // in bytes
	SectorSize int   // in bytes

	// Sync must not return before the disk has what was written.
	Sync func() error
}

// WriteTable writes a table to a disk: one that was read from it and changed, or a new
// one to a disk that has none. Of a table that is changed, everything that a Table does
// not hold stays as it is on the disk, and so does the boot code in the first sector.
//
// A power cut at any moment leaves the table that was there or the new one (UEFI 2.10,
// section 5.3.2):
//
//	sync        the protective MBR, where there was no label: without a GPT it says nothing
//	sync        the backup, entries and then header: nobody reads it yet
//	sync        the primary header with the entries behind it, in one write; where a disk
//	            takes half of that, the entries' checksum is wrong and the backup counts
//	sync        the protective MBR, where it changes: over an MBR label this is the one
//	            sector that makes the disk a GPT one
//
// While the primary copy is half written, the kernel sees no partitions, unless it was
// started with "gpt"; ReadTable and libblkid see those of the backup. A disk that has
// read that copy again is as good as new after the next WriteTable.
//
// No old file system signature is removed, neither between partitions nor in them: what
// was in a partition is in the one that takes its place.
func WriteTable(d Device, t *Table) error { return d.write(t, false) }

// WipeTable is WriteTable for a new table on a disk whose old one, of whatever kind, is
// not wanted any more, with its boot code. With no new table, the old one is erased.
func WipeTable(d Device, t *Table) error {
	if t == nil {
		return d.erase()
	}
	return d.write(t, true)
}

func (d Device) sectors() sectors {
	return sectors{r: d.RW, size: d.SectorSize, count: uint64(d.Size) / uint64(d.SectorSize)}
}

// A part is something that is written in one go, and after which the disk is waited for.
type part struct {
	lba  uint64
	data []byte
	sync bool
}

func (d Device) put(parts []part) error {
	for _, p := range parts {
		if _, err := d.RW.WriteAt(p.data, int64(p.lba)*int64(d.SectorSize)); err != nil {
			return &TableError{Err: fmt.Errorf("write %d bytes at sector %d: %w", len(p.data), p.lba, err)}
		}
		if !p.sync {
			continue
		}
		if err := d.Sync(); err != nil {
			return &TableError{Err: fmt.Errorf("sync: %w", err)}
		}
	}
	return nil
}

func (d Device) write(t *Table, wipe bool) error {
	s := d.sectors()
	last := s.count - 1
	boot, err := s.read(0, d.SectorSize)
	if err != nil {
		return &TableError{Err: err}
	}
	old, err := s.known(t)
	if err != nil {
		return &TableError{Err: err}
	}
	g := newCopy(t, d.SectorSize)
	if old != nil {
		g = *old
	}
	area := g.area(d.SectorSize)
	if t.FirstUsable < g.start+area || t.LastUsable >= last-area || t.FirstUsable > t.LastUsable {
		return &TableError{Err: fmt.Errorf("usable sectors %d to %d leave no room for the table itself on a disk of %d sectors", t.FirstUsable, t.LastUsable, s.count)}
	}
	if err := g.fill(t); err != nil {
		return &TableError{Err: err}
	}
	backup := g
	backup.start = last - area
	var stale []part
	if wipe {
		if stale, err = s.strays(last); err != nil {
			return &TableError{Err: err}
		}
	}
	entries := pad(g.entries, d.SectorSize)
	parts := []part{
		{backup.start, entries, false},
		{last, backup.headerAt(t, last, 1, d.SectorSize), true},
	}
	primary := g.headerAt(t, 1, last, d.SectorSize)
	if g.start == 2 {
		parts = append(parts, part{1, append(primary, entries...), true})
	} else {
		parts = append(parts, part{g.start, entries, true}, part{1, primary, true})
	}
	if mbr := protective(boot, last, wipe); !bytes.Equal(mbr, boot) {
		p := part{0, mbr, true}
		if labelOf(boot) == labelNone {
			parts = append([]part{p}, parts...)
		} else {
			parts = append(parts, p)
		}
	}
	return d.put(append(parts, stale...))
}

// erase makes a disk one without a table: first the backup, then what the kernel reads.
func (d Device) erase() error {
	s := d.sectors()
	boot, err := s.read(0, d.SectorSize)
	if err != nil {
		return &TableError{Err: err}
	}
	var parts []part
	blank := make([]byte, d.SectorSize)
	copies, err := s.strays(0)
	if err != nil {
		return &TableError{Err: err}
	}
	for _, lba := range []uint64{s.count - 1, 1} {
		h, err := s.read(lba, d.SectorSize)
		if err != nil {
			return &TableError{Err: err}
		}
		if bytes.HasPrefix(h, []byte(signature)) {
			copies = append(copies, part{lba, blank, true})
		}
	}
	parts = append(parts, copies...)
	if labelOf(boot) != labelNone {
		parts = append(parts, part{0, blank, true})
	}
	return d.put(parts)
}

// strays are the backups that a valid primary copy names elsewhere than in the sector
// last, as on a disk that has grown: erased, since they are of a table that is no more.
func (s sectors) strays(last uint64) ([]part, error) {
	t, err := s.table(1)
	var f fault
	if errors.As(err, &f) || err == nil && (t.Alternate == last || t.Alternate <= 1 || t.Alternate >= s.count-1) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err = s.header(t.Alternate); errors.As(err, &f) {
		return nil, nil
	}
	return []part{{t.Alternate, make([]byte, s.size), true}}, err
}

// protective gives the first sector of a disk with a GPT (UEFI 2.10, section 5.2.3).
// One that has a protective MBR already keeps it, hybrid or not, with its boot code;
// only the length of an entry that stands for the whole disk follows the disk.
func protective(boot []byte, last uint64, wipe bool) []byte {
	const entries, entrySize = 446, 16
	sector := bytes.Clone(boot)
	length := uint32(min(last, 1<<32-1))
	le := binary.LittleEndian
	if labelOf(boot) == labelProtective && !wipe {
		others := 0
		for i := range 4 {
			if e := sector[entries+i*entrySize:]; e[4] != 0 && e[4] != 0xee {
				others++
			}
		}
		for i := range 4 {
			if e := sector[entries+i*entrySize:]; e[4] == 0xee && others == 0 {
				le.PutUint32(e[12:], length)
			}
		}
		return sector
	}
	if wipe {
		clear(sector)
	}
	clear(sector[440:512])
	copy(sector[entries:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(sector[entries+12:], length)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// A gptCopy is one of the two copies of a table, in the bytes of the disk.
type gptCopy struct {
	header  []byte // as long as the header says it is
	entries []byte
	start   uint64 // of the entries, in sectors
	slots   int
	size    int // of an entry
}

func (g gptCopy) area(sector int) uint64 { return uint64((len(g.entries) + sector - 1) / sector) }

func newCopy(t *Table, sector int) gptCopy {
	g := gptCopy{header: make([]byte, minHeaderSize), entries: make([]byte, t.Slots*minEntrySize), start: 2, slots: t.Slots, size: minEntrySize}
	copy(g.header, signature)
	binary.LittleEndian.PutUint32(g.header[8:], 1<<16)
	return g
}

// known gives the copy of a table that the disk has: the primary one or, where that is
// damaged, the backup. nil when the disk has another table or none.
func (s sectors) known(t *Table) (*gptCopy, error) {
	for _, lba := range []uint64{1, s.count - 1} {
		have, err := s.table(lba)
		var f fault
		if errors.As(err, &f) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if have.GUID != t.GUID || have.Slots != t.Slots {
			continue
		}
		header, err := s.header(lba)
		if err != nil {
			return nil, err
		}
		le := binary.LittleEndian
		g := gptCopy{header: header, start: le.Uint64(header[72:]), slots: int(le.Uint32(header[80:])), size: int(le.Uint32(header[84:]))}
		if g.entries, err = s.read(g.start, g.slots*g.size); err != nil {
			return nil, err
		}
		if lba != 1 {
			g.start = 2
		}
		return &g, nil
	}
	return nil, nil
}

// fill puts the partitions in their entries. One that is as it was keeps every byte.
func (g *gptCopy) fill(t *Table) error {
	g.entries = bytes.Clone(g.entries)
	bySlot := map[int]Partition{}
	for _, p := range t.Partitions {
		if _, twice := bySlot[p.Number]; twice || p.Number < 1 || p.Number > g.slots || p.Type.IsZero() {
			return fmt.Errorf("%s cannot be in a table of %d entries", p.Title(), g.slots)
		}
		bySlot[p.Number] = p
	}
	for i := range g.slots {
		e := g.entries[i*g.size:][:g.size]
		p, used := bySlot[i+1]
		have := entryOf(i+1, e)
		p.Node, p.Holders = "", nil
		switch {
		case !used:
			clear(e)
			continue
		case have.UUID != p.UUID || have.Type.IsZero():
			clear(e)
		}
		if err := p.put(e, have.Name != p.Name || have.Type.IsZero()); err != nil {
			return err
		}
	}
	return nil
}

// put writes an entry (UEFI 2.10, section 5.3.3).
func (p Partition) put(e []byte, name bool) error {
	le := binary.LittleEndian
	copy(e, p.Type.onDisk())
	copy(e[16:], p.UUID.onDisk())
	le.PutUint64(e[32:], p.First)
	le.PutUint64(e[40:], p.Last)
	le.PutUint64(e[48:], p.Flags)
	if !name {
		return nil
	}
	units := utf16.Encode([]rune(p.Name))
	if len(units) > nameUnits {
		return fmt.Errorf("%s: a label has at most %d characters", p.Title(), nameUnits)
	}
	clear(e[56 : 56+2*nameUnits])
	for i, u := range units {
		le.PutUint16(e[56+2*i:], u)
	}
	return nil
}

// onDisk is the inverse of guidOnDisk.
func (g GUID) onDisk() []byte {
	swapped := guidOnDisk(g[:]) // to swap twice is to do nothing
	return swapped[:]
}

// headerAt is the sector of the header that lies at own.
func (g gptCopy) headerAt(t *Table, own, other uint64, sector int) []byte {
	h := bytes.Clone(g.header)
	le := binary.LittleEndian
	le.PutUint32(h[12:], uint32(len(h)))
	le.PutUint64(h[24:], own)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], t.FirstUsable)
	le.PutUint64(h[48:], t.LastUsable)
	copy(h[56:], t.GUID.onDisk())
	le.PutUint64(h[72:], g.start)
	le.PutUint32(h[80:], uint32(g.slots))
	le.PutUint32(h[84:], uint32(g.size))
	le.PutUint32(h[88:], crc32.ChecksumIEEE(g.entries))
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return pad(h, sector)
}

// pad fills up to whole sectors.
func pad(b []byte, sector int) []byte {
	return append(bytes.Clone(b), make([]byte, (sector-len(b)%sector)%sector)...)
}
