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
	if _, _, err := m.runBelow(ctx, p.Root, Program{Argv: p.argv(p.Units)}); err != nil {
		// For one unit that is not there it does nothing for all. To name one in a config
		// is no fault: PID 1 takes its preset for no more than what it is.
		for _, u := range p.Units {
			_, said, err := m.runBelow(ctx, p.Root, Program{Argv: p.argv([]string{u})})
			switch {
			case err != nil && strings.Contains(said, "does not exist"):
				m.say("there is no unit %s to be enabled or disabled", u)
			case err != nil:
				return err
			}
		}
	}
	m.leave(p.receipt())
	return nil
}

func (p preset) argv(units []string) []string {
	return append([]string{"systemctl", "--root=" + path.Join("/", p.Root), "--no-reload", "preset"}, units...)
}
