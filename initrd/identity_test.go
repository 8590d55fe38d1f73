package initrd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const machineID = "4f6a2c1d9e8b4a7f8c3d2e1f0a9b8c7d"

// memoryRoot is a target root that does not outlive a boot.
func memoryRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pilotlight-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// presets stands in for systemctl; what it was called with goes to the file that is
// given back, in the root: it can write nowhere else.
func presets(t *testing.T, m *Machine, root string) string {
	log := filepath.Join(root, "presets.log")
	program(t, m, "systemctl", fmt.Sprintf(`echo "$@" >> %s; for a in "$@"; do case $a in --root=*) test ! -s "${a#*=}/etc/machine-id" && echo before the id >> %[1]s;; esac; done; true`, log))
	return log
}

func TestMachineID(t *testing.T) {
	const other = "00112233445566778899aabbccddeeff"
	for name, c := range map[string]struct {
		persistent bool
		before     string // "-": no file
		after      string
		bad        bool
	}{
		"none, persistent":          {true, "-", machineID + "\n", false},
		"none, volatile":            {false, "-", machineID + "\n", false},
		"empty":                     {true, "", machineID + "\n", false},
		"only a line break":         {false, "\n", machineID + "\n", false},
		"an image asks, persistent": {true, "uninitialized\n", "uninitialized\n", false},
		"an image asks, volatile":   {false, "uninitialized\n", machineID + "\n", false},
		"one that is kept":          {true, other + "\n", other + "\n", false},
		"one without a line break":  {false, other, other, false},
		"garbage":                   {true, "not-an-id\n", "not-an-id\n", true},
		"too short":                 {false, other[:31] + "\n", other[:31] + "\n", true},
		"zero":                      {true, strings.Repeat("0", 32) + "\n", strings.Repeat("0", 32) + "\n", true},
		"a UUID with dashes":        {true, "00112233-4455-6677-8899-aabbccddeeff\n", "00112233-4455-6677-8899-aabbccddeeff\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			m, root := testMachine(t)
			if !c.persistent {
				root = memoryRoot(t)
			}
			file := filepath.Join(root, "etc/machine-id")
			write(t, filepath.Join(root, "etc/os-release"), "")
			if c.before != "-" {
				write(t, file, c.before)
			}
			log := presets(t, m, root)
			out, err := apply(t, m, Identity{Root: root, ID: machineID})
			if c.bad != (err != nil) {
				t.Fatalf("error %v", err)
			}
			if c.bad && !strings.Contains(err.Error(), "no machine id") {
				t.Errorf("error %v", err)
			}
			if got := contentOf(t, file); got != c.after {
				t.Errorf("%q, want %q", got, c.after)
			}
			_, err = os.Stat(log)
			if applied := err == nil; applied != out[0].Changed || applied != (c.after != c.before) {
				t.Errorf("presets applied: %v, changed: %v", applied, out[0].Changed)
			}
			if out[0].Changed {
				if info, err := os.Stat(file); err != nil || info.Mode() != 0o444 {
					t.Errorf("%v %v", info, err)
				}
				settle(t, m, Identity{Root: root, ID: machineID})
			}
		})
	}
}

func TestPresetsAreAppliedBeforeThereIsAnID(t *testing.T) {
	m, root := testMachine(t)
	log := presets(t, m, root)
	settle(t, m, Identity{Root: root, ID: machineID})
	if got, want := contentOf(t, log), "--root="+root+" preset-all --preset-mode=enable-only\nbefore the id\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNoIDWithoutPresets(t *testing.T) {
	m, root := testMachine(t)
	program(t, m, "systemctl", "echo no such preset >&2; exit 1")
	_, err := apply(t, m, Identity{Root: root, ID: machineID})
	var p *ProgramError
	if !errors.As(err, &p) || p.Name != "systemctl" || p.Stderr != "no such preset" {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(filepath.Join(root, "etc/machine-id")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an id is there, and PID 1 will apply no presets: %v", err)
	}
}

// TestMadeAnewOnlyWhereNothingLasts wraps a wish.
func TestMadeAnewOnlyWhereNothingLasts(t *testing.T) {
	m, root := testMachine(t)
	volatile := memoryRoot(t)
	for _, r := range []string{root, volatile} {
		write(t, filepath.Join(r, "etc/os-release"), "")
		step := MadeAnew{Root: r, Step: File{Root: r, Path: "/etc/f", Contents: inline("x"), Owner: me()}}
		settle(t, m, step)
		_, err := os.Stat(filepath.Join(r, "etc/f"))
		if made := err == nil; made != (r == volatile) {
			t.Errorf("%s: made: %v", r, made)
		}
	}
	// Whether /etc lasts must be known.
	state, act, err := MadeAnew{Root: t.TempDir(), Step: File{Path: "/etc/f"}}.Resolve(look{t.Context(), m})
	if state != unresolved || act != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v %v %v", state, act, err)
	}
	step := MadeAnew{Root: root, Step: Preset{Root: root, Units: []string{"a.service"}}}
	if step.String() != step.Step.String() || strings.Join(step.Touches(), " ") != strings.Join(step.Step.Touches(), " ") {
		t.Errorf("%q %q", step.String(), step.Touches())
	}
}
