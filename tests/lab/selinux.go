package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"pilotlight/initrd/disk"
)

// selinuxRecipe counts changes of how a disk of a system with SELinux is made.
const selinuxRecipe = "1"

// selinuxPackages are Debian's SELinux, and what an installed system has that an image without one does not need.
var selinuxPackages = []string{"selinux-basics", "selinux-policy-default", "policycoreutils", "selinux-utils", "systemd-sysv", "login"}

// SELinux gives a tree like that of [Cache.Tree] which is an installed system with Debian's SELinux policy.
func (c Cache) SELinux(ctx context.Context, suite string) (Tree, error) {
	return c.tree(ctx, suite, "selinux-"+suite, slices.Concat(treePackages, suitePackages[suite], selinuxPackages))
}

// labelled makes a file system of the tree as it is in the folder root of the work folder, every file with the context that the tree's own policy
// gives. Nothing of it is mounted twice: a program that labels does not enter other mounts.
const labelled = `setfiles -F -r /mnt/root "/mnt/root/etc/selinux/default/contexts/files/file_contexts" /mnt/root
mkfs.ext4 -q -d /mnt/root -L root -U 00000000-0000-4000-8000-000000000003 -E hash_seed=00000000-0000-4000-8000-000000000004 /mnt/root.ext4 %dM`

// selinuxRootMiB is how large that file system is.
const selinuxRootMiB = 1500

// selinuxDefinitions are the repart.d(5) files of the disk: a partition for the record, and the root.
func selinuxDefinitions() map[string]string {
	return map[string]string{
		"10-state.conf": fmt.Sprintf("[Partition]\nType=%s\nLabel=state\nFormat=ext4\nSizeMinBytes=32M\nSizeMaxBytes=32M\n", disk.TypeState()),
		"20-root.conf":  "[Partition]\nType=root-x86-64\nLabel=root\nCopyBlocks=/mnt/root.ext4\n",
	}
}

// SELinuxImage makes a disk with an installed system whose SELinux is in that mode: "enforcing" or "permissive". It holds no boot loader.
func (c Cache) SELinuxImage(ctx context.Context, tree Tree, mode string) (Image, error) {
	defs := selinuxDefinitions()
	recipe := slices.Concat([]string{selinuxRecipe, imageSeed, tree.key, labelled, mode, fmt.Sprint(DiskSize, selinuxRootMiB)}, thinned)
	for _, name := range sortedKeys(defs) {
		recipe = append(recipe, name, defs[name])
	}
	dir, err := c.entry(ctx, "selinux-image", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making the disk image with SELinux")
		work := filepath.Join(dir, "work")
		root := filepath.Join(work, "root")
		if err := os.MkdirAll(work, 0o755); err != nil {
			return err
		}
		// A copy: labels belong to the file, and would be those of the tree's files too.
		if err := run(ctx, "cp", "--archive", tree.Dir, root); err != nil {
			return err
		}
		config := fmt.Sprintf("SELINUX=%s\nSELINUXTYPE=default\n", mode)
		if err := os.WriteFile(filepath.Join(root, "etc/selinux/config"), []byte(config), 0o644); err != nil {
			return err
		}
		for _, pattern := range thinned {
			if err := removeMatches(filepath.Join(root, "usr", pattern)); err != nil {
				return err
			}
		}
		if _, err := tree.run(ctx, work, "sh", "-ec", fmt.Sprintf(labelled, selinuxRootMiB)); err != nil {
			return err
		}
		return errors.Join(os.RemoveAll(root), partition(ctx, tree, work, defs, dir))
	})
	if err != nil {
		return Image{}, err
	}
	return Image{Path: filepath.Join(dir, "disk.raw")}, nil
}
