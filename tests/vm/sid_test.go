package vm_test

import (
	"path/filepath"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// TestSid is the path on a fair day with the systemd of Debian sid, in the initrd and in the host.
func TestSid(t *testing.T) {
	t.Parallel()
	s, err := scene.Build(t.Context(), stage.Cache, "sid", filepath.Join(stage.Cache.Repository, ".cache", "vm-sid"))
	if err != nil {
		t.Fatal(err)
	}
	// It is another systemd than that of the other guests.
	for tree, want := range map[lab.Tree]int{stage.Tree: 1, s.Tree: 0} {
		libs, err := filepath.Glob(filepath.Join(tree.Dir, "usr/lib/*/systemd/libsystemd-core-257.so"))
		if err != nil || len(libs) != want {
			t.Fatalf("%s: %v, %v", tree.Suite, libs, err)
		}
	}
	v, err := s.Serve(t.Context(), "sid", s.UserConfig(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	p, _, err := s.Predict(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	g := s.Guest("sid")
	afresh(t, g)
	out := boot(t, g, lab.Boot{Network: true, Credentials: v.Credentials("pilotlight.onfailure", "poweroff")}, "systemd of sid")
	up(t, out, s.Expected(p), "first")
}
