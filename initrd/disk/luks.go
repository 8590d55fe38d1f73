package disk

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// ErrNoLUKS says that a device has no LUKS header.
var ErrNoLUKS = errors.New("no LUKS header")

// LUKS is what the header of an encrypted volume says of it. None of that is
// authenticated: whoever can write to the device can write it.
type LUKS struct {
	Version          int // 1 or 2; of 1 nothing else is read
	UUID             string
	Label, Subsystem string
	Flags            []string // that are kept in the header: "allow-discards"
	Tokens           []json.RawMessage
}

// HasFlag says whether a flag is kept in the header.
func (l *LUKS) HasFlag(name string) bool { return slices.Contains(l.Flags, name) }

// luksPrimary and luksSecondary are the magic of a header and of its copy (LUKS2 On-Disk
// Format Specification, section 2). The copy begins with another one, so that nobody
// takes it for a volume of its own.
const (
	luksPrimary   = "LUKS\xba\xbe"
	luksSecondary = "SKUL\xba\xbe"
)

// luksBinary is the part of a header before its JSON, in bytes; luksSizes are the sizes
// that a header can have with it. The copy follows immediately.
const luksBinary = 4096

var luksSizes = []int64{0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000}

// LUKS reads the header of the encrypted volume on a device. It fails with ErrNoLUKS where
// there is none, and otherwise where there was one that cannot be read any more. Where
// the two copies of a header differ, as after a power cut between them, the newer one
// that is whole counts, which is what cryptsetup goes on with.
func (s System) LUKS(node string) (*LUKS, error) {
	dev, err := s.open(node)
	if err != nil {
		return nil, &LookError{node, err}
	}
	defer dev.Close()
	l, err := ReadLUKS(dev)
	if err != nil && !errors.Is(err, ErrNoLUKS) {
		return nil, &LookError{node, err}
	}
	return l, err
}

// ReadLUKS is LUKS for a device that is open.
func ReadLUKS(dev io.ReaderAt) (*LUKS, error) {
	begin := make([]byte, 8)
	if err := readAt(dev, begin, 0); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	known := string(begin[:6]) == luksPrimary
	if known && binary.BigEndian.Uint16(begin[6:]) == 1 {
		return &LUKS{Version: 1}, nil
	}
	var best *LUKS
	var newest uint64
	var broken error
	take := func(at, size int64, magic string) {
		l, seq, err := luksHeader(dev, at, size, magic)
		switch {
		case err != nil && !errors.Is(err, ErrNoLUKS):
			broken = err
		case err == nil && (best == nil || seq > newest):
			best, newest = l, seq
		}
	}
	if known {
		take(0, 0, luksPrimary)
	}
	// Where the copy is, the size of the header tells. Without a header it may be anywhere.
	for _, size := range luksSizes {
		take(size, size, luksSecondary)
	}
	switch {
	case best != nil:
		return best, nil
	case known:
		return nil, errors.Join(errors.New("the LUKS header is damaged"), broken)
	}
	// A copy alone that is not whole: its device was given to something else since.
	return nil, ErrNoLUKS
}

// luksHeader reads one header, which says its size; want is the size that it must have, 0 for any.
func luksHeader(dev io.ReaderAt, at, want int64, magic string) (*LUKS, uint64, error) {
	b := make([]byte, luksBinary)
	if err := readAt(dev, b, at); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrNoLUKS
		}
		return nil, 0, err
	}
	size := int64(min(binary.BigEndian.Uint64(b[8:]), 1<<40))
	if string(b[:6]) != magic || binary.BigEndian.Uint16(b[6:]) != 2 || int64(binary.BigEndian.Uint64(b[256:])) != at {
		return nil, 0, ErrNoLUKS
	}
	if !slices.Contains(luksSizes, size) || want != 0 && size != want {
		return nil, 0, fmt.Errorf("a header of %d bytes", size)
	}
	whole := make([]byte, size)
	if err := readAt(dev, whole, at); err != nil {
		return nil, 0, err
	}
	var sum hash.Hash
	switch name := cString(b[72:104]); name {
	case "sha256":
		sum = sha256.New()
	case "sha512":
		sum = sha512.New()
	default:
		return nil, 0, fmt.Errorf("a checksum by %q", name)
	}
	stored := bytes.Clone(whole[448:512])
	clear(whole[448:512])
	sum.Write(whole)
	if got := sum.Sum(nil); !bytes.Equal(got, stored[:len(got)]) {
		return nil, 0, errors.New("its checksum is wrong")
	}
	var area struct {
		Tokens map[string]json.RawMessage `json:"tokens"`
		Config struct {
			Flags []string `json:"flags"`
		} `json:"config"`
	}
	text, _, _ := bytes.Cut(whole[luksBinary:], []byte{0})
	if err := json.Unmarshal(text, &area); err != nil {
		return nil, 0, fmt.Errorf("its JSON: %w", err)
	}
	l := &LUKS{
		Version: 2, Label: cString(b[24:72]), UUID: cString(b[168:208]), Subsystem: cString(b[208:256]), Flags: area.Config.Flags,
	}
	for _, t := range area.Tokens {
		l.Tokens = append(l.Tokens, t)
	}
	return l, binary.BigEndian.Uint64(b[16:]), nil
}

// readAt fills b. What ends before is io.ErrUnexpectedEOF.
func readAt(dev io.ReaderAt, b []byte, at int64) error {
	n, err := dev.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) || err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
