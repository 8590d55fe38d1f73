package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"pilotlight/config/resource"
)

// KeyFile wishes that the target has the key of an encrypted volume, where its crypttab
// says: /etc/luks/NAME, for root alone. The key is what the boot that made the volume used.
type KeyFile struct {
	Root string
	Name string             // of the volume
	Key  *resource.Resource // of the config; nil: it was generated
}

// KeyFileDir is where Ignition keeps keys.
const KeyFileDir = "/etc/luks"

// Path is the file, as the target sees it.
func (k KeyFile) Path() string { return path.Join(KeyFileDir, k.Name) }

func (k KeyFile) String() string { return "key of the encrypted volume " + k.Name + " in " + k.Path() }

// Touches is the file.
func (k KeyFile) Touches() []string { return []string{path.Join("/", k.Root, k.Path())} }

// Reads is the volume.
func (k KeyFile) Reads() []string { return []string{path.Join(VolumesDir, k.Name)} }

func (k KeyFile) receipt() Receipt { return Receipt{Name: "keyfile:" + k.Root + ":" + k.Name} }

// ErrKeyLost says that a generated key would not outlive this boot.
var ErrKeyLost = errors.New("its key was generated, and /etc does not outlive this boot: give the volume a keyFile, clevis or tpm2")

// Resolve looks whether this boot wrote the file: what it would hold is nowhere else.
func (k KeyFile) Resolve(look Look) (State, Act, error) {
	entry, err := look.Stat(k.Root, k.Path())
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unresolved, nil, err
	}
	if there && look.Done(k.receipt()) && entry.Mode.IsRegular() && entry.Mode.Perm() == 0o600 && entry.UID == 0 {
		return So, nil, nil
	}
	if k.Key == nil {
		volatile, err := look.Volatile(k.Root, "/etc")
		switch {
		case err != nil:
			return unresolved, nil, err
		case volatile:
			return unresolved, nil, ErrKeyLost
		case !look.Done(keyReceipt(k.Name)):
			return After, nil, fmt.Errorf("this boot did not make the volume %s", k.Name)
		}
	}
	return NotSo, writeKey{k, before{there: there}}, nil
}

type writeKey struct {
	KeyFile
	was before
}

// Effect tells whether there is a file.
func (w writeKey) Effect() (Effect, []string) { return w.was.replaced(w.Path()) }

func (w writeKey) String() string { return "write " + w.Path() }

func (w writeKey) do(ctx context.Context, m *Machine) error {
	key, err := os.ReadFile(m.volumeKey(w.Name))
	if errors.Is(err, fs.ErrNotExist) && w.Key != nil {
		key, err = m.Client.Bytes(ctx, *w.Key)
	}
	if err != nil {
		return err
	}
	// The directory too is for root alone, where it is not there yet.
	private, file := fs.FileMode(0o700), fs.FileMode(0o600)
	look := m.Look(ctx)
	if _, err := look.Stat(w.Root, KeyFileDir); errors.Is(err, fs.ErrNotExist) {
		if err := (makeDirectory{Directory: Directory{Root: w.Root, Path: KeyFileDir, Mode: &private}}).do(ctx, m); err != nil {
			return err
		}
	}
	text := resource.NewSecret(string(key))
	f := File{Root: w.Root, Path: w.Path(), Contents: &resource.Resource{Inline: &text}, Overwrite: true, Mode: &file}
	if err := (writeFile{File: f}).do(ctx, m); err != nil {
		return err
	}
	m.leave(w.receipt())
	return nil
}
