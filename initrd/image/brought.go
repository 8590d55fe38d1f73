package image

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// copyThere is copy, for what the tree may not have.
func (m *matcher) copyThere(name string) error {
	ok, err := m.tree.isFile(name)
	if err != nil || !ok {
		return err
	}
	return m.copy(name)
}

func (m *matcher) library(name string) error {
	found, cached, err := m.linker.find(name, nil)
	if err != nil || found == "" {
		return err
	}
	if cached {
		// Only ld.so.cache leads to it, and that of the initrd does not know it.
		link := entry{mode: fs.ModeSymlink | 0o777, data: []byte("/" + found)}
		if err := m.bring(path.Join(m.linker.builtin[0], name), link); err != nil {
			return err
		}
	}
	return m.copy(found)
}

// copy brings a file, and all that it is linked with and the initrd has not.
func (m *matcher) copy(name string) error {
	needs, err := m.linker.closure(name)
	if err != nil {
		return err
	}
	if len(needs.lost) > 0 {
		return &TreeError{Tree: m.Tree, Missing: []Missing{{Kind: KindLibrary, Name: needs.lost[0].library, For: needs.lost[0].user}}}
	}
	for _, lib := range needs.found {
		if err := m.copyFile(lib, "/"+name); err != nil {
			return err
		}
	}
	return m.copyFile(name, "/"+name)
}

// copyFile brings one file and the links that lead to it. One that the initrd has must be the same.
func (m *matcher) copyFile(name, why string) error {
	if m.same[name] {
		return nil
	}
	there, err := m.base().isFile(name)
	if err != nil {
		return err
	}
	real, links, err := m.tree.resolve(name)
	if err != nil {
		return err
	}
	data, err := fs.ReadFile(m.tree.fs, real)
	if err != nil {
		return err
	}
	if there {
		has, err := m.base().read(name)
		if err != nil {
			return err
		}
		if !sameBuild(has, data) {
			return &MismatchError{Tree: m.Tree, Path: "/" + name, For: why}
		}
		m.same[name] = true
		return nil
	}
	for _, l := range links {
		at, err := m.place(l)
		if err != nil {
			return err
		}
		if _, ok := m.initrd.nodes[at]; ok {
			continue
		}
		target, err := m.tree.fs.ReadLink(l)
		if err != nil {
			return err
		}
		if err := m.bring(l, entry{mode: fs.ModeSymlink | 0o777, data: []byte(target)}); err != nil {
			return err
		}
	}
	m.same[name] = true
	if ok, err := m.base().isFile(real); err != nil || ok {
		return err
	}
	info, err := m.tree.fs.Lstat(real)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return m.bring(real, entry{mode: mode, data: data})
}

// sameBuild tells whether two files are one. What builds an initrd may strip a file, which leaves its build ID.
func sameBuild(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, y := buildID(a), buildID(b)
	return x != nil && bytes.Equal(x, y)
}

// buildID is the note NT_GNU_BUILD_ID of an ELF file, nil if it has none.
func buildID(data []byte) []byte {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	s := f.Section(".note.gnu.build-id")
	if s == nil || s.Size > 4096 {
		return nil
	}
	note, err := s.Data()
	if err != nil {
		return nil
	}
	return note
}

// unit brings a unit, its drop-ins, the links that pull it in, and its accounts. Its programs are found to be missing
// in the next round.
func (m *matcher) unit(name string) error {
	at := path.Join(unitDir, name)
	if ok, err := m.tree.isFile(at); err != nil || !ok {
		return err
	}
	if err := m.copy(at); err != nil {
		return err
	}
	dropIns, err := m.tree.list(at + ".d")
	if err != nil {
		return err
	}
	for _, d := range dropIns {
		if err := m.copyThere(path.Join(at+".d", d)); err != nil {
			return err
		}
	}
	dirs, err := m.tree.list(unitDir)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		link := path.Join(unitDir, dir, name)
		if ext := path.Ext(dir); ext != ".wants" && ext != ".requires" {
			continue
		}
		if ok, err := m.tree.isFile(link); err != nil {
			return err
		} else if ok {
			if err := m.pull(link, "../"+name); err != nil {
				return err
			}
		}
	}
	for _, l := range baseEnabled {
		if path.Base(l.Path) == name {
			if err := m.pull(path.Join(unitDir, l.Path), l.Target); err != nil {
				return err
			}
		}
	}
	text, err := m.tree.read(at)
	if err != nil {
		return err
	}
	return m.owners(text)
}

// pull makes a link in a .wants directory.
func (m *matcher) pull(link, target string) error {
	at, err := m.place(link)
	if err != nil {
		return err
	}
	if _, ok := m.initrd.nodes[at]; ok {
		return nil
	}
	return m.bring(link, entry{mode: fs.ModeSymlink | 0o777, data: []byte(target)})
}

// owners adds the users that a unit runs as to the initrd's accounts, with the numbers that they have in the tree.
func (m *matcher) owners(unit []byte) error {
	known, err := readAccounts(m.tree)
	if err != nil {
		return err
	}
	has := accounts{users: map[string]account{}, groups: map[string]account{}}
	if err := has.readEtc(m.base(), "etc/passwd", 7, has.users); err != nil {
		return err
	}
	if err := has.readEtc(m.base(), "etc/group", 4, has.groups); err != nil {
		return err
	}
	for _, match := range unitOwner().FindAllSubmatch(unit, -1) {
		if string(match[1]) != "User" {
			continue
		}
		u, ok := known.users[string(match[2])]
		if _, there := has.users[u.name]; !ok || there {
			continue
		}
		for _, other := range has.users {
			if other.id == u.id {
				return &PathError{Path: "/etc/passwd", Reason: fmt.Sprintf("%s has in the initrd the number %d, which is %s's in the tree", other.name, u.id, u.name)}
			}
		}
		line := fmt.Sprintf("%s:!*:%d:%d:%s:%s:/usr/sbin/nologin\n", u.name, u.id, u.gid, u.comment, cmp.Or(u.home, "/"))
		if err := m.addLine("etc/passwd", line); err != nil {
			return err
		}
		for _, g := range known.groups {
			if _, there := has.groups[g.name]; g.id == u.gid && !there {
				if err := m.addLine("etc/group", fmt.Sprintf("%s:!*:%d:\n", g.name, g.id)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (m *matcher) addLine(name, line string) error {
	data, err := m.base().read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return m.bring(name, entry{mode: 0o644, data: append(bytes.Clone(data), line...)})
}

// modules brings the modules that lack, for each kernel that the initrd has modules of, with a new index of all.
func (m *matcher) modules() error {
	dir, versions, err := kernelVersions(m.base())
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		_, version, err := chooseKernel(m.tree, m.Tree, m.Kernel)
		if err != nil {
			return err
		}
		dir, versions = "usr/lib/modules", []string{version}
	}
	for _, version := range versions {
		if err := m.modulesOf(path.Join(dir, version), version); err != nil {
			return err
		}
	}
	return nil
}

func (m *matcher) modulesOf(dir, version string) error {
	has := make(map[string]string) // module to its file below dir
	if ok, err := m.base().isFile(path.Join(dir, "modules.dep")); err != nil {
		return err
	} else if ok {
		there, err := readModules(m.base(), dir)
		if err != nil {
			return err
		}
		for name, file := range there.file {
			ok, err := m.base().isFile(path.Join(dir, file))
			if err != nil {
				return err
			}
			if ok {
				has[name] = file
			}
		}
	}
	at, known, err := kernelVersions(m.tree)
	if err != nil {
		return err
	}
	if !slices.Contains(known, version) {
		return &PathError{Path: path.Join(m.Tree, "usr/lib/modules"), Reason: fmt.Sprintf("no modules of the initrd's kernel %s, only of %s", version, strings.Join(known, ", "))}
	}
	from, err := readModules(m.tree, path.Join(at, version))
	if err != nil {
		return err
	}
	wanted, _, err := from.closure(m.Contents.Modules)
	if err != nil {
		return err
	}
	all := make([]string, 0, len(wanted)+len(has))
	for _, name := range from.order {
		if _, ok := has[name]; ok || slices.Contains(wanted, name) {
			all = append(all, name)
		}
	}
	for name, file := range has {
		if _, ok := from.file[name]; !ok {
			return &PathError{Path: "/" + path.Join(dir, file), Reason: "is not in " + m.Tree + ", and would be lost from the index"}
		}
	}
	for _, name := range wanted {
		if _, ok := has[name]; ok {
			continue
		}
		data, err := from.load(name)
		if err != nil {
			return err
		}
		if err := m.bring(path.Join(dir, plainName(from.file[name])), entry{mode: 0o644, data: data}); err != nil {
			return err
		}
	}
	files, err := from.index(all, func(name string) string {
		if file, ok := has[name]; ok {
			return file
		}
		return plainName(from.file[name])
	})
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := m.put(path.Join(dir, name), entry{mode: 0o644, data: data}); err != nil {
			return err
		}
	}
	return nil
}
