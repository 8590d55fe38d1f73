package providers

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A SystemDir is a directory in which an image, or what prepares a boot, leaves configs
// for Ignition:
//
//	user.ign                      a config of the user's; asked before the platform is
//	base.d/NAME.ign               fragments that a user's config comes over
//	base.platform.d/ID/NAME.ign   more of them, for one platform
type SystemDir struct {
	Path string // for people
	FS   fs.FS
}

// A Fragment is a config that lies beneath the user's.
type Fragment struct {
	Answer
	Name string // of the file, with its directory: base.d/00-core.ign
}

// SystemUser gives the user's config from the first of the directories, of which the
// highest comes first, that has one. ErrNone where none has.
func SystemUser(dirs []SystemDir) (Answer, error) {
	for _, d := range dirs {
		data, err := fs.ReadFile(d.FS, "user.ign")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return Answer{Source: path.Join(d.Path, "user.ign"), Bytes: data}, d.fault(err)
	}
	return Answer{}, ErrNone
}

// SystemBase gives the fragments of all directories, in the order in which they are
// merged: those for all platforms by name, then those for one. Of files with one name
// that of the highest directory counts.
func SystemBase(dirs []SystemDir, platform string) ([]Fragment, error) {
	var list []Fragment
	for _, below := range []string{"base.d", path.Join("base.platform.d", platform)} {
		files := map[string]SystemDir{}
		var names []string
		for _, d := range dirs {
			entries, err := fs.ReadDir(d.FS, below)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, d.fault(err)
			}
			for _, e := range entries {
				if _, taken := files[e.Name()]; !taken && strings.HasSuffix(e.Name(), ".ign") {
					files[e.Name()] = d
					names = append(names, e.Name())
				}
			}
		}
		slices.Sort(names)
		for _, n := range names {
			d, name := files[n], path.Join(below, n)
			data, err := fs.ReadFile(d.FS, name)
			if err != nil {
				return nil, d.fault(err)
			}
			list = append(list, Fragment{Answer{Source: path.Join(d.Path, name), Bytes: data}, name})
		}
	}
	return list, nil
}

// fault is an error of the file system with the whole of its path.
func (d SystemDir) fault(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", d.Path, err)
}
