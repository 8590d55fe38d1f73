package initrd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Frozen is all that this boot was told, as it was received. It is written once,
// by the unit that fetches, below /run/pilotlight/config; every later unit parses
// the same bytes, and none fetches them again. It is gone after switch-root.
type Frozen struct {
	Boot      string     `json:"boot"` // see stages.Boot
	Platform  string     `json:"platform"`
	Provision string     `json:"provision"`
	Documents []Document `json:"documents"`
	// Parts are remote resources of our section that other stages must know as a
	// whole, such as repart.d files: by the hexadecimal of resource.Identity.
	Parts map[string][]byte `json:"parts,omitempty"`
}

// A Document is one config as it came from outside.
type Document struct {
	Name   string `json:"name"`
	Source string `json:"source"` // for people, without secrets
	Bytes  []byte `json:"bytes"`
}

// frozenLimit bounds a frozen config in bytes, in its JSON form.
const frozenLimit = 64 << 20

// BasePrefix begins the names of documents that came with the initrd itself: the
// image's base fragments. They are neither measured nor kept, since each boot has
// those of its own image.
const BasePrefix = "base/"

// Outside are the documents that came from outside.
func (f Frozen) Outside() []Document {
	return slices.DeleteFunc(slices.Clone(f.Documents), func(d Document) bool { return strings.HasPrefix(d.Name, BasePrefix) })
}

// Digest is the SHA-256 over the names and bytes of the documents that came from
// outside, hexadecimal.
func (f Frozen) Digest() string {
	sum := sha256.New()
	for _, d := range f.Outside() {
		fmt.Fprintf(sum, "%q %d\n", d.Name, len(d.Bytes))
		sum.Write(d.Bytes)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Pack is the form in which a frozen config is kept.
func (f Frozen) Pack() ([]byte, error) { return json.Marshal(f) }

// UnpackFrozen undoes Pack.
func UnpackFrozen(data []byte) (Frozen, error) {
	var f Frozen
	err := json.Unmarshal(data, &f)
	return f, err
}

func (m *Machine) frozenFile() string { return filepath.Join(m.Run, "config", "frozen.json") }

// Freeze writes what this boot was told. More than can be kept is an error: a later
// boot could not read it back.
func (m *Machine) Freeze(f Frozen) error {
	data, err := f.Pack()
	if err != nil {
		return err
	}
	if len(data) > frozenLimit {
		return fmt.Errorf("the config, with all that it pulls in, takes %d bytes, more than %d", len(data), frozenLimit)
	}
	if err := os.MkdirAll(filepath.Dir(m.frozenFile()), 0o700); err != nil {
		return err
	}
	return writeWhole(m.frozenFile(), data, 0o600)
}

// ErrNotFrozen says that nothing was fetched in this boot.
var ErrNotFrozen = errors.New("no config was fetched in this boot")

// Thaw reads what this boot was told.
func (m *Machine) Thaw() (Frozen, error) {
	data, err := os.ReadFile(m.frozenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Frozen{}, ErrNotFrozen
	}
	if err != nil {
		return Frozen{}, err
	}
	return UnpackFrozen(data)
}

// Melt removes what this boot was told, with the credentials for the initrd.
func (m *Machine) Melt() error {
	return errors.Join(
		os.RemoveAll(filepath.Dir(m.frozenFile())),
		os.RemoveAll(filepath.Join(m.Run, credentialDir)),
	)
}
