package vm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pilotlight/tests/lab"
	"pilotlight/tests/scene"
)

// afresh makes a guest new.
func afresh(t *testing.T, g lab.Guest) {
	t.Helper()
	if err := os.RemoveAll(g.Dir); err != nil {
		t.Fatal(err)
	}
}

// joined is an initrd of another maker with the addition, and what it lacks from its tree. It gives the boot of it.
func joined(t *testing.T, tree lab.Tree, initrd string) lab.Boot {
	t.Helper()
	out := filepath.Join(stage.Dir, strings.ToLower(t.Name())+".img")
	if _, err := stage.Pilotlight(t.Context(), "initrd", "addon", "--quiet", "--to", initrd, "--root", tree.Dir, "--output", out); err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Pilotlight(t.Context(), "initrd", "addon", "--check", out); err != nil {
		t.Error(err)
	}
	kernel, err := tree.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	return lab.Boot{Kernel: kernel, Initrd: out, Append: scene.Cmdline}
}

// bySerial is the scene's config for a machine whose firmware does not say what it booted from.
func bySerial() scene.Config {
	c := stage.UserConfig()
	r := c.Section()["repart"].([]any)[0].(map[string]any)
	delete(r, "device")
	r["match"] = map[string]any{"serial": scene.Serial}
	return c
}

// TestDracut is an initrd that dracut has made, with its networkd: the config comes from a server, and a partition is unlocked
// by a program that the addition brings.
func TestDracut(t *testing.T) {
	t.Parallel()
	tree, err := stage.Cache.Foreign(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := stage.Cache.Dracut(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Pilotlight(t.Context(), "initrd", "addon", "--check", initrd); err == nil {
		t.Errorf("%s is said to lack nothing", initrd)
	}
	b := joined(t, tree, initrd)
	v := serve(t, bySerial())
	b.Network, b.Credentials = true, v.Credentials("pilotlight.onfailure", "poweroff")
	g := guest(t)
	g.UEFI = false
	up(t, boot(t, g, b, "dracut's initrd with the addition"), stage.Expected(predict(t, v)), "first")
}

// TestMkosi is an initrd that mkosi has made; there is no network.
func TestMkosi(t *testing.T) {
	t.Parallel()
	tree, err := stage.Cache.Foreign(t.Context(), "trixie")
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := stage.Cache.Mkosi(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	b := joined(t, tree, initrd)
	c := bySerial()
	c.Define("60-var.conf", "[Partition]\nType=var\nLabel=var\nFormat=ext4\nMountPoint=/var\nSizeMinBytes=256M\nSizeMaxBytes=256M\n")
	given := local(t, c, "pilotlight.onfailure", "poweroff")
	b.FwCfg, b.Credentials = given.FwCfg, given.Credentials
	p, err := stage.PredictBytes(t.Context(), c.JSON())
	if err != nil {
		t.Fatal(err)
	}
	want := stage.Expected(p)
	delete(want.EtcDigests, "/etc/demo/child") // there is nobody to have it from
	want.NoNetwork = true
	g := guest(t)
	g.UEFI = false
	up(t, boot(t, g, b, "mkosi's initrd with the addition"), want, "first")
}
