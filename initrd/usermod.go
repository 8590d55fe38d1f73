package initrd

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
)

// changed is what usermod(8) makes of the accounts for a user who is there.
func (u User) changed(a *accounts, h homes, old []string) (c change, err error) {
	groups, err := u.supplementary(a, false)
	if err != nil {
		return c, err
	}
	entry := append([]string(nil), old...)
	was, err := uint32s(old[passwdUID], old[passwdGID])
	if err != nil {
		return c, fmt.Errorf("%s: the entry of %s: %w", a.passwd, u.Name, err)
	}
	now := []uint32{was[0], was[1]}
	if u.UID != nil && *u.UID != was[0] {
		if now[0], err = u.number(a); err != nil {
			return c, err
		}
		entry[passwdUID] = num(now[0])
	}
	if u.PrimaryGroup != "" {
		g, _, ok := a.groupOf(u.PrimaryGroup)
		if !ok {
			return c, fmt.Errorf("%w: there is no group %q", ErrUnknownOwner, u.PrimaryGroup)
		}
		gid, err := uint32s(g[groupGID])
		if err != nil {
			return c, err
		}
		now[1], entry[passwdGID] = gid[0], num(gid[0])
	}
	for field, text := range map[int]string{passwdGecos: u.Gecos, passwdShell: u.Shell} {
		if text != "" {
			entry[field] = text
		}
	}
	move := u.Home != "" && path.Clean(u.Home) != path.Clean(old[passwdHome])
	if move {
		entry[passwdHome] = path.Clean(u.Home)
	}
	if err := u.password(a, entry); err != nil {
		return c, err
	}
	_, local := a.passwd.at(u.Name)
	switch {
	case local:
		a.passwd.put(entry)
	case u.PasswordHash != nil || !slices.Equal(entry, old):
		return c, errElsewhere(u.Name)
	}
	u.join(a, groups)

	own := homeDeed{UID: int(now[0]), GID: int(now[1]), WasUID: int(was[0]), WasGID: int(was[1])}
	if err := u.moved(h, &c, own, old[passwdHome], move); err != nil {
		return c, err
	}
	if now[0] != was[0] {
		if err := mailGiven(h, &c, own, a.spool(u.Name)); err != nil {
			return c, err
		}
	}
	more, err := u.mounted(h, entry[passwdHome], int(now[0]), int(now[1]))
	c.first = append(c.first, more...)
	return c, err
}

// moved moves the home, or gives it to the new numbers.
func (u User) moved(h homes, c *change, own homeDeed, home string, move bool) error {
	entry, there, err := h.there(home)
	if err != nil {
		return err
	}
	if move {
		if _, taken, err := h.there(u.Home); err != nil {
			return err
		} else if taken {
			return fmt.Errorf("the home cannot be moved from %s to %s, which is there already", home, u.Home)
		}
		switch {
		case !there: // usermod goes on, and leaves the user without
			return nil
		case !entry.Mode.IsDir():
			return fmt.Errorf("the home cannot be moved: %s is no directory", home)
		}
		own.What, own.Path, own.To = "move", path.Clean(home), path.Clean(u.Home)
		c.Then = append(c.Then, own)
		return nil
	}
	if (own.UID != own.WasUID || own.GID != own.WasGID) && there && (entry.UID == own.WasUID || entry.UID == own.UID) {
		own.What, own.Path = "give", path.Clean(home)
		c.Then = append(c.Then, own)
	}
	return nil
}

// mailGiven gives the mail of a user to his new number.
func mailGiven(h homes, c *change, own homeDeed, spool string) error {
	if spool == "" {
		return nil
	}
	entry, there, err := h.there(spool)
	if err != nil || !there || entry.UID != own.WasUID {
		return err
	}
	own.What, own.Path, own.GID, own.Single = "give", spool, -1, true
	c.Then = append(c.Then, own)
	return nil
}

// password puts the hash of the wish where the user's is. One that is the same already
// is not a new one: the day of the last change stays.
func (u User) password(a *accounts, entry []string) error {
	if u.PasswordHash == nil {
		return nil
	}
	f, there := a.shadow.at(u.Name)
	if entry[passwdHash] != shadowed || !a.shadow.there {
		entry[passwdHash] = u.hash()
		if !there {
			return nil
		}
	}
	if there && f[shadowHash] == u.hash() {
		return nil
	}
	day, err := today()
	if err != nil {
		return err
	}
	if !there {
		f = make([]string, a.shadow.most)
		f[0] = u.Name
		f[shadowMin], f[shadowMax], f[shadowWarn] = ages(a)
	}
	f[shadowHash], f[shadowChanged] = u.hash(), day
	a.shadow.put(f)
	return nil
}

func errElsewhere(user string) error {
	return fmt.Errorf("the user %s is in /usr/lib/passwd alone, where nothing can be changed", user)
}

// uint32s reads ids.
func uint32s(texts ...string) (ids []uint32, err error) {
	for _, text := range texts {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, errors.New("has no number that can be used")
		}
		ids = append(ids, uint32(n))
	}
	return ids, nil
}
