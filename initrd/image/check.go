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
// that those programs are linked with, and units of systemd that pilotlight's own are ordered by. An initrd may
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
	for _, step := range []func(Contents) error{k.units, k.programs, k.modules} {
		if err := step(c); err != nil {
			return nil, fmt.Errorf("initrd: %w", err)
		}
	}
	return k.missing, nil
}

type checker struct {
	tree    tree
	missing []Missing
}

func (k *checker) lacks(kind, name, why string) {
	m := Missing{kind, name, why}
	if !slices.Contains(k.missing, m) {
		k.missing = append(k.missing, m)
	}
}

func (k *checker) units(Contents) error {
	ok, err := k.tree.isFile("etc/initrd-release")
	if err != nil {
		return err
	}
	if !ok {
		k.lacks(KindFile, "/etc/initrd-release", "systemd knows an initrd by it")
	}
	for _, name := range relied {
		there := false
		for _, dir := range []string{unitDir, "lib/systemd/system", "etc/systemd/system"} {
			ok, err := k.tree.isFile(path.Join(dir, name))
			if err != nil {
				return err
			}
			there = there || ok
		}
		if !there {
			k.lacks(KindUnit, name, "")
		}
	}
	return nil
}

// programs looks for programs and for libraries.
func (k *checker) programs(c Contents) error {
	var linker *linker
	for _, name := range append([]string{"/usr/lib/systemd/systemd"}, c.Programs...) {
		found, err := k.tree.program(name)
		if err != nil {
			return err
		}
		if found == "" {
			k.lacks(KindProgram, name, "")
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
	for _, name := range c.Libraries {
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
