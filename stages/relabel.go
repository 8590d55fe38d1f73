package stages

import (
	"path"
	"slices"
	"strings"

	"pilotlight/initrd"
)

// relabel wishes SELinux contexts for all that the stages root and etc write below the
// target root: what their steps touch there, and what programs put into /etc.
// It gives the steps of etc with that wish at the end. A boot labels; who writes below any
// other root makes an image, and labels that.
func relabel(in Input, etc []initrd.Step) ([]initrd.Step, error) {
	if in.Facts.Root != initrd.BootRoot {
		return etc, nil
	}
	root, err := Root(in)
	if err != nil {
		return nil, err
	}
	r := initrd.Relabel{Root: in.Facts.Root}
	for _, s := range slices.Concat(root, etc) {
		for _, name := range s.Touches() {
			if p, ok := below(r.Root, name); ok {
				r.Paths = append(r.Paths, p)
			}
		}
		switch s := bared(s).(type) {
		case initrd.Sysusers, initrd.Tmpfiles, initrd.Identity, initrd.Preset:
			r.Swept = []string{"/etc"}
		case initrd.User:
			r.Users = append(r.Users, s.Name)
		case initrd.AuthorizedKeys:
			r.Users = append(r.Users, s.User)
		case initrd.Writable:
			if p, ok := below(r.Root, s.Upper); ok {
				r.Except = append(r.Except, p)
			}
		}
	}
	slices.Sort(r.Paths)
	slices.Sort(r.Users)
	r.Paths, r.Users = slices.Compact(r.Paths), slices.Compact(r.Users)
	return append(etc, r), nil
}

// bared takes the condition of a later boot away.
func bared(s initrd.Step) initrd.Step {
	if m, ok := s.(initrd.MadeAnew); ok {
		return m.Step
	}
	return s
}

// below is a path of this system as the root sees it.
func below(root, name string) (string, bool) {
	rest, ok := strings.CutPrefix(path.Clean(name), root)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return path.Join("/", rest), true
}
