package stages

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd"
)

func TestPresets(t *testing.T) {
	for _, c := range []struct {
		units []string
		want  string
	}{
		{nil, ""},
		{[]string{"sshd.service"}, "enable sshd.service\n"},
		{[]string{"getty@tty1.service"}, "enable getty@.service tty1\n"},
		{[]string{"getty@.service"}, "enable getty@.service\n"},
		{[]string{"dev-disk@a.b.swap"}, "enable dev-disk@.swap a.b\n"},
		{[]string{`mount@usr-lib-\x2da.service`}, `enable mount@.service usr-lib-\x2da` + "\n"},
		{[]string{"a@b@c.service"}, "enable a@.service b@c\n"},
		{[]string{"z.service", "a@y.service", "a@x.service", "a@x.socket", "b.timer"}, "enable a@.service y x\nenable a@.socket x\nenable b.timer\nenable z.service\n"},
	} {
		if got := presets(c.units, "enable "); got != c.want {
			t.Errorf("%q: %q, want %q", c.units, got, c.want)
		}
	}
}

// TestUnitsAreWhatSystemdMakesOfThem: the real systemctl takes the presets, for templates
// too, and finds units disabled and not masked.
func TestUnitsAreWhatSystemdMakesOfThem(t *testing.T) {
	const install = `"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"`
	root := t.TempDir()
	for name, text := range map[string]string{
		"usr/lib/systemd/system/multi-user.target": "[Unit]\n",
		"usr/lib/systemd/system/vendor.service":    "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system/kept.service":      "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system-preset/99.preset":  "disable *\n",
		"etc/machine-id":                           "uninitialized\n",
	} {
		put(t, filepath.Join(root, name), text)
	}
	wants := filepath.Join(root, "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		wants + "/vendor.service":                                "/usr/lib/systemd/system/vendor.service",
		wants + "/kept.service":                                  "/usr/lib/systemd/system/kept.service",
		filepath.Join(root, "etc/systemd/system/masked.service"): "/dev/null",
		filepath.Join(root, "etc/systemd/system/linked.service"): "/usr/lib/systemd/system/kept.service",
	} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	in := first(t, ignition(`"systemd":{"units":[
		{"name":"echo@one.service","enabled":true},{"name":"echo@.service",`+install+`},{"name":"echo@two.service","enabled":true},
		{"name":"plain.service","enabled":true,`+install+`},
		{"name":"vendor.service","enabled":false},
		{"name":"nowhere.service","enabled":true},{"name":"never.service","enabled":false},
		{"name":"masked.service","mask":false},{"name":"linked.service","mask":false},
		{"name":"hidden.service","mask":true,"enabled":true,`+install+`}]}`))
	in.Facts.Root = root
	m, err := initrd.NewMachine(t.TempDir(), &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	steps := want(t, Etc, in)
	// PID 1's first boot comes then, which applies presets, and only enables.
	boot := initrd.Identity{Root: root, ID: machineID(in.Facts.Provision)}
	if err := os.Remove(filepath.Join(root, "etc/machine-id")); err != nil {
		t.Fatal(err)
	}
	if _, err := initrd.Run(t.Context(), m, append(steps, boot), initrd.Apply, nil); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	err = filepath.WalkDir(filepath.Join(root, "etc/systemd"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			links[strings.TrimPrefix(name, root+"/etc/systemd/system/")], err = os.Readlink(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"hidden.service", "linked.service",
		"multi-user.target.wants/echo@one.service", "multi-user.target.wants/echo@two.service", "multi-user.target.wants/kept.service", "multi-user.target.wants/plain.service",
	}
	if got := slices.Sorted(maps.Keys(links)); !slices.Equal(got, want) || links["hidden.service"] != "/dev/null" {
		t.Errorf("%q, want %q", links, want)
	}
}
