package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pilotlight/tests/lab"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	odd := "a b\n'c'"
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "d"), 0o700),
		os.Chmod(filepath.Join(dir, "d"), 0o700|os.ModeSticky),
		os.WriteFile(filepath.Join(dir, "d", odd), []byte("abc"), 0o640),
		os.Symlink("d/nowhere", filepath.Join(dir, "l")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	files, err := list(dir, "/etc")
	if err != nil {
		t.Fatal(err)
	}
	byPath := map[string]lab.File{}
	for _, f := range files {
		f.UID, f.GID = "", ""
		if f.Type == "d" {
			f.Size = 0 // differs between file systems
		}
		byPath[f.Path] = f
	}
	want := []lab.File{
		{Path: "/etc/d", Type: "d", Mode: "1700"},
		{Path: "/etc/d/" + odd, Type: "f", Mode: "0640", Size: 3, SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{Path: "/etc/l", Type: "l", Mode: "0777", Size: 9, Link: "d/nowhere"},
	}
	for _, w := range want {
		if got := byPath[w.Path]; got != w {
			t.Errorf("got %+v, want %+v", got, w)
		}
	}
	if len(files) != len(want)+1 {
		t.Errorf("%d entries, want the folder itself and %d below", len(files), len(want))
	}
	if _, err := list(filepath.Join(dir, "absent"), "/"); err == nil || !strings.Contains(err.Error(), "find: ") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestMounts(t *testing.T) {
	var f lab.Facts
	if err := mounts(&f); err != nil {
		t.Fatal(err)
	}
	if m, ok := f.Mount("/proc"); !ok || m.Type != "proc" || !slices.Contains(strings.Split(m.Options, ","), "rw") {
		t.Errorf("/proc is %+v", m)
	}
}

// TestGatherTellsWhatIsMissing runs on a machine that is no guest: what cannot be had must be named, never invented.
func TestGatherTellsWhatIsMissing(t *testing.T) {
	if _, err := os.Stat("/run/pilotlight/report.json"); err == nil {
		t.Fatal("this machine was provisioned by what is under test")
	}
	f := gather(nil)
	if f.Report != nil || f.Problems["report"] == "" {
		t.Errorf("report %s, problem %q", f.Report, f.Problems["report"])
	}
	if f.Kernel == "" || f.CommandLine == "" || f.Problems["kernel"] != "" {
		t.Errorf("kernel %q: what can be had was lost", f.Kernel)
	}
	if !reflect.DeepEqual(f.Journal, []lab.Entry(nil)) || f.Problems["journal"] != "" {
		t.Errorf("nothing of the journal was asked for: %v, %q", f.Journal, f.Problems["journal"])
	}
}
