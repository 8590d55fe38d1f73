package vm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// direct boots the shared kernel and initrd past the firmware, with more arguments.
func direct(b lab.Boot, args ...string) lab.Boot {
	b.Kernel, b.Initrd = stage.Kernel, stage.Initrd
	b.Append = strings.Join(append([]string{scene.Cmdline}, args...), " ")
	return b
}

// local is a boot whose config comes by fw_cfg, from a file of the test's own.
func local(t *testing.T, c scene.Config, credentials ...string) lab.Boot {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.ign")
	if err := os.WriteFile(file, c.JSON(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := lab.Boot{FwCfg: map[string]string{"opt/org.pilotlight/config": file}, Credentials: map[string][]byte{}}
	for i := 0; i+1 < len(credentials); i += 2 {
		b.Credentials[credentials[i]] = []byte(credentials[i+1])
	}
	return b
}

// dropin is a file in a format of systemd's.
func dropin(name, text string) map[string]any {
	return map[string]any{"name": name, "contents": map[string]any{"inline": text}}
}

// TestRootInMemory is a machine without a TPM and without a place for a record, whose root is
// a tmpfs and whose /usr systemd opens, by a kernel argument. The config can only agree
// with that argument.
func TestRootInMemory(t *testing.T) {
	t.Parallel()
	c := stage.UserConfig()
	section := c.Section()
	delete(section, "repart")
	section["root"] = "tmpfs"
	verity := section["verity"].([]any)[0].(map[string]any)
	right := verity["rootHash"].(string)
	verity["rootHash"] = right[1:] + right[:1]
	g := guest(t)
	g.UEFI, g.TPM = false, false
	out := boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff"), "usrhash="+right), "usrhash= and the config disagree")
	lines := failure(t, out)
	if len(lines) != 3 || !strings.Contains(lines[0], "the kernel arguments open it with root hash "+right) || !strings.Contains(lines[1], "$.pilotlight.verity.0") {
		t.Errorf("%q", lines)
	}

	verity["rootHash"] = right
	out = boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff"), "usrhash="+right), "root in memory")
	facts, report := up(t, out, lab.Expected{
		State: "running", NoFailed: true, RootHash: right, Hostname: "relit", NoNetwork: true,
		Mounts:     map[string]string{"/": "tmpfs", "/usr": "erofs"},
		EtcDigests: map[string]string{"/etc/demo/secret": scene.Sum(scene.Secret + "\n")},
	}, "first")
	if report.Record != "nowhere" {
		t.Errorf("record on %s", report.Record)
	}
	if len(facts.PCR12) != 0 {
		t.Errorf("a TPM: %v", facts.PCR12)
	}
	for _, want := range []string{"measure: warning: this machine has no TPM", "report: warning: there is no ESP, XBOOTLDR or state partition for a record"} {
		if _, ok := out.Seen(regexp.MustCompile(regexp.QuoteMeta(want))); !ok {
			t.Errorf("nothing says %q", want)
		}
	}
}

// TestReadOnlyRoot is a machine of two disks: on one a verity root and a partition for the
// record, on the other a partition of somebody's. /var goes there, and what changes in
// /etc with it. Before all is right, three boots in a row fail in three ways.
func TestReadOnlyRoot(t *testing.T) {
	t.Parallel()
	image, err := stage.Cache.RootImage(t.Context(), stage.Tree)
	if err != nil {
		t.Fatal(err)
	}
	g := guest(t)
	g.UEFI = false
	g.Disks = []lab.Disk{{Serial: scene.Serial, Base: image.Path}, {Serial: "data", Base: occupied(t), Size: 2 << 30}}
	c := stage.UserConfig()
	section := c.Section()
	section["verity"] = []any{map[string]any{"name": "root", "rootHash": image.RootHash}}
	section["etc"].(map[string]any)["upper"] = "var"
	data := func(match map[string]any, size string) {
		section["repart"] = []any{map[string]any{"name": "data", "match": match, "definitions": []any{
			dropin("50-var.conf", "[Partition]\nType=var\nLabel=var\nFormat=ext4\nMountPoint=/var\nSizeMinBytes="+size+"\nSizeMaxBytes="+size+"\n"),
		}}}
	}
	ended := regexp.MustCompile(`pilotlight: (reboot in|the failure is measured|powering off)`)
	for i, f := range []struct {
		what  string
		match map[string]any
		size  string
		says  string
	}{
		{"no such disk", map[string]any{"serial": "nobody"}, "256M", "no disk"},
		{"two such disks", map[string]any{"sizeMin": "1G"}, "256M", "2 disks"},
		{"disk too small", map[string]any{"serial": "data"}, "64G", "free space"},
	} {
		data(f.match, f.size)
		b := direct(local(t, c, "pilotlight.onfailure", "reboot"))
		b.Until = ended
		out := boot(t, g, b, f.what)
		lines := failure(t, out)
		if len(lines) != 3 || !strings.Contains(lines[0], "repart: ") || !strings.Contains(lines[0], f.says) || !strings.Contains(lines[1], "$.pilotlight.repart.0") {
			t.Errorf("%s: %q", f.what, lines)
		}
		last, want := out.Console[len(out.Console)-1].Text, "reboot in 30 s"
		if i == 2 {
			want = "the failure is measured"
			if _, ok := out.Seen(regexp.MustCompile(`3 boots in a row failed: no further reboot`)); !ok {
				t.Errorf("nothing ends the reboots\n%s", tail(out))
			}
		}
		if !strings.Contains(last, want) {
			t.Errorf("%s: %q, want %q", f.what, last, want)
		}
	}

	data(map[string]any{"serial": "data"}, "256M")
	out := boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff")), "read-only root")
	p, err := stage.PredictBytes(t.Context(), c.JSON())
	if err != nil {
		t.Fatal(err)
	}
	facts, report := up(t, out, lab.Expected{
		State: "running", NoFailed: true, Hostname: "relit", NoNetwork: true, PCR12: map[string]string{"sha256": p.Values["sha256"]},
		Partitions: []string{"somebody", "var"}, Serial: "data",
		Mounts:     map[string]string{"/": "erofs", "/etc": "overlay", "/var": "ext4"},
		EtcDigests: map[string]string{"/etc/demo/secret": scene.Sum(scene.Secret + "\n"), "/etc/demo/from-credential": scene.Sum(scene.Secret)},
	}, "interrupted")
	if !strings.HasPrefix(report.Record, "state partition ") {
		t.Errorf("record on %s", report.Record)
	}
	if hash := strings.Fields(facts.Mapper["root"].Table); len(hash) < 12 || hash[11] != image.RootHash {
		t.Errorf("root: %v", facts.Mapper["root"])
	}

	// Once more, and now systemd opens the root. What was written to /etc is there still.
	out = boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff"), "roothash="+image.RootHash), "roothash= on the command line")
	facts, report = up(t, out, lab.Expected{
		State: "running", NoFailed: true, Hostname: "relit", MachineID: facts.MachineID,
		Mounts:     map[string]string{"/": "erofs", "/etc": "overlay", "/var": "ext4"},
		EtcDigests: map[string]string{"/etc/demo/from-credential": scene.Sum(scene.Secret)},
	}, "later")
	for _, c := range changes(report) {
		if !regexp.MustCompile(`^(fetch: measure |root: mount |etc: hand over credential )`).MatchString(c) {
			t.Errorf("the second boot changed something: %s", c)
		}
	}
}

// occupied is a disk with a partition of somebody's.
func occupied(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "data.raw")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "--quiet", file)
	cmd.Stdin = strings.NewReader("label: gpt\nsize=64MiB, name=somebody\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("sfdisk: %w: %s", err, out))
	}
	return file
}

// TestLockedOut is a verity root without a second disk. Its /var is encrypted by a key, and the next config has
// another key. Then there is no such partition: what is written to /etc and /var lies in memory.
func TestLockedOut(t *testing.T) {
	t.Parallel()
	image, err := stage.Cache.RootImage(t.Context(), stage.Tree)
	if err != nil {
		t.Fatal(err)
	}
	g := guest(t)
	g.UEFI = false
	g.Disks = []lab.Disk{{Serial: scene.Serial, Base: image.Path}}
	c := stage.UserConfig()
	section := c.Section()
	section["verity"] = []any{map[string]any{"name": "root", "rootHash": image.RootHash}}
	locked := func(key string) {
		section["repart"] = []any{map[string]any{
			"name": "data", "match": map[string]any{"serial": scene.Serial}, "keyFile": map[string]any{"inline": key}, "definitions": []any{
				dropin("50-var.conf", "[Partition]\nType=var\nLabel=var\nFormat=ext4\nMountPoint=/var\nEncrypt=key-file\nSizeMinBytes=256M\nSizeMaxBytes=256M\n"),
			},
		}}
	}
	locked(scene.Secret)
	b := direct(local(t, c, "pilotlight.onfailure", "poweroff"))
	b.Until = regexp.MustCompile(`pilotlight: root: mount /dev/mapper/var`)
	silent(t, boot(t, g, b, "encrypted by a key"))

	locked(scene.Secret + " of somebody else")
	out := boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff")), "another key")
	lines := failure(t, out)
	if len(lines) != 3 || !strings.Contains(lines[0], "luks: /dev/mapper/var unlocked") || !strings.Contains(lines[0], "systemd-cryptsetup: exit ") ||
		!strings.Contains(lines[1], "$.pilotlight.repart.0") || !strings.Contains(lines[2], "this key") {
		t.Errorf("%q", lines)
	}
	silent(t, out)

	delete(section, "repart")
	facts, _ := up(t, boot(t, g, direct(local(t, c, "pilotlight.onfailure", "poweroff")), "changes in memory"), lab.Expected{
		State: "running", NoFailed: true, Hostname: "relit", NoNetwork: true,
		Mounts:     map[string]string{"/": "erofs", "/etc": "overlay", "/var": "tmpfs"},
		EtcDigests: map[string]string{"/etc/demo/secret": scene.Sum(scene.Secret + "\n")},
	}, "interrupted")
	if etc, _ := facts.Mount("/etc"); !strings.Contains(etc.Options, "upperdir=/run/") {
		t.Errorf("/etc: %+v", etc)
	}
}
