package initrd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAccountsThatCannotBe: the fault is told, it repeats no hash, and nothing has been
// changed.
func TestAccountsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		tree  map[string]string
		wish  Step
		fault string
	}{
		"a uid that is taken":            {nil, User{Name: "core", UID: id(998)}, "the uid 998 belongs to another user"},
		"another uid that is taken":      {nil, User{Name: "old", UID: id(998)}, "the uid 998 belongs to another user"},
		"nobody's uid":                   {nil, User{Name: "core", UID: id(1<<32 - 1)}, "means nobody"},
		"a group of the name":            {nil, User{Name: "staff"}, "there is a group staff already"},
		"an unknown group":               {nil, User{Name: "core", Groups: []string{"wheel", "never"}}, `unknown user or group: there is no group "never"`},
		"an unknown primary group":       {nil, User{Name: "core", PrimaryGroup: "never"}, `there is no group "never"`},
		"an unknown gid":                 {nil, User{Name: "old", PrimaryGroup: "4711"}, `there is no group "4711"`},
		"a colon":                        {nil, User{Name: "core", Gecos: "a:b"}, "the gecos has a colon"},
		"a hash with a colon":            {nil, User{Name: "core", PasswordHash: hash("$6$secret:0:0")}, "the password hash has a colon"},
		"a line break":                   {nil, User{Name: "core", Home: "/home/x\nroot::0:0::/:/bin/sh"}, "the home directory has a colon or a line break"},
		"a home that is not absolute":    {nil, User{Name: "core", Home: "home"}, "not an absolute path"},
		"a shell that is not absolute":   {nil, User{Name: "core", Shell: "bash"}, "not an absolute path"},
		"no name":                        {nil, User{}, `"" is not a name for a user`},
		"a path for a name":              {nil, User{Name: "../x"}, `"../x" is not a name for a user`},
		"a name too long":                {nil, User{Name: strings.Repeat("x", 33)}, "is not a name for a user"},
		"two entries":                    {map[string]string{"/etc/shadow": "old:a:::::::\nold:b:::::::\n"}, User{Name: "old", PasswordHash: hash("$6$secret")}, `/etc/shadow has 2 entries for "old"`},
		"a home where another is":        {map[string]string{"/home/new/x": ""}, User{Name: "old", Home: "/home/new"}, "which is there already"},
		"a home that is no directory":    {map[string]string{"/etc/passwd": "old:x:1003:1003::/etc/shadow:/bin/sh\n"}, User{Name: "old", Home: "/home/new"}, "no directory"},
		"a home of somebody else":        {map[string]string{"/etc/passwd": "old:x:1004:1003::/home/old:/bin/sh\n"}, User{Name: "old", Gone: true}, "/var/mail/old does not belong to old: it is not removed"},
		"a home that holds another":      {map[string]string{"/etc/passwd": "old:x:1003:1003::/home/old:/bin/sh\nx:x:1009:1003::/home/old/x:/bin/sh\n"}, User{Name: "old", Gone: true}, "/home/old holds the home of x"},
		"no number is free":              {map[string]string{"/etc/login.defs": "UID_MIN 998\nUID_MAX 998\n"}, User{Name: "core"}, "no number is free"},
		"an empty range":                 {map[string]string{"/etc/login.defs": "UID_MIN 1000\nUID_MAX 998\n"}, User{Name: "core"}, "there is no UID between 1000 and 998"},
		"no room for subordinate ids":    {map[string]string{"/etc/login.defs": "SUB_UID_MIN 1\nSUB_UID_MAX 9\n"}, User{Name: "core"}, "no range of SUB_UID has room"},
		"a passwd that is no file":       {map[string]string{"/etc/passwd/x": "", "/etc/passwd": "-"}, User{Name: "core"}, "/etc/passwd"},
		"a group with another gid":       {nil, Group{Name: "staff", GID: id(51)}, "has the gid 50"},
		"a group with another password":  {nil, Group{Name: "wheel", PasswordHash: hash("$6$secret")}, "has another password"},
		"a gid that is taken":            {nil, Group{Name: "grp", GID: id(50)}, "the gid 50 belongs to another group"},
		"a group that somebody lives in": {nil, Group{Name: "old", Gone: true}, "it is the primary group of old"},
		"a group with a colon":           {nil, Group{Name: "a:b"}, "is not a name for a group"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := testMachine(t)
			root := accountsRoot(t, c.tree)
			before := accountsSeen(t, root)
			_, err := apply(t, m, ofRoot(root, []Step{c.wish})...)
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%v, want %q", err, c.fault)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the fault tells a hash: %v", err)
			}
			if after := accountsSeen(t, root); !maps.Equal(before, after) {
				sameTree(t, after, before)
			}
		})
	}
}

// TestGroupsThatAreThere are as good as made: groupadd would fail over them, but a boot
// that was cut short finds its own.
func TestGroupsThatAreThere(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, map[string]string{"/etc/gshadow": "staff:$6$s::\nold:!::\n"})
	before := accountsSeen(t, root)
	settle(t, m, ofRoot(root, []Step{
		Group{Name: "staff"}, Group{Name: "staff", GID: id(50), PasswordHash: hash("$6$s")}, Group{Name: "old", PasswordHash: hash("")},
	})...)
	if after := accountsSeen(t, root); !maps.Equal(before, after) {
		sameTree(t, after, before)
	}
}

// altTree has its users in /usr, as systems that are updated as images do.
var altTree = map[string]string{
	"/etc/nsswitch.conf": "passwd:     files altfiles systemd # as made\ngroup:\tfiles altfiles\n",
	"/usr/lib/passwd":    "img:x:1000:990:of the image:/home/img:/bin/sh\n",
	"/usr/lib/group":     "img:x:990:\ndocker:x:989:\n",
}

func TestUsersOfTheImageExist(t *testing.T) {
	m, _ := testMachine(t)
	passwd := map[string]string{"/etc/passwd": "root:x:0:0::/root:/bin/bash\n", "/etc/group": "root:x:0:\n", "/etc/shadow": "", "/etc/gshadow": ""}
	tree := maps.Clone(altTree)
	maps.Copy(tree, passwd)
	root := accountsRoot(t, tree)
	settle(t, m, ofRoot(root, []Step{
		User{Name: "img"}, User{Name: "img", UID: id(1000), Groups: []string{"docker"}}, Group{Name: "docker"}, // all as they are
		User{Name: "core", PrimaryGroup: "docker"},
	})...)
	if got, want := contentOf(t, root+"/etc/passwd"), "root:x:0:0::/root:/bin/bash\ncore:x:1001:989::/home/core:/bin/sh\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, c := range []struct {
		wish  Step
		fault string
	}{
		{User{Name: "img", Shell: "/bin/bash"}, "in /usr/lib/passwd alone"},
		{User{Name: "img", PasswordHash: hash("$6$")}, "in /usr/lib/passwd alone"},
		{User{Name: "img", Gone: true}, "in /usr/lib/passwd alone"},
		{User{Name: "x", Groups: []string{"docker"}}, "not in /etc/group"},
		{User{Name: "x", UID: id(1000)}, "belongs to another user"},
		{User{Name: "docker"}, "there is a group docker already"},
		{Group{Name: "docker", Gone: true}, "in /usr/lib/group alone"},
		{Group{Name: "grp", GID: id(989)}, "belongs to another group"},
	} {
		if _, err := apply(t, m, ofRoot(root, []Step{c.wish})...); err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", c.wish, err, c.fault)
		}
	}

	settle(t, m, File{Root: root, Path: "/f", Owner: Owner{User: "img", Group: "docker"}})
	if got := accountsSeen(t, root)["/f"]; got != "-rw-r--r-- 1000:989\n" {
		t.Errorf("%q", got)
	}

	// Where nsswitch.conf does not name those files, nobody asks them.
	tree["/etc/nsswitch.conf"] = "passwd: files\ngroup: files\n"
	other := accountsRoot(t, tree)
	settle(t, m, ofRoot(other, []Step{User{Name: "img"}})...)
	if _, err := apply(t, m, File{Root: other, Path: "/f", Owner: Owner{Group: "docker"}}); !errors.Is(err, ErrUnknownOwner) {
		t.Errorf("%v", err)
	}
	if got := contentOf(t, other+"/etc/passwd"); !strings.Contains(got, "\nimg:x:1000:1000::/home/img:/bin/sh\n") {
		t.Errorf("%q", got)
	}
}

// TestAccountsOfAnEmptyRoot: a hash does not come to lie where everybody can read it.
func TestAccountsOfAnEmptyRoot(t *testing.T) {
	m, root := testMachine(t)
	settle(t, m, User{Root: root, Name: "core", PasswordHash: hash("$6$c")}, Group{Root: root, Name: "grp"})
	if got := contentOf(t, root+"/etc/passwd"); got != "core:x:1000:100::/home/core:/bin/bash\n" {
		t.Errorf("%q", got)
	}
	if got := contentOf(t, root+"/etc/shadow"); !strings.HasPrefix(got, "core:$6$c:") {
		t.Errorf("%q", got)
	}
	for name, mode := range map[string]fs.FileMode{"passwd": 0o644, "shadow": 0o600, "group": 0o644, "gshadow": 0o600} {
		if info, err := os.Stat(root + "/etc/" + name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
}

func TestAHomeThatLeadsNowhere(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	link(t, "/nowhere", root+"/home/core")
	if _, err := apply(t, m, User{Root: root, Name: "core"}); err == nil || !strings.Contains(err.Error(), "a link that leads nowhere") {
		t.Errorf("%v", err)
	}
	if got := contentOf(t, root+"/etc/passwd"); got != accountsTree["/etc/passwd"] {
		t.Errorf("%q", got)
	}
}

// TestMountPointsOfAHomeAreTheUsers: the initrd made them for root.
func TestMountPointsOfAHomeAreTheUsers(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, map[string]string{"/home/core/data/deep/x": "", "/home/old/mine/x": "", "/srv/x": ""})
	settle(t, m, ofRoot(root, []Step{
		User{Name: "core", Mounts: []string{"/home/core/data/deep/", "/srv"}},
		User{Name: "old", NoCreateHome: true, Mounts: []string{"/home/old/mine"}},
	})...)
	got := accountsSeen(t, root)
	for name, want := range map[string]string{
		"/home": "drwxr-xr-x 0:0", "/home/core": "drwx------ 1004:1004", "/home/core/data": "drwx------ 1004:1004", "/home/core/data/deep": "drwx------ 1004:1004",
		"/home/core/data/deep/x": "-rw-r--r-- 0:0\n", "/srv": "drwxr-xr-x 0:0", "/home/old/mine": "drwxr-xr-x 0:0",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// TestAPlanOfAccountsTellsWhatIsLost, in words, and changes nothing.
func TestAPlanOfAccountsTellsWhatIsLost(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	before := accountsSeen(t, root)
	out, err := Run(t.Context(), m, ofRoot(root, []Step{
		User{Name: "core", PasswordHash: hash("$6$secret")}, User{Name: "old", Gecos: "x"}, User{Name: "old", Gone: true}, Group{Name: "grp"}, Group{Name: "staff", Gone: true},
	}), Plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, o := range out {
		told = append(told, fmt.Sprintf("%s %s %v", o.Deed, o.Effect, o.Lost))
	}
	want := []string{
		"make user core makes []", "change user old changes []",
		"remove user old destroys [the user old the mail in /var/mail/old the directory /home/old with all that is in it]",
		"make group grp makes []", "remove group staff destroys [the group staff]",
	}
	if !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
	if after := accountsSeen(t, root); !maps.Equal(before, after) {
		sameTree(t, after, before)
	}
}

// TestAPlanWaitsForGroupsAndUsers that earlier steps will make.
func TestAPlanWaitsForGroupsAndUsers(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	steps := append(ofRoot(root, []Step{Group{Name: "grp"}, User{Name: "core", PrimaryGroup: "grp"}, User{Name: "old", Groups: []string{"grp"}}}),
		AuthorizedKeys{Root: root, User: "core", Keys: []string{"k"}})
	out, err := Run(t.Context(), m, steps, Plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []State{NotSo, After, After, After} {
		if out[i].State != want {
			t.Errorf("%s: %v, want %v", out[i].Wish, out[i].State, want)
		}
	}
	settle(t, m, steps...)
}

// TestAccountsAreLocked as all who change them lock them.
func TestAccountsAreLocked(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, nil)
	f, err := os.OpenFile(filepath.Join(root, accountsLock), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// An OFD lock, as another process's lock would be to this one.
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	_, err = apply(t, m, User{Root: root, Name: "core"})
	if err == nil || !strings.Contains(err.Error(), "somebody else is changing users and groups") {
		t.Errorf("%v", err)
	}
}

// TestAJournalOfOthersIsNotTrusted: a file that has changed since is not overwritten.
func TestAJournalOfOthersIsNotTrusted(t *testing.T) {
	m, _ := testMachine(t)
	root := accountsRoot(t, map[string]string{
		journalFile: `{"writes":[{"path":"/etc/subgid","was":"` + hashOf("other") + `","text":"new","mode":420}],"then":null}`,
	})
	before := accountsSeen(t, root)
	state, act, err := User{Root: root, Name: "old"}.Resolve(m.Look(t.Context()))
	if state != NotSo || err != nil || act.String() != "finish a change of users that was cut short, make user old" {
		t.Errorf("%v %v %v", state, act, err)
	}
	if _, err := apply(t, m, User{Root: root, Name: "old"}); !errors.Is(err, errJournal) {
		t.Errorf("%v", err)
	}
	after := accountsSeen(t, root)
	delete(after, accountsLock)
	if !maps.Equal(before, after) {
		sameTree(t, after, before)
	}
}

// TestAccountsStayInTheRoot although the tree's own links lead out of it.
func TestAccountsStayInTheRoot(t *testing.T) {
	dir, was := outside(t)
	m, _ := testMachine(t)
	root := accountsRoot(t, map[string]string{"/etc/default/useradd": "HOME=/out/homes\nSKEL=/out/dir\nCREATE_MAIL_SPOOL=yes\n", "/etc/login.defs": "MAIL_DIR /out\n"})
	if err := os.MkdirAll(root+dir, 0o755); err != nil { // where the link leads, in the root
		t.Fatal(err)
	}
	link(t, dir, root+"/out")
	link(t, dir, root+"/home/old/out")
	if err := os.Remove(root + "/etc/subgid"); err != nil {
		t.Fatal(err)
	}
	link(t, dir+"/victim", root+"/etc/subgid")
	settle(t, m, ofRoot(root, []Step{User{Name: "core"}, User{Name: "old", UID: id(2000), Home: "/out/old"}, User{Name: "later", Gone: true}})...)
	for _, name := range []string{"/homes/core", "/old/deep/file", "/core"} {
		if _, err := os.Lstat(filepath.Join(root, dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	unchanged(t, "accounts", dir, was)
}
