package disk

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Superblock is what is on a device, in the words of blkid(8). The zero value is a
// device with nothing on it that anybody knows.
type Superblock struct {
	// Type is TYPE: ext2, ext3, ext4, btrfs, xfs, vfat, swap, crypto_LUKS,
	// linux_raid_member, LVM2_member and so on; "" for none.
	Type string
	// Label and UUID are LABEL and UUID, of ext2 to ext4, btrfs, xfs, vfat, swap,
	// crypto_LUKS and linux_raid_member; "" for all others, and where there is none.
	Label, UUID string
	// Version is VERSION: of crypto_LUKS "1" or "2", of linux_raid_member "0.90.0", "1.0",
	// "1.1" or "1.2"; "" for all others.
	Version string

	// Table is PTTYPE, the type of a partition table: gpt, dos, or another one that udev
	// knows; "" for none.
	Table string
	// Partitions is how many it has. Of a table that cannot be read it is 1: there may be some.
	Partitions int

	// Unfinished says that a mkfs which did not come to its end left this, so that nobody
	// can have put anything into it.
	Unfinished bool
}

// Blank says that nothing would be lost: there is neither a file system nor anything
// else that has a type, and no partition.
func (s Superblock) Blank() bool { return (s.Type == "" || s.Unfinished) && s.Partitions == 0 }

// String says what there is, for messages.
func (s Superblock) String() string {
	var words []string
	switch {
	case s.Type == "" && s.Table == "":
		return "nothing"
	case s.Type == "":
		return fmt.Sprintf("a partition table (%s) of %d partitions", s.Table, s.Partitions)
	}
	if s.Label != "" {
		words = append(words, "label "+strconv.Quote(s.Label))
	}
	if s.UUID != "" {
		words = append(words, "UUID "+s.UUID)
	}
	if s.Unfinished {
		words = append(words, "unfinished")
	}
	if len(words) == 0 {
		return s.Type
	}
	return s.Type + " (" + strings.Join(words, ", ") + ")"
}

// An AmbivalentError says that a device has several signatures, none of which rules the
// others out.
type AmbivalentError struct {
	// Found has at least two, in the order in which libblkid looks for them.
	Found []Superblock
}

func (e *AmbivalentError) Error() string {
	var names []string
	for _, s := range e.Found {
		names = append(names, s.String())
	}
	return "more than one signature: " + strings.Join(names, ", ")
}

// Probe reads what is on a device of that size in bytes. It reads half a MiB, and of what is
// damaged on purpose not more than 16.
//
// Where there are several signatures the rule is that of libblkid: one of a RAID or of
// encryption hides all that come later in its order, since a mirror shows the file
// system within; otherwise the error is an *AmbivalentError. Any other error means that
// the device could not be read.
//
// The formats are those of the kernel and of libblkid's superblocks; a test compares
// with blkid.
func Probe(r io.ReaderAt, size int64) (Superblock, error) {
	b := &area{r: r, size: size}
	var found []Superblock
	sure := false // one of them is more than a frame that others may have too
	for _, f := range formats() {
		s, ok := f.read(b)
		if b.err != nil {
			return Superblock{}, b.err
		}
		if !ok {
			continue
		}
		if s.Type == "" {
			s.Type = f.name
		}
		found = append(found, s)
		if f.hides {
			break
		}
		sure = sure || !f.frame
	}
	if len(found) > 1 && sure {
		return Superblock{}, &AmbivalentError{Found: found}
	}
	var s Superblock
	if len(found) > 0 {
		s = found[0]
	}
	if unfinished, ok := marked(b); ok && (s.Type == "" || s.Type == unfinished) {
		s.Type, s.Unfinished = unfinished, true
	}
	if b.err != nil {
		return Superblock{}, b.err
	}
	if err := s.table(b); err != nil {
		return Superblock{}, err
	}
	return s, nil
}

// table looks for a partition table. A boot sector of FAT or NTFS looks much like an
// MBR, and what hides others hides a table too.
func (s *Superblock) table(b *area) error {
	switch s.Type {
	case "vfat", "ntfs", "exfat", "ReFS", "BitLocker", "hpfs", "linux_raid_member", "ddf_raid_member", "isw_raid_member":
		return nil
	}
	for _, sector := range [...]int{minSectorSize, maxSectorSize} {
		if b.size < int64(2*sector) {
			return nil
		}
		t, err := ReadTable(b.r, b.size, sector)
		switch {
		case err == nil:
			s.Table, s.Partitions = "gpt", len(t.Partitions)
		case errors.Is(err, ErrNoTable):
			return nil
		case errors.Is(err, ErrSectorSize) && sector == minSectorSize:
			continue
		case errors.Is(err, ErrMBR):
			s.Table, s.Partitions = "dos", 1
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrSectorSize):
			s.Table, s.Partitions = "gpt", 1
		default:
			return err
		}
		return nil
	}
	return nil
}

// area is a device that is read by pieces.
type area struct {
	r    io.ReaderAt
	size int64
	head []byte // what is at its beginning, once that was read
	err  error  // why it could not be read
}

// headSize is so much that most of what is looked for lies in it.
const headSize = 72 << 10

// at gives n bytes from an offset on, nil where the device does not have them or cannot
// be read. Nobody may write into them.
func (b *area) at(offset int64, n int) []byte {
	if b.err != nil || offset < 0 || n <= 0 || offset > b.size-int64(n) {
		return nil
	}
	if b.head == nil {
		b.head = b.fetch(0, int(min(b.size, headSize)))
	}
	if end := offset + int64(n); end <= int64(len(b.head)) {
		return b.head[offset:end]
	}
	return b.fetch(offset, n)
}

func (b *area) fetch(offset int64, n int) []byte {
	buf := make([]byte, n)
	got, err := b.r.ReadAt(buf, offset)
	if got == n {
		return buf
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	b.err = fmt.Errorf("read %d bytes at %d: %w", n, offset, err)
	return nil
}

// has says whether these bytes are at an offset.
func (b *area) has(offset int64, magic string) bool { return string(b.at(offset, len(magic))) == magic }
