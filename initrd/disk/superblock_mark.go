package disk

import "strings"

// markMagic begins a Mark.
const markMagic = "pilotlight: unfinished "

// A Mark says that a file system of that format is being made: MarkSize bytes for the
// last whole sector of the device, which the program that makes it must not write to.
// Probe calls what it finds beside a mark unfinished.
//
// It is for mkfs.fat alone, which writes the boot sector first and the rest later.
// mkfs.xfs and mkfs.btrfs have marks of their own, mkfs.ext4 writes the superblock
// when all else is on the disk, and mkswap writes nothing else.
func Mark(format string) []byte {
	return append([]byte(markMagic+format), make([]byte, MarkSize-len(markMagic)-len(format))...)
}

// MarkSize is the size of a Mark in bytes.
const MarkSize = 512

// MarkOffset is where a Mark goes on a device of that size.
func MarkOffset(size int64) int64 { return size&^(MarkSize-1) - MarkSize }

// marked reads a mark.
func marked(b *area) (format string, ok bool) {
	return strings.CutPrefix(text(b.at(MarkOffset(b.size), MarkSize)), markMagic)
}
