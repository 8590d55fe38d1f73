package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestResolveStaysInside(t *testing.T) {
	f := files{
		"usr/bin/real": "x",
		"bin":          "-> /usr/bin",
		"usr/up":       "-> ../../../../usr/bin/real",
		"chain":        "-> bin/link",
		"usr/bin/link": "-> ./real",
		"loop":         "-> loop",
		"out":          "-> /etc/hostname",
	}
	tr, err := openTree(f.write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	for name, links := range map[string][]string{
		"usr/bin/real":    nil,
		"bin/real":        {"bin"},
		"/usr/up":         {"usr/up"},
		"chain":           {"chain", "bin", "usr/bin/link"},
		"bin/../bin/real": {"bin"}, // .. after a link is the parent of where it led
	} {
		real, met, err := tr.resolve(name)
		if err != nil || real != "usr/bin/real" || !slices.Equal(met, links) {
			t.Errorf("%s: %s through %v, %v, want links %v", name, real, met, err, links)
		}
	}
	if _, _, err := tr.resolve("loop"); err == nil || !strings.Contains(err.Error(), "too many levels") {
		t.Errorf("loop: %v", err)
	}
	if _, _, err := tr.resolve("out"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link out of the tree: %v", err)
	}
}

func TestOpenTree(t *testing.T) {
	if _, err := openTree(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openTree(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
}
