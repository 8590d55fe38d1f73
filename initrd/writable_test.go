package initrd

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// held is a machine whose root lies in one mount.
type held struct {
	look
	in  Mounted
	dir Entry
	err error
}

func (h held) Within(string) (Mounted, error)     { return h.in, nil }
func (h held) Stat(string, string) (Entry, error) { return h.dir, h.err }

func TestWritableByWhatTheRootIs(t *testing.T) {
	directory := Entry{Mode: fs.ModeDir | 0o755}
	etc := Writable{Root: "/sysroot", Path: "/etc", Upper: "/run/pilotlight/etc"}
	variable := Writable{Root: "/sysroot", Path: "/var"}
	for name, c := range map[string]struct {
		wish  Writable
		look  held
		state State
		deed  string
		err   string
	}{
		"writable":            {etc, held{in: Mounted{Where: "/sysroot", Type: "ext4"}}, So, "", ""},
		"mounted read-only":   {etc, held{in: Mounted{Where: "/sysroot", Type: "ext4", ReadOnly: true}}, NotSo, "mount /sysroot read-write", ""},
		"verity":              {etc, held{in: Mounted{Where: "/sysroot", Type: "ext4", ReadOnly: true, Fixed: true}, dir: directory}, NotSo, "mount an overlay at /sysroot/etc, with its changes in /run/pilotlight/etc", ""},
		"erofs":               {etc, held{in: Mounted{Where: "/sysroot", Type: "erofs", ReadOnly: true}, dir: directory}, NotSo, "mount an overlay at /sysroot/etc, with its changes in /run/pilotlight/etc", ""},
		"erofs, /var":         {variable, held{in: Mounted{Where: "/sysroot", Type: "erofs", ReadOnly: true}, dir: directory}, NotSo, "mount a tmpfs at /sysroot/var", ""},
		"erofs without /etc":  {etc, held{in: Mounted{Where: "/sysroot", Type: "erofs", ReadOnly: true}, err: fs.ErrNotExist}, unresolved, "", "has no directory /etc"},
		"a file in its place": {etc, held{in: Mounted{Where: "/sysroot", Type: "erofs", ReadOnly: true}}, unresolved, "", "has no directory /etc"},
	} {
		state, act, err := c.wish.Resolve(c.look)
		deed := ""
		if act != nil {
			deed = act.String()
		}
		if state != c.state || deed != c.deed || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v %q %v", name, state, deed, err)
		}
	}
}

func TestCoverMakesItsDirectories(t *testing.T) {
	m, dir := testMachine(t)
	log := filepath.Join(dir, "log")
	program(t, m, "mount", `echo "$@" >> `+log)
	upper := filepath.Join(dir, "upper")
	for _, c := range []cover{
		{Writable{Root: "/sysroot", Path: "/etc", Upper: upper}},
		{Writable{Root: "/sysroot", Path: "/var"}},
	} {
		if err := c.do(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	want := "--types overlay --options lowerdir=/sysroot/etc,upperdir=" + upper + "/upper,workdir=" + upper + "/work --source overlay --target /sysroot/etc\n" +
		"--types tmpfs --options mode=0755 --source tmpfs --target /sysroot/var\n"
	if got := contentOf(t, log); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, d := range []string{"upper", "work"} {
		if info, err := os.Stat(filepath.Join(upper, d)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", d, info, err)
		}
	}
	// The directory that the process works in lies in some mount.
	in, err := look{t.Context(), m}.Within(dir)
	if err != nil || in.Where == "" || in.ReadOnly {
		t.Errorf("%+v %v", in, err)
	}
}
