package disk

import (
	"errors"
	"fmt"
	"io"
)

// Last is the sector where the backup header of a table belongs on a disk of size
// bytes: the last one.
func (t *Table) Last(size int64) uint64 { return uint64(size)/uint64(t.SectorSize) - 1 }

// Spread makes the GPT of a disk span the disk, where the disk has grown since the
// table was made: what is behind the old end becomes usable, and the backup moves
// to the new end (UEFI 2.10, section 5.3.2). No partition changes.
//
// A crash at any moment leaves a valid table; see WriteTable, also for sync.
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
	have, err := sectors{r: rw, size: sectorSize, count: last + 1}.known(t)
	if err != nil {
		return &TableError{Err: err}
	}
	if usable := last - have.area(sectorSize) - 1; usable > t.LastUsable {
		t.LastUsable = usable
	} else {
		return &TableError{Err: fmt.Errorf("the disk has grown by too little for the backup of its table")}
	}
	return WriteTable(Device{RW: rw, Size: size, SectorSize: sectorSize, Sync: sync}, t)
}
