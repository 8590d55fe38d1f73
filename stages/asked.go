package stages

import (
	"path"
	"strings"

	"pilotlight/initrd"
)

// Asked tells which entry of the config asks for a step: the list that it is in,
// and the key and value that it is known by. Nil for a step that no single entry
// asks for.
func Asked(s initrd.Step) (list []string, key, value string) {
	switch s := s.(type) {
	case initrd.MadeAnew:
		return Asked(s.Step)
	case initrd.Repart:
		return []string{"pilotlight", "repart"}, "name", s.Name
	case initrd.Verity:
		return []string{"pilotlight", "verity"}, "name", s.Name
	case initrd.Spread:
		return []string{"pilotlight", "repart"}, "name", s.Of
	case initrd.Array:
		return []string{"storage", "raid"}, "name", s.Name
	case initrd.Volume:
		return []string{"storage", "luks"}, "name", s.Name
	case initrd.ClevisUnlocked:
		return []string{"storage", "luks"}, "name", s.Name
	case initrd.KeyFile:
		return []string{"storage", "luks"}, "name", s.Name
	case initrd.Layout:
		return []string{"storage", "disks"}, "device", s.Device
	case initrd.Luks:
		if s.Device != "" {
			return []string{"storage", "luks"}, "name", s.Name
		}
		return []string{"pilotlight", "repart"}, "name", s.Of
	case initrd.Credential:
		return []string{"pilotlight", "etc", "credentials"}, "name", s.Name
	case initrd.Filesystem:
		return []string{"storage", "filesystems"}, "device", s.Device
	case initrd.MountPoint:
		return []string{"storage", "filesystems"}, "device", s.Device
	case initrd.Mount:
		if s.What.Named {
			return []string{"storage", "filesystems"}, "device", s.What.Path
		}
		if name, ok := strings.CutPrefix(s.What.Path, "/dev/mapper/"); ok {
			return []string{"pilotlight", "verity"}, "name", name
		}
	case initrd.User:
		return []string{"passwd", "users"}, "name", s.Name
	case initrd.AuthorizedKeys:
		return []string{"passwd", "users"}, "name", s.User
	case initrd.Group:
		return []string{"passwd", "groups"}, "name", s.Name
	case initrd.Disabled:
		return []string{"systemd", "units"}, "name", s.Unit
	case initrd.Unmasked:
		return []string{"systemd", "units"}, "name", s.Unit
	case initrd.Directory:
		return []string{"storage", "directories"}, "path", s.Path
	case initrd.Link:
		return []string{"storage", "links"}, "path", s.Path
	case initrd.File:
		switch dir, name := path.Split(s.Path); dir {
		case "/etc/tmpfiles.d/":
			return []string{"pilotlight", "etc", "tmpfiles"}, "name", name
		case "/etc/sysusers.d/":
			return []string{"pilotlight", "etc", "sysusers"}, "name", name
		case initrd.NetworkDir + "/":
			return []string{"pilotlight", "network"}, "name", name
		case "/etc/systemd/system/":
			return []string{"systemd", "units"}, "name", name
		}
		return []string{"storage", "files"}, "path", s.Path
	}
	return nil, "", ""
}
