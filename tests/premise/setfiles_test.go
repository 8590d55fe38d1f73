package premise_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/config/resource"
	"pilotlight/initrd"
	"pilotlight/tests/lab"
)

// TestSetfiles: setfiles of this initrd, or where it has none that of a Debian root in a chroot, labels what was written, by the root's own policy,
// on a kernel that has loaded none. Names that look like patterns are taken as they are, and what the policy gives no context stays without.
func TestSetfiles(t *testing.T) {
	cache, err := lab.OpenCache(lab.NewLog(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := cache.SELinux(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("of the target", func(t *testing.T) { labels(t, tree, t.TempDir()) })
	t.Run("of the initrd", func(t *testing.T) {
		// The tree's own, with its libraries, which sees this machine's files.
		bin, lib := t.TempDir(), filepath.Join(tree.Dir, "usr/lib/x86_64-linux-gnu")
		script := fmt.Sprintf("#!/bin/sh\nexec %s/ld-linux-x86-64.so.2 --library-path %s %s/usr/sbin/setfiles \"$@\"\n", lib, lib, tree.Dir)
		if err := os.WriteFile(filepath.Join(bin, "setfiles"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		labels(t, tree, bin)
	})
}

// labels writes below a copy of the tree, with programs of a directory, and holds that it has the right contexts then.
func labels(t *testing.T, tree lab.Tree, programs string) {
	t.Helper()
	work := t.TempDir()
	at := func(name string) string { return filepath.Join(work, name) }
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := exec.Command("mount", "-t", "overlay", "-o", "lowerdir="+tree.Dir+",upperdir="+at("upper")+",workdir="+at("work"), "overlay", at("root"))
	if out, err := mount.CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at("root")).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	m, err := initrd.NewMachine(t.TempDir(), &resource.Client{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	m.Programs = []string{programs}

	names := map[string]string{ // with the type of the context
		"/etc/motd": "etc_t", "/etc/made/deep/file": "etc_t", "/etc/made/{a,b}*[x]?~,": "etc_t", "/etc/systemd/system/x.service": "systemd_unit_t", "/etc/shadow": "shadow_t",
		"/usr/local/bin/tool": "bin_t", "/var/lib/made/x": "var_lib_t", "/home/core/.ssh/authorized_keys": "ssh_home_t", "/tmp/x": "", "/boot/x": "boot_t",
	}
	var steps []initrd.Step
	wish := initrd.Relabel{Root: at("root"), Except: []string{"/var/lib/upper"}, Swept: []string{"/etc/made"}}
	for name := range names {
		text := resource.NewSecret("x")
		steps = append(steps, initrd.File{Root: at("root"), Path: name, Contents: &resource.Resource{Inline: &text}, Overwrite: true})
		wish.Paths = append(wish.Paths, name)
	}
	steps = append(steps, initrd.Link{Root: at("root"), Path: "/etc/made/link", Target: "/nowhere"}, wish)
	out, err := initrd.Run(t.Context(), m, steps, initrd.Apply, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last := out[len(out)-1]; !last.Changed || !strings.HasPrefix(last.Deed, "run setfiles for ") {
		t.Errorf("%+v", last)
	}
	names["/etc/made"], names["/etc/made/deep"], names["/etc/made/link"], names["/var/lib/made"] = "etc_t", "etc_t", "etc_t", "var_lib_t"
	names["/home/core"], names["/home/core/.ssh"] = "user_home_dir_t", "ssh_home_t"
	for name, want := range names {
		l, err := m.Look(t.Context()).Context(at("root"), name)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && l.Context != "" || want != "" && !strings.Contains(l.Context, ":object_r:"+want+":") {
			t.Errorf("%s has %q, want %q", name, l.Context, want)
		}
	}
	// Once more there is nothing to do.
	if out, err := initrd.Run(t.Context(), m, []initrd.Step{wish}, initrd.Plan, nil); err != nil || out[0].State != initrd.So {
		t.Errorf("%v, %v", out[0].State, err)
	}
}
