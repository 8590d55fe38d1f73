package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// foreignRecipe counts changes of how an initrd of another maker is made that its inputs do not show.
const foreignRecipe = "1"

// foreignPackages are the makers, and what a guest's initrd of theirs is made from, beside treePackages.
var foreignPackages = []string{"dracut", "dracut-network", "iproute2", "systemd-sysv", "zstd", "mkosi", "apt"}

// Foreign gives a tree like that of [Cache.Tree] in which other makers of an initrd are installed: dracut and mkosi. Its kernel is the suite's.
func (c Cache) Foreign(ctx context.Context, suite string) (Tree, error) {
	return c.tree(ctx, suite, "foreign-"+suite, slices.Concat(treePackages, suitePackages[suite], foreignPackages))
}

// dracutArguments leave out what no guest has: a database of hardware, tokens, other file systems. What is left is dracut's usual initrd for a machine
// that is not known.
var dracutArguments = []string{
	"--no-hostonly", "--no-hostonly-cmdline", "--no-early-microcode", "--force", "--add", "systemd-networkd",
	"--omit", "network-legacy hwdb pkcs11 btrfs virtfs virtiofs nvdimm resume overlay-root lunmask terminfo i18n kernel-modules-extra crypt-gpg crypt-loop",
}

// early puts a plain archive in front of dracut's, as dracut does itself where there is microcode for the processor.
const early = `mkdir -p /tmp/early/kernel/x86/microcode
cd /tmp/early
echo 1 >early_cpio
find . | sort | cpio --quiet -o -H newc --reproducible >/mnt/initrd.img
cat /mnt/main.img >>/mnt/initrd.img
rm /mnt/main.img`

// Dracut gives an initrd that dracut has made in a foreign tree, with systemd and networkd in it, packed with zstd behind an early archive.
func (c Cache) Dracut(ctx context.Context, tree Tree) (string, error) {
	release, err := tree.Release()
	if err != nil {
		return "", err
	}
	recipe := slices.Concat([]string{foreignRecipe, tree.key, early}, dracutArguments)
	dir, err := c.entry(ctx, "dracut", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making an initrd with dracut")
		if _, err := tree.run(ctx, dir, "dracut", slices.Concat(dracutArguments, []string{"--kver", release, "/mnt/main.img"})...); err != nil {
			return err
		}
		_, err := tree.run(ctx, dir, "sh", "-ec", early)
		return err
	})
	return filepath.Join(dir, "initrd.img"), err
}

// mkosiConf is an image of mkosi's own profile for an initrd, with those modules of the tree's kernel that the profile names, as mkosi-initrd(1) makes it. mkosi
// picks modules for the kernels that it finds where systemd's kernel-install(8) has them, and the profile takes the kernel out again.
const mkosiConf = `[Distribution]
Distribution=debian
Release=%[1]s

[Output]
Format=cpio
Output=initrd
CompressOutput=zstd
CompressLevel=3

[Include]
Include=mkosi-initrd

[Content]
ExtraTrees=
	/usr/lib/modules:/usr/lib/modules
	/boot/vmlinuz-%[2]s:/usr/lib/modules/%[2]s/vmlinuz
KernelModulesExclude=.*
`

// mkosiSources is what mkosi's apt installs from, instead of all that it would think of: sources.list(5).
const mkosiSources = "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"

// Mkosi gives an initrd that mkosi has made in a foreign tree, from packages of its suite, packed with zstd.
func (c Cache) Mkosi(ctx context.Context, tree Tree) (string, error) {
	release, err := tree.Release()
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "mkosi", []string{foreignRecipe, tree.key, mkosiConf, mkosiSources}, func(ctx context.Context, dir string) error {
		mirror, err := debianMirror("/etc/apt", "/etc/os-release")
		if err != nil {
			return err
		}
		c.Log.Printf("making an initrd with mkosi")
		work := filepath.Join(dir, "work")
		for name, text := range map[string]string{
			"mkosi.conf": fmt.Sprintf(mkosiConf, tree.Suite, release),
			"mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources": fmt.Sprintf(mkosiSources, mirror, tree.Suite),
			"mkosi.sandbox/etc/apt/apt.conf.d/90lean":            "Acquire::Languages \"none\";\n",
		} {
			name = filepath.Join(work, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
				return err
			}
		}
		if _, err := tree.run(ctx, work, "sh", "-c", "cd /mnt && exec mkosi --force build"); err != nil {
			return err
		}
		return errors.Join(os.Rename(filepath.Join(work, "initrd.cpio.zst"), filepath.Join(dir, "initrd.img")), os.RemoveAll(work))
	})
	return filepath.Join(dir, "initrd.img"), err
}
