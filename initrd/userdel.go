package initrd

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// removed is what userdel(8) with --remove makes of the accounts: the user goes with
// home, mail and, where it is his alone, the group of his name.
//
// userdel removes the account and then fails where the home is not the user's, or is
// above that of another. So does this; but before anything is removed.
func (u User) removed(a *accounts, h homes) (c change, err error) {
	entry, ok := a.passwd.at(u.Name)
	if !ok {
		return c, errElsewhere(u.Name)
	}
	ids, err := uint32s(entry[passwdUID], entry[passwdGID])
	if err != nil {
		return c, fmt.Errorf("%s: the entry of %s %w", a.passwd, u.Name, err)
	}
	for _, r := range []struct {
		name, lost string
	}{
		{a.spool(u.Name), "the mail in %s"},
		{path.Clean(entry[passwdHome]), "the directory %s with all that is in it"},
	} {
		if r.name == "" {
			continue
		}
		e, there, err := h.there(r.name)
		switch {
		case err != nil:
			return c, err
		case !there:
			continue
		case e.UID != int(ids[0]):
			return c, fmt.Errorf("%s does not belong to %s: it is not removed, nor is the user", r.name, u.Name)
		}
		c.first = append(c.first, homeDeed{What: "remove", Path: r.name, Lost: fmt.Sprintf(r.lost, r.name)})
	}
	home := path.Clean(entry[passwdHome])
	if slices.ContainsFunc(c.first, func(d homeDeed) bool { return d.Path == home }) {
		if err := alone(a, u.Name, home); err != nil {
			return c, err
		}
	}

	a.passwd.drop(u.Name)
	a.shadow.drop(u.Name)
	a.subuid.drop(u.Name)
	a.subgid.drop(u.Name)
	for i, f := range a.group.rows() {
		if m := without(f[groupMembers], u.Name); m != f[groupMembers] {
			f[groupMembers] = m
			a.group.lines[i] = strings.Join(f, ":")
		}
	}
	if g, ok := a.group.at(u.Name); ok && a.login.yes("USERGROUPS_ENAB") && g[groupGID] == entry[passwdGID] && g[groupMembers] == "" {
		_, here := a.passwd.id(passwdGID, ids[1])
		_, more := a.moreUsers.id(passwdGID, ids[1])
		if !here && !more {
			a.group.drop(u.Name)
			a.gshadow.drop(u.Name)
		}
	}
	for i, f := range a.gshadow.rows() {
		m, adm := without(f[gshadowMembers], u.Name), without(f[gshadowAdmins], u.Name)
		if m != f[gshadowMembers] || adm != f[gshadowAdmins] {
			f[gshadowMembers], f[gshadowAdmins] = m, adm
			a.gshadow.lines[i] = strings.Join(f, ":")
		}
	}
	return c, nil
}

// alone fails where a home is that of another user too, or holds it.
func alone(a *accounts, name, home string) error {
	for _, t := range []*table{a.passwd, a.moreUsers} {
		for _, f := range t.rows() {
			other := path.Clean(f[passwdHome])
			if f[0] != name && (other == home || home == "/" || strings.HasPrefix(other, home+"/")) {
				return fmt.Errorf("%s holds the home of %s: it is not removed, nor is the user %s", home, f[0], name)
			}
		}
	}
	return nil
}
