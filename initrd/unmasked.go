package initrd

import (
	"context"
	"errors"
	"io/fs"
	"path"
)

// Unmasked wishes that a unit is not masked in the target's /etc. It is mask: false of
// Ignition's systemd.units: a link to /dev/null is removed, and anything else stays.
type Unmasked struct {
	Root string
	Unit string
}

func (u Unmasked) String() string { return "unit " + u.Unit + " not masked" }

func (u Unmasked) link() Gone {
	return Gone{Root: u.Root, Path: path.Join("/etc/systemd/system", u.Unit)}
}

// Touches is the link.
func (u Unmasked) Touches() []string { return u.link().Touches() }

// Resolve looks for the link.
func (u Unmasked) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(u.Root, u.link().Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return So, nil, nil
	case err != nil:
		return unresolved, nil, err
	case entry.Mode&fs.ModeSymlink == 0 || entry.Target != "/dev/null":
		return So, nil, nil
	}
	return NotSo, unmask{u}, nil
}

type unmask struct{ Unmasked }

func (u unmask) String() string { return "unmask " + u.Unit }

// Effect: the link is no more than a setting.
func (u unmask) Effect() (Effect, []string) { return Changes, nil }

func (u unmask) do(ctx context.Context, m *Machine) error {
	return remove{Gone: u.link()}.do(ctx, m)
}
