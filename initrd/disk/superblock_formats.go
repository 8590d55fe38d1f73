package disk

import "encoding/binary"

// A format is what a device may be in.
type format struct {
	name string
	read func(*area) (Superblock, bool) // a Type of "" is the name
	// hides says that it is of a RAID or of encryption, frame that it may stand around, or
	// beside, another one of its kind (udf and iso9660 on one disc).
	hides, frame bool
}

// formats are all that are known, in the order of libblkid.
func formats() []format {
	return []format{
		{name: "linux_raid_member", read: raid, hides: true},
		{name: "ddf_raid_member", read: fromEnd(at(512, "\xde\x11\xde\x11"), at(257*512, "\xde\x11\xde\x11"), at(512, "\x11\xde\x11\xde"), at(257*512, "\x11\xde\x11\xde")), hides: true},
		{name: "isw_raid_member", read: fromEnd(at(1024, "Intel Raid ISM Cfg Sig. ")), hides: true},
		{name: "bcache", read: fromStart(at(4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"))},
		{name: "bcachefs", read: fromStart(at(4096+24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"))},
		{name: "ceph_bluestore", read: fromStart(at(0, "bluestore block device"))},
		{name: "drbd", read: drbd, hides: true},
		{name: "LVM2_member", read: fromStart(at(24, "LVM2 001"), at(512+24, "LVM2 001"), at(1024+24, "LVM2 001"), at(1536+24, "LVM2 001")), hides: true},
		{name: "LVM1_member", read: fromStart(at(0, "HM\x01\x00"), at(0, "HM\x02\x00")), hides: true},
		{name: "DM_snapshot_cow", read: fromStart(at(0, "SnAp"))},
		{name: "DM_verity_hash", read: fromStart(at(0, "verity\x00\x00")), hides: true},
		{name: "DM_integrity", read: fromStart(at(0, "integrt\x00")), hides: true},
		{name: "crypto_LUKS", read: luks, hides: true},
		{name: "VMFS_volume_member", read: fromStart(at(1<<20, "\x0d\xd0\x01\xc0")), hides: true},
		{name: "ubi", read: fromStart(at(0, "UBI#")), hides: true},
		{name: "vdo", read: fromStart(at(0, "dmvdo001")), hides: true},
		{name: "stratis", read: fromStart(at(512+4, stratisMagic), at(9*512+4, stratisMagic)), hides: true},
		{name: "BitLocker", read: bitLocker, hides: true},
		{name: "vfat", read: fat},
		{name: "swsuspend", read: suspended},
		{name: "swap", read: swap},
		{name: "xfs", read: xfs},
		{name: "ext4", read: ext},
		{name: "reiserfs", read: fromStart(at(8192+52, "ReIsErFs"), at(65536+52, "ReIsErFs"), at(65536+52, "ReIsEr2Fs"), at(65536+52, "ReIsEr3Fs"), at(8192+20, "ReIsEr3Fs"))},
		{name: "reiser4", read: fromStart(at(65536, "ReIsEr4"))},
		{name: "jfs", read: fromStart(at(32768, "JFS1"))},
		{name: "udf", read: udf, frame: true},
		{name: "iso9660", read: fromStart(at(32769, "CD001"), at(32777, "CDROM")), frame: true},
		{name: "zfs_member", read: zfs},
		{name: "hfsplus", read: hfsplus},
		{name: "hfs", read: hfs},
		{name: "ufs", read: ufs},
		{name: "hpfs", read: fromStart(at(8192, "\x49\xe8\x95\xf9"))},
		{name: "ntfs", read: fromStart(at(3, "NTFS    "))},
		{name: "ReFS", read: fromStart(at(0, "\x00\x00\x00ReFS\x00"))},
		{name: "cramfs", read: fromStart(at(0, "\x45\x3d\xcd\x28"), at(0, "\x28\xcd\x3d\x45"))},
		{name: "romfs", read: fromStart(at(0, "-rom1fs-"))},
		{name: "gfs2", read: fromStart(at(65536, "\x01\x16\x19\x70"))},
		{name: "ocfs2", read: fromStart(at(1<<10, "OCFSV2"), at(2<<10, "OCFSV2"), at(4<<10, "OCFSV2"), at(8<<10, "OCFSV2"))},
		{name: "oracleasm", read: fromStart(at(32, "ORCLDISK"))},
		{name: "vxfs", read: fromStart(at(1024, "\xf5\xfc\x01\xa5"), at(8192, "\xa5\x01\xfc\xf5"))},
		{name: "squashfs", read: fromStart(at(0, "hsqs"), at(0, "sqsh"))},
		{name: "btrfs", read: btrfs},
		{name: "VMFS", read: fromStart(at(2<<20, "\x5e\xf1\xab\x2f"))},
		{name: "nilfs2", read: nilfs},
		{name: "exfat", read: fromStart(at(3, "EXFAT   "))},
		{name: "f2fs", read: fromStart(at(1024, "\x10\x20\xf5\xf2"))},
		{name: "apfs", read: fromStart(at(32, "NXSB"))},
		{name: "zonefs", read: fromStart(at(0, "SFOZ"))},
		{name: "erofs", read: fromStart(at(1024, "\xe2\xe1\xf5\xe0"))},
	}
}

const stratisMagic = "!Stra0tis\x86\xff\x02^\x41rh"

// A mark is what a format is known by: bytes at a distance from the start or the end.
type mark struct {
	offset int64
	magic  string
}

func at(offset int64, magic string) mark { return mark{offset, magic} }

// fromStart is for a format that any one of the marks tells.
func fromStart(marks ...mark) func(*area) (Superblock, bool) {
	return func(b *area) (Superblock, bool) {
		for _, m := range marks {
			if b.has(m.offset, m.magic) {
				return Superblock{}, true
			}
		}
		return Superblock{}, false
	}
}

// fromEnd is fromStart, with offsets from the end of the last whole sector.
func fromEnd(marks ...mark) func(*area) (Superblock, bool) {
	return func(b *area) (Superblock, bool) {
		for _, m := range marks {
			if b.has(b.size&^511-m.offset, m.magic) {
				return Superblock{}, true
			}
		}
		return Superblock{}, false
	}
}

// hfsplus is Apple's TN1150: the volume header at 1024, version 4 (H+) or 5 (HX). It may
// be within an HFS wrapper, which says so.
func hfsplus(b *area) (Superblock, bool) {
	h := b.at(1024, 126)
	if h == nil {
		return Superblock{}, false
	}
	be := binary.BigEndian
	plain := string(h[:4]) == "H+\x00\x04" || string(h[:4]) == "HX\x00\x05"
	return Superblock{}, plain && be.Uint32(h[40:]) >= 512 || string(h[:2]) == "BD" && string(h[124:126]) == "H+"
}

// hfs is the master directory block of Inside Macintosh: Files.
func hfs(b *area) (Superblock, bool) {
	h := b.at(1024, 126)
	if h == nil || string(h[:2]) != "BD" || string(h[124:126]) == "H+" {
		return Superblock{}, false
	}
	block := binary.BigEndian.Uint32(h[20:])
	return Superblock{}, block != 0 && block%512 == 0
}

// ufs has its superblock at one of four places, and its magic number in either order.
func ufs(b *area) (Superblock, bool) {
	for _, kib := range [...]int64{0, 8, 64, 256} {
		h := b.at(kib<<10+0x55c, 4)
		if h == nil {
			continue
		}
		for _, n := range [...]uint32{binary.LittleEndian.Uint32(h), binary.BigEndian.Uint32(h)} {
			switch n {
			case 0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994:
				return Superblock{}, true
			}
		}
	}
	return Superblock{}, false
}

// nilfs has a magic number of two bytes; revision 2, and a superblock of at most 1024
// bytes, make it one.
func nilfs(b *area) (Superblock, bool) {
	h := b.at(1024, 16)
	if h == nil {
		return Superblock{}, false
	}
	le := binary.LittleEndian
	size := le.Uint16(h[8:])
	return Superblock{}, le.Uint32(h) == 2 && le.Uint16(h[6:]) == 0x3434 && size > 0 && size <= 1024
}

// zfs has four labels of 256 KiB, two at either end; the upper half of each is a ring of
// uberblocks. Four of all of them are what libblkid asks for: fewer are the remains of one that
// something else was made over.
func zfs(b *area) (Superblock, bool) {
	const label, ring, step = 256 << 10, 128 << 10, 1 << 10
	end := b.size &^ (label - 1)
	found := 0
	for _, offset := range [...]int64{0, label, end - 2*label, end - label} {
		h := b.at(offset+ring, label-ring)
		for i := 0; i+8 <= len(h); i += step {
			if binary.LittleEndian.Uint64(h[i:]) == 0x00bab10c || binary.BigEndian.Uint64(h[i:]) == 0x00bab10c {
				found++
			}
		}
		if found >= 4 {
			return Superblock{}, true
		}
	}
	return Superblock{}, false
}

// udf begins with a sequence of volume structures (ECMA-167, part 2), one in each sector,
// or in each block where that is larger; NSR tells UDF from other discs.
func udf(b *area) (Superblock, bool) {
	for step := int64(2048); step <= 32768; step *= 2 {
	sequence:
		for i := range int64(64) {
			h := b.at(32768+i*step, 6)
			if h == nil {
				break
			}
			switch string(h[1:]) {
			case "NSR02", "NSR03":
				return Superblock{}, true
			case "BEA01", "BOOT2", "CD001", "CDW02":
			default:
				break sequence
			}
		}
	}
	return Superblock{}, false
}
