package initrd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"pilotlight/config/resource"
)

// makeVolume makes a volume anew.
type makeVolume struct {
	Volume
	node string
	open bool   // something half made is unlocked still
	why  string // it is not the first one here
	lost string // what is lost, for people
}

func (a makeVolume) String() string {
	text := fmt.Sprintf("make the encrypted volume %s on %s", a.Name, a.node)
	if a.why != "" {
		text += ", " + a.why
	}
	return text
}

// Effect is what was on the device. What this program left half made is nobody's loss.
func (a makeVolume) Effect() (Effect, []string) {
	if a.lost != "" {
		return Destroys, []string{a.lost}
	}
	return Makes, nil
}

// format is Ignition's run of cryptsetup. The subsystem comes last, so that it is ours.
func (a makeVolume) format(key string) []string {
	argv := []string{"cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--key-file", key}
	if a.Label != nil && *a.Label != "" {
		argv = append(argv, "--label", *a.Label)
	}
	if a.UUID != nil && *a.UUID != "" {
		argv = append(argv, "--uuid", *a.UUID)
	}
	argv = append(argv, a.Options...)
	return append(argv, "--subsystem", a.begun(), a.node)
}

// luksOpen keeps in the header what can be kept there: programs that unlock the volume later
// have no option for discards.
func (v Volume) luksOpen(node, key string) []string {
	argv := []string{"cryptsetup", "luksOpen", node, v.Name, "--key-file", key, "--persistent"}
	if v.Discard {
		argv = append(argv, "--allow-discards")
	}
	return append(argv, v.OpenOptions...)
}

// complete gives the volume the label and the subsystem that it is to have, in one write
// of the header: from then on it is made.
func (a makeVolume) complete() []string {
	label := option(a.Options, "--label")
	if label == "" && a.Label != nil {
		label = *a.Label
	}
	return []string{"cryptsetup", "config", a.node, "--label", label, "--subsystem", option(a.Options, "--subsystem")}
}

func (v Volume) luksClose() []string { return []string{"cryptsetup", "luksClose", v.Name} }

// keyBytes is the length of a generated key. It is written in hexadecimal, since not every
// program can read other bytes from a key file.
const keyBytes = 64

// key gives the key of the config, or a new one.
func (v Volume) key(ctx context.Context, m *Machine) (resource.Secret, error) {
	if v.Key == nil {
		b := make([]byte, keyBytes)
		rand.Read(b)
		return resource.NewSecret(hex.EncodeToString(b)), nil
	}
	b, err := m.Client.Bytes(ctx, *v.Key)
	if err != nil {
		return resource.Secret{}, fmt.Errorf("keyFile: %w", err)
	}
	if len(b) == 0 {
		return resource.Secret{}, errors.New("keyFile: it is empty")
	}
	return resource.NewSecret(string(b)), nil
}

func (a makeVolume) do(ctx context.Context, m *Machine) error {
	if a.open {
		if _, _, err := m.run(ctx, Program{Argv: a.luksClose()}); err != nil {
			return err
		}
	}
	key, err := a.key(ctx, m)
	if err != nil {
		return err
	}
	if a.Clevis != nil {
		// Before anything is changed: without an answer there will be no volume.
		if err := a.Clevis.ask(ctx, m, false); err != nil {
			return err
		}
	}
	file, remove, err := m.secretFile("key-", key.Reveal())
	if err != nil {
		return err
	}
	defer remove()
	if a.Wipe {
		if _, _, err := m.run(ctx, Program{Argv: []string{"wipefs", "--all", a.node}}); err != nil {
			return err
		}
	}
	token, err := json.Marshal(a.token())
	if err != nil {
		return err
	}
	for _, p := range []Program{
		{Argv: a.format(file)},
		{Argv: []string{"cryptsetup", "token", "import", a.node}, Stdin: token},
		{Argv: a.luksOpen(a.node, file)},
	} {
		if _, _, err := m.run(ctx, p); err != nil {
			return err
		}
	}
	if err := a.bind(ctx, m, file); err != nil {
		return err
	}
	if a.Key == nil && !a.kept() {
		// The key was the way in for whoever bound the volume. Nobody shall know it.
		if _, _, err := m.run(ctx, Program{Argv: []string{"cryptsetup", "luksRemoveKey", "--batch-mode", a.node, file}}); err != nil {
			return err
		}
	}
	if err := a.handOver(m, key); err != nil {
		return err
	}
	if _, _, err := m.run(ctx, Program{Argv: a.complete()}); err != nil {
		return err
	}
	m.leave(a.receipt())
	return nil
}

// bind makes the other ways in, and goes in by them.
func (a makeVolume) bind(ctx context.Context, m *Machine, key string) error {
	switch {
	case a.Clevis != nil:
		if err := a.Clevis.bind(ctx, m, a.node, key); err != nil {
			return err
		}
		if !a.Clevis.Test {
			return nil
		}
	case a.TPM2 != nil:
		if err := a.TPM2.enrol(ctx, m, a.node, key); err != nil {
			return err
		}
	default:
		return nil
	}
	if _, _, err := m.run(ctx, Program{Argv: a.luksClose()}); err != nil {
		return err
	}
	if err := a.unlock(ctx, m, a.node); err != nil {
		return fmt.Errorf("it was bound, and then not unlocked by that: %w", err)
	}
	return nil
}

// unlock opens a volume by what it is bound to.
func (v Volume) unlock(ctx context.Context, m *Machine, node string) error {
	if v.Clevis != nil {
		return v.Clevis.unlock(ctx, m, node, v.Name)
	}
	return unlock{Luks{Name: v.Name, TPM2: true, PIN: v.TPM2.PIN}, node}.do(ctx, m)
}

// openVolume opens a volume that is there already.
type openVolume struct {
	Volume
	node string
	open bool // it is, but not by this boot's doing
}

func (a openVolume) String() string { return fmt.Sprintf("unlock %s as %s", a.node, a.Mapper()) }

// Effect: its flags are kept in the header.
func (a openVolume) Effect() (Effect, []string) { return Changes, nil }

func (a openVolume) do(ctx context.Context, m *Machine) error {
	if a.open {
		if _, _, err := m.run(ctx, Program{Argv: a.luksClose()}); err != nil {
			return err
		}
	}
	if !a.kept() {
		if a.Clevis != nil {
			if err := a.Clevis.ask(ctx, m, true); err != nil {
				return err
			}
		}
		if err := a.unlock(ctx, m, a.node); err != nil {
			return err
		}
		m.leave(a.receipt())
		return nil
	}
	key, err := a.known(ctx, m)
	if err != nil {
		return err
	}
	file, remove, err := m.secretFile("key-", key.Reveal())
	if err != nil {
		return err
	}
	defer remove()
	if _, _, err := m.run(ctx, Program{Argv: a.luksOpen(a.node, file)}); err != nil {
		return fmt.Errorf("it is an encrypted volume already, and the key of the config does not open it: %w", err)
	}
	if err := a.handOver(m, key); err != nil {
		return err
	}
	m.leave(a.receipt())
	return nil
}

// known is the key of a volume that is there: of the config, or the one that this boot generated.
func (a openVolume) known(ctx context.Context, m *Machine) (resource.Secret, error) {
	if a.Key != nil {
		return a.key(ctx, m)
	}
	b, err := os.ReadFile(m.volumeKey(a.Name))
	return resource.NewSecret(string(b)), err
}

// keyDir is where keys of volumes wait for the stage that writes them to the new root,
// below Machine.Run: in memory, and gone before switch-root.
const keyDir = "keys"

func (m *Machine) volumeKey(name string) string { return filepath.Join(m.Run, keyDir, name) }

// handOver keeps the key for the host, where the host is to have it.
func (v Volume) handOver(m *Machine, key resource.Secret) error {
	if !v.kept() {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(m.Run, keyDir), 0o700); err != nil {
		return err
	}
	if err := writeWhole(m.volumeKey(v.Name), []byte(key.Reveal()), fs.FileMode(0o600)); err != nil {
		return err
	}
	m.leave(keyReceipt(v.Name))
	return nil
}

// keyReceipt says that this boot holds the key of a volume.
func keyReceipt(name string) Receipt { return Receipt{Name: "key:" + name} }
