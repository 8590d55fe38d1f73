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

// rootRecipe counts changes of how a disk with a verity root is made.
const rootRecipe = "1"

// skeleton are the empty directories of a root that is an image, and links its symbolic links (file-hierarchy(7)).
var (
	skeleton = []string{"dev", "etc", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var"}
	links    = map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
)

// rootDefinitions are the repart.d(5) files of the disk: a partition for the record, since no firmware knows of an ESP where a kernel is booted directly;
// the root with its hash tree.
func rootDefinitions() map[string]string {
	const verity = "VerityMatchKey=root\nVerityDataBlockSizeBytes=4096\nVerityHashBlockSizeBytes=4096\n"
	return map[string]string{
		"10-state.conf":       fmt.Sprintf("[Partition]\nType=%s\nLabel=state\nFormat=ext4\nSizeMinBytes=32M\nSizeMaxBytes=32M\n", disk.TypeState()),
		"20-root.conf":        "[Partition]\nType=root-x86-64\nLabel=root\nCopyBlocks=/mnt/root.erofs\nVerity=data\n" + verity,
		"30-root-verity.conf": "[Partition]\nType=root-x86-64-verity\nLabel=root-verity\nMinimize=best\nVerity=hash\n" + verity,
	}
}

// RootImage makes a disk whose root is an erofs under verity: the tree's /usr, thinned as for a guest, in a root without any file of its own. It holds no boot loader.
func (c Cache) RootImage(ctx context.Context, tree Tree) (Image, error) {
	witness, remove, err := ownedTemp("lab-witness-")
	if err != nil {
		return Image{}, err
	}
	defer remove()
	program := filepath.Join(witness, "witness")
	if err := GoBuild(ctx, c.Repository, "./tests/lab/witness", program); err != nil {
		return Image{}, err
	}
	digest, err := fileDigest(program)
	if err != nil {
		return Image{}, err
	}
	defs := rootDefinitions()
	recipe := slices.Concat([]string{rootRecipe, usrRecipe, imageSeed, tree.key, digest, witnessUnit, factoryTmpfiles(factory), presets, fmt.Sprint(DiskSize)}, thinned, factory, skeleton)
	for _, name := range sortedKeys(defs) {
		recipe = append(recipe, name, defs[name])
	}
	dir, err := c.entry(ctx, "root-image", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making the disk image with a verity root")
		work := filepath.Join(dir, "work")
		stage := filepath.Join(work, "stage")
		if err := os.MkdirAll(stage, 0o755); err != nil {
			return err
		}
		for _, name := range skeleton {
			if err := os.Mkdir(filepath.Join(stage, name), 0o755); err != nil {
				return err
			}
		}
		for name, target := range links {
			if err := os.Symlink(target, filepath.Join(stage, name)); err != nil {
				return err
			}
		}
		usr := filepath.Join(stage, "usr")
		if err := linkTree(filepath.Join(tree.Dir, "usr"), usr, thinned); err != nil {
			return err
		}
		if err := errors.Join(addFactory(tree.Dir, usr), addWitness(usr, program)); err != nil {
			return err
		}
		if _, err := tree.run(ctx, work, "mkfs.erofs", "--quiet", "-T"+epoch, "-U00000000-0000-4000-8000-000000000002", "/mnt/root.erofs", "/mnt/stage"); err != nil {
			return err
		}
		if err := os.RemoveAll(stage); err != nil {
			return err
		}
		return partition(ctx, tree, work, defs, dir)
	})
	if err != nil {
		return Image{}, err
	}
	return openImage(dir, "root-x86-64")
}
