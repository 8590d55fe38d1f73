package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// Kinds of what may be missing.
const (
	KindProgram = "program"
	KindLibrary = "library"
	KindModule  = "module"
	KindUnit    = "unit"
	KindFile    = "file"
)

// Missing is something that an initrd, or the tree of one, lacks.
type Missing struct {
	Kind string // one of the Kind constants
	Name string
	For  string // who needs it, or what for; may be empty
}

// String is one line: `library libtss2-esys.so.0 (the TPM)`.
func (m Missing) String() string {
	if m.For == "" {
		return m.Kind + " " + m.Name
	}
	return fmt.Sprintf("%s %s (%s)", m.Kind, m.Name, m.For)
}

// Check reads an initrd and names what it lacks for pilotlight: the programs, libraries and modules of c, libraries
// that those programs are linked with, units of systemd that pilotlight's own are ordered by, with the programs that
// they start, and rules of udev. An initrd may
// consist of several cpio archives, each plain or in gzip, zstd or xz, as the kernel takes them. It need not hold the
// addition yet. None missing is a nil slice.
//
// Modules are those of every kernel version in the initrd. It fails with an *[ArchiveError] if the kernel could not
// unpack it, or if it is compressed otherwise.
func Check(initrd io.Reader, c Contents) ([]Missing, error) {
	a, err := readInitrd(initrd)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	k := checker{tree: tree{fs: a}}
	if err := k.all(c); err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	return k.missing, nil
}

type checker struct {
	tree    tree
	missing []Missing
}

// all looks for everything.
func (k *checker) all(c Contents) error {
	programs, err := k.units()
	if err != nil {
		return err
	}
	for _, name := range c.Programs {
		programs = append(programs, item{name: name})
	}
	if err := k.files(); err != nil {
		return err
	}
	if err := k.programs(append(programs, reliedPrograms...), c.Libraries); err != nil {
		return err
	}
	return k.modules(c)
}

func (k *checker) lacks(kind, name, why string) {
	m := Missing{kind, name, why}
	if !slices.Contains(k.missing, m) {
		k.missing = append(k.missing, m)
	}
}

// units looks for the units, and gives the programs that those start that are there.
func (k *checker) units() (programs []item, err error) {
	for _, name := range relied {
		there := false
		for _, dir := range []string{unitDir, "lib/systemd/system", "etc/systemd/system"} {
			at := path.Join(dir, name)
			ok, err := k.tree.isFile(at)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			there = true
			text, err := k.tree.read(at)
			if err != nil {
				return nil, err
			}
			for _, m := range unitProgram().FindAllSubmatch(text, -1) {
				programs = append(programs, item{name: string(m[1]), why: name})
			}
		}
		if !there {
			k.lacks(KindUnit, name, "")
		}
	}
	return programs, nil
}

// unitProgram finds the programs of a unit that must run, by path: a dash says that failure does not count,
// systemd.service(5).
var unitProgram = once(`(?m)^ExecStart=[@:+!|]*(/[^\s%]+)`)

// releaseFile tells systemd that it is in an initrd.
const releaseFile = "/etc/initrd-release"

// files looks for rules of udev, and for single files.
func (k *checker) files() error {
	ok, err := k.tree.isFile(releaseFile)
	if err != nil {
		return err
	}
	if !ok {
		k.lacks(KindFile, releaseFile, "systemd knows an initrd by it")
	}
	for _, f := range reliedFiles {
		there := false
		for _, name := range f.names {
			ok, err := k.tree.isFile(name)
			if err != nil {
				return err
			}
			there = there || ok
		}
		if !there {
			k.lacks(KindFile, "/"+f.names[0], f.why)
		}
	}
	return nil
}

// programs looks for programs and for libraries.
func (k *checker) programs(programs []item, libraries []string) error {
	var linker *linker
	for _, p := range append([]item{{name: "/usr/lib/systemd/systemd"}}, programs...) {
		found, err := k.tree.program(p.name)
		if err != nil {
			return err
		}
		if found == "" {
			k.lacks(KindProgram, p.name, p.why)
			continue
		}
		if linker == nil {
			// A program that is a script says nothing of the architecture; the next one may.
			linker, err = newLinker(k.tree, found)
			if errors.Is(err, errNotELF) {
				linker = nil
				continue
			}
			if err != nil {
				return err
			}
		}
		if err := k.linked(linker, found); err != nil {
			return err
		}
	}
	for _, name := range libraries {
		found := ""
		if linker != nil {
			var err error
			if found, _, err = linker.find(name, nil); err != nil {
				return err
			}
		}
		if found == "" {
			k.lacks(KindLibrary, name, "")
			continue
		}
		if err := k.linked(linker, found); err != nil {
			return err
		}
	}
	return nil
}

func (k *checker) linked(l *linker, name string) error {
	needs, err := l.closure(name)
	for _, lost := range needs.lost {
		k.lacks(KindLibrary, lost.library, lost.user)
	}
	return err
}

func (k *checker) modules(c Contents) error {
	if len(c.Modules) == 0 {
		return nil
	}
	dir, versions, err := kernelVersions(k.tree)
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		for _, name := range c.Modules {
			k.lacks(KindModule, name, "there are no modules at all")
		}
		return nil
	}
	for _, version := range versions {
		m, err := readModules(k.tree, path.Join(dir, version))
		if err != nil {
			return err
		}
		_, missing, err := m.closure(c.Modules)
		if err != nil {
			return err
		}
		lost := make(map[string]bool)
		for _, name := range missing {
			lost[name] = true
		}
		// An index that was copied whole names modules that were not.
		for _, name := range c.Modules {
			file, ok := m.file[moduleName(name)]
			if !ok {
				continue
			}
			there, err := k.tree.isFile(path.Join(m.dir, file))
			if err != nil {
				return err
			}
			lost[name] = lost[name] || !there
		}
		for _, name := range c.Modules {
			if lost[name] {
				k.lacks(KindModule, name, "kernel "+version)
				delete(lost, name)
			}
		}
	}
	return nil
}

var (
	_ fs.ReadLinkFS = (*archive)(nil)
	_ fs.ReadDirFS  = (*archive)(nil)
	_ fs.FileInfo   = (*node)(nil)
)
