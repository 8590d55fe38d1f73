package initrd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"pilotlight/initrd/disk"
)

// Filesystem wishes that a device has a file system, or a swap area. It is Ignition's
// storage.filesystems, with its rules of reuse:
//
//	there is        wipe not set                           wipe set
//	nothing         it is made                             it is made
//	what is wished  it stays                               it is made anew, once for each provision id
//	another         an error, and nothing is touched       it is made anew, once for each provision id
//
// What is wished is a type, and label and UUID where the config says them. For the format
// "none" it is that there is nothing.
//
// A file system that is half made is never taken for one: see makeFilesystem.
type Filesystem struct {
	Device  string // as the config names it
	Format  string // ext4, btrfs, xfs, vfat, swap; "" or "none" for none
	Wipe    bool
	Label   *string
	UUID    *string
	Options []string // of the mkfs program
	// Provision is the provision id.
	Provision string
}

func (f Filesystem) String() string { return fmt.Sprintf("%s on %s", f.wanted(), f.Device) }

// wanted is the wish in the words that say what is there.
func (f Filesystem) wanted() disk.Superblock {
	s := disk.Superblock{Type: f.kind()}
	if f.Label != nil {
		s.Label = *f.Label
	}
	if f.UUID != nil {
		s.UUID = *f.UUID
	}
	return s
}

// kind is the type, "" for none.
func (f Filesystem) kind() string {
	if f.Format == "none" {
		return ""
	}
	return f.Format
}

// Touches is the device as the config names it.
func (f Filesystem) Touches() []string { return []string{f.Device} }

// Reads are what may make the device: partitions, arrays and encrypted volumes.
func (f Filesystem) Reads() []string { return []string{"disks", "/partitions", "/arrays", "/volumes"} }

// Lingers says that different devices are formatted side by side.
func (f Filesystem) Lingers() bool { return true }

// ErrOccupied is the fault of a device that has something else on it.
var ErrOccupied = errors.New("wipeFilesystem is not set")

// Resolve looks at what is on the device.
func (f Filesystem) Resolve(look Look) (State, Act, error) {
	made := look.Done(f.receipt(ScopeBoot)) || look.Done(f.receipt(ScopeProvision))
	node, err := look.Node(f.Device)
	if errors.Is(err, fs.ErrNotExist) {
		if made {
			// A name such as by-label/old is gone with what had it.
			return So, nil, nil
		}
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	have, err := look.Superblock(node)
	several, ambivalent := errors.AsType[*disk.AmbivalentError](err)
	switch {
	case ambivalent:
		// As libblkid has it where it must decide, and so Ignition.
		have = several.Found[0]
	case err != nil:
		return unresolved, nil, err
	}
	clean := have == (disk.Superblock{})
	switch {
	case f.Wipe && !made && (f.kind() != "" || !clean || ambivalent):
	case f.same(have), made && have.Type == f.kind() && !have.Unfinished:
		// What this boot made is what was wished, also where mkfs understood a label or a
		// UUID in its own way.
		return So, nil, nil
	case ambivalent:
		return unresolved, nil, fmt.Errorf("%s: %w, and %s was asked for: %w", node, several, f.wanted(), ErrOccupied)
	case !have.Blank():
		return unresolved, nil, fmt.Errorf("%s has %s, and %s was asked for: %w", node, have, f.wanted(), ErrOccupied)
	}
	by, err := look.InUse(node)
	if err != nil {
		return unresolved, nil, err
	}
	if by != "" {
		return unresolved, nil, fmt.Errorf("%s is %s, and %s was asked for", node, by, f.wanted())
	}
	act := makeFilesystem{Filesystem: f, node: node, have: have}
	switch {
	case ambivalent:
		act.lost = several.Error()
	case !have.Blank():
		act.lost = have.String()
	}
	return NotSo, act, nil
}

// same says whether what is there can stay.
func (f Filesystem) same(have disk.Superblock) bool {
	if have.Type != f.kind() || have.Unfinished || have.Type == "" && have.Partitions > 0 {
		return false
	}
	label := true
	if f.Label != nil {
		// Spaces at the end are not told from none. Old versions of mkfs.fat, and other
		// systems, write capitals.
		want := strings.TrimRight(*f.Label, " \t\n\v\f\r")
		label = have.Label == want || f.Format == "vfat" && have.Label == strings.ToUpper(want)
	}
	return label && (f.UUID == nil || canonicalUUID(f.Format, have.UUID) == canonicalUUID(f.Format, *f.UUID))
}

// canonicalUUID is the form that UUIDs are compared in, and given to a mkfs program:
// letters are small, and the serial number of FAT has no dash.
func canonicalUUID(format, uuid string) string {
	uuid = strings.ToLower(uuid)
	if format == "vfat" && len(uuid) >= 5 && uuid[4] == '-' {
		uuid = uuid[:4] + uuid[5:]
	}
	return uuid
}

// receipt says that the wish was carried out: in this boot, and where it erases, with
// this provision id.
func (f Filesystem) receipt(scope Scope) Receipt {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %v %q", f.Device, f.Format, f.Wipe, f.Options)
	for _, p := range []*string{f.Label, f.UUID} {
		if p != nil {
			fmt.Fprintf(sum, " %s", strconv.Quote(*p))
		} else {
			fmt.Fprint(sum, " -")
		}
	}
	name := "filesystem:" + f.Device + ":" + hex.EncodeToString(sum.Sum(nil)[:8]) + ":" + f.Provision
	return Receipt{Name: name, Scope: scope}
}

// Needs is what makes it, and what checks it before it is mounted.
func (f Filesystem) Needs() (programs, modules []string) { return makers[f.Format], nil }
