package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pilotlight/initrd"
	"pilotlight/stages"
)

func TestSurroundings(t *testing.T) {
	s := surroundings{"IGNITION_KARGS_CMD": "/opt/kargs", "IGNITION_SYSTEM_CONFIG_DIR": "/lib", "IGNITION_DISK_BY_LABEL_DIR": "/x", "IGNITION_NEW_CMD": "y", "IGNITION_ARGS": "", "PATH": "/first:relative:/usr/bin"}
	if got := s.without(); !slices.Equal(got, []string{"IGNITION_DISK_BY_LABEL_DIR", "IGNITION_NEW_CMD"}) {
		t.Errorf("without effect: %q", got)
	}
	var dirs []string
	for _, d := range s.dirs() {
		dirs = append(dirs, d.Path)
	}
	if !slices.Equal(dirs, []string{"/run/ignition", "/etc/ignition", "/lib"}) {
		t.Errorf("directories %q", dirs)
	}
	m := &initrd.Machine{Programs: []string{"/usr/bin", "/usr/lib/systemd"}}
	s.onto(m)
	if !slices.Equal(m.Programs, []string{"/first", "/usr/bin", "/usr/lib/systemd"}) || m.Instead[initrd.KernelArgumentsHelper] != "/opt/kargs" || m.Instead["mkfs.vfat"] != "mkfs.fat" || len(m.Instead) != 2 {
		t.Errorf("programs %q, instead %q", m.Programs, m.Instead)
	}
}

func TestWhoCallsDecides(t *testing.T) {
	for value, want := range map[string]string{"": "", "true": "fragment", "1": "fragment", "false": "file", "0": "file"} {
		i := ignition{root: "/target", around: surroundings{"IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT": value, "IGNITION_KERNEL_CMDLINE_PATH": "/c", "IGNITION_RESULT_FILE_PATH": "/r"}}
		f, err := i.facts(stages.Facts{Provision: "p"})
		if err != nil || f.AuthorizedKeys != want {
			t.Errorf("%q: %q %v", value, f.AuthorizedKeys, err)
		}
		if f.Boot != stages.First || !f.Placed || f.Root != "/target" || !f.SystemdRoot || f.Provision != "p" || !f.Result || f.ResultFile != "/r" || f.Cmdline != "/c" {
			t.Errorf("%+v", f)
		}
	}
	i := ignition{around: surroundings{"IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT": "perhaps"}}
	if _, err := i.facts(stages.Facts{}); err == nil || err.Error() != "the environment variable IGNITION_WRITE_AUTHORIZED_KEYS_FRAGMENT is neither true nor false" {
		t.Errorf("%v", err)
	}
}

func TestInContainer(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	if (surroundings{}).inContainer([]string{mark}) {
		t.Error("a machine is taken for a container")
	}
	if !(surroundings{"container": "oci"}).inContainer(nil) {
		t.Error("the variable container is not seen")
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !(surroundings{}).inContainer([]string{mark}) {
		t.Error("the file is not seen")
	}
}

// TestOnlyOurMountsAreTakenAway: what was mounted before the stage mount stays.
func TestOnlyOurMountsAreTakenAway(t *testing.T) {
	i := ignition{stage: "umount", state: filepath.Join(t.TempDir(), "state")}
	m, err := initrd.NewMachine(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	want := []initrd.Step{initrd.Mount{Where: "/proc"}, initrd.Mount{Where: "/absent/a"}, initrd.Directory{Path: "/absent/a/b"}, initrd.Mount{Where: "/absent/a/b"}}
	state := faceState{Version: 1}
	for range 2 { // the second time the run before was cut short
		if err := i.remember(m.Look(t.Context()), want, &state); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := readFaceState(i.state)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := i.want(told{}, kept)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(steps, []initrd.Step{initrd.Unmounted{Where: "/absent/a/b"}, initrd.Unmounted{Where: "/absent/a"}}) {
		t.Errorf("%v", steps)
	}
}
