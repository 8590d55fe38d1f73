package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// byBlkid is what libblkid says of an image or a device. It exits with 2 where it finds
// nothing, and with 8 where it finds too much.
func byBlkid(t *testing.T, path string) Superblock {
	t.Helper()
	out, err := exec.Command("blkid", "--probe", "--output", "export", path).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 {
		return Superblock{}
	}
	if err != nil {
		t.Fatalf("blkid of %s: %v", path, err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		// It escapes what a shell would take for something else.
		values[key] = strings.ReplaceAll(value, `\`, "")
	}
	s := Superblock{Type: values["TYPE"], Table: values["PTTYPE"]}
	switch s.Type {
	case "crypto_LUKS", "linux_raid_member":
		s.Version = values["VERSION"]
		fallthrough
	case "ext2", "ext3", "ext4", "jbd", "btrfs", "xfs", "vfat", "swap":
		s.Label, s.UUID = values["LABEL"], values["UUID"]
	}
	return s
}

// probed is what Probe says of a file.
func probed(t *testing.T, path string) (Superblock, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Probe(f, info.Size())
}

// makers are mkfs programs of all sorts, and how they are called on an image. The second
// word of each is the size of the image in MiB.
func makers() []string {
	const id = "a1b2c3d4-e5f6-4a7b-8c9d-0123456789ab"
	return []string{
		"ext2 4 mkfs.ext2 -q -F -U " + id + " -L two",
		"ext3 16 mkfs.ext3 -q -F -L three",
		"ext4 16 mkfs.ext4 -q -F -U " + id + " -L sixteen-letters-",
		"ext4 16 mkfs.ext4 -q -F -O ^has_journal",
		"jbd 16 mkfs.ext4 -q -F -O journal_dev -L outside",
		"btrfs 128 mkfs.btrfs -q -f -U " + id + " -L with_a_label",
		"btrfs 128 mkfs.btrfs -q -f",
		"xfs 320 mkfs.xfs -q -f -m uuid=" + id + " -L twelve-chars",
		"xfs 320 mkfs.xfs -q -f",
		"vfat 4 mkfs.vfat -F 12 -i 01abCDef -n TWELVE",
		"vfat 32 mkfs.vfat -F 16 -i deadbeef -n SIXTEEN",
		"vfat 64 mkfs.vfat -F 32 -i 00000001 -n THIRTYTWO",
		"vfat 64 mkfs.vfat -F 32 -S 4096",
		"vfat 16 mkfs.vfat",
		"swap 4 mkswap -q -U " + id + " -L fifteen-letters",
		"swap 4 mkswap -q -p 65536",
		"f2fs 128 mkfs.f2fs -q -f",
		"exfat 16 mkfs.exfat",
		"ntfs 16 mkfs.ntfs -q -F -f",
		"udf 16 mkfs.udf",
		"udf 16 mkfs.udf --blocksize=4096",
		"crypto_LUKS 4 cryptsetup luksFormat --type luks1 --batch-mode --key-file /etc/hostname --pbkdf-force-iterations 1000 --uuid " + id,
		"crypto_LUKS 32 cryptsetup luksFormat --type luks2 --batch-mode --key-file /etc/hostname --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --label held",
		"gpt 4 sgdisk --new=1:0:0",
		"dos 4 sfdisk --quiet --label dos",
	}
}

// TestProbeSaysWhatBlkidSays makes what the programs of Debian can make.
func TestProbeSaysWhatBlkidSays(t *testing.T) {
	for _, line := range makers() {
		words := strings.Fields(line)
		t.Run(strings.Join(words[2:], " "), func(t *testing.T) {
			file := newImage(t, atoi(t, words[1])<<20)
			input := ""
			if words[0] == "dos" {
				input = ",\n"
			}
			run(t, input, words[2], append(words[3:], file)...)
			compare(t, file, words[0])
		})
	}
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), bytes.Repeat([]byte("text"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, argv := range map[string][]string{
		"squashfs": {"mksquashfs", tree, "{}", "-quiet", "-no-progress"},
		"erofs":    {"mkfs.erofs", "--quiet", "{}", tree},
		"iso9660":  {"genisoimage", "-quiet", "-o", "{}", tree},
		"udf":      {"genisoimage", "-quiet", "-udf", "-o", "{}", tree},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image")
			args := strings.Split(strings.ReplaceAll(strings.Join(argv, "\x00"), "{}", file), "\x00")
			run(t, "", args[0], args[1:]...)
			compare(t, file, name)
		})
	}
}

func compare(t *testing.T, file, want string) {
	t.Helper()
	got, err := probed(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Blank() {
		t.Errorf("it is blank: %+v", got)
	}
	if got.Type != want && got.Table != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	got.Partitions = 0
	blkid := byBlkid(t, file)
	if want == "exfat" {
		blkid.Table = "" // some versions take its boot sector for an MBR
	}
	if got != blkid {
		t.Errorf("%#v\nblkid: %#v", got, blkid)
	}
}

func atoi(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestProbeKnowsSignatures puts the signatures of what cannot be made here on an image.
func TestProbeKnowsSignatures(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	const size = 8 << 20
	put := func(offset int64, data string) func([]byte) { return func(b []byte) { copy(b[offset:], data) } }
	md := func(sector int64) func([]byte) {
		return func(b []byte) {
			h := b[sector*512:]
			le.PutUint32(h, 0xa92b4efc)
			le.PutUint32(h[4:], 1)
			copy(h[16:], "0123456789abcdef")
			copy(h[32:], "host:root")
			le.PutUint64(h[80:], 1024)
			le.PutUint32(h[92:], 2)
			le.PutUint64(h[144:], uint64(sector))
			le.PutUint32(h[220:], 2)
		}
	}
	old := func(order binary.ByteOrder) func([]byte) {
		return func(b []byte) {
			h := b[size-64<<10:]
			for i, n := range map[int]uint32{0: 0xa92b4efc, 4: 0, 8: 90, 12: 0, 20: 0x01020304, 32: 1024, 52: 0x05060708, 56: 0x090a0b0c, 60: 0x0d0e0f10} {
				order.PutUint32(h[i:], n)
			}
		}
	}
	ring := func(offset int64) func([]byte) {
		return func(b []byte) {
			for i := range int64(8) {
				le.PutUint64(b[offset+128<<10+i<<10:], 0x00bab10c)
			}
		}
	}
	const id = "30313233-3435-3637-3839-616263646566"
	for name, c := range map[string]struct {
		put  func([]byte)
		want Superblock
	}{
		"md 1.0":      {md(size/512 - 16), Superblock{Type: "linux_raid_member", Version: "1.0", UUID: id, Label: "host:root"}},
		"md 1.1":      {md(0), Superblock{Type: "linux_raid_member", Version: "1.1", UUID: id, Label: "host:root"}},
		"md 1.2":      {md(8), Superblock{Type: "linux_raid_member", Version: "1.2", UUID: id, Label: "host:root"}},
		"md 0.90":     {old(le), Superblock{Type: "linux_raid_member", Version: "0.90.0", UUID: "01020304-0506-0708-090a-0b0c0d0e0f10"}},
		"md 0.90 big": {old(be), Superblock{Type: "linux_raid_member", Version: "0.90.0", UUID: "01020304-0506-0708-090a-0b0c0d0e0f10"}},
		"ddf":         {put(size-512, "\xde\x11\xde\x11"), Superblock{Type: "ddf_raid_member"}},
		"isw":         {put(size-1024, "Intel Raid ISM Cfg Sig. 1.1.00"), Superblock{Type: "isw_raid_member"}},
		"drbd":        {put(size-4096+60, "\x83\x74\x02\x6d"), Superblock{Type: "drbd"}},
		"lvm":         {put(512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00....\x20\x00\x00\x00LVM2 001"), Superblock{Type: "LVM2_member"}},
		"verity":      {put(0, "verity\x00\x00\x01\x00"), Superblock{Type: "DM_verity_hash"}},
		"integrity":   {put(0, "integrt\x00\x01"), Superblock{Type: "DM_integrity"}},
		"second luks": {put(0x4000, "SKUL\xba\xbe\x00\x02"+strings.Repeat("\x00", 248)+"\x00\x00\x00\x00\x00\x00\x40\x00"), Superblock{Type: "crypto_LUKS", Version: "2"}},
		"bitlocker":   {put(0, "\xeb\x58\x90-FVE-FS-"), Superblock{Type: "BitLocker"}},
		"bluestore":   {put(0, "bluestore block device\n"), Superblock{Type: "ceph_bluestore"}},
		"stratis":     {put(516, stratisMagic), Superblock{Type: "stratis"}},
		"zfs":         {ring(0), Superblock{Type: "zfs_member"}},
		"zfs at end":  {ring(size - 256<<10), Superblock{Type: "zfs_member"}},
		"hfs+":        {put(1024, "H+\x00\x04"+strings.Repeat("\x00", 36)+"\x00\x00\x10\x00"), Superblock{Type: "hfsplus"}},
		"ufs":         {put(65536+0x55c, "\x19\x01\x54\x19"), Superblock{Type: "ufs"}},
		"jfs":         {put(32768, "JFS1\x02\x00\x00\x00"), Superblock{Type: "jfs"}},
		"reiserfs":    {put(65536+52, "ReIsEr2Fs"), Superblock{Type: "reiserfs"}},
		"nilfs2":      {put(1024, "\x02\x00\x00\x00\x00\x00\x34\x34\x18\x01"), Superblock{Type: "nilfs2"}},
		"bcache":      {put(4096+24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"), Superblock{Type: "bcache"}},
		"refs":        {put(0, "\x00\x00\x00ReFS\x00"), Superblock{Type: "ReFS"}},
		"apfs":        {put(32, "NXSB"), Superblock{Type: "apfs"}},
		"asleep":      {put(4086, "S1SUSPEND"), Superblock{Type: "swsuspend"}},
		"old swap":    {put(4086, "SWAP-SPACE"), Superblock{Type: "swap"}},
		"btrfs begun": {put(65536+64, "!BHRfS_M"), Superblock{Type: "btrfs", Unfinished: true}},
		"our mark":    {put(MarkOffset(size), string(Mark("vfat"))), Superblock{Type: "vfat", Unfinished: true}},
		"a mere GPT":  {put(512, "EFI PART"), Superblock{Table: "gpt", Partitions: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			image := make([]byte, size)
			c.put(image)
			got, err := Probe(bytes.NewReader(image), size)
			if err != nil || got != c.want {
				t.Errorf("%#v %v\nwant %#v", got, err, c.want)
			}
			if got.Blank() != c.want.Unfinished {
				t.Errorf("blank: %v", got.Blank())
			}
			if !strings.HasPrefix(name, "md") {
				return
			}
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, image, 0o600); err != nil {
				t.Fatal(err)
			}
			if blkid := byBlkid(t, file); blkid != got {
				t.Errorf("%#v\nblkid: %#v", got, blkid)
			}
		})
	}
}

// TestProbeTellsSeveralSignatures is what blkid calls ambivalent, and what it does not.
func TestProbeTellsSeveralSignatures(t *testing.T) {
	ext := func(t *testing.T) string {
		file := newImage(t, 16<<20)
		run(t, "", "mkfs.ext4", "-q", "-F", "-L", "below", file)
		return file
	}
	over := func(t *testing.T, file string, offset int64, data string) {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte(data), offset)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("two file systems", func(t *testing.T) {
		file := ext(t)
		over(t, file, 0, "hsqs"+strings.Repeat("\x00", 24)+"\x04\x00")
		var several *AmbivalentError
		if _, err := probed(t, file); !errors.As(err, &several) || len(several.Found) != 2 || several.Found[0].Label != "below" || several.Found[1].Type != "squashfs" {
			t.Errorf("%v", err)
		} else if !strings.Contains(err.Error(), `ext4 (label "below", UUID `) || !strings.HasSuffix(err.Error(), ", squashfs") {
			t.Errorf("they are not named: %v", err)
		}
	})
	t.Run("a mirror", func(t *testing.T) {
		file := ext(t)
		h := make([]byte, 256)
		sector := uint64(16<<20/512 - 16)
		binary.LittleEndian.PutUint32(h, 0xa92b4efc)
		binary.LittleEndian.PutUint32(h[4:], 1)
		binary.LittleEndian.PutUint64(h[144:], sector)
		over(t, file, int64(sector*512), string(h))
		if got, err := probed(t, file); err != nil || got.Type != "linux_raid_member" {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("both frames of a disc", func(t *testing.T) {
		file := newImage(t, 4<<20)
		over(t, file, 32768, "\x01CD001\x01")
		over(t, file, 34816, "\x00BEA01\x01")
		over(t, file, 36864, "\x00NSR02\x01")
		if got, err := probed(t, file); err != nil || got.Type != "udf" {
			t.Errorf("%+v %v", got, err)
		}
	})
	t.Run("unfinished beside another", func(t *testing.T) {
		file := ext(t)
		over(t, file, MarkOffset(16<<20), string(Mark("vfat")))
		if got, err := probed(t, file); err != nil || got.Type != "ext4" || got.Unfinished {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// TestProbeFindsNothingInNothing, and does not read beyond a device.
func TestProbeFindsNothingInNothing(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 513, 1023, 4096, 65536, 66000, 1 << 20, 3<<20 + 1} {
		got, err := Probe(bytes.NewReader(make([]byte, size)), size)
		if err != nil || got != (Superblock{}) || !got.Blank() {
			t.Errorf("%d bytes: %+v %v", size, got, err)
		}
	}
	if _, err := Probe(bytes.NewReader(make([]byte, 1<<20)), 2<<20); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a device that ends before its size: %v", err)
	}
}

// TestUdevIsBelievedWhereProbeSeesNothing gives it words that libblkid would not find on
// an empty loop device.
func TestUdevIsBelievedWhereProbeSeesNothing(t *testing.T) {
	node := attach(t, newImage(t, 4<<20), 512)
	var st syscall.Stat_t
	if err := syscall.Stat(node, &st); err != nil {
		t.Fatal(err)
	}
	file := "udev/data/b7:" + strconv.FormatUint(st.Rdev&0xff|st.Rdev>>12&0xfff00, 10)
	s := Machine()
	for _, c := range []struct {
		entry string
		want  Superblock
	}{
		{"I:1\n", Superblock{}},
		{"E:ID_FS_TYPE=exotic\nE:ID_FS_LABEL_ENC=a\\x20b\nE:ID_FS_UUID=77\n", Superblock{Type: "exotic", Label: "a b", UUID: "77"}},
		{"E:ID_PART_TABLE_TYPE=sun\n", Superblock{Table: "sun", Partitions: 1}},
	} {
		s.Run = fstest.MapFS{file: {Data: []byte(c.entry)}}
		got, err := s.Superblock(node)
		if err != nil || got != c.want || got.Blank() != (c.want == Superblock{}) {
			t.Errorf("%q: %+v %v, want %+v", c.entry, got, err, c.want)
		}
	}
	run(t, "", "mkfs.ext4", "-q", node)
	if got, err := s.Superblock(node); err != nil || got.Type != "ext4" {
		t.Errorf("over a file system: %+v %v", got, err)
	}
}

// FuzzProbe holds that no image makes Probe fail, read outside, or read for ever.
func FuzzProbe(f *testing.F) {
	const size = 1 << 20
	for _, s := range []string{"", "LUKS\xba\xbe\x00\x02", "XFSB\x00\x00\x10\x00", "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x50\xf8\x14\x00"} {
		f.Add([]byte(s), uint32(0), uint32(size))
	}
	f.Add([]byte("\x00\x02\x01\x20\x00\x02\x00\x00\x00\x00\xf8\x00\x00\x20\x00\x40\x00\x00\x00\x00\x00\x00\x08\x00\x00\x01"), uint32(11), uint32(size))
	f.Fuzz(func(t *testing.T, data []byte, offset, length uint32) {
		image := make([]byte, size)
		// The names that make a boot sector one of FAT32.
		copy(image[0x52:], "FAT32   ")
		copy(image[min(offset, size):], data)
		image = image[:min(length, size)]
		r := &counting{r: bytes.NewReader(image), end: int64(len(image))}
		_, err := Probe(r, int64(len(image)))
		var several *AmbivalentError
		if err != nil && !errors.As(err, &several) {
			t.Error(err)
		}
		if r.beyond || r.read > 16<<20 {
			t.Errorf("%d bytes read, beyond the end: %v", r.read, r.beyond)
		}
	})
}

type counting struct {
	r         io.ReaderAt
	end, read int64
	beyond    bool
}

func (c *counting) ReadAt(p []byte, offset int64) (int, error) {
	c.read += int64(len(p))
	c.beyond = c.beyond || offset < 0 || offset+int64(len(p)) > c.end
	return c.r.ReadAt(p, offset)
}
