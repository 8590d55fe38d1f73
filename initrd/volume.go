package initrd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// Volume wishes an encrypted volume (LUKS2) on a device, unlocked as /dev/mapper/NAME. It
// is Ignition's storage.luks, with what our section says of it.
//
// A volume is made under a subsystem that carries the provision id. The last act takes
// that away, so that what is half made is known and made again: nothing can be on it yet.
// A token in its header says who made it, and of what wish.
//
//	luksFormat ─▶ token ─▶ luksOpen ─▶ bind, enrol, recovery key ─▶ unlocked by these ─▶ generated key removed
//	└─ subsystem "pilotlight:ID" ────────────────────────────────────────────────────────────────────┘ ─▶ the config's own
//
// What only memory holds, a generated key or a recovery key that waits for the host, is
// lost with a boot that did not come to its end. Then the volume is made again too.
type Volume struct {
	Name        string
	Device      string // as the config names it
	Label, UUID *string
	Options     []string // of cryptsetup luksFormat
	OpenOptions []string // of cryptsetup luksOpen, kept in the header where that can be
	Discard     bool
	Wipe        bool               // what is on the device may be lost
	Key         *resource.Resource // as of a key file, all bytes count; nil: one is generated
	Clevis      *Clevis
	TPM2        *Enrolment
	Provision   string // the provision id
}

func (v Volume) String() string {
	return fmt.Sprintf("encrypted volume %s on %s", v.Mapper(), v.Device)
}

// Mapper is the device that is then there.
func (v Volume) Mapper() string { return "/dev/mapper/" + v.Name }

// VolumesDir is what steps touch that make a volume: a file system may be on any of them,
// by whatever path.
const VolumesDir = "/volumes"

// Touches is the mapper device and the device below, the TPM if it is needed, and the
// memory that a key derivation of the usual kind takes: a gigabyte, which not every
// machine has several of.
func (v Volume) Touches() []string {
	names := []string{path.Join(VolumesDir, v.Name), v.Mapper(), v.Device}
	if v.TPM2 != nil || v.Clevis != nil && v.Clevis.TPM2 {
		names = append(names, "tpm")
	}
	if option(v.Options, "--pbkdf") != "pbkdf2" {
		names = append(names, "memory")
	}
	return names
}

// Reads is whatever the device may be on, under another name.
func (v Volume) Reads() []string { return []string{"/partitions", ArraysDir} }

// Lingers says that a key derivation, a TPM and a server take their time.
func (v Volume) Lingers() bool { return true }

// Needs are the programs and modules that this volume needs beside those of the table.
func (v Volume) Needs() (programs, modules []string) {
	if v.Clevis != nil {
		programs = append(programs, v.Clevis.programs()...)
	}
	if v.TPM2 != nil {
		programs = append(programs, "systemd-cryptenroll", "systemd-cryptsetup")
	}
	if v.Wipe {
		programs = append(programs, "wipefs")
	}
	return programs, nil
}

// option is the value of a long option, in either of the two forms; "" where it is not given.
// The last one counts.
func option(options []string, name string) (value string) {
	for i, o := range options {
		switch v, ok := strings.CutPrefix(o, name+"="); {
		case ok:
			value = v
		case o == name && i+1 < len(options):
			value = options[i+1]
		}
	}
	return value
}

// begun is the subsystem of a volume that is half made.
func (v Volume) begun() string { return begunPrefix + v.Provision }

const begunPrefix = "pilotlight:"

// volumeToken is what the header says of who made the volume (LUKS2 On-Disk Format
// Specification, "Tokens object"). There is nothing secret in it.
type volumeToken struct {
	Type      string   `json:"type"`
	Keyslots  []string `json:"keyslots"`
	Provision string   `json:"provision"`
	Wish      string   `json:"wish"`
}

const tokenType = "pilotlight"

func (v Volume) token() volumeToken {
	return volumeToken{Type: tokenType, Keyslots: []string{}, Provision: v.Provision, Wish: v.digest()}
}

// digest is that of all of the wish that is no secret: a header can be read by anybody
// who has the disk, and a key may be short.
func (v Volume) digest() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %v %v %v ", v.Name, v.Options, v.OpenOptions, v.Discard, v.Key != nil, v.TPM2 != nil)
	for _, s := range []*string{v.Label, v.UUID} {
		if s != nil {
			fmt.Fprintf(sum, "%q", *s)
		}
		fmt.Fprint(sum, ";")
	}
	if v.Clevis != nil {
		fmt.Fprintf(sum, "%s %q", v.Clevis.Pin, v.Clevis.Config.Reveal())
	}
	if v.TPM2 != nil {
		fmt.Fprintf(sum, "%v %v %v", v.TPM2.PCRs, v.TPM2.PIN.Empty(), v.TPM2.Recovery)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// ours says whether this provision made the volume, by this wish. Without a provision id,
// as where somebody else calls the stages, only this boot can be meant.
func (v Volume) ours(look Look, l *disk.LUKS) bool {
	t, ok := v.made(l)
	return ok && t.Wish == v.digest() && (v.Provision != "" || look.Done(v.receipt()))
}

// made gives what this provision, by any wish, left in a header.
func (v Volume) made(l *disk.LUKS) (volumeToken, bool) {
	for _, raw := range l.Tokens {
		var t volumeToken
		if json.Unmarshal(raw, &t) == nil && t.Type == tokenType && t.Provision == v.Provision {
			return t, true
		}
	}
	return volumeToken{}, false
}

// receipt says that the volume was unlocked in this boot, and that what only this boot
// holds of it is there.
func (v Volume) receipt() Receipt {
	return Receipt{Name: fmt.Sprintf("volume:%s:%s:%s", v.Name, v.Provision, v.digest())}
}

// fleeting says whether the volume cannot be used by a boot that did not make it.
func (v Volume) fleeting() bool {
	return v.Clevis == nil && v.TPM2 == nil && v.Key == nil || v.TPM2 != nil && v.TPM2.Recovery.Credential != ""
}

// kept says whether the key goes to the host.
func (v Volume) kept() bool { return v.Clevis == nil && v.TPM2 == nil }

// Resolve looks at what is on the device, by Ignition's rules for its reuse.
func (v Volume) Resolve(look Look) (State, Act, error) {
	node, err := look.Node(v.Device)
	if errors.Is(err, fs.ErrNotExist) {
		return After, nil, err
	}
	if err != nil {
		return unresolved, nil, err
	}
	open, err := v.unlockedOn(look, node)
	if err != nil {
		return unresolved, nil, err
	}
	header, err := look.LUKS(node)
	if errors.Is(err, disk.ErrNoLUKS) {
		return v.onOther(look, node, open)
	}
	if err != nil {
		return unresolved, nil, err
	}
	switch {
	case header.Subsystem == v.begun():
		return NotSo, makeVolume{Volume: v, node: node, open: open, why: "which was half made"}, nil
	case v.ours(look, header) && look.Done(v.receipt()) && open:
		return So, nil, nil
	case v.ours(look, header) && !look.Done(v.receipt()) && v.fleeting():
		return NotSo, makeVolume{Volume: v, node: node, open: open, why: "whose key a boot took with it that did not come to its end"}, nil
	case v.ours(look, header):
		return NotSo, openVolume{Volume: v, node: node, open: open}, nil
	case v.Wipe:
		return NotSo, makeVolume{Volume: v, node: node, open: open, why: "in place of another", lost: "the encrypted volume on " + v.Device}, nil
	}
	if err := v.reusable(header); err != nil {
		// The config was changed since the attempt before, which did not come to its end.
		if _, ok := v.made(header); ok && v.Provision != "" && header.Version == 2 {
			return NotSo, makeVolume{Volume: v, node: node, open: open, why: "which was made by another config"}, nil
		}
		return unresolved, nil, fmt.Errorf("%s is an encrypted volume already, and %w: say wipeVolume if it may be lost", v.Device, err)
	}
	if look.Done(v.receipt()) && open {
		return So, nil, nil
	}
	return NotSo, openVolume{Volume: v, node: node, open: open}, nil
}

// onOther is for a device that is no encrypted volume.
func (v Volume) onOther(look Look, node string, open bool) (State, Act, error) {
	there, err := contentOn(look, node)
	switch {
	case err != nil:
		return unresolved, nil, err
	case there == "":
		return NotSo, makeVolume{Volume: v, node: node, open: open}, nil
	case !v.Wipe:
		return unresolved, nil, fmt.Errorf("there is %s on %s: say wipeVolume if it may be lost", there, v.Device)
	}
	return NotSo, makeVolume{Volume: v, node: node, open: open, why: "in place of " + there, lost: there + " on " + v.Device}, nil
}

// reusable says what speaks against the use of a volume that somebody else made. How it is
// bound cannot be told from the outside; a generated key cannot open it.
func (v Volume) reusable(l *disk.LUKS) error {
	switch {
	case l.Version != 2:
		return errors.New("of LUKS 1, which is not used again")
	case strings.HasPrefix(l.Subsystem, begunPrefix):
		return errors.New("half made")
	case v.Clevis != nil || v.TPM2 != nil:
		return errors.New("what it is bound to is not known")
	case v.Key == nil:
		return errors.New("the config has no key for it")
	case v.Label != nil && *v.Label != l.Label:
		return fmt.Errorf("its label is %q, not %q", l.Label, *v.Label)
	case v.UUID != nil && !strings.EqualFold(*v.UUID, l.UUID):
		return fmt.Errorf("its UUID is %s, not %s", l.UUID, *v.UUID)
	case l.HasFlag("allow-discards") != v.Discard:
		return fmt.Errorf("discards are allowed in its header: %v", l.HasFlag("allow-discards"))
	}
	return nil
}

// unlockedOn says whether there is a mapper device of that name. One that is made upon
// something else, or that encrypts nothing, is an error.
func (v Volume) unlockedOn(look Look, node string) (bool, error) {
	have, err := look.Mapper(v.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, encrypts(look, v.Name, node, have)
}

// encrypts holds a mapper device against what it should be: LUKS2, on that node, with a
// cipher. A LUKS header is not authenticated: one that somebody replaced may name the
// cipher that does nothing.
func encrypts(look Look, name, node string, have Mapper) error {
	if !strings.HasPrefix(have.UUID, "CRYPT-LUKS2-") || !slices.Equal(have.On, []string{path.Base(node)}) {
		return fmt.Errorf("/dev/mapper/%s is something else: %s on %s, and an encrypted %s was asked for",
			name, have.UUID, strings.Join(have.On, ", "), node)
	}
	out, err := look.Ask(Query{Program: "dmsetup", Args: []string{"table", name}})
	if err != nil {
		return err
	}
	// start length "crypt" cipher key offset device ... (kernel, admin-guide/device-mapper/dm-crypt)
	f := strings.Fields(string(out))
	if len(f) < 4 || f[2] != "crypt" || strings.Contains(f[3], "null") {
		return fmt.Errorf("%s is not encrypted: its header was replaced", node)
	}
	return nil
}

// contentOn says in a word what would be lost with the content of a device; "" for nothing.
func contentOn(look Look, node string) (string, error) {
	there, err := look.Superblock(node)
	if several, ok := errors.AsType[*disk.AmbivalentError](err); ok {
		return several.Error(), nil
	}
	if err != nil || there.Blank() {
		return "", err
	}
	return there.String(), nil
}
