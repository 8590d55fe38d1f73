package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// moduleDirs are where a tree has its modules, by kernel version.
var moduleDirs = []string{"usr/lib/modules", "lib/modules"}

// modules is what depmod(8) wrote of one kernel's modules. Names are with underscores.
type modules struct {
	tree    tree
	dir     string            // usr/lib/modules/VERSION
	order   []string          // names, as modules.dep has them
	file    map[string]string // name to path below dir
	depends map[string][]string
	builtin map[string]bool
}

// moduleName is the name of a module's file, or a name as somebody wrote it, in the form that the kernel shows.
func moduleName(file string) string {
	name := path.Base(file)
	for _, suffix := range []string{".xz", ".gz", ".zst"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}

// kernelVersions lists the kernels that the tree has modules of.
func kernelVersions(t tree) (dir string, versions []string, err error) {
	for _, dir := range moduleDirs {
		names, err := t.list(dir)
		if err != nil {
			return "", nil, err
		}
		versions = versions[:0]
		for _, name := range names {
			// A directory that a removed kernel left behind has no modules.dep.
			ok, err := t.isFile(path.Join(dir, name, "modules.dep"))
			if err != nil {
				return "", nil, err
			}
			if ok {
				versions = append(versions, name)
			}
		}
		if len(versions) > 0 {
			return dir, versions, nil
		}
	}
	return "", nil, nil
}

func readModules(t tree, dir string) (*modules, error) {
	m := &modules{tree: t, dir: dir, file: map[string]string{}, depends: map[string][]string{}, builtin: map[string]bool{}}
	dep, err := t.read(path.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(dep)) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || !fs.ValidPath(file) {
			return nil, &PathError{Path: "/" + path.Join(dir, "modules.dep"), Reason: fmt.Sprintf("not a line of depmod: %.80q", line)}
		}
		name := moduleName(file)
		m.order = append(m.order, name)
		m.file[name] = file
		for _, n := range strings.Fields(needs) {
			m.depends[name] = append(m.depends[name], moduleName(n))
		}
	}
	builtin, err := t.read(path.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		m.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return m, nil
}

// lines calls f with the fields of each line of one of depmod's text files. A file that is not there has none.
func (m *modules) lines(name string, f func(line string, fields []string)) error {
	data, err := m.tree.read(path.Join(m.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && !strings.HasPrefix(line, "#") {
			f(strings.TrimSuffix(line, "\n"), fields)
		}
	}
	return nil
}

// closure adds to names what they depend on, by modules.dep and by soft dependencies, and leaves out what is built
// in. The result is in the order of modules.dep. missing are the names that this kernel does not have at all.
func (m *modules) closure(names []string) (all, missing []string, err error) {
	// A soft dependency names a module or an alias ("sha256"), and many of them may carry the alias. It is a wish:
	// one that nobody carries is not missing.
	aliased := make(map[string][]string)
	err = m.lines("modules.alias", func(_ string, f []string) {
		if len(f) == 3 {
			alias := strings.ReplaceAll(f[1], "-", "_")
			aliased[alias] = append(aliased[alias], f[2])
		}
	})
	if err != nil {
		return nil, nil, err
	}
	soft := make(map[string][]string)
	err = m.lines("modules.softdep", func(_ string, f []string) {
		for _, n := range f[min(2, len(f)):] {
			if n == "pre:" || n == "post:" {
				continue
			}
			n = strings.ReplaceAll(n, "-", "_")
			of := moduleName(f[1])
			if _, ok := m.file[n]; ok {
				soft[of] = append(soft[of], n)
			} else if !m.builtin[n] {
				soft[of] = append(soft[of], aliased[n]...)
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}

	chosen := make(map[string]bool)
	var todo []string
	for _, name := range names {
		n := moduleName(name)
		if _, ok := m.file[n]; ok {
			todo = append(todo, n)
		} else if !m.builtin[n] {
			missing = append(missing, name)
		}
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if chosen[n] {
			continue
		}
		if _, ok := m.file[n]; !ok {
			return nil, nil, &PathError{Path: "/" + path.Join(m.dir, "modules.dep"), Reason: "names " + n + " as a dependency and has no line for it"}
		}
		chosen[n] = true
		todo = append(todo, m.depends[n]...)
		todo = append(todo, soft[n]...)
	}
	for _, n := range m.order {
		if chosen[n] {
			all = append(all, n)
		}
	}
	return all, missing, nil
}

// maxModule bounds what one compressed module may unpack to.
const maxModule = 256 << 20

// load reads a module, without its compression.
func (m *modules) load(name string) ([]byte, error) {
	file := path.Join(m.dir, m.file[name])
	data, err := m.tree.read(file)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch path.Ext(file) {
	case ".ko":
		return data, nil
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(data))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(data))
	case ".zst":
		var d *zstd.Decoder
		d, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
		if err == nil {
			defer d.Close()
			r = d
		}
	default:
		return nil, &PathError{Path: "/" + file, Reason: "compressed in a way that is not known"}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(plain) > maxModule {
		return nil, &PathError{Path: "/" + file, Reason: "unpacks to more than 256 MiB"}
	}
	return plain, nil
}

// plainName is a module's file name without the suffix of its compression.
func plainName(file string) string {
	return file[:strings.LastIndex(file, ".ko")+len(".ko")]
}

// index returns depmod's files for the modules named, in the order that closure gives, by file name: what modprobe(8),
// and udev through libkmod, read. stored is the path of a module's file in the initrd, below its directory.
func (m *modules) index(names []string, stored func(name string) string) (map[string][]byte, error) {
	// What comes first in modules.dep is loaded first where several modules match a device. depmod sorts that file by
	// the order of the kernel's Makefiles, and numbers the modules as they stand.
	chosen := make(map[string]bool, len(names))
	rank := make(map[string]int, len(names))
	for i, n := range names {
		chosen[n] = true
		rank[n] = i
	}

	files := make(map[string][]byte)
	var dep bytes.Buffer
	deps := newIndex()
	for _, n := range names {
		line := stored(n) + ":"
		for _, d := range m.depends[n] {
			line += " " + stored(d)
		}
		dep.WriteString(line + "\n")
		deps.insert(n, line, rank[n])
	}
	files["modules.dep"] = dep.Bytes()
	files["modules.dep.bin"] = deps.encode()

	for _, name := range []string{"modules.alias", "modules.symbols"} {
		var text bytes.Buffer
		idx := newIndex()
		err := m.lines(name, func(line string, f []string) {
			if len(f) == 3 && chosen[f[2]] {
				text.WriteString(line + "\n")
				if key, ok := normalAlias(f[1]); ok {
					idx.insert(key, f[2], rank[f[2]])
				}
			}
		})
		if err != nil {
			return nil, err
		}
		files[name] = text.Bytes()
		files[name+".bin"] = idx.encode()
	}
	for name, column := range map[string]int{"modules.softdep": 1, "modules.weakdep": 1, "modules.devname": 0} {
		var text bytes.Buffer
		err := m.lines(name, func(line string, f []string) {
			if len(f) > column && chosen[moduleName(f[column])] {
				text.WriteString(line + "\n")
			}
		})
		if err != nil {
			return nil, err
		}
		files[name] = text.Bytes()
	}
	// What is built in stays built in: these are the tree's own. libkmod refuses to work without the first two;
	// kernels before 5.7 have no aliases of built-in modules.
	for _, name := range []string{"modules.builtin", "modules.builtin.bin", "modules.builtin.alias.bin"} {
		data, err := m.tree.read(path.Join(m.dir, name))
		if errors.Is(err, fs.ErrNotExist) && name == "modules.builtin.alias.bin" {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	return files, nil
}

// addModules puts the modules named, all that they need, and their index. It returns what it put, and the names that
// the kernel has neither as a file nor built in.
func (p *payload) addModules(m *modules, version string, names []string) (all, missing []string, err error) {
	all, missing, err = m.closure(names)
	if err != nil || len(missing) > 0 {
		return nil, missing, err
	}
	dir := path.Join("usr/lib/modules", version)
	for _, n := range all {
		data, err := m.load(n)
		if err != nil {
			return nil, nil, err
		}
		if err := p.put(path.Join(dir, plainName(m.file[n])), entry{mode: 0o644, data: data}); err != nil {
			return nil, nil, err
		}
	}
	index, err := m.index(all, func(name string) string { return plainName(m.file[name]) })
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(index)) {
		if err := p.put(path.Join(dir, name), entry{mode: 0o644, data: index[name]}); err != nil {
			return nil, nil, err
		}
	}
	return all, nil, nil
}
