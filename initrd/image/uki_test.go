package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeUkify puts a script in place of the machine's ukify.
func fakeUkify(t *testing.T, script string) {
	t.Helper()
	dir := files{"bin/ukify": "#!/bin/sh\n" + script}.write(t, t.TempDir())
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
}

func TestUKI(t *testing.T) {
	fakeUkify(t, `for a; do case "$a" in --output=*) out=${a#--output=};; esac; done; printf '%s\n' "$@" > "$out"`)
	out := filepath.Join(t.TempDir(), "linux.efi")
	err := UKI{Kernel: "/k", Initrd: "/i", Output: out, Cmdline: "console=ttyS0 quiet", OSRelease: "/o", Uname: "6.12", Args: []string{"--secureboot-private-key=/key"}}.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want := "build\n--linux=/k\n--initrd=/i\n--output=" + out + ".unfinished\n--cmdline=console=ttyS0 quiet\n--uname=6.12\n--os-release=@/o\n--secureboot-private-key=/key\n"
	if string(got) != want {
		t.Errorf("arguments:\n%s\nwant:\n%s", got, want)
	}
	if _, err := os.Stat(out + ".unfinished"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished image: %v", err)
	}
}

func TestUKIFails(t *testing.T) {
	fakeUkify(t, `for a; do case "$a" in --output=*) echo half > "${a#--output=}";; esac; done; echo "no such stub" >&2; exit 3`)
	out := filepath.Join(t.TempDir(), "linux.efi")
	err := UKI{Kernel: "/k", Initrd: "/i", Output: out}.Write(t.Context())
	var failed *UkifyError
	if !errors.As(err, &failed) || failed.Said != "no such stub" || !strings.Contains(failed.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(out))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := (UKI{Cmdline: "@/etc/shadow"}).Write(t.Context()); err == nil || !strings.Contains(err.Error(), "starts with @") {
		t.Errorf("command line from a file: %v", err)
	}
}

func TestUKIStops(t *testing.T) {
	fakeUkify(t, "exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := UKI{Output: filepath.Join(t.TempDir(), "x")}.Write(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestUKIOfATree(t *testing.T) {
	f := distribution(t)
	dir := f.write(t, t.TempDir())
	u := UKI{Tree: dir}
	var lacks *TreeError
	if _, err := u.command(t.Context()); !errors.As(err, &lacks) || len(lacks.Missing) != 2 || lacks.Missing[0].Name != "ukify" || lacks.Missing[1].Name != "python3" {
		t.Errorf("without ukify and python: %v", err)
	}
	more := files{"usr/bin/ukify": "#!/usr/bin/python3\n", "usr/bin/python3": "-> python3.13", "usr/bin/python3.13": program()}
	more.write(t, dir)
	if _, err := u.command(t.Context()); !errors.As(err, &lacks) || lacks.Missing[0].Name != "/usr/lib/systemd/boot/efi/linuxx64.efi.stub" {
		t.Errorf("without the stub: %v", err)
	}
	files{"usr/lib/systemd/boot/efi/linuxx64.efi.stub": "MZ"}.write(t, dir)
	cmd, err := u.command(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	libraries := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	want := []string{filepath.Join(libraries, "ld.so"), "--library-path", "", filepath.Join(dir, "usr/bin/python3.13"), filepath.Join(dir, "usr/bin/ukify"),
		"--stub=" + filepath.Join(dir, "usr/lib/systemd/boot/efi/linuxx64.efi.stub")}
	for i, w := range want {
		if i != 2 && (i >= len(cmd.Args) || cmd.Args[i] != w) {
			t.Errorf("argument %d of %q is not %s", i, cmd.Args, w)
		}
	}
	if len(cmd.Args) != len(want) || !strings.HasPrefix(cmd.Args[2], libraries+":") {
		t.Errorf("arguments %q", cmd.Args)
	}
	if u.OSRelease != filepath.Join(dir, "usr/lib/os-release") {
		t.Errorf("os-release %s", u.OSRelease)
	}
}
