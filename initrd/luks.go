package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"pilotlight/config/resource"
)

// Luks wishes that an encrypted partition is unlocked as /dev/mapper/NAME
// (systemd-cryptsetup(8)): by the TPM, or by a key. Nobody is asked for a passphrase.
type Luks struct {
	Name    string
	Of      string // the entry of the config's list repart that asks for it
	What    Source
	TPM2    bool            // by the TPM; otherwise by Key
	Key     resource.Secret // as of a key file, all bytes count
	Options []string        // in the words of crypttab(5)
}

func (l Luks) String() string { return fmt.Sprintf("%s unlocked, on %s", l.Mapper(), l.What) }

// Mapper is the device that is then there.
func (l Luks) Mapper() string { return "/dev/mapper/" + l.Name }

// Touches is the mapper device, the disks that the partition is on, and the TPM.
func (l Luks) Touches() []string { return []string{l.Mapper(), "disks", "tpm"} }

// Resolve looks at what the device is made upon and how it is encrypted. A LUKS
// header is not authenticated: one that somebody replaced may name the cipher that
// does nothing, and is refused.
func (l Luks) Resolve(look Look) (State, Act, error) {
	node, err := l.What.node(look)
	if errors.Is(err, fs.ErrNotExist) {
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	have, err := look.Mapper(l.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, unlock{l, node}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	if !strings.HasPrefix(have.UUID, "CRYPT-LUKS2-") || !slices.Equal(have.On, []string{path.Base(node)}) {
		return unresolved, nil, fmt.Errorf("%s is something else: %s on %s, and an encrypted %s was asked for",
			l.Mapper(), have.UUID, strings.Join(have.On, ", "), node)
	}
	out, err := look.Ask(Query{Program: "dmsetup", Args: []string{"table", l.Name}})
	if err != nil {
		return unresolved, nil, err
	}
	// start length "crypt" cipher key offset device ... (kernel, admin-guide/device-mapper/dm-crypt)
	f := strings.Fields(string(out))
	if len(f) < 4 || f[2] != "crypt" || strings.Contains(f[3], "null") {
		return unresolved, nil, fmt.Errorf("%s is not encrypted: its header was replaced", node)
	}
	return So, nil, nil
}

type unlock struct {
	Luks
	node string
}

func (u unlock) String() string { return fmt.Sprintf("unlock %s as %s", u.node, u.Mapper()) }

func (u unlock) argv(key string) []string {
	options := []string{"luks", "headless=yes"}
	if u.TPM2 {
		options = append(options, "tpm2-device=auto")
	}
	options = append(options, u.Options...)
	return []string{"systemd-cryptsetup", "attach", u.Name, u.node, key, strings.Join(options, ",")}
}

func (u unlock) do(ctx context.Context, m *Machine) error {
	key := "none"
	if !u.TPM2 {
		name, remove, err := m.secretFile("key-", u.Key.Reveal())
		if err != nil {
			return err
		}
		defer remove()
		key = name
	}
	_, _, err := m.run(ctx, Program{Argv: u.argv(key)})
	return err
}
