package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Unmounted wishes that nothing is mounted at a place any more.
type Unmounted struct {
	Where string // absolute, as this system sees it
}

func (u Unmounted) String() string { return "nothing mounted at " + u.Where }

// Touches is the mount point with all below it.
func (u Unmounted) Touches() []string { return []string{u.Where, "disks"} }

// Resolve looks for a mount.
func (u Unmounted) Resolve(look Look) (State, Act, error) {
	at, err := look.Mounted(u.Where)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return So, nil, nil
	case err != nil:
		return unresolved, nil, err
	}
	return NotSo, unmount{u, at.Source}, nil
}

type unmount struct {
	Unmounted
	source string
}

func (a unmount) String() string { return fmt.Sprintf("unmount %s from %s", a.source, a.Where) }

// Effect: what is mounted stays on its device.
func (a unmount) Effect() (Effect, []string) { return Changes, nil }

func (a unmount) do(_ context.Context, m *Machine) error {
	m.forget(a.Where)
	// What was written there must have arrived: nobody waits for it any more.
	if err := syncfs(a.Where); err != nil {
		return &fs.PathError{Op: "sync", Path: a.Where, Err: err}
	}
	if err := unix.Unmount(a.Where, unix.UMOUNT_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "unmount", Path: a.Where, Err: err}
	}
	return nil
}
