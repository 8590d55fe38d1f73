package initrd

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Frozen is all that this boot was told, as it was received. It is written once,
// by the unit that fetches, below /run/pilotlight/config; every later unit parses
// the same bytes, and none fetches them again. It is gone after switch-root.
type Frozen struct {
	Boot      string // see stages.Boot
	Platform  string
	Provision string
	Documents []Document
	// Parts are remote resources of our section that other stages must know as a
	// whole, such as repart.d files: by the hexadecimal of resource.Identity.
	Parts map[string][]byte
}

// A Document is one config as it came from outside.
type Document struct {
	Name   string
	Source string // for people, without secrets
	Bytes  []byte
}

// frozenLimit bounds a frozen config in bytes, as it is kept.
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

// A frozen config is kept as a line that says so, a line of JSON, and then the bytes of its
// documents and parts, one after the other as that line has them. They can be megabytes,
// which in base64 inside JSON would have to be encoded, checked and decoded at each reading.
//
//	pilotlight frozen 1
//	{"boot":"first", … "documents":[{"name":"user", … "size":7}],"parts":[{"name":"00ff…","size":3}]}
//	{"a":1}…
const frozenMark = "pilotlight frozen 1\n"

type frozenIndex struct {
	Boot      string           `json:"boot"`
	Platform  string           `json:"platform"`
	Provision string           `json:"provision"`
	Documents []frozenDocument `json:"documents"`
	Parts     []frozenDocument `json:"parts,omitempty"`
}

// frozenDocument is a document, or a part, whose bytes follow. A size of -1 is none at all.
type frozenDocument struct {
	Name   string `json:"name"`
	Source string `json:"source,omitempty"`
	Size   int    `json:"size"`
}

// Pack is the form in which a frozen config is kept.
func (f Frozen) Pack() ([]byte, error) {
	index := frozenIndex{Boot: f.Boot, Platform: f.Platform, Provision: f.Provision}
	var bodies [][]byte
	size := 0
	add := func(name, source string, body []byte) frozenDocument {
		bodies = append(bodies, body)
		size += len(body)
		d := frozenDocument{Name: name, Source: source, Size: len(body)}
		if body == nil {
			d.Size = -1
		}
		return d
	}
	for _, d := range f.Documents {
		index.Documents = append(index.Documents, add(d.Name, d.Source, d.Bytes))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Parts)) {
		index.Parts = append(index.Parts, add(name, "", f.Parts[name]))
	}
	line, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	all := make([]byte, 0, len(frozenMark)+len(line)+1+size)
	all = append(append(append(all, frozenMark...), line...), '\n')
	for _, body := range bodies {
		all = append(all, body...)
	}
	return all, nil
}

// errNotWhole is the fault of a frozen config of which bytes are missing, or too many.
var errNotWhole = errors.New("the frozen config is not whole")

// UnpackFrozen undoes Pack. What it gives lies in data, which must stay as it is.
func UnpackFrozen(data []byte) (Frozen, error) {
	rest, ok := bytes.CutPrefix(data, []byte(frozenMark))
	if !ok {
		return Frozen{}, errors.New("this is no frozen config, or that of another version")
	}
	line, rest, ok := bytes.Cut(rest, []byte{'\n'})
	if !ok {
		return Frozen{}, errNotWhole
	}
	var index frozenIndex
	if err := json.Unmarshal(line, &index); err != nil {
		return Frozen{}, err
	}
	f := Frozen{Boot: index.Boot, Platform: index.Platform, Provision: index.Provision}
	take := func(d frozenDocument) (body []byte, err error) {
		switch {
		case d.Size == -1:
			return nil, nil
		case d.Size < 0 || d.Size > len(rest):
			return nil, errNotWhole
		}
		body, rest = rest[:d.Size:d.Size], rest[d.Size:]
		return body, nil
	}
	for _, d := range index.Documents {
		body, err := take(d)
		if err != nil {
			return Frozen{}, err
		}
		f.Documents = append(f.Documents, Document{Name: d.Name, Source: d.Source, Bytes: body})
	}
	for _, d := range index.Parts {
		body, err := take(d)
		if err != nil {
			return Frozen{}, err
		}
		if f.Parts == nil {
			f.Parts = map[string][]byte{}
		}
		f.Parts[d.Name] = body
	}
	if len(rest) > 0 {
		return Frozen{}, errNotWhole
	}
	return f, nil
}

func (m *Machine) frozenFile() string { return filepath.Join(m.Run, "config", "frozen") }

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

// Melt removes what this boot was told, with the credentials for the initrd and the keys
// of volumes.
func (m *Machine) Melt() error {
	return errors.Join(
		os.RemoveAll(filepath.Dir(m.frozenFile())),
		os.RemoveAll(filepath.Join(m.Run, credentialDir)),
		os.RemoveAll(filepath.Join(m.Run, keyDir)),
	)
}
