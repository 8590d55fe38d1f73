package units

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unit is a unit file as far as a test must read it: values by section and key, those
// of a key that stands several times in their order (systemd.syntax(7)).
type unit map[string][]string

func parse(t *testing.T, name, text string) unit {
	t.Helper()
	u := unit{}
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok || section == "" || strings.TrimSpace(line) != line {
				t.Errorf("%s: %q is not understood", name, line)
			}
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

// words are all words of all lines of a key.
func (u unit) words(key string) []string { return strings.Fields(strings.Join(u[key], " ")) }

func services(t *testing.T) map[string]unit {
	t.Helper()
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]unit{}
	for _, f := range files {
		if name := path.Base(f.Path); path.Dir(f.Path) == systemDir && strings.HasSuffix(name, ".service") {
			list[name] = parse(t, name, string(f.Data))
		}
	}
	return list
}

// boot are the units of a boot in their order.
var boot = []string{"fetch", "repart", "verity", "root", "etc", "report"}

// parts are what a unit does: that which it is named for, and for the root what comes
// right before it.
func parts(unit string) string {
	switch unit {
	case "root":
		return "luks root"
	case "repart":
		return "kargs repart disks"
	}
	return unit
}

func TestEachUnitHasTheCommonLines(t *testing.T) {
	list := services(t)
	delete(list, "pilotlight-network.service") // it is systemd's own program that runs there
	if len(list) != len(boot)+1 {
		t.Errorf("%d services, want those of the boot and one for its failure", len(list))
	}
	for name, u := range list {
		part := strings.TrimSuffix(strings.TrimPrefix(name, "pilotlight-"), ".service")
		for key, want := range map[string]string{
			"Unit.DefaultDependencies":        "no",
			"Unit.ConditionKernelCommandLine": "!pilotlight=no",
			"Unit.AssertPathExists":           "/etc/initrd-release",
			"Service.Type":                    "oneshot",
			"Service.ExecStart":               Binary + " boot " + parts(part),
			"Service.TimeoutStartSec":         "infinity",
			"Service.StandardOutput":          "journal+console",
			"Service.StandardError":           "journal+console",
		} {
			if got := u[key]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s=%q, want %q", name, key, got, want)
			}
		}
		if d := u["Unit.Description"]; len(d) != 1 || d[0] == "" {
			t.Errorf("%s: Description=%q", name, d)
		}
		for key := range u {
			if strings.HasPrefix(key, "Install.") {
				t.Errorf("%s: %s: nothing enables what links pull in", name, key)
			}
			if key == "Unit.WantedBy" || key == "Unit.RequiredBy" {
				t.Errorf("%s: %s", name, key)
			}
		}
		for _, target := range []string{"initrd-switch-root.target", "shutdown.target"} {
			// The unit for a failure runs while emergency.target does.
			if part == "onfailure" && target != "shutdown.target" {
				continue
			}
			if !slices.Contains(u.words("Unit.Conflicts"), target) || !slices.Contains(u.words("Unit.Before"), target) {
				t.Errorf("%s is not stopped before %s", name, target)
			}
		}
		if part == "onfailure" {
			if u["Unit.OnFailure"] != nil || u["Service.RemainAfterExit"] != nil || slices.Contains(u.words("Unit.Conflicts"), "emergency.target") {
				t.Errorf("%s: %v", name, u)
			}
			continue
		}
		for key, want := range map[string]string{
			"Unit.OnFailure": "emergency.target", "Unit.OnFailureJobMode": "replace-irreversibly", "Service.RemainAfterExit": "yes",
		} {
			if got := u[key]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %s=%q, want %q", name, key, got, want)
			}
		}
		if !slices.Contains(u.words("Unit.Conflicts"), "emergency.target") {
			t.Errorf("%s goes on beside the emergency shell", name)
		}
	}
}

// TestNetworkIsPulledInByNobody, is gone with the initrd, and can be started again after it has failed.
func TestNetworkIsPulledInByNobody(t *testing.T) {
	const name = "pilotlight-network.service"
	u, ok := services(t)[name]
	if !ok {
		t.Fatal("there is none")
	}
	for key, want := range map[string][]string{
		"Unit.DefaultDependencies": {"no"}, "Unit.AssertPathExists": {"/etc/initrd-release"},
		"Service.Type": {"oneshot"}, "Service.RemainAfterExit": nil, "Unit.Requires": {"systemd-networkd.service"},
	} {
		if got := u[key]; !slices.Equal(got, want) {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
	for _, target := range []string{"initrd-switch-root.target", "shutdown.target"} {
		if !slices.Contains(u.words("Unit.Conflicts"), target) || !slices.Contains(u.words("Unit.Before"), target) {
			t.Errorf("it is not stopped before %s", target)
		}
	}
	for _, l := range Links() {
		if path.Base(l.Target) == name {
			t.Errorf("%s pulls it in", l.Path)
		}
	}
	for other, u := range services(t) {
		for _, key := range []string{"Unit.Wants", "Unit.Requires", "Unit.After"} {
			if slices.Contains(u.words(key), name) {
				t.Errorf("%s: %s: a unit that starts it would wait for itself, or for the network", other, key)
			}
		}
	}
}

// TestEachUnitFollowsTheOneBefore: required, and waited for.
func TestEachUnitFollowsTheOneBefore(t *testing.T) {
	list := services(t)
	for i, part := range boot {
		u, ok := list["pilotlight-"+part+".service"]
		if !ok {
			t.Errorf("no unit for %s", part)
			continue
		}
		if i == 0 {
			if u["Unit.Requires"] != nil {
				t.Errorf("%s requires %q", part, u["Unit.Requires"])
			}
			continue
		}
		before := "pilotlight-" + boot[i-1] + ".service"
		if !slices.Equal(u["Unit.Requires"], []string{before}) || !slices.Contains(u.words("Unit.After"), before) {
			t.Errorf("%s: Requires=%q After=%q, want %s", part, u["Unit.Requires"], u.words("Unit.After"), before)
		}
	}
	for part, target := range map[string]string{
		"repart": "systemd-repart.service", "root": "initrd-root-fs.target", "etc": "initrd-parse-etc.service", "report": "initrd.target",
	} {
		if !slices.Contains(list["pilotlight-"+part+".service"].words("Unit.Before"), target) {
			t.Errorf("%s is not before %s", part, target)
		}
	}
	if !slices.Contains(list["pilotlight-fetch.service"].words("Unit.After"), "systemd-pcrphase-initrd.service") {
		t.Error("the config may be measured before systemd's own words")
	}
}

func TestFailureIsToldBeforeTheShell(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == systemDir+"/emergency.service.d/10-pilotlight.conf" })
	if i < 0 {
		t.Fatal("no drop-in for emergency.service")
	}
	u := parse(t, "drop-in", string(files[i].Data))
	for _, key := range []string{"Unit.Wants", "Unit.After"} {
		if !slices.Equal(u[key], []string{"pilotlight-onfailure.service"}) {
			t.Errorf("%s=%q", key, u[key])
		}
	}
}

func TestFilesAreEachInTheirPlace(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || seen[f.Path] || !strings.HasPrefix(f.Path, "/usr/lib/systemd/") {
			t.Errorf("%s", f.Path)
		}
		seen[f.Path] = true
		text := string(f.Data)
		if !strings.HasSuffix(text, "\n") || strings.Contains(text, "\r") || strings.Contains(text, "\t") || strings.Contains(text, " \n") {
			t.Errorf("%s: white space at the end of a line, tabs, or no last line break", f.Path)
		}
		parse(t, f.Path, text)
	}
	for name := range places {
		if !seen[places[name]] {
			t.Errorf("%s has a place and is not there", name)
		}
	}
}

// TestLinksLeadSomewhere: to a file of ours, to this program, or to a unit of systemd.
func TestLinksLeadSomewhere(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{Binary: true}
	for _, f := range files {
		there[f.Path] = true
	}
	pulled := map[string]bool{}
	for _, l := range Links() {
		target := l.Target
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(l.Path), target)
		}
		if !there[target] {
			t.Errorf("%s leads to %s, which is nowhere", l.Path, target)
		}
		if there[l.Path] {
			t.Errorf("%s is a file already", l.Path)
		}
		if dir := path.Base(path.Dir(l.Path)); strings.HasSuffix(dir, ".requires") {
			if path.Base(l.Path) != path.Base(l.Target) || dir != "initrd.target.requires" {
				t.Errorf("%s to %s", l.Path, l.Target)
			}
			pulled[path.Base(l.Path)] = true
		}
	}
	for _, part := range boot {
		if !pulled["pilotlight-"+part+".service"] {
			t.Errorf("nobody pulls %s in", part)
		}
	}
	if len(pulled) != len(boot) {
		t.Errorf("pulled in: %v", pulled)
	}
}

func TestParseArgs(t *testing.T) {
	for cmdline, want := range map[string]Args{
		"":                                 {},
		"quiet console=ttyS0":              {},
		"pilotlight=no":                    {Off: true},
		"pilotlight=yes":                   {},
		"pilotlight=no pilotlight=yes":     {},
		"pilotlight=yes pilotlight=no":     {Off: true},
		"pilotlight.run=first-boot":        {},
		"root=LABEL=x":                     {Root: true},
		"root=":                            {},
		"root":                             {},
		"root=/dev/vda1 root=":             {},
		"roothash=0A":                      {Root: true, RootHash: "0a"},
		"rootflags=ro rootfstype=ext4 ro":  {},
		"usrhash=00":                       {Usr: true, UsrHash: "00"},
		"mount.usr=/dev/x mount.usrflags=": {Usr: true},
		"root=x usrhash=00 pilotlight=no":  {Off: true, Root: true, Usr: true, UsrHash: "00"},
	} {
		if got := ParseArgs(strings.Fields(cmdline)); got != want {
			t.Errorf("%q: %+v, want %+v", cmdline, got, want)
		}
	}
}

func TestGenerated(t *testing.T) {
	names := func(list []File) []string {
		var n []string
		for _, f := range list {
			n = append(n, f.Path)
		}
		return n
	}
	for _, c := range []struct {
		args          Args
		normal, early []string
		after         []string
	}{
		{args: Args{Off: true}},
		{args: Args{Off: true, Root: true, Usr: true}},
		{args: Args{}, early: []string{"sysroot.mount", "initrd-root-device.target.d/50-root-device.conf"}},
		{args: Args{Usr: true}, normal: []string{"pilotlight-etc.service.d/50-usr.conf"}, early: []string{"sysroot.mount", "initrd-root-device.target.d/50-root-device.conf"}},
		{args: Args{Usr: true, UsrHash: "00"}, normal: []string{"pilotlight-verity.service.d/50-usr.conf", "pilotlight-etc.service.d/50-usr.conf"},
			early: []string{"sysroot.mount", "initrd-root-device.target.d/50-root-device.conf"}},
		{args: Args{Root: true, RootHash: "00"}, normal: []string{"pilotlight-verity.service.d/50-root.conf", "pilotlight-root.service.d/50-sysroot.conf"}, after: []string{"sysroot.mount"}},
		{args: Args{Root: true}, normal: []string{"pilotlight-root.service.d/50-sysroot.conf"}, after: []string{"sysroot.mount"}},
		{args: Args{Root: true, Usr: true}, normal: []string{"pilotlight-root.service.d/50-sysroot.conf"}, after: []string{"sysroot.mount", "sysroot-usr.mount"}},
	} {
		normal, early := Generated(c.args)
		if !slices.Equal(names(normal), c.normal) || !slices.Equal(names(early), c.early) {
			t.Errorf("%+v: %q %q", c.args, names(normal), names(early))
		}
		for _, f := range append(normal, early...) {
			u := parse(t, f.Path, string(f.Data))
			if name, ok := strings.CutPrefix(f.Path, "pilotlight-verity.service.d/50-"); ok {
				if want := "systemd-veritysetup@" + strings.TrimSuffix(name, ".conf") + ".service"; !slices.Equal(u.words("Unit.After"), []string{want}) {
					t.Errorf("%s: After=%q, want %s", f.Path, u.words("Unit.After"), want)
				}
			}
			if f.Path == "pilotlight-etc.service.d/50-usr.conf" && !slices.Equal(u.words("Unit.After"), []string{"sysroot-usr.mount"}) {
				t.Errorf("%s: After=%q", f.Path, u.words("Unit.After"))
			}
			if strings.HasSuffix(f.Path, "50-sysroot.conf") && !slices.Equal(u.words("Unit.After"), c.after) {
				t.Errorf("%+v: After=%q", c.args, u.words("Unit.After"))
			}
			if f.Path == "sysroot.mount" {
				if u["Unit.Requires"] != nil || u["Unit.BindsTo"] != nil {
					t.Errorf("%s keeps our units through switch-root: %v", f.Path, u)
				}
				if !slices.Contains(u.words("Unit.After"), "pilotlight-root.service") || !slices.Contains(u.words("Unit.Before"), "initrd-root-fs.target") {
					t.Errorf("%s: %v", f.Path, u)
				}
			}
		}
	}
}

// verify asks systemd-analyze(1) about our services in a root, and gives what it has
// against them.
func verify(t *testing.T, root string, units ...string) string {
	t.Helper()
	for name := range services(t) {
		units = append(units, name)
	}
	slices.Sort(units)
	cmd := exec.Command("systemd-analyze", append([]string{"verify", "--root=" + root, "--man=no", "--recursive-errors=no", "--generators=no"}, units...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

// TestSystemdUnderstandsTheUnits in an initrd of nothing but our files and stand-ins for
// systemd's own. The systemd that runs the test may be older than any that is supported.
func TestSystemdUnderstandsTheUnits(t *testing.T) {
	for _, args := range []Args{{}, {Usr: true}, {Root: true}, {Root: true, Usr: true}} {
		root := t.TempDir()
		install(t, root, args)
		var generated []string
		if _, early := Generated(args); len(early) > 0 {
			generated = []string{"sysroot.mount"}
		}
		if said := verify(t, root, generated...); said != "" {
			t.Errorf("%+v: %s", args, said)
		}
	}
	// It would have said so.
	root := t.TempDir()
	install(t, root, Args{})
	name := filepath.Join(root, systemDir, "pilotlight-etc.service")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(data, "Afterwards=x.service\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := verify(t, root); !strings.Contains(said, "Afterwards") {
		t.Errorf("a key that there is not: %q", said)
	}
}

// imports says whether this systemd knows ImportCredential=, which came with version 254.
func imports(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var version int
	if _, err := fmt.Sscanf(string(out), "systemd %d", &version); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return version >= 254
}

// install makes an initrd with our files, and empty units for those that they name.
func install(t *testing.T, root string, args Args) {
	t.Helper()
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte, mode os.FileMode) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	ours := map[string]bool{}
	known := imports(t)
	for _, f := range files {
		data := f.Data
		if !known {
			data = regexp.MustCompile(`(?m)^ImportCredential=.*\n`).ReplaceAll(data, nil)
		}
		put(f.Path, data, 0o644)
		ours[path.Base(f.Path)] = true
	}
	put(Binary, []byte("#!/bin/sh\n"), 0o755)
	put("/etc/initrd-release", nil, 0o644)
	normal, early := Generated(args)
	for i, list := range [][]File{normal, early} {
		for _, f := range list {
			put(path.Join([]string{"/etc/systemd/system", "/run/systemd/system.control"}[i], f.Path), f.Data, 0o644)
			ours[path.Base(f.Path)] = true
		}
	}
	for _, u := range services(t) {
		for _, key := range []string{"Unit.Requires", "Unit.Wants", "Unit.After", "Unit.Before", "Unit.Conflicts", "Unit.OnFailure"} {
			for _, name := range u.words(key) {
				if ours[name] {
					continue
				}
				text := "[Unit]\nDescription=Stand-in\nDefaultDependencies=no\n"
				if strings.HasSuffix(name, ".service") {
					text += fmt.Sprintf("[Service]\nType=oneshot\nExecStart=%s\n", Binary)
				}
				put(path.Join(systemDir, name), []byte(text), 0o644)
			}
		}
	}
	for _, l := range Links() {
		name := filepath.Join(root, l.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(l.Target, name); err != nil {
			t.Fatal(err)
		}
	}
}
