package providers

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
)

func systemDir(name string, files ...string) SystemDir {
	tree := fstest.MapFS{}
	for _, f := range files {
		tree[f] = &fstest.MapFile{Data: []byte(name + ":" + f)}
	}
	return SystemDir{name, tree}
}

func TestSystemDirectories(t *testing.T) {
	dirs := []SystemDir{
		systemDir("/run", "base.d/20-b.ign", "base.d/notes"),
		systemDir("/etc", "user.ign", "base.d/10-a.ign", "base.platform.d/qemu/05-q.ign", "base.platform.d/aws/05-a.ign"),
		systemDir("/usr", "user.ign", "base.d/10-a.ign", "base.d/20-b.ign", "base.d/30-c.ign", "base.platform.d/qemu/05-q.ign"),
	}
	user, err := SystemUser(dirs)
	if err != nil || user.Source != "/etc/user.ign" || string(user.Bytes) != "/etc:user.ign" {
		t.Errorf("%q %s %v", user.Source, user.Bytes, err)
	}
	if _, err := SystemUser(dirs[:1]); !errors.Is(err, ErrNone) {
		t.Errorf("no user.ign: %v", err)
	}
	base, err := SystemBase(dirs, "qemu")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range base {
		if f.Source != string(slices.Concat(f.Bytes[:4], []byte("/"+f.Name))) {
			t.Errorf("%s is %s", f.Source, f.Bytes)
		}
		got = append(got, f.Source)
	}
	want := []string{"/etc/base.d/10-a.ign", "/run/base.d/20-b.ign", "/usr/base.d/30-c.ign", "/etc/base.platform.d/qemu/05-q.ign"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if none, err := SystemBase(dirs[:1], "metal"); err != nil || len(none) != 1 {
		t.Errorf("%v %v", none, err)
	}
}

// locked cannot be read.
type locked struct{ fs.FS }

func (locked) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// TestUnreadableIsNotAbsent: a directory that cannot be looked into is never taken for one
// without a config.
func TestUnreadableIsNotAbsent(t *testing.T) {
	dirs := []SystemDir{{"/run", locked{}}, systemDir("/usr", "user.ign", "base.d/10.ign")}
	if _, err := SystemUser(dirs); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("user.ign: %v", err)
	}
	if _, err := SystemBase(dirs, "qemu"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("base.d: %v", err)
	}
}
