package initrd

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"pilotlight/config/resource"
	"pilotlight/initrd/disk"
)

// Repart wishes that systemd-repart (systemd-repart(8)) has nothing left to do
// on a disk. The definitions are repart.d(5) files, passed through whole.
type Repart struct {
	Name         string // of the list's entry in the config
	On           Selector
	Definitions  []Definition
	Empty        string // --empty=: refuse, allow, require, force
	Seed         string // a UUID; "": derived from Provision, the disk and Name
	FactoryReset bool   // --factory-reset=yes, once for each provision id
	Provision    string // the provision id
	// PCRs are what partitions with Encrypt=tpm2 are bound to (--tpm2-pcrs=), Key is the
	// key of those with Encrypt=key-file (--key-file=).
	PCRs []int
	Key  *resource.Secret
}

// A Definition is one repart.d file.
type Definition struct {
	Name     string
	Contents []byte
}

func (r Repart) String() string {
	return fmt.Sprintf("partitions %q on %s by %d definitions", r.Name, r.On, len(r.Definitions))
}

// Touches is the disk as the config names it: two entries for one disk by two
// names are told apart only by looking, so all entries keep their order.
func (r Repart) Touches() []string { return []string{"disks"} }

// A repartRow is one line of --json=short. Only what is of use here is decoded.
type repartRow struct {
	Type     string `json:"type"`
	Label    string `json:"label"`
	UUID     string `json:"uuid"`
	Node     string `json:"node"`
	Activity string `json:"activity"`
}

// Resolve asks for a dry run. It is so if every partition is unchanged and, where
// the definitions erase something once, the receipt for that is there.
func (r Repart) Resolve(look Look) (State, Act, error) {
	d, err := look.Disk(r.On)
	if err != nil {
		return unresolved, nil, err
	}
	act := repart{Repart: r, node: d.Node, empty: r.Empty, seed: r.seed(d)}
	if r.once() {
		if look.Done(r.receipt()) {
			act.empty, act.FactoryReset = "allow", false
		} else {
			return NotSo, act, nil
		}
	}
	if ok, err := spans(look, d); err != nil {
		return unresolved, nil, err
	} else if !ok {
		return After, nil, fmt.Errorf("the partition table of %s does not span it", d.Node)
	}
	files := map[string][]byte{}
	for _, d := range r.Definitions {
		files[d.Name] = d.Contents
	}
	out, err := look.Ask(Query{Program: "systemd-repart", Args: act.args("yes", "{files}"), Files: files})
	if err != nil {
		return unresolved, nil, noRoom(err)
	}
	rows, err := parseRepart(out)
	if err != nil {
		return unresolved, nil, err
	}
	for _, row := range rows {
		if row.Activity != "unchanged" {
			act.changes = append(act.changes, row)
		}
	}
	if len(act.changes) == 0 {
		return So, nil, nil
	}
	return NotSo, act, nil
}

// once says whether the wish erases, which is an event and not a state.
func (r Repart) once() bool { return r.FactoryReset || r.Empty == "force" }

func (r Repart) receipt() Receipt {
	return Receipt{Name: "repart:" + r.Name + ":" + r.Provision, Scope: ScopeProvision}
}

// seed derives the seed of partition UUIDs: the same disk, entry and provision id
// give the same partitions.
func (r Repart) seed(d disk.Disk) string {
	if r.Seed != "" {
		return r.Seed
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "pilotlight seed %q %q %q %q", r.Provision, r.Name, d.Serial, d.WWN))
	return uuidFrom(sum[:])
}

// uuidFrom makes a version 4 UUID (RFC 9562) of the first 16 bytes.
func uuidFrom(b []byte) string {
	var g disk.GUID
	copy(g[:], b)
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g.String()
}

// parseRepart reads the JSON array. Nothing at all is "no partitions, no changes".
func parseRepart(out []byte) ([]repartRow, error) {
	var rows []repartRow
	if len(strings.TrimSpace(string(out))) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		return nil, fmt.Errorf("systemd-repart: its answer is not understood: %w", err)
	}
	return rows, nil
}

// noRoom says plainly what two exit codes of systemd-repart mean.
func noRoom(err error) error {
	var p *ProgramError
	if !errors.As(err, &p) {
		return err
	}
	switch p.Code {
	case 76:
		return fmt.Errorf("no root block device was found: %w", err)
	case 77:
		return fmt.Errorf("nothing was done, since the disk's emptiness is not what the config asks for: %w", err)
	}
	return err
}

// repart is one run of systemd-repart that writes.
type repart struct {
	Repart
	node    string
	empty   string
	seed    string
	changes []repartRow
}

func (r repart) String() string {
	var parts []string
	for _, c := range r.changes {
		name := c.Label
		if name == "" {
			name = c.Type
		}
		parts = append(parts, c.Activity+" "+name)
	}
	text := "repartition " + r.node
	if r.FactoryReset {
		text += ", ERASING the partitions marked for factory reset"
	}
	if r.empty == "force" {
		text += ", ERASING all that is on it"
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

func (r repart) args(dryRun, definitions string) []string {
	args := []string{
		"--dry-run=" + dryRun, "--empty=" + r.empty, "--definitions=" + definitions,
		// In the initrd repart would look below /sysusr or /sysroot.
		"--root=/",
		"--seed=" + r.seed, "--json=short", "--no-pager",
		// What data is bound to is said by the config alone: not by what the version of
		// systemd has for a default, nor by what keys and policies happen to lie in /run.
		"--tpm2-device=auto", "--tpm2-pcrs=" + pcrList(r.PCRs), "--tpm2-public-key-pcrs=", "--tpm2-pcrlock=",
	}
	if r.FactoryReset {
		args = append(args, "--factory-reset=yes")
	}
	return append(args, r.node)
}

// pcrList is a list of PCRs as systemd's programs take it.
func pcrList(pcrs []int) string {
	var words []string
	for _, n := range pcrs {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, "+")
}

// Effect is what is lost or changed, by the dry run's word.
func (r repart) Effect() (Effect, []string) {
	var lost []string
	if r.empty == "force" {
		lost = append(lost, "everything on "+r.node)
	}
	if r.FactoryReset {
		lost = append(lost, "the partitions of "+r.node+" whose definitions say FactoryReset=yes")
	}
	if len(lost) > 0 {
		return Destroys, lost
	}
	for _, c := range r.changes {
		if c.Activity != "create" {
			return Changes, nil
		}
	}
	return Makes, nil
}

func (r repart) do(ctx context.Context, m *Machine) error {
	dir, err := os.MkdirTemp(m.Run, "repart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := map[string][]byte{}
	for _, d := range r.Definitions {
		files[d.Name] = d.Contents
	}
	if err := fill(dir, files); err != nil {
		return err
	}
	if r.once() {
		// Before the deed: a crash in the middle must not erase a second time what
		// the first time had begun to make.
		if err := m.Keep(r.receipt()); err != nil {
			return err
		}
	}
	argv := append([]string{"systemd-repart"}, r.args("no", dir)...)
	if r.Key != nil {
		key, remove, err := m.secretFile("key-", r.Key.Reveal())
		if err != nil {
			return err
		}
		defer remove()
		argv = append(argv, "--key-file="+key)
	}
	_, _, err = m.run(ctx, Program{Argv: argv})
	return noRoom(err)
}
