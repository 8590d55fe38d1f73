package initrd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"pilotlight/config/resource"
)

// Identity wishes that the target root has a machine id (machine-id(5)).
//
// PID 1 takes a root without one for a machine on its first boot: it applies all
// presets, and systemd-firstboot may wait on the console for an answer that never
// comes. Where /etc is made anew at each boot, that would be every boot. So the id
// is written here; and since PID 1 will then no longer apply the presets, they are
// applied here too, as it would have done, before the id is there.
//
// An id that is there is kept. The word "uninitialized" on an /etc that persists
// is left alone: it is how an image asks systemd for its own first boot.
type Identity struct {
	Root string
	ID   string // 32 hexadecimal digits, lower case
}

func (i Identity) String() string { return "machine id in /etc/machine-id, presets applied" }

// Touches is the target's /etc: presets may enable anything there.
func (i Identity) Touches() []string { return []string{path.Join("/", i.Root, "etc")} }

// Resolve reads /etc/machine-id.
func (i Identity) Resolve(look Look) (State, Act, error) {
	data, err := readFile(look, i.Root, "/etc/machine-id", 4096)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unresolved, nil, err
	}
	switch id := strings.TrimSpace(string(data)); {
	case validMachineID(id):
		return So, nil, nil
	case id == "uninitialized":
		volatile, err := look.Volatile(i.Root, "/etc")
		if err != nil {
			return unresolved, nil, err
		}
		if !volatile {
			return So, nil, nil
		}
	case id != "":
		return unresolved, nil, fmt.Errorf("/etc/machine-id holds something that is no machine id")
	}
	return NotSo, identify{i}, nil
}

// validMachineID is machine-id(5): 32 hexadecimal digits, not all zero.
func validMachineID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16 && strings.Trim(s, "0") != ""
}

type identify struct{ Identity }

func (i identify) String() string { return "apply presets, write /etc/machine-id" }

func (i identify) do(ctx context.Context, m *Machine) error {
	argv := []string{"systemctl", "--root=" + path.Join("/", i.Root), "preset-all", "--preset-mode=enable-only"}
	if _, _, err := m.runBelow(ctx, i.Root, Program{Argv: argv}); err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	id := resource.NewSecret(i.ID + "\n")
	file := File{Root: i.Root, Path: "/etc/machine-id", Contents: &resource.Resource{Inline: &id}, Overwrite: true, Mode: &mode}
	return writeFile{File: file}.do(ctx, m)
}
