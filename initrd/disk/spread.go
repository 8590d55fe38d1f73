package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Last is the sector where the backup header of a table belongs on a disk of size
// bytes: the last one.
func (t *Table) Last(size int64) uint64 { return uint64(size)/uint64(t.SectorSize) - 1 }

// Spread makes the GPT of a disk span the disk, where the disk has grown since the
// table was made: what is behind the old end becomes usable, and the backup moves
// to the new end (UEFI 2.10, section 5.3.2). No partition changes.
//
// A crash at any moment leaves a valid table: the backup is written first, to where
// nothing is yet; then the primary header, which is one sector; and last the size
// in the protective MBR, which nobody reads it from. sync is called between them
// and must not return before the disk has what was written.
//
// It fails for a table whose primary copy is damaged, and with the *TableError of
// ReadTable. A table that spans the disk is left as it is.
func Spread(rw interface {
	io.ReaderAt
	io.WriterAt
}, size int64, sectorSize int, sync func() error) error {
	t, err := ReadTable(rw, size, sectorSize)
	if err != nil {
		return err
	}
	if t.Used != Primary {
		return &TableError{Err: errors.Join(ErrDamaged, t.Damage)}
	}
	last := t.Last(size)
	if t.Alternate == last {
		return nil
	}
	d := sectors{r: rw, size: sectorSize, count: last + 1}
	primary, err := d.header(1)
	if err != nil {
		return &TableError{Err: err}
	}
	le := binary.LittleEndian
	length := int(le.Uint32(primary[80:]) * le.Uint32(primary[84:]))
	entries, err := d.read(le.Uint64(primary[72:]), length)
	if err != nil {
		return &TableError{Err: err}
	}
	area := uint64((length + sectorSize - 1) / sectorSize)
	if usable := last - area - 1; usable > t.LastUsable {
		le.PutUint64(primary[48:], usable)
	} else {
		return &TableError{Err: fmt.Errorf("the disk has grown by too little for the backup of its table")}
	}
	le.PutUint64(primary[32:], last)
	backup := append([]byte(nil), primary...)
	le.PutUint64(backup[24:], last)
	le.PutUint64(backup[32:], 1)
	le.PutUint64(backup[72:], last-area)
	for _, h := range [][]byte{primary, backup} {
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:le.Uint32(h[12:])]))
	}
	boot, err := d.read(0, sectorSize)
	if err != nil {
		return &TableError{Err: err}
	}
	for i := range 4 {
		if e := boot[446+i*16:][:16]; e[4] == 0xee {
			le.PutUint32(e[12:], uint32(min(last, 1<<32-1)))
		}
	}
	write := func(lba uint64, data []byte) error {
		if _, err := rw.WriteAt(data, int64(lba)*int64(sectorSize)); err != nil {
			return &TableError{Err: fmt.Errorf("write sector %d: %w", lba, err)}
		}
		return nil
	}
	for _, step := range []func() error{
		func() error { return write(last-area, entries) },
		func() error { return write(last, backup) },
		sync,
		func() error { return write(1, primary) },
		sync,
		func() error { return write(0, boot) },
		sync,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
