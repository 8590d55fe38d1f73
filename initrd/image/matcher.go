package image

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// matcher fills a payload with what an initrd lacks. Whatever goes into the payload goes into initrd too, which is so
// always what the kernel will see.
type matcher struct {
	Addition
	initrd  *archive
	tree    tree
	linker  *linker // of the tree
	payload *payload
	brought []string
	same    map[string]bool // paths of libraries that were found to be the same in both
}

func (m *matcher) base() tree { return tree{fs: m.initrd} }

// own puts what is pilotlight's.
func (m *matcher) own() error {
	own := newPayload()
	if err := own.addContents(m.Contents); err != nil {
		return err
	}
	if err := own.addAuthorities(m.Tree, m.CA); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(own.entries)) {
		if err := m.put(name, own.entries[name]); err != nil {
			return err
		}
	}
	return nil
}

// addAuthorities puts authorities beside those that an initrd has.
func (p *payload) addAuthorities(tree string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	bundle, err := authorities(tree, names)
	if err != nil {
		return err
	}
	return p.put(addedPath, entry{mode: 0o644, data: bundle})
}

// place is where the kernel will put what has this name: the links on the way are the initrd's.
func (m *matcher) place(name string) (string, error) {
	name = strings.TrimPrefix(name, "/")
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		real, _, err := m.base().resolve(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != "." {
			continue
		}
		if err != nil {
			return "", err
		}
		return path.Join(real, strings.TrimPrefix(name, dir+"/")), nil
	}
}

func (m *matcher) put(name string, e entry) error {
	at, err := m.place(name)
	if err != nil {
		return err
	}
	var missing []string
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		node, ok := m.initrd.nodes[dir]
		if !ok {
			missing = append(missing, dir)
		} else if !node.mode.IsDir() {
			return &PathError{Path: "/" + at, Reason: "/" + dir + " is not a directory in the initrd"}
		}
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		m.initrd.put(dir, entry{mode: fs.ModeDir | 0o755})
	}
	if old, ok := m.initrd.nodes[at]; ok && old.mode.IsDir() {
		return &PathError{Path: "/" + at, Reason: "is a directory in the initrd"}
	}
	m.initrd.put(at, e)
	m.payload.entries[at] = e
	return nil
}

// bring is put for what is the tree's.
func (m *matcher) bring(name string, e entry) error {
	m.brought = append(m.brought, "/"+name)
	return m.put(name, e)
}

// keepModes gives the directories above what was put the modes that they have: the kernel sets the mode of a directory
// that is there already.
func (m *matcher) keepModes() error {
	if err := m.payload.withParents(); err != nil {
		return err
	}
	for name, e := range m.payload.entries {
		if node, ok := m.initrd.nodes[name]; ok && e.mode.IsDir() {
			m.payload.entries[name] = entry{mode: node.mode}
		}
	}
	return nil
}

// rounds bounds how often what was brought may lack something in its turn: a unit its program, that one its library.
const rounds = 8

// complete brings what lacks, until nothing does.
func (m *matcher) complete() (err error) {
	if m.tree, err = openTree(m.Tree); err != nil {
		return err
	}
	if m.linker, err = newLinker(m.tree, "usr/lib/systemd/systemd"); err != nil {
		return fmt.Errorf("%s: %w", m.Tree, err)
	}
	var missing []Missing
	for range rounds {
		k := checker{tree: m.base()}
		if err := k.all(m.Contents); err != nil {
			return err
		}
		if missing = k.missing; len(missing) == 0 {
			return nil
		}
		before := len(m.payload.entries)
		if err := m.supply(missing); err != nil {
			return err
		}
		if len(m.payload.entries) == before {
			break
		}
	}
	return &TreeError{Tree: m.Tree, Missing: missing}
}

// supply brings of what is missing all that the tree has.
func (m *matcher) supply(missing []Missing) error {
	modules := false
	for _, lack := range missing {
		var err error
		switch lack.Kind {
		case KindProgram:
			var found string
			if found, err = m.tree.program(lack.Name); err == nil && found != "" {
				err = m.copy(found)
			}
		case KindLibrary:
			err = m.library(lack.Name)
		case KindUnit:
			err = m.unit(lack.Name)
		case KindFile:
			// An initrd that is not systemd's does not become one by a file.
			if lack.Name != releaseFile {
				err = m.copyThere(strings.TrimPrefix(lack.Name, "/"))
			}
		case KindModule:
			modules = true
		}
		if err != nil {
			return err
		}
	}
	if modules {
		return m.modules()
	}
	return nil
}
