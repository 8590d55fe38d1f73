package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"pilotlight/config/resource"
)

// User wishes that the target root has a user, or has none of that name. It is
// Ignition's passwd.users (spec 3.x) without the keys; those are [AuthorizedKeys].
//
// The target needs no programs for it: the files are written as useradd(8), usermod(8)
// and userdel(8) would write them, by the target's own login.defs(5) and
// /etc/default/useradd. A user who is there is changed where the wish says more than
// nothing; who is not is made.
//
// Where the wish names groups, they are all the supplementary groups that the user has:
// so usermod has it. useradd would leave a membership that was there before the user;
// a wish that meant one thing for a new user and another for the same one a moment later
// could never be fulfilled.
type User struct {
	Root string
	Name string
	Gone bool // there shall be none; the rest says nothing then

	UID          *uint32          // nil: for a new user the next free one
	PasswordHash *resource.Secret // nil: none can log in by a password; that of a user who is there stays. Empty is the same, and takes one away
	Gecos        string           // "" for this and the next four: useradd's default; left alone for one who is there
	Home         string           // moved with what is in it where the user has another
	PrimaryGroup string           // by name or number
	Groups       []string         // by name or number
	Shell        string

	// For a new user only.
	NoCreateHome bool // the home directory is not made
	NoUserGroup  bool // the primary group is useradd's default, not one of the user's name
	System       bool // a number from the range of system accounts, no ageing, no mail spool

	// Mounts are the directories where file systems of the config are mounted. The
	// initrd made those that were missing: at and below the user's home they are his,
	// mode 0700.
	Mounts []string
}

func (u User) String() string {
	if u.Gone {
		return "no user " + u.Name
	}
	return "user " + u.Name
}

// accountsTouched are the files that change with the accounts.
func accountsTouched(root string) []string {
	var names []string
	for _, name := range []string{"passwd", "shadow", "group", "gshadow", "subuid", "subgid"} {
		names = append(names, path.Join("/", root, "etc", name))
	}
	return append(names, path.Join("/", root, journalFile), path.Join("/", root, accountsLock))
}

// Touches is the files of accounts, and the home.
func (u User) Touches() []string {
	return append(accountsTouched(u.Root), path.Join("/", u.Root, likelyHome(u.Home, u.Name)))
}

// likelyHome is where the home of a user is, as far as that can be told without a look
// at the target: where the config says, or where it usually is.
func likelyHome(said, user string) string {
	switch {
	case said != "":
		return said
	case user == "root":
		return "/root"
	}
	return "/home/" + user
}

// Reads is what accounts go by.
func (u User) Reads() []string { return accountsRead(u.Root) }

func accountsRead(root string) []string {
	at := func(name string) string { return path.Join("/", root, name) }
	return []string{at("etc/login.defs"), at("etc/default/useradd"), at("etc/nsswitch.conf"), at("etc/skel"),
		at("usr/lib/passwd"), at("usr/lib/group")}
}

// Resolve works out what the wish would change.
func (u User) Resolve(look Look) (State, Act, error) {
	cut, err := interrupted(look, u.Root)
	if err != nil {
		return unresolved, nil, err
	}
	if cut {
		return NotSo, changeUser{User: u, cut: true}, nil
	}
	c, exists, err := u.change(look)
	switch {
	case errors.Is(err, ErrUnknownOwner): // an earlier step may make the group
		return After, nil, err
	case err != nil:
		return unresolved, nil, err
	}
	if c.empty() {
		return So, nil, nil
	}
	act := changeUser{User: u, exists: exists}
	for _, d := range c.first {
		if d.What == "remove" {
			act.lost = append(act.lost, d.Lost)
		}
	}
	return NotSo, act, nil
}

// change is what the wish makes of the accounts, and whether the user was there.
func (u User) change(look Look) (c change, exists bool, err error) {
	a, err := readAccounts(look, u.Root)
	if err != nil {
		return change{}, false, err
	}
	if err := u.fit(a); err != nil {
		return change{}, false, err
	}
	h := homes{look, u.Root}
	entry, exists := a.user(u.Name)
	switch {
	case u.Gone && !exists:
		return change{}, false, nil
	case u.Gone:
		c, err = u.removed(a, h)
	case exists:
		c, err = u.changed(a, h, entry)
	default:
		c, err = u.added(a, h)
	}
	if err != nil {
		return change{}, exists, err
	}
	return c.written(a), exists, nil
}

// fit checks what would break the format of the files, or be taken for something else.
// The faults do not repeat what is secret.
func (u User) fit(a *accounts) error {
	if err := fitName("user", u.Name); err != nil {
		return err
	}
	hash := ""
	if u.PasswordHash != nil {
		hash = u.PasswordHash.Reveal()
	}
	for _, f := range []struct{ what, text string }{
		{"gecos", u.Gecos}, {"home directory", u.Home}, {"shell", u.Shell}, {"password hash", hash},
	} {
		if strings.ContainsAny(f.text, ":\n") {
			return fmt.Errorf("the %s has a colon or a line break, which passwd(5) cannot hold", f.what)
		}
	}
	switch {
	case u.Home != "" && u.Home[0] != '/':
		return errors.New("the home directory is not an absolute path")
	case u.Shell != "" && u.Shell[0] != '/' && u.Shell[0] != '*':
		return errors.New("the shell is not an absolute path")
	}
	return a.single(u.Name, a.passwd, a.shadow)
}

// nameLimit is how long a name of a user or group can be (utmp(5)).
const nameLimit = 32

func fitName(what, name string) error {
	if name == "" || len(name) > nameLimit || strings.ContainsRune("-~+", rune(name[0])) ||
		strings.ContainsAny(name, ":,/ \t\n\v\f\r\x00") || name == "." || name == ".." {
		return fmt.Errorf("%q is not a name for a %s", name, what)
	}
	return nil
}

// supplementary gives the names of the groups of the wish. A new user can be in groups
// of /etc/group only.
func (u User) supplementary(a *accounts, anew bool) (names []string, err error) {
	for _, word := range u.Groups {
		g, local, ok := a.groupOf(word)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: there is no group %q", ErrUnknownOwner, word)
		case !local && anew:
			return nil, fmt.Errorf("the group %q is not in /etc/group, where it would get a new member", word)
		}
		names = append(names, g[0])
	}
	return names, nil
}

// join makes the user a member of these groups. Where the wish names any, they are all.
func (u User) join(a *accounts, groups []string) {
	for _, t := range []struct {
		*table
		members int
	}{{a.group, groupMembers}, {a.gshadow, gshadowMembers}} {
		if len(u.Groups) == 0 || !t.there {
			continue
		}
		for i, f := range t.rows() {
			was := f[t.members]
			if slices.Contains(groups, f[0]) {
				f[t.members] = with(was, u.Name)
			} else {
				f[t.members] = without(was, u.Name)
			}
			if f[t.members] != was {
				t.lines[i] = strings.Join(f, ":")
			}
		}
	}
}

// hash is the word for the password of the wish. A "*" is that of nobody.
func (u User) hash() string {
	if u.PasswordHash == nil || u.PasswordHash.Reveal() == "" {
		return "*"
	}
	return u.PasswordHash.Reveal()
}

// homes look at what lies where homes are.
type homes struct {
	look Look
	root string
}

// there says whether something is at a path, a link followed.
func (h homes) there(name string) (Entry, bool, error) {
	for range 16 {
		e, err := h.look.Stat(h.root, name)
		if errors.Is(err, fs.ErrNotExist) {
			return Entry{}, false, nil
		}
		if err != nil || e.Mode&fs.ModeSymlink == 0 {
			return e, err == nil, err
		}
		if name = path.Join(path.Dir(name), e.Target); path.IsAbs(e.Target) {
			name = e.Target
		}
	}
	return Entry{}, false, fmt.Errorf("%s: links lead in a circle", name)
}

// mounted gives the user what the initrd made to mount file systems on, at and below
// the home: it is root's still.
func (u User) mounted(h homes, home string, uid, gid int) (deeds []homeDeed, err error) {
	if u.NoCreateHome || uid == 0 {
		return nil, nil
	}
	home = path.Clean(home)
	var dirs []string
	for _, m := range u.Mounts {
		for at := path.Clean(m); at == home || strings.HasPrefix(at, home+"/"); at = path.Dir(at) {
			if !slices.Contains(dirs, at) {
				dirs = append(dirs, at)
			}
		}
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		e, there, err := h.there(dir)
		if err != nil {
			return nil, err
		}
		if there && e.Mode.IsDir() && e.UID == 0 && e.GID == 0 {
			deeds = append(deeds, homeDeed{What: "dress", Path: dir, UID: uid, GID: gid, Mode: 0o700})
		}
	}
	return deeds, nil
}

type changeUser struct {
	User
	exists bool
	cut    bool     // a change of a run that was cut short comes first
	lost   []string // what is removed from the disk
}

// Effect tells a new user from one who is changed and one who is removed, with what
// is removed along.
func (c changeUser) Effect() (Effect, []string) {
	switch {
	case c.Gone:
		return Destroys, append([]string{"the user " + c.Name}, c.lost...)
	case c.exists || c.cut:
		return Changes, nil
	}
	return Makes, nil
}

func (c changeUser) String() string {
	what := "make user "
	switch {
	case c.Gone:
		what = "remove user "
	case c.exists:
		what = "change user "
	}
	if c.cut {
		return "finish a change of users that was cut short, " + what + c.Name
	}
	return what + c.Name
}

func (c changeUser) do(ctx context.Context, m *Machine) error {
	return m.changeAccounts(ctx, c.Root, func(look Look) (change, error) {
		ch, _, err := c.User.change(look)
		return ch, err
	})
}
