package initrd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestEffects: what a deed does to what has its name is told before it is done.
func TestEffects(t *testing.T) {
	m, root := testMachine(t)
	for name, text := range map[string]string{"etc/file": "old\n", "etc/dir/inner": "x\n"} {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lost := []string{"the directory /etc/dir with all that is in it"}
	for _, c := range []struct {
		step   Step
		effect Effect
		lost   []string
	}{
		{File{Root: root, Path: "/etc/new", Contents: inline("new\n")}, Makes, nil},
		{File{Root: root, Path: "/etc/file", Contents: inline("new\n"), Overwrite: true}, Changes, nil},
		{File{Root: root, Path: "/etc/file", Mode: modeOf(0o600)}, Changes, nil},
		{File{Root: root, Path: "/etc/dir", Contents: inline("new\n"), Overwrite: true}, Destroys, lost},
		{Link{Root: root, Path: "/etc/new", Target: "file"}, Makes, nil},
		{Link{Root: root, Path: "/etc/file", Target: "dir", Overwrite: true}, Changes, nil},
		{Link{Root: root, Path: "/etc/dir", Target: "file", Overwrite: true}, Destroys, lost},
		{Directory{Root: root, Path: "/etc/new"}, Makes, nil},
		{Directory{Root: root, Path: "/etc/file", Overwrite: true}, Changes, nil},
		{Directory{Root: root, Path: "/etc/dir", Mode: modeOf(0o700)}, Changes, nil},
		{Gone{Root: root, Path: "/etc/file"}, Changes, nil},
		{Gone{Root: root, Path: "/etc/dir"}, Destroys, lost},
	} {
		out, err := Run(t.Context(), m, []Step{c.step}, Plan, nil)
		if err != nil || out[0].State != NotSo || out[0].Effect != c.effect || !slices.Equal(out[0].Lost, c.lost) {
			t.Errorf("%s: %v %v %q %v, want %v %q", c.step, out[0].State, out[0].Effect, out[0].Lost, err, c.effect, c.lost)
		}
	}
}
