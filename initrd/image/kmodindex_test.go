package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// search reads an index as libkmod's index_file.c does, for one key.
func search(t *testing.T, file []byte, key string) []string {
	t.Helper()
	if binary.BigEndian.Uint32(file) != 0xB007F457 || binary.BigEndian.Uint32(file[4:]) != 0x00020001 {
		t.Fatalf("index begins with % x", file[:8])
	}
	text := func(at uint32) (string, uint32) {
		end := bytes.IndexByte(file[at:], 0)
		if end < 0 {
			t.Fatalf("text at %d does not end", at)
		}
		return string(file[at : at+uint32(end)]), at + uint32(end) + 1
	}
	offset := binary.BigEndian.Uint32(file[8:])
	for {
		at := offset & 0x0FFFFFFF
		if offset&(1<<31) != 0 {
			var prefix string
			prefix, at = text(at)
			rest, ok := strings.CutPrefix(key, prefix)
			if !ok {
				return nil
			}
			key = rest
		}
		next := uint32(0)
		if offset&(1<<29) != 0 {
			first, last := file[at], file[at+1]
			if key != "" && key[0] >= first && key[0] <= last {
				next = binary.BigEndian.Uint32(file[at+2+4*uint32(key[0]-first):])
			}
			at += 2 + 4*uint32(last-first+1)
		}
		if key == "" {
			if offset&(1<<30) == 0 {
				return nil
			}
			var values []string
			count := binary.BigEndian.Uint32(file[at:])
			at += 4
			for range count {
				priority := int32(binary.BigEndian.Uint32(file[at:]))
				var value string
				value, at = text(at + 4)
				values = append(values, fmt.Sprintf("%d %s", priority, value))
			}
			return values
		}
		if next == 0 {
			return nil
		}
		offset, key = next, key[1:]
	}
}

func TestIndexFindsWhatWasInserted(t *testing.T) {
	x := newIndex()
	keys := []string{"dm_mod", "dm_mod_x", "dm", "d", "ext4", "dm_verity", "virtio:d00000001v*", "", "dm_bufio"}
	for i, k := range keys {
		x.insert(k, "module "+k, i)
	}
	x.insert("ext4", "second", 2)
	x.insert("ext4", "equal", 4)
	x.insert("schlüssel", "nobody asks", 0)
	file := x.encode()
	for i, k := range keys {
		want := []string{fmt.Sprintf("%d module %s", i, k)}
		if k == "ext4" {
			want = []string{"2 second", "4 equal", "4 module ext4"}
		}
		if got := search(t, file, k); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: got %q, want %q", k, got, want)
		}
	}
	for _, k := range []string{"dm_", "ex", "ext44", "schlüssel", "z"} {
		if got := search(t, file, k); got != nil {
			t.Errorf("%q: got %q, want none", k, got)
		}
	}
}

// TestIndexIsDepmods compares with files that depmod of kmod 34 made of the modules in testdata/modules.
func TestIndexIsDepmods(t *testing.T) {
	dir := filepath.Join("testdata", "modules")
	tr, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readModules(tr, ".")
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.index(m.order, func(name string) string { return plainName(m.file[name]) })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"modules.dep", "modules.dep.bin", "modules.alias.bin", "modules.symbols.bin"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(files[name], want) {
			t.Errorf("%s differs from depmod's: %d bytes, want %d", name, len(files[name]), len(want))
		}
	}
}

func TestNormalAlias(t *testing.T) {
	for _, c := range []struct {
		in, out string
		ok      bool
	}{
		{"fs-xfs", "fs_xfs", true},
		{"usb:v*p*d*dc*ic08isc06ip[5-8]in-", "usb:v*p*d*dc*ic08isc06ip[5-8]in_", true},
		{"a]b", "", false},
		{"a[b", "a[b", false},
	} {
		got, ok := normalAlias(c.in)
		if ok != c.ok || ok && got != c.out {
			t.Errorf("%q: %q, %v, want %q, %v", c.in, got, ok, c.out, c.ok)
		}
	}
}
