package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// tree is a root directory, on disk or in an archive, in which links lead where they would lead the machine that
// runs from it: absolute ones and .. stay inside.
type tree struct {
	fs fs.ReadLinkFS
}

func openTree(dir string) (tree, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return tree{}, err
	}
	if !info.IsDir() {
		return tree{}, &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	links, ok := os.DirFS(dir).(fs.ReadLinkFS)
	if !ok {
		return tree{}, fmt.Errorf("%s: %w", dir, errors.ErrUnsupported)
	}
	return tree{fs: links}, nil
}

// maxLinks is the kernel's own bound, path_resolution(7).
const maxLinks = 40

// resolve follows every link in a path. It returns the path without links, and the links that it met, in order.
func (t tree) resolve(name string) (real string, links []string, err error) {
	rest := strings.Split(name, "/")
	at := "."
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := t.fs.Lstat(next)
		if err != nil {
			return "", nil, err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			at = next
			continue
		}
		links = append(links, next)
		if len(links) > maxLinks {
			return "", nil, &fs.PathError{Op: "resolve", Path: name, Err: errors.New("too many levels of symbolic links")}
		}
		target, err := t.fs.ReadLink(next)
		if err != nil {
			return "", nil, err
		}
		if path.IsAbs(target) {
			at = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, links, nil
}

// isFile tells whether a regular file is at the end of a path.
func (t tree) isFile(name string) (bool, error) {
	real, _, err := t.resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info, err := t.fs.Lstat(real)
	if err != nil {
		return false, err
	}
	return info.Mode().IsRegular(), nil
}

// read returns the content of the file at the end of a path.
func (t tree) read(name string) ([]byte, error) {
	real, _, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(t.fs, real)
}

// list returns the names in a directory, sorted. A directory that is not there is empty.
func (t tree) list(dir string) ([]string, error) {
	real, _, err := t.resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(t.fs, real)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// programDirs are where a program's bare name is looked for. The last two are for initrds whose /usr is not merged.
var programDirs = []string{"usr/bin", "usr/sbin", "usr/lib/systemd", "bin", "sbin"}

// program finds a program by absolute path or by name. It returns "" if there is none.
func (t tree) program(name string) (string, error) {
	candidates := []string{strings.TrimPrefix(name, "/")}
	if !path.IsAbs(name) {
		candidates = candidates[:0]
		for _, dir := range programDirs {
			candidates = append(candidates, path.Join(dir, name))
		}
	}
	for _, c := range candidates {
		if ok, err := t.isFile(c); err != nil || ok {
			return c, err
		}
	}
	return "", nil
}
