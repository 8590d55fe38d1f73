package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

func TestAddon(t *testing.T) {
	c := contents(t)
	var a, b bytes.Buffer
	if err := Addon(&a, c); err != nil {
		t.Fatal(err)
	}
	if err := Addon(&b, c); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same contents give other bytes")
	}
	if a.Len()%512 != 0 {
		t.Errorf("%d bytes are not a multiple of 512", a.Len())
	}
	got := records(t, a.Bytes())
	for name, want := range map[string]string{
		"usr/bin/pilotlight":                                         string(elfFile{}.bytes()),
		unitDir + "/pilotlight-fetch.service":                        string(c.Files[0].Data),
		unitDir + "/initrd.target.requires/pilotlight-fetch.service": "../pilotlight-fetch.service",
	} {
		if r, ok := got[name]; !ok || content(t, r) != want {
			t.Errorf("%s is missing or wrong", name)
		}
	}
	// usr usr/bin usr/lib usr/lib/systemd usr/lib/systemd/system .../initrd.target.requires and the three above
	if len(got) != 9 {
		t.Errorf("%d entries, want 9", len(got))
	}
	if got["usr/bin/pilotlight"].Mode != cpio.S_IFREG|0o755 {
		t.Errorf("mode of the binary is %o", got["usr/bin/pilotlight"].Mode)
	}
}

func TestAddonErrors(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		edit func(*Contents)
		path string
		want string
	}{
		{"file in /lib", func(c *Contents) { c.Files[0].Path = "/lib/systemd/system/x.service" }, "/lib/systemd/system/x.service", "/lib is a link where /usr is merged"},
		{"link in /usr/sbin", func(c *Contents) { c.Links[0].Path = "/usr/sbin/x" }, "/usr/sbin/x", "/usr/sbin is a link"},
		{"/bin itself", func(c *Contents) { c.Links[0].Path = "/bin" }, "/bin", "/bin is a link"},
		{"script", func(c *Contents) { c.Binary = text }, text, "not an ELF executable"},
		{"link to nothing", func(c *Contents) { c.Links[0].Target = "" }, unitPath("initrd.target.requires/pilotlight-fetch.service"), "link without a target"},
		{"path with NUL", func(c *Contents) { c.Files[0].Path = "/etc/\x00" }, `/etc/\0`, "NUL"},
		{"root", func(c *Contents) { c.Files[0].Path = "/" }, "/", "not an absolute, clean path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			contents := contents(t)
			c.edit(&contents)
			var out bytes.Buffer
			err := Addon(&out, contents)
			var bad *PathError
			if !errors.As(err, &bad) || bad.Path != c.path || !strings.Contains(bad.Reason, c.want) {
				t.Errorf("got %v, want a PathError of %s: %s", err, c.path, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written all the same", out.Len())
			}
		})
	}
	c := contents(t)
	c.Binary = filepath.Join(dir, "none")
	if err := Addon(&bytes.Buffer{}, c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no binary: got %v", err)
	}
}

type fullDisk struct{}

var errFull = errors.New("no space left")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	c := contents(t)
	if err := Addon(fullDisk{}, c); !errors.Is(err, errFull) {
		t.Errorf("addon: got %v", err)
	}
	_, err := Build{Tree: distribution(t).write(t, t.TempDir()), Contents: c}.Write(fullDisk{})
	if !errors.Is(err, errFull) {
		t.Errorf("build: got %v", err)
	}
}
