package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Build is a whole initrd that is to be made from a distribution's tree.
type Build struct {
	// Tree is the root directory of an unpacked distribution with merged /usr and systemd 257 or newer. It is only
	// read. Links in it do not lead out of it.
	Tree string
	// Kernel is the version whose modules go in: a name below usr/lib/modules. "" takes the only one.
	Kernel string
	// CA are PEM files of certificate authorities on the building machine, or [SystemAuthorities] for those of the
	// tree: together they become /etc/ssl/certs/ca-certificates.crt. Without any, no https URL can be fetched unless
	// a config brings its authorities.
	CA []string
	// Contents is what pilotlight needs.
	Contents Contents
	// ExtraPaths are further files and links of the tree, by absolute path; programs bring their libraries.
	ExtraPaths []string
	// ExtraModules are further kernel modules. One that the kernel lacks is an error, as in Contents.
	ExtraModules []string
	// ExtraFiles and ExtraLinks are anything else.
	ExtraFiles []File
	ExtraLinks []Link
	// Level is zstd's, 1 to 22, of which the packer knows four: 1, 3, 7 and 11 stand for those around them.
	// 0 is the densest.
	Level int
	// Progress, if set, is told in a few words what is being done.
	Progress func(string)
}

// Summary tells what was packed.
type Summary struct {
	Kernel    string   // version
	Files     int      // all entries of the archive, directories and links too
	Unpacked  int64    // bytes of memory that the contents take, save rounding to pages
	Packed    int64    // bytes written
	Libraries []string // paths in the archive, loader included
	Modules   []string // names, as files
	Users     []string
	Without   []string // what the base would have taken and the tree does not have
}

// TreeError names everything that a tree lacks for an initrd, and what each is for.
type TreeError struct {
	Tree    string
	Missing []Missing
}

func (e *TreeError) Error() string {
	lines := make([]string, len(e.Missing))
	for i, m := range e.Missing {
		lines[i] = m.String()
	}
	return fmt.Sprintf("%s lacks %s", e.Tree, strings.Join(lines, ", "))
}

// Write packs the initrd as a newc cpio archive in zstd. It fails with a *[TreeError] that names everything that the
// tree should have and has not, and with a *[PathError] where two things want one path.
func (b Build) Write(w io.Writer) (Summary, error) {
	p := &packer{Build: b, payload: newPayload(), libraries: map[string]bool{}}
	if err := p.collect(); err != nil {
		return Summary{}, fmt.Errorf("initrd: %w", err)
	}
	p.progress("packing")
	level := zstd.SpeedBestCompression
	if b.Level > 0 {
		level = zstd.EncoderLevelFromZstd(b.Level)
	}
	packed := &padWriter{w: w}
	// One thread: the bytes then cannot depend on how many processors the machine has.
	z, err := zstd.NewWriter(packed, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Summary{}, fmt.Errorf("initrd: %w", err)
	}
	if err := p.payload.writeTo(z); err != nil {
		return Summary{}, fmt.Errorf("initrd: %w", err)
	}
	if err := z.Close(); err != nil {
		return Summary{}, fmt.Errorf("initrd: %w", err)
	}
	// So that an addition can simply be appended.
	if err := packed.pad(512); err != nil {
		return Summary{}, fmt.Errorf("initrd: %w", err)
	}
	s := p.summary
	s.Files, s.Unpacked, s.Packed = len(p.payload.entries), p.payload.size(), packed.n
	return s, nil
}

// packer fills a payload from a tree.
type packer struct {
	Build
	tree      tree
	payload   *payload
	linker    *linker
	libraries map[string]bool
	missing   []Missing
	summary   Summary
}

func (p *packer) progress(what string) {
	if p.Progress != nil {
		p.Progress(what)
	}
}

func (p *packer) collect() (err error) {
	if p.tree, err = openTree(p.Tree); err != nil {
		return err
	}
	p.progress("systemd and its units")
	if p.linker, err = newLinker(p.tree, "usr/lib/systemd/systemd"); err != nil {
		return fmt.Errorf("%s: %w", p.Tree, err)
	}
	for _, step := range []func() error{p.base, p.contents, p.kernel, p.identity} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(p.missing) > 0 {
		return &TreeError{Tree: p.Tree, Missing: p.missing}
	}
	for lib := range p.libraries {
		p.summary.Libraries = append(p.summary.Libraries, "/"+lib)
	}
	slices.Sort(p.summary.Libraries)
	return nil
}

// base puts what base.go lists.
func (p *packer) base() error {
	for _, i := range basePrograms {
		if err := p.program(i); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		kind, dir string
		items     []item
	}{
		{KindProgram, "usr/lib/systemd/system-generators", baseGenerators},
		{KindUnit, unitDir, baseUnits},
		{KindFile, "usr/lib/udev/rules.d", baseRules},
		{KindFile, "usr/lib/tmpfiles.d", baseTmpfiles},
		{KindFile, "", baseFiles},
	} {
		for _, i := range list.items {
			if err := p.copyItem(list.kind, path.Join(list.dir, i.name), i); err != nil {
				return err
			}
		}
	}
	for _, i := range baseLibraries {
		if err := p.library(i); err != nil {
			return err
		}
	}
	return p.unitLinks()
}

// contents puts what pilotlight needs, and what the caller adds.
func (p *packer) contents() error {
	p.progress("pilotlight")
	if err := p.payload.addContents(p.Contents); err != nil {
		return err
	}
	for _, name := range p.Contents.Programs {
		if err := p.program(item{name: name, why: "a kind of step"}); err != nil {
			return err
		}
	}
	for _, name := range p.Contents.Libraries {
		if err := p.library(item{name: name, why: "a kind of step"}); err != nil {
			return err
		}
	}
	for _, name := range p.ExtraPaths {
		if err := checkPath(name); err != nil {
			return err
		}
		if err := p.copyItem(KindFile, strings.TrimPrefix(name, "/"), item{name: name, why: "asked for"}); err != nil {
			return err
		}
	}
	return p.payload.addFiles(p.ExtraFiles, p.ExtraLinks)
}

// kernel puts the modules.
func (p *packer) kernel() error {
	dir, version, err := chooseKernel(p.tree, p.Tree, p.Kernel)
	if err != nil {
		return err
	}
	p.progress("modules of " + version)
	m, err := readModules(p.tree, path.Join(dir, version))
	if err != nil {
		return err
	}
	var names []string
	for _, n := range baseModules {
		if n := moduleName(n); m.file[n] != "" || m.builtin[n] {
			names = append(names, n)
		} else {
			p.summary.Without = append(p.summary.Without, Missing{Kind: KindModule, Name: n}.String())
		}
	}
	names = append(names, p.Contents.Modules...)
	names = append(names, p.ExtraModules...)
	all, missing, err := p.payload.addModules(m, version, names)
	if err != nil {
		return err
	}
	for _, n := range missing {
		p.missing = append(p.missing, Missing{Kind: KindModule, Name: n, For: "kernel " + version})
	}
	p.summary.Kernel, p.summary.Modules = version, all
	return nil
}

// chooseKernel gives the version that is asked for, or the only one, and the directory that it is in. name is the tree's.
func chooseKernel(t tree, name, asked string) (dir, version string, err error) {
	dir, versions, err := kernelVersions(t)
	switch {
	case err != nil:
		return "", "", err
	case len(versions) == 0:
		return "", "", &PathError{Path: path.Join(name, "usr/lib/modules"), Reason: "no kernel version with a modules.dep"}
	case asked == "" && len(versions) > 1:
		return "", "", &PathError{Path: path.Join(name, dir), Reason: "several kernels, name one: " + strings.Join(versions, ", ")}
	case asked == "":
		return dir, versions[0], nil
	case !slices.Contains(versions, asked):
		return "", "", &PathError{Path: path.Join(name, dir), Reason: fmt.Sprintf("no kernel %q, only %s", asked, strings.Join(versions, ", "))}
	}
	return dir, asked, nil
}

// identity puts what makes the archive a system: directories, links, the release file, accounts.
func (p *packer) identity() error {
	for _, dir := range baseDirs {
		e := entry{mode: fs.ModeDir | 0o755}
		switch dir {
		case "tmp", "var/tmp":
			e.mode = fs.ModeDir | fs.ModeSticky | 0o777
		case "root":
			e.mode = fs.ModeDir | 0o700
		}
		if err := p.payload.put(dir, e); err != nil {
			return err
		}
	}
	for _, l := range baseLinks {
		// The tree has these with other spellings ("/usr/bin"), which are as good.
		if p.payload.has(l.Path) {
			continue
		}
		if err := p.payload.put(l.Path, entry{mode: fs.ModeSymlink | 0o777, data: []byte(l.Target)}); err != nil {
			return err
		}
	}

	release, err := p.tree.read("usr/lib/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		release, err = p.tree.read("etc/os-release")
	}
	if err != nil {
		return fmt.Errorf("os-release: %w", err)
	}
	files := []File{
		{"/etc/initrd-release", 0o644, release}, // systemd knows by it that it is in an initrd
		{"/etc/machine-id", 0o444, nil},         // empty: the id of this boot is mounted over it
		{"/etc/nsswitch.conf", 0o644, []byte(nsswitch)},
	}
	if len(p.CA) > 0 {
		bundle, err := authorities(p.Tree, p.CA)
		if err != nil {
			return err
		}
		files = append(files, File{bundlePath, 0o644, bundle})
	}
	if err := p.payload.addFiles(files, nil); err != nil {
		return err
	}

	known, err := readAccounts(p.tree)
	if err != nil {
		return err
	}
	p.summary.Users, err = p.payload.addAccounts(known)
	return err
}

func (p *packer) lacks(kind string, i item) {
	m := Missing{Kind: kind, Name: i.name, For: i.why}
	if i.presence == must {
		p.missing = append(p.missing, m)
	} else {
		p.summary.Without = append(p.summary.Without, m.String())
	}
}

func (p *packer) program(i item) error {
	found, err := p.tree.program(i.name)
	if err != nil {
		return err
	}
	if found == "" {
		p.lacks(KindProgram, i)
		return nil
	}
	return p.copy(found)
}

func (p *packer) library(i item) error {
	found, cached, err := p.linker.find(i.name, nil)
	if err != nil {
		return err
	}
	if found == "" {
		p.lacks(KindLibrary, i)
		return nil
	}
	if cached {
		if err := p.uncache(i.name, found); err != nil {
			return err
		}
	}
	if i.name == codepage {
		if err := p.payload.put(path.Join(path.Dir(found), "gconv-modules"), entry{mode: 0o644, data: []byte(gconvModules)}); err != nil {
			return err
		}
	}
	p.libraries[found] = true
	return p.copy(found)
}

// uncache makes a library that only ld.so.cache leads to be found without one.
func (p *packer) uncache(library, at string) error {
	return p.payload.put(path.Join(p.linker.builtin[0], library), entry{mode: fs.ModeSymlink | 0o777, data: []byte("/" + at)})
}

func (p *packer) copyItem(kind, name string, i item) error {
	ok, err := p.tree.isFile(name)
	if err != nil {
		return err
	}
	if !ok {
		p.lacks(kind, i)
		return nil
	}
	return p.copy(name)
}

// copy puts a file of the tree, the links on the way to it, and the same of all that it is linked with.
func (p *packer) copy(name string) error {
	needs, err := p.linker.closure(name)
	if err != nil {
		return err
	}
	for _, l := range needs.lost {
		m := Missing{Kind: KindLibrary, Name: l.library, For: l.user}
		if !slices.Contains(p.missing, m) {
			p.missing = append(p.missing, m)
		}
	}
	for lib, at := range needs.cached {
		if err := p.uncache(lib, at); err != nil {
			return err
		}
	}
	for _, lib := range needs.found {
		p.libraries[lib] = true
		if err := p.copyFile(lib); err != nil {
			return err
		}
	}
	return p.copyFile(name)
}

func (p *packer) copyFile(name string) error {
	real, links, err := p.tree.resolve(name)
	if err != nil {
		return err
	}
	for _, l := range links {
		target, err := p.tree.fs.ReadLink(l)
		if err != nil {
			return err
		}
		if err := p.payload.put(l, entry{mode: fs.ModeSymlink | 0o777, data: []byte(target)}); err != nil {
			return err
		}
	}
	if p.payload.has(real) {
		return nil
	}
	info, err := p.tree.fs.Lstat(real)
	if err != nil {
		return err
	}
	data, err := fs.ReadFile(p.tree.fs, real)
	if err != nil {
		return err
	}
	// Only execution is kept of the mode: nobody but root is here who would need a set-user-ID program, and what may
	// not be read by all does not belong here.
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return p.payload.put(real, entry{mode: mode, data: data})
}

const unitDir = "usr/lib/systemd/system"

// unitLinks puts the drop-ins of the units that are there, and the links between them.
func (p *packer) unitLinks() error {
	names, err := p.tree.list(unitDir)
	if err != nil {
		return err
	}
	for _, dir := range names {
		ext := path.Ext(dir)
		if ext != ".d" && ext != ".wants" && ext != ".requires" || !p.payload.has(path.Join(unitDir, strings.TrimSuffix(dir, ext))) {
			continue
		}
		entries, err := p.tree.list(path.Join(unitDir, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if ext == ".d" || p.payload.has(path.Join(unitDir, e)) {
				if err := p.copy(path.Join(unitDir, dir, e)); err != nil {
					return err
				}
			}
		}
	}
	for _, l := range baseEnabled {
		name := path.Join(unitDir, l.Path)
		if p.payload.has(path.Join(unitDir, path.Base(l.Path))) && !p.payload.has(name) {
			if err := p.payload.put(name, entry{mode: fs.ModeSymlink | 0o777, data: []byte(l.Target)}); err != nil {
				return err
			}
		}
	}
	return nil
}
