package initrd

import (
	"context"
	"fmt"
	"path"
	"strings"
)

// Preset wishes that units are enabled or disabled as the target's preset files
// say (systemd.preset(5)). It is opaque: a receipt says that it ran. The program can
// change nothing outside of the root.
type Preset struct {
	Root  string
	Units []string
}

func (p Preset) String() string { return "presets of " + strings.Join(p.Units, ", ") }

// Touches is the target's unit configuration.
func (p Preset) Touches() []string { return []string{path.Join("/", p.Root, "etc/systemd")} }

func (p Preset) receipt() Receipt {
	return Receipt{Name: fmt.Sprintf("preset:%s:%s", p.Root, strings.Join(p.Units, ","))}
}

// Resolve looks for the receipt.
func (p Preset) Resolve(look Look) (State, Act, error) {
	if look.Done(p.receipt()) {
		return So, nil, nil
	}
	return NotSo, preset{p}, nil
}

type preset struct{ Preset }

func (p preset) String() string { return "run systemctl preset" }

func (p preset) do(ctx context.Context, m *Machine) error {
	argv := append([]string{"systemctl", "--root=" + path.Join("/", p.Root), "--no-reload", "preset"}, p.Units...)
	if _, _, err := m.runBelow(ctx, p.Root, Program{Argv: argv}); err != nil {
		return err
	}
	m.leave(p.receipt())
	return nil
}
