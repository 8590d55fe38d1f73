package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// usrRecipe counts changes of how a /usr is made that its inputs do not show.
const usrRecipe = "1"

// thinned are paths below /usr, as path.Match patterns, that a guest does not need: what only builds (python, perl, dpkg's helpers,
// the distribution's own initramfs tools) and what a first boot would spend its time on (the sources of udev's hardware database, python's binfmt,
// the kernel's own hypervisor, which udev loads wherever the processor has the feature).
var thinned = []string{
	"share/doc", "share/man", "share/info", "share/locale", "share/lintian", "share/bash-completion", "share/zsh",
	"share/perl5", "share/python3", "share/gcc", "share/initramfs-tools", "share/debconf", "share/mime",
	"lib/python3*", "bin/python3*", "bin/py3*", "bin/perl*", "lib/x86_64-linux-gnu/perl-base", "lib/valgrind",
	"bin/ukify", "lib/systemd/ukify", "lib/systemd/boot", "lib/klibc*", "lib/dracut", "lib/x86_64-linux-gnu/gconv",
	"lib/udev/hwdb.d", "lib/linux-image-*", "lib/binfmt.d", "lib/systemd/catalog",
	"lib/modules/*/kernel/arch/x86/kvm",
	"lib/systemd/system/ldconfig.service", "lib/systemd/system/sysinit.target.wants/ldconfig.service",
	"lib/systemd/system/systemd-journal-catalog-update.service", "lib/systemd/system/sysinit.target.wants/systemd-journal-catalog-update.service",
}

// presets is a systemd.preset(5) file: Debian's own policy is to enable everything, and what it enables talks to the TPM for half a
// minute when the processor is emulated. networkd is off so that a guest without a network has nothing to wait for.
const presets = "disable systemd-pcrlock-*\ndisable systemd-networkd*\ndisable systemd-network-generator.service\n"

// factory are what a stock /etc has and an empty one needs, below /etc: copied to /usr/share/factory/etc, and from there to
// /etc by the tmpfiles.d file. Nothing here is secret or belongs to one machine.
var factory = []string{"pam.d", "pam.conf", "security", "nsswitch.conf", "login.defs", "shells", "environment", "profile", "alternatives", "ld.so.conf", "ld.so.conf.d", "mke2fs.conf"}

//go:embed witness/lab-witness.service
var witnessUnit string

const (
	witnessPath = "lib/pilotlight-lab/witness"
	witnessName = "lab-witness.service"
)

// Usr is the /usr of a tree as an image file.
type Usr struct {
	Path string // erofs, 4096-byte blocks
	Tree Tree
	key  string
}

// Usr makes the /usr that guests boot: the tree's, thinned, with a factory /etc and the witness. The same tree and the same witness give the same bytes.
func (c Cache) Usr(ctx context.Context, tree Tree) (Usr, error) {
	witness, remove, err := ownedTemp("lab-witness-")
	if err != nil {
		return Usr{}, err
	}
	defer remove()
	program := filepath.Join(witness, "witness")
	if err := GoBuild(ctx, c.Repository, "./tests/lab/witness", program); err != nil {
		return Usr{}, err
	}
	digest, err := fileDigest(program)
	if err != nil {
		return Usr{}, err
	}
	recipe := slices.Concat([]string{usrRecipe, tree.key, digest, witnessUnit, factoryTmpfiles(factory), presets}, thinned, factory)
	dir, err := c.entry(ctx, "usr", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making the /usr image")
		// Hard links into the tree: the tree and the cache share a file system, and nothing changes a file in place.
		stage := filepath.Join(dir, "stage")
		if err := linkTree(filepath.Join(tree.Dir, "usr"), stage, thinned); err != nil {
			return err
		}
		if err := addFactory(tree.Dir, stage); err != nil {
			return err
		}
		if err := addWitness(stage, program); err != nil {
			return err
		}
		// -T sets every file's time, -U the volume's name: what remains is contents, owners and modes.
		_, err := tree.run(ctx, dir, "mkfs.erofs", "--quiet", "-T"+epoch, "-U00000000-0000-4000-8000-000000000001", "/mnt/usr.erofs", "/mnt/stage")
		return errors.Join(err, os.RemoveAll(stage))
	})
	if err != nil {
		return Usr{}, err
	}
	return Usr{Path: filepath.Join(dir, "usr.erofs"), Tree: tree, key: filepath.Base(dir)}, nil
}

// linkTree makes to a copy of from whose files are hard links, without the paths that match a pattern of without. Folders keep mode but are
// owned by root, as all of /usr is.
func linkTree(from, to string, without []string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		for _, pattern := range without {
			if ok, err := path.Match(pattern, rel); err != nil {
				return fmt.Errorf("pattern %q: %w", pattern, err)
			} else if ok && entry.IsDir() {
				return fs.SkipDir
			} else if ok {
				return nil
			}
		}
		target := filepath.Join(to, rel)
		if !entry.IsDir() {
			return os.Link(name, target)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		// Mkdir's mode is subject to the umask, and has no set-group-ID bit.
		return errors.Join(os.Mkdir(target, 0o755), os.Chmod(target, info.Mode()))
	})
}

// addFactory puts the tree's stock /etc files below stage (a /usr), and the tmpfiles.d lines that bring them into an empty /etc.
func addFactory(tree, stage string) error {
	etc := filepath.Join(stage, "share/factory/etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	var present []string
	for _, name := range factory {
		from := filepath.Join(tree, "etc", name)
		info, err := os.Lstat(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // a suite may lack a file; what is missing where it matters shows in the guest
		}
		if err != nil {
			return err
		}
		present = append(present, name)
		// A suite may bring a factory of its own; what the packages have configured in /etc is more than that.
		if err := os.RemoveAll(filepath.Join(etc, name)); err != nil {
			return err
		}
		if info.IsDir() {
			err = linkTree(from, filepath.Join(etc, name), nil)
		} else {
			err = os.Link(from, filepath.Join(etc, name))
		}
		if err != nil {
			return err
		}
	}
	lines := filepath.Join(stage, "lib/tmpfiles.d/lab-factory.conf")
	if err := os.WriteFile(lines, []byte(factoryTmpfiles(present)), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stage, "lib/systemd/system-preset/10-lab.preset"), []byte(presets), 0o644); err != nil {
		return err
	}
	// Debian's tpm-udev makes this user in its installation script; an empty /etc knows only sysusers.d.
	return os.WriteFile(filepath.Join(stage, "lib/sysusers.d/lab-tss.conf"), []byte("u tss - \"TPM software stack\"\n"), 0o644)
}

// factoryTmpfiles are the tmpfiles.d(5) lines for an empty /etc.
func factoryTmpfiles(names []string) string {
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "C /etc/%s - - - -\n", name)
	}
	text.WriteString("L /etc/os-release - - - - ../usr/lib/os-release\n")
	return text.String()
}

// addWitness puts the witness and its unit below stage (a /usr), started with multi-user.target.
func addWitness(stage, program string) error {
	target := filepath.Join(stage, witnessPath)
	wants := filepath.Join(stage, "lib/systemd/system/multi-user.target.wants")
	return errors.Join(
		os.MkdirAll(filepath.Dir(target), 0o755),
		os.MkdirAll(wants, 0o755),
		copyFile(program, target),
		os.Chmod(target, 0o755),
		os.WriteFile(filepath.Join(stage, "lib/systemd/system", witnessName), []byte(witnessUnit), 0o644),
		os.Symlink("../"+witnessName, filepath.Join(wants, witnessName)),
	)
}
