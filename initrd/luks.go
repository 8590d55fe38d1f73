package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"pilotlight/config/resource"
)

// Luks wishes that an encrypted partition is unlocked as /dev/mapper/NAME
// (systemd-cryptsetup(8)): by the TPM, or by a key. Nobody is asked for a passphrase.
type Luks struct {
	Name    string
	Of      string // the entry of the config's list repart that asks for it
	What    Source
	Device  string          // instead of What: a path as the config names it
	TPM2    bool            // by the TPM; otherwise by Key
	PIN     resource.Secret // beside the TPM
	Key     resource.Secret // as of a key file, all bytes count
	Options []string        // in the words of crypttab(5)
}

func (l Luks) String() string {
	if l.Device != "" {
		return fmt.Sprintf("%s unlocked, on %s", l.Mapper(), l.Device)
	}
	return fmt.Sprintf("%s unlocked, on %s", l.Mapper(), l.What)
}

// Mapper is the device that is then there.
func (l Luks) Mapper() string { return "/dev/mapper/" + l.Name }

// Touches is the mapper device, the disks that the partition is on, and the TPM.
func (l Luks) Touches() []string {
	if l.Device != "" {
		return []string{path.Join(VolumesDir, l.Name), l.Mapper(), l.Device, "tpm"}
	}
	return []string{l.Mapper(), "disks", "tpm"}
}

// Reads is whatever a device of the config may be on, under another name.
func (l Luks) Reads() []string {
	if l.Device != "" {
		return []string{"/partitions", ArraysDir}
	}
	return nil
}

// node finds the device node. fs.ErrNotExist while there is none.
func (l Luks) node(look Look) (string, error) {
	if l.Device != "" {
		return look.Node(l.Device)
	}
	return l.What.node(look)
}

// Resolve looks at what the device is made upon and how it is encrypted.
func (l Luks) Resolve(look Look) (State, Act, error) {
	node, err := l.node(look)
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
	if err := encrypts(look, l.Name, node, have); err != nil {
		return unresolved, nil, err
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
	p := Program{Argv: u.argv(key)}
	if !u.PIN.Empty() {
		// With headless it takes the PIN from there alone (systemd, src/cryptsetup/cryptsetup.c).
		p.Env = []string{"PIN=" + u.PIN.Reveal()}
	}
	_, _, err := m.run(ctx, p)
	return err
}
