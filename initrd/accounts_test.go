package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pilotlight/config/resource"
)

// The judges of these tests are shadow's own programs, called as Ignition calls them,
// on a tree like the one that is given to this program.

// accountsTree is a small root as a distribution ships it.
var accountsTree = map[string]string{
	"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
		"sshd:x:998:65534::/run/sshd:/usr/sbin/nologin\nold:x:1003:1003:Old One,,,:/home/old:/bin/sh\nlater:x:1001:100::/home/later:/bin/sh\n" +
		"local:hash:1002:100::/nonexistent:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	"/etc/shadow": "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nsshd:!:19000::::::\nold:$6$old:19000:0:99999:7:::\n" +
		"local:!:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
	"/etc/group": "root:x:0:\ndaemon:x:1:\nadm:x:4:old,later\nmail:x:8:\nsudo:x:27:old\nusers:x:100:\nstaff:x:50:\nplain::51:later\n" +
		"wheel:x:999:old\nold:x:1003:\nnogroup:x:65534:\n+:::\n",
	"/etc/gshadow":         "root:*::\ndaemon:*::\nadm:*::old\nmail:*::\nsudo:*:old:old\nusers:*::\nstaff:*::\nwheel:!::old\nold:!::\nnogroup:*::\n",
	"/etc/subuid":          "# kept\nold:165536:65536\nroot:100000:1000\n",
	"/etc/subgid":          "",
	"/etc/nsswitch.conf":   "passwd: files\ngroup: files\n",
	"/etc/login.defs":      "MAIL_DIR        /var/mail\nUMASK\t\t022 \nPASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\nPASS_WARN_AGE\t7\nUID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\nGID_MAX 60000\nUSERGROUPS_ENAB yes\n",
	"/etc/default/useradd": "# defaults\nSHELL=/bin/sh\n",
	"/etc/skel/.profile":   "# profile\n",
	"/etc/skel/bin/tool":   "#!/bin/sh\n",
	"/home/old/deep/file":  "of old\n",
	"/home/old/roots":      "of root\n",
	"/var/mail/old":        "mail\n",
	"/tmp/keep":            "",
}

// accountsRoot lays the tree out, with other contents where there are any; "-" removes
// a file.
func accountsRoot(t *testing.T, other map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := maps.Clone(accountsTree)
	maps.Copy(files, other)
	for name, text := range files {
		if text == "-" {
			continue
		}
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	own := func(name string, uid, gid int, mode os.FileMode) {
		t.Helper()
		at := filepath.Join(root, name)
		if _, err := os.Lstat(at); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err := errors.Join(os.Chown(at, uid, gid), os.Chmod(at, mode)); err != nil {
			t.Fatal(err)
		}
	}
	own("etc/shadow", 0, 42, 0o640)
	own("etc/gshadow", 0, 42, 0o600)
	own("etc/skel/bin/tool", 0, 0, 0o755)
	own("etc/skel/bin", 0, 0, 0o750)
	own("home/old", 1003, 1003, 0o711)
	own("home/old/deep", 1003, 1003, 0o755)
	own("home/old/deep/file", 1003, 1003, 0o600)
	own("var/mail/old", 1003, 8, 0o660)
	own("var/mail/local", 1002, 8, 0o660)
	if err := os.Symlink("/etc/skel/.profile", filepath.Join(root, "etc/skel/link")); err != nil {
		t.Fatal(err)
	}
	return root
}

// accountsSeen is all that can be seen of a tree, without times, and without the copies that
// shadow's programs keep.
func accountsSeen(t *testing.T, root string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(name, root)
		if filepath.Dir(rel) == "/etc" && strings.HasSuffix(rel, "-") {
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += "\n" + string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + target
		}
		seen[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func sameTree(t *testing.T, ours, theirs map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if ours[name] != theirs[name] {
			t.Errorf("%s:\nours   %s\ntheirs %s", name, ours[name], theirs[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if _, ok := theirs[name]; !ok {
			t.Errorf("%s: ours alone: %s", name, ours[name])
		}
	}
}

// asIgnition carries wishes out as Ignition does: with these programs and arguments
// (internal/exec/util/passwd.go of v2.24.0). It stops at the first that fails.
func asIgnition(t *testing.T, root string, wishes []Step) error {
	t.Helper()
	// They look at their own descriptors by /proc.
	proc := filepath.Join(root, "proc")
	if err := unix.Mount("proc", proc, "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(proc, 0); err != nil {
			t.Error(err)
		}
	}()
	call := func(argv ...string) error {
		out, err := exec.Command(argv[0], append([]string{"--root", root}, argv[1:]...)...).CombinedOutput()
		t.Logf("%v: %v %s", argv, err, out)
		if err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
		return nil
	}
	there := func(file, name string) bool {
		data, err := os.ReadFile(filepath.Join(root, file))
		return err == nil && strings.Contains("\n"+string(data), "\n"+name+":")
	}
	for _, w := range wishes {
		var err error
		switch w := w.(type) {
		case Group:
			switch there := there("etc/group", w.Name); {
			case w.Gone && there:
				err = call("groupdel", w.Name)
			case !w.Gone:
				args := []string{"groupadd", "--password", w.hash()}
				if w.GID != nil {
					args = append(args, "--gid", num(*w.GID))
				}
				if w.System {
					args = append(args, "--system")
				}
				err = call(append(args, w.Name)...)
			}
		case User:
			there := there("etc/passwd", w.Name)
			if w.Gone {
				if there {
					err = call("userdel", "--remove", w.Name)
				}
				break
			}
			if err = call(userArgs(w, there)...); err == nil && w.PasswordHash != nil {
				err = call("usermod", "--password", w.hash(), w.Name)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func userArgs(u User, there bool) []string {
	args := []string{"useradd"}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	flag := func(on bool, flag string) {
		if on {
			args = append(args, flag)
		}
	}
	if there {
		args[0] = "usermod"
		add("--home", u.Home)
		flag(u.Home != "", "--move-home")
	} else {
		add("--home-dir", u.Home)
		flag(u.NoCreateHome, "--no-create-home")
		flag(!u.NoCreateHome, "--create-home")
		flag(u.NoUserGroup, "--no-user-group")
		flag(u.System, "--system")
	}
	if u.PasswordHash != nil || !there {
		add("--password", u.hash())
	}
	if u.UID != nil {
		add("--uid", num(*u.UID))
	}
	add("--comment", u.Gecos)
	add("--gid", u.PrimaryGroup)
	add("--groups", strings.Join(u.Groups, ","))
	add("--shell", u.Shell)
	return append(args, u.Name)
}

func ofRoot(root string, wishes []Step) []Step {
	var steps []Step
	for _, w := range wishes {
		switch w := w.(type) {
		case User:
			w.Root = root
			steps = append(steps, w)
		case Group:
			w.Root = root
			steps = append(steps, w)
		}
	}
	return steps
}

func id(n uint32) *uint32 { return &n }

func hash(s string) *resource.Secret {
	h := resource.NewSecret(s)
	return &h
}

// accountsCases are wishes that shadow's programs fulfil.
var accountsCases = []struct {
	name   string
	tree   map[string]string
	wishes []Step
}{
	{"a user", nil, []Step{User{Name: "core"}}},
	{"two users", nil, []Step{User{Name: "core", PasswordHash: hash("$6$abc")}, User{Name: "next", PasswordHash: hash("")}}},
	{"all fields", nil, []Step{User{Name: "core", UID: id(1500), PasswordHash: hash("$y$j9T$x/y."), Gecos: "Core, the User", Home: "/srv/homes/core",
		PrimaryGroup: "staff", Groups: []string{"wheel", "sudo", "adm", "plain"}, Shell: "/bin/zsh"}}},
	{"groups by number", nil, []Step{User{Name: "core", PrimaryGroup: "50", Groups: []string{"4", "999"}}}},
	{"no home", nil, []Step{User{Name: "core", NoCreateHome: true}}},
	{"no group of its own", nil, []Step{User{Name: "core", NoUserGroup: true}}},
	{"default group", map[string]string{"/etc/default/useradd": "GROUP=staff\nHOME=/srv\nSKEL=/etc/other\nSHELL=\nINACTIVE=30\nEXPIRE=2031-02-03\nCREATE_MAIL_SPOOL=yes\n", "/etc/other/x": "x"},
		[]Step{User{Name: "core", NoUserGroup: true}, User{Name: "daemonic", System: true}}},
	{"a system user", nil, []Step{User{Name: "srv", System: true}, User{Name: "srv2", System: true, NoCreateHome: true}}},
	{"a uid out of range", nil, []Step{User{Name: "high", UID: id(70000)}, User{Name: "low", UID: id(500)}}},
	{"the gid of that uid is taken", map[string]string{"/etc/group": "root:x:0:\nusers:x:100:\nmine:x:1004:\nplus:x:1005:\n"}, []Step{User{Name: "core"}, User{Name: "more"}}},
	{"the uid above all is taken too", map[string]string{"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\na:x:60000:60000::/:/bin/sh\nb:x:1000:100::/:/bin/sh\n"}, []Step{User{Name: "core"}, User{Name: "more"}}},
	{"system ids from below", map[string]string{"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\na:x:101:101::/:/bin/sh\n", "/etc/group": "root:x:0:\nb:x:102:\nc:x:998:\n"},
		[]Step{User{Name: "srv", System: true}, Group{Name: "grp", System: true}}},
	{"no usergroups", map[string]string{"/etc/login.defs": "HOME_MODE 0700\nUMASK 077\nSYS_UID_MIN 200\nSYS_UID_MAX 300\nSUB_UID_MIN 200000\nSUB_UID_COUNT 10\nSUB_GID_COUNT 0\n"},
		[]Step{User{Name: "core"}, User{Name: "srv", System: true}}},
	{"without shadow", map[string]string{"/etc/shadow": "-", "/etc/gshadow": "-", "/etc/subuid": "-", "/etc/subgid": "-"},
		[]Step{User{Name: "core", PasswordHash: hash("$6$abc"), Groups: []string{"wheel"}}, Group{Name: "grp", PasswordHash: hash("$6$g")}}},
	{"a home that is there", map[string]string{"/home/core/x": "theirs"}, []Step{User{Name: "core"}}},
	{"a home where no directory is", nil, []Step{User{Name: "core", Home: "/a/b/c/"}}},
	{"subordinate ids between others", map[string]string{"/etc/subuid": "z:300000:65536\na:100000:65536\n# end", "/etc/subgid": "a:100000:1\nb:165537:1\n"}, []Step{User{Name: "core"}, User{Name: "more"}}},
	{"groups", nil, []Step{Group{Name: "grp"}, Group{Name: "fix", GID: id(77), PasswordHash: hash("$6$grp")}, Group{Name: "sys", System: true}, Group{Name: "empty", PasswordHash: hash("")}}},
	{"a user in a new group", nil, []Step{Group{Name: "grp"}, User{Name: "core", PrimaryGroup: "grp"}, User{Name: "x", Groups: []string{"grp"}}}},

	{"change everything", nil, []Step{User{Name: "old", UID: id(2000), PasswordHash: hash("$6$new"), Gecos: "New", Home: "/home/new", PrimaryGroup: "users", Groups: []string{"adm", "staff"}, Shell: "/bin/bash"}}},
	{"change nothing", nil, []Step{User{Name: "old"}, User{Name: "root"}}},
	{"change the uid alone", nil, []Step{User{Name: "old", UID: id(2000)}}},
	{"change the group alone", nil, []Step{User{Name: "old", PrimaryGroup: "staff"}}},
	{"change the password alone", nil, []Step{User{Name: "old", PasswordHash: hash("")}, User{Name: "local", PasswordHash: hash("$6$l")}, User{Name: "later", PasswordHash: hash("$6$l")}}},
	{"a password without shadow", map[string]string{"/etc/shadow": "-"}, []Step{User{Name: "old", PasswordHash: hash("$6$l")}}},
	{"a home that was not there", nil, []Step{User{Name: "later", Home: "/home/new", UID: id(3000)}}},
	{"the same home again", nil, []Step{User{Name: "old", Home: "/home/old", Gecos: "Old One,,,", UID: id(1003)}}},
	{"new groups", nil, []Step{User{Name: "old", Groups: []string{"staff", "plain", "old"}}}},

	{"remove a user", nil, []Step{User{Name: "old", Gone: true}}},
	{"remove users who have nothing", nil, []Step{User{Name: "later", Gone: true}, User{Name: "local", Gone: true}, User{Name: "never", Gone: true}}},
	{"remove one whose home is not there, as are those of others", map[string]string{"/var/mail/local": "mail"}, []Step{User{Name: "local", Gone: true}}},
	{"remove one whose group others are in", map[string]string{"/etc/group": "root:x:0:\nold:x:1003:later\n"}, []Step{User{Name: "old", Gone: true}}},
	{"remove one whose group is another's", map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/sh\nold:x:1003:1003::/home/old:/bin/sh\nx:x:1009:1003::/:/bin/sh\n"}, []Step{User{Name: "old", Gone: true}}},
	{"remove, no usergroups", map[string]string{"/etc/login.defs": "MAIL_DIR /var/spool/mail\n"}, []Step{User{Name: "old", Gone: true}}},
	{"remove groups", nil, []Step{Group{Name: "staff", Gone: true}, Group{Name: "plain", Gone: true}, Group{Name: "never", Gone: true}}},
}

// TestAccountsAreShadows holds what becomes of a tree against what shadow's programs
// make of it, and that the wishes are fulfilled then.
func TestAccountsAreShadows(t *testing.T) {
	for _, c := range accountsCases {
		t.Run(c.name, func(t *testing.T) {
			before, err := today()
			if err != nil {
				t.Fatal(err)
			}
			theirs, ours := accountsRoot(t, c.tree), accountsRoot(t, c.tree)
			if err := asIgnition(t, theirs, c.wishes); err != nil {
				t.Fatal(err)
			}
			m, _ := testMachine(t)
			steps := ofRoot(ours, c.wishes)
			settle(t, m, steps...)
			got, want := accountsSeen(t, ours), accountsSeen(t, theirs)
			if after, err := today(); err != nil {
				t.Fatal(err)
			} else if after != before { // the day of a change of password
				for _, tree := range []map[string]string{got, want} {
					tree["/etc/shadow"] = strings.ReplaceAll(tree["/etc/shadow"], after, before)
				}
			}
			// Where nothing was changed, nothing of ours is there.
			if _, ok := got["/etc/.pwd.lock"]; !ok {
				delete(want, "/etc/.pwd.lock")
			}
			sameTree(t, got, want)
		})
	}
}
