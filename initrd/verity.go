package initrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"pilotlight/initrd/disk"
)

// Verity wishes that /dev/mapper/NAME is open and holds, by its root hash, what
// the config says (dm-verity, systemd-veritysetup(8)).
type Verity struct {
	Name      string
	RootHash  string // hexadecimal, lower case
	Data      string // device path; "": the partition whose UUID is the hash's first half
	Hash      string // device path; "": the partition whose UUID is the hash's second half
	Signature []byte // PKCS#7 over the root hash, for the kernel's key ring; nil for none
	Options   []string
	// Theirs is a device that systemd opens, by a kernel argument: then it is only held
	// against the root hash.
	Theirs bool
}

func (v Verity) String() string {
	return fmt.Sprintf("%s open with root hash %s", v.mapper(), v.RootHash)
}

func (v Verity) mapper() string { return "/dev/mapper/" + v.Name }

// Touches is the mapper device, and the disks that its partitions are on.
func (v Verity) Touches() []string { return []string{v.mapper(), "disks"} }

// ErrOtherHash is the fault of a device that is open with another root hash.
var ErrOtherHash = errors.New("it is open with another root hash")

// Resolve reads the root hash from the active table of the device.
func (v Verity) Resolve(look Look) (State, Act, error) {
	_, err := look.Mapper(v.Name)
	if errors.Is(err, fs.ErrNotExist) && v.Theirs {
		return unresolved, nil, absentf("systemd did not open %s, as the kernel arguments ask for", v.mapper())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return NotSo, attach{v}, nil
	}
	if err != nil {
		return unresolved, nil, err
	}
	out, err := look.Ask(Query{Program: "dmsetup", Args: []string{"table", v.Name}})
	if err != nil {
		return unresolved, nil, err
	}
	have, err := tableRootHash(string(out))
	switch {
	case err != nil:
		return unresolved, nil, fmt.Errorf("%s: %w", v.mapper(), err)
	case have != v.RootHash:
		return unresolved, nil, fmt.Errorf("%s: %w, %s", v.mapper(), ErrOtherHash, have)
	}
	return So, nil, nil
}

// tableRootHash finds the root digest in a table line of the verity target
// (kernel, admin-guide/device-mapper/verity): start length "verity" version
// data hash data-block hash-block blocks hash-start algorithm digest salt ...
func tableRootHash(table string) (string, error) {
	f := strings.Fields(table)
	if len(f) < 13 || f[2] != "verity" {
		return "", errors.New("not a verity device")
	}
	return strings.ToLower(f[11]), nil
}

type attach struct{ Verity }

func (a attach) String() string { return "open " + a.mapper() }

// argv is the argument vector, with the devices as they were found.
func (a attach) argv(data, hash, signature string) []string {
	argv := []string{"systemd-veritysetup", "attach", a.Name, data, hash, a.RootHash}
	options := a.Options
	if signature != "" {
		options = append(options[:len(options):len(options)], "root-hash-signature="+signature)
	}
	if len(options) > 0 {
		argv = append(argv, strings.Join(options, ","))
	}
	return argv
}

func (a attach) do(ctx context.Context, m *Machine) error {
	dataUUID, hashUUID, err := VerityUUIDs(a.RootHash)
	if err != nil {
		return err
	}
	data, err := m.verityDevice(ctx, "data", a.Data, dataUUID)
	if err != nil {
		return err
	}
	hash, err := m.verityDevice(ctx, "hash", a.Hash, hashUUID)
	if err != nil {
		return err
	}
	signature := ""
	if a.Signature != nil {
		name, remove, err := m.secretFile("signature-", string(a.Signature))
		if err != nil {
			return err
		}
		defer remove()
		signature = name
	}
	_, _, err = m.run(ctx, Program{Argv: a.argv(data, hash, signature)})
	return err
}

// VerityUUIDs gives the partition UUIDs that follow from a root hash: its first
// and last 128 bits (repart.d(5), VerityMatchKey=).
func VerityUUIDs(rootHash string) (data, hash disk.GUID, err error) {
	h := rootHash
	if len(h) < 64 {
		return data, hash, fmt.Errorf("root hash %q is shorter than 256 bits", rootHash)
	}
	dashed := func(s string) string {
		return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
	}
	if data, err = disk.ParseGUID(dashed(h[:32])); err != nil {
		return data, hash, err
	}
	hash, err = disk.ParseGUID(dashed(h[len(h)-32:]))
	return data, hash, err
}

// verityDevice finds one of the two devices, and waits for it if it must.
func (m *Machine) verityDevice(ctx context.Context, role, path string, uuid disk.GUID) (string, error) {
	if path != "" {
		return waitFor(ctx, m, path, func() (string, error) {
			node, err := filepath.EvalSymlinks(path)
			return node, err
		})
	}
	what := fmt.Sprintf("the %s partition of this root hash (UUID %s)", role, uuid)
	found, err := waitFor(ctx, m, what, func() ([]disk.Found, error) { return m.partitions(uuid) })
	if err != nil {
		return "", err
	}
	one, err := disk.Only(what, found)
	return one.Partition.Node, err
}
