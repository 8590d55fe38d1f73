package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

func mustGUID(t testing.TB, s string) GUID {
	t.Helper()
	g, err := ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// gptImage is a disk as UEFI wants it, written independently of the reader: every
// number is put where chapter 5 of the specification has it.
type gptImage struct {
	sector, sectors int
	slots, size     int // entries and their size
	guid            GUID
	parts           []Partition
}

// swapGUID gives the mixed byte order of the disk.
func swapGUID(g GUID) []byte {
	b := bytes.Clone(g[:])
	for _, field := range [][]byte{b[0:4], b[4:6], b[6:8]} {
		for i, j := 0, len(field)-1; i < j; i, j = i+1, j-1 {
			field[i], field[j] = field[j], field[i]
		}
	}
	return b
}

func (g gptImage) build() []byte {
	le := binary.LittleEndian
	disk := make([]byte, g.sector*g.sectors)
	last := g.sectors - 1

	copy(disk[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	le.PutUint32(disk[446+8:], 1)
	le.PutUint32(disk[446+12:], uint32(last))
	disk[510], disk[511] = 0x55, 0xaa

	entries := make([]byte, g.slots*g.size)
	for _, p := range g.parts {
		e := entries[(p.Number-1)*g.size:]
		copy(e[0:], swapGUID(p.Type))
		copy(e[16:], swapGUID(p.UUID))
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		le.PutUint64(e[48:], p.Flags)
		for i, u := range utf16.Encode([]rune(p.Name)) {
			le.PutUint16(e[56+2*i:], u)
		}
	}
	length := (len(entries) + g.sector - 1) / g.sector
	for _, at := range []struct{ own, other, entries int }{{1, last, 2}, {last, 1, last - length}} {
		h := disk[at.own*g.sector:]
		copy(h, "EFI PART")
		le.PutUint32(h[8:], 0x00010000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(at.own))
		le.PutUint64(h[32:], uint64(at.other))
		le.PutUint64(h[40:], uint64(2+length))
		le.PutUint64(h[48:], uint64(last-length-1))
		copy(h[56:], swapGUID(g.guid))
		le.PutUint64(h[72:], uint64(at.entries))
		le.PutUint32(h[80:], uint32(g.slots))
		le.PutUint32(h[84:], uint32(g.size))
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		copy(disk[at.entries*g.sector:], entries)
		seal(h)
	}
	return disk
}

// seal makes a header's checksum right again.
func seal(h []byte) {
	le := binary.LittleEndian
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(int(le.Uint32(h[12:])), len(h))]))
}

func sample(t testing.TB, sector int) gptImage {
	return gptImage{
		sector: sector, sectors: 2048, slots: 128, size: 128,
		guid: mustGUID(t, "00112233-4455-6677-8899-aabbccddeeff"),
		parts: []Partition{
			{Number: 1, Type: TypeESP(), UUID: mustGUID(t, "11111111-2222-3333-4444-555555555555"),
				Name: "EFI system", First: 100, Last: 199},
			{Number: 3, Type: TypeState(), UUID: mustGUID(t, "a1a2a3a4-b1b2-c1c2-d1d2-e1e2e3e4e5e6"),
				Name: strings.Repeat("ß", 34) + "🦊", First: 200, Last: 200, Flags: FlagNoAuto | FlagReadOnly | 1},
		},
	}
}

func (g gptImage) table(used Copy, damage error) *Table {
	length := uint64((g.slots*g.size + g.sector - 1) / g.sector)
	last := uint64(g.sectors - 1)
	alternate := last
	if used == Backup {
		alternate = 1
	}
	return &Table{GUID: g.guid, SectorSize: g.sector, FirstUsable: 2 + length, LastUsable: last - length - 1,
		Alternate: alternate, Slots: g.slots, Partitions: g.parts, Used: used, Damage: damage}
}

func TestReadTable(t *testing.T) {
	for _, sector := range []int{512, 1024, 2048, 4096} {
		for _, entry := range []int{128, 256, 512} {
			img := sample(t, sector)
			img.size = entry
			disk := img.build()
			got, err := ReadTable(bytes.NewReader(disk), int64(len(disk)), sector)
			if err != nil {
				t.Errorf("%d bytes a sector, %d an entry: %v", sector, entry, err)
				continue
			}
			if want := img.table(Primary, nil); !reflect.DeepEqual(got, want) {
				t.Errorf("%d bytes a sector, %d an entry:\n got %+v\nwant %+v", sector, entry, got, want)
			}
		}
	}
}

// The type of an ESP as its bytes stand on every disk, so that the swaps of reader and
// writer cannot be wrong together.
func TestGUIDOnDisk(t *testing.T) {
	esp := []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	if got := guidOnDisk(esp); got != TypeESP() || got.String() != "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" {
		t.Errorf("got %s", got)
	}
}

func TestReadTableDamage(t *testing.T) {
	le := binary.LittleEndian
	const last = 2047
	primary := func(change func(h []byte)) func([]byte) {
		return func(d []byte) { h := d[512:1024]; change(h); seal(h) }
	}
	backup := func(change func(h []byte)) func([]byte) {
		return func(d []byte) { h := d[last*512:]; change(h); seal(h) }
	}
	both := func(change func(h []byte)) func([]byte) {
		return func(d []byte) { primary(change)(d); backup(change)(d) }
	}
	all := func(changes ...func([]byte)) func([]byte) {
		return func(d []byte) {
			for _, c := range changes {
				c(d)
			}
		}
	}
	entry := func(n int) func(change func(e []byte)) func([]byte) {
		return func(change func(e []byte)) func([]byte) {
			return func(d []byte) { // in both copies, with the checksums right
				for _, at := range []struct{ header, entries int }{{1, 2}, {last, last - 32}} {
					entries, h := d[at.entries*512:][:128*128], d[at.header*512:][:512]
					change(entries[(n-1)*128:])
					le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
					seal(h)
				}
			}
		}
	}
	zero := func(from, to int) func([]byte) { return func(d []byte) { clear(d[from:to]) } }

	tests := []struct {
		name    string
		change  func([]byte)
		damage  string // of the primary, where the backup is read
		err     error  // else
		message string
	}{
		{name: "intact", change: func([]byte) {}},
		{name: "hybrid MBR", change: func(d []byte) {
			copy(d[462:], d[446:462])
			copy(d[446:], []byte{0x80, 0, 0, 0, 0x0c, 0, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0})
		}},
		{name: "backup damaged", change: zero(last*512, 2048*512)},
		{name: "backup entries damaged", change: zero((last-32)*512, last*512)},
		{name: "partition beyond the usable sectors", change: entry(1)(func(e []byte) { le.PutUint64(e[40:], last) })},

		{name: "one bit of the header", change: func(d []byte) { d[512+57] ^= 1 },
			damage: "primary header: wrong checksum of the header"},
		{name: "checksum of the header", change: func(d []byte) { d[512+16] ^= 1 },
			damage: "primary header: wrong checksum of the header"},
		{name: "one bit of the last entry", change: func(d []byte) { d[34*512-1] ^= 0x80 },
			damage: "primary header: wrong checksum of the entries"},
		{name: "no primary header", change: zero(512, 1024), damage: "primary header: no signature"},
		{name: "header size 91", change: primary(func(h []byte) { le.PutUint32(h[12:], 91) }), damage: "primary header: header of 91 bytes"},
		{name: "header size 513", change: primary(func(h []byte) { le.PutUint32(h[12:], 513) }), damage: "primary header: header of 513 bytes"},
		{name: "header size 4 GiB", change: primary(func(h []byte) { le.PutUint32(h[12:], 1<<32-1) }), damage: "primary header: header of 4294967295 bytes"},
		{name: "revision 2.0", change: primary(func(h []byte) { le.PutUint32(h[8:], 0x20000) }), damage: "primary header: revision 2.0"},
		{name: "copy of another header", change: primary(func(h []byte) { le.PutUint64(h[24:], last) }), damage: "primary header: header written for sector 2047"},

		{name: "no signature in either", change: all(zero(512, 1024), zero(last*512, 2048*512)), err: ErrNoTable,
			message: "partition table: no partition table: a protective MBR without a GPT"},
		{name: "both headers", change: func(d []byte) { d[512+57] ^= 1; d[last*512+57] ^= 1 }, err: ErrDamaged,
			message: "partition table: damaged GPT: primary header in sector 1: wrong checksum of the header; backup header in sector 2047: wrong checksum of the header"},
		{name: "one wiped, one damaged", change: all(zero(512, 1024), func(d []byte) { d[last*512+57] ^= 1 }), err: ErrDamaged,
			message: "partition table: damaged GPT: primary header in sector 1: no signature; backup header in sector 2047: wrong checksum of the header"},
		{name: "no entries", change: both(func(h []byte) { le.PutUint32(h[80:], 0) }), err: ErrDamaged, message: "0 entries of 128 bytes"},
		{name: "4 billion entries", change: both(func(h []byte) { le.PutUint32(h[80:], 1<<32-1) }), err: ErrDamaged, message: "4294967295 entries of 128 bytes"},
		{name: "16385 entries", change: both(func(h []byte) { le.PutUint32(h[80:], 16385) }), err: ErrDamaged, message: "16385 entries of 128 bytes"},
		{name: "16384 entries on a small disk", change: both(func(h []byte) { le.PutUint32(h[80:], 16384) }), err: ErrDamaged, message: "16384 entries from sector 2 on a disk of 2048"},
		{name: "more than 4 MiB of entries", change: both(func(h []byte) { le.PutUint32(h[80:], 2048); le.PutUint32(h[84:], 4096) }), err: ErrDamaged, message: "2048 entries of 4096 bytes"},
		{name: "entries of 64 bytes", change: both(func(h []byte) { le.PutUint32(h[84:], 64) }), err: ErrDamaged, message: "entries of 64 bytes"},
		{name: "entries of 192 bytes", change: both(func(h []byte) { le.PutUint32(h[84:], 192) }), err: ErrDamaged, message: "entries of 192 bytes"},
		{name: "entries of 8192 bytes", change: both(func(h []byte) { le.PutUint32(h[84:], 8192) }), err: ErrDamaged, message: "entries of 8192 bytes"},
		{name: "entries in the header", change: both(func(h []byte) { le.PutUint64(h[72:], 1) }), err: ErrDamaged, message: "128 entries from sector 1"},
		{name: "entries behind the disk", change: both(func(h []byte) { le.PutUint64(h[72:], 1<<64-1) }), err: ErrDamaged, message: "128 entries from sector 18446744073709551615"},
		{name: "entries over the end", change: both(func(h []byte) { le.PutUint64(h[72:], last-30) }), err: ErrDamaged, message: "128 entries from sector 2017"},
		{name: "usable sectors upside down", change: both(func(h []byte) { le.PutUint64(h[40:], 2000); le.PutUint64(h[48:], 1999) }), err: ErrDamaged, message: "usable sectors 2000 to 1999"},
		{name: "usable sectors behind the disk", change: both(func(h []byte) { le.PutUint64(h[48:], 2048) }), err: ErrDamaged, message: "usable sectors 34 to 2048 on a disk of 2048"},
		{name: "partition upside down", change: entry(3)(func(e []byte) { le.PutUint64(e[40:], 199) }), err: ErrDamaged, message: "partition 3 in sectors 200 to 199"},
		{name: "partition behind the disk", change: entry(3)(func(e []byte) { le.PutUint64(e[40:], 2048) }), err: ErrDamaged, message: "partition 3 in sectors 200 to 2048"},
		{name: "partition of 2^64 sectors", change: entry(1)(func(e []byte) { le.PutUint64(e[32:], 0); le.PutUint64(e[40:], 1<<64-1) }), err: ErrDamaged, message: "partition 1 in sectors 0 to 18446744073709551615"},

		{name: "no protective MBR", change: zero(0, 512), err: ErrDamaged, message: "no protective MBR before it"},
		{name: "protective entry elsewhere", change: func(d []byte) { d[446+8] = 2 }, err: ErrMBR},
		{name: "start of the disk zeroed", change: zero(0, 1000*512), err: ErrNoTable},
		{name: "MBR label over a GPT", change: func(d []byte) { d[450] = 0x83 }, err: ErrMBR},
		{name: "all zero", change: zero(0, 2048*512), err: ErrNoTable},
		{name: "FAT over the whole disk", change: func(d []byte) {
			clear(d)
			copy(d, "\xeb\x3c\x90mkfs.fat")
			copy(d[440:], "Non-system disk, press any key to try again, and then some more.")
			d[510], d[511] = 0x55, 0xaa
		}, err: ErrNoTable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := sample(t, 512).build()
			test.change(disk)
			got, err := ReadTable(bytes.NewReader(disk), int64(len(disk)), 512)
			if test.err != nil {
				var te *TableError
				if !errors.Is(err, test.err) || !errors.As(err, &te) || !strings.Contains(err.Error(), test.message) {
					t.Fatalf("error %v, want %v with %q", err, test.err, test.message)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.damage == "" && (got.Used.String() != "primary" || got.Damage != nil) {
				t.Errorf("used %v, damage %v", got.Used, got.Damage)
			}
			if test.damage != "" {
				if got.Damage == nil || got.Damage.Error() != test.damage {
					t.Fatalf("damage %v, want %q", got.Damage, test.damage)
				}
				if want := sample(t, 512).table(Backup, got.Damage); got.Used.String() != "backup" || !reflect.DeepEqual(got, want) {
					t.Errorf("\n got %+v\nwant %+v", got, want)
				}
			}
		})
	}
}

func TestReadTableOfGrownDisk(t *testing.T) {
	img := sample(t, 512)
	disk := append(img.build(), make([]byte, 1<<20)...)
	got, err := ReadTable(bytes.NewReader(disk), int64(len(disk)), 512)
	if err != nil || got.Used != Primary || got.Alternate != 2047 {
		t.Errorf("%+v, %v", got, err)
	}
	// The backup is no longer in the last sector, so nothing is left to fall back to.
	disk[600] ^= 1
	if _, err = ReadTable(bytes.NewReader(disk), int64(len(disk)), 512); !errors.Is(err, ErrDamaged) {
		t.Errorf("with a damaged primary: %v", err)
	}
}

func TestReadTableTruncated(t *testing.T) {
	disk := sample(t, 512).build()
	for _, test := range []struct {
		name       string
		have, size int // in bytes
		want       error
	}{
		{"empty disk", 0, 0, ErrNoTable},
		{"one sector", 512, 512, ErrNoTable},
		{"two sectors", 1024, 1024, ErrDamaged},
		{"end cut off", 1000 * 512, 1000 * 512, ErrDamaged},
		{"last sector cut off", 2047 * 512, 2047 * 512, nil}, // of the usable ones all are there
		{"smaller than it says, in the entries", 20 * 512, len(disk), io.ErrUnexpectedEOF},
		{"smaller than it says, in the header", 700, len(disk), io.ErrUnexpectedEOF},
		{"smaller than it says, in the MBR", 100, len(disk), io.ErrUnexpectedEOF},
	} {
		_, err := ReadTable(bytes.NewReader(disk[:test.have]), int64(test.size), 512)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}

func TestReadTableOtherSectorSize(t *testing.T) {
	for _, test := range []struct{ made, disk int }{{512, 4096}, {4096, 512}, {512, 2048}} {
		img := sample(t, test.made).build()
		_, err := ReadTable(bytes.NewReader(img), int64(len(img)), test.disk)
		if !errors.Is(err, ErrSectorSize) {
			t.Errorf("made for %d, disk of %d: %v", test.made, test.disk, err)
		}
	}
}

func TestReadTableArguments(t *testing.T) {
	img := sample(t, 512).build()
	for _, sector := range []int{-512, 0, 1, 256, 513, 520, 4095, 8192} {
		_, err := ReadTable(bytes.NewReader(img), int64(len(img)), sector)
		var te *TableError
		if !errors.As(err, &te) || !strings.Contains(err.Error(), "sector size of ") {
			t.Errorf("sector size %d: %v", sector, err)
		}
	}
	if _, err := ReadTable(bytes.NewReader(img), -1, 512); err == nil || !strings.Contains(err.Error(), "disk size of -1 bytes") {
		t.Errorf("negative size: %v", err)
	}
}

// brokenAt fails at one offset, as a disk with a bad sector does.
type brokenAt struct {
	io.ReaderAt
	from, to int64
	err      error
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, b.err
	}
	return b.ReaderAt.ReadAt(p, off)
}

// What cannot be read is told, and never worked around by the backup.
func TestReadTableUnreadable(t *testing.T) {
	bad := errors.New("bad sector")
	intact := sample(t, 512).build()
	damaged := bytes.Clone(intact)
	damaged[512+57] ^= 1
	for _, test := range []struct {
		name     string
		disk     []byte
		from, to int64
	}{
		{"MBR", intact, 0, 512},
		{"primary header", intact, 512, 1024},
		{"primary entries", intact, 5000, 5001},
		{"backup header", damaged, 2047 * 512, 2048 * 512},
		{"backup entries", damaged, 2040 * 512, 2041 * 512},
	} {
		_, err := ReadTable(brokenAt{bytes.NewReader(test.disk), test.from, test.to, bad}, int64(len(test.disk)), 512)
		if !errors.Is(err, bad) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// FuzzReadTable changes an intact disk, with the checksums made right where asked, since
// no mutation finds a CRC by chance.
func FuzzReadTable(f *testing.F) {
	f.Add([]byte{80, 0xff, 0xff, 0xff, 0xff}, uint16(512), true, false)
	f.Add([]byte{0}, uint16(0), true, true)
	f.Add([]byte("EFI PART"), uint16(512), false, false)
	f.Fuzz(func(t *testing.T, patch []byte, at uint16, resealed, large bool) {
		sector := 512
		if large {
			sector = 4096
		}
		disk := sample(t, sector).build()
		copy(disk[at:], patch)
		if resealed {
			h := disk[sector : 2*sector]
			binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(disk[2*sector:][:128*128]))
			seal(h)
		}
		table, err := ReadTable(bytes.NewReader(disk), int64(len(disk)), sector)
		if err != nil {
			var te *TableError
			if table != nil || !errors.As(err, &te) {
				t.Fatalf("table %v, error %v", table, err)
			}
			return
		}
		if table.Slots < 1 || table.Slots > maxEntries || len(table.Partitions) > table.Slots || table.LastUsable >= 2048 {
			t.Fatalf("%+v", table)
		}
		number := 0
		for _, p := range table.Partitions {
			if p.Number <= number || p.Number > table.Slots || p.Type.IsZero() || p.First > p.Last || p.Last >= 2048 {
				t.Fatalf("%+v", p)
			}
			number = p.Number
		}
		if (table.Used == Backup) != (table.Damage != nil) {
			t.Fatalf("used %v, damage %v", table.Used, table.Damage)
		}
	})
}
