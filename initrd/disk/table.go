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

// What ReadTable finds instead of a table, inside a *TableError.
var (
	// ErrNoTable: neither a GPT nor an MBR label. It does not say that the disk is
	// empty: a file system or a LUKS header may fill all of it.
	ErrNoTable = errors.New("no partition table")
	// ErrBootSector, which is an ErrNoTable too: the first sector is a boot sector, of a
	// FAT or NTFS file system that fills the disk, or of an MBR label with nothing in it.
	ErrBootSector = errors.New("a boot sector")
	// ErrMBR: an MBR label with at least one partition in it.
	ErrMBR = errors.New("an MBR label, not a GPT")
	// ErrDamaged: something of a GPT is there, and no copy of it can be trusted.
	ErrDamaged = errors.New("damaged GPT")
	// ErrSectorSize: an intact GPT for another sector size, as when the image of a
	// 512-byte disk is copied to a 4096-byte one.
	ErrSectorSize = errors.New("GPT for another sector size")
)

var errBootSector = fmt.Errorf("%w, but %w", ErrNoTable, ErrBootSector)

// Bounds of what is read. UEFI asks for at least 128 entries and sets no limit.
const (
	maxEntries    = 16384
	maxEntrySize  = 4096
	maxEntryBytes = 4 << 20
	minHeaderSize = 92
	minEntrySize  = 128
	minSectorSize = 512
	maxSectorSize = 4096
)

// A Table is a GUID partition table (UEFI 2.10, chapter 5). Every position is in
// sectors (LBA) of SectorSize bytes.
type Table struct {
	GUID       GUID // of the disk
	SectorSize int  // in bytes

	// FirstUsable and LastUsable are the first and the last sector that a
	// partition may lie in.
	FirstUsable, LastUsable uint64

	// Alternate is where the copy that was read says that the other copy is. A
	// primary whose Alternate is not the last sector of the disk was made when the
	// disk was smaller; see Spread.
	Alternate uint64

	// Slots is how many partitions the table has room for.
	Slots int

	// Partitions are the entries in use, by number. That they do not overlap, and
	// lie in the usable range, is not promised, since the kernel does not ask for
	// it either; that First <= Last and that they lie on the disk is.
	Partitions []Partition

	// Used says which copy was read, and Damage, where that is the Backup, what is
	// wrong with the primary one.
	Used   Copy
	Damage error
}

// A Copy is one of the two that a disk has of its table.
type Copy int

const (
	Primary Copy = iota // behind the first sector
	Backup              // at the end of the disk
)

func (c Copy) String() string {
	if c == Backup {
		return "backup"
	}
	return "primary"
}

// Attributes of a partition in Partition.Flags, by the Discoverable Partitions
// Specification (UAPI.2): the ones that its types for Linux give a meaning to.
const (
	FlagGrowFileSystem uint64 = 1 << 59
	FlagReadOnly       uint64 = 1 << 60
	FlagNoAuto         uint64 = 1 << 63
)

// A Partition is one entry of a Table.
type Partition struct {
	Number      int // from 1
	Type, UUID  GUID
	Name        string // the label, at most 36 UTF-16 units; free text, by whoever made the disk
	First, Last uint64 // both inclusive, in sectors of the table
	Flags       uint64

	// Node is the device node, such as /dev/vda3: "" if the kernel does not know
	// the partition, or knows one of that number at another place or of another
	// size. Only System.Table fills it in, and Holders with it.
	Node string
	// Holders are the kernel's names of devices made upon the partition, such as dm-0.
	Holders []string
}

// Sectors is the length in sectors of the table.
func (p Partition) Sectors() uint64 { return p.Last - p.First + 1 }

// A TableError says why a disk's table cannot be had.
type TableError struct {
	Node string // the disk, "" from ReadTable
	Err  error  // wraps ErrNoTable, ErrMBR, ErrDamaged or ErrSectorSize; anything else means that reading failed
}

func (e *TableError) Error() string {
	if e.Node == "" {
		return "partition table: " + e.Err.Error()
	}
	return "partition table of " + e.Node + ": " + e.Err.Error()
}

func (e *TableError) Unwrap() error { return e.Err }

// ReadTable reads the GPT of a disk of size bytes with sectors of sectorSize bytes
// (512 to 4096, a power of two). Every error is a *TableError.
//
// What is a GPT is decided as the kernel and libblkid (so systemd-repart) decide
// it: there must be a protective MBR; then the primary copy counts, or, if its
// checksums or bounds are wrong, the backup in the last sector. So a disk whose
// first megabyte was zeroed has no table, although the backup is still there. Where
// the kernel sees nothing but somebody's partitions may be, the error is ErrDamaged
// and not ErrNoTable, so that nobody takes the disk for an empty one.
//
// A sector that cannot be read is an error, and no reason to try the backup. At most
// 16384 entries, and 4 MiB of them, are read.
func ReadTable(r io.ReaderAt, size int64, sectorSize int) (*Table, error) {
	t, err := readTable(r, size, sectorSize)
	if err != nil {
		return nil, &TableError{Err: err}
	}
	return t, nil
}

func readTable(r io.ReaderAt, size int64, sectorSize int) (*Table, error) {
	if sectorSize < minSectorSize || sectorSize > maxSectorSize || sectorSize&(sectorSize-1) != 0 {
		return nil, fmt.Errorf("sector size of %d bytes", sectorSize)
	}
	if size < 0 {
		return nil, fmt.Errorf("disk size of %d bytes", size)
	}
	d := sectors{r: r, size: sectorSize, count: uint64(size) / uint64(sectorSize)}
	if d.count < 2 {
		return nil, fmt.Errorf("%w: %d bytes are too few for one", ErrNoTable, size)
	}
	boot, err := d.read(0, minSectorSize)
	if err != nil {
		return nil, err
	}
	switch labelOf(boot) {
	case labelMBR:
		return nil, ErrMBR
	case labelNone:
		header, err := d.read(1, len(signature))
		if err != nil {
			return nil, err
		}
		if string(header) == signature {
			return nil, fmt.Errorf("%w: no protective MBR before it, without which the kernel takes no notice of a GPT", ErrDamaged)
		}
		if boot[510] == 0x55 && boot[511] == 0xaa {
			return nil, errBootSector
		}
		return nil, ErrNoTable
	}

	primary, err := d.table(1)
	if err == nil {
		return primary, nil
	}
	var primaryFault, backupFault fault
	if !errors.As(err, &primaryFault) {
		return nil, err
	}
	last := d.count - 1
	backup, err := d.table(last)
	if err == nil {
		backup.Used, backup.Damage = Backup, fmt.Errorf("primary header: %w", primaryFault)
		return backup, nil
	}
	if !errors.As(err, &backupFault) {
		return nil, err
	}
	other, err := d.otherSectorSize()
	if err != nil {
		return nil, err
	}
	if other != 0 {
		return nil, fmt.Errorf("%w: made for %d bytes, the disk has %d", ErrSectorSize, other, sectorSize)
	}
	if primaryFault == noSignature && backupFault == noSignature {
		return nil, fmt.Errorf("%w: a protective MBR without a GPT", ErrNoTable)
	}
	return nil, fmt.Errorf("%w: primary header in sector 1: %w; backup header in sector %d: %w",
		ErrDamaged, primaryFault, last, backupFault)
}

// label is what the first sector of a disk claims.
type label int

const (
	labelNone label = iota
	labelMBR
	labelProtective
)

// labelOf reads a boot sector (UEFI 2.10, section 5.2). The boot sector of a FAT or
// NTFS file system ends in the same two bytes as an MBR; its text where an MBR has
// its partitions is told by boot indicators that no MBR has, as the kernel does.
func labelOf(sector []byte) label {
	const entries, entrySize = 446, 16
	if sector[510] != 0x55 || sector[511] != 0xaa {
		return labelNone
	}
	used, sane := false, true
	for i := range 4 {
		e := sector[entries+i*entrySize:][:entrySize]
		start, length := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if e[4] == 0xee && start == 1 {
			return labelProtective
		}
		sane = sane && e[0]&0x7f == 0
		used = used || e[4] != 0 && length != 0
	}
	if used && sane {
		return labelMBR
	}
	return labelNone
}

const signature = "EFI PART"

// A fault is what is wrong with one copy of a table that could be read.
type fault string

func (f fault) Error() string { return string(f) }

const noSignature fault = "no signature"

func faultf(format string, args ...any) fault { return fault(fmt.Sprintf(format, args...)) }

// sectors is a disk that is read by sector.
type sectors struct {
	r     io.ReaderAt
	size  int    // of one, in bytes
	count uint64 // of the disk; count*size fits an int64
}

// read gives the first n bytes from a sector on, which must lie on the disk.
func (d sectors) read(lba uint64, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, err := d.r.ReadAt(buf, int64(lba)*int64(d.size))
	if got == n {
		return buf, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("read %d bytes at sector %d: %w", n, lba, err)
}

// table reads the copy whose header is in sector lba. What is wrong with what it
// reads is a fault; any other error means that it could not be read.
func (d sectors) table(lba uint64) (*Table, error) {
	header, err := d.header(lba)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	t := &Table{
		SectorSize:  d.size,
		Alternate:   le.Uint64(header[32:]),
		FirstUsable: le.Uint64(header[40:]),
		LastUsable:  le.Uint64(header[48:]),
		GUID:        guidOnDisk(header[56:]),
	}
	if t.FirstUsable > t.LastUsable || t.LastUsable >= d.count {
		return nil, faultf("usable sectors %d to %d on a disk of %d", t.FirstUsable, t.LastUsable, d.count)
	}
	start, count, size := le.Uint64(header[72:]), le.Uint32(header[80:]), le.Uint32(header[84:])
	if size < minEntrySize || size > maxEntrySize || size&(size-1) != 0 {
		return nil, faultf("entries of %d bytes", size)
	}
	if count == 0 || count > maxEntries || uint64(count)*uint64(size) > maxEntryBytes {
		return nil, faultf("%d entries of %d bytes", count, size)
	}
	length := int(count * size)
	needed := uint64((length + d.size - 1) / d.size)
	if start < 2 || start >= d.count || needed > d.count-start {
		return nil, faultf("%d entries from sector %d on a disk of %d", count, start, d.count)
	}
	entries, err := d.read(start, length)
	if err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(header[88:]) {
		return nil, fault("wrong checksum of the entries")
	}
	t.Slots = int(count)
	for i := range t.Slots {
		e := entries[i*int(size):][:minEntrySize]
		p := entryOf(i+1, e)
		if p.Type.IsZero() {
			continue
		}
		if p.First > p.Last || p.Last >= d.count {
			return nil, faultf("partition %d in sectors %d to %d on a disk of %d", p.Number, p.First, p.Last, d.count)
		}
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

// entryOf decodes an entry (UEFI 2.10, section 5.3.3).
func entryOf(number int, e []byte) Partition {
	le := binary.LittleEndian
	return Partition{
		Number: number,
		Type:   guidOnDisk(e),
		UUID:   guidOnDisk(e[16:]),
		First:  le.Uint64(e[32:]),
		Last:   le.Uint64(e[40:]),
		Flags:  le.Uint64(e[48:]),
		Name:   text16(e[56:minEntrySize]),
	}
}

// header reads a sector and checks that it is a header and meant for this place.
func (d sectors) header(lba uint64) ([]byte, error) {
	sector, err := d.read(lba, d.size)
	if err != nil {
		return nil, err
	}
	if string(sector[:len(signature)]) != signature {
		return nil, noSignature
	}
	le := binary.LittleEndian
	size := le.Uint32(sector[12:])
	if size < minHeaderSize || size > uint32(len(sector)) {
		return nil, faultf("header of %d bytes", size)
	}
	sum := le.Uint32(sector[16:])
	header := bytes.Clone(sector[:size])
	clear(header[16:20])
	if crc32.ChecksumIEEE(header) != sum {
		return nil, fault("wrong checksum of the header")
	}
	if revision := le.Uint32(header[8:]); revision>>16 != 1 {
		return nil, faultf("revision %d.%d", revision>>16, revision&0xffff)
	}
	if own := le.Uint64(header[24:]); own != lba {
		return nil, faultf("header written for sector %d", own)
	}
	return header, nil
}

// otherSectorSize looks for the primary header where another sector size has it, and
// gives that size, or 0.
func (d sectors) otherSectorSize() (int, error) {
	for size := minSectorSize; size <= maxSectorSize; size *= 2 {
		other := sectors{r: d.r, size: size, count: d.count * uint64(d.size) / uint64(size)}
		if size == d.size || other.count < 2 {
			continue
		}
		_, err := other.header(1)
		if err == nil {
			return size, nil
		}
		var f fault
		if !errors.As(err, &f) {
			return 0, err
		}
	}
	return 0, nil
}

// text16 decodes UTF-16LE up to the first NUL; what is not UTF-16 becomes U+FFFD.
func text16(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
