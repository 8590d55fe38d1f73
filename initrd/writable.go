package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// Writable wishes that a directory of the new root can be written to. On a root that
// is read-only by nature, such as one of verity, it becomes an overlay over what is
// there, or a tmpfs in its place. A root that is only mounted read-only, as without
// "rw" on the kernel command line, is mounted read-write.
type Writable struct {
	Root string // where the new root is, as this system sees it
	Path string // the directory, as the new root sees it
	// Upper is where an overlay keeps the changes, as this system sees it; "" is an
	// empty tmpfs instead of an overlay.
	Upper string
}

func (w Writable) String() string { return w.Path + " can be written" }

// Touches is the directory with all below it, and where changes are kept.
func (w Writable) Touches() []string {
	list := []string{w.where()}
	if w.Upper != "" {
		list = append(list, path.Clean(w.Upper))
	}
	return list
}

func (w Writable) where() string { return path.Join("/", w.Root, w.Path) }

// readOnlyByNature are file systems that cannot be written at all.
var readOnlyByNature = []string{"erofs", "squashfs", "cramfs", "iso9660", "romfs"}

// Resolve looks at the mount that the directory lies in.
func (w Writable) Resolve(look Look) (State, Act, error) {
	in, err := look.Within(w.where())
	if err != nil {
		return unresolved, nil, err
	}
	if !in.ReadOnly {
		return So, nil, nil
	}
	if !in.Fixed && !slices.Contains(readOnlyByNature, in.Type) {
		return NotSo, remount{w, in.Where}, nil
	}
	entry, err := look.Stat(w.Root, w.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !entry.Mode.IsDir() {
		return unresolved, nil, fmt.Errorf("the root at %s is read-only and has no directory %s", in.Where, w.Path)
	}
	if err != nil {
		return unresolved, nil, err
	}
	return NotSo, cover{w}, nil
}

// remount mounts a file system read-write that was mounted read-only.
type remount struct {
	Writable
	mount string
}

func (r remount) String() string { return fmt.Sprintf("mount %s read-write", r.mount) }

// Effect is a change.
func (r remount) Effect() (Effect, []string) { return Changes, nil }

func (r remount) do(ctx context.Context, m *Machine) error {
	_, _, err := m.run(ctx, Program{Argv: []string{"mount", "--options", "remount,rw", r.mount}})
	return err
}

// cover mounts an overlay or a tmpfs over a directory.
type cover struct{ Writable }

func (c cover) String() string {
	if c.Upper == "" {
		return fmt.Sprintf("mount a tmpfs at %s", c.where())
	}
	return fmt.Sprintf("mount an overlay at %s, with its changes in %s", c.where(), c.Upper)
}

// argv is the argument vector of mount(8).
func (c cover) argv() []string {
	if c.Upper == "" {
		return []string{"mount", "--types", "tmpfs", "--options", "mode=0755", "--source", "tmpfs", "--target", c.where()}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", c.where(), c.upper(), c.work())
	return []string{"mount", "--types", "overlay", "--options", options, "--source", "overlay", "--target", c.where()}
}

func (c cover) upper() string { return path.Join(c.Upper, "upper") }
func (c cover) work() string  { return path.Join(c.Upper, "work") }

func (c cover) do(ctx context.Context, m *Machine) error {
	if c.Upper != "" {
		// The overlay has the mode of its upper directory.
		for _, dir := range []string{c.upper(), c.work()} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	if _, _, err := m.run(ctx, Program{Argv: c.argv()}); err != nil {
		return err
	}
	m.forget(c.Root)
	return nil
}
