package initrd

import "context"

// LoadModule has the kernel load a module (modprobe(8)), for a device that nobody's udev
// has found yet. One that is there already is a success.
func (m *Machine) LoadModule(ctx context.Context, module string) error {
	_, _, err := m.run(ctx, Program{Argv: []string{"modprobe", "--", module}})
	return err
}
