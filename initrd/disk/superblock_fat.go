package disk

import (
	"encoding/binary"
	"fmt"
)

// fat is FAT12, FAT16 or FAT32 (Microsoft's FAT specification of 2000). The label is that
// of the root directory; what the boot sector says is old after a renaming.
func fat(b *area) (Superblock, bool) {
	h := b.at(0, 512)
	v, ok := parseFAT(h)
	if !ok {
		return Superblock{}, false
	}
	serial := h[0x27:0x2b]
	var label string
	if v.rootCluster == 0 {
		label = labelIn(b.at(v.rootOffset, v.rootEntries*32))
	} else {
		serial = h[0x43:0x47]
		label = v.walk(b)
	}
	return Superblock{Label: label, UUID: fmt.Sprintf("%02X%02X-%02X%02X", serial[3], serial[2], serial[1], serial[0])}, b.err == nil
}

// fatVolume is what a boot sector says of where things are, in bytes.
type fatVolume struct {
	fatOffset   int64
	rootOffset  int64 // of FAT12 and FAT16
	rootEntries int
	rootCluster uint32 // of FAT32
	dataOffset  int64
	clusterSize int64
	clusters    uint32 // that the FAT has entries for
}

func parseFAT(h []byte) (fatVolume, bool) {
	if h == nil {
		return fatVolume{}, false
	}
	named := false
	for _, m := range [...]mark{{0x52, "MSWIN"}, {0x52, "FAT32   "}, {0x36, "MSDOS"}, {0x36, "FAT16   "}, {0x36, "FAT12   "}, {0x36, "FAT     "}} {
		named = named || string(h[m.offset:][:len(m.magic)]) == m.magic
	}
	if !named {
		// Without its name it must begin with a jump and end as a boot sector does. OS/2
		// puts such a sector before file systems that are not FAT.
		if h[0] != 0xeb && h[0] != 0xe9 || h[510] != 0x55 || h[511] != 0xaa {
			return fatVolume{}, false
		}
		switch string(h[0x36:0x3e]) {
		case "JFS     ", "HPFS    ":
			return fatVolume{}, false
		}
		switch string(h[3:11]) {
		case "NTFS    ", "EXFAT   ", "-FVE-FS-":
			return fatVolume{}, false
		}
	}
	le := binary.LittleEndian
	sector, perCluster, reserved, fats := int64(le.Uint16(h[11:])), int64(h[13]), int64(le.Uint16(h[14:])), int64(h[16])
	entries, media := int64(le.Uint16(h[17:])), h[21]
	count, perFAT := int64(le.Uint16(h[19:])), int64(le.Uint16(h[22:]))
	if count == 0 {
		count = int64(le.Uint32(h[32:]))
	}
	large := perFAT == 0
	if large {
		perFAT = int64(le.Uint32(h[36:]))
	}
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || perCluster == 0 || perCluster&(perCluster-1) != 0 ||
		reserved == 0 || fats == 0 || perFAT == 0 || media < 0xf8 && media != 0xf0 {
		return fatVolume{}, false
	}
	root := reserved + fats*perFAT
	data := root + (entries*32+sector-1)/sector
	clusters := (count - data) / perCluster
	if count < data || large && clusters > 0x0ffffff6 || !large && clusters > 0xfff4 {
		return fatVolume{}, false
	}
	v := fatVolume{
		fatOffset: reserved * sector, rootOffset: root * sector, rootEntries: int(entries),
		dataOffset: data * sector, clusterSize: perCluster * sector,
	}
	if large {
		v.rootCluster = le.Uint32(h[44:])
		v.clusters = uint32(min(perFAT*sector/4, clusters+2))
	}
	return v, !large || v.rootCluster >= 2
}

// walk looks for the label in the clusters of the root directory of FAT32. No more than a
// hundred of them are followed, as libblkid does, nor more than two MiB: a chain may be a ring.
func (v fatVolume) walk(b *area) string {
	most := min(100, 2<<20/v.clusterSize)
	for cluster, i := v.rootCluster, int64(0); cluster >= 2 && cluster < v.clusters && i < most; i++ {
		if label := labelIn(b.at(v.dataOffset+int64(cluster-2)*v.clusterSize, int(v.clusterSize))); label != "" {
			return label
		}
		next := b.at(v.fatOffset+int64(cluster)*4, 4)
		if next == nil {
			return ""
		}
		cluster = binary.LittleEndian.Uint32(next) & 0x0fffffff
	}
	return ""
}

// labelIn looks for the entry of a directory that is the volume's label.
func labelIn(directory []byte) string {
	const (
		volume, subdirectory, longName, attributes = 0x08, 0x10, 0x0f, 0x3f
		removed                                    = 0xe5
	)
	for ; len(directory) >= 32 && directory[0] != 0; directory = directory[32:] {
		e := directory[:32]
		cluster := binary.LittleEndian.Uint16(e[20:]) | binary.LittleEndian.Uint16(e[26:])
		if e[0] == removed || cluster != 0 || e[11]&attributes == longName || e[11]&(volume|subdirectory) != volume {
			continue
		}
		if e[0] == 0x05 {
			e = append([]byte{0xe5}, e[1:]...) // how a name that begins with that byte is written
		}
		return text(e[:11])
	}
	return ""
}
