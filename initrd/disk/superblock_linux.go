package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// ext is ext2, ext3 and ext4, or a journal of one of them on a device of its own
// (Documentation/filesystems/ext4/super.rst). Which it is, its features tell.
func ext(b *area) (Superblock, bool) {
	h := b.at(1024, 256)
	le := binary.LittleEndian
	if h == nil || le.Uint16(h[0x38:]) != 0xef53 {
		return Superblock{}, false
	}
	const (
		journal        = 0x4
		journalDevice  = 0x8
		ofExt3         = 0x2 | 0x4 | 0x10 // incompatible: file type, needs recovery, meta_bg
		readOnlyOfExt3 = 0x1 | 0x2 | 0x4  // sparse superblocks, large files, directories as B-trees
	)
	compatible, incompatible, readOnly := le.Uint32(h[0x5c:]), le.Uint32(h[0x60:]), le.Uint32(h[0x64:])
	s := Superblock{Type: "ext4", Label: text(h[0x78:0x88]), UUID: uuid(h[0x68:0x78])}
	switch {
	case incompatible&journalDevice != 0:
		s.Type = "jbd"
	case incompatible&^ofExt3 != 0 || readOnly&^readOnlyOfExt3 != 0:
	case compatible&journal != 0:
		s.Type = "ext3"
	default:
		s.Type = "ext2"
	}
	return s, true
}

// btrfs (Documentation/dev/On-disk-format of btrfs-progs). While mkfs.btrfs is at work
// the magic is another one.
func btrfs(b *area) (Superblock, bool) {
	const offset = 64 << 10
	h := b.at(offset, 0x22b)
	if h == nil {
		return Superblock{}, false
	}
	magic := string(h[0x40:0x48])
	s := Superblock{Label: text(h[0x12b:0x22b]), UUID: uuid(h[0x20:0x30]), Unfinished: magic == "!BHRfS_M"}
	return s, s.Unfinished || magic == "_BHRfS_M"
}

// xfs (XFS Algorithms & Data Structures, "Superblocks"). sb_inprogress is set as long as
// mkfs.xfs is at work; the kernel refuses such a file system.
func xfs(b *area) (Superblock, bool) {
	h := b.at(0, 512)
	if h == nil || string(h[:4]) != "XFSB" {
		return Superblock{}, false
	}
	be := binary.BigEndian
	block, sector := be.Uint32(h[4:]), be.Uint16(h[102:])
	sane := block >= 512 && block <= 65536 && block&(block-1) == 0 && sector >= 512 && sector <= 32768 && sector&(sector-1) == 0 &&
		be.Uint64(h[8:]) != 0 && be.Uint32(h[88:]) != 0
	return Superblock{Label: text(h[108:120]), UUID: uuid(h[32:48]), Unfinished: h[126] != 0}, sane
}

// pages are where the first page of a swap area may end: its size is the machine's.
func pages() [5]int64 { return [...]int64{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} }

// swap (include/linux/swap.h, union swap_header). One of the old version has no header.
func swap(b *area) (Superblock, bool) {
	for _, end := range pages() {
		switch string(b.at(end-10, 10)) {
		case "SWAP-SPACE":
			return Superblock{}, true
		case "SWAPSPACE2":
			h := b.at(1024, 44)
			version, last := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
			if version != 1 && version != 1<<24 || last == 0 {
				continue
			}
			return Superblock{Label: text(h[28:44]), UUID: uuid(h[12:28])}, true
		}
	}
	return Superblock{}, false
}

// suspended is a swap area that holds the memory of a machine which sleeps.
func suspended(b *area) (Superblock, bool) {
	for _, end := range pages() {
		h := string(b.at(end-10, 10))
		for _, magic := range [...]string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001", "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"} {
			if strings.HasPrefix(h, magic) {
				return Superblock{}, true
			}
		}
	}
	return Superblock{}, false
}

// uuid is the usual form of 16 bytes in their order (RFC 9562), "" for all zeros.
func uuid(b []byte) string {
	if bytes.Count(b, []byte{0}) == len(b) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// text is a field up to its first zero, without spaces at its end, as libblkid cuts it.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.TrimRight(string(b), " \t\n\v\f\r")
}
