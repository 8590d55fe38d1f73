package stages

import (
	"path"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_5/types"

	"pilotlight/config/resource"
	"pilotlight/initrd"
)

// accounts are Ignition's passwd: groups before users, since users are in them; each
// user with the keys, before the next.
func accounts(in Input) []initrd.Step {
	root := in.Facts.Root
	var steps []initrd.Step
	for _, g := range in.Config.Ignition.Passwd.Groups {
		steps = append(steps, initrd.Group{
			Root: root, Name: g.Name, Gone: no(g.ShouldExist),
			GID: id32(g.Gid), PasswordHash: secret(g.PasswordHash), System: yes(g.System),
		})
	}
	var mounts []string
	for _, f := range in.Config.Ignition.Storage.Filesystems {
		if f.Path != nil && *f.Path != "" && f.Format != nil && *f.Format != "swap" && *f.Format != "none" {
			mounts = append(mounts, *f.Path)
		}
	}
	for _, u := range in.Config.Ignition.Passwd.Users {
		user := initrd.User{
			Root: root, Name: u.Name, Gone: no(u.ShouldExist),
			UID: id32(u.UID), PasswordHash: secret(u.PasswordHash),
			Gecos: said(u.Gecos), Home: said(u.HomeDir), PrimaryGroup: said(u.PrimaryGroup), Shell: said(u.Shell),
			// noLogInit says that lastlog and faillog have no entry for the user. Nothing
			// here ever makes one.
			NoCreateHome: yes(u.NoCreateHome), NoUserGroup: yes(u.NoUserGroup), System: yes(u.System),
			Mounts: mounts,
		}
		for _, g := range u.Groups {
			user.Groups = append(user.Groups, string(g))
		}
		steps = append(steps, user)
		if len(u.SSHAuthorizedKeys) == 0 || user.Gone {
			continue
		}
		keys := initrd.AuthorizedKeys{Root: root, User: u.Name, Home: user.Home, Layout: initrd.KeysLayout(in.Facts.AuthorizedKeys)}
		for _, k := range u.SSHAuthorizedKeys {
			keys.Keys = append(keys.Keys, string(k))
		}
		steps = append(steps, keys)
	}
	return steps
}

// homes are the directories that the users of a config live in, and those where such
// directories usually are: what an entry makes there must find the home made, or the
// user would get no skeleton.
func homes(p types.Passwd) []string {
	list := []string{"/home", "/root", "/var/home", "/var/roothome"}
	for _, u := range p.Users {
		if home := said(u.HomeDir); home != "" {
			list = append(list, path.Clean(home))
		}
	}
	return list
}

// within says whether a path is one of these directories, or below one.
func within(p string, dirs []string) bool {
	for _, d := range dirs {
		if p == d || d == "/" || strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

func no(b *bool) bool { return b != nil && !*b }

func said(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func id32(n *int) *uint32 {
	if n == nil {
		return nil
	}
	id := uint32(*n)
	return &id
}

func secret(s *string) *resource.Secret {
	if s == nil {
		return nil
	}
	hidden := resource.NewSecret(*s)
	return &hidden
}
