package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pilotlight/config"
	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
	"pilotlight/initrd/tpm"
	"pilotlight/initrd/tpm/swtpm"
)

// failedMachine is a machine whose boots fail: its disk and its TPM stay, all else is new
// with each boot.
type failedMachine struct {
	t       *testing.T
	disks   disk.System
	tpm     string
	base    string // of base fragments
	knobs   config.Knobs
	counted bool
	refuse  error                 // what the kernel says to every reboot and power-off
	hold    bool                  // and then this boot is ended by somebody else
	freeze  func() *initrd.Frozen // what was frozen in this boot; nil is nothing
}

func newFailedMachine(t *testing.T) *failedMachine {
	t.Helper()
	return &failedMachine{
		t: t, tpm: filepath.Join(t.TempDir(), "no-tpm"), base: t.TempDir(),
		disks: disk.System{Sys: fstest.MapFS{"block": {Mode: fs.ModeDir | 0o755}}, Run: fstest.MapFS{}, Dev: t.TempDir(),
			Open: func(node string) (disk.ReaderAtCloser, error) { return os.Open(node) }},
	}
}

func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// withPlace gives the machine a state partition. It needs root, util-linux and e2fsprogs.
func (f *failedMachine) withPlace() (loop string) {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		f.t.Fatal(err)
	}
	tool(f.t, "label: gpt\nstart=2048, size=8192, type="+disk.TypeState().String()+"\n", "sfdisk", "--quiet", file)
	loop = tool(f.t, "", "losetup", "--find", "--show", "--offset", "1048576", "--sizelimit", "4194304", file)
	f.t.Cleanup(func() { tool(f.t, "", "losetup", "--detach", loop) })
	tool(f.t, "", "mkfs.ext4", "-q", "-O", "^has_journal", loop)
	sys := f.disks.Sys.(fstest.MapFS)
	sys["block/vdt"] = &fstest.MapFile{Data: []byte("../devices/vdt"), Mode: fs.ModeSymlink | 0o777}
	for name, value := range map[string]string{
		"dev": "254:0", "size": "16384", "ro": "0", "removable": "0", "hidden": "0", "serial": "s1",
		"queue/logical_block_size": "512", "uevent": "DEVNAME=vdt\nDEVTYPE=disk",
		"vdt1/partition": "1", "vdt1/start": "2048", "vdt1/size": "8192",
	} {
		sys["devices/vdt/"+name] = &fstest.MapFile{Data: []byte(value + "\n")}
	}
	for name, target := range map[string]string{"vdt": file, "vdt1": loop} {
		if err := os.Symlink(target, filepath.Join(f.disks.Dev, name)); err != nil {
			f.t.Fatal(err)
		}
	}
	return loop
}

// boot is one failed boot: how it ended, "shell", "reboot", "poweroff" or "held", and
// what the console showed.
func (f *failedMachine) boot() (end, console string) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	run := f.t.TempDir()
	m, err := initrd.NewMachine(run, &resource.Client{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer m.Close()
	bin := f.t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "udevadm"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	m.Disks, m.TPM, m.Wait, m.Programs = f.disks, f.tpm, 0, append([]string{bin}, m.Programs...)
	m.Log.Path = filepath.Join(run, "tpm2-measure.log")
	if f.freeze != nil {
		if err := m.Freeze(*f.freeze()); err != nil {
			f.t.Fatal(err)
		}
	}
	var out bytes.Buffer
	b := &boot{
		call: &call{ctx: ctx, show: show{out: &out, err: &out}}, knobs: f.knobs, machine: m,
		outward: newOutward(&initrd.Network{}, f.knobs, func(string) {}),
	}
	ended := make(chan string, 1)
	// As reboot(2) does, these return only if they are refused.
	power := func(name string) func() error {
		return func() error {
			if f.refuse != nil {
				if f.hold {
					time.AfterFunc(10*time.Millisecond, cancel)
				}
				return f.refuse
			}
			ended <- name
			runtime.Goexit()
			return nil
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := b.end(ending{func() (bool, error) { return f.counted, nil }, power("reboot"), power("poweroff"), time.Millisecond, f.base})
		switch {
		case err == nil:
			ended <- "shell"
		case errors.Is(err, context.Canceled):
			ended <- "held"
		default:
			ended <- err.Error()
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		f.t.Fatal("no end in a minute")
	}
	return <-ended, out.String()
}

// wantWord holds that the failure was measured into a PCR.
func (f *failedMachine) wantWord(pcr int, words ...string) {
	f.t.Helper()
	d, err := tpm.Open(f.t.Context(), f.tpm)
	if err != nil {
		f.t.Fatal(err)
	}
	defer d.Close()
	got, err := d.PCR(pcr)
	if err != nil {
		f.t.Fatal(err)
	}
	if want := tpm.Replay(nil, words)[tpm.SHA256]; !bytes.Equal(got[tpm.SHA256], want) {
		f.t.Errorf("PCR %d is %x, want %x", pcr, got[tpm.SHA256], want)
	}
}

// told is a config that this boot was told.
func toldConfig(text string) func() *initrd.Frozen {
	return func() *initrd.Frozen {
		return &initrd.Frozen{Boot: "first", Provision: "p", Documents: []initrd.Document{{Name: config.UserDocument, Bytes: []byte(text)}}}
	}
}

const rebooting = `{"ignition":{"version":"3.4.0"},"pilotlight":{"version":"1","policy":{"onFailure":"reboot"}}}`

func TestPoliciesAfterAFailure(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*failedMachine)
		end  string
		says string
	}{
		"nobody says":             {func(*failedMachine) {}, "shell", "the failure is measured"},
		"the boot loader counts":  {func(f *failedMachine) { f.counted = true }, "reboot", "reboot in 0 s"},
		"emergency though":        {func(f *failedMachine) { f.counted, f.knobs.OnFailure = true, config.OnFailureEmergency }, "shell", "the failure is measured"},
		"an argument says reboot": {func(f *failedMachine) { f.knobs.OnFailure = config.OnFailureReboot }, "reboot", "reboot in 0 s"},
		"poweroff":                {func(f *failedMachine) { f.knobs.OnFailure = config.OnFailurePoweroff }, "poweroff", "powering off"},
		"the config says":         {func(f *failedMachine) { f.freeze = toldConfig(rebooting) }, "reboot", "reboot in 0 s"},
		"an argument over the config": {func(f *failedMachine) {
			f.freeze, f.knobs.OnFailure = toldConfig(rebooting), config.OnFailurePoweroff
		}, "poweroff", "powering off"},
		"the image says": {func(f *failedMachine) { f.fragment(rebooting) }, "reboot", "reboot in 0 s"},
		"a frozen config that is damaged, and the image": {func(f *failedMachine) {
			f.fragment(`{"ignition":{"version":"3.4.0"},"pilotlight":{"version":"1","policy":{"onFailure":"poweroff"}}}`)
			f.freeze = toldConfig("{")
		}, "poweroff", "powering off"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFailedMachine(t)
			f.withPlace()
			f.tpm = swtpm.Start(t)
			c.set(f)
			end, console := f.boot()
			if end != c.end || !strings.Contains(console, c.says) || !strings.Contains(console, "pilotlight: FAILED: ") {
				t.Errorf("%s, want %s and %q:\n%s", end, c.end, c.says, console)
			}
			if end == "shell" {
				f.wantWord(12, tpm.FailedWord)
			} else {
				f.wantWord(12) // nobody gets at anything
			}
		})
	}
}

func (f *failedMachine) fragment(text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.base, "10.ign"), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// TestRebootsEnd after three failures in a row, on a machine that never had a record.
func TestRebootsEnd(t *testing.T) {
	f := newFailedMachine(t)
	f.withPlace()
	f.tpm = swtpm.Start(t)
	f.knobs.OnFailure = config.OnFailureReboot
	for i, want := range []string{"reboot", "reboot", "shell", "shell"} {
		end, console := f.boot()
		if end != want || (end == "shell") != strings.Contains(console, fmt.Sprintf("%d boots in a row failed: no further reboot", i+1)) {
			t.Errorf("failure %d: %s, want %s:\n%s", i+1, end, want, console)
		}
	}
	f.wantWord(12, tpm.FailedWord, tpm.FailedWord)
}

// TestNoRebootThatNothingCounts: without an end that is known, none is begun.
func TestNoRebootThatNothingCounts(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*failedMachine)
		says string
	}{
		"no disk": {func(*failedMachine) {}, "no place where failed boots can be counted"},
		"no file system": {func(f *failedMachine) {
			tool(f.t, "", "dd", "if=/dev/zero", "of="+f.withPlace(), "bs=1M", "count=1", "status=none", "conv=fsync")
		}, "no place where failed boots can be counted"},
		"read-only": {func(f *failedMachine) {
			loop := f.withPlace()
			tool(f.t, "", "blockdev", "--setro", loop)
			f.t.Cleanup(func() { tool(f.t, "", "blockdev", "--setrw", loop) })
		}, "failed boots cannot be counted (record on state partition"},
	} {
		for _, counted := range []bool{false, true} {
			f := newFailedMachine(t)
			f.knobs.OnFailure, f.counted = config.OnFailureReboot, counted
			c.set(f)
			for range 2 {
				if end, console := f.boot(); end != "shell" || !strings.Contains(console, c.says) {
					t.Errorf("%s: %s, want a shell and %q:\n%s", name, end, c.says, console)
				}
			}
		}
	}
}

// TestNoShellThatIsNotMeasured: the machine is switched off instead.
func TestNoShellThatIsNotMeasured(t *testing.T) {
	// TPM_RC_FAILURE, TPM 2.0 Library Part 2.
	failure := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01}
	required := `{"ignition":{"version":"3.4.0"},"pilotlight":{"version":"1","measure":{"required":true}}}`
	for name, c := range map[string]struct {
		set  func(*failedMachine)
		says string
	}{
		"a TPM in failure mode": {func(f *failedMachine) { f.tpm = swtpm.Wire(t, func([]byte) []byte { return failure }) }, "TPM_RC_FAILURE"},
		"and after reboots": {func(f *failedMachine) {
			f.tpm, f.knobs.OnFailure = swtpm.Wire(t, func([]byte) []byte { return failure }), config.OnFailureReboot // and nothing to count in
		}, "TPM_RC_FAILURE"},
		"one without a driver": {func(f *failedMachine) {
			f.disks.Sys.(fstest.MapFS)["firmware/acpi/tables/TPM2"] = &fstest.MapFile{}
		}, "is its driver in this initrd?"},
		"one that is required":         {func(f *failedMachine) { f.freeze = toldConfig(required) }, "measure.required asks for one"},
		"required by the image":        {func(f *failedMachine) { f.fragment(required) }, "measure.required asks for one"},
		"an image that does not parse": {func(f *failedMachine) { f.tpm = swtpm.Start(t); f.fragment(`{`) }, "the image's base fragments: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFailedMachine(t)
			c.set(f)
			end, console := f.boot()
			if end != "poweroff" || !strings.Contains(console, "could not be measured (") || !strings.Contains(console, c.says) || strings.Contains(console, "the failure is measured") {
				t.Errorf("%s, want a power-off and %q:\n%s", end, c.says, console)
			}
			f.refuse, f.hold = errors.New("the kernel says no"), true
			if end, console := f.boot(); end != "held" || !strings.Contains(console, "refused: the kernel says no") {
				t.Errorf("refused: %s, want no end:\n%s", end, console)
			}
		})
	}
}

// TestRefusedEndingLeadsToAMeasuredShell, never to one that is not.
func TestRefusedEndingLeadsToAMeasuredShell(t *testing.T) {
	for _, policy := range []config.OnFailure{config.OnFailureReboot, config.OnFailurePoweroff} {
		f := newFailedMachine(t)
		f.withPlace()
		f.tpm, f.refuse, f.knobs.OnFailure = swtpm.Start(t), errors.New("the kernel says no"), policy
		end, console := f.boot()
		if end != "shell" || !strings.Contains(console, "refused: the kernel says no") {
			t.Errorf("%s: %s:\n%s", policy, end, console)
		}
		f.wantWord(12, tpm.FailedWord)
	}
}

// TestFailureIsMeasuredWhereTheConfigIs, also when there is no config yet.
func TestFailureIsMeasuredWhereTheConfigIs(t *testing.T) {
	f := newFailedMachine(t)
	f.tpm = swtpm.Start(t)
	f.fragment(`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"http://192.0.2.1/"}]}},"pilotlight":{"version":"1","measure":{"pcr":14}}}`)
	if end, console := f.boot(); end != "shell" {
		t.Errorf("%s:\n%s", end, console)
	}
	f.wantWord(14, tpm.FailedWord)
	f.wantWord(12)
}
