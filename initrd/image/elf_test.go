package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
)

// elfFile is an ELF file as small as the loader's parts of it allow.
type elfFile struct {
	machine elf.Machine
	loader  string
	needed  []string
	runpath string
	note    string // the section of the build ID; "" is none
}

func (e elfFile) bytes() []byte {
	if e.machine == 0 {
		e.machine = elf.EM_X86_64
	}
	le := binary.LittleEndian
	strs := []byte{0}
	str := func(s string) uint64 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint64(at)
	}
	var dynamic []byte
	dyn := func(tag elf.DynTag, v uint64) {
		dynamic = le.AppendUint64(le.AppendUint64(dynamic, uint64(tag)), v)
	}
	for _, n := range e.needed {
		dyn(elf.DT_NEEDED, str(n))
	}
	if e.runpath != "" {
		dyn(elf.DT_RUNPATH, str(e.runpath))
	}
	dyn(elf.DT_NULL, 0)

	const headers = 64 + 56
	interp := []byte(e.loader + "\x00")
	at := uint64(headers)
	strsAt := at + uint64(len(interp))
	dynAt := strsAt + uint64(len(strs))
	names := "\x00.dynstr\x00.dynamic\x00.shstrtab\x00.note.gnu.build-id\x00"
	namesAt := dynAt + uint64(len(dynamic))
	noteAt := namesAt + uint64(len(names))
	sectionsAt := noteAt + uint64(len(e.note))
	sections := uint16(4)
	if e.note != "" {
		sections = 5
	}

	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(e.machine), Version: 1, Phoff: 64, Shoff: sectionsAt,
		Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: sections, Shstrndx: 3}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	p := elf.Prog64{Type: uint32(elf.PT_INTERP), Off: at, Filesz: uint64(len(interp)), Memsz: uint64(len(interp))}
	if e.loader == "" {
		p = elf.Prog64{Type: uint32(elf.PT_NULL)}
	}
	write := func(v any) {
		if err := binary.Write(&b, le, v); err != nil {
			panic(err)
		}
	}
	write(h)
	write(p)
	b.Write(interp)
	b.Write(strs)
	b.Write(dynamic)
	b.WriteString(names)
	b.WriteString(e.note)
	name := func(s string) uint32 { return uint32(strings.Index(names, s)) }
	write(elf.Section64{})
	write(elf.Section64{Name: name(".dynstr"), Type: uint32(elf.SHT_STRTAB), Off: strsAt, Size: uint64(len(strs))})
	write(elf.Section64{Name: name(".dynamic"), Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint64(len(dynamic)), Link: 1, Entsize: 16})
	write(elf.Section64{Name: name(".shstrtab"), Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names))})
	if e.note != "" {
		write(elf.Section64{Name: name(".note.gnu.build-id"), Type: uint32(elf.SHT_NOTE), Off: noteAt, Size: uint64(len(e.note))})
	}
	return b.Bytes()
}

const (
	testLoader  = "/lib64/ld-linux-x86-64.so.2"
	testTriplet = "usr/lib/x86_64-linux-gnu/"
)

// program needs the C library and what is named.
func program(needed ...string) string {
	return string(elfFile{loader: testLoader, needed: append([]string{"libc.so.6"}, needed...)}.bytes())
}

// library needs what is named.
func library(needed ...string) string {
	return string(elfFile{needed: needed}.bytes())
}
