package initrd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// setfilesLog tells the test's own program to be setfiles, and where it writes its arguments.
const setfilesLog = "PILOTLIGHT_TEST_SETFILES"

// TestSetfilesChild is setfiles where it is told to be: what lies below a directory none has
// no context by its policy, and all else has one.
func TestSetfilesChild(t *testing.T) {
	log := os.Getenv(setfilesLog)
	if log == "" {
		return
	}
	args := os.Args[slices.Index(os.Args, "--")+1:]
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSuffix(string(in), "\x00"), "\x00")
	if err := os.WriteFile(log, []byte(strings.Join(append(args, names...), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = strings.NewReplacer(`\\`, `\`, `\`, ``).Replace(name)
		err := filepath.WalkDir(name, func(p string, _ fs.DirEntry, err error) error {
			if err != nil || strings.Contains(p, "/none/") {
				return err
			}
			return unix.Lsetxattr(p, "security.selinux", []byte("system_u:object_r:etc_t:s0\x00"), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// selinuxMachine is a machine over a root with a policy, whose setfiles is the test's own program;
// its arguments and what it read are then in the file log.
func selinuxMachine(t *testing.T, mode string) (m *Machine, root, log string) {
	t.Helper()
	m, root = testMachine(t)
	write(t, filepath.Join(root, "etc/selinux/config"), "# SELINUX=disabled\nSELINUX="+mode+"\nSELINUXTYPE=default\n")
	write(t, filepath.Join(root, "etc/selinux/default/contexts/files/file_contexts"), "/.* system_u:object_r:etc_t:s0\n")
	bin := t.TempDir()
	log = filepath.Join(root, "log") // nothing else can be written
	script := fmt.Sprintf("#!/bin/sh\nexport %s=%s\nexec %s -test.run='^TestSetfilesChild$' -- \"$@\"\n", setfilesLog, log, os.Args[0])
	if err := os.WriteFile(filepath.Join(bin, "setfiles"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Programs = []string{bin}
	return m, root, log
}

// label gives contexts to all that is there already, as an image has it.
func label(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.Lsetxattr(p, "security.selinux", []byte("system_u:object_r:old_t:s0\x00"), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func contextAt(t *testing.T, m *Machine, root, name string) string {
	t.Helper()
	l, err := m.Look(t.Context()).Context(root, name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Context
}

// TestRelabel: what was written has a context then, with the directories that had to be made;
// what the image had keeps its own.
func TestRelabel(t *testing.T) {
	m, root, log := selinuxMachine(t, "enforcing")
	for _, dir := range []string{"etc/old", "var/home", "srv/web", "none"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "etc/old/file"), "old\n")
	write(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:80:80::/srv/web:/bin/sh\nbad:x\n")
	if err := os.Symlink("/var/home", filepath.Join(root, "home")); err != nil {
		t.Fatal(err)
	}
	label(t, root)
	steps := []Step{
		Directory{Root: root, Path: "/etc/old", Mode: modeOf(0o700), Owner: me()},
		File{Root: root, Path: "/etc/new/deep/{a,b}*", Contents: inline("x"), Owner: me()},
		File{Root: root, Path: "/home/core/.profile", Contents: inline("x"), Owner: me()},
		File{Root: root, Path: "/none/x", Contents: inline("x"), Owner: me()},
		File{Root: root, Path: "/srv/web/.ssh/authorized_keys", Contents: inline("x"), Owner: me()},
		Link{Root: root, Path: "/etc/old/link", Target: "/nowhere", Owner: me()},
	}
	wish := Relabel{Root: root, Paths: []string{
		"/etc/passwd", "/etc/passwd/of/somebody", "/etc/old", "/etc/new/deep/{a,b}*", "/home/core/.profile", "/none/x", "/etc/old/link",
	}, Users: []string{"web", "nobody"}, Swept: []string{"/etc", "/opt"}, Except: []string{"/var/lib/upper"}}
	plan, err := Run(t.Context(), m, append(steps, wish), Plan, nil)
	if err != nil || plan[6].State != NotSo {
		t.Fatalf("%v, %v", plan[6], err)
	}
	if _, err := apply(t, m, steps...); err != nil {
		t.Fatal(err)
	}
	// What a program put there without saying so.
	if err := os.Symlink("x", filepath.Join(root, "etc/old/swept")); err != nil {
		t.Fatal(err)
	}
	settle(t, m, append(steps, wish)...)
	for name, want := range map[string]string{
		"/etc/new": "etc_t", "/etc/new/deep": "etc_t", "/etc/new/deep/{a,b}*": "etc_t", "/var/home/core": "etc_t", "/var/home/core/.profile": "etc_t",
		"/etc/old/link": "etc_t", "/etc/old/swept": "etc_t", "/none/x": "", "/srv/web/.ssh": "etc_t", "/srv/web/.ssh/authorized_keys": "etc_t", "/srv/web": "old_t", "/etc/old": "old_t", "/etc/old/file": "old_t", "/home": "old_t", "/var/home": "old_t", "/": "old_t",
	} {
		if want != "" {
			want = "system_u:object_r:" + want + ":s0"
		}
		if got := contextAt(t, m, root, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	want := strings.Join([]string{
		"-vF0", "-e", root + "/var/lib/upper", "-r", root, root + "/etc/selinux/default/contexts/files/file_contexts", "-f", "-",
		root + "/etc/new", root + `/etc/new/deep/\{a\,b\}\*`, root + "/etc/old/link", root + "/etc/old/swept", root + "/etc/passwd", root + "/none/x", root + "/srv/web/.ssh", root + "/srv/web/.ssh/authorized_keys",
		root + "/var/home/core", root + "/var/home/core/.profile",
	}, "\n")
	if got := contentOf(t, log); got != want {
		t.Errorf("setfiles was given\n%s\nwant\n%s", got, want)
	}

	// A file that was written again is without a context, and that is seen.
	write(t, filepath.Join(root, "home-core-profile"), "again")
	if err := os.Rename(filepath.Join(root, "home-core-profile"), filepath.Join(root, "var/home/core/.profile")); err != nil {
		t.Fatal(err)
	}
	settle(t, m, wish)
	if got := contextAt(t, m, root, "/home/core/.profile"); got == "" {
		t.Error("what was written again has no context")
	}
	// Another process of the same boot finds the receipt, and after a power cut it is gone.
	same, err := NewMachine(m.Run, m.Client)
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	same.Programs = m.Programs
	next, _ := testMachine(t)
	next.Programs = m.Programs
	for _, c := range []struct {
		m    *Machine
		want State
	}{{same, So}, {next, NotSo}} {
		if out, err := Run(t.Context(), c.m, []Step{wish}, Plan, nil); err != nil || out[0].State != c.want {
			t.Errorf("%v, %v, want %v", out[0].State, err, c.want)
		}
	}
}

// TestRelabelByConfig: whether it is wished for, and how bad it is where it cannot be done.
func TestRelabelByConfig(t *testing.T) {
	for _, c := range []struct {
		name, config, lacks string
		state               State
		says                string // of the error
	}{
		{"disabled", "SELINUX=disabled\nSELINUXTYPE=default\n", "", So, ""},
		{"empty", "# nothing\n", "", So, ""},
		{"first mode, last policy", "SELINUX=disabled\nSELINUX=enforcing\nSELINUXTYPE=default\n", "", So, ""},
		{"last policy", "SELINUX=enforcing\nSELINUXTYPE=other\nSELINUXTYPE=default \n", "", NotSo, ""},
		{"no tool, enforcing", "SELINUX=Enforcing\nSELINUXTYPE=default\n", "tool", unresolved, "has setfiles"},
		{"no tool, permissive", "SELINUX=permissive\nSELINUXTYPE=default\n", "tool", Moot, "has setfiles"},
		{"no policy, enforcing", "SELINUX=enforcing\nSELINUXTYPE=other\n", "", unresolved, "file_contexts"},
		{"no policy, permissive", "SELINUX=permissive\nSELINUXTYPE=other\n", "", Moot, "file_contexts"},
		{"no type, enforcing", "SELINUX=enforcing\n", "", unresolved, "SELINUXTYPE"},
		{"a policy elsewhere", "SELINUX=enforcing\nSELINUXTYPE=../../tmp\n", "", unresolved, "SELINUXTYPE"},
		{"a tool that fails", "SELINUX=enforcing\nSELINUXTYPE=default\n", "success", NotSo, "exit 255: no memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, root, _ := selinuxMachine(t, "")
			write(t, filepath.Join(root, "etc/selinux/config"), c.config)
			write(t, filepath.Join(root, "etc/new"), "x")
			switch c.lacks {
			case "tool":
				m.Programs = []string{t.TempDir()}
			case "success":
				if err := os.WriteFile(filepath.Join(m.Programs[0], "setfiles"), []byte("#!/bin/sh\necho no memory >&2\nexit 255\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			out, err := apply(t, m, Relabel{Root: root, Paths: []string{"/etc/new"}})
			if out[0].State != c.state {
				t.Errorf("%v, want %v", out[0].State, c.state)
			}
			if err == nil {
				err = out[0].Why
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if c.lacks != "success" && c.says != "" && !errors.Is(err, ErrNoLabels) {
				t.Errorf("%v is not ErrNoLabels", err)
			}
		})
	}
	// Without a config nothing is wished for; nor where nothing is named.
	m, root := testMachine(t)
	write(t, filepath.Join(root, "etc/new"), "x")
	settle(t, m, Relabel{Root: root, Paths: []string{"/etc/new"}})
}

// TestRelabelInTarget is setfiles of the target: it gets the target for its root.
func TestRelabelInTarget(t *testing.T) {
	m, root, _ := selinuxMachine(t, "enforcing")
	m.Programs = []string{t.TempDir()}
	write(t, filepath.Join(root, "usr/bin/setfiles"), "")
	if err := os.Chmod(filepath.Join(root, "usr/bin/setfiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "etc/new"), "x")
	state, act, err := Relabel{Root: root, Paths: []string{"/etc/new"}, Except: []string{"/up"}}.Resolve(m.Look(t.Context()))
	if err != nil || state != NotSo {
		t.Fatal(state, err)
	}
	s := act.(setfiles)
	if want := []string{"/usr/bin/setfiles", "-vF0", "-e", "/up", "/etc/selinux/default/contexts/files/file_contexts", "-f", "-"}; !slices.Equal(s.argv(), want) {
		t.Errorf("%q", s.argv())
	}
	if got := string(s.names()); got != "/etc\x00/etc/new\x00" {
		t.Errorf("%q", got)
	}
}

func FuzzParseSELinux(f *testing.F) {
	f.Add("SELINUX=enforcing\nSELINUXTYPE=default\n")
	f.Add("  selinux=Permissive # x\nSELINUXTYPE=\n")
	f.Add("SELINUX\n=\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		policy, mode := parseSELinux(text)
		if policy != strings.TrimSpace(policy) || strings.Contains(policy, "\n") {
			t.Errorf("policy %q", policy)
		}
		if !slices.Contains([]string{"", "enforcing", "permissive", "disabled"}, mode) {
			t.Errorf("mode %q", mode)
		}
	})
}
