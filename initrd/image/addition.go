package image

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// Addition is an addition that is made for one initrd, which it fits: it follows that one's links and keeps the modes
// of its directories, and brings what it lacks.
type Addition struct {
	// Initrd is the initrd that it is for, as [Check] reads it.
	Initrd io.Reader
	// Tree is the distribution that the initrd was made from, the root directory of a running system too. What the
	// initrd lacks for pilotlight is taken from it: programs and their libraries, units, udev's rules, kernel modules
	// with a new index, accounts. "" brings nothing.
	Tree string
	// Kernel is the version whose modules are brought where the initrd has none at all and the tree has several.
	Kernel string
	// CA are certificate authorities as in [Build]. They go into a file of their own, beside those that the initrd has.
	CA []string
	// Contents is what pilotlight needs.
	Contents Contents
}

// MismatchError says that a tree is not what an initrd was made from: a library is in both and not the same. A program
// of one with the libraries of the other may do anything.
type MismatchError struct {
	Tree string
	Path string // of the library in the initrd
	For  string // path of the program or library that would be brought
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: the initrd's own is another than that of %s, whose %s cannot be brought to it; make the initrd again from that tree", e.Path, e.Tree, e.For)
}

// Write writes the archive as [Addon] does, and returns the paths of what it brings along. Of what is in the initrd
// it replaces pilotlight's own files of an earlier addition, the index of kernel modules and the lists of accounts
// that it adds to, and nothing else.
//
// It fails with a *[TreeError] that names everything that neither has, with a *[MismatchError], and with an
// *[ArchiveError] if the initrd cannot be read. Without a tree it brings nothing, and what lacks is [Check]'s to say.
func (a Addition) Write(w io.Writer) (brought []string, err error) {
	initrd, err := readInitrd(a.Initrd)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	m := &matcher{Addition: a, initrd: initrd, payload: newPayload(), same: map[string]bool{}}
	if err := m.own(); err != nil {
		return nil, fmt.Errorf("initrd addon: %w", err)
	}
	if a.Tree != "" {
		if err := m.complete(); err != nil {
			return nil, fmt.Errorf("initrd addon: %w", err)
		}
	}
	if err := m.keepModes(); err != nil {
		return nil, fmt.Errorf("initrd addon: %w", err)
	}
	if err := m.payload.writeAddon(w); err != nil {
		return nil, fmt.Errorf("initrd addon: %w", err)
	}
	slices.Sort(m.brought)
	return m.brought, nil
}

// Join writes the initrd itself and, from the next boundary on that the kernel looks at, the addition to it. It
// returns and fails as Write does.
func (a Addition) Join(w io.Writer) (brought []string, err error) {
	initrd, err := io.ReadAll(io.LimitReader(a.Initrd, maxInitrd+1))
	if err == nil && len(initrd) > maxInitrd {
		err = errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	a.Initrd = bytes.NewReader(initrd)
	// Nothing is written before it is known that all can be.
	var addition bytes.Buffer
	if brought, err = a.Write(&addition); err != nil {
		return nil, err
	}
	joined := &padWriter{w: w}
	_, err = joined.Write(initrd)
	if err == nil {
		err = joined.pad(512)
	}
	if err == nil {
		_, err = joined.Write(addition.Bytes())
	}
	if err != nil {
		return nil, fmt.Errorf("initrd addon: %w", err)
	}
	return brought, nil
}
