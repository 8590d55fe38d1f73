package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// Mount wishes that a file system is mounted. The mount point is made if need be.
type Mount struct {
	What    Source
	Where   string // absolute, as this system sees it: /sysroot/usr
	Type    string // "": mount(8) finds out
	Options []string
	Check   bool // fsck(8) before, as systemd does for what it mounts
}

// A Source is what a Mount mounts: a device path; a partition of a disk that is
// found by its type and, where several have that type, its name; or a file system
// without a device.
type Source struct {
	Path string
	// Named says that Path is a config's, such as /dev/disk/by-label/var: the device may come
	// late, and its name later still.
	Named bool
	Bare  string // the type of a file system without a device: "tmpfs"
	Disk  Selector
	Type  disk.GUID
	Name  string
}

func (s Source) String() string {
	if s.Bare != "" {
		return s.Bare
	}
	if s.Path != "" {
		return s.Path
	}
	if s.Name != "" {
		return fmt.Sprintf("partition %q of %s", s.Name, s.Disk)
	}
	return fmt.Sprintf("partition of type %s of %s", disk.TypeName(s.Type), s.Disk)
}

func (m Mount) String() string { return fmt.Sprintf("%s mounted at %s", m.What, m.Where) }

// Touches is the mount point with all below it, and what is mounted.
func (m Mount) Touches() []string {
	switch {
	case m.What.Bare != "":
		return []string{m.Where}
	case m.What.Path != "":
		return []string{m.Where, m.What.Path}
	}
	return []string{m.Where, "disks"}
}

// Needs is what the kernel calls the type, where that is a config's word.
func (m Mount) Needs() (programs, modules []string) {
	if m.What.Named {
		modules = append(modules, m.Type)
	}
	return nil, modules
}

// Resolve compares what is mounted there with the device that is wished.
func (m Mount) Resolve(look Look) (State, Act, error) {
	node, err := m.What.node(look)
	if errors.Is(err, fs.ErrNotExist) {
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	at, err := look.Mounted(m.Where)
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, mount{m, node}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	if m.What.Bare != "" {
		if at.Type != m.What.Bare {
			return unresolved, nil, fmt.Errorf("%s is mounted at %s, and a %s was asked for", at.Source, m.Where, m.What)
		}
		return So, nil, nil
	}
	want, err := deviceAt(look, node)
	if err != nil {
		return unresolved, nil, err
	}
	have := unix.Mkdev(at.Major, at.Minor)
	if at.Major == 0 {
		// btrfs mounts by a number of its own.
		if have, err = deviceAt(look, at.Source); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unresolved, nil, err
		}
	}
	if have != want {
		return unresolved, nil, fmt.Errorf("%s is mounted at %s, and %s was asked for", at.Source, m.Where, node)
	}
	return So, nil, nil
}

// deviceAt gives the number of the device at a path, which may be a link, as those of
// device-mapper are.
func deviceAt(look Look, node string) (uint64, error) {
	entry, err := look.Stat("/", node)
	if err == nil && entry.Mode&fs.ModeSymlink != 0 {
		target := entry.Target
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(node), target)
		}
		entry, err = look.Stat("/", target)
	}
	return entry.Rdev, err
}

// node finds the device node. fs.ErrNotExist while there is none.
func (s Source) node(look Look) (string, error) {
	if s.Bare != "" {
		return s.Bare, nil
	}
	if s.Named {
		return look.Node(s.Path)
	}
	if s.Path != "" {
		if _, err := look.Stat("/", s.Path); err != nil {
			return "", err
		}
		return s.Path, nil
	}
	p, err := s.partition(look)
	if err == nil && p.Node == "" {
		err = absentf("the kernel has no node yet for %s", s)
	}
	return p.Node, err
}

// partition finds the one partition that is meant. fs.ErrNotExist while there is none.
func (s Source) partition(look Look) (disk.Partition, error) {
	d, err := look.Disk(s.Disk)
	if err != nil {
		return disk.Partition{}, err
	}
	table, err := look.Table(d)
	if errors.Is(err, disk.ErrNoTable) {
		return disk.Partition{}, absentf("%s has no partition table", d.Node)
	}
	if err != nil {
		return disk.Partition{}, err
	}
	var fit []disk.Partition
	for _, p := range table.Partitions {
		if p.Type == s.Type && (s.Name == "" || p.Name == s.Name) {
			fit = append(fit, p)
		}
	}
	switch len(fit) {
	case 0:
		return disk.Partition{}, absentf("%s has no %s", d.Node, s)
	case 1:
		return fit[0], nil
	}
	return disk.Partition{}, fmt.Errorf("%s has %d partitions that fit %s: give the definition a Label=", d.Node, len(fit), s)
}

type mount struct {
	Mount
	node string
}

func (a mount) String() string { return fmt.Sprintf("mount %s at %s", a.node, a.Where) }

func (a mount) argv() []string {
	argv := []string{"mount"}
	if a.What.Bare != "" {
		argv = append(argv, "--types", a.What.Bare)
	} else if a.Type != "" {
		argv = append(argv, "--types", a.Type)
	}
	if len(a.Options) > 0 {
		argv = append(argv, "--options", strings.Join(a.Options, ","))
	}
	return append(argv, "--source", a.node, "--target", a.Where)
}

func (a mount) do(ctx context.Context, m *Machine) error {
	if err := os.MkdirAll(a.Where, 0o755); err != nil {
		return err
	}
	if a.Check {
		if err := m.check(ctx, a.node); err != nil {
			return err
		}
	}
	if _, _, err := m.run(ctx, Program{Argv: a.argv()}); err != nil {
		return err
	}
	m.forget(a.Where)
	return nil
}

// check runs fsck by systemd's wrapper, which knows kernel arguments such as
// fsck.mode= and does nothing where there is no checker for the file system.
func (m *Machine) check(ctx context.Context, node string) error {
	_, _, err := m.run(ctx, Program{Argv: []string{"systemd-fsck", node}, OK: []int{1}})
	if err != nil {
		return fmt.Errorf("check of %s: %w", node, err)
	}
	return nil
}
