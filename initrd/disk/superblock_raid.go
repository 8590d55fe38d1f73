package disk

import (
	"encoding/binary"
	"fmt"
)

// raid is a member of an MD array (include/uapi/linux/raid/md_p.h). Where its superblock
// lies is the version: at the end (0.90, 1.0), at the start (1.1), or 4096 bytes behind
// it (1.2).
func raid(b *area) (Superblock, bool) {
	le, be := binary.LittleEndian, binary.BigEndian
	const magic = 0xa92b4efc
	for _, v := range [...]struct {
		version string
		offset  int64
	}{{"1.0", (b.size/512 - 16) &^ 7 * 512}, {"1.1", 0}, {"1.2", 4096}} {
		h := b.at(v.offset, 256)
		if h != nil && le.Uint32(h) == magic && le.Uint32(h[4:]) == 1 && le.Uint64(h[144:]) == uint64(v.offset/512) {
			return Superblock{Label: text(h[32:64]), UUID: uuid(h[16:32]), Version: v.version}, true
		}
	}
	h := b.at(b.size&^0xffff-0x10000, 64)
	if h == nil || le.Uint32(h) != magic && be.Uint32(h) != magic {
		return Superblock{}, false
	}
	var word binary.ByteOrder = le
	if be.Uint32(h) == magic {
		word = be
	}
	var id []byte
	for _, i := range [...]int{20, 52, 56, 60} {
		id = be.AppendUint32(id, word.Uint32(h[i:]))
	}
	version := fmt.Sprintf("%d.%d.%d", word.Uint32(h[4:]), word.Uint32(h[8:]), word.Uint32(h[12:]))
	return Superblock{UUID: uuid(id), Version: version}, true
}

// drbd keeps its metadata in the last 4096 bytes; the magic is that of version 8 or 9.
func drbd(b *area) (Superblock, bool) {
	offset := b.size&^4095 - 4096
	return Superblock{}, b.has(offset+60, "\x83\x74\x02\x6b") || b.has(offset+60, "\x83\x74\x02\x6c") || b.has(offset+60, "\x83\x74\x02\x6d")
}

// luks is a LUKS header (LUKS1 and LUKS2 On-Disk Format Specification). The second
// header of LUKS2 tells too, where the first one is damaged.
func luks(b *area) (Superblock, bool) {
	read := func(h []byte) (Superblock, bool) {
		s := Superblock{UUID: text(h[168:208])}
		switch v := binary.BigEndian.Uint16(h[6:]); v {
		case 1:
			s.Version = "1"
		case 2:
			s.Version, s.Label = "2", text(h[24:72])
		default:
			return Superblock{}, false
		}
		return s, true
	}
	if h := b.at(0, 264); h != nil && string(h[:6]) == "LUKS\xba\xbe" {
		if s, ok := read(h); ok {
			return s, true
		}
	}
	for offset := int64(0x4000); offset <= 0x400000; offset *= 2 {
		h := b.at(offset, 264)
		if h != nil && string(h[:6]) == "SKUL\xba\xbe" && binary.BigEndian.Uint64(h[256:]) == uint64(offset) {
			return read(h)
		}
	}
	return Superblock{}, false
}

// bitLocker is what NTFS begins with where it is encrypted; on a removable drive it has a
// boot sector of FAT, and an identifier behind it.
func bitLocker(b *area) (Superblock, bool) {
	const toGo = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"
	return Superblock{}, b.has(3, "-FVE-FS-") || b.has(3, "MSWIN4.1") && b.has(424, toGo)
}
