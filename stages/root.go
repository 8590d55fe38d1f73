package stages

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"pilotlight/config"
	"pilotlight/initrd"
	"pilotlight/initrd/disk"
)

// Root wishes that the new root is mounted, with all that the config mounts in it.
//
// The root itself is, in this order: what the kernel arguments name, which systemd
// mounts; a tmpfs, if the config says so; a verity device that is mounted at "/"; a file
// system of the path "/" in Ignition's part; the partition of type root among
// the definitions; the one partition of type root on the disk that we were started
// from (UAPI.2, Discoverable Partitions Specification).
func Root(in Input) ([]initrd.Step, error) {
	mounts, err := mounts(in)
	if err != nil {
		return nil, err
	}
	var steps []initrd.Step
	for _, m := range mounts {
		point := strings.TrimPrefix(m.Where, in.Facts.Root)
		switch {
		case m.Where == in.Facts.Root:
		case m.What.Named:
			steps = append(steps, initrd.MountPoint{Root: in.Facts.Root, Path: point, Device: m.What.Path})
		default:
			steps = append(steps, initrd.Directory{Root: in.Facts.Root, Path: point})
		}
		steps = append(steps, m)
	}
	upper, err := upper(in, mounts)
	if err != nil {
		return nil, err
	}
	// A root that is read-only takes nothing of a config, and systemd of stage 2 needs
	// a /var.
	return append(steps,
		initrd.Writable{Root: in.Facts.Root, Path: "/var"},
		initrd.Writable{Root: in.Facts.Root, Path: "/etc", Upper: upper},
	), nil
}

// upper is where an overlay on /etc would keep its changes.
func upper(in Input, mounts []initrd.Mount) (string, error) {
	if in.Config.Pilotlight.Etc.UpperOrDefault() == config.UpperRun {
		return "/run/pilotlight/etc", nil
	}
	on := path.Join(in.Facts.Root, "var")
	if !slices.ContainsFunc(mounts, func(m initrd.Mount) bool { return m.Where == on }) {
		return "", fmt.Errorf("etc.upper is var, and the config mounts nothing at /var: give a definition MountPoint=/var")
	}
	return path.Join(on, "lib/pilotlight/etc"), nil
}

// mounts are what is mounted in the new root and by us, parents first.
func mounts(in Input) ([]initrd.Mount, error) {
	defined, err := places(in.Config)
	if err != nil {
		return nil, err
	}
	wishes := map[string]initrd.Mount{}
	chosen := map[string]place{}
	twice := map[string]error{}
	for _, p := range defined {
		other, ok := chosen[p.where]
		switch {
		case ok && other.said == p.said:
			twice[p.where] = &Error{"repart", p.entry, fmt.Errorf("more than one definition is mounted at %s: say which by MountPoint=", p.where)}
		case ok && other.said:
			continue
		default:
			delete(twice, p.where)
		}
		m := initrd.Mount{What: p.source, Type: p.types, Check: true}
		if p.option != "" {
			m.Options = strings.Split(p.option, ",")
		}
		wishes[p.where], chosen[p.where] = m, p
	}
	here, err := mountedHere(in)
	if err != nil {
		return nil, err
	}
	for where, m := range here {
		if p := chosen[where]; p.said {
			return nil, &Error{"repart", p.entry, fmt.Errorf("%s of storage.filesystems is mounted at %s too", m.What, where)}
		}
		delete(twice, where)
		wishes[where] = m
	}
	for _, v := range in.Config.Pilotlight.Verity {
		if where := v.MountOrDefault(); where != "" {
			where = path.Clean(where)
			if m, ok := here[where]; ok {
				return nil, &Error{"verity", v.Name, fmt.Errorf("%s of storage.filesystems is mounted at %s too", m.What, where)}
			}
			delete(twice, where)
			wishes[where] = initrd.Mount{
				What: initrd.Source{Path: "/dev/mapper/" + v.Name}, Options: []string{"ro"},
			}
		}
	}
	if in.Config.Pilotlight.Root == config.RootTmpfs {
		if m, ok := here["/"]; ok {
			return nil, fmt.Errorf("root is tmpfs, and %s of storage.filesystems is mounted at / too", m.What)
		}
		delete(twice, "/")
		wishes["/"] = initrd.Mount{What: initrd.Source{Bare: "tmpfs"}, Options: []string{"mode=0755"}}
		if _, ok := wishes["/usr"]; !ok && !in.Facts.SystemdUsr {
			return nil, fmt.Errorf("root is tmpfs, and nothing is mounted at /usr: name a verity device usr, or give a definition MountPoint=/usr")
		}
	}
	if _, ok := wishes["/"]; !ok {
		guid, err := disk.TypeByName("root")
		if err != nil {
			return nil, err
		}
		wishes["/"] = initrd.Mount{What: initrd.Source{Disk: initrd.Selector{Device: "boot"}, Type: guid}, Check: true}
	}
	for where, bySystemd := range map[string]bool{"/": in.Facts.SystemdRoot, "/usr": in.Facts.SystemdUsr} {
		// On the first boot a file system that the config makes for one of them is held
		// against what systemd mounted, by another name perhaps.
		if _, ok := here[where]; bySystemd && !(ok && in.Facts.Boot != Later) {
			delete(wishes, where)
		}
	}

	var order []string
	for where := range wishes {
		order = append(order, where)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(depth(a), depth(b)), strings.Compare(a, b))
	})
	var list []initrd.Mount
	for _, where := range order {
		if err := twice[where]; err != nil {
			return nil, err
		}
		m := wishes[where]
		m.Where = path.Join(in.Facts.Root, where)
		list = append(list, m)
	}
	return list, nil
}

// lasting are those of them that stage 2 must be told of. The root and /usr it
// takes as they are.
func lasting(in Input) ([]initrd.Mount, error) {
	list, err := mounts(in)
	return slices.DeleteFunc(list, func(m initrd.Mount) bool {
		// Without our section the host has mount units, or none.
		return m.What.Named && in.Config.Pilotlight.Version == "" || m.Where == in.Facts.Root || m.Where == path.Join(in.Facts.Root, "usr")
	}), err
}

// depth counts the components of an absolute, clean path.
func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}
