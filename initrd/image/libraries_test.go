package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/u-root/u-root/pkg/ldd"
)

func TestClosure(t *testing.T) {
	f := files{
		"usr/lib/systemd/systemd": string(elfFile{loader: "/lib64/ld.so", needed: []string{"libcore.so", "libshared.so", "libc.so.6"}, runpath: "/usr/lib/private"}.bytes()),
		"lib64/ld.so":             library(),
		// Not found by itself: the program has loaded it under this name.
		"usr/lib/private/libcore.so":      library("libshared.so"),
		"usr/lib/private/libshared.so":    string(elfFile{needed: []string{"libnear.so"}, runpath: "$ORIGIN/near:relative"}.bytes()),
		"usr/lib/private/near/libnear.so": library("libc.so.6", "libconf.so", "libscript.so", "libother.so"),
		"usr/lib/libc.so.6":               library(),
		"usr/lib/libscript.so":            "/* GNU ld script */",
		"usr/lib/libother.so":             string(elfFile{machine: 183}.bytes()),
		"etc/ld.so.conf":                  "# comment\ninclude ld.so.conf.d/*.conf\n",
		"etc/ld.so.conf.d/a.conf":         "/opt/a/\n",
		"etc/ld.so.conf.d/b.txt":          "/opt/b\n",
		"opt/a/libconf.so":                library(),
		"opt/b/libscript.so":              library(),
	}
	tr, err := openTree(f.write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLinker(tr, "usr/lib/systemd/systemd")
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.closure("usr/lib/systemd/systemd")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"lib64/ld.so", "usr/lib/private/libcore.so", "usr/lib/private/libshared.so", "usr/lib/libc.so.6", "usr/lib/private/near/libnear.so", "opt/a/libconf.so"}; !slices.Equal(got.found, want) {
		t.Errorf("found %v, want %v", got.found, want)
	}
	if want := []loss{{"libscript.so", "/usr/lib/private/near/libnear.so"}, {"libother.so", "/usr/lib/private/near/libnear.so"}}; !slices.Equal(got.lost, want) {
		t.Errorf("lost %v, want %v", got.lost, want)
	}
	if len(got.cached) != 1 || got.cached["libconf.so"] != "opt/a/libconf.so" {
		t.Errorf("cached %v", got.cached)
	}
	if none, err := l.closure("usr/lib/libscript.so"); err != nil || none.found != nil {
		t.Errorf("what is not ELF: %v, %v", none, err)
	}
	if _, err := l.closure("usr/lib/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestClosureIsTheLoaders asks the loader of the machine that tests run on.
func TestClosureIsTheLoaders(t *testing.T) {
	for _, name := range []string{"sh", "ls", "mount"} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		listed, err := ldd.List(program)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := openTree("/")
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLinker(tr, program[1:])
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.closure(program[1:])
		if err != nil || len(got.lost) > 0 {
			t.Fatalf("%s: %v, lost %v", name, err, got.lost)
		}
		real := func(paths []string, root string) (out []string) {
			for _, p := range paths {
				r, err := filepath.EvalSymlinks(root + p)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, r)
			}
			slices.Sort(out)
			return slices.Compact(out)
		}
		if a, b := real(got.found, "/"), real(listed, ""); !slices.Equal(a, b) {
			t.Errorf("%s: found %v, the loader %v", name, a, b)
		}
	}
}

func TestLdSoConfThatIncludesItself(t *testing.T) {
	f := files{"usr/bin/a": program(), "etc/ld.so.conf": "include /etc/ld.so.conf\n"}
	tr, err := openTree(f.write(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	var bad *PathError
	if _, err := newLinker(tr, "usr/bin/a"); !errors.As(err, &bad) || bad.Path != "/etc/ld.so.conf" {
		t.Errorf("got %v", err)
	}
}

func FuzzReadELF(f *testing.F) {
	f.Add([]byte(program("liba.so")))
	f.Add([]byte(library()))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := readELF(data)
		if err == nil && o.machine == 0 && o.class == 0 {
			t.Error("no error and no architecture")
		}
	})
}
