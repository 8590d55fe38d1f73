package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"pilotlight/tests/lab"
)

// build makes the programs.
func (w *workshop) build(ctx context.Context) error {
	w.log.Printf("building")
	if err := lab.GoBuild(ctx, w.repository, "./cmd/pilotlight", w.program); err != nil {
		return err
	}
	for program, text := range map[string]string{w.empty: "package main\n\nfunc main() {}\n", w.launch: launcher, w.reader: reader} {
		source := program + ".go"
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			return err
		}
		if err := lab.GoBuild(ctx, w.repository, source, program); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Symlink(w.program, w.ignition), os.Mkdir(w.standIns, 0o755),
		os.WriteFile(filepath.Join(w.standIns, "setfiles"), []byte("#!/bin/sh\n"), 0o755)); err != nil {
		return err
	}
	return w.buildPackages(ctx)
}

// linked are the packages that were chosen, and what of each pilotlight lives on.
var linked = []struct{ path, name, use string }{
	{"github.com/coreos/ignition/v2/config/v3_5", "ignition", "ignition.ParseCompatibleVersion"},
	{"github.com/google/go-tpm/tpm2", "tpm", "tpm.PCRRead{}.Execute, tpm.PCRExtend{}.Execute, tpm.GetCapability{}.Execute"},
	{"github.com/klauspost/compress/zstd", "zstd", "zstd.NewReader, zstd.NewWriter"},
	{"github.com/ulikunitz/xz", "xz", "xz.NewReader"},
	{"github.com/u-root/u-root/pkg/cpio", "cpio", "cpio.Newc.Writer, cpio.WriteTrailer"},
	{"cloud.google.com/go/compute/metadata", "gce", "gce.NewClient(nil).GetWithContext"},
	{"github.com/aws/aws-sdk-go-v2/feature/ec2/imds", "imds", "imds.New(imds.Options{}).GetMetadata, imds.New(imds.Options{}).GetUserData"},
	// Of the standard library what the others do not bring along already.
	{"net/http", "http", "http.DefaultClient.Do, (*http.Server).Serve"},
	{"debug/elf", "elf", "elf.NewFile"},
	{"text/template/parse", "parse", "parse.Parse"},
}

// buildPackages makes a program that names the packages and does nothing with them, as a
// module of its own with the repository's dependencies.
func (w *workshop) buildPackages(ctx context.Context) error {
	dir := filepath.Join(w.disk, "module")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(w.repository, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(w.repository, "go.sum"))
	if err != nil {
		return err
	}
	var imports, uses strings.Builder
	for _, l := range linked {
		fmt.Fprintf(&imports, "\t%s %q\n", l.name, l.path)
		for use := range strings.SplitSeq(l.use, ", ") {
			fmt.Fprintf(&uses, "\tfmt.Fprintln(io.Discard, %s)\n", use)
		}
	}
	main := "package main\n\nimport (\n\t\"fmt\"\n\t\"io\"\n" + imports.String() + ")\n\nfunc main() {\n" + uses.String() + "}\n"
	for name, text := range map[string]string{
		"go.mod":  strings.Replace(string(mod), "module pilotlight\n", "module packages\n", 1),
		"go.sum":  string(sum),
		"main.go": main,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := lab.GoBuild(ctx, dir, ".", w.packages); err != nil {
		return fmt.Errorf("the chosen packages alone: %w", err)
	}
	// It may run: the calls are not made, the functions are only named.
	if err := exec.CommandContext(ctx, w.packages).Run(); err != nil {
		return errors.Join(errors.New("the chosen packages alone do not start"), err)
	}
	return nil
}
