package initrd

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// added is what useradd(8) makes of the accounts for a user who is not there.
func (u User) added(a *accounts, h homes) (c change, err error) {
	groups, err := u.supplementary(a, true)
	if err != nil {
		return c, err
	}
	uid, err := u.number(a)
	if err != nil {
		return c, err
	}
	gid, own, err := u.primary(a, uid)
	if err != nil {
		return c, err
	}
	home := u.Home
	if home == "" {
		home = a.useradd.or("HOME", "/home") + "/" + u.Name
	}
	shell := u.Shell
	if shell == "" {
		shell = a.useradd.or("SHELL", "/bin/bash")
	}
	hash := u.hash()
	if a.shadow.there {
		entry, err := u.shadowEntry(a)
		if err != nil {
			return c, err
		}
		a.shadow.put(entry)
		hash = shadowed
	}
	a.passwd.put([]string{u.Name, hash, num(uid), num(gid), u.Gecos, home, shell})
	if own {
		locked := "!"
		if a.gshadow.there {
			a.gshadow.put([]string{u.Name, locked, "", ""})
			locked = shadowed
		}
		a.group.put([]string{u.Name, locked, num(gid), ""})
	}
	u.join(a, groups)
	if err := u.subordinate(a); err != nil {
		return c, err
	}
	return u.withHome(a, h, home, int(uid), int(gid))
}

func num(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// number is the uid of a new user.
func (u User) number(a *accounts) (uint32, error) {
	switch {
	case u.UID == nil:
		return a.freeUID(u.System)
	case *u.UID == 1<<32-1:
		return 0, errors.New("a uid of 4294967295 means nobody")
	case a.uidTaken(*u.UID):
		return 0, fmt.Errorf("the uid %d belongs to another user", *u.UID)
	}
	return *u.UID, nil
}

// primary is the gid of a new user; own says that it is that of a new group.
func (u User) primary(a *accounts, uid uint32) (gid uint32, own bool, err error) {
	parse := func(g []string) (uint32, bool, error) {
		n, err := strconv.ParseUint(g[groupGID], 10, 32)
		return uint32(n), false, err
	}
	if u.PrimaryGroup != "" {
		g, _, ok := a.groupOf(u.PrimaryGroup)
		if !ok {
			return 0, false, fmt.Errorf("%w: there is no group %q", ErrUnknownOwner, u.PrimaryGroup)
		}
		return parse(g)
	}
	if u.NoUserGroup || !a.login.yes("USERGROUPS_ENAB") {
		if g, _, ok := a.groupOf(a.useradd["GROUP"]); ok {
			return parse(g)
		}
		return 100, false, nil // what useradd was built with
	}
	_, here := a.group.at(u.Name)
	_, more := a.moreGroups.at(u.Name)
	if here || more {
		return 0, false, fmt.Errorf("there is a group %s already; where it shall be the user's, primaryGroup says so", u.Name)
	}
	gid, err = a.freeGID(u.System, &uid)
	return gid, true, err
}

// shadowEntry is the line of a new user in shadow(5). A system account does not age.
func (u User) shadowEntry(a *accounts) ([]string, error) {
	day, err := today()
	if err != nil {
		return nil, err
	}
	f := make([]string, a.shadow.most)
	f[0], f[shadowHash], f[shadowChanged] = u.Name, u.hash(), day
	if u.System {
		return f, nil
	}
	f[shadowMin], f[shadowMax], f[shadowWarn] = ages(a)
	f[shadowInactive] = age(a.useradd.number("INACTIVE", -1))
	f[shadowExpire], err = a.useradd.expires()
	return f, err
}

func ages(a *accounts) (least, most, warn string) {
	return age(a.login.number("PASS_MIN_DAYS", -1)), age(a.login.number("PASS_MAX_DAYS", -1)), age(a.login.number("PASS_WARN_AGE", -1))
}

// subordinate grants ids to a new user where the files for them are there: not to a
// system account, nor to one whose number was chosen outside of the usual range.
func (u User) subordinate(a *accounts) error {
	low, high := a.login.number("UID_MIN", 1000), a.login.number("UID_MAX", 60000)
	if u.System || u.UID != nil && *u.UID != 0 && (int64(*u.UID) < low || int64(*u.UID) > high) {
		return nil
	}
	for _, s := range []struct {
		t    *table
		word string
	}{{a.subuid, "SUB_UID"}, {a.subgid, "SUB_GID"}} {
		if !s.t.there || a.login.number(s.word+"_COUNT", 65536) <= 0 {
			continue
		}
		if err := a.grant(s.t, s.word, u.Name); err != nil {
			return fmt.Errorf("%s: %w", s.t, err)
		}
	}
	return nil
}

// withHome makes what belongs to a new user on the disk.
func (u User) withHome(a *accounts, h homes, home string, uid, gid int) (c change, err error) {
	_, there, err := h.there(home)
	if err != nil {
		return c, err
	}
	if !u.NoCreateHome && !there {
		skel := a.useradd["SKEL"]
		if skel == "" {
			skel = "/etc/skel"
		}
		mode := a.login.number("HOME_MODE", 0o777&^a.login.number("UMASK", 0o022))
		c.first = append(c.first, homeDeed{What: "make", Path: path.Clean(home), To: home, Skel: skel, UID: uid, GID: gid, Mode: permissionsOf(uint32(mode) & 0o7777)})
	}
	if u.System || !strings.EqualFold(a.useradd["CREATE_MAIL_SPOOL"], "yes") {
		more, err := u.mounted(h, home, uid, gid)
		c.first = append(c.first, more...)
		return c, err
	}
	if spool := a.spool(u.Name); spool != "" {
		_, there, err := h.there(spool)
		if err != nil {
			return c, err
		}
		_, dir, err := h.there(path.Dir(spool))
		if err != nil {
			return c, err
		}
		if dir && !there { // useradd goes on without, where it cannot make one
			d := homeDeed{What: "spool", Path: spool, UID: uid, GID: gid, Mode: 0o600}
			if g, _, ok := a.groupOf("mail"); ok {
				if d.GID, err = strconv.Atoi(g[groupGID]); err != nil {
					return c, err
				}
				d.Mode = 0o660
			}
			c.first = append(c.first, d)
		}
	}
	more, err := u.mounted(h, home, uid, gid)
	c.first = append(c.first, more...)
	return c, err
}

// spool is the file of a user's mail, "" where mail goes into homes.
func (a *accounts) spool(user string) string {
	dir := a.login["MAIL_DIR"]
	if dir == "" {
		if a.login["MAIL_FILE"] != "" {
			return ""
		}
		dir = "/var/mail"
	}
	return path.Join("/", dir, user)
}
