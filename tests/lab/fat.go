package lab

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
)

// FAT is a FAT file system within a raw file, such as the ESP of a guest's disk between two boots. It works through mtools.
type FAT struct {
	File   string
	Offset int64 // bytes
}

func (f FAT) args(extra ...string) []string {
	return append([]string{"-i", f.File + "@@" + strconv.FormatInt(f.Offset, 10)}, extra...)
}

// Read gives a file's contents. The name has slashes and begins with one.
func (f FAT) Read(ctx context.Context, name string) ([]byte, error) {
	return output(exec.CommandContext(ctx, "mcopy", f.args("-n", "::"+name, "-")...), "mcopy")
}

// MakeFolder makes a folder within one that exists.
func (f FAT) MakeFolder(ctx context.Context, name string) error {
	return run(ctx, "mmd", f.args("::"+name)...)
}

// Write makes or replaces a file in a folder that exists.
func (f FAT) Write(ctx context.Context, name, from string) error {
	return run(ctx, "mcopy", f.args("-o", from, "::"+name)...)
}

// Remove deletes a file.
func (f FAT) Remove(ctx context.Context, name string) error {
	return run(ctx, "mdel", f.args("::"+name)...)
}

// List gives the names of all files and folders, folders with a slash at the end.
func (f FAT) List(ctx context.Context) ([]string, error) {
	out, err := output(exec.CommandContext(ctx, "mdir", f.args("-b", "-/", "::")...), "mdir")
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name := strings.TrimPrefix(strings.TrimSpace(line), "::"); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}
