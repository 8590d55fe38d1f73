package initrd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"pilotlight/initrd/disk"
)

// A Record is what makes a machine provisioned: the little that looking at it
// cannot tell. It lies where it can be read before any disk is unlocked or
// mounted, on the ESP, on XBOOTLDR, or on a partition of our own type:
//
//	pilotlight/record.json   this
//	pilotlight/kept          the kept copy of the config
//
// The zero value is a machine without a record.
type Record struct {
	Version   int        `json:"version"`
	State     string     `json:"state"`     // Started or Complete
	Provision string     `json:"provision"` // the provision id, a UUID
	Platform  string     `json:"platform"`
	Config    string     `json:"config"`             // SHA-256 over the documents, hexadecimal
	Disks     []Identify `json:"disks"`              // the disk that the record lies on
	Receipts  []string   `json:"receipts,omitempty"` // of ScopeProvision
	Kept      *Kept      `json:"kept,omitempty"`
	Failures  int        `json:"failures,omitempty"` // failed boots in a row
}

// The states of a record.
const (
	Started  = "started"  // before the first step that can lose data
	Complete = "complete" // after the last step
)

// recordVersion is the version of the format that this program writes. It reads no other.
const recordVersion = 1

// Identify is what a disk is known by.
type Identify struct {
	GPT    string `json:"gpt"`              // the disk GUID
	Serial string `json:"serial,omitempty"` // the drive's own, where it has one
	WWN    string `json:"wwn,omitempty"`
}

// Memory is what earlier boots left, and where.
type Memory struct {
	Record Record
	Place  Place
	kept   []byte
}

// A Place is where a record can lie. The zero value is none: a diskless machine.
type Place struct {
	Node string
	Disk Identify
	Kind string // "ESP", "XBOOTLDR" or "state partition"
}

func (p Place) String() string {
	if p.Node == "" {
		return "nowhere"
	}
	return p.Kind + " " + p.Node
}

// RecordError says that there is a record, or a place for one, which cannot be
// read or cannot be this machine's. It stops a boot before anything is lost:
// unreadable is never taken for "not there".
type RecordError struct {
	Place Place
	Err   error
}

func (e *RecordError) Error() string { return fmt.Sprintf("record on %s: %v", e.Place, e.Err) }
func (e *RecordError) Unwrap() error { return e.Err }

// Recall finds the place of the record and reads what is there.
func (m *Machine) Recall(ctx context.Context) (Memory, error) {
	place, err := m.place(ctx)
	if err != nil || place.Node == "" {
		return Memory{}, err
	}
	return m.recall(place)
}

// recall reads what is at a place.
func (m *Machine) recall(place Place) (Memory, error) {
	memory := Memory{Place: place}
	err := m.at(place, false, func(dir string) error {
		data, err := os.ReadFile(filepath.Join(dir, "record.json"))
		if errors.Is(err, fs.ErrNotExist) {
			// Replacing a file on FAT is not one step: a crash can leave the new name alone.
			data, err = os.ReadFile(filepath.Join(dir, "record.json.new"))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if memory.Record, err = parseRecord(data, place); err != nil {
			return err
		}
		k := memory.Record.Kept
		if k == nil || k.Form == "digest" {
			return nil
		}
		if memory.kept, err = os.ReadFile(filepath.Join(dir, "kept")); err != nil {
			return err
		}
		if sum := sha256.Sum256(memory.kept); hex.EncodeToString(sum[:]) != k.SHA256 {
			return errors.New("the kept copy of the config is not the one that the record names")
		}
		return nil
	})
	if err != nil {
		return Memory{Place: place}, &RecordError{place, err}
	}
	m.memory = memory
	return memory, nil
}

// Disown forgets what the record says: this boot is a first boot, and its record
// will replace the old one.
func (m *Machine) Disown(p Place) Memory {
	m.memory = Memory{Place: p}
	return m.memory
}

// parseRecord decodes and judges a record.
func parseRecord(data []byte, place Place) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return Record{}, errors.New("something follows the record")
	}
	switch {
	case r.Version != recordVersion:
		return Record{}, fmt.Errorf("format %d is not known to this version", r.Version)
	case r.State != Started && r.State != Complete:
		return Record{}, fmt.Errorf("state %q is neither %s nor %s", r.State, Started, Complete)
	case r.Provision == "":
		return Record{}, errors.New("it has no provision id")
	case !slices.ContainsFunc(r.Disks, place.Disk.same):
		return Record{}, fmt.Errorf("it was written on another disk (%v); this one is %+v", r.Disks, place.Disk)
	}
	return r, nil
}

// same compares what both know.
func (d Identify) same(o Identify) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return d.GPT == o.GPT && !differ(d.Serial, o.Serial) && !differ(d.WWN, o.WWN)
}

// place finds where the record lies, or would lie: on XBOOTLDR or the ESP of the
// disk that we were started from; else on the one partition of our own type.
func (m *Machine) place(ctx context.Context) (Place, error) {
	boot, err := bootPartition()
	if err == nil {
		what := fmt.Sprintf("the boot partition (UUID %s)", boot)
		found, err := waitFor(ctx, m, what, func() ([]disk.Found, error) { return m.partitions(boot) })
		if err != nil {
			return Place{}, err
		}
		one, err := disk.Only(what, found)
		if err != nil {
			return Place{}, err
		}
		return m.bootPlace(one)
	}
	if !errors.Is(err, disk.ErrNotSet) {
		return Place{}, err
	}
	// Without the firmware's word no single device can be waited for: only for udev
	// to be done with what the kernel found.
	if _, err := m.Look(ctx).Ask(Query{Program: "udevadm", Args: []string{"settle", "--timeout=60"}}); err != nil {
		return Place{}, err
	}
	found, err := m.Disks.PartitionsByType(disk.TypeState())
	if err != nil {
		return Place{}, err
	}
	if len(found) == 0 {
		return Place{}, nil
	}
	one, err := disk.Only("state partition", found)
	if err != nil {
		return Place{}, err
	}
	id, err := m.identify(one)
	return Place{Node: one.Partition.Node, Disk: id, Kind: "state partition"}, err
}

// bootPlace chooses on the boot disk. XBOOTLDR first: where there is one, the ESP is small.
func (m *Machine) bootPlace(boot disk.Found) (Place, error) {
	table, err := m.Disks.Table(boot.Disk)
	if err != nil {
		return Place{}, err
	}
	chosen, kind := boot.Partition, "ESP"
	if boot.Partition.Type == disk.TypeXBOOTLDR() {
		kind = "XBOOTLDR"
	}
	for _, p := range table.Partitions {
		if p.Type == disk.TypeXBOOTLDR() && p.Node != "" {
			chosen, kind = p, "XBOOTLDR"
		}
	}
	id, err := m.identify(boot)
	return Place{Node: chosen.Node, Disk: id, Kind: kind}, err
}

func (m *Machine) identify(f disk.Found) (Identify, error) {
	table, err := m.Disks.Table(f.Disk)
	if err != nil {
		return Identify{}, err
	}
	return Identify{GPT: table.GUID.String(), Serial: f.Disk.Serial, WWN: f.Disk.WWN}, nil
}

// at mounts the place, privately and only for as long as do runs, and gives it
// our directory there.
func (m *Machine) at(p Place, write bool, do func(dir string) error) (err error) {
	point, err := os.MkdirTemp(m.Run, "place-")
	if err != nil {
		return err
	}
	defer os.Remove(point)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if !write {
		flags |= unix.MS_RDONLY
	}
	types := []string{"vfat"}
	if p.Kind != "ESP" {
		types = append(types, "ext4", "btrfs", "xfs")
	}
	for _, t := range types {
		options := ""
		if t == "vfat" {
			options = "umask=0077"
		}
		refused := unix.Mount(p.Node, point, t, flags, options)
		if refused == nil {
			err = nil
			break
		}
		if err == nil {
			err = fmt.Errorf("mount %s as %s: %w", p.Node, t, refused)
		} else {
			err = fmt.Errorf("%w, as %s: %w", err, t, refused)
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Unmount(point, 0); err == nil && uerr != nil {
			err = fmt.Errorf("unmount %s: %w", p.Node, uerr)
		}
	}()
	return do(filepath.Join(point, "pilotlight"))
}

// remember writes the record, and with kept not nil the kept copy. The copy is on
// the disk before the record names it.
func (m *Machine) remember(r Record, kept []byte) error {
	if m.memory.Place.Node == "" {
		return nil
	}
	r.Version = recordVersion
	r.Disks = []Identify{m.memory.Place.Disk}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	err = m.at(m.memory.Place, true, func(dir string) error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if kept != nil {
			if err := replaceOnDisk(filepath.Join(dir, "kept"), kept); err != nil {
				return err
			}
		}
		return replaceOnDisk(filepath.Join(dir, "record.json"), append(data, '\n'))
	})
	if err != nil {
		return &RecordError{m.memory.Place, err}
	}
	m.memory.Record = r
	if kept != nil {
		m.memory.kept = kept
	}
	return nil
}

// replaceOnDisk writes under a second name, waits for the disk, and renames.
func replaceOnDisk(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// Keep leaves a receipt, one of ScopeProvision in the record too. Without a place
// for a record it holds for this boot.
func (m *Machine) Keep(r Receipt) error {
	m.leave(r)
	record := m.memory.Record
	if r.Scope != ScopeProvision || slices.Contains(record.Receipts, r.Name) {
		return nil
	}
	record.Receipts = append(slices.Clone(record.Receipts), r.Name)
	return m.remember(record, nil)
}

// Failed counts one more failed boot in the record, and gives the new count.
// Without a record there is nothing to count in, and it is 1.
func (m *Machine) Failed() (int, error) {
	record := m.memory.Record
	if record.Provision == "" {
		return 1, nil
	}
	record.Failures++
	return record.Failures, m.remember(record, nil)
}

// Recorded wishes that the record says how far this machine is.
type Recorded struct {
	State     string
	Provision string
	Platform  string
	Config    string // digest of the documents
	Form      string // of the kept copy
	Documents []byte // what is kept, as Freeze packs it
}

func (r Recorded) String() string {
	return fmt.Sprintf("record says %s, provision %s", r.State, r.Provision)
}

// Touches is the record, and the disks, since it lies on one: what could lose data
// waits until the record says that it began.
func (r Recorded) Touches() []string { return []string{"record", "disks"} }

// ErrNoPlace says that this machine has no place for a record: each of its boots
// is a first boot.
var ErrNoPlace = errors.New("there is no ESP, XBOOTLDR or state partition for a record: every boot is a first boot")

// Resolve reads the record.
func (r Recorded) Resolve(look Look) (State, Act, error) {
	have := look.Record()
	done := r.State == Started || have.Failures == 0
	if have.State == r.State && have.Provision == r.Provision && have.Config == r.Config && done {
		return So, nil, nil
	}
	if !look.Placed() {
		return Moot, nil, ErrNoPlace
	}
	return NotSo, recorded{r}, nil
}

type recorded struct{ Recorded }

func (r recorded) String() string { return "write the record: " + r.State }

func (r recorded) do(ctx context.Context, m *Machine) error {
	next := m.memory.Record
	next.State, next.Provision, next.Platform = r.State, r.Provision, r.Platform
	next.Config = r.Config
	if r.State == Started {
		// Failed boots are counted until one is complete.
		return m.remember(next, nil)
	}
	next.Failures = 0
	if have := m.memory.Record; have.State == Complete && have.Config == r.Config && have.Kept != nil && have.Kept.Form == r.Form {
		// The copy is of this config. Another one beside a record that does not name
		// it yet is what a crash here would leave.
		return m.remember(next, nil)
	}
	kept, file, err := m.seal(ctx, r.Form, r.Documents)
	if err != nil {
		return err
	}
	next.Kept = kept
	return m.remember(next, file)
}
