// Package vm_test boots the whole path in virtual machines: the real initrd, the
// real units, a TPM, switch-root, and what happens when something is wrong.
package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pilotlight/initrd"
	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// stage is made once, for all guests. TestMain fails where it cannot be made.
var stage *scene.Stage

func TestMain(m *testing.M) {
	os.Exit(func() int {
		ctx := context.Background()
		elevated, code, err := lab.Elevate(ctx)
		if elevated {
			return code
		}
		if err == nil {
			err = prepare(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "tests/vm:", err)
			return 1
		}
		return m.Run()
	}())
}

func prepare(ctx context.Context) error {
	log := lab.NewLog(os.Stdout)
	if err := lab.Prepare(ctx, log); err != nil {
		return err
	}
	cache, err := lab.OpenCache(log)
	if err != nil {
		return err
	}
	stage, err = scene.Build(ctx, cache, "trixie", filepath.Join(cache.Repository, ".cache", "vm"))
	return err
}

// guest gives a new machine.
func guest(t *testing.T) lab.Guest {
	t.Helper()
	g := stage.Guest(strings.ToLower(t.Name()))
	if err := os.RemoveAll(g.Dir); err != nil {
		t.Fatal(err)
	}
	return g
}

// boot boots and shows now and then that it goes on.
func boot(t *testing.T, g lab.Guest, b lab.Boot, what string) lab.Outcome {
	t.Helper()
	if b.Deadline == 0 {
		b.Deadline = 8 * time.Minute
	}
	fmt.Printf("guest %s: %s\n", filepath.Base(g.Dir), what)
	out, err := g.Boot(t.Context(), b)
	if err != nil {
		t.Fatalf("%s: %v\nconsole: %s\n%s", what, err, out.ConsoleFile, tail(out))
	}
	fmt.Printf("guest %s: %s: %s after %.0f s\n", filepath.Base(g.Dir), what, out.End, out.Elapsed.Seconds())
	return out
}

// tail is the end of a console, for a test that failed.
func tail(out lab.Outcome) string {
	var b strings.Builder
	for _, l := range out.Console[max(0, len(out.Console)-40):] {
		fmt.Fprintf(&b, "%7.1f %s\n", l.At.Seconds(), l.Text)
	}
	return b.String()
}

// up holds a guest that came up against what was wanted, and gives its facts and report.
func up(t *testing.T, out lab.Outcome, want lab.Expected, kind string) (lab.Facts, initrd.Report) {
	t.Helper()
	facts, err := out.Facts()
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(out))
	}
	var report initrd.Report
	if err := json.Unmarshal(facts.Report, &report); err != nil {
		t.Fatalf("report: %v", err)
	}
	checks := lab.Compare(facts, want)
	checks.Add("report", report.State, "complete")
	checks.Add("kind of boot", report.Boot, kind)
	for _, c := range checks.Wrong() {
		t.Error(c)
	}
	if leaks := strings.Count(string(facts.Report), scene.Secret); leaks > 0 {
		t.Errorf("a secret is %d times in the report", leaks)
	}
	for _, l := range out.Console {
		if strings.Contains(l.Text, scene.Secret) {
			t.Errorf("a secret is on the console: %q", l.Text)
		}
	}
	for _, e := range facts.Journal {
		if strings.Contains(e.Message, scene.Secret) {
			t.Errorf("a secret is in the journal: %q", e.Message)
		}
	}
	return facts, report
}

// failure finds the three lines on a console.
func failure(t *testing.T, out lab.Outcome) []string {
	t.Helper()
	prefix := regexp.MustCompile(`^.*pilotlight\[[0-9]+\]: `)
	var lines []string
	for _, l := range out.Console {
		text := prefix.ReplaceAllString(l.Text, "")
		switch {
		case strings.HasPrefix(text, "pilotlight: FAILED") && len(lines) == 0,
			strings.HasPrefix(text, "pilotlight:   ") && len(lines) > 0 && len(lines) < 3:
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("nothing on the console says what failed\n%s", tail(out))
	}
	return lines
}

func serve(t *testing.T, c scene.Config) *scene.Server {
	t.Helper()
	v, err := stage.Serve(t.Context(), strings.ToLower(t.Name()), c, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func predict(t *testing.T, v *scene.Server) scene.Prediction {
	t.Helper()
	p, _, err := stage.Predict(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// changes lists the steps of a report that changed something.
func changes(r initrd.Report) []string {
	var list []string
	for _, s := range r.Stages {
		for _, step := range s.Steps {
			if step.Changed {
				list = append(list, s.Name+": "+step.Deed)
			}
		}
	}
	return list
}

// TestPathAndSecondBoot is the path on a fair day, and then the same machine once
// more: nothing is fetched, no network comes up, the kept copy is measured to the
// same PCR, and nothing on the disk changes. Then its record becomes unreadable.
func TestPathAndSecondBoot(t *testing.T) {
	t.Parallel()
	v := serve(t, stage.UserConfig())
	want := stage.Expected(predict(t, v))
	g := guest(t)
	out := boot(t, g, lab.Boot{Network: true, Credentials: v.Credentials("pilotlight.onfailure", "poweroff")}, "first boot")
	first, report := up(t, out, want, "first")
	asked := len(v.Requests("/ignition"))
	if asked != 2 { // ours for the prediction, and the guest's
		t.Errorf("%d requests for the config\n%s", asked, v.Log())
	}
	if id := first.MachineID; len(id) != 32 {
		t.Errorf("machine id %q", id)
	}

	want.MachineID, want.NoNetwork = first.MachineID, true
	out = boot(t, g, lab.Boot{Network: true, Credentials: v.Credentials("pilotlight.onfailure", "poweroff")}, "second boot")
	second, again := up(t, out, want, "later")
	if n := len(v.Requests("/ignition")); n != asked {
		t.Errorf("the second boot asked for the config\n%s", v.Log())
	}
	if again.Provision != report.Provision || again.Config != report.Config {
		t.Errorf("another provision or config: %s %s", again.Provision, again.Config)
	}
	for _, c := range changes(again) {
		// What is not on a disk is done at each boot.
		if !regexp.MustCompile(`^(fetch: measure |verity: open |luks: unlock |root: mount |etc: hand over credential )`).MatchString(c) {
			t.Errorf("the second boot changed something: %s", c)
		}
	}
	for _, f := range second.Etc {
		if was, ok := first.EtcFile(f.Path); ok && was.SHA256 != f.SHA256 {
			t.Errorf("%s changed", f.Path)
		}
	}

	// A record that cannot be read stops the boot before anything is lost.
	fat, data := esp(t, g)
	if bytes.Contains(data, []byte(scene.Secret)) {
		t.Error("a secret lies on the ESP as it is")
	}
	good, err := fat.Read(t.Context(), "pilotlight/record.json")
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		t.Helper()
		name := filepath.Join(t.TempDir(), "record.json")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fat.Write(t.Context(), "pilotlight/record.json", name); err != nil {
			t.Fatal(err)
		}
	}
	put(good[:len(good)/2])
	out = boot(t, g, lab.Boot{Network: true, Credentials: v.Credentials("pilotlight.onfailure", "poweroff")}, "record unreadable")
	lines := failure(t, out)
	if !strings.Contains(lines[0], "fetch: record on ESP /dev/vda1: ") || !strings.Contains(lines[len(lines)-1], "nothing was changed") {
		t.Errorf("%q", lines)
	}
	if _, ok := out.Seen(regexp.MustCompile(`pilotlight: (repart|etc|root): `)); ok || len(out.Witness) > 0 {
		t.Errorf("the boot went on\n%s", tail(out))
	}
	if n := len(v.Requests("/ignition")); n != asked {
		t.Errorf("a config was asked for\n%s", v.Log())
	}

	put(good)
	b := lab.Boot{Network: true, Credentials: v.Credentials("pilotlight.onfailure", "poweroff"), Until: handedOver}
	unchanged(t, boot(t, g, b, "record restored"))
}

// esp gives the ESP of a guest's disk, to be looked at and changed between two boots, and its bytes.
func esp(t *testing.T, g lab.Guest) (lab.FAT, []byte) {
	t.Helper()
	disk, err := g.Raw(t.Context(), scene.Serial)
	if err != nil {
		t.Fatal(err)
	}
	part, err := stage.Image.Partition("esp")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, part.Size)
	if _, err := f.ReadAt(data, part.Offset); err != nil {
		t.Fatal(err)
	}
	return lab.FAT{File: disk, Offset: part.Offset}, data
}

// withCredential puts a credential on the ESP of a guest that has not booted yet: the boot loader's
// stub hands it to the initrd, and measures it into the PCR that configs go into.
func withCredential(t *testing.T, g lab.Guest) {
	t.Helper()
	if err := g.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	fat, _ := esp(t, g)
	name := filepath.Join(t.TempDir(), "extra.cred")
	if err := os.WriteFile(name, []byte("c29tZWJvZHkncw=="), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/loader", "/loader/credentials"} {
		if err := fat.MakeFolder(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := fat.Write(t.Context(), "/loader/credentials/extra.cred", name); err != nil {
		t.Fatal(err)
	}
}

// TestWithoutTPM is a machine without a TPM and without any network: the config comes by fw_cfg. All
// credentials that its initrd is given come from the ESP and are encrypted; those of the config
// reach the host all the same. The second boot has its config from the kept copy.
func TestWithoutTPM(t *testing.T) {
	t.Parallel()
	c := stage.UserConfig()
	c.Define("60-var.conf", "[Partition]\nType=var\nLabel=var\nFormat=ext4\nMountPoint=/var\nSizeMinBytes=256M\nSizeMaxBytes=256M\n")
	g := guest(t)
	g.TPM = false
	withCredential(t, g)
	want := stage.Expected(scene.Prediction{})
	want.PCR12 = nil
	delete(want.EtcDigests, "/etc/demo/child") // there is nobody to have it from
	want.NoNetwork = true
	_, report := up(t, boot(t, g, local(t, c), "no TPM, no network"), want, "first")
	if report.Platform != "qemu" {
		t.Errorf("platform %s", report.Platform)
	}
	if _, data := esp(t, g); bytes.Contains(data, []byte(scene.Secret)) {
		t.Error("a secret lies on the ESP as it is")
	}

	unchanged(t, boot(t, g, lab.Boot{Until: handedOver}, "the kept copy without a TPM"))
}

// handedOver is the last of what a later boot has to do.
var handedOver = regexp.MustCompile(`pilotlight: etc: hand over credential demo.host`)

// unchanged holds that a later boot, as far as its console tells, changed nothing on a disk.
func unchanged(t *testing.T, out lab.Outcome) {
	t.Helper()
	if line, ok := out.Seen(regexp.MustCompile(`pilotlight: (repart|etc): (write|make|link|run|repartition)`)); ok {
		t.Errorf("a later boot changed something: %s", line.Text)
	}
}

// TestInterrupted is a first boot that does not come to its end: twice the plug is pulled, then the config
// names a /usr that no disk has. When all is right the machine goes on from where it was. What was
// measured before ours is a credential on the ESP.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	c := stage.UserConfig()
	verity := c.Section()["verity"].([]any)[0].(map[string]any)
	right := verity["rootHash"].(string)
	v := serve(t, c)
	g := guest(t)
	withCredential(t, g)
	credentials := v.Credentials("pilotlight.onfailure", "poweroff")
	provision := ""
	for _, cut := range []string{`pilotlight: repart: write the record: started`, `pilotlight: etc: run systemd-sysusers`} {
		boot(t, g, lab.Boot{Network: true, Credentials: credentials, Cut: regexp.MustCompile(cut)}, "the plug is pulled after "+strings.TrimPrefix(cut, "pilotlight: "))
		fat, _ := esp(t, g)
		data, err := fat.Read(t.Context(), "/pilotlight/record.json")
		if err != nil {
			t.Fatal(err)
		}
		var record initrd.Record
		if err := json.Unmarshal(data, &record); err != nil {
			t.Fatal(err)
		}
		if record.State != initrd.Started || provision != "" && record.Provision != provision {
			t.Errorf("record says %s, provision %s; it was %s", record.State, record.Provision, provision)
		}
		provision = record.Provision
	}

	verity["rootHash"] = right[1:] + right[:1]
	if err := v.Put(t.Context(), stage, c, false); err != nil {
		t.Fatal(err)
	}
	out := boot(t, g, lab.Boot{Network: true, Credentials: credentials}, "wrong root hash")
	lines := failure(t, out)
	if len(lines) != 3 || !strings.Contains(lines[0], "verity: ") || !strings.Contains(lines[0], "no disk has") ||
		!strings.Contains(lines[1], "$.pilotlight.verity.0") {
		t.Errorf("%q", lines)
	}
	if len(out.Witness) > 0 {
		t.Error("the guest came up with a /usr that it does not have")
	}

	verity["rootHash"] = right
	if err := v.Put(t.Context(), stage, c, false); err != nil {
		t.Fatal(err)
	}
	out = boot(t, g, lab.Boot{Network: true, Credentials: credentials}, "right root hash")
	want := stage.Expected(predict(t, v))
	want.PCR12 = nil // it did not start at zero
	facts, report := up(t, out, want, "interrupted")
	if report.Provision != provision {
		t.Errorf("provision %s, and it began as %s", report.Provision, provision)
	}
	log := filepath.Join(t.TempDir(), "firmware.log")
	if err := os.WriteFile(log, facts.FirmwareLog, 0o600); err != nil {
		t.Fatal(err)
	}
	p, _, err := stage.Predict(t.Context(), v, "--from", log)
	if err != nil {
		t.Fatal(err)
	}
	fresh := predict(t, v)
	if got, want := facts.PCR12["sha256"], p.Values["sha256"]; got != want || got == fresh.Values["sha256"] {
		t.Errorf("PCR 12 is %s, predicted %s, from zero %s", got, want, fresh.Values["sha256"])
	}
	if _, data := esp(t, g); bytes.Contains(data, []byte(scene.Secret)) {
		t.Error("a secret lies on the ESP as it is")
	}
}
