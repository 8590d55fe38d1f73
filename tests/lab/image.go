package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	imageRecipe = "1"
	// imageSeed gives the disk, its partitions and the verity salt their UUIDs; see systemd-repart(8), --seed=.
	imageSeed = "7c0f3b52-5d1e-4c0a-9b9e-3f6a1d2c4e58"
)

// DiskSize is how large a disk made by Cache.Image is, in bytes: the partitions need a few hundred MiB, the rest is for the guest's first boot.
// The file is sparse.
const DiskSize = 4 << 30

// Image is a bootable disk in a raw file. It is shared: a guest writes to an overlay.
type Image struct {
	Path       string
	RootHash   string // of usr, or of root in a RootImage; hex, as veritysetup takes it
	Partitions []Partition
}

// Partition is one partition of an image, as systemd-repart(8) --json= tells it.
type Partition struct {
	Type     string `json:"type"`   // a name of repart.d(5): "esp", "usr-x86-64"
	Label    string `json:"label"`  // the GPT partition name
	UUID     string `json:"uuid"`   // PARTUUID
	Offset   int64  `json:"offset"` // bytes from the start of the disk
	Size     int64  `json:"raw_size"`
	RootHash string `json:"roothash"` // of the verity set that it belongs to; empty if none
}

// Partition gives the partition of this type.
func (i Image) Partition(kind string) (Partition, error) {
	at := slices.IndexFunc(i.Partitions, func(p Partition) bool { return p.Type == kind })
	if at < 0 {
		return Partition{}, fmt.Errorf("image: no partition of type %s", kind)
	}
	return i.Partitions[at], nil
}

// definitions are the repart.d(5) files that a disk is made from, in the order of the partitions. espSize is in bytes.
//
// The block sizes of verity are written out because --sector-size=512 would otherwise make them 512 too: a hash tree eight times as large.
func definitions(espSize int64) map[string]string {
	const verity = "VerityMatchKey=usr\nVerityDataBlockSizeBytes=4096\nVerityHashBlockSizeBytes=4096\n"
	return map[string]string{
		"10-esp.conf": fmt.Sprintf("[Partition]\nType=esp\nLabel=esp\nFormat=vfat\nSizeMinBytes=%d\nSizeMaxBytes=%d\n"+
			"CopyFiles=/mnt/uki.efi:/EFI/BOOT/BOOTX64.EFI\n", espSize, espSize),
		"20-usr.conf":        "[Partition]\nType=usr-x86-64\nLabel=usr\nCopyBlocks=/mnt/usr.erofs\nVerity=data\n" + verity,
		"30-usr-verity.conf": "[Partition]\nType=usr-x86-64-verity\nLabel=usr-verity\nMinimize=best\nVerity=hash\n" + verity,
	}
}

// espSize leaves room beside a UKI of this size, in bytes and in MiB steps.
func espSize(uki int64) int64 {
	const mib = 1 << 20
	return max(64*mib, (uki/mib+33)*mib)
}

// Image makes a disk from a /usr and the UKI at path uki, with the systemd-repart of the tree. The same inputs give the same root hash.
func (c Cache) Image(ctx context.Context, usr Usr, uki string) (Image, error) {
	digest, err := fileDigest(uki)
	if err != nil {
		return Image{}, err
	}
	info, err := os.Stat(uki)
	if err != nil {
		return Image{}, err
	}
	defs := definitions(espSize(info.Size()))
	recipe := []string{imageRecipe, imageSeed, usr.key, digest, defs["10-esp.conf"], defs["20-usr.conf"], defs["30-usr-verity.conf"], fmt.Sprint(DiskSize)}
	dir, err := c.entry(ctx, "image", recipe, func(ctx context.Context, dir string) error {
		c.Log.Printf("making the disk image")
		return makeImage(ctx, usr, uki, defs, dir)
	})
	if err != nil {
		return Image{}, err
	}
	return openImage(dir, "usr-x86-64")
}

// openImage reads what partition has left in dir. The root hash is that of the partition of that type.
func openImage(dir, verified string) (Image, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "repart.json"))
	if err != nil {
		return Image{}, err
	}
	image := Image{Path: filepath.Join(dir, "disk.raw")}
	if err := json.Unmarshal(raw, &image.Partitions); err != nil {
		return Image{}, fmt.Errorf("systemd-repart's JSON: %w", err)
	}
	data, err := image.Partition(verified)
	if err != nil {
		return Image{}, err
	}
	if len(data.RootHash) != 64 {
		return Image{}, fmt.Errorf("systemd-repart gave no root hash: %q", data.RootHash)
	}
	image.RootHash = data.RootHash
	return image, nil
}

// makeImage writes disk.raw and repart.json into dir.
func makeImage(ctx context.Context, usr Usr, uki string, defs map[string]string, dir string) error {
	work := filepath.Join(dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	date := time.Unix(1000000000, 0)
	err := errors.Join(
		os.Link(usr.Path, filepath.Join(work, "usr.erofs")),
		copyFile(uki, filepath.Join(work, "uki.efi")),
		os.Chtimes(filepath.Join(work, "uki.efi"), date, date),
	)
	if err != nil {
		return err
	}
	return partition(ctx, usr.Tree, work, defs, dir)
}

// partition makes disk.raw and repart.json in dir by definitions whose files are in the folder work, which it removes.
func partition(ctx context.Context, tree Tree, work string, defs map[string]string, dir string) error {
	if err := os.MkdirAll(filepath.Join(work, "repart.d"), 0o755); err != nil {
		return err
	}
	for name, text := range defs {
		if err := os.WriteFile(filepath.Join(work, "repart.d", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// Firmware reads the ESP only if the sectors of its file system are the disk's: 512 bytes, where repart takes 4096 for a file.
	report, err := tree.run(ctx, work, "systemd-repart", "--dry-run=no", "--empty=create", "--size=auto", "--definitions=/mnt/repart.d",
		"--seed="+imageSeed, "--sector-size=512", "--offline=yes", "--json=short", "--no-pager", "/mnt/disk.raw")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "repart.json"), report, 0o644),
		os.Truncate(filepath.Join(work, "disk.raw"), DiskSize),
		os.Rename(filepath.Join(work, "disk.raw"), filepath.Join(dir, "disk.raw")),
		os.RemoveAll(work),
	)
}

// VerifyUsr reads the image's usr partition through its hash tree, with the tree's veritysetup: nil means that every block is what the root hash says.
// It needs no device mapper.
func (i Image) VerifyUsr(ctx context.Context, tree Tree, rootHash string) error {
	data, err := i.Partition("usr-x86-64")
	if err != nil {
		return err
	}
	hash, err := i.Partition("usr-x86-64-verity")
	if err != nil {
		return err
	}
	work, remove, err := ownedTemp("lab-verify-")
	if err != nil {
		return err
	}
	defer remove()
	err = errors.Join(
		copyRange(i.Path, data.Offset, data.Size, filepath.Join(work, "data")),
		copyRange(i.Path, hash.Offset, hash.Size, filepath.Join(work, "hash")),
	)
	if err != nil {
		return err
	}
	_, err = tree.run(ctx, work, "veritysetup", "verify", "/mnt/data", "/mnt/hash", rootHash)
	return err
}
