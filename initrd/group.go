package initrd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"pilotlight/config/resource"
)

// Group wishes that the target root has a group, or has none of that name. It is
// Ignition's passwd.groups (spec 3.x), without programs in the target; see [User].
//
// A group that is there is never changed: where it is not as wished, that is an error,
// as it is for groupadd(8) that it is there at all.
type Group struct {
	Root string
	Name string
	Gone bool // there shall be none; the rest says nothing then

	GID          *uint32          // nil: the next free one
	PasswordHash *resource.Secret // nil or empty: nobody joins by a password
	System       bool             // a number from the range of system groups; for a new group only
}

func (g Group) String() string {
	if g.Gone {
		return "no group " + g.Name
	}
	return "group " + g.Name
}

// Touches is the files of accounts.
func (g Group) Touches() []string { return accountsTouched(g.Root) }

// Reads is what accounts go by.
func (g Group) Reads() []string { return accountsRead(g.Root) }

// Resolve works out what the wish would change.
func (g Group) Resolve(look Look) (State, Act, error) {
	cut, err := interrupted(look, g.Root)
	if err != nil {
		return unresolved, nil, err
	}
	if cut {
		return NotSo, changeGroup{g, true}, nil
	}
	c, err := g.change(look)
	if err != nil {
		return unresolved, nil, err
	}
	if c.empty() {
		return So, nil, nil
	}
	return NotSo, changeGroup{g, false}, nil
}

// change is what the wish makes of the accounts.
func (g Group) change(look Look) (change, error) {
	a, err := readAccounts(look, g.Root)
	if err != nil {
		return change{}, err
	}
	if err := errors.Join(fitName("group", g.Name), a.single(g.Name, a.group, a.gshadow)); err != nil {
		return change{}, err
	}
	if g.PasswordHash != nil && strings.ContainsAny(g.PasswordHash.Reveal(), ":\n") {
		return change{}, errors.New("the password hash has a colon or a line break, which group(5) cannot hold")
	}
	entry, here := a.group.at(g.Name)
	if !here {
		entry, _ = a.moreGroups.at(g.Name)
	}
	switch {
	case g.Gone && entry == nil:
		return change{}, nil
	case g.Gone && !here:
		return change{}, fmt.Errorf("the group %s is in /usr/lib/group alone, where nothing can be changed", g.Name)
	case g.Gone:
		err = g.removed(a, entry)
	case entry != nil:
		err = g.same(a, entry)
	default:
		err = g.added(a)
	}
	if err != nil {
		return change{}, err
	}
	return change{}.written(a), nil
}

func (g Group) hash() string {
	if g.PasswordHash == nil || g.PasswordHash.Reveal() == "" {
		return "*"
	}
	return g.PasswordHash.Reveal()
}

// added is what groupadd(8) makes of the accounts.
func (g Group) added(a *accounts) (err error) {
	var gid uint32
	switch {
	case g.GID == nil:
		if gid, err = a.freeGID(g.System, nil); err != nil {
			return err
		}
	case *g.GID == 1<<32-1:
		return errors.New("a gid of 4294967295 means nobody")
	case a.gidTaken(*g.GID):
		return fmt.Errorf("the gid %d belongs to another group", *g.GID)
	default:
		gid = *g.GID
	}
	hash := g.hash()
	if a.gshadow.there {
		a.gshadow.put([]string{g.Name, hash, "", ""})
		hash = shadowed
	}
	a.group.put([]string{g.Name, hash, num(gid), ""})
	return nil
}

// same holds a group that is there against the wish. What the wish leaves open may be
// anything.
func (g Group) same(a *accounts, entry []string) error {
	if g.GID != nil && entry[groupGID] != num(*g.GID) {
		return fmt.Errorf("the group is there already, and has the gid %s", entry[groupGID])
	}
	if g.PasswordHash == nil || g.PasswordHash.Reveal() == "" {
		return nil
	}
	hash := entry[groupHash]
	if f, ok := a.gshadow.at(g.Name); ok && hash == shadowed {
		hash = f[gshadowHash]
	}
	if hash != g.hash() {
		return errors.New("the group is there already, and has another password")
	}
	return nil
}

// removed is what groupdel(8) makes of the accounts.
func (g Group) removed(a *accounts, entry []string) error {
	for _, t := range []*table{a.passwd, a.moreUsers} {
		for _, f := range t.rows() {
			if f[passwdGID] == entry[groupGID] {
				return fmt.Errorf("the group is not removed: it is the primary group of %s", f[0])
			}
		}
	}
	a.group.drop(g.Name)
	a.gshadow.drop(g.Name)
	return nil
}

type changeGroup struct {
	Group
	cut bool // a change of a run that was cut short comes first
}

// Effect tells a new group from one that is removed.
func (c changeGroup) Effect() (Effect, []string) {
	switch {
	case c.Gone:
		return Destroys, []string{"the group " + c.Name}
	case c.cut:
		return Changes, nil
	}
	return Makes, nil
}

func (c changeGroup) String() string {
	what := "make group "
	if c.Gone {
		what = "remove group "
	}
	if c.cut {
		return "finish a change of users that was cut short, " + what + c.Name
	}
	return what + c.Name
}

func (c changeGroup) do(ctx context.Context, m *Machine) error {
	return m.changeAccounts(ctx, c.Root, c.Group.change)
}
