package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

var errNotELF = errors.New("not an ELF file")

// object is what the dynamic loader reads of an ELF file.
type object struct {
	machine   elf.Machine
	class     elf.Class
	loader    string   // PT_INTERP, "" for libraries and static programs
	libraries []string // DT_NEEDED
	runpath   []string // DT_RUNPATH or DT_RPATH, $ORIGIN not yet expanded
}

func readELF(data []byte) (object, error) {
	if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return object{}, errNotELF
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return object{}, err
	}
	o := object{machine: f.Machine, class: f.Class}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			// A path: no loader has one longer than PATH_MAX.
			if p.Filesz > 4096 {
				return object{}, errors.New("interpreter's name is longer than a path may be")
			}
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err != nil {
				return object{}, fmt.Errorf("interpreter: %w", err)
			}
			o.loader = string(bytes.TrimRight(name, "\x00"))
		}
	}
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return o, nil
	}
	if o.libraries, err = f.DynString(elf.DT_NEEDED); err != nil {
		return object{}, fmt.Errorf("needed libraries: %w", err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			return object{}, fmt.Errorf("%v: %w", tag, err)
		}
		for _, p := range paths {
			o.runpath = append(o.runpath, strings.Split(p, ":")...)
		}
		if len(paths) > 0 {
			break // ld.so(8): RPATH counts only where there is no RUNPATH
		}
	}
	return o, nil
}

// multiarch names Debian's library directories.
var multiarch = map[elf.Machine]string{
	elf.EM_X86_64:    "x86_64-linux-gnu",
	elf.EM_AARCH64:   "aarch64-linux-gnu",
	elf.EM_ARM:       "arm-linux-gnueabihf",
	elf.EM_PPC64:     "powerpc64le-linux-gnu",
	elf.EM_RISCV:     "riscv64-linux-gnu",
	elf.EM_S390:      "s390x-linux-gnu",
	elf.EM_LOONGARCH: "loongarch64-linux-gnu",
}

// linker finds libraries in a tree as its dynamic loader would, ld.so(8): the directories in the file itself, then
// those that the loader was built with, then those that its cache is made from.
type linker struct {
	tree    tree
	builtin []string // searched by the loader itself
	conf    []string // /etc/ld.so.conf
	machine elf.Machine
	class   elf.Class
	objects map[string]object // read so far, by path without links
}

// newLinker reads a program to learn the architecture.
func newLinker(t tree, program string) (*linker, error) {
	data, err := t.read(program)
	if err != nil {
		return nil, err
	}
	o, err := readELF(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	l := &linker{tree: t, machine: o.machine, class: o.class, objects: map[string]object{}}
	for _, base := range []string{"usr/", ""} {
		if triplet, ok := multiarch[o.machine]; ok {
			l.builtin = append(l.builtin, base+"lib/"+triplet)
		}
		if o.class == elf.ELFCLASS64 {
			l.builtin = append(l.builtin, base+"lib64")
		}
		l.builtin = append(l.builtin, base+"lib")
	}
	l.conf, err = l.readConf("etc/ld.so.conf", 0)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// readConf reads directories from ld.so.conf, ldconfig(8), with its includes to the depth of eight.
func (l *linker) readConf(name string, depth int) ([]string, error) {
	if ok, err := l.tree.isFile(name); err != nil || !ok {
		return nil, err
	}
	if depth > 8 {
		return nil, &PathError{Path: "/" + name, Reason: "includes are nested too deeply"}
	}
	data, err := l.tree.read(name)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case fields[0] == "include" && len(fields) == 2:
			pattern := fields[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			names, err := l.tree.list(path.Dir(pattern))
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				ok, err := path.Match(path.Base(pattern), n)
				if err != nil {
					return nil, &PathError{Path: "/" + name, Reason: fmt.Sprintf("include %q: %v", fields[1], err)}
				}
				if !ok {
					continue
				}
				more, err := l.readConf(strings.TrimPrefix(path.Join(path.Dir(pattern), n), "/"), depth+1)
				if err != nil {
					return nil, err
				}
				dirs = append(dirs, more...)
			}
		case path.IsAbs(fields[0]):
			dirs = append(dirs, strings.TrimPrefix(path.Clean(fields[0]), "/"))
		}
	}
	return dirs, nil
}

// find returns the path of a library, or "" if there is none for this architecture. cached tells that only a loader
// with a cache finds it.
func (l *linker) find(library string, runpath []string) (found string, cached bool, err error) {
	if path.IsAbs(library) {
		ok, err := l.matches(library)
		if err != nil || !ok {
			return "", false, err
		}
		return strings.TrimPrefix(library, "/"), false, nil
	}
	for i, dirs := range [][]string{runpath, l.builtin, l.conf} {
		for _, dir := range dirs {
			name := path.Join(strings.TrimPrefix(dir, "/"), library)
			ok, err := l.matches(name)
			if err != nil {
				return "", false, err
			}
			if ok {
				return name, i == 2, nil
			}
		}
	}
	return "", false, nil
}

func (l *linker) matches(name string) (bool, error) {
	real, o, err := l.object(name)
	if errors.Is(err, errNotELF) {
		return false, nil // a linker script under a library's name
	}
	if err != nil || real == "" {
		return false, err
	}
	return o.machine == l.machine && o.class == l.class, nil
}

// object reads the file at the end of a path, once. real is "" if there is none.
func (l *linker) object(name string) (real string, o object, err error) {
	if ok, err := l.tree.isFile(name); err != nil || !ok {
		return "", object{}, err
	}
	if real, _, err = l.tree.resolve(name); err != nil {
		return "", object{}, err
	}
	if o, ok := l.objects[real]; ok {
		return real, o, nil
	}
	data, err := l.tree.read(real)
	if err != nil {
		return "", object{}, err
	}
	if o, err = readELF(data); err != nil {
		return "", object{}, fmt.Errorf("/%s: %w", real, err)
	}
	l.objects[real] = o
	return real, o, nil
}

// linked is what a file is linked with.
type linked struct {
	found  []string          // paths of libraries and of the loader, links not followed
	cached map[string]string // those of them that only a loader with a cache finds: name to path
	lost   []loss
}

// loss is a library that is nowhere.
type loss struct {
	library string
	user    string // path of what is linked with it
}

// closure finds all that a program or library is linked with. What is not ELF is linked with nothing.
func (l *linker) closure(name string) (linked, error) {
	out := linked{cached: map[string]string{}}
	// As in the loader, a name that is loaded is not searched again, whoever asks: libsystemd-core, which has no
	// search path of its own, gets the libsystemd-shared of the program.
	loaded := make(map[string]bool)
	todo := []string{name}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		real, o, err := l.object(at)
		if errors.Is(err, errNotELF) && at == name {
			return out, nil
		}
		if err != nil {
			return linked{}, err
		}
		if real == "" {
			return linked{}, &fs.PathError{Op: "open", Path: "/" + at, Err: fs.ErrNotExist}
		}
		origin := strings.NewReplacer("$ORIGIN", "/"+path.Dir(real), "${ORIGIN}", "/"+path.Dir(real))
		var runpath []string
		for _, p := range o.runpath {
			if p = origin.Replace(p); path.IsAbs(p) {
				runpath = append(runpath, path.Clean(p))
			}
		}
		needed := o.libraries
		if o.loader != "" {
			needed = append([]string{o.loader}, needed...)
		}
		for _, lib := range needed {
			if loaded[lib] {
				continue
			}
			loaded[lib] = true
			file, needsCache, err := l.find(lib, runpath)
			if err != nil {
				return linked{}, err
			}
			if file == "" {
				out.lost = append(out.lost, loss{lib, "/" + at})
				continue
			}
			out.found = append(out.found, file)
			todo = append(todo, file)
			if needsCache {
				out.cached[lib] = file
			}
		}
	}
	return out, nil
}
