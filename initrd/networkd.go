package initrd

import (
	"context"
	"os"
	"path/filepath"
)

// NetworkDir is where networkd of the initrd finds what a config says of the
// network. Stage 2 would find it there too, so it is emptied before switch-root.
const NetworkDir = "/run/systemd/network"

// Networkd wishes that networkd, if it runs, has read its files since they were
// written. It is opaque: a receipt says that it was told.
type Networkd struct {
	Files []string // that were written below NetworkDir
}

func (n Networkd) String() string { return "networkd knows its files" }

// Touches is networkd's directory.
func (n Networkd) Touches() []string { return []string{NetworkDir} }

func (n Networkd) receipt() Receipt { return Receipt{Name: "networkd"} }

// Resolve looks for the receipt.
func (n Networkd) Resolve(look Look) (State, Act, error) {
	if look.Done(n.receipt()) {
		return So, nil, nil
	}
	return NotSo, reload{n}, nil
}

type reload struct{ Networkd }

func (r reload) String() string { return "reload networkd, if it runs" }

func (r reload) do(ctx context.Context, m *Machine) error {
	// networkd makes this directory when it starts; before that it needs no telling.
	if _, err := os.Stat("/run/systemd/netif/links"); err == nil {
		if _, _, err := m.run(ctx, Program{Argv: []string{"networkctl", "reload"}}); err != nil {
			return err
		}
	}
	for _, f := range r.Files {
		// networkd runs as its own user.
		if err := os.Chmod(filepath.Join(NetworkDir, f), 0o644); err != nil {
			return err
		}
	}
	m.leave(r.receipt())
	return nil
}
