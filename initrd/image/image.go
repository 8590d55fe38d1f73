// Package image packs the initrd: as an addition to one that exists, as a whole one from a distribution's tree, and
// with a kernel into a unified kernel image.
//
// # Addition
//
// [Addon] writes a small, uncompressed cpio archive with pilotlight, its units and its links. The kernel unpacks any
// number of archives one over the other, so a boot loader is given it beside the distribution's initrd, or it is
// appended to that file. The kernel finds the start of a further archive only on a 4 byte boundary: the addition is
// padded to 512 bytes at its own end, and what it is appended to must be padded by whoever appends.
//
// The distribution's initrd was not made for pilotlight. [Check] reads it and names what it lacks, and an [Addition]
// is made for it, with what it lacks from the tree that it was made from.
//
// # Whole initrd
//
// [Build] takes an unpacked distribution with systemd 257 or newer, copies what base.go lists and what pilotlight
// needs, and every library and module that those need in turn. It reads the tree and runs nothing of it: no root, no
// chroot, and a tree of another architecture is as good. The same tree gives the same bytes.
//
// Libraries are found as the tree's loader would find them (see libraries.go); u-root's ldd runs the building
// machine's loader and would answer for that machine. Modules are stored uncompressed, since the archive around them
// is compressed as a whole, and their indices are made for exactly those that are shipped. There is no ld.so.cache:
// every library lies, or is linked, where the loader looks without one.
//
// # Unified kernel image
//
// [UKI] joins kernel, initrd and command line with systemd's ukify, which also signs.
package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Contents is what pilotlight itself needs in an initrd, beyond a systemd base.
type Contents struct {
	// Binary is the path of the pilotlight executable on the building machine. It must be linked statically.
	Binary string
	// Files are units, drop-ins, networkd files and udev rules.
	Files []File
	// Links are symbolic links: those in .requires/ directories, the generator.
	Links []Link
	// Programs are absolute paths in the initrd, or names that are looked for in its /usr/bin, /usr/sbin and
	// /usr/lib/systemd.
	Programs []string
	// Libraries are those that programs open at run time and no ELF header names, by soname, or by a path below a
	// library directory: "libtss2-esys.so.0", "cryptsetup/libcryptsetup-token-systemd-tpm2.so".
	Libraries []string
	// Modules are names of kernel modules; dash and underscore are the same. One that is built into the kernel is
	// there. What a module depends on need not be named.
	Modules []string
}

// File is a regular file of the initrd.
type File struct {
	Path string // absolute and clean
	Mode fs.FileMode
	Data []byte
}

// Link is a symbolic link of the initrd.
type Link struct {
	Path   string // absolute and clean
	Target string
}

// binaryPath is where every unit of pilotlight expects it.
const binaryPath = "/usr/bin/pilotlight"

// mergedAway are the names that are links into /usr on a merged system. The kernel replaces a link by a directory of
// the same name that a later archive brings, so an addition that had them would take the base's programs away.
var mergedAway = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr/sbin", "/usr/lib64"}

// Addon is an addition for any initrd. It writes a newc cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel) with
// the binary at /usr/bin/pilotlight, the files and the links, padded with zeros to a multiple of 512 bytes. Programs,
// libraries and modules are not in it: they are the base's, and [Check] looks for them there. ca are PEM files of
// certificate authorities; those of a system cannot be asked for here.
//
// The same contents give the same bytes. It fails if a path lies below a name that is a link on a merged-/usr system
// (/bin, /lib, /usr/sbin and so on), if two things want one path, and if the binary is not a static executable.
func Addon(w io.Writer, c Contents, ca ...string) error {
	p := newPayload()
	if err := errors.Join(p.addContents(c), p.addAuthorities("", ca)); err != nil {
		return fmt.Errorf("initrd addon: %w", err)
	}
	for name := range p.entries {
		for _, merged := range mergedAway {
			if "/"+name == merged || strings.HasPrefix("/"+name, merged+"/") {
				return fmt.Errorf("initrd addon: %w", &PathError{Path: "/" + name, Reason: merged + " is a link where /usr is merged, and would be replaced"})
			}
		}
	}
	if err := p.writeAddon(w); err != nil {
		return fmt.Errorf("initrd addon: %w", err)
	}
	return nil
}

// writeAddon writes the archive, plain and padded.
func (p *payload) writeAddon(w io.Writer) error {
	padded := &padWriter{w: w}
	if err := p.writeTo(padded); err != nil {
		return err
	}
	return padded.pad(512)
}

// PathError is a path that cannot be in the archive as it was asked for.
type PathError struct {
	Path   string
	Reason string
}

func (e *PathError) Error() string { return e.Path + ": " + e.Reason }

// addContents puts the binary, files and links of c.
func (p *payload) addContents(c Contents) error {
	binary, err := os.ReadFile(c.Binary)
	if err != nil {
		return fmt.Errorf("pilotlight executable: %w", err)
	}
	needs, err := readELF(binary)
	switch {
	case errors.Is(err, errNotELF):
		return fmt.Errorf("pilotlight executable: %w", &PathError{Path: c.Binary, Reason: "not an ELF executable"})
	case err != nil:
		return fmt.Errorf("pilotlight executable: %s: %w", c.Binary, err)
	case needs.loader != "" || len(needs.libraries) > 0:
		return fmt.Errorf("pilotlight executable: %w", &PathError{Path: c.Binary, Reason: "linked dynamically; build it with CGO_ENABLED=0"})
	}
	if err := p.put(binaryPath, entry{mode: 0o755, data: binary}); err != nil {
		return err
	}
	return p.addFiles(c.Files, c.Links)
}

func (p *payload) addFiles(files []File, links []Link) error {
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return err
		}
		if f.Mode&^fs.ModePerm != 0 {
			return &PathError{Path: f.Path, Reason: fmt.Sprintf("mode %v is more than permissions", f.Mode)}
		}
		if err := p.put(f.Path, entry{mode: f.Mode, data: f.Data}); err != nil {
			return err
		}
	}
	for _, l := range links {
		if err := checkPath(l.Path); err != nil {
			return err
		}
		if l.Target == "" {
			return &PathError{Path: l.Path, Reason: "link without a target"}
		}
		if err := p.put(l.Path, entry{mode: fs.ModeSymlink | 0o777, data: []byte(l.Target)}); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		return &PathError{Path: p, Reason: "not an absolute, clean path"}
	}
	if strings.ContainsRune(p, 0) {
		return &PathError{Path: strings.ReplaceAll(p, "\x00", `\0`), Reason: "holds a NUL byte"}
	}
	return nil
}
