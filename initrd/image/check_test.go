package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// initrd makes a plain archive of files.
func initrd(t testing.TB, f files) []byte {
	t.Helper()
	p := newPayload()
	for name, c := range f {
		e := entry{mode: 0o755, data: []byte(c)}
		if target, ok := strings.CutPrefix(c, "-> "); ok {
			e = entry{mode: goMode(0o120777), data: []byte(target)}
		}
		if err := p.put(name, e); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := p.writeTo(&b); err != nil {
		t.Fatal(err)
	}
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

func compress(t testing.TB, how string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "plain":
		return data
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "zstd without checksum":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderCRC(false))
	case "xz":
		w, err = xz.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

func TestCheckFindsNothingMissingInABuild(t *testing.T) {
	c := contents(t)
	var out bytes.Buffer
	f := distribution(t)
	f["etc/mke2fs.conf"] = ""
	if _, err := (Build{Tree: f.write(t, t.TempDir()), Contents: c}).Write(&out); err != nil {
		t.Fatal(err)
	}
	if err := Addon(&out, c); err != nil {
		t.Fatal(err)
	}
	missing, err := Check(&out, c)
	if err != nil || missing != nil {
		t.Errorf("missing %v, error %v", missing, err)
	}
}

// bare has every unit, and a program for each that contents asks for.
func bare() files {
	f := files{
		"etc/initrd-release":                       "",
		"lib64":                                    "-> usr/lib64",
		"usr/lib64/ld-linux-x86-64.so.2":           library(),
		testTriplet + "libc.so.6":                  library(),
		testTriplet + "libcryptsetup.so.12":        library("libc.so.6"),
		"usr/lib/systemd/systemd":                  program(),
		"usr/bin/systemd-repart":                   program(),
		"usr/lib/systemd/systemd-veritysetup":      program(),
		"usr/lib/modules/6/modules.dep":            "kernel/dm-verity.ko.xz: kernel/dm-mod.ko.xz\nkernel/dm-mod.ko.xz:\n",
		"usr/lib/modules/6/kernel/dm-verity.ko.xz": "",
		"usr/lib/modules/6/kernel/dm-mod.ko.xz":    "",
		"usr/lib/modules/6/modules.builtin":        "kernel/ext4.ko\n",
	}
	for _, u := range relied {
		f[unitDir+"/"+u] = ""
	}
	for _, r := range reliedFiles {
		f[r.names[0]] = ""
	}
	for _, p := range reliedPrograms {
		f["usr/bin/"+path.Base(p.name)] = program()
		if path.IsAbs(p.name) {
			f[p.name[1:]] = program()
		}
	}
	return f
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(files)
		want []Missing
	}{
		{"all there", func(files) {}, nil},
		{"not systemd", func(f files) {
			delete(f, "etc/initrd-release")
			delete(f, unitDir+"/emergency.target")
			delete(f, "usr/lib/systemd/systemd")
		}, []Missing{
			{KindUnit, "emergency.target", ""},
			{KindFile, "/etc/initrd-release", "systemd knows an initrd by it"},
			{KindProgram, "/usr/lib/systemd/systemd", ""},
		}},
		{"program of a unit gone", func(f files) {
			f[unitDir+"/emergency.service"] = "[Service]\nExecStartPre=/usr/bin/none\nExecStart=-/usr/bin/may-fail\nExecStart=@!/usr/bin/shell shell\nExecStart=/usr/lib/systemd/systemd %i\n"
		}, []Missing{{KindProgram, "/usr/bin/shell", "emergency.service"}}},
		{"rules by their names upstream", func(f files) {
			delete(f, "usr/lib/udev/rules.d/55-dm.rules")
			f["usr/lib/udev/rules.d/10-dm.rules"] = ""
		}, nil},
		{"rule and program of the file system gone", func(f files) {
			delete(f, "usr/lib/udev/rules.d/95-dm-notify.rules")
			delete(f, "usr/bin/mkfs.ext4")
		}, []Missing{{KindFile, "/usr/lib/udev/rules.d/95-dm-notify.rules", "libdevmapper waits for it"}, {KindProgram, "mkfs.ext4", "systemd-repart"}}},
		{"program and library gone", func(f files) {
			delete(f, "usr/bin/systemd-repart")
			delete(f, testTriplet+"libcryptsetup.so.12")
		}, []Missing{{KindProgram, "systemd-repart", ""}, {KindLibrary, "libcryptsetup.so.12", ""}}},
		{"library of a library gone", func(f files) {
			f["usr/bin/systemd-repart"] = program("libfdisk.so.1")
			f[testTriplet+"libfdisk.so.1"] = library("libuuid.so.1")
		}, []Missing{{KindLibrary, "libuuid.so.1", "/" + testTriplet + "libfdisk.so.1"}}},
		{"library of another architecture", func(f files) {
			f[testTriplet+"libcryptsetup.so.12"] = string(elfFile{machine: 183}.bytes())
		}, []Missing{{KindLibrary, "libcryptsetup.so.12", ""}}},
		{"program is a link to nothing", func(f files) {
			f["usr/bin/systemd-repart"] = "-> none"
		}, []Missing{{KindProgram, "systemd-repart", ""}}},
		{"module in the index only", func(f files) {
			delete(f, "usr/lib/modules/6/kernel/dm-verity.ko.xz")
		}, []Missing{{KindModule, "dm-verity", "kernel 6"}}},
		{"built in and not told", func(f files) {
			delete(f, "usr/lib/modules/6/modules.builtin")
		}, []Missing{{KindModule, "ext4", "kernel 6"}}},
		{"second kernel", func(f files) {
			f["usr/lib/modules/7/modules.dep"] = ""
		}, []Missing{{KindModule, "dm-verity", "kernel 7"}, {KindModule, "ext4", "kernel 7"}}},
		{"no modules", func(f files) {
			delete(f, "usr/lib/modules/6/modules.dep")
		}, []Missing{{KindModule, "dm-verity", "there are no modules at all"}, {KindModule, "ext4", "there are no modules at all"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := bare()
			c.edit(f)
			got, err := Check(bytes.NewReader(initrd(t, f)), contents(t))
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

// TestCheckReadsSegments puts the parts of an initrd into archives of their own, in every order of compressions.
func TestCheckReadsSegments(t *testing.T) {
	microcode := initrd(t, files{"kernel/x86/microcode/GenuineIntel.bin": "microcode"})
	units, rest := bare(), bare()
	for name := range bare() {
		if strings.HasPrefix(name, unitDir) {
			delete(rest, name)
		} else {
			delete(units, name)
		}
	}
	// Enough that a decoder which reads ahead swallows what follows.
	units["usr/noise"] = string(noise(300_000))
	all := []string{"plain", "gzip", "zstd", "zstd without checksum", "xz"}
	for _, first := range all {
		for _, second := range all {
			t.Run(first+", "+second, func(t *testing.T) {
				file := slices.Concat(microcode, make([]byte, 1024), compress(t, first, initrd(t, units)), make([]byte, 512), compress(t, second, initrd(t, rest)), make([]byte, 100))
				got, err := Check(bytes.NewReader(file), contents(t))
				if err != nil || got != nil {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

func TestCheckArchiveErrors(t *testing.T) {
	good := initrd(t, bare())
	for _, c := range []struct {
		name   string
		file   []byte
		offset int64
		want   string
	}{
		{"empty", nil, 0, "empty"},
		{"zeros", make([]byte, 4096), 0, "empty"},
		{"text", []byte("hello, world"), 0, "neither a cpio archive nor a compression"},
		{"lz4", []byte("\x02\x21\x4c\x18...."), 0, "lz4 is not read here"},
		{"lzma", []byte("\x5d\x00\x00....."), 0, "lzma is not read here"},
		{"unaligned", slices.Concat(good, []byte{0}, compress(t, "gzip", good)), int64(len(good) + 1), "4 byte boundary"},
		{"cut in a header", good[:50], 0, "cpio archive: header: unexpected EOF"},
		{"cut in a body", good[:len(good)/2], 0, "unexpected EOF"},
		{"gzip cut", compress(t, "gzip", good)[:200], 0, "gzip: "},
		{"zstd cut", compress(t, "zstd", good)[:200], 0, "zstd: "},
		{"after a good one", slices.Concat(good, []byte("junk")), int64(len(good)), "neither"},
		{"old cpio", []byte("070707" + strings.Repeat("0", 200)), 0, `header starts with "070707"`},
		{"no number", []byte("070701" + strings.Repeat("x", 200)), 0, `"xxxxxxxx" is not a hexadecimal number`},
		{"climbing name", climbing(), 0, "leads out of the archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Check(bytes.NewReader(c.file), contents(t))
			var bad *ArchiveError
			if !errors.As(err, &bad) || bad.Offset != c.offset || !strings.Contains(bad.Error(), c.want) {
				t.Errorf("got %v, want an ArchiveError at %d: %s", err, c.offset, c.want)
			}
		})
	}
}

func climbing() []byte {
	name := "../etc/passwd\x00"
	h := fmt.Sprintf("070701%08x%08x%s%08x%08x", 1, 0o100644, strings.Repeat("00000000", 9), len(name), 0)
	b := []byte(h + name)
	return append(b, make([]byte, 8)...)
}

// TestReadInitrdAsTheKernel pins what a later archive does to an earlier one.
func TestReadInitrdAsTheKernel(t *testing.T) {
	first := initrd(t, files{"lib": "-> usr/lib", "usr/lib/a": "first", "usr/lib/b": "first", "x": "-> usr"})
	second := initrd(t, files{"usr/lib/a": "second", "x/y": "in a directory now"})
	// An entry without its directory, as no tool makes it but as can be made.
	var third bytes.Buffer
	p := newPayload()
	p.entries["none/z"] = entry{mode: 0o644}
	p.entries["lib/c"] = entry{mode: 0o644, data: []byte("through the link")}
	writeBare(t, &third, p)
	a, err := readInitrd(bytes.NewReader(slices.Concat(first, second, third.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	tr := tree{fs: a}
	for name, want := range map[string]string{"usr/lib/a": "second", "lib/b": "first", "x/y": "in a directory now", "usr/lib/c": "through the link"} {
		if got, err := tr.read(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if ok, err := tr.isFile("none/z"); ok || err != nil {
		t.Errorf("an entry without a directory: %v, %v", ok, err)
	}
}

// writeBare writes entries without the directories above them.
func writeBare(t *testing.T, b *bytes.Buffer, p *payload) {
	t.Helper()
	// As an archiver does it: a directory before what is in it.
	for _, name := range slices.Sorted(maps.Keys(p.entries)) {
		e := p.entries[name]
		fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, cpioMode(e.mode), 0, 0, 1, 0, len(e.data), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(e.data)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	b.Write(initrd(t, files{}))
}

func TestHardLinks(t *testing.T) {
	var b bytes.Buffer
	record := func(name, data string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 7, 0o100755, 0, 0, 2, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.WriteString(data)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	// GNU cpio gives the contents with the last name only.
	record("mkfs.ext3", "")
	record("mkfs.ext4", "program")
	b.Write(initrd(t, files{}))
	a, err := readInitrd(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mkfs.ext3", "mkfs.ext4"} {
		if got, err := (tree{fs: a}).read(name); err != nil || string(got) != "program" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzReadInitrd(f *testing.F) {
	small := initrd(f, files{"etc/initrd-release": "x", "lib": "-> usr/lib", "usr/lib/a": "b"})
	for _, how := range []string{"plain", "gzip", "zstd", "xz"} {
		f.Add(compress(f, how, small))
		f.Add(slices.Concat(compress(f, how, small), small))
	}
	f.Add(climbing())
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readInitrd(bytes.NewReader(data))
		if err != nil {
			return
		}
		tr := tree{fs: a}
		for name := range a.nodes {
			if _, _, err := tr.resolve(name); err != nil && a.nodes[name].mode.Type() == 0 {
				t.Errorf("%s is there and cannot be reached: %v", name, err)
			}
		}
	})
}
