package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSudoArgs(t *testing.T) {
	env := map[string]string{"PATH": "/go/bin:/bin", "BREAK": "disk", "PASSWORD": "hunter2"}
	lookup := func(name string) (string, bool) { value, ok := env[name]; return value, ok }
	got := sudoArgs(lookup, []string{"BREAK", "ABSENT"}, "/tmp/run", []string{"-v", "a b"})
	want := []string{"env", "PATH=/go/bin:/bin", "BREAK=disk", "/tmp/run", "-v", "a b"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrepareElsewhere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var missing *MissingError
	if err := Prepare(t.Context(), nil); !errors.As(err, &missing) || !slices.Equal(missing.Packages, packages) || !strings.Contains(err.Error(), "ovmf") {
		t.Errorf("got %v, want a list of what to install", err)
	}
}

// TestPrepare puts programs in the place of Debian's that write down how they were called.
func TestPrepare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("Prepare installs as root only")
	}
	tests := []struct {
		name      string
		installed string // what dpkg-query prints
		apt       string // what apt-get does after it has written itself down
		calls     []string
		fails     bool
	}{
		{"all there", strings.Join(each("installed ", packages), "\n"), "exit 9", nil, false},
		{"one missing", strings.Join(each("installed ", packages[1:]), "\n"), "exit 0", []string{"install"}, false},
		{"lists are old", "", `[ -e updated ] || { [ "$1" = update ] && : > updated; }`, []string{"install", "update", "install"}, false},
		{"no network", "", "exit 100", []string{"install", "update"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			for name, script := range map[string]string{
				"dpkg-query": "cat <<'END'\n" + test.installed + "\nEND\nexit 1",
				"apt-get":    "echo $1 >> calls\n" + test.apt,
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			err := Prepare(context.Background(), nil)
			var program *ProgramError
			if errors.As(err, &program) != test.fails {
				t.Errorf("error %v", err)
			}
			calls, err := os.ReadFile("calls")
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if got := strings.Fields(string(calls)); !slices.Equal(got, test.calls) {
				t.Errorf("apt-get was called for %q, want %q", got, test.calls)
			}
		})
	}
}

func each(prefix string, names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, prefix+name)
	}
	return out
}

func TestMissingPackages(t *testing.T) {
	got := missingPackages([]string{"a", "b", "c"}, "installed a\nconfig-files b\ninstalled aa\n")
	if !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("missing %q, want b and c", got)
	}
}
