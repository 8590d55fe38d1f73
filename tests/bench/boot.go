package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"pilotlight/tests/lab"
)

// meter is the unit that looks at the clock when the initrd has done its part, and ends the
// guest.
const meter = `[Unit]
DefaultDependencies=no
After=initrd.target
Before=initrd-cleanup.service
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart=/usr/bin/bench-guest /usr/bin/bench-empty
StandardOutput=file:/dev/ttyS1
StandardError=journal+console
`

// boot compares an initrd with the same initrd without anything of ours: the time from the
// start of systemd to initrd.target, where nobody has a config for the machine. An emulated
// processor is as much slower for one thing as for another, so the difference counts in
// starts of an empty program in the same guest.
func boot(ctx context.Context, w *workshop) ([]row, error) {
	w.log.Printf("boots")
	cache, err := lab.OpenCache(w.log)
	if err != nil {
		return nil, err
	}
	tree, err := cache.Tree(ctx, "trixie")
	if err != nil {
		return nil, err
	}
	accel, err := cache.Accel(ctx, tree)
	if err != nil {
		return nil, err
	}
	kernels, err := filepath.Glob(filepath.Join(tree.Dir, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return nil, errors.Join(fmt.Errorf("%d kernels in the tree", len(kernels)), err)
	}
	with, without, err := w.initrds(ctx, tree)
	if err != nil {
		return nil, err
	}
	// What a boot adds beyond the other is small beside how much boots differ.
	const rounds = 5
	var times [2]samples
	var starts samples
	for range rounds {
		for i, initrd := range []string{with, without} {
			guest := lab.Guest{Dir: filepath.Join(w.disk, "guest"), Accel: accel, MemoryMiB: 1024}
			out, err := guest.Boot(ctx, lab.Boot{
				Kernel: kernels[0], Initrd: initrd,
				Append: "console=ttyS0 quiet tsc=reliable no_timer_check random.trust_cpu=on root=tmpfs",
			})
			if err != nil {
				return nil, err
			}
			var t struct {
				Boot   float64
				Starts samples
			}
			if err := json.Unmarshal(out.Witness, &t); err != nil {
				return nil, fmt.Errorf("what the guest says: %w (the console is in %s)", err, out.ConsoleFile)
			}
			times[i] = append(times[i], t.Boot)
			starts = append(starts, t.Starts...)
		}
	}
	added := times[0].median() - times[1].median()
	return []row{
		timed("boot to initrd.target", "the same without us", times[0], times[1], 0),
		{
			What: "  what we add to it", Beside: "an empty static Go program, there", Unit: "ms",
			Ours: 1000 * added, Floor: 1000 * starts.median(), Ratio: added / starts.median(),
			Spread: max(times[0].spread()*times[0].median(), times[1].spread()*times[1].median()) / added, Runs: rounds,
		},
	}, nil
}

// initrds packs an initrd from a tree, and the same without what our addition consists of.
func (w *workshop) initrds(ctx context.Context, tree lab.Tree) (with, without string, err error) {
	whole, addition, guest := filepath.Join(w.disk, "whole.img"), filepath.Join(w.disk, "addition.cpio"), filepath.Join(w.disk, "bench-guest")
	for _, args := range [][]string{
		{"initrd", "build", "--quiet", "--level", "3", "--root", tree.Dir, "--output", whole},
		{"initrd", "addon", "--output", addition},
	} {
		if _, err := clock(exec.CommandContext(ctx, w.program, args...)); err != nil {
			return "", "", err
		}
	}
	if err := lab.GoBuild(ctx, w.repository, "./tests/bench/guest", guest); err != nil {
		return "", "", err
	}
	ours, err := readArchive(addition)
	if err != nil {
		return "", "", err
	}
	all, err := readArchive(whole)
	if err != nil {
		return "", "", err
	}
	our := map[string]bool{}
	for _, r := range ours {
		if r.Mode&cpio.S_IFMT != cpio.S_IFDIR {
			our[r.Name] = true
		}
	}
	var others []cpio.Record
	for _, r := range all {
		if !our[r.Name] {
			others = append(others, r)
		}
	}
	if len(all)-len(others) != len(our) {
		return "", "", fmt.Errorf("of %d files of the addition %d are in the initrd", len(our), len(all)-len(others))
	}
	var more []cpio.Record
	for name, from := range map[string]string{"usr/bin/bench-guest": guest, "usr/bin/bench-empty": w.empty} {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", "", err
		}
		more = append(more, cpio.StaticFile(name, string(data), 0o755))
	}
	const units = "usr/lib/systemd/system/"
	more = append(more, cpio.StaticFile(units+"bench.service", meter, 0o644),
		cpio.Directory(units+"initrd.target.wants", 0o755), cpio.Symlink(units+"initrd.target.wants/bench.service", "../bench.service"))
	with, without = filepath.Join(w.disk, "with.img"), filepath.Join(w.disk, "without.img")
	return with, without, errors.Join(writeArchive(with, append(all, more...)), writeArchive(without, append(others, more...)))
}

// readArchive reads a cpio archive, in zstd or plain.
func readArchive(name string) ([]cpio.Record, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte("0707")) {
		z, err := zstd.NewReader(bytes.NewReader(bytes.TrimRight(data, "\x00")))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		if data, err = io.ReadAll(z); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return records, nil
}

// writeArchive writes a cpio archive in zstd.
func writeArchive(name string, records []cpio.Record) error {
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	archive := cpio.Newc.Writer(z)
	for _, r := range records {
		if err := archive.WriteRecord(r); err != nil {
			return err
		}
	}
	if err := errors.Join(cpio.WriteTrailer(archive), z.Close()); err != nil {
		return err
	}
	return os.WriteFile(name, packed.Bytes(), fs.FileMode(0o600))
}
