package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// ignitionRecipe counts changes of how a guest with the distribution's Ignition is made that its inputs do not show.
const ignitionRecipe = "1"

// ignitionPackages are Debian's Ignition with the dracut that it is made for, what its module and its programs ask for, and what a root has that
// boots by itself, beside treePackages.
var ignitionPackages = []string{
	"ignition", "dracut", "dracut-network", "iproute2", "curl", "systemd-sysv", "zstd", "gdisk", "passwd", "login", "policycoreutils", "mdadm", "util-linux-extra",
}

// Ignition gives a tree like that of [Cache.Tree] in which the distribution's package ignition is installed, with dracut.
func (c Cache) Ignition(ctx context.Context, suite string) (Tree, error) {
	return c.tree(ctx, suite, "ignition-"+suite, slices.Concat(treePackages, suitePackages[suite], ignitionPackages))
}

// IgnitionProgram is where the package has the one file that another program can take the place of. Dracut packs it as /usr/bin/ignition.
const IgnitionProgram = "/usr/lib/dracut/modules.d/30ignition/ignition"

// replaced puts a program over the package's and makes the initrd. The first argument says whether there is one.
const replaced = `if [ "$1" = yes ]; then mount --bind /mnt/program "$2"; fi
shift 2
exec dracut "$@"`

// IgnitionInitrd gives an initrd that dracut has made with the distribution's module for Ignition, as it is but for one file: program, where it is not
// empty, stands in the place of the module's own.
func (c Cache) IgnitionInitrd(ctx context.Context, tree Tree, program string) (string, error) {
	release, err := tree.Release()
	if err != nil {
		return "", err
	}
	is, digest := "no", ""
	if program != "" {
		is = "yes"
		if digest, err = fileDigest(program); err != nil {
			return "", err
		}
	}
	recipe := slices.Concat([]string{ignitionRecipe, tree.key, replaced, digest}, dracutArguments)
	dir, err := c.entry(ctx, "ignition-initrd", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making an initrd with dracut's module for Ignition")
		copied := filepath.Join(dir, "program")
		if program != "" {
			if err := errors.Join(copyFile(program, copied), os.Chmod(copied, 0o755)); err != nil {
				return err
			}
		}
		args := slices.Concat([]string{"-ec", replaced, "sh", is, IgnitionProgram}, dracutArguments, []string{"--kver", release, "/mnt/initrd.img"})
		_, err := tree.run(ctx, dir, "sh", args...)
		return errors.Join(err, os.RemoveAll(copied))
	})
	return filepath.Join(dir, "initrd.img"), err
}

// RootLabel is the label of the file system of [Cache.PlainRoot].
const RootLabel = "root"

// listening makes the witness tell what Ignition's units have logged.
const (
	witnessListens = "usr/lib/systemd/system/" + witnessName + ".d/ignition.conf"
	listening      = "[Service]\nExecStart=\nExecStart=/usr/" + witnessPath + " ignition-* systemd-networkd.service\n"
)

// PlainRoot makes a disk that is an ext4 file system without partitions: the whole tree as it was installed, of a machine that has never booted, with
// the witness.
func (c Cache) PlainRoot(ctx context.Context, tree Tree) (string, error) {
	witness, remove, err := ownedTemp("lab-witness-")
	if err != nil {
		return "", err
	}
	defer remove()
	program := filepath.Join(witness, "witness")
	if err := GoBuild(ctx, c.Repository, "./tests/lab/witness", program); err != nil {
		return "", err
	}
	digest, err := fileDigest(program)
	if err != nil {
		return "", err
	}
	dir, err := c.entry(ctx, "plain-root", []string{ignitionRecipe, tree.key, digest, witnessUnit, listening, presets}, func(ctx context.Context, dir string) error {
		c.Log.Printf("making the disk image of a plain root")
		stage := filepath.Join(dir, "stage")
		// Hard links into the tree: what is changed is put in the place of the old file.
		if err := run(ctx, "cp", "--archive", "--link", tree.Dir, stage); err != nil {
			return err
		}
		id := filepath.Join(stage, "etc/machine-id")
		if err := os.Remove(id); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		err := errors.Join(
			os.WriteFile(id, []byte("uninitialized\n"), 0o444), // machine-id(5): a first boot, for PID 1 too
			os.WriteFile(filepath.Join(stage, "usr/lib/systemd/system-preset/10-lab.preset"), []byte(presets), 0o644),
			addWitness(filepath.Join(stage, "usr"), program),
			os.MkdirAll(filepath.Dir(filepath.Join(stage, witnessListens)), 0o755),
			os.WriteFile(filepath.Join(stage, witnessListens), []byte(listening), 0o644),
		)
		if err != nil {
			return err
		}
		_, err = tree.run(ctx, dir, "mkfs.ext4", "-q", "-L", RootLabel, "-d", "/mnt/stage", "/mnt/root.raw", "3G")
		return errors.Join(err, os.RemoveAll(stage))
	})
	return filepath.Join(dir, "root.raw"), err
}
