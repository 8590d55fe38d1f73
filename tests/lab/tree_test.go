package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDebianMirror(t *testing.T) {
	const stanza = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
	const security = "Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n\n"
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"deb822", map[string]string{"sources.list.d/debian.sources": "# comment\n" + security + stanza}, "http://mirror.test/debian"},
		{"deb822, values on the next line", map[string]string{"sources.list.d/d.sources": "Types: deb-src deb\nURIs:\n http://mirror.test/debian\n http://second.test\nSuites:\n bookworm\nComponents: contrib main\n"}, "http://mirror.test/debian"},
		{"deb822, switched off", map[string]string{"sources.list.d/d.sources": "Enabled: no\n" + stanza}, ""},
		{"deb822, sources only", map[string]string{"sources.list.d/d.sources": "Types: deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n"}, ""},
		{"one line", map[string]string{"sources.list": "deb-src http://src.test bookworm main\ndeb [arch=amd64 signed-by=/k] http://mirror.test/debian bookworm main # ours\n"}, "http://mirror.test/debian"},
		{"one line, switched off", map[string]string{"sources.list": "#deb http://mirror.test/debian bookworm main\n"}, ""},
		{"somebody else's", map[string]string{"sources.list.d/a.list": "deb http://vendor.test/apt vendor-bookworm main\n", "sources.list": "deb http://mirror.test/debian stable main\n"}, "http://mirror.test/debian"},
		{"an unfinished line", map[string]string{"sources.list": "deb http://mirror.test/debian bookworm\ndeb [x\n"}, ""},
		{"none", nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			apt := t.TempDir()
			release := filepath.Join(apt, "os-release")
			if err := os.WriteFile(release, []byte("ID=debian\nVERSION_CODENAME=\"bookworm\"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			for name, text := range test.files {
				path := filepath.Join(apt, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := debianMirror(apt, release)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (test.want == "") != errors.Is(err, ErrNoMirror) {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := debianMirror(t.TempDir(), "/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without os-release: %v", err)
	}
}

func TestLinkTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for _, dir := range []string{"bin", "share/doc/x", "lib/python3.13"} {
		if err := os.MkdirAll(filepath.Join(from, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"bin/sh", "bin/python3", "share/doc/x/y", "share/kept"} {
		if err := os.WriteFile(filepath.Join(from, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", filepath.Join(from, "bin/link")); err != nil {
		t.Fatal(err)
	}
	if err := linkTree(from, to, []string{"share/doc", "lib/python3*", "bin/python3*"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"bin/sh": true, "bin/link": true, "share/kept": true, "share/doc": false, "lib/python3.13": false, "bin/python3": false, "lib": true} {
		info, err := os.Lstat(filepath.Join(to, path))
		if (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
		if err == nil && info.IsDir() && info.Mode().Perm() != 0o750 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if err := linkTree(from, to+"2", []string{"["}); err == nil {
		t.Error("a broken pattern was taken")
	}
}
